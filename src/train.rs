//! Training: minimization of the variational free energy (Eq. 5) over the flow's parameters, or of -ln q over given
//! samples: of the KL divergence in one direction or the other.

use std::time::Instant;

use tch::{Kind, Tensor};

use crate::adam::Adam;
use crate::checkpoint::{Restored, Tensors, number, read_number, tensor};
use crate::config::{Schedule, TrainConfig};
use crate::data::Data;
use crate::engine::{Loss, Model};
use crate::error::{Error, Result};
use crate::host::{normals, to_array};
use crate::random::Use;
use crate::rows::Rows;
use crate::seed::{Stage, TaskSeed};

/// What is recorded at every step, in the order of the rows of [`History::values`].
pub const RECORDED: [&str; 4] = ["loss", "loss_std", "regularizer", "gradient_norm"];

/// What a training minimizes.
#[derive(Debug, Clone, Copy)]
pub enum Objective<'a> {
    /// KL(q ‖ π), from the flow's own samples, plus this weight times the symmetry regularizer.
    ReverseKl { symmetry_weight: f64 },
    /// KL(data ‖ q), by maximum likelihood.
    ForwardKl(&'a Data),
}

/// The course of a training.
#[derive(Debug)]
pub struct History {
    /// One row for each of [`RECORDED`], one column a step.
    pub values: ndarray::Array2<f64>,
    /// Learning rate of each step.
    pub learning_rates: Vec<f64>,
    /// Steps that were skipped since loss or gradient was not finite.
    pub skipped_steps: i64,
}

/// What a training tells after each step.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Steps done.
    pub step: i64,
    /// How much of the training's budget is used, of steps or of seconds, whichever is further: from 0 to 1. What
    /// `target_gap` saves is not known before.
    pub used: f64,
    /// Mean loss of the last batch with its standard error, in nats; known every
    /// `log_every` steps, since it must be copied from the device, unless the step was skipped.
    pub loss: Option<(f64, f64)>,
}

/// Learning rate of step 0, 1, …: linear warm-up, times 1 or half a cosine of the training's `progress` (0 to 1)
/// down to the final fraction.
pub fn learning_rate(config: &TrainConfig, step: i64, progress: f64) -> f64 {
    let warmup = ((step + 1) as f64 / config.warmup_steps.max(1) as f64).min(1.0);
    let factor = match config.schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine => {
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
            let floor = config.final_learning_rate_fraction;
            floor + (1.0 - floor) * cosine
        }
    };
    config.learning_rate * warmup * factor
}

/// Samples of a step at the training's `progress` (0 to 1).
pub fn batch(config: &TrainConfig, progress: f64) -> i64 {
    let intervals = f64::from(config.batch_doublings + 1);
    config.batch << ((progress * intervals) as u32).min(config.batch_doublings)
}

/// How much of the budget so many steps and seconds use up, from 0 to 1.
fn budget_used(config: &TrainConfig, steps: i64, seconds: f64) -> f64 {
    let of_steps = steps as f64 / config.steps as f64;
    let of_seconds = if config.seconds > 0.0 { seconds / config.seconds } else { 0.0 };
    of_steps.max(of_seconds).min(1.0)
}

/// Trains the model's flow in place by its own samples. `report` is called after every step, with the model at that step.
///
/// # Errors
/// More than `max_skipped_steps` steps were skipped.
pub fn train(
    model: &mut Model,
    config: &TrainConfig,
    symmetry_weight: f64,
    seed: &TaskSeed,
    mut report: impl FnMut(Progress, &Model),
) -> Result<History> {
    let mut training = Training::new(model, config);
    let objective = Objective::ReverseKl { symmetry_weight };
    training.run(model, config, objective, seed, |_, model, progress| {
        report(progress, model);
        Ok(())
    })?;
    Ok(training.history())
}

/// Tensors of a state that only a training needs which goes on.
const IN_TRAINING: [&str; 4] = ["first_moment", "second_moment", "updates", "average"];

/// A training with all that it needs to go on after an interruption, besides the model.
pub struct Training {
    adam: Adam,
    average: RunningMean,
    /// (step, quantity), quantities as in [`RECORDED`], on the device.
    records: Rows,
    learning_rates: Vec<f64>,
    /// Samples of all batches so far.
    drawn: i64,
    /// (), integer, on the device.
    skipped: Tensor,
    /// No further step is needed.
    ended: bool,
    /// Seconds that it took before this process went on with it.
    seconds_before: f64,
    start: Instant,
}

