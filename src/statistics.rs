//! Error bars: of correlated chains, of independent samples and of importance weights.

pub mod bridge;
pub mod convergence;
pub mod mutual_information;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayView3, Axis, s};
use statrs::distribution::{ChiSquared, ContinuousCDF};

/// Window parameter S of the Γ method: the ratio assumed of exponential to integrated time.
const WINDOW_FACTOR: f64 = 1.5;

/// A spread of chains is believed if it is beyond this quantile of what the Γ method predicts.
const SPREAD_PROBABILITY: f64 = 0.99;

/// The jackknife of derived quantities wants so many blocks, if they are longer than so many autocorrelation times.
const DERIVED_BLOCKS: usize = 50;
const BLOCK_TIMES: f64 = 40.0;

/// Number of blocks that the jackknife of `importance` leaves out one by one.
const JACKKNIFE_BLOCKS: usize = 100;

/// The mean of a correlated series, with what its error bar rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    /// One standard error of the mean.
    pub error: f64,
    /// Integrated autocorrelation time τ_int = ½ + Σ_{t≥1} ρ(t), in draws; ½ if uncorrelated.
    pub tau_int: f64,
    /// One standard error of τ_int (Eq. 42, for τ_int ≥ ½; up to a third too small below).
    pub tau_int_error: f64,
    /// The lag at which the sum over ρ(t) was cut, in draws.
    pub window: usize,
}

/// Mean, error and autocorrelation time of equally long chains of one observable: the Γ method
/// (U. Wolff, Comput. Phys. Commun. 156, 143 (2004), hep-lat/0306017; equations cited as there).
///
/// Γ(t) is averaged over the chains about their common mean (Eq. 31), corrected for its bias
/// (Eq. 49), and summed up to the automatic window W (Eqs. 50-52, S = 1.5). The mean of n draws has
/// the variance Σ_{|t|≤W} (1 - |t|/n) Γ(t)/n; the factor 1 - |t|/n, which Wolff drops for n ≫
/// τ_int, is what keeps the error of many short chains right. Lags are computed until the window
/// closes, which costs O(n W).
///
/// Stuck chains disagree by more than Γ within them explains. Where the variance of the chain means
/// is beyond the 99 % quantile of what Γ predicts, the standard error between chains replaces Γ's.
/// A plain maximum of the two would exceed the true error on average whenever chains are few; this
/// test replaces a correct error once in a hundred times only.
///
/// A constant series has error 0 and τ_int = ½. A single draw leaves the error NaN, since nothing
/// is known of it, and so do non-finite values; an empty array leaves the mean NaN too.
///
/// Shapes: chains (chains, draws).
pub fn gamma_method(chains: ArrayView2<f64>) -> Estimate {
    let draws = chains.ncols();
    let total = chains.len() as f64;
    // Relative to the first value, so that a constant series has deviations of exactly zero.
    let reference = chains.first().copied().unwrap_or(f64::NAN);
    let shift = chains.iter().map(|value| value - reference).sum::<f64>() / total;
    let mean = reference + shift;
    if chains.len() < 2 || !mean.is_finite() {
        let nan = f64::NAN;
        return Estimate { mean, error: nan, tau_int: nan, tau_int_error: nan, window: 0 };
    }
    let deviations: Vec<f64> = chains.iter().map(|value| value - reference - shift).collect();
    let variance = autocovariance(&deviations, draws, 0);
    if variance == 0.0 {
        return Estimate { mean, error: 0.0, tau_int: 0.5, tau_int_error: 0.0, window: 0 };
    }
    let Sums { window, plain, tapered } = sum_correlations(&deviations, draws, variance);
    let lags = (2 * window + 1) as f64;
    let tapered_lags = lags - (window * (window + 1)) as f64 / draws as f64;
    // Γ about the estimated mean lacks that mean's own variance at every lag (Eq. 49), here solved
    // for that variance: summed over all lags it is exactly the one between chains.
    let mean_variance = 2.0 * variance * tapered / (total - tapered_lags);
    let tau_int = (variance * plain + 0.5 * lags * mean_variance) / (variance + mean_variance);
    let freedom = (window as f64 + 0.5 - tau_int).max(0.0);
    Estimate {
        mean,
        error: with_chain_spread(mean_variance.sqrt(), &deviations, draws),
        tau_int,
        tau_int_error: 2.0 * tau_int * (freedom / total).sqrt(),
        window,
    }
}

