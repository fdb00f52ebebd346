//! The kernels' text on the host, held to the native engine on the table of all flows; and what NVRTC makes of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array, Array1, Array2, Dimension};

#[cfg(not(feature = "torch"))]
use super::compiler::Compiler;
use super::host::Host;
use super::program::lanes;
use super::*;
use crate::engine::native::in_precision;
use crate::flow::Flow;
use crate::flow::config::FlowConfig;
use crate::flow::tests::{architecture, architectures, random_flow, small_config};
use crate::random::{Random, Use};

/// Shared memory of a block, of sm_90 and of sm_80.
const SHARED_90: usize = 227 << 10;
const SHARED_80: usize = 163 << 10;
/// A GPU of which each block has several tiles.
const HOST: Host = Host { shared_limit: SHARED_90, multiprocessors: 2, most_blocks: 2 };
const TEMPERATURE: f64 = 2.3;

/// Largest difference, in units of the larger one of 1 and the largest expected number.
fn error<D: Dimension>(found: &Array<f64, D>, expected: &Array<f64, D>) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let largest = expected.iter().fold(1.0f64, |largest, value| largest.max(value.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst: f64, difference| {
        if difference.is_nan() { f64::INFINITY } else { worst.max(difference / largest) }
    })
}

/// All numbers of a flow that an engine computes.
struct Evaluations(Vec<(&'static str, Array1<f64>)>);

impl Evaluations {
    /// Of samples at two temperatures, more than a tile of each.
    fn new(engine: &dyn Engine, flow: &Flow, fields: Option<&Array2<f64>>) -> Self {
        let parameters = flow.parameters.view();
        let random = Random::new(5);
        let sites = flow.architecture.sites();
        let z = random.normals(Use::Latents, 3..22, sites);
        let temperatures: Array1<f64> = (0..z.nrows()).map(|i| [2.3, 2.0][i / 12]).collect();
        let batch = Batch::new(z.view(), temperatures.view());
        let mut all: Vec<(&'static str, Array1<f64>)> = Vec::new();

        let draw = engine.draw(parameters, batch);
        let prior = Batch::prior(&random, 3..22, sites, &TEMPERATURE);
        let drawn = engine.draw(parameters, prior);
        let x = fields.unwrap_or(&draw.field).clone();
        let x = Batch::new(x.view(), temperatures.view());
        all.push(("field", flat(draw.field.clone())));
        all.push(("ln q", draw.ln_q));
        all.push(("ln π", draw.ln_pi));
        all.push(("field of the prior", flat(drawn.field)));
        for (estimator, names) in [
            (Estimator::Total, ["total loss", "total gradient"]),
            (Estimator::Path, ["path loss", "path gradient"]),
        ] {
            let loss = engine.loss(parameters, batch, 0.7, estimator);
            assert_eq!(engine.loss(parameters, batch, 0.7, estimator), loss, "the same bits again");
            all.push((names[0], loss.values));
            all.push((names[1], loss.gradient));
            all.extend(loss.asymmetry.map(|asymmetry| ("asymmetry", asymmetry)));
        }
        let likelihood = engine.likelihood_loss(parameters, x);
        all.push(("likelihood", likelihood.values));
        all.push(("likelihood gradient", likelihood.gradient));
        all.push(("ln likelihood", engine.ln_likelihood(parameters, x)));
        let potential = engine.potential(parameters, batch);
        all.push(("potential", potential.energy));
        all.push(("force", flat(potential.gradient)));
        all.push(("field of the potential", flat(potential.field)));
        let couplings = flow.couplings().len();
        let through = couplings / 3..couplings - 1;
        for (names, image) in [
            (["forward", "its log_det"], engine.forward(parameters, batch)),
            (["inverse", "its log_det"], engine.inverse(parameters, x)),
            (
                ["part of the couplings", "its log_det"],
                engine.forward_through(parameters, through.clone(), z.view()),
            ),
            (
                ["inverse of a part", "its log_det"],
                engine.inverse_through(parameters, through, z.view()),
            ),
        ] {
            all.push((names[0], flat(image.field)));
            all.push((names[1], image.log_det));
        }
        let derivatives = engine.inverse_derivatives(parameters, x, &[0, sites / 2 + 1]);
        all.push(("derivatives", derivatives.flatten().to_owned()));
        Self(all)
    }

    /// The largest error of each, with what it is.
    fn errors(&self, expected: &Self) -> Vec<(f64, &'static str)> {
        let pairs = self.0.iter().zip(&expected.0);
        pairs.map(|((name, a), (_, b))| (error(a, b), *name)).collect()
    }
}

fn flat(fields: Array2<f64>) -> Array1<f64> {
    fields.flatten().to_owned()
}

fn target(architecture: &Architecture) -> Target {
    Target::ising_dual(architecture.linear_size)
}

fn kernels(flow: &Flow, target: Option<&Target>, precision: Precision, host: Host) -> Cuda<Host> {
    Cuda::new(&flow.architecture, flow.couplings(), target, precision, host).unwrap()
}

fn native(flow: &Flow, target: Option<&Target>, precision: Precision) -> Box<dyn Engine> {
    in_precision(precision, &flow.architecture, flow.couplings(), target, 1)
}

/// Calls `check` for all cases, on as many threads as there are cores. (An engine has a pool of its own, which would make
/// the calls of another one nest.)
fn for_all<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(case);
                }
            });
        }
    });
}

