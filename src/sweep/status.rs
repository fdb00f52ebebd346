//! `neuralrg status`: what is known of the tasks of a sweep folder, as a table or as JSON.
//!
//! Of a finished task only the head of its file is read, once however often one looks, and of the folders only their lists,
//! so that thousands of tasks on a shared file system can be watched. What is damaged behind the head is found by `run` and
//! `collect`.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::clock::unix_now;
use crate::config::Config;
use crate::config::growth::Lacking;
use crate::error::{Error, Result};
use crate::files::schema::VERDICT_OK;
use crate::sweep::claims::{Claims, JobInfo};
use crate::sweep::folder::SweepDir;
use crate::sweep::plan::{self, PlannedTask};
use crate::sweep::summary;
use crate::task::cost::Cost;
use crate::task::progress::Snapshot;
use crate::task::task_file::{Brief, Head, Origin, TaskFile};
use crate::task::{Task, checkpoint};

/// A running task writes its progress every few seconds, or after every step where steps take longer;
/// without news for this long its job is gone, even if the folder's lock cannot tell.
const SILENCE: u64 = 600;

/// Looks at a folder again and again.
#[derive(Debug)]
pub struct Observer {
    dir: SweepDir,
    config: Config,
    origin: Origin,
    planned: Vec<PlannedTask>,
    /// Kept from look to look, since the heartbeats of other machines must be watched.
    claims: Claims,
    /// Heads of the task files that were seen.
    heads: HashMap<String, Seen>,
}

/// What was seen of a task file: its head, and what it lacks of the configuration.
type Seen = (Head<Brief>, Option<Lacking>);

/// All tasks of a sweep with what is known of each.
#[derive(Debug, Serialize)]
pub struct Status {
    name: String,
    linear_sizes: Vec<usize>,
    tasks: Vec<TaskStatus>,
    /// The jobs that work on the folder now.
    jobs: Vec<JobInfo>,
    /// Until the living jobs have done everything, as far as one can tell.
    remaining_seconds: Option<f64>,
}

/// What is known of one task; numbers in nats and seconds.
#[derive(Debug, Serialize)]
struct TaskStatus {
    #[serde(rename = "task")]
    name: String,
    #[serde(flatten)]
    task: Task,
    state: State,
    stage: Option<String>,
    step: Option<i64>,
    steps: Option<i64>,
    gap: Option<f64>,
    gap_error: Option<f64>,
    /// That the task took, or has taken so far.
    seconds: Option<f64>,
    remaining_seconds: Option<f64>,
    /// Of its last failure, or what is wrong with its file.
    message: Option<String>,
    /// What is wrong with the numbers of a task that is done, or that all is well.
    verdict: Option<String>,
    /// The living job that works on it.
    job: Option<String>,
    /// Expected share of its work that is done.
    #[serde(skip)]
    fraction: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Done,
    /// Its file has numbers, but lacks some of what the configuration wants.
    Partial,
    Running,
    /// Saved; a job that lives goes on with it later.
    Paused,
    Stopped,
    Failed,
    Damaged,
    /// Its file is another task's, or another configuration's.
    Foreign,
    Waiting,
}

impl State {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Done, "done"),
        (Self::Partial, "partial"),
        (Self::Running, "running"),
        (Self::Paused, "paused"),
        (Self::Stopped, "stopped"),
        (Self::Failed, "failed"),
        (Self::Damaged, "damaged"),
        (Self::Foreign, "foreign"),
        (Self::Waiting, "waiting"),
    ];

    fn name(self) -> &'static str {
        Self::ALL[Self::ALL.iter().position(|(state, _)| *state == self).expect("all are listed")].1
    }
}

/// What the folders list, and who works, at one moment.
struct Scene {
    files: HashSet<String>,
    failed: HashSet<String>,
    running: HashSet<String>,
    /// Living jobs by the tasks that they hold.
    holders: HashMap<String, String>,
    /// A job of an older version, which makes no claims, works here.
    claimless: bool,
    /// Jobs that make claims do.
    claiming: bool,
}

impl Observer {
    /// Of the folder `root`.
    ///
    /// # Errors
    /// It is not a sweep folder.
    pub fn new(root: &Path) -> Result<Self> {
        let dir = SweepDir::open(root)?;
        let config = dir.read_config()?;
        Ok(Self {
            claims: dir.claims(),
            origin: Origin::new(&config),
            planned: plan::tasks(&config),
            heads: HashMap::new(),
            dir,
            config,
        })
    }

