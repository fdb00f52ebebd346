//! How the tasks of a sweep come to the ranks: each takes the next one from rank 0 when it is free.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::queue::{Next, Outcome, Queue};
use crate::ranks::communicator::Communicator;
use crate::ranks::{POLL, Ranks, Team};
use crate::signals::Stop;

/// Messages from a rank that wants a task, and back.
const REQUEST: i32 = 1;

const ASSIGNMENT: i32 = 2;

/// A request tells the task that the rank has worked on, if any, how that ended ([`encode`]), and whether the
/// rank was asked to stop.
type Request = [f64; 5];

const FIRST_REQUEST: Request = [-1.0, 0.0, 0.0, 0.0, 0.0];

/// The task to do, and the seconds after which to pause it; a whole number is exact in f64.
type Assignment = [f64; 2];

/// Assignment that means: no task is left.
const NOTHING_LEFT: Assignment = [-1.0, 0.0];

/// Time between two looks at what other jobs do.
const LOOK: Duration = Duration::from_secs(1);

/// What rank 0 does as tasks come and go.
pub trait Desk: Sync {
    /// Whether this job may have a task for a rank.
    fn claim(&self, task: usize, rank: usize) -> Permission;
    /// A rank's work on a task has ended.
    fn ended(&self, task: usize, rank: usize, outcome: Outcome);
    /// A task will not run, since one that it starts from failed.
    fn given_up(&self, task: usize);
}

/// What a [`Desk`] says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    Granted,
    /// Another job works on it.
    Elsewhere,
    /// Another job has done it.
    Done,
    /// Another job has failed with it.
    Failed,
}

/// Tasks of a job that were not done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Failed, or given up behind one that failed.
    pub failed: usize,
    /// Left when the job was asked to stop.
    pub unfinished: usize,
}

/// The queue of rank 0, which works itself while a second thread serves the other ranks.
struct SharedQueue<'a> {
    queue: Mutex<Queue>,
    desk: &'a dyn Desk,
    stop: &'a Stop,
    /// Where the queue's time begins.
    start: Instant,
    /// When tasks of other jobs were last looked at.
    looked: Mutex<Instant>,
}

impl SharedQueue<'_> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of the queue panics")
    }

    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// The time after which a task that is taken now is to be paused.
    fn slice(&self) -> Option<f64> {
        self.lock().slice(self.now())
    }

    /// The next task for `rank` that this job may have.
    fn take(&self, rank: usize) -> Next {
        loop {
            if self.stop.requested() {
                return Next::NothingLeft;
            }
            let next = self.lock().take(self.now());
            match next {
                Next::Task(task) => match self.desk.claim(task, rank) {
                    Permission::Granted => return next,
                    Permission::Elsewhere => self.lock().is_elsewhere(task),
                    Permission::Done => self.finished(task, true),
                    Permission::Failed => self.finished(task, false),
                },
                Next::Wait if self.is_time_to_look() && self.lock().look_again() => {}
                Next::Wait | Next::NothingLeft => return next,
            }
        }
    }

    fn is_time_to_look(&self) -> bool {
        let mut looked = self.looked.lock().expect("no holder panics");
        let due = looked.elapsed() >= LOOK;
        if due {
            *looked = Instant::now();
        }
        due
    }

    fn finished(&self, task: usize, succeeded: bool) {
        let given_up = self.lock().finished(task, succeeded);
        given_up.into_iter().for_each(|task| self.desk.given_up(task));
    }

    fn ended(&self, task: usize, rank: usize, outcome: Outcome) {
        self.desk.ended(task, rank, outcome);
        match outcome {
            Outcome::Stopped => self.lock().hand_back(task),
            Outcome::Paused { seconds, remaining } => {
                self.lock().paused(task, seconds, remaining);
            }
            Outcome::Done { seconds } => {
                self.lock().learn(task, seconds);
                self.finished(task, true);
            }
            Outcome::Failed => self.finished(task, false),
        }
    }

    /// Works in this process until nothing is left to take.
    fn work_off(&self, work: &mut impl FnMut(usize, Option<Duration>) -> Outcome) {
        loop {
            match self.take(0) {
                Next::Task(task) => {
                    let slice = self.slice().map(Duration::from_secs_f64);
                    self.ended(task, 0, work(task, slice));
                }
                Next::Wait => std::thread::sleep(POLL),
                Next::NothingLeft => return,
            }
        }
    }
}

/// Works for rank 0 until it has nothing left to do, or until it is asked to stop.
fn work_for(
    world: &Communicator,
    stop: &Stop,
    mut work: impl FnMut(usize, Option<Duration>) -> Outcome,
) {
    let mut request = FIRST_REQUEST;
    loop {
        if stop.requested() {
            request[4] = 1.0;
        }
        world.send(0, REQUEST, &request);
        // The answer may wait for the tasks of other ranks; a blocking receive would keep a core busy.
        let message = loop {
            match world.arrived(ASSIGNMENT) {
                Some(message) => break message,
                None => std::thread::sleep(POLL),
            }
        };
        let assignment: Assignment = numbers(world.receive(message));
        if assignment == NOTHING_LEFT {
            return;
        }
        let [task, slice] = assignment;
        let [outcome, seconds, remaining] =
            encode(work(task as usize, Duration::try_from_secs_f64(slice).ok()));
        request = [task, outcome, seconds, remaining, 0.0];
    }
}