/// The table without what the kernels lack, and the symmetries by the model.
fn table() -> Vec<Architecture> {
    let symmetric = [Symmetry::Mixture, Symmetry::Regularizer].into_iter().flat_map(|symmetry| {
        [false, true].map(|preconditioner| {
            architecture(4, 2, &FlowConfig { preconditioner, symmetry, ..small_config() })
        })
    });
    let without_convolution = |a: &Architecture| a.config.channels == 0;
    architectures().into_iter().filter(without_convolution).chain(symmetric).collect()
}

/// In f64, where blocks have all in shared memory.
#[test]
fn kernels_agree_with_the_native_engine() {
    for_all(&table(), |architecture| {
        let flow = random_flow(architecture.clone());
        let target = target(architecture);
        let expected =
            Evaluations::new(&*native(&flow, Some(&target), Precision::F64), &flow, None);
        let kernels = kernels(&flow, Some(&target), Precision::F64, HOST);
        for (error, what) in Evaluations::new(&kernels, &flow, None).errors(&expected) {
            assert!(error < 1e-10, "{architecture:?}: {what}, {error:e}");
        }
    });
}

/// In f32 both engines round. Where the inverse of bumps makes more of that than 1e-5, the native engine in f32 is as far from itself in
/// f64, and the kernels may be three times as far.
#[test]
fn kernels_in_single_precision_agree_with_the_native_engine() {
    for_all(&table(), |architecture| {
        let flow = random_flow(architecture.clone());
        let target = target(architecture);
        let exact = native(&flow, Some(&target), Precision::F64);
        let z = Random::new(5).normals(Use::Latents, 3..22, architecture.sites());
        let temperatures: Array1<f64> = (0..z.nrows()).map(|i| [2.3, 2.0][i / 12]).collect();
        let batch = Batch::new(z.view(), temperatures.view());
        // The same fields for all, rounded.
        let fields = exact.draw(flow.parameters.view(), batch).field;
        let fields = fields.mapv(|value| f64::from(value as f32));
        let all = |engine: &dyn Engine| Evaluations::new(engine, &flow, Some(&fields));
        let exact = all(&*exact);
        let rounded = all(&*native(&flow, Some(&target), Precision::F32));
        let found = all(&kernels(&flow, Some(&target), Precision::F32, HOST));
        let errors = found.errors(&rounded).into_iter().zip(found.errors(&exact));
        for (((error, what), (from_exact, _)), (own, _)) in errors.zip(rounded.errors(&exact)) {
            let agrees = error < 1e-5 || from_exact < 3.0 * own;
            assert!(agrees, "{architecture:?}: {what}, {error:e}, {from_exact:e} and {own:e}");
        }
    });
}