/// Γ(t) of deviations from the common mean, averaged over all pairs within a chain (Eq. 31).
fn autocovariance(deviations: &[f64], draws: usize, lag: usize) -> f64 {
    let products = deviations.chunks_exact(draws).map(|chain| {
        chain.iter().zip(&chain[lag..]).map(|(early, late)| early * late).sum::<f64>()
    });
    products.sum::<f64>() / (deviations.len() / draws * (draws - lag)) as f64
}

/// Sums of the autocorrelation function ρ(t) up to the window W.
struct Sums {
    window: usize,
    /// ½ + Σ_{t≤W} ρ(t).
    plain: f64,
    /// ½ + Σ_{t≤W} (1 - t/n) ρ(t) for chains of n draws.
    tapered: f64,
}

/// Sums ρ(t) up to the first lag at which the statistical error of τ_int outgrows its truncation
/// error (Eq. 52).
///
/// The decay time comes from Σ|ρ(t)| instead of Σρ(t), which is the same for the usual positive ρ
/// and lets an alternating ρ, as of overshooting HMC trajectories, decay before it is cut. W stays
/// below a fourth of all draws, so that the bias correction is no more than a correction.
fn sum_correlations(deviations: &[f64], draws: usize, variance: f64) -> Sums {
    let total = deviations.len() as f64;
    let largest = (draws - 1).min(deviations.len() / 4);
    let (mut plain, mut tapered, mut magnitude) = (0.5, 0.5, 0.5);
    let mut window = 0;
    while window < largest {
        window += 1;
        let lag = window as f64;
        let correlation = autocovariance(deviations, draws, window) / variance;
        plain += correlation;
        tapered += (1.0 - lag / draws as f64) * correlation;
        magnitude += correlation.abs();
        let decay = WINDOW_FACTOR / ((2.0 * magnitude + 1.0) / (2.0 * magnitude - 1.0)).ln();
        if (-lag / decay).exp() < decay / (lag * total).sqrt() {
            break;
        }
    }
    // No series is steadier than one that alternates to its end, whose mean is off by 1/n.
    let floor = 0.5 / total;
    Sums { window, plain: plain.max(floor), tapered: tapered.max(floor) }
}

/// The Γ method's error, or the standard error between chains where that is significantly larger:
/// times their squared ratio follows χ² of R-1 degrees of freedom if Γ is right.
fn with_chain_spread(error: f64, deviations: &[f64], draws: usize) -> f64 {
    let means: Vec<f64> =
        deviations.chunks_exact(draws).map(|c| c.iter().sum::<f64>() / draws as f64).collect();
    if means.len() < 2 {
        return error;
    }
    let (_, spread) = mean_and_standard_error(&means);
    let freedom = (means.len() - 1) as f64;
    let distribution = ChiSquared::new(freedom).expect("there are two chains or more");
    let quantile = distribution.inverse_cdf(SPREAD_PROBABILITY) / freedom;
    if spread * spread > quantile * error * error { spread } else { error }
}

/// Mean and standard error of independent samples; the error of fewer than two is NaN.
pub fn mean_and_standard_error(samples: &[f64]) -> (f64, f64) {
    let column = ArrayView2::from_shape((samples.len(), 1), samples)
        .expect("a slice is a matrix of one column");
    let (mean, error) = between_chain(column);
    (mean[0], error[0])
}

/// Mean over chains and standard error between chains of every component, from the chains' own
/// means. Chains are independent, so autocorrelation does not enter; fewer than two leave the error
/// NaN.
///
/// Shapes: chain_means (chains, components) → (components), (components).
pub fn between_chain(chain_means: ArrayView2<f64>) -> (Array1<f64>, Array1<f64>) {
    let count = chain_means.nrows() as f64;
    let mean = chain_means.sum_axis(Axis(0)) / count;
    let squares = (&chain_means - &mean).mapv(|deviation| deviation * deviation);
    let error = squares.sum_axis(Axis(0)).mapv(|sum| (sum / (count - 1.0) / count).sqrt());
    (mean, error)
}

