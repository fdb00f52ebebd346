//! `neuralrg status`.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;

use super::SomeTasks;
use super::output::print;
use crate::error::{Error, Result};
use crate::sweep::status::Observer;

/// Show each task of a sweep: its state, step, gap and expected end.
///
/// Below the table problems are told by their kinds; --task tells all of one task. Of finished tasks only the beginning of
/// their files is read: what is damaged behind it is found by `run` and `collect`.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub tasks: SomeTasks,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Print again every so many seconds, until every task is done or has failed.
    #[arg(
        long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5",
        value_parser = parse_seconds
    )]
    pub watch: Option<f64>,
}

/// The table, the JSON object or the details of some tasks, once or every `watch` seconds until nothing is left to wait for.
pub fn status(arguments: &Status) -> anyhow::Result<()> {
    let Status { tasks, json, watch } = arguments;
    let mut observer = Observer::new(&tasks.dir)?;
    loop {
        let status = observer.look()?;
        let over = status.is_over();
        let all = tasks.names.is_empty();
        let status = if all { status } else { status.only(&tasks.names)? };
        let text = match (*json, all) {
            (true, _) => status.to_json(),
            (false, true) => status.to_string(),
            (false, false) => status.details(),
        };
        let Some(seconds) = *watch else { return print(text) };
        if !*json && std::io::stdout().is_terminal() {
            // Clear the screen, go to its corner.
            print(format!("\x1b[2J\x1b[H{text}"))?;
        } else {
            print(text)?;
        }
        if over {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs_f64(seconds));
    }
}

fn parse_seconds(text: &str) -> Result<f64> {
    let allowed = |seconds: &f64| (0.1..=86_400.0).contains(seconds);
    let problem = || Error::Usage("must be a number of seconds from 0.1 to 86400".into());
    text.parse().ok().filter(allowed).ok_or_else(problem)
}
