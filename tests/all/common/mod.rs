//! What the tests of the program share: a tiny sweep, running the program, and looking at its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

use hdf5::types::{FixedUnicode, TypeDescriptor, VarLenUnicode};
use hdf5::{Container, Group};
use tempfile::TempDir;

pub mod job;

use job::{Job, Point, held, held_at, release};

/// A sweep of four tasks that takes a second or two.
pub const TINY: &str = r#"
[sweep]
name = "tiny"
linear_size = 4
temperatures = [2.0, 3.0]
depths = [1, 2]

[flow]
couplings = 2
hidden_layers = 1
hidden_width = 4
symmetry = "mixture"

[train]
steps = 6
batch = 8
log_every = 3

[evaluate]
samples = 64
batch = 64
keep_samples = 2

[hmc]
chains = 4
warmup = 4
trajectories = 10
leapfrog_steps = 2

[run]
device = "cpu"
"#;

/// Engines of the program under test.
pub const ENGINES: &[&str] =
    if cfg!(feature = "torch") { &["native", "torch"] } else { &["native"] };

/// Names of the tasks of [`TINY`], most expensive first: the order in which they are taken.
pub const TINY_TASKS: [&str; 4] = ["L4_T2_d2_s1", "L4_T3_d2_s1", "L4_T2_d1_s1", "L4_T3_d1_s1"];

/// [`TINY`] with averaged weights, measurements during the training and all samplers: every dataset and every tensor of a
/// checkpoint that a sweep without data can have.
pub fn everything_measured() -> String {
    let training = "steps = 6\naveraging = 0.5\nmeasure_every = 3\nmeasure_trajectories = 2";
    TINY.replace("steps = 6", training).replace("[hmc]", "[hmc]\nkeep_states = 8")
        + "\n[controls]\nsamplers = [\"physical\", \"fourier\", \"independence\"]\n"
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status; none if a signal ended it.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The only line on standard error of a command that failed properly: status 1, nothing printed.
    #[track_caller]
    pub fn refusal(&self) -> &str {
        assert_eq!((self.status, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "{}", self.stderr);
        self.stderr.trim_end().strip_prefix("neuralrg: error: ").expect("it says it is an error")
    }

    /// Standard output of a command that succeeded.
    #[track_caller]
    pub fn success(&self) -> &str {
        assert_eq!(self.status, Some(0), "{}", self.stderr);
        &self.stdout
    }

    /// The error lines of `run`, which logs too.
    pub fn errors(&self) -> Vec<&str> {
        self.stderr.lines().filter_map(|line| line.strip_prefix("neuralrg: error: ")).collect()
    }
}

/// The program, in an environment that is the same wherever the tests run.
pub fn neuralrg() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_neuralrg")))
}

/// The program on `ranks` ranks, as many as cores or more, also for root.
pub fn mpirun(ranks: usize) -> Command {
    mpirun_any(ranks, Path::new(env!("CARGO_BIN_EXE_neuralrg")))
}

/// Runs one of the ignored tests of this test program on `ranks` ranks: what each rank does.
#[track_caller]
pub fn assert_holds_on_ranks(ranks: usize, test: &str) {
    let program = std::env::current_exe().expect("it runs");
    let mut command = mpirun_any(ranks, &program);
    let result = outcome(command.args(["--exact", test, "--ignored", "--nocapture"]));
    let passed = result.stdout.matches("1 passed").count();
    assert!(
        result.status == Some(0) && passed == ranks,
        "{test} on {ranks} ranks:\n{}{}",
        result.stdout,
        result.stderr
    );
}

/// Any program on `ranks` ranks.
fn mpirun_any(ranks: usize, program: &Path) -> Command {
    let mut command = clean(Command::new("mpirun"));
    command
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("OMPI_MCA_hwloc_base_binding_policy", "none")
        .args(["-n", &ranks.to_string()])
        .arg(program);
    command
}

