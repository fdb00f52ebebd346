//! Small flows of preset `best`, trained in seconds, for tests of sampling.

use std::path::Path;

use neuralrg::config::Config;
use neuralrg::engine::Model;
use neuralrg::engine::device::Device;
use neuralrg::flow::{Architecture, Flow};
use neuralrg::seed::Stage;
use neuralrg::targets::Target;
use neuralrg::task::Task;
use neuralrg::train::train;

/// A flow with three narrow couplings a layer, trained for `steps` steps.
pub fn trained(linear_size: usize, temperature: f64, steps: i64) -> Model {
    trained_as("couplings = 3\nhidden_width = 12", linear_size, temperature, steps)
}

/// A flow of preset `best` but for `overrides`, lines of section `flow`, trained for `steps` steps.
pub fn trained_as(overrides: &str, linear_size: usize, temperature: f64, steps: i64) -> Model {
    let depth = linear_size.ilog2() as usize;
    trained_to_depth(overrides, (linear_size, depth), temperature, steps)
}

/// The same with so many levels.
pub fn trained_to_depth(
    overrides: &str,
    (linear_size, depth): (usize, usize),
    temperature: f64,
    steps: i64,
) -> Model {
    let text = format!(
        "[sweep]\nname = 'test'\nlinear_size = {linear_size}\ntemperatures = [{temperature}]\ndepths = [{depth}]\n\
         [flow]\npreset = 'best'\n{overrides}\n[train]\nsteps = {steps}\n"
    );
    let config = Config::parse(&text, Path::new("test.toml")).unwrap();
    let seed = Task { linear_size, temperature, depth, seed: 1 }.streams();
    let architecture = Architecture::new(linear_size, depth, 1, &config.flow);
    let flow = Flow::initialize(architecture, &seed.at(Stage::Initialize, 0));
    let mut model =
        Model::new(flow, Target::ising_dual(linear_size), temperature, &config.run, Device::Cpu);
    train(&mut model, &config.train, 0.0, &seed, |_, _| ()).unwrap();
    model
}
