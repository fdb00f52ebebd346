//! The convolutions of couplings: features at all frozen sites, and their cotangents pulled back.

use super::kernels::{Store, Units, UnitsMut};
use super::lanes::{Lanes, Real};
use super::network::layout::Layout;
use super::network::panels::{Panels, place_ones};
use super::network::stencil::{gather, scatter};
use super::network::{Conditioned, deactivate};
use crate::flow::coupling::Coupling;

/// Sites that are worked on together.
const ROWS: usize = 64;

/// What the convolution of a coupling computes.
#[derive(Debug)]
pub struct Features<T> {
    /// Sites × channels.
    pub values: Vec<Lanes<T>>,
    /// Inputs at some of the sites.
    stencil: Vec<Lanes<T>>,
}

impl<T: Real> Features<T> {
    /// Room for the features of any of the couplings.
    pub fn any(couplings: &[Coupling], layouts: &[Layout]) -> Self {
        let features = couplings.iter().map(Coupling::feature_count).max().unwrap_or(0);
        let stride = layouts.iter().map(Layout::stencil_stride).max().unwrap_or(0);
        Self { values: vec![Lanes::ZERO; features], stencil: vec![Lanes::ZERO; ROWS * stride] }
    }
}

impl<T: Real> Conditioned<'_, T> {
    /// The features at all frozen sites; none without a convolution.
    pub fn convolve(&self, field: &[Lanes<T>], features: &mut Features<T>) {
        let Some((convolution, dense)) = self.convolution() else { return };
        let (stride, channels) = (self.layout.stencil_stride(), dense.outputs);
        let Features { values, stencil } = features;
        for first in (0..convolution.rows).step_by(ROWS) {
            let rows = ROWS.min(convolution.rows - first);
            let inputs = UnitsMut { lanes: stencil, stride, first: 0, count: dense.inputs };
            gather(&convolution.stencil, 1, first..first + rows, field, inputs);
            place_ones(stencil, stride, rows);
            let values = &mut values[first * channels..];
            let outputs = UnitsMut { lanes: values, stride: channels, first: 0, count: channels };
            dense.forward(self.packed, rows, (stencil, stride), outputs, self.activation());
        }
    }

    /// Pulls `panels.feature_deltas` back: adds the cotangents of the frozen sites to `cotangent` and,
    /// where asked for, those of the parameters to `gradient`. Leaves zeros.
    pub fn pull_back_convolution(
        &self,
        field: &[Lanes<T>],
        features: &mut Features<T>,
        panels: &mut Panels<T>,
        cotangent: &mut [Lanes<T>],
        mut gradient: Option<&mut [f64]>,
    ) {
        let Some((convolution, dense)) = self.convolution() else { return };
        let (stride, channels) = (self.layout.stencil_stride(), dense.outputs);
        let Features { values, stencil } = features;
        for first in (0..convolution.rows).step_by(ROWS) {
            let rows = ROWS.min(convolution.rows - first);
            let activations = (&values[first * channels..], channels);
            let deltas = &mut panels.feature_deltas[first * channels..];
            let conditioner = self.coupling.network.conditioner;
            deactivate(conditioner, rows, channels, activations, deltas, channels);
            let deltas = Units { lanes: deltas, stride: channels, first: 0, count: channels };
            if let Some(gradient) = gradient.as_deref_mut() {
                let inputs = UnitsMut { lanes: stencil, stride, first: 0, count: dense.inputs };
                gather(&convolution.stencil, 1, first..first + rows, field, inputs);
                place_ones(stencil, stride, rows);
                let sums = &mut panels.sums;
                dense.add_gradient(rows, deltas, (stencil, stride), gradient, sums);
            }
            // The inputs make room for their cotangents.
            let inputs = (&mut stencil[..], stride);
            dense.pull_back(self.parameters, rows, deltas, inputs, Store::Overwrite);
            let deltas = Units { lanes: stencil, stride, first: 0, count: dense.inputs };
            scatter(&convolution.stencil, 1, first..first + rows, deltas, cotangent);
            panels.feature_deltas[first * channels..][..rows * channels].fill(Lanes::ZERO);
        }
    }
}
