//! What evaluates a symplectic flow ([`crate::flow::symplectic`]).

use std::fmt::Debug;

use ndarray::{Array1, Array3, ArrayView1, ArrayView2};

use super::{Image, Loss};
use crate::engine::config::Estimator;
use crate::flow::symmetry::ln_prior;

/// Momenta of a batch, which are standard normal numbers in either space.
#[derive(Debug, Clone, Copy)]
pub enum Momenta<'a> {
    /// (batch, n): these.
    Drawn(ArrayView2<'a, f64>),
    /// Their mean over all momenta, by n vector-Jacobian products of each sample.
    Integrated,
}

/// An evaluation of one symplectic flow at given parameters. It converts what it gets to its own precision and layout.
///
/// Shapes: parameters (parameters), z, Q, P, q and p (batch, n). z are the oscillators' coordinates in units of their standard
/// deviations, z = ω (Q - b).
pub trait SymplecticEngine: Debug {
    /// ln ρ(Q, P) + V(q) + ½ p², whose mean over z and P is a bound above -ln Z of the phase space, with the gradient of its mean over
    /// the batch. The estimator is that of the gradient; the path gradient is of drawn momenta alone.
    fn variational_loss(
        &self,
        parameters: ArrayView1<f64>,
        z: ArrayView2<f64>,
        momenta: Momenta,
        estimator: Estimator,
    ) -> Loss;

    /// -ln ρ(Q, P) of given q with momenta p, with the gradient of its mean.
    fn likelihood_loss(
        &self,
        parameters: ArrayView1<f64>,
        q: ArrayView2<f64>,
        momenta: Momenta,
    ) -> Loss;

    /// The values of [`SymplecticEngine::variational_loss`] alone. Shapes: (batch).
    fn variational_values(
        &self,
        parameters: ArrayView1<f64>,
        z: ArrayView2<f64>,
        momenta: Momenta,
    ) -> Array1<f64>;

    /// Those of [`SymplecticEngine::likelihood_loss`]. Shapes: (batch).
    fn likelihood_values(
        &self,
        parameters: ArrayView1<f64>,
        q: ArrayView2<f64>,
        momenta: Momenta,
    ) -> Array1<f64>;

    /// q, with ln|det ∂q/∂z|.
    fn forward(&self, parameters: ArrayView1<f64>, z: ArrayView2<f64>) -> Image;

    /// z, with ln|det ∂z/∂q|.
    fn inverse(&self, parameters: ArrayView1<f64>, q: ArrayView2<f64>) -> Image;

    /// ∂Q_k/∂q_i of some oscillators k. Shapes: (oscillators, batch, n).
    fn inverse_derivatives(
        &self,
        parameters: ArrayView1<f64>,
        q: ArrayView2<f64>,
        oscillators: &[usize],
    ) -> Array3<f64>;
}

/// ln q(q) of the coordinates from what the inverse gives of them: ln p(z) + ln|det ∂z/∂q|. Shapes: (batch).
pub fn ln_density(image: &Image) -> Array1<f64> {
    ln_prior(image.field.view()) + &image.log_det
}
