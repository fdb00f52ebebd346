//! How couplings are laid over the lattice: the paper's blocks as MERA, tree or TEBD (Fig. 1), and
//! checkerboards that refine the lattice by √2 at a time; or over any number of coordinates, in random halves.
//!
//! Latents lie on the lattice too: those of level l sit at the sites that are multiples of 2^l but not
//! both coordinates of 2^(l+1); the sites that are multiples of 2^depth hold the coarse prior. (TEBD and halves have no
//! levels: every site holds one latent of the same kind.)

use std::collections::{BTreeMap, HashSet};

use ndarray::{Array1, Array2, ArrayView2};

use super::Architecture;
use super::config::{Arrangement, FlowConfig, Neighbours, Splits};
use super::coupling::{Conditioner, Convolution, Coupling, Half, Kernel, Network, Shell};
use crate::random::Random;

/// What a layer is for. Seen from x to z as in the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// 2×2 blocks shifted by (1, 1), which straddle those of the decimator.
    Disentangler,
    /// 2×2 blocks, one of whose outputs is passed up to the next level.
    Decimator,
    /// The checkerboard of even and odd sites of the (L/2^level)² field; the even ones are kept.
    Straight,
    /// The checkerboard of the even sites, rotated by 45°; the (L/2^(level+1))² field is kept.
    Diagonal,
    /// Each site of the coarse field on its own.
    Top,
    /// One half of all sites given the other.
    Halves,
}

/// Couplings that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    pub level: usize,
    pub role: Role,
    /// Number of the layer among those of its level and role, from z to x.
    pub repeat: usize,
    /// In the order from z to x.
    pub couplings: Vec<Coupling>,
}

impl Layer {
    /// Whether the parameters of `other` have the same meaning here, level apart.
    pub fn fits(&self, other: &Self) -> bool {
        let of = |layer: &Self| -> Vec<(Network, Option<Half>)> {
            layer.couplings.iter().map(|coupling| (coupling.network, coupling.half)).collect()
        };
        let same_sites = || {
            let updated = |layer: &Self| -> Vec<Vec<u32>> {
                layer.couplings.iter().map(|coupling| coupling.updated.clone()).collect()
            };
            self.role != Role::Halves || updated(self) == updated(other)
        };
        (self.role, self.repeat) == (other.role, other.repeat)
            && of(self) == of(other)
            && same_sites()
    }
}

/// The halves of a block: diagonals, rows and columns, each with its complement behind it.
const HALVES: [Half; 6] = [[0, 3], [1, 2], [0, 1], [2, 3], [0, 2], [1, 3]];

/// The half that coupling number `index` of a layer of blocks freezes.
fn half(architecture: &Architecture, layer: (usize, Role, usize), index: usize) -> Half {
    let place = match architecture.config.splits {
        Splits::Cycle => index,
        Splits::Random => {
            let drawn = random_half(architecture.seed, layer, index / 2);
            drawn ^ (index % 2)
        }
    };
    HALVES[place % HALVES.len()]
}

/// Place among [`HALVES`] of the random half of a pair of couplings: a function of these numbers only.
fn random_half(seed: u64, (level, role, repeat): (usize, Role, usize), pair: usize) -> usize {
    let numbers = [seed, level as u64, role as u64, repeat as u64, pair as u64];
    (hashed("neuralrg 2026 halves of blocks", &numbers) % HALVES.len() as u64) as usize
}

/// A random number that is a function of these numbers.
fn hashed(context: &str, numbers: &[u64]) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// All layers in the order from z to x, their parameters one after the other.
pub fn layers(architecture: &Architecture) -> Vec<Layer> {
    let mut layers = match architecture.config.arrangement {
        Arrangement::Checkerboard => checkerboards(architecture),
        Arrangement::Halves => layers_of_halves(architecture),
        _ => blocks(architecture),
    };
    lay_down(layers.iter_mut().flat_map(|layer| &mut layer.couplings));
    layers
}

