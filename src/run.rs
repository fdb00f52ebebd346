//! One task from start to end: build, train, evaluate, sample, measure.

use ndarray::{Array2, Array3, Axis, concatenate, stack};
use tch::{Device, Tensor};

use crate::checkpoint::Checkpoints;
use crate::config::Config;
use crate::engine::Model;
use crate::error::{Error, Result};
use crate::evaluate::Evaluation;
use crate::exact::{ExactIsing, exact_ising};
use crate::flow::{Architecture, Flow, transfer};
use crate::gaussian::gaussian_free_energy;
use crate::hmc::{self, Chains};
use crate::host::to_array;
use crate::observe;
use crate::plan::Task;
use crate::progress::{TaskProgress, unix_now};
use crate::seed::{Stage, TaskSeed};
use crate::stats::{between_chain, forward, gamma_method};
use crate::store::{Numbers, TaskRecord};
use crate::train::{History, Training};

/// A trained task that another one starts from.
#[derive(Debug)]
pub struct Parent {
    pub task: Task,
    /// Flat parameter vector.
    pub parameters: Vec<f64>,
}

/// Runs one task on one device, from the trained parameters of `parent` or at random; or what is left of it
/// after its last checkpoint.
///
/// # Errors
/// The training diverges, a result is not a finite number, or the job was asked to stop.
pub fn run_task(
    task: &Task,
    config: &Config,
    device: Device,
    parent: Option<&Parent>,
    checkpoints: &mut Checkpoints,
    progress: &mut TaskProgress,
) -> Result<TaskRecord> {
    let memory = PeakMemory::start();
    let kind = config.run.precision.kind();
    let options = (task.linear_size as i64, kind, device);
    let seed = TaskSeed::new(task);
    let references = references(task.linear_size, task.temperature);

    // Build.
    let architecture =
        Architecture::new(task.linear_size, task.temperature, task.depth, &config.flow);
    seed.reseed_torch(Stage::Initialize, 0);
    let mut flow = Flow::initialize(architecture, kind, device);
    if let Some(parent) = parent {
        start_from(&mut flow, parent, config);
    }
    let mut model = Model::new(flow, &config.run);

    // Train.
    let weight = config.flow.symmetry_weight;
    let mut training = Training::new(&model, &config.train);
    if let Some(state) = checkpoints.restored("train") {
        training.restore(&mut model, &state);
        progress.resumed(checkpoints.seconds());
    }
    training.run(&mut model, &config.train, weight, &seed, |training, model, step| {
        progress.trained(step);
        checkpoints.step("train", || training.state(model))
    })?;
    let history = training.history();
    let trained = checkpoints.finish("train", training.final_state(&model));

    // Evaluate.
    let frozen = model.freeze();
    let drawn = checkpoints.restored("evaluate").map(|state| Evaluation::restore(&state));
    let evaluation =
        Evaluation::draw(&frozen, &config.evaluate, options, &seed, drawn, |samples| {
            progress.evaluated(samples.ln_q.len() as i64);
            checkpoints.step("evaluate", || samples.state())
        })?;
    let evaluated = checkpoints.finish("evaluate", evaluation.state());

    // Sample and measure.
    let saved = checkpoints.restored("hmc");
    let mut last = None;
    let chains =
        hmc::sample(&frozen, &config.hmc, options, &seed, saved.as_ref(), |sampling, done| {
            progress.sampled(done);
            if done == config.hmc.warmup + config.hmc.trajectories {
                last = Some(sampling.state(&config.hmc));
            }
            checkpoints.step("hmc", || sampling.state(&config.hmc))
        })?;
    let sampled = checkpoints.finish("hmc", last.or(saved).unwrap_or_default());

    let mut scalars = free_energies(&evaluation, &references, task.linear_size);
    scalars.extend(forward_check(&chains, scalars["importance_free_energy"]));
    scalars.extend(observables(&chains));
    scalars.insert("skipped_steps".into(), history.skipped_steps as f64);
    check_finite(&scalars)?;
    let timing = [
        ("train_seconds", trained),
        ("evaluate_seconds", evaluated - trained),
        ("hmc_seconds", sampled - evaluated),
        ("wall_seconds", checkpoints.seconds()),
        ("peak_memory_bytes", memory.bytes()),
        ("finished_unix_seconds", unix_now() as f64),
    ];
    Ok(TaskRecord {
        task: *task,
        parent: parent.map(|parent| parent.task),
        configuration: config.to_toml(),
        host: gethostname::gethostname().to_string_lossy().into_owned(),
        device: describe(device),
        threads: config.run.threads,
        scalars,
        references,
        timing: timing.into_iter().map(|(name, value)| (name.into(), value)).collect(),
        parameters: to_array::<ndarray::Ix1>(&model.flow.parameters).to_vec(),
        history: with_learning_rates(&history),
        ln_q: evaluation.ln_q,
        ln_pi: evaluation.ln_pi,
        samples: evaluation.fields,
        lattice: lattice_observables(&chains),
        chains: all_chains(&chains),
    })
}

