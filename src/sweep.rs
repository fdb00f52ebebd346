//! `neuralrg run`: the tasks that a folder still lacks, spread over the ranks.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use indicatif::MultiProgress;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::device;
use crate::error::{Error, Result};
use crate::flow::Architecture;
use crate::host;
use crate::plan::{self, PlannedTask, Queue, Task};
use crate::progress::TaskProgress;
use crate::rank::Ranks;
use crate::run::{Parent, run_task};
use crate::store::{self, SweepDir, SweepLock, TaskSummary};

/// The work of one job: what its ranks agreed to do.
#[derive(Debug)]
pub struct Job {
    config: Config,
    dir: SweepDir,
    /// Indices into [`plan::tasks`].
    missing: Vec<usize>,
    /// Rank 0 holds the folder's lock; it leaves last, when the failures of all ranks are counted.
    _lock: Option<SweepLock>,
}

/// What rank 0 found out and all ranks need.
#[derive(Debug, Serialize, Deserialize)]
struct Assignment {
    configuration: String,
    missing: Vec<usize>,
}

/// Rank 0 reads the configuration and looks what `root` still lacks; all ranks get to know.
///
/// # Errors
/// Configuration, folder or device; the other ranks then return [`Error::Elsewhere`], so that the
/// message is given once.
pub fn prepare(config_path: &Path, root: &Path, ranks: &Ranks) -> Result<Job> {
    let found = (ranks.rank() == 0).then(|| find_missing(config_path, root)).transpose();
    let text = match &found {
        Ok(Some((assignment, _))) => {
            serde_json::to_string(assignment).expect("an assignment has a JSON form")
        }
        Ok(None) | Err(_) => String::new(),
    };
    let text = ranks.share(text);
    let lock = found?.map(|(_, lock)| lock);
    if text.is_empty() {
        return Err(Error::Elsewhere);
    }
    let Assignment { configuration, missing } =
        serde_json::from_str(&text).expect("rank 0 sent an assignment");
    let config = Config::parse(&configuration, config_path)?;
    Ok(Job { config, dir: SweepDir::prepared(root), missing, _lock: lock })
}

/// Reads the configuration, prepares the folder and looks which tasks are missing.
fn find_missing(config_path: &Path, root: &Path) -> Result<(Assignment, SweepLock)> {
    let config = Config::read(config_path)?;
    // Asking for a GPU where there is none must not leave a folder behind.
    device::select(config.run.device_choice(), 0)?;
    let (dir, lock) = SweepDir::prepare(root, &config)?;
    let tasks = plan::tasks(&config);
    let mut missing = Vec::new();
    for (index, planned) in tasks.iter().enumerate() {
        if !is_finished(&planned.task, &config, &dir)? {
            missing.push(index);
        }
    }
    log::info!(
        "{}: {} of {} tasks to do in {}",
        config.sweep.name,
        missing.len(),
        tasks.len(),
        root.display()
    );
    Ok((Assignment { configuration: config.to_toml(), missing }, lock))
}

