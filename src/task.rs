//! One task: training a flow, measuring with it, and what it leaves behind.

pub mod canonical;
pub mod checkpoint;
pub mod cost;
pub mod export;
mod judgement;
pub mod learn;
pub mod modes;
pub mod numbers;
mod outcome;
pub mod progress;
pub mod record;
pub mod results;
pub mod run;
pub mod sample;
pub mod start;
pub mod study_file;
pub mod task_file;
pub mod trained;
pub mod writing;

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::flow::Architecture;
use crate::flow::config::FlowConfig;
use crate::seed::TaskSeed;
use crate::targets::Target;

/// One training: a temperature, a depth and a seed on an L × L lattice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub linear_size: usize,
    /// T in units of J/k_B.
    pub temperature: f64,
    /// Levels of the hierarchy.
    pub depth: usize,
    pub seed: u64,
}

/// Whose trained flow a task starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Start {
    /// A task of the same sweep.
    Task(Task),
    /// A task file of another sweep, or an exported flow.
    File { path: PathBuf, sha256: String },
}

/// The task's name, or the file with its checksum.
impl Display for Start {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(task) => write!(formatter, "{}", task.name()),
            Self::File { path, sha256 } => {
                write!(formatter, "{} (sha256 {sha256})", path.display())
            }
        }
    }
}

impl Task {
    /// Name of the task, unique within a sweep and fit for a file name.
    pub fn name(&self) -> String {
        let Self { linear_size, temperature, depth, seed } = self;
        format!("L{linear_size}_T{temperature}_d{depth}_s{seed}")
    }

    /// The task of a name.
    pub fn named(name: &str) -> Option<Self> {
        let mut parts = name.split('_');
        let mut value = |letter: char| parts.next()?.strip_prefix(letter);
        let task = Self {
            linear_size: value('L')?.parse().ok()?,
            temperature: value('T')?.parse().ok()?,
            depth: value('d')?.parse().ok()?,
            seed: value('s')?.parse().ok()?,
        };
        (task.name() == name).then_some(task)
    }

    /// All its random streams. They depend on its physics (L, T, depth) and its seed, not on the sweep it belongs to: the
    /// same task in a longer list of temperatures draws the same numbers.
    pub fn streams(&self) -> TaskSeed {
        let Self { linear_size, temperature, depth, seed } = *self;
        TaskSeed::new(linear_size, temperature, depth, seed)
    }

    /// What it samples.
    pub fn target(&self) -> Target {
        Target::ising_dual(self.linear_size)
    }

    /// What its flow is.
    pub fn architecture(&self, config: &FlowConfig) -> Architecture {
        Architecture::new(self.linear_size, self.depth, self.seed, config)
    }
}
