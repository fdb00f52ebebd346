//! Replicas of each chain at rising temperatures that exchange their states: parallel tempering (Swendsen and Wang,
//! Phys. Rev. Lett. 57, 2607 (1986); Hukushima and Nemoto, J. Phys. Soc. Jpn. 65, 1604 (1996)).
//!
//! HMC with a flow moves well where the flow knows the target, and hardly between sectors of the target, such as those of the
//! sign or with a domain wall, that the flow does not know of. At a temperature where such sectors do not exist nobody has to
//! know them. So the replicas do without the flow: they move the latents y of the flow that has no couplings, x = κ^{-1/2} y,
//! which is Fourier acceleration, and whose gradient costs a hundredth. The chain itself takes part at its own temperature, so
//! that it, too, moves in y between two trajectories in the latent space of its flow. In y the quadratic forms of all
//! temperatures are the same: neighbours exchange y by what the site potentials alone say.

use std::ops::Range;

use ndarray::{
    Array1, Array2, Array3, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, s,
};

use crate::engine::Model;
use crate::files::state::{ANY, Restored, Saved, array, number, read_number};
use crate::flow::Flow;
use crate::flow::coupling::Coupling;
use crate::random::{Random, Use};
use crate::ranks::Team;
use crate::ranks::shares::{Part, Shares, of_shape};
use crate::sampling::adaptation::DualAveraging;
use crate::sampling::config::{Count, HmcConfig, MOST_REPLICAS};
use crate::sampling::hmc::{self, State, Trajectory};
use crate::targets::Target;

/// Rungs of the first ladder: so many for L × the distance in ln T.
const RUNGS_OF_UNIT: f64 = 1.0;
/// Pairs of rungs, as a multiple of the sum of all rejections: twice it gives most round trips in the long run (Syed et al.,
/// J. R. Stat. Soc. B 84, 321 (2022), Section 4).
const PAIRS_OF_BARRIER: f64 = 2.0;
/// A temperature this near to the top needs no ladder.
const NEAR_TOP: f64 = 0.98;
/// Leapfrog steps between two exchanges, spread over half of them to one and a half.
const LEAPFROG_STEPS: f64 = 6.0;
/// Where step sizes start from; the first trajectories find theirs.
const STEP_SIZE: f64 = 0.4;
const ACCEPTANCE: f64 = 0.8;
/// Chains that are moved together, so that caches hold what they need.
const CHAINS_OF_BLOCK: usize = 32;
/// Gradients through the flow besides the leapfrog steps of a trajectory: for the global move, and to come back from the replicas.
const OTHER_GRADIENTS: i64 = 4;
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
    /// (pair of neighbours): the sum of the probabilities of exchanges that were tried, and their number.
    probabilities: Array1<f64>,
    tried: Array1<f64>,
    /// States that came to the bottom from the top.
    round_trips: f64,
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
}

impl Exchanged {
    /// The lowest rate of any pair of neighbours, 1 where there is no pair.
    pub fn least_rate(&self) -> f64 {
        self.rates.iter().copied().fold(1.0, f64::min)
    }
}

/// A trajectory of all replicas and the exchanges after it.
struct Sweep {
    /// Leapfrog steps.
    steps: i64,
    /// The first pair that tries to exchange; every second one from there on does.
    first: usize,
    random: Random,
}

/// Sums over chains.
struct Sums {
    /// (sweep, rung and then pair): probabilities of acceptance, and of exchange.
    probabilities: Array2<f64>,
    round_trips: f64,
}

impl Sums {
    /// Those over the chains of all members of a team.
    fn over(self, team: &Team) -> Self {
        let shape = self.probabilities.dim();
        let mut numbers: Vec<f64> = self.probabilities.into_iter().collect();
        numbers.push(self.round_trips);
        let mut numbers = team.sum(numbers);
        let round_trips = numbers.pop().expect("it was pushed");
        let probabilities = Array2::from_shape_vec(shape, numbers).expect("as many numbers");
        Self { probabilities, round_trips }
    }
}