fn clean(mut command: Command) -> Command {
    command.env_remove("RUST_LOG").env_remove("CUDA_VISIBLE_DEVICES").env("RUST_BACKTRACE", "1");
    for variable in ["SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().expect("the program starts");
    Outcome {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// A configuration file and the folder of its sweep, in a temporary folder.
#[derive(Debug)]
pub struct Sweep {
    folder: TempDir,
    pub config: PathBuf,
    pub dir: PathBuf,
}

impl Sweep {
    /// Nothing of it has run.
    pub fn new(configuration: &str) -> Self {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        let (config, dir) = (folder.path().join("sweep.toml"), folder.path().join("sweep"));
        fs::write(&config, configuration).expect("temporary files can be written");
        Self { folder, config, dir }
    }

    /// A copy of [`TINY`] run to its end; it runs once for each test program.
    pub fn finished() -> Self {
        static FINISHED: OnceLock<PathBuf> = OnceLock::new();
        Self::finished_once(&FINISHED, "finished", TINY)
    }

    /// A copy of a sweep that was run to its end, the first time into a folder that the test program keeps under a
    /// name of its own.
    pub fn finished_once(kept: &OnceLock<PathBuf>, name: &str, configuration: &str) -> Self {
        let sweep = Self::new(configuration);
        let original = kept.get_or_init(|| {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let dir = folder.join(format!("{}-{name}", env!("CARGO_CRATE_NAME")));
            if dir.exists() {
                fs::remove_dir_all(&dir).expect("the tests own this folder");
            }
            outcome(neuralrg().arg("run").arg(&sweep.config).arg("-o").arg(&dir)).success();
            dir
        });
        copy_folder(original, &sweep.dir);
        sweep
    }

    /// The temporary folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Adds `run` with its arguments to a command.
    pub fn run_with(&self, mut command: Command) -> Command {
        self.add_run(&mut command);
        command
    }

    /// The same in place.
    pub fn add_run(&self, command: &mut Command) {
        command.arg("run").arg(&self.config).arg("-o").arg(&self.dir);
    }

    /// Runs it in one process.
    pub fn run(&self) -> Outcome {
        outcome(&mut self.run_with(neuralrg()))
    }

    /// Runs `status`, `collect`, … on the folder.
    pub fn look(&self, subcommand: &str) -> Outcome {
        outcome(neuralrg().arg(subcommand).arg(&self.dir))
    }

    /// Path of a task's file.
    pub fn task(&self, name: &str) -> PathBuf {
        self.dir.join("tasks").join(format!("{name}.h5"))
    }

    /// Names of the files in `tasks`, sorted.
    pub fn task_files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.join("tasks")).expect("the folder was made");
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.expect("entries can be read").file_name().into_string().expect("text")
        };
        let mut names: Vec<_> = entries.map(name).filter(|name| name.ends_with(".h5")).collect();
        names.sort();
        names
    }

    /// Runs it with a folder in the place of a task's file, put there when the task begins: it
    /// computes and then cannot be written. (Every number being an input, no task fails on its own.)
    pub fn run_with_obstacle(&self, command: Command, task: &str) -> Outcome {
        let log = format!("logs/{task}.log");
        let point = Point { path: &log, number: 1, later: 0 };
        let mut job = Job::start(held_at(self.run_with(command), self, point));
        job.wait_until_held(self, 1);
        fs::create_dir_all(self.task(task).join("in the way")).expect("the folder can be written");
        release(&held(self));
        job.end()
    }
}

/// Sends a signal (`-KILL`, `-TERM`, …) to processes that a test has started.
pub fn signal(name: &str, processes: &[u32]) {
    let numbers = processes.iter().map(u32::to_string);
    let killed = Command::new("kill").arg(name).args(numbers).stderr(Stdio::null()).status();
    killed.expect("there is a kill");
}

/// Numbers of all processes that a process has started, and these in turn.
pub fn descendants(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|text| text.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect();
    children.into_iter().flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

/// Copies a folder with all below it, links aside.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folders can be made");
    for entry in fs::read_dir(from).expect("the folder exists") {
        let path = entry.expect("entries can be read").path();
        let target = to.join(path.file_name().expect("entries have names"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else if !path.is_symlink() {
            fs::copy(&path, &target).expect("files can be copied");
        }
    }
}

/// Bytes and time of change of every file below a folder, but for the lock's and for claims.
pub fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("the folder exists") {
        let path = entry.expect("entries can be read").path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else if path.file_name() != Some("lock".as_ref()) && !path.is_symlink() {
            let modified = path.metadata().and_then(|data| data.modified()).expect("it has a time");
            files.insert(path.clone(), (fs::read(&path).expect("it can be read"), modified));
        }
    }
    files
}

/// A dataset or attribute: its type, its shape and its values, numbers by their bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    pub kind: String,
    pub shape: Vec<usize>,
    pub text: Vec<String>,
    pub bits: Vec<u64>,
}

/// Attributes by which HDF5 knows dimension scales and what they are of.
const OF_SCALES: [&str; 4] = ["CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST"];

