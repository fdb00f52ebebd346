//! Ranks that work on one task together: all run the same code on the same numbers, and split the batches.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::POLL;
use super::communicator::{Communicator, Element};
use crate::error::{Error, Result};

/// Tags of what members send each other: values, or why there are none.
const VALUES: i32 = 3;
const FAILURE: i32 = 4;
/// Tag of what the leader tells the others to do.
const TASK: i32 = 6;
/// Members that compute together reach an exchange at about the same time: so long they wait with their core busy,
/// and then look again after pauses, so that none takes a core from one that is late.
const EAGER: Duration = Duration::from_millis(1);
const PAUSE: Duration = Duration::from_micros(50);
/// Assignment that means: the leader takes no further task.
const DISMISSED: f64 = -1.0;

/// The ranks of a task. Member 0 leads: it takes the tasks, keeps the clock and writes the files.
#[derive(Clone)]
pub enum Team {
    /// One rank, for which all of this is free.
    Alone,
    /// `first` is the leader's number among all ranks of the job.
    Several { members: Rc<Communicator>, first: usize },
}

/// Values, or why a member has none.
type Message<T> = std::result::Result<Vec<T>, String>;

/// What a member unwinds with when another one has failed.
struct FailedElsewhere(String);

impl Team {
    /// Teams of `size` ranks that follow each other in number; launchers put such ranks on one node as long as
    /// there is room. All ranks of `world` call this.
    pub(super) fn split(world: &Communicator, size: usize) -> Self {
        if size == 1 {
            return Self::Alone;
        }
        let team = world.rank() / size;
        Self::Several { members: Rc::new(world.split(team)), first: team * size }
    }

    /// Number of this member, from 0.
    pub fn member(&self) -> usize {
        match self {
            Self::Alone => 0,
            Self::Several { members, .. } => members.rank(),
        }
    }

    /// Number of members.
    pub fn size(&self) -> usize {
        match self {
            Self::Alone => 1,
            Self::Several { members, .. } => members.size(),
        }
    }

    /// Whether this is the member that takes tasks and writes files.
    pub fn leads(&self) -> bool {
        self.member() == 0
    }

    /// This member's part of `count` things, equal to the others' but for one.
    pub fn share(&self, count: usize) -> Range<usize> {
        let (member, size) = (self.member(), self.size());
        member * count / size..(member + 1) * count / size
    }

    /// Element by element the sum of what the members give, the same bits on all of them.
    pub fn sum(&self, values: Vec<f64>) -> Vec<f64> {
        self.exchange_or_unwind(values, |mut sum, next| {
            if sum.len() != next.len() {
                return Err(
                    "the members of a team went different ways; they need equal processors".into(),
                );
            }
            sum.iter_mut().zip(next).for_each(|(sum, value)| *sum += value);
            Ok(sum)
        })
    }

    /// The leader's values on all members; those of the others do not matter.
    pub fn leaders<T: Element>(&self, values: Vec<T>) -> Vec<T> {
        self.exchange_or_unwind(values, |first, _| Ok(first))
    }

    /// Whether things are true for any member, each for itself.
    pub fn any<const N: usize>(&self, here: [bool; N]) -> [bool; N] {
        let counts = self.sum(here.map(|here| f64::from(u8::from(here))).to_vec());
        std::array::from_fn(|index| counts[index] > 0.0)
    }

