//! `neuralrg run`: the tasks that a folder still lacks, spread over the ranks of this job and shared with
//! other jobs.

pub mod claims;
pub mod collect;
pub mod distribute;
pub mod events;
pub mod folder;
pub mod plan;
pub mod queue;
pub mod schedule;
pub mod status;
pub mod summary;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use indicatif::MultiProgress;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::config::sweep::decimal_comma_hint;
use crate::engine;
use crate::engine::device::{self, Device};
use crate::error::{Error, Result};
use crate::files::atomic::wait_for;
use crate::host;
use crate::ranks::{Ranks, Team};
use crate::signals::Stop;
use crate::sweep::claims::{Claim, Claims, JobFile};
use crate::sweep::distribute::{Counts, Desk, Permission};
use crate::sweep::events::{Event, Events};
use crate::sweep::folder::{SweepDir, SweepLock};
use crate::sweep::plan::PlannedTask;
use crate::sweep::queue::{Crew, Outcome, Queue};
use crate::task::Task;
use crate::task::checkpoint::Checkpoints;
use crate::task::progress::TaskProgress;
use crate::task::run::{Parent, run_task};
use crate::task::task_file::{Brief, Head, Origin, TaskFile};
use crate::task::trained::check_flow;
use crate::task::writing::write_task;

/// The work of one job: what its ranks agreed to do.
#[derive(Debug)]
pub struct Job {
    config: Config,
    dir: SweepDir,
    /// All tasks of the sweep, with costs learned from the finished ones.
    tasks: Vec<PlannedTask>,
    /// Indices of those to do.
    missing: Vec<usize>,
    /// Rank 0's; it leaves last, when the failures of all ranks are counted.
    reception: Option<Reception>,
}

/// What rank 0 found out and all ranks need.
#[derive(Debug, Serialize, Deserialize)]
struct Assignment {
    configuration: String,
    missing: Vec<usize>,
    costs: Vec<f64>,
}

/// Rank 0's desk: claims tasks for the job and keeps the event log.
#[derive(Debug)]
struct Reception {
    config: Config,
    dir: SweepDir,
    tasks: Vec<PlannedTask>,
    claims: Arc<Claims>,
    events: Events,
    job: JobFile,
    started: SystemTime,
    _lock: SweepLock,
}

impl Reception {
    fn name(&self, task: usize) -> String {
        self.tasks[task].task.name()
    }

