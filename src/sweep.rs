//! `neuralrg run`: the tasks that a folder still lacks, spread over the ranks of this job and shared with
//! other jobs.

pub mod claims;
pub mod collect;
pub mod distribute;
pub mod elsewhere;
pub mod events;
mod finished;
pub mod folder;
pub mod plan;
pub mod queue;
mod reception;
pub mod schedule;
pub mod status;
pub mod summary;
mod work;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use indicatif::MultiProgress;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::config::sweep::decimal_comma_hint;
use crate::engine;
use crate::engine::device;
use crate::error::{Error, Result};
use crate::host;
use crate::ranks::{Ranks, Team};
use crate::signals::Stop;
use crate::sweep::claims::JobFile;
use crate::sweep::distribute::{Counts, Desk};
use crate::sweep::elsewhere::elsewhere;
use crate::sweep::events::{Event, Events};
use crate::sweep::finished::{Standing, keep_outcome, standing};
use crate::sweep::folder::SweepDir;
use crate::sweep::plan::PlannedTask;
use crate::sweep::queue::{Crew, Outcome, Queue};
use crate::sweep::reception::Reception;
use crate::sweep::work::Worker;
use crate::task::cost::Cost;
use crate::task::task_file::{Brief, Head, Origin};
use crate::task::{Task, checkpoint};

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

