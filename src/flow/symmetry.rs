//! The prior, and how the target's Z2 symmetry x → -x enters a sample of the flow (App. D).

use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::flow::config::Symmetry;
use crate::random::{Random, Use};

/// ln p(z) of the prior N(0, I). Shapes: z (batch, N) → (batch).
pub fn ln_prior(z: ArrayView2<f64>) -> Array1<f64> {
    let constant = 0.5 * z.ncols() as f64 * std::f64::consts::TAU.ln();
    z.map_axis(Axis(1), |z| -0.5 * z.dot(&z) - constant)
}

/// Random signs of samples, of which the first one has number `first`. Shapes: (batch).
pub fn random_signs(batch: usize, random: &Random, first: usize) -> Array1<f64> {
    let numbers = random.uniform(Use::Signs, first..first + batch);
    numbers.mapv_into(|number| if number < 0.5 { 1.0 } else { -1.0 })
}

/// Signs to multiply samples by, of which the first one has number `first`: the mixture's random ones, else 1.
///
/// Shapes: (batch).
pub fn draw_signs(batch: usize, symmetry: Symmetry, random: &Random, first: usize) -> Array1<f64> {
    match symmetry {
        Symmetry::Mixture => random_signs(batch, random, first),
        Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => Array1::ones(batch),
    }
}

/// The samples with signs drawn. Shapes: field (batch, N).
pub fn with_signs(
    field: Array2<f64>,
    symmetry: Symmetry,
    random: &Random,
    first: usize,
) -> Array2<f64> {
    let signs = draw_signs(field.nrows(), symmetry, random, first);
    field * signs.insert_axis(Axis(1))
}

/// ln ½(eᵃ + eᵇ).
pub fn ln_mean_exp(a: f64, b: f64) -> f64 {
    a.max(b) + (-(a - b).abs()).exp().ln_1p() - std::f64::consts::LN_2
}
