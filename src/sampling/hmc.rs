//! Hybrid Monte Carlo with batched chains (Duane et al. 1987), in any potential: that of a flow's latent space
//! (App. C), or of the fields.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip};

use crate::engine::Potential;
use crate::random::{Random, Use};
use crate::ranks::Team;
use crate::ranks::shares::{Part, Shares, of_shape};

/// Positions of all chains with what the potential gives there.
#[derive(Debug)]
pub struct State {
    /// (chains, N).
    pub position: Array2<f64>,
    /// (chains).
    pub energy: Array1<f64>,
    /// (chains, N): ∂U/∂position.
    pub gradient: Array2<f64>,
    /// (chains, N).
    pub field: Array2<f64>,
}

impl State {
    /// Evaluates the potential and its gradient at `position`.
    pub fn new(
        potential: &impl Fn(ArrayView2<f64>) -> Potential,
        position: ArrayView2<f64>,
    ) -> Self {
        Self::of(position.to_owned(), potential(position))
    }

    /// The same on all members of a team, each of which evaluates its chains.
    pub fn by_team(
        potential: &impl Fn(ArrayView2<f64>) -> Potential,
        position: ArrayView2<f64>,
        team: &Team,
    ) -> Self {
        let shares = Shares::new(team, position.nrows());
        let Potential { energy, gradient, field } = potential(shares.own(position));
        let parts = [energy.into_dyn(), gradient.into_dyn(), field.into_dyn()];
        let [energy, gradient, field] = shares.join(parts.map(Part::Rows));
        Self {
            position: position.to_owned(),
            energy: of_shape(energy),
            gradient: of_shape(gradient),
            field: of_shape(field),
        }
    }

    pub(super) fn of(
        position: Array2<f64>,
        Potential { energy, gradient, field }: Potential,
    ) -> Self {
        Self { position, energy, gradient, field }
    }

    /// The chains that this member of a team works on.
    fn own(&self, shares: &Shares) -> Self {
        Self {
            position: shares.own(self.position.view()).to_owned(),
            energy: shares.own(self.energy.view()).to_owned(),
            gradient: shares.own(self.gradient.view()).to_owned(),
            field: shares.own(self.field.view()).to_owned(),
        }
    }

    /// Chain by chain the proposal where `accepted` (chains) holds, else this state; what a rejected
    /// proposal contains, NaN or not, never enters.
    fn select(&self, proposal: Self, accepted: &[bool]) -> Self {
        let mut selected = proposal;
        for (chain, _) in accepted.iter().enumerate().filter(|(_, accepted)| !**accepted) {
            selected.take(chain, self, chain);
        }
        selected
    }

    /// Puts one chain of another state in the place of one of this state.
    pub(super) fn take(&mut self, chain: usize, other: &Self, from: usize) {
        self.position.row_mut(chain).assign(&other.position.row(from));
        self.energy[chain] = other.energy[from];
        self.gradient.row_mut(chain).assign(&other.gradient.row(from));
        self.field.row_mut(chain).assign(&other.field.row(from));
    }
}

/// `steps` leapfrog steps of size ε from `state` with momenta of unit mass; reversible and
/// volume-preserving.
///
/// Shapes: momentum (chains, N), step_sizes (chains).
pub fn leapfrog(
    potential: &impl Fn(ArrayView2<f64>) -> Potential,
    state: &State,
    momentum: ArrayView2<f64>,
    step_sizes: ArrayView1<f64>,
    steps: i64,
) -> (State, Array2<f64>) {
    let (mut position, mut momentum) = (state.position.clone(), momentum.to_owned());
    let add = |sum: &mut Array2<f64>, factor: f64, rates: &Array2<f64>| {
        Zip::from(sum.rows_mut())
            .and(step_sizes)
            .and(rates.rows())
            .for_each(|mut sum, step_size, rates| sum.scaled_add(factor * step_size, &rates));
    };
    add(&mut momentum, -0.5, &state.gradient);
    add(&mut position, 1.0, &momentum);
    let mut end = potential(position.view());
    for _ in 1..steps {
        add(&mut momentum, -1.0, &end.gradient);
        add(&mut position, 1.0, &momentum);
        end = potential(position.view());
    }
    add(&mut momentum, -0.5, &end.gradient);
    (State::of(position, end), momentum)
}

/// H = U + ½|p|². Shapes: momentum (chains, N) → (chains).
pub fn hamiltonian(state: &State, momentum: ArrayView2<f64>) -> Array1<f64> {
    &state.energy + momentum.map_axis(Axis(1), |momentum| 0.5 * momentum.dot(&momentum))
}

