//! Signals that ask a job to save what it has and to end: SIGTERM, SIGINT and SIGUSR1; and those that are to be errors, or
//! the end, instead.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGPIPE, SIGTERM, SIGUSR1};

use crate::error::{Error, Result};

/// From now on a write beyond the limit for the size of files (`ulimit -f`) is an error as on a full disk, and does not end the
/// process.
///
/// # Errors
/// The system does not let the process handle the signal.
pub fn survive_file_size_limit() -> io::Result<()> {
    // Nobody asks whether it came: the failed write tells.
    signal_hook::flag::register(libc::SIGXFSZ, Arc::default()).map(drop)
}

/// Ends the process as programs end whose reader has gone (`| head`): without a word, by SIGPIPE.
pub fn end_without_reader() -> io::Result<()> {
    signal_hook::low_level::emulate_default_handler(SIGPIPE)
}

/// Whether somebody asked this process to stop. Clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens for the signals from now on; they end the process no longer.
    ///
    /// # Errors
    /// The system does not let the process handle them.
    pub fn listen() -> Result<Self> {
        let stop = Self::default();
        for signal in [SIGTERM, SIGINT, SIGUSR1] {
            signal_hook::flag::register(signal, Arc::clone(&stop.0))
                .map_err(|error| Error::Usage(format!("cannot handle signal {signal}: {error}")))?;
        }
        Ok(stop)
    }

    /// Whether a signal has come.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks as a signal does.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
