//! ln q - ln π of the flow's own samples, tile by tile, and its derivatives by the parameters and by z.

use std::sync::Arc;

use super::density::{Sums, dot, ln_normal, share, sum_ln_cosh, tanh};
use super::lanes::{LANES, Lanes, Real};
use super::network::panels::Panels;
use super::passes::{Flow, Record};
use super::tile::{Part, Tile, add, add_product, negate, subtract};
use super::{AtTemperature, Native, Workspace, layer};
use crate::engine::Batch;
use crate::engine::config::Estimator;
use crate::flow::config::Symmetry;
use crate::flow::symmetry::ln_mean_exp;
use crate::targets::density::SitePotential;

/// What is to be known of a tile besides its densities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) ln_q_mirror: bool,
    pub(super) cotangent: bool,
    pub(super) score: bool,
}

/// Densities of a tile.
pub(super) struct Densities {
    pub(super) ln_p: Sums,
    /// ln q(x) and ln q(-x), not symmetrized; the latter is zero unless wanted.
    pub(super) ln_q: Sums,
    pub(super) ln_q_mirror: Sums,
    pub(super) ln_pi: Sums,
}

/// The loss of a lane as a sum of terms with derivatives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Coefficients {
    /// Of ln q(x).
    pub(super) ln_q: f64,
    /// Of ln q(-x).
    pub(super) ln_q_mirror: f64,
    /// Of ∂ ln q(x)/∂x at fixed parameters.
    pub(super) score: f64,
}

