//! Disks that fail, files that are damaged, ranks that panic: each has a defined outcome.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::job::{CHECKPOINT, EACH_STEP, Job, PROGRESS, Point, held_at, with_shim};
use crate::common::{
    Outcome, Sweep, TINY, assert_same_tasks, mpirun, neuralrg, outcome, repetitions, snapshot,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Two tasks with a checkpoint of each step, so that each kind of file is written several times.
fn two_tasks() -> String {
    TINY.replace("temperatures = [2.0, 3.0]", "temperatures = [2.0]")
        .replace("[run]", &format!("[run]\n{EACH_STEP}"))
}

/// The sweep of two tasks with the first one finished, as an unbroken run does it.
fn half_finished(unbroken: &Sweep) -> Sweep {
    let sweep = Sweep::new(&two_tasks());
    outcome(sweep.run_with(neuralrg()).args(["--task-index", "0"])).success();
    assert_eq!(sweep.task_files().len(), 1);
    assert_eq!(unbroken.task_files().len(), 2);
    sweep
}

fn unbroken() -> Sweep {
    let sweep = Sweep::new(&two_tasks());
    sweep.run().success();
    sweep
}

fn faults(sweep: &Sweep, errno: i32, from: usize, until: usize) -> Vec<(&'static str, String)> {
    vec![
        ("SHIM_ERRNO", errno.to_string()),
        ("SHIM_FROM", from.to_string()),
        ("SHIM_UNTIL", until.to_string()),
        ("SHIM_COUNT", sweep.folder().join("count").display().to_string()),
    ]
}

/// A disk that is full (or broken) from one operation on, or for one operation only, at `NEURALRG_FAULTS`
/// operations each (5 where the variable is not set) of all those that write.
#[test]
fn failing_writes_leave_no_half_file_and_lose_no_finished_task() {
    let unbroken = unbroken();
    let half = half_finished(&unbroken);
    let sweep = Sweep::new(&two_tasks());
    crate::common::copy_folder(&half.dir, &sweep.dir);
    let none = faults(&sweep, 0, 1, usize::MAX >> 1);
    outcome(&mut with_shim(sweep.run_with(neuralrg()), &sweep, &none)).success();
    let count = fs::read_to_string(sweep.folder().join("count")).unwrap();
    let count: usize = count.trim().parse().unwrap();
    assert!(count >= 30, "{count} operations");
    let points = repetitions("NEURALRG_FAULTS", 5).min(count);
    let (mut failed, mut survived) = (0, 0);
    for (errno, message) in
        [(libc::ENOSPC, "No space left on device"), (libc::EIO, "Input/output error")]
    {
        for point in 0..points {
            let from = 1 + point * count / points;
            for until in [from, usize::MAX >> 1] {
                let place = format!("errno {errno} from {from} to {until} of {count}");
                let sweep = Sweep::new(&two_tasks());
                crate::common::copy_folder(&half.dir, &sweep.dir);
                let before = snapshot(&sweep.dir.join("tasks"));
                let faults = faults(&sweep, errno, from, until);
                let command = &mut with_shim(sweep.run_with(neuralrg()), &sweep, &faults);
                let result = outcome(command);
                let after = snapshot(&sweep.dir.join("tasks"));
                for (path, content) in before {
                    assert_eq!(after[&path], content, "{place}: {}", path.display());
                }
                match result.status {
                    // Nothing but a log, a report of progress or a checkpoint was not written.
                    Some(0) => survived += 1,
                    Some(1) => {
                        failed += 1;
                        assert_eq!(result.errors().len(), 1, "{place}: {}", result.stderr);
                        assert!(result.stderr.contains(message), "{place}: {}", result.stderr);
                        let table = sweep.look("status");
                        assert!(!table.success().contains("damaged"), "{place}: {}", table.stdout);
                        let repeated = sweep.run();
                        assert_eq!(repeated.status, Some(0), "{place}: {}", repeated.stderr);
                    }
                    other => panic!("{place}: status {other:?}: {}", result.stderr),
                }
                assert_same_tasks(&sweep, &unbroken);
            }
        }
    }
    println!(
        "{count} operations; {failed} runs failed, {survived} went on; in the end all had the same tasks"
    );
}

/// Scalars of every task in the collected file, or what `collect` said against it.
fn collected(sweep: &Sweep) -> Result<BTreeMap<String, Vec<u64>>, String> {
    let result = sweep.look("collect");
    if result.status != Some(0) {
        return Err(result.stderr);
    }
    let file = hdf5::File::open(sweep.dir.join("sweep.h5")).expect("it was just written");
    let datasets = file
        .group("L4")
        .expect("it has the lattice")
        .datasets()
        .expect("members can be read")
        .into_iter();
    let timings = ["seconds", "bytes", "ess_per_second"];
    let numbers = datasets.filter(|it| !timings.iter().any(|ending| it.name().ends_with(ending)));
    let bits = |dataset: hdf5::Dataset| {
        let values = dataset.read_raw::<f64>().expect("all are numbers");
        (dataset.name(), values.into_iter().map(f64::to_bits).collect())
    };
    Ok(numbers.map(bits).collect())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = snapshot(folder).into_keys().collect();
    paths.sort();
    paths
}

/// One file of a folder with two finished tasks and one interrupted is cut or has a bit flipped, at
/// `NEURALRG_FLIPS` random places (10 where the variable is not set).
#[test]
fn damage_anywhere_is_detected_or_harmless() {
    let text = two_tasks().replace("temperatures = [2.0]", "temperatures = [2.0, 3.0]");
    let unbroken = Sweep::new(&text);
    unbroken.run().success();
    let expected = collected(&unbroken).unwrap();

    let original = Sweep::new(&text);
    for index in ["0", "1"] {
        outcome(original.run_with(neuralrg()).args(["--task-index", index])).success();
    }
    // A third one is interrupted when it has saved something twice.
    let point = Point { path: CHECKPOINT, number: 2, later: 0 };
    let mut job = Job::start(held_at(original.run_with(neuralrg()), &original, point));
    job.wait_until_held(&original, 1);
    job.signal("-TERM");
    assert_eq!(job.end().status, Some(75));
    let masked = collected(&original).unwrap();
    let originals: BTreeMap<PathBuf, Vec<u8>> =
        snapshot(&original.dir).into_iter().map(|(path, (bytes, _))| (path, bytes)).collect();
    let table = original.look("status").success().to_owned();

    let mut random = StdRng::seed_from_u64(21);
    let paths: Vec<PathBuf> =
        files(&original.dir).into_iter().filter(|path| !originals[path].is_empty()).collect();
    let (mut detected, mut harmless) = (0, 0);
    for round in 0..repetitions("NEURALRG_FLIPS", 10) {
        let sweep = Sweep::new(&text);
        crate::common::copy_folder(&original.dir, &sweep.dir);
        let path = paths.choose(&mut random).unwrap();
        let mut bytes = originals[path].clone();
        let place = random.random_range(0..bytes.len());
        let cut = random.random_bool(0.3);
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] ^= 1 << random.random_range(0..8);
        }
        let inside = path.strip_prefix(&original.dir).unwrap();
        fs::write(sweep.dir.join(inside), &bytes).unwrap();
        let told = format!("round {round}: {} at {place}, cut: {cut}", inside.display());
        let noticed = |result: &Outcome| {
            let words =
                ["damaged", "checksum", "passing over", "another configuration", "config.toml"];
            words.iter().any(|word| (result.stderr.clone() + &result.stdout).contains(word))
        };
        let status = sweep.look("status");
        let mut seen = noticed(&status);
        if status.status == Some(0) && !seen && status.stdout != table {
            // The interrupted task lost its progress file, or goes on from the checkpoint before.
            let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let lines = status.stdout.lines().zip(table.lines());
            for (line, _) in lines.filter(|(a, b)| words(a) != words(b)) {
                let lost = ["waiting", "stopped"].iter().any(|state| line.contains(state));
                assert!(lost, "{told}: {}", status.stdout);
            }
        }
        match collected(&sweep) {
            Ok(numbers) => assert!(numbers == masked, "{told}"),
            Err(message) => seen |= message.contains("damaged") || message.contains("config.toml"),
        }
        let result = sweep.run();
        seen |= noticed(&result);
        match result.status {
            Some(0) => {
                assert_same_tasks(&sweep, &unbroken);
                assert!(collected(&sweep).unwrap() == expected, "{told}");
            }
            Some(1) => {
                assert!(inside == Path::new("config.toml") && seen, "{told}: {}", result.stderr);
            }
            other => panic!("{told}: status {other:?}: {}", result.stderr),
        }
        if seen {
            detected += 1;
        } else {
            harmless += 1;
        }
    }
    println!("{} files; damage detected {detected} times, harmless {harmless} times", paths.len());
}