/// Sums over blocks of consecutive draws of every component, and in the last column of the weights (1 where there are
/// none). `tau_int` is the longest integrated autocorrelation time of the components, in draws.
///
/// Chains are independent, so where there are enough of them a block is a chain; otherwise chains are cut, as long as
/// blocks stay long against the autocorrelation.
///
/// Shapes: chains (component, chain, draw), weights (chain, draw) → (block, component + 1).
pub fn block_sums(
    chains: ArrayView3<f64>,
    weights: Option<ArrayView2<f64>>,
    tau_int: f64,
) -> Array2<f64> {
    let (components, count, draws) = chains.dim();
    let wanted = DERIVED_BLOCKS.div_ceil(count);
    let possible = (draws as f64 / (BLOCK_TIMES * tau_int)) as usize;
    let cuts = wanted.min(possible).clamp(1, draws);
    let mut sums = Array2::zeros((count * cuts, components + 1));
    for chain in 0..count {
        for cut in 0..cuts {
            let range = s![chain, cut * draws / cuts..(cut + 1) * draws / cuts];
            let weights = weights.map_or_else(
                || Array1::ones((cut + 1) * draws / cuts - cut * draws / cuts),
                |weights| weights.slice(range).to_owned(),
            );
            let mut row = sums.row_mut(chain * cuts + cut);
            row[components] = weights.sum();
            for (component, values) in chains.axis_iter(Axis(0)).enumerate() {
                row[component] = values.slice(range).dot(&weights);
            }
        }
    }
    sums
}

/// Functions of means with their errors by the delete-one jackknife over blocks, without its first-order bias (Quenouille
/// 1956): n θ - (n - 1) mean θ_i, with the variance (n - 1)/n Σ (θ_i - mean θ_i)², where θ_i lacks block i.
///
/// Shapes: sums as from [`block_sums`]; `function` gets the means of all components.
pub fn jackknife<const F: usize>(
    sums: ArrayView2<f64>,
    function: impl Fn(&[f64]) -> [f64; F],
) -> [(f64, f64); F] {
    let count = sums.nrows() as f64;
    let total = sums.sum_axis(Axis(0));
    let of_means = |sums: ArrayView1<f64>| {
        let (weight, components) = sums.as_slice().expect("contiguous").split_last().expect("sums");
        let means: Vec<f64> = components.iter().map(|sum| sum / weight).collect();
        function(&means)
    };
    let all = of_means(total.view());
    let without: Vec<[f64; F]> =
        sums.rows().into_iter().map(|block| of_means((&total - &block).view())).collect();
    std::array::from_fn(|f| {
        let values: Vec<f64> = without.iter().map(|values| values[f]).collect();
        let (mean, error) = mean_and_standard_error(&values);
        (count * all[f] - (count - 1.0) * mean, (count - 1.0) * error)
    })
}

/// What importance weights tell of a variational density.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Importance {
    /// -ln of the mean weight: an estimate of -ln Z (nats), on average high by half its squared error.
    pub free_energy: f64,
    /// One standard error, by the delete-block jackknife.
    pub free_energy_error: f64,
    /// (Σw)²/(n Σw²): 1 for a perfect density, 1/n if one sample carries all weight.
    pub effective_sample_size: f64,
    /// Largest single weight over the sum: near 1, nothing here means anything.
    pub largest_weight_share: f64,
}

/// Reweighting statistics from ln w = ln π(x) - ln q(x) at samples x ~ q, by log-sum-exp
/// throughout.
///
/// Too small a sample misses the heaviest weights, and then both numbers of quality look too good:
/// they are upper bounds in practice. A NaN, a weight of +∞, or none above zero leave all NaN;
/// fewer than two samples leave the error NaN.
pub fn importance(log_weights: &[f64]) -> Importance {
    let count = log_weights.len() as f64;
    let largest = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let relative: Vec<f64> = log_weights.iter().map(|ln_w| (ln_w - largest).exp()).collect();
    let sum: f64 = relative.iter().sum();
    let squares: f64 = relative.iter().map(|w| w * w).sum();
    Importance {
        free_energy: -(largest + (sum / count).ln()),
        free_energy_error: jackknife_error(log_weights),
        effective_sample_size: sum * sum / (count * squares),
        largest_weight_share: 1.0 / sum,
    }
}

/// What samples of π say of q, which sees weight that samples of q miss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forward {
    /// E_π[ln q - ln π] ≤ -ln Z, in nats.
    pub free_energy: f64,
    /// Its standard error, autocorrelation included.
    pub free_energy_error: f64,
    /// 1/(E_π[w] E_π[1/w]) with w = π/q, from 0 to 1.
    pub effective_sample_size: f64,
    /// E_π[Z/w], which is 1.
    pub weight_mean: f64,
}

