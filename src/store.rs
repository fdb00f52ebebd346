//! The sweep's folder and the task files in it: written beside, synced and renamed, so that a file with
//! its final name is a finished one.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use hdf5::types::{FixedUnicode, TypeDescriptor, VarLenUnicode};
use ndarray::{Array1, Array2, Array3, ArrayD, ArrayView, ArrayView1, Axis, Dimension};

use crate::claims::Claims;
use crate::config::{Config, Sampler};
use crate::dimension_scale;
use crate::error::{Error, Result};
use crate::flow::coupling::Half;
use crate::hdf5_image::image;
use crate::lattice::on_lattice;
use crate::plan::Task;
use crate::schema::{self, Item};
use crate::seal::{self, Seal, open_text, seal_text};
use crate::task_file::Head;

/// How names of files begin that are still being written.
const UNFINISHED: &str = ".unfinished-";

/// How long a network file system may take to show a file that another node has written.
const LATEST: Duration = Duration::from_secs(60);

/// Room for every unit and description of the schema.
type Label = FixedUnicode<256>;

/// Numbers by the name that the schema gives them.
pub type Numbers = BTreeMap<String, f64>;

/// Everything a finished task leaves behind.
#[derive(Debug)]
pub struct TaskRecord {
    pub task: Task,
    /// The task whose trained parameters the training started from; at random where there is none.
    pub parent: Option<Task>,
    /// The resolved configuration of the sweep, as TOML.
    pub configuration: String,
    pub host: String,
    pub device: String,
    /// CPU threads of the rank.
    pub threads: usize,
    /// By the names of [`schema::task_scalars`].
    pub scalars: Numbers,
    /// What is wrong with the task's numbers; nothing if all is well.
    pub verdict: Vec<String>,
    /// By the names of [`schema::REFERENCE_SCALARS`].
    pub references: Numbers,
    /// By the names of [`schema::TIMING_SCALARS`].
    pub timing: Numbers,
    /// Flat parameter vector.
    pub parameters: Array1<f64>,
    /// As [`Architecture::halves`](crate::flow::Architecture::halves) has them.
    pub halves: Vec<Half>,
    /// (quantity, step), quantities as in [`schema::TRAIN_HISTORY`].
    pub history: Array2<f64>,
    pub ln_q: Vec<f64>,
    pub ln_pi: Vec<f64>,
    /// (sample, N).
    pub samples: Array2<f64>,
    /// One of each sampler that ran, reweighting last.
    pub samplers: Vec<SamplerRecord>,
    /// (quantity, measurement), quantities as in [`schema::COURSE`]; no columns where nothing was measured.
    pub course: Array2<f64>,
    /// (quantity, L, L), quantities as in [`schema::LATTICE_OBSERVABLES`].
    pub lattice: Array3<f64>,
    /// By the names of [`schema::HELD_OUT_SCALARS`]; none where the flow learned from its own samples.
    pub held_out: Numbers,
}

/// What a sampler leaves behind.
#[derive(Debug)]
pub struct SamplerRecord {
    pub name: &'static str,
    /// (quantity, chain, trajectory), quantities as in [`schema::CHAINS`], from the first on.
    pub chains: Array3<f64>,
    /// By the names of [`schema::sampler_scalars`], or some of them.
    pub estimates: Numbers,
    pub verdict: Vec<String>,
    pub warmup_rule: String,
}

/// What a study of a finished task leaves behind.
#[derive(Debug)]
pub struct StudyRecord {
    pub task: Task,
    /// Checksum of the task file that it is of.
    pub task_sha256: String,
    /// What it was asked for, in words.
    pub settings: String,
    pub arrays: Vec<(Item, ArrayD<f64>)>,
}

/// The folder of one sweep.
#[derive(Debug, Clone)]
pub struct SweepDir {
    root: PathBuf,
}

/// Held while a job works on a folder, together with other jobs of this version; versions that know no
/// claims want it alone. Released when the process ends, however it ends.
#[derive(Debug)]
pub struct SweepLock {
    _file: File,
}

