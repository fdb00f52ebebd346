//! `neuralrg status`: what is known of the tasks of a sweep folder, as a table or as JSON.

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::claims::{Claims, JobInfo};
use crate::error::{Error, Result};
use crate::plan::{self, Task};
use crate::progress::{Snapshot, unix_now};
use crate::schema::VERDICT_OK;
use crate::store::{self, SweepDir};

/// A running task writes its progress every few seconds, or after every step where steps take longer;
/// without news for this long its job is gone, even if the folder's lock cannot tell.
const SILENCE: u64 = 600;

/// All tasks of a sweep with what is known of each.
#[derive(Debug, Serialize)]
pub struct Status {
    name: String,
    linear_size: usize,
    tasks: Vec<TaskStatus>,
    /// The jobs that work on the folder now.
    jobs: Vec<JobInfo>,
}

/// What is known of one task; numbers in nats and seconds.
#[derive(Debug, Serialize)]
struct TaskStatus {
    task: String,
    linear_size: usize,
    temperature: f64,
    depth: usize,
    seed: u64,
    state: State,
    stage: Option<String>,
    step: Option<i64>,
    steps: Option<i64>,
    gap: Option<f64>,
    gap_error: Option<f64>,
    /// That the task took, or has taken so far.
    seconds: Option<f64>,
    remaining_seconds: Option<f64>,
    /// Of its last failure.
    message: Option<String>,
    /// What is wrong with the numbers of a task that is done, or that all is well.
    verdict: Option<String>,
    /// The living job that works on it.
    job: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Done,
    Running,
    /// Saved; a job that lives goes on with it later.
    Paused,
    Stopped,
    Failed,
    Damaged,
    Waiting,
}

impl State {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Done, "done"),
        (Self::Running, "running"),
        (Self::Paused, "paused"),
        (Self::Stopped, "stopped"),
        (Self::Failed, "failed"),
        (Self::Damaged, "damaged"),
        (Self::Waiting, "waiting"),
    ];

    fn name(self) -> &'static str {
        Self::ALL[Self::ALL.iter().position(|(state, _)| *state == self).expect("all are listed")].1
    }
}

impl Status {
    /// Looks at every task of the folder, through `claims` that are kept from look to look.
    ///
    /// # Errors
    /// `root` is not a sweep folder, or a task file cannot be read now.
    pub fn read(root: &Path, claims: &Claims) -> Result<Self> {
        let dir = SweepDir::open(root)?;
        let config = dir.read_config()?;
        let jobs: Vec<JobInfo> =
            claims.jobs().into_iter().filter(|job| claims.is_alive(&job.id)).collect();
        // A job of an older version makes no claims.
        let claimless = jobs.is_empty() && dir.is_locked();
        let tasks = plan::tasks(&config)
            .iter()
            .map(|planned| {
                TaskStatus::read(&planned.task, &dir, claims, (claimless, !jobs.is_empty()))
            })
            .collect::<Result<_>>()?;
        let (name, linear_size) = (config.sweep.name.clone(), config.sweep.linear_size);
        Ok(Self { name, linear_size, tasks, jobs })
    }

    /// Whether nothing will change without another job.
    pub fn is_over(&self) -> bool {
        self.jobs.is_empty() && self.count(State::Running) == 0
    }

    /// One JSON object on one line, with the counts of each state.
    pub fn to_json(&self) -> String {
        let mut value = serde_json::to_value(self).expect("a status has a JSON form");
        value["counts"] = State::ALL
            .iter()
            .map(|(state, name)| ((*name).to_owned(), self.count(*state)))
            .collect();
        value.to_string()
    }

    fn count(&self, state: State) -> usize {
        self.tasks.iter().filter(|task| task.state == state).count()
    }
}