/// The forward check by chains of ln w = ln π - ln q, with Z = e^{-free_energy}.
///
/// Shapes: log_weights (chain, draw).
pub fn forward(log_weights: ArrayView2<f64>, free_energy: f64) -> Forward {
    let estimate = gamma_method(log_weights);
    let ln_mean_of_power = |power: f64| {
        let terms = log_weights.mapv(|ln_w| power * ln_w);
        ln_sum_exp(terms.iter()) - (terms.len() as f64).ln()
    };
    let ln_inverse = ln_mean_of_power(-1.0);
    Forward {
        free_energy: -estimate.mean,
        free_energy_error: estimate.error,
        effective_sample_size: (-ln_mean_of_power(1.0) - ln_inverse).exp(),
        weight_mean: (-free_energy + ln_inverse).exp().clamp(0.0, f64::MAX),
    }
}

/// Delete-block jackknife error of -ln(mean weight), in logarithms: the sum over the blocks that stay
/// must not be a difference, which vanishes where one weight outweighs all others.
fn jackknife_error(log_weights: &[f64]) -> f64 {
    let blocks = log_weights.len().min(JACKKNIFE_BLOCKS);
    let bounds = |b: usize| b * log_weights.len() / blocks;
    let ln_sums: Vec<f64> =
        (0..blocks).map(|b| ln_sum_exp(log_weights[bounds(b)..bounds(b + 1)].iter())).collect();
    let estimates: Vec<f64> = (0..blocks)
        .map(|b| {
            let stay = log_weights.len() - (bounds(b + 1) - bounds(b));
            (stay as f64).ln() - ln_sum_exp(ln_sums[..b].iter().chain(&ln_sums[b + 1..]))
        })
        .collect();
    mean_and_standard_error(&estimates).1 * (blocks as f64 - 1.0)
}

