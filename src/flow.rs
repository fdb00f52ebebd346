//! The flow x = g(z): what it is (an [`Architecture`], laid out as couplings, and one flat parameter
//! vector), apart from what evaluates it (an [`crate::engine`]) and from how the Z2 symmetry enters its density.

pub mod arrangement;
pub mod config;
pub mod coupling;
pub mod symmetry;
pub mod symplectic;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use ndarray::Array1;
use serde::{Deserialize, Serialize};

use crate::flow::config::{Arrangement, FlowConfig, Symmetry};
use crate::random::Random;
use arrangement::Layer;
use coupling::{Coupling, Half};

/// Structure of a flow on one lattice. Data only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    pub linear_size: usize,
    /// Levels of the hierarchy.
    pub depth: usize,
    /// Of the task; random halves of blocks depend on it.
    pub seed: u64,
    pub config: FlowConfig,
}

impl Architecture {
    /// The architecture of a task. L can be halved `depth` times, as the configuration has checked.
    pub fn new(linear_size: usize, depth: usize, seed: u64, config: &FlowConfig) -> Self {
        Self { linear_size, depth, seed, config: config.clone() }
    }

    /// The Gaussian layer alone, on L × L sites.
    pub fn without_couplings(linear_size: usize) -> Self {
        let config = FlowConfig {
            arrangement: Arrangement::Tebd,
            couplings: 0,
            preconditioner: true,
            symmetry: Symmetry::None,
            ..Default::default()
        };
        Self::new(linear_size, 1, 0, &config)
    }

    /// N = L².
    pub fn sites(&self) -> usize {
        self.linear_size * self.linear_size
    }

    /// All layers in the order from z to x.
    pub fn layers(&self) -> Vec<Layer> {
        arrangement::layers(self)
    }

    /// All couplings in the order from z to x.
    pub fn couplings(&self) -> Vec<Coupling> {
        self.layers().into_iter().flat_map(|layer| layer.couplings).collect()
    }

    /// How many of the couplings belong to a level or to those above it; these come first.
    pub fn couplings_down_to(&self, level: usize) -> usize {
        let layers = self.layers();
        let above = layers.iter().take_while(|layer| layer.level >= level);
        above.map(|layer| layer.couplings.len()).sum()
    }

    /// Which sites of their blocks the couplings freeze, in the order from z to x; none of checkerboards.
    pub fn halves(&self) -> Vec<Half> {
        self.couplings().iter().filter_map(|coupling| coupling.half).collect()
    }

    /// Length of the flat parameter vector.
    pub fn parameter_count(&self) -> usize {
        self.couplings().iter().map(|coupling| coupling.network.parameter_count()).sum()
    }
}

/// A flow: its structure and its parameters.
#[derive(Debug)]
pub struct Flow {
    pub architecture: Architecture,
    /// Flat vector of all weights: layer by layer from z to x, coupling by coupling, in the order of
    /// [`coupling::Network::parameter_shapes`].
    pub parameters: Array1<f64>,
    couplings: Arc<[Coupling]>,
}

impl Flow {
    /// A flow with random weights.
    pub fn initialize(architecture: Architecture, random: &Random) -> Self {
        let couplings = architecture.couplings();
        let parameters = couplings
            .iter()
            .enumerate()
            .flat_map(|(index, coupling)| coupling.initial_parameters(random, index))
            .collect();
        Self { architecture, parameters, couplings: couplings.into() }
    }

    /// A flow with the given flat parameter vector, as long as [`Architecture::parameter_count`] says.
    pub fn with_parameters(architecture: Architecture, parameters: Array1<f64>) -> Self {
        let couplings = architecture.couplings().into();
        Self { architecture, parameters, couplings }
    }

    /// All couplings in the order from z to x.
    pub fn couplings(&self) -> &Arc<[Coupling]> {
        &self.couplings
    }
}

/// Parameters for a flow that starts from a trained one of another temperature, depth or size. Each layer
/// takes the weights of the parent's layer of the same level, which has seen the same renormalized action;
/// or, where the parent's lattice is a smaller one with fewer neighbours there, of that with the same distance
/// from the top. Layers without such a parent keep their initial values.
pub fn transfer(
    architecture: &Architecture,
    initial: &[f64],
    parent: &Architecture,
    parent_parameters: &[f64],
) -> Vec<f64> {
    let mut parameters = initial.to_vec();
    let candidates = parent.layers();
    let smaller = parent.linear_size < architecture.linear_size;
    for layer in architecture.layers() {
        let from_bottom =
            candidates.iter().find(|other| other.level == layer.level && other.fits(&layer));
        let from_top = candidates.iter().filter(|_| smaller).find(|other| {
            other.level + architecture.depth == layer.level + parent.depth && other.fits(&layer)
        });
        let Some(source) = from_bottom.or(from_top) else { continue };
        for (to, from) in layer.couplings.iter().zip(&source.couplings) {
            parameters[to.parameters()].copy_from_slice(&parent_parameters[from.parameters()]);
        }
    }
    parameters
}
