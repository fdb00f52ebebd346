//! One task from start to end: build, train, evaluate, sample, measure.

use ndarray::{Array2, Array3, Axis, concatenate, stack};

use super::judgement::{self, check_finite};
use super::numbers::{self, Times};
use super::results::{References, Results};
use crate::clock::unix_now;
use crate::config::Config;
use crate::engine::Model;
use crate::engine::device::Device;
use crate::error::{Error, Result};
use crate::files::state::{under, within};
use crate::files::{Numbers, schema};
use crate::flow::Flow;
use crate::ranks::Team;
use crate::sampling::config::Sampler;
use crate::sampling::course::Course;
use crate::sampling::diagnostics;
use crate::sampling::estimates::{Estimates, Reweighted};
use crate::sampling::evaluate::Evaluation;
use crate::sampling::kernel::Kernel;
use crate::sampling::sampler::{self, Chains, Sampling};
use crate::seed::{Stage, TaskSeed};
use crate::statistics::between_chain;
use crate::task::Task;
use crate::task::checkpoint::Checkpoints;
use crate::task::progress::TaskProgress;
use crate::task::record::{SamplerRecord, TaskRecord};
use crate::task::start::Parent;
use crate::train::data::Data;
use crate::train::{History, Objective, Progress, Training};

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
    let references = References::of(&task.target(), task.temperature);
    let references = references.as_ref();
    let data = config.data.as_ref();
    let data = data.map(|data| Data::at_temperature(data, task.linear_size, task.temperature));
    let data = data.transpose()?;
    let seed = task.streams();
    let mut stages = Stages { task, config, seed, checkpoints, progress, trajectories: 0 };

    let mut model = stages.build(parent, device)?.with_team(team);
    let (history, course, trained) = stages.train(&mut model, data.as_ref(), parent)?;
    let (evaluation, evaluated) = stages.evaluate(&model)?;
    let held_out = held_out(data.as_ref(), &model, references)?;
    let samplers = [Sampler::Latent].into_iter().chain(config.controls.samplers.iter().copied());
    let samplers: Vec<Chains> =
        samplers.map(|sampler| stages.sample(&model, sampler)).collect::<Result<_>>()?;

    let estimates: Vec<Estimates> = samplers
        .iter()
        .map(|chains| Estimates::new(chains, task.linear_size, task.temperature))
        .collect();
    let of_target = (&samplers[0], &estimates[0]);
    let results = Results::new(task, &evaluation, of_target, references);
    let verdict = judgement::verdict(&results, references, config);
    let scalars = numbers::of_results(&results, verdict.len(), history.skipped_steps);
    check_finite(&scalars)?;
    let sampled = samplers.iter().zip(&estimates);
    let mut records: Vec<_> =
        sampled.map(|(chains, estimates)| sampler_record(chains, estimates, config)).collect();
    records.push(reweighting(&evaluation, &results, task));
    let times = Times {
        train: trained,
        evaluate: evaluated,
        wall: checkpoints.seconds(),
        finished: unix_now() as f64,
        peak_memory: memory.bytes(),
    };
    let ess_least = results.estimates.ess_least;
    Ok(TaskRecord {
        task: *task,
        started_from: parent.map(|parent| (parent.start.clone(), parent.ancestry.clone())),
        configuration: config.to_toml(),
        host: gethostname::gethostname().to_string_lossy().into_owned(),
        device: describe(device),
        threads: config.run.threads,
        scalars,
        verdict,
        references: numbers::of_references(references),
        timing: numbers::of_times(times, &samplers, ess_least),
        halves: model.flow.architecture.halves(),
        history: with_learning_rates(&history),
        lattice: lattice_observables(&samplers[0]),
        samplers: records,
        ln_q: evaluation.ln_q,
        ln_pi: evaluation.ln_pi,
        samples: evaluation.fields,
        course: course.values(),
        held_out,
        parameters: model.flow.parameters,
    })
}

/// The stages of a task, each from its last checkpoint on.
struct Stages<'a> {
    task: &'a Task,
    config: &'a Config,
    seed: TaskSeed,
    checkpoints: &'a mut Checkpoints,
    progress: &'a mut TaskProgress,
    /// Of all samplers so far.
    trajectories: i64,
}

