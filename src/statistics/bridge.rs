//! The free energy from samples of the flow and of the target together, which is right where either alone misses weight.

use ndarray::ArrayView2;

use crate::statistics::{gamma_method, ln_sum_exp, mean_and_standard_error};

/// Halvings of the bracket of ln Z: from a width of 10⁶ nats down to rounding.
const HALVINGS: usize = 75;

/// -ln Z in nats with its standard error, from ln w = ln π(x) - ln q(x) at independent samples of q and along chains of π:
/// Bennett's acceptance ratio (J. Comput. Phys. 22, 245 (1976)), which is the bridge sampling of least error (Meng and Wong,
/// Statistica Sinica 6, 831 (1996)).
///
/// Z is where Z = E_q[w α(w)] / E_π[α(w)] with the bridge α(w) = 1/(s w + (1 - s) Z). The share s of samples of q is
/// reckoned against the effective samples of the chains. Z fulfils the equation whatever α is, so that α's own error does
/// not enter: the variance of ln Z is the sum of the relative variances of numerator and denominator, the latter with
/// the chains' autocorrelation (Frühwirth-Schnatter, Econometrics J. 7, 143 (2004)).
///
/// Where the chains have not equilibrated neither number means anything; a weight that is NaN makes both NaN.
///
/// Shapes: of_flow (sample), of_target (chain, draw).
pub fn bridge(of_flow: &[f64], of_target: ArrayView2<f64>) -> (f64, f64) {
    let all = || of_flow.iter().copied().chain(of_target.iter().copied());
    if all().any(f64::is_nan) {
        return (f64::NAN, f64::NAN);
    }
    let samples = of_flow.len() as f64;
    let effective = of_target.len() as f64 / (2.0 * gamma_method(of_target).tau_int);
    let share = samples / (samples + effective);
    // ln of w α and of Z α at each sample, with ln w relative to ln Z: with a flow that is hundreds of nats off the numbers
    // themselves would be 0.
    let numerator = |relative: f64| -ln_of_sum(share, 1.0 - share, -relative);
    let denominator = |relative: f64| -ln_of_sum(1.0 - share, share, relative);

    // The numerator falls with Z and the denominator rises; below all weights the former is larger, above them smaller.
    let finite = || all().filter(|ln_weight| ln_weight.is_finite());
    let mut low = finite().fold(f64::INFINITY, f64::min);
    let mut high = finite().fold(f64::NEG_INFINITY, f64::max);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        let above = of_flow.iter().map(|ln_w| numerator(ln_w - middle)).collect::<Vec<_>>();
        let below = of_target.iter().map(|ln_w| denominator(ln_w - middle)).collect::<Vec<_>>();
        if ln_mean_exp(&above) > ln_mean_exp(&below) {
            low = middle;
        } else {
            high = middle;
        }
    }
    let ln_z = 0.5 * (low + high);
    // Relative errors do not depend on the sums, which become 1.
    let numerators: Vec<f64> = of_flow.iter().map(|ln_w| numerator(ln_w - ln_z)).collect();
    let sum = ln_sum_exp(numerators.iter());
    let numerators: Vec<f64> = numerators.iter().map(|value| (value - sum).exp()).collect();
    let (above, above_error) = mean_and_standard_error(&numerators);
    let denominators = of_target.mapv(|ln_w| denominator(ln_w - ln_z));
    let sum = ln_sum_exp(denominators.iter());
    let below = gamma_method(denominators.mapv(|value| (value - sum).exp()).view());
    (-ln_z, (above_error / above).hypot(below.error / below.mean))
}

/// ln(a + b eˣ) of a, b ≥ 0.
fn ln_of_sum(a: f64, b: f64, x: f64) -> f64 {
    if x > 0.0 { x + (b + a * (-x).exp()).ln() } else { (a + b * x.exp()).ln() }
}

