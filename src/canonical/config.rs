//! Sections `[canonical]` and `[source]` of configurations.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bounds::{Check, MOST_DRAWS, MOST_NUMBERS, check_list, require, require_count};
use crate::error::Result;
use crate::targets::surface::Surface;
use crate::train::config::identify;

/// Points of a path along a mode.
pub const PATH_POINTS: usize = 25;
/// Ten parts of so many samples have more than a sample's nearest neighbours, for the mutual information with angles.
pub(super) const FEWEST_WITH_ANGLES: usize = 100;
/// Most coordinates: frequencies, couplings and modes of so many fit into any machine's memory.
const MOST_COORDINATES: usize = 1 << 16;

/// What is minimized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossChoice {
    /// The variational free energy; needs a surface.
    Variational,
    /// -ln ρ of samples.
    Likelihood,
}

/// How momenta enter a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MomentaChoice {
    /// New ones at each step.
    Drawn,
    /// By their mean, for as many times the cost as there are coordinates.
    Integrated,
}

/// `[canonical]`: what is trained, and what is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanonicalSection {
    /// One training each; the best one is described, all give the errors of the frequencies.
    #[serde(default = "one_seed")]
    pub seeds: Vec<u64>,
    pub loss: LossChoice,
    #[serde(default = "drawn")]
    pub momenta: MomentaChoice,
    /// Samples of the flow for the free energies.
    #[serde(default = "many")]
    pub evaluate: i64,
    /// Samples of the flow that are kept.
    #[serde(default = "thousand")]
    pub samples: i64,
    /// So many of the slowest modes are described.
    #[serde(default = "some_modes")]
    pub modes: usize,
    /// Samples for the mutual information of modes and angles.
    #[serde(default = "ten_thousand")]
    pub information: i64,
    /// Held-out samples are redrawn from so many of their slowest modes, the others drawn anew.
    #[serde(default)]
    pub kept_modes: Vec<usize>,
}

fn one_seed() -> Vec<u64> {
    vec![1]
}

fn drawn() -> MomentaChoice {
    MomentaChoice::Drawn
}

fn many() -> i64 {
    100_000
}

fn thousand() -> i64 {
    1000
}

fn ten_thousand() -> i64 {
    10_000
}

fn some_modes() -> usize {
    32
}

/// `[source]`: what the flow learns from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSection {
    pub kind: SourceKind,
    /// n of `harmonic-chain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beads: Option<usize>,
    /// Exact samples of a surface that are learned from by their likelihood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<i64>,
    /// File of `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Its checksum, filled in before anything runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// So many samples, the last ones, are not trained on, but judge what was learned.
    #[serde(default = "default_held_out")]
    pub held_out: usize,
    /// Coordinates of `data` are multiplied by this, which gives the unit of length its masses and temperature.
    #[serde(default = "one")]
    pub scale: f64,
}

fn default_held_out() -> usize {
    1000
}

fn one() -> f64 {
    1.0
}

/// Where energies or samples come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    Ring,
    HarmonicChain,
    Data,
}

impl SourceSection {
    /// The surface, if it is one.
    pub fn surface(&self) -> Option<Surface> {
        match self.kind {
            SourceKind::Ring => Some(Surface::Ring),
            SourceKind::HarmonicChain => {
                Some(Surface::HarmonicChain { beads: self.beads.expect("checked") })
            }
            SourceKind::Data => None,
        }
    }

    /// Fills in the checksum of the file, if there is one; `path` names the configuration.
    ///
    /// # Errors
    /// The file cannot be read, or the configuration has another checksum.
    pub fn identify(&mut self, path: &Path) -> Result<()> {
        match &self.file {
            Some(file) => {
                identify(("source.sha256", "read data file"), file, &mut self.sha256, path)
            }
            None => Ok(()),
        }
    }