/// Replaces the random parameters of `flow` by those of a trained task, as far as it has them.
fn start_from(flow: &mut Flow, parent: &Parent, config: &Config) {
    let Task { linear_size, temperature, depth, .. } = parent.task;
    let architecture = Architecture::new(linear_size, temperature, depth, &config.flow);
    let initial: Vec<f64> = to_array::<ndarray::Ix1>(&flow.parameters).to_vec();
    let parameters = transfer(&flow.architecture, &initial, &architecture, &parent.parameters);
    let (kind, device) = (flow.parameters.kind(), flow.parameters.device());
    let parameters = Tensor::from_slice(&parameters).to_kind(kind).to_device(device);
    flow.parameters = parameters.set_requires_grad(true);
}

/// Exact values and the Gaussian yardstick, functions of L and T only.
pub fn references(linear_size: usize, temperature: f64) -> Numbers {
    let ExactIsing { ln_z_ising, free_energy_field, energy_per_site, specific_heat_per_site } =
        exact_ising(linear_size, temperature);
    let gaussian = gaussian_free_energy(linear_size, temperature);
    let numbers = [
        ("free_energy_exact", free_energy_field),
        ("ln_z_ising_exact", ln_z_ising),
        ("energy_exact", energy_per_site),
        ("specific_heat_exact", specific_heat_per_site),
        ("free_energy_gaussian", gaussian),
        ("relative_error_gaussian", (gaussian - free_energy_field) / free_energy_field.abs()),
    ];
    numbers.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// The variational bound, its gap in the three customary ways, and the importance-weighted estimate.
fn free_energies(evaluation: &Evaluation, references: &Numbers, linear_size: usize) -> Numbers {
    let (free_energy, error) = evaluation.free_energy();
    let exact = references["free_energy_exact"];
    let sites = (linear_size * linear_size) as f64;
    let gap = free_energy - exact;
    let importance = evaluation.importance();
    let numbers = [
        ("free_energy", free_energy),
        ("free_energy_error", error),
        ("gap", gap),
        ("gap_error", error),
        ("gap_per_site", gap / sites),
        ("gap_per_site_error", error / sites),
        ("relative_error", gap / exact.abs()),
        ("relative_error_error", error / exact.abs()),
        ("importance_free_energy", importance.free_energy),
        ("importance_free_energy_error", importance.free_energy_error),
        ("effective_sample_size", importance.effective_sample_size),
        ("largest_weight_share", importance.largest_weight_share),
    ];
    numbers.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// What the chains, being samples of the target, say of the model.
fn forward_check(chains: &Chains, importance_free_energy: f64) -> Numbers {
    let forward = forward(chains.ln_weights.view(), importance_free_energy);
    let numbers = [
        ("forward_free_energy", forward.free_energy),
        ("forward_free_energy_error", forward.free_energy_error),
        ("forward_effective_sample_size", forward.effective_sample_size),
        ("forward_weight_mean", forward.weight_mean),
    ];
    numbers.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// Scalar observables with errors and autocorrelation times, and the sampler's own record.
fn observables(chains: &Chains) -> Numbers {
    let mut numbers = Numbers::new();
    for (name, values) in observe::SCALARS.iter().zip(chains.scalars.axis_iter(Axis(0))) {
        let estimate = gamma_method(values);
        numbers.insert((*name).into(), estimate.mean);
        numbers.insert(format!("{name}_error"), estimate.error);
        numbers.insert(format!("{name}_tau_int"), estimate.tau_int);
        numbers.insert(format!("{name}_tau_int_error"), estimate.tau_int_error);
    }
    let acceptance = chains.acceptance.mean().expect("there are trajectories");
    numbers.insert("acceptance".into(), acceptance);
    numbers.insert("divergences".into(), chains.divergences as f64);
    numbers.insert("warmup_divergences".into(), chains.warmup_divergences as f64);
    numbers.insert("step_size".into(), chains.step_size);
    numbers
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
fn with_learning_rates(history: &History) -> Array2<f64> {
    let rates = ndarray::ArrayView1::from(&history.learning_rates).insert_axis(Axis(0));
    concatenate(Axis(0), &[history.values.view(), rates]).expect("one learning rate a step")
}

/// The observables' chains with log-weights and acceptance behind them.
fn all_chains(chains: &Chains) -> Array3<f64> {
    let mut parts: Vec<_> = chains.scalars.axis_iter(Axis(0)).collect();
    parts.extend([chains.ln_weights.view(), chains.acceptance.view()]);
    stack(Axis(0), &parts).expect("one value of each a trajectory")
}

/// A number that is not finite must never look like a result.
fn check_finite(scalars: &Numbers) -> Result<()> {
    match scalars.iter().find(|(_, value)| !value.is_finite()) {
        Some((quantity, _)) => Err(Error::NotFinite { quantity: quantity.clone() }),
        None => Ok(()),
    }
}

fn describe(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
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
