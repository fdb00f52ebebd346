//! Whether a task is finished, and what is kept of one that has ended.

use super::folder::SweepDir;
use super::queue::Outcome;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::task::Task;
use crate::task::task_file::{Origin, TaskFile};
use crate::task::trained::check_flow;

/// Whether a task that this job has claimed has its file; a damaged one is moved aside.
pub(super) fn is_finished(task: &Task, config: &Config, dir: &SweepDir) -> Result<bool> {
    if !dir.task_path(task).exists() {
        return Ok(false);
    }
    match open_finished(task, config, &Origin::new(config), dir) {
        Ok(_) => Ok(true),
        Err(error @ Error::DamagedTask { .. }) => {
            let aside = dir.move_aside(task)?;
            log::warn!("{error}: moved to {}, the task runs again", aside.display());
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The file of a finished task, which must be of `origin`, and its flow that of the configuration.
pub(super) fn open_finished(
    task: &Task,
    config: &Config,
    origin: &Origin,
    dir: &SweepDir,
) -> Result<TaskFile> {
    let path = dir.task_path(task);
    let file = TaskFile::of(&path, task, origin)?;
    let architecture = task.architecture(&config.flow);
    check_flow(&file, &architecture)?;
    Ok(file)
}

/// Tidies up behind a task that has ended, and keeps its error.
pub(super) fn keep_outcome(task: &Task, outcome: &Result<Outcome>, dir: &SweepDir) {
    if matches!(outcome, Ok(Outcome::Stopped | Outcome::Paused { .. })) {
        return;
    }
    dir.forget(task);
    if let Err(error) = outcome {
        record_failure(task, error, dir);
    }
}

/// Tells of a failed task and keeps its error in the folder.
pub(super) fn record_failure(task: &Task, error: &Error, dir: &SweepDir) {
    log::error!("task {} failed: {error}", task.name());
    if let Err(error) = dir.record_failure(task, error) {
        log::error!("task {}: {error}", task.name());
    }
}
