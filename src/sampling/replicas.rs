//! Replicas of each chain at rising temperatures that exchange their states: parallel tempering (Swendsen and Wang,
//! Phys. Rev. Lett. 57, 2607 (1986); Hukushima and Nemoto, J. Phys. Soc. Jpn. 65, 1604 (1996)).
//!
//! HMC with a flow moves well where the flow knows the target, and hardly between sectors of the target, such as those of the
//! sign or with a domain wall, that the flow does not know of. At a temperature where such sectors do not exist nobody has to
//! know them. So the replicas do without the flow: they move the latents y of the flow that has no couplings, x = κ^{-1/2} y,
//! which is Fourier acceleration, and whose gradient costs a fiftieth at L = 16. The chain itself takes part at its own temperature, so
//! that it, too, moves in y between two trajectories in the latent space of its flow. In y the quadratic forms of all
//! temperatures are the same: neighbours exchange y by what the site potentials alone say.

mod block;
mod ladder;

use std::ops::Range;

use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, ArrayViewD, ArrayViewMut2, Axis, s};

use crate::engine::Model;
use crate::files::state::{ANY, Restored, Saved, array, number, read_number};
use crate::flow::Flow;
use crate::flow::coupling::Coupling;
use crate::flow::symmetry::random_signs;
use crate::random::{Random, Use};
use crate::ranks::shares::{Part, Shares, of_shape};
use crate::sampling::adaptation::DualAveraging;
use crate::sampling::config::{Count, HmcConfig};
use block::{Block, Sweep};
use ladder::{first_temperatures, next_temperatures};

/// Leapfrog steps between two exchanges, spread over half of them to one and a half.
const LEAPFROG_STEPS: f64 = 6.0;
/// Where step sizes start from; the first trajectories find theirs.
const STEP_SIZE: f64 = 0.4;
const ACCEPTANCE: f64 = 0.8;
/// Chains that are moved together, so that caches hold what they need.
const CHAINS_OF_BLOCK: usize = 32;
/// Gradients through the flow besides the leapfrog steps of a trajectory: for the global move, and to come back from the replicas.
const OTHER_GRADIENTS: i64 = 4;
/// Where fewer states of a chain came back from the top in the second half of the warm-up, its replicas may know where they
/// started for long, and so may the chain that exchanges with them.
const LEAST_ROUND_TRIPS: f64 = 0.1;
/// What a site potential takes beside Fourier transforms.
const MULTIPLICATIONS_OF_SITE: f64 = 60.0;
/// Most sweeps that are made where their number is open.
const MOST_SWEEPS: i64 = 6;

/// Replicas of all chains, from the temperature that is measured up to one at which chains forget where they have been.
#[derive(Debug)]
pub struct Replicas {
    /// The flow without couplings.
    model: Model,
    count: Count,
    sweeps: Count,
    /// What a trajectory of a chain takes.
    multiplications_of_chain: f64,
    /// T of every rung, from the lowest up.
    temperatures: Vec<f64>,
    step_sizes: Vec<DualAveraging>,
    frozen: bool,
    /// (chain, rung, N): y. The lowest rung is the chain itself, from the last call.
    positions: Array3<f64>,
    /// (chain, rung): 1 where the state has been at the top since it was last at the bottom.
    from_top: Array2<f64>,
    /// (pair of neighbours): the sum of the probabilities of exchanges that were tried, means over the chains, and their
    /// number.
    probabilities: Array1<f64>,
    tried: Array1<f64>,
    /// States that came to the bottom from the top since the ladder was laid, mean over the chains.
    round_trips: f64,
    /// T of the replicas that were given up after the warm-up.
    left_out: Vec<f64>,
    /// Exchanges so far.
    exchanges: i64,
}

/// What became of the exchanges.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Exchanged {
    /// T of every rung, from the measured one up.
    pub temperatures: Vec<f64>,
    /// Mean probability of an exchange of neighbours.
    pub rates: Vec<f64>,
    /// How often a state came to a chain from the top, mean over the chains.
    pub round_trips: f64,
    /// T of replicas that were given up after the warm-up, since states came back from the top too seldom.
    pub left_out: Vec<f64>,
}

impl Exchanged {
    /// The lowest rate of any pair of neighbours, 1 where there is no pair.
    pub fn least_rate(&self) -> f64 {
        self.rates.iter().copied().fold(1.0, f64::min)
    }
}

