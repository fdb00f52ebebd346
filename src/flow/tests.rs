//! One table of all flows, put through one test: the inverse undoes the forward map, and log_det is that
//! of autograd's Jacobian.

use tch::{Device, Kind, Tensor};

use std::collections::HashSet;

use super::arrangement::{Arrangement, Layer, Neighbours, Role, Splits};
use super::coupling::{Conditioner, Coupling, Half, Networks, Transform};
use super::symmetry::{SymmetrizedFlow, ln_prior};
use super::*;
use crate::coarse;
use crate::config::{DeviceChoice, Symmetry};
use crate::response::responses;

fn small_config() -> FlowConfig {
    FlowConfig {
        couplings: 3,
        hidden_layers: 2,
        hidden_width: 6,
        splits: Splits::Cycle,
        networks: Networks::Joint,
        symmetry: Symmetry::None,
        ..Default::default()
    }
}

fn architecture(linear_size: usize, depth: usize, config: &FlowConfig) -> Architecture {
    Architecture::new(linear_size, 2.3, depth, 1, config)
}

/// A flow away from its start, where scales are zero. (ELU outputs are not bounded, and bumps exponentiate
/// them.)
fn random_flow(architecture: Architecture, kind: Kind) -> Flow {
    // Tensors this small gain nothing from threads.
    tch::set_num_threads(1);
    tch::manual_seed(15);
    let deviation = match (architecture.config.conditioner, architecture.config.transform) {
        (Conditioner::Elu, Transform::Bump) => 0.03,
        _ => 0.3,
    };
    let mut flow = Flow::initialize(architecture, &Random::new(15), kind, Device::Cpu);
    let kick = flow.parameters.randn_like() * deviation;
    flow.parameters = (flow.parameters.detach() + kick).set_requires_grad(true);
    flow
}

