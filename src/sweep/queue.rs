//! Which task a free rank does next, and for how long. Pure: no files, no MPI, no clock.
//!
//! A rank does a task to its end while there is work enough for all. Towards the end of a sweep this leaves ranks idle:
//! what a task takes is known only roughly before it runs, and one that was begun last and takes twice as long as
//! expected is waited for by all. Where tasks can be paused, no schedule need end later than max(longest task,
//! work / ranks) (McNaughton 1959), as long as no task waits for longer than its slack
//!
//! ```text
//! slack = work left / ranks - the most that the waiting task may need
//! ```
//!
//! So a task runs for half the slack of the neediest waiting one at most; then it is saved and waits itself, and
//! whichever may need most goes on (longest remaining processing time first). A task that has not run
//! may need several times what is expected of it; one that was paused needs what its pace says. While
//! much is left to do, half the slack is longer than any task, and nothing is paused.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use crate::sweep::plan::{PlannedTask, learn_costs};

/// A task that has not run yet may need this many times its expected cost: with costs known to 30 %
/// (log-normal) one in ten thousand needs more.
const UNCERTAINTY: f64 = 3.0;
/// No pause before a rank has done this share of what is left for it: warm starts leave no slack, since the work
/// behind a task is as long as the sweep.
const SHORTEST_SHARE: f64 = 0.02;

/// What a rank that asks for a task is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Do the task of this index.
    Task(usize),
    /// Ask again: what is left starts from tasks that are still running.
    Wait,
    NothingLeft,
}

/// How a rank's work on a task ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    Failed,
    /// It took `seconds`, those before pauses too.
    Done {
        seconds: f64,
    },
    /// The rank was asked to stop; what it has is saved.
    Stopped,
    /// Its time was up; what it has is saved. It took `seconds` so far, and needs about as many more as `remaining` says.
    Paused {
        seconds: f64,
        remaining: f64,
    },
}

/// The ranks that take tasks from a queue, of each team one, and whether they may pause them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crew {
    pub ranks: usize,
    /// Seconds for which a task runs at least before it is paused; none: tasks are never paused.
    pub shortest_slice: Option<f64>,
}

/// Hands out tasks to ranks, none before the one that it starts from is done, and of those that can
/// start the one with the longest chain of tasks still to come.
#[derive(Debug)]
pub struct Queue {
    /// All tasks, with costs learned from those that ran.
    tasks: Vec<PlannedTask>,
    crew: Crew,
    /// For each task those that start from it.
    dependents: Vec<Vec<usize>>,
    /// For each task the cost of the most expensive chain that starts from it.
    behind: Vec<f64>,
    /// Tasks that can start now, with the bits of their needs, which are ordered as these are (none is negative).
    available: BinaryHeap<(u64, Reverse<usize>)>,
    /// Tasks that other jobs work on.
    elsewhere: Vec<usize>,
    /// Tasks that were handed out, and when.
    running: Vec<(usize, f64)>,
    /// Seconds that the tasks took, or take by the pace that they had when they were paused.
    seconds: Vec<Option<f64>>,
    /// Seconds that those which were paused still need.
    remaining: Vec<Option<f64>>,
    /// Number of tasks of which this job has learned what they take.
    learned: usize,
    /// Tasks that were neither handed out nor given up, and the seconds that they need.
    untaken: BTreeSet<usize>,
    untaken_work: f64,
    failed: usize,
}

impl Queue {
    /// All tasks of `missing` (indices into `tasks`) are to be done by `crew`, the others are done.
    pub fn new(tasks: &[PlannedTask], missing: &[usize], crew: Crew) -> Self {
        let (dependents, ready) = dependents(tasks, missing);
        let mut seconds: Vec<Option<f64>> = tasks.iter().map(|task| Some(task.cost)).collect();
        missing.iter().for_each(|&task| seconds[task] = None);
        let mut queue = Self {
            behind: Vec::new(),
            tasks: tasks.to_vec(),
            crew,
            dependents,
            available: ready.iter().map(|&task| (0, Reverse(task))).collect(),
            elsewhere: Vec::new(),
            running: Vec::new(),
            seconds,
            remaining: vec![None; tasks.len()],
            learned: 0,
            untaken: missing.iter().copied().collect(),
            untaken_work: 0.0,
            failed: 0,
        };
        queue.order();
        queue
    }

