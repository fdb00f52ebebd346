//! Several jobs on one folder, and job arrays.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{Sweep, TINY, assert_same_tasks, mpirun, neuralrg, outcome, signal};

/// Six tasks of some tenths of a second.
fn six_tasks() -> String {
    TINY.replace("temperatures = [2.0, 3.0]", "temperatures = [2.0, 2.5, 3.0]")
        .replace("steps = 6", "steps = 2000")
        .replace("[run]", "[run]\ncheckpoint_minutes = 0.001")
}

/// Their sweep, run to its end by one job.
fn unbroken() -> Sweep {
    static UNBROKEN: OnceLock<PathBuf> = OnceLock::new();
    Sweep::finished_once(&UNBROKEN, "six-tasks", &six_tasks())
}

/// A job whose standard error goes to a file.
fn start(sweep: &Sweep, ranks: usize, number: usize) -> Child {
    let log = fs::File::create(sweep.folder().join(format!("job{number}.log"))).unwrap();
    let mut command = if ranks == 1 { neuralrg() } else { mpirun(ranks) };
    sweep.add_run(&mut command);
    command.stderr(log).stdout(Stdio::null()).spawn().expect("the program starts")
}

fn log(sweep: &Sweep, number: usize) -> String {
    fs::read_to_string(sweep.folder().join(format!("job{number}.log"))).unwrap()
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

#[test]
fn jobs_on_one_folder_do_each_task_once() {
    for (jobs, ranks) in [(2, 1), (3, 1), (2, 2)] {
        let sweep = Sweep::new(&six_tasks());
        let children: Vec<_> = (0..jobs).map(|number| start(&sweep, ranks, number)).collect();
        for (number, mut child) in children.into_iter().enumerate() {
            assert!(child.wait().unwrap().success(), "{}", log(&sweep, number));
        }
        let done = events(&sweep, "task-done");
        assert!(done.len() == 6 && done.values().all(|&count| count == 1), "{done:?}");
        assert_eq!(events(&sweep, "task-started"), done);
        let told: usize =
            (0..jobs).map(|number| log(&sweep, number).matches(" is done: ").count()).sum();
        assert_eq!(told, 6);
        assert_complete(&sweep, &unbroken());
    }
}

#[test]
fn tasks_of_a_killed_job_are_taken_over_by_the_others() {
    let sweep = Sweep::new(&six_tasks());
    let mut victim = start(&sweep, 1, 0);
    let checkpoints = sweep.dir.join("checkpoints");
    while fs::read_dir(&checkpoints).map_or(0, Iterator::count) == 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    let others: Vec<_> = (1..3).map(|number| start(&sweep, 1, number)).collect();
    signal("-KILL", &[victim.id()]);
    assert!(!victim.wait().unwrap().success());
    for (child, number) in others.into_iter().zip(1..) {
        let mut child = child;
        assert!(child.wait().unwrap().success(), "{}", log(&sweep, number));
    }
    let told = log(&sweep, 1) + &log(&sweep, 2);
    assert_eq!(told.matches("is taken over from the job ").count(), 1, "{told}");
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

#[test]
fn job_that_waits_for_anothers_task_can_be_stopped() {
    let one = TINY
        .replace("temperatures = [2.0, 3.0]", "temperatures = [2.0]")
        .replace("depths = [1, 2]", "depths = [1]")
        .replace("steps = 6", "steps = 200000");
    let sweep = Sweep::new(&one);
    let mut first = start(&sweep, 1, 0);
    while fs::read_dir(sweep.dir.join("running")).map_or(0, Iterator::count) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut second = start(&sweep, 1, 1);
    while !log(&sweep, 1).contains("rank 0 of 1") {
        std::thread::sleep(Duration::from_millis(5));
    }
    for child in [&mut second, &mut first] {
        let start = Instant::now();
        signal("-TERM", &[child.id()]);
        assert_eq!(child.wait().unwrap().code(), Some(75));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    assert!(!log(&sweep, 1).contains(" begins"));
    let table = sweep.look("status").success().to_owned();
    assert!(table.contains("1 stopped"), "{table}");
}