impl Replicas {
    /// Replicas of so many chains of a model, which start from samples of its flow; none where the configuration wants one
    /// replica.
    pub fn new(model: &Model, config: &HmcConfig, random: &Random) -> Option<Self> {
        if config.replicas == Count::Fixed(1) {
            return None;
        }
        let temperatures = first_temperatures(model.target(), model.temperature(), config.replicas);
        let (chains, rungs) = (config.chains as usize, temperatures.len());
        let bare = model.without_couplings();
        let positions = first_positions((model, &bare), (chains, rungs), random);
        Some(Self {
            model: bare,
            count: config.replicas,
            sweeps: config.sweeps,
            multiplications_of_chain: multiplications_of_chain(&model.flow, config),
            step_sizes: vec![DualAveraging::new(STEP_SIZE, ACCEPTANCE); rungs],
            frozen: false,
            positions,
            from_top: Array2::zeros((chains, rungs)),
            probabilities: Array1::zeros(rungs - 1),
            tried: Array1::zeros(rungs - 1),
            temperatures,
            round_trips: 0.0,
            left_out: Vec::new(),
            exchanges: 0,
        })
    }

    /// Moves fields of π by trajectories of y and exchanges with the replicas above, which make as many, and by a random sign
    /// where π knows none. Returns the fields and the gradients that a chain and its replicas took.
    ///
    /// Shapes: field (chains, N).
    pub fn advance(&mut self, field: ArrayView2<f64>, random: &Random) -> (Array2<f64>, i64) {
        let (chains, rungs) = (field.nrows(), self.temperatures.len());
        let team = self.model.team().clone();
        let shares = Shares::new(&team, chains);
        let sweeps: Vec<Sweep> =
            (0..self.sweeps()).map(|sweep| self.sweep(sweep, random)).collect();
        let mut means = Array2::zeros((sweeps.len(), 2 * rungs));
        let mut moved = field.to_owned();
        let own = shares.range();
        for first in own.clone().step_by(CHAINS_OF_BLOCK) {
            let block = first..own.end.min(first + CHAINS_OF_BLOCK);
            let field = moved.slice_mut(s![block.clone(), ..]);
            self.advance_block(block, field, (&sweeps, random), &mut means);
        }
        means /= shares.count().max(1) as f64;
        let own = |rows: ArrayViewD<f64>| Part::Rows(shares.own(rows).to_owned());
        let [field, positions, from_top, means] = shares.join([
            own(moved.view().into_dyn()),
            own(self.positions.view().into_dyn()),
            own(self.from_top.view().into_dyn()),
            Part::Mean(means.into_dyn()),
        ]);
        self.positions = of_shape(positions);
        self.from_top = of_shape(from_top);
        self.take(&sweeps, &of_shape(means));
        let gradients: i64 = sweeps.iter().map(|sweep| sweep.steps + 1).sum();
        (of_shape(field), gradients * rungs as i64)
    }

    /// Sweeps of one call: where their number is open, as many as take about as much arithmetic as a trajectory of the chain.
    fn sweeps(&self) -> i64 {
        if let Count::Fixed(sweeps) = self.sweeps {
            return sweeps;
        }
        let architecture = &self.model.flow.architecture;
        let of_site = MULTIPLICATIONS_OF_SITE + 8.0 * architecture.linear_size as f64;
        let gradients = self.temperatures.len() as f64 * (LEAPFROG_STEPS + 1.0);
        let of_sweep = gradients * of_site * architecture.sites() as f64;
        ((self.multiplications_of_chain / of_sweep).round() as i64).clamp(1, MOST_SWEEPS)
    }

    fn sweep(&self, sweep: i64, random: &Random) -> Sweep {
        let random = random.part(sweep as usize);
        let uniform = random.uniforms(Use::Lengths, 0..1, 1)[[0, 0]];
        let pairs = self.temperatures.len() - 1;
        Sweep {
            steps: (LEAPFROG_STEPS * (0.5 + uniform)).round() as i64,
            first: if pairs > 1 { ((self.exchanges + sweep) % 2) as usize } else { 0 },
            random,
        }
    }

