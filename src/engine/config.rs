//! Section `[run]` of configurations, the machine; and how gradients are estimated (`train.estimator`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bounds::{Check, require};

/// Estimator of the loss's gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Estimator {
    /// ∂/∂θ of ln q_θ(g_θ(z)) - ln π(g_θ(z)).
    Total,
    /// The same without the explicit θ of ln q_θ, whose mean is 0: its variance vanishes where q = π
    /// (arXiv:2207.08219).
    Path,
}

/// Where flows are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// A GPU where there is one, else the CPU.
    Auto,
    Cpu,
    /// A GPU, or an error.
    Cuda,
}

/// Floating-point format of training and sampling; estimates are always summed in f64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    F64,
}

impl Precision {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F64 => size_of::<f64>(),
        }
    }
}

/// What evaluates the flow and its gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// Native on CPU ranks, cuda on GPU ranks.
    Auto,
    /// Fused kernels for CPUs.
    Native,
    /// libtorch, on any device.
    Torch,
    /// Kernels for GPUs.
    Cuda,
}

/// `[run]`: the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    pub device: DeviceChoice,
    pub engine: EngineChoice,
    /// CPU threads of each rank. With torch results are repeated to the bit for equal threads only.
    pub threads: usize,
    /// MPI ranks that work on one task together, each on its share of every batch. Results are repeated to the
    /// bit for equal numbers only.
    pub ranks_per_task: usize,
    pub precision: Precision,
    /// Minutes between two checkpoints of a running task; 0: only when a signal asks to stop.
    pub checkpoint_minutes: f64,
    /// Whether a finished task keeps its last checkpoint, from which it goes on once its configuration wants more.
    pub keep_checkpoints: bool,
    /// Minutes for which a task runs at least before it is paused for one that needs more time, towards the
    /// end of a sweep on several ranks; 0: no task is paused.
    pub slice_minutes: f64,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            engine: EngineChoice::Auto,
            threads: 1,
            ranks_per_task: 1,
            precision: Precision::F32,
            checkpoint_minutes: 10.0,
            keep_checkpoints: true,
            slice_minutes: 1.0,
        }
    }
}

impl RunConfig {
    /// Least time between two checkpoints of a task; none: only when a signal asks to stop.
    pub fn checkpoint_interval(&self) -> Option<Duration> {
        duration(self.checkpoint_minutes)
    }

    /// Least time for which a task runs before it is paused; none: no task is paused.
    pub fn shortest_slice(&self) -> Option<Duration> {
        duration(self.slice_minutes)
    }

    /// Where the engine computes.
    pub fn device_choice(&self) -> DeviceChoice {
        match self.engine {
            EngineChoice::Native => DeviceChoice::Cpu,
            EngineChoice::Cuda => DeviceChoice::Cuda,
            EngineChoice::Auto | EngineChoice::Torch => self.device,
        }
    }

    /// What evaluates a trained flow, wherever it was trained: all cores of this machine, and a GPU only where there is one.
    pub fn on_this_machine(&self) -> (Self, DeviceChoice) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let choice = match self.device_choice() {
            DeviceChoice::Cpu => DeviceChoice::Cpu,
            DeviceChoice::Auto | DeviceChoice::Cuda => DeviceChoice::Auto,
        };
        (Self { threads, ..self.clone() }, choice)
    }

    pub(crate) fn check(&self) -> Check {
        require(
            self.engine != EngineChoice::Native || self.device != DeviceChoice::Cuda,
            "run.engine",
            "\"native\"",
            "\"cuda\", \"torch\" or \"auto\" where run.device is \"cuda\"",
        )?;
        require(
            self.engine != EngineChoice::Cuda || self.device != DeviceChoice::Cpu,
            "run.engine",
            "\"cuda\"",
            "\"native\", \"torch\" or \"auto\" where run.device is \"cpu\"",
        )?;
        require((1..=1024).contains(&self.threads), "run.threads", self.threads, "from 1 to 1024")?;
        require(
            (1..=1024).contains(&self.ranks_per_task),
            "run.ranks_per_task",
            self.ranks_per_task,
            "from 1 to 1024",
        )?;
        let (checkpoint, slice) = (self.checkpoint_minutes, self.slice_minutes);
        let allowed = "from 0 (only when asked to stop) to 1000000";
        require((0.0..=1e6).contains(&checkpoint), "run.checkpoint_minutes", checkpoint, allowed)?;
        let allowed = "from 0 (no task is paused) to 1000000";
        require((0.0..=1e6).contains(&slice), "run.slice_minutes", slice, allowed)
    }
}

/// A time given in minutes, where 0 means none.
fn duration(minutes: f64) -> Option<Duration> {
    (minutes > 0.0).then(|| Duration::from_secs_f64(minutes * 60.0))
}