    /// Orders the tasks that can start by what they need, with all behind them.
    fn order(&mut self) {
        self.untaken_work = self.untaken.iter().map(|&task| self.expected(task)).sum();
        let chains = remaining_chains(&self.tasks, &self.dependents);
        self.behind =
            chains.iter().zip(&self.tasks).map(|(chain, task)| chain - task.cost).collect();
        for (_, Reverse(task)) in std::mem::take(&mut self.available) {
            self.offer(task);
        }
    }

    /// Lets a task be taken.
    fn offer(&mut self, task: usize) {
        // Without pauses nothing is measured with which an expected cost would be compared.
        let most = if self.slices() { UNCERTAINTY } else { 1.0 };
        let need = self.remaining[task].unwrap_or(most * self.tasks[task].cost);
        self.available.push(((need + self.behind[task]).to_bits(), Reverse(task)));
    }

    /// Whether tasks are paused at all.
    fn slices(&self) -> bool {
        self.crew.ranks > 1 && self.crew.shortest_slice.is_some()
    }

    /// Seconds that a task still needs, as far as is known.
    fn expected(&self, task: usize) -> f64 {
        self.remaining[task].unwrap_or(self.tasks[task].cost)
    }

    /// The next task for a rank that is free at the time `now`, in seconds.
    pub fn take(&mut self, now: f64) -> Next {
        match self.available.pop() {
            Some((_, Reverse(task))) => {
                self.untaken.remove(&task);
                self.untaken_work -= self.expected(task);
                self.running.push((task, now));
                Next::Task(task)
            }
            None if !self.untaken.is_empty() => Next::Wait,
            None => Next::NothingLeft,
        }
    }

    /// Seconds for which a task that is taken now runs before it is paused; none: it runs to its end.
    pub fn slice(&self, now: f64) -> Option<f64> {
        let shortest = self.crew.shortest_slice.filter(|_| self.slices())?;
        let &(most, _) = self.available.peek()?;
        let running = self.running.iter().map(|&(task, since)| self.expected(task) - (now - since));
        let work = self.untaken_work + running.map(|left| left.max(0.0)).sum::<f64>();
        let left = work / self.crew.ranks as f64;
        let slack = left - f64::from_bits(most);
        Some((slack / 2.0).max(SHORTEST_SHARE * left).max(shortest))
    }

    /// A task that was taken is not done here after all, or not to its end; some rank may take it.
    pub fn hand_back(&mut self, task: usize) {
        self.untake(task);
        self.offer(task);
    }

    /// A task that was taken is another job's; it waits for [`Queue::look_again`].
    pub fn is_elsewhere(&mut self, task: usize) {
        self.untake(task);
        self.elsewhere.push(task);
    }

    fn untake(&mut self, task: usize) {
        self.running.retain(|&(other, _)| other != task);
        self.untaken.insert(task);
        self.untaken_work += self.expected(task);
    }

    /// Makes the tasks of other jobs available, to see whether these still have them. Returns whether there
    /// are any.
    pub fn look_again(&mut self) -> bool {
        let tasks = std::mem::take(&mut self.elsewhere);
        tasks.iter().for_each(|&task| self.offer(task));
        !tasks.is_empty()
    }

    /// Number of tasks that nobody has done, nor given up.
    pub fn unfinished(&self) -> usize {
        self.untaken.len()
    }

    /// A task that was taken was paused after `seconds` in all; by its pace it needs `remaining` more.
    pub fn paused(&mut self, task: usize, seconds: f64, remaining: f64) {
        self.remaining[task] = Some(remaining);
        self.learn(task, seconds + remaining);
        self.hand_back(task);
    }

