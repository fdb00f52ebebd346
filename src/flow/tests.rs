//! What flows are, before anything evaluates them: their couplings' sites and halves, their parameters, and what a flow
//! takes from another one. The table of all flows is that of `engine/tests.rs` too.

use std::collections::HashSet;

use super::arrangement::{Layer, Role};
use super::config::{Arrangement, Neighbours, Splits};
use super::coupling::{Conditioner, Coupling, Half, Networks, Transform};
use super::*;
use crate::flow::config::Symmetry;
use crate::random::Use;

pub(crate) fn small_config() -> FlowConfig {
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

pub(crate) fn architecture(linear_size: usize, depth: usize, config: &FlowConfig) -> Architecture {
    Architecture::new(linear_size, depth, 1, config)
}

/// A flow away from its start, where scales are zero. (ELU outputs are not bounded, and bumps exponentiate
/// them.)
pub(crate) fn random_flow(architecture: Architecture) -> Flow {
    let deviation = match (architecture.config.conditioner, architecture.config.transform) {
        (Conditioner::Elu, Transform::Bump) => 0.03,
        _ => 0.3,
    };
    let random = Random::new(15);
    let mut flow = Flow::initialize(architecture, &random);
    let kick = random.normals(Use::Momenta, 0..1, flow.parameters.len());
    flow.parameters.scaled_add(deviation, &kick.row(0));
    flow
}

/// Every arrangement, conditioner, transform, separate networks and the preconditioner; one coupling to more than it takes
/// to use every split of a block; all depths.
pub(crate) fn architectures() -> Vec<Architecture> {
    use Arrangement::{Checkerboard, Halves, Mera, Tebd, Tree};
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
    for arrangement in [Mera, Tree, Tebd, Checkerboard, Halves] {
        table.extend(configs(arrangement).map(|config| architecture(4, 2, &config)));
        let preconditioner = FlowConfig { arrangement, preconditioner: true, ..small_config() };
        table.push(architecture(4, 1, &preconditioner));
        let config = FlowConfig { arrangement, ..small_config() };
        table.extend(
            [(8, 1), (8, 2), (8, 3)].map(|(size, depth)| architecture(size, depth, &config)),
        );
    }
    for arrangement in [Mera, Checkerboard, Halves] {
        table.extend([Transform::Affine, Transform::Bump].map(|transform| {
            let (splits, networks) = (Splits::Random, Networks::Separate);
            let config = FlowConfig { arrangement, splits, networks, transform, ..small_config() };
            architecture(4, 2, &config)
        }));
    }
    // Lattices whose coarsest one is odd.
    for arrangement in [Mera, Tree, Tebd, Checkerboard] {
        let config = FlowConfig { arrangement, preconditioner: true, ..small_config() };
        table.push(architecture(6, 1, &config));
    }
    for (arrangement, conditioner) in [(Mera, Conditioner::Elu), (Checkerboard, Conditioner::Odd)] {
        let config = FlowConfig { arrangement, conditioner, ..small_config() };
        table.push(architecture(12, 2, &config));
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

#[test]
fn parameter_vector_has_the_length_that_the_architecture_tells() {
    let architecture = architecture(8, 3, &small_config());
    // Per coupling: 2 → 6 → 6 → 4 with biases, and two scales.
    let coupling = (2 * 6 + 6) + (6 * 6 + 6) + (6 * 4 + 4) + 2;
    let flow = random_flow(architecture);
    assert_eq!(flow.parameters.len(), coupling * 3 * 2 * 3);
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
fn halves_of_coordinates_are_all_of_them_and_every_coordinate_meets_every_other() {
    for coordinates in [2, 3, 16, 31] {
        let config = FlowConfig { couplings: 40, ..small_config() };
        let couplings = arrangement::halves(coordinates, 1, &config);
        let mut met = HashSet::new();
        for coupling in &couplings {
            let frozen: Vec<u32> = coupling.shells.iter().map(|shell| shell.sites[0]).collect();
            let mut all = [frozen.clone(), coupling.updated.clone()].concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..coordinates as u32));
            met.extend(frozen.iter().flat_map(|&a| coupling.updated.iter().map(move |&b| (a, b))));
        }
        assert_eq!(met.len(), coordinates * (coordinates - 1));
        let lengths = couplings.iter().map(|coupling| coupling.network.parameter_count());
        let ends = lengths.scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        assert!(couplings.iter().map(|coupling| coupling.parameters().end).eq(ends));
    }
}

#[test]
fn random_halves_come_with_their_complements_and_depend_on_the_seed_and_the_place_only() {
    let config = FlowConfig { splits: Splits::Random, couplings: 10, repeats: 2, ..small_config() };
    let of = |size, depth, seed| halves(&Architecture::new(size, depth, seed, &config));
    let all = of(16, 4, 1);
    for pair in all.chunks_exact(2) {
        let [mut sites, others] = [pair[0].1, pair[1].1].map(Vec::from);
        sites.extend(others);
        sites.sort_unstable();
        assert_eq!(sites, [0, 1, 2, 3], "{pair:?}");
    }
    let shallow = of(32, 2, 1);
    let known = shallow.iter().all(|half| all.contains(half));
    assert!(known && shallow.len() == all.len() / 2, "levels 0 and 1 are the same");
    // 80 pairs, each with one of six halves.
    let first = |seed| of(16, 4, seed).iter().step_by(2).map(|half| half.1).collect::<Vec<_>>();
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
    for arrangement in [Arrangement::Mera, Arrangement::Halves] {
        other_halves_pass_no_weights_on(arrangement);
    }
}

fn other_halves_pass_no_weights_on(arrangement: Arrangement) {
    let config = FlowConfig { arrangement, splits: Splits::Random, couplings: 4, ..small_config() };
    let [own, other] = [1, 2].map(|seed| Architecture::new(4, 2, seed, &config));
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

/// The child's parameters after a start from the parent, and its own.
fn start(parent: Architecture, child: Architecture) -> (Flow, Flow, Vec<f64>) {
    let [parent, child] = [parent, child].map(random_flow);
    let [own, others] = [&child, &parent].map(|flow| flow.parameters.to_vec());
    let started = transfer(&child.architecture, &own, &parent.architecture, &others);
    (parent, child, started)
}

#[test]
fn a_flow_that_starts_from_its_own_copy_is_that_copy() {
    for architecture in architectures() {
        let (parent, _, started) = start(architecture.clone(), architecture);
        assert_eq!(started, parent.parameters.to_vec());
    }
}

#[test]
fn a_smaller_parent_gives_its_top_to_the_top_of_the_child() {
    let [parent, child] = [(4, 2), (8, 3)].map(|(size, depth)| {
        let config = FlowConfig { arrangement: Arrangement::Checkerboard, ..small_config() };
        architecture(size, depth, &config)
    });
    let (parent, child, started) = start(parent, child);
    let (own, smaller) = (child.parameters.to_vec(), parent.parameters.to_vec());
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
    let own = child.parameters.to_vec();
    let parents = parent.architecture.layers();
    for layer in child.architecture.layers() {
        for (i, coupling) in layer.couplings.iter().enumerate() {
            let taken = &started[coupling.parameters()];
            let same = |other: &&Layer| other.role == layer.role && other.level == layer.level;
            let source = parents.iter().find(same).map(|layer| &layer.couplings[i]);
            let expected = match source {
                Some(source) => parent.parameters.to_vec()[source.parameters()].to_vec(),
                None => own[coupling.parameters()].to_vec(),
            };
            assert_eq!(taken, expected, "{:?} of level {}", layer.role, layer.level);
        }
    }
}
