//! Checkpoints of a running task: named arrays in a file with a checksum, the one before kept. The last one of a finished
//! task can be kept, too, so that the task goes on from there once its configuration wants more.
//!
//! The stages of a task (train, evaluate, hmc) each give their state as named arrays. A checkpoint holds
//! the final states of the stages that are done and the present state of the one that runs. Random
//! numbers need no state: they are a function of (seed, task, stage, step).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::ArrayD;
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::atomic::{write_atomically, write_beside};
use crate::files::seal::{open_line, seal_line, sha256};
use crate::files::state::{Restored, Saved, Unusable, number, read_number, under, within};
use crate::files::tensor_file::Tensor;
use crate::ranks::Team;
use crate::signals::Stop;
use crate::task::Start;
use crate::task::progress::Snapshot;

/// First words of a checkpoint; the number is raised when the states of the stages change.
const FORMAT: &str = "neuralrg checkpoint 7";

/// The only array of no stage: seconds that the task has taken.
const SECONDS: &str = "seconds";
/// Of each stage: seconds that it has taken.
const STAGE_SECONDS: &str = "stage_seconds";
/// Metadata of a checkpoint: how far the task was, with which configuration, and what it started from.
const PROGRESS: &str = "progress";
const CONFIGURATION: &str = "configuration";
const PARENT: &str = "parent";
/// And the checksum of the task's file, where it had one.
const FILE: &str = "file_sha256";

/// Saves and restores one task.
#[derive(Debug)]
pub struct Checkpoints {
    /// The last checkpoint; the one before has `.previous` behind its name.
    path: PathBuf,
    task: String,
    /// What later checkpoints say of the task: its configuration, what it started from, and which file it has.
    origin: HashMap<String, String>,
    /// Least time between two checkpoints; none: only when asked to stop.
    interval: Option<Duration>,
    stop: Stop,
    team: Team,
    /// Time after which the task gives way to another one, from its first step here on, by the clock of the team's
    /// leader; none: it runs to its end. The other members have none.
    slice: Option<Duration>,
    first_step: Option<Instant>,
    /// What it goes on from, with names `stage/name`.
    restored: Saved,
    /// Final states of the stages that are done, with names `stage/name`.
    done: Saved,
    start: Instant,
    /// When the present stage began here, and the seconds that it had taken before.
    stage: (Instant, f64),
    last: Instant,
}

/// What a checkpoint holds.
#[derive(Debug, Default)]
struct Content {
    /// What it says of itself.
    metadata: HashMap<String, String>,
    state: Saved,
}

impl Content {
    fn told<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_str(self.metadata.get(key)?).ok()
    }

    /// Whether its training has ended with these parameters.
    fn has_flow(&self, parameters: &[f64]) -> bool {
        let own = ["train/average", "train/parameters"].iter().find_map(|it| self.state.get(*it));
        own.is_some_and(|own| own.iter().eq(parameters))
    }
}

impl Checkpoints {
    /// Looks for a checkpoint of `task` at `path`. One that is damaged or of another format is passed over
    /// with a warning. Only the leader of a team reads and writes.
    pub fn open(
        path: PathBuf,
        task: &str,
        interval: Option<Duration>,
        stop: Stop,
        team: &Team,
    ) -> Self {
        let found = if team.leads() { restore(&path, task) } else { None };
        let Content { metadata, state } = found.unwrap_or_default();
        let now = Instant::now();
        Self {
            path,
            task: task.to_owned(),
            origin: metadata,
            interval,
            stop,
            team: team.clone(),
            slice: None,
            first_step: None,
            restored: state,
            done: Saved::new(),
            start: now,
            stage: (now, 0.0),
            last: now,
        }
    }

    /// Pauses the task after `slice`, which only the leader of a team has. Time to build the model does not count.
    pub fn pause_after(mut self, slice: Option<Duration>) -> Self {
        self.slice = slice;
        self
    }

