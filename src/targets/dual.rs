//! The field that is dual to given Ising spins.
//!
//! The joint density p(x, s) ∝ exp(-½ xᵀ(K+αI)⁻¹x + sᵀx) has the target of Eq. 7 as its sum over s, since Σ_s e^{sᵀx} =
//! Π 2 cosh x_i, and the Ising model as its integral over x, ∝ exp(½ sᵀ(K+αI)s), since s_i² = 1. Completing the square,
//! -½ (x - (K+αI)s)ᵀ(K+αI)⁻¹(x - (K+αI)s), shows that x given s is Gaussian with mean (K+αI)s and covariance K+αI:
//! spins drawn from the Ising model make exact samples of the target.

use ndarray::{Array2, ArrayView2};

use crate::lattice::Lattice;
use crate::random::{Random, Use};
use crate::targets::ising::coupling_eigenvalues;

/// Draws x = (K+αI)^{1/2} [(K+αI)^{1/2} s + ξ], ξ ~ N(0, I), at temperature T, for samples of which the first one has
/// number `first`.
///
/// Shapes: spins (batch, N), of ±1 → (batch, N).
pub fn draw_field(
    lattice: &Lattice,
    spins: ArrayView2<f64>,
    temperature: f64,
    random: &Random,
    first: usize,
) -> Array2<f64> {
    let eigenvalues = coupling_eigenvalues(lattice.linear_size(), 1.0 / temperature);
    let root: Vec<f64> = eigenvalues.iter().map(|value| value.sqrt()).collect();
    let samples = first..first + spins.nrows();
    let noise = random.normals(Use::Latents, samples, lattice.sites());
    lattice.filter((lattice.filter(spins, &root) + noise).view(), &root)
}
