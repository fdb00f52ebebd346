//! The folder of a sweep, and where in it everything lies.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::claims::Claims;
use super::plan;
use crate::config::Config;
use crate::config::growth::Lacking;
use crate::error::{Error, Result};
use crate::files::atomic::{is_left_behind, write_atomically};
use crate::files::seal::{self, open_text, seal_text};
use crate::task::task_file::{Brief, Head, TaskFile};
use crate::task::{Task, checkpoint};

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
    /// Held alone until the job is known to others, so that none changes the configuration in between.
    changing: Option<File>,
}

impl SweepLock {
    /// The job is known to others.
    pub fn job_is_known(&mut self) {
        self.changing = None;
    }
}

impl SweepDir {
    /// Makes or reopens the folder for `config`, and keeps jobs of older versions out. A folder of a configuration of which
    /// this one wants more gets this one; numbers of finished tasks are replaced only where `redo` allows it.
    ///
    /// # Errors
    /// The folder cannot be written, has tasks that `config` makes others or leaves out, or a job works on it with which
    /// that does not go together.
    pub fn prepare(root: &Path, config: &Config, redo: bool) -> Result<(Self, SweepLock)> {
        let dir = Self { root: root.into() };
        for folder in dir.folders() {
            fs::create_dir_all(&folder).map_err(Error::io("create folder", &folder))?;
        }
        let lock = dir.lock()?;
        if dir.config_path().exists() {
            let kept = dir.read_config()?;
            if kept != *config {
                dir.check_jobs(config, &kept)?;
                dir.check_configuration(config, redo)?;
                dir.write_config(config)?;
                log::info!("{} has another configuration from now on", root.display());
            }
        } else {
            dir.write_config(config)?;
        }
        dir.remove_unfinished();
        Ok((dir, lock))
    }

    fn write_config(&self, config: &Config) -> Result<()> {
        write_atomically(&self.config_path(), seal_text(&config.to_toml()).as_bytes())
    }

