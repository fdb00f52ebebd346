//! One table of all bijections, put through one test: the inverse undoes the forward map, and log_det is
//! that of autograd's Jacobian.

use tch::{Device, Kind, Tensor};

use super::hierarchy::{Level, interleave, sublattices};
use super::realnvp::{Block, RealNvp};
use super::*;

type Map = Box<dyn Fn(&Tensor) -> (Tensor, Tensor)>;

struct Bijection {
    name: String,
    /// Shape of one sample.
    shape: Vec<i64>,
    forward: Map,
    inverse: Map,
}

fn architecture(linear_size: usize, depth: usize, couplings: usize) -> Architecture {
    Architecture { linear_size, depth, couplings, hidden_layers: 2, hidden_width: 6 }
}

/// A flow away from its start, where scales are zero.
fn random_flow(architecture: Architecture, kind: Kind) -> Flow {
    tch::manual_seed(11);
    let mut flow = Flow::initialize(architecture, Symmetry::None, kind, Device::Cpu);
    let kick = flow.parameters.randn_like() * 0.3;
    flow.parameters = (flow.parameters.detach() + kick).set_requires_grad(true);
    flow
}

/// A block map as a map of (batch, 4).
fn on_rows(map: impl Fn(Block) -> (Block, Tensor) + 'static) -> Map {
    Box::new(move |x| {
        let columns: Block = x.unbind(1).try_into().unwrap();
        let (block, log_scales) = map(columns);
        (Tensor::stack(&block, 1), log_scales.sum_dim_intlist([0i64].as_slice(), false, None))
    })
}

fn real_nvp(kind: Kind, couplings: usize) -> RealNvp {
    let mut levels = Hierarchy::from_flow(&random_flow(architecture(4, 1, couplings), kind)).levels;
    levels.remove(0).disentangler
}

fn level(kind: Kind, linear_size: usize) -> Level {
    let flow = random_flow(architecture(linear_size, 1, 6), kind);
    Hierarchy::from_flow(&flow).levels.remove(0)
}

fn bijections(kind: Kind) -> Vec<Bijection> {
    let mut table = Vec::new();
    // One coupling, then as many as it takes to use every split of the block.
    for couplings in [1, 2, 3, 6, 7] {
        let (forward, inverse) = (real_nvp(kind, couplings), real_nvp(kind, couplings));
        table.push(Bijection {
            name: format!("Real NVP of {couplings} couplings"),
            shape: vec![4],
            forward: on_rows(move |block| forward.forward(block)),
            inverse: on_rows(move |block| inverse.inverse(block)),
        });
    }
    for linear_size in [2, 4, 8] {
        let (forward, inverse) = (level(kind, linear_size), level(kind, linear_size));
        table.push(Bijection {
            name: format!("level of {linear_size} × {linear_size}"),
            shape: vec![linear_size as i64; 2],
            forward: Box::new(move |z| forward.forward(sublattices(z))),
            inverse: Box::new(move |x| {
                let (fields, log_det) = inverse.inverse(x);
                (interleave(&fields), log_det)
            }),
        });
    }
    for (linear_size, depth) in [(4, 1), (4, 2), (8, 1), (8, 2), (8, 3)] {
        let flow = || random_flow(architecture(linear_size, depth, 3), kind).bind_frozen();
        let (forward, inverse) = (flow(), flow());
        table.push(Bijection {
            name: format!("MERA of depth {depth} on {linear_size} × {linear_size}"),
            shape: vec![linear_size as i64; 2],
            forward: Box::new(move |z| forward.hierarchy().forward(z)),
            inverse: Box::new(move |x| inverse.hierarchy().inverse(x)),
        });
    }
    table
}

impl Hierarchy {
    fn from_flow(flow: &Flow) -> Self {
        Self::new(&flow.architecture, &flow.parameters.detach())
    }
}

fn batch_of(shape: &[i64], kind: Kind) -> Tensor {
    tch::manual_seed(5);
    Tensor::randn([&[3], shape].concat(), (kind, Device::Cpu))
}

/// ln|det ∂y/∂x| of each sample, by one backward pass for each output.
fn autograd_log_det(map: &Map, x: &Tensor) -> Tensor {
    let x = x.detach().set_requires_grad(true);
    let batch = x.size()[0];
    let outputs = map(&x).0.view([batch, -1]);
    let rows: Vec<Tensor> = (0..outputs.size()[1])
        .map(|i| {
            let output = outputs.select(1, i).sum(Kind::Double);
            Tensor::run_backward(&[output], &[&x], true, false).pop().unwrap().view([batch, -1])
        })
        .collect();
    Tensor::stack(&rows, 1).slogdet().1
}

