//! What a sampling is worth, in words.

use crate::sampling::config::{HmcConfig, Sampler};
use crate::sampling::estimates::Estimates;
use crate::sampling::replicas::Exchanged;
use crate::targets::observe::Observable;

/// Above this R-hat chains count as not converged. Vehtari et al. (2021) advise 1.01 for few long chains; many short
/// ones have an R-hat of √(1 + (2τ_int - 1)/n) with halves of n draws when nothing is wrong.
const LARGEST_R_HAT: f64 = 1.05;
/// Fewer effective samples leave errors and quantiles uncertain (Vehtari et al. 2021).
const LEAST_EFFECTIVE_SAMPLES: f64 = 400.0;
/// A lower fraction of missing information tells of heavy tails (Betancourt 2016).
const LEAST_E_BFMI: f64 = 0.3;
/// A warm-up shorter than so many autocorrelation times leaves a memory of the start.
const WARMUP_TIMES: f64 = 10.0;
/// So far an adaptation may miss its target acceptance from below.
const ACCEPTANCE_SLACK: f64 = 0.2;
/// Trajectories that diverge are rejected, which biases nothing; a larger share of them tells that HMC cannot move in parts of
/// the target, of which the other diagnostics may know nothing.
const LARGEST_DIVERGENT_SHARE: f64 = 0.05;
/// Replicas that exchange more seldom do not help each other.
const LEAST_EXCHANGE_RATE: f64 = 0.05;
/// Replicas whose states come back from the top less often, of all of a chain together, may remember where they started.
const LEAST_ROUND_TRIPS: f64 = 1.0;
/// A longer run of rejections, as a share of the chain, is a proposal that misses weight of the target.
const LONGEST_REJECTION: f64 = 0.1;
/// Estimates farther from the exact value, in standard errors, are wrong.
pub const LARGEST_PULL: f64 = 4.0;
/// With fewer effective samples importance weights estimate nothing.
const LEAST_WEIGHTED_SAMPLES: f64 = 100.0;
/// A forward ESS that is a smaller part of the one by samples of the flow tells of weight that these miss.
const LEAST_FORWARD_SHARE: f64 = 0.25;

/// Deviation from an exact value in standard errors; a vanishing error counts as the rounding of the value.
pub fn pull(value: f64, error: f64, exact: f64) -> f64 {
    (value - exact) / error.max(1e-12 * exact.abs().max(1e-3))
}

/// Whether so many weighted samples, with their effective share, are worth enough to estimate anything.
pub fn has_weights(effective_sample_size: f64, samples: f64) -> bool {
    effective_sample_size * samples >= LEAST_WEIGHTED_SAMPLES
}

/// Whether a flow is known to miss weight of the target: samples of the target have far smaller weights than its own samples
/// know of. Both numbers are effective shares, by samples of the flow and of the target.
pub fn misses_weight(effective_sample_size: f64, forward_effective_sample_size: f64) -> bool {
    forward_effective_sample_size < LEAST_FORWARD_SHARE * effective_sample_size
}

