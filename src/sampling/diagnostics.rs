//! What a sampling is worth: estimates with errors and diagnostics for each observable, and a verdict in words.

use ndarray::{ArrayView2, ArrayView3, Axis};

use crate::files::Numbers;
use crate::sampling::config::{HmcConfig, Sampler};
use crate::sampling::sampler::Chains;
use crate::statistics::convergence::{e_bfmi, ess_bulk, ess_tail, r_hat};
use crate::statistics::{block_sums, gamma_method, jackknife};
use crate::targets::observe;

/// Above this R-hat chains count as not converged. Vehtari et al. (2021) advise 1.01 for few long chains; many short
/// ones have an R-hat of √(1 + (2τ_int - 1)/n) with halves of n draws when nothing is wrong.
const LARGEST_R_HAT: f64 = 1.05;
/// Largest R-hat that is told: chains that do not move at all have an infinite one.
const R_HAT_LIMIT: f64 = 1000.0;
/// Fewer effective samples leave errors and quantiles uncertain (Vehtari et al. 2021).
const LEAST_EFFECTIVE_SAMPLES: f64 = 400.0;
/// A lower fraction of missing information tells of heavy tails (Betancourt 2016).
const LEAST_E_BFMI: f64 = 0.3;
/// A warm-up shorter than so many autocorrelation times leaves a memory of the start.
const WARMUP_TIMES: f64 = 10.0;
/// So far an adaptation may miss its target acceptance from below.
const ACCEPTANCE_SLACK: f64 = 0.2;
/// A longer run of rejections, as a share of the chain, is a proposal that misses weight of the target.
const LONGEST_REJECTION: f64 = 0.1;
/// Estimates farther from the exact value, in standard errors, are wrong.
pub const LARGEST_PULL: f64 = 4.0;
/// With fewer effective samples importance weights estimate nothing.
pub const LEAST_WEIGHTED_SAMPLES: f64 = 100.0;
/// A forward ESS that is a smaller part of the one by samples of the flow tells of weight that these miss.
pub const LEAST_FORWARD_SHARE: f64 = 0.25;

/// Means, errors and diagnostics of all observables, and the sampler's own record, by the names of the schema.
///
/// L and T are for the derived quantities only.
pub fn estimates(chains: &Chains, linear_size: usize, temperature: f64) -> Numbers {
    let mut numbers = Numbers::new();
    let mut longest_time = 0.5f64;
    let mut least_samples = f64::INFINITY;
    for (name, values) in observe::SCALARS.iter().zip(chains.scalars().axis_iter(Axis(0))) {
        let estimate = gamma_method(values);
        let bulk = ess_bulk(values);
        let entries = [
            ("", estimate.mean),
            ("_error", estimate.error),
            ("_tau_int", estimate.tau_int),
            ("_tau_int_error", estimate.tau_int_error),
            ("_r_hat", r_hat(values).min(R_HAT_LIMIT)),
            ("_ess_bulk", bulk),
            ("_ess_tail", ess_tail(values)),
        ];
        numbers.extend(entries.map(|(ending, value)| (format!("{name}{ending}"), value)));
        longest_time = longest_time.max(estimate.tau_int);
        least_samples = least_samples.min(bulk);
    }
    let sums = block_sums(chains.scalars(), None, longest_time);
    numbers.extend(derived(sums.view(), linear_size, temperature));
    let count = chains.records.dim().1 as f64;
    let draws = chains.records.dim().2 as f64;
    let gradients = chains.gradients as f64 * count;
    let own = [
        ("acceptance", chains.get("acceptance").mean().expect("there are trajectories")),
        ("divergences", chains.divergences as f64),
        ("warmup_divergences", chains.warmup_divergences as f64),
        ("step_size", chains.step_size),
        ("trajectory_length", chains.trajectory_length),
        ("leapfrog_steps", chains.gradients as f64 / draws),
        ("e_bfmi", e_bfmi(chains.get("hamiltonian"))),
        ("longest_rejection", chains.longest_rejection() as f64),
        ("ess_least", least_samples),
        ("ess_per_gradient", if gradients > 0.0 { least_samples / gradients } else { 0.0 }),
    ];
    numbers.extend(own.map(|(name, value)| (name.to_owned(), value)));
    numbers
}

/// Means of all observables and derived quantities over samples of q with weights π/q, errors by the jackknife.
///
/// Shapes: scalars (observable, 1, sample), ln_weights (1, sample).
pub fn reweighted(
    scalars: ArrayView3<f64>,
    ln_weights: ArrayView2<f64>,
    linear_size: usize,
    temperature: f64,
) -> Numbers {
    let largest = ln_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights = ln_weights.mapv(|ln_weight| (ln_weight - largest).exp());
    let sums = block_sums(scalars, Some(weights.view()), 0.5);
    let means: [(f64, f64); observe::SCALARS.len()] =
        jackknife(sums.view(), |means| std::array::from_fn(|index| means[index]));
    let mut numbers = named(&observe::SCALARS, &means);
    numbers.extend(derived(sums.view(), linear_size, temperature));
    numbers
}

