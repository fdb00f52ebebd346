//! Real NVP on 2×2 blocks: affine couplings whose scales and shifts come from small networks.

use tch::{Kind, Tensor};

use super::Architecture;

/// The four sites of a block, in the order (0,0), (0,1), (1,0), (1,1); one row for each block of each
/// sample. Shapes: four times (rows).
pub type Block = [Tensor; 4];

/// Which two sites a coupling freezes and which two it updates: diagonals, rows and columns of the
/// block in turn, each both ways.
const SPLITS: [([usize; 2], [usize; 2]); 6] = [
    ([0, 3], [1, 2]),
    ([1, 2], [0, 3]),
    ([0, 1], [2, 3]),
    ([2, 3], [0, 1]),
    ([0, 2], [1, 3]),
    ([1, 3], [0, 2]),
];

/// Shapes of one coupling's parameters: weight and bias of each layer 2 → h → … → h → 4, then the
/// learnable scale of the two log-scales.
pub fn parameter_shapes(architecture: &Architecture) -> Vec<Vec<i64>> {
    let width = architecture.hidden_width as i64;
    let mut widths = vec![2];
    widths.extend(vec![width; architecture.hidden_layers]);
    widths.push(4);
    let mut shapes: Vec<Vec<i64>> =
        widths.windows(2).flat_map(|pair| [vec![pair[1], pair[0]], vec![pair[1], 1]]).collect();
    shapes.push(vec![2, 1]);
    shapes
}

/// Numbers of elements of [`parameter_shapes`].
pub fn parameter_sizes(architecture: &Architecture) -> Vec<i64> {
    parameter_shapes(architecture).iter().map(|shape| shape.iter().product()).collect()
}

/// Random parameters of one coupling: weights and biases uniform within ±1/√(inputs), scale 0, so that
/// the untrained coupling only shifts. Shapes: flat, in f64 on the CPU.
pub fn initial_parameters(architecture: &Architecture) -> Tensor {
    let options = (Kind::Double, tch::Device::Cpu);
    let shapes = parameter_shapes(architecture);
    let (scale, layers) = shapes.split_last().expect("a coupling has parameters");
    let mut parts = Vec::new();
    for layer in layers.chunks(2) {
        let bound = 1.0 / (layer[0][1] as f64).sqrt();
        for shape in layer {
            parts.push(((Tensor::rand(shape, options) * 2.0 - 1.0) * bound).view([-1]));
        }
    }
    parts.push(Tensor::zeros(scale, options).view([-1]));
    Tensor::cat(&parts, 0)
}

/// One affine coupling: x_u ↦ x_u e^s + t with s and t functions of the frozen sites.
#[derive(Debug)]
struct Coupling {
    /// (weight (out, in), bias (out, 1)) of each layer.
    layers: Vec<(Tensor, Tensor)>,
    /// (2, 1): scale of s.
    scale: Tensor,
    frozen: [usize; 2],
    updated: [usize; 2],
}

impl Coupling {
    /// Log-scales s = scale · tanh(·) and shifts t, both from one call of the network with ELU.
    ///
    /// Shapes: the two frozen sites (rows) → s, t (2, rows).
    fn scale_and_shift(&self, block: &Block) -> (Tensor, Tensor) {
        let mut hidden = self.gather(block, self.frozen);
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            if i > 0 {
                hidden = hidden.elu();
            }
            hidden = bias.addmm(weight, &hidden);
        }
        let halves = hidden.chunk(2, 0);
        (halves[0].tanh() * &self.scale, halves[1].shallow_clone())
    }

    /// From latent to field; returns the log-scales, whose sum is the coupling's log_det.
    fn forward(&self, block: &mut Block) -> Tensor {
        let (s, t) = self.scale_and_shift(block);
        let updated = self.gather(block, self.updated) * s.exp() + t;
        self.scatter(block, &updated);
        s
    }

    /// From field to latent; returns minus the log-scales.
    fn inverse(&self, block: &mut Block) -> Tensor {
        let (s, t) = self.scale_and_shift(block);
        let minus_s = -s;
        let updated = (self.gather(block, self.updated) - t) * minus_s.exp();
        self.scatter(block, &updated);
        minus_s
    }

    fn gather(&self, block: &Block, sites: [usize; 2]) -> Tensor {
        Tensor::stack(&sites.map(|site| &block[site]), 0)
    }

    fn scatter(&self, block: &mut Block, updated: &Tensor) {
        for (site, values) in self.updated.iter().zip(updated.unbind(0)) {
            block[*site] = values;
        }
    }
}

/// A stack of couplings that acts on all blocks of a layer with the same weights.
#[derive(Debug)]
pub struct RealNvp {
    couplings: Vec<Coupling>,
}

impl RealNvp {
    /// Takes the next layer's weights, in the order of [`parameter_shapes`], from `weights`.
    pub(super) fn new(
        architecture: &Architecture,
        weights: &mut impl Iterator<Item = Tensor>,
    ) -> Self {
        let mut next =
            || weights.next().expect("the parameter vector has the architecture's length");
        let couplings = (0..architecture.couplings)
            .map(|i| {
                let layers = (0..=architecture.hidden_layers).map(|_| (next(), next())).collect();
                let (frozen, updated) = SPLITS[i % SPLITS.len()];
                Coupling { layers, scale: next(), frozen, updated }
            })
            .collect();
        Self { couplings }
    }

    /// From latent to field, all blocks at once.
    ///
    /// Shapes: the block's sites (rows) → sites (rows), log-scales (2, rows) summed over couplings.
    pub fn forward(&self, mut block: Block) -> (Block, Tensor) {
        let log_scales = self.couplings.iter().map(|coupling| coupling.forward(&mut block));
        let sum = log_scales.reduce(|sum, s| sum + s).expect("a block has couplings");
        (block, sum)
    }

    /// The inverse of [`RealNvp::forward`], with its own log-scales.
    pub fn inverse(&self, mut block: Block) -> (Block, Tensor) {
        let log_scales = self.couplings.iter().rev().map(|coupling| coupling.inverse(&mut block));
        let sum = log_scales.reduce(|sum, s| sum + s).expect("a block has couplings");
        (block, sum)
    }
}
