//! The configuration file: TOML → validated values. The rest of the program trusts what passed here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};
use crate::flow::arrangement::{Arrangement, Neighbours, Splits};
use crate::flow::coupling::{Conditioner, Networks, Transform};
use crate::seal;

pub mod learn;

/// One sweep, as the user describes it; every default is filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub sweep: SweepConfig,
    /// With it flows learn from samples of the target (forward KL), without from their own (reverse KL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataConfig>,
    #[serde(default)]
    pub flow: FlowConfig,
    #[serde(default)]
    pub train: TrainConfig,
    #[serde(default)]
    pub evaluate: EvaluateConfig,
    #[serde(default)]
    pub hmc: HmcConfig,
    #[serde(default)]
    pub controls: ControlsConfig,
    #[serde(default)]
    pub run: RunConfig,
}

/// `[sweep]`: the tasks, one per temperature, depth and seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// Name of the study, kept in the collected file.
    pub name: String,
    /// L, a power of two from 4 to 1024; the lattice has L² sites.
    pub linear_size: usize,
    /// Temperatures T in units of J/k_B.
    pub temperatures: Temperatures,
    /// Numbers of hierarchy levels, each from 1 to log₂ L.
    pub depths: Depths,
    /// Seeds of the random numbers; several give independent repetitions.
    #[serde(default = "default_seeds")]
    pub seeds: Vec<u64>,
}

/// Temperatures as a list, or as a range with both ends included: `{ from, to, step }` or `{ from, to, points }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "temperatures must be a list of numbers, or a table { from, to, step } or { from, to, points }"
)]
pub enum Temperatures {
    List(Vec<f64>),
    Steps(TemperatureSteps),
    Points(TemperaturePoints),
}

/// T = from, from + step, … up to and including to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemperatureSteps {
    pub from: f64,
    pub to: f64,
    pub step: f64,
}

/// So many temperatures at equal distances, the first and the last included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemperaturePoints {
    pub from: f64,
    pub to: f64,
    pub points: usize,
}

/// Depths as a list, or as `{ from, to }` with both ends included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "depths must be a list of whole numbers or a table { from, to }")]
pub enum Depths {
    List(Vec<usize>),
    Range(DepthRange),
}

/// Depth = from, from + 1, … up to and including to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepthRange {
    pub from: usize,
    pub to: usize,
}

/// `[data]`: fields to learn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// HDF5 file of fields; a relative path starts at the working directory.
    pub file: PathBuf,
    /// So many samples at the end of the file are not trained on, but judge what was learned.
    #[serde(default = "default_held_out")]
    pub held_out: usize,
    /// Checksum of the file, filled in before anything runs, so that a folder belongs to one content.
    #[serde(default)]
    pub sha256: String,
}

/// How the Z2 symmetry x → -x of the target enters the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symmetry {
    /// The flow as it is.
    None,
    /// Every layer commutes with x → -x, so that q(x) = q(-x) exactly; needs odd conditioners.
    Construction,
    /// ln q_sym(x) = ln ½[q(x) + q(-x)] (App. D).
    Mixture,
    /// Loss + λ KL(q(x) ‖ q(-x)) (App. E), λ = `symmetry_weight`.
    Regularizer,
}

/// Named sets of defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The flow and training of the paper's study of depth against temperature (App. B and E).
    Paper,
    /// The most accurate free energy per core-hour that we know of.
    Best,
}

impl Preset {
    /// Values that differ from the defaults, as TOML.
    fn defaults(self) -> &'static str {
        match self {
            Self::Paper => "",
            Self::Best => include_str!("presets/best.toml"),
        }
    }
}

/// `[flow]`: layers and symmetry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowConfig {
    /// Where the defaults of `[flow]` and `[train]` come from; any key beside it takes precedence.
    pub preset: Preset,
    pub arrangement: Arrangement,
    /// Couplings of each layer: of a Real NVP block, or of one checkerboard.
    pub couplings: usize,
    /// Layers of blocks at each level are repeated this often; unused in checkerboards.
    pub repeats: usize,
    /// Unused in checkerboards.
    pub splits: Splits,
    pub conditioner: Conditioner,
    pub networks: Networks,
    pub transform: Transform,
    /// Classes of neighbours at equal distance that a checkerboard's coupling sees; blocks see their two
    /// frozen sites.
    pub shells: usize,
    pub neighbours: Neighbours,
    /// Features that a periodic convolution computes at every frozen site of a checkerboard before the
    /// coupling's network sees them; 0: the network sees the frozen values alone.
    pub channels: usize,
    /// Hidden layers of each coupling's network.
    pub hidden_layers: usize,
    /// Neurons of each hidden layer.
    pub hidden_width: usize,
    /// Whether the Gaussian (K + αI)^{1/2} is the last layer.
    pub preconditioner: bool,
    pub symmetry: Symmetry,
    /// λ of the KL symmetry regularizer; unused otherwise.
    pub symmetry_weight: f64,
}

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

/// How weights decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// `weight_decay` × parameters is added to the gradient: the paper's.
    L2,
    /// Each step shrinks parameters by learning rate × `weight_decay` (arXiv:1711.05101).
    Decoupled,
}

/// Course of the learning rate after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// As it is: the paper's.
    Constant,
    /// Half a cosine down to `final_learning_rate_fraction`.
    Cosine,
}

/// Where the parameters of a task's flow start: at random, or at those of another task's trained flow,
/// which then runs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartFrom {
    /// At random.
    None,
    /// At the next higher temperature of the sweep; the highest starts at random.
    HigherTemperature,
    /// At the next smaller depth of the sweep; the smallest starts at random.
    Shallower,
    /// At a task with half the linear size and one level less, down to L = 4 or one level.
    HalfSize,
}