/// Where shared memory holds little, chunks of rows are small and arrays lie elsewhere; the numbers are the same but for the order of sums.
#[test]
fn where_a_block_keeps_its_arrays_changes_nothing() {
    let best = best();
    let cases =
        [architecture(8, 3, &best), architecture(16, 2, &best), architecture(8, 2, &paper())];
    for architecture in &cases {
        let flow = random_flow(architecture.clone());
        let target = target(architecture);
        let all = |shared_limit| {
            let host = Host { shared_limit, multiprocessors: 100, most_blocks: 100 };
            let kernels = kernels(&flow, Some(&target), Precision::F64, host);
            (kernels.programs[0].0.own_bytes, Evaluations::new(&kernels, &flow, None))
        };
        let (own, expected) = all(1 << 20);
        let least = (1..100)
            .map(|step| step << 12)
            .find(|&shared_limit| {
                let (precision, tables) = (Precision::F64, Tables::new(flow.couplings()));
                Program::new(&case(&flow, precision, shared_limit), &tables, 1).is_ok()
            })
            .unwrap();
        let (more, found) = all(least);
        assert!(more > own, "some arrays are elsewhere");
        for (error, what) in found.errors(&expected) {
            assert!(error < 1e-12, "{architecture:?}: {what}, {error:e}");
        }
    }
}

#[test]
fn without_a_target_what_needs_it_is_not_a_number() {
    let flow = random_flow(architecture(4, 1, &small_config()));
    let kernels = kernels(&flow, None, Precision::F64, HOST);
    let native = native(&flow, None, Precision::F64);
    let z = Random::new(5).normals(Use::Latents, 0..5, 16);
    let parameters = flow.parameters.view();
    let batch = Batch::uniform(z.view(), &f64::NAN);
    let [found, expected] = [&kernels as &dyn Engine, &*native].map(|e| e.draw(parameters, batch));
    assert!(error(&found.field, &expected.field) < 1e-12);
    assert!(error(&found.ln_q, &expected.ln_q) < 1e-12);
    assert!(found.ln_pi.iter().all(|value| value.is_nan()));
    let loss = kernels.loss(parameters, batch, 0.0, Estimator::Total);
    assert!(loss.gradient.iter().any(|value| value.is_nan()));
    let x = Batch::uniform(found.field.view(), &f64::NAN);
    let [found, expected] =
        [&kernels as &dyn Engine, &*native].map(|engine| engine.likelihood_loss(parameters, x));
    assert!(error(&found.gradient, &expected.gradient) < 1e-10);
}

/// Small batches get blocks of their own for each sample, large ones share them; numbers differ by rounding only. And more
/// temperatures than are remembered may come in one call.
#[test]
fn how_many_samples_share_a_block_changes_nothing() {
    let flow =
        random_flow(architecture(4, 2, &FlowConfig { preconditioner: true, ..small_config() }));
    let target = target(&flow.architecture);
    let z = Random::new(5).normals(Use::Latents, 0..300, 16);
    let temperatures: Array1<f64> = (0..300).map(|i| 2.0 + 0.002 * f64::from(i)).collect();
    let batch = Batch::new(z.view(), temperatures.view());
    let expected = native(&flow, Some(&target), Precision::F64).draw(flow.parameters.view(), batch);
    for (multiprocessors, lanes) in [(1, 8), (100, 4), (1000, 1)] {
        let kernels =
            kernels(&flow, Some(&target), Precision::F64, Host { multiprocessors, ..HOST });
        assert_eq!(kernels.program(300).0.lanes, lanes);
        for _ in 0..2 {
            let found = kernels.draw(flow.parameters.view(), batch);
            assert!(error(&found.ln_pi, &expected.ln_pi) < 1e-12);
            assert!(error(&found.field, &expected.field) < 1e-12);
        }
    }
}

#[test]
fn what_kernels_lack_is_told_in_words() {
    let lack = |config: &FlowConfig, shared_limit| {
        let flow = random_flow(architecture(16, 2, config));
        let host = Host { shared_limit, ..HOST };
        let target = target(&flow.architecture);
        let couplings = flow.couplings();
        Cuda::new(&flow.architecture, couplings, Some(&target), Precision::F32, host).unwrap_err()
    };
    let best = best();
    let channels = FlowConfig { channels: 3, ..best.clone() };
    assert_eq!(lack(&channels, SHARED_90), "flow.channels above 0");
    let wide = FlowConfig { hidden_width: 65, ..best.clone() };
    assert_eq!(lack(&wide, SHARED_90), "flow.hidden_width = 65 (at most 64)");
    let many = FlowConfig { shells: 32, ..best.clone() };
    let seen = lack(&many, SHARED_90);
    assert!(seen.starts_with("couplings that see ") && seen.ends_with("(at most 48)"), "{seen}");
    assert_eq!(
        lack(&best, 10_000),
        "fields of 16 × 16 sites with networks of width 24: a block has 10000 bytes of shared memory"
    );
}

