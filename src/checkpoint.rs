//! Checkpoints of a running task: named tensors in a file with a checksum, the one before kept.
//!
//! The stages of a task (train, evaluate, hmc) each give their state as named tensors. A checkpoint holds
//! the final states of the stages that are done and the present state of the one that runs. Random
//! numbers need no state: they are a function of (seed, task, stage, step).

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::progress::Snapshot;
use crate::rank::Team;
use crate::seal::{open_line, seal_line, sha256};
use crate::signals::Stop;
use crate::store::write_beside;

/// First words of a checkpoint; the number is raised when the states of the stages change.
const FORMAT: &str = "neuralrg checkpoint 3";

/// The only tensor of no stage: seconds that the task has taken.
const SECONDS: &str = "seconds";
/// Metadata of a checkpoint: how far the task was.
const PROGRESS: &str = "progress";

/// A state as tensors with names.
pub type Tensors = BTreeMap<String, Tensor>;

/// A number as a state keeps it: (), f64.
pub fn number(value: f64) -> Tensor {
    Tensor::from(value)
}

/// Why a checkpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

/// What was made of a saved state, if it can be used.
pub type Restored<T> = std::result::Result<T, Unusable>;

/// The number of this name in a state.
///
/// # Errors
/// There is none.
pub fn read_number(state: &Tensors, name: &str) -> Restored<f64> {
    Ok(tensor(state, name, Kind::Double, &[])?.double_value(&[]))
}

/// The tensor of this name in a state, which must be of this kind and shape; -1 stands for any length.
///
/// # Errors
/// There is none, or it is another one.
pub fn tensor<'a>(
    state: &'a Tensors,
    name: &str,
    kind: Kind,
    shape: &[i64],
) -> Restored<&'a Tensor> {
    let tensor = state.get(name).ok_or_else(|| Unusable(format!("it has no tensor {name}")))?;
    let (found, size) = (tensor.kind(), tensor.size());
    let fits = size.len() == shape.len()
        && size.iter().zip(shape).all(|(length, wanted)| *wanted == -1 || length == wanted);
    if found == kind && fits {
        Ok(tensor)
    } else {
        Err(Unusable(format!(
            "its tensor {name} is {found:?} of shape {size:?}, not {kind:?} of shape {shape:?}"
        )))
    }
}