/// ln Σ e^x without overflow.
pub fn ln_sum_exp<'a>(values: impl Iterator<Item = &'a f64> + Clone) -> f64 {
    let largest = values.clone().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + values.map(|x| (x - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use rand_distr::StandardNormal;

    const REPETITIONS: usize = 300;

    /// Two states, π = (3, 1)/4 and q = (1, 1)/2: E_π[Z q/π] = 1, E_π[π/q] = 5/4.
    #[test]
    fn forward_check_of_two_states_is_the_exact_one_and_finite_for_any_weights() {
        let ln_z = 2.0;
        let weights = array![[1.5f64, 1.5, 0.5, 1.5], [1.5, 0.5, 1.5, 1.5]];
        let found = forward(weights.mapv(|w| ln_z + w.ln()).view(), -ln_z);
        assert!((found.weight_mean - 1.0).abs() < 1e-12);
        assert!((found.effective_sample_size - 0.8).abs() < 1e-12);
        let bound = -(ln_z + 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln());
        assert!((found.free_energy - bound).abs() < 1e-12);

        for free_energy in [3000.0, -3000.0] {
            let found = forward(array![[-2000.0, 0.0], [10.0, 3000.0]].view(), free_energy);
            assert_eq!(found.effective_sample_size, 0.0);
            assert!(found.weight_mean.is_finite(), "{found:?}");
        }
    }

    /// The variance m₂ - m₁² of AR(1) chains is 1: the plain estimate is low by the variance of the mean, the jackknife
    /// is not, and its error is the true one, for few long and many short chains, weighted or not.
    #[test]
    fn jackknife_of_a_variance_is_unbiased_and_calibrated() {
        let mut rng = StdRng::seed_from_u64(11);
        for (shape, phi) in [((4, 4000), 0.8), ((64, 40), 0.8), ((1, 3000), 0.0)] {
            let tau = 0.5 * (1.0 + phi) / (1.0 - phi);
            // The deviation of so many pulls is known to 1.6 %, beside the 2 % that few blocks add.
            let pulls: Vec<f64> = (0..2000)
                .map(|_| {
                    let x = autoregressive(shape, phi, &mut rng);
                    let both = ndarray::stack(Axis(0), &[x.view(), x.mapv(|x| x * x).view()]);
                    let sums = block_sums(both.unwrap().view(), None, tau);
                    let [(value, error)] = jackknife(sums.view(), |m| [m[1] - m[0] * m[0]]);
                    (value - 1.0) / error
                })
                .collect();
            let (mean, _) = mean_and_standard_error(&pulls);
            let spread = root_mean_square(&pulls);
            println!("{shape:?}, φ = {phi}: {mean:.3} {spread:.3}");
            assert!((0.95..1.1).contains(&spread), "{shape:?}, φ = {phi}: {spread}");
            assert!(mean.abs() < 0.2, "{shape:?}, φ = {phi}: {mean}");
        }
        // Weights e^{-x} turn N(0, 1) into N(-1, 1).
        let pulls: Vec<f64> = (0..REPETITIONS)
            .map(|_| {
                let x = autoregressive((1, 4000), 0.0, &mut rng);
                let weights = x.mapv(|x| (-x).exp());
                let component = x.view().insert_axis(Axis(0));
                let sums = block_sums(component, Some(weights.view()), 0.5);
                let [(value, error)] = jackknife(sums.view(), |m| [m[0]]);
                (value + 1.0) / error
            })
            .collect();
        let spread = root_mean_square(&pulls);
        assert!((0.85..1.15).contains(&spread), "reweighted: {spread}");
    }

    #[test]
    fn one_weight_beyond_all_others_leaves_the_error_finite() {
        let mut log_weights = vec![-1000.0; 500];
        log_weights[77] = 900.0;
        let found = importance(&log_weights);
        assert!(found.free_energy_error.is_finite() && found.free_energy_error > 100.0);
        assert_eq!(found.largest_weight_share, 1.0);
    }

    /// Stationary chains x_{t+1} = φ x_t + √(1-φ²) ξ of mean 0, variance 1 and
    /// τ_int = ½ (1+φ)/(1-φ).
    fn autoregressive(shape: (usize, usize), phi: f64, rng: &mut StdRng) -> Array2<f64> {
        let mut chains = Array2::from_shape_simple_fn(shape, || rng.sample(StandardNormal));
        let noise = (1.0 - phi * phi).sqrt();
        for mut chain in chains.rows_mut() {
            for t in 1..chain.len() {
                chain[t] = phi * chain[t - 1] + noise * chain[t];
            }
        }
        chains
    }

    fn root_mean_square(values: &[f64]) -> f64 {
        (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
    }

    fn fraction_within(pulls: &[f64], bound: f64) -> f64 {
        pulls.iter().filter(|pull| pull.abs() < bound).count() as f64 / pulls.len() as f64
    }

    #[test]
    fn gamma_errors_are_calibrated_for_few_long_and_many_short_chains() {
        let mut rng = StdRng::seed_from_u64(1);
        for shape in [(1, 4000), (4, 1000), (128, 40)] {
            for phi in [-0.6, 0.0, 0.6, 0.9] {
                let tau = 0.5 * (1.0 + phi) / (1.0 - phi);
                let estimates: Vec<Estimate> = (0..REPETITIONS)
                    .map(|_| gamma_method(autoregressive(shape, phi, &mut rng).view()))
                    .collect();
                let pulls: Vec<f64> = estimates.iter().map(|e| e.mean / e.error).collect();
                let tau_pulls: Vec<f64> =
                    estimates.iter().map(|e| (e.tau_int - tau) / e.tau_int_error).collect();
                let mean_tau =
                    estimates.iter().map(|e| e.tau_int).sum::<f64>() / REPETITIONS as f64;
                let spread = root_mean_square(&pulls);
                let within = [1.0, 2.0].map(|bound| fraction_within(&tau_pulls, bound));
                println!("{shape:?} {phi:4}: {spread:.3} {within:.3?} {:.3}", mean_tau / tau);
                assert!((0.9..1.1).contains(&spread), "{shape:?}, φ = {phi}: {spread}");
                assert!((mean_tau / tau - 1.0).abs() < 0.06, "{shape:?}, φ = {phi}: {mean_tau}");
                if phi >= 0.0 {
                    let calibrated = (0.6..0.8).contains(&within[0]) && within[1] > 0.9;
                    assert!(calibrated, "{shape:?}, φ = {phi}: {within:?}");
                }
            }
        }
    }

    #[test]
    fn chains_that_are_stuck_apart_get_the_error_between_chains() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut chains = autoregressive((6, 500), 0.5, &mut rng);
        for (mut chain, shift) in
            chains.rows_mut().into_iter().zip([3.0, -3.0, 3.0, 3.0, -3.0, 3.0])
        {
            chain += shift;
        }
        let (_, between) =
            mean_and_standard_error(chains.mean_axis(Axis(1)).unwrap().as_slice().unwrap());
        assert!(gamma_method(chains.view()).error > 0.95 * between);
        let frozen = array![[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]];
        assert!(gamma_method(frozen.view()).error >= 0.5 - 1e-12);
    }

    #[test]
    fn constant_series_has_no_error_and_no_autocorrelation() {
        let expected =
            Estimate { mean: 0.1, error: 0.0, tau_int: 0.5, tau_int_error: 0.0, window: 0 };
        assert_eq!(gamma_method(Array2::from_elem((3, 100), 0.1).view()), expected);
    }

    #[test]
    fn one_draw_per_chain_gives_the_error_of_independent_samples() {
        let mut rng = StdRng::seed_from_u64(3);
        let chains = autoregressive((1000, 1), 0.0, &mut rng);
        let estimate = gamma_method(chains.view());
        let (mean, error) = mean_and_standard_error(chains.as_slice().unwrap());
        assert!((estimate.mean - mean).abs() < 1e-15);
        assert!((estimate.error / error - 1.0).abs() < 1e-3);
    }

    #[test]
    fn unknown_errors_are_nan_and_nothing_panics() {
        let single = gamma_method(array![[2.5]].view());
        assert!(single.mean == 2.5 && single.error.is_nan());
        assert!(gamma_method(array![[1.0, f64::NAN, 2.0]].view()).mean.is_nan());
        assert!(gamma_method(array![[1.0, f64::INFINITY]].view()).error.is_nan());
        assert!(gamma_method(Array2::zeros((0, 0)).view()).mean.is_nan());
        assert!(gamma_method(array![[1.0, 2.0]].view()).error.is_finite());
        assert!(mean_and_standard_error(&[]).0.is_nan());
        assert!(mean_and_standard_error(&[1.0]).1.is_nan());
        assert!(importance(&[]).free_energy.is_nan());
        assert!(importance(&[1.0]).free_energy_error.is_nan());
        assert!(importance(&[0.0, f64::NAN]).free_energy.is_nan());
        assert!(importance(&[f64::NEG_INFINITY; 3]).free_energy.is_nan());
    }

    #[test]
    fn between_chain_error_is_that_of_the_chain_means() {
        let (mean, error) = between_chain(array![[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]].view());
        assert_eq!(mean, array![2.0, 5.0]);
        assert!((error[0] - (1.0 / 3.0f64).sqrt()).abs() < 1e-15 && error[1] == 0.0);
    }

    /// π(x) = exp(-Σx²/2s²) in ten dimensions from q = N(0, 1): ln Z = 10 ln(s √2π), and
    /// E[w]²/E[w²] = s √(2 - s²) per dimension.
    #[test]
    fn importance_weights_give_a_known_normalization_with_calibrated_error() {
        let (dimension, scale) = (10, 0.9f64);
        let root = std::f64::consts::TAU.sqrt();
        let exact = -f64::from(dimension) * (scale * root).ln();
        let exact_size = (scale * (2.0 - scale * scale).sqrt()).powi(dimension);
        let mut rng = StdRng::seed_from_u64(4);
        let results: Vec<Importance> = (0..REPETITIONS)
            .map(|_| {
                let log_weights: Vec<f64> = (0..1050)
                    .map(|_| {
                        (0..dimension)
                            .map(|_| {
                                let x: f64 = rng.sample(StandardNormal);
                                0.5 * x * x * (1.0 - 1.0 / (scale * scale)) + root.ln()
                            })
                            .sum()
                    })
                    .collect();
                importance(&log_weights)
            })
            .collect();
        let pulls: Vec<f64> =
            results.iter().map(|r| (r.free_energy - exact) / r.free_energy_error).collect();
        let spread = root_mean_square(&pulls);
        let size =
            results.iter().map(|r| r.effective_sample_size).sum::<f64>() / REPETITIONS as f64;
        println!("{spread:.3} {size:.4} {exact_size:.4}");
        assert!((0.9..1.1).contains(&spread), "{spread}");
        assert!((size / exact_size - 1.0).abs() < 0.01, "{size} against {exact_size}");
    }

    #[test]
    fn importance_is_free_of_overflow_and_of_the_constant() {
        let small = importance(&[0.0, 1.0, 2.0, 0.5]);
        let large = importance(&[5000.0, 5001.0, 5002.0, 5000.5]);
        assert!((small.free_energy - large.free_energy - 5000.0).abs() < 1e-9);
        assert!((small.free_energy_error - large.free_energy_error).abs() < 1e-12);
        assert_eq!(importance(&[-3.0; 7]).free_energy, 3.0);
        assert_eq!(importance(&[-3.0; 7]).effective_sample_size, 1.0);
        assert!((large.largest_weight_share - small.largest_weight_share).abs() < 1e-12);
    }
}