/// `[train]`: minimization of the reverse KL divergence with Adam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Most steps.
    pub steps: i64,
    /// Most seconds; 0: no limit. What is reached then depends on the machine.
    pub seconds: f64,
    /// Training ends when ½ Var(ln q - ln π), which estimates the gap in nats, falls to this over
    /// `log_every` steps; 0: it goes on.
    pub target_gap: f64,
    /// Samples in each step.
    pub batch: i64,
    /// The batch is doubled at equal intervals so often that the last interval has
    /// `batch` · 2^`batch_doublings` samples.
    pub batch_doublings: u32,
    /// Largest learning rate, reached after the warm-up.
    pub learning_rate: f64,
    pub schedule: Schedule,
    /// The cosine decay ends at this fraction of `learning_rate`; unused with a constant rate.
    pub final_learning_rate_fraction: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: i64,
    /// Strength of the decay of all parameters; 0: none.
    pub weight_decay: f64,
    pub decay: Decay,
    pub estimator: Estimator,
    /// Decay of the running mean of the parameters that the trained flow ends with; 0: the last ones.
    pub averaging: f64,
    /// Gradients of a larger norm are scaled down to this norm; 0 turns clipping off.
    pub clip_norm: f64,
    /// A task fails after more skipped steps (non-finite loss or gradient) than this.
    pub max_skipped_steps: i64,
    /// Steps between two log lines, checks of the guard and entries of the progress file.
    pub log_every: i64,
    /// Steps between two measurements by latent HMC and its control (Fig. 3(b)); 0: none.
    pub measure_every: i64,
    /// Trajectories of each at a measurement; the first half adapts and is thrown away.
    pub measure_trajectories: i64,
    pub start_from: StartFrom,
}

/// `[evaluate]`: the variational free energy and samples of the trained flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluateConfig {
    /// Samples for the free energy.
    pub samples: i64,
    /// Samples drawn at a time.
    pub batch: i64,
    /// Field configurations kept in the task file.
    pub keep_samples: i64,
}

/// `[hmc]`: hybrid Monte Carlo in the latent space; its controls take the same chains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HmcConfig {
    /// Independent chains, advanced together.
    pub chains: i64,
    /// Trajectories that adapt step size and length and are thrown away.
    pub warmup: i64,
    /// Trajectories measured in each chain.
    pub trajectories: i64,
    /// Leapfrog steps of a trajectory; where the length adapts, at the start of the warm-up.
    pub leapfrog_steps: i64,
    /// Whether the trajectory length adapts too.
    pub adapt_length: bool,
    /// Whether latent HMC proposes fresh latents from the prior after each trajectory.
    pub global_moves: bool,
    /// No trajectory takes more leapfrog steps.
    pub max_leapfrog_steps: i64,
    /// Lengths are spread evenly over (1 ± jitter) times their mean.
    pub jitter: f64,
    /// Leapfrog step size at the start of the warm-up.
    pub step_size: f64,
    /// Acceptance that the adaptation aims at.
    pub target_acceptance: f64,
    /// A trajectory whose energy error exceeds this counts as divergent.
    pub divergence_threshold: f64,
}

/// Ways to draw from the target, all with chains of the same layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// HMC in the latent space of the flow (App. C).
    Latent,
    /// HMC in the space of the fields.
    Physical,
    /// The same with Fourier acceleration.
    Fourier,
    /// Metropolis with samples of the flow as proposals.
    Independence,
}

impl Sampler {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 4] = [Self::Latent, Self::Physical, Self::Fourier, Self::Independence];

    /// Its name in configurations and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latent => "latent",
            Self::Physical => "physical",
            Self::Fourier => "fourier",
            Self::Independence => "independence",
        }
    }
}

/// Where chains in the space of the fields start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Fields of free spins.
    Hot,
    /// Fields of spins that all point up.
    Cold,
}

/// `[controls]`: other samplers of the same target, beside latent HMC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlsConfig {
    /// Any but `"latent"`, which always runs.
    pub samplers: Vec<Sampler>,
    /// Where the chains of `"physical"` and `"fourier"` start.
    pub start: Start,
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

/// What evaluates the flow and its gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// Native on CPU ranks, torch on GPU ranks.
    Auto,
    /// Fused kernels for CPUs.
    Native,
    /// libtorch, on any device.
    Torch,
}

/// `[run]`: the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    pub device: DeviceChoice,
    pub engine: EngineChoice,
    /// CPU threads of each rank. Results are repeated to the bit for equal threads only.
    pub threads: usize,
    /// MPI ranks that work on one task together, each on its share of every batch. Results are repeated to the
    /// bit for equal numbers only.
    pub ranks_per_task: usize,
    pub precision: Precision,
    /// Minutes between two checkpoints of a running task; 0: only when a signal asks to stop.
    pub checkpoint_minutes: f64,
    /// Minutes for which a task runs at least before it is paused for one that needs more time, towards the
    /// end of a sweep on several ranks; 0: no task is paused.
    pub slice_minutes: f64,
}

/// Bounds far above what any machine does today, so that a slip of the pen is refused before any work and no product
/// of counts overflows. A step takes a millisecond or more: a thousand million take longer than a week.
const MOST_STEPS: i64 = 1_000_000_000;
/// Samples drawn one after the other, or trajectories of all chains: 72 bytes of each are kept, or 128.
const MOST_DRAWS: i64 = 1_000_000_000;
/// Samples at a time, apart from [`MOST_NUMBERS`].
const MOST_BATCH: i64 = 1 << 24;
/// Numbers in one array of f64: 17 GB, of which a step takes several.
const MOST_NUMBERS: i64 = 1 << 31;
/// Neighbours of all sites in the couplings of one level, of which each task makes tables.
const MOST_NEIGHBOURS: usize = 1 << 32;
/// Each has files of its own.
const MOST_TASKS: usize = 100_000;

fn default_seeds() -> Vec<u64> {
    vec![1]
}

