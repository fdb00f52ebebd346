//! The Gaussian yardstick: the lowest variational free energy that needs no network.

use std::f64::consts::{E, LN_2, PI};

use argmin::core::{CostFunction, Error, Executor};
use argmin::solver::neldermead::NelderMead;

use crate::targets::density::ln_cosh;
use crate::targets::ising::coupling_eigenvalues;

/// Lowest variational free energy (nats) of a Z2-symmetric pair of shifted Gaussians,
/// q = ½[N(μ1, Σ) + N(-μ1, Σ)] with Σ translation invariant: what a flow must beat.
///
/// With λ_k the eigenvalues of K+αI, σ_k² those of Σ, v = (1/N) Σ_k σ_k² and a = Nμ²/σ_0²,
///
/// F = E_q[ln q - ln π] = -½ Σ ln(2πe σ_k²) + ½ (Nμ²/λ_0 + Σ σ_k²/λ_k)
///     - N E_ξ[ln cosh(μ + √v ξ)] + E_{w ~ N(a, a)}[ln(1 + e^{-2w})] - ln 2,  ξ ~ N(0, 1),
///
/// since ln(q_-/q_+) = -2(μ/σ_0²) Σx is -2w under the first component. F depends on σ_k, k ≠ 0,
/// through v alone but for its diagonal terms, hence σ_k² = 1/(1/λ_k - c) at the minimum, with
/// c = E[sech²(μ + √v ξ)]: only μ, c and σ_0 are searched for. Cost: some hundred sums over
/// the N modes.
pub fn gaussian_free_energy(linear_size: usize, temperature: f64) -> f64 {
    let pair = GaussianPair::new(linear_size, 1.0 / temperature);
    // A disordered (μ = 0) and an ordered (μ near λ_0) minimum coexist about T_c: search from both.
    [0.0, 0.5, 1.0]
        .map(|fraction| pair.minimize_from(fraction * pair.eigenvalues[0]))
        .into_iter()
        .fold(f64::INFINITY, f64::min)
}

/// The free energy of the pair as a function of (μ, c, σ_0).
#[derive(Clone)]
struct GaussianPair {
    /// λ_k, with k = 0 first.
    eigenvalues: Vec<f64>,
    /// c must stay below 1/λ_k of every k ≠ 0 to leave all variances positive.
    largest_c: f64,
}

impl GaussianPair {
    fn new(linear_size: usize, beta: f64) -> Self {
        let eigenvalues = coupling_eigenvalues(linear_size, beta);
        let largest_c = eigenvalues[1..].iter().map(|e| 1.0 / e).fold(f64::INFINITY, f64::min);
        Self { eigenvalues, largest_c }
    }

    /// The local minimum of F nearest to a given μ.
    fn minimize_from(&self, mu: f64) -> f64 {
        let mut start = vec![mu, 0.0, 0.5 * self.eigenvalues[0].ln()];
        let mut free_energy = f64::INFINITY;
        // A second search from the first one's end guards against a simplex that collapsed early.
        for _ in 0..2 {
            let simplex = (0..=3).map(|corner| {
                let mut point = start.clone();
                if corner > 0 {
                    point[corner - 1] += 0.3;
                }
                point
            });
            let solver = NelderMead::new(simplex.collect())
                .with_sd_tolerance(1e-13 * self.eigenvalues.len() as f64)
                .expect("the tolerance is positive");
            let result = Executor::new(self.clone(), solver)
                .configure(|state| state.max_iters(1000))
                .run()
                .expect("the free energy is defined at every point");
            free_energy = result.state.best_cost;
            start = result.state.best_param.expect("a finished search has a best point");
        }
        free_energy
    }

    /// F at mean μ and variances σ_k².
    fn free_energy(&self, mu: f64, variances: &[f64]) -> f64 {
        let sites = variances.len() as f64;
        let spread = (variances.iter().sum::<f64>() / sites).sqrt();
        let overlap = sites * mu * mu / variances[0];
        let diagonal: f64 = variances
            .iter()
            .zip(&self.eigenvalues)
            .map(|(variance, eigenvalue)| variance / eigenvalue - (2.0 * PI * E * variance).ln())
            .sum();
        0.5 * (diagonal + sites * mu * mu / self.eigenvalues[0])
            - sites * normal_expectation(|xi| ln_cosh(mu + spread * xi))
            + normal_expectation(|xi| softplus(-2.0 * (overlap + overlap.sqrt() * xi)))
            - LN_2
    }

