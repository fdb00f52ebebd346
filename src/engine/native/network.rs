//! The networks of couplings on chunks of rows: values, and cotangents pulled back through them.

use std::ops::Range;

use multiversion::multiversion;

use super::kernels::{
    GROUP, Gradient, Store, Units, UnitsMut, outer_product, outer_product_room, product,
};
use super::lanes::{LANES, Lanes, Real, flat, flat_mut, times_elu_slope};
use crate::flow::coupling::{Conditioner, Convolution, Coupling, Kernel, Shell, Transform};

/// Bytes that the panels of a chunk of rows may fill: a part of a core's second-level cache.
const CHUNK_BYTES: usize = 352 * 1024;
const MAX_CHUNK_ROWS: usize = 64;

/// out = W in + b, with the place of W (outputs, inputs) in the flat parameters, behind it b, and that of the
/// transposed copy (inputs then bias, outputs) among the packed ones.
#[derive(Debug, Clone)]
pub struct Dense {
    pub inputs: usize,
    pub outputs: usize,
    weights: usize,
    biased: bool,
    packed: usize,
}

/// One of the networks of a coupling, all of which see the same inputs.
#[derive(Debug, Clone)]
struct Branch {
    hidden: Vec<Dense>,
    head: Head,
    /// Of its outputs among those of the coupling.
    first_output: usize,
}

/// What follows the hidden layers.
#[derive(Debug, Clone)]
enum Head {
    /// W h + b.
    Whole(Dense),
    /// First the odd outputs W_o h + W_s v, then the even ones W_e (h∘h) + b_e.
    Parities { odd: Dense, skip: Dense, even: Dense },
}