/// Saves and restores one task.
#[derive(Debug)]
pub struct Checkpoints {
    /// The last checkpoint; the one before has `.previous` behind its name.
    path: PathBuf,
    task: String,
    /// Least time between two checkpoints; none: only when asked to stop.
    interval: Option<Duration>,
    stop: Stop,
    team: Team,
    /// Time after which the task gives way to another one, from its first step here on, by the clock of the team's
    /// leader; none: it runs to its end. The other members have none.
    slice: Option<Duration>,
    first_step: Option<Instant>,
    /// What was read, with names `stage/name`.
    restored: Tensors,
    /// Final states of the stages that are done, with names `stage/name`.
    done: Tensors,
    start: Instant,
    last: Instant,
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
        let restored = if team.leads() { restore(&path, task) } else { Tensors::new() };
        let now = Instant::now();
        Self {
            path,
            task: task.to_owned(),
            interval,
            stop,
            team: team.clone(),
            slice: None,
            first_step: None,
            restored,
            done: Tensors::new(),
            start: now,
            last: now,
        }
    }

    /// Pauses the task after `slice`, which only the leader of a team has. Time to build the model does not count.
    pub fn pause_after(mut self, slice: Option<Duration>) -> Self {
        self.slice = slice;
        self
    }

    /// Gives what the leader has read to the whole team, which must meet here before anything is restored.
    pub fn share(&mut self) {
        // The format has no form for a state without tensors.
        let found = !self.restored.is_empty();
        let metadata = metadata(&self.task, None);
        let own = if found { serialize(metadata, &self.restored) } else { Vec::new() };
        let bytes = self.team.leaders(own);
        if !bytes.is_empty() {
            self.restored = parse(&bytes, &self.task).expect("the leader has written it just now");
        }
    }

    /// What `restore` makes of the state in which an interrupted stage was; none where it had not begun. A state that
    /// cannot be used is worth a warning: the stage begins anew, with all that follow.
    pub fn restored<T>(
        &mut self,
        stage: &str,
        restore: impl FnOnce(&Tensors) -> Restored<T>,
    ) -> Option<T> {
        let state = within(stage, &self.restored);
        if state.is_empty() {
            return None;
        }
        let restored = restore(&state);
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
        let before = self.restored.get(SECONDS).map_or(0.0, |seconds| seconds.double_value(&[]));
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
        state: impl FnOnce() -> (Tensors, Option<Snapshot>),
    ) -> Result<()> {
        let begun = *self.first_step.get_or_insert_with(Instant::now);
        let pause = self.slice.is_some_and(|slice| begun.elapsed() >= slice);
        let [stop, pause] = self.team.any([self.stop.requested(), pause]);
        let due = self.interval.is_some_and(|interval| self.last.elapsed() >= interval);
        let saved = self.team.leads() && (stop || pause || due) && {
            let (state, progress) = state();
            self.save(stage, state, progress)
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

    /// A stage is done: its final state is part of all checkpoints from now on. Returns the seconds that the
    /// task had taken then.
    pub fn finish(&mut self, stage: &str, state: Tensors) -> f64 {
        let ended = format!("{stage}/ended_seconds");
        let kept = self.restored.get(&ended).map(|seconds| seconds.double_value(&[]));
        let seconds = kept.unwrap_or_else(|| self.seconds());
        self.done.extend(under(stage, state));
        self.done.insert(ended, number(seconds));
        seconds
    }

    /// Saves what the finished stages left. A checkpoint that cannot be written is worth a warning: the one
    /// before stays.
    pub fn save_finished(&mut self, progress: Snapshot) {
        self.save("", Tensors::new(), Some(progress));
    }

    /// Whether it could be written.
    fn save(&mut self, stage: &str, state: Tensors, progress: Option<Snapshot>) -> bool {
        let start = Instant::now();
        let mut all = under(stage, state);
        all.extend(self.done.iter().map(|(name, value)| (name.clone(), value.shallow_clone())));
        all.insert(SECONDS.into(), number(self.seconds()));
        let written = write(&self.path, metadata(&self.task, progress), &all);
        self.last = Instant::now();
        let seconds = (self.last - start).as_secs_f64();
        match &written {
            Ok(()) => log::debug!("task {}: checkpoint written in {seconds:.4} s", self.task),
            Err(error) => log::warn!("task {}: no checkpoint: {error}", self.task),
        }
        written.is_ok()
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

/// The last checkpoint that is fit for use; an empty state where there is none.
fn restore(path: &Path, task: &str) -> Tensors {
    let usable = [path.to_owned(), previous(path)].iter().find_map(|path| {
        read(path, task).unwrap_or_else(|problem| {
            log::warn!(
                "task {task}: passing over the checkpoint {} ({problem}); going on from an earlier one, or \
                 from the start",
                path.display()
            );
            None
        })
    });
    usable.unwrap_or_default()
}

/// How far a task was when it was last saved, as its checkpoint says; none where there is none that says so.
pub fn saved_progress(path: &Path) -> Option<Snapshot> {
    [path.to_owned(), previous(path)].iter().find_map(|path| {
        let mut file = BufReader::new(fs::File::open(path).ok()?);
        file.read_until(b'\n', &mut Vec::new()).ok()?;
        // The header of a safetensors file: its length, then JSON.
        let mut length = [0; 8];
        file.read_exact(&mut length).ok()?;
        let header = file.take(u64::from_le_bytes(length));
        let header: serde_json::Value = serde_json::from_reader(header).ok()?;
        serde_json::from_str(open_line(header["__metadata__"][PROGRESS].as_str()?)?).ok()
    })
}

fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".previous");
    name.into()
}

/// A state as part of a larger one: `part/` before every name.
pub fn under(part: &str, state: Tensors) -> Tensors {
    state.into_iter().map(|(name, tensor)| (format!("{part}/{name}"), tensor)).collect()
}

/// What [`under`] has put into a larger state.
pub fn within(part: &str, state: &Tensors) -> Tensors {
    let prefix = format!("{part}/");
    let inside = |(name, tensor): (&String, &Tensor)| {
        Some((name.strip_prefix(&prefix)?.to_owned(), tensor.shallow_clone()))
    };
    state.iter().filter_map(inside).collect()
}

/// Writes a checkpoint beside, reads it back, and only then lets it take the place of the last one, which
/// becomes the previous one.
fn write(path: &Path, metadata: HashMap<String, String>, state: &Tensors) -> Result<()> {
    let body = serialize(metadata, state);
    let mut bytes = format!("{FORMAT} sha256 {}\n", sha256(&body)).into_bytes();
    bytes.extend(&body);
    write_beside(path, |beside| {
        fs::write(beside, &bytes).map_err(Error::io("write", path))?;
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

/// What a checkpoint says of itself.
fn metadata(task: &str, progress: Option<Snapshot>) -> HashMap<String, String> {
    let mut metadata = HashMap::from([
        ("task".to_owned(), task.to_owned()),
        ("code_version".to_owned(), crate::VERSION.to_owned()),
    ]);
    metadata.extend(progress.map(|progress| {
        let text = serde_json::to_string(&progress).expect("a snapshot has a JSON form");
        (PROGRESS.to_owned(), seal_line(&text))
    }));
    metadata
}

/// Named tensors as the bytes of a safetensors file.
pub(crate) fn serialize(metadata: HashMap<String, String>, tensors: &Tensors) -> Vec<u8> {
    let raw: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
            let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
            tensor.copy_data_u8(&mut bytes, tensor.numel());
            let shape = tensor.size().iter().map(|&length| length as usize).collect();
            (name.as_str(), dtype(tensor.kind()), shape, bytes)
        })
        .collect();
    let views = raw.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (*name, view.expect("the bytes are those of the shape"))
    });
    safetensors::serialize(views, &Some(metadata)).expect("names are unique")
}

