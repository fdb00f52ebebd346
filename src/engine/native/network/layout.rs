//! Where the parameters of a coupling's networks lie, and how large the panels of their activations are.

use super::super::kernels::GROUP;
use super::super::lanes::{LANES, Real};
use super::dense::Dense;
use crate::flow::coupling::{Conditioner, Coupling, Kernel, Transform};

/// Bytes that the panels of a chunk of rows may fill: a part of a core's second-level cache.
const CHUNK_BYTES: usize = 352 * 1024;

const MAX_CHUNK_ROWS: usize = 64;

/// One of the networks of a coupling, all of which see the same inputs.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) hidden: Vec<Dense>,
    pub(super) head: Head,
    /// Of its outputs among those of the coupling.
    pub(super) first_output: usize,
}

/// What follows the hidden layers.
#[derive(Debug, Clone)]
pub(super) enum Head {
    /// W h + b.
    Whole(Dense),
    /// First the odd outputs W_o h + W_s v, then the even ones W_e (h∘h) + b_e.
    Parities { odd: Dense, skip: Dense, even: Dense },
}

/// A coupling's networks: their layers and where their parameters lie.
#[derive(Debug, Clone)]
pub struct Layout {
    pub convolution: Option<Dense>,
    pub(super) branches: Vec<Branch>,
    pub(super) inputs: usize,
    pub(super) width: usize,
    /// P × updated_per_row.
    pub outputs: usize,
    /// Start of the scales of an affine coupling.
    pub scales: usize,
    /// End of the coupling's parameters.
    pub end: usize,
    pub packed_length: usize,
    pub chunk_rows: usize,
}

/// Lays layers out one after the other.
struct Cursor {
    parameters: usize,
    packed: usize,
}

impl Cursor {
    fn dense(&mut self, inputs: usize, outputs: usize, biased: bool) -> Dense {
        let weights = self.parameters;
        let dense = Dense { inputs, outputs, weights, biased, packed: self.packed };
        self.parameters += outputs * dense.units();
        self.packed += outputs * dense.units();
        dense
    }
}

impl Layout {
    pub fn new(coupling: &Coupling, bytes_per_number: usize) -> Self {
        let network = &coupling.network;
        let (inputs, per_row) = (network.inputs, network.updated_per_row);
        let hidden_layers = if inputs == 0 { 0 } else { network.hidden_layers };
        let width = if inputs == 0 { 0 } else { network.hidden_width };
        let (odd, even) = network.transform.outputs();
        let outputs = per_row * (odd + even);

        let mut cursor = Cursor { parameters: coupling.offset, packed: 0 };
        let biased = network.conditioner == Conditioner::Elu;
        let convolution = network
            .convolution
            .map(|Kernel { inputs, channels }| cursor.dense(inputs, channels, biased));
        let own_outputs = outputs / network.branches;
        let mut branch = |index: usize| {
            let hidden: Vec<Dense> = (0..hidden_layers)
                .map(|layer| cursor.dense(if layer == 0 { inputs } else { width }, width, biased))
                .collect();
            let last = if hidden.is_empty() { inputs } else { width };
            let head = match network.conditioner {
                Conditioner::Elu => Head::Whole(cursor.dense(last, own_outputs, true)),
                Conditioner::Odd => Head::Parities {
                    odd: cursor.dense(last, per_row * odd, false),
                    skip: cursor.dense(inputs, per_row * odd, false),
                    even: cursor.dense(last, per_row * even, true),
                },
            };
            Branch { hidden, head, first_output: index * own_outputs }
        };
        let branches = (0..network.branches).map(&mut branch).collect();
        let scales = cursor.parameters;
        let scale_count = if network.transform == Transform::Affine { per_row } else { 0 };

        let mut layout = Self {
            convolution,
            branches,
            inputs,
            width,
            outputs,
            scales,
            end: scales + scale_count,
            packed_length: cursor.packed,
            chunk_rows: 0,
        };
        let numbers_per_row =
            layout.activations_per_row() + 3 * layout.delta_stride() + layout.outputs;
        let bytes_per_row = numbers_per_row * LANES * bytes_per_number;
        let most = (CHUNK_BYTES / bytes_per_row).clamp(4, MAX_CHUNK_ROWS);
        // Chunks of about the same size, whole groups of a product.
        let chunks = coupling.rows.div_ceil(most);
        layout.chunk_rows = coupling.rows.div_ceil(chunks).next_multiple_of(GROUP);
        layout
    }

    /// Numbers per row and lane that `Activations` hold.
    pub fn activations_per_row(&self) -> usize {
        let hidden: usize = self.branches.iter().map(|branch| branch.hidden.len()).sum();
        self.input_stride() + hidden * self.stride() + self.square_stride() + self.outputs
    }

    /// All layers in the order of their parameters.
    pub(super) fn layers(&self) -> impl Iterator<Item = &Dense> {
        self.convolution.iter().chain(self.branches.iter().flat_map(Branch::layers))
    }

    /// Transposed copies of the weights, each followed by its bias.
    pub fn pack<T: Real>(&self, parameters: &[T]) -> Vec<T> {
        let mut packed = Vec::with_capacity(self.packed_length);
        for dense in self.layers() {
            for input in 0..dense.inputs {
                let weights = &parameters[dense.weights + input..];
                packed.extend((0..dense.outputs).map(|output| weights[output * dense.inputs]));
            }
            if dense.biased {
                let biases = dense.weights + dense.outputs * dense.inputs;
                packed.extend_from_slice(&parameters[biases..][..dense.outputs]);
            }
        }
        packed
    }

    /// Numbers between rows of the panels of hidden units: one more than they need, which holds the 1
    /// that a bias multiplies and spreads the rows over the cache's sets.
    pub(super) fn stride(&self) -> usize {
        self.width + 1
    }

    pub(super) fn input_stride(&self) -> usize {
        self.inputs + 1
    }

    pub(super) fn square_stride(&self) -> usize {
        match self.branches[0] {
            Branch { head: Head::Whole(_), .. } => 0,
            Branch { ref hidden, .. } if hidden.is_empty() => self.input_stride(),
            Branch { .. } => self.stride(),
        }
    }

    /// As `input_stride`, for what the convolution sees.
    pub fn stencil_stride(&self) -> usize {
        self.convolution.as_ref().map_or(0, |dense| dense.inputs + 1)
    }

    pub(super) fn delta_stride(&self) -> usize {
        self.width.max(self.inputs) + 1
    }
}

impl Branch {
    /// All layers in the order of their parameters.
    pub(super) fn layers(&self) -> impl Iterator<Item = &Dense> {
        let head = match &self.head {
            Head::Whole(dense) => [Some(dense), None, None],
            Head::Parities { odd, skip, even } => [Some(odd), Some(skip), Some(even)],
        };
        self.hidden.iter().chain(head.into_iter().flatten())
    }
}
