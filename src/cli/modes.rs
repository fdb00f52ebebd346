//! `neuralrg modes`.

use std::path::PathBuf;

use clap::Args;

use crate::task::modes;

/// Write what the modes of a canonical transformation are in given coordinates, the slowest first.
///
/// For plots, clusterings and Markov models of a trajectory in its slow coordinates. Needs the program
/// with torch.
#[derive(Debug, Args)]
pub struct Modes {
    /// File that `neuralrg canonical` has written.
    pub transformation: PathBuf,
    /// HDF5 file with `coordinates` (sample, coordinate), in the units that it learned from.
    pub data: PathBuf,
    /// Only so many of the slowest modes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub slowest: Option<u32>,
    /// HDF5 file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Evaluates and writes.
pub fn modes(arguments: &Modes) -> anyhow::Result<()> {
    let Modes { transformation, data, slowest, output } = arguments;
    Ok(modes::modes(transformation, data, slowest.map(|count| count as usize), output)?)
}