fn default_held_out() -> usize {
    1000
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            preset: Preset::Paper,
            arrangement: Arrangement::Mera,
            couplings: 10,
            repeats: 1,
            splits: Splits::Random,
            conditioner: Conditioner::Elu,
            networks: Networks::Separate,
            transform: Transform::Affine,
            shells: 3,
            neighbours: Neighbours::Shells,
            channels: 0,
            hidden_layers: 3,
            hidden_width: 10,
            preconditioner: false,
            symmetry: Symmetry::Regularizer,
            symmetry_weight: 1.0,
        }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 5000,
            seconds: 0.0,
            target_gap: 0.0,
            batch: 512,
            batch_doublings: 0,
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            final_learning_rate_fraction: 0.01,
            warmup_steps: 0,
            weight_decay: 1e-3,
            decay: Decay::L2,
            estimator: Estimator::Total,
            averaging: 0.0,
            clip_norm: 0.0,
            max_skipped_steps: 20,
            log_every: 100,
            measure_every: 0,
            measure_trajectories: 20,
            start_from: StartFrom::None,
        }
    }
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self { samples: 16_384, batch: 1024, keep_samples: 16 }
    }
}

impl Default for HmcConfig {
    fn default() -> Self {
        Self {
            chains: 64,
            warmup: 200,
            trajectories: 500,
            leapfrog_steps: 10,
            adapt_length: true,
            global_moves: true,
            max_leapfrog_steps: 64,
            jitter: 0.5,
            step_size: 0.1,
            target_acceptance: 0.8,
            divergence_threshold: 1000.0,
        }
    }
}

impl Default for ControlsConfig {
    fn default() -> Self {
        Self { samplers: Vec::new(), start: Start::Hot }
    }
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
            slice_minutes: 1.0,
        }
    }
}

impl Config {
    /// Reads and validates a configuration file.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML of the known keys, or holds a value that is not allowed.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read configuration", path))?;
        Self::parse(&text, path)
    }

    /// Parses and validates `text`; `path` only names it in messages.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let mut config: Self = parse_over_preset(text, path, "", |config: &Self| &config.flow)?;
        config.resolve().map_err(|problem| problem.at(path))?;
        Ok(config)
    }

    /// The resolved configuration as TOML, every default spelled out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a validated configuration has a TOML form")
    }

    /// How many tasks run at once on `ranks` ranks; `path` only names the file in messages.
    ///
    /// # Errors
    /// The ranks cannot be divided into teams of `run.ranks_per_task`.
    pub fn teams(&self, ranks: usize, path: &Path) -> Result<usize> {
        let size = self.run.ranks_per_task;
        if ranks.is_multiple_of(size) {
            return Ok(ranks / size);
        }
        Err(Error::ConfigValue {
            path: path.into(),
            key: "run.ranks_per_task".into(),
            problem: format!(
                "is {size}, but must divide the number of ranks, which is {ranks}; start as many ranks as a \
                 multiple of it, or set it to 1"
            ),
        })
    }

    /// The temperatures of the sweep.
    pub fn temperatures(&self) -> &[f64] {
        match &self.sweep.temperatures {
            Temperatures::List(list) => list,
            _ => unreachable!("ranges are expanded when a file is parsed"),
        }
    }

    /// The depths of the sweep.
    pub fn depths(&self) -> &[usize] {
        match &self.sweep.depths {
            Depths::List(list) => list,
            Depths::Range(_) => unreachable!("ranges are expanded when a file is parsed"),
        }
    }

    /// The first key on which two configurations differ, as `key = mine, there theirs`. What only
    /// says where to compute and how often to save (all of `[run]` but `run.precision`) does not count.
    pub fn difference(&self, other: &Self) -> Option<String> {
        difference(self, other)
    }

    /// The first key on which a task of another configuration differs from one of the same name here; none where their
    /// numbers must be the same.
    pub fn difference_of_tasks(&self, other: &Self) -> Option<String> {
        first_difference(&self.of_tasks(), &other.of_tasks())
    }

    /// Checksum of everything that the numbers of a task depend on besides the task.
    pub fn sha256_of_tasks(&self) -> String {
        let lines = self.of_tasks().into_iter().map(|(key, value)| format!("{key} = {value}\n"));
        seal::sha256(lines.collect::<String>().as_bytes())
    }

    /// What the numbers of a task depend on: not the machine, nor what other tasks there are unless they start from each
    /// other.
    fn of_tasks(&self) -> BTreeMap<String, toml::Value> {
        let alone = self.train.start_from == StartFrom::None;
        let mut values = flattened(self);
        values.retain(|key, _| {
            let of_others = key == "sweep.name" || alone && key.starts_with("sweep.");
            !is_of_machine(key) && !of_others
        });
        values
    }

    /// Expands ranges and checks every value.
    fn resolve(&mut self) -> Check {
        self.sweep.resolve()?;
        self.flow.check()?;
        self.train.check()?;
        self.evaluate.check()?;
        self.hmc.check()?;
        self.controls.check()?;
        self.run.check()?;
        self.check_sizes()?;
        self.check_data()
    }

    /// Whether the sweep has few enough tasks, and whether what a task holds at once has a size that memory may have.
    fn check_sizes(&self) -> Check {
        let (size, deepest) = (self.sweep.linear_size, self.depths().iter().max());
        let counts = [self.temperatures().len(), self.depths().len(), self.sweep.seeds.len()];
        let [temperatures, depths, seeds] = counts;
        let tasks = counts.iter().product::<usize>();
        let product = format!(
            "{tasks} tasks ({temperatures} temperatures × {depths} depths × {seeds} seeds)"
        );
        let allowed = format!("at most {MOST_TASKS}; make several sweeps");
        require(tasks <= MOST_TASKS, "sweep", product, allowed)?;
        self.flow.check_size(size, *deepest.expect("there are depths"))?;
        self.train.check_size(size)?;
        let EvaluateConfig { samples, batch, keep_samples } = self.evaluate;
        require_fields("evaluate.batch", batch.min(samples), size)?;
        require_fields("evaluate.keep_samples", keep_samples, size)?;
        require_fields("hmc.chains", self.hmc.chains, size)
    }

    /// Whether flows can learn from samples in this way.
    fn check_data(&self) -> Check {
        let Some(data) = &self.data else { return Ok(()) };
        data.check()?;
        self.train.check_forward()?;
        require(
            self.train.start_from != StartFrom::HalfSize,
            "train.start_from",
            "\"half-size\"",
            "another one with [data], which has no fields of smaller lattices",
        )?;
        require(
            self.flow.symmetry != Symmetry::Regularizer,
            "flow.symmetry",
            "\"regularizer\"",
            "another one with [data], since it is a mean over the flow's own samples",
        )
    }
}

