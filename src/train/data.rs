//! Configurations in HDF5 files, for flows to learn from: samples of the field at some temperatures, or pictures.
//!
//! [`schema::FIELDS`] has the fields, over (temperature, sample) or, where there is no temperature, over samples alone. The
//! last samples of a file are held out, so that chains, or the customary test set, can stand at its end.

use std::path::Path;

use hdf5::{Dataset, File, Group};
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, ArrayView4, Axis, s, stack};

use crate::engine::Model;
use crate::error::{Error, Result};
use crate::files::content::{write_array, write_hdf5, write_number, write_text};
use crate::files::schema::{self, Item};
use crate::files::seal::{self, Seal};
use crate::lattice::{ALLOWED_SIZES, Lattice, is_size};
use crate::random::Random;
use crate::seed::{Stage, TaskSeed};
use crate::statistics::gamma_method;
use crate::targets::dual::draw_field;
use crate::targets::wolff;
use crate::train::config::DataConfig;

/// Fields that are made or looked at together.
const BATCH: usize = 4096;

/// Fields to learn from, and those that are held out to judge what was learned.
#[derive(Debug)]
pub struct Data {
    /// (sample, N), in the precision of files.
    pub training: Array2<f32>,
    /// The same.
    pub held_out: Array2<f32>,
    linear_size: usize,
    /// Where the fields come from pixels.
    pub pixels: Option<Pixels>,
}

/// How fields come from the pixels of pictures, each a whole number of levels n: a field x is drawn from some r(x | n) that
/// is nowhere else than between the edges of these levels. The picture is in the middle of the field.
#[derive(Debug)]
pub struct Pixels {
    /// (sample): ln r(x | n) of the held-out pictures.
    ln_noise: Vec<f64>,
    rows: i64,
    columns: i64,
    levels: i64,
    /// Pictures, the last ones, that the edges know nothing of.
    held_out: i64,
    /// (levels - 1).
    edges: Vec<f64>,
}

impl Data {
    /// Reads samples of the field of an L × L lattice at temperature T.
    ///
    /// # Errors
    /// The file cannot be read, or has no such fields, or too few of them, or some that are not finite.
    pub fn at_temperature(
        config: &DataConfig,
        linear_size: usize,
        temperature: f64,
    ) -> Result<Self> {
        let source = Source::open(&config.file)?;
        let index = source.index_of(linear_size, temperature)?;
        let fields = source.fields.read_slice(s![index, .., .., ..]);
        let fields = fields.map_err(Error::hdf5("read", &config.file))?;
        Self::split(fields, None, config)
    }

    /// Reads pictures.
    ///
    /// # Errors
    /// As [`Data::at_temperature`], or they are not squares that a lattice may be.
    pub fn of_pictures(config: &DataConfig) -> Result<Self> {
        let source = Source::open(&config.file)?;
        let path = &config.file;
        let [_, rows, columns] = source.shape[..] else {
            return Err(source.problem(&format!(
                "`{}` has the axes ({}) and not (sample, row, column); fields at temperatures are for `neuralrg run`",
                schema::FIELDS.name,
                schema::FIELDS.axes.join(", ")
            )));
        };
        if rows != columns || !is_size(rows) {
            return Err(source.problem(&format!(
                "pictures of {rows} × {columns} pixels; pad them to squares whose side is {ALLOWED_SIZES}"
            )));
        }
        let fields = source.fields.read().map_err(Error::hdf5("read", path))?;
        let pixels = source.pixels()?;
        if let Some(Pixels { held_out, .. }) = pixels {
            check_held_out(("data.held_out", config.held_out), held_out, path)?;
        }
        Self::split(fields, pixels, config)
    }

