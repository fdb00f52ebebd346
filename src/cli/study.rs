//! `neuralrg respond`, `mutual-information` and `coarse`: the studies of finished tasks.

use std::path::PathBuf;

use clap::Args;

use super::SomeTasks;
use super::output::{print, start_logging};
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::study::{Studies, Study};

/// Where studies go.
#[derive(Debug, Args)]
pub struct StudyFolder {
    /// Folder for the files instead of DIR, with a folder in it for each kind of study.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// What each latent variable stands for: mean responses E[dz/dx] to the field, at every level.
///
/// One file for each finished task in DIR/responses; `collect` links to them, and analysis/fig_4.py draws them. Those
/// that are there already are kept. The samples are states of the task's latent HMC, which runs again where the task file
/// keeps too few of them (`hmc.keep_states`).
#[derive(Debug, Args)]
pub struct Respond {
    #[command(flatten)]
    pub tasks: SomeTasks,
    #[command(flatten)]
    pub place: StudyFolder,
    /// Samples of the target, of all chains together.
    #[arg(long, default_value_t = 1024, value_parser = parse_samples)]
    pub samples: usize,
}

/// How much latent variables know of each other, and field variables: mutual information of all pairs.
///
/// One file for each finished task in DIR/mutual_information; `collect` links to them, and analysis/fig_4.py draws
/// them. Those that are there already are kept. The samples are states of the task's latent HMC, which runs again where the
/// task file keeps too few of them (`hmc.keep_states`).
#[derive(Debug, Args)]
pub struct MutualInformation {
    #[command(flatten)]
    pub tasks: SomeTasks,
    #[command(flatten)]
    pub place: StudyFolder,
    /// Samples of the target, of all chains together.
    #[arg(long, default_value_t = 5000, value_parser = parse_samples)]
    pub samples: usize,
    /// Nearest neighbours that the estimator looks at.
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub neighbours: u8,
}

/// The flow as a renormalization group: fields kept at each level, and their effective couplings.
///
/// One file for each finished task in DIR/coarse; `collect` links to them, and analysis/fig_rg.py draws them. Those
/// that are there already are kept. The samples are the flow's own.
#[derive(Debug, Args)]
pub struct Coarse {
    #[command(flatten)]
    pub tasks: SomeTasks,
    #[command(flatten)]
    pub place: StudyFolder,
    /// Samples of the flow for the effective couplings.
    #[arg(long, default_value_t = 16384, value_parser = parse_samples)]
    pub samples: usize,
}

impl Respond {
    /// Does the study.
    pub fn run(&self) -> anyhow::Result<()> {
        print_study(&self.tasks, &self.place, Study::Responses { samples: self.samples })
    }
}

impl MutualInformation {
    /// Does the study.
    pub fn run(&self) -> anyhow::Result<()> {
        let neighbours = usize::from(self.neighbours);
        let study = Study::MutualInformation { samples: self.samples, neighbours };
        print_study(&self.tasks, &self.place, study)
    }
}

impl Coarse {
    /// Does the study.
    pub fn run(&self) -> anyhow::Result<()> {
        print_study(&self.tasks, &self.place, Study::Coarse { samples: self.samples })
    }
}

/// Does the study of each task and names its file as soon as it is there.
fn print_study(tasks: &SomeTasks, place: &StudyFolder, study: Study) -> anyhow::Result<()> {
    start_logging(&Ranks::alone());
    let studies = Studies::new(&tasks.dir, &tasks.names, study, place.output.as_deref())?;
    studies.run(|path, new| print(format!("{}{}", path.display(), if new { "" } else { ": kept" })))
}

fn parse_samples(text: &str) -> Result<usize> {
    let allowed = |samples: &usize| (256..=1_000_000).contains(samples);
    let problem = || Error::Usage("must be a number of samples from 256 to 1000000".into());
    text.parse().ok().filter(allowed).ok_or_else(problem)
}
