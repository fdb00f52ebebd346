//! One table of all flows, put through one test: the inverse undoes the forward map, and log_det is that
//! of autograd's Jacobian.

use tch::{Device, Kind, Tensor};

use super::arrangement::{Arrangement, Neighbours, Role};
use super::coupling::{Conditioner, Transform};
use super::symmetry::SymmetrizedFlow;
use super::*;
use crate::config::Symmetry;

fn small_config() -> FlowConfig {
    FlowConfig {
        couplings: 3,
        hidden_layers: 2,
        hidden_width: 6,
        symmetry: Symmetry::None,
        ..Default::default()
    }
}

fn architecture(linear_size: usize, depth: usize, config: &FlowConfig) -> Architecture {
    Architecture::new(linear_size, 2.3, depth, config)
}

/// A flow away from its start, where scales are zero. (ELU outputs are not bounded, and bumps exponentiate
/// them.)
fn random_flow(architecture: Architecture, kind: Kind) -> Flow {
    // Tensors this small gain nothing from threads.
    tch::set_num_threads(1);
    tch::manual_seed(11);
    let deviation = match (architecture.config.conditioner, architecture.config.transform) {
        (Conditioner::Elu, Transform::Bump) => 0.03,
        _ => 0.3,
    };
    let mut flow = Flow::initialize(architecture, kind, Device::Cpu);
    let kick = flow.parameters.randn_like() * deviation;
    flow.parameters = (flow.parameters.detach() + kick).set_requires_grad(true);
    flow
}

/// Every arrangement, conditioner, transform and the preconditioner; one coupling to more than it takes
/// to use every split of a block; all depths.
fn architectures() -> Vec<Architecture> {
    use Arrangement::{Checkerboard, Mera, Tebd, Tree};
    let mut table = Vec::new();
    let configs = |arrangement| {
        let conditioners = [Conditioner::Elu, Conditioner::Odd];
        conditioners.into_iter().flat_map(move |conditioner| {
            [Transform::Affine, Transform::Bump].map(|transform| FlowConfig {
                arrangement,
                conditioner,
                transform,
                ..small_config()
            })
        })
    };
    for arrangement in [Mera, Tree, Tebd, Checkerboard] {
        table.extend(configs(arrangement).map(|config| architecture(4, 2, &config)));
        let preconditioner = FlowConfig { arrangement, preconditioner: true, ..small_config() };
        table.push(architecture(4, 1, &preconditioner));
        let config = FlowConfig { arrangement, ..small_config() };
        table.extend(
            [(8, 1), (8, 2), (8, 3)].map(|(size, depth)| architecture(size, depth, &config)),
        );
    }
    for couplings in [1, 2, 6, 7] {
        table.push(architecture(4, 1, &FlowConfig { couplings, ..small_config() }));
    }
    for repeats in [2, 3] {
        table.push(architecture(4, 2, &FlowConfig { repeats, ..small_config() }));
    }
    let best = FlowConfig {
        arrangement: Checkerboard,
        conditioner: Conditioner::Odd,
        transform: Transform::Bump,
        preconditioner: true,
        shells: 5,
        ..small_config()
    };
    table.push(architecture(8, 3, &best));
    table.push(architecture(8, 2, &FlowConfig { hidden_layers: 1, couplings: 5, ..best.clone() }));
    let neighbours = Neighbours::Sites;
    let sites = FlowConfig { neighbours, shells: 2, couplings: 2, ..best.clone() };
    table.push(architecture(8, 3, &FlowConfig { channels: 3, ..sites.clone() }));
    table.push(architecture(8, 3, &sites));
    table.push(architecture(8, 2, &FlowConfig { channels: 4, couplings: 2, ..best }));
    let elu = FlowConfig { arrangement: Checkerboard, channels: 2, ..small_config() };
    table.push(architecture(8, 3, &elu));
    table
}

fn batch_of(size: usize, kind: Kind) -> Tensor {
    tch::manual_seed(5);
    Tensor::randn([3, size as i64, size as i64], (kind, Device::Cpu))
}

type Pair = (Tensor, Tensor);

