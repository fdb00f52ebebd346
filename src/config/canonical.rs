//! The configuration of `neuralrg canonical`: symplectic flows of one source.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::text::{first_difference, parse_over_preset, written};
use crate::bounds::{Check, MOST_NUMBERS, require, require_count};
use crate::canonical::config::{CanonicalSection, LossChoice, MomentaChoice, SourceSection};
use crate::engine::config::{EngineChoice, Estimator, RunConfig};
use crate::error::{Error, Result};
use crate::flow::config::{Arrangement, FlowConfig, Symmetry};
use crate::train::config::{StartFrom, TrainConfig};

/// What differs from the defaults of sweeps: coordinates have no lattice and no symmetry.
const DEFAULTS: &str = "[flow]\narrangement = \"halves\"\nsymmetry = \"none\"\n";

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
    /// Reads and validates a configuration file.
    ///
    /// # Errors
    /// As [`super::Config::read`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read configuration", path))?;
        Self::parse(&text, path)
    }

    /// Parses and validates `text`; `path` only names it in messages.
    ///
    /// # Errors
    /// It is not TOML of the known keys, or holds a value that is not allowed.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let config: Self = parse_over_preset(text, path, DEFAULTS, |config: &Self| &config.flow)?;
        config.check().map_err(|problem| problem.at(path))?;
        Ok(config)
    }

    /// The resolved configuration as TOML, every default spelled out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a validated configuration has a TOML form")
    }

    /// The first key on which two configurations differ, the machine aside.
    pub fn difference(&self, other: &Self) -> Option<String> {
        first_difference(self, other)
    }

    /// What its training depends on, the machine and the seed aside, as text: a checkpoint is of such a configuration.
    pub fn training(&self) -> String {
        let mut config = self.clone();
        config.canonical = self.canonical.of_training();
        config.source.file = None;
        config.train.log_every = TrainConfig::default().log_every;
        config.run = RunConfig { precision: self.run.precision, ..Default::default() };
        config.to_toml()
    }

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