impl SweepDir {
    /// Makes or reopens the folder for `config`, and keeps jobs of older versions out.
    ///
    /// # Errors
    /// The folder cannot be written, belongs to another configuration, or a job of an older version works
    /// on it.
    pub fn prepare(root: &Path, config: &Config) -> Result<(Self, SweepLock)> {
        let dir = Self { root: root.into() };
        for folder in dir.folders() {
            fs::create_dir_all(&folder).map_err(Error::io("create folder", &folder))?;
        }
        let lock = dir.lock()?;
        if dir.config_path().exists() {
            dir.check_configuration(config)?;
        } else {
            write_atomically(&dir.config_path(), seal_text(&config.to_toml()).as_bytes())?;
        }
        dir.remove_unfinished();
        Ok((dir, lock))
    }

    /// Opens a folder that `run` made.
    ///
    /// # Errors
    /// It is not such a folder.
    pub fn open(root: &Path) -> Result<Self> {
        let dir = Self { root: root.into() };
        if dir.config_path().is_file() {
            Ok(dir)
        } else {
            Err(Error::NotASweep { dir: root.into() })
        }
    }

    /// The folder without any check, for ranks other than the one that prepared it.
    pub fn prepared(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// The configuration that the folder was made with.
    ///
    /// # Errors
    /// As [`Config::read`], or the file is not as it was written.
    pub fn read_config(&self) -> Result<Config> {
        let path = self.config_path();
        let sealed = fs::read_to_string(&path).map_err(Error::io("read configuration", &path))?;
        let text =
            open_text(&sealed).ok_or_else(|| Error::DamagedConfiguration { path: path.clone() })?;
        Config::parse(text, &path)
    }

    /// Whether the folder was made with `config`, the machine aside.
    ///
    /// # Errors
    /// It was not, or as [`SweepDir::read_config`].
    pub fn check_configuration(&self, config: &Config) -> Result<()> {
        match config.difference(&self.read_config()?) {
            Some(difference) => {
                Err(Error::OtherConfiguration { dir: self.root.clone(), difference })
            }
            None => Ok(()),
        }
    }

    /// Path of a task's checkpoint.
    pub fn checkpoint_path(&self, task: &Task) -> PathBuf {
        self.root.join("checkpoints").join(task.name())
    }

    /// Path of what a task had to say, over all its attempts.
    pub fn log_path(&self, task: &Task) -> PathBuf {
        self.root.join("logs").join(format!("{}.log", task.name()))
    }

    /// Path of the event log.
    pub fn events_path(&self) -> PathBuf {
        self.root.join("events.jsonl")
    }

    /// Which jobs work on what.
    pub fn claims(&self) -> Claims {
        Claims::new(&self.root)
    }

    fn config_path(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// Path of a task's file.
    pub fn task_path(&self, task: &Task) -> PathBuf {
        self.root.join("tasks").join(format!("{}.h5", task.name()))
    }

    /// Names of the tasks that have a file.
    pub fn finished_names(&self) -> HashSet<String> {
        names_in(&self.root.join("tasks"), ".h5")
    }

    /// Names of the tasks that failed.
    pub fn failed_names(&self) -> HashSet<String> {
        names_in(&self.failures(), ".txt")
    }

    /// Names of the tasks that have told how far they are.
    pub fn running_names(&self) -> HashSet<String> {
        names_in(&self.running(), ".json")
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder with one text file for each task that failed.
    pub fn failures(&self) -> PathBuf {
        self.root.join("failed")
    }

    /// When the task's last failure was recorded, if it failed.
    pub fn failed_at(&self, task: &Task) -> Option<SystemTime> {
        fs::metadata(self.failure_path(task)).and_then(|data| data.modified()).ok()
    }

    fn failure_path(&self, task: &Task) -> PathBuf {
        self.failures().join(format!("{}.txt", task.name()))
    }

    fn running(&self) -> PathBuf {
        self.root.join("running")
    }

    /// Path of the file that tells how far a running task is.
    pub fn progress_path(&self, task: &Task) -> PathBuf {
        self.running().join(format!("{}.json", task.name()))
    }

    /// Path of the collected file.
    pub fn sweep_path(&self) -> PathBuf {
        self.root.join("sweep.h5")
    }

    /// Message of the task's last failure, if it failed.
    pub fn failure(&self, task: &Task) -> Option<String> {
        fs::read_to_string(self.failure_path(task)).ok()
    }

    /// Keeps the message of a failed task.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record_failure(&self, task: &Task, error: &Error) -> Result<()> {
        write_atomically(&self.failure_path(task), format!("{error}\n").as_bytes())
    }

    /// Forgets what is kept of a task that runs or failed.
    pub fn forget(&self, task: &Task) {
        for path in [self.progress_path(task), self.failure_path(task)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                log::warn!("cannot remove {}: {error}", path.display());
            }
        }
    }

    /// Moves a damaged task file aside so that the task can run again; nothing is deleted.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub fn move_aside(&self, task: &Task) -> Result<PathBuf> {
        let path = self.task_path(task);
        let aside = path.with_extension("h5.damaged");
        fs::rename(&path, &aside).map_err(Error::io("rename", path))?;
        Ok(aside)
    }

