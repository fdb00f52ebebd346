//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::error::{Error, Result};

/// Trains hierarchical normalizing flows for the dual Ising model over temperature and depth.
///
/// A sweep is described by one TOML file and lives in one folder. `run` starts it and continues it,
/// alone or under mpirun or srun; `collect` makes one HDF5 file of it for the scripts in analysis/.
#[derive(Debug, Parser)]
#[command(name = "neuralrg", version = crate::VERSION)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run what DIR still lacks of a sweep, on all ranks of this job.
    ///
    /// The same command starts and continues a sweep: finished tasks are kept, failed and interrupted
    /// ones run again, these from their last checkpoint. Several jobs may work on one folder. SIGTERM,
    /// SIGINT and SIGUSR1 make it save everything and end. Exit status: 0 all done, 1 failed, 75 stopped
    /// by a signal, to be continued. Messages go to standard error; RUST_LOG sets how many (error …
    /// trace).
    Run {
        /// The sweep's configuration, a TOML file.
        config: PathBuf,
        /// Folder of the sweep; made if it does not exist.
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        /// Run only the task of this number (as `plan` shows it, from 0) and those that it starts from;
        /// for job arrays.
        #[arg(long, value_name = "INDEX")]
        task_index: Option<usize>,
    },
    /// Show the tasks of a sweep, their costs and which rank would take which. Runs nothing.
    ///
    /// With run.ranks_per_task = k each task is taken by k ranks that follow each other in number.
    Plan {
        /// The sweep's configuration, a TOML file.
        config: PathBuf,
        /// Number of ranks [default: run.ranks_per_task, which must divide it].
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        ranks: Option<u32>,
        /// Folder of the sweep: plan only what it lacks, with costs learned from its finished tasks.
        #[arg(short, long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Show each task of a sweep: its state, step, gap and expected end.
    ///
    /// Below the table problems are told by their kinds; --task tells all of one task. Of finished tasks only the beginning of
    /// their files is read: what is damaged behind it is found by `run` and `collect`.
    Status {
        #[command(flatten)]
        tasks: SomeTasks,
        /// Print one JSON object instead of the table.
        #[arg(long)]
        json: bool,
        /// Print again every so many seconds, until every task is done or has failed.
        #[arg(
            long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5",
            value_parser = parse_seconds
        )]
        watch: Option<f64>,
    },
    /// Collect the finished tasks of a sweep into DIR/sweep.h5, and say which to trust.
    Collect {
        /// Folder of the sweep.
        dir: PathBuf,
        /// The file to write instead; studies in its folder count too.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// What each latent variable stands for: mean responses E[dz/dx] to the field, at every level.
    ///
    /// One file for each finished task in DIR/responses; `collect` links to them, and analysis/fig_4.py draws them. Those
    /// that are there already are kept. The samples are states of the task's latent HMC, which runs again.
    Respond {
        #[command(flatten)]
        tasks: SomeTasks,
        #[command(flatten)]
        place: StudyFolder,
        /// Samples of the target, of all chains together.
        #[arg(long, default_value_t = 1024, value_parser = parse_samples)]
        samples: usize,
    },
    /// How much latent variables know of each other, and field variables: mutual information of all pairs.
    ///
    /// One file for each finished task in DIR/mutual_information; `collect` links to them, and analysis/fig_4.py draws
    /// them. Those that are there already are kept. The samples are states of the task's latent HMC, which runs again.
    MutualInformation {
        #[command(flatten)]
        tasks: SomeTasks,
        #[command(flatten)]
        place: StudyFolder,
        /// Samples of the target, of all chains together.
        #[arg(long, default_value_t = 5000, value_parser = parse_samples)]
        samples: usize,
        /// Nearest neighbours that the estimator looks at.
        #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
        neighbours: u8,
    },
    /// The flow as a renormalization group: fields kept at each level, and their effective couplings.
    ///
    /// One file for each finished task in DIR/coarse; `collect` links to them, and analysis/fig_rg.py draws them. Those
    /// that are there already are kept. The samples are the flow's own.
    Coarse {
        #[command(flatten)]
        tasks: SomeTasks,
        #[command(flatten)]
        place: StudyFolder,
        /// Samples of the flow for the effective couplings.
        #[arg(long, default_value_t = 16384, value_parser = parse_samples)]
        samples: usize,
    },
    /// Validate a configuration and print it with every default filled in.
    Check {
        /// The configuration of a sweep or of `learn`, a TOML file.
        config: PathBuf,
    },
    /// Write a task's trained flow as a safetensors file for other programs.
    ///
    /// It holds all couplings with their sites and weights; analysis/flow_torch.py evaluates it in PyTorch.
    Export {
        /// File of a finished task, DIR/tasks/NAME.h5.
        task: PathBuf,
        /// The file to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Draw samples of a task's trained flow, with ln q and ln π of each, into an HDF5 file.
    ///
    /// Each is independent of the others. The first n of them are the same however many are drawn.
    Sample {
        /// File of a finished task, DIR/tasks/NAME.h5.
        task: PathBuf,
        /// Number of samples; while they are written each takes up to 64 L² bytes of memory.
        #[arg(short = 'n', long, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
        samples: u32,
        /// Seed of the random numbers.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The file to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Print exact values of the Ising model and the field on the L × L torus, as CSV.
    ///
    /// ln_z_ising: of the spins (Kaufman 1949); free_energy_field: -ln Z of the continuous dual;
    /// energy in J, specific heat in k_B.
    Exact(Lattices),
    /// Sample the Ising spins on the L × L torus by cluster Monte Carlo, as CSV with standard errors.
    ///
    /// Wolff's algorithm on the spins themselves: it knows neither flow nor field. A measurement comes after as many
    /// clusters as flip about L² spins; tau_int counts measurements.
    Reference {
        #[command(flatten)]
        lattices: Lattices,
        /// Measurements at each temperature, of all chains together.
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000_000))]
        measurements: u32,
        /// Seed of the random numbers.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Also draw a field given the spins of each measurement and write these exact samples of the
        /// target to an HDF5 file, for flows to learn from.
        #[arg(long, value_name = "FILE")]
        fields: Option<PathBuf>,
    },
    /// Train one flow by maximum likelihood on pictures, such as analysis/pictures.py makes of digits.
    ///
    /// Prints what the flow makes of the pictures that were held out, and writes it with the model and
    /// generated pictures to one file. The same command goes on after an interruption. Exit status as
    /// that of `run`.
    Learn {
        /// Configuration, a TOML file.
        config: PathBuf,
        /// HDF5 file to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// Some tasks of a sweep.
#[derive(Debug, Args)]
pub struct SomeTasks {
    /// Folder of the sweep.
    pub dir: PathBuf,
    /// Only the task of this name, as the table of `status` has it; may be given several times.
    #[arg(long = "task", value_name = "NAME")]
    pub names: Vec<String>,
}

/// Where studies go.
#[derive(Debug, Args)]
pub struct StudyFolder {
    /// Folder for the files instead of DIR, with a folder in it for each kind of study.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// One lattice at some temperatures.
#[derive(Debug, Args)]
pub struct Lattices {
    /// L, an even number from 4 to 1024.
    #[arg(long, value_name = "L", value_parser = parse_linear_size)]
    pub linear_size: usize,
    /// Temperatures in J/k_B, separated by commas.
    #[arg(
        long, value_name = "T1,T2,…", required = true, value_delimiter = ',',
        value_parser = parse_temperature
    )]
    pub temperatures: Vec<f64>,
}