impl<T: Real> Native<T> {
    /// Losses of some tiles and their share of the gradient.
    pub(super) fn loss_of_tiles(
        &self,
        flow: &Flow<'_, T>,
        z: Batch,
        tiles: &[Tile<T>],
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Part {
        let wanted = Wanted {
            ln_q_mirror: matches!(self.symmetry, Symmetry::Mixture | Symmetry::Regularizer),
            cotangent: true,
            score: estimator == Estimator::Path,
        };
        let mut part = Part::new(flow);
        self.with_workspace(flow, |space| {
            for tile in tiles {
                self.load(z, tile, space);
                let densities = self.evaluate(flow, space, wanted);
                let samples = tile.samples.len();
                let coefficients: [Coefficients; LANES] = std::array::from_fn(|lane| {
                    if lane < samples {
                        self.coefficients(&densities, lane, symmetry_weight, estimator)
                    } else {
                        Coefficients { ln_q: 0.0, ln_q_mirror: 0.0, score: 0.0 }
                    }
                });
                for lanes in &mut space.cotangent {
                    lanes.0[samples..].fill(T::ZERO);
                }
                self.differentiate(
                    flow,
                    space,
                    &coefficients,
                    Some((&mut part.gradient, estimator)),
                );
                let ln_q = self.symmetrized(&densities.ln_q, &densities.ln_q_mirror);
                let lanes = 0..samples;
                part.values.extend(lanes.clone().map(|lane| ln_q[lane] - densities.ln_pi[lane]));
                part.asymmetry
                    .extend(lanes.map(|lane| densities.ln_q[lane] - densities.ln_q_mirror[lane]));
            }
        });
        part
    }

    /// From z in `space.field` to y there, x in `space.image` and the densities, with what else is
    /// wanted: -∂ ln π/∂y in `space.cotangent`, ∂ ln q/∂y in `space.score`, and the latent of -x in
    /// `space.mirror`.
    pub(super) fn evaluate(
        &self,
        flow: &Flow<'_, T>,
        space: &mut Workspace<T>,
        wanted: Wanted,
    ) -> Densities {
        let constant = layer(&space.at).map_or(0.0, |layer| layer.log_det);
        let ln_p = ln_normal(&space.field);
        let Workspace { panels, field, record, score, .. } = space;
        let log_det = if wanted.score {
            negate(field, score);
            flow.forward_with_score(panels, field, record, score)
        } else {
            flow.forward(field, record)
        };
        let ln_q = std::array::from_fn(|lane| ln_p[lane] - log_det[lane] - constant);
        let ln_pi = self.target(space, wanted.cotangent);
        let mut ln_q_mirror = [0.0; LANES];
        if wanted.ln_q_mirror {
            let Workspace { field, mirror, mirror_record, .. } = space;
            negate(field, mirror);
            let log_det = flow.inverse(mirror, mirror_record);
            ln_q_mirror = add(ln_normal(mirror), log_det.map(|value| value - constant));
        }
        Densities { ln_p, ln_q, ln_q_mirror, ln_pi }
    }

    /// ln π(x) = -½ Σ_k κ_k |x_k|²/N - Σ V(x_i), and x in `space.image`; with `derivative`, -∂ ln π/∂y in
    /// `space.cotangent`. All NaN without a target.
    fn target(&self, space: &mut Workspace<T>, derivative: bool) -> Sums {
        let Workspace { at, field, image, cotangent, scratch, .. } = space;
        image.copy_from_slice(field);
        let Some(at) = at.as_deref() else {
            cotangent.fill(Lanes([T::of(f64::NAN); LANES]));
            return [f64::NAN; LANES];
        };
        // The quadratic form's derivative by y, where y = x or, with the layer, y = κ^(1/2) x.
        let force = &mut *cotangent;
        force.copy_from_slice(field);
        match &at.layer {
            Some(layer) => self.spectral.apply(&layer.scales, image, scratch),
            None => self.spectral.apply(&at.spectrum, force, scratch),
        }
        let quadratic = dot(field, force);
        let site = match at.site {
            SitePotential::LnCosh => sum_ln_cosh(image).map(|sum| -sum),
        };
        if derivative {
            // `score` is in use: -∂V/∂x goes to `mirror`, which is written only later.
            let slope = &mut space.mirror;
            match at.site {
                SitePotential::LnCosh => tanh(image, slope),
            }
            if let Some(layer) = &at.layer {
                self.spectral.apply(&layer.scales, slope, scratch);
            }
            subtract(force, slope);
        }
        std::array::from_fn(|lane| -0.5 * quadratic[lane] - site[lane])
    }

    /// After `evaluate`: from -∂ ln π/∂y in `space.cotangent` to the derivative of the loss with
    /// respect to z there, and z in `space.field`; adds to the gradient of the parameters.
    ///
    /// The derivative by z leaves out ln p(z) in ln q(x).
    pub(super) fn differentiate(
        &self,
        flow: &Flow<'_, T>,
        space: &mut Workspace<T>,
        coefficients: &[Coefficients; LANES],
        gradient: Option<(&mut [f64], Estimator)>,
    ) {
        let (mut gradient, estimator) = match gradient {
            Some((gradient, estimator)) => (Some(gradient), estimator),
            None => (None, Estimator::Total),
        };
        let of = |pick: fn(&Coefficients) -> f64| {
            Lanes(std::array::from_fn(|lane| T::of(pick(&coefficients[lane]))))
        };
        if estimator == Estimator::Path {
            add_product(&mut space.cotangent, &of(|of| of.score), &space.score);
        }
        // The cotangent of ln q(-x) reuses the place of the score.
        let Workspace { panels, field, record, mirror, score, mirror_record, cotangent, .. } =
            space;
        let of_mirror = of(|of| of.ln_q_mirror);
        // The path gradient of the mixture holds the parameters of ln q(-x) fixed.
        let fixed = estimator == Estimator::Path && self.symmetry == Symmetry::Mixture;
        let of_parameters = if fixed { None } else { gradient.as_deref_mut() };
        pull_back_ln_q(flow, panels, mirror, mirror_record, score, &of_mirror, of_parameters);
        subtract(cotangent, score);
        let of_log_det = of(|of| -of.ln_q);
        flow.pull_back_forward(panels, field, record, cotangent, &of_log_det, gradient);
    }

    /// Coefficients of the loss ln q_sym(x) - ln π(x) + `symmetry_weight` × asymmetry.
    pub(super) fn coefficients(
        &self,
        densities: &Densities,
        lane: usize,
        symmetry_weight: f64,
        estimator: Estimator,
    ) -> Coefficients {
        let (ln_q, ln_q_mirror) = self.shares(densities.ln_q[lane], densities.ln_q_mirror[lane]);
        let asymmetry = if self.symmetry == Symmetry::Regularizer { symmetry_weight } else { 0.0 };
        let (total, score) = match estimator {
            Estimator::Total => (ln_q, 0.0),
            Estimator::Path => (0.0, ln_q),
        };
        Coefficients { ln_q: total + asymmetry, ln_q_mirror: ln_q_mirror - asymmetry, score }
    }

    /// Derivatives of the model's ln q(x) by the flow's ln q(x) and ln q(-x).
    pub(super) fn shares(&self, ln_q: f64, ln_q_mirror: f64) -> (f64, f64) {
        match self.symmetry {
            Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => (1.0, 0.0),
            Symmetry::Mixture => (share::<T>(ln_q, ln_q_mirror), share::<T>(ln_q_mirror, ln_q)),
        }
    }

    /// The model's ln q(x) from the flow's ln q(x) and ln q(-x).
    pub(super) fn symmetrized(&self, ln_q: &Sums, ln_q_mirror: &Sums) -> Sums {
        match self.symmetry {
            Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => *ln_q,
            Symmetry::Mixture => {
                std::array::from_fn(|lane| ln_mean_exp(ln_q[lane], ln_q_mirror[lane]))
            }
        }
    }

    /// y from x in place: the inverse of the Gaussian layer, if there is one. Returns the layer's ln|det|.
    pub(super) fn undo_layer(
        &self,
        at: &Option<Arc<AtTemperature<T>>>,
        field: &mut [Lanes<T>],
        scratch: &mut [Lanes<T>],
    ) -> f64 {
        let Some(layer) = layer(at) else { return 0.0 };
        self.spectral.apply(&layer.inverse_scales, field, scratch);
        layer.log_det
    }
}

/// After an inverse pass: with ln q(y) = ln p(z) + log_det and ∂ ln p/∂z = -z, leaves coefficient × ∂ ln q/∂y
/// in `cotangent` and adds that of the parameters to `gradient`; `latent` goes from z back to y. With coefficients
/// of zero no pass is made.
pub(super) fn pull_back_ln_q<T: Real>(
    flow: &Flow<'_, T>,
    panels: &mut Panels<T>,
    latent: &mut [Lanes<T>],
    record: &mut Record<T>,
    cotangent: &mut [Lanes<T>],
    coefficient: &Lanes<T>,
    gradient: Option<&mut [f64]>,
) {
    cotangent.fill(Lanes::ZERO);
    if coefficient.0.iter().all(|&value| value == T::ZERO) {
        return;
    }
    add_product(cotangent, &Lanes(coefficient.0.map(|value| -value)), latent);
    flow.pull_back_inverse(panels, latent, record, cotangent, coefficient, gradient);
}
