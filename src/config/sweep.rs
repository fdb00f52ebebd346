//! Section `[sweep]`: the tasks, by lists or ranges.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::bounds::{Check, Problem, check_list, require};
use crate::lattice::{ALLOWED_SIZES, halvings, is_size};

/// `[sweep]`: the tasks, one per lattice size, temperature, depth and seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// Name of the study, kept in the collected file.
    pub name: String,
    /// L, an even number from 4 to 1024, or a list of them; a lattice has L² sites.
    pub linear_size: LinearSizes,
    /// Temperatures T in units of J/k_B.
    pub temperatures: Temperatures,
    /// Numbers of hierarchy levels, each from 1 to as many as L can be halved; a lattice that cannot be halved so often has
    /// no task of a depth.
    pub depths: Depths,
    /// Seeds of the random numbers; several give independent repetitions.
    #[serde(default = "default_seeds")]
    pub seeds: Vec<u64>,
}

/// Linear sizes L: one, or a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "linear_size must be a whole number, or a list of whole numbers")]
pub enum LinearSizes {
    One(usize),
    List(Vec<usize>),
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

fn default_seeds() -> Vec<u64> {
    vec![1]
}

impl SweepConfig {
    pub(super) fn resolve(&mut self) -> Check {
        require(!self.name.trim().is_empty(), "sweep.name", "\"\"", "a name that is not empty")?;
        self.linear_size.resolve()?;
        let sizes = self.linear_size.list();
        let temperatures = self.temperatures.expand()?;
        let checked = check_list("sweep.temperatures", &temperatures, |t| {
            (0.01..=1000.0).contains(t).then_some(()).ok_or("from 0.01 to 1000".into())
        });
        checked.map_err(|problem| match decimal_comma_hint(&temperatures) {
            Some(hint) => Problem { problem: format!("{} ({hint})", problem.problem), ..problem },
            None => problem,
        })?;
        self.temperatures = Temperatures::List(temperatures);
        let deepest = sizes.iter().copied().map(halvings).max().expect("there are sizes");
        let depths = self.depths.expand(deepest)?;
        check_list("sweep.depths", &depths, |depth| {
            let allowed = format!("from 1 to {deepest}, as often as linear_size can be halved");
            (1..=deepest).contains(depth).then_some(()).ok_or(allowed)
        })?;
        for &size in sizes {
            let possible = halvings(size);
            let shallowest = *depths.iter().min().expect("there are depths");
            require(
                shallowest <= possible,
                "sweep.depths",
                format!("from {shallowest} on"),
                format!("given with one that L = {size} has, from 1 to {possible}"),
            )?;
        }
        self.depths = Depths::List(depths);
        check_list("sweep.seeds", &self.seeds, |seed| {
            // TOML integers, which the resolved configuration is written in, are signed.
            i64::try_from(*seed).map(|_| ()).map_err(|_| "below 2^63".into())
        })
    }
}

impl LinearSizes {
    /// All of them.
    pub fn list(&self) -> &[usize] {
        match self {
            Self::One(size) => std::slice::from_ref(size),
            Self::List(list) => list,
        }
    }

    /// Checks them; a list of one is that one.
    fn resolve(&mut self) -> Check {
        match self {
            Self::One(size) => require(is_size(*size), "sweep.linear_size", size, ALLOWED_SIZES)?,
            Self::List(list) => check_list("sweep.linear_size", list, |&size| {
                is_size(size).then_some(()).ok_or(ALLOWED_SIZES.into())
            })?,
        }
        if let [size] = *self.list() {
            *self = Self::One(size);
        }
        Ok(())
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
    fn expand(&self) -> Result<Vec<f64>, Problem> {
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
    fn intervals(&self) -> Result<usize, Problem> {
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
    fn intervals(&self) -> Result<usize, Problem> {
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
    fn expand(&self, deepest: usize) -> Result<Vec<usize>, Problem> {
        let DepthRange { from, to } = match self {
            Self::List(list) => return Ok(list.clone()),
            Self::Range(range) => *range,
        };
        require(
            (1..=to).contains(&from) && to <= deepest,
            "sweep.depths",
            format!("from {from} to {to}"),
            format!(
                "given with from ≤ to, both from 1 to {deepest}, as often as linear_size can be halved"
            ),
        )?;
        Ok((from..=to).collect())
    }
}