impl DataConfig {
    /// Fills in the checksum of the file; `path` names the configuration.
    ///
    /// # Errors
    /// The file cannot be read, or the configuration has another checksum.
    pub fn identify(&mut self, path: &Path) -> Result<()> {
        let bytes = std::fs::read(&self.file).map_err(Error::io("read data file", &self.file))?;
        let sha256 = seal::sha256(&bytes);
        let same = self.sha256.is_empty() || self.sha256 == sha256;
        let given = &self.sha256;
        require(same, "data.sha256", given, format!("{sha256}, that of {}", self.file.display()))
            .map_err(|problem| problem.at(path))?;
        self.sha256 = sha256;
        Ok(())
    }

    fn check(&self) -> Check {
        require(!self.file.as_os_str().is_empty(), "data.file", "\"\"", "the path of a file")?;
        require(self.held_out >= 2, "data.held_out", self.held_out, "2 or more, for error bars")
    }
}

impl SweepConfig {
    fn resolve(&mut self) -> Check {
        require(!self.name.trim().is_empty(), "sweep.name", "\"\"", "a name that is not empty")?;
        let size = self.linear_size;
        require(
            size.is_power_of_two() && (4..=1024).contains(&size),
            "sweep.linear_size",
            size,
            "a power of two from 4 to 1024",
        )?;
        let temperatures = self.temperatures.expand()?;
        let checked = check_list("sweep.temperatures", &temperatures, |t| {
            (0.01..=1000.0).contains(t).then_some(()).ok_or("from 0.01 to 1000".into())
        });
        checked.map_err(|problem| match decimal_comma_hint(&temperatures) {
            Some(hint) => Problem { problem: format!("{} ({hint})", problem.problem), ..problem },
            None => problem,
        })?;
        self.temperatures = Temperatures::List(temperatures);
        let deepest = size.ilog2() as usize;
        let depths = self.depths.expand(deepest)?;
        check_list("sweep.depths", &depths, |depth| {
            let allowed = format!("from 1 to log2(linear_size) = {deepest}");
            (1..=deepest).contains(depth).then_some(()).ok_or(allowed)
        })?;
        self.depths = Depths::List(depths);
        check_list("sweep.seeds", &self.seeds, |seed| {
            // TOML integers, which the resolved configuration is written in, are signed.
            i64::try_from(*seed).map(|_| ()).map_err(|_| "below 2^63".into())
        })
    }
}

/// What to say of a list in which decimal commas seem to have made two temperatures of each: whole numbers, every other
/// one below 10, and one of them unusually high or there twice.
pub fn decimal_comma_hint(temperatures: &[f64]) -> Option<&'static str> {
    let whole = temperatures.iter().all(|temperature| temperature.fract() == 0.0);
    let pairs = temperatures.chunks(2).all(|pair| pair.len() == 2 && pair[0] < 10.0);
    let high = temperatures.iter().any(|&temperature| temperature > 10.0);
    let unique: HashSet<_> = temperatures.iter().map(|temperature| temperature.to_bits()).collect();
    let strange = high || unique.len() < temperatures.len();
    let hint = "a comma separates two temperatures; decimals begin with a point, as in 2.27";
    (whole && pairs && strange).then_some(hint)
}

impl Temperatures {
    /// The list, a range spelled out; points are rounded so that 2.0 + 3 × 0.1 is 2.3.
    fn expand(&self) -> std::result::Result<Vec<f64>, Problem> {
        let (from, to, intervals) = match self {
            Self::List(list) => return Ok(list.clone()),
            Self::Steps(range) => (range.from, range.to, range.intervals()?),
            Self::Points(range) => (range.from, range.to, range.intervals()?),
        };
        let at = |i: usize| from + (to - from) * i as f64 / intervals.max(1) as f64;
        Ok((0..=intervals).map(|i| (at(i) * 1e10).round() / 1e10).collect())
    }
}

/// Most temperatures of a range.
const MOST_POINTS: usize = 10_000;

/// Whether there is a range between these ends.
fn check_ends(from: f64, to: f64) -> Check {
    let key = "sweep.temperatures";
    let ends = format!("from {from} to {to}");
    require(from.is_finite() && to.is_finite(), key, &ends, "given with finite from and to")?;
    require(from <= to, key, &ends, "given with from ≤ to")
}

impl TemperatureSteps {
    /// How many steps lead from one end to the other: a whole number but for the digits that a step such as 0.0666666667
    /// lacks.
    fn intervals(&self) -> std::result::Result<usize, Problem> {
        let Self { from, to, step } = *self;
        let key = "sweep.temperatures";
        check_ends(from, to)?;
        require(step > 0.0, key, format!("step {step}"), "given with step > 0")?;
        let steps = (to - from) / step;
        let count = (steps + 1e-6).floor() + 1.0;
        let most = MOST_POINTS;
        require(
            count <= most as f64,
            key,
            format!("{count} points"),
            format!("at most {most} points"),
        )?;
        let (fewer, more) = (steps.floor().max(1.0), steps.floor().max(1.0) + 1.0);
        // Digits enough to be accepted, however many points there are.
        let nearest = |intervals: f64| -> f64 {
            let printed = format!("{:.11e}", (to - from) / intervals);
            printed.parse().expect("a printed number is one")
        };
        require(
            (steps - steps.round()).abs() < 1e-6,
            key,
            format!("from {from} to {to} in steps of {step}"),
            format!(
                "given with a step that ends at {to}, such as {} or {}, or with points = {} or {} instead",
                nearest(fewer),
                nearest(more),
                fewer + 1.0,
                more + 1.0
            ),
        )?;
        Ok(steps.round() as usize)
    }
}