    /// While a job works here, another one may add tasks only.
    fn check_jobs(&self, config: &Config, kept: &Config) -> Result<()> {
        let difference = config.list_without(kept).or_else(|| match config.lacks(kept) {
            Err(difference) => Some(difference),
            Ok(lacking) => lacking.changes.into_iter().next(),
        });
        match difference.and_then(|difference| Some((difference, self.claims().living_job()?))) {
            Some((difference, job)) => {
                Err(Error::Working { dir: self.root.clone(), difference, job: job.id })
            }
            None => Ok(()),
        }
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

    /// Whether the folder's tasks can become those of `config`: each as its file or its checkpoint says that it was done.
    ///
    /// # Errors
    /// It has tasks that `config` makes others, or leaves out, or, without `redo`, of which it replaces numbers, or finished
    /// ones that want more and have nothing to go on from; or as [`SweepDir::read_config`].
    pub fn check_configuration(&self, config: &Config, redo: bool) -> Result<()> {
        let kept = self.read_config()?;
        let begun = |task: &Task| {
            self.task_path(task).exists() || checkpoint::exists(&self.checkpoint_path(task))
        };
        let planned = |config: &Config| -> Vec<Task> {
            plan::tasks(config).iter().map(|planned| planned.task).collect()
        };
        let dir = || self.root.clone();
        let wanted = planned(config);
        let names: HashSet<String> = wanted.iter().map(Task::name).collect();
        let left_out: Vec<String> = planned(&kept)
            .iter()
            .filter(|task| !names.contains(&task.name()) && begun(task))
            .map(Task::name)
            .collect();
        if let Some(difference) = config.list_without(&kept).filter(|_| !left_out.is_empty()) {
            let tasks = format!("{} would be left out", counted(&left_out));
            return Err(Error::OtherConfiguration { dir: dir(), difference, tasks });
        }
        let (mut others, mut replaced) = (Vec::new(), Vec::new());
        for task in wanted.iter().filter(|task| begun(task)) {
            match config.lacks(&self.done_with(task, config).unwrap_or_else(|| kept.clone())) {
                Err(difference) => others.push((difference, task.name())),
                Ok(Lacking { replacing: Some(difference), .. })
                    if !redo && self.task_path(task).exists() =>
                {
                    replaced.push((difference, task.name()));
                }
                Ok(lacking) => self.check_state(task, &lacking)?,
            }
        }
        let told = |tasks: &[(String, String)], what: &str| {
            let names: Vec<String> = tasks.iter().map(|(_, name)| name.clone()).collect();
            let (difference, _) = tasks.first()?;
            Some((difference.clone(), format!("{} would {what}", counted(&names))))
        };
        if let Some((difference, tasks)) = told(&others, "be others") {
            return Err(Error::OtherConfiguration { dir: dir(), difference, tasks });
        }
        if let Some((difference, tasks)) = told(&replaced, "have other numbers") {
            return Err(Error::WouldReplace { dir: dir(), difference, tasks });
        }
        Ok(())
    }

    /// The configuration with which a task was done or begun, `config` itself where that is as good; none where nothing says.
    fn done_with(&self, task: &Task, config: &Config) -> Option<Config> {
        let path = self.task_path(task);
        if !path.exists() {
            return checkpoint::configuration(&self.checkpoint_path(task));
        }
        let head: Head<Brief> = Head::read(&path).ok()??;
        if head.configuration_sha256 == config.sha256_of_tasks() {
            return Some(config.clone());
        }
        Config::parse(&TaskFile::open(&path).ok()?.configuration().ok()?, &path).ok()
    }

    /// Whether a finished task that lacks something has what it goes on from.
    ///
    /// # Errors
    /// It has not.
    pub fn check_state(&self, task: &Task, lacking: &Lacking) -> Result<()> {
        let (file, state) = (self.task_path(task), self.kept_path(task));
        let states = state.exists() || checkpoint::exists(&self.checkpoint_path(task));
        if lacking.is_nothing() || !file.exists() || states {
            return Ok(());
        }
        let (task, lacking) = (task.name(), lacking.to_string());
        Err(Error::NothingToGoOnFrom { task, lacking, state, file })
    }

    /// Path of what a finished task goes on from.
    pub fn kept_path(&self, task: &Task) -> PathBuf {
        self.root.join("states").join(task.name())
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

    /// Forgets what a finished task could have gone on from.
    pub fn forget_state(&self, task: &Task) {
        let path = self.kept_path(task);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            log::warn!("cannot remove {}: {error}", path.display());
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

    /// Copies the file of a task that is to be replaced by one with other numbers; nothing is deleted.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn keep_replaced(&self, task: &Task) -> Result<PathBuf> {
        let folder = self.replaced();
        fs::create_dir_all(&folder).map_err(Error::io("create folder", &folder))?;
        let (name, from) = (task.name(), self.task_path(task));
        let sum = |path: &Path| seal::stated_sha256(path).ok().flatten();
        let places = (1..).map(|number| folder.join(format!("{name}.{number}.h5")));
        // An attempt before may have copied it.
        let free = |path: &PathBuf| !path.exists() || sum(path) == sum(&from);
        let path = places.into_iter().find(free).expect("numbers do not end");
        let content = fs::read(&from).map_err(Error::io("read task file", &from))?;
        write_atomically(&path, &content)?;
        Ok(path)
    }

    /// The folder of task files that others with the same names have replaced.
    fn replaced(&self) -> PathBuf {
        self.root.join("replaced")
    }

    fn folders(&self) -> Vec<PathBuf> {
        let names =
            ["tasks", "failed", "running", "checkpoints", "states", "claims", "jobs", "logs"];
        let folders = names.iter().map(|name| self.root.join(name));
        std::iter::once(self.root.clone()).chain(folders).collect()
    }

    /// Removes what a killed process was writing.
    fn remove_unfinished(&self) {
        let folders = self.folders().into_iter().chain([self.replaced()]);
        let entries = folders.flat_map(fs::read_dir).flatten().flatten();
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
        let changing = Some(self.lock_configuration()?);
        match file.try_lock_shared() {
            Err(fs::TryLockError::WouldBlock) => Err(Error::Busy { dir: self.root.clone() }),
            Err(fs::TryLockError::Error(error)) => {
                log::debug!("no file locks on {}: {error}", self.root.display());
                Ok(SweepLock { _file: file, changing })
            }
            Ok(()) => Ok(SweepLock { _file: file, changing }),
        }
    }

    /// Waits until no other job looks whether it may change the configuration.
    fn lock_configuration(&self) -> Result<File> {
        let path = self.root.join("lock.configuration");
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::Error(error)) => {
                    log::debug!("no lock on {}: {error}", path.display());
                    return Ok(file);
                }
                Err(fs::TryLockError::WouldBlock) if !std::mem::replace(&mut told, true) => {
                    log::info!("waiting for another job that begins in {}", self.root.display());
                }
                Err(fs::TryLockError::WouldBlock) => {}
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether a job of an older version works on the folder.
    pub fn is_locked(&self) -> bool {
        let tried = File::open(self.lock_path()).map(|file| file.try_lock_shared());
        matches!(tried, Ok(Err(fs::TryLockError::WouldBlock)))
    }
}

/// So many tasks, the first of them by name.
fn counted(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let (count, shown) = (names.len(), shown.join(", "));
    match count {
        1 => format!("1 task that is finished or begun ({shown})"),
        _ => format!("{count} tasks that are finished or begun ({shown}{more})"),
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
