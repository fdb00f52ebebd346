//! What a user sees of a running task: a progress bar on a terminal, log lines elsewhere, and a small
//! file that `neuralrg status` reads.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::clock::unix_now;
use crate::config::Config;
use crate::files::atomic::write_atomically;
use crate::files::seal::{open_line, seal_line};
use crate::ranks::{Ranks, Team};
use crate::task::Task;
use crate::task::cost::Cost;
use crate::train::Progress;

/// The bar shows how much of the task is done, not of a stage, whose end may be one of time.
const BAR_LENGTH: u64 = 10_000;
/// Least time between two writes of the progress file, and between two log lines of a stage.
const FILE_INTERVAL: Duration = Duration::from_secs(2);
const LOG_INTERVAL: Duration = Duration::from_secs(15);
/// Many teams share one log: together they write no more lines than one in this time, on average.
const LOG_INTERVAL_PER_TEAM: Duration = Duration::from_secs(2);
/// Least time between two lines of a stage in the task's own log.
const OWN_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How far a running task is, as kept in its progress file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// train, evaluate or hmc.
    pub stage: String,
    /// Steps (or trajectories) done in this stage, and all of them.
    pub step: i64,
    pub steps: i64,
    /// Gap in nats of the last training batch, and its standard error.
    pub gap: Option<f64>,
    pub gap_error: Option<f64>,
    /// Expected share of the task's work that is done.
    pub fraction: f64,
    /// Seconds since the task began.
    pub seconds: f64,
    /// Time of writing, seconds since 1970.
    pub written_unix_seconds: u64,
    /// It was saved, and waits until a rank goes on with it.
    #[serde(default)]
    pub paused: bool,
}

impl Snapshot {
    /// Reads a progress file; none where there is no readable and undamaged one.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_str(open_line(&std::fs::read_to_string(path).ok()?)?).ok()
    }

    /// Seconds until the task is done, at the pace so far.
    pub fn remaining_seconds(&self) -> Option<f64> {
        (self.fraction > 0.01).then(|| self.seconds * (1.0 - self.fraction) / self.fraction)
    }
}

/// Reports the progress of one task.
pub struct TaskProgress {
    name: String,
    path: PathBuf,
    /// The leader of the team reports.
    silent: bool,
    /// Hidden where standard error is not a terminal.
    bar: ProgressBar,
    log_lines: bool,
    log_interval: Duration,
    log: Option<TaskLog>,
    cost: Cost,
    train_steps: i64,
    samples: i64,
    trajectories: i64,
    /// -ln Z, where it is known.
    exact: Option<f64>,
    gap: Option<(f64, f64)>,
    seconds_before: f64,
    /// The first report comes after an interruption.
    resumed: bool,
    /// Stage, step and steps of the last report.
    last: (&'static str, i64, i64),
    /// Expected share of the task's work that was done then: in the training by the part of its budget that is used.
    fraction: f64,
    /// The same at the first report, and when that was.
    first: Option<(f64, Instant)>,
    start: Instant,
    written: Option<Instant>,
    logged: Instant,
    own_logged: Instant,
}

impl TaskProgress {
    /// Starts to report on `task` in its progress file and its own log, if this rank leads its team; `bars` draws where standard error is a terminal.
    pub fn new(
        task: &Task,
        config: &Config,
        (path, log_path): (&Path, &Path),
        (ranks, team): (&Ranks, &Team),
        bars: &MultiProgress,
    ) -> Self {
        let style = ProgressStyle::with_template(
            "{prefix} {bar:30} [{elapsed_precise} < {eta_precise}] {msg}",
        )
        .expect("the template is well-formed");
        let silent = !team.leads();
        let bar = if silent { ProgressBar::hidden() } else { bars.add(ProgressBar::no_length()) };
        bar.set_style(style);
        bar.set_length(BAR_LENGTH);
        let log_lines = bar.is_hidden();
        bar.set_prefix(task.name());
        Self {
            name: task.name(),
            path: path.into(),
            silent,
            log: (!silent).then(|| TaskLog::open(log_path, ranks.rank())),
            bar,
            log_lines,
            log_interval: LOG_INTERVAL
                .max(LOG_INTERVAL_PER_TEAM * (ranks.size() / team.size()) as u32),
            cost: Cost::of(config, task),
            train_steps: config.train.steps,
            samples: config.evaluate.samples,
            trajectories: (config.hmc.warmup + config.hmc.trajectories)
                * (1 + config.controls.samplers.len() as i64),
            exact: task.target().exact(task.temperature).map(|exact| exact.free_energy_field),
            gap: None,
            seconds_before: 0.0,
            resumed: false,
            last: ("train", 0, config.train.steps),
            fraction: 0.0,
            first: None,
            start: Instant::now(),
            written: None,
            logged: Instant::now(),
            own_logged: Instant::now(),
        }
    }