    /// Goes on from the first state whose training is that of `config`, without its stages that are not. For a task with a file of
    /// this checksum and these parameters that is its checkpoint, if it was made beside this file, or what was kept at a path
    /// when it was finished, if that is of this flow. Returns what that training has started from, and what that had started
    /// from; none where no training goes on. Only for the leader of a team.
    pub fn go_on_with(
        &mut self,
        config: &Config,
        (file, kept): (Option<(String, Vec<f64>)>, PathBuf),
    ) -> Option<Option<(Start, String)>> {
        let (sha256, parameters) = file.unzip();
        let checkpoint = Content {
            metadata: std::mem::take(&mut self.origin),
            state: std::mem::take(&mut self.restored),
        };
        let fits = checkpoint.metadata.get(FILE) == sha256.as_ref() && !checkpoint.state.is_empty();
        self.origin.extend(sha256.map(|sha256| (FILE.to_owned(), sha256)));
        let task = self.task.clone();
        let is_own = |kept: &Content| parameters.as_ref().is_none_or(|own| kept.has_flow(own));
        let kept = std::iter::once_with(|| restore(&kept, &task).filter(is_own)).flatten();
        let mut any = false;
        let started =
            Some(checkpoint).filter(|_| fits).into_iter().chain(kept).find_map(|content| {
                any = true;
                let done: String = content.told(CONFIGURATION)?;
                let started: Option<(Start, String)> = content.told(PARENT)?;
                let lacking = config.lacks(&Config::parse(&done, &self.path).ok()?).ok()?;
                self.restored = content.state;
                for stage in lacking.anew() {
                    let of_stage = format!("{stage}/");
                    self.restored.retain(|name, _| !name.starts_with(&of_stage));
                }
                Some(started)
            });
        match &started {
            Some(started) => self.begin_from(started),
            None if any => {
                let (task, path) = (&self.task, self.path.display());
                log::warn!("task {task}: passing over {path}, which is of another configuration");
            }
            None => {}
        }
        self.tell(CONFIGURATION, &config.to_toml());
        started
    }

    /// What the task starts from, and what that had started from, for later checkpoints.
    pub fn begin_from(&mut self, start: &Option<(Start, String)>) {
        self.tell(PARENT, start);
    }

    fn tell(&mut self, key: &str, value: &impl Serialize) {
        let text = serde_json::to_string(value).expect("it has a JSON form");
        self.origin.insert(key.to_owned(), text);
    }

    /// Gives what the leader has read to the whole team, which must meet here before anything is restored.
    pub fn share(&mut self) {
        // The format has no form for a state without arrays.
        let found = !self.restored.is_empty();
        let own = if found { serialize(self.metadata(None), &self.restored) } else { Vec::new() };
        let bytes = self.team.leaders(own);
        if !bytes.is_empty() {
            let content = parse(&bytes, &self.task).expect("the leader has written it just now");
            self.restored = content.state;
        }
    }

    /// What `restore` makes of the state in which an interrupted stage was; none where it had not begun. A state that
    /// cannot be used is worth a warning: the stage begins anew, with all that follow.
    pub fn restored<T>(
        &mut self,
        stage: &str,
        restore: impl FnOnce(&Saved) -> Restored<T>,
    ) -> Option<T> {
        let state = within(stage, &self.restored);
        self.stage = (Instant::now(), 0.0);
        if state.is_empty() {
            return None;
        }
        let restored = read_number(&state, STAGE_SECONDS).and_then(|seconds| {
            let restored = restore(&state)?;
            self.stage.1 = seconds;
            Ok(restored)
        });
        if let Err(problem) = &restored {
            if self.team.leads() {
                let (task, path) = (&self.task, self.path.display());
                log::warn!(
                    "task {task}: the checkpoint {path} cannot be used for {stage} ({problem}); beginning \
                     {stage} anew"
                );
            }
            self.restored.retain(|name, _| name == SECONDS);
        }
        restored.ok()
    }

