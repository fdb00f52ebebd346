//! Several jobs on one folder, and job arrays.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::common::job::{CHECKPOINT, EACH_STEP, Job, PROGRESS, Point, held_at, meeting};
use crate::common::{Sweep, TINY, assert_same_tasks, mpirun, neuralrg, outcome};

/// Six tasks, each step of which is saved.
fn six_tasks() -> String {
    TINY.replace("temperatures = [2.0, 3.0]", "temperatures = [2.0, 2.5, 3.0]")
        .replace("[run]", &format!("[run]\n{EACH_STEP}"))
}

/// Their sweep, run to its end by one job.
fn unbroken() -> Sweep {
    static UNBROKEN: OnceLock<PathBuf> = OnceLock::new();
    Sweep::finished_once(&UNBROKEN, "six-tasks", &six_tasks())
}

fn program(ranks: usize) -> Command {
    if ranks == 1 { neuralrg() } else { mpirun(ranks) }
}

/// How often each event was logged for each task.
fn events(sweep: &Sweep, event: &str) -> BTreeMap<String, usize> {
    let text = fs::read_to_string(sweep.dir.join("events.jsonl")).expect("there is a log");
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
        if value["event"] == event {
            *counts.entry(value["task"].as_str().unwrap_or_default().to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

#[track_caller]
fn assert_complete(sweep: &Sweep, unbroken: &Sweep) {
    assert_same_tasks(sweep, unbroken);
    for folder in ["claims", "jobs", "checkpoints", "running", "failed"] {
        let left = fs::read_dir(sweep.dir.join(folder)).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
}

/// Each process waits in its first task until all have one.
#[test]
fn jobs_on_one_folder_do_each_task_once() {
    for (jobs, ranks) in [(2, 1), (3, 1), (2, 2)] {
        let sweep = Sweep::new(&six_tasks());
        let command = || meeting(sweep.run_with(program(ranks)), &sweep, jobs * ranks);
        let jobs: Vec<_> = (0..jobs).map(|_| Job::start(command())).collect();
        let mut told = 0;
        for job in jobs {
            let result = job.end();
            result.success();
            assert!(result.stderr.contains(" is done: "), "{}", result.stderr);
            told += result.stderr.matches(" is done: ").count();
        }
        assert_eq!(told, 6);
        let done = events(&sweep, "task-done");
        assert!(done.len() == 6 && done.values().all(|&count| count == 1), "{done:?}");
        assert_eq!(events(&sweep, "task-started"), done);
        assert_complete(&sweep, &unbroken());
    }
}

/// The others have done all tasks but that of the job, which is held in it, when it is killed.
#[test]
fn tasks_of_a_killed_job_are_taken_over_by_the_others() {
    let sweep = Sweep::new(&six_tasks());
    // The third step is saved, and nothing is being written.
    let point = Point { path: CHECKPOINT, number: 3, later: 2 };
    let mut victim = Job::start(held_at(sweep.run_with(neuralrg()), &sweep, point));
    victim.wait_until_held(&sweep, 1);
    let mut others = [(); 2].map(|()| Job::start(sweep.run_with(neuralrg())));
    others[0].wait_until(|_| sweep.task_files().len() == 5);
    victim.signal("-KILL");
    assert_eq!(victim.end().status, None);
    let told = others.map(|job| {
        let result = job.end();
        result.success();
        result.stderr
    });
    let told = told.concat();
    assert_eq!(told.matches("is taken over from the job ").count(), 1, "{told}");
    assert!(told.contains(" goes on with train 4/6"), "{told}");
    assert!(events(&sweep, "task-done").values().all(|&count| count == 1));
    assert_complete(&sweep, &unbroken());
}

#[test]
fn task_index_runs_one_task_with_those_that_it_starts_from() {
    let sweep =
        Sweep::new(&TINY.replace("[train]", "[train]\nstart_from = \"higher-temperature\""));
    let run = |index: &str| outcome(sweep.run_with(neuralrg()).args(["--task-index", index]));
    // Temperature, then depth: task 0 starts from task 2.
    run("3").success();
    assert_eq!(sweep.task_files(), ["L4_T3_d2_s1.h5"]);
    run("0").success();
    assert_eq!(sweep.task_files(), ["L4_T2_d1_s1.h5", "L4_T3_d1_s1.h5", "L4_T3_d2_s1.h5"]);
    let refused = run("4");
    assert!(refused.refusal().contains("the sweep has 4 tasks, numbered from 0 to 3"));
    let plan = outcome(neuralrg().arg("plan").arg(&sweep.config)).success().to_owned();
    let index = plan.lines().find(|line| line.contains("L4_T3_d1_s1")).expect("it is planned");
    assert_eq!(index.split_whitespace().nth(2), Some("2"), "{plan}");

    // All elements of an array at once.
    let array = Sweep::new(TINY);
    let children: Vec<_> = (0..4)
        .map(|index| {
            let mut command = array.run_with(neuralrg());
            command
                .args(["--task-index", &index.to_string()])
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_complete(&array, &Sweep::finished());
}

/// The first job is held in the only task until it is stopped itself.
#[test]
fn job_that_waits_for_anothers_task_can_be_stopped() {
    let one = TINY
        .replace("temperatures = [2.0, 3.0]", "temperatures = [2.0]")
        .replace("depths = [1, 2]", "depths = [1]");
    let sweep = Sweep::new(&one);
    let point = Point { path: PROGRESS, number: 1, later: 0 };
    let mut first = Job::start(held_at(sweep.run_with(neuralrg()), &sweep, point));
    first.wait_until_held(&sweep, 1);
    let mut second = Job::start(sweep.run_with(neuralrg()));
    second.wait_until(|told| told.contains("rank 0 of 1"));
    second.signal("-TERM");
    let second = second.end();
    assert_eq!(second.status, Some(75), "{}", second.stderr);
    assert!(!second.stderr.contains(" begins"));
    first.signal("-TERM");
    assert_eq!(first.end().status, Some(75));
    let table = sweep.look("status").success().to_owned();
    assert!(table.contains("1 stopped"), "{table}");
}
