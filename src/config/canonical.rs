//! The configuration of `neuralrg canonical`: symplectic flows of one source.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::command::CommandConfig;
use super::text::written;
use crate::bounds::{Check, MOST_NUMBERS, require, require_count};
use crate::canonical::config::{CanonicalSection, LossChoice, MomentaChoice, SourceSection};
use crate::engine::config::{EngineChoice, Estimator, RunConfig};
use crate::error::Result;
use crate::flow::config::{Arrangement, FlowConfig, Symmetry};
use crate::train::config::{StartFrom, TrainConfig};

/// Flows and what they learn from; every default is filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanonicalConfig {
    pub canonical: CanonicalSection,
    pub source: SourceSection,
    #[serde(default)]
    pub flow: FlowConfig,
    #[serde(default)]
    pub train: TrainConfig,
    #[serde(default)]
    pub run: RunConfig,
}

impl CanonicalConfig {
    /// Whether the values fit to so many coordinates.
    ///
    /// # Errors
    /// They do not; `path` names the configuration.
    pub fn check_coordinates(&self, coordinates: usize, path: &Path) -> Result<()> {
        self.check_size(coordinates).map_err(|problem| problem.at(path))
    }

    fn check_size(&self, coordinates: usize) -> Check {
        let Self { canonical, source, flow, train, .. } = self;
        canonical.check_coordinates(coordinates)?;
        let copies = match canonical.momenta {
            MomentaChoice::Drawn => 1,
            MomentaChoice::Integrated => coordinates as i64,
        };
        let most = MOST_NUMBERS / coordinates as i64;
        let samples = source.samples.unwrap_or(0);
        let allowed = format!("at most {most} for {coordinates} coordinates");
        require(samples <= most, "source.samples", samples, allowed)?;
        let most = most / copies;
        let allowed = format!("at most {most} for {coordinates} coordinates");
        let largest = train.largest_batch();
        require(largest <= most, "train.batch × 2^train.batch_doublings", largest, &allowed)?;
        let layers = flow.couplings * flow.branches() * (flow.hidden_layers + 1);
        let most = (MOST_NUMBERS as usize / layers / flow.hidden_width).max(1);
        let allowed = format!("at most {most} with so many and so wide couplings");
        require(coordinates <= most, "source", format!("of {coordinates} coordinates"), allowed)
    }

    fn check(&self) -> Check {
        let Self { canonical, source, flow, train, run } = self;
        canonical.check()?;
        source.check(canonical.loss)?;
        flow.check()?;
        let known = [
            (
                "flow.arrangement",
                flow.arrangement == Arrangement::Halves,
                written(flow.arrangement),
                "\"halves\": coordinates have no lattice",
            ),
            ("flow.symmetry", flow.symmetry == Symmetry::None, written(flow.symmetry), "\"none\""),
            (
                "flow.preconditioner",
                !flow.preconditioner,
                true.into(),
                "false: it is that of the Ising model at some temperature",
            ),
            (
                "flow.repeats",
                flow.repeats == 1,
                written(flow.repeats as i64),
                "1; flow.couplings says how many couplings there are",
            ),
            (
                "train.measure_every",
                train.measure_every == 0,
                written(train.measure_every),
                "0: there are no observables",
            ),
            (
                "train.target_gap",
                train.target_gap == 0.0,
                written(train.target_gap),
                "0: a point transformation leaves a gap that nobody knows",
            ),
            (
                "train.start_from",
                train.start_from == StartFrom::None,
                written(&train.start_from),
                "\"none\": there is one training of each seed only",
            ),
        ];
        for (key, fine, value, allowed) in known {
            require(fine, key, value, allowed)?;
        }
        train.check()?;
        let drawn =
            (canonical.loss, canonical.momenta) == (LossChoice::Variational, MomentaChoice::Drawn);
        require(
            train.estimator == Estimator::Total || drawn,
            "train.estimator",
            "\"path\"",
            "\"total\", unless canonical.loss is \"variational\" and canonical.momenta \"drawn\"",
        )?;
        let engine = run.engine;
        require(
            matches!(engine, EngineChoice::Auto | EngineChoice::Torch),
            "run.engine",
            written(engine),
            "\"auto\" or \"torch\", which alone differentiates momenta",
        )?;
        require_count("run.ranks_per_task", run.ranks_per_task as i64, 1, 1)?;
        run.check()?;
        source.surface().map_or(Ok(()), |surface| self.check_size(surface.coordinates()))
    }
}

impl CommandConfig for CanonicalConfig {
    /// Coordinates have no lattice and no symmetry.
    const DEFAULTS: &str = "[flow]\narrangement = \"halves\"\nsymmetry = \"none\"\n";
    const FILE: &str = "source.file";
    const AFTER_TRAINING: &[&str] = &[
        "canonical.seeds",
        "canonical.evaluate",
        "canonical.samples",
        "canonical.modes",
        "canonical.information",
        "canonical.kept_modes",
    ];

    fn flow(&self) -> &FlowConfig {
        &self.flow
    }

    fn run(&self) -> &RunConfig {
        &self.run
    }

    fn identify(&mut self, path: &Path) -> Result<()> {
        self.source.identify(path)
    }

    fn validate(&self, path: &Path) -> Result<()> {
        self.check().map_err(|problem| problem.at(path))
    }
}