    /// Does `work` on all members, between the exchanges of which nothing may depend on the member. If it fails or
    /// panics on one of them, it ends on all, so that none waits for ever.
    ///
    /// # Errors
    /// Those of `work`, [`Error::Panic`] if it panicked here, [`Error::Teammate`] if it failed elsewhere only.
    pub fn together<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let elsewhere = |message| Err(Error::Teammate { message });
        let outcome = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(outcome) => outcome,
            Err(panic) => match panic.downcast::<FailedElsewhere>() {
                // All members have met in the exchange that told of it.
                Ok(failure) => return elsewhere(failure.0),
                Err(panic) => Err(Error::panic(panic_message(&*panic))),
            },
        };
        let told = match &outcome {
            Ok(_) => Ok(Vec::<u8>::new()),
            Err(error) => Err(self.signed(error)),
        };
        match (outcome, self.exchange(told, |first, _| Ok(first))) {
            (Ok(_), Err(message)) => elsewhere(message),
            (outcome, _) => outcome,
        }
    }

    /// An error with the rank that it happened on.
    fn signed(&self, error: &Error) -> String {
        match self {
            Self::Alone => error.to_string(),
            Self::Several { first, .. } => format!("rank {}: {error}", first + self.member()),
        }
    }

    fn exchange_or_unwind<T: Element>(
        &self,
        values: Vec<T>,
        join: impl Fn(Vec<T>, Vec<T>) -> Message<T>,
    ) -> Vec<T> {
        let joined = self.exchange(Ok(values), join);
        joined.unwrap_or_else(|message| resume_unwind(Box::new(FailedElsewhere(message))))
    }

    /// Joins what all members give, in their order, and gives the result to all; or the failure of one that has
    /// nothing to give. Up and down a binomial tree, in which each member stands for those that follow it.
    fn exchange<T: Element>(
        &self,
        own: Message<T>,
        join: impl Fn(Vec<T>, Vec<T>) -> Message<T>,
    ) -> Message<T> {
        let Self::Several { members, .. } = self else { return own };
        let (member, size) = (members.rank(), members.size());
        let mut joined = own;
        let mut distance = 1;
        while distance < size && member & distance == 0 {
            if member + distance < size {
                joined = match (joined, receive(members, member + distance)) {
                    (Ok(values), Ok(next)) => join(values, next),
                    (Err(failure), _) | (_, Err(failure)) => Err(failure),
                };
            }
            distance *= 2;
        }
        if distance < size {
            send(members, member - distance, &joined);
            joined = receive(members, member - distance);
        }
        while distance > 1 {
            distance /= 2;
            if member + distance < size {
                send(members, member + distance, &joined);
            }
        }
        joined
    }

    /// The leader tells the others which task comes next; none: no further one.
    pub(crate) fn announce(&self, task: Option<usize>) {
        let Self::Several { members, .. } = self else { return };
        let assignment = task.map_or(DISMISSED, |task| task as f64);
        (1..members.size()).for_each(|member| members.send(member, TASK, &[assignment]));
    }

    /// Works on the tasks that the leader announces.
    pub(crate) fn follow(&self, mut work: impl FnMut(usize)) {
        let Self::Several { members, .. } = self else { unreachable!("one rank leads itself") };
        loop {
            // The leader may have to wait for a task; a blocking receive would keep a core busy.
            match members.arrived(TASK).map(|message| members.receive::<f64>(message)[0]) {
                None => std::thread::sleep(POLL),
                Some(DISMISSED) => return,
                Some(task) => work(task as usize),
            }
        }
    }
}

fn send<T: Element>(members: &Communicator, to: usize, message: &Message<T>) {
    match message {
        Ok(values) => members.send(to, VALUES, values),
        Err(failure) => members.send(to, FAILURE, failure.as_bytes()),
    }
}

fn receive<T: Element>(members: &Communicator, from: usize) -> Message<T> {
    let start = Instant::now();
    let message = loop {
        match members.arrived_from(from) {
            Some(message) => break message,
            None if start.elapsed() < EAGER => std::thread::yield_now(),
            None => std::thread::sleep(PAUSE),
        }
    };
    if message.tag == VALUES {
        return Ok(members.receive(message));
    }
    Err(String::from_utf8(members.receive(message)).expect("members send text"))
}

/// First line of what a panic said; torch appends a stack of its own.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown panic");
    text.lines().next().unwrap_or_default().to_owned()
}

impl fmt::Display for Team {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => write!(formatter, "no team"),
            Self::Several { members, first } => {
                let (member, size) = (members.rank() + 1, members.size());
                write!(formatter, "{member} of {size} in the team of rank {first}")
            }
        }
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
