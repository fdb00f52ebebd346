//! Have the chains converged to one distribution, and how many independent draws are they worth? Rank-normalized
//! split R-hat and effective sample sizes (Vehtari, Gelman, Simpson, Carpenter and Bürkner, Bayesian Analysis 16, 667
//! (2021), arXiv:1903.08008; equations cited as there), and the energy's fraction of missing information.
//!
//! Numbers are those of ArviZ, which `tests/all/convergence.rs` holds them to.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use statrs::distribution::{ContinuousCDF, Normal};

/// Chains whose values spread less than this are constant (the resolution of f64 to 15 digits).
const RESOLUTION: f64 = 1e-15;

/// Rank-normalized split R-hat: the larger of those of the values and of their distances from the median (Eq. 14 of
/// rank-normalized values, and folded). 1 for constant chains that agree; NaN for chains of fewer than four draws.
///
/// Shapes: chains (chain, draw).
pub fn r_hat(chains: ArrayView2<f64>) -> f64 {
    if chains.ncols() < 4 || chains.iter().any(|value| !value.is_finite()) {
        return f64::NAN;
    }
    let split = split(chains);
    let median = quantile(&split, 0.5);
    let folded = split.mapv(|value| (value - median).abs());
    plain_r_hat(&rank_normalize(&split)).max(plain_r_hat(&rank_normalize(&folded)))
}

/// Bulk effective sample size: that of the rank-normalized values of split chains.
///
/// Shapes: chains (chain, draw).
pub fn ess_bulk(chains: ArrayView2<f64>) -> f64 {
    effective_sample_size(&rank_normalize(&split(chains)))
}

/// Tail effective sample size: the smaller of those of the 5 % and 95 % quantiles.
///
/// Shapes: chains (chain, draw).
pub fn ess_tail(chains: ArrayView2<f64>) -> f64 {
    if chains.iter().any(|value| !value.is_finite()) {
        return f64::NAN;
    }
    let all = chains.to_owned();
    let of_quantile = |probability| {
        let bound = quantile(&all, probability);
        let below = chains.mapv(|value| f64::from(u8::from(value <= bound)));
        effective_sample_size(&split(below.view()))
    };
    of_quantile(0.05).min(of_quantile(0.95))
}

/// Fraction of missing information of the energy, Σ (H_n - H_{n-1})² / Σ (H_n - mean H)² over all chains (Betancourt
/// 2016, arXiv:1604.00695): small where fresh momenta change the energy by less than its spread.
///
/// Shapes: hamiltonians (chain, draw).
pub fn e_bfmi(hamiltonians: ArrayView2<f64>) -> f64 {
    let (mut changes, mut spread) = (0.0, 0.0);
    for chain in hamiltonians.rows() {
        let mean = chain.mean().unwrap_or(f64::NAN);
        spread += chain.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let pairs = chain.iter().zip(chain.iter().skip(1));
        changes += pairs.map(|(early, late)| (late - early).powi(2)).sum::<f64>();
    }
    changes / spread
}

/// Each chain as two: its first and its last half, without the middle draw of an odd number.
fn split(chains: ArrayView2<f64>) -> Array2<f64> {
    let half = chains.ncols() / 2;
    let (first, last) =
        (chains.slice(s![.., ..half]), chains.slice(s![.., chains.ncols() - half..]));
    concatenate(Axis(0), &[first, last]).expect("both halves are equally long")
}

/// Normal scores of the ranks among all values, ties at their average rank (Eq. 14); NaN where some are not finite.
fn rank_normalize(chains: &Array2<f64>) -> Array2<f64> {
    let normal = Normal::standard();
    let count = chains.len() as f64;
    let values: Vec<f64> = chains.iter().copied().collect();
    if values.iter().any(|value| !value.is_finite()) {
        return Array2::from_elem(chains.raw_dim(), f64::NAN);
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut scores = vec![0.0; values.len()];
    for ties in order.chunk_by(|&a, &b| values[a] == values[b]) {
        // Places are counted from 0, ranks from 1.
        let place = order.partition_point(|&other| values[other] < values[ties[0]]);
        let rank = place as f64 + 0.5 * (ties.len() as f64 + 1.0);
        let score = normal.inverse_cdf((rank - 0.375) / (count + 0.25));
        ties.iter().for_each(|&index| scores[index] = score);
    }
    Array2::from_shape_vec(chains.raw_dim(), scores).expect("one score a value")
}

/// The potential scale reduction √(var⁺/W) of chains as they are (Eq. 4).
fn plain_r_hat(chains: &Array2<f64>) -> f64 {
    let draws = chains.ncols() as f64;
    let within = chains.var_axis(Axis(1), 1.0).mean().unwrap_or(f64::NAN);
    let means = chains.mean_axis(Axis(1)).expect("chains have draws");
    let between = means.var(1.0);
    if within + between < RESOLUTION * RESOLUTION {
        return 1.0;
    }
    ((within * (draws - 1.0) / draws + between) / within).sqrt()
}

/// Effective sample size of chains as they are (Eqs. 10-13): autocorrelations from the variances within and between
/// chains, summed by Geyer's initial monotone sequence.
fn effective_sample_size(chains: &Array2<f64>) -> f64 {
    let (count, draws) = chains.dim();
    let total = (count * draws) as f64;
    let (least, largest) = chains
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &value| (a.min(value), b.max(value)));
    // Not a number: `min` and `max` pass over it.
    if draws < 4 || chains.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    if largest - least < RESOLUTION {
        return total;
    }
    let means = chains.mean_axis(Axis(1)).expect("chains have draws");
    let centred = chains - &means.view().insert_axis(Axis(1));
    // Divided by n at every lag, as a periodogram's inverse transform is.
    let autocovariance = |lag: usize| {
        let products = &centred.slice(s![.., ..draws - lag]) * &centred.slice(s![.., lag..]);
        products.sum() / total
    };
    let within = autocovariance(0) * draws as f64 / (draws as f64 - 1.0);
    let between = if count > 1 { means.var(1.0) } else { 0.0 };
    let variance = within * (draws as f64 - 1.0) / draws as f64 + between;
    let correlation = |lag: usize| 1.0 - (within - autocovariance(lag)) / variance;

    // Sums of neighbouring pairs, positive and falling; the last even one stays by itself.
    let mut pairs = vec![1.0 + correlation(1)];
    let (mut lag, mut even) = (1, 1.0);
    while lag + 3 < draws && *pairs.last().expect("there is a first pair") > 0.0 {
        even = correlation(lag + 1);
        pairs.push(even + correlation(lag + 2));
        lag += 2;
    }
    pairs.pop();
    for index in 1..pairs.len() {
        pairs[index] = pairs[index].min(pairs[index - 1]);
    }
    let time = 2.0 * pairs.iter().sum::<f64>() - 1.0 + even.max(0.0);
    total / time.max(1.0 / total.log10())
}

/// The quantile of all values by linear interpolation.
fn quantile(chains: &Array2<f64>, probability: f64) -> f64 {
    let mut values: Vec<f64> = chains.iter().copied().collect();
    values.sort_by(f64::total_cmp);
    let place = probability * (values.len() - 1) as f64;
    let (below, rest) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(values.len() - 1);
    values[below] + rest * (values[above] - values[below])
}
