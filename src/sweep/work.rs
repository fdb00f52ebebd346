//! What one rank does with a task that it is given.

use std::time::Duration;

use indicatif::MultiProgress;

use super::elsewhere::{Elsewhere, elsewhere};
use super::finished::{Standing, open_finished, standing};
use super::folder::SweepDir;
use super::queue::Outcome;
use crate::config::Config;
use crate::engine::device::Device;
use crate::error::{Error, Result};
use crate::files::atomic::wait_for;
use crate::files::seal;
use crate::ranks::{Ranks, Team};
use crate::signals::Stop;
use crate::task::checkpoint::Checkpoints;
use crate::task::progress::TaskProgress;
use crate::task::record::TaskRecord;
use crate::task::run::run_task;
use crate::task::start::Parent;
use crate::task::task_file::{Origin, TaskFile};
use crate::task::writing::write_task;
use crate::task::{Start, Task};

/// What a rank needs to work on tasks.
pub(super) struct Worker<'a> {
    pub config: &'a Config,
    pub dir: &'a SweepDir,
    pub device: Device,
    pub team: &'a Team,
    pub ranks: &'a Ranks,
    pub stop: &'a Stop,
    pub bars: &'a MultiProgress,
}

impl Worker<'_> {
    /// Runs one task, or pauses it after `slice`; as the leader of the team, writes its file. A panic inside counts
    /// as the task's failure, not the rank's.
    pub fn work_on(
        &self,
        task: &Task,
        parent: Option<&Task>,
        slice: Option<Duration>,
    ) -> Result<Outcome> {
        let Self { config, dir, team, .. } = self;
        let interval = config.run.checkpoint_interval();
        let stop = self.stop.clone();
        let mut checkpoints =
            Checkpoints::open(dir.checkpoint_path(task), &task.name(), interval, stop, team)
                .pause_after(slice);
        let mut progress = TaskProgress::new(
            task,
            config,
            (&dir.progress_path(task), &dir.log_path(task)),
            (self.ranks, team),
            self.bars,
        );
        let outcome = team.together(|| {
            let parent = self.parent(task, parent, &mut checkpoints)?;
            let from = parent.as_ref().map(|parent| format!(" from {}", parent.start));
            progress.note(&format!("task {} begins{}", task.name(), from.unwrap_or_default()));
            checkpoints.share();
            let place = (*team, self.device);
            run_task(task, config, place, parent.as_ref(), &mut checkpoints, &mut progress)
        });
        match outcome {
            // The queue hears of the task from the leader.
            outcome if !team.leads() => {
                outcome.map(|record| Outcome::Done { seconds: seconds_of(&record) })
            }
            Err(Error::Stopped) => {
                progress.stopped();
                Ok(Outcome::Stopped)
            }
            Err(Error::Paused) => {
                progress.paused();
                let seconds = checkpoints.seconds();
                let remaining = progress.remaining_seconds(seconds);
                Ok(Outcome::Paused { seconds, remaining })
            }
            outcome => self.write(task, outcome, &mut checkpoints, &mut progress),
        }
    }

    /// Writes the file of a task that came to its end, and tells of it.
    fn write(
        &self,
        task: &Task,
        outcome: Result<TaskRecord>,
        checkpoints: &mut Checkpoints,
        progress: &mut TaskProgress,
    ) -> Result<Outcome> {
        let written = outcome.and_then(|record| {
            progress.completed();
            let path = self.dir.task_path(task);
            let written = || {
                if self.config.run.keep_checkpoints {
                    checkpoints.keep(&self.dir.kept_path(task))?;
                }
                if self.replaces(task, &record) {
                    let kept = self.dir.keep_replaced(task)?;
                    progress.note(&format!("task {}: {} is kept", task.name(), kept.display()));
                }
                write_task(&path, &record, self.config)?;
                if !self.config.run.keep_checkpoints {
                    self.dir.forget_state(task);
                }
                Ok(())
            };
            written().inspect_err(|_| checkpoints.save_finished(Some(progress.snapshot())))?;
            Ok(record)
        });
        match &written {
            // What comes of a checkpoint is always the same, so that these fail again from it.
            Ok(_) | Err(Error::TrainingDiverged { .. } | Error::NotFinite { .. }) => {
                checkpoints.remove();
            }
            Err(_) => {}
        }
        let record = written.inspect_err(|error| progress.log_only(&error.to_string()))?;
        let seconds = seconds_of(&record);
        // Where no exact value is known there is no gap.
        let quantity =
            ["gap", "free_energy"].into_iter().find(|it| record.scalars.contains_key(*it));
        let quantity = quantity.expect("every task has a free energy");
        progress.note(&format!(
            "task {} is done: {} {:.4} ± {:.4} nat, {seconds:.1} s",
            task.name(),
            quantity.replace('_', " "),
            record.scalars[quantity],
            record.scalars[&format!("{quantity}_error")],
        ));
        Ok(Outcome::Done { seconds })
    }

    /// Checksum and parameters of the file that a task has, where it has one that is fit for use.
    fn own_file(&self, task: &Task) -> Option<(String, Vec<f64>)> {
        let path = self.dir.task_path(task);
        if !path.exists() {
            return None;
        }
        let parameters = TaskFile::open(&path).and_then(|file| file.flow()).ok()?.parameters;
        Some((seal::stated_sha256(&path).ok()??, parameters))
    }

    /// Whether the file that a task has has something that its new one has not: other numbers, or those of another flow.
    fn replaces(&self, task: &Task, record: &TaskRecord) -> bool {
        let found = open_finished(task, self.config, &Origin::new(self.config), self.dir);
        found.is_ok_and(|file| {
            let same = file.flow().is_ok_and(|flow| flow.parameters == record.parameters.to_vec());
            !same || file.lacking.is_some_and(|lacking| lacking.replaces())
        })
    }

    /// The trained flow that a task starts from, or has started from; the leader of the team reads it.
    fn parent(
        &self,
        task: &Task,
        planned: Option<&Task>,
        checkpoints: &mut Checkpoints,
    ) -> Result<Option<Parent>> {
        let mut parent =
            if self.team.leads() { self.read(task, planned, checkpoints)? } else { None };
        // Numbers are shorter as such than in JSON.
        let flow = parent.as_mut().and_then(|parent| parent.flow.as_mut());
        let parameters = flow.map(|flow| std::mem::take(&mut flow.parameters));
        let header = serde_json::to_vec(&parent).expect("a flow has a JSON form");
        let mut parent: Option<Parent> =
            serde_json::from_slice(&self.team.leaders(header)).expect("the leader sent it");
        let parameters = self.team.leaders(parameters.unwrap_or_default());
        if let Some(flow) = parent.as_mut().and_then(|parent| parent.flow.as_mut()) {
            flow.parameters = parameters;
        }
        Ok(parent)
    }

    /// What a task that goes on has started from, or what a new one starts from, with its flow.
    fn read(
        &self,
        task: &Task,
        planned: Option<&Task>,
        checkpoints: &mut Checkpoints,
    ) -> Result<Option<Parent>> {
        let beside = (self.own_file(task), self.dir.kept_path(task));
        if let Some(started) = checkpoints.go_on_with(self.config, beside) {
            let parent = |(start, ancestry)| Parent { start, ancestry, flow: None };
            return Ok(started.map(parent));
        }
        let standing = standing(task, self.config, &Origin::new(self.config), self.dir);
        if let Ok(Standing::Partial(lacking)) = standing {
            let (state, file) = (self.dir.kept_path(task), self.dir.task_path(task));
            let (task, lacking) = (task.name(), lacking.to_string());
            return Err(Error::NothingToGoOnFrom { task, lacking, state, file });
        }
        let parent = match (planned, elsewhere(self.config, task)?) {
            (Some(parent), _) => Some(self.read_parent(parent)?),
            (None, Some(Elsewhere { path, sha256 })) => {
                Some(Parent::of_file(&path, sha256.as_deref())?)
            }
            (None, _) => None,
        };
        let start = parent.as_ref().map(|parent| (parent.start.clone(), parent.ancestry.clone()));
        checkpoints.begin_from(&start);
        Ok(parent)
    }

    fn read_parent(&self, task: &Task) -> Result<Parent> {
        wait_for(&self.dir.task_path(task));
        open_finished(task, self.config, &Origin::new(self.config), self.dir)
            .and_then(|file| Parent::of_task(Start::Task(*task), &file))
            .map_err(|error| Error::UnreadableParent {
                parent: task.name(),
                cause: Box::new(error),
            })
    }
}

fn seconds_of(record: &TaskRecord) -> f64 {
    record.timing["wall_seconds"]
}
