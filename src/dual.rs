//! The field that is dual to given Ising spins.
//!
//! The joint density p(x, s) ∝ exp(-½ xᵀ(K+αI)⁻¹x + sᵀx) has the target of Eq. 7 as its sum over s, since Σ_s e^{sᵀx} =
//! Π 2 cosh x_i, and the Ising model as its integral over x, ∝ exp(½ sᵀ(K+αI)s), since s_i² = 1. Completing the square,
//! -½ (x - (K+αI)s)ᵀ(K+αI)⁻¹(x - (K+αI)s), shows that x given s is Gaussian with mean (K+αI)s and covariance K+αI:
//! spins drawn from the Ising model make exact samples of the target.

use tch::Tensor;

use crate::flow::preconditioner::Preconditioner;
use crate::host::normals;
use crate::random::{Random, Use};

/// Draws x = (K+αI)^{1/2} [(K+αI)^{1/2} s + ξ], ξ ~ N(0, I), at temperature T, for samples of which the first one has
/// number `first`.
///
/// Shapes: spins (batch, L, L), of ±1 → (batch, L, L).
pub fn draw_field(spins: &Tensor, temperature: f64, random: &Random, first: usize) -> Tensor {
    let (size, kind, device) = (spins.size()[1], spins.kind(), spins.device());
    let root = Preconditioner::new(size as usize, temperature, kind, device);
    let (mean, _) = root.forward(spins);
    let samples = first..first + spins.size()[0] as usize;
    root.forward(&(mean + normals(random, Use::Latents, samples, (size, kind, device)))).0
}
