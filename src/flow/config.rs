//! Section `[flow]` of configurations: layers and symmetry.

use serde::{Deserialize, Serialize};

use super::coupling::{Conditioner, Network, Networks, Transform};
use crate::bounds::{Check, MOST_NEIGHBOURS, MOST_NUMBERS, require};

/// How the Z2 symmetry x → -x of the target enters the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symmetry {
    /// The flow as it is.
    None,
    /// Every layer commutes with x → -x, so that q(x) = q(-x) exactly; needs odd conditioners.
    Construction,
    /// ln q_sym(x) = ln ½[q(x) + q(-x)] (App. D).
    Mixture,
    /// Loss + λ KL(q(x) ‖ q(-x)) (App. E), λ = `symmetry_weight`.
    Regularizer,
}

/// Named sets of defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The flow and training of the paper's study of depth against temperature (App. B and E).
    Paper,
    /// The most accurate free energy per core-hour that we know of.
    Best,
}

impl Preset {
    /// Values that differ from the defaults, as TOML.
    pub(crate) fn defaults(self) -> &'static str {
        match self {
            Self::Paper => "",
            Self::Best => include_str!("preset_best.toml"),
        }
    }
}

/// `[flow]`: layers and symmetry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowConfig {
    /// Where the defaults of `[flow]` and `[train]` come from; any key beside it takes precedence.
    pub preset: Preset,
    pub arrangement: Arrangement,
    /// Couplings of each layer: of a Real NVP block, or of one checkerboard.
    pub couplings: usize,
    /// Layers of blocks at each level are repeated this often; unused in checkerboards.
    pub repeats: usize,
    /// Unused in checkerboards.
    pub splits: Splits,
    pub conditioner: Conditioner,
    pub networks: Networks,
    pub transform: Transform,
    /// Classes of neighbours at equal distance that a checkerboard's coupling sees; blocks see their two
    /// frozen sites.
    pub shells: usize,
    pub neighbours: Neighbours,
    /// Features that a periodic convolution computes at every frozen site of a checkerboard before the
    /// coupling's network sees them; 0: the network sees the frozen values alone.
    pub channels: usize,
    /// Hidden layers of each coupling's network.
    pub hidden_layers: usize,
    /// Neurons of each hidden layer.
    pub hidden_width: usize,
    /// Whether the Gaussian (K + αI)^{1/2} is the last layer.
    pub preconditioner: bool,
    pub symmetry: Symmetry,
    /// λ of the KL symmetry regularizer; unused otherwise.
    pub symmetry_weight: f64,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            preset: Preset::Paper,
            arrangement: Arrangement::Mera,
            couplings: 10,
            repeats: 1,
            splits: Splits::Random,
            conditioner: Conditioner::Elu,
            networks: Networks::Separate,
            transform: Transform::Affine,
            shells: 3,
            neighbours: Neighbours::Shells,
            channels: 0,
            hidden_layers: 3,
            hidden_width: 10,
            preconditioner: false,
            symmetry: Symmetry::Regularizer,
            symmetry_weight: 1.0,
        }
    }
}

impl FlowConfig {
    /// Networks of each coupling.
    pub fn branches(&self) -> usize {
        match self.networks {
            Networks::Separate => self.transform.parameters(),
            Networks::Joint => 1,
        }
    }

    /// The network of a coupling with so many inputs.
    pub(super) fn network(&self, inputs: usize, updated_per_row: usize) -> Network {
        let Self { conditioner, transform, hidden_layers, hidden_width, .. } = *self;
        let branches = self.branches();
        Network {
            conditioner,
            transform,
            convolution: None,
            inputs,
            branches,
            hidden_layers,
            hidden_width,
            updated_per_row,
        }
    }

    /// Whether a density needs an inverse pass beside the forward one.
    pub fn needs_inverse(&self) -> bool {
        matches!(self.symmetry, Symmetry::Mixture | Symmetry::Regularizer)
    }

