//! Names, units, axes and meaning of every dataset in the HDF5 files; the tables of docs/files.md are made of them. No
//! number is written under another name.

mod arrays;
mod canonical;
mod scalars;
mod studies;

pub use arrays::*;
pub use canonical::*;
pub use scalars::*;
pub use studies::*;

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
pub const SWEEP_FORMAT_VERSION: i64 = 4;
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
/// The same of that one, and so on, with ` < ` between them.
pub const ANCESTRY: &str = "ancestry";

/// `format` attribute of files of fields, and of files of `neuralrg learn`.
pub const FIELDS_FORMAT: &str = "neuralrg-fields";
pub const FIELDS_FORMAT_VERSION: i64 = 2;
pub const LEARNED_FORMAT: &str = "neuralrg-learned";
pub const LEARNED_FORMAT_VERSION: i64 = 2;

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
/// What latent HMC keeps of its states.
pub const STATES_GROUP: &str = "states";
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

/// Attributes of a file of pictures, and of what was learned from it: rows and columns of a picture, in the middle of the
/// field; levels of a pixel.
pub const PICTURE_ROWS: &str = "rows";
pub const PICTURE_COLUMNS: &str = "columns";
pub const PIXEL_LEVELS: &str = "pixel_levels";
/// Attribute of a file of pictures: what was held out when it was made.
pub const HELD_OUT_PICTURES: &str = "held_out";