    /// It is known that a task takes `seconds`, which tells something of the others like it. Costs are learned
    /// anew when the number of such tasks has doubled.
    pub fn learn(&mut self, task: usize, seconds: f64) {
        if self.seconds[task].replace(seconds).is_some() {
            return;
        }
        self.learned += 1;
        if self.learned.is_power_of_two() {
            learn_costs(&mut self.tasks, &self.seconds);
            self.order();
        }
    }

    /// A task that was handed out is done, or has failed. Returns the tasks that are given up with it,
    /// each behind the one that it starts from.
    pub fn finished(&mut self, task: usize, succeeded: bool) -> Vec<usize> {
        self.running.retain(|&(other, _)| other != task);
        let mut next = self.dependents[task].clone();
        if succeeded {
            next.into_iter().for_each(|task| self.offer(task));
            return Vec::new();
        }
        with_descendants(&self.dependents, &mut next);
        for task in &next {
            self.untaken.remove(task);
            self.untaken_work -= self.expected(*task);
        }
        self.failed += 1 + next.len();
        next
    }

    /// Number of tasks that failed or were given up.
    pub fn failed(&self) -> usize {
        self.failed
    }
}

/// For each task those of `missing` that start from it, and those of `missing` that can start at once.
fn dependents(tasks: &[PlannedTask], missing: &[usize]) -> (Vec<Vec<usize>>, Vec<usize>) {
    let mut is_missing = vec![false; tasks.len()];
    missing.iter().for_each(|&task| is_missing[task] = true);
    let mut dependents = vec![Vec::new(); tasks.len()];
    let mut ready = Vec::new();
    for &task in missing {
        match tasks[task].parent.filter(|&parent| is_missing[parent]) {
            Some(parent) => dependents[parent].push(task),
            None => ready.push(task),
        }
    }
    (dependents, ready)
}

/// Adds all tasks that start, directly or not, from those in `tasks`, parents before children.
fn with_descendants(dependents: &[Vec<usize>], tasks: &mut Vec<usize>) {
    let mut walked = 0;
    while let Some(&task) = tasks.get(walked) {
        tasks.extend(&dependents[task]);
        walked += 1;
    }
}

/// For each task its cost and that of the most expensive chain of tasks that must follow it.
fn remaining_chains(tasks: &[PlannedTask], dependents: &[Vec<usize>]) -> Vec<f64> {
    let starts_from_another: BTreeSet<usize> = dependents.iter().flatten().copied().collect();
    let mut order: Vec<usize> =
        (0..tasks.len()).filter(|task| !starts_from_another.contains(task)).collect();
    with_descendants(dependents, &mut order);
    let mut chains = vec![0.0; tasks.len()];
    for &task in order.iter().rev() {
        let longest = dependents[task].iter().map(|&next| chains[next]).fold(0.0, f64::max);
        chains[task] = tasks[task].cost + longest;
    }
    chains
}

