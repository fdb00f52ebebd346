//! Which job works on which task, where several jobs share a folder.
//!
//! A job is a file `jobs/ID.json`, which its rank 0 keeps locked and touches every few seconds: its
//! heartbeat. A claim is a symbolic link `claims/TASK.N` that names a job, since links are made in one
//! step, with their content, on every shared file system. The claim with the highest N counts; the task of
//! a dead job is taken over by making the next one, which only one job can.
//!
//! A job of this machine is known to be dead at once, by its lock; one of another machine when its heartbeat
//! has been silent for some time by the clock of the one who looks, so that clocks need not agree.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::clock::unix_now;
use crate::error::{Error, Result};
use crate::files::atomic::write_beside;

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A job on another machine is dead after so long without one. File systems may show changes late.
const SILENCE: Duration = Duration::from_secs(120);

/// What a job tells of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobInfo {
    pub id: String,
    pub host: String,
    /// Of the kernel that runs it; only processes of the same one see its lock.
    pub boot: String,
    pub process: u32,
    pub ranks: usize,
    /// Number that Slurm gave it.
    pub slurm_job: Option<String>,
    pub started_unix_seconds: u64,
}

impl JobInfo {
    /// Of this process.
    fn here(ranks: usize) -> Self {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let (process, now) = (std::process::id(), unix_now());
        Self {
            id: format!("{host}-{now}-{process}"),
            host,
            boot: boot(),
            process,
            ranks,
            slurm_job: std::env::var("SLURM_JOB_ID").ok(),
            started_unix_seconds: now,
        }
    }
}

/// What names the running kernel.
fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The claims in a folder, as seen by one process.
#[derive(Debug)]
pub struct Claims {
    claims: PathBuf,
    jobs: PathBuf,
    /// Last heartbeat of each job on another machine, and when it was first seen.
    heartbeats: Mutex<HashMap<String, (SystemTime, Instant)>>,
}

impl Claims {
    /// The claims in the folders `claims` and `jobs` of `root`.
    pub fn new(root: &Path) -> Self {
        Self { claims: root.join("claims"), jobs: root.join("jobs"), heartbeats: Mutex::default() }
    }

    /// The job that holds a task, with the number of its claim.
    fn holder(&self, task: &str) -> Option<(u64, String)> {
        self.all().into_iter().filter(|(name, ..)| name == task).map(|(_, n, job)| (n, job)).max()
    }

