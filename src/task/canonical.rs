//! `neuralrg canonical`: symplectic flows of one source, from start to end.

use std::path::Path;

use ndarray::{Array1, Array2, Array3, Axis};

use super::outcome::{Begun, Outcome, begin, checkpoints};
use crate::canonical::Objective;
use crate::canonical::config::{CanonicalSection, LossChoice};
use crate::canonical::judgement::{FreeEnergies, HeldOut};
use crate::canonical::modes::{Modes, redrawn};
use crate::canonical::source::Coordinates;
use crate::config::canonical::CanonicalConfig;
use crate::config::command::CommandConfig;
use crate::engine::config::EngineChoice;
use crate::engine::device::{self, Device};
use crate::engine::{self, SymplecticModel};
use crate::error::{Error, Result};
use crate::files::content::{
    write_array, write_configuration, write_hdf5, write_known_numbers, write_number, write_text,
    write_texts,
};
use crate::files::state::Saved;
use crate::files::{Numbers, schema};
use crate::flow::symplectic::SymplecticFlow;
use crate::random::{Random, Use};
use crate::seed::{Stage, TaskSeed};
use crate::signals::Stop;
use crate::targets::surface::Surface;
use crate::task::checkpoint::Checkpoints;
use crate::task::judgement::check_finite;
use crate::task::run::with_learning_rates;
use crate::task::writing::write_training;
use crate::train::{Progress, Training};

/// Held-out samples that are redrawn from their slowest modes.
const REDRAWN_SAMPLES: usize = 16;

/// What the flows learn from.
struct Source {
    surface: Option<Surface>,
    data: Option<Coordinates>,
    coordinates: usize,
}

/// One training, and what it is worth.
struct Trained {
    seed: u64,
    model: SymplecticModel,
    /// (quantity, step), quantities as in [`schema::TRAIN_HISTORY`].
    history: Array2<f64>,
    numbers: Numbers,
    /// Variational free energy, or -ln ρ of held-out samples, with its error.
    loss: (f64, f64),
}

/// Everything that a finished command leaves behind.
struct Learned {
    best: Trained,
    /// Seeds with their losses, and their frequencies, ascending: (seed, mode).
    losses: Vec<(u64, (f64, f64))>,
    frequencies: Array2<f64>,
    modes: Modes,
    angle_names: Vec<String>,
    /// (sample, n).
    samples: Array2<f64>,
    /// (sample, n) and (kept, sample, n).
    redrawn: Option<(Array2<f64>, Array3<f64>)>,
}

/// Trains the flows of a configuration and writes `output`, or goes on from its checkpoint, which lies beside. Returns what the best
/// one is worth. A finished output of the same configuration is left as it is.
///
/// # Errors
/// Configuration, data, device or output; this program has no torch; a training diverges; or it was asked to stop, with everything
/// saved.
pub fn canonical(config_path: &Path, output: &Path, stop: Stop) -> Result<Numbers> {
    let (config, output) = match begin::<CanonicalConfig>(config_path, output, CANONICAL)? {
        Begun::Finished(numbers) => return Ok(numbers),
        Begun::Unfinished(config, output) => (config, output),
    };
    engine::check_symplectic_built()?;
    let device = device::select(EngineChoice::Torch, config.run.device_choice(), 0)?;
    let source = source(&config)?;
    config.check_coordinates(source.coordinates, config_path)?;
    let mut checkpoints = checkpoints(&config, &output, CANONICAL, stop)?;
    let learned = learn(&config, &source, device, &mut checkpoints)?;
    write_hdf5(&output, |file| fill(file, &learned, &config))?;
    checkpoints.remove();
    Ok(learned.best.numbers)
}

const CANONICAL: Outcome = Outcome {
    command: "neuralrg canonical",
    group: schema::SCALARS,
    items: schema::CANONICAL_SCALARS,
};

