//! Hybrid Monte Carlo with batched chains (Duane et al. 1987), in any potential: that of a flow's latent space
//! (App. C), or of the fields.

use tch::{Kind, Tensor};

use crate::engine::Potential;
use crate::host::{from_array, normals};
use crate::random::{Random, Use};
use crate::rank::Team;
use crate::shares::{Part, Shares};

/// Positions of all chains with what the potential gives there.
#[derive(Debug)]
pub struct State {
    /// (chains, L, L).
    pub position: Tensor,
    /// (chains).
    pub energy: Tensor,
    /// (chains, L, L): ∂U/∂position.
    pub gradient: Tensor,
    /// (chains, L, L).
    pub field: Tensor,
}

impl State {
    /// Evaluates the potential and its gradient at `position`.
    pub fn new(potential: &impl Fn(&Tensor) -> Potential, position: &Tensor) -> Self {
        let Potential { energy, gradient, field } = potential(position);
        Self { position: position.shallow_clone(), energy, gradient, field }
    }

    /// The same on all members of a team, each of which evaluates its chains.
    pub fn by_team(
        potential: &impl Fn(&Tensor) -> Potential,
        position: &Tensor,
        team: &Team,
    ) -> Self {
        let shares = Shares::new(team, position.size()[0]);
        let Potential { energy, gradient, field } = potential(&shares.own(position));
        let [energy, gradient, field] = shares.join([energy, gradient, field].map(Part::Rows));
        Self { position: position.shallow_clone(), energy, gradient, field }
    }

    /// The chains that this member of a team works on.
    fn own(&self, shares: &Shares) -> Self {
        Self {
            position: shares.own(&self.position),
            energy: shares.own(&self.energy),
            gradient: shares.own(&self.gradient),
            field: shares.own(&self.field),
        }
    }

    /// Chain by chain the proposal where `accepted` (chains) holds, else this state; what a rejected
    /// proposal contains, NaN or not, never enters.
    fn select(&self, proposal: &Self, accepted: &Tensor) -> Self {
        let lattice = accepted.view([-1, 1, 1]);
        Self {
            position: proposal.position.where_self(&lattice, &self.position),
            energy: proposal.energy.where_self(accepted, &self.energy),
            gradient: proposal.gradient.where_self(&lattice, &self.gradient),
            field: proposal.field.where_self(&lattice, &self.field),
        }
    }
}

/// `steps` leapfrog steps of size ε from `state` with momenta of unit mass; reversible and
/// volume-preserving.
///
/// Shapes: momentum (chains, L, L).
pub fn leapfrog(
    potential: &impl Fn(&Tensor) -> Potential,
    state: &State,
    momentum: &Tensor,
    step_size: f64,
    steps: i64,
) -> (State, Tensor) {
    let mut momentum = momentum - &state.gradient * (0.5 * step_size);
    let mut position = &state.position + &momentum * step_size;
    let mut end = State::new(potential, &position);
    for _ in 1..steps {
        momentum -= &end.gradient * step_size;
        position = &end.position + &momentum * step_size;
        end = State::new(potential, &position);
    }
    momentum -= &end.gradient * (0.5 * step_size);
    (end, momentum)
}

/// H = U + ½|p|². Shapes: (chains).
pub fn hamiltonian(state: &State, momentum: &Tensor) -> Tensor {
    let kinetic = momentum.square().sum_dim_intlist([1i64, 2].as_slice(), false, None) * 0.5;
    &state.energy + kinetic
}

/// One trajectory of every chain.
#[derive(Debug)]
pub struct Trajectory {
    pub state: State,
    /// (chains): ΔH, infinite where it was not finite.
    pub energy_error: Tensor,
    /// (chains): probability of acceptance min(1, e^{-ΔH}).
    pub acceptance: Tensor,
    /// (chains): whether the proposal was taken.
    pub accepted: Tensor,
    /// (chains): H of the state that the chain goes on from, with the momentum it came with.
    pub hamiltonian: Tensor,
    /// (chains, L, L): where the proposal ended, finite or not.
    pub end_position: Tensor,
    /// (chains, L, L)
    pub end_momentum: Tensor,
}

impl Trajectory {
    /// Accepts or rejects proposals by `hamiltonians`, those before and after, whose difference is `difference`.
    pub(crate) fn metropolis(
        start: &State,
        (end, end_momentum): (State, Tensor),
        difference: &Tensor,
        hamiltonians: [&Tensor; 2],
        (random, of): (&Random, Use),
    ) -> Self {
        let usable = difference.isfinite().logical_and(&finite_everywhere(&end));
        let energy_error = difference.where_self(&usable, &difference.full_like(f64::INFINITY));
        let acceptance = (-&energy_error).exp().clamp_max(1.0);
        let numbers = from_array(&random.uniforms(of, 0..acceptance.size()[0] as usize, 1));
        let numbers = numbers.to_device(acceptance.device()).view_as(&acceptance);
        let accepted = numbers.lt_tensor(&acceptance);
        Self {
            state: start.select(&end, &accepted),
            hamiltonian: hamiltonians[1].where_self(&accepted, hamiltonians[0]),
            energy_error,
            acceptance,
            accepted,
            end_position: end.position,
            end_momentum,
        }
    }

    /// Number of chains whose energy error was not finite or is above `threshold`, on the device. Shapes: ().
    pub fn divergences(&self, threshold: f64) -> Tensor {
        self.energy_error.gt(threshold).sum(Kind::Int64)
    }
}

/// Fresh momenta, leapfrog, Metropolis. Each member of the team moves its chains by itself, after which all members have
/// all.
pub fn trajectory(
    potential: &impl Fn(&Tensor) -> Potential,
    state: &State,
    (step_size, steps): (f64, i64),
    team: &Team,
    random: &Random,
) -> Trajectory {
    let momentum = normals_like(&state.position, random, Use::Momenta);
    let shares = Shares::new(team, momentum.size()[0]);
    let own = (state.own(&shares), shares.own(&momentum));
    let (end, end_momentum) = leapfrog(potential, &own.0, &own.1, step_size, steps);
    let State { position, energy, gradient, field } = end;
    let parts = [position, energy, gradient, field, end_momentum].map(Part::Rows);
    let [position, energy, gradient, field, end_momentum] = shares.join(parts);
    let end = State { position, energy, gradient, field };
    let before = hamiltonian(state, &momentum);
    let after = hamiltonian(&end, &end_momentum);
    let (difference, hamiltonians) = (&after - &before, [&before, &after]);
    let chance = (random, Use::Acceptance);
    Trajectory::metropolis(state, (end, end_momentum), &difference, hamiltonians, chance)
}

/// Standard normal numbers for every chain. Shapes: (chains, L, L), as the positions.
pub(crate) fn normals_like(position: &Tensor, random: &Random, of: Use) -> Tensor {
    let options = (position.size()[1], position.kind(), position.device());
    normals(random, of, 0..position.size()[0] as usize, options)
}

/// (chains): whether gradient and field hold finite numbers only, so that a chain can go on from there.
fn finite_everywhere(state: &State) -> Tensor {
    let all = |values: &Tensor| values.isfinite().all_dim(2, false).all_dim(1, false);
    all(&state.gradient).logical_and(&all(&state.field))
}