/// A coupling's networks: their layers and where their parameters lie.
#[derive(Debug, Clone)]
pub struct Layout {
    pub convolution: Option<Dense>,
    branches: Vec<Branch>,
    inputs: usize,
    width: usize,
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
    fn layers(&self) -> impl Iterator<Item = &Dense> {
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
    fn stride(&self) -> usize {
        self.width + 1
    }

    fn input_stride(&self) -> usize {
        self.inputs + 1
    }

    fn square_stride(&self) -> usize {
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

    fn delta_stride(&self) -> usize {
        self.width.max(self.inputs) + 1
    }
}

impl Branch {
    /// All layers in the order of their parameters.
    fn layers(&self) -> impl Iterator<Item = &Dense> {
        let head = match &self.head {
            Head::Whole(dense) => [Some(dense), None, None],
            Head::Parities { odd, skip, even } => [Some(odd), Some(skip), Some(even)],
        };
        self.hidden.iter().chain(head.into_iter().flatten())
    }
}

/// What a network computes for one chunk of rows.
#[derive(Debug)]
pub struct Activations<T> {
    /// v.
    inputs: Vec<Lanes<T>>,
    /// h_1, h_2, … of the first network, then of the next.
    hidden: Vec<Vec<Lanes<T>>>,
    /// h∘h of the last hidden layer.
    squares: Vec<Lanes<T>>,
    /// The network's outputs, rows × outputs.
    pub outputs: Vec<Lanes<T>>,
}

impl<T: Real> Activations<T> {
    /// Room for `rows` rows of a layout.
    pub fn new(layout: &Layout, rows: usize) -> Self {
        let panel = |stride: usize| vec![Lanes::ZERO; rows * stride];
        Self {
            inputs: panel(layout.input_stride()),
            hidden: layout
                .branches
                .iter()
                .flat_map(|branch| &branch.hidden)
                .map(|_| panel(layout.stride()))
                .collect(),
            squares: panel(layout.square_stride()),
            outputs: panel(layout.outputs),
        }
    }

    /// Room for a chunk of any of the layouts.
    pub fn any(layouts: &[Layout]) -> Self {
        let mut any = Self { inputs: vec![], hidden: vec![], squares: vec![], outputs: vec![] };
        for layout in layouts {
            let one = Self::new(layout, layout.chunk_rows);
            any.hidden.resize_with(any.hidden.len().max(one.hidden.len()), Vec::new);
            let hidden = any.hidden.iter_mut().zip(one.hidden);
            let rest = [
                (&mut any.inputs, one.inputs),
                (&mut any.squares, one.squares),
                (&mut any.outputs, one.outputs),
            ];
            for (panel, one) in hidden.chain(rest) {
                panel.resize(panel.len().max(one.len()), Lanes::ZERO);
            }
        }
        any
    }
}

/// Cotangents of one chunk of rows of any of the couplings.
#[derive(Debug)]
pub struct Panels<T> {
    /// Of a convolution's features at all frozen sites, sites × channels.
    pub feature_deltas: Vec<Lanes<T>>,
    /// Of the network's outputs, rows × outputs.
    pub output_deltas: Vec<Lanes<T>>,
    /// Of a hidden layer and the one below it.
    upper: Vec<Lanes<T>>,
    lower: Vec<Lanes<T>>,
    /// Of the inputs, summed over the networks.
    inputs: Vec<Lanes<T>>,
    /// Room for the sums of a product of cotangents and inputs.
    pub sums: Vec<Lanes<T>>,
}

impl<T: Real> Panels<T> {
    /// Panels that suffice for all of the couplings.
    pub fn new(couplings: &[Coupling], layouts: &[Layout]) -> Self {
        let panel = |size: &dyn Fn(&Layout) -> usize| {
            let lengths = layouts.iter().map(|layout| layout.chunk_rows * size(layout));
            vec![Lanes::ZERO; lengths.max().unwrap_or(0)]
        };
        let sums = layouts.iter().map(|layout| {
            let inputs = layout.delta_stride().max(layout.stencil_stride());
            outer_product_room(inputs).max(layout.end - layout.scales)
        });
        let features = couplings.iter().map(Coupling::feature_count).max().unwrap_or(0);
        Self {
            feature_deltas: vec![Lanes::ZERO; features],
            output_deltas: panel(&|layout| layout.outputs),
            upper: panel(&Layout::delta_stride),
            lower: panel(&Layout::delta_stride),
            inputs: panel(&Layout::delta_stride),
            sums: vec![Lanes::ZERO; sums.max().unwrap_or(0)],
        }
    }
}

impl Dense {
    /// Inputs and, where there are biases, the 1 that these multiply.
    fn units(&self) -> usize {
        self.inputs + usize::from(self.biased)
    }

    pub fn forward<T: Real>(
        &self,
        packed: &[T],
        rows: usize,
        (inputs, stride): (&[Lanes<T>], usize),
        outputs: UnitsMut<'_, T>,
        store: Store,
    ) {
        let weights = &packed[self.packed..][..self.units() * self.outputs];
        let inputs = Units { lanes: inputs, stride, first: 0, count: self.units() };
        product(weights, rows, inputs, outputs, store);
    }

    /// δ_in = Wᵀ δ_out.
    pub fn pull_back<T: Real>(
        &self,
        parameters: &[T],
        rows: usize,
        deltas: Units<'_, T>,
        (lanes, stride): (&mut [Lanes<T>], usize),
        store: Store,
    ) {
        let weights = &parameters[self.weights..][..self.inputs * self.outputs];
        let inputs = UnitsMut { lanes, stride, first: 0, count: self.inputs };
        product(weights, rows, deltas, inputs, store);
    }

    /// ∂W += δ_out inᵀ, ∂b += δ_out, summed over rows and lanes.
    pub fn add_gradient<T: Real>(
        &self,
        rows: usize,
        deltas: Units<'_, T>,
        (lanes, stride): (&[Lanes<T>], usize),
        gradient: &mut [f64],
        sums: &mut [Lanes<T>],
    ) {
        let (weights, rest) = gradient[self.weights..].split_at_mut(self.inputs * self.outputs);
        let biases = self.biased.then(|| &mut rest[..self.outputs]);
        let inputs = Units { lanes, stride, first: 0, count: self.units() };
        outer_product(rows, deltas, inputs, Gradient { weights, biases }, sums);
    }
}

/// Places ones behind the units of every row.
pub fn place_ones<T: Real>(panel: &mut [Lanes<T>], stride: usize, rows: usize) {
    for row in panel.chunks_exact_mut(stride).take(rows) {
        row[stride - 1] = Lanes::ONE;
    }
}

/// A layout with the parameters of one call.
#[derive(Debug, Clone, Copy)]
pub struct Conditioned<'a, T> {
    pub coupling: &'a Coupling,
    pub layout: &'a Layout,
    pub parameters: &'a [T],
    pub packed: &'a [T],
}

impl<'a, T: Real> Conditioned<'a, T> {
    /// The coupling's convolution and its layer.
    pub fn convolution(&self) -> Option<(&'a Convolution, &'a Dense)> {
        self.coupling.convolution.as_ref().zip(self.layout.convolution.as_ref())
    }

