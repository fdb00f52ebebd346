//! Several ranks: whatever their number, a task's numbers are the same, and all ranks end together.

use std::collections::HashSet;
use std::fs;
use std::process::{Child, Command};

use crate::common::job::{
    CHECKPOINT, EACH_STEP, Job, Point, held_at, held_of_rank, holds, meeting, release,
};
use crate::common::{
    Sweep, TINY, assert_same_task, assert_same_tasks, contents, mpirun, neuralrg, outcome,
};
use neuralrg::ranks::Ranks;

const THREE_TEMPERATURES: &str = "temperatures = [2.0, 2.5, 3.0]";

/// The tiny sweep with six tasks.
fn six_tasks() -> String {
    TINY.replace("temperatures = [2.0, 3.0]", THREE_TEMPERATURES)
}

#[test]
fn task_files_do_not_depend_on_the_number_of_ranks() {
    assert_equal_on_1_2_and_3_ranks(&six_tasks(), 6);
}

#[test]
fn task_files_do_not_depend_on_the_number_of_ranks_where_tasks_start_from_others() {
    // Four chains of three temperatures each.
    let text = six_tasks()
        .replace("depths = [1, 2]", "depths = [1, 2]\nseeds = [1, 2]")
        .replace("[train]", "[train]\nstart_from = \"higher-temperature\"");
    assert_equal_on_1_2_and_3_ranks(&text, 12);
}

/// Runs a sweep alone and under MPI, where each rank waits in its first task until all have one.
fn assert_equal_on_1_2_and_3_ranks(text: &str, tasks: usize) {
    let alone = Sweep::new(text);
    alone.run().success();
    let names = alone.task_files();
    assert_eq!(names.len(), tasks);
    for ranks in [1, 2, 3] {
        let sweep = Sweep::new(text);
        let result = outcome(&mut meeting(sweep.run_with(mpirun(ranks)), &sweep, ranks));
        result.success();
        assert_eq!(sweep.task_files(), names);
        for name in &names {
            let tasks = [&sweep, &alone].map(|sweep| sweep.dir.join("tasks").join(name));
            assert_same_task(&tasks[0], &tasks[1], &[]);
        }
        let done: HashSet<&str> = result
            .stderr
            .lines()
            .filter(|line| line.contains("] task ") && line.contains(" is done: "))
            .map(|line| line.split_once("] ").expect("log lines begin with [time]").0)
            .map(|head| head.rsplit_once(' ').expect("the rank is last").1)
            .collect();
        if ranks > 1 {
            let expected: Vec<String> = (0..ranks).map(|rank| rank.to_string()).collect();
            assert_eq!(done, expected.iter().map(String::as_str).collect(), "ranks that worked");
        }
    }
}

/// Three tasks for two ranks, both held in their first ones. Rank 0 goes on when an hour has passed, more than it may take
/// while the third task waits; it pauses its own, and takes that, in whose first step it is held. So rank 1 is the one
/// that is free next, and goes on with what rank 0 has paused.
#[test]
fn paused_tasks_move_between_ranks_and_end_with_the_same_bits() {
    let text = TINY
        .replace("temperatures = [2.0, 3.0]", THREE_TEMPERATURES)
        .replace("depths = [1, 2]", "depths = [2]")
        .replace("[run]", &format!("[run]\n{EACH_STEP}"));
    let alone = Sweep::new(&text);
    alone.run().success();

    let sweep = Sweep::new(&text);
    let point = Point { path: CHECKPOINT, number: 1, later: 0 };
    let mut command = held_at(sweep.run_with(mpirun(2)), &sweep, point);
    // Rank 0 is held at every step after the first.
    let always = usize::MAX >> 1;
    command.env("POINT_FROM_0", "2").env("POINT_UNTIL_0", always.to_string());
    command.env("POINT_LEAP_0", "3600");
    let mut job = Job::start(command);
    let mut wait_for = |rank: usize| job.wait_until(|_| !held_of_rank(&sweep, rank).is_empty());
    [0, 1].into_iter().for_each(&mut wait_for);
    // The next step, after which it is saved and pauses.
    for _ in 0..2 {
        release(&held_of_rank(&sweep, 0));
        wait_for(0);
    }
    let status = sweep.look("status").success().to_owned();
    let mut states: Vec<_> =
        status.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    states.retain(|state| ["paused", "running"].contains(state));
    states.sort_unstable();
    assert_eq!(states, ["paused", "running", "running"], "{status}");
    let [paused] = events(&sweep, "task-paused").try_into().expect("one was paused");
    assert_eq!(paused.1, 0, "rank 0 has paused it");

    release(&held_of_rank(&sweep, 1));
    job.wait_until(|_| events(&sweep, "task-started").contains(&(paused.0.clone(), 1)));
    fs::remove_dir_all(holds(&sweep)).unwrap();
    let result = job.end();
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    assert_same_tasks(&sweep, &alone);
    let numbers =
        ["task-started", "task-paused", "task-done"].map(|event| events(&sweep, event).len());
    assert_eq!((numbers[0], numbers[2]), (numbers[1] + 3, 3), "{numbers:?}");
    // What was estimated is a time, and was shown: three of six steps of the training have taken an hour or more.
    let text = fs::read_to_string(sweep.dir.join("events.jsonl")).unwrap();
    let remaining = text.lines().filter_map(|line| json(line)["remaining_seconds"].as_f64());
    let remaining: Vec<f64> = remaining.collect();
    assert_eq!(remaining.len(), numbers[1]);
    assert!(
        remaining.iter().all(|seconds| (0.0..f64::INFINITY).contains(seconds)),
        "{remaining:?}"
    );
    assert!(remaining[0] > 3600.0, "{remaining:?}");
    for folder in ["claims", "checkpoints", "running"] {
        assert_eq!(fs::read_dir(sweep.dir.join(folder)).unwrap().count(), 0, "{folder}");
    }
}

fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).expect("each line is JSON")
}

/// Task and rank of all events of one kind so far.
fn events(sweep: &Sweep, event: &str) -> Vec<(String, u64)> {
    let text = fs::read_to_string(sweep.dir.join("events.jsonl")).expect("there is a log");
    // The last line may not be whole yet.
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(json);
    let those = lines.filter(|line| line["event"] == event);
    those
        .map(|line| {
            let task = line["task"].as_str().expect("it is of a task").to_owned();
            (task, line["rank"].as_u64().expect("it is of a rank"))
        })
        .collect()
}

#[test]
fn task_in_a_smaller_sweep_has_the_same_numbers_as_in_a_bigger_one() {
    let small = TINY
        .replace("temperatures = [2.0, 3.0]", "temperatures = [3.0]")
        .replace("depths = [1, 2]", "depths = [2]");
    let (small, big) = (Sweep::new(&small), Sweep::finished());
    small.run().success();
    assert_eq!(small.task_files(), ["L4_T3_d2_s1.h5"]);
    let name = "L4_T3_d2_s1";
    // What each sweep was, and nothing else, differs.
    assert_same_task(&small.task(name), &big.task(name), &["/configuration"]);
}

#[test]
fn seeds_temperatures_and_depths_give_different_numbers() {
    let text = TINY.replace("depths = [1, 2]", "depths = [1]\nseeds = [1, 2]");
    let sweep = Sweep::new(&text);
    sweep.run().success();
    let losses: HashSet<Vec<u64>> = sweep
        .task_files()
        .iter()
        .map(|name| contents(&sweep.dir.join("tasks").join(name))["/train/loss"].bits.clone())
        .collect();
    assert_eq!(losses.len(), 4);
}

#[test]
fn more_ranks_than_tasks_end_cleanly() {
    let text = TINY
        .replace("temperatures = [2.0, 3.0]", "temperatures = [3.0]")
        .replace("depths = [1, 2]", "depths = [1]");
    let sweep = Sweep::new(&text);
    outcome(&mut sweep.run_with(mpirun(3))).success();
    assert_eq!(sweep.task_files(), ["L4_T3_d1_s1.h5"]);
    // And with no task at all.
    outcome(&mut sweep.run_with(mpirun(2))).success();
}

#[test]
fn task_that_fails_on_some_rank_fails_the_job_once_all_others_are_finished() {
    let sweep = Sweep::new(&six_tasks());
    let failing = "L4_T3_d1_s1";
    let result = sweep.run_with_obstacle(mpirun(2), failing);
    assert_ne!(result.status, Some(0), "{}", result.stderr);
    assert_eq!(result.errors().len(), 1, "{}", result.stderr);
    assert!(result.errors()[0].starts_with("1 of 6 tasks failed"), "{}", result.stderr);
    assert!(sweep.dir.join(format!("failed/{failing}.txt")).exists());
    fs::remove_dir_all(sweep.task(failing)).unwrap();
    assert_eq!(sweep.task_files().len(), 5);

    outcome(&mut sweep.run_with(mpirun(2))).success();
    assert_eq!(sweep.task_files().len(), 6);
}

