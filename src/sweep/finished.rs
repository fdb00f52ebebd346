//! Whether a task is finished, and what is kept of one that has ended.

use super::folder::SweepDir;
use super::queue::Outcome;
use crate::config::Config;
use crate::config::growth::Lacking;
use crate::error::{Error, Result};
use crate::task::Task;
use crate::task::task_file::{Origin, TaskFile};
use crate::task::trained::check_flow;

/// What is there of a task.
#[derive(Debug)]
pub(super) enum Standing {
    /// No file.
    Missing,
    /// One that is damaged, as the error says.
    Damaged(Error),
    /// Its file has numbers, but lacks some of what the configuration wants.
    Partial(Lacking),
    Done {
        seconds: f64,
        started_from: String,
    },
}

impl Standing {
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }
}

/// What is there of a task that this job has claimed; a damaged file is moved aside.
pub(super) fn standing_of_claimed(
    task: &Task,
    config: &Config,
    dir: &SweepDir,
) -> Result<Standing> {
    let standing = standing(task, config, &Origin::new(config), dir)?;
    if let Standing::Damaged(error) = &standing {
        let aside = dir.move_aside(task)?;
        log::warn!("{error}: moved to {}, the task runs again", aside.display());
    }
    Ok(standing)
}

/// What is there of a task.
///
/// # Errors
/// Its file is another one, or cannot be read.
pub(super) fn standing(
    task: &Task,
    config: &Config,
    origin: &Origin,
    dir: &SweepDir,
) -> Result<Standing> {
    if !dir.task_path(task).exists() {
        return Ok(Standing::Missing);
    }
    match open_finished(task, config, origin, dir) {
        Ok(TaskFile { lacking: Some(lacking), .. }) => Ok(Standing::Partial(lacking)),
        Ok(file) => Ok(Standing::Done {
            seconds: file.head.time("wall_seconds"),
            started_from: file.started_from()?,
        }),
        Err(error @ Error::DamagedTask { .. }) => Ok(Standing::Damaged(error)),
        Err(error) => Err(error),
    }
}

/// The file of a finished task, whose flow must be that of `origin` and of the configuration.
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
