//! The networks of couplings on chunks of rows: values, and cotangents pulled back through them.

pub mod dense;
pub mod layout;
pub mod panels;
pub mod stencil;

use std::ops::Range;

use multiversion::multiversion;

use super::kernels::{Store, Units, UnitsMut};
use super::lanes::{Lanes, Real, flat, flat_mut, times_elu_slope};
use crate::flow::coupling::{Conditioner, Convolution, Coupling};
use dense::Dense;
use layout::{Branch, Head, Layout};
use panels::{Activations, Panels, place_ones};
use stencil::{gather, scatter};

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
