//! Config → tasks with costs, and the order in which ranks take them. Pure: no files, no MPI.

use crate::config::Config;
use crate::flow::Architecture;
use crate::flow::coupling::Coupling;

/// One training: a temperature, a depth and a seed on an L × L lattice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Task {
    pub linear_size: usize,
    /// T in units of J/k_B.
    pub temperature: f64,
    /// Levels of the hierarchy.
    pub depth: usize,
    pub seed: u64,
}

impl Task {
    /// Name of the task, unique within a sweep and fit for a file name.
    pub fn name(&self) -> String {
        let Self { linear_size, temperature, depth, seed } = self;
        format!("L{linear_size}_T{temperature}_d{depth}_s{seed}")
    }
}

/// All tasks of a sweep, in the order temperature, depth, seed.
pub fn tasks(config: &Config) -> Vec<Task> {
    let sweep = &config.sweep;
    let mut tasks = Vec::new();
    for &temperature in config.temperatures() {
        for &depth in &sweep.depths {
            for &seed in &sweep.seeds {
                tasks.push(Task { linear_size: sweep.linear_size, temperature, depth, seed });
            }
        }
    }
    tasks
}

/// Time that one coupling costs in a training step, however small the batch, in seconds (one CPU
/// thread; from the `train_step` bench at L = 4).
const SECONDS_PER_COUPLING: f64 = 5e-4;
/// Arithmetic rate of a training step, in FLOP/s (one CPU thread; from the `train_step` bench at
/// L = 16).
const FLOPS_PER_SECOND: f64 = 6e9;

/// Expected seconds of a task's stages on one CPU thread.
///
/// Only ratios matter to the schedule. A training step evaluates every coupling's network on every block of the
/// lattice; a gradient costs two further evaluations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    pub train: f64,
    pub evaluate: f64,
    pub hmc: f64,
}

impl Cost {
    /// The cost of `task`.
    pub fn of(config: &Config, task: &Task) -> Self {
        let architecture =
            Architecture::new(task.linear_size, task.temperature, task.depth, &config.flow);
        let passes = 1.0 + f64::from(config.flow.needs_inverse());
        let pass = |batch: i64| passes * pass_cost(&architecture, batch as f64);
        let (train, evaluate, hmc) = (&config.train, &config.evaluate, &config.hmc);
        let batches = evaluate.samples as f64 / evaluate.batch as f64;
        let leapfrogs = ((hmc.warmup + hmc.trajectories) * hmc.leapfrog_steps) as f64;
        Self {
            train: 3.0 * train.steps as f64 * pass(train.batch),
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

/// Indices of tasks with the given costs, most expensive first: the order in which free ranks take them.
pub fn longest_first(costs: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by(|&a, &b| costs[b].total_cmp(&costs[a]));
    order
}

/// What each rank would do, and when the last one ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// For each rank the indices of its tasks, in order.
    pub ranks: Vec<Vec<usize>>,
    /// Time at which the last rank ends, in the unit of the costs.
    pub makespan: f64,
    /// No schedule ends before this: the longest task, or all work evenly spread.
    pub lower_bound: f64,
}

/// Plays through what ranks do that take the longest task left whenever they are free.
pub fn schedule(costs: &[f64], ranks: usize) -> Schedule {
    let mut assigned = vec![Vec::new(); ranks];
    let mut busy_until = vec![0.0_f64; ranks];
    for task in longest_first(costs) {
        let free = (0..ranks)
            .min_by(|&a, &b| busy_until[a].total_cmp(&busy_until[b]))
            .expect("there is at least one rank");
        assigned[free].push(task);
        busy_until[free] += costs[task];
    }
    let longest = costs.iter().copied().fold(0.0, f64::max);
    Schedule {
        ranks: assigned,
        makespan: busy_until.iter().copied().fold(0.0, f64::max),
        lower_bound: longest.max(costs.iter().sum::<f64>() / ranks as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_assigned_once_and_the_makespan_respects_both_bounds() {
        let costs: Vec<f64> = (0..40).map(|i| 1.0 + f64::from(i * i % 17)).collect();
        for ranks in [1, 2, 3, 7, 64] {
            let schedule = schedule(&costs, ranks);
            let mut all: Vec<usize> = schedule.ranks.concat();
            all.sort_unstable();
            assert_eq!(all, (0..40).collect::<Vec<_>>());
            assert!(schedule.makespan >= schedule.lower_bound - 1e-12);
            // Graham's bound for longest-first scheduling.
            assert!(schedule.makespan <= schedule.lower_bound * (4.0 / 3.0) + 1e-12);
        }
    }

    #[test]
    fn deeper_and_larger_tasks_cost_more() {
        let text = "[sweep]\nname='t'\nlinear_size=16\ntemperatures=[2.0]\ndepths=[1,2,3,4]";
        let config = Config::parse(text, std::path::Path::new("t.toml")).unwrap();
        let costs: Vec<f64> =
            tasks(&config).iter().map(|task| Cost::of(&config, task).total()).collect();
        assert!(costs.windows(2).all(|pair| pair[0] < pair[1]), "{costs:?}");
    }
}
