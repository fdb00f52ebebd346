//! The one kind of coupling that all flows are made of: which sites it updates, what its network sees
//! and how the network's outputs move the updated sites. Data only; [`super::torch`] and
//! [`crate::native`] evaluate it.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Network that turns the frozen sites into the parameters of the map (`[flow] conditioner`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conditioner {
    /// Hidden layers h ← ELU(W h + b), outputs W h + b: the paper's.
    Elu,
    /// Hidden layers h ← tanh(W h) without bias, odd in the inputs v. Shifts W_o h + W_s v are odd too,
    /// scales and shapes W_e h² + b_e even, so that the coupling commutes with x → -x.
    Odd,
}

/// Monotone map of each updated site from latent u to field y (`[flow] transform`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transform {
    /// y = e^s u + t with s = scale · tanh(raw s), the learnable scale starting at 0.
    Affine,
    /// y = e^s u + t + a tanh(b u + c) with a, b > 0 (softplus of the raw outputs): splits a mode in two
    /// smoothly, as each site of the field is a mixture of two Gaussians given the others.
    Bump,
}

/// How many networks an ELU coupling has (`[flow] networks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Networks {
    /// One for each parameter of the map, as the paper has for s and t.
    Separate,
    /// One with all of them as outputs.
    Joint,
}

/// Which two sites of a 2×2 block a coupling freezes, of (0,0), (0,1), (1,0), (1,1) in this order; it updates the
/// other two.
pub type Half = [usize; 2];

/// One input of a coupling's network: for every row, the weighted sum over a few frozen sites.
#[derive(Debug, Clone, PartialEq)]
pub struct Shell {
    /// (rows × size), row-major.
    pub sites: Vec<u32>,
    /// Sites of each row.
    pub size: usize,
    /// 1/√size, which keeps a sum of independent unit variables at unit variance.
    pub weight: f64,
    /// Distance from the updated site in units of the nearest shell's.
    pub distance: f64,
}

/// A periodic convolution over the frozen sites, whose features the networks of nearby rows share.
#[derive(Debug, Clone, PartialEq)]
pub struct Convolution {
    /// The frozen sites, one for each of its rows.
    pub rows: usize,
    /// What it sees around each of them, that site first.
    pub stencil: Vec<Shell>,
    /// Of which of its rows each row of the coupling sees the features.
    pub seen: Vec<Shell>,
}

/// Size of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    pub inputs: usize,
    pub channels: usize,
}

/// What a coupling's network looks like; it fixes the parameters' order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub conditioner: Conditioner,
    pub transform: Transform,
    /// One more hidden layer before the others, at the frozen sites.
    pub convolution: Option<Kernel>,
    /// Number of inputs of the rows: shells, then the features of each of the frozen sites seen.
    pub inputs: usize,
    /// Networks beside each other, each with an equal share of the outputs; 1, or one for each parameter of the map.
    pub branches: usize,
    pub hidden_layers: usize,
    pub hidden_width: usize,
    /// Sites that each row updates.
    pub updated_per_row: usize,
}

/// A coupling: rows are the places that share its weights, blocks or single sites of a sublattice.
/// Sites are numbered row-major on the L × L lattice.
#[derive(Debug, Clone, PartialEq)]
pub struct Coupling {
    pub network: Network,
    /// Of blocks only.
    pub half: Option<Half>,
    pub rows: usize,
    /// (rows × updated_per_row), row-major: no site stands twice, and none is in a shell.
    pub updated: Vec<u32>,
    pub shells: Vec<Shell>,
    /// As in the network.
    pub convolution: Option<Convolution>,
    /// Where its parameters begin in the flow's flat vector.
    pub offset: usize,
}

impl Transform {
    /// Parameters of the map for each updated site: odd ones (shifts), then even ones.
    pub fn outputs(self) -> (usize, usize) {
        match self {
            Self::Affine => (1, 1),
            Self::Bump => (2, 3),
        }
    }

    /// Parameters of the map for each updated site.
    pub fn parameters(self) -> usize {
        let (odd, even) = self.outputs();
        odd + even
    }
}

