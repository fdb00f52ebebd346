//! The flow x = g(z): what it is (an [`Architecture`] and one flat parameter vector), apart from what
//! evaluates it (a [`Hierarchy`] of torch operations) and from how the Z2 symmetry enters its density.

pub mod hierarchy;
pub mod realnvp;
pub mod symmetry;
#[cfg(test)]
mod tests;

use tch::{Device, Kind, Tensor};

use crate::config::{FlowConfig, Symmetry};
use hierarchy::Hierarchy;
use symmetry::SymmetrizedFlow;

/// Structure of the paper's flow: a MERA of Real NVP blocks. Data only, no tensors.
///
/// Level l = 0…depth-1 acts on the (L/2^l)² field with one disentangler layer and one decimator layer;
/// all blocks of a layer share one Real NVP's weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Architecture {
    pub linear_size: usize,
    pub depth: usize,
    /// Affine couplings in each Real NVP block.
    pub couplings: usize,
    pub hidden_layers: usize,
    pub hidden_width: usize,
}

/// What a layer of the MERA is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Acts on 2×2 blocks shifted by (1, 1), which straddle those of the decimator.
    Disentangler,
    /// Acts on 2×2 blocks and passes one of four outputs up to the next level.
    Decimator,
}

/// One layer: a Real NVP block laid over the field of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    pub level: usize,
    pub role: Role,
}

impl Architecture {
    /// The architecture of a task. `depth` is from 1 to log₂ L, as the configuration has checked.
    pub fn new(linear_size: usize, depth: usize, config: &FlowConfig) -> Self {
        Self {
            linear_size,
            depth,
            couplings: config.couplings,
            hidden_layers: config.hidden_layers,
            hidden_width: config.hidden_width,
        }
    }

    /// All layers in the order from x to z.
    pub fn layers(&self) -> Vec<Layer> {
        let roles = [Role::Disentangler, Role::Decimator];
        (0..self.depth).flat_map(|level| roles.map(|role| Layer { level, role })).collect()
    }

    /// Number of 2×2 blocks of a level, (L/2^(level+1))².
    pub fn blocks(&self, level: usize) -> usize {
        (self.linear_size >> (level + 1)).pow(2)
    }

    /// Length of the flat parameter vector.
    pub fn parameter_count(&self) -> i64 {
        let coupling: i64 = realnvp::parameter_sizes(self).iter().sum();
        coupling * (self.layers().len() * self.couplings) as i64
    }

    /// Multiplications that one coupling's network spends on one block.
    pub fn multiplications_per_row(&self) -> usize {
        let width = self.hidden_width;
        2 * width + (self.hidden_layers - 1) * width * width + width * 4
    }
}

/// The parameters of a flow that starts from a trained one: the layers that the trained flow has too, by
/// level and role, take its weights, the others keep their initial ones.
pub fn transfer(
    architecture: &Architecture,
    initial: &[f64],
    parent: &Architecture,
    parent_parameters: &[f64],
) -> Vec<f64> {
    let (layers, parent_layers) = (architecture.layers(), parent.layers());
    let size = initial.len() / layers.len();
    assert_eq!(parent_parameters.len(), size * parent_layers.len(), "layers are of equal size");
    let mut parameters = initial.to_vec();
    for (layer, weights) in layers.iter().zip(parameters.chunks_mut(size)) {
        if let Some(index) = parent_layers.iter().position(|other| other == layer) {
            weights.copy_from_slice(&parent_parameters[index * size..][..size]);
        }
    }
    parameters
}

/// A flow: its structure, its symmetrization and its parameters.
#[derive(Debug)]
pub struct Flow {
    pub architecture: Architecture,
    pub symmetry: Symmetry,
    /// Flat vector of all weights, a leaf that gradients are taken to; layer by layer from x to z,
    /// coupling by coupling, in the order of [`realnvp::parameter_shapes`].
    pub parameters: Tensor,
}

impl Flow {
    /// A flow with random weights from torch's CPU generator, so that every device starts alike.
    pub fn initialize(
        architecture: Architecture,
        symmetry: Symmetry,
        kind: Kind,
        device: Device,
    ) -> Self {
        let blocks = architecture.layers().len() * architecture.couplings;
        let couplings: Vec<Tensor> =
            (0..blocks).map(|_| realnvp::initial_parameters(&architecture)).collect();
        let parameters = Tensor::cat(&couplings, 0).to_kind(kind).to_device(device);
        Self { architecture, symmetry, parameters: parameters.set_requires_grad(true) }
    }

    /// The map and density at the present parameters, to be used with autograd: the parameter vector
    /// is cut into the layers' weights once, whatever number of passes follows.
    pub fn bind(&self) -> SymmetrizedFlow {
        self.bind_to(&self.parameters)
    }

    /// As [`Flow::bind`], but with no gradients to the parameters, for sampling.
    pub fn bind_frozen(&self) -> SymmetrizedFlow {
        self.bind_to(&self.parameters.detach())
    }

    fn bind_to(&self, parameters: &Tensor) -> SymmetrizedFlow {
        SymmetrizedFlow::new(Hierarchy::new(&self.architecture, parameters), self.symmetry)
    }
}
