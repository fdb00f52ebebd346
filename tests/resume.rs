//! Interrupted tasks: a resumed run repeats the unbroken one to the bit.

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use common::{
    Outcome, Sweep, TINY, TINY_TASKS, assert_same_tasks, descendants, mpirun, neuralrg, outcome,
    signal, watch,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Exit status of a job that a signal stopped.
const TO_BE_CONTINUED: Option<i32> = Some(75);

/// Samples that the evaluation draws at a time.
const EVALUATION_BATCH: i64 = 4;

/// Most interruptions of one small sweep, after which it is left to end: on a slow machine each might let it do one
/// step only. The first ones come as soon as a task has begun, since on a fast machine it might end before others.
const INTERRUPTIONS: usize = 6;
const EARLY_INTERRUPTIONS: usize = 3;

/// The tiny sweep with enough steps to interrupt each stage, saved only when asked to.
fn longer(engine: &str) -> String {
    TINY.replace("steps = 6", "steps = 400\naveraging = 0.9")
        .replace("samples = 64\nbatch = 64", &format!("samples = 640\nbatch = {EVALUATION_BATCH}"))
        .replace("warmup = 4", "warmup = 100")
        .replace("trajectories = 10", "trajectories = 100")
        .replace("[run]", &format!("[run]\ncheckpoint_minutes = 0\nengine = \"{engine}\""))
}

/// The same, saved about twenty times a second.
fn saved_often() -> String {
    longer("native")
        .replace("checkpoint_minutes = 0\n", "checkpoint_minutes = 0.001\n")
        .replace("steps = 400", "steps = 3000")
}

/// A sweep that [`saved_often`] describes, run to its end without interruption.
fn unbroken() -> Sweep {
    static UNBROKEN: OnceLock<PathBuf> = OnceLock::new();
    Sweep::finished_once(&UNBROKEN, "saved-often", &saved_often())
}

/// Runs it and sends `name` to the process once `delay` has passed: from its start for `-KILL`, else since its
/// first task began. Its status and standard error.
fn interrupted(sweep: &Sweep, mut command: Command, name: &str, delay: Duration) -> Outcome {
    sweep.add_run(&mut command);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
    let pipe = child.stderr.take().expect("it is piped");
    let begun = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&begun);
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(pipe).lines().map_while(Result::ok);
        let seen = lines.inspect(|line| {
            if line.contains(" begins") {
                told.store(true, Ordering::Relaxed);
            }
        });
        seen.collect::<Vec<_>>().join("\n")
    });
    let mut start = (name == "-KILL").then(Instant::now);
    let mut sent = false;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it was started") {
            break status.code();
        }
        if start.is_none() && begun.load(Ordering::Relaxed) {
            start = Some(Instant::now());
        }
        if !sent && start.is_some_and(|start| start.elapsed() >= delay) {
            sent = true;
            // With -9 nobody passes the signal on.
            let mut processes = vec![child.id()];
            if name == "-KILL" {
                processes.extend(descendants(child.id()));
            }
            signal(name, &processes);
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let stderr = reader.join().expect("it reads to the end");
    Outcome { status, stdout: String::new(), stderr }
}