    fn split(fields: Array3<f32>, pixels: Option<Pixels>, config: &DataConfig) -> Result<Self> {
        let (count, size, _) = fields.dim();
        let fields = fields.into_shape_with_order((count, size * size));
        let fields = fields.expect("each field has L × L sites");
        let held_out = config.held_out;
        check_samples(fields.view(), ("data.held_out", held_out), &config.file)?;
        let (training, held) = hold_out(fields.view(), held_out);
        let pixels = pixels.map(|pixels| Pixels {
            ln_noise: pixels.ln_noise[count - held_out..].to_vec(),
            ..pixels
        });
        Ok(Self { training, held_out: held, linear_size: size, pixels })
    }

    /// L.
    pub fn linear_size(&self) -> usize {
        self.linear_size
    }

    /// The next `batch` training fields of a stream of which `drawn` were taken: epoch after epoch, each in a random
    /// order of its own. Shapes: (batch, N).
    pub fn batch(&self, seed: &TaskSeed, drawn: i64, batch: i64) -> Array2<f64> {
        shuffled(self.training.view(), seed, (drawn, batch))
    }

    /// What a model makes of the held-out fields, and of as many that it was trained on; where the fields are samples of the
    /// model's target its ln Z is given.
    pub fn judge(&self, model: &Model, ln_z: Option<f64>) -> HeldOut {
        let losses = -in_batches(self.held_out.view(), |x| model.ln_likelihood(x));
        let compared = self.held_out.nrows().min(self.training.nrows());
        let trained = self.training.slice(s![..compared, ..]);
        let trained = -in_batches(trained, |x| model.ln_likelihood(x));
        let mean = |values: &Array1<f64>| {
            let estimate = gamma_method(values.view().insert_axis(Axis(0)));
            (estimate.mean, estimate.error)
        };
        let forward_kl = |ln_z: f64| {
            let target = model.density();
            let ln_pi = in_batches(self.held_out.view(), |x| target.ln_density(x));
            mean(&(ln_pi + &losses - ln_z))
        };
        let pixels = self.pixels.as_ref();
        HeldOut {
            samples: losses.len(),
            negative_ln_likelihood: mean(&losses),
            training_negative_ln_likelihood: mean(&trained),
            bits_per_dimension: pixels.map(|pixels| mean(&pixels.bits_per_dimension(&losses))),
            forward_kl: ln_z.map(forward_kl),
        }
    }
}

/// A file to learn from, and its samples.
///
/// # Errors
/// It cannot be read, is damaged, or has no such dataset.
pub fn open_samples(path: &Path, item: &Item) -> Result<(File, Dataset)> {
    let problem = |problem: String| Error::UnusableData { path: path.into(), problem };
    let seal = seal::check_hdf5(path).map_err(Error::io("read data file", path))?;
    if seal == Seal::Broken {
        return Err(problem("it is damaged (its checksum does not fit)".into()));
    }
    let file = File::open(path).map_err(Error::hdf5("read", path))?;
    let name = item.name;
    let samples = file.dataset(name).map_err(|_| problem(format!("it has no dataset `{name}`")))?;
    Ok((file, samples))
}

/// Whether samples, (sample, N), can be learned from, so many of them being held out by a key of the configuration; `path` names
/// their file.
///
/// # Errors
/// One has a value that is not finite, or fewer than two are left.
pub fn check_samples(
    samples: ArrayView2<f32>,
    (key, held_out): (&str, usize),
    path: &Path,
) -> Result<()> {
    check_finite_samples(samples, path)?;
    let count = samples.nrows();
    if held_out + 2 > count {
        let problem =
            format!("it has {count} samples; {key} = {held_out} must leave at least 2 of them");
        return Err(Error::UnusableData { path: path.into(), problem });
    }
    Ok(())
}

/// Whether the pictures that a key of the configuration holds out are among the last `known`, which the file at `path` knows nothing
/// of.
///
/// # Errors
/// Some are not.
pub fn check_held_out((key, held_out): (&str, usize), known: i64, path: &Path) -> Result<()> {
    if held_out as i64 <= known {
        return Ok(());
    }
    let problem = format!(
        "{key} = {held_out}, but all but the last {known} pictures were looked at when it was made; make it anew with \
         --held-out"
    );
    Err(Error::UnusableData { path: path.into(), problem })
}

