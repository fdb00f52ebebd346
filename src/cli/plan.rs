//! `neuralrg plan`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use comfy_table::{Table, presets};

use super::output::{hint, print};
use crate::config::Config;
use crate::config::sweep::decimal_comma_hint;
use crate::engine::config::DeviceChoice;
use crate::files::schema::AT_RANDOM;
use crate::sweep::elsewhere::{Elsewhere, elsewhere};
use crate::sweep::plan::{self, PlannedTask};
use crate::sweep::queue::Crew;
use crate::sweep::schedule::schedule;
use crate::sweep::{self, Expected};
use crate::task::Task;

/// Show the tasks of a sweep, their costs and which rank would take which. Runs nothing.
///
/// With run.ranks_per_task = k each task is taken by k ranks that follow each other in number.
#[derive(Debug, Args)]
pub struct Plan {
    /// The sweep's configuration, a TOML file.
    pub config: PathBuf,
    /// Number of ranks [default: run.ranks_per_task, which must divide it].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub ranks: Option<u32>,
    /// Folder of the sweep: plan only what it lacks, with costs learned from its finished tasks.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Prints the schedule.
pub fn plan(arguments: &Plan) -> anyhow::Result<()> {
    let Plan { config: path, ranks, output } = arguments;
    let (ranks, dir) = (ranks.map(|ranks| ranks as usize), output.as_deref());
    let mut config = Config::read(path)?;
    hint(decimal_comma_hint(config.temperatures()));
    config.identify_files(path)?;
    let team = config.run.ranks_per_task;
    let ranks = ranks.unwrap_or(team);
    let teams = config.teams(ranks, path)?;
    let Expected { tasks, missing, partial } = match dir.filter(|dir| dir.exists()) {
        Some(dir) => sweep::expected(&config, dir)?,
        None => {
            let tasks = plan::tasks(&config);
            let missing = (0..tasks.len()).collect();
            Expected { tasks, missing, partial: Vec::new() }
        }
    };
    let shortest_slice = config.run.shortest_slice().map(|slice| slice.as_secs_f64());
    let schedule = schedule(&tasks, &missing, Crew { ranks: teams, shortest_slice });
    let start = |parent: Option<usize>, task: &Task| -> anyhow::Result<String> {
        Ok(match (parent, elsewhere(&config, task)?) {
            (Some(parent), _) => tasks[parent].task.name(),
            (None, Some(Elsewhere { path, .. })) => path.display().to_string(),
            (None, _) => AT_RANDOM.into(),
        })
    };
    let seconds =
        |cost: f64| humantime::format_duration(Duration::from_secs(cost.ceil() as u64)).to_string();
    let basis = if missing.len() < tasks.len() {
        "from the times of the finished tasks"
    } else if config.run.device_choice() == DeviceChoice::Cuda {
        "expected for one GPU a rank, not yet measured; ratios are better known than times"
    } else {
        "expected for one CPU thread a rank; ratios are better known than times"
    };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let header = if team == 1 { "rank" } else { "ranks" };
    table.set_header([header, "task", "index", "expected time", "starts from"]);
    for (number, assigned) in schedule.ranks.iter().enumerate() {
        let first = number * team;
        let of_team =
            if team == 1 { first.to_string() } else { format!("{first}-{}", first + team - 1) };
        for &index in assigned {
            let PlannedTask { task, parent, cost } = tasks[index];
            let (ranks, index) = (of_team.clone(), index.to_string());
            table.add_row([ranks, task.name(), index, seconds(cost), start(parent, &task)?]);
        }
    }
    print(format!(
        "{}\n{} tasks on {ranks} ranks{}{}: makespan {}, lower bound {} ({basis})",
        [&[table.trim_fmt()], &partial[..]].concat().join("\n"),
        missing.len(),
        if team == 1 { String::new() } else { format!(", {team} for each") },
        if schedule.pauses > 0 { ", the last ones in turns" } else { "" },
        seconds(schedule.makespan),
        seconds(schedule.lower_bound)
    ))
}
