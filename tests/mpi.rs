//! Several ranks: whatever their number, a task's numbers are the same, and all ranks end together.

mod common;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::process::{Child, Command};

use common::{
    Sweep, TINY, assert_same_task, assert_same_tasks, contents, descendants, mpirun, neuralrg,
    outcome, signal, watch,
};
use neuralrg::rank::Ranks;

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

/// Runs a sweep alone and under MPI; every rank must do some of it.
fn assert_equal_on_1_2_and_3_ranks(text: &str, tasks: usize) {
    let alone = Sweep::new(text);
    alone.run().success();
    let names = alone.task_files();
    assert_eq!(names.len(), tasks);
    for ranks in [1, 2, 3] {
        let sweep = Sweep::new(text);
        let result = outcome(&mut sweep.run_with(mpirun(ranks)));
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

/// Three tasks for two ranks: until the first is done one always waits, and none may run for longer than the shortest
/// slice, since the one that waits may need more than what is left for both ranks.
#[test]
fn paused_tasks_move_between_ranks_and_end_with_the_same_bits() {
    let text = TINY
        .replace("temperatures = [2.0, 3.0]", THREE_TEMPERATURES)
        .replace("depths = [1, 2]", "depths = [2]")
        .replace("steps = 6", "steps = 3000")
        .replace("[run]", "[run]\nslice_minutes = 0.001");
    let alone = Sweep::new(&text);
    alone.run().success();
    // Which rank is free first when a task may go on is up to the machine.
    let moved = (0..20).any(|_| is_moved_when_paused(&text, &alone));
    assert!(moved, "no task of 20 sweeps has moved");
}

/// Runs the sweep on two ranks, where it must end as it did alone. Whether a task was begun on both.
#[track_caller]
fn is_moved_when_paused(text: &str, alone: &Sweep) -> bool {
    let sweep = Sweep::new(text);
    let mut seen = BTreeSet::new();
    let result = watch(&mut sweep.run_with(mpirun(2)), |line, mpirun| {
        if line.contains(" pauses after ") && !seen.contains("paused") {
            // Nothing moves while one looks.
            let ranks = descendants(mpirun);
            signal("-STOP", &ranks);
            let status = sweep.look("status").success().to_owned();
            let states = status.lines().filter_map(|line| line.split_whitespace().nth(1));
            seen.extend(states.map(str::to_owned));
            signal("-CONT", &ranks);
        }
    });
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    assert!(seen.contains("paused"), "{seen:?}");
    assert_same_tasks(&sweep, alone);

    let text = fs::read_to_string(sweep.dir.join("events.jsonl")).unwrap();
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let places = |event: &str| {
        let those = events.iter().filter(|line| line["event"] == event);
        those.map(|line| (line["task"].to_string(), line["rank"].to_string())).collect::<Vec<_>>()
    };
    let (started, paused, done) =
        (places("task-started"), places("task-paused"), places("task-done"));
    assert_eq!((done.len(), started.len()), (3, paused.len() + 3), "{text}");
    // What was estimated is a time, and was shown.
    let remaining = events.iter().filter_map(|line| line["remaining_seconds"].as_f64());
    assert_eq!(remaining.filter(|&seconds| (0.0..1e4).contains(&seconds)).count(), paused.len());
    for folder in ["claims", "checkpoints", "running"] {
        assert_eq!(fs::read_dir(sweep.dir.join(folder)).unwrap().count(), 0, "{folder}");
    }
    started.into_iter().collect::<HashSet<_>>().len() > 3
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
        command.args(["--exact", "tells_its_local_rank", "--ignored", "--nocapture"]);
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