    pub(crate) fn check(&self) -> Check {
        require(
            (1..=1000).contains(&self.couplings),
            "flow.couplings",
            self.couplings,
            "from 1 to 1000",
        )?;
        require((1..=100).contains(&self.repeats), "flow.repeats", self.repeats, "from 1 to 100")?;
        require((1..=32).contains(&self.shells), "flow.shells", self.shells, "from 1 to 32")?;
        require(self.channels <= 256, "flow.channels", self.channels, "from 0 to 256")?;
        require(
            self.channels == 0 || self.arrangement == Arrangement::Checkerboard,
            "flow.channels",
            self.channels,
            "0, unless flow.arrangement is \"checkerboard\"",
        )?;
        require(
            self.symmetry != Symmetry::Construction || self.conditioner == Conditioner::Odd,
            "flow.symmetry",
            "\"construction\"",
            "another one, unless flow.conditioner is \"odd\"",
        )?;
        require(
            self.networks == Networks::Joint || self.conditioner == Conditioner::Elu,
            "flow.networks",
            "\"separate\"",
            "\"joint\", unless flow.conditioner is \"elu\"",
        )?;
        require(
            (1..=10).contains(&self.hidden_layers),
            "flow.hidden_layers",
            self.hidden_layers,
            "from 1 to 10",
        )?;
        require(
            (1..=4096).contains(&self.hidden_width),
            "flow.hidden_width",
            self.hidden_width,
            "from 1 to 4096",
        )?;
        let weight = self.symmetry_weight;
        require(weight.is_finite() && weight >= 0.0, "flow.symmetry_weight", weight, "0 or more")
    }

    /// Whether the couplings on an L × L lattice have tables, and their networks weights, that memory may hold: bounds
    /// from above, which need no coupling to be laid out.
    pub(crate) fn check_size(&self, linear_size: usize, depth: usize) -> Check {
        let sites = linear_size * linear_size;
        let couplings = self.couplings * self.repeats;
        // Most shells have four sites or eight.
        let (shells, most) = (couplings * self.shells, MOST_NEIGHBOURS / (8 * sites));
        let allowed = format!("at most {most} for fields of {linear_size} × {linear_size}");
        require(shells <= most, "flow.couplings × flow.repeats × flow.shells", shells, allowed)?;
        // Two layers of a level, and two matrices beside those between hidden layers.
        let matrices = 2 * depth * couplings * self.branches() * (self.hidden_layers + 1);
        let most = (MOST_NUMBERS as usize / matrices).isqrt();
        let allowed = format!("at most {most} in so many layers of networks");
        require(self.hidden_width <= most, "flow.hidden_width", self.hidden_width, allowed)
    }
}

/// Arrangement of the layers (`[flow] arrangement`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrangement {
    /// Each level: 2×2 disentanglers, then decimators.
    Mera,
    /// Decimators only.
    Tree,
    /// Disentanglers only: block layers on the whole field, alternately shifted.
    Tebd,
    /// Each level adds two sublattices to the coarse field, first the centres of its squares, then the
    /// rest, and lets old and new sites update each other in turn.
    Checkerboard,
    /// Couplings of all sites at once, a random half given the other one: no lattice and no levels.
    Halves,
}

impl Arrangement {
    /// Whether there are coarser and finer levels.
    pub fn has_levels(self) -> bool {
        !matches!(self, Self::Tebd | Self::Halves)
    }
}

/// What the network of a checkerboard's coupling sees of its neighbours (`[flow] neighbours`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Neighbours {
    /// The sum over each shell of equal distance: all symmetries of the square are kept.
    Shells,
    /// Each site of the shells for itself.
    Sites,
}

/// Which sites of their blocks couplings freeze (`[flow] splits`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Splits {
    /// A random half in one coupling and its complement in the next, the same for all temperatures, depths and
    /// lattices: the paper's.
    Random,
    /// Diagonals, rows and columns in turn, each both ways.
    Cycle,
}
