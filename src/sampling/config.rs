//! Sections `[evaluate]`, `[hmc]` and `[controls]` of configurations.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bounds::{Check, MOST_BATCH, MOST_DRAWS, require, require_count};

/// `[evaluate]`: the variational free energy and samples of the trained flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluateConfig {
    /// Samples for the free energy.
    pub samples: i64,
    /// Samples drawn at a time.
    pub batch: i64,
    /// Field configurations kept in the task file.
    pub keep_samples: i64,
}

/// `[hmc]`: hybrid Monte Carlo in the latent space; its controls take the same chains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HmcConfig {
    /// Independent chains, advanced together.
    pub chains: i64,
    /// Trajectories that adapt step size and length and are thrown away.
    pub warmup: i64,
    /// Trajectories measured in each chain.
    pub trajectories: i64,
    /// Leapfrog steps of a trajectory; where the length adapts, at the start of the warm-up.
    pub leapfrog_steps: i64,
    /// Whether the trajectory length adapts too.
    pub adapt_length: bool,
    /// Whether latent HMC proposes latents that no gradient leads to after each trajectory.
    pub global_moves: bool,
    /// β of their proposals √(1-β²) z + β ξ, ξ from the prior: 1 proposes fresh latents.
    pub global_step: f64,
    /// Replicas of each chain at rising temperatures, itself included: as many as exchange well, found in the warm-up, or so
    /// many; 1 is the chain alone.
    pub replicas: Count,
    /// Trajectories of the replicas, and exchanges between them, for each trajectory of a chain: as many as cost about as
    /// much, or so many.
    pub sweeps: Count,
    /// No trajectory of latent HMC takes more leapfrog steps.
    pub max_leapfrog_steps: i64,
    /// Lengths are spread evenly over (1 ± jitter) times their mean.
    pub jitter: f64,
    /// Leapfrog step size at the start of the warm-up.
    pub step_size: f64,
    /// Acceptance that the adaptation aims at.
    pub target_acceptance: f64,
    /// A trajectory whose energy error exceeds this counts as divergent.
    pub divergence_threshold: f64,
    /// States of all chains of latent HMC together, evenly over the measured trajectories, that the task file keeps for
    /// studies; a few more where they do not divide among the chains.
    pub keep_states: i64,
}

/// A number that may be left to the program (`[hmc] replicas`, `sweeps`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// `"auto"`.
    Auto,
    /// So many.
    Fixed(i64),
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Fixed(count) => serializer.serialize_i64(*count),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Expected;

        impl Visitor<'_> for Expected {
            type Value = Count;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("\"auto\" or a whole number")
            }

            fn visit_i64<E: de::Error>(self, count: i64) -> Result<Count, E> {
                Ok(Count::Fixed(count))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Count, E> {
                match text {
                    "auto" => Ok(Count::Auto),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(Expected)
    }
}

/// Ways to draw from the target, all with chains of the same layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// HMC in the latent space of the flow (App. C).
    Latent,
    /// HMC in the space of the fields.
    Physical,
    /// The same with Fourier acceleration.
    Fourier,
    /// Metropolis with samples of the flow as proposals.
    Independence,
}

impl Sampler {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 4] = [Self::Latent, Self::Physical, Self::Fourier, Self::Independence];

    /// Its name in configurations and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latent => "latent",
            Self::Physical => "physical",
            Self::Fourier => "fourier",
            Self::Independence => "independence",
        }
    }
}

/// Where chains in the space of the fields start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Fields of free spins.
    Hot,
    /// Fields of spins that all point up.
    Cold,
}

/// `[controls]`: other samplers of the same target, beside latent HMC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlsConfig {
    /// Any but `"latent"`, which always runs.
    pub samplers: Vec<Sampler>,
    /// Where the chains of `"physical"` and `"fourier"` start.
    pub start: Start,
    /// None of their trajectories takes more leapfrog steps, nor those of HMC of the field during a training.
    pub max_leapfrog_steps: i64,
}

/// A ladder has no more rungs.
pub(crate) const MOST_REPLICAS: usize = 128;

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self { samples: 16_384, batch: 1024, keep_samples: 16 }
    }
}