#[track_caller]
fn assert_equal_sweeps(sweep: &Sweep, unbroken: &Sweep) {
    assert_same_tasks(sweep, unbroken);
    let left = fs::read_dir(sweep.dir.join("checkpoints")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    // What a process was writing that was not gone yet when the next job looked stays until another one.
    let left: Vec<_> =
        left.iter().filter(|name| !name.to_string_lossy().starts_with(".unfinished-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Stage, step and steps of the lines in a task's log that have `words`.
fn places<'a>(log: &'a str, words: &'a str) -> Vec<(&'a str, i64, i64)> {
    let parse = |line: &'a str| {
        let (_, place) = line.split_once(words)?;
        let (stage, steps) = place.split_once(' ')?;
        let (step, steps) = steps.split_once('/')?;
        Some((stage, step.parse().ok()?, steps.parse().ok()?))
    };
    log.lines().filter_map(parse).collect()
}

/// Each attempt at a task begins with the step after the one that the attempt before ended with. Returns the
/// number of interruptions in each stage.
#[track_caller]
fn assert_no_step_is_lost(log: &Path) -> HashMap<String, usize> {
    let log = fs::read_to_string(log).expect("every task has a log");
    let (stops, starts) = (places(&log, " stops after "), places(&log, " goes on with "));
    // After the last step of all only the file is left.
    let without_step = log.matches(" goes on with its file").count();
    assert_eq!(stops.len(), starts.len() + without_step, "{log}");
    if without_step > 0 {
        let &(stage, step, steps) = stops.last().expect("there are as many");
        assert_eq!((without_step, stage, step), (1, "hmc", steps), "{log}");
    }
    let mut stages = HashMap::new();
    for ((stage, step, steps), (next_stage, next, _)) in stops.into_iter().zip(starts) {
        *stages.entry(stage.to_owned()).or_default() += 1;
        // A step of the evaluation is a batch.
        let batch = |stage| if stage == "evaluate" { EVALUATION_BATCH } else { 1 };
        if stage == next_stage {
            assert_eq!(next, (step + batch(stage)).min(steps), "{log}");
        } else {
            assert_eq!((step, next), (steps, batch(next_stage)), "{log}");
        }
    }
    stages
}

#[test]
fn stopped_sweep_goes_on_where_it_was_and_ends_with_the_same_bits() {
    for engine in ["native", "torch"] {
        // Torch takes many times longer for steps as small as these.
        let text = match engine {
            "torch" => longer(engine)
                .replace("steps = 400", "steps = 60")
                .replace("warmup = 100", "warmup = 10")
                .replace("trajectories = 100", "trajectories = 10"),
            _ => longer(engine),
        };
        let unbroken = Sweep::new(&text);
        unbroken.run().success();
        let sweep = Sweep::new(&text);
        let mut random = StdRng::seed_from_u64(5);
        let mut stops = 0;
        for name in ["-TERM", "-INT", "-USR1"].iter().cycle() {
            let delay = if stops < EARLY_INTERRUPTIONS {
                0
            } else if stops < INTERRUPTIONS {
                random.random_range(0..500)
            } else {
                600_000
            };
            let result = interrupted(&sweep, neuralrg(), name, Duration::from_millis(delay));
            if result.status == Some(0) {
                break;
            }
            assert_eq!(result.status, TO_BE_CONTINUED, "{}", result.stderr);
            let told = "stopped by a signal; the same command goes on where this job stopped";
            assert_eq!(result.errors(), [told]);
            stops += 1;
        }
        assert!(stops >= EARLY_INTERRUPTIONS, "{engine}: {stops} stops");
        assert_equal_sweeps(&sweep, &unbroken);
        for name in TINY_TASKS {
            assert_no_step_is_lost(&sweep.dir.join(format!("logs/{name}.log")));
        }
    }
}

#[test]
fn each_stage_goes_on_to_the_same_bits() {
    let text = longer("native")
        .replace("temperatures = [2.0, 3.0]", "temperatures = [2.0]")
        .replace("depths = [1, 2]", "depths = [2]")
        .replace("samples = 640", "samples = 2560");
    let unbroken = Sweep::new(&text);
    unbroken.run().success();
    let mut stages = HashMap::<String, usize>::new();
    // A signal may come when the stage that it was meant for is over.
    for _ in 0..20 {
        let sweep = Sweep::new(&text);
        for moment in [" begins", ": train 400/400", ": evaluate 2560/2560"] {
            watch(&mut sweep.run_with(neuralrg()), |line, process| {
                if line.contains(moment) {
                    signal("-USR1", &[process]);
                }
            });
        }
        sweep.run().success();
        assert_equal_sweeps(&sweep, &unbroken);
        let log = sweep.dir.join("logs/L4_T2_d2_s1.log");
        for (stage, count) in assert_no_step_is_lost(&log) {
            *stages.entry(stage).or_default() += count;
        }
        if stages.len() == 3 {
            return;
        }
    }
    panic!("not every stage was interrupted: {stages:?}");
}

#[test]
fn damaged_checkpoint_is_passed_over_for_the_one_before() {
    let sweep = Sweep::new(&saved_often());
    let checkpoints = |sweep: &Sweep| {
        let paths = fs::read_dir(sweep.dir.join("checkpoints")).into_iter().flatten().flatten();
        paths
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some())
            .collect::<Vec<_>>()
    };
    // A busy machine needs longer to come as far as two checkpoints.
    for attempt in 0..50 {
        interrupted(&sweep, neuralrg(), "-KILL", Duration::from_millis(500 + 50 * attempt));
        if !checkpoints(&sweep).is_empty() {
            break;
        }
    }
    let previous = checkpoints(&sweep).pop().expect("a kill has left two checkpoints");
    let last = previous.with_extension("");
    // Where the job was killed between two renames only the previous one is there.
    let mut bytes = fs::read(if last.exists() { &last } else { &previous }).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&last, bytes).unwrap();
    let result = sweep.run();
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    for part in ["passing over the checkpoint", "its checksum does not fit", "goes on with"] {
        assert!(result.stderr.contains(part), "no {part:?} in {}", result.stderr);
    }
    assert_equal_sweeps(&sweep, &unbroken());
}