/// Rank 0 reads the configuration and looks what `root` still lacks of all tasks, or of the one with the
/// given index and those that it starts from; all ranks get to know. With `redo` numbers of finished tasks may be replaced.
///
/// # Errors
/// Configuration, folder or device; the other ranks then return [`Error::Elsewhere`], so that the
/// message is given once.
pub fn prepare(
    config_path: &Path,
    root: &Path,
    (task_index, redo): (Option<usize>, bool),
    ranks: &Ranks,
) -> Result<Job> {
    let find = || find_missing(config_path, root, (task_index, redo), ranks.size());
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
    (task_index, redo): (Option<usize>, bool),
    ranks: usize,
) -> Result<(Assignment, Reception)> {
    let mut config = Config::read(config_path)?;
    if let Some(hint) = decimal_comma_hint(config.temperatures()) {
        log::warn!("{}: {hint}", config_path.display());
    }
    config.identify_files(config_path)?;
    config.teams(ranks, config_path)?;
    let mut tasks = plan::tasks(&config);
    let wanted = match task_index {
        Some(index) => with_ancestors(&tasks, index)?,
        None => (0..tasks.len()).collect(),
    };
    // Asking for an engine or a GPU where there is none must not leave a folder behind.
    engine::check_built(config.run.engine)?;
    device::select(config.run.engine, config.run.device_choice(), 0)?;
    let (dir, mut lock) = SweepDir::prepare(root, &config, redo)?;
    let claims = Arc::new(dir.claims());
    let job = JobFile::create(Arc::clone(&claims), ranks)?;
    lock.job_is_known();
    let started = SystemTime::now();
    let standings = standings(&tasks, &config, &dir)?;
    check_replaced(&tasks, &standings, root, redo)?;
    tell_of_parents(&tasks, &standings);
    learn_costs(&mut tasks, &standings, &config);
    let missing: Vec<usize> =
        wanted.iter().copied().filter(|&index| !standings[index].is_done()).collect();
    for &index in &missing {
        let task = &tasks[index].task;
        let begun = checkpoint::exists(&dir.checkpoint_path(task)) || dir.kept_path(task).exists();
        if !begun && !matches!(standings[index], Standing::Partial(_)) {
            elsewhere(&config, task)?;
        }
    }
    log::info!(
        "{}: {} of {} tasks to do in {}",
        config.sweep.name,
        missing.len(),
        wanted.len(),
        root.display()
    );
    let names: Vec<String> = tasks.iter().map(|planned| planned.task.name()).collect();
    let to_do: HashSet<&str> = missing.iter().map(|&index| names[index].as_str()).collect();
    claims.tidy(|task| !to_do.contains(task));
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

/// What a folder has of a sweep.
#[derive(Debug)]
pub struct Expected {
    /// All tasks, with costs learned from those that are done.
    pub tasks: Vec<PlannedTask>,
    /// Indices of those that are to be done.
    pub missing: Vec<usize>,
    /// What tasks with a file lack, a line each.
    pub partial: Vec<String>,
}

/// What `root` has of the sweep of a configuration. Changes nothing.
///
/// # Errors
/// No sweep folder, one of another configuration, or a task file that cannot be read now.
pub fn expected(config: &Config, root: &Path) -> Result<Expected> {
    let dir = SweepDir::open(root)?;
    dir.check_configuration(config, true)?;
    let mut tasks = plan::tasks(config);
    let standings = standings(&tasks, config, &dir)?;
    learn_costs(&mut tasks, &standings, config);
    let missing = (0..tasks.len()).filter(|&index| !standings[index].is_done()).collect();
    let partial = tasks.iter().zip(&standings).filter_map(|(planned, standing)| match standing {
        Standing::Partial(lacking) => Some(format!("{} lacks {lacking}", planned.task.name())),
        Standing::Missing | Standing::Damaged(_) | Standing::Done { .. } => None,
    });
    let partial = partial.collect();
    Ok(Expected { tasks, missing, partial })
}

fn standings(tasks: &[PlannedTask], config: &Config, dir: &SweepDir) -> Result<Vec<Standing>> {
    let origin = Origin::new(config);
    tasks.iter().map(|planned| standing(&planned.task, config, &origin, dir)).collect()
}

/// Corrects the costs by what finished tasks took, and takes those of partial ones for what they lack.
fn learn_costs(tasks: &mut [PlannedTask], standings: &[Standing], config: &Config) {
    let seconds = |standing: &Standing| match standing {
        Standing::Done { seconds, .. } => Some(*seconds),
        _ => None,
    };
    let seconds: Vec<Option<f64>> = standings.iter().map(seconds).collect();
    plan::learn_costs(tasks, &seconds);
    for (planned, standing) in tasks.iter_mut().zip(standings) {
        if let Standing::Partial(lacking) = standing {
            planned.cost *= Cost::of(config, &planned.task).share(lacking.shares);
        }
    }
}

/// Files of tasks may lack more than the folder's configuration says, since they can be moved there.
fn check_replaced(
    tasks: &[PlannedTask],
    standings: &[Standing],
    root: &Path,
    redo: bool,
) -> Result<()> {
    let replaced = |standing: &Standing| match standing {
        Standing::Partial(lacking) => lacking.replacing.clone(),
        _ => None,
    };
    let found = tasks.iter().zip(standings).find_map(|(planned, standing)| {
        Some((planned.task.name(), replaced(standing)?)).filter(|_| !redo)
    });
    found.map_or(Ok(()), |(name, difference)| {
        let tasks = format!("task {name}, which is finished, would have other numbers");
        Err(Error::WouldReplace { dir: root.into(), difference, tasks })
    })
}

/// Tells which tasks keep a start that they would not have in a sweep begun with all tasks.
fn tell_of_parents(tasks: &[PlannedTask], standings: &[Standing]) {
    let kept = tasks.iter().zip(standings).filter_map(|(planned, standing)| {
        let Standing::Done { started_from, .. } = standing else { return None };
        let parent = tasks[planned.parent?].task.name();
        let name = planned.task.name();
        (*started_from != parent).then(|| format!("{name} from {started_from}, not {parent}"))
    });
    let kept: Vec<String> = kept.collect();
    if !kept.is_empty() {
        const SHOWN: usize = 3;
        let (count, first) = (kept.len(), kept[..kept.len().min(SHOWN)].join("; "));
        let more = if count > SHOWN { "; …" } else { "" };
        log::info!(
            "{count} finished tasks keep what they started from, though a sweep begun with all tasks would have it otherwise: {first}{more}"
        );
    }
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

/// Runs the missing tasks on all ranks, each on its own device.
///
/// # Errors
/// This rank's device cannot be had (the other ranks do not know of it), or tasks failed on some rank or
/// were left by a signal (which all ranks know).
pub fn run(job: Job, ranks: &Ranks, stop: &Stop, bars: &MultiProgress) -> Result<()> {
    let Job { config, dir, tasks, missing, reception } = job;
    host::keep_freed_memory();
    warn_of_crowding(config.run.threads);
    let device = device::select(config.run.engine, config.run.device_choice(), ranks.local_rank())?;
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