/// Puts the parameters of all couplings one after the other.
fn lay_down<'a>(couplings: impl Iterator<Item = &'a mut Coupling>) {
    let mut offset = 0;
    for coupling in couplings {
        coupling.offset = offset;
        offset += coupling.network.parameter_count();
    }
}

/// As many layers of halves as there are blocks' ones in TEBD.
fn layers_of_halves(architecture: &Architecture) -> Vec<Layer> {
    let Architecture { depth, seed, ref config, .. } = *architecture;
    let places = (0..depth).rev().flat_map(|step| (0..config.repeats).map(move |r| (step, r)));
    let layer = |(level, repeat): (usize, usize)| {
        let couplings = half_couplings(architecture.sites(), (seed, level, repeat), config);
        Layer { level, role: Role::Halves, repeat, couplings }
    };
    places.map(layer).collect()
}

/// The couplings of one Real NVP of any number of coordinates, with their parameters one after the other; random halves are
/// a function of the seed.
pub fn halves(coordinates: usize, seed: u64, config: &FlowConfig) -> Vec<Coupling> {
    let mut couplings = half_couplings(coordinates, (seed, 0, 0), config);
    lay_down(couplings.iter_mut());
    couplings
}

/// Couplings that update a random half of all coordinates given the other, then that one given the first.
fn half_couplings(
    coordinates: usize,
    layer: (u64, usize, usize),
    config: &FlowConfig,
) -> Vec<Coupling> {
    let coupling = |index: usize| {
        let (first, second) = halved(coordinates, layer, index / 2);
        let (updated, frozen) =
            if index.is_multiple_of(2) { (first, second) } else { (second, first) };
        let shell = |site: u32| Shell { sites: vec![site], size: 1, weight: 1.0, distance: 1.0 };
        Coupling {
            network: config.network(frozen.len(), updated.len()),
            half: None,
            rows: 1,
            updated,
            shells: frozen.into_iter().map(shell).collect(),
            convolution: None,
            offset: 0,
        }
    };
    (0..config.couplings).map(coupling).collect()
}

/// A random half of so many coordinates and its complement, both ascending: a function of these numbers only.
fn halved(
    coordinates: usize,
    (seed, level, repeat): (u64, usize, usize),
    pair: usize,
) -> (Vec<u32>, Vec<u32>) {
    let numbers = [seed, level as u64, repeat as u64, pair as u64];
    let order = Random::new(hashed("neuralrg 2026 halves of coordinates", &numbers));
    let mut first: Vec<u32> =
        order.permutation(coordinates).into_iter().map(|site| site as u32).collect();
    let mut second = first.split_off(coordinates.div_ceil(2));
    first.sort_unstable();
    second.sort_unstable();
    (first, second)
}

/// The level at which the latent of each site comes in, row by row; `depth` for the coarse prior, and 0 throughout
/// where there are no levels.
pub fn latent_levels(architecture: &Architecture) -> Vec<usize> {
    let Architecture { linear_size, depth, .. } = *architecture;
    let top = if architecture.config.arrangement.has_levels() { depth } else { 0 };
    let level = |site: usize| {
        let (row, column) = (site / linear_size, site % linear_size);
        top.min((row | column).trailing_zeros() as usize)
    };
    (0..linear_size * linear_size).map(level).collect()
}

/// z with the latents of all levels below `level` set to 0, their mean: g of it is the field without its finer details.
///
/// Shapes: z (batch, N) → (batch, N).
pub fn without_finer(architecture: &Architecture, z: ArrayView2<f64>, level: usize) -> Array2<f64> {
    let levels = latent_levels(architecture);
    let stays: Array1<f64> = levels.iter().map(|&other| f64::from(other >= level)).collect();
    &z * &stays
}

/// One latent of each kind, top level first: all others are its translations. Layers down to level l look alike
/// after steps of 2^(l+1), and latents of level l are functions of these layers and the field alone. Among halves
/// each is of its own kind.
pub fn kinds_of_latents(architecture: &Architecture) -> Vec<usize> {
    let Architecture { linear_size, depth, .. } = *architecture;
    let levels = latent_levels(architecture);
    if architecture.config.arrangement == Arrangement::Halves {
        return (0..levels.len()).collect();
    }
    let is_first = |site: &usize| {
        let cell = 1 << depth.min(levels[*site] + 1);
        site / linear_size < cell && site % linear_size < cell
    };
    let mut sites: Vec<usize> = (0..levels.len()).filter(is_first).collect();
    sites.sort_by_key(|&site| std::cmp::Reverse(levels[site]));
    sites
}