    /// Looks at every task of the folder.
    ///
    /// # Errors
    /// A task file cannot be read now, or another version of the program wrote it.
    pub fn look(&mut self) -> Result<Status> {
        let jobs: Vec<JobInfo> =
            self.claims.jobs().into_iter().filter(|job| self.claims.is_alive(&job.id)).collect();
        let scene = Scene {
            files: self.dir.finished_names(),
            failed: self.dir.failed_names(),
            running: self.dir.running_names(),
            holders: self.claims.living_holders(),
            claimless: jobs.is_empty() && self.dir.is_locked(),
            claiming: !jobs.is_empty(),
        };
        let tasks: Vec<Task> = self.planned.iter().map(|planned| planned.task).collect();
        let tasks =
            tasks.iter().map(|task| self.look_at(task, &scene)).collect::<Result<Vec<_>>>()?;
        let remaining_seconds = self.remaining_seconds(&tasks, &jobs);
        let name = self.config.sweep.name.clone();
        let linear_sizes = self.config.linear_sizes().to_vec();
        Ok(Status { name, linear_sizes, tasks, jobs, remaining_seconds })
    }

    fn look_at(&mut self, task: &Task, scene: &Scene) -> Result<TaskStatus> {
        let mut status = TaskStatus::waiting(task);
        let name = &task.name();
        status.job = scene.holders.get(name).cloned();
        if scene.files.contains(name) {
            match self.seen(task) {
                Ok((head, None)) => {
                    status.done(&head);
                    return Ok(status);
                }
                // What is missing may have been begun.
                Ok((head, Some(lacking))) => {
                    status.partial(&head, &lacking);
                    status.fraction = 1.0 - Cost::of(&self.config, task).share(lacking.shares);
                }
                Err(error @ Error::DamagedTask { .. }) => {
                    status.unusable(State::Damaged, &error);
                    return Ok(status);
                }
                Err(error @ Error::ForeignTask { .. }) => {
                    status.unusable(State::Foreign, &error);
                    return Ok(status);
                }
                Err(error) => return Err(error),
            }
        } else {
            self.heads.remove(name);
        }
        if scene.failed.contains(name) {
            status.state = State::Failed;
            status.message = self.dir.failure(task).map(|message| message.trim().to_owned());
        } else if scene.running.contains(name)
            && let Some(snapshot) = Snapshot::read(&self.dir.progress_path(task))
        {
            self.begun(&mut status, snapshot, task, scene);
        }
        Ok(status)
    }

    /// The head of a task's file, read again where it may have changed: where it was not all. Where it does not tell, the rest
    /// of the file does.
    fn seen(&mut self, task: &Task) -> Result<Seen> {
        if let Some(seen @ (_, None)) = self.heads.get(&task.name()) {
            return Ok(seen.clone());
        }
        let path = self.dir.task_path(task);
        let Some(head) = Head::read(&path)? else {
            let unfit = TaskFile::open(&path).map(|_| "its head has no numbers".to_owned())?;
            return Err(Error::DamagedTask { path, problem: unfit });
        };
        let lacking = self.origin.check(&path, task, &head)?;
        let seen = (head, lacking);
        self.heads.insert(task.name(), seen.clone());
        Ok(seen)
    }

    /// A task that was begun, and has told of it last by `snapshot`.
    fn begun(&self, status: &mut TaskStatus, snapshot: Snapshot, task: &Task, scene: &Scene) {
        let recent = snapshot.written_unix_seconds + SILENCE > unix_now();
        let running = recent && (scene.claimless || status.job.is_some());
        if running {
            status.remaining_seconds = snapshot.remaining_seconds();
            status.at(State::Running, snapshot);
            return;
        }
        let state = if snapshot.paused && scene.claiming { State::Paused } else { State::Stopped };
        // Steps after the last checkpoint are lost.
        match checkpoint::saved_progress(&self.dir.checkpoint_path(task)) {
            Some(saved) => status.at(state, saved),
            None => status.state = state,
        }
    }

    /// Expected seconds until the jobs have done everything, at the pace of the finished tasks.
    fn remaining_seconds(&self, tasks: &[TaskStatus], jobs: &[JobInfo]) -> Option<f64> {
        let ranks: usize = jobs.iter().map(|job| job.ranks).sum();
        let teams = ranks / self.config.run.ranks_per_task;
        let seconds: Vec<Option<f64>> =
            tasks.iter().map(|task| task.seconds.filter(|_| task.state == State::Done)).collect();
        let mut planned = self.planned.clone();
        plan::learn_costs(&mut planned, &seconds);
        let left: Vec<f64> = tasks
            .iter()
            .zip(&planned)
            .filter(|(task, _)| !matches!(task.state, State::Done | State::Failed | State::Foreign))
            .map(|(task, planned)| {
                let expected = planned.cost * (1.0 - task.fraction);
                task.remaining_seconds.unwrap_or(expected)
            })
            .collect();
        if teams == 0 || left.is_empty() {
            return None;
        }
        let longest = left.iter().copied().fold(0.0, f64::max);
        Some(longest.max(left.iter().sum::<f64>() / teams as f64))
    }
}

impl Status {
    /// Whether nothing will change without another job.
    pub fn is_over(&self) -> bool {
        self.jobs.is_empty() && self.count(State::Running) == 0
    }