    /// All sweeps of some chains and their replicas, and what became of them added to `sums`, a row for each sweep.
    fn advance_block(
        &mut self,
        block: Range<usize>,
        mut field: ArrayViewMut2<f64>,
        (sweeps, random): (&[Sweep], &Random),
        sums: &mut Array2<f64>,
    ) {
        let chains = self.positions.dim().0;
        let mut positions = self.positions.slice_mut(s![block.clone(), .., ..]);
        let mut from_top = self.from_top.slice_mut(s![block.clone(), ..]);
        let mut lowest = self.model.inverse(field.view()).field;
        if self.model.target().is_symmetric() {
            let signs = random_signs(block.len(), random, chains + block.start);
            lowest *= &signs.insert_axis(Axis(1));
        }
        positions.slice_mut(s![.., 0, ..]).assign(&lowest);
        let step_sizes = self.step_sizes.iter().map(|of_rung| of_rung.step_size(self.frozen));
        let step_sizes: Vec<f64> = step_sizes.collect();
        let settings = [&self.temperatures[..], &step_sizes];
        let mut moving =
            Block::new(&self.model, (block, chains), settings, positions.view(), from_top.view());
        for (sweep, sums) in sweeps.iter().zip(sums.rows_mut()) {
            moving.sweep(sweep, sums);
        }
        field.assign(&moving.field());
        positions.assign(&moving.positions());
        from_top.assign(&moving.came_from_top());
    }

    /// Takes in what became of some sweeps, means over all chains.
    fn take(&mut self, sweeps: &[Sweep], means: &Array2<f64>) {
        let rungs = self.temperatures.len();
        for (sweep, means) in sweeps.iter().zip(means.rows()) {
            let (acceptance, others) = means.split_at(Axis(0), rungs);
            let (exchanged, round_trips) = others.split_at(Axis(0), rungs - 1);
            if !self.frozen {
                for (step_size, &acceptance) in self.step_sizes.iter_mut().zip(acceptance) {
                    step_size.update(acceptance);
                }
            }
            self.probabilities += &exchanged;
            self.tried.slice_mut(s![sweep.first..;2]).mapv_inplace(|tried| tried + 1.0);
            self.round_trips += round_trips.sum();
        }
        self.exchanges += sweeps.len() as i64;
    }

    /// Lays the ladder anew, after a quarter and a half of a warm-up, so that all neighbours exchange equally often; where
    /// their number is open, as many as that takes.
    pub fn adapt(&mut self, done: i64, warmup: i64) {
        let due = [warmup / 4, warmup / 2].contains(&done);
        if !due || self.temperatures.len() < 2 || self.exchanges < 2 {
            return;
        }
        let rejected: Vec<f64> = self.rates().iter().map(|rate| 1.0 - rate).collect();
        let before = std::mem::take(&mut self.temperatures);
        self.temperatures = next_temperatures(&before, &rejected, self.count);
        let nearest = |temperature: &f64| {
            let distance = |place: &usize| (before[*place] / temperature).ln().abs();
            let near = |a: &usize, b: &usize| distance(a).total_cmp(&distance(b));
            (0..before.len()).min_by(near).expect("there are rungs")
        };
        let sources: Vec<usize> = self.temperatures.iter().map(nearest).collect();
        self.positions = self.positions.select(Axis(1), &sources);
        let step_sizes = sources.iter().map(|&rung| self.step_sizes[rung].clone());
        self.step_sizes = step_sizes.collect();
        let (chains, pairs) = (self.positions.dim().0, sources.len() - 1);
        self.from_top = Array2::zeros((chains, pairs + 1));
        self.probabilities = Array1::zeros(pairs);
        self.tried = Array1::zeros(pairs);
        self.round_trips = 0.0;
    }

    /// From now on nothing adapts, and exchanges and round trips count. Where the number of replicas is open and too few states
    /// have come back from the top since the ladder was laid, the chain goes on without the replicas above it.
    pub fn freeze(&mut self) {
        self.frozen = true;
        if self.count == Count::Auto && self.round_trips < LEAST_ROUND_TRIPS {
            self.leave_ladder();
        }
        self.probabilities.fill(0.0);
        self.tried.fill(0.0);
        self.round_trips = 0.0;
    }

    fn leave_ladder(&mut self) {
        self.left_out = self.temperatures.split_off(1);
        self.step_sizes.truncate(1);
        self.positions = self.positions.slice(s![.., ..1, ..]).to_owned();
        self.from_top = Array2::zeros((self.positions.dim().0, 1));
        self.probabilities = Array1::zeros(0);
        self.tried = Array1::zeros(0);
    }

    /// What became of the exchanges since the warm-up.
    pub fn exchanged(&self) -> Exchanged {
        Exchanged {
            temperatures: self.temperatures.clone(),
            rates: self.rates(),
            round_trips: self.round_trips,
            left_out: self.left_out.clone(),
        }
    }

