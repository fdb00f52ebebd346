//! A dense layer on chunks of rows.

use super::super::kernels::{Gradient, Store, Units, UnitsMut, outer_product, product};
use super::super::lanes::{Lanes, Real};

/// out = W in + b, with the place of W (outputs, inputs) in the flat parameters, behind it b, and that of the
/// transposed copy (inputs then bias, outputs) among the packed ones.
#[derive(Debug, Clone)]
pub struct Dense {
    pub inputs: usize,
    pub outputs: usize,
    pub(super) weights: usize,
    pub(super) biased: bool,
    pub(super) packed: usize,
}

impl Dense {
    /// Inputs and, where there are biases, the 1 that these multiply.
    pub(super) fn units(&self) -> usize {
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
