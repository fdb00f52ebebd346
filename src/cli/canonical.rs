//! `neuralrg canonical`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::report_learned;
use crate::files::schema::CANONICAL_SCALARS;
use crate::task::canonical;

/// Train symplectic flows that find the slow collective modes of a potential energy surface, or of samples.
///
/// Prints free energies, or what the flow makes of the samples that were held out, and writes them with the
/// frequencies, the modes and the model to one file. The same command goes on after an interruption. Exit
/// status as that of `run`. Needs the program with torch.
#[derive(Debug, Args)]
pub struct Canonical {
    /// Configuration, a TOML file.
    pub config: PathBuf,
    /// HDF5 file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Learns; exit status as that of `run`.
pub fn canonical(arguments: &Canonical) -> ExitCode {
    report_learned(CANONICAL_SCALARS, |stop| {
        canonical::canonical(&arguments.config, &arguments.output, stop)
    })
}
