//! The flow's density and how the target's Z2 symmetry x → -x enters it (App. D, App. E), with gradients.

use tch::Tensor;

use super::map::Map;
use crate::flow::config::Symmetry;

/// ln p(z) of the prior N(0, I). Shapes: z (batch, L, L) → (batch).
pub fn ln_prior(z: &Tensor) -> Tensor {
    let sites = (z.size()[1] * z.size()[2]) as f64;
    let squares = z.square().sum_dim_intlist([1i64, 2].as_slice(), false, None);
    squares * -0.5 - 0.5 * sites * std::f64::consts::TAU.ln()
}

/// A flow at fixed parameters, with the symmetrization that its density goes through.
#[derive(Debug)]
pub struct SymmetrizedFlow {
    pub map: Map,
    pub symmetry: Symmetry,
}

/// Field samples with their log-densities.
#[derive(Debug)]
pub struct TensorDraw {
    /// (batch, L, L).
    pub field: Tensor,
    /// (batch): ln q(x) of the model; for the mixture ln q_sym(x).
    pub ln_q: Tensor,
}

impl SymmetrizedFlow {
    /// x = g(z) with the model's ln q(x): ln p(z) - ln|det ∂x/∂z| (Eq. 1), or for the mixture
    /// ln q_sym(x) = ln ½[q(x) + q(-x)] (App. D).
    ///
    /// Shapes: z (batch, L, L).
    pub fn draw(&self, z: &Tensor) -> TensorDraw {
        let (field, log_det) = self.map.forward(z);
        let ln_q = ln_prior(z) - log_det;
        let ln_q = match self.symmetry {
            Symmetry::Mixture => mix(&ln_q, &self.ln_density(&-&field)),
            Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => ln_q,
        };
        TensorDraw { field, ln_q }
    }

    /// ln q(x) of the flow itself, without mixture, at any field.
    ///
    /// Shapes: x (batch, L, L) → (batch).
    fn ln_density(&self, x: &Tensor) -> Tensor {
        let (z, log_det) = self.map.inverse(x);
        ln_prior(&z) + log_det
    }

    /// ln q(x) of the model at any field: with the mixture ln q_sym(x).
    ///
    /// Shapes: x (batch, L, L) → (batch).
    pub fn symmetrized_ln_density(&self, x: &Tensor) -> Tensor {
        let ln_q = self.ln_density(x);
        match self.symmetry {
            Symmetry::Mixture => mix(&ln_q, &self.ln_density(&-x)),
            Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => ln_q,
        }
    }

    /// Integrand of the symmetry regularizer KL(q(x) ‖ q(-x)): ln q(x) - ln q(-x) (App. E). For the
    /// mixture and for no symmetrization there is none.
    ///
    /// Shapes: (batch).
    pub fn asymmetry(&self, draw: &TensorDraw) -> Option<Tensor> {
        (self.symmetry == Symmetry::Regularizer)
            .then(|| &draw.ln_q - self.ln_density(&-&draw.field))
    }
}

/// ln ½(e^a + e^b).
fn mix(a: &Tensor, b: &Tensor) -> Tensor {
    a.logaddexp(b) - std::f64::consts::LN_2
}
