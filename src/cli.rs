//! The command line, one file a command.

mod canonical;
mod check;
mod collect;
mod exact;
mod export;
mod learn;
mod modes;
mod output;
mod plan;
mod reference;
mod run;
mod sample;
mod status;
mod study;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::error::{Error, Result};
use crate::lattice::{ALLOWED_SIZES, is_size};
use crate::signals;
use output::report;

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
    Run(run::Run),
    Plan(plan::Plan),
    Status(status::Status),
    Collect(collect::Collect),
    Respond(study::Respond),
    MutualInformation(study::MutualInformation),
    Coarse(study::Coarse),
    Check(check::Check),
    Export(export::Export),
    Sample(sample::Sample),
    /// Print exact values of the Ising model and the field on the L × L torus, as CSV.
    ///
    /// ln_z_ising: of the spins (Kaufman 1949); free_energy_field: -ln Z of the continuous dual;
    /// energy in J, specific heat in k_B.
    Exact(Lattices),
    Reference(reference::Reference),
    Learn(learn::Learn),
    Canonical(canonical::Canonical),
    Modes(modes::Modes),
}

/// The program: does what the command line asks for.
pub fn main() -> ExitCode {
    if let Err(error) = signals::survive_file_size_limit() {
        return report(Err(error.into()));
    }
    report(match &Cli::parse().command {
        Command::Run(arguments) => return run::run(arguments),
        Command::Plan(arguments) => plan::plan(arguments),
        Command::Status(arguments) => status::status(arguments),
        Command::Collect(arguments) => collect::collect(arguments),
        Command::Respond(arguments) => arguments.run(),
        Command::MutualInformation(arguments) => arguments.run(),
        Command::Coarse(arguments) => arguments.run(),
        Command::Check(arguments) => check::check(arguments),
        Command::Export(arguments) => export::export(arguments),
        Command::Sample(arguments) => sample::sample(arguments),
        Command::Exact(lattices) => exact::exact(lattices),
        Command::Reference(arguments) => reference::reference(arguments),
        Command::Modes(arguments) => modes::modes(arguments),
        Command::Learn(arguments) => return learn::learn(arguments),
        Command::Canonical(arguments) => return canonical::canonical(arguments),
    })
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
    let allowed = |&size: &usize| is_size(size);
    let problem = || Error::Usage(format!("L must be {ALLOWED_SIZES}"));
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
