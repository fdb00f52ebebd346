//! Signals that ask a job to save what it has and to end: SIGTERM, SIGINT and SIGUSR1.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

use crate::error::{Error, Result};

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