/// Whether samples, (sample, N), are finite; `path` names their file.
///
/// # Errors
/// One has a value that is not.
pub fn check_finite_samples(samples: ArrayView2<f32>, path: &Path) -> Result<()> {
    let is_finite = |sample: ArrayView1<f32>| sample.iter().all(|value| value.is_finite());
    match samples.outer_iter().position(|sample| !is_finite(sample)) {
        Some(sample) => {
            let problem = format!("sample {sample} has a value that is not a finite number");
            Err(Error::UnusableData { path: path.into(), problem })
        }
        None => Ok(()),
    }
}

/// Samples to train on, and the last ones, which are held out. Shapes: (sample, N).
pub fn hold_out(samples: ArrayView2<f32>, held_out: usize) -> (Array2<f32>, Array2<f32>) {
    let (training, held_out) = samples.split_at(Axis(0), samples.nrows() - held_out);
    (training.to_owned(), held_out.to_owned())
}

/// The next `batch` of a stream of samples of which `drawn` were taken: epoch after epoch, each in a random order of its own.
///
/// Shapes: samples (sample, N) → (batch, N).
pub fn shuffled(
    samples: ArrayView2<f32>,
    seed: &TaskSeed,
    (drawn, batch): (i64, i64),
) -> Array2<f64> {
    let count = samples.nrows() as i64;
    let (first, last) = (drawn / count, (drawn + batch - 1) / count);
    let order = |epoch: i64| seed.at(Stage::Shuffle, epoch).permutation(count as usize);
    let orders: Vec<usize> = (first..=last).flat_map(order).collect();
    let start = (drawn - first * count) as usize;
    let places = &orders[start..start + batch as usize];
    samples.select(Axis(0), places).mapv(f64::from)
}

/// What held-out fields say of a flow: (mean, error), the autocorrelation along the file taken into account.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOut {
    pub samples: usize,
    /// -ln q in nats; and of as many fields that were trained on.
    pub negative_ln_likelihood: (f64, f64),
    pub training_negative_ln_likelihood: (f64, f64),
    /// In bits per pixel where the fields come from pixels.
    pub bits_per_dimension: Option<(f64, f64)>,
    /// KL(π ‖ q) = E_π[ln π - ln q] - ln Z in nats where ln Z is known.
    pub forward_kl: Option<(f64, f64)>,
}

impl Pixels {
    /// Bits per pixel from -ln q(x): [ln r(x | n) - ln q(x)] / (D ln 2), which the code length of the pixels' levels n
    /// does not exceed on average (Theis et al., arXiv:1511.01844; Ho et al., arXiv:1902.00275, Eq. 12).
    ///
    /// Shapes: (sample) → (sample).
    fn bits_per_dimension(&self, losses: &Array1<f64>) -> Array1<f64> {
        let nats = losses + &ArrayView1::from(&self.ln_noise);
        nats / ((self.rows * self.columns) as f64 * std::f64::consts::LN_2)
    }

    fn read(file: &File, ln_noise: &Dataset) -> hdf5::Result<Self> {
        let whole = |name: &str| file.attr(name)?.read_scalar::<i64>();
        Ok(Self {
            ln_noise: ln_noise.read_raw()?,
            rows: whole(schema::PICTURE_ROWS)?,
            columns: whole(schema::PICTURE_COLUMNS)?,
            levels: whole(schema::PIXEL_LEVELS)?,
            held_out: whole(schema::HELD_OUT_PICTURES)?,
            edges: file.dataset(schema::EDGES.name)?.read_raw()?,
        })
    }

    /// Tells it of generated fields too, which `group` has.
    pub fn write(&self, file: &File, group: &Group) -> hdf5::Result<()> {
        write_array(group, &schema::EDGES, ArrayView1::from(&self.edges))?;
        write_number(file, schema::PICTURE_ROWS, self.rows)?;
        write_number(file, schema::PICTURE_COLUMNS, self.columns)?;
        write_number(file, schema::PIXEL_LEVELS, self.levels)
    }
}

