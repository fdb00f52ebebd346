//! What a task is expected to cost.

use super::Task;
use crate::config::Config;
use crate::engine::config::DeviceChoice;
use crate::flow::Architecture;
use crate::flow::coupling::Coupling;
use crate::sampling::config::Count;

/// What a rank computes on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Machine {
    /// Time that one coupling costs in a training step, however small the batch, in seconds.
    seconds_per_coupling: f64,
    /// Arithmetic rate of a training step with networks of the usual width, in FLOP/s.
    flops_per_second: f64,
}

/// The native engine on one thread, from the `train_step` bench at L = 16.
const CPU_THREAD: Machine = Machine { seconds_per_coupling: 1e-5, flops_per_second: 1.5e10 };

/// The engine for GPUs on one of the H100 class: what its design expects, not yet measured.
const GPU: Machine = Machine { seconds_per_coupling: 1e-5, flops_per_second: 1e13 };

/// Expected seconds of a task's stages, on one CPU thread or, where `run.device` or `run.engine` is "cuda", one GPU of each of its
/// ranks.
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
        let machine = match config.run.device_choice() {
            DeviceChoice::Cuda => GPU,
            DeviceChoice::Auto | DeviceChoice::Cpu => CPU_THREAD,
        };
        let pass = |batch: i64| {
            let share = (batch + ranks - 1).div_euclid(ranks) as f64;
            passes * machine.pass_cost(&architecture, share)
        };
        let (train, evaluate, hmc) = (&config.train, &config.evaluate, &config.hmc);
        let batches = evaluate.samples as f64 / evaluate.batch as f64;
        // Replicas take about as long as the chains.
        let ladder = if hmc.replicas == Count::Fixed(1) { 1.0 } else { 2.0 };
        let leapfrogs = ladder * ((hmc.warmup + hmc.trajectories) * hmc.leapfrog_steps) as f64;
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

    /// Which part of the whole is a task of which such parts of training, evaluation and latent HMC are to be done.
    pub fn share(&self, [train, evaluate, hmc]: [f64; 3]) -> f64 {
        (train * self.train + evaluate * self.evaluate + hmc * self.hmc) / self.total()
    }

    /// Seconds of the whole task.
    pub fn total(&self) -> f64 {
        self.train + self.evaluate + self.hmc
    }
}

impl Machine {
    /// Seconds to evaluate the flow once, without gradient, on `batch` samples.
    fn pass_cost(self, architecture: &Architecture, batch: f64) -> f64 {
        let cost = |coupling: &Coupling| {
            let flops = 2.0 * coupling.multiplications() as f64;
            let least = self.seconds_per_coupling / 3.0;
            least + batch * flops / self.flops_per_second
        };
        architecture.couplings().iter().map(cost).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only where a configuration asks for a GPU does a plan count on one.
    #[test]
    fn a_gpu_takes_the_work_off_large_lattices_and_not_the_time_of_each_coupling() {
        let cost = |linear_size: usize, run: &str| {
            let text = format!(
                "[sweep]\nname = 'cost'\nlinear_size = {linear_size}\ntemperatures = [2.3]\ndepths = [2]\n{run}"
            );
            let config = Config::parse(&text, "cost.toml".as_ref()).unwrap();
            let task = Task { linear_size, temperature: 2.3, depth: 2, seed: 1 };
            Cost::of(&config, &task).total()
        };
        let gpu = "[run]\ndevice = 'cuda'";
        assert_eq!(cost(8, ""), cost(8, "[run]\nengine = 'native'"));
        assert_eq!(cost(8, gpu), cost(8, "[run]\nengine = 'cuda'"));
        assert!(cost(64, "") > 100.0 * cost(64, gpu));
        assert!(cost(64, gpu) < 10.0 * cost(8, gpu));
    }
}