    /// σ_k² = 1/(1/λ_k - c) for k ≠ 0, and σ_0² as given.
    fn variances(&self, c: f64, zero_variance: f64) -> Vec<f64> {
        let others = self.eigenvalues[1..].iter().map(|e| 1.0 / (1.0 / e - c));
        std::iter::once(zero_variance).chain(others).collect()
    }
}

impl CostFunction for GaussianPair {
    type Param = Vec<f64>;
    type Output = f64;

    /// F at (μ, logit(c/c_max), ln σ_0): every point of R³ is allowed.
    fn cost(&self, point: &Vec<f64>) -> Result<f64, Error> {
        let c = self.largest_c / (1.0 + (-point[1]).exp());
        Ok(self.free_energy(point[0], &self.variances(c, (2.0 * point[2]).exp())))
    }
}

/// E[f(ξ)], ξ ~ N(0, 1), by the trapezoidal rule. For a function analytic near the real axis, as ln
/// cosh is, it converges exponentially in the spacing, and faster than Gauss–Hermite nodes do.
fn normal_expectation(f: impl Fn(f64) -> f64) -> f64 {
    const SPACING: f64 = 1.0 / 16.0;
    const HALF_COUNT: i32 = 160;
    let sum: f64 = (-HALF_COUNT..=HALF_COUNT)
        .map(|i| SPACING * f64::from(i))
        .map(|xi| (-0.5 * xi * xi).exp() * f(xi))
        .sum();
    sum * SPACING / (2.0 * PI).sqrt()
}

