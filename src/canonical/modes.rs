//! The slowest modes of a canonical transformation: what they answer to, where they lead, what they know of given angles, and
//! samples of which only they are kept.

use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, s};

use super::config::PATH_POINTS;
use super::source::evenly;
use crate::engine::SymplecticModel;
use crate::random::{Random, Use};
use crate::statistics::mean_and_standard_error;
use crate::statistics::mutual_information::{Variable, mutual_information};

/// Paths go along a mode from -3 to 3 of its standard deviations.
const PATH_END: f64 = 3.0;
/// Samples that responses are means over.
const RESPONSE_SAMPLES: usize = 256;
/// k of the nearest neighbours, as in the paper.
const NEIGHBOURS: usize = 5;
/// Parts of the samples from whose spread the error of a mutual information is.
const PARTS: usize = 10;

/// What is told of some modes, the slowest first.
#[derive(Debug)]
pub struct Modes {
    /// (mode, n): mean of ∂Q_k/∂q_i over samples, evenly thinned.
    pub responses: Array2<f64>,
    /// (point): z along a path.
    pub path_positions: Array1<f64>,
    /// (mode, point, n): q where one mode has that z and all others are at rest.
    pub paths: Array3<f64>,
    /// (mode, angle): mutual information in nats, and its standard error.
    pub information: Array2<f64>,
    pub information_error: Array2<f64>,
}

impl Modes {
    /// Of the slowest `count` modes, from samples q with their angles.
    ///
    /// Shapes: q (sample, n), angles (sample, angle).
    pub fn of(
        model: &SymplecticModel,
        count: usize,
        (q, angles): (ArrayView2<f64>, ArrayView2<f64>),
    ) -> Self {
        let slowest = &model.flow.slowest()[..count.min(model.flow.coordinates)];
        let responding = q.select(Axis(0), &evenly(q.nrows(), RESPONSE_SAMPLES));
        let z = model.inverse(q).field.select(Axis(1), slowest);
        let (information, information_error) = informations(z.view(), angles);
        let path_positions = Array1::linspace(-PATH_END, PATH_END, PATH_POINTS);
        Self {
            responses: model.mean_derivatives(responding.view(), slowest),
            paths: paths(model, slowest, &path_positions),
            path_positions,
            information,
            information_error,
        }
    }
}

fn paths(model: &SymplecticModel, modes: &[usize], positions: &Array1<f64>) -> Array3<f64> {
    let coordinates = model.flow.coordinates;
    let mut paths = Array3::zeros((modes.len(), positions.len(), coordinates));
    for (mut path, &mode) in paths.outer_iter_mut().zip(modes) {
        let mut z = Array2::zeros((positions.len(), coordinates));
        z.column_mut(mode).assign(positions);
        path.assign(&model.forward(z.view()).field);
    }
    paths
}

/// Mutual information of each mode with each angle, and errors from parts of the samples. It does not depend on the units of
/// either, but its estimate does: both are taken in units of their standard deviation.
///
/// Shapes: z (sample, mode), angles (sample, angle) → (mode, angle).
fn informations(z: ArrayView2<f64>, angles: ArrayView2<f64>) -> (Array2<f64>, Array2<f64>) {
    let shape = (z.ncols(), angles.ncols());
    let (mut values, mut errors) = (Array2::zeros(shape), Array2::zeros(shape));
    let (z, angles) = (in_deviations(z), in_deviations(angles));
    for mode in 0..shape.0 {
        for angle in 0..shape.1 {
            let pair = |samples: std::ops::Range<usize>| {
                let [mode, angle] = [z.column(mode), angles.column(angle)]
                    .map(|column| Variable::new(column.slice(s![samples.clone()]).to_vec()));
                mutual_information(&mode, &angle, NEIGHBOURS)
            };
            let count = z.nrows();
            let bounds = |part: usize| part * count / PARTS..(part + 1) * count / PARTS;
            let parts: Vec<f64> = (0..PARTS).map(|part| pair(bounds(part))).collect();
            values[[mode, angle]] = pair(0..count);
            errors[[mode, angle]] = mean_and_standard_error(&parts).1;
        }
    }
    (values, errors)
}

/// Columns in units of their standard deviations; one that is constant stays so. Shapes: (sample, variable).
fn in_deviations(values: ArrayView2<f64>) -> Array2<f64> {
    let deviations = values.std_axis(Axis(0), 0.0);
    let units = deviations.mapv(|deviation| if deviation > 0.0 { deviation } else { 1.0 });
    &values / &units
}

/// Samples of which the slowest modes are kept and all others drawn anew. Shapes: q (sample, n) → (kept, sample, n).
pub fn redrawn(
    model: &SymplecticModel,
    kept: &[usize],
    q: ArrayView2<f64>,
    random: &Random,
) -> Array3<f64> {
    let z = model.inverse(q).field;
    let slowest = model.flow.slowest();
    let mut all = Array3::zeros((kept.len(), q.nrows(), q.ncols()));
    for (mut redrawn, &kept) in all.outer_iter_mut().zip(kept) {
        let mut mixed = random.normals(Use::Latents, 0..q.nrows(), q.ncols());
        for &mode in &slowest[..kept] {
            mixed.column_mut(mode).assign(&z.column(mode));
        }
        redrawn.assign(&model.forward(mixed.view()).field);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Stage, TaskSeed};

    /// -½ ln(1 - ρ²) of a normal pair, whatever the unit: powers of 2 change no bit.
    #[test]
    fn information_does_not_depend_on_units() {
        let random = TaskSeed::of_coordinates(2, 1).at(Stage::Reference, 0);
        let normals = random.normals(Use::Latents, 0..4000, 2);
        let (correlation, exact) = (0.9f64, 0.830_366);
        let noise = (1.0 - correlation * correlation).sqrt();
        let pair = |unit: f64| {
            let angle = normals.map_axis(Axis(1), |x| unit * (correlation * x[0] + noise * x[1]));
            let (value, error) =
                informations(normals.slice(s![.., ..1]), angle.insert_axis(Axis(1)).view());
            (value[[0, 0]], error[[0, 0]])
        };
        let (value, error) = pair(1.0);
        assert!((value - exact).abs() < 4.0 * error && error < 0.03, "{value} ± {error}");
        for unit in [64.0, 1.0 / 64.0] {
            assert_eq!(pair(unit), (value, error));
        }
    }
}