impl Network {
    /// Shapes of the parameters, in their order in the flat vector.
    ///
    /// The convolution, if any, comes first as one more hidden layer.
    /// Elu: weight and bias of each hidden layer, weight and bias of the outputs (affine: s, t; bump:
    /// t, c, s, a, b; all rows of one output together); where networks are separate, all of these for one output
    /// after the other. Odd: weight of each hidden layer, then of the
    /// odd outputs (t; t, c) W_o and W_s, then of the even ones (s; s, a, b) W_e and b_e; without inputs
    /// b_e alone. Affine maps end with the scale.
    pub fn parameter_shapes(&self) -> Vec<[usize; 2]> {
        let Self { inputs, hidden_layers, hidden_width, updated_per_row, .. } = *self;
        let (odd, even) = self.transform.outputs();
        let (odd, even) = (odd * updated_per_row, even * updated_per_row);
        let convolution = self.convolution.map(|Kernel { inputs, channels }| [channels, inputs]);
        let widths = std::iter::once(inputs).chain(std::iter::repeat(hidden_width));
        let layers = widths.take(hidden_layers).map(|width| [hidden_width, width]);
        let mut shapes = Vec::new();
        match self.conditioner {
            Conditioner::Elu => {
                let head = [(odd + even) / self.branches, hidden_width];
                let branch = layers.chain([head]);
                let branches = std::iter::repeat_n(branch, self.branches).flatten();
                let layers = convolution.into_iter().chain(branches);
                shapes.extend(layers.flat_map(|layer| [layer, [layer[0], 1]]));
            }
            Conditioner::Odd if inputs == 0 => shapes.push([even, 1]),
            Conditioner::Odd => {
                shapes.extend(convolution.into_iter().chain(layers));
                shapes.extend([[odd, hidden_width], [odd, inputs]]);
                shapes.extend([[even, hidden_width], [even, 1]]);
            }
        }
        if self.transform == Transform::Affine {
            shapes.push([updated_per_row, 1]);
        }
        shapes
    }

    /// Layers of an odd network that an activation follows.
    fn activated_layers(&self) -> usize {
        self.hidden_layers + usize::from(self.convolution.is_some())
    }

    /// Number of parameters.
    pub fn parameter_count(&self) -> usize {
        self.parameter_shapes().iter().map(|[rows, columns]| rows * columns).sum()
    }

    /// Multiplications that the network spends on one row.
    pub fn multiplications_per_row(&self) -> usize {
        self.parameter_shapes().iter().filter(|shape| shape[1] > 1).map(|[n, m]| n * m).sum()
    }
}

/// Standard deviation of the initial weights of outputs that start small, and not all alike.
const OUTPUT_DEVIATION: f64 = 0.01;
/// Initial raw scale of odd affine maps. Were it 0, as the factor of its tanh is, neither would ever have a
/// gradient.
const INITIAL_RAW_SCALE: f64 = 0.5;
/// Initial raw shape of a bump, whose softplus is a = 0.13 and b = 0.97.
const INITIAL_BUMP: [f64; 2] = [-2.0, 0.5];

impl Coupling {
    /// Where its parameters lie in the flow's flat vector.
    pub fn parameters(&self) -> Range<usize> {
        self.offset..self.offset + self.network.parameter_count()
    }

    /// Random initial parameters, in f64 on the CPU. Shapes: flat.
    ///
    /// Elu: weights and biases uniform within ±1/√inputs; separate networks start as those of the paper, whose
    /// first layers see all sites of a row, the updated ones masked by zeros. Odd: normal weights of variance 1/inputs, those
    /// of values further away falling off as e^{1 - distance}, outputs close to 0. Affine scales start at 0,
    /// bumps close to the identity.
    pub fn initial_parameters(&self) -> Tensor {
        let network = &self.network;
        let shapes = network.parameter_shapes();
        let parameters = match network.conditioner {
            Conditioner::Elu => elu_start(network, &shapes),
            Conditioner::Odd => self.odd_start(&shapes),
        };
        Tensor::cat(&parameters.iter().map(|part| part.view([-1])).collect::<Vec<_>>(), 0)
    }

    /// Distances of the inputs of the convolution, if any, and of the first layer of the rows.
    fn input_distances(&self) -> Vec<Vec<f64>> {
        let of = |shells: &[Shell]| shells.iter().map(|shell| shell.distance).collect::<Vec<_>>();
        let mut rows = of(&self.shells);
        let (Some(convolution), Some(kernel)) = (&self.convolution, self.network.convolution)
        else {
            return vec![rows];
        };
        for distance in of(&convolution.seen) {
            rows.extend(std::iter::repeat_n(distance, kernel.channels));
        }
        vec![of(&convolution.stencil), rows]
    }