/// ln(1 + e^x) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::exact::exact_ising;
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use rand_distr::StandardNormal;

    const CRITICAL: f64 = 2.269185314213022;

    fn gap(linear_size: usize, temperature: f64) -> (f64, f64) {
        let exact = exact_ising(linear_size, temperature).free_energy_field;
        let nats = gaussian_free_energy(linear_size, temperature) - exact;
        (nats, 100.0 * nats / exact.abs())
    }

    #[test]
    fn gaussian_yardstick_reproduces_the_known_gaps() {
        let (nats, percent) = gap(16, CRITICAL);
        assert!((nats - 6.5).abs() < 0.05 && (percent - 1.10).abs() < 0.005, "{nats} {percent}");
        assert!((gap(32, 2.0).1 - 0.50).abs() < 0.005);
        assert!((gap(32, 2.7).1 - 3.04).abs() < 0.005);
    }

    #[test]
    fn gaussian_yardstick_is_an_upper_bound_at_every_temperature() {
        for linear_size in [4, 8, 16] {
            for temperature in [0.3, 1.0, 1.8, 2.2, CRITICAL, 2.5, 3.0, 5.0, 50.0] {
                let (nats, _) = gap(linear_size, temperature);
                assert!(nats.is_finite() && nats > 0.0, "{linear_size} {temperature}: {nats}");
            }
        }
    }

    #[test]
    fn trapezoidal_rule_gives_normal_moments() {
        assert!((normal_expectation(|_| 1.0) - 1.0).abs() < 1e-14);
        assert!((normal_expectation(|x| x.powi(4)) - 3.0).abs() < 1e-13);
        assert!((normal_expectation(|x| x.cosh().ln()) - 0.3745672075).abs() < 1e-9);
    }

    /// F of one pair on a 4 × 4 lattice by sampling q and evaluating ln q - ln π mode by mode.
    #[test]
    fn free_energy_of_a_pair_equals_its_monte_carlo_average() {
        let pair = GaussianPair::new(4, 1.0 / 2.5);
        let (mu, variances) = (0.4, pair.variances(0.1, 5.0));
        let mut rng = StdRng::seed_from_u64(7);
        let values: Vec<f64> =
            (0..20_000).map(|_| sampled_log_ratio(&pair, mu, &variances, &mut rng)).collect();
        let (mean, error) = crate::statistics::mean_and_standard_error(&values);
        let expected = pair.free_energy(mu, &variances);
        assert!((mean - expected).abs() < 4.0 * error, "{mean} ± {error} against {expected}");
        assert!(error < 0.05);
    }

    /// ln q(x) - ln π(x) at one x ~ q, with the real Fourier basis of the 4 × 4 torus written out.
    fn sampled_log_ratio(pair: &GaussianPair, mu: f64, variances: &[f64], rng: &mut StdRng) -> f64 {
        let wave = |n: usize, r: usize| -> f64 {
            let angle = 0.5 * PI * (n * r) as f64;
            // Hartley's cas functions: orthogonal, and n and -n have one eigenvalue.
            (angle.cos() + angle.sin()) / 2.0
        };
        let mean = if rng.random_bool(0.5) { mu } else { -mu };
        let modes: Vec<f64> = (0..16)
            .map(|k| {
                let shift = if k == 0 { 4.0 * mean } else { 0.0 };
                shift + variances[k].sqrt() * rng.sample::<f64, _>(StandardNormal)
            })
            .collect();
        let ln_cosh_sum: f64 = (0..16)
            .map(|i| {
                let site = |k: usize| wave(k / 4, i / 4) * wave(k % 4, i % 4) * modes[k];
                ln_cosh((0..16).map(site).sum())
            })
            .sum();
        let quadratic = |mean: f64, scale: &[f64]| -> f64 {
            let shifted = (modes[0] - 4.0 * mean).powi(2) / scale[0];
            shifted + (1..16).map(|k| modes[k].powi(2) / scale[k]).sum::<f64>()
        };
        let [up, down] = [mu, -mu].map(|mean| -0.5 * quadratic(mean, variances));
        let ln_norm: f64 = variances.iter().map(|v| -0.5 * (2.0 * PI * v).ln()).sum();
        let ln_q = up.max(down) + softplus(-(up - down).abs()) - LN_2 + ln_norm;
        ln_q + 0.5 * quadratic(0.0, &pair.eigenvalues) - ln_cosh_sum
    }

    /// Independent of the reduction to (μ, c, σ_0): no single variance can be bettered.
    #[test]
    fn free_energy_is_stationary_in_every_single_variance() {
        for temperature in [2.0, 2.7] {
            let pair = GaussianPair::new(8, 1.0 / temperature);
            let minimum = gaussian_free_energy(8, temperature);
            let (mu, variances) = minimizer(&pair);
            assert!((pair.free_energy(mu, &variances) - minimum).abs() < 1e-8);
            for k in [0, 1, 9, 20, 36] {
                for step in [-1e-2, 1e-2] {
                    let mut changed = variances.clone();
                    changed[k] *= 1.0 + step;
                    assert!(pair.free_energy(mu, &changed) > minimum, "T = {temperature}, k = {k}");
                }
            }
            for step in [-1e-2, 1e-2] {
                assert!(pair.free_energy(mu + step, &variances) > minimum);
            }
        }
    }

    /// The self-consistent solution by damped iteration: an independent way to the same minimum.
    fn minimizer(pair: &GaussianPair) -> (f64, Vec<f64>) {
        let sites = pair.eigenvalues.len() as f64;
        let sech2 = |x: f64| x.cosh().powi(-2);
        let (mut best, mut lowest) = ((0.0, Vec::new()), f64::INFINITY);
        for start in [0.0, pair.eigenvalues[0]] {
            let (mut mu, mut variances) = (start, pair.eigenvalues.clone());
            for _ in 0..4000 {
                let spread = (variances.iter().sum::<f64>() / sites).sqrt();
                let c = normal_expectation(|xi| sech2(mu + spread * xi));
                let overlap = sites * mu * mu / variances[0];
                // dE[ln(1+e^{-2w})]/da by difference: this is a test.
                let mixing = |a: f64| normal_expectation(|xi| softplus(-2.0 * (a + a.sqrt() * xi)));
                let slope = match overlap > 1e-9 {
                    true => (mixing(1.0001 * overlap) - mixing(0.9999 * overlap)) / 2e-4 / overlap,
                    false => 0.0,
                };
                // ∂F/∂σ_0² = 0 and ∂F/∂μ = 0.
                let field = normal_expectation(|xi| (mu + spread * xi).tanh());
                let stiffness = 1.0 / pair.eigenvalues[0] + 2.0 * slope / variances[0];
                mu += 0.2 * (field / stiffness - mu);
                let others = pair.variances(c.min(0.99 * pair.largest_c), 0.0);
                let zero = 1.0
                    / (1.0 / pair.eigenvalues[0] - c - 2.0 * slope * overlap / variances[0])
                        .max(1e-3);
                for (k, variance) in variances.iter_mut().enumerate() {
                    let target = if k == 0 { zero } else { others[k] };
                    *variance += 0.2 * (target - *variance);
                }
            }
            let free_energy = pair.free_energy(mu, &variances);
            if free_energy < lowest {
                (lowest, best) = (free_energy, (mu, variances));
            }
        }
        best
    }
}
