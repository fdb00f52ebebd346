//! Config → tasks with costs and what each starts from. Pure: no files, no MPI.

use std::collections::HashMap;

use crate::config::Config;
use crate::task::Task;
use crate::task::cost::Cost;
use crate::train::config::StartFrom;

/// A task with what the schedule needs to know of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlannedTask {
    pub task: Task,
    /// Index of the task whose trained flow it starts from; at random where there is none.
    pub parent: Option<usize>,
    /// Expected seconds on one CPU thread of each of its ranks.
    pub cost: f64,
}

/// All tasks of a sweep: its own, as [`own_tasks`] orders them, then those on smaller lattices that
/// they start from.
pub fn tasks(config: &Config) -> Vec<PlannedTask> {
    let identity =
        |task: &Task| (task.linear_size, task.temperature.to_bits(), task.depth, task.seed);
    let mut tasks = own_tasks(config);
    let mut indices: HashMap<_, usize> =
        tasks.iter().enumerate().map(|(index, task)| (identity(task), index)).collect();
    let mut planned = Vec::new();
    // Grows while it is walked, by parents that are none of the sweep's own.
    while let Some(&task) = tasks.get(planned.len()) {
        let parent = parent_of(config, &task).map(|parent| {
            *indices.entry(identity(&parent)).or_insert_with(|| {
                tasks.push(parent);
                tasks.len() - 1
            })
        });
        planned.push(PlannedTask { task, parent, cost: Cost::of(config, &task).total() });
    }
    planned
}

/// The tasks on the sweep's own lattices, in the order lattice, temperature, depth, seed.
pub fn own_tasks(config: &Config) -> Vec<Task> {
    let of_size = |&size: &usize| own_tasks_of(config, size);
    config.linear_sizes().iter().flat_map(of_size).collect()
}

/// The sizes of the sweep's own lattices: "8" or "8, 16".
pub fn sizes_in_words(config: &Config) -> String {
    let sizes: Vec<String> = config.linear_sizes().iter().map(ToString::to_string).collect();
    sizes.join(", ")
}

/// Those on one of its lattices.
pub fn own_tasks_of(config: &Config, linear_size: usize) -> Vec<Task> {
    let depths = config.depths_of(linear_size);
    let mut tasks = Vec::new();
    for &temperature in config.temperatures() {
        for &depth in &depths {
            for &seed in &config.sweep.seeds {
                tasks.push(Task { linear_size, temperature, depth, seed });
            }
        }
    }
    tasks
}

/// The task whose trained flow `task` starts from, as `train.start_from` wants it.
fn parent_of(config: &Config, task: &Task) -> Option<Task> {
    let Task { linear_size, temperature, depth, .. } = *task;
    match config.train.start_from {
        StartFrom::None | StartFrom::Sweep(_) | StartFrom::File(_) => None,
        StartFrom::HigherTemperature => {
            let higher = config.temperatures().iter().copied().filter(|&other| other > temperature);
            higher.min_by(f64::total_cmp).map(|temperature| Task { temperature, ..*task })
        }
        StartFrom::Shallower => {
            let smaller = config.depths().iter().copied().filter(|&other| other < depth);
            smaller.max().map(|depth| Task { depth, ..*task })
        }
        StartFrom::HalfSize => (linear_size > 4 && depth > 1).then(|| Task {
            linear_size: linear_size / 2,
            depth: depth - 1,
            ..*task
        }),
    }
}

