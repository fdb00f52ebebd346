//! Sections `[train]` and `[data]` of configurations.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bounds::{Check, MOST_BATCH, MOST_STEPS, require, require_count, require_fields};
use crate::engine::config::Estimator;
use crate::error::{Error, Result};
use crate::files::seal;

/// `[data]`: fields to learn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// HDF5 file of fields; a relative path starts at the working directory.
    pub file: PathBuf,
    /// So many samples at the end of the file are not trained on, but judge what was learned.
    #[serde(default = "default_held_out")]
    pub held_out: usize,
    /// Checksum of the file, filled in before anything runs, so that a folder belongs to one content.
    #[serde(default)]
    pub sha256: String,
}

fn default_held_out() -> usize {
    1000
}

/// How weights decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// `weight_decay` × parameters is added to the gradient: the paper's.
    L2,
    /// Each step shrinks parameters by learning rate × `weight_decay` (arXiv:1711.05101).
    Decoupled,
}

/// Course of the learning rate after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// As it is: the paper's.
    Constant,
    /// Half a cosine down to `final_learning_rate_fraction`.
    Cosine,
}

/// Where the parameters of a task's flow start: at random, at those of another task's trained flow, which then runs first,
/// or at those of a flow that was trained elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    expecting = "start_from must be \"none\", \"higher-temperature\", \"shallower\" or \"half-size\", or a table { sweep } or { file }"
)]
pub enum StartFrom {
    /// At random.
    None,
    /// At the next higher temperature of the sweep; the highest starts at random.
    HigherTemperature,
    /// At the next smaller depth of the sweep; the smallest starts at random.
    Shallower,
    /// At a task with half the linear size and one level less, down to L = 4 or one level.
    HalfSize,
    /// At the finished task of another sweep's folder that is most like it.
    #[serde(untagged)]
    Sweep(OtherSweep),
    /// At the flow of a task file, or of a file that `export` has written.
    #[serde(untagged)]
    File(FlowFile),
}

/// The folder of another sweep; a relative path starts at the working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherSweep {
    pub sweep: PathBuf,
}

/// A file with a flow; a relative path starts at the working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowFile {
    pub file: PathBuf,
    /// Checksum of the file, filled in before anything runs, so that a folder belongs to one content.
    #[serde(default)]
    pub sha256: String,
}

/// `[train]`: minimization of the reverse KL divergence with Adam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Most steps.
    pub steps: i64,
    /// Most seconds; 0: no limit. What is reached then depends on the machine.
    pub seconds: f64,
    /// Training ends when ½ Var(ln q - ln π), which estimates the gap in nats, falls to this over
    /// `log_every` steps; 0: it goes on.
    pub target_gap: f64,
    /// Samples in each step.
    pub batch: i64,
    /// The batch is doubled at equal intervals so often that the last interval has
    /// `batch` · 2^`batch_doublings` samples.
    pub batch_doublings: u32,
    /// Largest learning rate, reached after the warm-up.
    pub learning_rate: f64,
    pub schedule: Schedule,
    /// The cosine decay ends at this fraction of `learning_rate`; unused with a constant rate.
    pub final_learning_rate_fraction: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: i64,
    /// Strength of the decay of all parameters; 0: none.
    pub weight_decay: f64,
    pub decay: Decay,
    pub estimator: Estimator,
    /// Decay of the running mean of the parameters that the trained flow ends with; 0: the last ones.
    pub averaging: f64,
    /// Gradients of a larger norm are scaled down to this norm; 0 turns clipping off.
    pub clip_norm: f64,
    /// A task fails after more skipped steps (non-finite loss or gradient) than this.
    pub max_skipped_steps: i64,
    /// Steps between two log lines, checks of the guard and entries of the progress file.
    pub log_every: i64,
    /// Steps between two measurements by latent HMC and its control (Fig. 3(b)); 0: none.
    pub measure_every: i64,
    /// Trajectories of each at a measurement; the first half adapts and is thrown away.
    pub measure_trajectories: i64,
    pub start_from: StartFrom,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 5000,
            seconds: 0.0,
            target_gap: 0.0,
            batch: 512,
            batch_doublings: 0,
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            final_learning_rate_fraction: 0.01,
            warmup_steps: 0,
            weight_decay: 1e-3,
            decay: Decay::L2,
            estimator: Estimator::Total,
            averaging: 0.0,
            clip_norm: 0.0,
            max_skipped_steps: 20,
            log_every: 100,
            measure_every: 0,
            measure_trajectories: 20,
            start_from: StartFrom::None,
        }
    }
}

