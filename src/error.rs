//! Everything that can go wrong for a user, each message naming the file, key or task and the remedy.

use std::path::PathBuf;

/// Result of what can fail for a user, a file or a machine.
pub type Result<T> = std::result::Result<T, Error>;

/// What a user, a file or a machine did wrong; bugs of our own panic instead. Each message holds its causes, which are
/// no `source`: a printed chain would tell them twice.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read, written or renamed.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io { action: &'static str, path: PathBuf, cause: std::io::Error },

    /// The TOML text has a syntax error, an unknown key or a value of the wrong type.
    #[error("{}: {message}", path.display())]
    ConfigSyntax { path: PathBuf, message: String },

    /// A value in the configuration is not allowed.
    #[error("{}: `{key}` {problem}", path.display())]
    ConfigValue { path: PathBuf, key: String, problem: String },

    /// The folder has tasks that the configuration would make others, or leaves out.
    #[error(
        "{} has tasks of another configuration ({difference}): {tasks}; choose another folder with -o, or go back to what \
         these were done with, which is in their files and, for the last run, in {}",
        dir.display(), dir.join("config.toml").display()
    )]
    OtherConfiguration { dir: PathBuf, difference: String, tasks: String },

    /// The configuration wants other numbers of finished tasks, rather than more.
    #[error(
        "{} has other settings ({difference}), with which {tasks}; --redo does again what depends on them, \
         with the flows as they are trained, and copies the files that it replaces to {}; or choose another folder with -o",
        dir.display(), dir.join("replaced").display()
    )]
    WouldReplace { dir: PathBuf, difference: String, tasks: String },

    /// A job works on the folder with the configuration that it has.
    #[error(
        "the job {job} is working on {}; until it has ended others may add temperatures, depths, seeds and lattices there, but not \
         change {difference}", dir.display()
    )]
    Working { dir: PathBuf, difference: String, job: String },

    /// A finished task is to go on, but nothing is left to go on from.
    #[error(
        "task {task} is finished but for its {lacking}, and goes on from {}, which cannot be used; move {} away to do the \
         whole task again, or choose another folder with -o", state.display(), file.display()
    )]
    NothingToGoOnFrom { task: String, lacking: String, state: PathBuf, file: PathBuf },

    /// The configuration kept in a folder is not what was written there.
    #[error(
        "{} is damaged (its checksum does not fit); replace it by the configuration that the folder was \
         made with, as `neuralrg check CONFIG` prints it", path.display()
    )]
    DamagedConfiguration { path: PathBuf },

    /// The folder is not one that `neuralrg run` made.
    #[error(
        "{} is not a sweep folder (it has no config.toml); make one with `neuralrg run CONFIG -o {}`",
        dir.display(), dir.display()
    )]
    NotASweep { dir: PathBuf },

    /// Reading or writing HDF5 failed.
    #[error("cannot {action} HDF5 file {}: {message}{}", path.display(), locking_hint(message))]
    Hdf5 { action: &'static str, path: PathBuf, message: String },

    /// A file has the name of a task file but is not a finished one.
    #[error(
        "task file {} is damaged ({problem}); `neuralrg run` moves it aside and repeats the task",
        path.display()
    )]
    DamagedTask { path: PathBuf, problem: String },

    /// A file has the name of a task file but is another's.
    #[error(
        "task file {} {problem}; move it to the folder that it is of, or choose another folder with -o",
        path.display()
    )]
    ForeignTask { path: PathBuf, problem: String },

    /// A file that was named as a task file is some other file.
    #[error(
        "{} is no task file of neuralrg; those are named DIR/tasks/*.h5, where DIR is the folder of a sweep",
        path.display()
    )]
    NotATask { path: PathBuf },

    /// A task file that another version of the program wrote.
    #[error(
        "task file {} has format version {version}, but neuralrg {} reads version {}; use the version \
         that wrote it, or choose another folder with -o",
        path.display(), crate::VERSION, crate::FORMAT_VERSION
    )]
    OtherVersion { path: PathBuf, version: i64 },

    /// The task that a task starts from failed, so that it does not run.
    #[error(
        "not run, since task {parent}, which it starts from, failed; the same command tries both again"
    )]
    ParentFailed { parent: String },

    /// The file of the task that a task starts from cannot be read.
    #[error("cannot start from task {parent}: {cause}; the same command tries again")]
    UnreadableParent { parent: String, cause: Box<Error> },

    /// A file to learn from cannot be used.
    #[error("data file {}: {problem}", path.display())]
    UnusableData { path: PathBuf, problem: String },

    /// The output of `neuralrg learn` or `canonical` is another configuration's.
    #[error(
        "{} was made by another configuration ({difference}); choose another file with -o",
        path.display()
    )]
    OtherLearned { path: PathBuf, difference: String },

    /// A file has the name of a learned model but is not a finished one.
    #[error(
        "{} is no finished file of `{command}` ({problem}); move it away, or choose another with -o",
        path.display()
    )]
    NotLearned { path: PathBuf, command: &'static str, problem: String },

    /// The device that the configuration asks for cannot be had.
    #[error("run.device = \"cuda\": {problem}; run on a GPU node, or set run.device = \"cpu\"")]
    NoCuda { problem: String },

    /// The engine that the configuration asks for was not built.
    #[error(
        "run.engine = \"torch\": this program was built without torch; use one that has it (`make build`), or set \
         run.engine = \"native\""
    )]
    NoTorch,

    /// A command needs torch, which was not built.
    #[error(
        "canonical transformations need torch, without which this program was built; use one that has it (`make build`)"
    )]
    NoSymplecticEngine,

    /// Too many training steps had a loss or gradient that was not finite.
    #[error(
        "training diverged: {skipped} of {steps} steps had a non-finite loss or gradient \
         (train.max_skipped_steps = {allowed}); lower train.learning_rate, or set a lower \
         train.clip_norm (0 turns clipping off)"
    )]
    TrainingDiverged { skipped: i64, steps: i64, allowed: i64 },

    /// A result that should be a number is not one.
    #[error(
        "{quantity} is not a finite number; lower train.learning_rate, or use run.precision = \"f64\""
    )]
    NotFinite { quantity: String },

    /// A task panicked; the message is the panic's.
    #[error("internal error: {message}; please report it with the task's configuration")]
    Panic { message: String },

    /// The GPU is lost, or a kernel went wrong; the message is the driver's.
    #[error(
        "{message}; the task goes on from its last checkpoint when it is run again (where this repeats, see the \
         machine's log of the GPU)"
    )]
    Gpu { message: String },

    /// A tensor of torch did not fit into memory; the message is its allocator's. (Where the host has no memory for an array,
    /// the process ends.)
    #[error(
        "not enough memory: {message}; lower train.batch, evaluate.batch or hmc.chains, or start fewer ranks on each node"
    )]
    OutOfMemory { message: String },

    /// Another rank that works on the same task failed with it.
    #[error("{message}")]
    Teammate { message: String },

    /// The job was asked to stop; everything is saved.
    #[error("stopped by a signal; the same command goes on where this job stopped")]
    Stopped,

    /// The task's time was up; everything is saved, and some rank goes on with it.
    #[error("paused for a task that needs more time")]
    Paused,

    /// Some tasks of the sweep failed; their errors were recorded and logged.
    #[error("{failed} of {total} tasks failed; their errors are in {}; the same command tries them again", dir.display())]
    TasksFailed { failed: usize, total: usize, dir: PathBuf },

    /// A job of a version without claims holds the folder's lock.
    #[error(
        "another job is working on {}, with a version of neuralrg that shares no folders; wait for it, \
         or choose another folder with -o", dir.display()
    )]
    Busy { dir: PathBuf },

    /// Rank 0 reports the error; this rank only ends with it.
    #[error("ended by rank 0")]
    Elsewhere,

    /// A file that a training is to start from has no flow.
    #[error(
        "{} has no flow to start from ({problem}); train.start_from wants a task file (DIR/tasks/*.h5) or what `neuralrg export` \
         writes (*.safetensors)", path.display()
    )]
    NoFlow { path: PathBuf, problem: String },

    /// A training cannot go on, and what it started from has not been read.
    #[error(
        "task {task} cannot go on from its checkpoint; move checkpoints/{task}, states/{task} and, if it is there, tasks/{task}.h5 away, \
         and the same command does it again"
    )]
    LostStart { task: String },

    /// No layer of a flow has the shape of one that is to start from it.
    #[error(
        "no layer of the flow of {start} fits; train.start_from wants one with the same [flow] and, with flow.splits = \"random\", the same seed, of any temperature, depth or size"
    )]
    NothingFits { start: String },

    /// A sweep that trainings are to start from has no task for one of them.
    #[error(
        "{} has no finished task that {task} could start from (train.start_from): one on a lattice that is not larger and, with \
         flow.splits = \"random\", of the same seed",
        dir.display()
    )]
    NoStart { dir: PathBuf, task: String },

    /// Nothing to collect yet.
    #[error(
        "{} has no finished task of L = {sizes}; run `neuralrg run CONFIG -o {}` first",
        dir.display(), dir.display()
    )]
    NothingFinished { dir: PathBuf, sizes: String },

    /// A task that was named is not among the finished ones.
    #[error("{} has no finished task {name}; it has {finished}", dir.display())]
    NoSuchTask { dir: PathBuf, name: String, finished: String },

    /// A study that needs levels, of a flow that has none.
    #[error(
        "task {task} has flow.arrangement = \"tebd\", in which there are no levels to be kept; name other \
         tasks with --task"
    )]
    NoLevels { task: String },

    /// Mutual information of a task with a single chain.
    #[error(
        "task {task} has hmc.chains = 1; mutual information needs two chains or more, whose differences are its errors"
    )]
    OneChain { task: String },

    /// Mutual information from too few samples.
    #[error(
        "task {task} has {chains} chains, whose parts need more than {neighbours} samples each for {neighbours} \
         neighbours; give --samples {needed} or more, or fewer --neighbours"
    )]
    TooFewSamples { task: String, chains: usize, neighbours: usize, needed: usize },

    /// Mutual information from chains that hardly move.
    #[error(
        "task {task}: a part of its chains moved at {moved} samples only, but {neighbours} neighbours need more \
         than {neighbours}; give more --samples, or fewer --neighbours"
    )]
    StuckChains { task: String, moved: usize, neighbours: usize },

    /// A command line value is not allowed.
    #[error("{0}")]
    Usage(String),
}