/// The table of all tasks, the messages of failures and problems, and a closing line of counts.
impl Display for Status {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["task", "state", "step", "gap (nat)", "gap error", "ETA", "verdict"]);
        for task in &self.tasks {
            table.add_row(task.columns());
        }
        writeln!(formatter, "{}", table.trim_fmt())?;
        for task in &self.tasks {
            let failure = task.message.as_deref().filter(|_| task.state == State::Failed);
            let problems = task.verdict.as_deref().filter(|&verdict| verdict != VERDICT_OK);
            if let Some(remark) = failure.or(problems) {
                writeln!(formatter, "{}: {}", task.task, remark.trim())?;
            }
        }
        let counts: Vec<String> = State::ALL
            .iter()
            .map(|(state, name)| (self.count(*state), name))
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        let smaller = self.tasks.iter().filter(|task| task.linear_size < self.linear_size).count();
        let smaller =
            if smaller > 0 { format!(" ({smaller} on smaller lattices)") } else { String::new() };
        write!(formatter, "{} tasks{smaller}: {}", self.tasks.len(), counts.join(", "))
    }
}

impl TaskStatus {
    /// Jobs that work here make no claims (`claimless`), or some do (`claiming`).
    fn read(
        task: &Task,
        dir: &SweepDir,
        claims: &Claims,
        (claimless, claiming): (bool, bool),
    ) -> Result<Self> {
        let Task { linear_size, temperature, depth, seed } = *task;
        let name = task.name();
        let job = claims.living_holder(&name);
        let mut status = Self {
            task: name,
            linear_size,
            temperature,
            depth,
            seed,
            state: State::Waiting,
            stage: None,
            step: None,
            steps: None,
            gap: None,
            gap_error: None,
            seconds: None,
            remaining_seconds: None,
            message: None,
            verdict: None,
            job,
        };
        let path = dir.task_path(task);
        if path.exists() {
            match store::read_task(&path) {
                Ok(summary) => {
                    status.state = State::Done;
                    status.gap = Some(summary.scalars["gap"]);
                    status.gap_error = Some(summary.scalars["gap_error"]);
                    status.seconds = Some(summary.timing["wall_seconds"]);
                    status.verdict = Some(summary.verdict);
                }
                Err(error @ Error::DamagedTask { .. }) => {
                    status.state = State::Damaged;
                    status.message = Some(error.to_string());
                }
                Err(error) => return Err(error),
            }
        } else if let Some(message) = dir.failure(task) {
            status.state = State::Failed;
            status.message = Some(message.trim().to_owned());
        } else if let Some(snapshot) = Snapshot::read(&dir.progress_path(task)) {
            let recent = snapshot.written_unix_seconds + SILENCE > unix_now();
            let running = recent && (claimless || status.job.is_some());
            status.state = match (running, snapshot.paused && claiming) {
                (true, _) => State::Running,
                (false, true) => State::Paused,
                (false, false) => State::Stopped,
            };
            status.remaining_seconds = snapshot.remaining_seconds().filter(|_| running);
            status.stage = Some(snapshot.stage);
            status.step = Some(snapshot.step);
            status.steps = Some(snapshot.steps);
            status.gap = snapshot.gap;
            status.gap_error = snapshot.gap_error;
            status.seconds = Some(snapshot.seconds);
        }
        Ok(status)
    }

    /// Task, state, step, gap, gap error, ETA and verdict.
    fn columns(&self) -> [String; 7] {
        let dash = || "-".to_owned();
        let number = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.4}"));
        let time = |value: f64| {
            let whole = Duration::from_secs(value.max(0.0).round() as u64);
            humantime::format_duration(whole).to_string()
        };
        let verdict = self.verdict.as_deref().map_or_else(dash, |verdict| match verdict {
            VERDICT_OK => VERDICT_OK.into(),
            _ => match verdict.split("; ").count() {
                1 => "1 problem".into(),
                problems => format!("{problems} problems"),
            },
        });
        let step = match (self.state, self.seconds, &self.stage, self.step, self.steps) {
            (State::Done, Some(seconds), ..) => format!("took {}", time(seconds)),
            (_, _, Some(stage), Some(step), Some(steps)) => format!("{stage} {step}/{steps}"),
            _ => dash(),
        };
        [
            self.task.clone(),
            self.state.name().to_owned(),
            step,
            number(self.gap),
            number(self.gap_error),
            self.remaining_seconds.map_or_else(dash, time),
            verdict,
        ]
    }
}