impl DataConfig {
    /// Fills in the checksum of the file; `path` names the configuration.
    ///
    /// # Errors
    /// The file cannot be read, or the configuration has another checksum.
    pub fn identify(&mut self, path: &Path) -> Result<()> {
        identify(("data.sha256", "read data file"), &self.file, &mut self.sha256, path)
    }

    pub(crate) fn check(&self) -> Check {
        require(!self.file.as_os_str().is_empty(), "data.file", "\"\"", "the path of a file")?;
        require(self.held_out >= 2, "data.held_out", self.held_out, "2 or more, for error bars")
    }
}

impl FlowFile {
    /// Fills in the checksum of the file; `path` names the configuration.
    ///
    /// # Errors
    /// The file cannot be read, or the configuration has another checksum.
    pub fn identify(&mut self, path: &Path) -> Result<()> {
        identify(("train.start_from.sha256", "read flow"), &self.file, &mut self.sha256, path)
    }
}

/// Fills in the checksum of a file, or checks it where it is given under a key of the configuration at `path`.
///
/// # Errors
/// The file cannot be read, or another checksum is given.
pub(crate) fn identify(
    (key, action): (&'static str, &'static str),
    file: &Path,
    given: &mut String,
    path: &Path,
) -> Result<()> {
    let bytes = std::fs::read(file).map_err(Error::io(action, file))?;
    let sha256 = seal::sha256(&bytes);
    let same = given.is_empty() || *given == sha256;
    require(same, key, &*given, format!("{sha256}, that of {}", file.display()))
        .map_err(|problem| problem.at(path))?;
    *given = sha256;
    Ok(())
}

impl TrainConfig {
    pub(crate) fn check(&self) -> Check {
        require_count("train.steps", self.steps, 0, MOST_STEPS)?;
        require(
            (0.0..=1e9).contains(&self.seconds),
            "train.seconds",
            self.seconds,
            "from 0 (no limit) to 1000000000",
        )?;
        require(
            self.target_gap.is_finite() && self.target_gap >= 0.0,
            "train.target_gap",
            self.target_gap,
            "0 (off) or more",
        )?;
        require_count("train.batch", self.batch, 2, MOST_BATCH)?;
        require(
            self.batch_doublings <= 10,
            "train.batch_doublings",
            self.batch_doublings,
            "from 0 to 10",
        )?;
        require(
            self.learning_rate > 0.0 && self.learning_rate <= 1.0,
            "train.learning_rate",
            self.learning_rate,
            "above 0 and at most 1",
        )?;
        require(
            (0.0..=1.0).contains(&self.final_learning_rate_fraction),
            "train.final_learning_rate_fraction",
            self.final_learning_rate_fraction,
            "from 0 to 1",
        )?;
        require_count("train.warmup_steps", self.warmup_steps, 0, MOST_STEPS)?;
        require(
            (0.0..=1.0).contains(&self.weight_decay),
            "train.weight_decay",
            self.weight_decay,
            "from 0 to 1",
        )?;
        require(
            (0.0..1.0).contains(&self.averaging),
            "train.averaging",
            self.averaging,
            "from 0 to below 1",
        )?;
        require(
            self.clip_norm.is_finite() && self.clip_norm >= 0.0,
            "train.clip_norm",
            self.clip_norm,
            "0 (off) or more",
        )?;
        require_count("train.max_skipped_steps", self.max_skipped_steps, 0, MOST_STEPS)?;
        require_count("train.log_every", self.log_every, 1, MOST_STEPS)?;
        require_count("train.measure_every", self.measure_every, 0, MOST_STEPS)?;
        require_count("train.measure_trajectories", self.measure_trajectories, 2, 1_000_000)
    }

    /// Whether the largest batch has a size that memory may hold.
    pub(crate) fn check_size(&self, linear_size: usize) -> Check {
        require_fields("train.batch × 2^train.batch_doublings", self.largest_batch(), linear_size)
    }

    /// Samples of a step after all doublings.
    pub fn largest_batch(&self) -> i64 {
        self.batch << self.batch_doublings
    }

    /// What a training by samples cannot do.
    pub(crate) fn check_forward(&self) -> Check {
        require(
            self.target_gap == 0.0,
            "train.target_gap",
            self.target_gap,
            "0 with [data], since the gap is not known from samples of the target",
        )
    }
}
