//! What a task's numbers are worth: gaps and deviations where exact values are known, and what is wrong in words.

use super::Task;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::{Numbers, schema};
use crate::flow::config::Preset;
use crate::sampling::config::Sampler;
use crate::sampling::diagnostics::{
    self, LARGEST_PULL, LEAST_FORWARD_SHARE, LEAST_WEIGHTED_SAMPLES, pull,
};
use crate::sampling::evaluate::Evaluation;
use crate::sampling::sampler::Chains;
use crate::statistics::bridge::bridge;
use crate::statistics::forward;
use crate::targets::exact::gaussian_integral;
use crate::train::config::StartFrom;

/// All numbers of a task, by the names of [`schema::task_scalars`]; those that are measured against exact values only where
/// these are known. `estimates` are the chains'.
///
/// # Errors
/// One is not finite.
pub(super) fn scalars(
    task: &Task,
    evaluation: &Evaluation,
    (chains, estimates): (&Chains, &Numbers),
    references: &Numbers,
) -> Result<Numbers> {
    let mut scalars = bound(evaluation, references, task.linear_size * task.linear_size);
    scalars.extend(estimated_free_energies(evaluation, chains, task));
    scalars.extend(estimates.clone());
    scalars.extend(pulls(&scalars, references));
    check_finite(&scalars)?;
    Ok(scalars)
}

/// The variational bound and its gap in the three customary ways.
fn bound(evaluation: &Evaluation, references: &Numbers, sites: usize) -> Numbers {
    let (free_energy, error) = evaluation.free_energy();
    let mut numbers =
        Numbers::from([("free_energy".into(), free_energy), ("free_energy_error".into(), error)]);
    let Some(exact) = references.get("free_energy_exact") else { return numbers };
    let (gap, sites) = (free_energy - exact, sites as f64);
    let of_gap = [
        ("gap", gap),
        ("gap_error", error),
        ("gap_per_site", gap / sites),
        ("gap_per_site_error", error / sites),
        ("relative_error", gap / exact.abs()),
        ("relative_error_error", error / exact.abs()),
    ];
    numbers.extend(of_gap.map(|(name, value)| (name.into(), value)));
    numbers
}

/// -ln Z from the flow's samples, from those and the chains, which are samples of the target, that of the spins, and what
/// the chains say of the flow.
fn estimated_free_energies(evaluation: &Evaluation, chains: &Chains, task: &Task) -> Numbers {
    let of_target = chains.get("ln_weight");
    let importance = evaluation.importance();
    let forward = forward(of_target, importance.free_energy);
    let (free_energy, error) = bridge(&evaluation.ln_weights(), of_target);
    let mut numbers: Numbers = [
        ("importance_free_energy", importance.free_energy),
        ("importance_free_energy_error", importance.free_energy_error),
        ("effective_sample_size", importance.effective_sample_size),
        ("weighted_samples", evaluation.ln_q.len() as f64),
        ("largest_weight_share", importance.largest_weight_share),
        ("forward_free_energy", forward.free_energy),
        ("forward_free_energy_error", forward.free_energy_error),
        ("forward_effective_sample_size", forward.effective_sample_size),
        ("forward_weight_mean", forward.weight_mean),
        ("bridge_free_energy", free_energy),
        ("bridge_free_energy_error", error),
        ("ising_free_energy", free_energy - gaussian_integral(task.linear_size, task.temperature)),
        ("ising_free_energy_error", error),
    ]
    .map(|(name, value)| (name.into(), value))
    .into();
    let error = importance_error(&numbers);
    numbers.insert("importance_free_energy_error".into(), error);
    numbers
}

/// The jackknife's error of the importance-weighted free energy, or its distance to the bridge where the flow is known to
/// miss weight and that is larger.
fn importance_error(scalars: &Numbers) -> f64 {
    let jackknife = scalars["importance_free_energy_error"];
    if !misses_weight(scalars) {
        return jackknife;
    }
    let distance = scalars["importance_free_energy"] - scalars["bridge_free_energy"];
    jackknife.max(distance.abs())
}

/// Whether samples of the target have far smaller weights under the flow than its own samples know of. No jackknife over
/// these sees what is missing.
fn misses_weight(scalars: &Numbers) -> bool {
    scalars["forward_effective_sample_size"]
        < LEAST_FORWARD_SHARE * scalars["effective_sample_size"]
}

/// Estimates and the exact values that they are compared with, where these are known.
const COMPARED: [(&str, &str); 4] = [
    ("energy", "energy_exact"),
    ("specific_heat", "specific_heat_exact"),
    ("importance_free_energy", "free_energy_exact"),
    ("bridge_free_energy", "free_energy_exact"),
];

