//! Independence Metropolis: the flow's own samples as proposals, accepted by the ratio of their weights. A sampler by
//! itself, and what carries the chains of latent HMC between sectors of the target. There it may also go a part of the way
//! only: preconditioned Crank-Nicolson (Cotter et al., Stat. Sci. 28, 424 (2013)).

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

/// Latents z' = √(1-β²) z + β ξ for every chain, ξ from the prior, accepted with min(1, w'/w), w = π(x)/q(x): the proposal
/// leaves the prior as it is, for every step β, so that the ratio of the weights is left. At β = 1 z' is independent of z
/// (Hastings 1970). The energy error is ln w - ln w', infinite where it was not finite. `state_at` evaluates the model at
/// the latents.
pub fn trajectory(
    state_at: impl Fn(ArrayView2<f64>) -> State,
    state: &State,
    step: f64,
    random: &Random,
) -> Trajectory {
    let (chains, sites) = state.position.dim();
    let mut proposals = random.normals(Use::Proposals, 0..chains, sites);
    if step < 1.0 {
        for (chain, mut proposal) in proposals.rows_mut().into_iter().enumerate() {
            // Only fresh latents lead away from a field that has none of its own, and hence no gradient.
            if state.gradient.row(chain).iter().all(|slope| slope.is_finite()) {
                proposal *= step;
                proposal.scaled_add((1.0 - step * step).sqrt(), &state.position.row(chain));
            }
        }
    }
    let end = state_at(proposals.view());
    let minus_ln_weight = |state: &State| &state.energy + ln_prior(state.position.view());
    let difference = minus_ln_weight(&end) - minus_ln_weight(state);
    let energies = [state.energy.clone(), end.energy.clone()];
    let chances = random.uniform(Use::ProposalAcceptance, 0..chains);
    Trajectory::metropolis(state, (end, proposals), difference, energies, chances)
}