impl Training {
    /// A training of which no step is done.
    pub fn new(model: &Model, config: &TrainConfig) -> Self {
        let device = model.flow.parameters.device();
        Self {
            adam: Adam::new(&model.flow.parameters, config.decay, config.weight_decay),
            average: RunningMean::new(&model.flow.parameters, config.averaging),
            records: Rows::new(&[RECORDED.len() as i64], device),
            learning_rates: Vec::new(),
            drawn: 0,
            skipped: Tensor::zeros([], (Kind::Int64, device)),
            ended: config.steps == 0,
            seconds_before: 0.0,
            start: Instant::now(),
        }
    }

    /// What [`Training::restore`] needs to go on, with the model's parameters.
    pub fn state(&self, model: &Model) -> Tensors {
        let mut state = Tensors::from([
            ("parameters".into(), model.flow.parameters.detach()),
            ("records".into(), self.records.all()),
            ("learning_rates".into(), Tensor::from_slice(&self.learning_rates)),
            ("drawn".into(), number(self.drawn as f64)),
            ("skipped".into(), self.skipped.shallow_clone()),
            ("ended".into(), number(f64::from(u8::from(self.ended)))),
            ("seconds".into(), number(self.seconds())),
        ]);
        state.extend(self.adam.state());
        state.extend(self.average.mean.iter().map(|mean| ("average".into(), mean.shallow_clone())));
        state
    }

    /// What remains of a training that is over: no optimizer, no average.
    pub fn final_state(&self, model: &Model) -> Tensors {
        let mut state = self.state(model);
        for name in IN_TRAINING {
            state.remove(name);
        }
        state
    }

    /// Goes on from a saved state, which also sets the model's parameters.
    ///
    /// # Errors
    /// The state lacks something; nothing has changed then.
    pub fn restore(&mut self, model: &mut Model, state: &Tensors) -> Restored<()> {
        let _guard = tch::no_grad_guard();
        let (kind, shape) = (model.flow.parameters.kind(), model.flow.parameters.size());
        let parameters = tensor(state, "parameters", kind, &shape)?;
        let learning_rates = tensor(state, "learning_rates", Kind::Double, &[-1])?;
        let steps = learning_rates.size()[0];
        let records = tensor(state, "records", Kind::Double, &[steps, RECORDED.len() as i64])?;
        let drawn = read_number(state, "drawn")? as i64;
        let skipped = tensor(state, "skipped", Kind::Int64, &[])?;
        let ended = read_number(state, "ended")? != 0.0;
        let seconds_before = read_number(state, "seconds")?;
        // A training that is over has left all of these behind.
        let goes_on = !ended || IN_TRAINING.iter().any(|name| state.contains_key(*name));
        let average = if goes_on && self.average.mean.is_some() {
            Some(tensor(state, "average", kind, &shape)?.to_device(self.skipped.device()))
        } else {
            None
        };
        if goes_on {
            self.adam.restore(state)?;
        }

        model.flow.parameters.copy_(parameters);
        self.learning_rates = to_array::<ndarray::Ix1>(learning_rates).to_vec();
        self.records = Rows::of(records, self.skipped.device());
        self.drawn = drawn;
        self.skipped.copy_(skipped);
        self.ended = ended;
        self.seconds_before = seconds_before;
        self.average.mean = average;
        Ok(())
    }

    /// Steps done.
    fn steps(&self) -> i64 {
        self.learning_rates.len() as i64
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.start.elapsed().as_secs_f64()
    }

    /// How much of the budget of steps and seconds is used, from 0 to 1, by the clock of the team's leader.
    fn progress(&self, model: &Model, config: &TrainConfig) -> f64 {
        let limited = config.seconds > 0.0;
        let seconds = if limited { model.team().leaders(vec![self.seconds()])[0] } else { 0.0 };
        budget_used(config, self.steps(), seconds)
    }