/// Cost of the most expensive chain of the tasks `missing`.
pub fn critical_path(tasks: &[PlannedTask], missing: &[usize]) -> f64 {
    let chains = remaining_chains(tasks, &dependents(tasks, missing).0);
    missing.iter().map(|&task| chains[task]).fold(0.0, f64::max)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use crate::task::Task;

    pub(crate) fn planned(parent: Option<usize>, cost: f64) -> PlannedTask {
        let task = Task { linear_size: 4, temperature: 2.0, depth: 1, seed: 1 };
        PlannedTask { task, parent, cost }
    }

    pub(crate) fn without_pauses(ranks: usize) -> Crew {
        Crew { ranks, shortest_slice: None }
    }

    pub(crate) fn with_pauses(ranks: usize) -> Crew {
        Crew { ranks, shortest_slice: Some(60.0) }
    }

    /// Each task starts from an earlier one or at random, in shuffled order.
    pub(crate) fn random_forest(count: usize, random: &mut StdRng) -> Vec<PlannedTask> {
        let mut names: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            names.swap(i, random.random_range(0..=i));
        }
        let mut tasks = vec![planned(None, 0.0); count];
        for i in 0..count {
            let parent = (i > 0 && random.random_bool(0.8)).then(|| random.random_range(0..i));
            tasks[names[i]] =
                planned(parent.map(|parent| names[parent]), random.random_range(0.1..10.0));
        }
        tasks
    }

    pub(crate) fn ancestors(tasks: &[PlannedTask], task: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(tasks[task].parent, |&parent| tasks[parent].parent)
    }

    #[test]
    fn longest_remaining_chain_is_taken_first() {
        // 0 → 1 → 2 is the longest chain (7), then 4 (6), then 3 → 5 (5).
        let tasks = [
            planned(None, 1.0),
            planned(Some(0), 2.0),
            planned(Some(1), 4.0),
            planned(None, 1.5),
            planned(None, 6.0),
            planned(Some(3), 3.5),
        ];
        let mut queue = Queue::new(&tasks, &[0, 1, 2, 3, 4, 5], without_pauses(1));
        assert_eq!(critical_path(&tasks, &[0, 1, 2, 3, 4, 5]), 7.0);
        assert_eq!([queue.take(0.0), queue.take(0.0), queue.take(0.0)], [0, 4, 3].map(Next::Task));
        assert_eq!(queue.take(0.0), Next::Wait);
        assert!(queue.finished(3, true).is_empty());
        assert!(queue.finished(0, true).is_empty());
        // What remains behind 1 is 6, behind 5 is 3.5.
        assert_eq!([queue.take(0.0), queue.take(0.0)], [1, 5].map(Next::Task));
        assert_eq!(queue.take(0.0), Next::Wait);
        queue.finished(1, true);
        assert_eq!([queue.take(0.0), queue.take(0.0)], [Next::Task(2), Next::NothingLeft]);
    }

    #[test]
    fn parents_that_are_done_already_count_as_done() {
        let tasks = [planned(None, 1.0), planned(Some(0), 1.0), planned(Some(1), 1.0)];
        let mut queue = Queue::new(&tasks, &[0, 2], without_pauses(1));
        assert_eq!([queue.take(0.0), queue.take(0.0)], [0, 2].map(Next::Task));
        assert_eq!(queue.take(0.0), Next::NothingLeft);
        assert_eq!(Queue::new(&tasks, &[], without_pauses(1)).take(0.0), Next::NothingLeft);
    }

    #[test]
    fn failure_gives_up_every_task_that_starts_from_the_failed_one_and_no_other() {
        let tasks =
            [None, Some(0), Some(1), Some(1), None, Some(4)].map(|parent| planned(parent, 1.0));
        let mut queue = Queue::new(&tasks, &[0, 1, 2, 3, 4, 5], without_pauses(1));
        assert_eq!([queue.take(0.0), queue.take(0.0)], [0, 4].map(Next::Task));
        assert_eq!(queue.finished(0, false), [1, 2, 3]);
        assert_eq!(queue.take(0.0), Next::Wait);
        queue.finished(4, true);
        assert_eq!([queue.take(0.0), queue.take(0.0)], [Next::Task(5), Next::NothingLeft]);
        assert!(queue.finished(5, false).is_empty());
        assert_eq!(queue.failed(), 5);
    }

    /// Ranks that end in random order, with tasks that fail at random.
    #[test]
    fn each_task_is_handed_out_behind_its_parent_or_given_up_behind_a_failure() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let tasks = random_forest(60, &mut random);
            let all: Vec<usize> = (0..tasks.len()).collect();
            let mut queue = Queue::new(&tasks, &all, without_pauses(1));
            let ranks = random.random_range(1..8);
            let (mut running, mut given_up) = (Vec::new(), Vec::new());
            let mut succeeded: Vec<Option<bool>> = vec![None; tasks.len()];
            loop {
                let next = queue.take(0.0);
                if let Next::Task(task) = next {
                    assert!(succeeded[task].is_none() && !running.contains(&task));
                    assert!(ancestors(&tasks, task).all(|parent| succeeded[parent] == Some(true)));
                    running.push(task);
                }
                if next == Next::NothingLeft && running.is_empty() {
                    break;
                }
                if running.len() == ranks || !matches!(next, Next::Task(_)) {
                    let task = running.swap_remove(random.random_range(0..running.len()));
                    let success = random.random_bool(0.9);
                    succeeded[task] = Some(success);
                    given_up.extend(queue.finished(task, success));
                }
            }
            for (task, outcome) in succeeded.iter().enumerate() {
                let failed = |parent: usize| succeeded[parent] == Some(false);
                let doomed = ancestors(&tasks, task).any(failed);
                assert_eq!(outcome.is_none(), doomed, "seed {seed}, task {task}");
                let times = given_up.iter().filter(|&&given_up| given_up == task).count();
                assert_eq!(times, usize::from(doomed), "seed {seed}, task {task}");
            }
            assert_eq!(
                queue.failed(),
                succeeded.iter().filter(|&&done| done != Some(true)).count()
            );
        }
    }

    #[test]
    fn no_task_is_paused_while_all_that_wait_have_time_enough() {
        // Twenty hours for each rank, and no task may need more than three.
        let tasks = [planned(None, 3600.0); 40];
        let all: Vec<usize> = (0..40).collect();
        let slice = |crew| {
            let mut queue = Queue::new(&tasks, &all, crew);
            queue.take(0.0);
            queue.slice(0.0)
        };
        assert_eq!(slice(with_pauses(2)), Some(8.5 * 3600.0));
        // Two hours for each rank, of which a share must pass.
        assert_eq!(slice(with_pauses(20)), Some(0.02 * 2.0 * 3600.0));
        assert_eq!(slice(Crew { ranks: 20, shortest_slice: Some(200.0) }), Some(200.0));
        assert_eq!(slice(with_pauses(1)), None);
        assert_eq!(slice(without_pauses(2)), None);
    }

    #[test]
    fn task_runs_for_half_the_slack_of_the_one_that_may_need_most() {
        let tasks = [planned(None, 1000.0); 12];
        let mut queue = Queue::new(&tasks, &(0..12).collect::<Vec<_>>(), with_pauses(2));
        assert_eq!([queue.take(0.0), queue.take(0.0)], [0, 1].map(Next::Task));
        // 10 × 1000 s are left, and 400 of both that run; one that waits may need 3000.
        assert_eq!(queue.slice(600.0), Some((5400.0 - 3000.0) / 2.0));
        // Half of what was expected: task 1 should have ended.
        queue.learn(0, 500.0);
        queue.finished(0, true);
        assert_eq!(queue.take(600.0), Next::Task(2));
        assert_eq!(queue.slice(600.0), Some((2500.0 - 1500.0) / 2.0));
        // The two tasks that are known take 760 s instead of 1000, so that the others are expected to take 380.
        queue.paused(2, 60.0, 200.0);
        assert_eq!(queue.take(600.0), Next::Task(3));
        let left = (8.0 * 380.0 + 380.0 + 200.0) / 2.0;
        assert!((queue.slice(600.0).unwrap() - (left - 3.0 * 380.0) / 2.0).abs() < 1e-9);
        while let Next::Task(_) = queue.take(600.0) {}
        assert_eq!(queue.slice(600.0), None, "no task waits");
    }

    #[test]
    fn paused_task_waits_behind_those_that_may_need_more() {
        // Task 1 may need 3 × 90, and 50 come behind it.
        let tasks = [planned(None, 1000.0), planned(None, 90.0), planned(Some(1), 50.0)];
        for (remaining, order) in [(321.0, [0, 1]), (319.0, [1, 0])] {
            let mut queue = Queue::new(&tasks, &[0, 1, 2], with_pauses(2));
            assert_eq!(queue.take(0.0), Next::Task(0));
            queue.paused(0, 1000.0 - remaining, remaining);
            assert_eq!([queue.take(0.0), queue.take(0.0)], order.map(Next::Task));
        }
    }
}