/// ln|det ∂y/∂x| of each sample, by one backward pass for each output.
fn autograd_log_det(map: &dyn Fn(&Tensor) -> Pair, x: &Tensor) -> Tensor {
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
    for architecture in architectures() {
        let name = format!("{architecture:?}");
        let z = batch_of(architecture.linear_size, Kind::Double);
        let flow = random_flow(architecture, Kind::Double).bind_frozen();
        let forward = |z: &Tensor| flow.map().forward(z);
        let inverse = |x: &Tensor| flow.map().inverse(x);
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

/// In f32 rounding errors of some 1e-7 grow through the couplings' slopes, those of bumps most. The
/// bounds are far below what a wrong formula gives.
#[test]
fn single_precision_keeps_the_identity() {
    for architecture in architectures() {
        let name = format!("{architecture:?}");
        let bound = match architecture.config.transform {
            Transform::Affine => 1e-4,
            Transform::Bump => 1e-3,
        };
        let z = batch_of(architecture.linear_size, Kind::Float);
        let flow = random_flow(architecture, Kind::Float).bind_frozen();
        let (x, log_det) = flow.map().forward(&z);
        let (back, inverse_log_det) = flow.map().inverse(&x);
        let (identity, volume) = (largest(&(back - z)), largest(&(log_det + inverse_log_det)));
        assert!(identity < bound && volume < bound, "{name}: {identity:e}, {volume:e}");
    }
}

#[test]
fn odd_flows_commute_with_the_sign() {
    for architecture in architectures() {
        let odd = architecture.config.conditioner == Conditioner::Odd;
        let z = batch_of(architecture.linear_size, Kind::Double);
        let flow = random_flow(architecture, Kind::Double).bind_frozen();
        let ((x, log_det), (flipped, flipped_log_det)) =
            (flow.map().forward(&z), flow.map().forward(&-&z));
        let difference = largest(&(x + flipped)) + largest(&(log_det - flipped_log_det));
        assert_eq!(difference < 1e-10, odd, "{difference:e}");
    }
}

/// Torch's autograd takes the inverse of a bump as the implicit function that it is.
#[test]
fn density_gradients_to_parameters_equal_finite_differences() {
    for architecture in architectures() {
        let name = format!("{architecture:?}");
        let x = batch_of(architecture.linear_size, Kind::Double);
        let mut flow = random_flow(architecture, Kind::Double);
        let density = |flow: &Flow| flow.bind().ln_density(&x).sum(Kind::Double);
        let gradient = Tensor::run_backward(&[density(&flow)], &[&flow.parameters], false, false);
        let centre = flow.parameters.detach();
        let direction = centre.randn_like();
        let mut along = |shift: f64| {
            flow.parameters = (&centre + &direction * shift).set_requires_grad(true);
            density(&flow).double_value(&[])
        };
        let numeric = (along(1e-5) - along(-1e-5)) / 2e-5;
        let analytic = (&gradient[0] * &direction).sum(Kind::Double).double_value(&[]);
        assert!((numeric / analytic - 1.0).abs() < 1e-5, "{name}: {numeric}, {analytic}");
    }
}

#[test]
fn parameter_vector_has_the_length_that_the_architecture_tells() {
    let architecture = architecture(8, 3, &small_config());
    // Per coupling: 2 → 6 → 6 → 4 with biases, and two scales.
    let coupling = (2 * 6 + 6) + (6 * 6 + 6) + (6 * 4 + 4) + 2;
    let flow = random_flow(architecture, Kind::Float);
    assert_eq!(flow.parameters.size(), [coupling * 3 * 2 * 3]);
}

#[test]
fn checkerboards_update_every_site_from_its_nearest_neighbours() {
    let config = FlowConfig { arrangement: Arrangement::Checkerboard, ..small_config() };
    let layers = architecture(8, 3, &config).layers();
    let rows: Vec<usize> = layers.iter().map(|layer| layer.couplings[0].rows).collect();
    assert_eq!(rows, [1, 2, 4, 8, 16, 32]);
    let finest = &layers[5];
    assert_eq!((finest.level, finest.role), (0, Role::Straight));
    let shells = &finest.couplings[0].shells;
    let (sizes, distances): (Vec<_>, Vec<_>) =
        shells.iter().map(|shell| (shell.size, shell.distance.powi(2).round())).unzip();
    assert_eq!((sizes, distances), (vec![4, 8, 4], vec![1.0, 5.0, 9.0]));
    // The first updated site is (0, 1); its neighbours are above, left, right and below.
    assert_eq!(finest.couplings[0].updated[0], 1);
    let mut nearest = shells[0].sites[..4].to_vec();
    nearest.sort_unstable();
    assert_eq!(nearest, [0, 2, 9, 57]);
}

#[test]
fn sites_are_the_members_of_the_shells_in_the_same_order_for_every_row() {
    let layers = |neighbours| {
        let arrangement = Arrangement::Checkerboard;
        let config = FlowConfig { arrangement, neighbours, shells: 2, ..small_config() };
        architecture(8, 3, &config).layers()
    };
    for (shells, sites) in layers(Neighbours::Shells).iter().zip(layers(Neighbours::Sites)) {
        for (sums, singles) in shells.couplings.iter().zip(&sites.couplings) {
            assert!(singles.shells.iter().all(|shell| shell.size == 1));
            for row in 0..sums.rows {
                let summed = sums.shells.iter().flat_map(|shell| {
                    shell.sites[row * shell.size..(row + 1) * shell.size].to_vec()
                });
                let single = singles.shells.iter().map(|shell| shell.sites[row]);
                assert!(summed.eq(single), "level {}, row {row}", sites.level);
            }
        }
    }
}

#[test]
fn a_depth_cut_leaves_the_coarse_field_to_the_prior() {
    let flow = random_flow(architecture(8, 1, &small_config()), Kind::Double).bind_frozen();
    let z = batch_of(8, Kind::Double);
    // Sites that are two apart share no block of level 0, so their blocks cannot see each other beyond
    // the disentangler's reach: a far latent changes nothing.
    let changed = z.copy();
    let _ = changed.narrow(1, 4, 1).narrow(2, 4, 1).fill_(3.0);
    let difference = flow.map().forward(&z).0 - flow.map().forward(&changed).0;
    let reach = difference.abs().amax([0], false);
    assert!(reach.double_value(&[4, 4]) > 0.0);
    for far in [0, 1, 2, 7] {
        assert_eq!(reach.double_value(&[far, far]), 0.0, "site {far}");
    }
}

#[test]
fn field_is_a_function_of_every_latent_at_full_depth() {
    for arrangement in [Arrangement::Mera, Arrangement::Checkerboard] {
        let config = FlowConfig { arrangement, couplings: 6, ..small_config() };
        let flow = random_flow(architecture(8, 3, &config), Kind::Double).bind_frozen();
        let z = batch_of(8, Kind::Double).set_requires_grad(true);
        let (x, _) = flow.map().forward(&z);
        let gradient = Tensor::run_backward(&[x.square().sum(Kind::Double)], &[&z], false, false);
        assert!(gradient[0].abs().min().double_value(&[]) > 0.0);
    }
}

#[test]
fn every_device_starts_from_the_same_weights_and_a_pure_shift() {
    let start = || -> Flow {
        tch::manual_seed(2);
        Flow::initialize(architecture(4, 2, &small_config()), Kind::Float, Device::Cpu)
    };
    assert_eq!(start().parameters, start().parameters);
    let frozen: SymmetrizedFlow = start().bind_frozen();
    let (_, log_det) = frozen.map().forward(&batch_of(4, Kind::Float));
    assert_eq!(largest(&log_det), 0.0);
}

#[test]
fn scales_of_a_fresh_flow_have_gradients() {
    for architecture in architectures() {
        if architecture.config.transform != Transform::Affine {
            continue;
        }
        tch::manual_seed(4);
        let flow = Flow::initialize(architecture.clone(), Kind::Double, Device::Cpu);
        let (_, log_det) =
            flow.bind().map().forward(&batch_of(architecture.linear_size, Kind::Double));
        let parameters = [&flow.parameters];
        let gradient =
            Tensor::run_backward(&[log_det.sum(Kind::Double)], &parameters, false, false);
        for coupling in flow.couplings().iter() {
            let scale = coupling.parameters().end as i64 - 1;
            let slope = gradient[0].double_value(&[scale]);
            assert!(slope != 0.0, "{architecture:?}");
        }
    }
}

fn values(flow: &Flow) -> Vec<f64> {
    Vec::try_from(flow.parameters.detach().to_kind(Kind::Double)).unwrap()
}

/// The child's parameters after a start from the parent, and its own.
fn start(parent: Architecture, child: Architecture) -> (Flow, Flow, Vec<f64>) {
    let [parent, child] =
        [parent, child].map(|architecture| random_flow(architecture, Kind::Double));
    let started =
        transfer(&child.architecture, &values(&child), &parent.architecture, &values(&parent));
    (parent, child, started)
}

#[test]
fn a_flow_that_starts_from_its_own_copy_is_that_copy() {
    for architecture in architectures() {
        let (parent, _, started) = start(architecture.clone(), architecture);
        assert_eq!(started, values(&parent));
    }
}

#[test]
fn a_smaller_parent_gives_its_top_to_the_top_of_the_child() {
    let [parent, child] = [(4, 2), (8, 3)].map(|(size, depth)| {
        let config = FlowConfig { arrangement: Arrangement::Checkerboard, ..small_config() };
        architecture(size, depth, &config)
    });
    let (parent, child, started) = start(parent, child);
    let (own, smaller) = (values(&child), values(&parent));
    let layers = |flow: &Flow, level: usize| -> Vec<Coupling> {
        let layers = flow.architecture.layers().into_iter();
        layers.filter(|layer| layer.level == level).flat_map(|layer| layer.couplings).collect()
    };
    for (top, source) in layers(&child, 2).iter().zip(layers(&parent, 1)) {
        assert_eq!(started[top.parameters()], smaller[source.parameters()]);
    }
    // The finest checkerboard of 4 × 4 sites has two shells, that of 8 × 8 three.
    let finest = layers(&child, 0).pop().unwrap();
    assert_eq!(started[finest.parameters()], own[finest.parameters()]);
}

#[test]
fn a_shallower_parent_gives_its_levels_and_the_rest_keeps_its_start() {
    let [parent, child] = [2, 3].map(|depth| architecture(8, depth, &small_config()));
    let (parent, child, started) = start(parent, child);
    let own = values(&child);
    let parents = parent.architecture.layers();
    for layer in child.architecture.layers() {
        for (i, coupling) in layer.couplings.iter().enumerate() {
            let taken = &started[coupling.parameters()];
            let same = |other: &&Layer| other.role == layer.role && other.level == layer.level;
            let source = parents.iter().find(same).map(|layer| &layer.couplings[i]);
            let expected = match source {
                Some(source) => values(&parent)[source.parameters()].to_vec(),
                None => own[coupling.parameters()].to_vec(),
            };
            assert_eq!(taken, expected, "{:?} of level {}", layer.role, layer.level);
        }
    }
}
