//! One task from start to end: build, train, evaluate, sample, measure.

use ndarray::{Array2, Array3, Axis, concatenate, stack};

use crate::clock::unix_now;
use crate::config::Config;
use crate::engine::Model;
use crate::engine::device::Device;
use crate::error::{Error, Result};
use crate::files::state::{under, within};
use crate::files::{Numbers, schema};
use crate::flow::config::Preset;
use crate::flow::{Flow, transfer};
use crate::ranks::Team;
use crate::sampling::config::Sampler;
use crate::sampling::course::Course;
use crate::sampling::diagnostics::{
    self, LARGEST_PULL, LEAST_FORWARD_SHARE, LEAST_WEIGHTED_SAMPLES, pull,
};
use crate::sampling::evaluate::Evaluation;
use crate::sampling::sampler::{self, Chains, Kernel, Sampling};
use crate::seed::Stage;
use crate::statistics::bridge::bridge;
use crate::statistics::{between_chain, forward};
use crate::targets::exact::gaussian_integral;
use crate::task::Task;
use crate::task::checkpoint::Checkpoints;
use crate::task::progress::TaskProgress;
use crate::task::record::{SamplerRecord, TaskRecord};
use crate::task::references::references;
use crate::train::config::StartFrom;
use crate::train::data::Data;
use crate::train::{History, Objective, Progress, Training};

/// A trained task that another one starts from.
#[derive(Debug)]
pub struct Parent {
    pub task: Task,
    /// Flat parameter vector.
    pub parameters: Vec<f64>,
}

/// Runs one task on a team, each member on its own device, from the trained parameters of `parent` or at random;
/// or what is left of it after its last checkpoint. The members do the same, but that each evaluates the flow
/// on its share of every batch.
///
/// # Errors
/// The training diverges, a result is not a finite number, or the job was asked to stop.
pub fn run_task(
    task: &Task,
    config: &Config,
    (team, device): (&Team, Device),
    parent: Option<&Parent>,
    checkpoints: &mut Checkpoints,
    progress: &mut TaskProgress,
) -> Result<TaskRecord> {
    let memory = PeakMemory::start();
    let sites = task.linear_size * task.linear_size;
    let seed = task.streams();
    let references = references(task.linear_size, task.temperature);

    let data = config
        .data
        .as_ref()
        .map(|data| Data::at_temperature(data, task.linear_size, task.temperature));
    let data = data.transpose()?;

    // Build.
    let architecture = task.architecture(&config.flow);
    let random = seed.at(Stage::Initialize, 0);
    let mut flow = Flow::initialize(architecture, &random);
    if let Some(parent) = parent {
        start_from(&mut flow, parent, config);
    }
    let mut model =
        Model::new(flow, task.target(), task.temperature, &config.run, device).with_team(team);

    // Train.
    let objective = match &data {
        Some(data) => Objective::ForwardKl(data),
        None => Objective::ReverseKl { symmetry_weight: config.flow.symmetry_weight },
    };
    let mut training = Training::new(&model, &config.train);
    let mut course = Course::new(&config.train, &config.hmc);
    let restored = checkpoints.restored("train", |state| {
        let course = within("course", state);
        let course = Course::restore(&config.train, &config.hmc, sites, &course)?;
        training.restore(&mut model, state)?;
        Ok(course)
    });
    if let Some(restored) = restored {
        course = restored;
        progress.resumed(checkpoints.seconds());
    }
    training.run(&mut model, &config.train, objective, &seed, |training, model, step| {
        // The gap is known from the flow's own samples only.
        let loss = step.loss.filter(|_| data.is_none());
        progress.trained(Progress { loss, ..step });
        course.measure(model, step.step, &config.hmc, &seed);
        checkpoints.step("train", || {
            let mut state = training.state(model);
            state.extend(under("course", course.state()));
            (state, Some(progress.snapshot()))
        })
    })?;
    let history = training.history();
    let mut state = training.final_state(&model);
    state.extend(under("course", course.state()));
    let trained = checkpoints.finish("train", state);

    // Evaluate.
    let drawn = checkpoints
        .restored("evaluate", |state| Evaluation::restore(&config.evaluate, sites, state));
    let evaluation = Evaluation::draw(&model, &config.evaluate, &seed, drawn, |samples| {
        progress.evaluated(samples.ln_q.len() as i64);
        checkpoints.step("evaluate", || (samples.state(), Some(progress.snapshot())))
    })?;
    let evaluated = checkpoints.finish("evaluate", evaluation.state());
    let target = (task.temperature, -references["free_energy_exact"]);
    let held_out = data.map_or_else(Numbers::new, |data| data.judge(&model, Some(target)));
    check_finite(&held_out)?;

    // Sample and measure.
    let mut done = 0;
    let mut sample = |sampler: Sampler| {
        let kernel = Kernel::new(sampler, &model, &config.hmc);
        let settings = (&config.hmc, config.controls.start);
        let stage = sampler.name();
        let saved =
            checkpoints.restored(stage, |state| Sampling::restore(&config.hmc, sites, state));
        let after = |sampling: &Sampling| {
            progress.sampled(done + sampling.done);
            checkpoints.step(stage, || (sampling.state(), Some(progress.snapshot())))
        };
        let sampling = sampler::sample(sampler, &kernel, settings, &seed, saved, after)?;
        checkpoints.finish(stage, sampling.state());
        done += sampling.done;
        Ok(sampling.chains(sampler, &config.hmc))
    };
    let chains = sample(Sampler::Latent)?;
    let controls: Vec<Chains> =
        config.controls.samplers.iter().map(|&name| sample(name)).collect::<Result<_>>()?;

    let estimates = diagnostics::estimates(&chains, task.linear_size, task.temperature);
    let mut scalars = bound(&evaluation, &references, task.linear_size);
    scalars.extend(estimated_free_energies(&evaluation, &chains, task));
    scalars.extend(estimates.clone());
    scalars.insert("skipped_steps".into(), history.skipped_steps as f64);
    scalars.extend(pulls(&scalars, &references));
    let verdict = verdict(&scalars, &references, config);
    scalars.insert("problems".into(), verdict.len() as f64);
    check_finite(&scalars)?;
    let mut samplers = vec![sampler_record(&chains, estimates, config)];
    samplers.extend(controls.iter().map(|chains| {
        let estimates = diagnostics::estimates(chains, task.linear_size, task.temperature);
        sampler_record(chains, estimates, config)
    }));
    samplers.push(reweighting(&evaluation, task));
    let mut timing: Numbers = [
        ("train_seconds", trained),
        ("evaluate_seconds", evaluated - trained),
        ("hmc_seconds", chains.seconds.iter().sum()),
        ("ess_per_second", scalars["ess_least"] / chains.seconds[1]),
        ("wall_seconds", checkpoints.seconds()),
        ("peak_memory_bytes", memory.bytes()),
        ("finished_unix_seconds", unix_now() as f64),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value))
    .collect();
    for sampler in Sampler::ALL {
        let mut ran = controls.iter().chain([&chains]);
        let [warmup, measured] =
            ran.find(|chains| chains.sampler == sampler).map_or([f64::NAN; 2], |ran| ran.seconds);
        timing.insert(format!("{}_warmup_seconds", sampler.name()), warmup);
        timing.insert(format!("{}_seconds", sampler.name()), measured);
    }
    Ok(TaskRecord {
        task: *task,
        parent: parent.map(|parent| parent.task),
        configuration: config.to_toml(),
        host: gethostname::gethostname().to_string_lossy().into_owned(),
        device: describe(device),
        threads: config.run.threads,
        scalars,
        verdict,
        references,
        timing,
        halves: model.flow.architecture.halves(),
        history: with_learning_rates(&history),
        ln_q: evaluation.ln_q,
        ln_pi: evaluation.ln_pi,
        samples: evaluation.fields,
        lattice: lattice_observables(&chains),
        samplers,
        course: course.values(),
        held_out,
        parameters: model.flow.parameters,
    })
}

