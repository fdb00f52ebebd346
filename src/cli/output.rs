//! What all commands print, log and end with.

use std::io::Write;
use std::process::ExitCode;

use indicatif::MultiProgress;

use crate::error::{Error, Result};
use crate::files::Numbers;
use crate::files::schema::Item;
use crate::ranks::{Ranks, Team};
use crate::signals::{self, Stop};

/// Exit status of a run that a signal stopped: the same command goes on (EX_TEMPFAIL of sysexits.h).
pub(super) const TO_BE_CONTINUED: u8 = 75;

/// One line on standard error for an error, and the exit status.
pub(super) fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "neuralrg: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Log lines that name the rank and make way for progress bars; panics become one such line.
pub(super) fn start_logging(ranks: &Ranks) -> MultiProgress {
    let (rank, size) = (ranks.rank(), ranks.size());
    let environment = env_logger::Env::default().default_filter_or("info");
    let logger = env_logger::Builder::from_env(environment)
        .format(move |line, record| {
            let (time, level) = (line.timestamp_seconds(), record.level());
            let rank = if size > 1 { format!(" rank {rank}") } else { String::new() };
            writeln!(line, "[{time} {level:<5}{rank}] {}", record.args())
        })
        .build();
    let level = logger.filter();
    let bars = MultiProgress::new();
    if indicatif_log_bridge::LogWrapper::new(bars.clone(), logger).try_init().is_ok() {
        log::set_max_level(level);
    }
    std::panic::set_hook(Box::new(|panic| log::error!("{}", panic.to_string().replace('\n', " "))));
    bars
}

/// Prints to standard output; a reader that has left ends the program quietly.
pub(super) fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", text.to_string().trim_end()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Ok(signals::end_without_reader()?)
        }
        outcome => Ok(outcome?),
    }
}

/// Lets a command that trains for itself do so, and prints its numbers; exit status as that of `run`.
pub(super) fn report_learned(
    items: &[Item],
    learn: impl FnOnce(Stop) -> Result<Numbers>,
) -> ExitCode {
    start_logging(&Ranks::alone());
    match Stop::listen().and_then(|stop| Team::Alone.together(|| learn(stop))) {
        Ok(numbers) => report(print_numbers(items, &numbers)),
        Err(error @ Error::Stopped) => {
            report(Err(error.into()));
            ExitCode::from(TO_BE_CONTINUED)
        }
        Err(error) => report(Err(error.into())),
    }
}

/// Those of the items that there are, as CSV.
fn print_numbers(items: &[Item], numbers: &Numbers) -> anyhow::Result<()> {
    let known = items.iter().filter(|item| numbers.contains_key(item.name));
    let line = |item: &Item| format!("{},{:.8e},{}", item.name, numbers[item.name], item.units);
    let lines: Vec<String> = known.map(line).collect();
    print(format!("quantity,value,unit\n{}", lines.join("\n")))
}

/// One line on standard error for what is allowed but may not be meant.
pub(super) fn hint(problem: Option<&str>) {
    if let Some(problem) = problem {
        eprintln!("neuralrg: hint: {problem}");
    }
}
