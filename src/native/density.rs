//! Densities of a tile, (site, lane) → (lane): sums over sites in f64.

use multiversion::multiversion;

use super::lanes::{LANES, Lanes, Real, ln_cosh};

/// One f64 per lane.
pub type Sums = [f64; LANES];

/// Σ_i a_i b_i.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn dot<T: Real>(a: &[Lanes<T>], b: &[Lanes<T>]) -> Sums {
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(&a.0).zip(&b.0) {
            *sum += a.to_f64() * b.to_f64();
        }
    }
    sums
}

/// Σ_i ln cosh x_i.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn sum_ln_cosh<T: Real>(field: &[Lanes<T>]) -> Sums {
    let mut sums = [0.0; LANES];
    for lanes in field {
        for (sum, value) in sums.iter_mut().zip(&lanes.0) {
            *sum += ln_cosh(*value).to_f64();
        }
    }
    sums
}

/// tanh x_i.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
pub fn tanh<T: Real>(field: &[Lanes<T>], out: &mut [Lanes<T>]) {
    for (out, lanes) in out.iter_mut().zip(field) {
        for (out, value) in out.0.iter_mut().zip(&lanes.0) {
            *out = value.hyperbolic_tangent();
        }
    }
}

/// ln p(z) of independent standard normal numbers.
pub fn ln_normal<T: Real>(field: &[Lanes<T>]) -> Sums {
    let constant = 0.5 * std::f64::consts::TAU.ln() * field.len() as f64;
    dot(field, field).map(|square| -0.5 * square - constant)
}

/// ln ½(eᵃ + eᵇ).
pub fn ln_mean_exp(a: f64, b: f64) -> f64 {
    a.max(b) + (-(a - b).abs()).exp().ln_1p() - std::f64::consts::LN_2
}

/// eᵃ / (eᵃ + eᵇ).
pub fn share(a: f64, b: f64) -> f64 {
    1.0 / (1.0 + (b - a).exp())
}