#[test]
fn error_before_the_work_is_told_once_and_ends_all_ranks() {
    let sweep = Sweep::new(&TINY.replace("linear_size = 4", "linear_size = 5"));
    let result = outcome(&mut sweep.run_with(mpirun(3)));
    assert_ne!(result.status, Some(0));
    assert_eq!(result.errors().len(), 1, "{}", result.stderr);
    assert!(result.errors()[0].contains("`sweep.linear_size` is 5"), "{}", result.stderr);
    assert!(!sweep.dir.exists());
}

#[test]
fn only_run_starts_mpi() {
    // A setting that makes Open MPI fail when it starts.
    let broken = |subcommand: &str, argument: &std::path::Path| {
        outcome(neuralrg().arg(subcommand).arg(argument).env("OMPI_MCA_pml", "none"))
    };
    let sweep = Sweep::finished();
    broken("check", &sweep.config).success();
    broken("plan", &sweep.config).success();
    broken("status", &sweep.dir).success();
    broken("collect", &sweep.dir).success();
}

/// What srun starts where it is not told to serve MPI.
fn process_of_slurm(sweep: &Sweep, process: usize) -> Child {
    let log = fs::File::create(sweep.folder().join(format!("process{process}.log"))).unwrap();
    let mut command = sweep.run_with(neuralrg());
    let process = process.to_string();
    command.env("SLURM_NTASKS", "2").env("SLURM_PROCID", &process).env("SLURM_LOCALID", &process);
    command.stderr(log).spawn().expect("the program starts")
}

#[test]
fn processes_of_slurm_without_mpi_share_the_folder_and_the_first_warns() {
    let sweep = Sweep::new(TINY);
    for mut process in [0, 1].map(|process| process_of_slurm(&sweep, process)) {
        assert_eq!(process.wait().unwrap().code(), Some(0));
    }
    let warnings = [0, 1].map(|process| {
        let log = fs::read_to_string(sweep.folder().join(format!("process{process}.log"))).unwrap();
        log.matches("Slurm has 2 processes here, but they know nothing of each other").count()
    });
    assert_eq!((warnings, sweep.task_files().len()), ([1, 0], 4));
    let log = fs::read_to_string(sweep.folder().join("process0.log")).unwrap();
    assert!(log.contains("srun --mpi=pmix"), "{log}");

    // Ranks of mpirun have each other, whatever Slurm has said to the script that called it.
    let mut command = sweep.run_with(mpirun(2));
    command.env("SLURM_NTASKS", "2").env("SLURM_PROCID", "0");
    let result = outcome(&mut command);
    result.success();
    assert!(!result.stderr.contains("Slurm has"), "{}", result.stderr);
}

/// Which device a process takes follows from this number.
#[test]
fn local_rank_of_a_lone_process_is_that_of_slurm() {
    let program = std::env::current_exe().expect("it runs");
    for (number, expected) in [(Some("3"), "local rank 3."), (None, "local rank 0.")] {
        let mut command = Command::new(&program);
        command.args(["--exact", "mpi::tells_its_local_rank", "--ignored", "--nocapture"]);
        command.env_remove("SLURM_LOCALID");
        command.envs(number.map(|number| ("SLURM_LOCALID", number)));
        let result = outcome(&mut command);
        assert!(result.success().contains(expected), "{}", result.stdout);
    }
}

#[test]
#[ignore = "run by local_rank_of_a_lone_process_is_that_of_slurm"]
fn tells_its_local_rank() {
    println!("local rank {}.", Ranks::alone().local_rank());
}

#[test]
fn threads_and_ranks_change_no_bit() {
    let sweep = |threads: usize| {
        let run = format!("[run]\nengine = \"native\"\nthreads = {threads}");
        // More samples than one tile of the engine, the last one not full.
        let text = TINY.replace("[run]", &run)
            + "\n[controls]\nsamplers = [\"physical\", \"fourier\", \"independence\"]\n";
        Sweep::new(&text.replace("batch = 8", "batch = 40").replace("chains = 4", "chains = 36"))
    };
    let alone = sweep(1);
    alone.run().success();
    for (threads, ranks) in [(2, 1), (3, 1), (1, 2), (1, 3)] {
        let other = sweep(threads);
        match ranks {
            1 => other.run(),
            _ => outcome(&mut other.run_with(mpirun(ranks))),
        }
        .success();
        assert_eq!(other.task_files(), alone.task_files());
        for name in alone.task_files() {
            let [a, b] = [&other, &alone].map(|sweep| sweep.dir.join("tasks").join(&name));
            // Both say how many threads there were.
            let ignored: &[&str] = if threads > 1 { &["/configuration", "/@threads"] } else { &[] };
            assert_same_task(&a, &b, ignored);
        }
    }
}