/// The numbers of a message of known length.
fn numbers<const N: usize>(message: Vec<f64>) -> [f64; N] {
    message.try_into().expect("ranks of one program send as many numbers as they expect")
}

/// An outcome as numbers.
fn encode(outcome: Outcome) -> [f64; 3] {
    match outcome {
        Outcome::Failed => [0.0, 0.0, 0.0],
        Outcome::Done { seconds } => [1.0, seconds, 0.0],
        Outcome::Stopped => [2.0, 0.0, 0.0],
        Outcome::Paused { seconds, remaining } => [3.0, seconds, remaining],
    }
}

fn decode([outcome, seconds, remaining]: [f64; 3]) -> Outcome {
    match outcome as u8 {
        0 => Outcome::Failed,
        1 => Outcome::Done { seconds },
        2 => Outcome::Stopped,
        _ => Outcome::Paused { seconds, remaining },
    }
}

/// Rank 0's second thread: takes requests and answers each as soon as there is a task for it, until
/// every other rank was told that nothing is left.
fn serve(world: &Communicator, others: usize, queue: &SharedQueue) {
    let mut waiting = Vec::new();
    let mut served = 0;
    while served < others {
        // A blocking receive would keep a core busy that the task of this rank needs.
        match world.arrived(REQUEST) {
            Some(message) => {
                let rank = message.from;
                let [task, outcome, seconds, remaining, leaves] = numbers(world.receive(message));
                if task >= 0.0 {
                    queue.ended(task as usize, rank, decode([outcome, seconds, remaining]));
                }
                if leaves != 0.0 {
                    world.send(rank, ASSIGNMENT, &NOTHING_LEFT);
                    served += 1;
                } else {
                    waiting.push(rank);
                }
            }
            None => std::thread::sleep(POLL),
        }
        // The rank that asked last comes first: the file that the next task starts from may be its own.
        while let Some(&rank) = waiting.last() {
            let next = queue.take(rank);
            let assignment = match next {
                Next::Task(task) => [task as f64, queue.slice().unwrap_or(f64::INFINITY)],
                Next::Wait => break,
                Next::NothingLeft => NOTHING_LEFT,
            };
            world.send(rank, ASSIGNMENT, &assignment);
            waiting.pop();
            served += usize::from(next == Next::NothingLeft);
        }
    }
}

/// A thread of rank 0 that died silently would leave all others waiting for ever.
fn or_abort(world: &Communicator, work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        log::error!("the rank that hands out tasks failed; ending all ranks");
        world.abort();
    }
}

/// Calls `work` for every task of `queue` that `desk` lets this job have, on all ranks of some team, each
/// when it is free; on the leader with the time after which the task is to be paused, if any. All ranks call
/// this with the same queue; only rank 0 has a desk. A team that `stop` asks to leaves, and with rank 0's all
/// do.
pub fn distribute(
    (ranks, team): (&Ranks, &Team),
    queue: Queue,
    desk: Option<&dyn Desk>,
    stop: &Stop,
    mut work: impl FnMut(usize, Option<Duration>) -> Outcome,
) -> Counts {
    if !team.leads() {
        team.follow(|task| {
            work(task, None);
        });
        return share_counts(ranks, Counts::default());
    }
    let mut work = |task, slice| {
        team.announce(Some(task));
        work(task, slice)
    };
    let Some(desk) = desk else {
        let Ranks::World(world) = ranks else { unreachable!("one rank has the desk") };
        work_for(world, stop, work);
        team.announce(None);
        return share_counts(ranks, Counts::default());
    };
    let looked = Mutex::new(Instant::now());
    let start = Instant::now();
    let queue = SharedQueue { queue: Mutex::new(queue), desk, stop, start, looked };
    match ranks {
        Ranks::Alone => queue.work_off(&mut work),
        Ranks::World(world) => {
            let others = world.size() / team.size() - 1;
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let world = Communicator::of_all();
                    or_abort(&world, || serve(&world, others, &queue));
                });
                or_abort(world, || queue.work_off(&mut work));
            });
        }
    }
    team.announce(None);
    let queue = queue.lock();
    share_counts(ranks, Counts { failed: queue.failed(), unfinished: queue.unfinished() })
}

/// Rank 0's counts on all ranks.
fn share_counts(ranks: &Ranks, counts: Counts) -> Counts {
    let numbers = [counts.failed, counts.unfinished].map(|number| number as f64);
    let numbers = ranks.firsts(numbers.to_vec());
    Counts { failed: numbers[0] as usize, unfinished: numbers[1] as usize }
}
