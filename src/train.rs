//! Training: minimization of the variational free energy (Eq. 5) over the flow's parameters.

use tch::{Kind, Tensor};

use crate::adam::Adam;
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::flow::Flow;
use crate::flow::symmetry::SymmetrizedFlow;
use crate::host::to_array;
use crate::ising::Target;
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

/// The loss of one batch.
#[derive(Debug)]
pub struct Loss {
    /// (batch): ln q(x) - ln π(x), whose mean is the variational free energy.
    pub energies: Tensor,
    /// (batch): ln q(x) - ln q(-x), where the symmetry is a regularizer.
    pub asymmetry: Option<Tensor>,
}

impl Loss {
    /// E[ln q - ln π] (Eq. 5) over latents z, and the regularizer's integrand (App. E).
    ///
    /// Shapes: z (batch, L, L).
    pub fn new(flow: &SymmetrizedFlow, target: &Target, z: &Tensor) -> Self {
        let draw = flow.draw(z);
        let energies = &draw.ln_q - target.ln_density(&draw.field);
        Self { energies, asymmetry: flow.asymmetry(&draw) }
    }

    /// What is minimized: mean energy + λ mean asymmetry. Shapes: ().
    pub fn objective(&self, symmetry_weight: f64) -> Tensor {
        let energy = self.energies.mean(self.energies.kind());
        match &self.asymmetry {
            Some(asymmetry) => energy + asymmetry.mean(asymmetry.kind()) * symmetry_weight,
            None => energy,
        }
    }
}

/// Learning rate of step 0, 1, …: linear warm-up, then half a cosine down to the final fraction.
pub fn learning_rate(config: &TrainConfig, step: i64) -> f64 {
    let warmup = config.warmup_steps.min(config.steps);
    if step < warmup {
        return config.learning_rate * (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / (config.steps - warmup).max(1) as f64;
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
    let floor = config.final_learning_rate_fraction;
    config.learning_rate * (floor + (1.0 - floor) * cosine)
}

/// Trains `flow` in place. `report` is called after every step.
///
/// Nothing is copied to the host but every `log_every` steps: a step with a non-finite loss or gradient
/// is skipped by a condition on the device.
///
/// # Errors
/// More than `max_skipped_steps` steps were skipped.
pub fn train(
    flow: &mut Flow,
    target: &Target,
    config: &TrainConfig,
    symmetry_weight: f64,
    seed: &TaskSeed,
    mut report: impl FnMut(Progress),
) -> Result<History> {
    let (kind, device) = (flow.parameters.kind(), flow.parameters.device());
    let size = flow.architecture.linear_size as i64;
    let mut adam = Adam::new(&flow.parameters, config.weight_decay);
    let records = Tensor::zeros([RECORDED.len() as i64, config.steps], (Kind::Double, device));
    let mut skipped = Tensor::zeros([], (Kind::Int64, device));

    for step in 0..config.steps {
        seed.reseed_torch(Stage::Train, step);
        let z = Tensor::randn([config.batch, size, size], (kind, device));
        let loss = Loss::new(&flow.bind(), target, &z);
        let objective = loss.objective(symmetry_weight);
        let gradient = Tensor::run_backward(&[&objective], &[&flow.parameters], false, false)
            .pop()
            .expect("one gradient for one parameter vector");

        let norm = gradient.norm();
        let finite = objective.isfinite().logical_and(&norm.isfinite());
        let clipped = clip(&gradient, &norm, config.clip_norm);
        adam.step(&mut flow.parameters, &clipped, learning_rate(config, step), &finite);
        skipped += finite.logical_not().to_kind(Kind::Int64);
        record(&records, step, &loss, &norm);
        let done = step + 1;

        let mut known = None;
        if done % config.log_every == 0 || done == config.steps {
            check_skipped(skipped.int64_value(&[]), done, config.max_skipped_steps)?;
            let error = records.double_value(&[1, step]) / (config.batch as f64).sqrt();
            known = Some((records.double_value(&[0, step]), error));
        }
        report(Progress { step: done, loss: known });
    }
    Ok(History {
        values: to_array(&records),
        learning_rates: (0..config.steps).map(|step| learning_rate(config, step)).collect(),
        skipped_steps: skipped.int64_value(&[]),
    })
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
