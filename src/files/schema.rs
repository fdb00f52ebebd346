//! Names, units, axes and meaning of every dataset in the HDF5 files; the tables of docs/files.md are made of them. No
//! number is written under another name.

use std::sync::LazyLock;

use crate::targets::observe::{Derived, Naming, Observable};

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
pub const SAMPLES_FORMAT: &str = "neuralrg-samples";
pub const SWEEP_FORMAT_VERSION: i64 = 3;
pub const SAMPLES_FORMAT_VERSION: i64 = 1;
/// `format` attribute of the files that studies of a finished task leave.
pub const STUDY_FORMAT: &str = "neuralrg-study";
pub const STUDY_FORMAT_VERSION: i64 = 1;
/// Names of all studies: their folders, and their groups in the collected file.
pub const STUDIES: [&str; 3] = ["responses", "mutual_information", "coarse"];
/// Attributes of a study's file: the checksum of the task file that it is of, and what the study was asked for.
pub const STUDIED_SHA256: &str = "task_sha256";
pub const SETTINGS: &str = "settings";
/// Attribute of a task file that is written last.
pub const COMPLETE: &str = "complete";
/// Attribute of a task file: the name of the task whose trained parameters the training started from, or
/// [`AT_RANDOM`].
pub const STARTED_FROM: &str = "started_from";
pub const AT_RANDOM: &str = "random";

/// `format` attribute of files of fields, and of files of `neuralrg learn`.
pub const FIELDS_FORMAT: &str = "neuralrg-fields";
pub const FIELDS_FORMAT_VERSION: i64 = 1;
pub const LEARNED_FORMAT: &str = "neuralrg-learned";
pub const LEARNED_FORMAT_VERSION: i64 = 1;

/// Groups of a task file.
pub const SCALARS: &str = "scalars";
pub const REFERENCES: &str = "references";
pub const TIMING: &str = "timing";
pub const MODEL: &str = "model";
pub const TRAIN: &str = "train";
pub const EVALUATE: &str = "evaluate";
/// With a group for each sampler, and one for the samples that are reweighted.
pub const CHAINS_GROUP: &str = "chains";
pub const REWEIGHTING: &str = "reweighting";
/// Group of a sampler's group: numbers by the names of [`sampler_scalars`].
pub const ESTIMATES: &str = "estimates";
/// Attribute of a sampler's group and of the file: `ok`, or what is wrong, separated by "; ".
pub const VERDICT: &str = "verdict";
pub const VERDICT_OK: &str = "ok";
/// Attribute of a sampler's group: what is thrown away of each chain.
pub const WARMUP_RULE: &str = "warmup_rule";
/// Attribute of the collected file: whether deviations from exact values are plausible.
pub const PULLS: &str = "pulls";
/// Observables measured during the training, where they are.
pub const COURSE_GROUP: &str = "course";
pub const OBSERVABLES: &str = "observables";
/// What was made of the fields that were held out, where flows learn from samples.
pub const HELD_OUT: &str = "held_out";

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

/// Estimates that are compared with exact values; their deviations in standard errors are called so with `_pull` behind.
pub const COMPARED: [&str; 4] =
    ["energy", "specific_heat", IMPORTANCE_FREE_ENERGY, "bridge_free_energy"];
pub const IMPORTANCE_FREE_ENERGY: &str = "importance_free_energy";

