//! Arrays of task files, of the collected file and of files of fields, and coordinates.

use std::sync::LazyLock;

use super::{Item, array, number};
use crate::targets::observe::{Naming, Observable};

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

/// States of latent HMC that a task file keeps.
pub const STATES: [Item; 2] = [
    array(
        "field",
        "1",
        &["chain", "draw", "row", "column"],
        "samples x of the target: fields that were measured, evenly over the trajectories",
    ),
    array(
        "latent",
        "1",
        &["chain", "draw", "row", "column"],
        "latents z of the same states; with the mixture g(z) is x or -x",
    ),
];

const PER_TRAJECTORY: &[&str] = &["chain", "trajectory"];

/// What is recorded of each trajectory besides the observables, in the order of
/// [`Recorded`](crate::sampling::sampler::Recorded).
pub const RECORDED: [Item; 7] = [
    array("ln_weight", "nat", PER_TRAJECTORY, "ln pi(x) - ln q(x); NaN without a flow"),
    array("acceptance", "1", PER_TRAJECTORY, "acceptance probability"),
    array("energy_error", "nat", PER_TRAJECTORY, "change of H; infinite if not finite"),
    array("hamiltonian", "nat", PER_TRAJECTORY, "H after the trajectory; U without momenta"),
    array("accepted", "1", PER_TRAJECTORY, "1 where the proposal was accepted"),
    array(
        "spin_energy",
        "J",
        PER_TRAJECTORY,
        "energy per site of sampled spins: of the Ising model itself, for reweighting in temperature",
    ),
    array("spin_magnetization", "1", PER_TRAJECTORY, "m of the same spins, with its sign"),
];

/// Chains of a sampler: the observables, and what is recorded besides.
pub static CHAINS: LazyLock<Vec<Item>> = LazyLock::new(|| {
    let observables = Observable::TABLE.map(|(_, Naming { name, units, of_state, .. })| {
        array(name, units, PER_TRAJECTORY, of_state)
    });
    [&observables[..], &RECORDED].concat()
});

/// Fields to learn from, in files of their own; those of pictures have no temperatures.
pub const FIELDS: Item =
    array("fields", "1", &["temperature", "sample", "row", "column"], "samples of the field");

/// Where the fields come from pixels.
pub const LN_NOISE: Item = array(
    "ln_noise",
    "nat",
    &["sample"],
    "ln of the density r(x|n) that the field was drawn from, given the levels n of its pixels",
);

/// Which fields mean which picture.
pub const EDGES: Item = array(
    "edges",
    "1",
    &["edge"],
    "values of the field between which a pixel has each of its levels, from 0 on; ascending",
);

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
