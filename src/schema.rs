//! Names, units and axes of everything in the HDF5 files: the only place that names a dataset.

/// One dataset.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    pub name: &'static str,
    /// Unit in the notation of UDUNITS; "1" for numbers.
    pub units: &'static str,
    pub description: &'static str,
    /// Names of the axes, slowest first; none for a single number.
    pub axes: &'static [&'static str],
}

/// `format` attribute of task files and of collected files.
pub const TASK_FORMAT: &str = "neuralrg-task";
pub const SWEEP_FORMAT: &str = "neuralrg-sweep";
/// Raised when a reader of the old files could not read the new ones. Task files of version 2 have a checksum
/// in their user block.
pub const FORMAT_VERSION: i64 = 2;
pub const SWEEP_FORMAT_VERSION: i64 = 1;
/// Attribute of a task file that is written last.
pub const COMPLETE: &str = "complete";
/// Attribute of a task file: the name of the task whose trained parameters the training started from, or
/// [`AT_RANDOM`].
pub const STARTED_FROM: &str = "started_from";
pub const AT_RANDOM: &str = "random";

/// Groups of a task file.
pub const SCALARS: &str = "scalars";
pub const REFERENCES: &str = "references";
pub const TIMING: &str = "timing";
pub const MODEL: &str = "model";
pub const TRAIN: &str = "train";
pub const EVALUATE: &str = "evaluate";
pub const HMC: &str = "hmc";
pub const OBSERVABLES: &str = "observables";

const fn number(name: &'static str, units: &'static str, description: &'static str) -> Item {
    Item { name, units, description, axes: &[] }
}

const fn array(
    name: &'static str,
    units: &'static str,
    axes: &'static [&'static str],
    description: &'static str,
) -> Item {
    Item { name, units, description, axes }
}

/// The resolved configuration as TOML text.
pub const CONFIGURATION: Item = number("configuration", "1", "resolved configuration as TOML");

/// Results of a task, one number each; the collected file has them over (temperature, depth, seed).
pub const TASK_SCALARS: &[Item] = &[
    number("free_energy", "nat", "variational free energy E_q[ln q - ln pi], a bound above -ln Z"),
    number("free_energy_error", "nat", "standard error of free_energy"),
    number("gap", "nat", "free_energy + ln Z, the KL divergence of q from the target"),
    number("gap_error", "nat", "standard error of gap"),
    number("gap_per_site", "nat", "gap per lattice site"),
    number("gap_per_site_error", "nat", "standard error of gap_per_site"),
    number("relative_error", "1", "gap / |ln Z| of the field (the paper's convention)"),
    number("relative_error_error", "1", "standard error of relative_error"),
    number("importance_free_energy", "nat", "importance-weighted estimate of -ln Z"),
    number("importance_free_energy_error", "nat", "jackknife error of importance_free_energy"),
    number("effective_sample_size", "1", "(sum w)^2 / (n sum w^2), a fraction of the samples"),
    number("largest_weight_share", "1", "largest importance weight / sum of all"),
    number(
        "forward_free_energy",
        "nat",
        "E_pi[ln q - ln pi] over the HMC chains, a bound below -ln Z where they have equilibrated",
    ),
    number("forward_free_energy_error", "nat", "standard error of forward_free_energy"),
    number(
        "forward_effective_sample_size",
        "1",
        "1 / (E_pi[w] E_pi[1/w]) over the HMC chains: that of effective_sample_size for samples of pi",
    ),
    number(
        "forward_weight_mean",
        "1",
        "E_pi[Z / w] with Z from the importance weights: 1, less where samples of q miss weight",
    ),
    number("energy", "J", "energy per site, by latent HMC"),
    number("energy_error", "J", "standard error of energy, autocorrelation included"),
    number("energy_tau_int", "trajectory", "integrated autocorrelation time of energy"),
    number("energy_tau_int_error", "trajectory", "standard error of energy_tau_int"),
    number("magnetization_squared", "1", "<m^2>, the uniform structure factor, by latent HMC"),
    number("magnetization_squared_error", "1", "standard error of magnetization_squared"),
    number("magnetization_squared_tau_int", "trajectory", "integrated autocorrelation time of m^2"),
    number("magnetization_squared_tau_int_error", "trajectory", "standard error of that time"),
    number("magnetization_fourth", "1", "<m^4>, by latent HMC"),
    number("magnetization_fourth_error", "1", "standard error of magnetization_fourth"),
    number("magnetization_fourth_tau_int", "trajectory", "integrated autocorrelation time of m^4"),
    number("magnetization_fourth_tau_int_error", "trajectory", "standard error of that time"),
    number("magnetization_absolute", "1", "<|m|> of sampled spins, by latent HMC"),
    number("magnetization_absolute_error", "1", "standard error of magnetization_absolute"),
    number(
        "magnetization_absolute_tau_int",
        "trajectory",
        "integrated autocorrelation time of |m|",
    ),
    number("magnetization_absolute_tau_int_error", "trajectory", "standard error of that time"),
    number("acceptance", "1", "mean acceptance of the measured trajectories"),
    number("divergences", "1", "measured trajectories with a huge or non-finite energy error"),
    number("warmup_divergences", "1", "the same during the warm-up"),
    number("step_size", "1", "leapfrog step size, frozen after the warm-up"),
    number("skipped_steps", "1", "training steps skipped for a non-finite loss or gradient"),
];