/// Layers of blocks, from z to x: from coarse to fine, at each level decimators before disentanglers.
fn blocks(architecture: &Architecture) -> Vec<Layer> {
    let roles: &[Role] = match architecture.config.arrangement {
        Arrangement::Tree => &[Role::Decimator],
        _ => &[Role::Decimator, Role::Disentangler],
    };
    let mut layers = Vec::new();
    for step in (0..architecture.depth).rev() {
        let stride = if architecture.config.arrangement.has_levels() { 1 << step } else { 1 };
        for repeat in 0..architecture.config.repeats {
            layers.extend(roles.iter().map(|&role| Layer {
                level: step,
                role,
                repeat,
                couplings: block_couplings(architecture, stride, (step, role, repeat)),
            }));
        }
    }
    layers
}

/// The couplings of one Real NVP laid over all 2×2 blocks of the sites that are multiples of `stride`.
fn block_couplings(
    architecture: &Architecture,
    stride: usize,
    layer: (usize, Role, usize),
) -> Vec<Coupling> {
    let size = architecture.linear_size;
    let (_, role, _) = layer;
    let shift = if role == Role::Disentangler { stride } else { 0 };
    let starts = || (0..size).step_by(2 * stride);
    let corners: Vec<[u32; 4]> = starts()
        .flat_map(|row| starts().map(move |column| (row + shift, column + shift)))
        .map(|(row, column)| {
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(down, right)| {
                let (row, column) = (row + down * stride, column + right * stride);
                (row % size * size + column % size) as u32
            })
        })
        .collect();
    let coupling = |index: usize| {
        let frozen = half(architecture, layer, index);
        let updated = (0..4).filter(|place| !frozen.contains(place));
        let updated: Vec<usize> = updated.collect();
        let single = |place: usize| Shell {
            sites: corners.iter().map(|block| block[place]).collect(),
            size: 1,
            weight: 1.0,
            distance: 1.0,
        };
        Coupling {
            network: architecture.config.network(2, 2),
            half: Some(frozen),
            rows: corners.len(),
            updated: corners
                .iter()
                .flat_map(|block| updated.iter().map(|&place| block[place]))
                .collect(),
            shells: frozen.map(single).into(),
            convolution: None,
            offset: 0,
        }
    };
    (0..architecture.config.couplings).map(coupling).collect()
}

/// The coarse field, then checkerboards from coarse to fine.
fn checkerboards(architecture: &Architecture) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut old = sublattice(architecture.linear_size, 2 * architecture.depth);
    if architecture.config.conditioner == Conditioner::Odd {
        let couplings = vec![checkerboard_coupling(architecture, &old, &[])];
        layers.push(Layer { level: architecture.depth, role: Role::Top, repeat: 0, couplings });
    }
    for halvings in (0..2 * architecture.depth).rev() {
        let all = sublattice(architecture.linear_size, halvings);
        let known: HashSet<u32> = old.iter().copied().collect();
        let new: Vec<u32> = all.iter().copied().filter(|site| !known.contains(site)).collect();
        let couplings = (0..architecture.config.couplings)
            .map(|i| match i % 2 {
                0 => checkerboard_coupling(architecture, &new, &old),
                _ => checkerboard_coupling(architecture, &old, &new),
            })
            .collect();
        let role = if halvings % 2 == 0 { Role::Straight } else { Role::Diagonal };
        layers.push(Layer { level: halvings / 2, role, repeat: 0, couplings });
        old = all;
    }
    layers
}

