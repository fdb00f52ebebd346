//! Independence Metropolis: the flow's own samples as proposals, accepted by the ratio of their weights. A sampler by
//! itself, and what carries the chains of latent HMC between sectors of the target.

use ndarray::{Array2, ArrayView2};

use crate::engine::{Draw, Model};
use crate::flow::symmetry::ln_prior;
use crate::random::{Random, Use};
use crate::sampling::hmc::{State, Trajectory};

/// The state of latents z, without gradients. Shapes: z (chains, N).
pub fn state(model: &Model, z: ArrayView2<f64>) -> State {
    let Draw { field, ln_q, ln_pi } = model.draw(z);
    State {
        position: z.to_owned(),
        energy: ln_q - ln_pi - ln_prior(z),
        gradient: Array2::zeros(z.dim()),
        field,
    }
}

/// Fresh latents for every chain, accepted with min(1, w'/w), w = π(x)/q(x) (Hastings 1970). The energy error is
/// ln w - ln w', infinite where it was not finite. `state_at` evaluates the model at the latents.
pub fn trajectory(
    state_at: impl Fn(ArrayView2<f64>) -> State,
    state: &State,
    random: &Random,
) -> Trajectory {
    let (chains, sites) = state.position.dim();
    let proposals = random.normals(Use::Proposals, 0..chains, sites);
    let end = state_at(proposals.view());
    let minus_ln_weight = |state: &State| &state.energy + ln_prior(state.position.view());
    let difference = minus_ln_weight(&end) - minus_ln_weight(state);
    let energies = [state.energy.clone(), end.energy.clone()];
    let chances = random.uniform(Use::ProposalAcceptance, 0..chains);
    Trajectory::metropolis(state, (end, proposals), difference, energies, chances)
}
