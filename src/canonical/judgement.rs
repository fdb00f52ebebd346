//! How good a canonical transformation is: bounds of the free energy and its estimate by importance weights, or the likelihood of
//! samples that were not trained on.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, Axis, Zip, s};

use super::config::MomentaChoice;
use super::{draw_momenta, view};
use crate::engine::SymplecticModel;
use crate::engine::symplectic::ln_density;
use crate::flow::symmetry::{ln_mean_exp, ln_prior};
use crate::random::{Random, Use};
use crate::statistics::{Importance, gamma_method, importance, mean_and_standard_error};
use crate::targets::surface::Surface;

/// Most samples whose momenta are evaluated at a time, and most copies of samples where these are integrated.
const BATCH: usize = 512;
const COPIES: usize = 1 << 14;

/// A mean with its standard error, in nats.
pub type Mean = (f64, f64);

/// What the flow's samples say of its surface.
#[derive(Debug, Clone, Copy)]
pub struct FreeEnergies {
    /// E[ln ρ(Q, P) + V(q) + ½ p²], a bound above -ln Z of the phase space.
    pub phase_space: Mean,
    /// E[ln q(q) + V(q)], a bound above -ln Z of the coordinates.
    pub coordinates: Mean,
    /// -ln Z of the coordinates by importance weights.
    pub importance: Importance,
}

/// What held-out samples say of a flow.
#[derive(Debug, Clone, Copy)]
pub struct HeldOut {
    /// -ln ρ(Q, P); and of as many samples that were trained on.
    pub phase_space: Mean,
    pub training_phase_space: Mean,
    /// -ln q(q).
    pub coordinates: Mean,
    pub training_coordinates: Mean,
}

impl HeldOut {
    /// Of held-out samples, and of some that were trained on, (sample, n).
    pub fn of(
        model: &SymplecticModel,
        momenta: MomentaChoice,
        [held_out, training]: [ArrayView2<f32>; 2],
        random: &Random,
    ) -> Self {
        let mean = |values: Array1<f64>| {
            let estimate = gamma_method(values.view().insert_axis(Axis(0)));
            (estimate.mean, estimate.error)
        };
        let phase_space = |q: ArrayView2<f32>| {
            in_parts(q.dim(), momenta, |part, rows| {
                let q = q.slice(s![rows, ..]).mapv(f64::from);
                let momenta = draw_momenta(momenta, &random.part(part), q.dim());
                model.likelihood_values(q.view(), view(momenta.as_ref()))
            })
        };
        let coordinates =
            |q: ArrayView2<f32>| -ln_density(&model.inverse(q.mapv(f64::from).view()));
        Self {
            phase_space: mean(phase_space(held_out)),
            training_phase_space: mean(phase_space(training)),
            coordinates: mean(coordinates(held_out)),
            training_coordinates: mean(coordinates(training)),
        }
    }
}

