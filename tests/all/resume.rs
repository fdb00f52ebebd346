//! Interrupted tasks: a resumed run repeats the unbroken one to the bit.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::job::{
    CHECKPOINT, EACH_STEP, Job, PROGRESS, Point, held, held_at, held_of_rank, process,
};
use crate::common::{
    ENGINES, Outcome, Sweep, TINY, TINY_TASKS, assert_same_tasks, mpirun, neuralrg, outcome, signal,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Exit status of a job that a signal stopped.
const TO_BE_CONTINUED: Option<i32> = Some(75);

/// Steps of the stages of a task; a step of the evaluation is a batch.
const STAGES: [(&str, usize); 3] = [("train", 20), ("evaluate", 10), ("hmc", 20)];
const EVALUATION_BATCH: i64 = 4;

/// The tiny sweep with enough steps to interrupt each stage, saved only when asked to.
fn unsaved(engine: &str) -> String {
    TINY.replace("steps = 6", "steps = 20\naveraging = 0.9")
        .replace("samples = 64\nbatch = 64", &format!("samples = 40\nbatch = {EVALUATION_BATCH}"))
        .replace("warmup = 4", "warmup = 10")
        .replace("[run]", &format!("[run]\ncheckpoint_minutes = 0\nengine = \"{engine}\""))
}

/// The same, saved after each step.
fn saved(engine: &str) -> String {
    unsaved(engine).replace("checkpoint_minutes = 0\n", &format!("{EACH_STEP}\n"))
}

/// The first task of it.
fn one_task() -> String {
    saved("native")
        .replace("temperatures = [2.0, 3.0]", "temperatures = [2.0]")
        .replace("depths = [1, 2]", "depths = [2]")
}

/// A sweep that [`saved`] describes, run to its end without interruption.
fn unbroken() -> Sweep {
    static UNBROKEN: OnceLock<PathBuf> = OnceLock::new();
    Sweep::finished_once(&UNBROKEN, "saved", &saved("native"))
}

/// How a job is interrupted.
#[derive(Debug, Clone, Copy)]
enum Interruption {
    /// This signal to the process, or to mpirun, which passes it on; `-KILL` to all.
    Job(&'static str),
    /// This signal to the ranks.
    Ranks(&'static str),
}

/// Runs it and interrupts it where a process is held at `point`; to its end where none comes there.
fn interrupted(sweep: &Sweep, command: Command, how: Interruption, point: Point) -> Outcome {
    let mut job = Job::start(held_at(sweep.run_with(command), sweep, point));
    if job.comes_to(|_| !held(sweep).is_empty()) {
        match how {
            Interruption::Job(name) => job.signal(name),
            Interruption::Ranks(name) => job.signal_ranks(name),
        }
    }
    job.end()
}

/// The checkpoint of the step of this number.
fn checkpoint(number: usize) -> Point<'static> {
    Point { path: CHECKPOINT, number, later: 0 }
}

/// The first step that the process does.
const FIRST_STEP: Point = Point { path: PROGRESS, number: 1, later: 0 };

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

/// Signals come at random steps, where each step is saved, and in turn with these in the first step that a job does where
/// none is saved but when it is asked to stop.
#[test]
fn stopped_sweep_goes_on_where_it_was_and_ends_with_the_same_bits() {
    for engine in ENGINES {
        let unbroken = Sweep::new(&saved(engine));
        unbroken.run().success();
        let sweep = Sweep::new(&saved(engine));
        let mut random = StdRng::seed_from_u64(5);
        let mut stops = 0;
        for (attempt, name) in ["-TERM", "-INT", "-USR1"].into_iter().cycle().enumerate() {
            let (text, point) = if attempt % 2 == 0 {
                (saved(engine), checkpoint(random.random_range(1..30)))
            } else {
                (unsaved(engine), FIRST_STEP)
            };
            fs::write(&sweep.config, text).unwrap();
            let result = interrupted(&sweep, neuralrg(), Interruption::Job(name), point);
            if result.status == Some(0) {
                break;
            }
            assert_eq!(result.status, TO_BE_CONTINUED, "{}", result.stderr);
            let told = "stopped by a signal; the same command goes on where this job stopped";
            assert_eq!(result.errors(), [told]);
            stops += 1;
        }
        assert_equal_sweeps(&sweep, &unbroken);
        let mut stages = HashMap::new();
        for name in TINY_TASKS {
            add(&mut stages, assert_no_step_is_lost(&sweep.dir.join(format!("logs/{name}.log"))));
        }
        // One that comes when a task is done leaves no trace in its log.
        let logged: usize = stages.values().sum();
        assert!(stages.len() == STAGES.len() && logged <= stops, "{stops}: {stages:?}");
        println!("{engine}: {stops} interruptions, by stage {stages:?}");
    }
}

/// A checkpoint says nothing of an engine: what one began another one ends, with its own rounding from there on.
#[cfg(feature = "torch")]
#[test]
fn task_that_one_engine_began_goes_on_with_another() {
    for [first, second] in [["native", "torch"], ["torch", "native"]] {
        let of =
            |engine| one_task().replace("engine = \"native\"", &format!("engine = \"{engine}\""));
        let sweep = Sweep::new(&of(first));
        let stopped = interrupted(&sweep, neuralrg(), Interruption::Job("-TERM"), checkpoint(8));
        assert_eq!(stopped.status, TO_BE_CONTINUED, "{}", stopped.stderr);
        fs::write(&sweep.config, of(second)).unwrap();
        let ended = sweep.run();
        ended.success();
        assert!(ended.stderr.contains("goes on with train"), "{}", ended.stderr);
        let parameters = |sweep: &Sweep| -> Vec<f64> {
            let file = hdf5::File::open(sweep.task("L4_T2_d2_s1")).unwrap();
            file.dataset("model/parameters").unwrap().read_raw().unwrap()
        };
        let unbroken = unbroken();
        let differences = parameters(&sweep).into_iter().zip(parameters(&unbroken));
        let largest = differences.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(largest > 0.0 && largest < 1e-4, "{first}, then {second}: {largest:e}");
    }
}

fn add(counts: &mut HashMap<String, usize>, more: HashMap<String, usize>) {
    for (stage, count) in more {
        *counts.entry(stage).or_default() += count;
    }
}

/// In each stage, and in both parts of the sampling, a task is stopped or killed at a given step.
#[test]
fn each_stage_goes_on_to_the_same_bits() {
    let unbroken = Sweep::new(&one_task());
    unbroken.run().success();
    // In the middle of each stage, of the warm-up and of the measurement.
    let middles = [10, 25, 35, 45];
    for (name, stopped) in [("-USR1", true), ("-KILL", false)] {
        let sweep = Sweep::new(&one_task());
        let mut done = 0;
        for middle in middles {
            let point = checkpoint(middle - done);
            let result = interrupted(&sweep, neuralrg(), Interruption::Job(name), point);
            assert_eq!(result.status, TO_BE_CONTINUED.filter(|_| stopped), "{}", result.stderr);
            // The step after the signal is the last one; a kill leaves the checkpoint before.
            done = if stopped { middle + 1 } else { middle - 1 };
        }
        sweep.run().success();
        assert_equal_sweeps(&sweep, &unbroken);
        let log = sweep.dir.join("logs/L4_T2_d2_s1.log");
        let text = fs::read_to_string(&log).unwrap();
        let steps = |words| places(&text, words).into_iter().map(|(stage, step, _)| (stage, step));
        let expected = |of: [i64; 4]| ["train", "evaluate", "hmc", "hmc"].into_iter().zip(of);
        if stopped {
            assert_no_step_is_lost(&log);
            assert!(steps(" stops after ").eq(expected([11, 24, 6, 16])), "{text}");
        } else {
            assert!(steps(" goes on with ").eq(expected([10, 20, 5, 15])), "{text}");
        }
    }
}

#[test]
fn damaged_checkpoint_is_passed_over_for_the_one_before() {
    // Killed before a checkpoint becomes the previous one, and after that, when there is no last one.
    for later in [0, 1] {
        let sweep = Sweep::new(&saved("native"));
        let point = Point { later, ..checkpoint(5) };
        interrupted(&sweep, neuralrg(), Interruption::Job("-KILL"), point);
        let last = sweep.dir.join("checkpoints/L4_T2_d2_s1");
        let previous = last.with_extension("previous");
        assert_eq!((last.exists(), previous.exists()), (later == 0, true));
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
}

/// Steps of a task before a stage.
fn steps_before(stage: usize) -> usize {
    STAGES[..stage].iter().map(|(_, steps)| steps).sum()
}

/// Steps that a task had done when it was stopped, if that was how its last attempt ended.
fn stopped_after(log: &str) -> Option<usize> {
    let (stage, step, steps) = *places(log.lines().last()?, " stops after ").first()?;
    let index = STAGES.iter().position(|(name, _)| *name == stage)?;
    Some(steps_before(index) + STAGES[index].1 * step as usize / steps as usize)
}

/// Paths of the files that a job writes before the first step of a task.
const AT_THE_START: [&str; 5] = ["", "/jobs/", "/claims/", "events.jsonl", "/logs/"];

/// Interrupts small sweeps on two ranks, together on each task or not: when they start, in all stages of a random task, and
/// when a task's file is written, each time at a random file operation, restarting each time, until it has done so
/// `NEURALRG_KILLS` times (5 where the variable is not set). Since files change by such operations only, whatever a job can
/// leave behind comes from one of them.
fn interrupt_at_random(ways: &[Interruption], seed: u64, ranks_per_task: usize) {
    let wanted = crate::common::repetitions("NEURALRG_KILLS", 5);
    let (text, unbroken) = if ranks_per_task == 1 {
        (saved("native"), unbroken())
    } else {
        // A team adds in another order than one rank.
        let team = format!("[run]\nranks_per_task = {ranks_per_task}");
        let text = saved("native").replace("[run]", &team);
        let unbroken = Sweep::new(&text);
        outcome(&mut unbroken.run_with(mpirun(ranks_per_task))).success();
        (text, unbroken)
    };
    // mpirun kills its ranks soon after SIGTERM, whatever they do then.
    let loses_steps = |way: &Interruption| matches!(way, Interruption::Job("-KILL" | "-TERM"));
    let loses_no_step = !ways.iter().any(loses_steps);
    let mut random = StdRng::seed_from_u64(seed);
    let (mut done, mut sweeps, mut stages) = (0, 0, HashMap::<String, usize>::new());
    let mut ways = ways.iter().cycle();
    while done < wanted {
        let sweep = Sweep::new(&text);
        sweeps += 1;
        let task = *TINY_TASKS.choose(&mut random).unwrap();
        let path = format!("checkpoints/{task}{CHECKPOINT}");
        let log =
            || fs::read_to_string(sweep.dir.join(format!("logs/{task}.log"))).unwrap_or_default();
        let mut interrupt = |path: &str, number: usize, later: usize| {
            let point = Point { path, number, later };
            let result = interrupted(&sweep, mpirun(2), *ways.next().unwrap(), point);
            assert!(!sweep.look("status").stdout.contains("damaged"));
            done += 1;
            result
        };
        interrupt(AT_THE_START.choose(&mut random).unwrap(), 1, random.random_range(0..6));
        let mut steps = stopped_after(&log()).unwrap_or(0);
        for (stage, (_, length)) in STAGES.iter().enumerate() {
            // What a kill has left is a step more or less.
            let middle = steps_before(stage) + length / 2 + random.random_range(0..3);
            let result = interrupt(&path, middle - steps, random.random_range(0..8));
            assert_ne!(result.status, Some(0), "{}", result.stderr);
            steps = stopped_after(&log()).unwrap_or(middle);
        }
        // A job whose last task is done by then is not stopped any more.
        interrupt("/tasks/", 1, random.random_range(0..6));
        let result = outcome(&mut sweep.run_with(mpirun(2)));
        result.success();
        assert_equal_sweeps(&sweep, &unbroken);
        if loses_no_step {
            for task in TINY_TASKS {
                assert_no_step_is_lost(&sweep.dir.join(format!("logs/{task}.log")));
            }
        }
        let log = log();
        let mut resumed: Vec<_> =
            places(&log, " goes on with ").into_iter().map(|(stage, ..)| stage).collect();
        resumed.dedup();
        for stage in resumed {
            *stages.entry(stage.to_owned()).or_default() += 1;
        }
    }
    println!("{done} interruptions of {sweeps} sweeps, all task files equal; by stage {stages:?}");
    assert!(STAGES.iter().all(|(stage, _)| stages.get(*stage) == Some(&sweeps)), "{stages:?}");
}

#[test]
fn mpi_job_killed_at_random_file_operations_ends_with_the_same_bits() {
    use Interruption::Job;
    interrupt_at_random(&[Job("-KILL"), Job("-KILL"), Job("-TERM"), Job("-KILL")], 11, 1);
}

#[test]
fn mpi_job_told_to_stop_at_random_file_operations_loses_no_step() {
    use Interruption::{Job, Ranks};
    interrupt_at_random(&[Ranks("-TERM"), Job("-USR1"), Ranks("-INT"), Ranks("-USR1")], 12, 1);
}

#[test]
fn team_killed_or_told_to_stop_at_random_file_operations_ends_with_the_same_bits() {
    use Interruption::{Job, Ranks};
    interrupt_at_random(&[Job("-KILL")], 13, 2);
    interrupt_at_random(&[Ranks("-TERM"), Job("-USR1")], 14, 2);
}

/// The other rank is held in its task all the time.
#[test]
fn rank_that_is_lost_ends_the_job_and_the_next_one_goes_on() {
    let sweep = Sweep::new(&saved("native"));
    let mut job = Job::start(held_at(sweep.run_with(mpirun(2)), &sweep, checkpoint(3)));
    job.wait_until_held(&sweep, 2);
    signal("-KILL", &[process(&held_of_rank(&sweep, 1)[0])]);
    assert!(!matches!(job.end().status, Some(0 | 75)));
    outcome(&mut sweep.run_with(mpirun(2))).success();
    assert_equal_sweeps(&sweep, &unbroken());
}