impl TemperaturePoints {
    /// How many steps lead from one end to the other.
    fn intervals(&self) -> std::result::Result<usize, Problem> {
        let Self { from, to, points } = *self;
        let key = "sweep.temperatures";
        check_ends(from, to)?;
        let least = if from == to { 1 } else { 2 };
        require(
            (least..=MOST_POINTS).contains(&points),
            key,
            format!("from {from} to {to} with points = {points}"),
            format!("given with {least} to {MOST_POINTS} points"),
        )?;
        Ok(points - 1)
    }
}

impl Depths {
    /// The list, a range spelled out, which none may be that goes beyond the deepest.
    fn expand(&self, deepest: usize) -> std::result::Result<Vec<usize>, Problem> {
        let DepthRange { from, to } = match self {
            Self::List(list) => return Ok(list.clone()),
            Self::Range(range) => *range,
        };
        require(
            (1..=to).contains(&from) && to <= deepest,
            "sweep.depths",
            format!("from {from} to {to}"),
            format!("given with from ≤ to, both from 1 to log2(linear_size) = {deepest}"),
        )?;
        Ok((from..=to).collect())
    }
}

impl FlowConfig {
    /// Networks of each coupling.
    pub fn branches(&self) -> usize {
        match self.networks {
            Networks::Separate => self.transform.parameters(),
            Networks::Joint => 1,
        }
    }

    /// Whether a density needs an inverse pass beside the forward one.
    pub fn needs_inverse(&self) -> bool {
        matches!(self.symmetry, Symmetry::Mixture | Symmetry::Regularizer)
    }

    fn check(&self) -> Check {
        require(
            (1..=1000).contains(&self.couplings),
            "flow.couplings",
            self.couplings,
            "from 1 to 1000",
        )?;
        require((1..=100).contains(&self.repeats), "flow.repeats", self.repeats, "from 1 to 100")?;
        require((1..=32).contains(&self.shells), "flow.shells", self.shells, "from 1 to 32")?;
        require(self.channels <= 256, "flow.channels", self.channels, "from 0 to 256")?;
        require(
            self.channels == 0 || self.arrangement == Arrangement::Checkerboard,
            "flow.channels",
            self.channels,
            "0, unless flow.arrangement is \"checkerboard\"",
        )?;
        require(
            self.symmetry != Symmetry::Construction || self.conditioner == Conditioner::Odd,
            "flow.symmetry",
            "\"construction\"",
            "another one, unless flow.conditioner is \"odd\"",
        )?;
        require(
            self.networks == Networks::Joint || self.conditioner == Conditioner::Elu,
            "flow.networks",
            "\"separate\"",
            "\"joint\", unless flow.conditioner is \"elu\"",
        )?;
        require(
            (1..=10).contains(&self.hidden_layers),
            "flow.hidden_layers",
            self.hidden_layers,
            "from 1 to 10",
        )?;
        require(
            (1..=4096).contains(&self.hidden_width),
            "flow.hidden_width",
            self.hidden_width,
            "from 1 to 4096",
        )?;
        let weight = self.symmetry_weight;
        require(weight.is_finite() && weight >= 0.0, "flow.symmetry_weight", weight, "0 or more")
    }

    /// Whether the couplings on an L × L lattice have tables, and their networks weights, that memory may hold: bounds
    /// from above, which need no coupling to be laid out.
    fn check_size(&self, linear_size: usize, depth: usize) -> Check {
        let sites = linear_size * linear_size;
        let couplings = self.couplings * self.repeats;
        // Most shells have four sites or eight.
        let (shells, most) = (couplings * self.shells, MOST_NEIGHBOURS / (8 * sites));
        let allowed = format!("at most {most} for fields of {linear_size} × {linear_size}");
        require(shells <= most, "flow.couplings × flow.repeats × flow.shells", shells, allowed)?;
        // Two layers of a level, and two matrices beside those between hidden layers.
        let matrices = 2 * depth * couplings * self.branches() * (self.hidden_layers + 1);
        let most = (MOST_NUMBERS as usize / matrices).isqrt();
        let allowed = format!("at most {most} in so many layers of networks");
        require(self.hidden_width <= most, "flow.hidden_width", self.hidden_width, allowed)
    }
}

impl TrainConfig {
    fn check(&self) -> Check {
        require_count("train.steps", self.steps, 0, MOST_STEPS)?;
        require(
            (0.0..=1e9).contains(&self.seconds),
            "train.seconds",
            self.seconds,
            "from 0 (no limit) to 1000000000",
        )?;
        require(
            self.target_gap.is_finite() && self.target_gap >= 0.0,
            "train.target_gap",
            self.target_gap,
            "0 (off) or more",
        )?;
        require_count("train.batch", self.batch, 2, MOST_BATCH)?;
        require(
            self.batch_doublings <= 10,
            "train.batch_doublings",
            self.batch_doublings,
            "from 0 to 10",
        )?;
        require(
            self.learning_rate > 0.0 && self.learning_rate <= 1.0,
            "train.learning_rate",
            self.learning_rate,
            "above 0 and at most 1",
        )?;
        require(
            (0.0..=1.0).contains(&self.final_learning_rate_fraction),
            "train.final_learning_rate_fraction",
            self.final_learning_rate_fraction,
            "from 0 to 1",
        )?;
        require_count("train.warmup_steps", self.warmup_steps, 0, MOST_STEPS)?;
        require(
            (0.0..=1.0).contains(&self.weight_decay),
            "train.weight_decay",
            self.weight_decay,
            "from 0 to 1",
        )?;
        require(
            (0.0..1.0).contains(&self.averaging),
            "train.averaging",
            self.averaging,
            "from 0 to below 1",
        )?;
        require(
            self.clip_norm.is_finite() && self.clip_norm >= 0.0,
            "train.clip_norm",
            self.clip_norm,
            "0 (off) or more",
        )?;
        require_count("train.max_skipped_steps", self.max_skipped_steps, 0, MOST_STEPS)?;
        require_count("train.log_every", self.log_every, 1, MOST_STEPS)?;
        require_count("train.measure_every", self.measure_every, 0, MOST_STEPS)?;
        require_count("train.measure_trajectories", self.measure_trajectories, 2, 1_000_000)
    }

