//! A symplectic flow with the engine that evaluates it.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};

use super::choice::symplectic_engine;
use super::symplectic::{Momenta, SymplecticEngine};
use super::{Image, Loss};
use crate::engine::config::{Estimator, RunConfig};
use crate::engine::device::Device;
use crate::error::Result;
use crate::flow::symplectic::SymplecticFlow;
use crate::targets::surface::Surface;

/// Samples that are evaluated at a time.
const BATCH: usize = 2048;
/// Oscillators whose derivatives are held at a time.
const OSCILLATORS: usize = 16;

/// A symplectic flow, the surface that it is trained on, if it is trained on one, and the engine that evaluates both.
#[derive(Debug)]
pub struct SymplecticModel {
    pub flow: SymplecticFlow,
    engine: Box<dyn SymplecticEngine>,
}

impl SymplecticModel {
    /// A flow with its engine.
    ///
    /// # Errors
    /// This program has no engine that can do it.
    pub fn new(
        flow: SymplecticFlow,
        surface: Option<Surface>,
        run: &RunConfig,
        device: Device,
    ) -> Result<Self> {
        let engine = symplectic_engine(&flow, surface, run, device)?;
        Ok(Self { flow, engine })
    }

    /// As [`SymplecticEngine::variational_loss`].
    pub fn variational_loss(
        &self,
        z: ArrayView2<f64>,
        momenta: Momenta,
        estimator: Estimator,
    ) -> Loss {
        self.engine.variational_loss(self.flow.parameters.view(), z, momenta, estimator)
    }

    /// As [`SymplecticEngine::likelihood_loss`].
    pub fn likelihood_loss(&self, q: ArrayView2<f64>, momenta: Momenta) -> Loss {
        self.engine.likelihood_loss(self.flow.parameters.view(), q, momenta)
    }

    /// As [`SymplecticEngine::variational_values`].
    pub fn variational_values(&self, z: ArrayView2<f64>, momenta: Momenta) -> Array1<f64> {
        self.engine.variational_values(self.flow.parameters.view(), z, momenta)
    }

    /// As [`SymplecticEngine::likelihood_values`].
    pub fn likelihood_values(&self, q: ArrayView2<f64>, momenta: Momenta) -> Array1<f64> {
        self.engine.likelihood_values(self.flow.parameters.view(), q, momenta)
    }

    /// As [`SymplecticEngine::forward`].
    pub fn forward(&self, z: ArrayView2<f64>) -> Image {
        in_batches(z, |z| self.engine.forward(self.flow.parameters.view(), z))
    }

    /// As [`SymplecticEngine::inverse`].
    pub fn inverse(&self, q: ArrayView2<f64>) -> Image {
        in_batches(q, |q| self.engine.inverse(self.flow.parameters.view(), q))
    }

    /// Mean of ∂Q_k/∂q_i over some samples, of some oscillators k. Shapes: q (batch, n) → (oscillators, n).
    pub fn mean_derivatives(&self, q: ArrayView2<f64>, oscillators: &[usize]) -> Array2<f64> {
        let parameters = self.flow.parameters.view();
        let mut means = Array2::zeros((oscillators.len(), q.ncols()));
        let parts = means.axis_chunks_iter_mut(Axis(0), OSCILLATORS);
        for (mut means, oscillators) in parts.zip(oscillators.chunks(OSCILLATORS)) {
            let derivatives = self.engine.inverse_derivatives(parameters, q, oscillators);
            means.assign(&derivatives.mean_axis(Axis(1)).expect("there are samples"));
        }
        means
    }
}

/// A map of many samples, some at a time.
fn in_batches(values: ArrayView2<f64>, map: impl Fn(ArrayView2<f64>) -> Image) -> Image {
    let mut all =
        Image { field: Array2::zeros(values.raw_dim()), log_det: Array1::zeros(values.nrows()) };
    for start in (0..values.nrows()).step_by(BATCH) {
        let rows = start..values.nrows().min(start + BATCH);
        let Image { field, log_det } = map(values.slice(s![rows.clone(), ..]));
        all.field.slice_mut(s![rows.clone(), ..]).assign(&field);
        all.log_det.slice_mut(s![rows]).assign(&log_det);
    }
    all
}
