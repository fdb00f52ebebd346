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

/// eᵃ / (eᵃ + eᵇ), or 0 where the other share rounds to 1 in `T`: products with smaller numbers become
/// subnormal, with which processors take many times longer, and a pass with zeros only is not made.
pub fn share<T: Real>(a: f64, b: f64) -> f64 {
    let share = 1.0 / (1.0 + (b - a).exp());
    if T::of(1.0 - share) == T::ONE { 0.0 } else { share }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_one_and_are_zero_where_rounding_loses_them() {
        for difference in [0.0, 1.0, 17.0, 18.0, 37.0, 38.0, 800.0] {
            let single = [share::<f32>(-difference, 0.0), share::<f32>(0.0, -difference)];
            assert_eq!(single.iter().sum::<f64>() as f32, 1.0);
            assert_eq!(single[0] == 0.0, difference > 17.33, "{difference}");
            let double = [share::<f64>(-difference, 0.0), share::<f64>(0.0, -difference)];
            assert!((double.iter().sum::<f64>() - 1.0).abs() <= f64::EPSILON);
            assert_eq!(double[0] == 0.0, difference > 37.43, "{difference}");
        }
    }
}