fn source(config: &CanonicalConfig) -> Result<Source> {
    let section = &config.source;
    let surface = section.surface();
    let data = match (surface, section.samples) {
        (Some(surface), Some(samples)) => {
            // The same for all seeds.
            let random = TaskSeed::of_coordinates(surface.coordinates(), 0);
            let counts = (samples as usize, section.held_out);
            Some(Coordinates::of_surface(surface, counts, &random.at(Stage::Reference, 0)))
        }
        (Some(_), None) => None,
        (None, _) => Some(Coordinates::read(section)?),
    };
    let of_data = || data.as_ref().expect("without surface there are data").coordinates();
    let coordinates = surface.map_or_else(of_data, Surface::coordinates);
    Ok(Source { surface, data, coordinates })
}

/// All trainings, and the description of the best one.
fn learn(
    config: &CanonicalConfig,
    source: &Source,
    device: Device,
    checkpoints: &mut Checkpoints,
) -> Result<Learned> {
    let seeds = &config.canonical.seeds;
    let mut frequencies = Array2::zeros((seeds.len(), source.coordinates));
    let (mut losses, mut best, mut failure) = (Vec::new(), None::<Trained>, None);
    for (&seed, mut row) in seeds.iter().zip(frequencies.outer_iter_mut()) {
        let trained = match train((config, seed), source, device, checkpoints) {
            Ok(trained) => trained,
            Err(error @ (Error::TrainingDiverged { .. } | Error::NotFinite { .. })) => {
                log::warn!("seed {seed} fails: {error}");
                row.fill(f64::NAN);
                losses.push((seed, (f64::NAN, f64::NAN)));
                failure = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let flow = &trained.model.flow;
        row.assign(&flow.frequencies().select(Axis(0), &flow.slowest()));
        losses.push((seed, trained.loss));
        if best.as_ref().is_none_or(|best| trained.loss.0 < best.loss.0) {
            best = Some(trained);
        }
    }
    let Some(best) = best else { return Err(failure.expect("each seed has succeeded or failed")) };
    let random = stream(source, best.seed);
    let (model, section) = (&best.model, &config.canonical);
    let draw = |count: usize, step| {
        let z = random.at(Stage::Sample, step).normals(Use::Latents, 0..count, source.coordinates);
        model.forward(z.view()).field
    };
    let (angle_names, modes) = describe(model, section, source, &draw);
    let redrawn = source.data.as_ref().filter(|_| !section.kept_modes.is_empty()).map(|data| {
        let originals = data.some_held_out(REDRAWN_SAMPLES);
        let random = random.at(Stage::Study, 0);
        let redrawn = redrawn(model, &section.kept_modes, originals.view(), &random);
        (originals, redrawn)
    });
    let samples = draw(section.samples as usize, 0);
    Ok(Learned { best, losses, frequencies, modes, angle_names, samples, redrawn })
}

/// The slowest modes, from samples with known angles: the data's, or the flow's own ones.
fn describe(
    model: &SymplecticModel,
    section: &CanonicalSection,
    source: &Source,
    draw: &dyn Fn(usize, i64) -> Array2<f64>,
) -> (Vec<String>, Modes) {
    let count = section.information as usize;
    let (names, (q, angles)) = match (&source.data, source.surface) {
        (Some(data), _) => (data.angle_names.clone(), data.thinned(count)),
        (None, surface) => {
            let q = draw(count, 1);
            let (names, angles) =
                surface.expect("without data there is a surface").angles(q.view());
            (names.into_iter().map(str::to_owned).collect(), (q, angles))
        }
    };
    (names, Modes::of(model, section.modes, (q.view(), angles.view())))
}

fn stream(source: &Source, seed: u64) -> TaskSeed {
    TaskSeed::of_coordinates(source.coordinates, seed)
}

/// Trains the flow of one seed, or goes on with it, and judges it.
fn train(
    (config, seed): (&CanonicalConfig, u64),
    source: &Source,
    device: Device,
    checkpoints: &mut Checkpoints,
) -> Result<Trained> {
    let streams = stream(source, seed);
    let data = source.data.as_ref();
    let training_data = data.map(|data| data.training.view());
    let shape = (source.coordinates, seed);
    let random = streams.at(Stage::Initialize, 0);
    let flow = SymplecticFlow::initialize(shape, &config.flow, training_data, &random);
    let mut model = SymplecticModel::new(flow, source.surface, &config.run, device)?;

    let mut training = Training::new(&model, &config.train);
    let stage = format!("train_{seed}");
    let restore = |state: &Saved| training.restore(&mut model, &config.train, state);
    if checkpoints.restored(&stage, restore).is_some() && !training.has_ended() {
        log::info!("seed {seed} goes on after {} s", checkpoints.seconds().round());
    }
    let (loss, momenta) = (config.canonical.loss, config.canonical.momenta);
    let objective = match (loss, training_data) {
        (LossChoice::Likelihood, Some(data)) => Objective::Likelihood(data, momenta),
        _ => Objective::Variational(momenta),
    };
    let steps = config.train.steps;
    let after_step = |training: &Training, model: &SymplecticModel, progress: Progress| {
        if let Some((loss, error)) = progress.loss {
            let step = progress.step;
            log::info!("seed {seed}, step {step}/{steps}: loss {loss:.3} ± {error:.3} nat");
        }
        checkpoints.step(&stage, || (training.state(model), None))
    };
    let trained = training.run(&mut model, &config.train, objective, &streams, after_step);
    if !matches!(trained, Err(Error::Stopped)) {
        // What follows may take long, the output may not be writable any more, and what diverged would do so again.
        checkpoints.finish(&stage, training.state(&model));
        checkpoints.save_finished(None);
    }
    trained?;
    let history = with_learning_rates(&training.history());
    let random = streams.at(Stage::Evaluate, 0);
    let (numbers, loss) = judge(&model, config, source, &random);
    check_finite(&numbers)?;
    Ok(Trained { seed, model, history, numbers, loss })
}

/// All numbers of a trained flow, and the one that trainings are compared by.
fn judge(
    model: &SymplecticModel,
    config: &CanonicalConfig,
    source: &Source,
    random: &Random,
) -> (Numbers, (f64, f64)) {
    let section = &config.canonical;
    let mut numbers = Numbers::new();
    let mut tell = |name: &str, (mean, error): (f64, f64)| {
        numbers.insert(name.to_owned(), mean);
        numbers.insert(format!("{name}_error"), error);
    };
    let mut loss = None;
    let mut known = Vec::new();
    if let Some(surface) = source.surface {
        let count = section.evaluate as usize;
        let found = FreeEnergies::of((model, surface), section.momenta, count, random);
        let exact = surface.free_energy();
        let of_momenta = 0.5 * source.coordinates as f64 * std::f64::consts::TAU.ln();
        let (mean, error) = found.phase_space;
        let weights = found.importance;
        tell("phase_free_energy", found.phase_space);
        tell("phase_gap", (mean - exact + of_momenta, error));
        tell("coordinate_free_energy", found.coordinates);
        tell("importance_free_energy", (weights.free_energy, weights.free_energy_error));
        known.extend([
            ("effective_sample_size", weights.effective_sample_size),
            ("largest_weight_share", weights.largest_weight_share),
            ("exact_free_energy", exact),
            ("exact_phase_free_energy", exact - of_momenta),
        ]);
        loss = Some(found.phase_space);
    }
    if let Some(data) = &source.data {
        let found = HeldOut::of(model, section.momenta, data.compared(), random);
        tell("phase_negative_ln_likelihood", found.phase_space);
        tell("training_phase_negative_ln_likelihood", found.training_phase_space);
        tell("negative_ln_likelihood", found.coordinates);
        tell("training_negative_ln_likelihood", found.training_coordinates);
        known.push(("held_out_samples", data.held_out.nrows() as f64));
        loss = Some(found.phase_space);
    }
    numbers.extend(known.into_iter().map(|(name, value)| (name.to_owned(), value)));
    (numbers, loss.expect("there is a surface or there are data"))
}

fn fill(file: &hdf5::File, learned: &Learned, config: &CanonicalConfig) -> hdf5::Result<()> {
    let Learned { best, losses, frequencies, modes, .. } = learned;
    let flow = &best.model.flow;
    write_text(file, "format", schema::CANONICAL_FORMAT)?;
    write_number(file, "format_version", schema::CANONICAL_FORMAT_VERSION)?;
    write_text(file, "code_version", crate::VERSION)?;
    write_number(file, "coordinates", flow.coordinates as u64)?;
    write_number(file, "seed", best.seed)?;
    if !learned.angle_names.is_empty() {
        write_texts(file, schema::ANGLE_NAMES, &learned.angle_names)?;
    }
    write_configuration(file, &config.to_toml())?;
    let group = file.create_group(schema::SCALARS)?;
    write_known_numbers(&group, schema::CANONICAL_SCALARS.iter(), &best.numbers)?;

    let group = file.create_group(schema::MODES)?;
    let [seed, seed_loss, seed_loss_error, seed_frequency] = &schema::OF_SEEDS;
    let seeds: Array1<u64> = losses.iter().map(|(seed, _)| *seed).collect();
    let means: Array1<f64> = losses.iter().map(|(_, (mean, _))| *mean).collect();
    let errors: Array1<f64> = losses.iter().map(|(_, (_, error))| *error).collect();
    write_array(&group, seed, seeds.view())?;
    write_array(&group, seed_loss, means.view())?;
    write_array(&group, seed_loss_error, errors.view())?;
    write_array(&group, seed_frequency, frequencies.view())?;
    let slowest = flow.slowest();
    let [frequency, frequency_error] = &schema::FREQUENCIES;
    write_array(&group, frequency, flow.frequencies().select(Axis(0), &slowest).view())?;
    if losses.len() > 1 {
        let there: Vec<usize> = (0..losses.len()).filter(|&i| losses[i].1.0.is_finite()).collect();
        let spread = match there.len() {
            1 => Array1::from_elem(flow.coordinates, f64::NAN),
            _ => frequencies.select(Axis(0), &there).std_axis(Axis(0), 1.0),
        };
        write_array(&group, frequency_error, spread.view())?;
    }
    let latents: Array1<u64> = slowest.iter().map(|&latent| latent as u64).collect();
    write_array(&group, &schema::MODE_LATENT, latents.view())?;
    let [response, path_position, path] = &schema::SLOW_MODES;
    write_array(&group, response, modes.responses.view())?;
    write_array(&group, path_position, modes.path_positions.view())?;
    write_array(&group, path, modes.paths.view())?;
    if !learned.angle_names.is_empty() {
        let [information, information_error] = &schema::MODE_INFORMATION;
        write_array(&group, information, modes.information.view())?;
        write_array(&group, information_error, modes.information_error.view())?;
    }

    write_training(file, flow.parameters.view(), &[], &best.history)?;
    write_array(&file.group(schema::MODEL)?, &schema::FROZEN, flow.frozen().view())?;
    let group = file.create_group(schema::EVALUATE)?;
    write_array(&group, &schema::CANONICAL_SAMPLES, learned.samples.view())?;
    if let Some((originals, redrawn)) = &learned.redrawn {
        let [kept_modes, original, values] = &schema::REDRAWN;
        let kept: Array1<u64> = config.canonical.kept_modes.iter().map(|&n| n as u64).collect();
        write_array(&group, kept_modes, kept.view())?;
        write_array(&group, original, originals.view())?;
        write_array(&group, values, redrawn.view())?;
    }
    write_number(file, schema::COMPLETE, 1u8)
}
