//! `neuralrg sample`: independent samples of a trained flow with their log-densities.

use std::path::Path;

use ndarray::{Array1, Array2, Axis};

use crate::engine::config::Precision;
use crate::error::{Error, Result};
use crate::files::content::{write_array, write_hdf5, write_number, write_text};
use crate::files::schema;
use crate::flow::symmetry::draw_signs;
use crate::lattice::on_lattice;
use crate::random::Use;
use crate::seed::Stage;
use crate::task::trained::{Trained, check_output};

/// Samples drawn at a time.
const BATCH: usize = 256;

/// Fields x = sign · g(z), the latents z that they come from, and their densities.
#[derive(Debug)]
struct Samples {
    /// (draw, N).
    fields: Array2<f64>,
    /// (draw, N).
    latents: Array2<f64>,
    /// (draw).
    signs: Array1<f64>,
    /// (draw): ln q(x) of the model, with the mixture ln q_sym(x).
    ln_q: Array1<f64>,
    /// (draw).
    ln_pi: Array1<f64>,
}

/// Draws `count` samples of the trained flow of a task file and writes them to `output`.
///
/// # Errors
/// As [`Trained::load`] and [`check_output`], a density is not a finite number, or the file cannot be written.
pub fn sample(task: &Path, count: usize, seed: u64, output: &Path) -> Result<()> {
    check_output(task, output)?;
    let trained = Trained::load(task)?;
    let samples = draw(&trained, count, seed);
    for (name, values) in [("ln q", &samples.ln_q), ("ln pi", &samples.ln_pi)] {
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Error::NotFinite { quantity: format!("{name} of a sample") });
        }
    }
    write_hdf5(output, |file| fill(file, &trained, seed, &samples))
}

fn draw(trained: &Trained, count: usize, seed: u64) -> Samples {
    let model = &trained.model;
    let sites = model.flow.architecture.sites();
    let random = trained.task.streams().derived(seed).at(Stage::Sample, 0);
    let mut samples = Samples {
        fields: Array2::zeros((0, sites)),
        latents: Array2::zeros((0, sites)),
        signs: Array1::zeros(0),
        ln_q: Array1::zeros(0),
        ln_pi: Array1::zeros(0),
    };
    for first in (0..count).step_by(BATCH) {
        let z = random.normals(Use::Latents, first..count.min(first + BATCH), sites);
        let draw = model.draw(z.view());
        let signs = draw_signs(z.nrows(), model.symmetry(), &random, first);
        let fields = draw.field * signs.view().insert_axis(Axis(1));
        append(&mut samples.fields, fields);
        append(&mut samples.latents, z);
        append(&mut samples.signs, signs);
        append(&mut samples.ln_q, draw.ln_q);
        append(&mut samples.ln_pi, draw.ln_pi);
    }
    samples
}

fn append<D: ndarray::RemoveAxis>(all: &mut ndarray::Array<f64, D>, batch: ndarray::Array<f64, D>) {
    all.append(Axis(0), batch.view()).expect("all batches have one shape");
}

fn fill(file: &hdf5::File, trained: &Trained, seed: u64, samples: &Samples) -> hdf5::Result<()> {
    let task = &trained.task;
    write_text(file, "format", schema::SAMPLES_FORMAT)?;
    write_number(file, "format_version", schema::SAMPLES_FORMAT_VERSION)?;
    write_text(file, "code_version", crate::VERSION)?;
    write_text(file, "task", &task.name())?;
    write_number(file, "linear_size", task.linear_size as u64)?;
    write_number(file, "temperature", task.temperature)?;
    write_number(file, "depth", task.depth as u64)?;
    write_number(file, "seed", seed)?;
    for (item, values) in [(schema::FIELD, &samples.fields), (schema::LATENT, &samples.latents)] {
        let values = on_lattice(values.view());
        match trained.config.run.precision {
            Precision::F64 => write_array(file, &item, values)?,
            Precision::F32 => write_array(file, &item, values.mapv(|value| value as f32).view())?,
        }
    }
    write_array(file, &schema::SIGN, samples.signs.mapv(|sign| sign as i8).view())?;
    write_array(file, &schema::LN_Q, samples.ln_q.view())?;
    write_array(file, &schema::LN_PI, samples.ln_pi.view())
}
