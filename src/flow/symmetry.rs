//! The flow's density and how the target's Z2 symmetry x → -x enters it (App. D, App. E).

use tch::Tensor;

use super::torch::Map;
use crate::config::Symmetry;
use crate::random::{Random, Use};

/// ln p(z) of the prior N(0, I). Shapes: z (batch, L, L) → (batch).
pub fn ln_prior(z: &Tensor) -> Tensor {
    let sites = (z.size()[1] * z.size()[2]) as f64;
    let squares = z.square().sum_dim_intlist([1i64, 2].as_slice(), false, None);
    squares * -0.5 - 0.5 * sites * std::f64::consts::TAU.ln()
}

/// A flow at fixed parameters, with the symmetrization that its density goes through.
#[derive(Debug)]
pub struct SymmetrizedFlow {
    map: Map,
    symmetry: Symmetry,
}

/// Field samples with their log-densities.
#[derive(Debug)]
pub struct Draw {
    /// (batch, L, L). For the mixture the sign of each sample is yet to be drawn; every even
    /// function of the field may be taken without.
    pub field: Tensor,
    /// (batch): ln q(x) of the model; for the mixture ln q_sym(x).
    pub ln_q: Tensor,
}

impl SymmetrizedFlow {
    pub(super) fn new(map: Map, symmetry: Symmetry) -> Self {
        Self { map, symmetry }
    }

    /// How the target's symmetry enters the density.
    pub fn symmetry(&self) -> Symmetry {
        self.symmetry
    }

    /// The map between latents and field.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// x = g(z) with the model's ln q(x): ln p(z) - ln|det ∂x/∂z| (Eq. 1), or for the mixture
    /// ln q_sym(x) = ln ½[q(x) + q(-x)] (App. D).
    ///
    /// Shapes: z (batch, L, L).
    pub fn draw(&self, z: &Tensor) -> Draw {
        let (field, log_det) = self.map.forward(z);
        let ln_q = ln_prior(z) - log_det;
        let ln_q = match self.symmetry {
            Symmetry::Mixture => mix(&ln_q, &self.ln_density(&-&field)),
            Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => ln_q,
        };
        Draw { field, ln_q }
    }

    /// ln q(x) of the flow itself, without mixture, at any field.
    ///
    /// Shapes: x (batch, L, L) → (batch).
    pub fn ln_density(&self, x: &Tensor) -> Tensor {
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
    pub fn asymmetry(&self, draw: &Draw) -> Option<Tensor> {
        (self.symmetry == Symmetry::Regularizer)
            .then(|| &draw.ln_q - self.ln_density(&-&draw.field))
    }
}

/// Signs to multiply samples by, of which the first one has number `first`: the mixture's random ones, else 1.
///
/// Shapes: field (batch, L, L) → (batch, 1, 1).
pub fn draw_signs(field: &Tensor, symmetry: Symmetry, random: &Random, first: usize) -> Tensor {
    let batch = field.size()[0] as usize;
    let signs = match symmetry {
        Symmetry::Mixture => {
            let numbers = random.uniforms(Use::Signs, first..first + batch, 1);
            numbers.iter().map(|&number| if number < 0.5 { 1.0 } else { -1.0 }).collect()
        }
        Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => vec![1.0; batch],
    };
    Tensor::from_slice(&signs).view([-1, 1, 1]).to_kind(field.kind()).to_device(field.device())
}

/// The samples with signs drawn.
pub fn with_signs(field: &Tensor, symmetry: Symmetry, random: &Random, first: usize) -> Tensor {
    field * draw_signs(field, symmetry, random, first)
}

/// ln ½(e^a + e^b).
pub(crate) fn mix(a: &Tensor, b: &Tensor) -> Tensor {
    a.logaddexp(b) - std::f64::consts::LN_2
}