impl Default for HmcConfig {
    fn default() -> Self {
        Self {
            chains: 64,
            warmup: 200,
            trajectories: 500,
            leapfrog_steps: 4,
            adapt_length: true,
            global_moves: true,
            global_step: 1.0,
            replicas: Count::Auto,
            sweeps: Count::Auto,
            max_leapfrog_steps: 6,
            jitter: 0.5,
            step_size: 0.1,
            target_acceptance: 0.8,
            divergence_threshold: 1000.0,
            keep_states: 0,
        }
    }
}

impl Default for ControlsConfig {
    fn default() -> Self {
        Self { samplers: Vec::new(), start: Start::Hot, max_leapfrog_steps: 64 }
    }
}

impl EvaluateConfig {
    pub(crate) fn check(&self) -> Check {
        require_count("evaluate.samples", self.samples, 2, MOST_DRAWS)?;
        require_count("evaluate.batch", self.batch, 1, MOST_BATCH)?;
        require(
            (1..=self.samples).contains(&self.keep_samples),
            "evaluate.keep_samples",
            self.keep_samples,
            "from 1 to evaluate.samples",
        )
    }
}

impl HmcConfig {
    pub(crate) fn check(&self) -> Check {
        // Two for error bars; eight since halves of chains are compared.
        require_count("hmc.chains", self.chains, 2, 1_000_000)?;
        require_count("hmc.warmup", self.warmup, 0, MOST_DRAWS)?;
        require_count("hmc.trajectories", self.trajectories, 8, MOST_DRAWS)?;
        let draws = self.chains.saturating_mul(self.trajectories);
        let allowed = format!("at most {MOST_DRAWS}");
        require(draws <= MOST_DRAWS, "hmc.chains × hmc.trajectories", draws, allowed)?;
        require_count("hmc.leapfrog_steps", self.leapfrog_steps, 1, 10_000)?;
        require(
            (self.leapfrog_steps..=10_000).contains(&self.max_leapfrog_steps),
            "hmc.max_leapfrog_steps",
            self.max_leapfrog_steps,
            "from hmc.leapfrog_steps to 10000",
        )?;
        if let Count::Fixed(count) = self.replicas {
            require_count("hmc.replicas", count, 1, MOST_REPLICAS as i64)?;
        }
        if let Count::Fixed(sweeps) = self.sweeps {
            require_count("hmc.sweeps", sweeps, 1, 10_000)?;
        }
        require(
            self.global_step > 0.0 && self.global_step <= 1.0,
            "hmc.global_step",
            self.global_step,
            "above 0, at most 1",
        )?;
        require((0.0..=1.0).contains(&self.jitter), "hmc.jitter", self.jitter, "from 0 to 1")?;
        require(
            self.step_size.is_finite() && self.step_size > 0.0,
            "hmc.step_size",
            self.step_size,
            "above 0",
        )?;
        require(
            self.target_acceptance > 0.0 && self.target_acceptance < 1.0,
            "hmc.target_acceptance",
            self.target_acceptance,
            "between 0 and 1",
        )?;
        require(
            self.divergence_threshold > 0.0,
            "hmc.divergence_threshold",
            self.divergence_threshold,
            "above 0",
        )?;
        require(
            (0..=draws).contains(&self.keep_states),
            "hmc.keep_states",
            self.keep_states,
            "from 0 to hmc.chains × hmc.trajectories",
        )
    }
}

impl ControlsConfig {
    pub(crate) fn check(&self) -> Check {
        require_count("controls.max_leapfrog_steps", self.max_leapfrog_steps, 1, 10_000)?;
        let names = self.samplers.iter().map(|sampler| sampler.name());
        let latent = self.samplers.contains(&Sampler::Latent);
        let allowed = "others only, since latent HMC always runs";
        require(!latent, "controls.samplers", "a list with \"latent\"", allowed)?;
        let unique: HashSet<_> = names.collect();
        let twice = unique.len() < self.samplers.len();
        require(!twice, "controls.samplers", "a list with a name twice", "a list without")
    }
}