    /// All claims: task, number, job.
    fn all(&self) -> Vec<(String, u64, String)> {
        let entries = fs::read_dir(&self.claims).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (task, number) = name.rsplit_once('.')?;
                let job = fs::read_link(entry.path()).ok()?;
                Some((task.to_owned(), number.parse().ok()?, job.to_string_lossy().into_owned()))
            })
            .collect()
    }

    /// The jobs that have files here, dead ones too.
    pub fn jobs(&self) -> Vec<JobInfo> {
        let entries = fs::read_dir(&self.jobs).into_iter().flatten().flatten();
        let mut jobs: Vec<JobInfo> = entries
            .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
            .collect();
        jobs.sort_by(|a, b| a.id.cmp(&b.id));
        jobs
    }

    fn job_path(&self, job: &str) -> PathBuf {
        self.jobs.join(format!("{job}.json"))
    }

    fn claim_path(&self, task: &str, number: u64) -> PathBuf {
        self.claims.join(format!("{task}.{number}"))
    }

    /// Whether a job lives, as far as one can see. Of one on another machine that is not known before its
    /// heartbeat has been watched for a while.
    pub fn is_alive(&self, job: &str) -> bool {
        let file = match File::open(self.job_path(job)) {
            Ok(file) => file,
            Err(error) => return error.kind() != io::ErrorKind::NotFound,
        };
        let info = fs::read(self.job_path(job)).ok();
        let info = info.and_then(|text| serde_json::from_slice::<JobInfo>(&text).ok());
        if info.is_some_and(|info| info.boot == boot()) {
            match file.try_lock_shared() {
                Ok(()) => return false,
                Err(fs::TryLockError::WouldBlock) => return true,
                // No locks on this file system.
                Err(fs::TryLockError::Error(_)) => {}
            }
        }
        let Ok(heartbeat) = file.metadata().and_then(|data| data.modified()) else { return true };
        let mut heartbeats = self.heartbeats.lock().expect("no holder panics");
        let seen = heartbeats.entry(job.to_owned()).or_insert((heartbeat, Instant::now()));
        if seen.0 != heartbeat {
            *seen = (heartbeat, Instant::now());
        }
        seen.1.elapsed() < SILENCE
    }

    /// A job that lives. One on another machine is watched until its heart beats, or has been silent for long enough.
    pub fn living_job(&self) -> Option<JobInfo> {
        let heartbeat = |job: &JobInfo| {
            fs::metadata(self.job_path(&job.id)).and_then(|data| data.modified()).ok()
        };
        let mut first: HashMap<String, Option<SystemTime>> = HashMap::new();
        loop {
            let alive: Vec<JobInfo> =
                self.jobs().into_iter().filter(|job| self.is_alive(&job.id)).collect();
            let watched = alive.first()?;
            if first.is_empty() && watched.boot != boot() {
                let (id, host, silence) = (&watched.id, &watched.host, SILENCE.as_secs());
                log::info!("watching for up to {silence} s whether the job {id} on {host} lives");
            }
            for job in alive {
                let now = heartbeat(&job);
                let seen = first.entry(job.id.clone()).or_insert(now);
                if job.boot == boot() || *seen != now {
                    return Some(job);
                }
            }
            std::thread::sleep(HEARTBEAT / 10);
        }
    }

    /// The living jobs that work on tasks, by these.
    pub fn living_holders(&self) -> HashMap<String, String> {
        let mut highest: HashMap<String, (u64, String)> = HashMap::new();
        for (task, number, job) in self.all() {
            let holder = (number, job);
            let known = highest.entry(task).or_insert_with(|| holder.clone());
            if holder > *known {
                *known = holder;
            }
        }
        let jobs: HashSet<String> = highest.values().map(|(_, job)| job.clone()).collect();
        let living: HashSet<String> = jobs.into_iter().filter(|job| self.is_alive(job)).collect();
        let holders = highest.into_iter().map(|(task, (_, job))| (task, job));
        holders.filter(|(_, job)| living.contains(job)).collect()
    }

    /// Takes hold of a task for `job`, unless a living job has it.
    ///
    /// # Errors
    /// The link cannot be made.
    pub fn claim(&self, task: &str, job: &str) -> Result<Claim> {
        let before = self.holder(task);
        if before.as_ref().is_some_and(|(_, holder)| self.is_alive(holder)) {
            return Ok(Claim::Held);
        }
        let number = before.as_ref().map_or(0, |(number, _)| *number) + 1;
        let path = self.claim_path(task, number);
        match std::os::unix::fs::symlink(job, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Claim::Held),
            result => result.map_err(Error::io("create", &path))?,
        }
        // Between the look and the link another job may have ended or begun.
        let highest = self.holder(task) == Some((number, job.to_owned()));
        let unchanged = before.as_ref().is_none_or(|(number, holder)| {
            let link = fs::read_link(self.claim_path(task, *number));
            link.is_ok_and(|link| link.to_string_lossy() == holder.as_str())
        });
        if highest && unchanged {
            return Ok(Claim::Taken { from: before.map(|(_, dead)| dead) });
        }
        remove(&path);
        Ok(Claim::Held)
    }

    /// Lets go of a task, with the claims of dead jobs below.
    pub fn release(&self, task: &str, job: &str) {
        let mut claims: Vec<_> = self.all().into_iter().filter(|(name, ..)| name == task).collect();
        claims.sort_by_key(|&(_, number, _)| number);
        let own = claims.iter().rposition(|(.., holder)| holder == job);
        for (_, number, _) in claims.iter().take(own.map_or(0, |own| own + 1)) {
            remove(&self.claim_path(task, *number));
        }
    }

    /// Removes what dead jobs left of tasks for which `is_finished` holds, and the files of dead jobs that
    /// hold nothing.
    pub fn tidy(&self, is_finished: impl Fn(&str) -> bool) {
        for (task, number, job) in self.all() {
            if is_finished(&task) && !self.is_alive(&job) {
                remove(&self.claim_path(&task, number));
            }
        }
        let holders: Vec<String> = self.all().into_iter().map(|(.., job)| job).collect();
        for job in self.jobs() {
            if !holders.contains(&job.id) && !self.is_alive(&job.id) {
                remove(&self.job_path(&job.id));
            }
        }
    }
}

/// What came of an attempt to claim a task.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// The task is this job's now; it was a dead job's before, or nobody's.
    Taken { from: Option<String> },
    /// A living job has it.
    Held,
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}

/// This job's file, with the thread that touches it. When it is dropped the job lets go of everything.
#[derive(Debug)]
pub struct JobFile {
    pub info: JobInfo,
    claims: Arc<Claims>,
    /// Holds the lock.
    _file: File,
    ended: Arc<(Mutex<bool>, Condvar)>,
    heart: Option<JoinHandle<()>>,
}

impl JobFile {
    /// Makes the job known in the folder of `claims`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(claims: Arc<Claims>, ranks: usize) -> Result<Self> {
        let info = JobInfo::here(ranks);
        let path = claims.job_path(&info.id);
        let text = serde_json::to_string(&info).expect("it has a JSON form");
        let mut locked = None;
        // Locked before it gets its name, so that nobody sees it without its lock.
        write_beside(&path, |beside| {
            fs::write(beside, text + "\n").map_err(Error::io("write", &path))?;
            let file =
                File::options().write(true).open(beside).map_err(Error::io("open", &path))?;
            if let Err(error) = file.try_lock() {
                log::debug!("no lock on {}: {error}", path.display());
            }
            locked = Some(file);
            Ok(())
        })?;
        let file = locked.expect("it was written");
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let heart = std::thread::spawn({
            let (ended, path) = (Arc::clone(&ended), path);
            move || beat(&path, &ended)
        });
        Ok(Self { info, claims, _file: file, ended, heart: Some(heart) })
    }
}

