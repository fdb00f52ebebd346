//! `neuralrg modes`: what the modes of a finished canonical transformation are in given coordinates.

use std::path::Path;

use hdf5::types::VarLenUnicode;
use ndarray::{Array1, Array2, Axis};

use super::trained::check_output;
use crate::canonical::source::read_coordinates;
use crate::config::canonical::CanonicalConfig;
use crate::config::command::CommandConfig;
use crate::engine::config::EngineChoice;
use crate::engine::{self, SymplecticModel, device};
use crate::error::{Error, Result};
use crate::files::content::{write_array, write_hdf5, write_number, write_text};
use crate::files::schema;
use crate::files::seal::{self, Seal};
use crate::flow::symplectic::SymplecticFlow;
use crate::train::data::check_finite_samples;

/// Writes the `count` slowest modes, or all, of the samples in a data file to `output`, in its order.
///
/// # Errors
/// A file cannot be read, or has other coordinates; this program has no torch; a mode is not a finite number; or the output cannot be
/// written.
pub fn modes(file: &Path, data: &Path, count: Option<usize>, output: &Path) -> Result<()> {
    for input in [file, data] {
        check_output(input, output)?;
    }
    engine::check_symplectic_built()?;
    let (config, flow) = load(file)?;
    let coordinates = flow.coordinates;
    let (_, samples) = read_coordinates(data, config.source.scale)?;
    let problem = |problem: String| Error::UnusableData { path: data.into(), problem };
    if samples.ncols() != coordinates {
        let found = samples.ncols();
        return Err(problem(format!(
            "it has {found} coordinates, the transformation {coordinates}"
        )));
    }
    check_finite_samples(samples.view(), data)?;

    let (run, choice) = config.run.on_this_machine();
    let device = device::select(EngineChoice::Torch, choice, 0)?;
    let slowest = flow.slowest();
    let slowest = &slowest[..count.unwrap_or(coordinates).min(coordinates)];
    let frequencies = flow.frequencies().select(Axis(0), slowest);
    let model = SymplecticModel::new(flow, None, &run, device)?;
    let mut values = Array2::<f32>::zeros((samples.nrows(), slowest.len()));
    let parts = values.axis_chunks_iter_mut(Axis(0), PART);
    for (mut values, samples) in parts.zip(samples.axis_chunks_iter(Axis(0), PART)) {
        let z = model.inverse(samples.mapv(f64::from).view()).field;
        values.assign(&z.select(Axis(1), slowest).mapv(|value| value as f32));
    }
    let unknown = values.outer_iter().position(|row| row.iter().any(|value| !value.is_finite()));
    if let Some(sample) = unknown {
        return Err(Error::NotFinite { quantity: format!("a mode of sample {sample}") });
    }
    write_hdf5(output, |file| fill(file, &values, &frequencies))
}

/// Samples that are in memory in the engine's precision at once.
const PART: usize = 1 << 14;

/// The flow of a file of `neuralrg canonical`, and the configuration that it was trained with.
fn load(path: &Path) -> Result<(CanonicalConfig, SymplecticFlow)> {
    let unusable =
        |problem: &str| Error::UnusableData { path: path.into(), problem: problem.into() };
    let is_finished = seal::check_hdf5(path).map_err(Error::io("read", path))? == Seal::Intact
        && hdf5::File::open(path).is_ok_and(|file| file.link_exists(schema::MODES));
    if !is_finished {
        return Err(unusable("it is no finished file of `neuralrg canonical`"));
    }
    let read = || -> hdf5::Result<_> {
        let file = hdf5::File::open(path)?;
        let text: VarLenUnicode = file.dataset(schema::CONFIGURATION.name)?.read_scalar()?;
        let whole = |name: &str| file.attr(name)?.read_scalar::<u64>();
        let shape = (whole("coordinates")? as usize, whole("seed")?);
        let model = file.group(schema::MODEL)?;
        let parameters: Array1<f64> = model.dataset(schema::PARAMETERS.name)?.read()?;
        let frozen: Array2<u8> = model.dataset(schema::FROZEN.name)?.read()?;
        Ok((text, shape, parameters, frozen))
    };
    let (text, shape, parameters, frozen) = read().map_err(|error| unusable(&error.to_string()))?;
    let config = CanonicalConfig::parse(&text, path)?;
    let flow = SymplecticFlow::with_parameters(shape, &config.flow, parameters);
    let flow = flow.map_err(|problem| unusable(&problem))?;
    if flow.frozen() != frozen {
        return Err(unusable(
            "its couplings freeze other coordinates (model/frozen) than this version draws for its seed",
        ));
    }
    Ok((config, flow))
}

fn fill(file: &hdf5::File, values: &Array2<f32>, frequencies: &Array1<f64>) -> hdf5::Result<()> {
    write_text(file, "format", schema::MODES_FORMAT)?;
    write_number(file, "format_version", schema::MODES_FORMAT_VERSION)?;
    write_text(file, "code_version", crate::VERSION)?;
    let [frequency, _] = &schema::FREQUENCIES;
    write_array(file, frequency, frequencies.view())?;
    write_array(file, &schema::MODE_VALUES, values.view())
}
