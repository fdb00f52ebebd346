//! MPI: the only file that names it. Which rank this is, and how ranks take tasks.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

use mpi::Threading;
use mpi::collective::{CommunicatorCollectives, Root, SystemOperation};
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, Source};
use mpi::topology::{Communicator, SimpleCommunicator};

use crate::error::{Error, Result};

/// Messages from a rank that wants a task, and back.
const REQUEST: i32 = 1;
const ASSIGNMENT: i32 = 2;
/// Assignment that means: no task is left.
const NOTHING_LEFT: i64 = -1;
/// Pause between two looks for messages; short beside any task, long beside a look.
const POLL: Duration = Duration::from_millis(5);

/// The ranks of this job.
pub enum Ranks {
    /// One process.
    Alone,
    /// Several ranks under MPI.
    World { _universe: Universe, world: SimpleCommunicator },
}

impl Ranks {
    /// Starts MPI. Without mpirun or srun there is one rank.
    ///
    /// # Errors
    /// The MPI library does not let several threads communicate, which rank 0 needs to serve the others
    /// while it works itself.
    pub fn start() -> Result<Self> {
        let (universe, threading) =
            mpi::initialize_with_threading(Threading::Multiple).expect("MPI is started once");
        let world = universe.world();
        if world.size() == 1 {
            return Ok(Self::Alone);
        }
        if threading < Threading::Multiple {
            return Err(Error::Usage(
                "this MPI library offers no MPI_THREAD_MULTIPLE; use one built with it, or run \
                 one rank"
                    .into(),
            ));
        }
        Ok(Self::World { _universe: universe, world })
    }

    /// Number of this rank, from 0.
    pub fn rank(&self) -> usize {
        match self {
            Self::Alone => 0,
            Self::World { world, .. } => world.rank() as usize,
        }
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        match self {
            Self::Alone => 1,
            Self::World { world, .. } => world.size() as usize,
        }
    }

    /// Number of this rank among those of its node, from 0.
    pub fn local_rank(&self) -> usize {
        match self {
            Self::Alone => 0,
            Self::World { world, .. } => world.split_shared(world.rank()).rank() as usize,
        }
    }

    /// Gives rank 0's text to all ranks.
    pub fn share(&self, text: String) -> String {
        let Self::World { world, .. } = self else { return text };
        let root = world.process_at_rank(0);
        let mut length = text.len() as u64;
        root.broadcast_into(&mut length);
        let mut bytes = text.into_bytes();
        bytes.resize(length as usize, 0);
        // The address of an empty vector is the one that Open MPI takes for MPI_IN_PLACE.
        if length > 0 {
            root.broadcast_into(&mut bytes[..]);
        }
        String::from_utf8(bytes).expect("rank 0 sent text")
    }

    /// Calls `work` for every task of `queue` on some rank, each when it is free, in the queue's order.
    /// All ranks call this with the same queue; returns the number of `false` results on all ranks.
    pub fn distribute(&self, queue: Vec<usize>, mut work: impl FnMut(usize) -> bool) -> usize {
        let queue = Mutex::new(VecDeque::from(queue));
        let take = || queue.lock().expect("no holder of the queue panics").pop_front();
        let mut failed = 0;
        let mut work_on = |task| failed += usize::from(!work(task));
        match self {
            Self::Alone => std::iter::from_fn(take).for_each(&mut work_on),
            Self::World { world, .. } if world.rank() == 0 => {
                let others = world.size() - 1;
                std::thread::scope(|scope| {
                    scope.spawn(|| serve_or_abort(others, &take));
                    std::iter::from_fn(take).for_each(&mut work_on);
                });
            }
            Self::World { world, .. } => {
                std::iter::from_fn(|| request(world)).for_each(&mut work_on);
            }
        }
        self.sum(failed)
    }

    /// Sum of a count over all ranks. Ranks that wait do so without using their core.
    fn sum(&self, count: usize) -> usize {
        let Self::World { world, .. } = self else { return count };
        let (count, mut total) = (count as u64, 0u64);
        mpi::request::scope(|scope| {
            let mut request =
                world.immediate_all_reduce_into(scope, &count, &mut total, SystemOperation::sum());
            loop {
                match request.test() {
                    Ok(_) => break,
                    Err(pending) => request = pending,
                }
                std::thread::sleep(POLL);
            }
        });
        total as usize
    }

    /// Ends all ranks at once, for errors outside a task; alone, this process.
    pub fn abort(&self) -> ! {
        match self {
            Self::Alone => std::process::exit(1),
            Self::World { world, .. } => world.abort(1),
        }
    }
}

/// Asks rank 0 for a task.
fn request(world: &SimpleCommunicator) -> Option<usize> {
    let server = world.process_at_rank(0);
    server.send_with_tag(&world.rank(), REQUEST);
    let (assignment, _) = server.receive_with_tag::<i64>(ASSIGNMENT);
    usize::try_from(assignment).ok()
}

/// Rank 0's second thread: answers requests until every other rank was told that nothing is left. The
/// others would wait for ever if it died silently.
fn serve_or_abort(others: i32, take: &(impl Fn() -> Option<usize> + Sync)) {
    let world = SimpleCommunicator::world();
    if catch_unwind(AssertUnwindSafe(|| serve(&world, others, take))).is_err() {
        log::error!("the rank that hands out tasks failed; ending all ranks");
        world.abort(1);
    }
}

fn serve(world: &SimpleCommunicator, others: i32, take: &impl Fn() -> Option<usize>) {
    let mut waiting = others;
    while waiting > 0 {
        // A blocking receive would keep a core busy that the task of this rank needs.
        let Some(status) = world.any_process().immediate_probe_with_tag(REQUEST) else {
            std::thread::sleep(POLL);
            continue;
        };
        let rank = world.process_at_rank(status.source_rank());
        rank.receive_with_tag::<i32>(REQUEST);
        let task = take();
        waiting -= i32::from(task.is_none());
        let assignment = task.map_or(NOTHING_LEFT, |task| task as i64);
        rank.send_with_tag(&assignment, ASSIGNMENT);
    }
}
