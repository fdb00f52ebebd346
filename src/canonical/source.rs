//! Coordinates that a symplectic flow learns from: exact samples of a surface, or a file.

use std::path::Path;

use hdf5::File;
use hdf5::types::VarLenUnicode;
use ndarray::{Array2, ArrayView2, Axis, s, stack};

use super::config::{FEWEST_WITH_ANGLES, SourceSection};
use crate::error::{Error, Result};
use crate::files::schema;
use crate::random::Random;
use crate::targets::surface::Surface;
use crate::train::data::{check_held_out, check_samples, hold_out, open_samples};

/// Samples to learn from, in the units of the flow.
#[derive(Debug)]
pub struct Coordinates {
    /// (sample, n).
    pub training: Array2<f32>,
    pub held_out: Array2<f32>,
    /// What each sample's state is called, and how it is: (sample, angle), the held-out ones last.
    pub angle_names: Vec<String>,
    pub angles: Array2<f64>,
}

impl Coordinates {
    /// Exact samples of a surface.
    pub fn of_surface(
        surface: Surface,
        (count, held_out): (usize, usize),
        random: &Random,
    ) -> Self {
        let samples = surface.sample(random, 0..count);
        let (names, angles) = surface.angles(samples.view());
        let names = names.into_iter().map(str::to_owned).collect();
        Self::split(samples.mapv(|value| value as f32), held_out, (names, angles))
    }

    /// Reads a file of coordinates.
    ///
    /// # Errors
    /// It cannot be read, or has no coordinates, too few or some that are not finite, or angles that do not fit to them.
    pub fn read(source: &SourceSection) -> Result<Self> {
        let path = source.file.as_deref().expect("data have a file");
        let problem = |problem: String| Error::UnusableData { path: path.into(), problem };
        let (file, samples) = read_coordinates(path, source.scale)?;
        let count = samples.nrows();
        let held_out = source.held_out;
        check_samples(samples.view(), ("source.held_out", held_out), path)?;
        let known = file.attr(schema::HELD_OUT_PICTURES).and_then(|known| known.read_scalar());
        if let Ok(known) = known {
            check_held_out(("source.held_out", held_out), known, path)?;
        }
        let angles = read_angles(&file, count).map_err(problem)?;
        if count < FEWEST_WITH_ANGLES && !angles.0.is_empty() {
            return Err(problem(format!(
                "it has {count} samples; mutual information with angles needs {FEWEST_WITH_ANGLES}"
            )));
        }
        Ok(Self::split(samples, held_out, angles))
    }

    fn split(
        samples: Array2<f32>,
        held_out: usize,
        (angle_names, angles): (Vec<String>, Array2<f64>),
    ) -> Self {
        let (training, held_out) = hold_out(samples.view(), held_out);
        Self { training, held_out, angle_names, angles }
    }

    /// n.
    pub fn coordinates(&self) -> usize {
        self.training.ncols()
    }

    /// Some samples, evenly over all, with their angles. Shapes: (sample, n), (sample, angle).
    pub fn thinned(&self, most: usize) -> (Array2<f64>, Array2<f64>) {
        let trained = self.training.nrows();
        let places = evenly(trained + self.held_out.nrows(), most);
        let row = |&place: &usize| match place.checked_sub(trained) {
            None => self.training.row(place),
            Some(place) => self.held_out.row(place),
        };
        let rows: Vec<_> = places.iter().map(row).collect();
        let samples = stack(Axis(0), &rows).expect("both have the same coordinates");
        (samples.mapv(f64::from), self.angles.select(Axis(0), &places))
    }

    /// Some held-out samples, evenly over all. Shapes: (sample, n).
    pub fn some_held_out(&self, most: usize) -> Array2<f64> {
        let places = evenly(self.held_out.nrows(), most);
        self.held_out.select(Axis(0), &places).mapv(f64::from)
    }

    /// The held-out samples, and as many that were trained on, if there are so many. Shapes: (sample, n).
    pub fn compared(&self) -> [ArrayView2<'_, f32>; 2] {
        let count = self.held_out.nrows().min(self.training.nrows());
        [self.held_out.view(), self.training.slice(s![..count, ..])]
    }
}

/// The coordinates of a file, in the units of a flow that multiplies them by `scale`. Shapes: (sample, n).
///
/// # Errors
/// It cannot be read, or has no coordinates.
pub fn read_coordinates(path: &Path, scale: f64) -> Result<(File, Array2<f32>)> {
    let problem = |problem: String| Err(Error::UnusableData { path: path.into(), problem });
    let (file, dataset) = open_samples(path, &schema::COORDINATES)?;
    let name = schema::COORDINATES.name;
    let [_, coordinates] = dataset.shape()[..] else {
        let axes = schema::COORDINATES.axes.join(", ");
        return problem(format!("`{name}` must have the axes ({axes})"));
    };
    if coordinates < 2 {
        return problem(format!("`{name}` has {coordinates} coordinates; 2 are needed"));
    }
    let mut samples: Array2<f32> = dataset.read().map_err(Error::hdf5("read", path))?;
    samples.mapv_inplace(|value| (f64::from(value) * scale) as f32);
    Ok((file, samples))
}

/// Places of at most so many samples, evenly over all.
pub(super) fn evenly(count: usize, most: usize) -> Vec<usize> {
    let kept = most.min(count);
    (0..kept).map(|i| i * count / kept).collect()
}

/// Names and values of the angles, if there are any; else what is wrong with them.
fn read_angles(
    file: &File,
    samples: usize,
) -> std::result::Result<(Vec<String>, Array2<f64>), String> {
    let name = schema::ANGLES.name;
    let Ok(dataset) = file.dataset(name) else {
        return Ok((Vec::new(), Array2::zeros((samples, 0))));
    };
    let angles: Array2<f64> = dataset
        .read()
        .map_err(|_| format!("`{name}` must have the axes ({})", schema::ANGLES.axes.join(", ")))?;
    let names: Vec<String> = dataset
        .attr(schema::ANGLE_NAMES)
        .and_then(|attribute| attribute.read_raw::<VarLenUnicode>())
        .map(|names| names.iter().map(ToString::to_string).collect())
        .map_err(|_| {
            format!(
                "`{name}` has no attribute `{}` of texts of variable length, one for each angle",
                schema::ANGLE_NAMES
            )
        })?;
    if angles.dim() != (samples, names.len()) || angles.iter().any(|angle| !angle.is_finite()) {
        return Err(format!(
            "`{name}` must have a finite number for each sample and each of its {} names",
            names.len()
        ));
    }
    Ok((names, angles))
}
