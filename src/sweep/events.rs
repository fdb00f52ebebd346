//! The event log of a sweep's folder: `events.jsonl`, one JSON object a line, appended by rank 0 of each
//! job in one write a line.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    JobStarted {
        ranks: usize,
        tasks_to_do: usize,
        tasks: usize,
    },
    /// `taken_over_from` names the dead job that had it before.
    TaskStarted {
        task: &'a str,
        rank: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        taken_over_from: Option<&'a str>,
    },
    TaskDone {
        task: &'a str,
        rank: usize,
    },
    TaskFailed {
        task: &'a str,
        rank: usize,
        message: &'a str,
    },
    /// Its checkpoint is written; another job goes on with it.
    TaskStopped {
        task: &'a str,
        rank: usize,
    },
    /// Its checkpoint is written; some rank of this job goes on with it, or another job.
    TaskPaused {
        task: &'a str,
        rank: usize,
        remaining_seconds: f64,
    },
    /// The task that it starts from failed.
    TaskGivenUp {
        task: &'a str,
    },
    JobEnded {
        failed: usize,
        unfinished: usize,
    },
}

#[derive(Serialize)]
struct Line<'a> {
    unix_seconds: f64,
    job: &'a str,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// Appends to the log.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    job: String,
    file: Mutex<Option<File>>,
}

impl Events {
    /// A log that cannot be written is worth a warning, not the job.
    pub fn open(path: PathBuf, job: &str) -> Self {
        let file = OpenOptions::new().create(true).append(true).read(true).open(&path);
        let file = file.and_then(|mut file| end_last_line(&mut file).map(|()| file));
        let file = file.inspect_err(|error| log::warn!("cannot open {}: {error}", path.display()));
        Self { path, job: job.to_owned(), file: Mutex::new(file.ok()) }
    }

    /// Adds a line.
    pub fn write(&self, event: &Event) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
        let line = Line { unix_seconds: (now * 1e3).round() / 1e3, job: &self.job, event };
        let line = serde_json::to_string(&line).expect("an event has a JSON form") + "\n";
        let mut file = self.file.lock().expect("no holder panics");
        if let Some(Err(error)) = file.as_mut().map(|file| file.write_all(line.as_bytes())) {
            log::warn!("cannot write {}: {error}", self.path.display());
        }
    }
}

/// A killed job or a full disk may have left half a line.
fn end_last_line(file: &mut File) -> std::io::Result<()> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}
