//! Potential energy surfaces V(q) of which everything is known: what a canonical transformation can be held to. Units in which
//! masses and k_B T are 1.

use std::f64::consts::{PI, TAU};
use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use serde::{Deserialize, Serialize};
use statrs::function::erf::erf;

use crate::random::{Random, Use};

/// Radius of the ring.
pub const RING_RADIUS: f64 = 2.0;
/// Variance of the radius about it, were there no Jacobian.
pub const RING_VARIANCE: f64 = 0.16;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Surface {
    /// V = (|q| - 2)²/0.32 in the plane (arXiv:1910.00024).
    Ring,
    /// V = ½ Σ_{i=0}^{n} (q_{i+1} - q_i)² of n beads between fixed ends, q_0 = q_{n+1} = 0.
    HarmonicChain { beads: usize },
}

impl Surface {
    /// Number of coordinates n.
    pub fn coordinates(self) -> usize {
        match self {
            Self::Ring => 2,
            Self::HarmonicChain { beads } => beads,
        }
    }

    /// V(q). Shapes: q (batch, n) → (batch).
    pub fn energy(self, q: ArrayView2<f64>) -> Array1<f64> {
        let of_sample = |q: ArrayView1<f64>| match self {
            Self::Ring => (q.dot(&q).sqrt() - RING_RADIUS).powi(2) / (2.0 * RING_VARIANCE),
            Self::HarmonicChain { .. } => {
                let before = std::iter::once(&0.0).chain(q);
                let after = q.iter().chain(std::iter::once(&0.0));
                0.5 * before.zip(after).map(|(a, b)| (b - a).powi(2)).sum::<f64>()
            }
        };
        q.map_axis(Axis(1), of_sample)
    }

    /// -ln Z, Z = ∫ dq e^{-V(q)}, of the coordinates alone.
    ///
    /// Ring: Z = 2π ∫ r dr e^{-(r-μ)²/2σ²} = 2π [σ² e^{-μ²/2σ²} + μ σ √(2π) Φ(μ/σ)]. Chain: Z = (2π)^{n/2}/√(n+1).
    pub fn free_energy(self) -> f64 {
        match self {
            Self::Ring => {
                let (mean, variance) = (RING_RADIUS, RING_VARIANCE);
                let reduced = mean / (2.0 * variance).sqrt();
                let below = 0.5 * (1.0 + erf(reduced));
                let tail = variance * (-reduced * reduced).exp();
                -(TAU * (tail + mean * (TAU * variance).sqrt() * below)).ln()
            }
            Self::HarmonicChain { beads } => {
                0.5 * ((beads + 1) as f64).ln() - 0.5 * beads as f64 * TAU.ln()
            }
        }
    }

    /// Frequencies of the normal modes, ascending, where there are such: ω_k = 2 sin(kπ/2(n+1)).
    pub fn frequencies(self) -> Option<Array1<f64>> {
        match self {
            Self::Ring => None,
            Self::HarmonicChain { beads } => {
                let half_angle = |k: usize| 0.5 * k as f64 * PI / (beads + 1) as f64;
                Some((1..=beads).map(|k| 2.0 * half_angle(k).sin()).collect())
            }
        }
    }

    /// Names of what one would call the state of a sample, and their values.
    ///
    /// Shapes: q (batch, n) → (batch, angle).
    pub fn angles(self, q: ArrayView2<f64>) -> (Vec<&'static str>, Array2<f64>) {
        match self {
            Self::Ring => {
                let polar = |q: ArrayView1<f64>| [q[0].hypot(q[1]), q[1].atan2(q[0])];
                let values: Vec<[f64; 2]> = q.outer_iter().map(polar).collect();
                (vec!["radius", "angle"], Array2::from(values))
            }
            Self::HarmonicChain { .. } => (Vec::new(), Array2::zeros((q.nrows(), 0))),
        }
    }

    /// Exact samples of e^{-V(q)}, those of some numbers of a key. Shapes: (samples, n).
    pub fn sample(self, random: &Random, samples: Range<usize>) -> Array2<f64> {
        match self {
            Self::Ring => {
                let points: Vec<[f64; 2]> =
                    samples.map(|sample| ring_point(&random.part(sample))).collect();
                Array2::from(points)
            }
            Self::HarmonicChain { beads } => {
                let frequencies = self.frequencies().expect("a chain has normal modes");
                let amplitudes = random.normals(Use::Latents, samples, beads) / &frequencies;
                amplitudes.dot(&normal_modes(beads))
            }
        }
    }
}

/// Rows are the normal modes of the chain, √(2/(n+1)) sin(ikπ/(n+1)): (mode, bead).
pub fn normal_modes(beads: usize) -> Array2<f64> {
    let length = (beads + 1) as f64;
    let scale = (2.0 / length).sqrt();
    Array2::from_shape_fn((beads, beads), |(k, i)| {
        scale * (((k + 1) * (i + 1)) as f64 * PI / length).sin()
    })
}

