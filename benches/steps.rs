//! One training step, one leapfrog step and one draw, for both engines and presets at L = 8, 16, 32.
//!
//! `cargo bench` uses all cores of the machine; `NEURALRG_THREADS=1 cargo bench` one. Names are
//! `train_step/ENGINE/FLOW/L`; a filter picks some: `cargo bench -- native/paper/16`. `paper-64` is preset
//! paper with 64 hidden neurons, `joint` has one network for s and t, fixed halves and the mixture.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use ndarray::{Array1, Array2, ArrayView2};

use neuralrg::config::Config;
use neuralrg::engine::Model;
use neuralrg::engine::config::{EngineChoice, RunConfig};
use neuralrg::engine::device::Device;
use neuralrg::flow::{Architecture, Flow};
use neuralrg::random::{Random, Use};
use neuralrg::sampling::hmc::{State, leapfrog};
use neuralrg::targets::Target;
use neuralrg::train::adam::Adam;

const BATCH: usize = 512;
const CRITICAL_TEMPERATURE: f64 = 2.269185314213022;
const SIZES: [usize; 3] = [8, 16, 32];
const FLOWS: [(&str, &str); 4] = [
    ("paper", "preset = 'paper'"),
    ("paper-64", "preset = 'paper'\nhidden_width = 64"),
    ("joint", "networks = 'joint'\nsplits = 'cycle'\nsymmetry = 'mixture'"),
    ("best", "preset = 'best'"),
];
const ENGINES: &[(&str, EngineChoice)] = &[
    ("native", EngineChoice::Native),
    #[cfg(feature = "torch")]
    ("torch", EngineChoice::Torch),
];

struct Setup {
    config: Config,
    model: Model,
    random: Random,
    /// (batch, N).
    z: Array2<f64>,
}

fn set_up(linear_size: usize, flow: &str, engine: EngineChoice) -> Setup {
    neuralrg::host::keep_freed_memory();
    let threads = match std::env::var("NEURALRG_THREADS") {
        Ok(threads) => threads.parse().expect("NEURALRG_THREADS is a number"),
        Err(_) => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    let depth = linear_size.ilog2() as usize;
    let text = format!(
        "[sweep]\nname = 'bench'\nlinear_size = {linear_size}\ndepths = [{depth}]\n\
         temperatures = [{CRITICAL_TEMPERATURE}]\n[flow]\n{flow}\n"
    );
    let config = Config::parse(&text, "bench".as_ref()).expect("the bench's configuration");
    let architecture = Architecture::new(linear_size, depth, 1, &config.flow);
    let random = Random::new(1);
    let z = random.normals(Use::Latents, 0..BATCH, architecture.sites());
    let flow = Flow::initialize(architecture, &random);
    let run = RunConfig { engine, threads, ..Default::default() };
    let target = Target::ising_dual(linear_size);
    let model = Model::new(flow, target, CRITICAL_TEMPERATURE, &run, Device::Cpu);
    Setup { config, model, random, z }
}

/// Calls `bench` with every engine, flow and size.
fn for_all(
    criterion: &mut Criterion,
    name: &str,
    bench: impl Fn(&mut BenchmarkGroup<WallTime>, BenchmarkId, &dyn Fn() -> Setup),
) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    for &(engine_name, engine) in ENGINES {
        for (flow_name, flow) in FLOWS {
            for linear_size in SIZES {
                let id = BenchmarkId::new(format!("{engine_name}/{flow_name}"), linear_size);
                bench(&mut group, id, &|| set_up(linear_size, flow, engine));
            }
        }
    }
    group.finish();
}

fn train_step(criterion: &mut Criterion) {
    for_all(criterion, "train_step", |group, id, set_up| {
        group.bench_function(id, |bencher| {
            let Setup { config, mut model, z, .. } = set_up();
            let count = model.flow.parameters.len();
            let mut adam = Adam::new(count, count, &config.train);
            let (weight, estimator) = (config.flow.symmetry_weight, config.train.estimator);
            bencher.iter(|| {
                let loss = model.loss(z.view(), weight, estimator);
                adam.step(&mut model.flow.parameters, loss.gradient.view(), 1e-3);
            });
        });
    });
}

fn leapfrog_step(criterion: &mut Criterion) {
    for_all(criterion, "leapfrog_step", |group, id, set_up| {
        group.bench_function(id, |bencher| {
            let Setup { model, random, z, .. } = set_up();
            let potential = |z: ArrayView2<f64>| model.potential(z);
            let state = State::new(&potential, z.view());
            let momentum = random.normals(Use::Momenta, 0..BATCH, z.ncols());
            let sizes = Array1::from_elem(BATCH, 0.01);
            let step = || leapfrog(&potential, &state, momentum.view(), sizes.view(), 1);
            bencher.iter(|| black_box(step()));
        });
    });
}

fn draw(criterion: &mut Criterion) {
    for_all(criterion, "draw", |group, id, set_up| {
        group.bench_function(id, |bencher| {
            let Setup { model, z, .. } = set_up();
            bencher.iter(|| black_box(model.draw(z.view())));
        });
    });
}

criterion_group!(benches, train_step, leapfrog_step, draw);
criterion_main!(benches);