    pub(crate) fn check(&self, loss: LossChoice) -> Check {
        let is = |kind| self.kind == kind;
        let said = |given: bool| if given { "given" } else { "missing" };
        let [chain, data] = [SourceKind::HarmonicChain, SourceKind::Data].map(is);
        require(
            self.beads.is_some() == chain,
            "source.beads",
            said(self.beads.is_some()),
            "given for source.kind = \"harmonic-chain\", and for no other",
        )?;
        if let Some(beads) = self.beads {
            let allowed = format!("from 2 to {MOST_COORDINATES}");
            require((2..=MOST_COORDINATES).contains(&beads), "source.beads", beads, allowed)?;
        }
        require(
            self.file.is_some() == data,
            "source.file",
            said(self.file.is_some()),
            "given for source.kind = \"data\", and for no other",
        )?;
        let learns = loss == LossChoice::Likelihood;
        require(
            learns || !data,
            "canonical.loss",
            "\"variational\"",
            "\"likelihood\" for source.kind = \"data\", of which no energy is known",
        )?;
        let wanted = learns && !data;
        require(
            self.samples.is_some() == wanted,
            "source.samples",
            said(self.samples.is_some()),
            "given where the likelihood of a ring or chain is maximized, and nowhere else",
        )?;
        if let Some(samples) = self.samples {
            let ring = self.kind == SourceKind::Ring;
            // Of its angles mutual information is told.
            let fewest = if ring { FEWEST_WITH_ANGLES as i64 } else { 4 };
            require_count("source.samples", samples, fewest, MOST_DRAWS)?;
            let most = samples - 2;
            let allowed = format!("at most {most}, which leaves 2 of source.samples");
            let held_out = self.held_out;
            require(held_out as i64 <= most, "source.held_out", held_out, allowed)?;
        }
        require(self.held_out >= 2, "source.held_out", self.held_out, "2 or more, for error bars")?;
        let scale = self.scale;
        require(scale.is_finite() && scale > 0.0, "source.scale", scale, "above 0")?;
        require(data || scale == 1.0, "source.scale", scale, "1, unless source.kind is \"data\"")
    }
}

impl CanonicalSection {
    pub(crate) fn check(&self) -> Check {
        let fits = |seed: &u64| i64::try_from(*seed).map(|_| ()).map_err(|_| "below 2^63".into());
        check_list("canonical.seeds", &self.seeds, fits)?;
        require_count("canonical.evaluate", self.evaluate, 200, MOST_DRAWS)?;
        require_count("canonical.samples", self.samples, 1, 1_000_000)?;
        require_count("canonical.information", self.information, 100, 1_000_000)?;
        require(self.modes >= 1, "canonical.modes", self.modes, "1 or more")?;
        require(
            self.kept_modes.is_empty() || self.loss == LossChoice::Likelihood,
            "canonical.kept_modes",
            "a list",
            "empty, unless canonical.loss is \"likelihood\": there are no held-out samples to redraw",
        )
    }

    /// Whether there are so many modes as are asked for, and memory for what is told of so many coordinates.
    pub(crate) fn check_coordinates(&self, coordinates: usize) -> Check {
        let most = MOST_NUMBERS / coordinates as i64;
        let allowed = format!("at most {most} for {coordinates} coordinates");
        require(self.evaluate <= most, "canonical.evaluate", self.evaluate, &allowed)?;
        require(self.samples <= most, "canonical.samples", self.samples, &allowed)?;
        require(self.information <= most, "canonical.information", self.information, &allowed)?;
        let paths = self.modes.min(coordinates) as i64 * PATH_POINTS as i64;
        let allowed =
            format!("at most {} for {coordinates} coordinates", most / PATH_POINTS as i64);
        require(paths <= most, "canonical.modes", self.modes, allowed)?;
        let allowed = format!("from 0 to {coordinates}, the number of coordinates, in each place");
        let wrong = self.kept_modes.iter().find(|&&kept| kept > coordinates);
        let shown = wrong.map_or_else(String::new, ToString::to_string);
        require(wrong.is_none(), "canonical.kept_modes", shown, allowed)
    }
}