    /// What becomes of the sums of a hidden layer.
    pub fn activation(&self) -> Store {
        match self.coupling.network.conditioner {
            Conditioner::Elu => Store::Elu,
            Conditioner::Odd => Store::Tanh,
        }
    }

    /// The networks' outputs for some rows, with all that leads to them.
    pub fn forward(
        &self,
        range: Range<usize>,
        field: &[Lanes<T>],
        features: &[Lanes<T>],
        activations: &mut Activations<T>,
    ) {
        let layout = self.layout;
        let stride = layout.input_stride();
        let (rows, shells) = (range.len(), self.coupling.shells.len());
        let inputs = &mut activations.inputs;
        let units = UnitsMut { lanes: inputs, stride, first: 0, count: shells };
        gather(&self.coupling.shells, 1, range.clone(), field, units);
        if let Some((convolution, dense)) = self.convolution() {
            let count = layout.inputs - shells;
            let units = UnitsMut { lanes: inputs, stride, first: shells, count };
            gather(&convolution.seen, dense.outputs, range, features, units);
        }
        place_ones(inputs, stride, rows);
        let mut first_panel = 0;
        for branch in &layout.branches {
            self.forward_branch(branch, first_panel, rows, activations);
            first_panel += branch.hidden.len();
        }
    }

    /// The outputs of one network, whose hidden layers' panels begin at `first_panel`.
    fn forward_branch(
        &self,
        branch: &Branch,
        first_panel: usize,
        rows: usize,
        activations: &mut Activations<T>,
    ) {
        let Activations { inputs, hidden, squares, outputs } = activations;
        let layout = self.layout;
        let (input_stride, stride, width) =
            (layout.input_stride(), layout.stride(), layout.outputs);
        let mut last = (&inputs[..], input_stride);
        for (dense, panel) in branch.hidden.iter().zip(&mut hidden[first_panel..]) {
            let units = UnitsMut { lanes: panel, stride, first: 0, count: dense.outputs };
            dense.forward(self.packed, rows, last, units, self.activation());
            place_ones(panel, stride, rows);
            last = (panel, stride);
        }
        let lanes = outputs;
        match &branch.head {
            Head::Whole(dense) => {
                let (first, count) = (branch.first_output, dense.outputs);
                let units = UnitsMut { lanes, stride: width, first, count };
                dense.forward(self.packed, rows, last, units, Store::Overwrite);
            }
            Head::Parities { odd, skip, even } => {
                let (first, count) = (odd.outputs, even.outputs);
                let units = UnitsMut { lanes, stride: width, first: 0, count: first };
                odd.forward(self.packed, rows, last, units, Store::Overwrite);
                let units = UnitsMut { lanes, stride: width, first: 0, count: first };
                skip.forward(self.packed, rows, (inputs, input_stride), units, Store::Add);
                square(&last.0[..rows * last.1], &mut squares[..rows * last.1]);
                place_ones(squares, last.1, rows);
                let units = UnitsMut { lanes, stride: width, first, count };
                even.forward(self.packed, rows, (squares, last.1), units, Store::Overwrite);
            }
        }
    }

