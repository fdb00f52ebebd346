//! Some chains with their replicas: trajectories at all temperatures, and exchanges between neighbours.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, ArrayView3, ArrayViewMut1, Axis, s};

use crate::engine::Model;
use crate::random::{Random, Use};
use crate::sampling::hmc::{self, State, Trajectory};

/// A trajectory of all replicas and the exchanges after it.
pub(super) struct Sweep {
    /// Leapfrog steps.
    pub(super) steps: i64,
    /// The first pair that tries to exchange; every second one from there on does.
    pub(super) first: usize,
    pub(super) random: Random,
}

/// Some chains with their replicas: all rungs, those of one after those of the one below.
pub(super) struct Block<'a> {
    model: &'a Model,
    /// The first chain and the number of all, which say what each replica draws.
    first: usize,
    all: usize,
    chains: usize,
    /// (rung × chain).
    temperatures: Array1<f64>,
    step_sizes: Array1<f64>,
    state: State,
    /// (rung × chain).
    from_top: Vec<f64>,
}

impl<'a> Block<'a> {
    /// Chains `range` of `all`, with positions (chain, rung, N), and `from_top` (chain, rung).
    pub(super) fn new(
        model: &'a Model,
        (range, all): (Range<usize>, usize),
        [temperatures, step_sizes]: [&[f64]; 2],
        positions: ArrayView3<f64>,
        from_top: ArrayView2<f64>,
    ) -> Self {
        let (chains, rungs, sites) = positions.dim();
        let of_rows = |of_rungs: &[f64]| -> Array1<f64> {
            of_rungs.iter().flat_map(|&of_rung| std::iter::repeat_n(of_rung, chains)).collect()
        };
        let temperatures = of_rows(temperatures);
        let by_rung = positions.permuted_axes([1, 0, 2]).as_standard_layout().into_owned();
        let by_rung = by_rung.into_shape_with_order((rungs * chains, sites)).expect("all of them");
        let potential = model.potential_at(by_rung.view(), temperatures.view());
        Self {
            model,
            first: range.start,
            all,
            chains,
            temperatures,
            step_sizes: of_rows(step_sizes),
            state: State::of(by_rung, potential),
            from_top: from_top.t().iter().copied().collect(),
        }
    }

    /// Adds to `sums` (rung, then pair, then one) the probabilities of acceptance and of exchange, and the round trips.
    pub(super) fn sweep(&mut self, sweep: &Sweep, sums: ArrayViewMut1<f64>) {
        let rungs = sums.len() / 2;
        let (mut accepted, others) = sums.split_at(Axis(0), rungs);
        let (mut exchanged, mut round_trips) = others.split_at(Axis(0), rungs - 1);
        let acceptance = self.advance(sweep);
        let of_rungs = acceptance.into_shape_with_order((rungs, self.chains));
        accepted += &of_rungs.expect("all of them").sum_axis(Axis(1));
        self.exchange(sweep, &mut exchanged);
        round_trips += self.round_trips();
    }

    /// x of the lowest rung. Shapes: (chains, N).
    pub(super) fn field(&self) -> ArrayView2<'_, f64> {
        self.state.field.slice(s![self.rows(0), ..])
    }

    /// y, (chain, rung, N).
    pub(super) fn positions(&self) -> ArrayView3<'_, f64> {
        let (rows, sites) = self.state.position.dim();
        let shape = (rows / self.chains, self.chains, sites);
        let by_rung = self.state.position.view().into_shape_with_order(shape);
        by_rung.expect("all of them").permuted_axes([1, 0, 2])
    }

    /// (chain, rung): 1 where the state has been at the top since it was last at the bottom.
    pub(super) fn came_from_top(&self) -> ArrayView2<'_, f64> {
        let shape = (self.from_top.len() / self.chains, self.chains);
        let by_rung = ArrayView2::from_shape(shape, &self.from_top);
        by_rung.expect("all of them").reversed_axes()
    }

    fn rows(&self, rung: usize) -> Range<usize> {
        rung * self.chains..(rung + 1) * self.chains
    }

    /// One trajectory of every replica. Returns the probabilities of acceptance, (rung × chain).
    fn advance(&mut self, Sweep { steps, random, .. }: &Sweep) -> Array1<f64> {
        let (rows, sites) = self.state.position.dim();
        let mut momentum = Array2::zeros((rows, sites));
        let mut chances = Array1::zeros(rows);
        for rung in 0..rows / self.chains {
            let first = rung * self.all + self.first;
            let numbers = first..first + self.chains;
            let own = self.rows(rung);
            let momenta = random.normals(Use::Momenta, numbers.clone(), sites);
            momentum.slice_mut(s![own.clone(), ..]).assign(&momenta);
            chances.slice_mut(s![own]).assign(&random.uniform(Use::Acceptance, numbers));
        }
        let at = |y: ArrayView2<f64>| self.model.potential_at(y, self.temperatures.view());
        let end = hmc::leapfrog(&at, &self.state, momentum.view(), self.step_sizes.view(), *steps);
        let moved = Trajectory::of_hmc(&self.state, momentum.view(), end, chances);
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
        let rows = |a: usize, b: usize| self.rows(a).chain(self.rows(b));
        let straight: Vec<usize> = pairs.iter().flat_map(|&a| rows(a, a + 1)).collect();
        let crossed: Vec<usize> = pairs.iter().flat_map(|&a| rows(a + 1, a)).collect();
        let temperatures = self.temperatures.select(Axis(0), &straight);
        let positions = self.state.position.select(Axis(0), &crossed);
        let potential = self.model.potential_at(positions.view(), temperatures.view());
        let crossed = State::of(positions, potential);
        let chances = random.uniforms(Use::Exchanges, self.first..self.first + chains, sums.len());
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
                if chances[[chain, pair]] < probability {
                    for (row, from) in here.into_iter().zip(there) {
                        self.state.take(row, &crossed, from);
                    }
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