/// Results of a task besides those of [`sampler_scalars`], one number each; the collected file has all of them over
/// (temperature, depth, seed).
pub const TASK_SCALARS: &[Item] = &[
    number("free_energy", "nat", "variational free energy E_q[ln q - ln pi], a bound above -ln Z"),
    number("free_energy_error", "nat", "standard error of free_energy"),
    number("gap", "nat", "free_energy + ln Z, the KL divergence of q from the target"),
    number("gap_error", "nat", "standard error of gap"),
    number("gap_per_site", "nat", "gap per lattice site"),
    number("gap_per_site_error", "nat", "standard error of gap_per_site"),
    number("relative_error", "1", "gap / |ln Z| of the field (the paper's convention)"),
    number("relative_error_error", "1", "standard error of relative_error"),
    number(IMPORTANCE_FREE_ENERGY, "nat", "importance-weighted estimate of -ln Z"),
    number(
        "importance_free_energy_error",
        "nat",
        "jackknife error; where chains find weight that the flow misses, at least the distance to bridge_free_energy",
    ),
    number("effective_sample_size", "1", "(sum w)^2 / (n sum w^2), a fraction of the samples"),
    number("weighted_samples", "1", "samples that the importance weights are of"),
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
    number(
        "bridge_free_energy",
        "nat",
        "estimate of -ln Z of the field from samples of the flow and HMC chains together, right where the flow misses weight",
    ),
    number("bridge_free_energy_error", "nat", "standard error, autocorrelation included"),
    number(
        "ising_free_energy",
        "nat",
        "estimate of -ln Z of the Ising spins: bridge_free_energy less the Gaussian integral",
    ),
    number("ising_free_energy_error", "nat", "standard error, that of bridge_free_energy"),
    number("energy_pull", "1", "deviation of energy from the exact value in standard errors"),
    number("specific_heat_pull", "1", "deviation of specific_heat in standard errors"),
    number(
        "importance_free_energy_pull",
        "1",
        "deviation of importance_free_energy in standard errors",
    ),
    number("bridge_free_energy_pull", "1", "deviation of bridge_free_energy in standard errors"),
    number("problems", "1", "how many problems the verdict lists; 0: ok"),
    number("skipped_steps", "1", "training steps skipped for a non-finite loss or gradient"),
];

/// What is known of the mutual information of one kind of variables.
macro_rules! mutual_information {
    ($kind:literal, $what:literal) => {
        [
            array(
                concat!($kind, "_information"),
                "nat",
                &["variable", "other"],
                concat!("mutual information of two ", $what),
            ),
            array(
                concat!($kind, "_information_error"),
                "nat",
                &["variable", "other"],
                "standard error from parts of the samples",
            ),
            array(
                concat!($kind, "_information_mean"),
                "nat",
                &["distance"],
                concat!("mean over all pairs of ", $what, " at that distance"),
            ),
            array(
                concat!($kind, "_information_mean_error"),
                "nat",
                &["distance"],
                "standard error from parts of the samples",
            ),
            array(
                concat!($kind, "_information_independent"),
                "nat",
                &["variable"],
                "estimates for a variable and one of other chains, which are independent: their spread is the noise",
            ),
        ]
    };
}

/// An effective coupling with its error.
macro_rules! effective {
    ($name:literal, $what:literal) => {
        [
            array($name, "1", &["level"], $what),
            array(concat!($name, "_error"), "1", &["level"], "jackknife error"),
        ]
    };
}

/// A sampler's own record.
pub const SAMPLER_SCALARS: &[Item] = &[
    number("acceptance", "1", "mean acceptance of the measured trajectories"),
    number("divergences", "1", "measured trajectories with a huge or non-finite energy error"),
    number("warmup_divergences", "1", "the same during the warm-up"),
    number("step_size", "1", "leapfrog step size, frozen after the warm-up"),
    number("trajectory_length", "1", "mean trajectory length, frozen after the warm-up"),
    number(
        "leapfrog_steps",
        "1",
        "mean gradients of a measured trajectory: its leapfrog steps, and one for a global move",
    ),
    number("e_bfmi", "1", "energy's fraction of missing information over all chains"),
    number("longest_rejection", "trajectory", "most proposals that one chain rejected in a row"),
    number("ess_least", "1", "least bulk ESS of all observables"),
    number("ess_per_gradient", "1", "ess_least / gradients of all chains; 0 where none are taken"),
];

/// What files have of an observable behind its mean: what is added to its name, units, where these are not its own, and
/// meaning with {} for its name.
const BEHIND_MEANS: [(&str, Option<&str>, &str); 6] = [
    ("_error", None, "standard error, autocorrelation included"),
    ("_tau_int", Some("trajectory"), "integrated autocorrelation time of {}"),
    ("_tau_int_error", Some("trajectory"), "standard error of that time"),
    ("_r_hat", Some("1"), "rank-normalized split R-hat of {}, at most 1000"),
    ("_ess_bulk", Some("1"), "effective samples in the bulk, of all chains"),
    ("_ess_tail", Some("1"), "effective samples in the tails, of all chains"),
];