/// A point of the ring: r is drawn from the normal distribution and kept with a probability ∝ r, up to ten standard deviations
/// above the mean, where there is nothing more.
fn ring_point(random: &Random) -> [f64; 2] {
    let deviation = RING_VARIANCE.sqrt();
    let most = RING_RADIUS + 10.0 * deviation;
    let mut tries = 0..;
    let radius = tries.find_map(|attempt| {
        let normal = random.normals(Use::Latents, attempt..attempt + 1, 1)[[0, 0]];
        let radius = RING_RADIUS + deviation * normal;
        let kept = random.uniform(Use::Acceptance, attempt..attempt + 1)[0] * most < radius;
        kept.then_some(radius)
    });
    let radius = radius.expect("a third of all tries succeeds");
    let angle = TAU * random.uniform(Use::Proposals, 0..1)[0];
    [radius * angle.cos(), radius * angle.sin()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::DMatrix;

    /// By quadrature, and by the determinant of the chain's matrix.
    #[test]
    fn free_energies_are_those_of_quadrature_and_of_the_determinant() {
        let steps = 200_000;
        let width = 8.0 / f64::from(steps);
        let integrand = |i: i32| {
            let r = (f64::from(i) + 0.5) * width;
            let q = Array2::from_shape_vec((1, 2), vec![0.6 * r, -0.8 * r]).unwrap();
            TAU * r * (-Surface::Ring.energy(q.view())[0]).exp()
        };
        let z: f64 = (0..steps).map(integrand).sum::<f64>() * width;
        assert!((Surface::Ring.free_energy() + z.ln()).abs() < 1e-9);
        assert!((Surface::Ring.free_energy() + 2.533_672).abs() < 1e-6);

        let (beads, chain) = (32, Surface::HarmonicChain { beads: 32 });
        let unit = Array2::<f64>::eye(beads);
        let energy = |q: Array1<f64>| chain.energy(q.insert_axis(Axis(0)).view())[0];
        let matrix = DMatrix::from_fn(beads, beads, |i, j| {
            let (a, b) = (unit.row(i), unit.row(j));
            energy(&a + &b) - energy(a.to_owned()) - energy(b.to_owned())
        });
        let determinant = matrix.determinant();
        assert!((determinant - 33.0).abs() < 1e-9);
        let expected = 0.5 * determinant.ln() - 0.5 * beads as f64 * TAU.ln();
        assert!((chain.free_energy() - expected).abs() < 1e-10);
        assert!((chain.free_energy() + 27.657_779).abs() < 1e-6);
        let mut spectrum: Vec<f64> =
            matrix.symmetric_eigenvalues().iter().map(|value| value.sqrt()).collect();
        spectrum.sort_by(f64::total_cmp);
        for (found, known) in spectrum.iter().zip(chain.frequencies().unwrap()) {
            assert!((found - known).abs() < 1e-10);
        }
    }

    /// Moments of exact samples: ⟨r⟩ and ⟨r²⟩ by quadrature, the chain's covariance by its inverse matrix.
    #[test]
    fn samples_have_the_exact_moments() {
        let count = 100_000;
        let q = Surface::Ring.sample(&Random::new(3), 0..count);
        let (names, polar) = Surface::Ring.angles(q.view());
        assert_eq!(names, ["radius", "angle"]);
        let moment = |power: i32| {
            let weight = |i: i32| {
                let r = (f64::from(i) + 0.5) * 1e-4;
                r.powi(1) * (-(r - RING_RADIUS).powi(2) / (2.0 * RING_VARIANCE)).exp()
            };
            let r = |i: i32| ((f64::from(i) + 0.5) * 1e-4).powi(power);
            (0..80_000).map(|i| r(i) * weight(i)).sum::<f64>()
                / (0..80_000).map(weight).sum::<f64>()
        };
        let close = |values: Array1<f64>, expected: f64| {
            let error = values.std(1.0) / (count as f64).sqrt();
            let pull = (values.mean().unwrap() - expected) / error;
            assert!(pull.abs() < 4.0, "{pull}");
        };
        close(polar.column(0).to_owned(), moment(1));
        close(polar.column(0).mapv(|r| r * r), moment(2));
        close(polar.column(1).to_owned(), 0.0);
        close(polar.column(1).mapv(|angle| (2.0 * angle).cos()), 0.0);

        let beads = 4;
        let q = Surface::HarmonicChain { beads }.sample(&Random::new(4), 0..count);
        for i in 0..beads {
            for j in 0..beads {
                let (low, high) = (i.min(j) + 1, i.max(j) + 1);
                let expected = (low * (beads + 1 - high)) as f64 / (beads + 1) as f64;
                close(&q.column(i) * &q.column(j), expected);
            }
        }
    }

    #[test]
    fn a_sample_depends_on_its_number_alone() {
        for surface in [Surface::Ring, Surface::HarmonicChain { beads: 5 }] {
            let all = surface.sample(&Random::new(9), 0..20);
            let some = surface.sample(&Random::new(9), 7..12);
            assert_eq!(all.slice(ndarray::s![7..12, ..]), some);
        }
    }
}