/// Some chains with their replicas: all rungs, those of one after those of the one below.
struct Block<'a> {
    model: &'a Model,
    /// The number of the first chain.
    first: usize,
    chains: usize,
    /// (rung × chain).
    temperatures: Array1<f64>,
    step_sizes: Array1<f64>,
    /// The number of each among all, which says what it draws.
    numbers: Vec<usize>,
    state: State,
    /// As in [`Replicas`].
    from_top: Vec<f64>,
}

impl Block<'_> {
    /// One trajectory of every replica. Returns the probabilities of acceptance.
    fn advance(&mut self, Sweep { steps, random, .. }: &Sweep) -> Array1<f64> {
        let (rows, sites) = self.state.position.dim();
        let mut momentum = Array2::zeros((rows, sites));
        let mut chances = Array1::zeros(rows);
        for (row, &number) in self.numbers.iter().enumerate() {
            let own = number..number + 1;
            momentum.row_mut(row).assign(&random.normals(Use::Momenta, own.clone(), sites).row(0));
            chances[row] = random.uniforms(Use::Acceptance, own, 1)[[0, 0]];
        }
        let at = |y: ArrayView2<f64>| self.model.potential_at(y, self.temperatures.view());
        let end = hmc::leapfrog(&at, &self.state, momentum.view(), self.step_sizes.view(), *steps);
        let before = hmc::hamiltonian(&self.state, momentum.view());
        let after = hmc::hamiltonian(&end.0, end.1.view());
        let difference = &after - &before;
        let moved = Trajectory::metropolis(&self.state, end, difference, [before, after], chances);
        self.state = moved.state;
        moved.acceptance
    }

    /// Exchanges between neighbours with the probability min(1, e^{-Δ}), Δ = U_a(y_b) + U_b(y_a) - U_a(y_a) - U_b(y_b). Adds
    /// up the probabilities of each pair.
    fn exchange(&mut self, Sweep { first, random, .. }: &Sweep, sums: &mut ArrayViewMut1<f64>) {
        let chains = self.chains;
        let pairs: Vec<usize> = (*first..sums.len()).step_by(2).collect();
        if pairs.is_empty() {
            return;
        }
        let rows = |rung: usize| rung * chains..(rung + 1) * chains;
        let straight: Vec<usize> = pairs.iter().flat_map(|&a| rows(a).chain(rows(a + 1))).collect();
        let crossed: Vec<usize> = pairs.iter().flat_map(|&a| rows(a + 1).chain(rows(a))).collect();
        let temperatures = self.temperatures.select(Axis(0), &straight);
        let positions = self.state.position.select(Axis(0), &crossed);
        let potential = self.model.potential_at(positions.view(), temperatures.view());
        let crossed = State::of(positions, potential);
        for (place, &pair) in pairs.iter().enumerate() {
            for chain in 0..chains {
                let here = [pair, pair + 1].map(|rung| rung * chains + chain);
                let there = [2 * place, 2 * place + 1].map(|rung| rung * chains + chain);
                let energy =
                    |state: &State, rows: [usize; 2]| state.energy[rows[0]] + state.energy[rows[1]];
                let change = energy(&crossed, there) - energy(&self.state, here);
                // A state without finite energy goes nowhere.
                let probability = if change.is_nan() { 0.0 } else { (-change).exp().min(1.0) };
                sums[pair] += probability;
                let number = self.first + chain;
                let chance =
                    random.uniforms(Use::Exchanges, number..number + 1, pair + 1)[[0, pair]];
                if chance < probability {
                    here.into_iter()
                        .zip(there)
                        .for_each(|(row, from)| self.state.take(row, &crossed, from));
                    self.from_top.swap(here[0], here[1]);
                }
            }
        }
    }

    /// How many states have come to the bottom from the top, which they now start from anew.
    fn round_trips(&mut self) -> f64 {
        let top = self.from_top.len() - self.chains;
        if top == 0 {
            return 0.0;
        }
        self.from_top[top..].fill(1.0);
        let arrived = self.from_top[..self.chains].iter().sum();
        self.from_top[..self.chains].fill(0.0);
        arrived
    }
}

