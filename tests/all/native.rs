//! What the native engine promises beyond agreement with torch (`engines.rs`): inverses, samples that do
//! not touch one another, any batch size.

use std::sync::Arc;

use ndarray::{Array, Array1, Array2, ArrayView2, Dimension, s};
use neuralrg::engine::config::Estimator;
use neuralrg::engine::native::{Native, Real};
use neuralrg::engine::{Batch, Engine};
use neuralrg::flow::config::{Arrangement, FlowConfig, Splits, Symmetry};
use neuralrg::flow::coupling::{Conditioner, Coupling, Network, Networks, Transform};
use neuralrg::flow::symmetry::ln_prior;
use neuralrg::flow::{Architecture, Flow};
use neuralrg::random::{Random, Use};
use neuralrg::targets::Target;

const SIZE: usize = 8;
const SITES: usize = SIZE * SIZE;

fn configs() -> Vec<FlowConfig> {
    let small = FlowConfig {
        couplings: 3,
        hidden_layers: 2,
        hidden_width: 7,
        splits: Splits::Cycle,
        networks: Networks::Joint,
        symmetry: Symmetry::Mixture,
        ..Default::default()
    };
    let checkerboard = FlowConfig {
        arrangement: Arrangement::Checkerboard,
        conditioner: Conditioner::Odd,
        preconditioner: true,
        ..small.clone()
    };
    let separate =
        FlowConfig { splits: Splits::Random, networks: Networks::Separate, ..small.clone() };
    [Transform::Affine, Transform::Bump]
        .into_iter()
        .flat_map(|transform| {
            [&small, &checkerboard, &separate]
                .map(|config| FlowConfig { transform, ..config.clone() })
        })
        .collect()
}

/// T of all evaluations.
const TEMPERATURE: f64 = 2.5;

fn at(values: ArrayView2<'_, f64>) -> Batch<'_> {
    Batch::uniform(values, &TEMPERATURE)
}

/// An engine with random parameters.
fn engine<T: Real>(config: &FlowConfig) -> (Native<T>, Array1<f64>) {
    let architecture = Architecture::new(SIZE, 3, 1, config);
    let random = Random::new(17);
    let mut flow = Flow::initialize(architecture, &random);
    let deviation = match config.transform {
        Transform::Affine => 0.2,
        Transform::Bump => 0.03,
    };
    let kick = random.normals(Use::Momenta, 0..1, flow.parameters.len());
    flow.parameters.scaled_add(deviation, &kick.row(0));
    let target = Target::ising_dual(SIZE);
    let engine = Native::new(&flow.architecture, flow.couplings(), Some(&target), 2);
    (engine, flow.parameters)
}

fn noise(samples: usize) -> Array2<f64> {
    Random::new(18).normals(Use::Latents, 0..samples, SITES)
}

/// Largest difference, relative to the largest value.
fn relative_error<D: Dimension>(a: &Array<f64, D>, b: &Array<f64, D>) -> f64 {
    let largest = |values: &Array<f64, D>| {
        values.iter().map(|value| value.abs()).max_by(f64::total_cmp).unwrap_or(0.0)
    };
    largest(&(a - b)) / largest(b)
}

#[test]
fn inverse_undoes_forward_and_log_dets_cancel() {
    for config in configs() {
        let (native, parameters) = engine::<f64>(&config);
        let z = noise(21);
        let forward = native.forward(parameters.view(), at(z.view()));
        let back = native.inverse(parameters.view(), at(forward.field.view()));
        assert!(relative_error(&back.field, &z) < 1e-10, "{config:?}");
        assert!(relative_error(&-back.log_det, &forward.log_det) < 1e-10, "{config:?}");
        // ln q by way of x is the one by way of z, and with the mixture by way of the latents of -x.
        let ln_q = native.ln_likelihood(parameters.view(), at(forward.field.view()));
        let mut expected = ln_prior(z.view()) - forward.log_det;
        if config.symmetry == Symmetry::Mixture {
            let mirrored = native.inverse(parameters.view(), at((-forward.field).view()));
            let other = ln_prior(mirrored.field.view()) + mirrored.log_det;
            expected.zip_mut_with(&other, |a, b| *a = (0.5 * (a.exp() + b.exp())).ln());
        }
        assert!(relative_error(&ln_q, &expected) < 1e-10, "{config:?}");
    }
}

#[test]
fn samples_do_not_touch_one_another() {
    for config in configs() {
        let (native, parameters) = engine::<f32>(&config);
        let (parameters, z) = (parameters.view(), noise(21));
        let clean = native.potential(parameters, at(z.view()));
        let clean_loss = native.loss(parameters, at(z.view()), 0.5, Estimator::Total);
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e30] {
            let mut poisoned = z.clone();
            poisoned.row_mut(5).fill(f64::from(poison));
            poisoned[[20, 3]] = f64::from(poison);
            let result = native.potential(parameters, at(poisoned.view()));
            let loss = native.loss(parameters, at(poisoned.view()), 0.5, Estimator::Total);
            assert!(!result.energy[5].is_finite() || poison.is_finite());
            for sample in (0..21).filter(|sample| ![5, 20].contains(sample)) {
                assert_eq!(result.energy[sample], clean.energy[sample]);
                assert_eq!(loss.values[sample], clean_loss.values[sample]);
                assert_eq!(result.gradient.row(sample), clean.gradient.row(sample));
            }
            // No iteration hangs on such numbers.
            native.inverse(parameters, at(poisoned.view()));
        }
    }
}