/// Corrects the expected costs of all tasks by what the finished ones took (`seconds`, one for each task):
/// by the mean ratio of the finished tasks of the same lattice and depth, or of all where there is none.
pub fn learn_costs(tasks: &mut [PlannedTask], seconds: &[Option<f64>]) {
    type Sums = (f64, f64);
    let mut classes: HashMap<(usize, usize), Sums> = HashMap::new();
    let mut all: Sums = (0.0, 0.0);
    let class = |task: &Task| (task.linear_size, task.depth);
    for (planned, seconds) in tasks.iter().zip(seconds) {
        let Some(seconds) = seconds else { continue };
        for sums in [classes.entry(class(&planned.task)).or_default(), &mut all] {
            sums.0 += seconds;
            sums.1 += planned.cost;
        }
    }
    for planned in tasks {
        let (seconds, cost) = classes.get(&class(&planned.task)).copied().unwrap_or(all);
        if cost > 0.0 {
            planned.cost *= seconds / cost;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    use std::path::Path;

    pub(crate) fn parse(linear_size: usize, rest: &str) -> Config {
        let text = format!("[sweep]\nname='t'\nlinear_size={linear_size}\n{rest}");
        Config::parse(&text, Path::new("t.toml")).unwrap()
    }

    /// Names of the tasks, each with that of its parent.
    fn names(tasks: &[PlannedTask]) -> Vec<(String, Option<String>)> {
        let parent = |planned: &PlannedTask| planned.parent.map(|index| tasks[index].task.name());
        tasks.iter().map(|planned| (planned.task.name(), parent(planned))).collect()
    }

    fn starts(linear_size: usize, start_from: &str, sweep: &str) -> Vec<(String, Option<String>)> {
        let text = format!("{sweep}\n[train]\nstart_from='{start_from}'");
        names(&tasks(&parse(linear_size, &text)))
    }

    fn start(task: &str, parent: Option<&str>) -> (String, Option<String>) {
        (task.into(), parent.map(Into::into))
    }

    #[test]
    fn deeper_and_larger_tasks_cost_more() {
        let tasks = tasks(&parse(16, "temperatures=[2.0]\ndepths=[1,2,3,4]"));
        assert!(tasks.windows(2).all(|pair| pair[0].cost < pair[1].cost), "{tasks:?}");
    }

    #[test]
    fn costs_are_learned_from_finished_tasks_of_the_same_depth_or_from_all() {
        let mut tasks = tasks(&parse(16, "temperatures=[2.0,2.5]\ndepths=[1,2,3]"));
        let costs: Vec<f64> = tasks.iter().map(|task| task.cost).collect();
        // Depth 1 takes twice as long as expected at T = 2, depth 2 thrice.
        let seconds = [Some(2.0 * costs[0]), Some(3.0 * costs[1]), None, None, None, None];
        learn_costs(&mut tasks, &seconds);
        let all = (2.0 * costs[0] + 3.0 * costs[1]) / (costs[0] + costs[1]);
        for (index, ratio) in [(3, 2.0), (4, 3.0), (2, all), (5, all)] {
            assert!((tasks[index].cost / costs[index] - ratio).abs() < 1e-12, "task {index}");
        }
        learn_costs(&mut tasks, &[None; 6]);
        assert!((tasks[3].cost / costs[3] - 2.0).abs() < 1e-12, "nothing new was learned");
    }

    #[test]
    fn task_starts_from_the_next_higher_temperature_or_the_next_smaller_depth() {
        // Neither list is sorted.
        let sweep = "temperatures=[2.5,2.0,3.0]\ndepths=[3,1]";
        assert_eq!(
            starts(8, "higher-temperature", sweep),
            [
                start("L8_T2.5_d3_s1", Some("L8_T3_d3_s1")),
                start("L8_T2.5_d1_s1", Some("L8_T3_d1_s1")),
                start("L8_T2_d3_s1", Some("L8_T2.5_d3_s1")),
                start("L8_T2_d1_s1", Some("L8_T2.5_d1_s1")),
                start("L8_T3_d3_s1", None),
                start("L8_T3_d1_s1", None),
            ]
        );
        assert_eq!(
            starts(8, "shallower", "temperatures=[2.0]\ndepths=[3,1,2]\nseeds=[5,6]"),
            [
                start("L8_T2_d3_s5", Some("L8_T2_d2_s5")),
                start("L8_T2_d3_s6", Some("L8_T2_d2_s6")),
                start("L8_T2_d1_s5", None),
                start("L8_T2_d1_s6", None),
                start("L8_T2_d2_s5", Some("L8_T2_d1_s5")),
                start("L8_T2_d2_s6", Some("L8_T2_d1_s6")),
            ]
        );
        assert!(starts(8, "none", sweep).iter().all(|(_, parent)| parent.is_none()));
    }

    #[test]
    fn half_size_adds_the_smaller_lattices_behind_the_sweeps_own_tasks() {
        assert_eq!(
            starts(16, "half-size", "temperatures=[2.0]\ndepths=[1,2,4]"),
            [
                start("L16_T2_d1_s1", None),
                start("L16_T2_d2_s1", Some("L8_T2_d1_s1")),
                start("L16_T2_d4_s1", Some("L8_T2_d3_s1")),
                start("L8_T2_d1_s1", None),
                start("L8_T2_d3_s1", Some("L4_T2_d2_s1")),
                start("L4_T2_d2_s1", None),
            ]
        );
    }
}