fn parse_linear_size(text: &str) -> Result<usize> {
    let allowed = |size: &usize| size.is_multiple_of(2) && (4..=1024).contains(size);
    let problem = || Error::Usage("L must be an even number from 4 to 1024".into());
    text.parse().ok().filter(allowed).ok_or_else(problem)
}

fn parse_samples(text: &str) -> Result<usize> {
    let allowed = |samples: &usize| (256..=1_000_000).contains(samples);
    let problem = || Error::Usage("must be a number of samples from 256 to 1000000".into());
    text.parse().ok().filter(allowed).ok_or_else(problem)
}

fn parse_seconds(text: &str) -> Result<f64> {
    let allowed = |seconds: &f64| (0.1..=86_400.0).contains(seconds);
    let problem = || Error::Usage("must be a number of seconds from 0.1 to 86400".into());
    text.parse().ok().filter(allowed).ok_or_else(problem)
}

fn parse_temperature(text: &str) -> Result<f64> {
    let allowed = |temperature: &f64| (0.01..=1000.0).contains(temperature);
    let allowed_values = "a temperature must be a number from 0.01 to 1000";
    let is_whole = text.trim().parse::<u64>().is_ok();
    let hint = if is_whole { " (decimals begin with a point, not with a comma: 2.27)" } else { "" };
    let problem = || Error::Usage(format!("{allowed_values}{hint}"));
    text.trim().parse().ok().filter(allowed).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