fn ln_mean_exp(values: &[f64]) -> f64 {
    ln_sum_exp(values.iter()) - (values.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::{forward, importance};
    use ndarray::Array2;
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use rand_distr::StandardNormal;

    const LN_Z: f64 = 3.0;
    const REPETITIONS: usize = 300;

    /// ln w = ln π - ln q for q = N(0, 1) and π = Z N(shift, 1), at x.
    fn ln_weight(x: f64, shift: f64) -> f64 {
        LN_Z + x * shift - 0.5 * shift * shift
    }

    /// ln w at samples of q, and along chains of π that are AR(1) with autocorrelation `memory`.
    fn draw(rng: &mut StdRng, shift: f64, memory: f64) -> (Vec<f64>, Array2<f64>) {
        let mut normal = || rng.sample::<f64, _>(StandardNormal);
        let of_flow = (0..500).map(|_| ln_weight(normal(), shift)).collect();
        let mut of_target = Array2::zeros((8, 200));
        for mut chain in of_target.rows_mut() {
            let mut deviation = normal();
            for value in &mut chain {
                deviation = memory * deviation + (1.0 - memory * memory).sqrt() * normal();
                *value = ln_weight(shift + deviation, shift);
            }
        }
        (of_flow, of_target)
    }

    /// With shifts of which importance weights see next to nothing (ESS e⁻⁹ at 3), and chains of τ_int 4.5. Over 300
    /// repetitions mean and deviation of the pulls are known to 0.06 and 0.04: limits are 3.5 errors and a tenth.
    #[test]
    fn free_energies_are_unbiased_and_their_errors_calibrated() {
        let mut rng = StdRng::seed_from_u64(3);
        for (shift, memory) in [(0.5, 0.0), (1.5, 0.8), (3.0, 0.0), (3.0, 0.8)] {
            let pulls: Vec<f64> = (0..REPETITIONS)
                .map(|_| {
                    let (of_flow, of_target) = draw(&mut rng, shift, memory);
                    let (free_energy, error) = bridge(&of_flow, of_target.view());
                    (free_energy + LN_Z) / error
                })
                .collect();
            let (mean, error) = mean_and_standard_error(&pulls);
            let deviation = error * (REPETITIONS as f64).sqrt();
            let found = format!("shift {shift}, memory {memory}: {mean:.3}, {deviation:.3}");
            assert!(mean.abs() < 0.2 && (0.86..1.14).contains(&deviation), "{found}");
        }
    }

    /// A flow that has one of two modes: π = Z (N(0, 1) + N(10, 1))/2. Its own samples miss half of Z and do not know it.
    /// At x the weight is w = Z (1 + e^{10 x - 50})/2.
    #[test]
    fn weight_that_the_flow_misses_is_found() {
        let mut rng = StdRng::seed_from_u64(4);
        let ln_weight = |x: f64| LN_Z + (0.5 * (1.0 + (10.0 * x - 50.0).exp())).ln();
        let of_flow: Vec<f64> = (0..4000).map(|_| ln_weight(rng.sample(StandardNormal))).collect();
        let of_target = Array2::from_shape_simple_fn((8, 500), || {
            let mode = if rng.random() { 10.0 } else { 0.0 };
            ln_weight(mode + rng.sample::<f64, _>(StandardNormal))
        });
        let alone = importance(&of_flow);
        assert!((alone.free_energy + LN_Z - 2f64.ln()).abs() < 1e-6);
        assert!(alone.free_energy_error < 1e-6 && alone.effective_sample_size > 0.999);
        assert!(forward(of_target.view(), alone.free_energy).effective_sample_size < 1e-9);
        let (free_energy, error) = bridge(&of_flow, of_target.view());
        assert!(
            (free_energy + LN_Z).abs() < 3.0 * error && error < 0.03,
            "{free_energy} ± {error}"
        );
    }

    /// Weights that lie thousands of nats apart, as those of a flow that has learned nothing: nothing is known, but no
    /// number is lost.
    #[test]
    fn a_flow_far_off_gives_a_large_error_and_no_nan() {
        let (of_flow, of_target) = draw(&mut StdRng::seed_from_u64(5), 60.0, 0.5);
        let (free_energy, error) = bridge(&of_flow, of_target.view());
        assert!(
            free_energy.is_finite() && error.is_finite() && error > 0.5,
            "{free_energy} ± {error}"
        );
        let range = 0.5 * 60.0 * 60.0;
        assert!((free_energy + LN_Z).abs() < range, "{free_energy}");
    }

    #[test]
    fn equal_densities_leave_no_error_and_weights_that_are_nan_no_number() {
        let (free_energy, error) = bridge(&[LN_Z; 10], Array2::from_elem((2, 5), LN_Z).view());
        assert!((free_energy + LN_Z).abs() < 1e-12 && error == 0.0);
        let with_zero = [LN_Z, f64::NEG_INFINITY];
        let (free_energy, _) = bridge(&with_zero, Array2::from_elem((2, 5), LN_Z).view());
        assert!(free_energy.is_finite());
        assert!(bridge(&[f64::NAN], Array2::zeros((2, 5)).view()).0.is_nan());
    }
}