impl FreeEnergies {
    /// From so many samples.
    ///
    /// Those of the bound in phase space are half of z from N(0, 1) and half from N(0, 4), with weights N(0, 1)/mixture ≤ 2: p² of a mode
    /// that is narrower than its target has no finite variance over the flow's own samples.
    ///
    /// Importance weights are of samples half of which have oscillators that are spread as the surface wants them: a bound in phase
    /// space keeps some modes narrower than their target, and the weights of the flow's own samples would have no finite variance. The
    /// spread, E_π[z_k²] ≥ 1, is estimated from samples of its own.
    pub fn of(
        (model, surface): (&SymplecticModel, Surface),
        momenta: MomentaChoice,
        count: usize,
        random: &Random,
    ) -> Self {
        let coordinates = model.flow.coordinates;
        let twice = Array1::from_elem(coordinates, 2.0);
        let mut weights = Vec::with_capacity(count);
        let phase_space = in_parts((count, coordinates), momenta, |part, rows| {
            let random = random.part(part);
            let (z, ln_mixture) = mixture(&twice, rows.len(), &random);
            weights.extend((ln_prior(z.view()) - ln_mixture).mapv_into(f64::exp));
            let momenta = draw_momenta(momenta, &random, z.dim());
            model.variational_values(z.view(), view(momenta.as_ref()))
        });
        let mut spread = Array1::ones(coordinates);
        for round in 1..=ROUNDS {
            let Weighted { z, ln_weights } =
                weighted((model, surface), &spread, count / 2, &random.part(usize::MAX - round));
            let largest = ln_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights = ln_weights.mapv(|ln_weight| (ln_weight - largest).exp());
            let squares = weights.dot(&z.mapv(|z| z * z)) / weights.sum();
            spread = squares.mapv(|square| square.clamp(1.0, MOST_SPREAD).sqrt());
        }
        let last = &random.part(usize::MAX);
        let Weighted { ln_weights, .. } = weighted((model, surface), &spread, count, last);
        let plain = weighted((model, surface), &Array1::ones(coordinates), count, last);
        Self {
            phase_space: weighted_mean(&phase_space, &Array1::from(weights)),
            coordinates: mean_and_standard_error((-plain.ln_weights).as_slice().expect("a vector")),
            importance: importance(ln_weights.as_slice().expect("a vector")),
        }
    }
}

/// How often the spread is estimated, each time from samples that are spread like the last time.
const ROUNDS: usize = 3;
/// Largest E_π[z_k²] that is believed.
const MOST_SPREAD: f64 = 16.0;

/// Latents with the logarithms of their importance weights.
struct Weighted {
    /// (sample, n).
    z: Array2<f64>,
    /// (sample).
    ln_weights: Array1<f64>,
}

/// Samples of the mixture ½ N(0, 1) + ½ N(0, spread²), in turn, and ln w = -V(q) + ln|det ∂q/∂z| - ln of its density.
fn weighted(
    (model, surface): (&SymplecticModel, Surface),
    spread: &Array1<f64>,
    count: usize,
    random: &Random,
) -> Weighted {
    let (z, ln_mixture) = mixture(spread, count, random);
    let image = model.forward(z.view());
    let energy = surface.energy(image.field.view());
    Weighted { z, ln_weights: image.log_det - energy - ln_mixture }
}

/// Samples of ½ N(0, 1) + ½ N(0, spread²), in turn, with the logarithms of that density. Shapes: (sample, n), (sample).
fn mixture(spread: &Array1<f64>, count: usize, random: &Random) -> (Array2<f64>, Array1<f64>) {
    let mut z = random.normals(Use::Latents, 0..count, spread.len());
    z.slice_mut(s![1..;2, ..]).zip_mut_with(spread, |z, spread| *z *= spread);
    let narrow = ln_prior(z.view());
    let wide = ln_prior((&z / spread).view()) - spread.mapv(f64::ln).sum();
    let ln_mixture = Zip::from(&narrow).and(&wide).map_collect(|&a, &b| ln_mean_exp(a, b));
    (z, ln_mixture)
}

/// Σ w v / Σ w with its standard error to first order.
fn weighted_mean(values: &Array1<f64>, weights: &Array1<f64>) -> Mean {
    let sum = weights.sum();
    let mean = weights.dot(values) / sum;
    let deviations = (values - mean) * weights;
    (mean, deviations.dot(&deviations).sqrt() / sum)
}

/// Numbers of many samples, (samples, n), some at a time; the parts are numbered.
fn in_parts(
    (count, coordinates): (usize, usize),
    momenta: MomentaChoice,
    mut numbers: impl FnMut(usize, Range<usize>) -> Array1<f64>,
) -> Array1<f64> {
    let batch = match momenta {
        MomentaChoice::Drawn => BATCH,
        MomentaChoice::Integrated => (COPIES / coordinates).clamp(1, BATCH),
    };
    let parts = (0..count).step_by(batch).enumerate();
    parts.flat_map(|(part, start)| numbers(part, start..count.min(start + batch))).collect()
}
