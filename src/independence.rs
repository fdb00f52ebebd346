//! Independence Metropolis: the flow's own samples as proposals, accepted by the ratio of their weights. A sampler by
//! itself, and what carries the chains of latent HMC between sectors of the target.

use tch::Tensor;

use crate::engine::FrozenModel;
use crate::flow::symmetry::ln_prior;
use crate::hmc::{State, Trajectory, normals_like};
use crate::random::{Random, Use};

/// The state of latents z, without gradients. Shapes: z (chains, L, L).
pub fn state(model: &FrozenModel, z: &Tensor) -> State {
    let draw = model.draw(z);
    State {
        position: z.shallow_clone(),
        energy: draw.ln_q - draw.ln_pi - ln_prior(z),
        gradient: z.zeros_like(),
        field: draw.field,
    }
}

/// Fresh latents for every chain, accepted with min(1, w'/w), w = π(x)/q(x) (Hastings 1970). The energy error is
/// ln w - ln w', infinite where it was not finite. `state_at` evaluates the model at the latents.
pub fn trajectory(
    state_at: impl Fn(&Tensor) -> State,
    state: &State,
    random: &Random,
) -> Trajectory {
    let momentum = normals_like(&state.position, random, Use::Proposals);
    let end = state_at(&momentum);
    let minus_ln_weight = |state: &State| &state.energy + ln_prior(&state.position);
    let difference = minus_ln_weight(&end) - minus_ln_weight(state);
    let energies = [state.energy.shallow_clone(), end.energy.shallow_clone()];
    let [before, after] = &energies;
    let chance = (random, Use::ProposalAcceptance);
    Trajectory::metropolis(state, (end, momentum), &difference, [before, after], chance)
}