/// Sites that are left when the checkerboard's other colour was taken away `halvings` times.
fn sublattice(linear_size: usize, halvings: usize) -> Vec<u32> {
    let stride = 1 << (halvings / 2);
    let kept = |row: usize, column: usize| {
        row.is_multiple_of(stride)
            && column.is_multiple_of(stride)
            && (halvings.is_multiple_of(2) || (row / stride + column / stride).is_multiple_of(2))
    };
    let sites =
        (0..linear_size * linear_size).filter(|site| kept(site / linear_size, site % linear_size));
    sites.map(|site| site as u32).collect()
}

/// A coupling that updates single sites, given the shells of frozen sites nearest to each.
fn checkerboard_coupling(architecture: &Architecture, updated: &[u32], frozen: &[u32]) -> Coupling {
    let FlowConfig { shells: count, neighbours, channels, .. } = architecture.config;
    let of = |from: &[u32], to: &[u32], count: usize| {
        shells(architecture.linear_size, from, to, count, neighbours)
    };
    let shells = of(updated, frozen, count);
    let mut network = architecture.config.network(shells.len(), 1);
    let convolution = (channels > 0 && !frozen.is_empty()).then(|| Convolution {
        rows: frozen.len(),
        stencil: of(frozen, frozen, 1 + count),
        seen: of(updated, frozen, 1).into_iter().map(|shell| renumbered(shell, frozen)).collect(),
    });
    if let Some(Convolution { stencil, seen, .. }) = &convolution {
        network.convolution = Some(Kernel { inputs: stencil.len(), channels });
        network.inputs += seen.len() * channels;
    }
    Coupling {
        network,
        half: None,
        rows: updated.len(),
        updated: updated.to_vec(),
        shells,
        convolution,
        offset: 0,
    }
}

/// A shell of frozen sites as one of their places in the list of them, which is sorted.
fn renumbered(shell: Shell, frozen: &[u32]) -> Shell {
    let place = |site: &u32| frozen.binary_search(site).expect("a shell has frozen sites") as u32;
    Shell { sites: shell.sites.iter().map(place).collect(), ..shell }
}

/// The nearest `count` classes of frozen sites at equal displacement up to reflections; a small torus
/// may have fewer. All updated sites see the same displacements, since the lattice looks alike from each.
/// A site that is both updated and frozen comes first, at distance 0.
fn shells(
    linear_size: usize,
    updated: &[u32],
    frozen: &[u32],
    count: usize,
    neighbours: Neighbours,
) -> Vec<Shell> {
    let size = linear_size as u32;
    let displacements = frozen.iter().map(|&site| displacement(updated[0], site, size));
    let mut classes: BTreeMap<(u32, u32), Vec<[u32; 2]>> = BTreeMap::new();
    for displacement in displacements {
        let [down, right] = displacement.map(|steps| steps.min(size - steps));
        let class = (down * down + right * right, down.max(right));
        classes.entry(class).or_default().push(displacement);
    }
    let nearest = classes.keys().map(|class| class.0).find(|&square| square > 0);
    let nearest = f64::from(nearest.unwrap_or(1)).sqrt();
    let inputs = classes.into_iter().take(count).flat_map(|(class, members)| match neighbours {
        Neighbours::Shells => vec![(class, members)],
        Neighbours::Sites => members.into_iter().map(|member| (class, vec![member])).collect(),
    });
    let shell = |((square, _), members): ((u32, u32), Vec<[u32; 2]>)| Shell {
        sites: updated
            .iter()
            .flat_map(|&site| members.iter().map(move |&steps| displaced(site, steps, size)))
            .collect(),
        size: members.len(),
        weight: 1.0 / (members.len() as f64).sqrt(),
        distance: f64::from(square).sqrt() / nearest,
    };
    inputs.map(shell).collect()
}

/// Steps down and to the right from one site to another, from 0 to L-1.
fn displacement(from: u32, to: u32, size: u32) -> [u32; 2] {
    [(to / size + size - from / size) % size, (to % size + size - from % size) % size]
}

/// The site that lies so many steps down and to the right.
fn displaced(site: u32, [down, right]: [u32; 2], size: u32) -> u32 {
    (site / size + down) % size * size + (site % size + right) % size
}
