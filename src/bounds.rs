//! Bounds of configurations: what is allowed, and in which words anything else is refused.

use std::collections::HashSet;
use std::path::Path;

use crate::error::Error;

/// Bounds far above what any machine does today, so that a slip of the pen is refused before any work and no product
/// of counts overflows. A step takes a millisecond or more: a thousand million take longer than a week.
pub(crate) const MOST_STEPS: i64 = 1_000_000_000;

/// Samples drawn one after the other, or trajectories of all chains: 72 bytes of each are kept, or 128.
pub(crate) const MOST_DRAWS: i64 = 1_000_000_000;

/// Samples at a time, apart from [`MOST_NUMBERS`].
pub(crate) const MOST_BATCH: i64 = 1 << 24;

/// Numbers in one array of f64: 17 GB, of which a step takes several.
pub(crate) const MOST_NUMBERS: i64 = 1 << 31;

/// Neighbours of all sites in the couplings of one level, of which each task makes tables.
pub(crate) const MOST_NEIGHBOURS: usize = 1 << 32;

/// Each has files of its own.
pub(crate) const MOST_TASKS: usize = 100_000;

/// A value that is not allowed.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) key: &'static str,
    pub(crate) problem: String,
}

pub(crate) type Check = Result<(), Problem>;

impl Problem {
    /// The error of the configuration file at `path`.
    pub(crate) fn at(self, path: &Path) -> Error {
        Error::ConfigValue { path: path.into(), key: self.key.into(), problem: self.problem }
    }
}

pub(crate) fn require(
    fine: bool,
    key: &'static str,
    value: impl std::fmt::Display,
    allowed: impl std::fmt::Display,
) -> Check {
    let problem = || Problem { key, problem: format!("is {value}, but must be {allowed}") };
    fine.then_some(()).ok_or_else(problem)
}

/// A number of things from `least` to `most`.
pub(crate) fn require_count(key: &'static str, value: i64, least: i64, most: i64) -> Check {
    require((least..=most).contains(&value), key, value, format!("from {least} to {most}"))
}

/// So many L × L fields at once, as one array holds them.
pub(crate) fn require_fields(key: &'static str, count: i64, linear_size: usize) -> Check {
    let most = MOST_NUMBERS / (linear_size * linear_size) as i64;
    let allowed = format!("at most {most} for fields of {linear_size} × {linear_size}");
    require(count <= most, key, count, allowed)
}

/// A list must not be empty, each value be allowed, and none stand twice (that would be the same task).
pub(crate) fn check_list<T: std::fmt::Display>(
    key: &'static str,
    list: &[T],
    allowed: impl Fn(&T) -> Result<(), String>,
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
