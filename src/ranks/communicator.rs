//! MPI, which is named nowhere else: a group of ranks that send each other messages.

use mpi::Threading;
use mpi::datatype::Equivalence;
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, Source};
use mpi::topology::{Color, Communicator as _, SimpleCommunicator};

use crate::error::{Error, Result};

/// What messages are made of.
pub trait Element: Equivalence {}

impl<T: Equivalence> Element for T {}

/// A message that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    pub from: usize,
    pub tag: i32,
}

/// Ranks that can reach each other, numbered from 0.
pub struct Communicator {
    ranks: SimpleCommunicator,
    /// Ends MPI when the first communicator goes.
    _universe: Option<Universe>,
}

impl Communicator {
    /// Starts MPI; none where the launcher has started one rank only.
    ///
    /// # Errors
    /// The MPI library does not let several threads communicate, which rank 0 needs to serve the others
    /// while it works itself.
    pub fn start() -> Result<Option<Self>> {
        let (universe, threading) =
            mpi::initialize_with_threading(Threading::Multiple).expect("MPI is started once");
        let ranks = universe.world();
        if ranks.size() == 1 {
            return Ok(None);
        }
        if threading < Threading::Multiple {
            return Err(Error::Usage(
                "this MPI library offers no MPI_THREAD_MULTIPLE; use one built with it, or run \
                 one rank"
                    .into(),
            ));
        }
        Ok(Some(Self { ranks, _universe: Some(universe) }))
    }

    /// All ranks, for another thread; MPI has been started.
    pub fn of_all() -> Self {
        Self { ranks: SimpleCommunicator::world(), _universe: None }
    }

    /// Groups of the ranks that give the same number. All ranks call this.
    pub fn split(&self, number: usize) -> Self {
        let ranks = self.ranks.split_by_color(Color::with_value(number as i32));
        Self { ranks: ranks.expect("each rank has a colour"), _universe: None }
    }

    /// Number of this rank.
    pub fn rank(&self) -> usize {
        self.ranks.rank() as usize
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.ranks.size() as usize
    }

    /// Number of this rank among those of its node. All ranks call this.
    pub fn local_rank(&self) -> usize {
        self.ranks.split_shared(self.ranks.rank()).rank() as usize
    }

    /// Sends a message; returns once the values may change.
    pub fn send<T: Element>(&self, to: usize, tag: i32, values: &[T]) {
        self.ranks.process_at_rank(to as i32).send_with_tag(values, tag);
    }

    /// Whether a message with this tag has arrived from any rank.
    pub fn arrived(&self, tag: i32) -> Option<Arrived> {
        let status = self.ranks.any_process().immediate_probe_with_tag(tag)?;
        Some(Arrived { from: status.source_rank() as usize, tag })
    }

    /// Whether a message with any tag has arrived from a rank.
    pub fn arrived_from(&self, from: usize) -> Option<Arrived> {
        let status = self.ranks.process_at_rank(from as i32).immediate_probe()?;
        Some(Arrived { from, tag: status.tag() })
    }

    /// The message, which it takes out.
    pub fn receive<T: Element>(&self, message: Arrived) -> Vec<T> {
        let from = self.ranks.process_at_rank(message.from as i32);
        from.receive_vec_with_tag(message.tag).0
    }

    /// Ends all ranks at once.
    pub fn abort(&self) -> ! {
        self.ranks.abort(1)
    }
}