/// Touches the job's file until the job ends.
fn beat(path: &Path, (ended, wake): &(Mutex<bool>, Condvar)) {
    let mut guard = ended.lock().expect("no holder panics");
    while !*guard {
        guard = wake.wait_timeout(guard, HEARTBEAT).expect("no holder panics").0;
        let touched = File::options().write(true).open(path);
        if let Err(error) = touched.and_then(|file| file.set_modified(SystemTime::now())) {
            log::warn!("no heartbeat in {}: {error}", path.display());
        }
    }
}

impl Drop for JobFile {
    fn drop(&mut self) {
        *self.ended.0.lock().expect("no holder panics") = true;
        self.ended.1.notify_all();
        if let Some(heart) = self.heart.take()
            && heart.join().is_err()
        {
            log::warn!("the thread of the heartbeat panicked");
        }
        for (task, number, job) in self.claims.all() {
            if job == self.info.id {
                remove(&self.claims.claim_path(&task, number));
            }
        }
        remove(&self.claims.job_path(&self.info.id));
        // Of jobs that died meanwhile only those matter whose tasks nobody has taken over.
        self.claims.tidy(|_| false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Arc<Claims>) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["claims", "jobs"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let claims = Arc::new(Claims::new(folder.path()));
        (folder, claims)
    }

    /// A job of another machine, which nobody here can see the lock of.
    fn elsewhere(claims: &Claims, id: &str) {
        let info = JobInfo { id: id.into(), boot: "another".into(), ..JobInfo::here(1) };
        fs::write(claims.job_path(id), serde_json::to_string(&info).unwrap()).unwrap();
    }

    #[test]
    fn task_is_held_by_one_living_job() {
        let (_folder, claims) = folder();
        let job = JobFile::create(Arc::clone(&claims), 1).unwrap();
        assert!(claims.is_alive(&job.info.id));
        assert_eq!(claims.claim("a", &job.info.id).unwrap(), Claim::Taken { from: None });
        assert_eq!(claims.claim("a", "another").unwrap(), Claim::Held);
        let holders = claims.living_holders();
        assert_eq!(holders, HashMap::from([("a".to_owned(), job.info.id.clone())]));
        claims.release("a", &job.info.id);
        assert_eq!(claims.claim("a", "another").unwrap(), Claim::Taken { from: None });
        let id = job.info.id.clone();
        assert_eq!(claims.claim("b", &id).unwrap(), Claim::Taken { from: None });
        drop(job);
        assert!(!claims.is_alive(&id));
        assert_eq!(claims.holder("b"), None);
    }

    #[test]
    fn dead_jobs_task_is_taken_over_by_one_job_only() {
        let (_folder, claims) = folder();
        claims.claim("a", "dead").unwrap();
        let jobs: Vec<_> = (0..8).map(|i| format!("job{i}")).collect();
        jobs.iter().for_each(|job| elsewhere(&claims, job));
        for round in 0..20 {
            let task = format!("task{round}");
            std::os::unix::fs::symlink("dead", claims.claim_path(&task, 1)).unwrap();
            let taken: usize = std::thread::scope(|scope| {
                let attempts: Vec<_> = jobs
                    .iter()
                    .map(|job| scope.spawn(|| claims.claim(&task, job).unwrap()))
                    .collect();
                let outcomes = attempts.into_iter().map(|attempt| attempt.join().unwrap());
                outcomes.filter(|it| *it == Claim::Taken { from: Some("dead".into()) }).count()
            });
            assert_eq!(taken, 1);
            let (number, holder) = claims.holder(&task).unwrap();
            assert_eq!(number, 2);
            claims.release(&task, &holder);
            assert_eq!(claims.holder(&task), None);
        }
    }

    /// As if the last heartbeat of a job had been seen so much earlier.
    fn wait(claims: &Claims, job: &str, time: Duration) {
        let mut heartbeats = claims.heartbeats.lock().unwrap();
        heartbeats.get_mut(job).expect("it was looked at").1 -= time;
    }

    #[test]
    fn job_of_another_machine_is_dead_when_its_heartbeat_is_silent() {
        let (_folder, claims) = folder();
        elsewhere(&claims, "far");
        claims.claim("a", "far").unwrap();
        for beat in 0..4 {
            assert_eq!(claims.claim("a", "near").unwrap(), Claim::Held);
            wait(&claims, "far", SILENCE);
            let file = File::options().write(true).open(claims.job_path("far")).unwrap();
            // Its clock is wrong by hours.
            let clock = SystemTime::now() - Duration::from_secs(10_000 - beat);
            file.set_modified(clock).unwrap();
        }
        assert_eq!(claims.claim("a", "near").unwrap(), Claim::Held);
        wait(&claims, "far", SILENCE);
        let taken = Claim::Taken { from: Some("far".into()) };
        assert_eq!(claims.claim("a", "near").unwrap(), taken);
        claims.tidy(|_| true);
        assert!(!claims.job_path("far").exists());
    }
}