#[test]
fn results_do_not_depend_on_the_rest_of_the_batch() {
    for config in configs() {
        let (native, parameters) = engine::<f32>(&config);
        let (parameters, z) = (parameters.view(), noise(33));
        let all = native.draw(parameters, at(z.view()));
        for batch in [0, 1, 15, 16, 17, 32] {
            let some = native.draw(parameters, at(z.slice(s![..batch, ..])));
            assert_eq!(some.field, all.field.slice(s![..batch, ..]));
            assert_eq!(some.ln_q, all.ln_q.slice(s![..batch]));
            let loss = native.loss(parameters, at(z.slice(s![..batch, ..])), 0.0, Estimator::Path);
            assert_eq!(loss.values.len(), batch);
        }
    }
}

/// Steep bumps on flat lines make Newton's method alone run in circles.
#[test]
fn inverse_of_hard_bumps_converges() {
    let network = Network {
        conditioner: Conditioner::Odd,
        transform: Transform::Bump,
        convolution: None,
        inputs: 0,
        branches: 1,
        hidden_layers: 1,
        hidden_width: 8,
        updated_per_row: 1,
    };
    let sites: Vec<u32> = (0..SITES as u32).collect();
    let coupling = Coupling {
        network,
        half: None,
        rows: SITES,
        updated: sites,
        shells: Vec::new(),
        convolution: None,
        offset: 0,
    };
    let couplings: Arc<[Coupling]> = [coupling].into();
    let config = FlowConfig { symmetry: Symmetry::None, ..Default::default() };
    let architecture = Architecture::new(SIZE, 1, 1, &config);
    let double = Native::<f64>::new(&architecture, &couplings, None, 1);
    let single = Native::<f32>::new(&architecture, &couplings, None, 1);
    for parameters in [[-4.0, 10.0, 30.0], [-8.0, 3.0, 100.0], [0.0, 40.0, 4.0], [2.0, -9.0, 20.0]]
    {
        let z = Array2::from_shape_fn((100, SITES), |(sample, site)| {
            ((sample * SITES + site) / 16) as f64 * 0.02 - 4.0
        });
        let numbers = Array1::from(parameters.to_vec());
        let there_and_back = |engine: &dyn Engine, x: &Array2<f64>| {
            let z = engine.inverse(numbers.view(), at(x.view())).field;
            engine.forward(numbers.view(), at(z.view())).field
        };
        let x = double.forward(numbers.view(), at(z.view())).field;
        assert!(relative_error(&there_and_back(&double, &x), &x) < 1e-12, "{parameters:?}");
        assert!(relative_error(&there_and_back(&single, &x), &x) < 3e-6, "{parameters:?}");
    }
}