/// Whether a task has its file; a damaged one is moved aside.
fn is_finished(task: &Task, config: &Config, dir: &SweepDir) -> Result<bool> {
    if !dir.task_path(task).exists() {
        return Ok(false);
    }
    match read_finished(task, config, dir) {
        Ok(_) => Ok(true),
        Err(error @ Error::DamagedTask { .. }) => {
            let aside = dir.move_aside(task)?;
            log::warn!("{error}: moved to {}, the task runs again", aside.display());
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Reads a finished task, whose flow must be the configuration's.
fn read_finished(task: &Task, config: &Config, dir: &SweepDir) -> Result<TaskSummary> {
    let path = dir.task_path(task);
    let summary = store::read_task(&path)?;
    let architecture =
        Architecture::new(task.linear_size, task.temperature, task.depth, &config.flow);
    let expected = architecture.parameter_count();
    if summary.parameters.len() == expected {
        return Ok(summary);
    }
    let problem = format!("it has {} parameters, not {expected}", summary.parameters.len());
    Err(Error::DamagedTask { path, problem })
}

/// Runs the missing tasks on all ranks, each on its rank's own device.
///
/// # Errors
/// This rank's device cannot be had (the other ranks do not know of it), or tasks failed on some rank
/// (which all ranks know).
pub fn run(job: Job, ranks: &Ranks, bars: &MultiProgress) -> Result<()> {
    let Job { config, dir, missing, _lock } = job;
    host::keep_freed_memory();
    tch::set_num_threads(config.run.threads as i32);
    warn_of_crowding(config.run.threads);
    let device = device::select(config.run.device_choice(), ranks.local_rank())?;
    log::info!("rank {} of {}: {device:?}", ranks.rank(), ranks.size());

    let tasks = plan::tasks(&config);
    let total = missing.len();
    let parent = |planned: &PlannedTask| planned.parent.map(|index| tasks[index].task);
    let work = |index: usize| {
        let (task, parent) = (&tasks[index].task, parent(&tasks[index]));
        // While a task runs again its last failure no longer counts.
        dir.forget(task);
        let outcome = finish_task(task, parent.as_ref(), &config, &dir, device, bars);
        dir.forget(task);
        outcome.inspect_err(|error| record_failure(task, error, &dir)).is_ok()
    };
    let give_up = |index: usize| {
        let parent =
            parent(&tasks[index]).expect("only tasks that start from another are given up");
        record_failure(&tasks[index].task, &Error::ParentFailed { parent: parent.name() }, &dir);
    };
    let failed = ranks.distribute(Queue::new(&tasks, &missing), work, give_up);
    if failed == 0 {
        return Ok(());
    }
    Err(Error::TasksFailed { failed, total, dir: dir.failures() })
}

/// Tells of a failed task and keeps its error in the folder.
fn record_failure(task: &Task, error: &Error, dir: &SweepDir) {
    log::error!("task {} failed: {error}", task.name());
    if let Err(error) = dir.record_failure(task, error) {
        log::error!("task {}: {error}", task.name());
    }
}

/// Runs one task and writes its file. A panic inside counts as the task's failure, not the rank's.
fn finish_task(
    task: &Task,
    parent: Option<&Task>,
    config: &Config,
    dir: &SweepDir,
    device: tch::Device,
    bars: &MultiProgress,
) -> Result<()> {
    let origin = parent.map_or_else(String::new, |parent| format!(" from {}", parent.name()));
    log::info!("task {} begins{origin}", task.name());
    let mut progress = TaskProgress::new(task, config, dir.progress_path(task), bars);
    let run = || {
        let parent = parent.map(|parent| read_parent(parent, config, dir)).transpose()?;
        run_task(task, config, device, parent.as_ref(), &mut progress)
    };
    let record = catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(Error::Panic { message: panic_message(&*panic) }))?;
    store::write_task(&dir.task_path(task), &record)?;
    log::info!(
        "task {} is done: gap {:.4} ± {:.4} nat, {:.1} s",
        task.name(),
        record.scalars["gap"],
        record.scalars["gap_error"],
        record.timing["wall_seconds"]
    );
    Ok(())
}

/// What a task needs of the finished one that it starts from.
fn read_parent(task: &Task, config: &Config, dir: &SweepDir) -> Result<Parent> {
    store::wait_for(&dir.task_path(task));
    let summary = read_finished(task, config, dir).map_err(|error| Error::UnreadableParent {
        parent: task.name(),
        source: Box::new(error),
    })?;
    Ok(Parent { task: *task, parameters: summary.parameters })
}

/// First line of what a panic said; torch appends a stack of its own.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown panic");
    text.lines().next().unwrap_or_default().to_owned()
}

/// Threads beyond the cores that the rank may use slow it down many times.
fn warn_of_crowding(threads: usize) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if threads > cores {
        log::warn!(
            "run.threads = {threads}, but this rank may use {cores} cores: set it lower, or give \
             ranks more cores (mpirun --bind-to, srun --cpus-per-task)"
        );
    }
}