    /// Whether the largest batch has a size that memory may hold.
    fn check_size(&self, linear_size: usize) -> Check {
        require_fields("train.batch × 2^train.batch_doublings", self.largest_batch(), linear_size)
    }

    /// Samples of a step after all doublings.
    pub fn largest_batch(&self) -> i64 {
        self.batch << self.batch_doublings
    }

    /// What a training by samples cannot do.
    fn check_forward(&self) -> Check {
        require(
            self.target_gap == 0.0,
            "train.target_gap",
            self.target_gap,
            "0 with [data], since the gap is not known from samples of the target",
        )
    }
}

impl EvaluateConfig {
    fn check(&self) -> Check {
        require_count("evaluate.samples", self.samples, 2, MOST_DRAWS)?;
        require_count("evaluate.batch", self.batch, 1, MOST_BATCH)?;
        require(
            (1..=self.samples).contains(&self.keep_samples),
            "evaluate.keep_samples",
            self.keep_samples,
            "from 1 to evaluate.samples",
        )
    }
}

impl HmcConfig {
    fn check(&self) -> Check {
        // Two for error bars; eight since halves of chains are compared.
        require_count("hmc.chains", self.chains, 2, 1_000_000)?;
        require_count("hmc.warmup", self.warmup, 0, MOST_DRAWS)?;
        require_count("hmc.trajectories", self.trajectories, 8, MOST_DRAWS)?;
        let draws = self.chains.saturating_mul(self.trajectories);
        let allowed = format!("at most {MOST_DRAWS}");
        require(draws <= MOST_DRAWS, "hmc.chains × hmc.trajectories", draws, allowed)?;
        require_count("hmc.leapfrog_steps", self.leapfrog_steps, 1, 10_000)?;
        require(
            (self.leapfrog_steps..=10_000).contains(&self.max_leapfrog_steps),
            "hmc.max_leapfrog_steps",
            self.max_leapfrog_steps,
            "from hmc.leapfrog_steps to 10000",
        )?;
        require((0.0..=1.0).contains(&self.jitter), "hmc.jitter", self.jitter, "from 0 to 1")?;
        require(
            self.step_size.is_finite() && self.step_size > 0.0,
            "hmc.step_size",
            self.step_size,
            "above 0",
        )?;
        require(
            self.target_acceptance > 0.0 && self.target_acceptance < 1.0,
            "hmc.target_acceptance",
            self.target_acceptance,
            "between 0 and 1",
        )?;
        require(
            self.divergence_threshold > 0.0,
            "hmc.divergence_threshold",
            self.divergence_threshold,
            "above 0",
        )
    }
}

