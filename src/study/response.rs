//! Responses of latent variables to the field, E[∂z_i/∂x_j] (Fig. 4(a)): which pattern of the field each latent stands for.

use ndarray::{Array3, ArrayView2, Axis};

use crate::engine::{Image, Model};
use crate::flow::config::Symmetry;
use crate::flow::symmetry::ln_prior;

/// ∂z_i/∂x_j at each sample of the field, for some sites i and all sites j.
///
/// With the mixture a sample x came from +g(z) with probability p = q(x)/[q(x) + q(-x)], and then has z = g⁻¹(x), else
/// from -g(z) with z = g⁻¹(-x). The latents answer to the field with that sign taken off, and the two answers are
/// weighted by their probabilities (Eq. D.4): p ∂g⁻¹(x) + (1 - p) ∂g⁻¹(-x). (With the sign left in the second
/// term would count negative, and the mean over fields be 0 by symmetry.)
///
/// Shapes: field (batch, N) → (latents, batch, N).
pub fn responses(model: &Model, field: ArrayView2<f64>, latents: &[usize]) -> Array3<f64> {
    let derivatives = |x: ArrayView2<f64>| model.inverse_derivatives(x, latents);
    match model.symmetry() {
        Symmetry::Mixture => {
            let ln_q = |x: ArrayView2<f64>| {
                let Image { field: z, log_det } = model.inverse(x);
                ln_prior(z.view()) + log_det
            };
            let mirrored = -&field;
            let ln_odds = ln_q(mirrored.view()) - ln_q(field);
            let probability = ln_odds.mapv(|ln_odds| 1.0 / (1.0 + ln_odds.exp()));
            let probability = probability.insert_axis(Axis(1));
            derivatives(field) * &probability + derivatives(mirrored.view()) * (1.0 - &probability)
        }
        Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => derivatives(field),
    }
}