    /// Leaves the tasks of these names only.
    ///
    /// # Errors
    /// The sweep has none of a name.
    pub fn only(mut self, names: &[String]) -> Result<Self> {
        if let Some(name) = names.iter().find(|name| self.tasks.iter().all(|it| it.name != **name))
        {
            return Err(Error::Usage(format!(
                "--task {name}: the sweep has no task of this name; `neuralrg status DIR` lists all"
            )));
        }
        self.tasks.retain(|task| names.contains(&task.name));
        Ok(self)
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

    /// The table, and all that is known of each task, a problem a line.
    pub fn details(&self) -> String {
        let remarks = self.tasks.iter().flat_map(|task| {
            let problems = task.verdict.iter().flat_map(|verdict| verdict.split("; "));
            let remarks = task.message.as_deref().into_iter().chain(problems);
            let place = task.job.iter().map(|job| format!("worked on by {job}"));
            let lines: Vec<String> = remarks.map(str::to_owned).chain(place).collect();
            lines.into_iter().map(|line| format!("{}: {line}", task.name))
        });
        let lines: Vec<String> = std::iter::once(self.table()).chain(remarks).collect();
        lines.join("\n")
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["task", "state", "step", "gap (nat)", "gap error", "ETA", "verdict"]);
        for task in &self.tasks {
            table.add_row(task.columns());
        }
        table.trim_fmt()
    }
}

/// The table of all tasks, failures and problems by their kinds, and a closing line of counts.
impl Display for Status {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.table())?;
        let message = |task: &'_ TaskStatus| task.message.clone().map(|text| (task.task, text));
        let messages: Vec<(Task, String)> = self.tasks.iter().filter_map(message).collect();
        let messages: Vec<_> = messages.iter().map(|(task, text)| (task, text.as_str())).collect();
        let verdict = |task: &TaskStatus| task.verdict.clone().map(|text| (task.task, text));
        let verdicts: Vec<(Task, String)> = self.tasks.iter().filter_map(verdict).collect();
        let verdicts: Vec<_> = verdicts.iter().map(|(task, text)| (task, text.as_str())).collect();
        for line in summary::grouped(&messages).into_iter().chain(summary::problems(&verdicts)) {
            writeln!(formatter, "{line}")?;
        }
        let counts: Vec<String> = State::ALL
            .iter()
            .map(|(state, name)| (self.count(*state), name))
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        let own = |task: &TaskStatus| self.linear_sizes.contains(&task.task.linear_size);
        let smaller = self.tasks.iter().filter(|task| !own(task)).count();
        let smaller =
            if smaller > 0 { format!(" ({smaller} on smaller lattices)") } else { String::new() };
        write!(formatter, "{} tasks{smaller}: {}", self.tasks.len(), counts.join(", "))?;
        match self.remaining_seconds {
            Some(seconds) => write!(formatter, "; all in about {}", time(seconds)),
            None => Ok(()),
        }
    }
}

impl TaskStatus {
    /// Nothing is known of it.
    fn waiting(task: &Task) -> Self {
        Self {
            name: task.name(),
            task: *task,
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
            job: None,
            fraction: 0.0,
        }
    }

    fn done(&mut self, head: &Head<Brief>) {
        let Brief { scalars, timing } = head.numbers;
        self.state = State::Done;
        self.gap = scalars.gap;
        self.gap_error = scalars.gap_error;
        self.seconds = Some(timing.wall_seconds);
        self.verdict = Some(head.verdict.clone());
    }

    fn partial(&mut self, head: &Head<Brief>, lacking: &Lacking) {
        self.done(head);
        self.state = State::Partial;
        self.message = Some(format!("lacks {lacking}"));
    }

    fn unusable(&mut self, state: State, error: &Error) {
        self.state = state;
        self.message = Some(error.to_string());
    }

    /// How far it is.
    fn at(&mut self, state: State, snapshot: Snapshot) {
        self.state = state;
        self.stage = Some(snapshot.stage);
        self.step = Some(snapshot.step);
        self.steps = Some(snapshot.steps);
        self.gap = snapshot.gap;
        self.gap_error = snapshot.gap_error;
        self.seconds = Some(snapshot.seconds);
        self.fraction = snapshot.fraction;
    }

    /// Task, state, step, gap, gap error, ETA and verdict.
    fn columns(&self) -> [String; 7] {
        let dash = || "-".to_owned();
        let number = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.4}"));
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
            self.name.clone(),
            self.state.name().to_owned(),
            step,
            number(self.gap),
            number(self.gap_error),
            self.remaining_seconds.map_or_else(dash, time),
            verdict,
        ]
    }
}

/// A time in whole seconds, for people.
fn time(seconds: f64) -> String {
    humantime::format_duration(Duration::from_secs(seconds.max(0.0).round() as u64)).to_string()
}