/// `[flow]` of preset `best`.
fn best() -> FlowConfig {
    let preset: toml::Table = toml::from_str(include_str!("../../flow/preset_best.toml")).unwrap();
    preset["flow"].clone().try_into().unwrap()
}

/// `[flow]` of preset `paper`.
fn paper() -> FlowConfig {
    FlowConfig::default()
}

fn case(flow: &Flow, precision: Precision, shared_limit: usize) -> Case<'_> {
    let couplings = flow.couplings();
    Case { architecture: &flow.architecture, couplings, target: true, precision, shared_limit }
}

fn full(config: &FlowConfig, size: usize) -> Flow {
    let architecture = architecture(size, size.ilog2() as usize, config);
    Flow::initialize(architecture, &Random::new(1))
}

/// Both presets at all sizes fit on both generations of GPUs.
#[test]
fn fields_of_the_presets_fit_up_to_128() {
    for config in [paper(), best()] {
        for size in [8, 16, 32, 64, 128] {
            let flow = full(&config, size);
            let tables = Tables::new(flow.couplings());
            for shared_limit in [SHARED_80, SHARED_90] {
                let case = case(&flow, Precision::F32, shared_limit);
                for lanes in lanes(size * size) {
                    let program = Program::new(&case, &tables, lanes).unwrap();
                    assert!(program.shared_bytes <= shared_limit, "{size}, {lanes} lanes");
                }
            }
        }
    }
}

/// NVRTC's report of a kernel: registers, and bytes that did not find room in them.
#[cfg(not(feature = "torch"))]
fn report(log: &str) -> (u32, u32) {
    let number = |words: &str, before: &str| -> u32 {
        let end = words.find(before).unwrap();
        words[..end].split_whitespace().next_back().unwrap().parse().unwrap()
    };
    let registers = log.lines().find(|line| line.contains(" registers")).expect(log);
    let spills = log.lines().filter(|line| line.contains("spill stores"));
    let spilled = spills
        .map(|line| {
            ["bytes stack frame", "bytes spill stores", "bytes spill loads"]
                .map(|words| number(line, words))
                .iter()
                .sum::<u32>()
        })
        .sum();
    (number(registers, " registers"), spilled)
}

/// Skipped, with a word, where there is no NVRTC: `make test` has one, and does this once, where it tests what needs no torch.
#[cfg(not(feature = "torch"))]
#[test]
fn nvrtc_compiles_all_kernels_without_spills() {
    let compiler = match Compiler::find() {
        Ok(compiler) => compiler,
        Err(problem) => {
            eprintln!("skipped: {problem}");
            return;
        }
    };
    let mut cases = Vec::new();
    // The largest kernel of each preset is that of its estimator.
    for (config, largest) in [(paper(), Kernel::LossTotal), (best(), Kernel::LossPath)] {
        let all = if largest == Kernel::LossPath { Kernel::ALL.to_vec() } else { vec![largest] };
        for (size, architecture, shared, kernels) in [
            (16, "sm_90", SHARED_90, all),
            (8, "sm_80", SHARED_80, vec![largest]),
            (128, "sm_80", SHARED_80, vec![largest]),
            (128, "sm_90", SHARED_90, vec![largest]),
        ] {
            let flow = full(&config, size);
            let tables = Tables::new(flow.couplings());
            let program = Program::new(&case(&flow, Precision::F32, shared), &tables, 1).unwrap();
            let sources = kernels.into_iter().map(move |kernel| {
                let text = program.source(include_str!("kernels/gpu.cuh"), &[kernel]);
                (size, architecture, kernel, text)
            });
            cases.extend(sources);
        }
    }
    for_all(&cases, |(size, architecture, kernel, text)| {
        let compiled = compiler.compile_anew(text, architecture).unwrap();
        assert!(!compiled.code.is_empty());
        let (registers, spilled) = report(&compiled.log);
        let name = format!("{kernel:?} at L = {size} on {architecture}");
        assert!(registers <= 255, "{name}: {registers} registers");
        assert_eq!(spilled, 0, "{name}: {}", compiled.log);
    });
}
