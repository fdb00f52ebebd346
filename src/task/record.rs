//! What a finished task leaves behind, before it is written.

use ndarray::{Array1, Array2, Array3};

use super::{Start, Task};
use crate::files::{Numbers, schema};
use crate::flow::coupling::Half;
use crate::sampling::states::TargetSamples;

/// Everything a finished task leaves behind.
#[derive(Debug)]
pub struct TaskRecord {
    pub task: Task,
    /// What the training started from, and what that started from, and so on; at random where there is nothing.
    pub started_from: Option<(Start, String)>,
    /// The resolved configuration of the sweep, as TOML.
    pub configuration: String,
    pub host: String,
    pub device: String,
    /// CPU threads of the rank.
    pub threads: usize,
    /// By the names of [`schema::task_scalars`].
    pub scalars: Numbers,
    /// What is wrong with the task's numbers; nothing if all is well.
    pub verdict: Vec<String>,
    /// By the names of [`schema::REFERENCE_SCALARS`].
    pub references: Numbers,
    /// By the names of [`schema::TIMING_SCALARS`].
    pub timing: Numbers,
    /// Flat parameter vector.
    pub parameters: Array1<f64>,
    /// As [`Architecture::halves`](crate::flow::Architecture::halves) has them.
    pub halves: Vec<Half>,
    /// (quantity, step), quantities as in [`schema::TRAIN_HISTORY`].
    pub history: Array2<f64>,
    pub ln_q: Vec<f64>,
    pub ln_pi: Vec<f64>,
    /// (sample, N).
    pub samples: Array2<f64>,
    /// One of each sampler that ran, reweighting last.
    pub samplers: Vec<SamplerRecord>,
    /// (quantity, measurement), quantities as in [`schema::COURSE`]; no columns where nothing was measured.
    pub course: Array2<f64>,
    /// (quantity, L, L), quantities as in [`schema::LATTICE_OBSERVABLES`].
    pub lattice: Array3<f64>,
    /// By the names of [`schema::HELD_OUT_SCALARS`]; none where the flow learned from its own samples.
    pub held_out: Numbers,
}

/// What a sampler leaves behind.
#[derive(Debug)]
pub struct SamplerRecord {
    pub name: &'static str,
    /// (quantity, chain, trajectory), quantities as in [`schema::CHAINS`], from the first on.
    pub chains: Array3<f64>,
    /// By the names of [`schema::sampler_scalars`], or some of them.
    pub estimates: Numbers,
    pub verdict: Vec<String>,
    pub warmup_rule: String,
    /// None of samplers without latents, or where none are kept.
    pub states: Option<TargetSamples>,
}

/// A verdict as one line.
pub(crate) fn verdict_text(problems: &[String]) -> String {
    if problems.is_empty() { schema::VERDICT_OK.into() } else { problems.join("; ") }
}