    /// Seconds that the task has taken, with those before an interruption.
    pub fn seconds(&self) -> f64 {
        let before = self.restored.get(SECONDS).map_or(0.0, ndarray::ArrayBase::sum);
        before + self.start.elapsed().as_secs_f64()
    }

    /// To be called after each step of a stage: saves its state, and how far the task is, when it is time, when a member of
    /// the team is asked to stop, with whom all others do, or when the leader is to pause.
    ///
    /// # Errors
    /// [`Error::Stopped`] or [`Error::Paused`], once everything is saved.
    pub fn step(
        &mut self,
        stage: &str,
        state: impl FnOnce() -> (Saved, Option<Snapshot>),
    ) -> Result<()> {
        let begun = *self.first_step.get_or_insert_with(Instant::now);
        let pause = self.slice.is_some_and(|slice| begun.elapsed() >= slice);
        let [stop, pause] = self.team.any([self.stop.requested(), pause]);
        let due = self.interval.is_some_and(|interval| self.last.elapsed() >= interval);
        let saved = self.team.leads() && (stop || pause || due) && {
            let (state, progress) = state();
            self.save(self.of_stage(stage, state), progress)
        };
        if stop {
            self.stop.request();
            return Err(Error::Stopped);
        }
        if pause {
            let [saved] = self.team.any([saved]);
            if saved {
                return Err(Error::Paused);
            }
            // Without a checkpoint it cannot move to another rank.
            self.slice = None;
        }
        Ok(())
    }

    /// A stage is done: its final state is part of all checkpoints from now on. Returns the seconds that it has taken.
    pub fn finish(&mut self, stage: &str, state: Saved) -> f64 {
        let seconds = self.stage_seconds();
        self.done.extend(self.of_stage(stage, state));
        seconds
    }

    /// The state of a stage as checkpoints have it.
    fn of_stage(&self, stage: &str, state: Saved) -> Saved {
        let mut state = under(stage, state);
        state.insert(format!("{stage}/{STAGE_SECONDS}"), number(self.stage_seconds()));
        state
    }

    /// Seconds that the present stage has taken, with those before an interruption.
    fn stage_seconds(&self) -> f64 {
        let (begun, before) = self.stage;
        before + begun.elapsed().as_secs_f64()
    }

    /// Saves what the finished stages left. A checkpoint that cannot be written is worth a warning: the one
    /// before stays.
    pub fn save_finished(&mut self, progress: Option<Snapshot>) {
        self.save(Saved::new(), progress);
    }

    /// Keeps what the finished stages left at `path`, for when the task goes on one day.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, path: &Path) -> Result<()> {
        let mut all = self.done.clone();
        all.insert(SECONDS.into(), number(self.seconds()));
        write_atomically(path, &to_bytes(self.metadata(None), &all))
    }

    /// Whether it could be written.
    fn save(&mut self, mut all: Saved, progress: Option<Snapshot>) -> bool {
        let start = Instant::now();
        // Stages that come later may have been finished, where an earlier one goes on.
        let stage = |name: &str| name.split('/').next().unwrap_or(name).to_owned();
        let done = all.keys().chain(self.done.keys());
        let present: HashSet<String> = done.map(|name| stage(name)).collect();
        let later = self.restored.iter().filter(|(name, _)| !present.contains(&stage(name)));
        all.extend(later.map(|(name, array)| (name.clone(), array.clone())));
        all.extend(self.done.clone());
        all.insert(SECONDS.into(), number(self.seconds()));
        let written = write(&self.path, &to_bytes(self.metadata(progress), &all));
        self.last = Instant::now();
        let seconds = (self.last - start).as_secs_f64();
        match &written {
            Ok(()) => log::debug!("task {}: checkpoint written in {seconds:.4} s", self.task),
            Err(error) => log::warn!("task {}: no checkpoint: {error}", self.task),
        }
        written.is_ok()
    }

    /// What a checkpoint says of itself.
    fn metadata(&self, progress: Option<Snapshot>) -> HashMap<String, String> {
        let mut metadata = self.origin.clone();
        metadata.remove(PROGRESS);
        metadata.insert("task".to_owned(), self.task.clone());
        metadata.insert("code_version".to_owned(), crate::VERSION.to_owned());
        metadata.extend(progress.map(|progress| {
            let text = serde_json::to_string(&progress).expect("a snapshot has a JSON form");
            (PROGRESS.to_owned(), seal_line(&text))
        }));
        metadata
    }

    /// Removes the task's checkpoints, which its file has made useless.
    pub fn remove(&self) {
        for path in [previous(&self.path), self.path.clone()] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                log::warn!("cannot remove {}: {error}", path.display());
            }
        }
    }
}