/// Every dataset (`group/name`) and attribute (`group/name@attribute`) of an HDF5 file, those of dimension scales aside.
pub fn contents(path: &Path) -> BTreeMap<String, Content> {
    let file = hdf5::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut found = BTreeMap::new();
    let root = file.group("/").expect("every file has a root");
    insert_attributes(&root, "/", &mut found);
    insert_members(&root, "", &mut found);
    found
}

fn insert_members(group: &Group, place: &str, found: &mut BTreeMap<String, Content>) {
    for dataset in group.datasets().expect("members can be read") {
        let name = dataset.name();
        found.insert(name.clone(), content(&dataset));
        insert_attributes(&dataset, &name, found);
    }
    for child in group.groups().expect("members can be read") {
        let name = child.name();
        assert_ne!(name, place, "groups form a tree");
        insert_attributes(&child, &name, found);
        insert_members(&child, &name, found);
    }
}

fn insert_attributes(
    location: &hdf5::Location,
    place: &str,
    found: &mut BTreeMap<String, Content>,
) {
    let names = location.attr_names().expect("attributes can be listed");
    for name in names.into_iter().filter(|name| !OF_SCALES.contains(&name.as_str())) {
        let attribute = location.attr(&name).expect("it was listed");
        found.insert(format!("{place}@{name}"), content(&attribute));
    }
}

fn content(container: &Container) -> Content {
    let kind = container.dtype().and_then(|kind| kind.to_descriptor()).expect("it has a type");
    let (mut text, mut bits) = (Vec::new(), Vec::new());
    match &kind {
        TypeDescriptor::VarLenUnicode => {
            let values = container.read_raw::<VarLenUnicode>().expect("text can be read");
            text = values.iter().map(ToString::to_string).collect();
        }
        TypeDescriptor::FixedUnicode(_) => {
            let values = container.read_raw::<FixedUnicode<256>>().expect("text can be read");
            text = values.iter().map(ToString::to_string).collect();
        }
        TypeDescriptor::Float(_) => {
            let values = container.read_raw::<f64>().expect("numbers can be read");
            bits = values.iter().map(|value| value.to_bits()).collect();
        }
        TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_) => {
            let values = container.read_raw::<i64>().expect("numbers can be read");
            bits = values.iter().map(|value| value.cast_unsigned()).collect();
        }
        other => panic!("no file of ours has {other}"),
    }
    Content { kind: kind.to_string(), shape: container.shape(), text, bits }
}

/// Changes an HDF5 file. The library's open files, with their locks, are inherited by programs that tests beside this one start,
/// so that it is a copy that is opened, which nobody else does.
pub fn change_hdf5(path: &Path, change: impl FnOnce(&hdf5::File)) {
    aside(path, |copy| {
        fs::copy(path, copy).expect("it is there");
        change(&hdf5::File::open_rw(copy).expect("it is an HDF5 file"));
    });
}

/// Makes an HDF5 file, in the place of what was there, likewise.
pub fn make_hdf5(path: &Path, fill: impl FnOnce(&hdf5::File)) {
    aside(path, |copy| fill(&hdf5::File::create(copy).expect("it can be made")));
}

fn aside(path: &Path, write: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("there is room");
    let copy = folder.path().join("copy.h5");
    write(&copy);
    fs::copy(copy, path).expect("it can be written");
}

/// Two task files hold the same to the bit, but for the values in `timing` and what `ignored` names.
#[track_caller]
pub fn assert_same_task(a: &Path, b: &Path, ignored: &[&str]) {
    let (found, expected) = (contents(a), contents(b));
    assert!(found.len() > 100, "{} holds a task", a.display());
    let names = |contents: &BTreeMap<String, Content>| contents.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for (name, value) in &found {
        let skipped = name.starts_with("/timing/") && !name.contains('@');
        if !skipped && !ignored.contains(&name.as_str()) {
            assert_eq!(value, &expected[name], "{name} of {} and {}", a.display(), b.display());
        }
    }
}

/// Both folders have the same tasks, whose files hold the same, as [`assert_same_task`] says.
#[track_caller]
pub fn assert_same_tasks(sweep: &Sweep, unbroken: &Sweep) {
    assert_eq!(sweep.task_files(), unbroken.task_files());
    for name in unbroken.task_files() {
        let [a, b] = [sweep, unbroken].map(|sweep| sweep.dir.join("tasks").join(&name));
        assert_same_task(&a, &b, &[]);
    }
}

/// A number of repetitions from the environment.
pub fn repetitions(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// A text has all these parts.
#[track_caller]
pub fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text:?}");
    }
}
