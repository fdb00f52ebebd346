//! Which rank this is, how ranks take tasks, and how they share one.

use std::time::Duration;

use crate::error::Result;

#[cfg_attr(not(feature = "mpi"), path = "ranks/no_communicator.rs")]
pub(crate) mod communicator;
pub mod shares;
mod team;

use communicator::Communicator;
pub use team::Team;

/// Environment variables by which launchers tell a process its rank: Open MPI, PMIx (srun), PMI (MPICH, Intel
/// MPI, Cray), MVAPICH, IBM's jsrun.
const LAUNCHERS: [&str; 6] = [
    "OMPI_COMM_WORLD_SIZE",
    "PMIX_RANK",
    "PMI_RANK",
    "PALS_RANKID",
    "MV2_COMM_WORLD_RANK",
    "JSM_NAMESPACE_RANK",
];

/// What rank 0 tells all others: a text, or its counts.
const FROM_FIRST: i32 = 5;
/// Pause between two looks for messages; short beside any task, long beside a look.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// The ranks of this job.
pub enum Ranks {
    /// One process.
    Alone,
    /// Several ranks under MPI.
    World(Communicator),
}

impl Ranks {
    /// Starts MPI where mpirun or srun started this process. Otherwise there is one rank, which needs no MPI:
    /// Open MPI would give each such process a daemon, and those of many at once on a node stumble over
    /// each other.
    ///
    /// # Errors
    /// Those of [`Communicator::start`].
    pub fn start() -> Result<Self> {
        if !launched_by_mpi() {
            return Ok(Self::Alone);
        }
        Ok(Communicator::start()?.map_or(Self::Alone, Self::World))
    }

    /// One rank that does not ask whether there are others, for the elements of job arrays.
    pub fn alone() -> Self {
        Self::Alone
    }

    /// Number of this rank, from 0.
    pub fn rank(&self) -> usize {
        match self {
            Self::Alone => 0,
            Self::World(world) => world.rank(),
        }
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        match self {
            Self::Alone => 1,
            Self::World(world) => world.size(),
        }
    }

    /// Warns where Slurm has started several processes without telling them of each other, as srun does unless it is told
    /// to serve MPI. Each is a job of one rank then, and the first speaks for all.
    pub fn warn_of_missing_mpi(&self) {
        let numbers = ["SLURM_NTASKS", "SLURM_PROCID"].map(slurm_number);
        if let [Some(tasks @ 2..), Some(0)] = numbers
            && !launched_by_mpi()
        {
            log::warn!(
                "Slurm has {tasks} processes here, but they know nothing of each other: each works on the folder as a job \
                 of one rank; to make them ranks of one job start them with `srun --mpi=pmix` (`srun --mpi=list` names what \
                 this Slurm has) or with mpirun"
            );
        }
    }

    /// Number of this rank among those of its node, from 0; alone, that of its process among those which srun started
    /// there.
    pub fn local_rank(&self) -> usize {
        match self {
            Self::Alone => slurm_number("SLURM_LOCALID").unwrap_or(0),
            Self::World(world) => world.local_rank(),
        }
    }

    /// Gives rank 0's text to all ranks.
    pub fn share(&self, text: String) -> String {
        let bytes = self.firsts(text.into_bytes());
        String::from_utf8(bytes).expect("rank 0 sent text")
    }

    /// Rank 0's values on all ranks. Those that wait for them do so without using their core.
    pub(crate) fn firsts<T: communicator::Element>(&self, values: Vec<T>) -> Vec<T> {
        let Self::World(world) = self else { return values };
        if world.rank() == 0 {
            (1..world.size()).for_each(|rank| world.send(rank, FROM_FIRST, &values));
            return values;
        }
        loop {
            match world.arrived(FROM_FIRST) {
                Some(message) => return world.receive(message),
                None => std::thread::sleep(POLL),
            }
        }
    }

    /// The team of this rank where each task has `size` ranks, a number that divides [`Ranks::size`]. All ranks
    /// call this.
    pub fn team(&self, size: usize) -> Team {
        match self {
            Self::Alone => Team::Alone,
            Self::World(world) => Team::split(world, size),
        }
    }

    /// Ends all ranks at once, for errors outside a task; alone, this process.
    pub fn abort(&self) -> ! {
        match self {
            Self::Alone => std::process::exit(1),
            Self::World(world) => world.abort(),
        }
    }
}

/// Whether a launcher has told this process its rank.
fn launched_by_mpi() -> bool {
    LAUNCHERS.iter().any(|variable| std::env::var_os(variable).is_some())
}

/// A number that Slurm gives to the processes that it starts.
fn slurm_number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}