/// The state in a checkpoint; none where there is no such file.
fn read(path: &Path, task: &str) -> Restored<Option<Tensors>> {
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
    let state = parse(body, task)?;
    read_number(&state, SECONDS)?;
    Ok(Some(state))
}

/// What [`serialize`] has made.
fn parse(body: &[u8], task: &str) -> Restored<Tensors> {
    let unusable = |problem: &str| Unusable(problem.to_owned());
    let tensors = SafeTensors::deserialize(body).map_err(|error| unusable(&error.to_string()))?;
    let (_, metadata) =
        SafeTensors::read_metadata(body).map_err(|error| unusable(&error.to_string()))?;
    let named = metadata.metadata().as_ref().and_then(|metadata| metadata.get("task"));
    if named.map(String::as_str) != Some(task) {
        return Err(unusable("it is another task's"));
    }
    tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let kind =
                kind(view.dtype()).ok_or_else(|| unusable("it has a tensor of no known type"))?;
            let shape: Vec<i64> = view.shape().iter().map(|&length| length as i64).collect();
            Ok((name, Tensor::from_data_size(view.data(), &shape, kind)))
        })
        .collect()
}

fn dtype(kind: Kind) -> Dtype {
    match kind {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Int => Dtype::I32,
        Kind::Int64 => Dtype::I64,
        other => unreachable!("no state and no export has a tensor of {other:?}"),
    }
}

fn kind(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F64 => Some(Kind::Double),
        Dtype::I64 => Some(Kind::Int64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(value: f64) -> Tensors {
        let values = Tensor::from_slice(&[value, f64::NAN, -0.0, f64::MIN_POSITIVE / 8.0]);
        Tensors::from([
            (SECONDS.into(), number(1.0)),
            ("values".into(), values.shallow_clone()),
            ("single".into(), values.to_kind(Kind::Float).view([2, 2])),
            ("count".into(), Tensor::from(7i64)),
            ("nothing".into(), Tensor::zeros([3, 0], (Kind::Double, Device::Cpu))),
        ])
    }

    fn bits(tensor: &Tensor) -> (Kind, Vec<i64>, Vec<u8>) {
        let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        (tensor.kind(), tensor.size(), bytes)
    }

    fn all_bits(state: &Tensors) -> BTreeMap<&str, (Kind, Vec<i64>, Vec<u8>)> {
        state.iter().map(|(name, tensor)| (name.as_str(), bits(tensor))).collect()
    }

    #[test]
    fn tensors_come_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task");
        assert!(read(&path, "t").unwrap().is_none());
        write(&path, metadata("t", None), &state(1.5)).unwrap();
        assert_eq!(all_bits(&read(&path, "t").unwrap().unwrap()), all_bits(&state(1.5)));
        assert!(read(&path, "another").is_err());
    }

    fn first_value(state: &Tensors) -> Restored<f64> {
        Ok(tensor(state, "values", Kind::Double, &[4])?.double_value(&[0]))
    }

    /// Every byte of the file in turn, and cuts everywhere.
    #[test]
    fn damage_anywhere_in_a_checkpoint_falls_back_to_the_previous_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task");
        let saved = |value: f64| {
            let mut state = under("train", state(value));
            state.insert(SECONDS.into(), number(1.0));
            write(&path, metadata("t", None), &state).unwrap();
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
        assert_eq!(second.finish("train", state(3.0)), train_seconds);
        second.remove();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_tensor_that_is_missing_or_another_is_named() {
        let state = state(1.0);
        let told =
            |name: &str, kind, shape: &[i64]| tensor(&state, name, kind, shape).unwrap_err().0;
        assert!(tensor(&state, "single", Kind::Float, &[2, -1]).is_ok());
        assert_eq!(told("double", Kind::Double, &[]), "it has no tensor double");
        let expected = "its tensor single is Float of shape [2, 2], not Double of shape [2, 2]";
        assert_eq!(told("single", Kind::Double, &[2, 2]), expected);
        for shape in [&[2][..], &[2, 3], &[2, 2, 1]] {
            assert!(told("single", Kind::Float, shape).contains("is Float of shape [2, 2], not"));
        }
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
        let refuse = |_: &Tensors| Err::<f64, _>(Unusable("no".into()));
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
