//! A batch in tiles, one sample a lane, and the arithmetic of lanes.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array1, Array2};

use super::AtTemperature;
use super::density::Sums;
use super::lanes::{LANES, Lanes, Real};
use super::passes::Flow;
use crate::engine::Batch;

/// Samples of one temperature that are worked on together, one in each lane.
#[derive(Debug)]
pub(super) struct Tile<T> {
    pub(super) samples: Range<usize>,
    /// None without a target, or where none is asked for.
    pub(super) at: Option<Arc<AtTemperature<T>>>,
}

/// Losses of some tiles and their share of the gradient.
pub(super) struct Part {
    pub(super) values: Vec<f64>,
    pub(super) asymmetry: Vec<f64>,
    pub(super) gradient: Vec<f64>,
}

impl Part {
    pub(super) fn new<T>(flow: &Flow<'_, T>) -> Self {
        let gradient = vec![0.0; flow.parameters.len()];
        Self { values: Vec::new(), asymmetry: Vec::new(), gradient }
    }

    /// This part followed by the next.
    pub(super) fn join(mut self, next: Self) -> Self {
        self.values.extend(next.values);
        self.asymmetry.extend(next.asymmetry);
        self.gradient.iter_mut().zip(next.gradient).for_each(|(sum, value)| *sum += value);
        self
    }
}

/// Sum over the parts by halves: the order of the additions depends on nothing else.
pub(super) fn sum_parts(parts: Range<usize>, part: &(dyn Fn(usize) -> Part + Sync)) -> Part {
    if parts.len() <= 1 {
        return part(parts.start);
    }
    let middle = parts.start + parts.len() / 2;
    let (first, second) =
        rayon::join(|| sum_parts(parts.start..middle, part), || sum_parts(middle..parts.end, part));
    first.join(second)
}

/// A batch in tiles, with what `at` knows of each temperature.
pub(super) fn tiles<T>(
    batch: Batch,
    mut at: impl FnMut(f64) -> Option<Arc<AtTemperature<T>>>,
) -> Vec<Tile<T>> {
    let mut last = (None, None);
    let tile = |(samples, temperature): (Range<usize>, f64)| {
        if last.0 != Some(temperature.to_bits()) {
            last = (Some(temperature.to_bits()), at(temperature));
        }
        Tile { samples, at: last.1.clone() }
    };
    batch.tiles(LANES).into_iter().map(tile).collect()
}

/// A field of each tile as (batch, site), without the lanes that have no sample.
pub(super) fn unload<T: Real, R>(
    tiles: &[(Range<usize>, R)],
    shape: (usize, usize),
    field: impl Fn(&R) -> &Vec<Lanes<T>>,
) -> Array2<f64> {
    let mut values = Vec::with_capacity(shape.0 * shape.1);
    for (samples, result) in tiles {
        for lane in 0..samples.len() {
            values.extend(field(result).iter().map(|lanes| lanes.0[lane].to_f64()));
        }
    }
    Array2::from_shape_vec(shape, values).expect("one value for each sample and site")
}

/// One number of each sample.
pub(super) fn numbers<R>(tiles: &[(Range<usize>, R)], sums: impl Fn(&R) -> &Sums) -> Array1<f64> {
    tiles.iter().flat_map(|(samples, result)| &sums(result)[..samples.len()]).copied().collect()
}

pub(super) fn add(mut a: Sums, b: Sums) -> Sums {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

pub(super) fn negate<T: Real>(field: &[Lanes<T>], out: &mut [Lanes<T>]) {
    for (out, lanes) in out.iter_mut().zip(field) {
        *out = Lanes(lanes.0.map(|value| -value));
    }
}

pub(super) fn subtract<T: Real>(field: &mut [Lanes<T>], other: &[Lanes<T>]) {
    for (lanes, other) in field.iter_mut().zip(other) {
        lanes.0.iter_mut().zip(other.0).for_each(|(value, other)| *value = *value - other);
    }
}

/// `field` += `factor` × `other`, with one factor per lane; zero factors give zero.
pub(super) fn add_product<T: Real>(field: &mut [Lanes<T>], factor: &Lanes<T>, other: &[Lanes<T>]) {
    for (lanes, other) in field.iter_mut().zip(other) {
        for ((value, factor), other) in lanes.0.iter_mut().zip(factor.0).zip(other.0) {
            if factor != T::ZERO {
                *value += factor * other;
            }
        }
    }
}