    fn folders(&self) -> Vec<PathBuf> {
        let names = ["tasks", "failed", "running", "checkpoints", "claims", "jobs", "logs"];
        let folders = names.iter().map(|name| self.root.join(name));
        std::iter::once(self.root.clone()).chain(folders).collect()
    }

    /// Removes what a killed process was writing.
    fn remove_unfinished(&self) {
        let entries = self.folders().into_iter().flat_map(fs::read_dir).flatten().flatten();
        for entry in entries {
            if is_left_behind(&entry)
                && let Err(error) = fs::remove_file(entry.path())
                && error.kind() != std::io::ErrorKind::NotFound
            {
                log::warn!("cannot remove {}: {error}", entry.path().display());
            }
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.root.join("lock")
    }

    fn lock(&self) -> Result<SweepLock> {
        let path = self.lock_path();
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        match file.try_lock_shared() {
            Err(fs::TryLockError::WouldBlock) => Err(Error::Busy { dir: self.root.clone() }),
            Err(fs::TryLockError::Error(error)) => {
                log::debug!("no file locks on {}: {error}", self.root.display());
                Ok(SweepLock { _file: file })
            }
            Ok(()) => Ok(SweepLock { _file: file }),
        }
    }

    /// Whether a job of an older version works on the folder.
    pub fn is_locked(&self) -> bool {
        let tried = File::open(self.lock_path()).map(|file| file.try_lock_shared());
        matches!(tried, Ok(Err(fs::TryLockError::WouldBlock)))
    }
}

/// Names of the files of a folder with this ending, without it.
fn names_in(folder: &Path, ending: &str) -> HashSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        Some(name.strip_suffix(ending)?.to_owned())
    };
    entries.filter_map(name).collect()
}

/// How the names of files begin that this process is writing: with its number and machine.
fn unfinished_prefix() -> String {
    let host = gethostname::gethostname();
    format!("{UNFINISHED}{}-{}-", std::process::id(), host.to_string_lossy())
}

/// Whether a file was being written by a process that is no more: one of this machine that does not run, or
/// any that has not written for a day.
fn is_left_behind(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy().into_owned();
    let Some(rest) = name.strip_prefix(UNFINISHED) else { return false };
    let modified = entry.metadata().and_then(|data| data.modified()).ok();
    let age = modified.and_then(|modified| modified.elapsed().ok());
    if age.is_some_and(|age| age > Duration::from_secs(86_400)) {
        return true;
    }
    let host = gethostname::gethostname();
    let Some((process, rest)) = rest.split_once('-') else { return true };
    let here = rest.starts_with(&format!("{}-", host.to_string_lossy()));
    let running = Path::new("/proc").join(process).exists();
    here && (!running || process == std::process::id().to_string())
}

/// Writes a file beside its final name, syncs it and renames it.
///
/// # Errors
/// Any of these steps fails; the final name then keeps what it had.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<()> {
    write_beside(path, |beside| fs::write(beside, contents).map_err(Error::io("write", path)))
}

/// Lets `write` fill a file beside `path`, then syncs it and renames it to `path`.
pub(crate) fn write_beside(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = folder_of(path);
    let beside = tempfile::Builder::new()
        .prefix(&unfinished_prefix())
        // As every program makes files: what the umask lets through, so that a group can share a folder.
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(Error::io("create a file in", folder))?
        .into_temp_path();
    write(&beside)?;
    let synced = File::open(&beside).and_then(|file| file.sync_all());
    synced.map_err(Error::io("sync", path))?;
    beside.persist(path).map_err(|error| Error::io("rename a file to", path)(error.error))?;
    // The rename itself lasts through a power cut only when the folder is synced too.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", folder))
}

/// Path of the file that a study of a task leaves in a folder.
pub fn study_path(folder: &Path, study: &str, task: &Task) -> PathBuf {
    folder.join(study).join(format!("{}.h5", task.name()))
}