    /// The task goes on after an interruption, having taken `seconds` before.
    pub fn resumed(&mut self, seconds: f64) {
        self.seconds_before = seconds;
        self.resumed = true;
    }

    /// All steps are done. Where an interruption came after the last one, no step has told yet that the task goes on.
    pub fn completed(&mut self) {
        if std::mem::take(&mut self.resumed) {
            self.note(&format!("task {} goes on with its file", self.name));
        }
    }

    /// The task was asked to stop, and has saved what it did.
    pub fn stopped(&self) {
        self.note(&format!("task {} stops after {}", self.name, self.place()));
    }

    /// The task's time is up, and it has saved what it did.
    pub fn paused(&self) {
        self.note(&format!("task {} pauses after {}", self.name, self.place()));
        self.write(true);
    }

    /// Stage, step and steps of the last report.
    fn place(&self) -> String {
        let (stage, step, steps) = self.last;
        format!("{stage} {step}/{steps}")
    }

    /// Seconds until the task is done, at the pace since its first step here; where that was the only one, at the
    /// pace of the `seconds` in all.
    pub fn remaining_seconds(&self, seconds: f64) -> f64 {
        let (first, begun) = self.first.expect("a step was done");
        let (seconds, fraction) = match self.fraction - first {
            0.0 => (seconds, self.fraction),
            done => (begun.elapsed().as_secs_f64(), done),
        };
        seconds * (1.0 - self.fraction) / fraction
    }

    /// Tells something once, in the job's log and in the task's own.
    pub fn note(&self, message: &str) {
        if !self.silent {
            log::info!("{message}");
            self.log_only(message);
        }
    }

    /// Tells something in the task's own log.
    pub fn log_only(&self, message: &str) {
        if let Some(log) = &self.log {
            log.write(message);
        }
    }

    /// Training has done a step.
    pub fn trained(&mut self, progress: Progress) {
        if let (Some((loss, error)), Some(exact)) = (progress.loss, self.exact) {
            self.gap = Some((loss - exact, error));
        }
        let message = self
            .gap
            .map_or_else(String::new, |(gap, error)| format!("gap {gap:.3} ± {error:.3} nat"));
        self.report(
            "train",
            progress.step,
            self.train_steps,
            self.cost.train * progress.used,
            &message,
        );
    }

    /// The evaluation has drawn `samples`.
    pub fn evaluated(&mut self, samples: i64) {
        let fraction = samples as f64 / self.samples as f64;
        let done = self.cost.train + self.cost.evaluate * fraction;
        self.report("evaluate", samples, self.samples, done, "");
    }

    /// HMC and its controls have done `trajectories`, warm-ups included.
    pub fn sampled(&mut self, trajectories: i64) {
        let fraction = trajectories as f64 / self.trajectories as f64;
        let done = self.cost.train + self.cost.evaluate + self.cost.hmc * fraction;
        self.report("hmc", trajectories, self.trajectories, done, "");
    }

    fn report(&mut self, stage: &'static str, step: i64, steps: i64, done: f64, message: &str) {
        if self.silent {
            return;
        }
        self.last = (stage, step, steps);
        self.fraction = (done / self.cost.total()).min(1.0);
        self.bar.set_position((self.fraction * BAR_LENGTH as f64) as u64);
        self.first.get_or_insert_with(|| {
            // What was done before an interruption is no work of this moment.
            self.bar.reset_eta();
            (self.fraction, Instant::now())
        });
        if std::mem::take(&mut self.resumed) {
            self.note(&format!("task {} goes on with {stage} {step}/{steps}", self.name));
        }
        let place = format!("{stage} {step}/{steps} {message}").trim_end().to_owned();
        self.bar.set_message(place.clone());
        let stage_ends = step == steps;
        let line = || format!("{}: {place}", self.name);
        if self.log_lines && (stage_ends || self.logged.elapsed() > self.log_interval) {
            log::info!("{}", line());
            self.logged = Instant::now();
        }
        if stage_ends || self.own_logged.elapsed() > OWN_LOG_INTERVAL {
            self.log_only(&line());
            self.own_logged = Instant::now();
        }
        if self.written.is_none_or(|written| written.elapsed() > FILE_INTERVAL) {
            self.write(false);
            self.written = Some(Instant::now());
        }
    }

    /// How far the task is.
    pub fn snapshot(&self) -> Snapshot {
        let (stage, step, steps) = self.last;
        Snapshot {
            stage: stage.into(),
            step,
            steps,
            gap: self.gap.map(|(gap, _)| gap),
            gap_error: self.gap.map(|(_, error)| error),
            fraction: self.fraction,
            seconds: self.seconds_before + self.start.elapsed().as_secs_f64(),
            written_unix_seconds: unix_now(),
            paused: false,
        }
    }

