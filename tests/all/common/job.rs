//! Jobs that a test looks at while they run, and that are held at a known point of their work (`shim.c`): what a test
//! does to them comes at that point, however fast the machine is.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Outcome, Sweep, descendants, signal};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// A time on which no outcome may depend, times `NEURALRG_TEST_TIME`.
pub fn time(seconds: f64) -> Duration {
    let factor =
        std::env::var("NEURALRG_TEST_TIME").map_or(1.0, |text| text.parse().expect("a number"));
    Duration::from_secs_f64(seconds * factor)
}

/// Longest wait for what must come: a hang ends as a failure.
fn patience() -> Duration {
    time(1200.0)
}

/// A command with `shim.c`, compiled here, for the operations on files below the sweep's folder.
pub fn with_shim(mut command: Command, sweep: &Sweep, variables: &[(&str, String)]) -> Command {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    let shim = SHIM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/common/shim.c");
        let name = format!("{}-shim.so", env!("CARGO_CRATE_NAME"));
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status();
        assert!(compiler.expect("there is a C compiler, which Rust links with").success());
        library
    });
    command.env("LD_PRELOAD", shim).env("SHIM_DIR", &sweep.dir);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command
}

/// An operation on a file: of those on paths with this text in them the one of this number, from 1, of a process, or one that
/// comes so many operations of any kind later.
#[derive(Debug, Clone, Copy)]
pub struct Point<'a> {
    pub path: &'a str,
    pub number: usize,
    pub later: usize,
}

/// Where the checkpoint of a step takes the place of the one before: once for each, by the number of the step where each
/// step is saved ([`EACH_STEP`]).
pub const CHECKPOINT: &str = ".previous";
/// Where a task tells how far it is, after its first step.
pub const PROGRESS: &str = "/running/";
/// A setting of `run.checkpoint_minutes` that saves every step: no step is shorter.
pub const EACH_STEP: &str = "checkpoint_minutes = 1e-12";

/// A command whose processes are held at a point of their work, all at theirs.
pub fn held_at(command: Command, sweep: &Sweep, point: Point) -> Command {
    // Processes that were killed while they were held have left files.
    release(&held(sweep));
    holding(command, sweep, point)
}

/// Runs one process of a sweep up to a point of its work, where it is killed.
#[track_caller]
pub fn killed_at(command: Command, sweep: &Sweep, point: Point) -> Outcome {
    let mut job = Job::start(held_at(command, sweep, point));
    job.wait_until_held(sweep, 1);
    job.signal("-KILL");
    job.end()
}

/// A command whose first `processes` that begin a task wait for each other in the first step of it, so that each has one.
pub fn meeting(command: Command, sweep: &Sweep, processes: usize) -> Command {
    let mut command = holding(command, sweep, Point { path: PROGRESS, number: 1, later: 0 });
    command.env("POINT_MEET", processes.to_string());
    command
}

fn holding(command: Command, sweep: &Sweep, point: Point) -> Command {
    let variables = [
        ("POINT", point.path.to_owned()),
        ("POINT_FROM", point.number.to_string()),
        ("POINT_LATER", point.later.to_string()),
        ("POINT_HELD", holds(sweep).display().to_string()),
    ];
    with_shim(command, sweep, &variables)
}

/// The folder with a file for each process that is held, `RANK.PROCESS`.
pub fn holds(sweep: &Sweep) -> PathBuf {
    let folder = sweep.folder().join("held");
    fs::create_dir_all(&folder).expect("folders can be made");
    folder
}

/// The files of the processes that are held.
pub fn held(sweep: &Sweep) -> Vec<PathBuf> {
    let entries = fs::read_dir(holds(sweep)).expect("the folder was made");
    entries.map(|entry| entry.expect("entries can be read").path()).collect()
}

/// Those of one rank that are held.
pub fn held_of_rank(sweep: &Sweep, rank: usize) -> Vec<PathBuf> {
    let mut files = held(sweep);
    files.retain(|path| {
        path.file_stem().is_some_and(|stem| stem.to_str() == Some(&rank.to_string()))
    });
    files
}

/// The process that made such a file.
pub fn process(file: &Path) -> u32 {
    let number = file.extension().and_then(|number| number.to_str()?.parse().ok());
    number.expect("names end with the process")
}

/// Lets go of processes that are held.
pub fn release(files: &[PathBuf]) {
    files.iter().for_each(|path| fs::remove_file(path).expect("the process made it"));
}

/// A command that runs; with all that it has started it is killed when it is dropped.
pub struct Job {
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Job {
    pub fn start(mut command: Command) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the program starts");
        let pipe = BufReader::new(child.stderr.take().expect("it is piped"));
        let stderr = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&stderr);
        let reader = std::thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                *told.lock().expect("no holder panics") += &(line + "\n");
            }
        });
        Self { child, stderr, reader: Some(reader) }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has told on standard error so far.
    pub fn told(&self) -> String {
        self.stderr.lock().expect("no holder panics").clone()
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it was started").is_some()
    }

    /// Waits until something is so, or the job ends. Whether it is so.
    #[track_caller]
    pub fn comes_to(&mut self, mut is_so: impl FnMut(&str) -> bool) -> bool {
        let start = Instant::now();
        loop {
            // What is so when the job has ended was so before.
            let ended = self.has_ended();
            if is_so(&self.told()) {
                return true;
            }
            if ended {
                return false;
            }
            assert!(start.elapsed() < patience(), "waited in vain: {}", self.told());
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until something is so, before the job ends.
    #[track_caller]
    pub fn wait_until(&mut self, is_so: impl FnMut(&str) -> bool) {
        assert!(self.comes_to(is_so), "it ended before: {}", self.told());
    }

    /// Waits until so many processes are held.
    #[track_caller]
    pub fn wait_until_held(&mut self, sweep: &Sweep, processes: usize) {
        self.wait_until(|_| held(sweep).len() == processes);
    }

    /// Sends a signal to the job, and `-KILL` to all that it has started, since nobody passes that on.
    pub fn signal(&self, name: &str) {
        let mut processes = vec![self.id()];
        if name == "-KILL" {
            processes.extend(descendants(self.id()));
        }
        signal(name, &processes);
    }

    /// Sends a signal to the ranks of a job that mpirun has started, not to mpirun.
    pub fn signal_ranks(&self, name: &str) {
        signal(name, &descendants(self.id()));
    }

    /// Waits for the end.
    #[track_caller]
    pub fn end(mut self) -> Outcome {
        let start = Instant::now();
        while !self.has_ended() {
            assert!(start.elapsed() < patience(), "it does not end: {}", self.told());
            std::thread::sleep(LOOK);
        }
        let status = self.child.wait().expect("it was started").code();
        let reader = self.reader.take().expect("it is taken once");
        reader.join().expect("it reads to the end");
        Outcome { status, stdout: String::new(), stderr: self.told() }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal("-KILL");
            self.child.wait().expect("it was started");
        }
    }
}
