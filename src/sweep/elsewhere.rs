//! Trained flows of other sweeps that tasks start from.

use std::path::PathBuf;

use super::folder::SweepDir;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::flow::config::Splits;
use crate::task::Task;
use crate::train::config::{FlowFile, OtherSweep, StartFrom};

/// A file with a flow of elsewhere.
#[derive(Debug)]
pub struct Elsewhere {
    pub path: PathBuf,
    /// The checksum that it must have, where the configuration pins it.
    pub sha256: Option<String>,
}

/// The file with the flow that a task starts from, if `train.start_from` wants one of elsewhere: of another sweep the finished
/// task that is most alike, by size, then depth, then temperature, then seed.
///
/// # Errors
/// It is no sweep's folder, has no task on a lattice that is not larger, or cannot be read.
pub fn elsewhere(config: &Config, task: &Task) -> Result<Option<Elsewhere>> {
    let sweep = match &config.train.start_from {
        StartFrom::Sweep(OtherSweep { sweep }) => sweep,
        StartFrom::File(FlowFile { file, sha256 }) => {
            return Ok(Some(Elsewhere { path: file.clone(), sha256: Some(sha256.clone()) }));
        }
        _ => return Ok(None),
    };
    let dir = SweepDir::open(sweep)?;
    let tasks = dir.finished_names().into_iter().filter_map(|name| Task::named(&name));
    let mut tasks: Vec<Task> =
        tasks.filter(|other| other.linear_size <= task.linear_size).collect();
    // Random halves of blocks are those of a seed.
    let of_seed = config.flow.splits == Splits::Random;
    tasks.retain(|other| !of_seed || other.seed == task.seed);
    tasks
        .sort_by(|a, b| distance(a, task).partial_cmp(&distance(b, task)).expect("all are finite"));
    let nearest =
        tasks.first().ok_or_else(|| Error::NoStart { dir: sweep.clone(), task: task.name() })?;
    Ok(Some(Elsewhere { path: dir.task_path(nearest), sha256: None }))
}

/// How far a task is from another one that is to start from it, the more important numbers first.
fn distance(other: &Task, task: &Task) -> (usize, usize, f64, bool, u64) {
    (
        task.linear_size - other.linear_size,
        task.depth.abs_diff(other.depth),
        (task.temperature - other.temperature).abs(),
        task.seed != other.seed,
        other.seed,
    )
}