fn derived(sums: ArrayView2<f64>, linear_size: usize, temperature: f64) -> Numbers {
    let values = jackknife(sums, |means| observe::derived(means, linear_size, temperature));
    named(&observe::DERIVED, &values)
}

/// Values and errors under the names that files have for them.
fn named(names: &[&str], values: &[(f64, f64)]) -> Numbers {
    let both = names.iter().zip(values).flat_map(|(name, &(value, error))| {
        [((*name).to_owned(), value), (format!("{name}_error"), error)]
    });
    both.collect()
}

/// Deviation from an exact value in standard errors; a vanishing error counts as the rounding of the value.
pub fn pull(value: f64, error: f64, exact: f64) -> f64 {
    (value - exact) / error.max(1e-12 * exact.abs().max(1e-3))
}

/// What is wrong with a sampling, in words; nothing if all is well.
pub fn verdict(numbers: &Numbers, sampler: Sampler, config: &HmcConfig) -> Vec<String> {
    let mut problems = Vec::new();
    let trajectories = config.chains * config.trajectories;
    let (mut apart, mut few, mut slow) = (Vec::new(), Vec::new(), Vec::new());
    for name in observe::SCALARS {
        let number = |ending: &str| numbers[&format!("{name}{ending}")];
        let symbol = symbol(name);
        let (r_hat, time) = (number("_r_hat"), number("_tau_int"));
        let samples = number("_ess_bulk").min(number("_ess_tail"));
        if r_hat > LARGEST_R_HAT || r_hat.is_nan() {
            if name == "magnetization" {
                problems.push(format!("R-hat of m {r_hat:.2}: the sign sectors do not mix"));
            } else {
                apart.push(format!("{symbol} {r_hat:.2}"));
            }
        }
        if samples < LEAST_EFFECTIVE_SAMPLES || samples.is_nan() {
            few.push(format!("{symbol} {samples:.0}"));
        }
        if WARMUP_TIMES * time > config.warmup as f64 {
            slow.push(format!("{symbol} {time:.1}"));
        }
    }
    if !apart.is_empty() {
        let apart = apart.join(", ");
        problems
            .push(format!("R-hat of {apart}: the chains have not converged to one distribution"));
    }
    if !few.is_empty() {
        let few = few.join(", ");
        problems.push(format!("ESS of {few} of {trajectories} draws: errors are uncertain"));
    }
    if !slow.is_empty() {
        problems.push(format!(
            "tau_int of {}: a warm-up of {} trajectories may leave a memory of the start",
            slow.join(", "),
            config.warmup
        ));
    }
    // Exact by symmetry.
    let (m, m_error) = (numbers["magnetization"], numbers["magnetization_error"]);
    let pull = pull(m, m_error, 0.0);
    if pull.abs() > LARGEST_PULL {
        problems.push(format!("m is {m:.3} ± {m_error:.3}, but 0 by symmetry"));
    }
    if numbers["divergences"] > 0.0 {
        problems
            .push(format!("{} of {trajectories} trajectories diverged", numbers["divergences"]));
    }
    let acceptance = numbers["acceptance"];
    match sampler {
        Sampler::Independence => {
            let longest = numbers["longest_rejection"];
            if longest > LONGEST_REJECTION * config.trajectories as f64 {
                problems.push(format!(
                    "a chain rejected {longest} proposals in a row: the flow misses weight there"
                ));
            }
        }
        Sampler::Latent | Sampler::Physical | Sampler::Fourier => {
            if acceptance < config.target_acceptance - ACCEPTANCE_SLACK {
                problems.push(format!(
                    "acceptance {acceptance:.2}, far below the target {}: the step size did not adapt",
                    config.target_acceptance
                ));
            }
            let e_bfmi = numbers["e_bfmi"];
            if e_bfmi < LEAST_E_BFMI || e_bfmi.is_nan() {
                problems.push(format!("E-BFMI {e_bfmi:.2}: momenta hardly change the energy"));
            }
        }
    }
    problems
}

/// How papers write an observable.
fn symbol(name: &str) -> &str {
    match name {
        "magnetization" => "m",
        "magnetization_absolute" => "|m|",
        "magnetization_squared" => "m^2",
        "magnetization_fourth" => "m^4",
        "energy_squared" => "energy^2",
        "structure_factor_k_min" => "S(2 pi/L)",
        other => other,
    }
}

