//! `neuralrg run`, the only command that starts MPI.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::{TO_BE_CONTINUED, report, start_logging};
use crate::error::Error;
use crate::ranks::Ranks;
use crate::signals::Stop;
use crate::sweep;

/// Run what DIR still lacks of a sweep, on all ranks of this job.
///
/// The same command starts and continues a sweep: finished tasks are kept, failed and interrupted
/// ones run again, these from their last checkpoint. A configuration that has grown does what is
/// missing: more temperatures, depths, seeds or lattices; more trajectories, samples, samplers or
/// training steps of finished tasks, which go on from where they ended. Several jobs may work on one
/// folder. SIGTERM,
/// SIGINT and SIGUSR1 make it save everything and end. Exit status: 0 all done, 1 failed, 75 stopped
/// by a signal, to be continued. Messages go to standard error; RUST_LOG sets how many (error …
/// trace).
#[derive(Debug, Args)]
pub struct Run {
    /// The sweep's configuration, a TOML file.
    pub config: PathBuf,
    /// Folder of the sweep; made if it does not exist.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Run only the task of this number (as `plan` shows it, from 0) and those that it starts from;
    /// for job arrays.
    #[arg(long, value_name = "INDEX")]
    pub task_index: Option<usize>,
    /// Evaluate and sample finished tasks again where [evaluate], [hmc] or [controls] have changed, with
    /// the flows as they are trained; the files that this replaces go to DIR/replaced.
    #[arg(long)]
    pub redo: bool,
}

/// Runs it; exit status 0, 1 or [`TO_BE_CONTINUED`].
pub fn run(arguments: &Run) -> ExitCode {
    let Run { config, output, task_index, redo } = arguments;
    let task_index = *task_index;
    let started = if task_index.is_some() { Ok(Ranks::alone()) } else { Ranks::start() };
    let ranks = match started {
        Ok(ranks) => ranks,
        Err(error) => return report(Err(error.into())),
    };
    let bars = start_logging(&ranks);
    if task_index.is_none() {
        ranks.warn_of_missing_mpi();
    }
    // After MPI, which has handlers of its own.
    let stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => {
            report(Err(error.into()));
            ranks.abort()
        }
    };
    let job = match or_abort(&ranks, || sweep::prepare(config, output, (task_index, *redo), &ranks))
    {
        Ok(job) => job,
        Err(Error::Elsewhere) => return ExitCode::FAILURE,
        Err(error) => return report(Err(error.into())),
    };
    match or_abort(&ranks, || sweep::run(job, &ranks, &stop, &bars)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ Error::Stopped) => {
            if ranks.rank() == 0 {
                report(Err(error.into()));
            }
            ExitCode::from(TO_BE_CONTINUED)
        }
        Err(Error::TasksFailed { .. }) if ranks.rank() > 0 => ExitCode::FAILURE,
        Err(error @ Error::TasksFailed { .. }) => report(Err(error.into())),
        Err(error) => {
            report(Err(error.into()));
            ranks.abort()
        }
    }
}

/// A rank that panics outside a task must not leave the others waiting for it.
fn or_abort<T>(ranks: &Ranks, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        log::error!("internal error on rank {}, see above; all ranks end", ranks.rank());
        ranks.abort()
    })
}
