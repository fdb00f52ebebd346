//! The engine for GPUs on a GPU: whether it agrees with the native engine, and how long it takes.
//!
//! `cargo bench --bench gpu` where there is a GPU; `make gpu-check` calls it beside more, also on machines without this
//! project. `gpu check FLOW L` only compares one flow, `gpu times` only measures. The exit status tells of disagreements.

#![allow(clippy::print_stdout, reason = "what it measures is its output")]

use std::process::ExitCode;
use std::time::Instant;

use ndarray::{Array1, ArrayView2, aview1};

use neuralrg::config::Config;
use neuralrg::engine::config::{Estimator, Precision};
use neuralrg::engine::cuda::{self, Cuda, Gpu};
use neuralrg::engine::native::in_precision;
use neuralrg::engine::{Batch, Engine};
use neuralrg::flow::config::Symmetry;
use neuralrg::flow::coupling::Coupling;
use neuralrg::flow::{Architecture, Flow};
use neuralrg::random::{Random, Use};
use neuralrg::targets::Target;
use neuralrg::train::adam::Adam;

const CRITICAL_TEMPERATURE: f64 = 2.269185314213022;
/// Deviation from the start, so that no gradient is small.
const KICK: f64 = 0.05;
/// Presets with the symmetries that they do not have.
const FLOWS: [(&str, &str); 3] = [
    ("best", "preset = 'best'"),
    ("paper", "preset = 'paper'"),
    ("mixture", "preset = 'paper'\nsymmetry = 'mixture'"),
];
/// Lattices with the batches that are measured.
const TIMED: [(usize, usize); 9] = [
    (8, 512),
    (16, 64),
    (16, 512),
    (16, 2112),
    (32, 512),
    (64, 64),
    (64, 264),
    (128, 64),
    (128, 132),
];
/// Seconds that a measurement takes about, of the GPU and of the cores.
const SECONDS: [f64; 2] = [0.5, 0.5];