/// Replaces the random parameters of `flow` by those of a trained task, as far as it has them.
fn start_from(flow: &mut Flow, parent: &Parent, config: &Config) {
    let architecture = parent.task.architecture(&config.flow);
    let initial = flow.parameters.to_vec();
    let parameters = transfer(&flow.architecture, &initial, &architecture, &parent.parameters);
    flow.parameters = parameters.into();
}

/// The variational bound and its gap in the three customary ways.
fn bound(evaluation: &Evaluation, references: &Numbers, linear_size: usize) -> Numbers {
    let (free_energy, error) = evaluation.free_energy();
    let exact = references["free_energy_exact"];
    let sites = (linear_size * linear_size) as f64;
    let gap = free_energy - exact;
    let numbers = [
        ("free_energy", free_energy),
        ("free_energy_error", error),
        ("gap", gap),
        ("gap_error", error),
        ("gap_per_site", gap / sites),
        ("gap_per_site_error", error / sites),
        ("relative_error", gap / exact.abs()),
        ("relative_error_error", error / exact.abs()),
    ];
    numbers.into_iter().map(|(name, value)| (name.into(), value)).collect()
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

/// Deviations from exact values in standard errors.
fn pulls(scalars: &Numbers, references: &Numbers) -> Numbers {
    let deviation = |name: &str, exact: f64| {
        let value = pull(scalars[name], scalars[&format!("{name}_error")], exact);
        (format!("{name}_pull"), value)
    };
    Numbers::from([
        deviation("energy", references["energy_exact"]),
        deviation("specific_heat", references["specific_heat_exact"]),
        deviation("importance_free_energy", references["free_energy_exact"]),
        deviation("bridge_free_energy", references["free_energy_exact"]),
    ])
}

/// What is wrong with the task's numbers: its flow, its sampling, weights, deviations from exact values and bounds.
///
/// From a flow that has learned nothing much else follows, which one line stands for: its chains' own verdict has it.
fn verdict(scalars: &Numbers, references: &Numbers, config: &Config) -> Vec<String> {
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
    for name in ["energy", "specific_heat", "importance_free_energy", "bridge_free_energy"] {
        let deviation = scalars[&format!("{name}_pull")];
        let meaningful = name != "importance_free_energy" || has_weights(scalars);
        if deviation.abs() > LARGEST_PULL && meaningful {
            problems.push(format!("{name} is {deviation:.1} standard errors from the exact value"));
        }
    }
    let gap = scalars["gap"];
    if gap < -LARGEST_PULL * scalars["gap_error"] {
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
    let gap = scalars["gap"];
    let of_gaussians = references["free_energy_gaussian"] - references["free_energy_exact"];
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

/// What a sampler leaves in the task's file.
fn sampler_record(chains: &Chains, estimates: Numbers, config: &Config) -> SamplerRecord {
    SamplerRecord {
        name: chains.sampler.name(),
        chains: chains.records.clone(),
        verdict: diagnostics::verdict(&estimates, chains.sampler, &config.hmc),
        estimates,
        warmup_rule: sampler::warmup_rule(&config.hmc),
    }
}

/// The evaluation's samples as one chain with weights, and what these make of the observables.
fn reweighting(evaluation: &Evaluation, task: &Task) -> SamplerRecord {
    let count = evaluation.ln_q.len();
    let scalars = evaluation.scalars.t().insert_axis(Axis(1));
    let ln_weights = Array2::from_shape_vec((1, count), evaluation.ln_weights());
    let ln_weights = ln_weights.expect("one weight a sample");
    let weighted = evaluation.importance().effective_sample_size * count as f64;
    let problem = || {
        format!("the weights are worth {weighted:.0} of {count} samples: these numbers say nothing")
    };
    SamplerRecord {
        name: schema::REWEIGHTING,
        estimates: diagnostics::reweighted(
            scalars,
            ln_weights.view(),
            task.linear_size,
            task.temperature,
        ),
        chains: concatenate(Axis(0), &[scalars, ln_weights.view().insert_axis(Axis(0))])
            .expect("one weight a sample"),
        verdict: (weighted < LEAST_WEIGHTED_SAMPLES).then(problem).into_iter().collect(),
        warmup_rule: "independent samples of the flow, to be weighted by exp(ln_weight)".into(),
    }
}

/// S(k) and G(r) with their errors between chains. Shapes: (4, L, L), as the schema orders them.
fn lattice_observables(chains: &Chains) -> Array3<f64> {
    let estimates = [&chains.structure_factors, &chains.correlations].map(|means| {
        let (count, rows, columns) = means.dim();
        let flat = means.view().into_shape_with_order((count, rows * columns));
        let (mean, error) = between_chain(flat.expect("chain means are contiguous"));
        let both = stack(Axis(0), &[mean.view(), error.view()]).expect("as many errors as means");
        both.into_shape_with_order((2, rows, columns)).expect("one mean for each component")
    });
    concatenate(Axis(0), &estimates.each_ref().map(Array3::view)).expect("both are L × L")
}

/// The history's rows with the learning rates below them.
pub(crate) fn with_learning_rates(history: &History) -> Array2<f64> {
    let rates = ndarray::ArrayView1::from(&history.learning_rates).insert_axis(Axis(0));
    concatenate(Axis(0), &[history.values.view(), rates]).expect("one learning rate a step")
}

/// A number that is not finite must never look like a result.
pub(crate) fn check_finite(scalars: &Numbers) -> Result<()> {
    match scalars.iter().find(|(_, value)| !value.is_finite()) {
        Some((quantity, _)) => Err(Error::NotFinite { quantity: quantity.clone() }),
        None => Ok(()),
    }
}

fn describe(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Cpu => "cpu".into(),
    }
}

/// Peak resident memory of the process, from a reset of the kernel's counter on.
struct PeakMemory;

impl PeakMemory {
    fn start() -> Self {
        // 5 resets the peak (proc(5), clear_refs). Where that is not allowed the peak of the whole
        // process so far is reported.
        if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
            log::debug!("peak memory counts from the start of the process: {error}");
        }
        Self
    }

    fn bytes(&self) -> f64 {
        let status = procfs::process::Process::myself().and_then(|process| process.status());
        let kilobytes = status.ok().and_then(|status| status.vmhwm);
        kilobytes.map_or(f64::NAN, |kilobytes| kilobytes as f64 * 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

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
