//! Plays through what ranks do, with the queue that they really use. Pure: no files, no MPI.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::sweep::plan::PlannedTask;
use crate::sweep::queue::{Crew, Next, Queue, critical_path};

/// Seconds that a rank takes to go on with a paused task: it builds the model and reads the checkpoint.
const RESUMPTION: f64 = 5.0;

/// What each rank would do, and when the last one ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// For each rank the indices of the tasks that begin there, in order.
    pub ranks: Vec<Vec<usize>>,
    /// Time at which the last rank ends, in the unit of the costs.
    pub makespan: f64,
    /// No schedule ends before this: the longest chain of tasks, or all work evenly spread.
    pub lower_bound: f64,
    /// How often a task was paused.
    pub pauses: usize,
}

/// Plays through what ranks do that take the tasks `missing` from a [`Queue`] whenever they are free.
pub fn schedule(tasks: &[PlannedTask], missing: &[usize], crew: Crew) -> Schedule {
    let costs: Vec<f64> = tasks.iter().map(|task| task.cost).collect();
    simulate(tasks, missing, crew, &costs)
}

/// The same where tasks turn out to take `seconds` instead of their expected costs.
pub fn simulate(tasks: &[PlannedTask], missing: &[usize], crew: Crew, seconds: &[f64]) -> Schedule {
    let mut queue = Queue::new(tasks, missing, crew);
    let mut assigned = vec![Vec::new(); crew.ranks];
    let mut left = seconds.to_vec();
    let mut pauses = 0;
    // The last is the one that was busy last.
    let mut free: Vec<usize> = (0..crew.ranks).rev().collect();
    // (time of the end, rank, task); no time is negative, so that their bits are ordered as they are.
    let mut running: BinaryHeap<Reverse<(u64, usize, usize)>> = BinaryHeap::new();
    let mut now = 0.0;
    loop {
        while let Some(&rank) = free.last()
            && let Next::Task(task) = queue.take(now)
        {
            free.pop();
            let resumed = left[task] < seconds[task];
            if !resumed {
                assigned[rank].push(task);
            }
            let slice = queue.slice(now).unwrap_or(f64::INFINITY).min(left[task]);
            left[task] -= slice;
            let end = now + slice + if resumed { RESUMPTION } else { 0.0 };
            running.push(Reverse((end.to_bits(), rank, task)));
        }
        let Some(Reverse((end, rank, task))) = running.pop() else { break };
        now = f64::from_bits(end);
        if left[task] > 0.0 {
            queue.paused(task, seconds[task] - left[task], left[task]);
            pauses += 1;
        } else {
            queue.learn(task, seconds[task]);
            queue.finished(task, true);
        }
        free.push(rank);
    }
    let timed: Vec<PlannedTask> =
        tasks.iter().zip(seconds).map(|(task, &cost)| PlannedTask { cost, ..*task }).collect();
    let work: f64 = missing.iter().map(|&task| seconds[task]).sum();
    let lower_bound = critical_path(&timed, missing).max(work / crew.ranks as f64);
    Schedule { ranks: assigned, makespan: now, lower_bound, pauses }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use rand_distr::{Distribution, LogNormal};

    use crate::sweep::plan::tasks;
    use crate::sweep::plan::tests::parse;
    use crate::sweep::queue::tests::{
        ancestors, planned, random_forest, with_pauses, without_pauses,
    };

    /// The schedule of all tasks without pauses.
    fn of_all(tasks: &[PlannedTask], ranks: usize) -> Schedule {
        schedule(tasks, &(0..tasks.len()).collect::<Vec<_>>(), without_pauses(ranks))
    }

    #[test]
    fn every_task_is_assigned_once_and_the_makespan_respects_both_bounds() {
        let tasks: Vec<PlannedTask> =
            (0..40).map(|i| planned(None, 1.0 + f64::from(i * i % 17))).collect();
        for ranks in [1, 2, 3, 7, 64] {
            let schedule = of_all(&tasks, ranks);
            let mut all: Vec<usize> = schedule.ranks.concat();
            all.sort_unstable();
            assert_eq!(all, (0..40).collect::<Vec<_>>());
            assert!(schedule.makespan >= schedule.lower_bound - 1e-12);
            // Graham's bound for longest-first scheduling.
            assert!(schedule.makespan <= schedule.lower_bound * (4.0 / 3.0) + 1e-12);
        }
    }

    #[test]
    fn random_forests_end_within_the_bound_of_any_schedule_that_never_idles_needlessly() {
        for seed in 0..100 {
            let mut random = StdRng::seed_from_u64(seed);
            let tasks = random_forest(80, &mut random);
            let chain = |task| {
                let before: f64 = ancestors(&tasks, task).map(|parent| tasks[parent].cost).sum();
                before + tasks[task].cost
            };
            let critical_path = (0..tasks.len()).map(chain).fold(0.0, f64::max);
            let work: f64 = tasks.iter().map(|task| task.cost).sum();
            for ranks in [1, 2, 5, 100] {
                let schedule = of_all(&tasks, ranks);
                let mut all: Vec<usize> = schedule.ranks.concat();
                all.sort_unstable();
                assert_eq!(all, (0..tasks.len()).collect::<Vec<_>>());
                let even = work / ranks as f64;
                assert!((schedule.lower_bound - critical_path.max(even)).abs() < 1e-9);
                assert!(schedule.makespan >= schedule.lower_bound - 1e-9);
                // Graham 1966.
                let bound = even + critical_path * (1.0 - 1.0 / ranks as f64);
                assert!(schedule.makespan <= bound + 1e-9, "seed {seed} on {ranks} ranks");
            }
        }
    }

    /// Costs off by 30 % (standard deviation, log-normal) from what the plan expects of the paper's Figure S1 and
    /// of a big sweep; what a task takes is seen only from its pace.
    #[test]
    fn makespan_with_unknown_costs_is_within_5_percent_of_the_lower_bound_from_4_tasks_a_rank_on() {
        let small = "temperatures={from=2.0,to=2.7,step=0.1}\ndepths=[1,2,3,4,5]";
        let large = "temperatures={from=1.0,to=2.999,step=0.001}\ndepths=[1,2,3,4,5]";
        let noise = LogNormal::new(0.0, 0.3).expect("a positive deviation");
        for (text, all_ranks) in
            [(small, &[4, 8, 10][..]), (large, &[4, 16, 64, 256, 1024, 2500][..])]
        {
            let tasks = tasks(&parse(32, text));
            let all: Vec<usize> = (0..tasks.len()).collect();
            for &ranks in all_ranks {
                let (mut ratios, mut without, mut pauses) = (Vec::new(), Vec::new(), 0);
                for seed in 0..20 {
                    let mut random = StdRng::seed_from_u64(seed);
                    let seconds: Vec<f64> =
                        tasks.iter().map(|task| task.cost * noise.sample(&mut random)).collect();
                    let played = simulate(&tasks, &all, with_pauses(ranks), &seconds);
                    ratios.push(played.makespan / played.lower_bound);
                    pauses += played.pauses;
                    let unpaused = simulate(&tasks, &all, without_pauses(ranks), &seconds);
                    without.push(unpaused.makespan / unpaused.lower_bound);
                }
                ratios.sort_by(f64::total_cmp);
                without.sort_by(f64::total_cmp);
                println!(
                    "{} tasks on {ranks} ranks: makespan / lower bound {:.4} (median), {:.4} (largest of 20) with \
                     {:.2} pauses a task; {:.4}, {:.4} without",
                    tasks.len(),
                    ratios[10],
                    ratios[19],
                    pauses as f64 / 20.0 / tasks.len() as f64,
                    without[10],
                    without[19]
                );
                assert!(
                    ratios[0] >= 1.0 && ratios[19] <= 1.05,
                    "{} tasks on {ranks} ranks",
                    tasks.len()
                );
            }
        }
    }

    #[test]
    fn ten_thousand_tasks_on_a_thousand_ranks_are_planned() {
        let text = "temperatures={from=1.0,to=2.999,step=0.001}\ndepths=[1,2,3,4,5]\n\
                    [train]\nstart_from='higher-temperature'";
        let tasks = tasks(&parse(32, text));
        assert_eq!(tasks.len(), 10_000);
        let chains = of_all(&tasks, 1024);
        // The five depths are five chains, and a rank that has done a task goes on with the next.
        assert_eq!(chains.ranks.iter().filter(|tasks| !tasks.is_empty()).count(), 5);
        assert!((chains.makespan / chains.lower_bound - 1.0).abs() < 1e-9);
        let forest = random_forest(10_000, &mut StdRng::seed_from_u64(1));
        assert_eq!(of_all(&forest, 1024).ranks.concat().len(), 10_000);
    }
}