    /// Pulls `panels.output_deltas` back: adds the cotangents of the frozen sites to `cotangent` and,
    /// where asked for, those of the parameters to `gradient`.
    pub fn pull_back(
        &self,
        range: Range<usize>,
        activations: &Activations<T>,
        panels: &mut Panels<T>,
        cotangent: &mut [Lanes<T>],
        mut gradient: Option<&mut [f64]>,
    ) {
        let (layout, stride) = (self.layout, self.layout.delta_stride());
        let (mut first_panel, mut store) = (0, Store::Overwrite);
        for branch in &layout.branches {
            let place = (range.len(), first_panel, store);
            self.pull_back_branch(branch, place, activations, panels, gradient.as_deref_mut());
            first_panel += branch.hidden.len();
            store = Store::Add;
        }
        let Panels { feature_deltas, inputs, .. } = panels;
        let shells = self.coupling.shells.len();
        let deltas = |first, count| Units { lanes: &inputs[..], stride, first, count };
        scatter(&self.coupling.shells, 1, range.clone(), deltas(0, shells), cotangent);
        if let Some((convolution, dense)) = self.convolution() {
            let deltas = deltas(shells, layout.inputs - shells);
            scatter(&convolution.seen, dense.outputs, range, deltas, feature_deltas);
        }
    }

    /// From the outputs of one network, whose hidden layers' panels begin at `first_panel`, to its inputs in
    /// `panels.inputs`.
    fn pull_back_branch(
        &self,
        branch: &Branch,
        (rows, first_panel, store): (usize, usize, Store),
        activations: &Activations<T>,
        panels: &mut Panels<T>,
        mut gradient: Option<&mut [f64]>,
    ) {
        let Activations { inputs, hidden, squares, .. } = activations;
        let Panels { output_deltas, upper, lower, inputs: of_inputs, sums, .. } = panels;
        let layout = self.layout;
        let (stride, delta_stride) = (layout.stride(), layout.delta_stride());
        let panel = |layer: usize| match layer {
            0 => (&inputs[..], layout.input_stride()),
            _ => (&hidden[first_panel + layer - 1][..], stride),
        };
        let layers = branch.hidden.len();
        let last = panel(layers);
        let (mut upper, mut lower) = (&mut upper[..], &mut lower[..]);
        let deltas = |first: usize, count: usize| Units {
            lanes: &output_deltas[..],
            stride: layout.outputs,
            first,
            count,
        };
        match &branch.head {
            Head::Whole(dense) => {
                let deltas = deltas(branch.first_output, dense.outputs);
                let target = (&mut upper[..], delta_stride);
                dense.pull_back(self.parameters, rows, deltas, target, Store::Overwrite);
                if let Some(gradient) = gradient.as_deref_mut() {
                    dense.add_gradient(rows, deltas, last, gradient, sums);
                }
            }
            Head::Parities { odd, skip, even } => {
                let odd_deltas = deltas(0, odd.outputs);
                let even_deltas = deltas(odd.outputs, even.outputs);
                let target = (&mut upper[..], delta_stride);
                odd.pull_back(self.parameters, rows, odd_deltas, target, Store::Overwrite);
                let target = (&mut lower[..], delta_stride);
                even.pull_back(self.parameters, rows, even_deltas, target, Store::Overwrite);
                add_square_cotangents(rows, even.inputs, last, lower, upper, delta_stride);
                if let Some(gradient) = gradient.as_deref_mut() {
                    odd.add_gradient(rows, odd_deltas, last, gradient, sums);
                    skip.add_gradient(rows, odd_deltas, panel(0), gradient, sums);
                    even.add_gradient(rows, even_deltas, (squares, last.1), gradient, sums);
                }
            }
        }
        for (layer, dense) in branch.hidden.iter().enumerate().rev() {
            let activations = panel(layer + 1);
            let conditioner = self.coupling.network.conditioner;
            deactivate(conditioner, rows, dense.outputs, activations, upper, delta_stride);
            let deltas =
                Units { lanes: &upper[..], stride: delta_stride, first: 0, count: dense.outputs };
            let (target, store) = match layer {
                0 => (&mut of_inputs[..], store),
                _ => (&mut lower[..], Store::Overwrite),
            };
            dense.pull_back(self.parameters, rows, deltas, (target, delta_stride), store);
            if let Some(gradient) = gradient.as_deref_mut() {
                dense.add_gradient(rows, deltas, panel(layer), gradient, sums);
            }
            std::mem::swap(&mut upper, &mut lower);
        }
        if let Head::Parities { odd, skip, .. } = &branch.head {
            let target = (&mut of_inputs[..], delta_stride);
            skip.pull_back(self.parameters, rows, deltas(0, odd.outputs), target, Store::Add);
        }
    }
}

/// v_kc = weight_k Σ_j x_jc for some rows, where each site has so many channels c.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn gather<T: Real>(
    shells: &[Shell],
    channels: usize,
    rows: Range<usize>,
    values: &[Lanes<T>],
    mut inputs: UnitsMut<'_, T>,
) {
    for (k, shell) in shells.iter().enumerate() {
        let weight = T::of(shell.weight);
        let stencils = shell.sites[rows.start * shell.size..].chunks_exact(shell.size);
        for (row, stencil) in stencils.take(rows.len()).enumerate() {
            let inputs = &mut inputs.row(row)[k * channels..][..channels];
            for (channel, input) in inputs.iter_mut().enumerate() {
                let mut sums = Lanes::ZERO;
                for site in stencil {
                    let value = &values[*site as usize * channels + channel];
                    for (sum, value) in sums.0.iter_mut().zip(&value.0) {
                        *sum += *value;
                    }
                }
                for (input, sum) in input.0.iter_mut().zip(sums.0) {
                    *input = weight * sum;
                }
            }
        }
    }
}