    /// Does the steps that are left. `after_step` is called after every step, when the training can be saved.
    ///
    /// The loop itself copies to the host every `log_every` steps only: a step with a non-finite loss or gradient is
    /// skipped by a condition on the device.
    ///
    /// # Errors
    /// More than `max_skipped_steps` steps were skipped, or an error of `after_step`.
    pub fn run(
        &mut self,
        model: &mut Model,
        config: &TrainConfig,
        objective: Objective,
        seed: &TaskSeed,
        mut after_step: impl FnMut(&Self, &Model, Progress) -> Result<()>,
    ) -> Result<()> {
        while !self.ended {
            let step = self.steps();
            let progress = self.progress(model, config);
            let batch = batch(config, progress);
            let loss = self.loss(model, config, objective, seed, batch);
            self.drawn += batch;
            let norm = loss.gradient.norm();
            let finite = loss.values.isfinite().all().logical_and(&norm.isfinite());
            let clipped = clip(&loss.gradient, &norm, config.clip_norm);
            let rate = learning_rate(config, step, progress);
            self.adam.step(&mut model.flow.parameters, &clipped, rate, &finite);
            self.average.update(&model.flow.parameters, step);
            self.skipped += finite.logical_not().to_kind(Kind::Int64);
            self.records.push(&record(&loss, &norm));
            self.learning_rates.push(rate);
            let done = step + 1;

            let mut known = None;
            self.ended = progress >= 1.0 || done == config.steps;
            if done % config.log_every == 0 || self.ended {
                check_skipped(self.skipped.int64_value(&[]), done, config.max_skipped_steps)?;
                let records = self.records.all();
                let error = records.double_value(&[step, 1]) / (batch as f64).sqrt();
                known = Some((records.double_value(&[step, 0]), error))
                    .filter(|(loss, _)| loss.is_finite());
                self.ended |= gap_estimate(&records, config.log_every) <= config.target_gap;
            }
            let used = if self.ended { 1.0 } else { progress.max(budget_used(config, done, 0.0)) };
            after_step(self, model, Progress { step: done, used, loss: known })?;
        }
        self.average.assign_to(&mut model.flow.parameters);
        Ok(())
    }

    /// The loss of the next batch.
    fn loss(
        &self,
        model: &Model,
        config: &TrainConfig,
        objective: Objective,
        seed: &TaskSeed,
        batch: i64,
    ) -> Loss {
        match objective {
            Objective::ReverseKl { symmetry_weight } => {
                let parameters = &model.flow.parameters;
                let size = model.flow.architecture.linear_size as i64;
                let random = seed.at(Stage::Train, self.steps());
                let options = (size, parameters.kind(), parameters.device());
                let z = normals(&random, Use::Latents, 0..batch as usize, options);
                model.loss(&z, symmetry_weight, config.estimator)
            }
            Objective::ForwardKl(data) => {
                model.likelihood_loss(&data.batch(seed, self.drawn, batch))
            }
        }
    }

    /// The course so far.
    pub fn history(&self) -> History {
        History {
            values: to_array(&self.records.all().transpose(0, 1)),
            learning_rates: self.learning_rates.clone(),
            skipped_steps: self.skipped.int64_value(&[]),
        }
    }
}

/// ½ Var(ln q - ln π) averaged over the last `window` steps, those that were skipped aside: the gap in nats where q is
/// close to π. NaN where all were skipped.
///
/// Shapes: records (step, quantity).
fn gap_estimate(records: &Tensor, window: i64) -> f64 {
    let done = records.size()[0];
    let window = window.min(done);
    let last = records.narrow(0, done - window, window);
    let [deviations, norms] = [1, 3].map(|quantity| last.select(1, quantity));
    let counted = deviations.isfinite().logical_and(&norms.isfinite());
    0.5 * deviations.masked_select(&counted).square().mean(Kind::Double).double_value(&[])
}

/// Running mean of the parameters: a ← r a + (1 - r) θ, where the rate r rises to the decay as
/// (1 + n)/(10 + n), so that short trainings are not dominated by their start.
struct RunningMean {
    mean: Option<Tensor>,
    decay: f64,
}

impl RunningMean {
    /// No mean at all where the decay is 0.
    fn new(parameters: &Tensor, decay: f64) -> Self {
        Self { mean: (decay > 0.0).then(|| parameters.detach().copy()), decay }
    }

    fn update(&mut self, parameters: &Tensor, step: i64) {
        let _guard = tch::no_grad_guard();
        if let Some(mean) = &mut self.mean {
            let steps = step as f64;
            let decay = self.decay.min((1.0 + steps) / (10.0 + steps));
            *mean = &*mean * decay + parameters * (1.0 - decay);
        }
    }

    /// Gives the mean to the parameters, which end with it.
    fn assign_to(&mut self, parameters: &mut Tensor) {
        let _guard = tch::no_grad_guard();
        if let Some(mean) = self.mean.take() {
            parameters.copy_(&mean);
        }
    }
}

