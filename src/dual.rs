//! The field that is dual to given Ising spins.
//!
//! The joint density p(x, s) ∝ exp(-½ xᵀ(K+αI)⁻¹x + sᵀx) has the target of Eq. 7 as its sum over s, since Σ_s e^{sᵀx} =
//! Π 2 cosh x_i, and the Ising model as its integral over x, ∝ exp(½ sᵀ(K+αI)s), since s_i² = 1. Completing the square,
//! -½ (x - (K+αI)s)ᵀ(K+αI)⁻¹(x - (K+αI)s), shows that x given s is Gaussian with mean (K+αI)s and covariance K+αI:
//! spins drawn from the Ising model make exact samples of the target.

use tch::Tensor;

use crate::flow::preconditioner::Preconditioner;

/// Draws x = (K+αI)^{1/2} [(K+αI)^{1/2} s + ξ], ξ ~ N(0, I) from torch's generator, at temperature T.
///
/// Shapes: spins (batch, L, L), of ±1 → (batch, L, L).
pub fn draw_field(spins: &Tensor, temperature: f64) -> Tensor {
    let size = spins.size()[1] as usize;
    let root = Preconditioner::new(size, temperature, spins.kind(), spins.device());
    let (mean, _) = root.forward(spins);
    root.forward(&(mean + spins.randn_like())).0
}