/// The last checkpoint that is fit for use.
fn restore(path: &Path, task: &str) -> Option<Content> {
    [path.to_owned(), previous(path)].iter().find_map(|path| {
        read(path, task).unwrap_or_else(|problem| {
            log::warn!(
                "task {task}: passing over the checkpoint {} ({problem}); going on from an earlier one, or \
                 from the start",
                path.display()
            );
            None
        })
    })
}

/// The configuration of the last checkpoint; none where there is none that says so.
pub fn configuration(path: &Path) -> Option<Config> {
    [path.to_owned(), previous(path)].iter().find_map(|path| {
        let text: String = serde_json::from_str(header(path)?[CONFIGURATION].as_str()?).ok()?;
        Config::parse(&text, path).ok()
    })
}

/// Whether there is a checkpoint.
pub fn exists(path: &Path) -> bool {
    path.exists() || previous(path).exists()
}

/// How far a task was when it was last saved, as its checkpoint says; none where there is none that says so.
pub fn saved_progress(path: &Path) -> Option<Snapshot> {
    [path.to_owned(), previous(path)]
        .iter()
        .find_map(|path| serde_json::from_str(open_line(header(path)?[PROGRESS].as_str()?)?).ok())
}

/// What a checkpoint says of itself, of which nothing else is read.
fn header(path: &Path) -> Option<serde_json::Value> {
    let mut file = BufReader::new(fs::File::open(path).ok()?);
    file.read_until(b'\n', &mut Vec::new()).ok()?;
    // The header of a safetensors file: its length, then JSON.
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let header = file.take(u64::from_le_bytes(length));
    let mut header: serde_json::Value = serde_json::from_reader(header).ok()?;
    header.get_mut("__metadata__").map(serde_json::Value::take)
}

fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".previous");
    name.into()
}

/// A checkpoint as its file has it.
fn to_bytes(metadata: HashMap<String, String>, state: &Saved) -> Vec<u8> {
    let body = serialize(metadata, state);
    let mut bytes = format!("{FORMAT} sha256 {}\n", sha256(&body)).into_bytes();
    bytes.extend(&body);
    bytes
}

/// Writes a checkpoint beside, reads it back, and only then lets it take the place of the last one, which
/// becomes the previous one.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_beside(path, |beside| {
        fs::write(beside, bytes).map_err(Error::io("write", path))?;
        fs::File::open(beside).and_then(|file| file.sync_all()).map_err(Error::io("sync", path))?;
        let verified = fs::read(beside).map_err(Error::io("read back", path))? == bytes;
        if !verified {
            let problem = io::Error::other("it does not hold what was written");
            return Err(Error::io("verify", path)(problem));
        }
        match fs::rename(path, previous(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("rename", path)(error))
            }
            _ => Ok(()),
        }
    })
}

/// A state as the bytes of a safetensors file.
fn serialize(metadata: HashMap<String, String>, state: &Saved) -> Vec<u8> {
    let tensors = state.iter().map(|(name, array)| {
        let values = array.iter().flat_map(|value| value.to_le_bytes()).collect();
        (name, Tensor::new(Dtype::F64, array.shape(), values))
    });
    safetensors::serialize(tensors, &Some(metadata)).expect("names are unique")
}

