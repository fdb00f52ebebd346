//! Training: minimization of the variational free energy (Eq. 5) over the flow's parameters.

use std::time::Instant;

use tch::{Kind, Tensor};

use crate::adam::Adam;
use crate::config::TrainConfig;
use crate::engine::{Loss, Model};
use crate::error::{Error, Result};
use crate::host::to_array;
use crate::seed::{Stage, TaskSeed};

/// What is recorded at every step, in the order of the rows of [`History::values`].
pub const RECORDED: [&str; 4] = ["loss", "loss_std", "regularizer", "gradient_norm"];

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
    /// Variational free energy of the last batch with its standard error, in nats; known every
    /// `log_every` steps, since it must be copied from the device.
    pub loss: Option<(f64, f64)>,
}

/// Learning rate of step 0, 1, …: linear warm-up, times half a cosine of the training's `progress` (0 to 1)
/// down to the final fraction.
pub fn learning_rate(config: &TrainConfig, step: i64, progress: f64) -> f64 {
    let warmup = ((step + 1) as f64 / config.warmup_steps.max(1) as f64).min(1.0);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
    let floor = config.final_learning_rate_fraction;
    config.learning_rate * warmup * (floor + (1.0 - floor) * cosine)
}

/// Samples of a step at the training's `progress` (0 to 1).
pub fn batch(config: &TrainConfig, progress: f64) -> i64 {
    let intervals = f64::from(config.batch_doublings + 1);
    config.batch << ((progress * intervals) as u32).min(config.batch_doublings)
}

/// How much of the budget of steps and seconds is used, from 0 to 1.
fn progress(config: &TrainConfig, step: i64, start: Instant) -> f64 {
    let steps = step as f64 / config.steps as f64;
    if config.seconds == 0.0 {
        return steps;
    }
    steps.max(start.elapsed().as_secs_f64() / config.seconds).min(1.0)
}

/// Trains the model's flow in place. `report` is called after every step, with the model at that step.
///
/// Nothing is copied to the host but every `log_every` steps: a step with a non-finite loss or gradient
/// is skipped by a condition on the device.
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
    let (kind, device) = (model.flow.parameters.kind(), model.flow.parameters.device());
    let size = model.flow.architecture.linear_size as i64;
    let mut adam = Adam::new(&model.flow.parameters, config.weight_decay);
    let mut average = RunningMean::new(&model.flow.parameters, config.averaging);
    let records = Tensor::zeros([RECORDED.len() as i64, config.steps], (Kind::Double, device));
    let mut learning_rates = Vec::new();
    let mut skipped = Tensor::zeros([], (Kind::Int64, device));
    let start = Instant::now();

    for step in 0..config.steps {
        let progress = progress(config, step, start);
        let batch = batch(config, progress);
        seed.reseed_torch(Stage::Train, step);
        let z = Tensor::randn([batch, size, size], (kind, device));
        let loss = model.loss(&z, symmetry_weight, config.estimator);
        let norm = loss.gradient.norm();
        let finite = loss.energies.isfinite().all().logical_and(&norm.isfinite());
        let clipped = clip(&loss.gradient, &norm, config.clip_norm);
        let rate = learning_rate(config, step, progress);
        adam.step(&mut model.flow.parameters, &clipped, rate, &finite);
        average.update(&model.flow.parameters, step);
        skipped += finite.logical_not().to_kind(Kind::Int64);
        record(&records, step, &loss, &norm);
        learning_rates.push(rate);
        let done = step + 1;

        let mut known = None;
        let mut ended = progress >= 1.0;
        if done % config.log_every == 0 || done == config.steps || ended {
            check_skipped(skipped.int64_value(&[]), done, config.max_skipped_steps)?;
            let error = records.double_value(&[1, step]) / (batch as f64).sqrt();
            known = Some((records.double_value(&[0, step]), error));
            ended |= gap_estimate(&records, done, config.log_every) <= config.target_gap;
        }
        report(Progress { step: done, loss: known }, model);
        if ended {
            break;
        }
    }
    average.assign_to(&mut model.flow.parameters);
    Ok(History {
        values: to_array(&records.narrow(1, 0, learning_rates.len() as i64)),
        learning_rates,
        skipped_steps: skipped.int64_value(&[]),
    })
}

/// ½ Var(ln q - ln π) averaged over the last `window` steps: the gap in nats where q is close to π.
fn gap_estimate(records: &Tensor, done: i64, window: i64) -> f64 {
    let window = window.min(done);
    let deviations = records.select(0, 1).narrow(0, done - window, window);
    0.5 * deviations.square().mean(Kind::Double).double_value(&[])
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

    fn assign_to(self, parameters: &mut Tensor) {
        let _guard = tch::no_grad_guard();
        if let Some(mean) = self.mean {
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

/// Writes one column of the history, on the device.
fn record(records: &Tensor, step: i64, loss: &Loss, norm: &Tensor) {
    let _guard = tch::no_grad_guard();
    let energies = loss.energies.to_kind(Kind::Double);
    let mean = |values: &Tensor| values.to_kind(Kind::Double).mean(Kind::Double);
    let asymmetry = loss.asymmetry.as_ref().map_or_else(|| norm.zeros_like(), mean);
    let column = [mean(&energies), energies.std(true), asymmetry, norm.shallow_clone()]
        .map(|value| value.to_kind(Kind::Double));
    records.select(1, step).copy_(&Tensor::stack(&column, 0));
}

fn check_skipped(skipped: i64, steps: i64, allowed: i64) -> Result<()> {
    if skipped > allowed {
        return Err(Error::TrainingDiverged { skipped, steps, allowed });
    }
    Ok(())
}
