//! What studies of a finished task leave.

use super::{Item, array};

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