    fn rates(&self) -> Vec<f64> {
        let rate = |(sum, tried): (&f64, &f64)| sum / tried.max(1.0);
        self.probabilities.iter().zip(&self.tried).map(rate).collect()
    }

    /// What [`Replicas::restore`] needs besides the configuration.
    pub fn state(&self) -> Saved {
        let step_sizes = self.step_sizes.iter().flat_map(DualAveraging::numbers).collect();
        let step_sizes = Array2::from_shape_vec((self.step_sizes.len(), 4), step_sizes);
        Saved::from([
            ("temperatures".into(), Array1::from(self.temperatures.clone()).into_dyn()),
            ("step_sizes".into(), step_sizes.expect("four numbers each").into_dyn()),
            ("frozen".into(), number(f64::from(u8::from(self.frozen)))),
            ("positions".into(), self.positions.clone().into_dyn()),
            ("from_top".into(), self.from_top.clone().into_dyn()),
            ("probabilities".into(), self.probabilities.clone().into_dyn()),
            ("tried".into(), self.tried.clone().into_dyn()),
            ("round_trips".into(), number(self.round_trips)),
            ("left_out".into(), Array1::from(self.left_out.clone()).into_dyn()),
            ("exchanges".into(), number(self.exchanges as f64)),
        ])
    }

    /// The replicas of a saved state.
    ///
    /// # Errors
    /// The state lacks something.
    pub fn restore(model: &Model, config: &HmcConfig, state: &Saved) -> Restored<Self> {
        let temperatures: Array1<f64> = array(state, "temperatures", ANY)?;
        let (chains, rungs) = (config.chains as usize, temperatures.len());
        let pairs = rungs.saturating_sub(1);
        let step_sizes: Array2<f64> = array(state, "step_sizes", [rungs, 4])?;
        let step_size = |row: ArrayView1<f64>| {
            DualAveraging::of_numbers(STEP_SIZE, ACCEPTANCE, std::array::from_fn(|i| row[i]))
        };
        Ok(Self {
            model: model.without_couplings(),
            count: config.replicas,
            sweeps: config.sweeps,
            multiplications_of_chain: multiplications_of_chain(&model.flow, config),
            step_sizes: step_sizes.rows().into_iter().map(step_size).collect(),
            frozen: read_number(state, "frozen")? != 0.0,
            positions: array(state, "positions", [chains, rungs, model.flow.architecture.sites()])?,
            from_top: array(state, "from_top", [chains, rungs])?,
            probabilities: array(state, "probabilities", pairs)?,
            tried: array(state, "tried", pairs)?,
            temperatures: temperatures.to_vec(),
            round_trips: read_number(state, "round_trips")?,
            left_out: array(state, "left_out", ANY)?.to_vec(),
            exchanges: read_number(state, "exchanges")? as i64,
        })
    }
}

/// y of samples of the flow, each with a random sign where the target is symmetric. They are closer to equilibrium at every
/// temperature than fields of free spins, whose domain walls take L² sweeps to go at low ones; order melts soon at high ones.
/// The lowest rung waits for the chain.
///
/// Shapes: (chain, rung, N).
fn first_positions(
    (model, bare): (&Model, &Model),
    (chains, rungs): (usize, usize),
    random: &Random,
) -> Array3<f64> {
    let sites = model.flow.architecture.sites();
    let mut positions = Array3::zeros((chains, rungs, sites));
    for (rung, mut positions) in positions.axis_iter_mut(Axis(1)).enumerate().skip(1) {
        // Latents 0..chains are where the chains themselves start.
        let own = rung * chains..(rung + 1) * chains;
        let latents = random.normals(Use::Latents, own.clone(), sites);
        let mut field = model.draw(latents.view()).field;
        if model.target().is_symmetric() {
            field *= &random_signs(chains, random, own.start).insert_axis(Axis(1));
        }
        positions.assign(&bare.inverse(field.view()).field);
        for (mut position, latents) in positions.rows_mut().into_iter().zip(latents.rows()) {
            if !position.iter().all(|y| y.is_finite()) {
                position.assign(&latents);
            }
        }
    }
    positions
}

/// Multiplications of a trajectory of a chain in the latent space of its flow.
fn multiplications_of_chain(flow: &Flow, config: &HmcConfig) -> f64 {
    let of_networks: usize = flow.couplings().iter().map(Coupling::multiplications).sum();
    let passes = 3.0 * (1.0 + f64::from(flow.architecture.config.needs_inverse()));
    (config.leapfrog_steps + OTHER_GRADIENTS) as f64 * passes * of_networks as f64
}
