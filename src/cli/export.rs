//! `neuralrg export`.

use std::path::PathBuf;

use clap::Args;

use crate::task::export;

/// Write a task's trained flow as a safetensors file for other programs.
///
/// It holds all couplings with their sites and weights; analysis/flow_torch.py evaluates it in PyTorch.
#[derive(Debug, Args)]
pub struct Export {
    /// File of a finished task, DIR/tasks/NAME.h5.
    pub task: PathBuf,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Writes the file.
pub fn export(arguments: &Export) -> anyhow::Result<()> {
    Ok(export::export(&arguments.task, &arguments.output)?)
}
