//! One training step and one leapfrog step of the paper's network (10 couplings, 3 hidden layers of 10
//! neurons, mixture, full depth) at batch 512.
//!
//! `cargo bench` uses all cores of the machine; `NEURALRG_THREADS=1 cargo bench` one.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tch::{Device, Kind, Tensor};

use neuralrg::adam::Adam;
use neuralrg::config::FlowConfig;
use neuralrg::flow::{Architecture, Flow};
use neuralrg::hmc::{State, latent_potential, leapfrog};
use neuralrg::ising::Target;
use neuralrg::train::Loss;

const BATCH: i64 = 512;
const CRITICAL_TEMPERATURE: f64 = 2.269185314213022;

struct Setup {
    flow: Flow,
    target: Target,
    z: Tensor,
}

fn set_up(linear_size: usize) -> Setup {
    neuralrg::host::keep_freed_memory();
    if let Ok(threads) = std::env::var("NEURALRG_THREADS") {
        tch::set_num_threads(threads.parse().expect("NEURALRG_THREADS is a number"));
    }
    tch::manual_seed(1);
    let config = FlowConfig::default();
    let depth = linear_size.ilog2() as usize;
    let architecture = Architecture::new(linear_size, depth, &config);
    let flow = Flow::initialize(architecture, config.symmetry, Kind::Float, Device::Cpu);
    let target = Target::new(linear_size, CRITICAL_TEMPERATURE, Kind::Float, Device::Cpu);
    let size = linear_size as i64;
    Setup { flow, target, z: Tensor::randn([BATCH, size, size], (Kind::Float, Device::Cpu)) }
}

fn train_step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("train_step");
    group.sample_size(10);
    for linear_size in [4, 8, 16] {
        let Setup { mut flow, target, z } = set_up(linear_size);
        let mut adam = Adam::new(&flow.parameters, 0.0);
        let always = Tensor::from(1i64).to_kind(Kind::Bool);
        group.bench_function(BenchmarkId::from_parameter(linear_size), |bencher| {
            bencher.iter(|| {
                let objective = Loss::new(&flow.bind(), &target, &z).objective(0.0);
                let gradient =
                    Tensor::run_backward(&[objective], &[&flow.parameters], false, false);
                adam.step(&mut flow.parameters, &gradient[0], 1e-3, &always);
            });
        });
    }
    group.finish();
}

fn leapfrog_step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("leapfrog_step");
    group.sample_size(10);
    for linear_size in [4, 8, 16] {
        let Setup { flow, target, z } = set_up(linear_size);
        let frozen = flow.bind_frozen();
        let potential = |z: &Tensor| latent_potential(&frozen, &target, z);
        let state = State::new(&potential, &z);
        let momentum = z.randn_like();
        group.bench_function(BenchmarkId::from_parameter(linear_size), |bencher| {
            bencher.iter(|| black_box(leapfrog(&potential, &state, &momentum, 0.01, 1)));
        });
    }
    group.finish();
}

criterion_group!(benches, train_step, leapfrog_step);
criterion_main!(benches);