/// Adds weight_k δv_kc to the cotangents of all sites of shell k.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn scatter<T: Real>(
    shells: &[Shell],
    channels: usize,
    rows: Range<usize>,
    deltas: Units<'_, T>,
    cotangent: &mut [Lanes<T>],
) {
    for (k, shell) in shells.iter().enumerate() {
        let weight = T::of(shell.weight);
        let stencils = shell.sites[rows.start * shell.size..].chunks_exact(shell.size);
        for (row, stencil) in stencils.take(rows.len()).enumerate() {
            let deltas = &deltas.row(row)[k * channels..][..channels];
            for (channel, delta) in deltas.iter().enumerate() {
                for site in stencil {
                    let sums = &mut cotangent[*site as usize * channels + channel];
                    for (sum, delta) in sums.0.iter_mut().zip(&delta.0) {
                        *sum = weight.fused(*delta, *sum);
                    }
                }
            }
        }
    }
}

/// δ *= activation's derivative, from its value.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn deactivate<T: Real>(
    conditioner: Conditioner,
    rows: usize,
    width: usize,
    (activations, stride): (&[Lanes<T>], usize),
    deltas: &mut [Lanes<T>],
    delta_stride: usize,
) {
    let deltas = deltas.chunks_exact_mut(delta_stride);
    for (deltas, activations) in deltas.zip(activations.chunks_exact(stride)).take(rows) {
        let pairs = flat_mut(&mut deltas[..width]).iter_mut().zip(flat(&activations[..width]));
        match conditioner {
            Conditioner::Elu => pairs.for_each(|(delta, h)| *delta = times_elu_slope(*delta, *h)),
            Conditioner::Odd => {
                pairs.for_each(|(delta, h)| *delta = *delta * (-*h).fused(*h, T::ONE));
            }
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn square<T: Real>(values: &[Lanes<T>], squares: &mut [Lanes<T>]) {
    for (square, value) in flat_mut(squares).iter_mut().zip(flat(values)) {
        *square = *value * *value;
    }
}

/// δh += 2 h δ(h∘h).
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn add_square_cotangents<T: Real>(
    rows: usize,
    width: usize,
    (activations, stride): (&[Lanes<T>], usize),
    squares: &[Lanes<T>],
    deltas: &mut [Lanes<T>],
    delta_stride: usize,
) {
    for row in 0..rows {
        let activations = flat(&activations[row * stride..][..width]);
        let squares = flat(&squares[row * delta_stride..][..width]);
        let deltas = flat_mut(&mut deltas[row * delta_stride..][..width]);
        for ((delta, square), value) in deltas.iter_mut().zip(squares).zip(activations) {
            *delta = (*value + *value).fused(*square, *delta);
        }
    }
}
