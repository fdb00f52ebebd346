//! What the native engine promises beyond agreement with torch (`engines.rs`): inverses, samples that do
//! not touch one another, any batch size.

use std::sync::Arc;

use neuralrg::config::{Estimator, FlowConfig, Symmetry};
use neuralrg::flow::arrangement::{Arrangement, Splits};
use neuralrg::flow::coupling::{Conditioner, Coupling, Network, Networks, Transform};
use neuralrg::flow::{Architecture, Flow};
use neuralrg::native::{Native, Real};
use neuralrg::random::Random;
use tch::{Device, Kind, Tensor};

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

/// An engine with random parameters.
fn engine<T: Real>(config: &FlowConfig) -> (Native<T>, Vec<T>) {
    tch::manual_seed(17);
    let architecture = Architecture::new(SIZE, 2.5, 3, 1, config);
    let flow = Flow::initialize(architecture, &Random::new(17), Kind::Double, Device::Cpu);
    let deviation = match config.transform {
        Transform::Affine => 0.2,
        Transform::Bump => 0.03,
    };
    let parameters = flow.parameters.detach() + flow.parameters.randn_like() * deviation;
    let native =
        Native::new(flow.couplings().clone(), SIZE, 2.5, config.preconditioner, config.symmetry, 2);
    (native, numbers(&parameters))
}

fn numbers<T: Real>(tensor: &Tensor) -> Vec<T> {
    let numbers: Vec<f64> = Vec::try_from(tensor.view([-1])).unwrap();
    numbers.into_iter().map(T::of).collect()
}

fn noise<T: Real>(samples: usize) -> Vec<T> {
    tch::manual_seed(18);
    numbers(&Tensor::randn([(samples * SITES) as i64], (Kind::Double, Device::Cpu)))
}

/// Largest difference, relative to the largest value.
fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    let scale = b.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    a.iter().zip(b).fold(0.0_f64, |largest, (a, b)| largest.max((a - b).abs())) / scale
}

#[test]
fn inverse_undoes_forward_and_log_dets_cancel() {
    for config in configs() {
        let (native, parameters) = engine::<f64>(&config);
        let z = noise(21);
        let (x, log_det) = native.forward(&parameters, &z);
        let (back, inverse_log_det) = native.inverse(&parameters, &x);
        assert!(relative_error(&back, &z) < 1e-10, "{config:?}");
        let negated: Vec<f64> = inverse_log_det.iter().map(|value| -value).collect();
        assert!(relative_error(&negated, &log_det) < 1e-10, "{config:?}");
        // ln q by way of x is the one by way of z.
        let ln_q = native.ln_density(&parameters, &x);
        let ln_prior = |z: &[f64]| -> f64 {
            z.iter().map(|z| -0.5 * (z * z + std::f64::consts::TAU.ln())).sum()
        };
        let expected: Vec<f64> =
            z.chunks(SITES).zip(&log_det).map(|(z, log_det)| ln_prior(z) - log_det).collect();
        assert!(relative_error(&ln_q, &expected) < 1e-10, "{config:?}");
    }
}

#[test]
fn samples_do_not_touch_one_another() {
    for config in configs() {
        let (native, parameters) = engine::<f32>(&config);
        let z = noise(21);
        let clean = native.potential(&parameters, &z);
        let clean_loss = native.loss(&parameters, &z, 0.5, Estimator::Total);
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e30] {
            let mut poisoned = z.clone();
            poisoned[5 * SITES..6 * SITES].fill(poison);
            poisoned[20 * SITES + 3] = poison;
            let result = native.potential(&parameters, &poisoned);
            let loss = native.loss(&parameters, &poisoned, 0.5, Estimator::Total);
            assert!(!result.energy[5].is_finite() || poison.is_finite());
            for sample in (0..21).filter(|sample| ![5, 20].contains(sample)) {
                assert_eq!(result.energy[sample], clean.energy[sample]);
                assert_eq!(loss.values[sample], clean_loss.values[sample]);
                let sites = sample * SITES..(sample + 1) * SITES;
                assert_eq!(result.gradient[sites.clone()], clean.gradient[sites]);
            }
            // No iteration hangs on such numbers.
            native.inverse(&parameters, &poisoned);
        }
    }
}

#[test]
fn results_do_not_depend_on_the_rest_of_the_batch() {
    for config in configs() {
        let (native, parameters) = engine::<f32>(&config);
        let z = noise(33);
        let all = native.draw(&parameters, &z);
        for batch in [0, 1, 15, 16, 17, 32] {
            let some = native.draw(&parameters, &z[..batch * SITES]);
            assert_eq!(some.field, all.field[..batch * SITES]);
            assert_eq!(some.ln_q, all.ln_q[..batch]);
            let loss = native.loss(&parameters, &z[..batch * SITES], 0.0, Estimator::Path);
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
    fn lone<T: Real>(couplings: &Arc<[Coupling]>) -> Native<T> {
        Native::new(couplings.clone(), SIZE, 2.5, false, Symmetry::None, 1)
    }
    let (double, single) = (lone::<f64>(&couplings), lone::<f32>(&couplings));
    for parameters in [[-4.0, 10.0, 30.0], [-8.0, 3.0, 100.0], [0.0, 40.0, 4.0], [2.0, -9.0, 20.0]]
    {
        let z: Vec<f64> = (0..100 * SITES).map(|i| (i / 16) as f64 * 0.02 - 4.0).collect();
        let (x, _) = double.forward(&parameters, &z);
        let (again, _) = double.forward(&parameters, &double.inverse(&parameters, &x).0);
        assert!(relative_error(&again, &x) < 1e-12, "{parameters:?}");
        let narrow = parameters.map(|value| value as f32);
        let x32: Vec<f32> = x.iter().map(|&value| value as f32).collect();
        let (again, _) = single.forward(&narrow, &single.inverse(&narrow, &x32).0);
        let again: Vec<f64> = again.iter().map(|&value| f64::from(value)).collect();
        assert!(relative_error(&again, &x) < 3e-6, "{parameters:?}");
    }
}