/// What a checkpoint holds; none where there is no such file.
fn read(path: &Path, task: &str) -> Restored<Option<Content>> {
    let unusable = |problem: &str| Unusable(problem.to_owned());
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|error| unusable(&error.to_string()))?,
    };
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let (line, body) = bytes.split_at(end.ok_or_else(|| unusable("it is cut off"))?);
    let body = &body[1..];
    let line = String::from_utf8_lossy(line);
    let sum = line.strip_prefix(FORMAT).and_then(|rest| rest.strip_prefix(" sha256 "));
    let sum = sum.ok_or_else(|| unusable("it is damaged, or of another version's format"))?;
    if sum != sha256(body) {
        return Err(unusable("its checksum does not fit"));
    }
    let content = parse(body, task)?;
    read_number(&content.state, SECONDS)?;
    Ok(Some(content))
}

/// What [`serialize`] has made.
fn parse(body: &[u8], task: &str) -> Restored<Content> {
    let unusable = |problem: &str| Unusable(problem.to_owned());
    let tensors = SafeTensors::deserialize(body).map_err(|error| unusable(&error.to_string()))?;
    let (_, metadata) =
        SafeTensors::read_metadata(body).map_err(|error| unusable(&error.to_string()))?;
    let metadata = metadata.metadata().clone().unwrap_or_default();
    if metadata.get("task").map(String::as_str) != Some(task) {
        return Err(unusable("it is another task's"));
    }
    let arrays = tensors.tensors().into_iter().map(|(name, view)| {
        if view.dtype() != Dtype::F64 {
            return Err(unusable("it has an array of other numbers"));
        }
        let numbers = view.data().as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes));
        let array = ArrayD::from_shape_vec(view.shape(), numbers.collect());
        Ok((name, array.expect("the file has as many numbers as it says")))
    });
    Ok(Content { state: arrays.collect::<Restored<_>>()?, metadata })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::files::state::{ANY, array};

    fn state(value: f64) -> Saved {
        let values = vec![value, f64::NAN, -0.0, f64::MIN_POSITIVE / 8.0];
        let values = ArrayD::from_shape_vec(vec![4], values).unwrap();
        Saved::from([
            (SECONDS.into(), number(1.0)),
            ("values".into(), values.clone()),
            ("square".into(), values.into_shape_with_order(vec![2, 2]).unwrap()),
            ("nothing".into(), ArrayD::zeros(vec![3, 0])),
        ])
    }

    fn of_task(name: &str) -> HashMap<String, String> {
        HashMap::from([("task".to_owned(), name.to_owned())])
    }

    fn all_bits(state: &Saved) -> BTreeMap<&str, (&[usize], Vec<u64>)> {
        let bits = |array: &ArrayD<f64>| array.iter().map(|value| value.to_bits()).collect();
        state.iter().map(|(name, array)| (name.as_str(), (array.shape(), bits(array)))).collect()
    }

    #[test]
    fn arrays_come_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task");
        assert!(read(&path, "t").unwrap().is_none());
        write(&path, &to_bytes(of_task("t"), &state(1.5))).unwrap();
        assert_eq!(all_bits(&read(&path, "t").unwrap().unwrap().state), all_bits(&state(1.5)));
        assert!(read(&path, "another").is_err());
    }

    fn first_value(state: &Saved) -> Restored<f64> {
        Ok(array(state, "values", 4)?[0])
    }

    /// Every byte of the file in turn, and cuts everywhere.
    #[test]
    fn damage_anywhere_in_a_checkpoint_falls_back_to_the_previous_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task");
        let saved = |value: f64| {
            let mut state = under("train", state(value));
            state.insert(SECONDS.into(), number(1.0));
            state.insert(format!("train/{STAGE_SECONDS}"), number(1.0));
            write(&path, &to_bytes(of_task("t"), &state)).unwrap();
        };
        saved(1.0);
        saved(2.0);
        let open = || Checkpoints::open(path.clone(), "t", None, Stop::default(), &Team::Alone);
        let value = |mut checkpoints: Checkpoints| checkpoints.restored("train", first_value);
        assert_eq!(value(open()), Some(2.0));
        let whole = fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << (place % 8);
            fs::write(&path, bytes).unwrap();
            assert_eq!(value(open()), Some(1.0), "byte {place}");
            fs::write(&path, &whole[..place]).unwrap();
            assert_eq!(value(open()), Some(1.0), "{place} bytes");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(value(open()), Some(1.0), "a job was killed between the two renames");
        fs::write(previous(&path), b"").unwrap();
        assert_eq!(value(open()), None);
    }

    #[test]
    fn stages_that_are_done_stay_in_later_checkpoints_with_their_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task");
        let stop = Stop::default();
        let mut first = Checkpoints::open(path.clone(), "t", None, stop.clone(), &Team::Alone);
        let train_seconds = first.finish("train", state(3.0));
        first.step("hmc", || unreachable!("nothing is due")).unwrap();
        assert!(!path.exists());
        stop.request();
        assert!(matches!(first.step("hmc", || (state(4.0), None)), Err(Error::Stopped)));

        let mut second = Checkpoints::open(path.clone(), "t", None, Stop::default(), &Team::Alone);
        second.share();
        assert!(second.seconds() >= train_seconds);
        for (stage, value) in [("train", 3.0), ("hmc", 4.0)] {
            assert_eq!(second.restored(stage, first_value), Some(value));
        }
        assert_eq!(second.restored("evaluate", first_value), None);
        second.restored("train", first_value);
        assert!(second.finish("train", state(3.0)) >= train_seconds);
        second.remove();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_array_that_is_missing_or_another_is_named() {
        let state = state(1.0);
        assert!(array(&state, "square", (2, ANY)).is_ok());
        assert_eq!(read_number(&state, "single").unwrap_err().0, "it has no array single");
        let told = array(&state, "square", (ANY, 3)).unwrap_err().0;
        assert_eq!(told, "its array square has the shape [2, 2], not [any, 3]");
        assert!(array(&state, "square", 2).is_err() && array(&state, "square", (2, 2, 1)).is_err());
    }

    #[test]
    fn a_state_that_cannot_be_used_begins_its_stage_and_those_after_it_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task");
        let stop = Stop::default();
        let mut first = Checkpoints::open(path.clone(), "t", None, stop.clone(), &Team::Alone);
        first.finish("train", state(3.0));
        stop.request();
        assert!(first.step("hmc", || (state(4.0), None)).is_err());
        let mut second = Checkpoints::open(path, "t", None, Stop::default(), &Team::Alone);
        let refuse = |_: &Saved| Err::<f64, _>(Unusable("no".into()));
        assert_eq!(second.restored("train", refuse), None);
        assert_eq!(second.restored("hmc", first_value), None);
        assert!(second.seconds() > 0.0);
    }

    #[test]
    fn task_is_paused_once_its_time_is_up_and_only_if_it_could_be_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task");
        let open = |path: &Path, slice| {
            Checkpoints::open(path.to_owned(), "t", None, Stop::default(), &Team::Alone)
                .pause_after(slice)
        };
        let mut long = open(&path, Some(Duration::from_secs(1000)));
        long.step("train", || unreachable!("its time is not up")).unwrap();
        let mut over = open(&path, Some(Duration::ZERO));
        assert!(matches!(over.step("train", || (state(1.0), None)), Err(Error::Paused)));
        assert!(open(&path, None).restored("train", first_value).is_some());

        let mut unsaved = open(&folder.path().join("missing/task"), Some(Duration::ZERO));
        unsaved.step("train", || (state(1.0), None)).unwrap();
        unsaved.step("train", || unreachable!("it is not tried again")).unwrap();
    }
}