/// Whether so many deviations in standard errors are plausible: their mean, standard deviation, and in words what
/// speaks against independent ones of N(0, 1), each test wrong once in a thousand sweeps.
pub fn judge_pulls(pulls: &[f64]) -> (f64, f64, Option<String>) {
    use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};
    const RARE: f64 = 1e-3;
    let count = pulls.len() as f64;
    let mean = pulls.iter().sum::<f64>() / count;
    let squares: f64 = pulls.iter().map(|pull| pull * pull).sum();
    let deviation = (squares / count).sqrt();
    let above = ChiSquared::new(count).map_or(f64::NAN, |all| all.sf(squares));
    let aside = 2.0 * Normal::standard().sf(mean.abs() * count.sqrt());
    let problem = if above < RARE {
        Some("deviations are larger than their errors allow")
    } else if 1.0 - above < RARE {
        Some("deviations are smaller than their errors say")
    } else if aside < RARE {
        Some("deviations lean to one side")
    } else {
        None
    };
    (mean, deviation, problem.map(Into::into))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::sampler::RECORDED;
    use ndarray::{Array3, s};
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use rand_distr::StandardNormal;

    const CONFIG: fn() -> HmcConfig =
        || HmcConfig { chains: 8, warmup: 100, trajectories: 400, ..Default::default() };

    /// Chains of white noise about plausible means, that went well.
    fn healthy() -> Chains {
        let mut rng = StdRng::seed_from_u64(5);
        let count = observe::SCALARS.len() + RECORDED.len();
        let shape = (count, 8, 400);
        let mut records = Array3::from_shape_simple_fn(shape, || rng.sample(StandardNormal));
        records *= 0.1;
        let shifts = [-1.5, 0.5, 0.3, 0.6, 0.0, 2.3, 1.0, 0.0, 0.8, 0.0, 0.0];
        for (mut values, shift) in records.axis_iter_mut(Axis(0)).zip(shifts) {
            values += shift;
        }
        records.slice_mut(s![count - 1, .., ..]).fill(1.0);
        Chains {
            sampler: Sampler::Latent,
            records,
            structure_factors: Array3::zeros((8, 4, 4)),
            correlations: Array3::zeros((8, 4, 4)),
            divergences: 0,
            warmup_divergences: 3,
            step_size: 0.1,
            trajectory_length: 1.0,
            gradients: 4000,
            seconds: [1.0, 2.0],
        }
    }

    fn verdict_of(chains: &Chains) -> Vec<String> {
        verdict(&estimates(chains, 4, 2.27), chains.sampler, &CONFIG())
    }

    #[test]
    fn a_healthy_sampling_is_ok_and_each_planted_failure_is_named() {
        assert_eq!(verdict_of(&healthy()), Vec::<String>::new());

        let mut stuck = healthy();
        let magnetization = 4;
        for chain in 0..8 {
            let sign = if chain % 2 == 0 { 0.7 } else { -0.7 };
            stuck.records.slice_mut(s![magnetization, chain, ..]).mapv_inplace(|m| m + sign);
        }
        let found = verdict_of(&stuck);
        assert!(
            found[0].starts_with("R-hat of m ")
                && found[0].ends_with("the sign sectors do not mix")
        );

        let mut one_sector = healthy();
        one_sector.records.slice_mut(s![magnetization, .., ..]).mapv_inplace(|m| m + 0.7);
        assert!(verdict_of(&one_sector)[0].contains("but 0 by symmetry"));

        let mut drifting = healthy();
        for draw in 0..400 {
            let drift = draw as f64 / 800.0;
            drifting.records.slice_mut(s![0, .., draw]).mapv_inplace(|energy| energy + drift);
        }
        let found = verdict_of(&drifting).join("; ");
        assert!(found.contains("R-hat of energy ") && found.contains("not converged"), "{found}");
        assert!(found.contains("ESS of energy ") && found.contains("tau_int of energy"), "{found}");

        let mut diverging = healthy();
        diverging.divergences = 2;
        assert_eq!(verdict_of(&diverging), ["2 of 3200 trajectories diverged"]);

        let mut rejecting = Chains { sampler: Sampler::Independence, ..healthy() };
        let accepted = rejecting.records.dim().0 - 1;
        rejecting.records.slice_mut(s![accepted, 3, 10..90]).fill(0.0);
        assert_eq!(rejecting.longest_rejection(), 80);
        assert!(verdict_of(&rejecting)[0].starts_with("a chain rejected 80 proposals in a row"));

        let mut reluctant = healthy();
        reluctant.records.slice_mut(s![accepted - 3, .., ..]).mapv_inplace(|value| value - 0.4);
        assert!(verdict_of(&reluctant)[0].starts_with("acceptance 0.40, far below the target 0.8"));
    }

    #[test]
    fn deviations_are_judged_by_size_and_side() {
        let mut rng = StdRng::seed_from_u64(6);
        let normal: Vec<f64> = (0..40).map(|_| rng.sample(StandardNormal)).collect();
        let judge = |change: &dyn Fn(f64) -> f64| {
            judge_pulls(&normal.iter().map(|&pull| change(pull)).collect::<Vec<_>>()).2
        };
        assert_eq!(judge(&|pull| pull), None);
        assert!(judge(&|pull| 2.0 * pull).unwrap().contains("larger"));
        assert!(judge(&|pull| 0.3 * pull).unwrap().contains("smaller"));
        assert!(judge(&|pull| 0.5 * pull + 0.8).unwrap().contains("one side"));
        assert_eq!(judge_pulls(&[1.0]).2, None);
        assert_eq!(pull(0.0, 0.0, 0.0), 0.0);
    }
}
