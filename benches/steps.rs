//! One training step, one leapfrog step and one draw, for both engines and presets at L = 8, 16, 32.
//!
//! `cargo bench` uses all cores of the machine; `NEURALRG_THREADS=1 cargo bench` one. Names are
//! `train_step/ENGINE/FLOW/L`; a filter picks some: `cargo bench -- native/paper/16`. `paper-64` is preset
//! paper with 64 hidden neurons, `joint` has one network for s and t, fixed halves and the mixture.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use tch::{Device, Kind, Tensor};

use neuralrg::adam::Adam;
use neuralrg::config::{Config, EngineChoice, RunConfig};
use neuralrg::engine::Model;
use neuralrg::flow::{Architecture, Flow};
use neuralrg::hmc::{State, leapfrog};
use neuralrg::random::Random;

const BATCH: i64 = 512;
const CRITICAL_TEMPERATURE: f64 = 2.269185314213022;
const SIZES: [usize; 3] = [8, 16, 32];
const FLOWS: [(&str, &str); 4] = [
    ("paper", "preset = 'paper'"),
    ("paper-64", "preset = 'paper'\nhidden_width = 64"),
    ("joint", "networks = 'joint'\nsplits = 'cycle'\nsymmetry = 'mixture'"),
    ("best", "preset = 'best'"),
];
const ENGINES: [(&str, EngineChoice); 2] =
    [("native", EngineChoice::Native), ("torch", EngineChoice::Torch)];

struct Setup {
    config: Config,
    model: Model,
    z: Tensor,
}

fn set_up(linear_size: usize, flow: &str, engine: EngineChoice) -> Setup {
    neuralrg::host::keep_freed_memory();
    let threads = match std::env::var("NEURALRG_THREADS") {
        Ok(threads) => threads.parse().expect("NEURALRG_THREADS is a number"),
        Err(_) => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    tch::set_num_threads(threads as i32);
    tch::manual_seed(1);
    let depth = linear_size.ilog2() as usize;
    let text = format!(
        "[sweep]\nname = 'bench'\nlinear_size = {linear_size}\ndepths = [{depth}]\n\
         temperatures = [{CRITICAL_TEMPERATURE}]\n[flow]\n{flow}\n"
    );
    let config = Config::parse(&text, "bench".as_ref()).expect("the bench's configuration");
    let architecture = Architecture::new(linear_size, CRITICAL_TEMPERATURE, depth, 1, &config.flow);
    let flow = Flow::initialize(architecture, &Random::new(1), Kind::Float, Device::Cpu);
    let model = Model::new(flow, &RunConfig { engine, threads, ..Default::default() });
    let size = linear_size as i64;
    Setup { config, model, z: Tensor::randn([BATCH, size, size], (Kind::Float, Device::Cpu)) }
}

/// Calls `bench` with every engine, flow and size.
fn for_all(
    criterion: &mut Criterion,
    name: &str,
    bench: impl Fn(&mut BenchmarkGroup<WallTime>, BenchmarkId, &dyn Fn() -> Setup),
) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    for (engine_name, engine) in ENGINES {
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
            let Setup { config, mut model, z } = set_up();
            let mut adam =
                Adam::new(&model.flow.parameters, config.train.decay, config.train.weight_decay);
            let always = Tensor::from(1i64).to_kind(Kind::Bool);
            bencher.iter(|| {
                let loss = model.loss(&z, config.flow.symmetry_weight, config.train.estimator);
                adam.step(&mut model.flow.parameters, &loss.gradient, 1e-3, &always);
            });
        });
    });
}

fn leapfrog_step(criterion: &mut Criterion) {
    for_all(criterion, "leapfrog_step", |group, id, set_up| {
        group.bench_function(id, |bencher| {
            let Setup { model, z, .. } = set_up();
            let frozen = model.freeze();
            let potential = |z: &Tensor| frozen.potential(z);
            let state = State::new(&potential, &z);
            let momentum = z.randn_like();
            bencher.iter(|| black_box(leapfrog(&potential, &state, &momentum, 0.01, 1)));
        });
    });
}

fn draw(criterion: &mut Criterion) {
    for_all(criterion, "draw", |group, id, set_up| {
        group.bench_function(id, |bencher| {
            let Setup { model, z, .. } = set_up();
            let frozen = model.freeze();
            bencher.iter(|| black_box(frozen.draw(&z)));
        });
    });
}

criterion_group!(benches, train_step, leapfrog_step, draw);
criterion_main!(benches);