/// Every arrangement, conditioner, transform, separate networks and the preconditioner; one coupling to more than it takes
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
    for arrangement in [Mera, Checkerboard] {
        table.extend([Transform::Affine, Transform::Bump].map(|transform| {
            let (splits, networks) = (Splits::Random, Networks::Separate);
            let config = FlowConfig { arrangement, transform, splits, networks, ..small_config() };
            architecture(4, 2, &config)
        }));
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
    table.push(architecture(8, 2, &FlowConfig { networks: Networks::Separate, ..elu.clone() }));
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

/// The half that every coupling of blocks freezes, by level, role, repeat and coupling.
fn halves(architecture: &Architecture) -> Vec<((usize, Role, usize, usize), Half)> {
    let of_layer = |layer: Layer| {
        let Layer { level, role, repeat, couplings } = layer;
        let half = |(i, coupling): (usize, Coupling)| {
            ((level, role, repeat, i), coupling.half.expect("blocks have halves"))
        };
        couplings.into_iter().enumerate().map(half).collect::<Vec<_>>()
    };
    architecture.layers().into_iter().flat_map(of_layer).collect()
}

#[test]
fn random_halves_come_with_their_complements_and_depend_on_the_seed_and_the_place_only() {
    let config = FlowConfig { splits: Splits::Random, couplings: 10, repeats: 2, ..small_config() };
    let of = |size, temperature, depth, seed| {
        halves(&Architecture::new(size, temperature, depth, seed, &config))
    };
    let all = of(16, 2.0, 4, 1);
    for pair in all.chunks_exact(2) {
        let [mut sites, others] = [pair[0].1, pair[1].1].map(Vec::from);
        sites.extend(others);
        sites.sort_unstable();
        assert_eq!(sites, [0, 1, 2, 3], "{pair:?}");
    }
    let shallow = of(32, 2.7, 2, 1);
    let known = shallow.iter().all(|half| all.contains(half));
    assert!(known && shallow.len() == all.len() / 2, "levels 0 and 1 are the same");
    // 80 pairs, each with one of six halves.
    let first =
        |seed| of(16, 2.0, 4, seed).iter().step_by(2).map(|half| half.1).collect::<Vec<_>>();
    let (one, two) = (first(1), first(2));
    let equal = one.iter().zip(&two).filter(|(a, b)| a == b).count();
    assert!(equal < 30, "{equal} of {} pairs of another seed", one.len());
    for half in one.iter().collect::<HashSet<_>>() {
        let count = one.iter().filter(|other| *other == half).count();
        assert!((4..=26).contains(&count), "{half:?} stands {count} times");
    }
    assert_eq!(one.iter().collect::<HashSet<_>>().len(), 6);
}

#[test]
fn layers_with_other_halves_pass_no_weights_on() {
    let config = FlowConfig { splits: Splits::Random, couplings: 4, ..small_config() };
    let [own, other] = [1, 2].map(|seed| Architecture::new(4, 2.0, 2, seed, &config));
    let count = own.parameter_count();
    let from = |parent: &Architecture| transfer(&own, &vec![0.0; count], parent, &vec![1.0; count]);
    assert!(from(&own).iter().all(|&value| value == 1.0));
    let differs = |layer: &Layer, other: &Layer| !layer.fits(other);
    let (layers, others) = (own.layers(), other.layers());
    let kept = layers.iter().zip(&others).filter(|(a, b)| differs(a, b)).count();
    assert!(kept > 0, "another seed has other halves somewhere");
    let zeros = from(&other).iter().filter(|&&value| value == 0.0).count();
    assert_eq!(zeros, kept * count / layers.len());
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

/// The device is a GPU where the machine has one.
#[test]
fn both_precisions_and_the_machines_device_start_from_the_same_weights_and_a_pure_shift() {
    let start = |kind, device| -> Flow {
        let architecture = architecture(4, 2, &small_config());
        Flow::initialize(architecture, &Random::new(2), kind, device)
    };
    let device = crate::device::select(DeviceChoice::Auto, 0).unwrap();
    let [double, single, there] =
        [(Kind::Double, Device::Cpu), (Kind::Float, Device::Cpu), (Kind::Float, device)]
            .map(|(kind, device)| start(kind, device).parameters.detach());
    assert_eq!(there.device(), device);
    assert_eq!(single, double.to_kind(Kind::Float));
    assert_eq!(there.to_device(Device::Cpu), single);
    let frozen: SymmetrizedFlow = start(Kind::Float, Device::Cpu).bind_frozen();
    let (_, log_det) = frozen.map().forward(&batch_of(4, Kind::Float));
    assert_eq!(largest(&log_det), 0.0);
}

#[test]
fn scales_of_a_fresh_flow_have_gradients() {
    for architecture in architectures() {
        if architecture.config.transform != Transform::Affine {
            continue;
        }
        let (random, architecture) = (Random::new(4), architecture.clone());
        let flow = Flow::initialize(architecture.clone(), &random, Kind::Double, Device::Cpu);
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

#[test]
fn parts_of_the_map_compose_to_the_whole() {
    for architecture in architectures().into_iter().filter(|a| !a.config.preconditioner) {
        let name = format!("{architecture:?}");
        let z = batch_of(architecture.linear_size, Kind::Double);
        let cuts: Vec<usize> = (0..=architecture.depth)
            .rev()
            .map(|level| architecture.couplings_down_to(level))
            .collect();
        assert!(cuts.is_sorted() && *cuts.last().unwrap() == architecture.couplings().len());
        let flow = random_flow(architecture, Kind::Double).bind_frozen();
        let (mut field, mut log_det) = flow.map().forward_through(0..cuts[0], &z);
        for range in cuts.windows(2) {
            let (next, change) = flow.map().forward_through(range[0]..range[1], &field);
            let (back, undone) = flow.map().inverse_through(range[0]..range[1], &next);
            assert!(largest(&(back - &field)) < 1e-10, "{name}: {range:?}");
            assert!(largest(&(&change + undone)) < 1e-10, "{name}: {range:?}");
            log_det += change;
            field = next;
        }
        let (whole, whole_log_det) = flow.map().forward(&z);
        assert!(largest(&(field - whole)) < 1e-12, "{name}");
        assert!(largest(&(log_det - whole_log_det)) < 1e-12, "{name}");
    }
}

fn with_levels() -> impl Iterator<Item = Architecture> {
    architectures().into_iter().filter(|a| a.config.arrangement.has_levels())
}

/// As the definition has it: the kept field is a function of the latents that are not finer, and its density
/// follows from the Jacobian of this function.
#[test]
fn kept_variables_have_the_density_of_their_own_latents() {
    for architecture in with_levels() {
        let name = format!("{architecture:?}");
        let size = architecture.linear_size as i64;
        let z = batch_of(architecture.linear_size, Kind::Double);
        let flow = random_flow(architecture.clone(), Kind::Double).bind_frozen();
        for kept in coarse::kept(&flow, &architecture, &z) {
            let step = 1 << kept.level;
            let thin = |x: &Tensor| x.slice(1, None, None, step).slice(2, None, None, step);
            let own = thin(&z);
            let index =
                Tensor::arange(size * size, (Kind::Int64, Device::Cpu)).view([1, size, size]);
            let places = thin(&index).reshape([-1]);
            let place = |own: &Tensor| {
                // Finer latents are anything.
                let all = Tensor::ones([3, size * size], (Kind::Double, Device::Cpu)) * 0.7;
                let all = all.index_copy(1, &places, &own.reshape([3, -1])).view([3, size, size]);
                let all = coarse::kept(&flow, &architecture, &all);
                let same = all.into_iter().find(|other| other.level == kept.level).unwrap();
                (same.field.contiguous(), same.ln_q)
            };
            assert!(largest(&(place(&own).0 - &kept.field)) < 1e-12, "{name}: {}", kept.level);
            let expected = ln_prior(&own) - autograd_log_det(&place, &own);
            assert!(largest(&(&kept.ln_q - expected)) < 1e-10, "{name}: {}", kept.level);
        }
    }
}

/// With the mixture, kept variables and their negatives are equally likely; at level 0 the density is that
/// of the flow.
#[test]
fn kept_variables_of_the_mixture_have_its_density() {
    let config = FlowConfig { symmetry: Symmetry::Mixture, ..small_config() };
    let architecture = architecture(8, 3, &config);
    let z = batch_of(8, Kind::Double);
    let flow = random_flow(architecture.clone(), Kind::Double).bind_frozen();
    let levels = coarse::kept(&flow, &architecture, &z);
    assert_eq!(levels.iter().map(|kept| kept.level).collect::<Vec<_>>(), [3, 2, 1, 0]);
    let draw = flow.draw(&z);
    let finest = levels.last().unwrap();
    assert!(largest(&(&finest.field - &draw.field)) < 1e-12);
    assert!(largest(&(&finest.ln_q - &draw.ln_q)) < 1e-12);
    // The latents of -y have the same density of y.
    let couplings = architecture.couplings_down_to(1);
    let (field, _) = flow.map().forward_through(0..couplings, &z);
    let (mirrored, _) = flow.map().inverse_through(0..couplings, &-field);
    let other = &coarse::kept(&flow, &architecture, &mirrored)[2];
    assert!(largest(&(&other.field + &levels[2].field)) < 1e-10);
    assert!(largest(&(&other.ln_q - &levels[2].ln_q)) < 1e-10);
}

#[test]
fn fields_get_sharper_level_by_level_up_to_the_whole_one() {
    for architecture in with_levels() {
        let z = batch_of(architecture.linear_size, Kind::Double);
        let flow = random_flow(architecture.clone(), Kind::Double).bind_frozen();
        let blurred =
            |level| flow.map().forward(&coarse::without_finer(&architecture, &z, level)).0;
        let (whole, _) = flow.map().forward(&z);
        assert!(largest(&(blurred(0) - &whole)) == 0.0);
        for level in 1..=architecture.depth {
            let latents = flow.map().inverse(&blurred(level)).0;
            let step = 1 << level;
            let thin = |x: &Tensor| x.slice(1, None, None, step).slice(2, None, None, step);
            assert!(largest(&(thin(&latents) - thin(&z))) < 1e-9, "{architecture:?}");
            let rest = latents.square().sum(Kind::Double) - thin(&z).square().sum(Kind::Double);
            assert!(largest(&rest) < 1e-7, "{architecture:?}: finer latents are 0");
        }
    }
}

#[test]
fn responses_are_finite_differences_of_the_latents() {
    let mixtures = [Arrangement::Mera, Arrangement::Checkerboard].map(|arrangement| {
        architecture(
            4,
            2,
            &FlowConfig { arrangement, symmetry: Symmetry::Mixture, ..small_config() },
        )
    });
    for architecture in architectures().into_iter().chain(mixtures) {
        let name = format!("{architecture:?}");
        let size = architecture.linear_size as i64;
        let flow = random_flow(architecture, Kind::Double).bind_frozen();
        let x = batch_of(size as usize, Kind::Double);
        let latents = [0, 1, 2 * size as usize + 1];
        let found = responses(&flow, &x, &latents);
        // Both signs with their probabilities, as in Eq. D.4.
        let odds = (flow.ln_density(&x) - flow.ln_density(&-&x)).sigmoid();
        let signs: &[f64] =
            if flow.symmetry() == Symmetry::Mixture { &[1.0, -1.0] } else { &[1.0] };
        let step = 1e-5;
        for j in [0, size + 1, size * size - 1] {
            let bump = Tensor::zeros([size * size], (Kind::Double, Device::Cpu));
            let _ = bump.get(j).fill_(step);
            let bump = bump.view([1, size, size]);
            let mut expected = Tensor::zeros([3, 3], (Kind::Double, Device::Cpu));
            for &sign in signs {
                let probability = match (signs.len(), sign) {
                    (1, _) => odds.ones_like(),
                    (_, 1.0) => odds.shallow_clone(),
                    _ => 1.0 - &odds,
                };
                let z = |shift: &Tensor| flow.map().inverse(&(&x * sign + shift)).0.flatten(1, -1);
                let slope = (z(&bump) - z(&-&bump)) / (2.0 * step);
                let sites = Tensor::from_slice(&latents.map(|site| site as i64));
                expected += slope.index_select(1, &sites).transpose(0, 1) * probability;
            }
            let difference = found.flatten(2, -1).select(2, j) - expected;
            assert!(largest(&difference) < 1e-6, "{name}: {}", largest(&difference));
        }
    }
}

/// Averaged over the mixture, weighting with the sign's probability is the same as taking each sample with the
/// sign that it was drawn with.
#[test]
fn mean_responses_of_the_mixture_are_those_of_the_flow_at_its_own_samples() {
    let config = FlowConfig { symmetry: Symmetry::Mixture, ..small_config() };
    let flow = random_flow(architecture(4, 2, &config), Kind::Double).bind_frozen();
    let z = Tensor::randn([20_000, 4, 4], (Kind::Double, Device::Cpu));
    let (x, _) = flow.map().forward(&z);
    let plain = FlowConfig { symmetry: Symmetry::None, ..config };
    let without = random_flow(architecture(4, 2, &plain), Kind::Double).bind_frozen();
    let mixed = symmetry::with_signs(&x, Symmetry::Mixture, &Random::new(1), 0);
    let difference = responses(&flow, &mixed, &[0, 1]) - responses(&without, &x, &[0, 1]);
    let mean = difference.mean_dim([1i64].as_slice(), false, None);
    let error = difference.std_dim(Some([1i64].as_slice()), true, false) / 20_000f64.sqrt();
    // Some sites lie beyond what a latent sees.
    assert!((mean.abs() - &error * 4.5).max().double_value(&[]) <= 0.0);
    // It matters which sign: here the answers of both differ.
    let other = responses(&without, &-x, &[0, 1]).mean_dim([1i64].as_slice(), false, None);
    let own = responses(&flow, &mixed, &[0, 1]).mean_dim([1i64].as_slice(), false, None);
    assert!(((own - other).abs() - error * 10.0).max().double_value(&[]) > 0.0);
}

#[test]
fn latents_of_one_kind_respond_alike_to_translated_fields() {
    for architecture in architectures() {
        let name = format!("{architecture:?}");
        let (size, depth) = (architecture.linear_size, architecture.depth);
        let levels = arrangement::latent_levels(&architecture);
        let kinds = arrangement::kinds_of_latents(&architecture);
        assert!(kinds.iter().map(|&site| levels[site]).is_sorted_by(|a, b| a >= b), "{name}");
        let flow = random_flow(architecture, Kind::Double).bind_frozen();
        let x = batch_of(size, Kind::Double);
        let (z, _) = flow.map().inverse(&x);
        let mut seen = 0;
        for site in kinds {
            let cell = 1 << depth.min(levels[site] + 1);
            let shifts = (0..size).step_by(cell);
            for (down, right) in
                shifts.clone().flat_map(|down| shifts.clone().map(move |right| (down, right)))
            {
                seen += 1;
                let steps = [down as i64, right as i64];
                let moved = flow.map().inverse(&x.roll(steps, [1, 2])).0;
                let place = |row: usize, column: usize| [row as i64, column as i64];
                let [row, column] = place(site / size, site % size);
                let [to_row, to_column] =
                    place((site / size + down) % size, (site % size + right) % size);
                let here = z.select(1, row).select(1, column);
                let there = moved.select(1, to_row).select(1, to_column);
                assert!(largest(&(here - there)) < 1e-9, "{name}: {site} {steps:?}");
            }
        }
        assert_eq!(seen, size * size, "{name}: every latent is of one kind");
    }
}
