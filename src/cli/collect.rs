//! `neuralrg collect`.

use std::path::PathBuf;

use clap::Args;

use super::output::print;
use crate::sweep::collect;

/// Collect the finished tasks of a sweep into DIR/sweep.h5, and say which to trust.
#[derive(Debug, Args)]
pub struct Collect {
    /// Folder of the sweep.
    pub dir: PathBuf,
    /// The file to write instead; studies in its folder count too.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Collects, and says which tasks to trust.
pub fn collect(arguments: &Collect) -> anyhow::Result<()> {
    let collected = collect::collect(&arguments.dir, arguments.output.as_deref())?;
    let path = collected.path.display();
    let mut lines = vec![format!("{path}: {} of {} tasks", collected.finished, collected.total)];
    lines.extend(collected.pulls);
    lines.extend(collected.trust);
    lines.extend(collected.partial);
    print(lines.join("\n"))
}