/// Interrupts small sweeps on two ranks, together on each task or not, at random moments, restarting each time,
/// until it has done so `NEURALRG_KILLS` times (`otherwise` where the variable is not set).
fn interrupt_at_random(name: &str, seed: u64, ranks_per_task: usize, otherwise: usize) {
    let wanted = common::repetitions("NEURALRG_KILLS", otherwise);
    let (text, unbroken) = if ranks_per_task == 1 {
        (saved_often(), unbroken())
    } else {
        // A team adds in another order than one rank.
        let team = format!("[run]\nranks_per_task = {ranks_per_task}");
        let text = saved_often().replace("[run]", &team);
        let unbroken = Sweep::new(&text);
        outcome(&mut unbroken.run_with(mpirun(ranks_per_task))).success();
        (text, unbroken)
    };
    let mut random = StdRng::seed_from_u64(seed);
    let (mut done, mut sweeps, mut stages) = (0, 0, HashMap::<String, usize>::new());
    while done < wanted {
        let sweep = Sweep::new(&text);
        sweeps += 1;
        loop {
            let shortest = if name == "-KILL" { 300 } else { 0 };
            let delay = random.random_range(shortest..2500);
            let delay = if done < wanted { delay } else { 600_000 };
            let result = interrupted(&sweep, mpirun(2), name, Duration::from_millis(delay));
            if result.status == Some(0) {
                break;
            }
            done += 1;
            assert!(!sweep.look("status").stdout.contains("damaged"));
        }
        assert_equal_sweeps(&sweep, &unbroken);
        if name != "-KILL" {
            for task in TINY_TASKS {
                let log = sweep.dir.join(format!("logs/{task}.log"));
                for (stage, count) in assert_no_step_is_lost(&log) {
                    *stages.entry(stage).or_default() += count;
                }
            }
        }
    }
    println!(
        "{name}: {done} interruptions of {sweeps} sweeps, all task files equal; by stage {stages:?}"
    );
}

#[test]
fn mpi_job_killed_at_random_moments_ends_with_the_same_bits() {
    interrupt_at_random("-KILL", 11, 1, 6);
}

#[test]
fn mpi_job_told_to_stop_at_random_moments_loses_no_step() {
    interrupt_at_random("-TERM", 12, 1, 6);
}

#[test]
fn team_killed_or_told_to_stop_at_random_moments_ends_with_the_same_bits() {
    interrupt_at_random("-KILL", 13, 2, 2);
    interrupt_at_random("-TERM", 14, 2, 3);
}

#[test]
fn rank_that_is_lost_ends_the_job_and_the_next_one_goes_on() {
    let sweep = Sweep::new(&saved_often());
    let mut command = mpirun(2);
    sweep.add_run(&mut command);
    let mut child = command.stderr(Stdio::null()).spawn().expect("mpirun starts");
    let ranks = loop {
        let running = fs::read_dir(sweep.dir.join("running")).map_or(0, Iterator::count);
        if running >= 2 {
            break descendants(child.id());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    signal("-KILL", &ranks[ranks.len() - 1..]);
    let start = Instant::now();
    assert!(!child.wait().expect("it was started").success());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    outcome(&mut sweep.run_with(mpirun(2))).success();
    assert_equal_sweeps(&sweep, &unbroken());
}