/// Whether a file of this name could be written, so that this is known before the work is done.
///
/// # Errors
/// Its folder is not there or cannot be written, or it is a folder itself.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        let problem = std::io::Error::from(std::io::ErrorKind::IsADirectory);
        return Err(Error::io("write", path)(problem));
    }
    probe(folder_of(path))
}

/// Whether files could be written into a folder that may still have to be made.
///
/// # Errors
/// They could not.
pub fn check_writable_folder(folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|folder| folder.exists());
    probe(there.unwrap_or(Path::new(".")))
}

/// Makes a file in a folder and removes it.
fn probe(folder: &Path) -> Result<()> {
    let file = tempfile::Builder::new().prefix(&unfinished_prefix()).tempfile_in(folder);
    // The name that tempfile adds to its errors is no user's.
    let cause = |error: std::io::Error| {
        error.raw_os_error().map_or(error, std::io::Error::from_raw_os_error)
    };
    file.map(drop).map_err(|error| Error::io("write into folder", folder)(cause(error)))
}

/// The folder that a file of this name is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder == Path::new("") => Path::new("."),
        Some(folder) => folder,
        None => path,
    }
}

/// Writes the file of a task that was finished with `config`.
///
/// # Errors
/// The file cannot be written; no file has the final name then.
pub fn write_task(path: &Path, record: &TaskRecord, config: &Config) -> Result<()> {
    let mut head = Head::of(record, config);
    let block = seal::block_for(Some(&head.line()));
    let content = hdf5_content(path, block, |file| fill_task(file, record))?;
    head.content_bytes = content.len() as u64;
    write_atomically(path, &seal::seal_hdf5_bytes(&content, block, Some(&head.line())))
}

/// Lets `fill` write a new HDF5 file, in memory, and writes its bytes with their checksum to `path`.
///
/// # Errors
/// libhdf5's, or the file cannot be written; `path` then has what it had.
pub(crate) fn write_hdf5(
    path: &Path,
    fill: impl FnOnce(&hdf5::File) -> hdf5::Result<()>,
) -> Result<()> {
    let block = seal::block_for(None);
    let content = hdf5_content(path, block, fill)?;
    write_atomically(path, &seal::seal_hdf5_bytes(&content, block, None))
}

/// The bytes of an HDF5 file that `fill` has written, to stand behind a user block of so many bytes.
///
/// libhdf5 does not write to the disk itself, since it does not tell of every write that fails: a file
/// with zeros in the place of some numbers has been seen to pass.
fn hdf5_content(
    path: &Path,
    block: u64,
    fill: impl FnOnce(&hdf5::File) -> hdf5::Result<()>,
) -> Result<Vec<u8>> {
    let mut options = hdf5::File::with_options();
    options.with_fapl(|properties| properties.core_filebacked(false));
    options.with_fcpl(|properties| properties.userblock(block));
    let bytes = options.create(path).and_then(|file| {
        fill(&file)?;
        image(&file)
    });
    bytes.map_err(Error::hdf5("write", path))
}