/// Observables with errors and diagnostics, and what follows from their means with errors.
static ESTIMATES_OF_OBSERVABLES: LazyLock<Vec<Item>> = LazyLock::new(|| {
    let mut items = Vec::new();
    for (_, Naming { name, units, of_mean, .. }) in Observable::TABLE {
        items.push(number(name, units, of_mean));
        items.extend(BEHIND_MEANS.map(|(ending, other_units, meaning)| {
            let meaning = meaning.replace("{}", name).leak();
            number(format!("{name}{ending}").leak(), other_units.unwrap_or(units), meaning)
        }));
    }
    for (_, [name, units, meaning]) in Derived::TABLE {
        items.push(number(name, units, meaning));
        items.push(number(format!("{name}_error").leak(), units, "jackknife error"));
    }
    items
});

/// Estimates and diagnostics of a sampler.
pub fn sampler_scalars() -> impl Iterator<Item = &'static Item> {
    ESTIMATES_OF_OBSERVABLES.iter().chain(SAMPLER_SCALARS)
}

/// All scalars of a task: its own and those of latent HMC.
pub fn task_scalars() -> impl Iterator<Item = &'static Item> {
    TASK_SCALARS.iter().chain(sampler_scalars())
}

/// Exact and analytic values, functions of L and T only; the collected file has them over temperature.
pub const REFERENCE_SCALARS: &[Item] = &[
    number("free_energy_exact", "nat", "-ln Z of the field, exact"),
    number("ising_free_energy_exact", "nat", "-ln Z of the Ising spins, exact (Kaufman 1949)"),
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
    number("hmc_seconds", "s", "wall time of latent HMC"),
    number("latent_warmup_seconds", "s", "wall time of its warm-up"),
    number("latent_seconds", "s", "wall time of its measured trajectories"),
    number(
        "physical_warmup_seconds",
        "s",
        "wall time of the warm-up of physical HMC; NaN if not run",
    ),
    number("physical_seconds", "s", "wall time of its measured trajectories"),
    number("fourier_warmup_seconds", "s", "the same with Fourier acceleration"),
    number("fourier_seconds", "s", "wall time of its measured trajectories"),
    number("independence_warmup_seconds", "s", "the same of independence Metropolis"),
    number("independence_seconds", "s", "wall time of its measured trajectories"),
    number("ess_per_second", "1/s", "ess_least of latent HMC / latent_seconds"),
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

pub const HALVES: Item = array(
    "halves",
    "1",
    &["coupling", "frozen"],
    "the two sites of its 2 x 2 block that each coupling freezes, numbered row by row; not for checkerboards",
);

/// Rows of the training history, in the order of [`crate::train::RECORDED`], then the learning rate.
pub const TRAIN_HISTORY: [Item; 5] = [
    array(
        "loss",
        "nat",
        &["step"],
        "variational free energy of the batch; mean of -ln q over it where the flow learns from samples",
    ),
    array("loss_std", "nat", &["step"], "standard deviation of what loss is the mean of"),
    array("regularizer", "nat", &["step"], "KL(q(x) | q(-x)) of the batch, 0 where not used"),
    array("gradient_norm", "1", &["step"], "norm of the gradient before clipping"),
    array("learning_rate", "1", &["step"], "learning rate"),
];

pub const LN_Q: Item = array("ln_q", "nat", &["draw"], "ln q(x) of samples of the flow");
pub const LN_PI: Item = array("ln_pi", "nat", &["draw"], "ln pi(x) of the same samples");
pub const SAMPLES: Item =
    array("samples", "1", &["sample", "row", "column"], "field configurations drawn from the flow");

/// What `neuralrg sample` draws, beside [`LN_Q`] and [`LN_PI`].
pub const FIELD: Item = array("field", "1", &["draw", "row", "column"], "field x = sign g(z)");
pub const LATENT: Item = array("latent", "1", &["draw", "row", "column"], "latent z of the field");
pub const SIGN: Item =
    array("sign", "1", &["draw"], "sign of the Z2 mixture, 1 where there is no mixture");

const PER_TRAJECTORY: &[&str] = &["chain", "trajectory"];

/// What is recorded of each trajectory besides the observables, in the order of
/// [`Recorded`](crate::sampling::sampler::Recorded).
pub const RECORDED: [Item; 5] = [
    array("ln_weight", "nat", PER_TRAJECTORY, "ln pi(x) - ln q(x); NaN without a flow"),
    array("acceptance", "1", PER_TRAJECTORY, "acceptance probability"),
    array("energy_error", "nat", PER_TRAJECTORY, "change of H; infinite if not finite"),
    array("hamiltonian", "nat", PER_TRAJECTORY, "H after the trajectory; U without momenta"),
    array("accepted", "1", PER_TRAJECTORY, "1 where the proposal was accepted"),
];

/// Chains of a sampler: the observables, and what is recorded besides.
pub static CHAINS: LazyLock<Vec<Item>> = LazyLock::new(|| {
    let observables = Observable::TABLE.map(|(_, Naming { name, units, of_state, .. })| {
        array(name, units, PER_TRAJECTORY, of_state)
    });
    [&observables[..], &RECORDED].concat()
});

/// What a flow that learns from samples makes of the held-out ones; some only for the target's, some only for pictures.
pub const HELD_OUT_SCALARS: &[Item] = &[
    number("samples", "1", "held-out samples"),
    number("negative_ln_likelihood", "nat", "mean of -ln q over the held-out samples"),
    number("negative_ln_likelihood_error", "nat", "standard error, autocorrelation included"),
    number(
        "training_negative_ln_likelihood",
        "nat",
        "the same over as many samples that were trained on: less where the flow overfits",
    ),
    number("training_negative_ln_likelihood_error", "nat", "standard error"),
    number("forward_kl", "nat", "KL(pi | q) = E_pi[ln pi - ln q] - ln Z over the held-out samples"),
    number("forward_kl_error", "nat", "standard error, autocorrelation included"),
    number(
        "bits_per_dimension",
        "bit",
        "negative_ln_likelihood of pixel values in levels per pixel of the picture, padding not counted",
    ),
    number("bits_per_dimension_error", "bit", "standard error"),
];

/// Fields to learn from, in files of their own; those of pictures have no temperatures.
pub const FIELDS: Item =
    array("fields", "1", &["temperature", "sample", "row", "column"], "samples of the field");
/// Where the fields come from pixels.
pub const LOG_JACOBIAN: Item = array(
    "log_jacobian",
    "nat",
    &["sample"],
    "ln|det| of the field's derivative by pixel values in levels",
);
/// Attributes of a file of pictures, and of what was learned from it: rows and columns of a picture, in the middle of the
/// field; levels of a pixel, whose value p in [0, levels) became x = logit(α + (1 - 2α) p / levels).
pub const PICTURE_ROWS: &str = "rows";
pub const PICTURE_COLUMNS: &str = "columns";
pub const PIXEL_LEVELS: &str = "pixel_levels";
pub const ALPHA: &str = "alpha";

/// Pictures in a file of `neuralrg learn`.
pub const LEVELS: Item = array(
    "levels",
    "1",
    &["level", "sample", "row", "column"],
    "fields of the same latents with those of levels below this one set to zero; level 0 has all",
);

/// Observables during the training, rows in this order; `latent` is HMC with the flow at that step, `physical` its
/// control in the space of the fields, which starts cold and goes on from measurement to measurement.
pub const COURSE: [Item; 12] = [
    array("step", "1", &["measurement"], "training steps done"),
    array(
        "train_seconds",
        "s",
        &["measurement"],
        "wall time of the training so far, measurements not included",
    ),
    array("latent_seconds", "s", &["measurement"], "wall time of latent HMC so far"),
    array("physical_seconds", "s", &["measurement"], "wall time of physical HMC so far"),
    array("latent_energy", "J", &["measurement"], "energy per site by latent HMC"),
    array("latent_energy_error", "J", &["measurement"], "standard error between chains"),
    array("latent_magnetization_squared", "1", &["measurement"], "<m^2> by latent HMC"),
    array(
        "latent_magnetization_squared_error",
        "1",
        &["measurement"],
        "standard error between chains",
    ),
    array("physical_energy", "J", &["measurement"], "energy per site by physical HMC"),
    array("physical_energy_error", "J", &["measurement"], "standard error between chains"),
    array("physical_magnetization_squared", "1", &["measurement"], "<m^2> by physical HMC"),
    array(
        "physical_magnetization_squared_error",
        "1",
        &["measurement"],
        "standard error between chains",
    ),
];

/// Lattice observables of a task file; the collected file has them over the task's axes too.
pub const LATTICE_OBSERVABLES: [Item; 4] = [
    array("structure_factor", "1", &["k_x", "k_y"], "S(k), S(0) = N <m^2>"),
    array("structure_factor_error", "1", &["k_x", "k_y"], "standard error between chains"),
    array("correlation", "1", &["r_x", "r_y"], "G(r) = <s_0 s_r>"),
    array("correlation_error", "1", &["r_x", "r_y"], "standard error between chains"),
];

/// Which latents the responses are of.
pub const RESPONDING: [Item; 3] = [
    array(
        "latent_level",
        "1",
        &["latent"],
        "level at which the latent comes in, depth: coarse prior",
    ),
    array("latent_row", "lattice sites", &["latent"], "row of its site"),
    array("latent_column", "lattice sites", &["latent"], "column of its site"),
];
/// Responses, and their errors.
pub const RESPONSES: [Item; 2] = [
    array("response", "1", &["latent", "row", "column"], "E_x[dz_i/dx_j] over samples x of pi"),
    array("response_error", "1", &["latent", "row", "column"], "standard error between chains"),
];

/// Mutual information of all pairs of latents, then of all pairs of field variables, each with its error, mean over
/// pairs of equal distance with error, and estimates for independent variables.
pub const VARIABLE_LEVEL: Item = array(
    "latent_level",
    "1",
    &["variable"],
    "level at which the latent of a site comes in, sites row by row",
);
pub const DISTANCE: Item =
    array("distance", "lattice sites", &["distance"], "distance of two sites on the torus");
pub const MUTUAL_INFORMATION: [[Item; 5]; 2] = [
    mutual_information!("latent", "latent variables"),
    mutual_information!("field", "field variables"),
];

/// The renormalization group of a task, from the top level down.
pub const LEVEL: Item =
    array("level", "1", &["level"], "level, 2^level lattice sites to a kept one");
pub const COARSE_FIELDS: [Item; 2] = [
    array(
        "kept",
        "1",
        &["level", "sample", "row", "column"],
        "field kept at the level, each value on all sites that it stands for",
    ),
    array(
        "blurred",
        "1",
        &["level", "sample", "row", "column"],
        "the field with the latents of all lower levels set to 0",
    ),
];
/// In the order of [`crate::study::coarse::effective_couplings`].
pub const EFFECTIVE_COUPLINGS: [[Item; 2]; 5] = [
    effective!("mean_square", "<y^2> of the kept variables y"),
    effective!("mass", "r <y^2> of -ln q(y) = c + r sum y^2/2 - J sum_nn y y' + u sum y^4"),
    effective!("coupling", "J <y^2> to nearest neighbours; NaN for a single variable"),
    effective!("quartic", "u <y^2>^2"),
    effective!("explained", "R^2, share of the variance of -ln q(y) that these terms explain"),
];
/// From one sample to another.
pub const WALK: [Item; 4] = [
    array("walk_fraction", "1", &["step"], "how much of the great circle in latent space is done"),
    array("walk", "1", &["step", "row", "column"], "field of the latents there"),
    array("walk_energy", "nat", &["step"], "-ln pi(x) of these fields"),
    array(
        "straight_energy",
        "nat",
        &["step"],
        "-ln pi(x) on the straight line between both fields",
    ),
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