/// Deviations from exact values in standard errors.
fn pulls(scalars: &Numbers, references: &Numbers) -> Numbers {
    let deviation = |(name, exact): (&str, &str)| {
        let exact = *references.get(exact)?;
        let value = pull(scalars[name], scalars[&format!("{name}_error")], exact);
        Some((format!("{name}_pull"), value))
    };
    COMPARED.into_iter().filter_map(deviation).collect()
}

/// What is wrong with the task's numbers: its flow, its sampling, weights, deviations from exact values and bounds.
///
/// From a flow that has learned nothing much else follows, which one line stands for: its chains' own verdict has it.
pub(super) fn verdict(scalars: &Numbers, references: &Numbers, config: &Config) -> Vec<String> {
    let of_chains = diagnostics::verdict(scalars, Sampler::Latent, &config.hmc);
    let mut problems: Vec<String> =
        worse_than_gaussians(scalars, references, config).into_iter().collect();
    if problems.is_empty() {
        problems.extend(of_chains);
        problems.extend(problem_of_weights(scalars));
    } else if !of_chains.is_empty() {
        problems.push(format!(
            "{} complaints: its chains have problems, which may follow from that ({}/latent of the task file has them)",
            of_chains.len(),
            schema::CHAINS_GROUP
        ));
    }
    for (name, _) in COMPARED {
        let Some(&deviation) = scalars.get(&format!("{name}_pull")) else { continue };
        let meaningful = name != "importance_free_energy" || has_weights(scalars);
        if deviation.abs() > LARGEST_PULL && meaningful {
            problems.push(format!("{name} is {deviation:.1} standard errors from the exact value"));
        }
    }
    if let Some(gap) = scalars.get("gap")
        && *gap < -LARGEST_PULL * scalars["gap_error"]
    {
        problems
            .push(format!("the variational free energy is {:.3} nat below the exact one", -gap));
    }
    problems
}

