//! What a task is expected to cost.

use super::Task;
use crate::config::Config;
use crate::flow::Architecture;
use crate::flow::coupling::Coupling;

/// Time that one coupling costs in a training step, however small the batch, in seconds (native engine,
/// one CPU thread).
const SECONDS_PER_COUPLING: f64 = 1e-5;

/// Arithmetic rate of a training step with networks of the usual width, in FLOP/s (native engine, one CPU
/// thread; from the `train_step` bench at L = 16).
const FLOPS_PER_SECOND: f64 = 1.5e10;

/// Expected seconds of a task's stages on one CPU thread of each of its ranks.
///
/// Only ratios matter to the schedule. A training step evaluates every coupling's network on
/// every row; a gradient costs two further evaluations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    pub train: f64,
    pub evaluate: f64,
    pub hmc: f64,
}

impl Cost {
    /// The cost of `task`.
    pub fn of(config: &Config, task: &Task) -> Self {
        let architecture = task.architecture(&config.flow);
        let passes = 1.0 + f64::from(config.flow.needs_inverse());
        // Ranks of one task evaluate a batch in shares; the largest share is what takes time.
        let ranks = config.run.ranks_per_task as i64;
        let pass = |batch: i64| {
            passes * pass_cost(&architecture, (batch + ranks - 1).div_euclid(ranks) as f64)
        };
        let (train, evaluate, hmc) = (&config.train, &config.evaluate, &config.hmc);
        let batches = evaluate.samples as f64 / evaluate.batch as f64;
        let leapfrogs = ((hmc.warmup + hmc.trajectories) * hmc.leapfrog_steps) as f64;
        // Batches of equally long intervals, each twice the one before.
        let intervals = f64::from(train.batch_doublings) + 1.0;
        let growth = (intervals.exp2() - 1.0) / intervals;
        let batch = (train.batch as f64 * growth) as i64;
        let steps = 3.0 * train.steps as f64 * pass(batch);
        let limit = if train.seconds > 0.0 { train.seconds } else { f64::INFINITY };
        Self {
            train: steps.min(limit),
            evaluate: batches * pass(evaluate.batch),
            hmc: 3.0 * leapfrogs * pass(hmc.chains),
        }
    }

    /// Seconds of the whole task.
    pub fn total(&self) -> f64 {
        self.train + self.evaluate + self.hmc
    }
}

/// Seconds to evaluate the flow once, without gradient, on `batch` samples.
fn pass_cost(architecture: &Architecture, batch: f64) -> f64 {
    let cost = |coupling: &Coupling| {
        let flops = 2.0 * coupling.network.multiplications_per_row() as f64;
        SECONDS_PER_COUPLING / 3.0 + batch * coupling.rows as f64 * flops / FLOPS_PER_SECOND
    };
    architecture.couplings().iter().map(cost).sum()
}