/// An opened file of fields.
struct Source<'a> {
    path: &'a Path,
    file: File,
    fields: Dataset,
    shape: Vec<usize>,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let (file, fields) = open_samples(path, &schema::FIELDS)?;
        let shape = fields.shape();
        Ok(Self { path, file, fields, shape })
    }

    fn problem(&self, problem: &str) -> Error {
        Error::UnusableData { path: self.path.into(), problem: problem.into() }
    }

    /// The place of a temperature among those of the file, whose lattice must be L × L.
    fn index_of(&self, linear_size: usize, temperature: f64) -> Result<usize> {
        let axes = schema::FIELDS.axes.join(", ");
        let [temperatures, _, rows, columns] = self.shape[..] else {
            return Err(self.problem(&format!(
                "`{}` must have the axes ({axes}), as `neuralrg reference --fields` writes it",
                schema::FIELDS.name
            )));
        };
        if (rows, columns) != (linear_size, linear_size) {
            return Err(self.problem(&format!(
                "its fields are {rows} × {columns}, but sweep.linear_size = {linear_size}"
            )));
        }
        let known: Vec<f64> = self
            .file
            .dataset(schema::TEMPERATURE.name)
            .and_then(|dataset| dataset.read_raw())
            .map_err(|_| self.problem("it does not say at which temperatures its fields are"))?;
        if known.len() != temperatures {
            return Err(self.problem("it has not one temperature for each set of fields"));
        }
        known.iter().position(|other| (other - temperature).abs() < 1e-9).ok_or_else(|| {
            self.problem(&format!("it has no fields at T = {temperature}, but at {known:?}"))
        })
    }

    /// What is told of the pixels, if anything.
    fn pixels(&self) -> Result<Option<Pixels>> {
        let Ok(dataset) = self.file.dataset(schema::LN_NOISE.name) else {
            if self.file.link_exists("log_jacobian") {
                let problem = "it is of an earlier version of analysis/pictures.py; make it anew";
                return Err(self.problem(problem));
            }
            return Ok(None);
        };
        let pixels = Pixels::read(&self.file, &dataset).map_err(Error::hdf5("read", self.path))?;
        let finite = pixels.ln_noise.iter().all(|value| value.is_finite());
        let sides = 1..=self.shape[1] as i64;
        let fits = sides.contains(&pixels.rows) && sides.contains(&pixels.columns);
        if pixels.ln_noise.len() != self.shape[0] || !finite || !fits {
            return Err(self.problem(&format!(
                "`{}` must have a finite number for each sample, and `{}` and `{}` fit into the fields",
                schema::LN_NOISE.name,
                schema::PICTURE_ROWS,
                schema::PICTURE_COLUMNS
            )));
        }
        if pixels.edges.len() as i64 + 1 != pixels.levels {
            return Err(self.problem(&format!(
                "`{}` must be one fewer than `{}`",
                schema::EDGES.name,
                schema::PIXEL_LEVELS
            )));
        }
        Ok(Some(pixels))
    }
}

/// Fills in the checksum of a sweep's data file, if it has one, and looks whether it has the fields of every task; their
/// values are not looked at. `path` names the configuration.
///
/// # Errors
/// The file cannot be read, is not that of the checksum in the configuration, or has not such fields.
pub fn identify(
    data: &mut DataConfig,
    (linear_size, temperatures): (usize, &[f64]),
    path: &Path,
) -> Result<()> {
    data.identify(path)?;
    let file = data.file.clone();
    let source = Source::open(&file)?;
    temperatures
        .iter()
        .try_for_each(|&temperature| source.index_of(linear_size, temperature).map(|_| ()))
}