fn fill_task(file: &hdf5::File, record: &TaskRecord) -> hdf5::Result<()> {
    let task = &record.task;
    write_text(file, "format", schema::TASK_FORMAT)?;
    write_number(file, "format_version", schema::FORMAT_VERSION)?;
    write_text(file, "code_version", crate::VERSION)?;
    write_identity(file, task)?;
    let parent = record.parent.map_or_else(|| schema::AT_RANDOM.into(), |parent| parent.name());
    write_text(file, schema::STARTED_FROM, &parent)?;
    write_text(file, "host", &record.host)?;
    write_text(file, "device", &record.device)?;
    write_number(file, "threads", record.threads as u64)?;

    write_configuration(file, &record.configuration)?;
    write_text(file, schema::VERDICT, &verdict_text(&record.verdict))?;
    write_numbers(&file.create_group(schema::SCALARS)?, schema::task_scalars(), &record.scalars)?;
    let references = schema::REFERENCE_SCALARS.iter();
    write_numbers(&file.create_group(schema::REFERENCES)?, references, &record.references)?;
    let timing = schema::TIMING_SCALARS.iter();
    write_numbers(&file.create_group(schema::TIMING)?, timing, &record.timing)?;

    write_training(file, record.parameters.view(), &record.halves, &record.history)?;
    let group = file.create_group(schema::EVALUATE)?;
    write_array(&group, &schema::LN_Q, ArrayView1::from(&record.ln_q))?;
    write_array(&group, &schema::LN_PI, ArrayView1::from(&record.ln_pi))?;
    write_array(&group, &schema::SAMPLES, on_lattice(record.samples.view()))?;
    let all = file.create_group(schema::CHAINS_GROUP)?;
    for sampler in &record.samplers {
        let group = all.create_group(sampler.name)?;
        write_text(&group, schema::VERDICT, &verdict_text(&sampler.verdict))?;
        write_text(&group, schema::WARMUP_RULE, &sampler.warmup_rule)?;
        for (item, values) in schema::CHAINS.iter().zip(sampler.chains.axis_iter(Axis(0))) {
            write_array(&group, item, values)?;
        }
        let group = group.create_group(schema::ESTIMATES)?;
        if sampler.name == Sampler::Latent.name() {
            link_scalars(&group, schema::sampler_scalars())?;
        } else {
            write_known_numbers(&group, schema::sampler_scalars(), &sampler.estimates)?;
        }
    }
    if record.course.ncols() > 0 {
        let group = file.create_group(schema::COURSE_GROUP)?;
        for (item, values) in schema::COURSE.iter().zip(record.course.axis_iter(Axis(0))) {
            write_array(&group, item, values)?;
        }
    }
    if !record.held_out.is_empty() {
        let group = file.create_group(schema::HELD_OUT)?;
        write_known_numbers(&group, schema::HELD_OUT_SCALARS.iter(), &record.held_out)?;
    }
    let group = file.create_group(schema::OBSERVABLES)?;
    for (item, values) in schema::LATTICE_OBSERVABLES.iter().zip(record.lattice.axis_iter(Axis(0)))
    {
        write_array(&group, item, values)?;
    }
    write_number(file, schema::COMPLETE, 1u8)
}

/// Writes the file of a study, and its folder if there is none.
///
/// # Errors
/// The file cannot be written; no new one has the final name then.
pub fn write_study(path: &Path, record: &StudyRecord) -> Result<()> {
    let folder = path.parent().expect("files are written into folders");
    fs::create_dir_all(folder).map_err(Error::io("create folder", folder))?;
    write_hdf5(path, |file| {
        write_text(file, "format", schema::STUDY_FORMAT)?;
        write_number(file, "format_version", schema::STUDY_FORMAT_VERSION)?;
        write_text(file, "code_version", crate::VERSION)?;
        write_identity(file, &record.task)?;
        write_text(file, schema::STUDIED_SHA256, &record.task_sha256)?;
        write_text(file, schema::SETTINGS, &record.settings)?;
        for (item, values) in &record.arrays {
            write_array(file, item, values.view())?;
        }
        write_number(file, schema::COMPLETE, 1u8)
    })
}

/// Of which task file, by its checksum, and with which settings a study is that was written to `path`; none if there is
/// no such file, or it is damaged.
pub fn study_written(path: &Path) -> Option<(String, String)> {
    let intact = seal::check_hdf5(path).is_ok_and(|seal| seal == Seal::Intact);
    let file = hdf5::File::open(path).ok().filter(|_| intact)?;
    let text = |name: &str| file.attr(name)?.read_scalar::<VarLenUnicode>();
    let (sha256, settings) = (text(schema::STUDIED_SHA256), text(schema::SETTINGS));
    Some((sha256.ok()?.to_string(), settings.ok()?.to_string()))
}

fn write_identity(file: &hdf5::File, task: &Task) -> hdf5::Result<()> {
    write_text(file, "task", &task.name())?;
    write_number(file, "linear_size", task.linear_size as u64)?;
    write_number(file, "temperature", task.temperature)?;
    write_number(file, "depth", task.depth as u64)?;
    write_number(file, "seed", task.seed)
}

/// Gives scalars of the task a second name in another group of its file.
fn link_scalars<'a>(
    group: &hdf5::Group,
    items: impl Iterator<Item = &'a Item>,
) -> hdf5::Result<()> {
    for Item { name, .. } in items {
        group.link_hard(&format!("/{}/{name}", schema::SCALARS), name)?;
    }
    Ok(())
}

/// A verdict as one line.
pub(crate) fn verdict_text(problems: &[String]) -> String {
    if problems.is_empty() { schema::VERDICT_OK.into() } else { problems.join("; ") }
}

