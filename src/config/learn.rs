//! The configuration of `neuralrg learn`: one flow that learns from pictures.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::command::CommandConfig;
use super::text::written;
use crate::bounds::{Check, require, require_count, require_fields};
use crate::engine::config::RunConfig;
use crate::error::Result;
use crate::flow::config::{FlowConfig, Symmetry};
use crate::flow::coupling::Conditioner;
use crate::lattice::halvings;
use crate::train::config::{DataConfig, StartFrom, TrainConfig};

/// One flow and the pictures that it learns from; every default is filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnConfig {
    pub learn: LearnSection,
    pub data: DataConfig,
    #[serde(default)]
    pub flow: FlowConfig,
    #[serde(default)]
    pub train: TrainConfig,
    #[serde(default)]
    pub run: RunConfig,
}

/// `[learn]`: what a sweep has lists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnSection {
    /// Hierarchy levels, from 1 to as many as L can be halved.
    pub depth: usize,
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Generated pictures that are kept.
    #[serde(default = "default_samples")]
    pub samples: i64,
}

fn default_seed() -> u64 {
    1
}

fn default_samples() -> i64 {
    64
}

impl LearnConfig {
    /// Whether the values fit to an L × L lattice.
    ///
    /// # Errors
    /// They do not; `path` names the configuration.
    pub fn check_lattice(&self, linear_size: usize, path: &Path) -> Result<()> {
        self.check_sizes(linear_size).map_err(|problem| problem.at(path))
    }

    fn check_sizes(&self, linear_size: usize) -> Check {
        let Self { learn, flow, train, .. } = self;
        let deepest = halvings(linear_size);
        let allowed = format!(
            "from 1 to {deepest}, as often as L can be halved, the data's fields being {linear_size} × {linear_size}"
        );
        require((1..=deepest).contains(&learn.depth), "learn.depth", learn.depth, allowed)?;
        flow.check_size(linear_size, learn.depth)?;
        train.check_size(linear_size)?;
        require_fields("learn.samples", learn.samples, linear_size)
    }

    fn check(&self) -> Check {
        let Self { learn, data, flow, train, run } = self;
        require(learn.depth >= 1, "learn.depth", learn.depth, "1 or more")?;
        // TOML integers, which the resolved configuration is written in, are signed.
        require(i64::try_from(learn.seed).is_ok(), "learn.seed", learn.seed, "below 2^63")?;
        require_count("learn.samples", learn.samples, 1, 1_000_000)?;
        data.check()?;
        flow.check()?;
        check_without_symmetry(flow)?;
        train.check()?;
        train.check_forward()?;
        let every = train.measure_every;
        require(every == 0, "train.measure_every", every, "0: pictures have no observables")?;
        let start = &train.start_from;
        require(
            *start == StartFrom::None,
            "train.start_from",
            written(start),
            "\"none\": there is one training only",
        )?;
        run.check()
    }
}

impl CommandConfig for LearnConfig {
    /// Pictures are not symmetric under x → -x.
    const DEFAULTS: &str = "[flow]\nsymmetry = \"none\"\n";
    const FILE: &str = "data.file";
    const AFTER_TRAINING: &[&str] = &["learn.samples"];

    fn flow(&self) -> &FlowConfig {
        &self.flow
    }

    fn run(&self) -> &RunConfig {
        &self.run
    }

    fn identify(&mut self, path: &Path) -> Result<()> {
        self.data.identify(path)
    }

    fn validate(&self, path: &Path) -> Result<()> {
        self.check().map_err(|problem| problem.at(path))
    }
}

/// Pictures have neither the symmetry x → -x nor a temperature.
fn check_without_symmetry(flow: &FlowConfig) -> Check {
    require(
        flow.symmetry == Symmetry::None,
        "flow.symmetry",
        written(flow.symmetry),
        "\"none\": pictures are not symmetric under x → -x",
    )?;
    require(
        flow.conditioner == Conditioner::Elu,
        "flow.conditioner",
        "\"odd\"",
        "\"elu\": pictures are not symmetric under x → -x",
    )?;
    require(
        !flow.preconditioner,
        "flow.preconditioner",
        "true",
        "false: it is that of the Ising model at some temperature",
    )
}
