//! `neuralrg learn`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::{TO_BE_CONTINUED, print, report, start_logging};
use crate::error::Error;
use crate::files::Numbers;
use crate::files::schema::{HELD_OUT_SCALARS, Item};
use crate::ranks::Ranks;
use crate::signals::Stop;
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
    start_logging(&Ranks::alone());
    let learned =
        Stop::listen().and_then(|stop| learn::learn(&arguments.config, &arguments.output, stop));
    match learned {
        Ok(numbers) => report(print_held_out(&numbers)),
        Err(error @ Error::Stopped) => {
            report(Err(error.into()));
            ExitCode::from(TO_BE_CONTINUED)
        }
        Err(error) => report(Err(error.into())),
    }
}

fn print_held_out(numbers: &Numbers) -> anyhow::Result<()> {
    let known = HELD_OUT_SCALARS.iter().filter(|item| numbers.contains_key(item.name));
    let line = |item: &Item| format!("{},{:.8e},{}", item.name, numbers[item.name], item.units);
    let lines: Vec<String> = known.map(line).collect();
    print(format!("quantity,value,unit\n{}", lines.join("\n")))
}
