//! MPI: the only file that names it. Which rank this is, and how ranks take tasks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use mpi::Threading;
use mpi::collective::Root;
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, Source};
use mpi::topology::{Communicator, SimpleCommunicator};

use crate::error::{Error, Result};
use crate::plan::{Next, Queue};

/// Messages from a rank that wants a task, and back.
const REQUEST: i32 = 1;
const ASSIGNMENT: i32 = 2;
/// A request tells the task that the rank has finished, if any, and whether it succeeded.
type Request = [i64; 2];
const FIRST_REQUEST: Request = [-1, 0];
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

    /// Calls `work` for every task of `queue` on some rank, each when it is free, and `give_up` on rank 0
    /// for those that are given up since `work` returned `false` for one that they start from. All
    /// ranks call this with the same queue; returns the number of tasks that failed or were given up.
    pub fn distribute(
        &self,
        queue: Queue,
        work: impl FnMut(usize) -> bool,
        give_up: impl Fn(usize) + Sync,
    ) -> usize {
        let queue = SharedQueue { queue: Mutex::new(queue), give_up: &give_up };
        match self {
            Self::Alone => queue.work_off(work),
            Self::World { world, .. } if world.rank() == 0 => {
                let others = world.size() - 1;
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        let world = SimpleCommunicator::world();
                        or_abort(&world, || serve(&world, others, &queue));
                    });
                    or_abort(world, || queue.work_off(work));
                });
            }
            Self::World { world, .. } => work_for(world, work),
        }
        self.share_count(queue.lock().failed())
    }

    /// Rank 0's count on all ranks. Those that wait for it do so without using their core.
    fn share_count(&self, count: usize) -> usize {
        let Self::World { world, .. } = self else { return count };
        let mut count = count as u64;
        mpi::request::scope(|scope| {
            let root = world.process_at_rank(0);
            let mut request = root.immediate_broadcast_into(scope, &mut count);
            loop {
                match request.test() {
                    Ok(_) => break,
                    Err(pending) => request = pending,
                }
                std::thread::sleep(POLL);
            }
        });
        count as usize
    }

    /// Ends all ranks at once, for errors outside a task; alone, this process.
    pub fn abort(&self) -> ! {
        match self {
            Self::Alone => std::process::exit(1),
            Self::World { world, .. } => world.abort(1),
        }
    }
}

/// The queue of rank 0, which works itself while a second thread serves the other ranks.
struct SharedQueue<'a> {
    queue: Mutex<Queue>,
    give_up: &'a (dyn Fn(usize) + Sync),
}

impl SharedQueue<'_> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of the queue panics")
    }

    fn finished(&self, task: usize, succeeded: bool) {
        let given_up = self.lock().finished(task, succeeded);
        given_up.into_iter().for_each(self.give_up);
    }

    /// Works in this process until nothing is left to take.
    fn work_off(&self, mut work: impl FnMut(usize) -> bool) {
        loop {
            let next = self.lock().take();
            match next {
                Next::Task(task) => self.finished(task, work(task)),
                Next::Wait => std::thread::sleep(POLL),
                Next::NothingLeft => return,
            }
        }
    }
}

/// Works for rank 0 until it has nothing left to do.
fn work_for(world: &SimpleCommunicator, mut work: impl FnMut(usize) -> bool) {
    let server = world.process_at_rank(0);
    let mut request = FIRST_REQUEST;
    loop {
        server.send_with_tag(&request[..], REQUEST);
        // The answer may wait for the tasks of other ranks; a blocking receive would keep a core busy.
        while server.immediate_probe_with_tag(ASSIGNMENT).is_none() {
            std::thread::sleep(POLL);
        }
        let (assignment, _) = server.receive_with_tag::<i64>(ASSIGNMENT);
        let Ok(task) = usize::try_from(assignment) else { return };
        request = [assignment, i64::from(work(task))];
    }
}

/// Rank 0's second thread: takes requests and answers each as soon as there is a task for it, until
/// every other rank was told that nothing is left.
fn serve(world: &SimpleCommunicator, others: i32, queue: &SharedQueue) {
    let mut waiting = Vec::new();
    let mut served = 0;
    while served < others {
        // A blocking receive would keep a core busy that the task of this rank needs.
        match world.any_process().immediate_probe_with_tag(REQUEST) {
            Some(status) => {
                let rank = world.process_at_rank(status.source_rank());
                let mut request = FIRST_REQUEST;
                rank.receive_into_with_tag(&mut request[..], REQUEST);
                let [task, succeeded] = request;
                if let Ok(task) = usize::try_from(task) {
                    queue.finished(task, succeeded != 0);
                }
                waiting.push(rank);
            }
            None => std::thread::sleep(POLL),
        }
        // The rank that asked last comes first: the file that the next task starts from may be its own.
        while let Some(rank) = waiting.last() {
            let next = queue.lock().take();
            let assignment = match next {
                Next::Task(task) => task as i64,
                Next::Wait => break,
                Next::NothingLeft => NOTHING_LEFT,
            };
            rank.send_with_tag(&assignment, ASSIGNMENT);
            waiting.pop();
            served += i32::from(next == Next::NothingLeft);
        }
    }
}

/// A thread of rank 0 that died silently would leave all others waiting for ever.
fn or_abort(world: &SimpleCommunicator, work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        log::error!("the rank that hands out tasks failed; ending all ranks");
        world.abort(1);
    }
}