    /// Numbers that the convolution computes for one field.
    pub fn feature_count(&self) -> usize {
        let rows = self.convolution.as_ref().map_or(0, |convolution| convolution.rows);
        rows * self.network.convolution.map_or(0, |kernel| kernel.channels)
    }

    fn odd_start(&self, shapes: &[[usize; 2]]) -> Vec<Tensor> {
        let Network { transform, updated_per_row, .. } = self.network;
        let layers = if self.network.inputs == 0 { 0 } else { self.network.activated_layers() };
        let mut parts: Vec<Tensor> = shapes[..layers]
            .iter()
            .map(|&[rows, columns]| normal(rows, columns) / (columns as f64).sqrt())
            .collect();
        if layers > 0 {
            for (part, distances) in parts.iter_mut().zip(self.input_distances()) {
                let decay: Vec<f64> =
                    distances.iter().map(|distance| (1.0 - distance).exp()).collect();
                *part *= Tensor::from_slice(&decay);
            }
            let [[odd, width], [_, inputs], [even, _]] = [0, 1, 2].map(|i| shapes[layers + i]);
            parts.push(normal(odd, width) * OUTPUT_DEVIATION);
            parts.extend([zeros(odd, inputs), zeros(even, width)]);
        }
        parts.push(even_bias(transform, updated_per_row));
        if transform == Transform::Affine {
            parts.push(zeros(updated_per_row, 1));
        }
        parts
    }
}

fn elu_start(network: &Network, shapes: &[[usize; 2]]) -> Vec<Tensor> {
    let uniform = |[rows, columns]: [usize; 2], inputs: usize| {
        let options = (Kind::Double, Device::Cpu);
        let unit = Tensor::rand([rows as i64, columns as i64], options) * 2.0 - 1.0;
        unit / (inputs as f64).sqrt()
    };
    let layer = |layer: &[[usize; 2]], inputs: usize| {
        [uniform(layer[0], inputs), uniform(layer[1], inputs)]
    };
    let (convolution, branches) = shapes.split_at(2 * usize::from(network.convolution.is_some()));
    let mut parts: Vec<Tensor> = Vec::new();
    parts.extend(convolution.chunks_exact(2).flat_map(|shapes| layer(shapes, shapes[0][1])));
    let masked = if network.branches > 1 { network.updated_per_row } else { 0 };
    for (index, branch) in branches.chunks_exact(2 * network.hidden_layers + 2).enumerate() {
        let (hidden, outputs) = branch.split_at(2 * network.hidden_layers);
        for (i, shapes) in hidden.chunks_exact(2).enumerate() {
            parts.extend(layer(shapes, shapes[0][1] + if i == 0 { masked } else { 0 }));
        }
        match network.transform {
            Transform::Affine => parts.extend(layer(outputs, outputs[0][1])),
            // Nothing else keeps the scales of bumps small.
            Transform::Bump => {
                let [sites, width] = outputs[0];
                parts.push(normal(sites, width) * OUTPUT_DEVIATION);
                parts.push(bump_bias(network).narrow(0, (index * sites) as i64, sites as i64));
            }
        }
    }
    if network.transform == Transform::Affine {
        parts.push(zeros(network.updated_per_row, 1));
    }
    parts
}

/// Biases of a bump's outputs: t, c, s, a, b of all sites of a row.
fn bump_bias(network: &Network) -> Tensor {
    let sites = network.updated_per_row;
    let shifts = zeros(network.transform.outputs().0 * sites, 1);
    Tensor::cat(&[shifts, even_bias(network.transform, sites)], 0)
}

/// Biases of the even outputs, all sites of one output together.
fn even_bias(transform: Transform, sites: usize) -> Tensor {
    let start: &[f64] = match transform {
        Transform::Affine => &[INITIAL_RAW_SCALE],
        Transform::Bump => &[0.0, INITIAL_BUMP[0], INITIAL_BUMP[1]],
    };
    Tensor::from_slice(start).view([-1, 1]).repeat([1, sites as i64]).view([-1, 1])
}

fn zeros(rows: usize, columns: usize) -> Tensor {
    Tensor::zeros([rows as i64, columns as i64], (Kind::Double, Device::Cpu))
}

fn normal(rows: usize, columns: usize) -> Tensor {
    Tensor::randn([rows as i64, columns as i64], (Kind::Double, Device::Cpu))
}
