//! Responses of latent variables to the field, E[∂z_i/∂x_j] (Fig. 4(a)): which pattern of the field each latent stands for.

use tch::Tensor;

use crate::config::Symmetry;
use crate::flow::symmetry::{SymmetrizedFlow, ln_prior};

/// ∂z_i/∂x_j at each sample of the field, for some sites i and all sites j.
///
/// With the mixture a sample x came from +g(z) with probability p = q(x)/[q(x) + q(-x)], and then has z = g⁻¹(x), else
/// from -g(z) with z = g⁻¹(-x). The latents answer to the field with that sign taken off, and the two answers are
/// weighted by their probabilities (Eq. D.4): p ∂g⁻¹(x) + (1 - p) ∂g⁻¹(-x). (With the sign left in the second
/// term would count negative, and the mean over fields be 0 by symmetry.)
///
/// Shapes: field (batch, L, L) → (latents, batch, L, L).
pub fn responses(flow: &SymmetrizedFlow, field: &Tensor, latents: &[usize]) -> Tensor {
    let signed = match flow.symmetry() {
        Symmetry::Mixture => vec![field.shallow_clone(), -field],
        Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => {
            vec![field.shallow_clone()]
        }
    };
    let signs = signed.len() as i64;
    let x = Tensor::cat(&signed, 0).detach().set_requires_grad(true);
    let (z, log_det) = flow.map().inverse(&x);
    let ln_q = (ln_prior(&z) + log_det).detach().view([signs, -1]);
    let probability = ln_q.softmax(0, ln_q.kind()).view([-1]);
    let z = z.flatten(1, -1);
    let response = |&site: &usize| {
        let weighted = z.select(1, site as i64).dot(&probability);
        // Each sample's latents depend on that sample alone, so that one gradient holds those of all samples.
        let gradient = Tensor::run_backward(&[weighted], &[&x], true, false).pop();
        let gradient = gradient.expect("one gradient for one leaf").unflatten(0, [signs, -1]);
        gradient.sum_dim_intlist([0i64].as_slice(), false, None)
    };
    Tensor::stack(&latents.iter().map(response).collect::<Vec<_>>(), 0)
}