    /// A progress file that cannot be written is worth a warning, not the task.
    fn write(&self, paused: bool) {
        let snapshot = Snapshot { paused, ..self.snapshot() };
        let text = serde_json::to_string(&snapshot).expect("a snapshot has a JSON form");
        if let Err(error) = write_atomically(&self.path, seal_line(&text).as_bytes()) {
            log::warn!("{}: {error}", self.name);
        }
    }
}

/// A task's own log: what each attempt had to say, with the time and the machine.
struct TaskLog {
    file: Option<File>,
    origin: String,
}

impl TaskLog {
    /// A log that cannot be written is worth a warning, not the task.
    fn open(path: &Path, rank: usize) -> Self {
        let file = File::options().create(true).append(true).open(path);
        let file = file.inspect_err(|error| log::warn!("cannot open {}: {error}", path.display()));
        let host = gethostname::gethostname();
        let origin = format!("{} process {} rank {rank}", host.display(), std::process::id());
        Self { file: file.ok(), origin }
    }

    fn write(&self, message: &str) {
        let Some(mut file) = self.file.as_ref() else { return };
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        let line = format!("[{time} {}] {message}\n", self.origin);
        if let Err(error) = file.write_all(line.as_bytes()) {
            log::debug!("cannot write a task's log: {error}");
        }
    }
}

impl Drop for TaskProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::folder::SweepDir;

    use crate::sweep::plan;
    use crate::sweep::queue::{Crew, Next, Queue};

    /// Three tasks whose training a limit of 600 seconds ends, long before the steps do.
    const LIMITED: &str = "[sweep]\nname='t'\nlinear_size=16\ntemperatures=[2.0,2.5,3.0]\ndepths=[4]\n\
                           [train]\nsteps=1000000\nseconds=600.0\n[evaluate]\nsamples=1024\n\
                           [hmc]\nchains=8\nwarmup=10\ntrajectories=10\n";

    /// What one report after `seconds` of training says: the share that is done and the seconds that are left.
    fn after(seconds: f64) -> (f64, f64) {
        let config = Config::parse(LIMITED, Path::new("t.toml")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (dir, _lock) = SweepDir::prepare(&folder.path().join("sweep"), &config, false).unwrap();
        let task = plan::own_tasks(&config)[0];
        let alone = (&Ranks::alone(), &Team::Alone);
        let paths = (&*dir.progress_path(&task), &*dir.log_path(&task));
        let mut progress = TaskProgress::new(&task, &config, paths, alone, &MultiProgress::new());
        let (step, used) = ((seconds * 100.0) as i64, seconds / 600.0);
        progress.trained(Progress { step, used, loss: None });
        let snapshot = Snapshot::read(&dir.progress_path(&task)).unwrap();
        assert_eq!((snapshot.step, snapshot.steps), (step, 1_000_000));
        // One report only: the pace is that of the seconds given here, not the clock's.
        let remaining = progress.remaining_seconds(seconds);
        let told = Snapshot { seconds, ..snapshot.clone() }.remaining_seconds().unwrap();
        assert!((told - remaining).abs() < 1e-9 * remaining, "{told} {remaining}");
        (snapshot.fraction, remaining)
    }

    #[test]
    fn remaining_time_of_a_training_with_a_limit_of_seconds_is_that_of_the_limit() {
        let config = Config::parse(LIMITED, Path::new("t.toml")).unwrap();
        let cost = Cost::of(&config, &plan::own_tasks(&config)[0]);
        assert_eq!(cost.train, 600.0);
        let rest = cost.evaluate + cost.hmc;
        assert!(rest < 60.0, "{rest}");
        for seconds in [60.0, 300.0, 600.0] {
            let (fraction, remaining) = after(seconds);
            assert!((fraction - seconds / (600.0 + rest)).abs() < 1e-12, "{fraction}");
            assert!((remaining - (600.0 - seconds + rest)).abs() < 1e-9, "{remaining}");
        }
    }

    /// By its steps the paused task would need hours, and so would all others like it.
    #[test]
    fn pause_of_a_training_with_a_limit_of_seconds_leaves_the_costs_as_they_are() {
        let config = Config::parse(LIMITED, Path::new("t.toml")).unwrap();
        let tasks = plan::tasks(&config);
        let cost = tasks[0].cost;
        let mut queue =
            Queue::new(&tasks, &[0, 1, 2], Crew { ranks: 2, shortest_slice: Some(1.0) });
        assert_eq!([queue.take(0.0), queue.take(0.0)], [0, 1].map(Next::Task));
        let (_, remaining) = after(60.0);
        queue.paused(0, 60.0, remaining);
        // Task 2 may need three times its cost; behind it task 0, which waits, and what is left of task 1.
        assert_eq!(queue.take(60.0), Next::Task(2));
        let left = (cost + 2.0 * (cost - 60.0)) / 2.0;
        let slice = ((left - (cost - 60.0)) / 2.0).max(0.02 * left);
        assert!((queue.slice(60.0).unwrap() - slice).abs() < 1e-6, "{:?}", queue.slice(60.0));
    }
}