/// How the message of a panic begins where a GPU fails.
pub const GPU_FAILED: &str = "the GPU failed";

impl Error {
    /// The error of a task that panicked. What torch does where memory ends is a panic too, though no bug.
    pub fn panic(message: String) -> Self {
        let words = ["can't allocate memory", "out of memory"];
        match words.iter().find_map(|words| message.find(words)) {
            Some(start) => {
                // A trace of torch's calls follows.
                let sentence = message[start..].split(". ").next().unwrap_or_default();
                Self::OutOfMemory { message: sentence.to_owned() }
            }
            None if message.starts_with(GPU_FAILED) => Self::Gpu { message },
            None => Self::Panic { message },
        }
    }

    /// Makes the closure that `map_err` wants, for I/O errors on `path`.
    pub fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Io { action, path, cause }
    }

    /// Makes the closure that `map_err` wants, for HDF5 errors on `path`.
    pub fn hdf5(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(hdf5::Error) -> Self {
        let path = path.into();
        move |source| Self::Hdf5 { action, path, message: source.to_string() }
    }
}

/// File systems without locks make HDF5 fail in a way that its own message hardly explains.
fn locking_hint(message: &str) -> &'static str {
    if message.contains("lock") {
        " (on file systems without locks set HDF5_USE_FILE_LOCKING=FALSE)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMEDY: &str =
        "lower train.batch, evaluate.batch or hmc.chains, or start fewer ranks on each node";

    #[cfg(feature = "torch")]
    #[test]
    fn tensors_beyond_memory_are_no_internal_error() {
        use tch::{Device, Kind, Tensor};

        let sizes = [1i64 << 20, 1 << 20, 1 << 10];
        let torch = Tensor::f_empty(sizes, (Kind::Double, Device::Cpu)).unwrap_err();
        let error = Error::panic(format!("called unwrap on {torch:?}")).to_string();
        let sentence = "can't allocate memory: you tried to allocate 9007199254740992 bytes";
        assert_eq!(error, format!("not enough memory: {sentence}; {REMEDY}"));
    }

    #[test]
    fn a_gpu_without_memory_is_no_internal_error_but_any_other_panic_is() {
        let cuda = Error::panic("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has".into());
        assert_eq!(cuda.to_string(), format!("not enough memory: out of memory; {REMEDY}"));
        let bug = Error::panic("index out of bounds".into()).to_string();
        assert!(bug.starts_with("internal error: index out of bounds"), "{bug}");
    }
}