impl Stages<'_> {
    /// The flow, at random or from the trained parameters of another task, with its target.
    fn build(&self, parent: Option<&Parent>, device: Device) -> Result<Model> {
        let (task, config) = (self.task, self.config);
        let random = self.seed.at(Stage::Initialize, 0);
        let mut flow = Flow::initialize(task.architecture(&config.flow), &random);
        if let Some(parent) = parent {
            let initial = flow.parameters.to_vec();
            flow.parameters = parent.give(&flow.architecture, &initial)?.into();
        }
        Ok(Model::new(flow, task.target(), task.temperature, &config.run, device))
    }

    /// Trains the model. Returns the history, what was measured on the way, and the seconds that it took.
    fn train(
        &mut self,
        model: &mut Model,
        data: Option<&Data>,
        parent: Option<&Parent>,
    ) -> Result<(History, Course, f64)> {
        let Self { config, seed, checkpoints, progress, .. } = self;
        let objective = match data {
            Some(data) => Objective::ForwardKl(data),
            None => Objective::ReverseKl { symmetry_weight: config.flow.symmetry_weight },
        };
        let sites = model.flow.architecture.sites();
        let mut training = Training::new(model, &config.train);
        let hmc = Course::SAMPLERS.map(|sampler| config.hmc_of(sampler));
        let mut course = Course::new(&config.train, &hmc);
        let restored = checkpoints.restored("train", |state| {
            let course = within("course", state);
            let course = Course::restore(&config.train, &hmc, sites, &course)?;
            training.restore(model, &config.train, state)?;
            Ok(course)
        });
        if let Some(restored) = restored {
            course = restored;
            progress.resumed(checkpoints.seconds());
        } else if parent.is_some_and(|parent| parent.flow.is_none()) {
            return Err(Error::LostStart { task: self.task.name() });
        }
        training.run(model, &config.train, objective, seed, |training, model, step| {
            // The gap is known from the flow's own samples only.
            let loss = step.loss.filter(|_| data.is_none());
            progress.trained(Progress { loss, ..step });
            course.measure(model, step.step, &hmc, seed);
            checkpoints.step("train", || {
                let mut state = training.state(model);
                state.extend(under("course", course.state()));
                (state, Some(progress.snapshot()))
            })
        })?;
        let mut state = training.state(model);
        state.extend(under("course", course.state()));
        Ok((training.history(), course, checkpoints.finish("train", state)))
    }

    /// Samples of the trained flow with their densities, and the seconds that they took.
    fn evaluate(&mut self, model: &Model) -> Result<(Evaluation, f64)> {
        let Self { config, seed, checkpoints, progress, .. } = self;
        let sites = model.flow.architecture.sites();
        let drawn = checkpoints
            .restored("evaluate", |state| Evaluation::restore(&config.evaluate, sites, state));
        let evaluation = Evaluation::draw(model, &config.evaluate, seed, drawn, |samples| {
            progress.evaluated(samples.ln_q.len() as i64);
            checkpoints.step("evaluate", || (samples.state(), Some(progress.snapshot())))
        })?;
        let seconds = checkpoints.finish("evaluate", evaluation.state());
        Ok((evaluation, seconds))
    }

    /// The chains of one sampler.
    fn sample(&mut self, model: &Model, sampler: Sampler) -> Result<Chains> {
        let Self { config, seed, checkpoints, progress, trajectories, .. } = self;
        let sites = model.flow.architecture.sites();
        let hmc = config.hmc_of(sampler);
        let kernel = Kernel::new(sampler, model, &hmc);
        let settings = (&hmc, config.controls.start);
        let stage = sampler.name();
        let saved =
            checkpoints.restored(stage, |state| Sampling::restore(&kernel, &hmc, sites, state));
        let after = |sampling: &Sampling| {
            progress.sampled(*trajectories + sampling.done);
            checkpoints.step(stage, || (sampling.state(), Some(progress.snapshot())))
        };
        let sampling = sampler::sample(sampler, &kernel, settings, seed, saved, after)?;
        checkpoints.finish(stage, sampling.state());
        *trajectories += sampling.done;
        Ok(sampling.chains(sampler, &hmc))
    }
}

/// What the model makes of the held-out fields, if it learned from any.
fn held_out(
    data: Option<&Data>,
    model: &Model,
    references: Option<&References>,
) -> Result<Numbers> {
    let ln_z = references.map(|references| -references.exact.free_energy_field);
    let held_out = data.map(|data| numbers::of_held_out(&data.judge(model, ln_z)));
    let held_out = held_out.unwrap_or_default();
    check_finite(&held_out)?;
    Ok(held_out)
}

/// What a sampler leaves in the task's file.
fn sampler_record(chains: &Chains, estimates: &Estimates, config: &Config) -> SamplerRecord {
    SamplerRecord {
        name: chains.sampler.name(),
        chains: chains.records.clone(),
        verdict: diagnostics::verdict(estimates, chains.sampler, &config.hmc),
        estimates: numbers::of_estimates(estimates),
        warmup_rule: sampler::warmup_rule(&config.hmc, chains.exchanged.as_ref()),
        states: (chains.states.draws() > 0).then(|| chains.states.clone()),
    }
}

/// The evaluation's samples as one chain with weights, and what these make of the observables.
fn reweighting(evaluation: &Evaluation, results: &Results, task: &Task) -> SamplerRecord {
    let count = evaluation.ln_q.len();
    let scalars = evaluation.scalars.t().insert_axis(Axis(1));
    let ln_weights = Array2::from_shape_vec((1, count), evaluation.ln_weights());
    let ln_weights = ln_weights.expect("one weight a sample");
    let estimates = Reweighted::new(scalars, ln_weights.view(), task.linear_size, task.temperature);
    SamplerRecord {
        name: schema::REWEIGHTING,
        estimates: numbers::of_reweighted(&estimates),
        chains: concatenate(Axis(0), &[scalars, ln_weights.view().insert_axis(Axis(0))])
            .expect("one weight a sample"),
        verdict: judgement::of_weights(results),
        warmup_rule: "independent samples of the flow, to be weighted by exp(ln_weight)".into(),
        states: None,
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
        // A line "VmHWM:     1234 kB" (proc(5)); NaN on systems that have none.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = peak.and_then(|peak| peak.trim().strip_suffix("kB")?.trim().parse().ok());
        kilobytes.map_or(f64::NAN, |kilobytes: f64| kilobytes * 1024.0)
    }
}