/// The resolved configuration, as TOML.
pub(crate) fn write_configuration(file: &hdf5::File, configuration: &str) -> hdf5::Result<()> {
    let text = VarLenUnicode::from_str(configuration).expect("TOML text has no NUL");
    let dataset = file.new_dataset::<VarLenUnicode>().create(schema::CONFIGURATION.name)?;
    dataset.write_scalar(&text)?;
    describe(&dataset, &schema::CONFIGURATION)
}

/// What a training leaves: the flow's parameters, and its history, one row for each of [`schema::TRAIN_HISTORY`].
pub(crate) fn write_training(
    file: &hdf5::File,
    parameters: ArrayView1<f64>,
    halves: &[Half],
    history: &Array2<f64>,
) -> hdf5::Result<()> {
    let group = file.create_group(schema::MODEL)?;
    write_array(&group, &schema::PARAMETERS, parameters)?;
    if !halves.is_empty() {
        let sites = halves.as_flattened().iter().map(|&site| site as i8).collect();
        let sites = Array2::from_shape_vec((halves.len(), 2), sites).expect("halves are pairs");
        write_array(&group, &schema::HALVES, sites.view())?;
    }
    let group = file.create_group(schema::TRAIN)?;
    for (item, values) in schema::TRAIN_HISTORY.iter().zip(history.axis_iter(Axis(0))) {
        write_array(&group, item, values)?;
    }
    Ok(())
}

fn write_numbers<'a>(
    group: &hdf5::Group,
    items: impl Iterator<Item = &'a Item>,
    numbers: &Numbers,
) -> hdf5::Result<()> {
    for item in items {
        let dataset = group.new_dataset::<f64>().create(item.name)?;
        dataset.write_scalar(&numbers[item.name])?;
        describe(&dataset, item)?;
    }
    Ok(())
}

/// Writes those of the items for which there are numbers.
pub(crate) fn write_known_numbers<'a>(
    group: &hdf5::Group,
    items: impl Iterator<Item = &'a Item>,
    numbers: &Numbers,
) -> hdf5::Result<()> {
    write_numbers(group, items.filter(|item| numbers.contains_key(item.name)), numbers)
}

/// Waits, not for ever, until a file that is known to be finished is seen on this node too.
pub fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() && start.elapsed() < LATEST {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Writes an array with its axes as dimension scales of the group.
pub(crate) fn write_array<T: hdf5::H5Type + Clone, D: Dimension>(
    group: &hdf5::Group,
    item: &Item,
    values: ArrayView<'_, T, D>,
) -> hdf5::Result<()> {
    let values = values.as_standard_layout();
    let dataset = group.new_dataset_builder().with_data(values.view()).create(item.name)?;
    describe(&dataset, item)?;
    if item.axes == [item.name] {
        return dimension_scale::make_scale(&dataset, item.name);
    }
    for (index, (axis, &length)) in item.axes.iter().zip(values.shape()).enumerate() {
        let scale = if group.link_exists(axis) {
            group.dataset(axis)?
        } else {
            dimension_scale::dimension(group, axis, length)?
        };
        dimension_scale::attach(&dataset, &scale, index)?;
    }
    Ok(())
}

/// Attributes that every dataset carries: units and long_name.
pub(crate) fn describe(dataset: &hdf5::Dataset, item: &Item) -> hdf5::Result<()> {
    write_label(dataset, "units", item.units)?;
    write_label(dataset, "long_name", item.description)
}

/// A text attribute of fixed length, which takes half the room of one that may change its length.
fn write_label(dataset: &hdf5::Dataset, name: &str, text: &str) -> hdf5::Result<()> {
    let kind = TypeDescriptor::FixedUnicode(text.len());
    let text = Label::from_str(text).map_err(|error| error.to_string())?;
    dataset.new_attr_builder().empty_as(&kind).create(name)?.write_scalar(&text)
}

pub(crate) fn write_text(location: &hdf5::Location, name: &str, text: &str) -> hdf5::Result<()> {
    let text = VarLenUnicode::from_str(text).map_err(|error| error.to_string())?;
    location.new_attr::<VarLenUnicode>().create(name)?.write_scalar(&text)
}

pub(crate) fn write_number<T: hdf5::H5Type>(
    location: &hdf5::Location,
    name: &str,
    value: T,
) -> hdf5::Result<()> {
    location.new_attr::<T>().create(name)?.write_scalar(&value)
}
