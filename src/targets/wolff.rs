//! Cluster Monte Carlo of the Ising spins, the reference that needs no flow and no field (U. Wolff, Phys. Rev. Lett. 62,
//! 361 (1989)).

use ndarray::{Array2, Array3, Axis, s};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::statistics::{Estimate, block_sums, gamma_method, jackknife};
use crate::targets::observe::{self, Derived, Observable};

/// Independent chains, so that errors can be seen between them too.
const CHAINS: u64 = 16;
/// Measurements of a chain that are thrown away, as a share of those that are kept.
const WARMUP_SHARE: usize = 5;

/// Observables of the reference, as [`Observable::TABLE`] without the diagnostics and [`Derived::TABLE`].
#[derive(Debug)]
pub struct Reference {
    /// (observable) in the order of [`Observable::TABLE`], autocorrelation times in measurements.
    pub scalars: Vec<Estimate>,
    /// (quantity) in the order of [`Derived::TABLE`], values with errors by the jackknife.
    pub derived: [(f64, f64); Derived::COUNT],
}

/// All measurements of a sampling.
#[derive(Debug)]
pub struct Sample {
    linear_size: usize,
    temperature: f64,
    /// (observable, chain, draw), observables as in [`Observable::TABLE`].
    values: Array3<f64>,
    /// (measurement, site): the spins ±1, chain after chain; no measurement unless they were kept.
    pub spins: Array2<i8>,
}

/// The spins of one chain.
struct Lattice {
    size: usize,
    spins: Vec<i8>,
    /// 1 - e^{-2β}: probability of a bond between equal spins.
    bond: f64,
    stack: Vec<usize>,
}

impl Lattice {
    fn new(size: usize, temperature: f64, rng: &mut impl RngExt) -> Self {
        let spins = (0..size * size).map(|_| if rng.random() { 1 } else { -1 }).collect();
        Self { size, spins, bond: -(-2.0 / temperature).exp_m1(), stack: Vec::new() }
    }

    fn neighbours(&self, site: usize) -> [usize; 4] {
        let (size, row, column) = (self.size, site / self.size, site % self.size);
        [
            row * size + (column + 1) % size,
            row * size + (column + size - 1) % size,
            (row + 1) % size * size + column,
            (row + size - 1) % size * size + column,
        ]
    }

    /// Grows a cluster from a random site and flips it; returns its size.
    fn flip(&mut self, rng: &mut impl RngExt) -> usize {
        let seed = rng.random_range(0..self.spins.len());
        let spin = self.spins[seed];
        self.spins[seed] = -spin;
        self.stack.push(seed);
        let mut flipped = 1;
        while let Some(site) = self.stack.pop() {
            for other in self.neighbours(site) {
                if self.spins[other] == spin && rng.random_bool(self.bond) {
                    self.spins[other] = -spin;
                    self.stack.push(other);
                    flipped += 1;
                }
            }
        }
        flipped
    }

    /// The observables in the order of [`Observable::TABLE`].
    fn measure(&self) -> [f64; Observable::COUNT] {
        let sites = self.spins.len() as f64;
        let spin = |site: usize| f64::from(self.spins[site]);
        let bonds: f64 = (0..self.spins.len())
            .map(|site| {
                let [right, _, below, _] = self.neighbours(site);
                spin(site) * (spin(right) + spin(below))
            })
            .sum();
        let energy = -bonds / sites;
        let m = (0..self.spins.len()).map(spin).sum::<f64>() / sites;
        let wave = |site: &dyn Fn(usize, usize) -> usize| {
            let (mut real, mut imaginary) = (0.0, 0.0);
            for line in 0..self.size {
                let sum: f64 = (0..self.size).map(|along| spin(site(line, along))).sum();
                let angle = std::f64::consts::TAU * line as f64 / self.size as f64;
                real += sum * angle.cos();
                imaginary += sum * angle.sin();
            }
            (real * real + imaginary * imaginary) / sites
        };
        let of_rows = wave(&|row, column| row * self.size + column);
        let of_columns = wave(&|column, row| row * self.size + column);
        let smallest = 0.5 * (of_rows + of_columns);
        [energy, m * m, m.powi(4), m.abs(), m, energy * energy, smallest]
    }
}

/// Samples the L × L torus at temperature T by `measurements` measurements in all, one every N flipped spins on
/// average, so that one measurement is about one sweep. The streams of random numbers are functions of `seed` and chain.
pub fn sample(
    linear_size: usize,
    temperature: f64,
    measurements: usize,
    seed: u64,
    keep_spins: bool,
) -> Sample {
    let draws = measurements.div_ceil(CHAINS as usize).max(8);
    let chains: Vec<(Array2<f64>, Vec<i8>)> = (0..CHAINS)
        .into_par_iter()
        .map(|chain| {
            let mut rng = StdRng::seed_from_u64(seed);
            rng = StdRng::seed_from_u64(rng.random::<u64>().wrapping_add(chain));
            run_chain(linear_size, temperature, draws, keep_spins, &mut rng)
        })
        .collect();
    let mut values = Array3::zeros((Observable::COUNT, chains.len(), draws));
    let mut spins = Vec::new();
    for (index, (chain, kept)) in chains.into_iter().enumerate() {
        values.slice_mut(s![.., index, ..]).assign(&chain.t());
        spins.extend(kept);
    }
    let sites = linear_size * linear_size;
    let spins = Array2::from_shape_vec((spins.len() / sites, sites), spins);
    let spins = spins.expect("every measurement has a spin for each site");
    Sample { linear_size, temperature, values, spins }
}

/// Estimates from a [`sample`] whose spins are not kept.
pub fn reference(
    linear_size: usize,
    temperature: f64,
    measurements: usize,
    seed: u64,
) -> Reference {
    sample(linear_size, temperature, measurements, seed, false).reference()
}

impl Sample {
    /// Estimates with errors.
    pub fn reference(&self) -> Reference {
        let scalars: Vec<Estimate> = self.values.axis_iter(Axis(0)).map(gamma_method).collect();
        let longest = scalars.iter().map(|estimate| estimate.tau_int).fold(0.5, f64::max);
        let sums = block_sums(self.values.view(), None, longest);
        let derived = jackknife(sums.view(), |means| {
            observe::derived(means, self.linear_size, self.temperature)
        });
        Reference { scalars, derived }
    }
}

/// One chain from random spins: its measurements, and the spins of each if they are to be kept.
///
/// Shapes: (draw, observable), (draw · site).
fn run_chain(
    size: usize,
    temperature: f64,
    draws: usize,
    keep_spins: bool,
    rng: &mut StdRng,
) -> (Array2<f64>, Vec<i8>) {
    let mut lattice = Lattice::new(size, temperature, rng);
    let sites = size * size;
    // As many clusters to a measurement as flip N spins on average, found out and then kept: a number that depended
    // on the clusters of the moment would favour some states.
    let warmup = (draws / WARMUP_SHARE).max(100);
    let (mut flipped, mut clusters) = (0, 0usize);
    while flipped < warmup * sites {
        flipped += lattice.flip(rng);
        clusters += 1;
    }
    let clusters = (clusters / warmup).max(1);
    let mut values = Array2::zeros((draws, Observable::COUNT));
    let mut spins = Vec::new();
    for mut row in values.rows_mut() {
        for _ in 0..clusters {
            lattice.flip(rng);
        }
        row.assign(&ndarray::arr1(&lattice.measure()));
        if keep_spins {
            spins.extend(&lattice.spins);
        }
    }
    (values, spins)
}