#[test]
fn folder_that_cannot_be_written_is_refused_but_can_be_looked_at() {
    let sweep = Sweep::finished();
    let faults = faults(&sweep, libc::EROFS, 1, usize::MAX >> 1);
    let result = outcome(&mut with_shim(sweep.run_with(neuralrg()), &sweep, &faults));
    let refusal = result.refusal();
    let expected = [&sweep.dir.display().to_string(), "Read-only file system"];
    assert!(expected.iter().all(|part| refusal.contains(*part)), "{refusal}");
    let mut status = with_shim(neuralrg(), &sweep, &faults);
    let table = outcome(status.arg("status").arg(&sweep.dir));
    assert!(table.success().contains("4 tasks: 4 done"), "{table:?}");
}

/// Rank 1 is told to do a task that does not exist, while the others are held in theirs.
#[test]
fn rank_that_panics_ends_the_job_with_one_readable_message() {
    let sweep = Sweep::new(TINY);
    let point = Point { path: PROGRESS, number: 1, later: 0 };
    let mut command = held_at(sweep.run_with(mpirun(3)), &sweep, point);
    command.env("SHIM_RECV_1", "1");
    let result = Job::start(command).end();
    assert!(!matches!(result.status, Some(0 | 75)), "{:?}", result.status);
    let panics = result.stderr.matches("panicked at ").count();
    assert_eq!(panics, 1, "{}", result.stderr);
    let told = "internal error on rank 1, see above; all ranks end";
    assert_eq!(result.stderr.matches(told).count(), 1, "{}", result.stderr);
}
