//! What a user sees of a running task: a progress bar on a terminal, log lines elsewhere, and a small
//! file that `neuralrg status` reads.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::exact::exact_ising;
use crate::plan::{Cost, Task};
use crate::store::write_atomically;
use crate::train::Progress;

/// Least time between two writes of the progress file, and between two log lines of a stage.
const FILE_INTERVAL: Duration = Duration::from_secs(2);
const LOG_INTERVAL: Duration = Duration::from_secs(15);

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
}

impl Snapshot {
    /// Reads a progress file; none where there is no readable one.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
    }

    /// Seconds until the task is done, at the pace so far.
    pub fn remaining_seconds(&self) -> Option<f64> {
        (self.fraction > 0.01).then(|| self.seconds * (1.0 - self.fraction) / self.fraction)
    }
}

/// Seconds since 1970, as the progress files count them.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Reports the progress of one task.
pub struct TaskProgress {
    name: String,
    path: PathBuf,
    /// Hidden where standard error is not a terminal.
    bar: ProgressBar,
    log_lines: bool,
    cost: Cost,
    train_steps: i64,
    trajectories: i64,
    ln_z: f64,
    gap: Option<(f64, f64)>,
    start: Instant,
    written: Option<Instant>,
    logged: Instant,
}

impl TaskProgress {
    /// Starts to report on `task`; `bars` draws where standard error is a terminal.
    pub fn new(task: &Task, config: &Config, path: PathBuf, bars: &MultiProgress) -> Self {
        let style = ProgressStyle::with_template(
            "{prefix} {bar:30} {pos:>6}/{len} [{elapsed_precise} < {eta_precise}] {msg}",
        )
        .expect("the template is well-formed");
        let bar = bars.add(ProgressBar::new(config.train.steps as u64)).with_style(style);
        let log_lines = bar.is_hidden();
        bar.set_prefix(task.name());
        Self {
            name: task.name(),
            path,
            bar,
            log_lines,
            cost: Cost::of(config, task),
            train_steps: config.train.steps,
            trajectories: (config.hmc.warmup + config.hmc.trajectories)
                * (1 + config.controls.samplers.len() as i64),
            ln_z: -exact_ising(task.linear_size, task.temperature).free_energy_field,
            gap: None,
            start: Instant::now(),
            written: None,
            logged: Instant::now(),
        }
    }

    /// Training has done a step.
    pub fn trained(&mut self, progress: Progress) {
        if let Some((loss, error)) = progress.loss {
            self.gap = Some((loss + self.ln_z, error));
        }
        let message = self
            .gap
            .map_or_else(String::new, |(gap, error)| format!("gap {gap:.3} ± {error:.3} nat"));
        let done = self.cost.train * progress.step as f64 / self.train_steps as f64;
        self.report("train", progress.step, self.train_steps, done, &message);
    }

    /// The evaluation is done.
    pub fn evaluated(&mut self) {
        self.bar.set_length(self.trajectories as u64);
        let done = self.cost.train + self.cost.evaluate;
        self.report("evaluate", 1, 1, done, "");
    }

    /// HMC and its controls have done `trajectories`, warm-ups included.
    pub fn sampled(&mut self, trajectories: i64) {
        let fraction = trajectories as f64 / self.trajectories as f64;
        let done = self.cost.train + self.cost.evaluate + self.cost.hmc * fraction;
        self.report("hmc", trajectories, self.trajectories, done, "");
    }

    fn report(&mut self, stage: &str, step: i64, steps: i64, done: f64, message: &str) {
        self.bar.set_position(step as u64);
        self.bar.set_message(message.to_owned());
        let stage_ends = step == steps;
        if self.log_lines && (stage_ends || self.logged.elapsed() > LOG_INTERVAL) {
            let line = format!("{}: {stage} {step}/{steps} {message}", self.name);
            log::info!("{}", line.trim_end());
            self.logged = Instant::now();
        }
        if self.written.is_none_or(|written| written.elapsed() > FILE_INTERVAL) {
            self.write(stage, step, steps, done / self.cost.total());
            self.written = Some(Instant::now());
        }
    }

    /// A progress file that cannot be written is worth a warning, not the task.
    fn write(&self, stage: &str, step: i64, steps: i64, fraction: f64) {
        let snapshot = Snapshot {
            stage: stage.into(),
            step,
            steps,
            gap: self.gap.map(|(gap, _)| gap),
            gap_error: self.gap.map(|(_, error)| error),
            fraction,
            seconds: self.start.elapsed().as_secs_f64(),
            written_unix_seconds: unix_now(),
        };
        let text = serde_json::to_string(&snapshot).expect("a snapshot has a JSON form");
        if let Err(error) = write_atomically(&self.path, text.as_bytes()) {
            log::warn!("{}: {error}", self.name);
        }
    }
}

impl Drop for TaskProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