/// Scales a gradient down to norm `limit` (0: no limit).
fn clip(gradient: &Tensor, norm: &Tensor, limit: f64) -> Tensor {
    if limit == 0.0 {
        return gradient.shallow_clone();
    }
    gradient * (norm.reciprocal() * limit).clamp_max(1.0)
}

/// What is recorded of a step, in the order of [`RECORDED`], on the device.
fn record(loss: &Loss, norm: &Tensor) -> Tensor {
    let _guard = tch::no_grad_guard();
    let energies = loss.values.to_kind(Kind::Double);
    let mean = |values: &Tensor| values.to_kind(Kind::Double).mean(Kind::Double);
    let asymmetry = loss.asymmetry.as_ref().map_or_else(|| norm.zeros_like(), mean);
    let row = [mean(&energies), energies.std(true), asymmetry, norm.shallow_clone()]
        .map(|value| value.to_kind(Kind::Double));
    Tensor::stack(&row, 0)
}

fn check_skipped(skipped: i64, steps: i64, allowed: i64) -> Result<()> {
    if skipped > allowed {
        return Err(Error::TrainingDiverged { skipped, steps, allowed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use tch::Device;

    use crate::config::Config;
    use crate::flow::Flow;
    use crate::plan::Task;

    /// Loss, deviation, regularizer, norm of each step.
    fn records(steps: &[[f64; 4]]) -> Tensor {
        Tensor::from_slice(steps.as_flattened()).view([-1, 4])
    }

    #[test]
    fn skipped_steps_do_not_count_in_the_estimated_gap() {
        let (fine, far) = ([1.0, 0.2, 0.0, 3.0], [1.0, 100.0, 0.0, 3.0]);
        let no_loss = [f64::NAN, f64::NAN, 0.0, f64::NAN];
        let infinite_gradient = [1.0, 100.0, 0.0, f64::INFINITY];
        let all = records(&[far, fine, no_loss, infinite_gradient, fine]);
        assert!((gap_estimate(&all, 4) - 0.02).abs() < 1e-15);
        assert!((gap_estimate(&all, 100) - 0.5 * (2.0 * 0.04 + 1e4) / 3.0).abs() < 1e-9);
        let skipped = gap_estimate(&records(&[fine, no_loss]), 1);
        assert!(skipped.is_nan(), "no step says anything: {skipped}");
    }

    #[test]
    fn budget_is_used_by_steps_or_by_seconds_whichever_is_further() {
        let limited = TrainConfig { steps: 1_000_000, seconds: 600.0, ..Default::default() };
        assert_eq!(budget_used(&limited, 6000, 60.0), 0.1);
        assert_eq!(budget_used(&limited, 500_000, 60.0), 0.5);
        assert_eq!(budget_used(&limited, 6000, 700.0), 1.0);
        let unlimited = TrainConfig { seconds: 0.0, ..limited };
        assert_eq!(budget_used(&unlimited, 6000, 60.0), 0.006);
    }

    /// What is reported after each step of a training with the given keys.
    fn reported(keys: &str) -> Vec<f64> {
        let text = "[sweep]\nname='t'\nlinear_size=4\ntemperatures=[2.5]\ndepths=[1]\n\
                    [flow]\ncouplings=1\nhidden_layers=1\nhidden_width=2\n\
                    [train]\nbatch=4\nlog_every=2\n";
        let config = Config::parse(&format!("{text}{keys}"), "t.toml".as_ref()).unwrap();
        let task = Task { linear_size: 4, temperature: 2.5, depth: 1, seed: 1 };
        let architecture = task.architecture(&config.flow);
        let seed = TaskSeed::new(&task);
        let random = seed.at(Stage::Initialize, 0);
        let flow = Flow::initialize(architecture, &random, Kind::Double, Device::Cpu);
        let mut model = Model::new(flow, &config.run);
        let mut used = Vec::new();
        train(&mut model, &config.train, 0.0, &seed, |progress, _| used.push(progress.used))
            .unwrap();
        used
    }

    #[test]
    fn each_step_reports_how_much_of_the_budget_is_used() {
        assert_eq!(reported("steps = 4"), [0.25, 0.5, 0.75, 1.0]);
        // The clock has passed the limit before the second step.
        assert_eq!(reported("steps = 1000000\nseconds = 1e-9").last(), Some(&1.0));
        assert_eq!(reported("steps = 1000000\ntarget_gap = 1e9"), [1e-6, 1.0]);
    }
}