impl ControlsConfig {
    fn check(&self) -> Check {
        let names = self.samplers.iter().map(|sampler| sampler.name());
        let latent = self.samplers.contains(&Sampler::Latent);
        let allowed = "others only, since latent HMC always runs";
        require(!latent, "controls.samplers", "a list with \"latent\"", allowed)?;
        let unique: HashSet<_> = names.collect();
        let twice = unique.len() < self.samplers.len();
        require(!twice, "controls.samplers", "a list with a name twice", "a list without")
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
            EngineChoice::Auto | EngineChoice::Torch => self.device,
        }
    }

    fn check(&self) -> Check {
        require(
            self.engine != EngineChoice::Native || self.device != DeviceChoice::Cuda,
            "run.engine",
            "\"native\"",
            "\"torch\" or \"auto\" where run.device is \"cuda\"",
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

/// A value that is not allowed.
struct Problem {
    key: &'static str,
    problem: String,
}

type Check = std::result::Result<(), Problem>;

impl Problem {
    /// The error of the configuration file at `path`.
    fn at(self, path: &Path) -> Error {
        Error::ConfigValue { path: path.into(), key: self.key.into(), problem: self.problem }
    }
}

fn require(
    fine: bool,
    key: &'static str,
    value: impl std::fmt::Display,
    allowed: impl std::fmt::Display,
) -> Check {
    let problem = || Problem { key, problem: format!("is {value}, but must be {allowed}") };
    fine.then_some(()).ok_or_else(problem)
}

/// A number of things from `least` to `most`.
fn require_count(key: &'static str, value: i64, least: i64, most: i64) -> Check {
    require((least..=most).contains(&value), key, value, format!("from {least} to {most}"))
}

/// So many L × L fields at once, as one array holds them.
fn require_fields(key: &'static str, count: i64, linear_size: usize) -> Check {
    let most = MOST_NUMBERS / (linear_size * linear_size) as i64;
    let allowed = format!("at most {most} for fields of {linear_size} × {linear_size}");
    require(count <= most, key, count, allowed)
}

/// A list must not be empty, each value be allowed, and none stand twice (that would be the same task).
fn check_list<T: std::fmt::Display>(
    key: &'static str,
    list: &[T],
    allowed: impl Fn(&T) -> std::result::Result<(), String>,
) -> Check {
    require(!list.is_empty(), key, "empty", "a list of at least one value")?;
    let mut seen = HashSet::new();
    for value in list {
        if let Err(allowed) = allowed(value) {
            require(false, key, format!("{value} in one place"), allowed)?;
        }
        let problem = format!("has {value} twice, which would make duplicate tasks; name it once");
        seen.insert(value.to_string()).then_some(()).ok_or(Problem { key, problem })?;
    }
    Ok(())
}

/// Parses TOML text over the defaults of the preset that it names, and these over `defaults`.
fn parse_over_preset<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    defaults: &str,
    flow: impl Fn(&T) -> &FlowConfig,
) -> Result<T> {
    let parsed = with_whole_numbers(text);
    let syntax = |error: &toml::de::Error| Error::ConfigSyntax {
        path: path.into(),
        message: one_line(error, &parsed, text),
    };
    let written: T = toml::from_str(&parsed).map_err(|error| syntax(&error))?;
    let mut table = toml::from_str(flow(&written).preset.defaults()).expect("presets are TOML");
    overlay(&mut table, toml::from_str(defaults).expect("defaults are TOML"));
    overlay(&mut table, toml::from_str(&parsed).map_err(|error| syntax(&error))?);
    table.try_into().map_err(|error| syntax(&error))
}

/// The first key on which two configurations differ, those of the machine aside: [`Config::difference`].
fn difference(mine: &impl Serialize, theirs: &impl Serialize) -> Option<String> {
    let [mine, theirs] = [flattened(mine), flattened(theirs)].map(|mut values| {
        values.retain(|key, _| !is_of_machine(key));
        values
    });
    first_difference(&mine, &theirs)
}

/// Whether a key says how the machine is used, on which no result depends.
fn is_of_machine(key: &str) -> bool {
    key.starts_with("run.") && key != "run.precision"
}

fn first_difference(
    mine: &BTreeMap<String, toml::Value>,
    theirs: &BTreeMap<String, toml::Value>,
) -> Option<String> {
    let keys: BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
    let value = |of: &BTreeMap<String, toml::Value>, key: &String| {
        of.get(key).map_or_else(|| "absent".to_owned(), ToString::to_string)
    };
    keys.into_iter().find_map(|key| {
        let differ = mine.get(key) != theirs.get(key);
        differ.then(|| format!("{key} = {}, there {}", value(mine, key), value(theirs, key)))
    })
}

/// All values by dotted keys.
fn flattened(config: &impl Serialize) -> BTreeMap<String, toml::Value> {
    let table = toml::Table::try_from(config).expect("a configuration is a table of tables");
    let keys = |(section, value): (String, toml::Value)| {
        let toml::Value::Table(table) = value else {
            unreachable!("every top-level value is a section")
        };
        table.into_iter().map(move |(key, value)| (format!("{section}.{key}"), value))
    };
    table.into_iter().flat_map(keys).collect()
}

/// Puts the values of `upper` over those of `lower`, section by section.
fn overlay(lower: &mut toml::Table, upper: toml::Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => overlay(below, above),
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

/// TOML text with its whole floats as integers, line by line: 1e3 becomes 1000, which keys of either kind take. Text that
/// is no TOML stays as it is.
fn with_whole_numbers(text: &str) -> String {
    let mut found = Vec::new();
    if let Ok(table) = DeTable::parse(text) {
        table.get_ref().values().for_each(|value| whole_floats(value, &mut found));
    }
    let mut parsed = text.to_owned();
    found.sort_by_key(|(place, _)| Reverse(place.start));
    for (place, whole) in found {
        parsed.replace_range(place, &whole.to_string());
    }
    parsed
}

/// Adds the floats in a value that are whole numbers, with their places in the text.
fn whole_floats(value: &Spanned<DeValue>, found: &mut Vec<(Range<usize>, i64)>) {
    /// Up to 2^53 all whole numbers are floats.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value.get_ref() {
        DeValue::Float(float) => {
            let number: Option<f64> = float.as_str().parse().ok();
            let whole = number.filter(|number| number.fract() == 0.0 && number.abs() <= EXACT);
            found.extend(whole.map(|whole| (value.span(), whole as i64)));
        }
        DeValue::Array(array) => array.iter().for_each(|value| whole_floats(value, found)),
        DeValue::Table(table) => table.values().for_each(|value| whole_floats(value, found)),
        _ => {}
    }
}

/// The parser's message of `parsed` on one line, with the number of the line in front and what is written there behind.
fn one_line(error: &toml::de::Error, parsed: &str, written: &str) -> String {
    let message = with_suggestion(error.message().replace('\n', " "));
    match error.span() {
        Some(span) => {
            let line = parsed[..span.start.min(parsed.len())].matches('\n').count() + 1;
            let excerpt = written.lines().nth(line - 1).unwrap_or_default().trim();
            format!("line {line}: {message} (in `{excerpt}`)")
        }
        None => message,
    }
}

/// "unknown field `stpes`, expected one of `steps`, …" with the most similar of all these names in their place, where one
/// is as similar as clap wants it of suggestions for the command line. Of values, which are few, the message names all.
fn with_suggestion(message: String) -> String {
    const LIKENESS: f64 = 0.7;
    let Some((problem, expected)) = message.split_once(", expected ") else { return message };
    let names = |text| str::split(text, '`').skip(1).step_by(2);
    let is_key = problem.starts_with("unknown field ");
    let Some(unknown) = names(problem).next().filter(|_| is_key) else { return message };
    let likely = names(expected).map(|name| (strsim::jaro(unknown, name), name));
    match likely.max_by(|one, other| one.0.total_cmp(&other.0)) {
        Some((likeness, name)) if likeness > LIKENESS => {
            format!("{problem}, did you mean `{name}`?")
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "[sweep]\nname = 'test'\nlinear_size = 8\ndepths = [1, 3]\n";

    fn parse(temperatures: &str) -> Result<Config> {
        Config::parse(&format!("{SMALL}temperatures = {temperatures}\n"), Path::new("test.toml"))
    }

    #[test]
    fn a_range_is_spelled_out_with_both_ends() {
        let config = parse("{ from = 2.0, to = 2.7, step = 0.1 }").unwrap();
        assert_eq!(config.temperatures(), [2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6, 2.7]);
    }

    #[test]
    fn a_range_of_points_has_both_ends() {
        let config = parse("{ from = 2.0, to = 2.6, points = 10 }").unwrap();
        let [first, second, .., last] = config.temperatures() else { panic!("there are ten") };
        assert_eq!([*first, *second, *last], [2.0, 2.0666666667, 2.6]);
        assert_eq!(config.temperatures().len(), 10);
        assert_eq!(parse("{ from = 2.5, to = 2.5, points = 1 }").unwrap().temperatures(), [2.5]);
    }

    /// What the message about a step that does not fit offers is accepted as it is printed.
    #[test]
    fn both_nearest_steps_fit() {
        for (to, step, offered) in [
            (2.6, 0.07, ["0.075", "0.0666666666667"]),
            (2.6, 0.7, ["0.6", "0.3"]),
            (3.9995, 0.001, ["0.00100025012506", "0.000999750000"]),
            (3.0, 0.0001001, ["0.000100100100100", "0.000100090081073"]),
        ] {
            let range = |step: &str| parse(&format!("{{ from = 2.0, to = {to}, step = {step} }}"));
            let refusal = range(&step.to_string()).unwrap_err().to_string();
            let (_, rest) = refusal.split_once("such as ").unwrap();
            let (steps, _) = rest.split_once(", or with").unwrap();
            for (found, expected) in steps.split(" or ").zip(offered) {
                assert_eq!(found.parse::<f64>(), expected.parse(), "{refusal}");
                assert_eq!(range(found).unwrap().temperatures().last(), Some(&to));
            }
        }
    }

    #[test]
    fn lists_that_look_like_decimal_commas_get_a_hint_and_no_others_do() {
        let hinted = |list: &[f64]| decimal_comma_hint(list).is_some();
        assert!(
            [&[2.0, 27.0][..], &[2.0, 1.0, 2.0, 2.0], &[2.0, 269185.0]].map(hinted) == [true; 3]
        );
        let sensible =
            [&[1.0, 2.0][..], &[2.0, 2.7], &[2.0], &[1.0, 5.0, 20.0], &[10.0, 20.0], &[2.5, 27.0]];
        assert!(sensible.map(hinted) == [false; 6]);
        let refusal = parse("[2,1, 2,2]").unwrap_err().to_string();
        assert!(refusal.contains("has 2 twice") && refusal.contains("as in 2.27"), "{refusal}");
        assert_eq!(parse("[2, 27]").unwrap().temperatures(), [2.0, 27.0], "legal all the same");
    }

    #[test]
    fn a_range_of_depths_has_both_ends() {
        let text = SMALL.replace("[1, 3]", "{ from = 1, to = 3 }") + "temperatures = [2.0]";
        assert_eq!(Config::parse(&text, Path::new("t.toml")).unwrap().depths(), [1, 2, 3]);
    }

    #[test]
    fn whole_floats_are_integers_wherever_they_stand() {
        let text = "[train]\nsteps = 1e3 # not 1e4\nbatch = +2_048.0\nlearning_rate = 1e-3\n\
                    [run]\nslice_minutes = 2.0\n[flow]\npreset = 'best'\n";
        let text =
            SMALL.replace("[1, 3]", "[1.0, 3e0]") + "temperatures = [2.0, 2.5, 3e0]\n" + text;
        let config = Config::parse(&text, Path::new("t.toml")).unwrap();
        assert_eq!((config.train.steps, config.train.batch), (1000, 2048));
        assert_eq!((config.train.learning_rate, config.run.slice_minutes), (1e-3, 2.0));
        assert_eq!((config.depths(), config.temperatures()), (&[1, 3][..], &[2.0, 2.5, 3.0][..]));
        assert_eq!(config.flow.couplings, 7, "the preset's");
    }

    #[test]
    fn a_misspelt_name_gets_the_most_similar_one() {
        let listed = "expected one of `steps`, `batch`, `learning_rate`, `warmup_steps`";
        for (written, meant) in [
            ("stpes", Some("steps")),
            ("batch_size", Some("batch")),
            ("learningrate", Some("learning_rate")),
            ("warmup", Some("warmup_steps")),
            ("optimizer", None),
        ] {
            let message = format!("unknown field `{written}`, {listed}");
            let expected = match meant {
                Some(meant) => format!("unknown field `{written}`, did you mean `{meant}`?"),
                None => message.clone(),
            };
            assert_eq!(with_suggestion(message), expected);
        }
        let others = [
            "unknown variant `lower-temperature`, expected one of `none`, `higher-temperature`",
            "invalid type: string \"`steps`\", expected i64",
        ];
        for other in others {
            assert_eq!(with_suggestion(other.into()), other);
        }
    }

    #[test]
    fn the_resolved_text_reads_back_as_the_same_configuration() {
        let config = parse("[2.0, 2.269185314213022]").unwrap();
        assert_eq!(Config::parse(&config.to_toml(), Path::new("again.toml")).unwrap(), config);
    }

    #[test]
    fn a_difference_names_the_key_and_ignores_the_machine() {
        let config = parse("[2.0]").unwrap();
        let mut other = config.clone();
        other.run.threads = 2;
        other.run.device = DeviceChoice::Cpu;
        assert_eq!(config.difference(&other), None);
        other.train.batch = 7;
        assert_eq!(config.difference(&other).unwrap(), "train.batch = 512, there 7");
    }

    #[test]
    fn tasks_do_not_depend_on_others_unless_they_start_from_each_other() {
        let config = parse("[2.0, 2.1]").unwrap();
        let changed = |change: &dyn Fn(&mut Config), start_from| {
            let mut one = config.clone();
            one.train.start_from = start_from;
            let mut other = one.clone();
            change(&mut other);
            let difference = one.difference_of_tasks(&other);
            assert_eq!(difference.is_none(), one.sha256_of_tasks() == other.sha256_of_tasks());
            difference
        };
        for start_from in [StartFrom::None, StartFrom::HigherTemperature] {
            let machine = |config: &mut Config| {
                config.run.threads += 1;
                config.sweep.name = "another".into();
            };
            assert_eq!(changed(&machine, start_from), None);
            let batch = |config: &mut Config| config.train.batch = 7;
            assert_eq!(changed(&batch, start_from).unwrap(), "train.batch = 512, there 7");
        }
        let more = |config: &mut Config| config.sweep.seeds.push(9);
        assert_eq!(changed(&more, StartFrom::None), None);
        let told = changed(&more, StartFrom::HigherTemperature).unwrap();
        assert_eq!(told, "sweep.seeds = [1], there [1, 9]");
    }
}
