//! `neuralrg status`: a table of the tasks of a sweep folder.

use std::path::Path;
use std::time::Duration;

use comfy_table::{Table, presets};

use crate::error::{Error, Result};
use crate::plan::{self, Task};
use crate::progress::{Snapshot, unix_now};
use crate::schema::VERDICT_OK;
use crate::store::{self, SweepDir};

/// A running task writes its progress every few seconds, or after every step where steps take longer;
/// without news for this long its job is gone, even if the folder's lock cannot tell.
const SILENCE: u64 = 600;

/// What is known of one task.
enum State {
    Done { gap: f64, gap_error: f64, seconds: f64, verdict: String },
    Damaged,
    Failed(String),
    Running(Snapshot),
    Stopped(Snapshot),
    Waiting,
}

/// The table of all tasks with a closing line of counts.
///
/// # Errors
/// `root` is not a sweep folder, or a task file cannot be read now.
pub fn table(root: &Path) -> Result<String> {
    let dir = SweepDir::open(root)?;
    let config = dir.read_config()?;
    let tasks: Vec<Task> = plan::tasks(&config).iter().map(|planned| planned.task).collect();
    // Where there are no file locks, the age of the progress files must tell alone.
    let may_run = dir.is_busy() != Some(false);
    let states: Vec<State> =
        tasks.iter().map(|task| state(&dir, task, may_run)).collect::<Result<_>>()?;

    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["task", "state", "step", "gap (nat)", "gap error", "ETA", "verdict"]);
    for (task, state) in tasks.iter().zip(&states) {
        let mut row = vec![task.name()];
        row.extend(columns(state));
        table.add_row(row);
    }
    let count = |name: &str| states.iter().filter(|state| columns(state)[0] == name).count();
    let counts = ["done", "running", "stopped", "failed", "damaged", "waiting"]
        .map(|name| (count(name), name))
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect::<Vec<_>>()
        .join(", ");
    let remarks: String = tasks
        .iter()
        .zip(&states)
        .filter_map(|(task, state)| match state {
            State::Failed(message) => Some(format!("{}: {}\n", task.name(), message.trim())),
            State::Done { verdict, .. } if verdict != VERDICT_OK => {
                Some(format!("{}: {verdict}\n", task.name()))
            }
            _ => None,
        })
        .collect();
    let smaller = tasks.iter().filter(|task| task.linear_size < config.sweep.linear_size).count();
    let smaller =
        if smaller > 0 { format!(" ({smaller} on smaller lattices)") } else { String::new() };
    Ok(format!("{}\n{remarks}{} tasks{smaller}: {counts}", table.trim_fmt(), tasks.len()))
}

fn state(dir: &SweepDir, task: &Task, may_run: bool) -> Result<State> {
    let path = dir.task_path(task);
    if path.exists() {
        return match store::read_task(&path) {
            Ok(summary) => Ok(State::Done {
                gap: summary.scalars["gap"],
                gap_error: summary.scalars["gap_error"],
                seconds: summary.timing["wall_seconds"],
                verdict: summary.verdict,
            }),
            Err(Error::DamagedTask { .. }) => Ok(State::Damaged),
            Err(error) => Err(error),
        };
    }
    if let Some(message) = dir.failure(task) {
        return Ok(State::Failed(message));
    }
    Ok(match Snapshot::read(&dir.progress_path(task)) {
        Some(snapshot) if may_run && snapshot.written_unix_seconds + SILENCE > unix_now() => {
            State::Running(snapshot)
        }
        Some(snapshot) => State::Stopped(snapshot),
        None => State::Waiting,
    })
}

/// State, step, gap, gap error, ETA and verdict.
fn columns(state: &State) -> [String; 6] {
    let dash = || "-".to_owned();
    let number = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.4}"));
    let seconds = |value: f64| {
        humantime::format_duration(Duration::from_secs(value.max(0.0).round() as u64)).to_string()
    };
    let step =
        |snapshot: &Snapshot| format!("{} {}/{}", snapshot.stage, snapshot.step, snapshot.steps);
    match state {
        State::Done { gap, gap_error, seconds: took, verdict } => {
            let took = format!("took {}", seconds(*took));
            let problems = verdict.split("; ").count();
            let verdict = match verdict.as_str() {
                VERDICT_OK => VERDICT_OK.into(),
                _ if problems == 1 => "1 problem".into(),
                _ => format!("{problems} problems"),
            };
            ["done".into(), took, number(Some(*gap)), number(Some(*gap_error)), dash(), verdict]
        }
        State::Damaged => ["damaged".into(), dash(), dash(), dash(), dash(), dash()],
        State::Failed(_) => ["failed".into(), dash(), dash(), dash(), dash(), dash()],
        State::Running(snapshot) => [
            "running".into(),
            step(snapshot),
            number(snapshot.gap),
            number(snapshot.gap_error),
            snapshot.remaining_seconds().map_or_else(dash, seconds),
            dash(),
        ],
        State::Stopped(snapshot) => {
            let (gap, error) = (number(snapshot.gap), number(snapshot.gap_error));
            ["stopped".into(), step(snapshot), gap, error, dash(), dash()]
        }
        State::Waiting => ["waiting".into(), dash(), dash(), dash(), dash(), dash()],
    }
}
