//! What is wrong with a task's numbers, in words.

use super::results::{References, Results};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::{Numbers, schema};
use crate::flow::config::Preset;
use crate::sampling::config::Sampler;
use crate::sampling::diagnostics::{self, LARGEST_PULL};
use crate::train::config::StartFrom;

/// What is wrong with the task's numbers: its flow, its sampling, deviations from exact values and bounds. What the weights of
/// the flow's samples miss concerns [reweighting](of_weights) alone, since the error of `importance_free_energy` has it.
///
/// From a flow that has learned nothing much else follows, which one line stands for: its chains' own verdict has it.
pub(super) fn verdict(
    results: &Results,
    references: Option<&References>,
    config: &Config,
) -> Vec<String> {
    let of_chains = diagnostics::verdict(&results.estimates, Sampler::Latent, &config.hmc);
    let mut problems: Vec<String> =
        worse_than_gaussians(results, references, config).into_iter().collect();
    if problems.is_empty() {
        problems.extend(of_chains);
        problems.extend(no_help(results));
    } else if !of_chains.is_empty() {
        problems.push(format!(
            "{} complaints: its chains have problems, which may follow from that ({}/latent of the task file has them)",
            of_chains.len(),
            schema::CHAINS_GROUP
        ));
    }
    let Some(deviations) = &results.deviations else { return problems };
    for (name, deviation) in deviations.pulls() {
        if deviation.abs() > LARGEST_PULL {
            problems.push(format!("{name} is {deviation:.1} standard errors from the exact value"));
        }
    }
    let (gap, error) = deviations.gap;
    if gap < -LARGEST_PULL * error {
        problems
            .push(format!("the variational free energy is {:.3} nat below the exact one", -gap));
    }
    problems
}

/// A flow above the best pair of Gaussians, which needs no network, has learned nothing of use yet.
fn worse_than_gaussians(
    results: &Results,
    references: Option<&References>,
    config: &Config,
) -> Option<String> {
    let (gap, error) = results.deviations.as_ref()?.gap;
    let references = references?;
    let of_gaussians = references.gaussian? - references.exact.free_energy_field;
    if gap - of_gaussians <= LARGEST_PULL * error {
        return None;
    }
    let mut remedies = vec!["train longer"];
    if config.train.start_from == StartFrom::None {
        remedies.push("start from another task's flow (train.start_from)");
    }
    if config.flow.preset != Preset::Best {
        remedies.push("take flow.preset = \"best\"");
    }
    Some(format!(
        "gap {gap:.3} nat (two Gaussians have {of_gaussians:.3}): the flow is worse than a pair of Gaussians, {}",
        remedies.join(", or ")
    ))
}

/// A flow that misses some of the target, whose chains have no replicas that would find it.
fn no_help(results: &Results) -> Option<String> {
    let given_up = results.estimates.exchanged.as_ref().is_some_and(|all| !all.left_out.is_empty());
    (given_up && !results.weights_suffice()).then(|| {
        "the flow misses weight of the target, and its chains gave up their replicas, whose states came back too seldom: take a \
         longer warm-up, or a better flow"
            .into()
    })
}

/// What is wrong with averages over the flow's samples with their weights.
pub(super) fn of_weights(results: &Results) -> Vec<String> {
    let (worth, count) = (results.samples_worth(), results.weighted_samples);
    if !results.has_weights() {
        return vec![format!(
            "the weights are worth {worth:.0} of {count} samples: reweighting says nothing"
        )];
    }
    let [by_flow, by_chains] =
        [results.importance.effective_sample_size, results.forward.effective_sample_size];
    let missed = results.misses_weight().then(|| {
        format!(
            "ESS {by_flow:.2} by samples of the flow, {by_chains:.2} by those of HMC: the flow misses weight of the target, \
             reweighting does not know of it"
        )
    });
    missed.into_iter().collect()
}

