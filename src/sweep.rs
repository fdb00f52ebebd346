//! `neuralrg run`: the tasks that a folder still lacks, spread over the ranks.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use indicatif::MultiProgress;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::device;
use crate::error::{Error, Result};
use crate::host;
use crate::plan::{self, Cost, Task};
use crate::progress::TaskProgress;
use crate::rank::Ranks;
use crate::run::run_task;
use crate::store::{self, SweepDir, SweepLock};

/// The work of one job: what its ranks agreed to do.
#[derive(Debug)]
pub struct Job {
    config: Config,
    dir: SweepDir,
    /// Indices into [`plan::tasks`], most expensive first.
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
    device::select(config.run.device, 0)?;
    let (dir, lock) = SweepDir::prepare(root, &config)?;
    let tasks = plan::tasks(&config);
    let costs: Vec<f64> = tasks.iter().map(|task| Cost::of(&config, task).total()).collect();
    let mut missing = Vec::new();
    for index in plan::longest_first(&costs) {
        if !is_finished(&dir, &tasks[index])? {
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
fn is_finished(dir: &SweepDir, task: &Task) -> Result<bool> {
    let path = dir.task_path(task);
    if !path.exists() {
        return Ok(false);
    }
    match store::read_task(&path) {
        Ok(_) => Ok(true),
        Err(error @ Error::DamagedTask { .. }) => {
            let aside = dir.move_aside(task)?;
            log::warn!("{error}: moved to {}, the task runs again", aside.display());
            Ok(false)
        }
        Err(error) => Err(error),
    }
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
    let device = device::select(config.run.device, ranks.local_rank())?;
    log::info!("rank {} of {}: {device:?}", ranks.rank(), ranks.size());

    let tasks = plan::tasks(&config);
    let total = missing.len();
    let failed = ranks.distribute(missing, |index| {
        let task = &tasks[index];
        // While a task runs again its last failure no longer counts.
        dir.forget(task);
        let outcome = finish_task(task, &config, &dir, device, bars);
        dir.forget(task);
        if let Err(error) = &outcome {
            log::error!("task {} failed: {error}", task.name());
            if let Err(error) = dir.record_failure(task, error) {
                log::error!("task {}: {error}", task.name());
            }
        }
        outcome.is_ok()
    });
    if failed == 0 {
        return Ok(());
    }
    Err(Error::TasksFailed { failed, total, dir: dir.failures() })
}

/// Runs one task and writes its file. A panic inside counts as the task's failure, not the rank's.
fn finish_task(
    task: &Task,
    config: &Config,
    dir: &SweepDir,
    device: tch::Device,
    bars: &MultiProgress,
) -> Result<()> {
    log::info!("task {} begins", task.name());
    let mut progress = TaskProgress::new(task, config, dir.progress_path(task), bars);
    let record =
        catch_unwind(AssertUnwindSafe(|| run_task(task, config, device, None, &mut progress)))
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
