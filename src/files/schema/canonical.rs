//! Files of coordinates, and of canonical transformations.

use super::{Item, array, number};

/// `format` attribute of files of `neuralrg canonical`.
pub const CANONICAL_FORMAT: &str = "neuralrg-canonical";
pub const CANONICAL_FORMAT_VERSION: i64 = 1;

/// Samples of coordinates, in files of their own.
pub const COORDINATES: Item =
    array("coordinates", "1", &["sample", "coordinate"], "coordinates q of each sample");

/// And what their states are called.
pub const ANGLES: Item = array(
    "angles",
    "1",
    &["sample", "angle"],
    "angles, or other known coordinates, of each sample",
);

/// Attribute of [`ANGLES`], and of files of canonical transformations: names along the axis `angle`.
pub const ANGLE_NAMES: &str = "angle_names";

/// Group of a file of canonical transformations.
pub const MODES: &str = "modes";

/// Numbers of a canonical transformation; those of the free energy where energies are known, the others where it learns from
/// samples. The phase space is that of masses and temperature 1.
pub const CANONICAL_SCALARS: &[Item] = &[
    number(
        "phase_free_energy",
        "nat",
        "variational free energy of the phase space, a bound above its -ln Z",
    ),
    number("phase_free_energy_error", "nat", "standard error of phase_free_energy"),
    number("phase_gap", "nat", "phase_free_energy + ln Z of the phase space"),
    number("phase_gap_error", "nat", "standard error of phase_gap"),
    number(
        "coordinate_free_energy",
        "nat",
        "variational free energy of the coordinates, a bound above their -ln Z",
    ),
    number("coordinate_free_energy_error", "nat", "standard error of coordinate_free_energy"),
    number(
        "importance_free_energy",
        "nat",
        "importance-weighted estimate of -ln Z of the coordinates",
    ),
    number("importance_free_energy_error", "nat", "jackknife error"),
    number(
        "effective_sample_size",
        "1",
        "(sum w)^2 / (n sum w^2) of these weights, half of whose samples are spread wider than the flow's own",
    ),
    number("largest_weight_share", "1", "largest importance weight / sum of all"),
    number("exact_free_energy", "nat", "-ln Z of the coordinates"),
    number("exact_phase_free_energy", "nat", "-ln Z of the phase space"),
    number("held_out_samples", "1", "samples that were not trained on"),
    number(
        "phase_negative_ln_likelihood",
        "nat",
        "mean of -ln rho(Q, P) over the held-out samples, each with momenta of its own",
    ),
    number("phase_negative_ln_likelihood_error", "nat", "standard error, autocorrelation included"),
    number(
        "training_phase_negative_ln_likelihood",
        "nat",
        "the same over as many samples that were trained on: less where the flow overfits",
    ),
    number("training_phase_negative_ln_likelihood_error", "nat", "standard error"),
    number("negative_ln_likelihood", "nat", "mean of -ln q(q) over the held-out samples"),
    number("negative_ln_likelihood_error", "nat", "standard error, autocorrelation included"),
    number("training_negative_ln_likelihood", "nat", "the same over samples that were trained on"),
    number("training_negative_ln_likelihood_error", "nat", "standard error"),
];

/// Of the trainings of all seeds.
pub const OF_SEEDS: [Item; 4] = [
    array("seed", "1", &["seed"], "seeds, one training each"),
    array(
        "seed_loss",
        "nat",
        &["seed"],
        "phase_free_energy or phase_negative_ln_likelihood of each training; the least one is described",
    ),
    array("seed_loss_error", "nat", &["seed"], "standard error of seed_loss"),
    array(
        "seed_frequency",
        "1",
        &["seed", "mode"],
        "frequencies of each training, ascending, in units of sqrt(k_B T / mass) per length",
    ),
];

/// `format` attribute of files of `neuralrg modes`.
pub const MODES_FORMAT: &str = "neuralrg-modes";
pub const MODES_FORMAT_VERSION: i64 = 1;

/// What the modes are in given samples, the slowest first.
pub const MODE_VALUES: Item = array(
    "modes",
    "1",
    &["sample", "mode"],
    "z = omega (Q - b) of each sample: standard normal numbers where the flow is exact",
);

/// Of all modes of the training that is described, ascending; errors where there are several seeds.
pub const FREQUENCIES: [Item; 2] = [
    array(
        "frequency",
        "1",
        &["mode"],
        "omega, ascending, in units of sqrt(k_B T / mass) per length",
    ),
    array(
        "frequency_error",
        "1",
        &["mode"],
        "standard deviation between seeds: of the training, not of the samples, which are the same",
    ),
];

/// Which latent each mode is.
pub const MODE_LATENT: Item =
    array("latent", "1", &["mode"], "number of the mode among the latents of the flow");

/// Of the slowest modes.
pub const SLOW_MODES: [Item; 3] = [
    array("response", "1", &["slow_mode", "coordinate"], "E[dQ_k/dq_i] over samples"),
    array("path_position", "1", &["point"], "z = omega (Q - b) along a path"),
    array(
        "path",
        "1",
        &["slow_mode", "point", "coordinate"],
        "coordinates where one mode has that z and all others are at rest",
    ),
];

/// What they know of the angles, where there are any.
pub const MODE_INFORMATION: [Item; 2] = [
    array(
        "information",
        "nat",
        &["slow_mode", "angle"],
        "mutual information of a mode and an angle (KSG, 5 neighbours)",
    ),
    array("information_error", "nat", &["slow_mode", "angle"], "standard error from ten parts"),
];

/// Which coordinates each coupling freezes.
pub const FROZEN: Item = array(
    "frozen",
    "1",
    &["coupling", "coordinate"],
    "1 where a coupling freezes a coordinate, 0 where it moves it, from Q to q",
);

/// Samples of a canonical transformation, and others of which some modes are kept.
pub const CANONICAL_SAMPLES: Item =
    array("samples", "1", &["sample", "coordinate"], "coordinates drawn from the flow");

pub const REDRAWN: [Item; 3] = [
    array("kept_modes", "1", &["kept_modes"], "so many of the slowest modes are kept"),
    array("original", "1", &["redrawn_sample", "coordinate"], "held-out samples"),
    array(
        "redrawn",
        "1",
        &["kept_modes", "redrawn_sample", "coordinate"],
        "the same with all other modes drawn anew",
    ),
];