/// A number that is not finite must never look like a result.
pub(super) fn check_finite(scalars: &Numbers) -> Result<()> {
    match scalars.iter().find(|(_, value)| !value.is_finite()) {
        Some((quantity, _)) => Err(Error::NotFinite { quantity: quantity.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::sampling::estimates::{Estimates, Measured};
    use crate::sampling::replicas::Exchanged;
    use crate::statistics::{Estimate, Forward, Importance};
    use crate::targets::exact::ExactIsing;
    use crate::targets::observe::{Derived, Observable};
    use crate::task::numbers;
    use crate::task::results::Deviations;

    fn config() -> Config {
        let text = "[sweep]\nname = 'test'\nlinear_size = 4\ntemperatures = [2.3]\ndepths = [1]\n";
        Config::parse(text, Path::new("test.toml")).unwrap()
    }

    /// Results of a task of which all is well.
    fn healthy() -> Results {
        let estimate =
            Estimate { mean: 0.0, error: 0.1, tau_int: 0.5, tau_int_error: 0.0, window: 0 };
        let measured = Measured { estimate, r_hat: 1.0, ess_bulk: 1e4, ess_tail: 1e4 };
        let estimates = Estimates {
            observables: [measured; Observable::COUNT],
            derived: [(0.0, 0.1); Derived::COUNT],
            acceptance: 0.8,
            divergences: 0,
            warmup_divergences: 0,
            step_size: 0.1,
            trajectory_length: 1.0,
            leapfrog_steps: 10.0,
            e_bfmi: 1.0,
            longest_rejection: 0,
            ess_least: 1e4,
            ess_per_gradient: 0.1,
            replica_gradients: 0.0,
            exchanged: None,
        };
        Results {
            free_energy: (-599.0, 0.1),
            importance: Importance {
                free_energy: -600.0,
                free_energy_error: 0.1,
                effective_sample_size: 0.19,
                largest_weight_share: 0.01,
            },
            weighted_samples: 10_000,
            forward: Forward {
                free_energy: -601.0,
                free_energy_error: 0.1,
                effective_sample_size: 0.15,
                weight_mean: 1.0,
            },
            bridge_free_energy: (-600.0, 0.1),
            ising_free_energy: (-100.0, 0.1),
            estimates,
            deviations: Some(Deviations {
                gap: (1.0, 0.1),
                gap_per_site: (0.1, 0.01),
                relative_error: (0.001, 1e-4),
                energy: 1.0,
                specific_heat: 1.0,
                importance_free_energy: 3.9,
                bridge_free_energy: 1.0,
            }),
        }
    }

    /// The verdict with Gaussians that have a gap of 1.7 nats.
    fn verdict_of(results: &Results, config: &Config) -> Vec<String> {
        let exact = ExactIsing {
            ln_z_ising: 100.0,
            free_energy_field: -600.0,
            energy_per_site: 0.0,
            specific_heat_per_site: 0.0,
        };
        let references = References { exact, gaussian: Some(-598.3) };
        verdict(results, Some(&references), config)
    }

    #[test]
    fn without_exact_values_there_is_a_verdict_too() {
        let mut results = Results { deviations: None, ..healthy() };
        assert_eq!(verdict(&results, None, &config()), Vec::<String>::new());
        let numbers = numbers::of_results(&results, 0, 0);
        let compared = |name: &str| name.starts_with("gap") || name.ends_with("_pull");
        assert!(!numbers.keys().any(|name| compared(name)), "{numbers:?}");
        assert_eq!(numbers::of_references(None), Numbers::new());
        results.estimates.divergences = 30_000;
        assert_eq!(verdict(&results, None, &config()).len(), 1);
    }

    #[test]
    fn weight_that_the_flow_misses_is_named() {
        let mut results = healthy();
        assert_eq!(of_weights(&results), Vec::<String>::new());
        results.forward.effective_sample_size = 0.0;
        let found = of_weights(&results);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("ESS 0.19 by samples of the flow, 0.00 by those of HMC"));
        assert_eq!(verdict_of(&results, &config()), Vec::<String>::new());
        let exchanged = Exchanged { left_out: vec![2.7], ..Default::default() };
        results.estimates.exchanged = Some(exchanged);
        assert!(verdict_of(&results, &config())[0].contains("its chains gave up their replicas"));
        results.importance.effective_sample_size = 0.009;
        let nothing = "the weights are worth 90 of 10000 samples: reweighting says nothing";
        assert_eq!(of_weights(&results), [nothing]);
    }

    #[test]
    fn flow_worse_than_gaussians_comes_first_and_one_line_stands_for_what_follows() {
        let mut results = healthy();
        results.importance.effective_sample_size = 1e-4;
        results.estimates.acceptance = 0.3;
        let observables = &mut results.estimates.observables;
        observables[Observable::Magnetization as usize].r_hat = 2.0;
        let energy = &mut observables[Observable::Energy as usize];
        (energy.r_hat, energy.ess_bulk, energy.estimate.tau_int) = (1.3, 20.0, 90.0);
        let deviations = results.deviations.as_mut().unwrap();
        (deviations.gap, deviations.energy) = ((8.3, 0.1), 7.0);
        let mut config = config();
        assert_eq!(
            verdict_of(&results, &config),
            [
                "gap 8.300 nat (two Gaussians have 1.700): the flow is worse than a pair of Gaussians, train longer, or start \
                 from another task's flow (train.start_from), or take flow.preset = \"best\"",
                "5 complaints: its chains have problems, which may follow from that (chains/latent of the task file has them)",
                "energy is 7.0 standard errors from the exact value",
            ]
        );
        config.flow.preset = Preset::Best;
        config.train.start_from = StartFrom::Shallower;
        assert!(verdict_of(&results, &config)[0].ends_with("pair of Gaussians, train longer"));
        // Within its error the flow is as good as the Gaussians: then the chains speak for themselves.
        results.deviations.as_mut().unwrap().gap = (2.0, 0.1);
        let found = verdict_of(&results, &config);
        assert!(found.len() == 6 && found[0].starts_with("R-hat of m"), "{found:?}");
    }
}
