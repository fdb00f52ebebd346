//! `neuralrg learn`: one flow that learns from pictures by maximum likelihood, from start to end.

use std::path::Path;

use ndarray::{Array1, Array2, Array3, Axis, stack};

use super::outcome::{Begun, Outcome, begin, checkpoints};
use crate::config::command::CommandConfig;
use crate::config::learn::LearnConfig;
use crate::engine::device::{self, Device};
use crate::engine::{self, Model};
use crate::error::Result;
use crate::files::content::{
    write_array, write_configuration, write_hdf5, write_known_numbers, write_number, write_text,
};
use crate::files::state::Saved;
use crate::files::{Numbers, schema};
use crate::flow::arrangement::without_finer;
use crate::flow::coupling::Half;
use crate::flow::{Architecture, Flow};
use crate::lattice::on_lattice;
use crate::random::Use;
use crate::seed::{Stage, TaskSeed};
use crate::signals::Stop;
use crate::task::checkpoint::Checkpoints;
use crate::task::judgement::check_finite;
use crate::task::numbers;
use crate::task::run::with_learning_rates;
use crate::task::writing::write_training;
use crate::train::data::Data;
use crate::train::{Objective, Progress, Training};

/// Everything that a finished learning leaves behind.
#[derive(Debug)]
struct Learned {
    /// The resolved configuration, as TOML.
    configuration: String,
    linear_size: usize,
    parameters: Array1<f64>,
    halves: Vec<Half>,
    /// (quantity, step), quantities as in [`schema::TRAIN_HISTORY`].
    history: Array2<f64>,
    held_out: Numbers,
    /// (sample, N).
    samples: Array2<f64>,
    /// (level, sample, N).
    levels: Array3<f64>,
}

/// Trains the flow of a configuration and writes `output`, or goes on from its checkpoint, which lies beside. Returns what
/// the flow makes of the held-out pictures. A finished output of the same configuration is left as it is.
///
/// # Errors
/// Configuration, data, device or output; the training diverges; or it was asked to stop, with everything saved.
pub fn learn(config_path: &Path, output: &Path, stop: Stop) -> Result<Numbers> {
    let (config, output) = match begin::<LearnConfig>(config_path, output, LEARNED)? {
        Begun::Finished(numbers) => return Ok(numbers),
        Begun::Unfinished(config, output) => (config, output),
    };
    engine::check_built(config.run.engine)?;
    let device = device::select(config.run.engine, config.run.device_choice(), 0)?;
    let data = Data::of_pictures(&config.data)?;
    config.check_lattice(data.linear_size(), config_path)?;
    let mut checkpoints = checkpoints(&config, &output, LEARNED, stop)?;
    let learned = train(&config, &data, device, &mut checkpoints)?;
    write_hdf5(&output, |file| fill(file, &learned, &config, &data))?;
    checkpoints.remove();
    Ok(learned.held_out)
}

const LEARNED: Outcome =
    Outcome { command: "neuralrg learn", group: schema::HELD_OUT, items: schema::HELD_OUT_SCALARS };

/// Builds, trains, judges and generates.
fn train(
    config: &LearnConfig,
    data: &Data,
    device: Device,
    checkpoints: &mut Checkpoints,
) -> Result<Learned> {
    let (linear_size, depth) = (data.linear_size(), config.learn.depth);
    let seed = TaskSeed::of_pictures(linear_size, depth, config.learn.seed);
    let architecture = Architecture::new(linear_size, depth, config.learn.seed, &config.flow);
    let random = seed.at(Stage::Initialize, 0);
    let flow = Flow::initialize(architecture, &random);
    let mut model = Model::without_target(flow, &config.run, device);

    let mut training = Training::new(&model, &config.train);
    let restore = |state: &Saved| training.restore(&mut model, &config.train, state);
    if checkpoints.restored("train", restore).is_some() {
        log::info!("goes on after {} s", checkpoints.seconds().round());
    }
    let objective = Objective::ForwardKl(data);
    training.run(&mut model, &config.train, objective, &seed, |training, model, progress| {
        tell(progress, config.train.steps);
        checkpoints.step("train", || (training.state(model), None))
    })?;
    checkpoints.finish("train", training.state(&model));
    // What follows may take long, and the output may not be writable any more.
    checkpoints.save_finished(None);
    let history = training.history();

    let held_out = numbers::of_held_out(&data.judge(&model, None));
    check_finite(&held_out)?;
    let (random, samples) = (seed.at(Stage::Evaluate, 0), 0..config.learn.samples as usize);
    let z = random.normals(Use::Latents, samples, linear_size * linear_size);
    Ok(Learned {
        configuration: config.to_toml(),
        linear_size,
        halves: model.flow.architecture.halves(),
        history: with_learning_rates(&history),
        held_out,
        samples: model.draw(z.view()).field,
        levels: by_level(&model, &z),
        parameters: model.flow.parameters,
    })
}

fn tell(progress: Progress, steps: i64) {
    if let Progress { step, loss: Some((loss, error)), .. } = progress {
        log::info!("step {step}/{steps}: -ln q = {loss:.3} ± {error:.3} nat");
    }
}

/// The fields of latents z of which those below each level are zero. Shapes: (batch, N) → (level, batch, N).
fn by_level(model: &Model, z: &Array2<f64>) -> Array3<f64> {
    let architecture = &model.flow.architecture;
    let field = |level| model.draw(without_finer(architecture, z.view(), level).view()).field;
    let fields: Vec<_> = (0..=architecture.depth).map(field).collect();
    let views: Vec<_> = fields.iter().map(Array2::view).collect();
    stack(Axis(0), &views).expect("all levels have the same shape")
}

fn fill(
    file: &hdf5::File,
    learned: &Learned,
    config: &LearnConfig,
    data: &Data,
) -> hdf5::Result<()> {
    write_text(file, "format", schema::LEARNED_FORMAT)?;
    write_number(file, "format_version", schema::LEARNED_FORMAT_VERSION)?;
    write_text(file, "code_version", crate::VERSION)?;
    write_number(file, "linear_size", learned.linear_size as u64)?;
    write_number(file, "depth", config.learn.depth as u64)?;
    write_number(file, "seed", config.learn.seed)?;
    write_configuration(file, &learned.configuration)?;
    let group = file.create_group(schema::HELD_OUT)?;
    write_known_numbers(&group, schema::HELD_OUT_SCALARS.iter(), &learned.held_out)?;
    write_training(file, learned.parameters.view(), &learned.halves, &learned.history)?;
    let group = file.create_group(schema::EVALUATE)?;
    write_array(&group, &schema::SAMPLES, on_lattice(learned.samples.view()))?;
    write_array(&group, &schema::LEVELS, on_lattice(learned.levels.view()))?;
    if let Some(pixels) = &data.pixels {
        pixels.write(file, &group)?;
    }
    write_number(file, schema::COMPLETE, 1u8)
}