/// What is wrong with a sampling, in words; nothing if all is well.
pub fn verdict(estimates: &Estimates, sampler: Sampler, config: &HmcConfig) -> Vec<String> {
    let trajectories = config.chains * config.trajectories;
    let mut problems = problems_of_observables(estimates, config);
    // Exact by symmetry.
    let m = &estimates.observable(Observable::Magnetization).estimate;
    if pull(m.mean, m.error, 0.0).abs() > LARGEST_PULL {
        problems.push(format!("m is {:.3} ± {:.3}, but 0 by symmetry", m.mean, m.error));
    }
    let &Estimates { divergences, acceptance, e_bfmi, longest_rejection, .. } = estimates;
    if divergences as f64 > LARGEST_DIVERGENT_SHARE * trajectories as f64 {
        problems.push(format!("{divergences} of {trajectories} trajectories diverged"));
    }
    problems.extend(estimates.exchanged.as_ref().and_then(problem_of_ladder));
    match sampler {
        Sampler::Independence => {
            if longest_rejection as f64 > LONGEST_REJECTION * config.trajectories as f64 {
                problems.push(format!(
                    "a chain rejected {longest_rejection} proposals in a row: the flow misses weight there"
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
            if e_bfmi < LEAST_E_BFMI || e_bfmi.is_nan() {
                problems.push(format!("E-BFMI {e_bfmi:.2}: momenta hardly change the energy"));
            }
        }
    }
    problems
}

/// Neighbours that hardly exchange, or states that hardly come back from the top.
fn problem_of_ladder(exchanged: &Exchanged) -> Option<String> {
    let pairs = exchanged.rates.iter().enumerate();
    let (pair, rate) = pairs.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let [lower, upper] = [pair, pair + 1].map(|rung| exchanged.temperatures[rung]);
    if *rate < LEAST_EXCHANGE_RATE {
        return Some(format!(
            "replicas at T = {lower:.3} and {upper:.3} exchange in {:.1} % of the attempts: their ladder has a gap; more \
             hmc.replicas close it, \"auto\" finds how many",
            100.0 * rate
        ));
    }
    (exchanged.round_trips < LEAST_ROUND_TRIPS).then(|| {
        format!(
            "{:.2} states a chain came back from its uppermost replica: replicas may remember where they started, take more \
             trajectories or hmc.sweeps, or set hmc.replicas = 1",
            exchanged.round_trips
        )
    })
}

/// Observables whose chains disagree, have few effective samples or remember their start.
fn problems_of_observables(estimates: &Estimates, config: &HmcConfig) -> Vec<String> {
    let mut problems = Vec::new();
    let (mut apart, mut few, mut slow) = (Vec::new(), Vec::new(), Vec::new());
    for ((observable, naming), measured) in Observable::TABLE.iter().zip(&estimates.observables) {
        let (symbol, r_hat) = (naming.symbol, measured.r_hat);
        if r_hat > LARGEST_R_HAT || r_hat.is_nan() {
            if *observable == Observable::Magnetization {
                problems.push(format!("R-hat of m {r_hat:.2}: the sign sectors do not mix"));
            } else {
                apart.push(format!("{symbol} {r_hat:.2}"));
            }
        }
        let samples = measured.ess_bulk.min(measured.ess_tail);
        if samples < LEAST_EFFECTIVE_SAMPLES || samples.is_nan() {
            few.push(format!("{symbol} {samples:.0}"));
        }
        let time = measured.estimate.tau_int;
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
        let draws = config.chains * config.trajectories;
        problems.push(format!("ESS of {} of {draws} draws: errors are uncertain", few.join(", ")));
    }
    if !slow.is_empty() {
        problems.push(format!(
            "tau_int of {}: a warm-up of {} trajectories may leave a memory of the start",
            slow.join(", "),
            config.warmup
        ));
    }
    problems
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
    use crate::sampling::sampler::tests::chains_of;
    use crate::sampling::sampler::{Chains, Recorded};
    use ndarray::{Array3, Axis, s};
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use rand_distr::StandardNormal;

    const CONFIG: fn() -> HmcConfig =
        || HmcConfig { chains: 8, warmup: 100, trajectories: 400, ..Default::default() };

    /// Chains of white noise about plausible means, that went well.
    fn healthy() -> Chains {
        let mut rng = StdRng::seed_from_u64(5);
        let count = Observable::COUNT + Recorded::COUNT;
        let shape = (count, 8, 400);
        let mut records = Array3::from_shape_simple_fn(shape, || rng.sample(StandardNormal));
        records *= 0.1;
        let shifts = [-1.5, 0.5, 0.3, 0.6, 0.0, 2.3, 1.0, 0.0, 0.8, 0.0, 0.0];
        for (mut values, shift) in records.axis_iter_mut(Axis(0)).zip(shifts) {
            values += shift;
        }
        records.slice_mut(s![count - 1, .., ..]).fill(1.0);
        chains_of(records)
    }

    fn verdict_of(chains: &Chains) -> Vec<String> {
        verdict(&Estimates::new(chains, 4, 2.27), chains.sampler, &CONFIG())
    }

    #[test]
    fn a_healthy_sampling_is_ok_and_each_planted_failure_is_named() {
        assert_eq!(verdict_of(&healthy()), Vec::<String>::new());

        let mut stuck = healthy();
        let magnetization = Observable::Magnetization as usize;
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
        // Fewer than one in twenty are rejected and bias nothing.
        diverging.divergences = 160;
        assert_eq!(verdict_of(&diverging), Vec::<String>::new());
        diverging.divergences = 161;
        assert_eq!(verdict_of(&diverging), ["161 of 3200 trajectories diverged"]);

        let mut ladder = healthy();
        let exchanged = |rate| Exchanged {
            temperatures: vec![2.0, 2.3, 2.7],
            rates: vec![0.4, rate],
            round_trips: 1.0,
            left_out: Vec::new(),
        };
        ladder.exchanged = Some(exchanged(0.06));
        assert_eq!(verdict_of(&ladder), Vec::<String>::new());
        ladder.exchanged = Some(exchanged(0.004));
        let found = verdict_of(&ladder);
        assert!(found[0].starts_with("replicas at T = 2.300 and 2.700 exchange in 0.4 % of the"));

        ladder.exchanged = Some(Exchanged { round_trips: 0.9, ..exchanged(0.4) });
        assert!(verdict_of(&ladder)[0].starts_with("0.90 states a chain came back from its"));

        let mut rejecting = Chains { sampler: Sampler::Independence, ..healthy() };
        let accepted = Recorded::Accepted.place();
        rejecting.records.slice_mut(s![accepted, 3, 10..90]).fill(0.0);
        assert_eq!(rejecting.longest_rejection(), 80);
        assert!(verdict_of(&rejecting)[0].starts_with("a chain rejected 80 proposals in a row"));

        let mut reluctant = healthy();
        reluctant
            .records
            .slice_mut(s![Recorded::Acceptance.place(), .., ..])
            .mapv_inplace(|value| value - 0.4);
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