/// A flow above the best pair of Gaussians, which needs no network, has learned nothing of use yet.
fn worse_than_gaussians(
    scalars: &Numbers,
    references: &Numbers,
    config: &Config,
) -> Option<String> {
    let gap = *scalars.get("gap")?;
    let of_gaussians = references.get("free_energy_gaussian")? - references["free_energy_exact"];
    if gap - of_gaussians <= LARGEST_PULL * scalars["gap_error"] {
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

/// Whether importance weights are worth enough samples to estimate anything.
fn has_weights(scalars: &Numbers) -> bool {
    scalars["effective_sample_size"] * scalars["weighted_samples"] >= LEAST_WEIGHTED_SAMPLES
}

/// What is wrong with the importance weights.
fn problem_of_weights(scalars: &Numbers) -> Option<String> {
    if !has_weights(scalars) {
        let weighted = scalars["effective_sample_size"] * scalars["weighted_samples"];
        return Some(format!(
            "importance weights are worth {weighted:.0} samples: importance_free_energy and reweighting say nothing"
        ));
    }
    misses_weight(scalars).then(|| {
        let [reverse, forward] =
            ["effective_sample_size", "forward_effective_sample_size"].map(|name| scalars[name]);
        format!(
            "ESS {reverse:.2} by samples of the flow, {forward:.2} by those of HMC: the flow misses weight of the target, \
             importance_free_energy is too high (bridge_free_energy is not if the chains have converged)"
        )
    })
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

    use crate::engine::Model;
    use crate::engine::device::Device;
    use crate::flow::Flow;
    use crate::random::Random;
    use crate::sampling::config::EvaluateConfig;
    use crate::targets::Target;
    use crate::task::references::references;

    #[test]
    fn importance_weights_that_miss_some_have_an_error_that_says_so() {
        let numbers = |forward, bridge| {
            let numbers = [
                ("importance_free_energy", -10.0),
                ("importance_free_energy_error", 0.01),
                ("effective_sample_size", 0.3),
                ("forward_effective_sample_size", forward),
                ("bridge_free_energy", bridge),
            ];
            numbers.map(|(name, value)| (name.to_owned(), value)).into()
        };
        assert_eq!(importance_error(&numbers(0.2, -10.5)), 0.01);
        assert_eq!(importance_error(&numbers(0.0, -10.5)), 0.5);
        assert_eq!(importance_error(&numbers(0.0, -10.0)), 0.01);
    }

    fn config() -> Config {
        let text = "[sweep]\nname = 'test'\nlinear_size = 4\ntemperatures = [2.3]\ndepths = [1]\n";
        Config::parse(text, Path::new("test.toml")).unwrap()
    }

    /// The scalars of a task of which all is well, as far as verdicts ask for them.
    fn healthy() -> Numbers {
        let of_observable = [
            ("_r_hat", 1.0),
            ("_tau_int", 0.5),
            ("_ess_bulk", 1e4),
            ("_ess_tail", 1e4),
            ("", 0.0),
            ("_error", 0.1),
        ];
        let mut scalars: Numbers = crate::targets::observe::SCALARS
            .iter()
            .flat_map(|name| {
                of_observable.map(|(ending, value)| (format!("{name}{ending}"), value))
            })
            .collect();
        let others = [
            ("divergences", 0.0),
            ("acceptance", 0.8),
            ("e_bfmi", 1.0),
            ("energy_pull", 1.0),
            ("specific_heat_pull", 1.0),
            ("importance_free_energy_pull", 3.9),
            ("bridge_free_energy_pull", 1.0),
            ("gap", 1.0),
            ("gap_error", 0.1),
            ("effective_sample_size", 0.19),
            ("weighted_samples", 1e4),
            ("forward_effective_sample_size", 0.15),
        ];
        scalars.extend(others.map(|(name, value)| (name.into(), value)));
        scalars
    }

    /// The verdict with Gaussians that have a gap of 1.7 nats.
    fn verdict_of(scalars: &Numbers, config: &Config) -> Vec<String> {
        let exact = [("free_energy_exact", -600.0), ("free_energy_gaussian", -598.3)];
        let references = exact.map(|(name, value)| (name.to_owned(), value)).into();
        verdict(scalars, &references, config)
    }

    #[test]
    fn without_exact_values_there_is_neither_gap_nor_deviation_but_a_verdict() {
        let model = {
            let task = Task { linear_size: 4, temperature: 2.3, depth: 1, seed: 1 };
            let flow = Flow::initialize(task.architecture(&config().flow), &Random::new(1));
            Model::new(flow, task.target(), 2.3, &config().run, Device::Cpu)
        };
        let seed = Task { linear_size: 4, temperature: 2.3, depth: 1, seed: 1 }.streams();
        let evaluate = EvaluateConfig { samples: 64, batch: 64, keep_samples: 1 };
        let evaluation = Evaluation::draw(&model, &evaluate, &seed, None, |_| Ok(())).unwrap();
        let names: Vec<String> = bound(&evaluation, &Numbers::new(), 16).into_keys().collect();
        assert_eq!(names, ["free_energy", "free_energy_error"]);
        let known = references(&Target::ising_dual(4), 2.3);
        assert!(bound(&evaluation, &known, 16)["gap"] > 0.0);

        let mut scalars = healthy();
        assert_eq!(pulls(&scalars, &Numbers::new()), Numbers::new());
        scalars.retain(|name, _| !name.ends_with("_pull") && !name.starts_with("gap"));
        assert_eq!(verdict(&scalars, &Numbers::new(), &config()), Vec::<String>::new());
        scalars.insert("divergences".into(), 7.0);
        assert_eq!(verdict(&scalars, &Numbers::new(), &config()).len(), 1);
    }

    #[test]
    fn weight_that_the_flow_misses_is_named() {
        let mut scalars = healthy();
        assert_eq!(verdict_of(&scalars, &config()), Vec::<String>::new());
        scalars.insert("forward_effective_sample_size".into(), 0.0);
        let found = verdict_of(&scalars, &config());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("ESS 0.19 by samples of the flow, 0.00 by those of HMC"));
    }

    #[test]
    fn flow_worse_than_gaussians_comes_first_and_one_line_stands_for_what_follows() {
        let mut scalars = healthy();
        let changes = [
            ("gap", 8.3),
            ("effective_sample_size", 1e-4),
            ("energy_r_hat", 1.3),
            ("magnetization_r_hat", 2.0),
            ("energy_ess_bulk", 20.0),
            ("energy_tau_int", 90.0),
            ("acceptance", 0.3),
            ("energy_pull", 7.0),
        ];
        scalars.extend(changes.map(|(name, value)| (name.into(), value)));
        let mut config = config();
        assert_eq!(
            verdict_of(&scalars, &config),
            [
                "gap 8.300 nat (two Gaussians have 1.700): the flow is worse than a pair of Gaussians, train longer, or start \
                 from another task's flow (train.start_from), or take flow.preset = \"best\"",
                "5 complaints: its chains have problems, which may follow from that (chains/latent of the task file has them)",
                "energy is 7.0 standard errors from the exact value",
            ]
        );
        config.flow.preset = Preset::Best;
        config.train.start_from = StartFrom::Shallower;
        assert!(verdict_of(&scalars, &config)[0].ends_with("pair of Gaussians, train longer"));
        // Within its error the flow is as good as the Gaussians: then the chains speak for themselves.
        scalars.insert("gap".into(), 2.0);
        let found = verdict_of(&scalars, &config);
        assert!(found.len() == 7 && found[0].starts_with("R-hat of m"), "{found:?}");
    }
}