impl Replicas {
    /// Replicas of so many chains of a model, all from the prior; none where the configuration wants one replica.
    pub fn new(model: &Model, config: &HmcConfig, random: &Random) -> Option<Self> {
        if config.replicas == Count::Fixed(1) {
            return None;
        }
        let temperatures = first_temperatures(model.target(), model.temperature(), config.replicas);
        let (chains, rungs) = (config.chains as usize, temperatures.len());
        let sites = model.flow.architecture.sites();
        // Latents 0..chains are where the chains themselves start.
        let positions = random.normals(Use::Latents, chains..2 * chains, rungs * sites);
        let positions = positions.into_shape_with_order((chains, rungs, sites));
        Some(Self {
            model: model.without_couplings(),
            count: config.replicas,
            sweeps: config.sweeps,
            multiplications_of_chain: multiplications_of_chain(&model.flow, config),
            step_sizes: vec![DualAveraging::new(STEP_SIZE, ACCEPTANCE); rungs],
            frozen: false,
            positions: positions.expect("as many numbers"),
            from_top: Array2::zeros((chains, rungs)),
            probabilities: Array1::zeros(rungs - 1),
            tried: Array1::zeros(rungs - 1),
            temperatures,
            round_trips: 0.0,
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
        let probabilities = Array2::zeros((sweeps.len(), 2 * rungs - 1));
        let mut sums = Sums { probabilities, round_trips: 0.0 };
        let mut moved = field.to_owned();
        let own = shares.range();
        for first in own.clone().step_by(CHAINS_OF_BLOCK) {
            let block = first..own.end.min(first + CHAINS_OF_BLOCK);
            let mut field = moved.slice_mut(s![block.clone(), ..]);
            self.advance_block(block, &mut field, (&sweeps, random), &mut sums);
        }
        self.take(&sweeps, &sums.over(&team), chains as f64);
        let parts = [
            shares.own(moved.view()).to_owned().into_dyn(),
            shares.own(self.positions.view()).to_owned().into_dyn(),
            shares.own(self.from_top.view()).to_owned().into_dyn(),
        ];
        let [field, positions, from_top] = shares.join(parts.map(Part::Rows));
        self.positions = of_shape(positions);
        self.from_top = of_shape(from_top);
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

    /// All sweeps of some chains and their replicas.
    fn advance_block(
        &mut self,
        block: Range<usize>,
        field: &mut ArrayViewMut2<f64>,
        (sweeps, random): (&[Sweep], &Random),
        sums: &mut Sums,
    ) {
        let (chains, rungs) = (self.positions.dim().0, self.temperatures.len());
        let (count, sites) = field.dim();
        let mut positions = self.positions.slice_mut(s![block.clone(), .., ..]);
        let mut lowest = self.model.inverse(field.view()).field;
        if self.model.target().is_symmetric() {
            let numbers = random.uniforms(Use::Signs, chains + block.start..chains + block.end, 1);
            for (mut y, number) in lowest.rows_mut().into_iter().zip(&numbers) {
                let sign = if *number < 0.5 { 1.0 } else { -1.0 };
                y.mapv_inplace(|y| sign * y);
            }
        }
        positions.slice_mut(s![.., 0, ..]).assign(&lowest);
        let by_rung = positions.view().permuted_axes([1, 0, 2]).as_standard_layout().into_owned();
        let by_rung = by_rung.into_shape_with_order((rungs * count, sites)).expect("all of them");
        let of_rows = |of_rung: &dyn Fn(usize) -> f64| -> Array1<f64> {
            (0..rungs).flat_map(|rung| std::iter::repeat_n(of_rung(rung), count)).collect()
        };
        let temperatures = of_rows(&|rung| self.temperatures[rung]);
        let potential = self.model.potential_at(by_rung.view(), temperatures.view());
        let from_top = self.from_top.slice(s![block.clone(), ..]);
        let mut climbers = Block {
            model: &self.model,
            first: block.start,
            chains: count,
            temperatures,
            step_sizes: of_rows(&|rung| self.step_sizes[rung].step_size(self.frozen)),
            numbers: (0..rungs)
                .flat_map(|rung| block.clone().map(move |chain| rung * chains + chain))
                .collect(),
            state: State::of(by_rung, potential),
            from_top: from_top.t().iter().copied().collect(),
        };
        for (place, sweep) in sweeps.iter().enumerate() {
            let acceptance = climbers.advance(sweep);
            let of_rung = acceptance.into_shape_with_order((rungs, count)).expect("all of them");
            let (mut accepted, mut exchanged) =
                sums.probabilities.row_mut(place).split_at(Axis(0), rungs);
            accepted += &of_rung.sum_axis(Axis(1));
            climbers.exchange(sweep, &mut exchanged);
            sums.round_trips += climbers.round_trips();
        }
        field.assign(&climbers.state.field.slice(s![..count, ..]));
        let moved = climbers.state.position.into_shape_with_order((rungs, count, sites));
        positions.assign(&moved.expect("all of them").permuted_axes([1, 0, 2]));
        let from_top = Array2::from_shape_vec((rungs, count), climbers.from_top);
        let from_top = from_top.expect("all of them");
        self.from_top.slice_mut(s![block, ..]).assign(&from_top.t());
    }

    /// Takes in what became of some sweeps of all chains.
    fn take(&mut self, sweeps: &[Sweep], sums: &Sums, chains: f64) {
        for (place, sweep) in sweeps.iter().enumerate() {
            let rungs = self.temperatures.len();
            let (acceptance, exchanged) = sums.probabilities.row(place).split_at(Axis(0), rungs);
            if !self.frozen {
                for (step_size, sum) in self.step_sizes.iter_mut().zip(acceptance) {
                    step_size.update(sum / chains);
                }
            }
            self.probabilities += &exchanged;
            self.tried.slice_mut(s![sweep.first..;2]).mapv_inplace(|tried| tried + chains);
        }
        self.round_trips += sums.round_trips;
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
        let pairs = match self.count {
            Count::Fixed(count) => count as usize - 1,
            Count::Auto => {
                let barrier: f64 = rejected.iter().sum();
                ((PAIRS_OF_BARRIER * barrier).ceil() as usize).clamp(1, MOST_REPLICAS - 1)
            }
        };
        let before = std::mem::take(&mut self.temperatures);
        self.temperatures = equalized(&before, &rejected, pairs);
        let nearest = |temperature: &f64| {
            let distance = |place: &usize| (before[*place] / temperature).ln().abs();
            let near = |a: &usize, b: &usize| distance(a).total_cmp(&distance(b));
            (0..before.len()).min_by(near).expect("there are rungs")
        };
        let sources: Vec<usize> = self.temperatures.iter().map(nearest).collect();
        self.positions = self.positions.select(Axis(1), &sources);
        let step_sizes = sources.iter().map(|&rung| self.step_sizes[rung].clone());
        self.step_sizes = step_sizes.collect();
        self.from_top = Array2::zeros((self.positions.dim().0, pairs + 1));
        self.probabilities = Array1::zeros(pairs);
        self.tried = Array1::zeros(pairs);
    }

    /// From now on nothing adapts, and exchanges and round trips count.
    pub fn freeze(&mut self) {
        self.frozen = true;
        self.probabilities.fill(0.0);
        self.tried.fill(0.0);
        self.round_trips = 0.0;
    }

    /// What became of the exchanges since the warm-up.
    pub fn exchanged(&self) -> Exchanged {
        Exchanged {
            temperatures: self.temperatures.clone(),
            rates: self.rates(),
            round_trips: self.round_trips / self.from_top.nrows() as f64,
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
            exchanges: read_number(state, "exchanges")? as i64,
        })
    }
}

/// Multiplications of a trajectory of a chain in the latent space of its flow.
fn multiplications_of_chain(flow: &Flow, config: &HmcConfig) -> f64 {
    let of_coupling =
        |coupling: &Coupling| coupling.rows * coupling.network.multiplications_per_row();
    let of_networks: usize = flow.couplings().iter().map(of_coupling).sum();
    let passes = 3.0 * (1.0 + f64::from(u8::from(flow.architecture.config.needs_inverse())));
    (config.leapfrog_steps + OTHER_GRADIENTS) as f64 * passes * of_networks as f64
}

/// T of the first ladder, evenly spaced in ln T up to the temperature at which the target mixes; T alone where it does.
fn first_temperatures(target: &Target, temperature: f64, count: Count) -> Vec<f64> {
    let top = target.mixing_temperature().unwrap_or(temperature);
    if temperature > NEAR_TOP * top {
        return vec![temperature];
    }
    let distance = (top / temperature).ln();
    let pairs = match count {
        Count::Fixed(count) => count as usize - 1,
        Count::Auto => {
            let pairs = (RUNGS_OF_UNIT * target.lattice.linear_size() as f64 * distance).ceil();
            (pairs as usize).clamp(1, MOST_REPLICAS - 1)
        }
    };
    let rung = |place| temperature * (distance * place as f64 / pairs as f64).exp();
    (0..=pairs).map(rung).collect()
}

/// Temperatures of so many pairs between the same ends that reject equally often, the rejections between neighbours
/// taken as evenly spread in ln T.
fn equalized(temperatures: &[f64], rejected: &[f64], pairs: usize) -> Vec<f64> {
    // A pair that never rejects still has some length.
    let lengths: Vec<f64> = rejected.iter().map(|rejection| rejection.max(1e-3)).collect();
    let total: f64 = lengths.iter().sum();
    let (mut segment, mut behind) = (0, 0.0);
    let mut found = vec![temperatures[0]];
    for place in 1..pairs {
        let wanted = total * place as f64 / pairs as f64;
        while segment + 1 < lengths.len() && behind + lengths[segment] < wanted {
            behind += lengths[segment];
            segment += 1;
        }
        let share = ((wanted - behind) / lengths[segment]).min(1.0);
        let [lower, upper] = [temperatures[segment], temperatures[segment + 1]];
        found.push(lower * (share * (upper / lower).ln()).exp());
    }
    found.push(temperatures[temperatures.len() - 1]);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rejections_keep_the_ladder_and_others_move_it_where_they_are_many() {
        let ladder = [1.0, 2.0, 4.0, 8.0];
        let close = |found: &[f64], expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            let near = |(a, b): (&f64, &f64)| (a / b - 1.0).abs() < 1e-9;
            assert!(found.iter().zip(expected).all(near), "{found:?}");
        };
        close(&equalized(&ladder, &[0.4; 3], 3), &ladder);
        close(
            &equalized(&ladder, &[0.4; 3], 6),
            &[1.0, 2f64.sqrt(), 2.0, 8f64.sqrt(), 4.0, 32f64.sqrt(), 8.0],
        );
        // Half of all rejections between 1 and 2.
        close(&equalized(&ladder, &[0.6, 0.3, 0.3], 2), &[1.0, 2.0, 8.0]);
        close(&equalized(&ladder, &[0.2, 0.2, 0.4], 1), &[1.0, 8.0]);
    }

    #[test]
    fn the_first_ladder_reaches_from_the_temperature_to_where_the_target_mixes() {
        let target = Target::ising_dual(16);
        let ladder = first_temperatures(&target, 2.0, Count::Auto);
        assert_eq!((ladder.len(), ladder[0]), (6, 2.0));
        assert!((ladder[5] / target.mixing_temperature().unwrap() - 1.0).abs() < 1e-12);
        assert!(ladder.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(first_temperatures(&target, 2.0, Count::Fixed(3)).len(), 3);
        assert_eq!(first_temperatures(&target, 2.7, Count::Fixed(3)), [2.7]);
    }
}