fn main() -> ExitCode {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let gpu = match cuda::count().and_then(|_| Gpu::open(0)) {
        Ok(gpu) => gpu,
        Err(problem) => {
            eprintln!("gpu: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let agrees = match arguments[..] {
        ["check", flow, size] => check(flow, size.parse().expect("L is a number")),
        ["times"] => {
            times(&gpu);
            true
        }
        [] => {
            let all = FLOWS.iter().flat_map(|(flow, _)| [4, 8, 16].map(|size| check(flow, size)));
            let agrees = all.fold(true, |all, agrees| all & agrees);
            times(&gpu);
            agrees
        }
        _ => {
            eprintln!("gpu: usage: gpu [check FLOW L | times]");
            false
        }
    };
    if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Setup {
    config: Config,
    flow: Flow,
    target: Target,
}

fn set_up(linear_size: usize, flow: &str) -> Setup {
    let depth = linear_size.ilog2();
    let text = format!(
        "[sweep]\nname = 'gpu'\nlinear_size = {linear_size}\ndepths = [{depth}]\n\
         temperatures = [{CRITICAL_TEMPERATURE}]\n[flow]\n{flow}\n"
    );
    let config = Config::parse(&text, "gpu".as_ref()).expect("the bench's configuration");
    let architecture = Architecture::new(linear_size, depth as usize, 1, &config.flow);
    let random = Random::new(1);
    let mut flow = Flow::initialize(architecture, &random);
    let kick = random.normals(Use::Momenta, 0..1, flow.parameters.len());
    flow.parameters.scaled_add(KICK, &kick.row(0));
    Setup { config, flow, target: Target::ising_dual(linear_size) }
}

impl Setup {
    fn cuda(&self, precision: Precision) -> Box<dyn Engine> {
        let gpu = Gpu::open(0).expect("it was opened before");
        let (architecture, couplings) = (&self.flow.architecture, self.flow.couplings());
        let cuda = Cuda::new(architecture, couplings, Some(&self.target), precision, gpu);
        Box::new(cuda.expect("presets have all that the kernels need"))
    }

    fn native(&self, precision: Precision) -> Box<dyn Engine> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (architecture, couplings) = (&self.flow.architecture, self.flow.couplings());
        in_precision(precision, architecture, couplings, Some(&self.target), threads)
    }

    fn weight(&self) -> f64 {
        match self.config.flow.symmetry {
            Symmetry::Regularizer => self.config.flow.symmetry_weight,
            Symmetry::None | Symmetry::Construction | Symmetry::Mixture => 0.0,
        }
    }
}

/// All that an engine computes, by names.
fn evaluations(
    setup: &Setup,
    engine: &dyn Engine,
    x: ArrayView2<f64>,
) -> Vec<(&'static str, Array1<f64>)> {
    let parameters = setup.flow.parameters.view();
    let sites = setup.flow.architecture.sites();
    let random = Random::new(2);
    let (batch, t) = (x.nrows(), CRITICAL_TEMPERATURE);
    let z = random.normals(Use::Latents, 0..batch, sites);
    // Two temperatures.
    let temperatures: Vec<f64> = (0..batch).map(|i| if i < batch / 3 { 2.0 } else { t }).collect();
    let given = Batch::new(z.view(), aview1(&temperatures));
    let x = Batch::new(x, aview1(&temperatures));
    let flat = |fields: ndarray::Array2<f64>| fields.flatten().to_owned();
    let draw = engine.draw(parameters, Batch::prior(&random, 0..batch, sites, &t));
    let potential = engine.potential(parameters, given);
    let likelihood = engine.likelihood_loss(parameters, x);
    let mut all = vec![
        ("draws from the prior", flat(draw.field)),
        ("ln q", draw.ln_q),
        ("ln π", draw.ln_pi),
        ("potential", potential.energy),
        ("force", flat(potential.gradient)),
        ("likelihood loss", likelihood.values),
        ("its gradient", likelihood.gradient),
        ("ln q of fields", engine.ln_likelihood(parameters, x)),
        ("inverse", flat(engine.inverse(parameters, x).field)),
        ("derivatives", engine.inverse_derivatives(parameters, x, &[0, 5]).flatten().to_owned()),
    ];
    for (estimator, names) in [
        (Estimator::Total, ["loss", "its total gradient"]),
        (Estimator::Path, ["loss", "its path gradient"]),
    ] {
        let loss = engine.loss(parameters, given, setup.weight(), estimator);
        all.extend([(names[0], loss.values), (names[1], loss.gradient)]);
    }
    all
}

/// Largest difference, in units of the larger one of 1 and the largest expected number.
fn error(found: &Array1<f64>, expected: &Array1<f64>) -> f64 {
    let largest = expected.iter().fold(1.0f64, |largest, value| largest.max(value.abs()));
    found.iter().zip(expected).fold(0.0, |worst: f64, (a, b)| {
        let difference = (a - b).abs() / largest;
        if difference.is_nan() { f64::INFINITY } else { worst.max(difference) }
    })
}

/// Whether the engine agrees with the native one, to 1e-10 in f64; to 1e-5 in f32, or to three times the native engine's own error
/// there. And whether it says the same twice.
fn check(name: &str, linear_size: usize) -> bool {
    let (name, text) =
        FLOWS.iter().find(|(flow, _)| *flow == name).expect("flows: best, paper, mixture");
    let setup = set_up(linear_size, text);
    // Several samples in a block where the lattice is small.
    let batch = if linear_size <= 16 { 301 } else { 7 };
    let z = Random::new(3).normals(Use::Latents, 0..batch, linear_size * linear_size);
    let exact = setup.native(Precision::F64);
    let batch = Batch::uniform(z.view(), &CRITICAL_TEMPERATURE);
    let fields = exact.draw(setup.flow.parameters.view(), batch).field;
    let fields = fields.mapv(|value| f64::from(value as f32));
    let all = |engine: &dyn Engine| evaluations(&setup, engine, fields.view());
    let exact = all(&*exact);
    let mut agrees = true;
    for precision in [Precision::F32, Precision::F64] {
        // In f64 the largest lattices do not fit.
        if precision == Precision::F64 && linear_size > 32 {
            continue;
        }
        let cuda = setup.cuda(precision);
        let found = all(&*cuda);
        let rounded = all(&*setup.native(precision));
        let mut worst = (0.0, "");
        for (((what, found), (_, rounded)), (_, exact)) in found.iter().zip(&rounded).zip(&exact) {
            let bound = match precision {
                Precision::F32 => 1e-5f64.max(3.0 * error(rounded, exact)),
                Precision::F64 => 1e-10,
            };
            let error = error(found, exact);
            agrees &= error < bound;
            if error >= bound {
                println!(
                    "DISAGREES: {name}, L = {linear_size}, {precision:?}, {what}: {error:e}, allowed {bound:e}"
                );
            }
            if error > worst.0 {
                worst = (error, *what);
            }
        }
        let same = all(&*cuda) == found;
        agrees &= same;
        println!(
            "{name}, L = {linear_size}, {precision:?}: largest error {:.1e} ({}), {}",
            worst.0,
            worst.1,
            if same { "the same bits again" } else { "OTHER BITS THE SECOND TIME" }
        );
    }
    agrees
}

/// Median seconds of a call after two others.
fn median(seconds: f64, mut call: impl FnMut()) -> f64 {
    call();
    call();
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || (start.elapsed().as_secs_f64() < seconds && times.len() < 200) {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Seconds of a training step, a leapfrog step (one potential with its force) and a draw.
fn seconds_of(setup: &Setup, engine: &dyn Engine, batch: usize, seconds: f64) -> [f64; 3] {
    let config = &setup.config;
    let (random, sites) = (Random::new(4), setup.flow.architecture.sites());
    let mut parameters = setup.flow.parameters.clone();
    let mut adam = Adam::new(parameters.len(), parameters.len(), &config.train);
    let estimator = config.train.estimator;
    let prior = || Batch::prior(&random, 0..batch, sites, &CRITICAL_TEMPERATURE);
    let step = median(seconds, || {
        let loss = engine.loss(parameters.view(), prior(), setup.weight(), estimator);
        adam.step(&mut parameters, loss.gradient.view(), 1e-6);
    });
    let z = random.normals(Use::Latents, 0..batch, sites);
    let chains = Batch::uniform(z.view(), &CRITICAL_TEMPERATURE);
    let parameters = setup.flow.parameters.view();
    let leapfrog = median(seconds, || drop(engine.potential(parameters, chains)));
    let draw = median(seconds, || drop(engine.draw(parameters, prior())));
    [step, leapfrog, draw]
}

/// Operations of the networks' products in a training step: forward; with the score, its pull-back; when couplings are undone,
/// forward again, its pull-back and the weights' gradient. With -x the inverse and the last three again.
fn flops_of_step(setup: &Setup, batch: usize) -> f64 {
    let couplings = setup.flow.couplings().iter();
    let products: usize = couplings.map(Coupling::multiplications).sum();
    let score = usize::from(setup.config.train.estimator == Estimator::Path);
    let mirror = if setup.config.flow.needs_inverse() { 4 } else { 0 };
    (2 * products * batch * (4 + score + mirror)) as f64
}

fn times(gpu: &Gpu) {
    let rates = gpu.rates();
    println!(
        "{} multiplies and adds {:.1} TFLOP/s in f32, copies {:.2} TB/s.\n",
        gpu.name(),
        rates.flops / 1e12,
        rates.bytes / 1e12
    );
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!(
        "| preset | L | batch | training step (ms) | of the f32 rate | leapfrog step (ms) | draw (ms) \
         | step on {cores} cores (ms) | leapfrog | draw |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (name, text) in &FLOWS[..2] {
        for (linear_size, batch) in TIMED {
            let setup = set_up(linear_size, text);
            let gpu = seconds_of(&setup, &*setup.cuda(Precision::F32), batch, SECONDS[0]);
            let share = flops_of_step(&setup, batch) / gpu[0] / rates.flops;
            let cpu = seconds_of(&setup, &*setup.native(Precision::F32), batch, SECONDS[1]);
            let [gpu, cpu] =
                [gpu, cpu].map(|seconds| seconds.map(|second| format!("{:.3}", 1e3 * second)));
            println!(
                "| {name} | {linear_size} | {batch} | {} | {:.1} % | {} | {} | {} | {} | {} |",
                gpu[0],
                100.0 * share,
                gpu[1],
                gpu[2],
                cpu[0],
                cpu[1],
                cpu[2]
            );
        }
    }
}