fn largest(difference: &Tensor) -> f64 {
    difference.abs().max().double_value(&[])
}

#[test]
fn inverse_undoes_forward_and_log_det_is_the_autograd_jacobians() {
    for Bijection { name, shape, forward, inverse } in bijections(Kind::Double) {
        let z = batch_of(&shape, Kind::Double);
        let (x, log_det) = forward(&z);
        let (back, inverse_log_det) = inverse(&x);
        assert!(largest(&(&back - &z)) < 1e-10, "{name}: inverse");
        assert!(largest(&(&log_det + &inverse_log_det)) < 1e-10, "{name}: log_dets cancel");
        assert!(largest(&(&log_det - autograd_log_det(&forward, &z))) < 1e-10, "{name}: log_det");
        let jacobian = autograd_log_det(&inverse, &x);
        assert!(largest(&(inverse_log_det - jacobian)) < 1e-10, "{name}: inverse log_det");
        assert!(largest(&log_det) > 1e-3, "{name}: a map that changes no volume tests nothing");
    }
}

/// In f32 rounding errors of some 1e-7 grow through the couplings' scales. The bound is fifty times the
/// largest error seen here (2e-6) and far below what a wrong formula gives.
#[test]
fn single_precision_keeps_the_identity_to_1e_minus_4() {
    for Bijection { name, shape, forward, inverse } in bijections(Kind::Float) {
        let z = batch_of(&shape, Kind::Float);
        let (x, log_det) = forward(&z);
        let (back, inverse_log_det) = inverse(&x);
        let (identity, volume) = (largest(&(back - z)), largest(&(log_det + inverse_log_det)));
        assert!(identity < 1e-4 && volume < 1e-4, "{name}: {identity:e}, {volume:e}");
    }
}

#[test]
fn parameter_vector_has_the_length_that_the_architecture_tells() {
    let architecture = architecture(8, 3, 4);
    // Per coupling: 2 → 6 → 6 → 4 with biases, and two scales.
    let coupling = (2 * 6 + 6) + (6 * 6 + 6) + (6 * 4 + 4) + 2;
    assert_eq!(architecture.parameter_count(), coupling * 4 * 2 * 3);
    let flow = random_flow(architecture.clone(), Kind::Float);
    assert_eq!(flow.parameters.size(), [architecture.parameter_count()]);
}

#[test]
fn a_depth_cut_leaves_the_coarse_field_to_the_prior() {
    let flow = random_flow(architecture(8, 1, 3), Kind::Double).bind_frozen();
    let z = batch_of(&[8, 8], Kind::Double);
    // Sites that are two apart share no block of level 0, so their blocks cannot see each other beyond
    // the disentangler's reach: a far latent changes nothing.
    let changed = z.copy();
    let _ = changed.narrow(1, 4, 1).narrow(2, 4, 1).fill_(3.0);
    let difference = flow.hierarchy().forward(&z).0 - flow.hierarchy().forward(&changed).0;
    let reach = difference.abs().amax([0], false);
    assert!(reach.double_value(&[4, 4]) > 0.0);
    for far in [0, 1, 2, 7] {
        assert_eq!(reach.double_value(&[far, far]), 0.0, "site {far}");
    }
}

#[test]
fn field_is_a_function_of_every_latent_at_full_depth() {
    let flow = random_flow(architecture(8, 3, 6), Kind::Double).bind_frozen();
    let z = batch_of(&[8, 8], Kind::Double).set_requires_grad(true);
    let (x, _) = flow.hierarchy().forward(&z);
    let gradient = Tensor::run_backward(&[x.square().sum(Kind::Double)], &[&z], false, false);
    assert!(gradient[0].abs().min().double_value(&[]) > 0.0);
}

#[test]
fn every_device_starts_from_the_same_weights_and_a_pure_shift() {
    let start = || {
        tch::manual_seed(2);
        Flow::initialize(architecture(4, 2, 3), Symmetry::None, Kind::Float, Device::Cpu)
    };
    assert_eq!(start().parameters, start().parameters);
    let z = batch_of(&[4, 4], Kind::Float);
    let (_, log_det) = start().bind_frozen().hierarchy().forward(&z);
    assert_eq!(largest(&log_det), 0.0);
}