/// Exact samples of the field, one for each measurement of the spins. Shapes: (sample, L, L).
pub fn fields_of(
    sample: &wolff::Sample,
    linear_size: usize,
    temperature: f64,
    random: &Random,
) -> Array3<f32> {
    let lattice = Lattice::new(linear_size);
    let mut fields = Vec::with_capacity(sample.spins.len());
    for (batch, spins) in sample.spins.axis_chunks_iter(Axis(0), BATCH).enumerate() {
        let spins = spins.mapv(f64::from);
        let field = draw_field(&lattice, spins.view(), temperature, random, batch * BATCH);
        fields.extend(field.iter().map(|&value| value as f32));
    }
    let shape = (sample.spins.nrows(), linear_size, linear_size);
    Array3::from_shape_vec(shape, fields).expect("one value for each spin")
}

/// Writes fields at several temperatures. Shapes: fields for each (sample, L, L).
///
/// # Errors
/// The file cannot be written; it then has what it had.
pub fn write_fields(path: &Path, temperatures: &[f64], fields: &[Array3<f32>]) -> Result<()> {
    let views: Vec<_> = fields.iter().map(Array3::view).collect();
    let fields = stack(Axis(0), &views).expect("as many samples at each temperature");
    write_hdf5(path, |file| fill(file, temperatures, fields.view()))
}

fn fill(file: &File, temperatures: &[f64], fields: ArrayView4<f32>) -> hdf5::Result<()> {
    write_text(file, "format", schema::FIELDS_FORMAT)?;
    write_number(file, "format_version", schema::FIELDS_FORMAT_VERSION)?;
    write_text(file, "code_version", crate::VERSION)?;
    let coordinate = Item { axes: &schema::FIELDS.axes[..1], ..schema::TEMPERATURE };
    write_array(file, &coordinate, ArrayView1::from(temperatures))?;
    write_array(file, &schema::FIELDS, fields)
}

/// A number for each of many fields, some fields at a time. Shapes: (sample, N) → (sample).
fn in_batches(
    fields: ArrayView2<f32>,
    number: impl Fn(ArrayView2<f64>) -> Array1<f64>,
) -> Array1<f64> {
    let batches = fields.axis_chunks_iter(Axis(0), BATCH);
    batches.flat_map(|x| number(x.mapv(f64::from).view())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(count: usize) -> Data {
        let fields = Array2::from_shape_fn((count, 16), |(sample, _)| sample as f32);
        Data { training: fields.clone(), held_out: fields, linear_size: 4, pixels: None }
    }

    /// The numbers of the fields in a batch.
    fn numbers(batch: &Array2<f64>) -> Vec<i64> {
        batch.column(0).iter().map(|&number| number as i64).collect()
    }

    #[test]
    fn batches_are_a_stream_of_epochs_that_each_have_every_sample_once() {
        let (data, seed) = (numbered(10), TaskSeed::of_pictures(4, 1, 1));
        let stream = numbers(&data.batch(&seed, 0, 40));
        for epoch in stream.chunks(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(stream[..10], stream[10..20]);
        for (drawn, batch) in [(0, 7), (7, 7), (14, 7), (20, 10), (3, 25), (39, 1)] {
            let found = numbers(&data.batch(&seed, drawn, batch));
            assert_eq!(found, stream[drawn as usize..(drawn + batch) as usize]);
        }
        let other = numbers(&data.batch(&TaskSeed::of_pictures(4, 1, 2), 0, 40));
        assert_ne!(stream, other);
    }

    /// Each of D pixels uniform on [0, levels): log₂ levels bits, whatever map takes them to fields.
    #[test]
    fn uniform_pixels_cost_the_bits_of_their_levels() {
        let ln_noise = vec![-3.5, 20.0, 0.25];
        let nats = 12.0 * 16f64.ln();
        let losses = ln_noise.iter().map(|noise| nats - noise).collect();
        let edges = vec![0.0; 15];
        let pixels = Pixels { ln_noise, rows: 3, columns: 4, levels: 16, held_out: 3, edges };
        for bits in pixels.bits_per_dimension(&losses) {
            assert!((bits - 4.0).abs() < 1e-14);
        }
    }
}
