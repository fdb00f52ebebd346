//! `neuralrg learn`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::report_learned;
use crate::files::schema::HELD_OUT_SCALARS;
use crate::task::learn;

/// Train one flow by maximum likelihood on pictures, such as analysis/pictures.py makes of digits.
///
/// Prints what the flow makes of the pictures that were held out, and writes it with the model and
/// generated pictures to one file. The same command goes on after an interruption. Exit status as
/// that of `run`.
#[derive(Debug, Args)]
pub struct Learn {
    /// Configuration, a TOML file.
    pub config: PathBuf,
    /// HDF5 file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Learns; exit status as that of `run`.
pub fn learn(arguments: &Learn) -> ExitCode {
    report_learned(HELD_OUT_SCALARS, |stop| {
        learn::learn(&arguments.config, &arguments.output, stop)
    })
}
