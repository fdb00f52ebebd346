//! Rank 0's desk.

use std::sync::Arc;
use std::time::SystemTime;

use super::claims::{Claim, Claims, JobFile};
use super::distribute::{Desk, Permission};
use super::events::{Event, Events};
use super::finished::{Standing, record_failure, standing_of_claimed};
use super::folder::{SweepDir, SweepLock};
use super::plan::PlannedTask;
use super::queue::Outcome;
use crate::config::Config;
use crate::error::Error;
use crate::task::Task;

/// Rank 0's desk: claims tasks for the job and keeps the event log.
#[derive(Debug)]
pub(super) struct Reception {
    pub config: Config,
    pub dir: SweepDir,
    pub tasks: Vec<PlannedTask>,
    pub claims: Arc<Claims>,
    pub events: Events,
    pub job: JobFile,
    pub started: SystemTime,
    pub _lock: SweepLock,
}

impl Reception {
    fn name(&self, task: usize) -> String {
        self.tasks[task].task.name()
    }

    /// Whether a task that nobody works on is to be done here.
    fn look_at(&self, task: &Task) -> Permission {
        match standing_of_claimed(task, &self.config, &self.dir) {
            Ok(Standing::Done { .. }) => Permission::Done,
            // A failure that was recorded since this job began is another job's.
            Ok(_) if self.dir.failed_at(task).is_some_and(|time| time > self.started) => {
                Permission::Failed
            }
            Ok(_) => Permission::Granted,
            Err(error) => {
                record_failure(task, &error, &self.dir);
                Permission::Failed
            }
        }
    }
}

impl Desk for Reception {
    fn claim(&self, task: usize, rank: usize) -> Permission {
        let (name, job) = (self.name(task), &self.job.info.id);
        let from = match self.claims.claim(&name, job) {
            Ok(Claim::Taken { from }) => from,
            Ok(Claim::Held) => return Permission::Elsewhere,
            Err(error) => {
                record_failure(&self.tasks[task].task, &error, &self.dir);
                return Permission::Failed;
            }
        };
        let permission = self.look_at(&self.tasks[task].task);
        if permission != Permission::Granted {
            self.claims.release(&name, job);
            return permission;
        }
        if let Some(dead) = &from {
            log::warn!("task {name} is taken over from the job {dead}, which is gone");
        }
        let taken_over_from = from.as_deref();
        self.events.write(&Event::TaskStarted { task: &name, rank, taken_over_from });
        permission
    }

    fn ended(&self, task: usize, rank: usize, outcome: Outcome) {
        let name = self.name(task);
        let message = self.dir.failure(&self.tasks[task].task).unwrap_or_default();
        let (task, message) = (name.as_str(), message.trim());
        self.events.write(&match outcome {
            Outcome::Done { .. } => Event::TaskDone { task, rank },
            Outcome::Failed => Event::TaskFailed { task, rank, message },
            Outcome::Stopped => Event::TaskStopped { task, rank },
            Outcome::Paused { remaining: remaining_seconds, .. } => {
                Event::TaskPaused { task, rank, remaining_seconds }
            }
        });
        self.claims.release(&name, &self.job.info.id);
    }

    fn given_up(&self, task: usize) {
        let parent = self.tasks[task].parent;
        let parent = parent.expect("only tasks that start from another are given up");
        let error = Error::ParentFailed { parent: self.name(parent) };
        record_failure(&self.tasks[task].task, &error, &self.dir);
        self.events.write(&Event::TaskGivenUp { task: &self.name(task) });
    }
}