    /// Whether a task that nobody works on is to be done here.
    fn look_at(&self, task: &Task) -> Permission {
        // A failure that was recorded since this job began is another job's.
        if self.dir.failed_at(task).is_some_and(|time| time > self.started)
            && !self.dir.task_path(task).exists()
        {
            return Permission::Failed;
        }
        match is_finished(task, &self.config, &self.dir) {
            Ok(true) => Permission::Done,
            Ok(false) => Permission::Granted,
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

/// Rank 0 reads the configuration and looks what `root` still lacks of all tasks, or of the one with the
/// given index and those that it starts from; all ranks get to know.
///
/// # Errors
/// Configuration, folder or device; the other ranks then return [`Error::Elsewhere`], so that the
/// message is given once.
pub fn prepare(
    config_path: &Path,
    root: &Path,
    task_index: Option<usize>,
    ranks: &Ranks,
) -> Result<Job> {
    let find = || find_missing(config_path, root, task_index, ranks.size());
    let found = (ranks.rank() == 0).then(find).transpose();
    let text = match &found {
        Ok(Some((assignment, _))) => {
            serde_json::to_string(assignment).expect("an assignment has a JSON form")
        }
        Ok(None) | Err(_) => String::new(),
    };
    let text = ranks.share(text);
    let reception = found?.map(|(_, reception)| reception);
    if text.is_empty() {
        return Err(Error::Elsewhere);
    }
    let Assignment { configuration, missing, costs } =
        serde_json::from_str(&text).expect("rank 0 sent an assignment");
    let config = Config::parse(&configuration, config_path)?;
    let mut tasks = plan::tasks(&config);
    tasks.iter_mut().zip(costs).for_each(|(task, cost)| task.cost = cost);
    Ok(Job { config, dir: SweepDir::prepared(root), tasks, missing, reception })
}

/// Reads the configuration, prepares the folder and looks which tasks are missing.
fn find_missing(
    config_path: &Path,
    root: &Path,
    task_index: Option<usize>,
    ranks: usize,
) -> Result<(Assignment, Reception)> {
    let mut config = Config::read(config_path)?;
    if let Some(hint) = decimal_comma_hint(config.temperatures()) {
        log::warn!("{}: {hint}", config_path.display());
    }
    config.identify_data(config_path)?;
    config.teams(ranks, config_path)?;
    let mut tasks = plan::tasks(&config);
    let wanted = match task_index {
        Some(index) => with_ancestors(&tasks, index)?,
        None => (0..tasks.len()).collect(),
    };
    // Asking for an engine or a GPU where there is none must not leave a folder behind.
    engine::check_built(config.run.engine)?;
    device::select(config.run.device_choice(), 0)?;
    let (dir, lock) = SweepDir::prepare(root, &config)?;
    let started = SystemTime::now();
    let seconds = seconds_of_all(&tasks, &config, &dir)?;
    plan::learn_costs(&mut tasks, &seconds);
    let missing: Vec<usize> =
        wanted.iter().copied().filter(|&index| seconds[index].is_none()).collect();
    log::info!(
        "{}: {} of {} tasks to do in {}",
        config.sweep.name,
        missing.len(),
        wanted.len(),
        root.display()
    );
    let claims = Arc::new(dir.claims());
    let names: Vec<String> = tasks.iter().map(|planned| planned.task.name()).collect();
    let to_do: HashSet<&str> = missing.iter().map(|&index| names[index].as_str()).collect();
    claims.tidy(|task| !to_do.contains(task));
    let job = JobFile::create(Arc::clone(&claims), ranks)?;
    let events = Events::open(dir.events_path(), &job.info.id);
    let (tasks_to_do, all) = (missing.len(), tasks.len());
    if tasks_to_do > 0 {
        events.write(&Event::JobStarted { ranks, tasks_to_do, tasks: all });
    }
    let costs = tasks.iter().map(|planned| planned.cost).collect();
    let configuration = config.to_toml();
    let reception = Reception { config, dir, tasks, claims, events, job, started, _lock: lock };
    Ok((Assignment { configuration, missing, costs }, reception))
}

/// All tasks with costs learned from those that `root` has, and the indices of those that it lacks. Changes
/// nothing.
///
/// # Errors
/// No sweep folder, one of another configuration, or a task file that cannot be read now.
pub fn expected(config: &Config, root: &Path) -> Result<(Vec<PlannedTask>, Vec<usize>)> {
    let dir = SweepDir::open(root)?;
    dir.check_configuration(config)?;
    let mut tasks = plan::tasks(config);
    let seconds = seconds_of_all(&tasks, config, &dir)?;
    plan::learn_costs(&mut tasks, &seconds);
    let missing = (0..tasks.len()).filter(|&index| seconds[index].is_none()).collect();
    Ok((tasks, missing))
}

fn seconds_of_all(
    tasks: &[PlannedTask],
    config: &Config,
    dir: &SweepDir,
) -> Result<Vec<Option<f64>>> {
    let origin = Origin::new(config);
    tasks.iter().map(|planned| seconds_of_finished(&planned.task, config, &origin, dir)).collect()
}

/// A task and all that it starts from, directly or not.
fn with_ancestors(tasks: &[PlannedTask], index: usize) -> Result<Vec<usize>> {
    if index >= tasks.len() {
        return Err(Error::Usage(format!(
            "--task-index {index}: the sweep has {} tasks, numbered from 0 to {}; see `neuralrg plan`",
            tasks.len(),
            tasks.len() - 1
        )));
    }
    Ok(std::iter::successors(Some(index), |&task| tasks[task].parent).collect())
}

/// Seconds that a finished task took; none where it has no file, or a damaged one, which is moved aside
/// when the task is claimed.
fn seconds_of_finished(
    task: &Task,
    config: &Config,
    origin: &Origin,
    dir: &SweepDir,
) -> Result<Option<f64>> {
    if !dir.task_path(task).exists() {
        return Ok(None);
    }
    match open_finished(task, config, origin, dir) {
        Ok(file) => Ok(Some(file.head.time("wall_seconds"))),
        Err(Error::DamagedTask { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a task that this job has claimed has its file; a damaged one is moved aside.
fn is_finished(task: &Task, config: &Config, dir: &SweepDir) -> Result<bool> {
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
fn open_finished(
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

/// Runs the missing tasks on all ranks, each on its own device.
///
/// # Errors
/// This rank's device cannot be had (the other ranks do not know of it), or tasks failed on some rank or
/// were left by a signal (which all ranks know).
pub fn run(job: Job, ranks: &Ranks, stop: &Stop, bars: &MultiProgress) -> Result<()> {
    let Job { config, dir, tasks, missing, reception } = job;
    host::keep_freed_memory();
    warn_of_crowding(config.run.threads);
    let device = device::select(config.run.device_choice(), ranks.local_rank())?;
    let team = ranks.team(config.run.ranks_per_task);
    match &team {
        Team::Alone => log::info!("rank {} of {}: {device:?}", ranks.rank(), ranks.size()),
        team => log::info!("rank {} of {}, {team}: {device:?}", ranks.rank(), ranks.size()),
    }

    let total = missing.len();
    let work = |index: usize, slice: Option<Duration>| {
        let PlannedTask { task, parent, .. } = &tasks[index];
        let parent = parent.map(|index| tasks[index].task);
        if team.leads() {
            // While a task runs again its last failure no longer counts.
            dir.forget(task);
        }
        let worker = Worker { config: &config, dir: &dir, device, team: &team, ranks, stop, bars };
        let outcome = worker.work_on(task, parent.as_ref(), slice);
        if team.leads() {
            keep_outcome(task, &outcome, &dir);
        }
        outcome.unwrap_or(Outcome::Failed)
    };
    let desk = reception.as_ref().map(|reception| reception as &dyn Desk);
    let shortest_slice = config.run.shortest_slice().map(|slice| slice.as_secs_f64());
    let teams = ranks.size() / team.size();
    let queue = Queue::new(&tasks, &missing, Crew { ranks: teams, shortest_slice });
    let counts = distribute::distribute((ranks, &team), queue, desk, stop, work);
    let Counts { failed, unfinished } = counts;
    if let Some(reception) = reception {
        if total > 0 {
            reception.events.write(&Event::JobEnded { failed, unfinished });
        }
        if failed + unfinished == 0 {
            conclude(&config, &dir);
        }
    }
    match counts {
        Counts { unfinished: 1.., .. } => Err(Error::Stopped),
        Counts { failed: 1.., .. } => {
            Err(Error::TasksFailed { failed, total, dir: dir.failures() })
        }
        Counts { failed: 0, unfinished: 0 } => Ok(()),
    }
}

/// Says which tasks to trust, and once all are finished, what to do next.
fn conclude(config: &Config, dir: &SweepDir) {
    let tasks = plan::own_tasks(config);
    let head = |task: &Task| Head::read(&dir.task_path(task)).ok().flatten();
    let heads: Vec<Option<Head<Brief>>> = tasks.iter().map(head).collect();
    let finished = tasks.iter().zip(&heads);
    let verdicts: Vec<_> =
        finished.filter_map(|(task, head)| Some((task, head.as_ref()?.verdict.as_str()))).collect();
    if verdicts.is_empty() {
        return;
    }
    for line in summary::trust(&verdicts) {
        log::info!("{line}");
    }
    let (done, all, root) = (verdicts.len(), tasks.len(), dir.root().display());
    if done == all {
        log::info!("all {all} tasks are finished; next: neuralrg collect {root}");
    } else {
        log::info!("{done} of {all} tasks are finished; more: neuralrg status {root}");
    }
}

/// Tidies up behind a task that has ended, and keeps its error.
fn keep_outcome(task: &Task, outcome: &Result<Outcome>, dir: &SweepDir) {
    if matches!(outcome, Ok(Outcome::Stopped | Outcome::Paused { .. })) {
        return;
    }
    dir.forget(task);
    if let Err(error) = outcome {
        record_failure(task, error, dir);
    }
}

/// Tells of a failed task and keeps its error in the folder.
fn record_failure(task: &Task, error: &Error, dir: &SweepDir) {
    log::error!("task {} failed: {error}", task.name());
    if let Err(error) = dir.record_failure(task, error) {
        log::error!("task {}: {error}", task.name());
    }
}

/// What a rank needs to work on tasks.
struct Worker<'a> {
    config: &'a Config,
    dir: &'a SweepDir,
    device: Device,
    team: &'a Team,
    ranks: &'a Ranks,
    stop: &'a Stop,
    bars: &'a MultiProgress,
}

impl Worker<'_> {
    /// Runs one task, or pauses it after `slice`; as the leader of the team, writes its file. A panic inside counts
    /// as the task's failure, not the rank's.
    fn work_on(
        &self,
        task: &Task,
        parent: Option<&Task>,
        slice: Option<Duration>,
    ) -> Result<Outcome> {
        let Self { config, dir, team, .. } = self;
        let origin = parent.map_or_else(String::new, |parent| format!(" from {}", parent.name()));
        let mut progress = TaskProgress::new(
            task,
            config,
            (&dir.progress_path(task), &dir.log_path(task)),
            (self.ranks, team),
            self.bars,
        );
        progress.note(&format!("task {} begins{origin}", task.name()));
        let interval = config.run.checkpoint_interval();
        let path = dir.checkpoint_path(task);
        let stop = self.stop.clone();
        let mut checkpoints =
            Checkpoints::open(path, &task.name(), interval, stop, team).pause_after(slice);
        let outcome = team.together(|| {
            checkpoints.share();
            let parent = parent.map(|parent| self.read_parent(parent)).transpose()?;
            let place = (*team, self.device);
            run_task(task, config, place, parent.as_ref(), &mut checkpoints, &mut progress)
        });
        if !team.leads() {
            // The queue hears of the task from the leader.
            return outcome.map(|record| Outcome::Done { seconds: record.timing["wall_seconds"] });
        }
        match outcome {
            Err(Error::Stopped) => {
                progress.stopped();
                return Ok(Outcome::Stopped);
            }
            Err(Error::Paused) => {
                progress.paused();
                let seconds = checkpoints.seconds();
                let remaining = progress.remaining_seconds(seconds);
                return Ok(Outcome::Paused { seconds, remaining });
            }
            _ => {}
        }
        let written = outcome.and_then(|record| {
            progress.completed();
            write_task(&dir.task_path(task), &record, config)
                .inspect_err(|_| checkpoints.save_finished(progress.snapshot()))?;
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
        let seconds = record.timing["wall_seconds"];
        progress.note(&format!(
            "task {} is done: gap {:.4} ± {:.4} nat, {:.1} s",
            task.name(),
            record.scalars["gap"],
            record.scalars["gap_error"],
            seconds
        ));
        Ok(Outcome::Done { seconds })
    }

    /// What a task needs of the finished one that it starts from; the leader reads it.
    fn read_parent(&self, task: &Task) -> Result<Parent> {
        let read = || {
            wait_for(&self.dir.task_path(task));
            open_finished(task, self.config, &Origin::new(self.config), self.dir)
                .and_then(|file| Ok(file.flow()?.parameters))
                .map_err(|error| Error::UnreadableParent {
                    parent: task.name(),
                    cause: Box::new(error),
                })
        };
        let parameters = if self.team.leads() { read()? } else { Vec::new() };
        Ok(Parent { task: *task, parameters: self.team.leaders(parameters) })
    }
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
