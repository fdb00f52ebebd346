//! `neuralrg check`.

use std::path::PathBuf;

use clap::Args;

use super::output::{hint, print};
use crate::config::resolved;

/// Validate a configuration and print it with every default filled in.
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration of a sweep, of `learn` or of `canonical`, a TOML file.
    pub config: PathBuf,
}

/// Prints the configuration with every default.
pub fn check(arguments: &Check) -> anyhow::Result<()> {
    let (text, problem) = resolved(&arguments.config)?;
    hint(problem);
    print(text)
}