/// Exact and analytic values, functions of L and T only; the collected file has them over temperature.
pub const REFERENCE_SCALARS: &[Item] = &[
    number("free_energy_exact", "nat", "-ln Z of the field, exact"),
    number("ln_z_ising_exact", "nat", "ln Z of the Ising spins (Kaufman 1949)"),
    number("energy_exact", "J", "energy per site, exact"),
    number("specific_heat_exact", "k_B", "specific heat per site, exact"),
    number(
        "free_energy_gaussian",
        "nat",
        "least free energy of a mixed pair of Gaussians, no network",
    ),
    number("relative_error_gaussian", "1", "its gap / |ln Z| of the field"),
];

/// What differs between two runs of the same task.
pub const TIMING_SCALARS: &[Item] = &[
    number("train_seconds", "s", "wall time of training"),
    number("evaluate_seconds", "s", "wall time of evaluation"),
    number("hmc_seconds", "s", "wall time of HMC"),
    number("wall_seconds", "s", "wall time of the task"),
    number("peak_memory_bytes", "byte", "peak resident memory of the process during the task"),
    number("finished_unix_seconds", "s", "end of the task, seconds since 1970"),
];

pub const PARAMETERS: Item = array(
    "parameters",
    "1",
    &["parameter"],
    "flat parameter vector, coupling by coupling from z to x",
);

/// Rows of the training history, in the order of [`crate::train::RECORDED`], then the learning rate.
pub const TRAIN_HISTORY: [Item; 5] = [
    array("loss", "nat", &["step"], "variational free energy of the batch"),
    array("loss_std", "nat", &["step"], "standard deviation of ln q - ln pi in the batch"),
    array("regularizer", "nat", &["step"], "KL(q(x) | q(-x)) of the batch, 0 where not used"),
    array("gradient_norm", "1", &["step"], "norm of the gradient before clipping"),
    array("learning_rate", "1", &["step"], "learning rate"),
];

pub const LN_Q: Item = array("ln_q", "nat", &["draw"], "ln q(x) of samples of the flow");
pub const LN_PI: Item = array("ln_pi", "nat", &["draw"], "ln pi(x) of the same samples");
pub const SAMPLES: Item =
    array("samples", "1", &["sample", "row", "column"], "field configurations drawn from the flow");

/// Chains of the scalar observables, in the order of [`crate::observe::SCALARS`], then the log-weights and
/// the acceptance.
pub const CHAINS: [Item; 6] = [
    array("energy", "J", &["chain", "trajectory"], "energy per site"),
    array("magnetization_squared", "1", &["chain", "trajectory"], "m^2"),
    array("magnetization_fourth", "1", &["chain", "trajectory"], "m^4"),
    array("magnetization_absolute", "1", &["chain", "trajectory"], "|m| of sampled spins"),
    array("ln_weight", "nat", &["chain", "trajectory"], "ln pi(x) - ln q(x)"),
    array("acceptance", "1", &["chain", "trajectory"], "acceptance probability"),
];

/// Lattice observables of a task file; the collected file has them over the task's axes too.
pub const LATTICE_OBSERVABLES: [Item; 4] = [
    array("structure_factor", "1", &["k_x", "k_y"], "S(k), S(0) = N <m^2>"),
    array("structure_factor_error", "1", &["k_x", "k_y"], "standard error between chains"),
    array("correlation", "1", &["r_x", "r_y"], "G(r) = <s_0 s_r>"),
    array("correlation_error", "1", &["r_x", "r_y"], "standard error between chains"),
];

/// Completeness mask of the collected file.
pub const COMPLETENESS: Item = array(
    "complete",
    "1",
    &["temperature", "depth", "seed"],
    "1 where the task is finished; all else is NaN where it is not",
);

/// Coordinates of the collected file.
pub const TEMPERATURE: Item = number("temperature", "J/k_B", "temperature");
pub const DEPTH: Item = number("depth", "1", "levels of the hierarchy");
pub const SEED: Item = number("seed", "1", "seed of the random numbers");
pub const SAMPLE: Item = number("sample", "1", "index of the sample");
pub const LATTICE_ROWS: [Item; 2] = [
    number("row", "lattice sites", "row of the lattice"),
    number("column", "lattice sites", "column of the lattice"),
];
pub const WAVE_NUMBERS: [Item; 2] = [
    number("k_x", "rad / lattice site", "wave number along rows, 2 pi n / L"),
    number("k_y", "rad / lattice site", "wave number along columns, 2 pi n / L"),
];
pub const DISTANCES: [Item; 2] = [
    number("r_x", "lattice sites", "distance along rows"),
    number("r_y", "lattice sites", "distance along columns"),
];
