//! `neuralrg sample`.

use std::path::PathBuf;

use clap::Args;

use crate::task::sample;

/// Draw samples of a task's trained flow, with ln q and ln π of each, into an HDF5 file.
///
/// Each is independent of the others. The first n of them are the same however many are drawn.
#[derive(Debug, Args)]
pub struct Sample {
    /// File of a finished task, DIR/tasks/NAME.h5.
    pub task: PathBuf,
    /// Number of samples; while they are written each takes up to 64 L² bytes of memory.
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub samples: u32,
    /// Seed of the random numbers.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Draws and writes the samples.
pub fn sample(arguments: &Sample) -> anyhow::Result<()> {
    let Sample { task, samples, seed, output } = arguments;
    Ok(sample::sample(task, *samples as usize, *seed, output)?)
}
