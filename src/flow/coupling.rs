//! The one kind of coupling that all flows are made of: which sites it updates, what its network sees
//! and how the network's outputs move the updated sites. Data only; the
//! [`crate::engine`]s evaluate it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::random::{Random, Use};

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
    fn multiplications_per_row(&self) -> usize {
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
    /// Multiplications that its network spends on one sample.
    pub fn multiplications(&self) -> usize {
        self.rows * self.network.multiplications_per_row()
    }

    /// Where its parameters lie in the flow's flat vector.
    pub fn parameters(&self) -> Range<usize> {
        self.offset..self.offset + self.network.parameter_count()
    }

    /// Random initial parameters. Shapes: flat.
    ///
    /// Elu: weights and biases uniform within ±1/√inputs; separate networks start as those of the paper, whose
    /// first layers see all sites of a row, the updated ones masked by zeros. Odd: normal weights of variance 1/inputs, those
    /// of values further away falling off as e^{1 - distance}, outputs close to 0. Affine scales start at 0,
    /// bumps close to the identity.
    ///
    /// `index` is the coupling's number in its flow, which has random numbers of its own.
    pub fn initial_parameters(&self, random: &Random, index: usize) -> Vec<f64> {
        let mut start = Start::new(&self.network, random, index);
        match self.network.conditioner {
            Conditioner::Elu => start.elu(&self.network),
            Conditioner::Odd => start.odd(self),
        }
        start.parameters
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
}

/// Initial parameters as they are laid down one after the other; each has a random number of its own place.
struct Start {
    parameters: Vec<f64>,
    uniforms: Vec<f64>,
    normals: Vec<f64>,
}

impl Start {
    fn new(network: &Network, random: &Random, index: usize) -> Self {
        let count = network.parameter_count();
        let (sample, of) = (index..index + 1, [Use::UniformParameters, Use::NormalParameters]);
        Self {
            parameters: Vec::with_capacity(count),
            uniforms: random.uniforms(of[0], sample.clone(), count).into_raw_vec_and_offset().0,
            normals: random.normals(of[1], sample, count).into_raw_vec_and_offset().0,
        }
    }

    fn elu(&mut self, network: &Network) {
        let shapes = network.parameter_shapes();
        let (convolution, branches) =
            shapes.split_at(2 * usize::from(network.convolution.is_some()));
        for layer in convolution.chunks_exact(2) {
            self.uniform_layer(layer, layer[0][1]);
        }
        let masked = if network.branches > 1 { network.updated_per_row } else { 0 };
        let bump_biases = bump_biases(network);
        for (index, branch) in branches.chunks_exact(2 * network.hidden_layers + 2).enumerate() {
            let (hidden, outputs) = branch.split_at(2 * network.hidden_layers);
            for (i, layer) in hidden.chunks_exact(2).enumerate() {
                self.uniform_layer(layer, layer[0][1] + if i == 0 { masked } else { 0 });
            }
            match network.transform {
                Transform::Affine => self.uniform_layer(outputs, outputs[0][1]),
                // Nothing else keeps the scales of bumps small.
                Transform::Bump => {
                    let [sites, width] = outputs[0];
                    self.normal(sites * width, |_| OUTPUT_DEVIATION);
                    self.parameters.extend(&bump_biases[index * sites..(index + 1) * sites]);
                }
            }
        }
        if network.transform == Transform::Affine {
            self.zeros(network.updated_per_row);
        }
    }

    fn odd(&mut self, coupling: &Coupling) {
        let network = &coupling.network;
        let shapes = network.parameter_shapes();
        let layers = if network.inputs == 0 { 0 } else { network.activated_layers() };
        let distances = coupling.input_distances();
        for (layer, &[rows, columns]) in shapes[..layers].iter().enumerate() {
            let decay = |column: usize| {
                distances.get(layer).map_or(1.0, |distances| (1.0 - distances[column]).exp())
            };
            self.normal(rows * columns, |i| decay(i % columns) / (columns as f64).sqrt());
        }
        if layers > 0 {
            let [[odd, width], [_, inputs], [even, _]] = [0, 1, 2].map(|i| shapes[layers + i]);
            self.normal(odd * width, |_| OUTPUT_DEVIATION);
            self.zeros(odd * inputs + even * width);
        }
        self.parameters.extend(even_biases(network.transform, network.updated_per_row));
        if network.transform == Transform::Affine {
            self.zeros(network.updated_per_row);
        }
    }

    /// Weights and biases uniform within ±1/√inputs.
    fn uniform_layer(&mut self, shapes: &[[usize; 2]], inputs: usize) {
        let range = self.next(shapes.iter().map(|[rows, columns]| rows * columns).sum());
        let limit = 1.0 / (inputs as f64).sqrt();
        self.parameters.extend(self.uniforms[range].iter().map(|unit| (2.0 * unit - 1.0) * limit));
    }

    /// Normal numbers with the deviation that each of them is given.
    fn normal(&mut self, count: usize, deviation: impl Fn(usize) -> f64) {
        let numbers = self.normals[self.next(count)].iter().enumerate();
        self.parameters.extend(numbers.map(|(i, number)| number * deviation(i)));
    }

    fn zeros(&mut self, count: usize) {
        self.parameters.extend(std::iter::repeat_n(0.0, count));
    }

    fn next(&self, count: usize) -> Range<usize> {
        self.parameters.len()..self.parameters.len() + count
    }
}

/// Biases of a bump's outputs: t, c, s, a, b of all sites of a row.
fn bump_biases(network: &Network) -> Vec<f64> {
    let sites = network.updated_per_row;
    let mut biases = vec![0.0; network.transform.outputs().0 * sites];
    biases.extend(even_biases(network.transform, sites));
    biases
}

/// Biases of the even outputs, all sites of one output together.
fn even_biases(transform: Transform, sites: usize) -> Vec<f64> {
    let start: &[f64] = match transform {
        Transform::Affine => &[INITIAL_RAW_SCALE],
        Transform::Bump => &[0.0, INITIAL_BUMP[0], INITIAL_BUMP[1]],
    };
    start.iter().flat_map(|&bias| std::iter::repeat_n(bias, sites)).collect()
}