/// One trajectory of every chain.
#[derive(Debug)]
pub struct Trajectory {
    pub state: State,
    /// (chains): ΔH, infinite where it was not finite.
    pub energy_error: Array1<f64>,
    /// (chains): probability of acceptance min(1, e^{-ΔH}).
    pub acceptance: Array1<f64>,
    /// (chains): whether the proposal was taken.
    pub accepted: Vec<bool>,
    /// (chains): H of the state that the chain goes on from, with the momentum it came with.
    pub hamiltonian: Array1<f64>,
    /// (chains, N): where the proposal ended, finite or not.
    pub end_position: Array2<f64>,
    /// (chains, N)
    pub end_momentum: Array2<f64>,
}

impl Trajectory {
    /// Accepts or rejects where leapfrog ended that started with `momentum`, by [`hamiltonian`].
    pub(super) fn of_hmc(
        start: &State,
        momentum: ArrayView2<f64>,
        end: (State, Array2<f64>),
        chances: Array1<f64>,
    ) -> Self {
        let before = hamiltonian(start, momentum);
        let after = hamiltonian(&end.0, end.1.view());
        let difference = &after - &before;
        Self::metropolis(start, end, difference, [before, after], chances)
    }

    /// Accepts or rejects proposals by `hamiltonians`, those before and after, whose difference is `difference`, and by
    /// `chances`, uniform in [0, 1).
    pub(crate) fn metropolis(
        start: &State,
        (end, end_momentum): (State, Array2<f64>),
        difference: Array1<f64>,
        hamiltonians: [Array1<f64>; 2],
        chances: Array1<f64>,
    ) -> Self {
        let mut energy_error = difference;
        Zip::from(&mut energy_error).and(end.gradient.rows()).and(end.field.rows()).for_each(
            |error, gradient, field| {
                // From other numbers a chain cannot go on.
                let finite =
                    error.is_finite() && gradient.iter().chain(field.iter()).all(|x| x.is_finite());
                *error = if finite { *error } else { f64::INFINITY };
            },
        );
        let acceptance = energy_error.mapv(|error| (-error).exp().min(1.0));
        let accepted: Vec<bool> = chances
            .iter()
            .zip(&acceptance)
            .map(|(chance, acceptance)| chance < acceptance)
            .collect();
        let taken = accepted.iter().map(|&accepted| &hamiltonians[usize::from(accepted)]);
        let hamiltonian = taken.enumerate().map(|(chain, taken)| taken[chain]).collect();
        let end_position = end.position.clone();
        Self {
            state: start.select(end, &accepted),
            energy_error,
            acceptance,
            accepted,
            hamiltonian,
            end_position,
            end_momentum,
        }
    }

    /// Number of chains whose energy error was not finite or is above `threshold`.
    pub fn divergences(&self, threshold: f64) -> usize {
        self.energy_error.iter().filter(|&&error| error > threshold).count()
    }
}

/// Fresh momenta, leapfrog, Metropolis. Each member of the team moves its chains by itself, after which all members have
/// all.
pub fn trajectory(
    potential: &impl Fn(ArrayView2<f64>) -> Potential,
    state: &State,
    (step_size, steps): (f64, i64),
    team: &Team,
    random: &Random,
) -> Trajectory {
    let (chains, sites) = state.position.dim();
    let momentum = random.normals(Use::Momenta, 0..chains, sites);
    let shares = Shares::new(team, chains);
    let own = (state.own(&shares), shares.own(momentum.view()));
    let step_sizes = Array1::from_elem(shares.count(), step_size);
    let end = leapfrog(potential, &own.0, own.1, step_sizes.view(), steps);
    let end = join(&shares, end);
    let chances = random.uniform(Use::Acceptance, 0..chains);
    Trajectory::of_hmc(state, momentum.view(), end, chances)
}

/// The chains of all members of a team with their momenta, from what each has of its own. One exchange.
fn join(shares: &Shares, (own, momentum): (State, Array2<f64>)) -> (State, Array2<f64>) {
    let parts = [
        own.position.into_dyn(),
        own.energy.into_dyn(),
        own.gradient.into_dyn(),
        own.field.into_dyn(),
        momentum.into_dyn(),
    ];
    let [position, energy, gradient, field, momentum] = shares.join(parts.map(Part::Rows));
    let state = State {
        position: of_shape(position),
        energy: of_shape(energy),
        gradient: of_shape(gradient),
        field: of_shape(field),
    };
    (state, of_shape(momentum))
}
