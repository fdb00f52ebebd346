//! Symplectic flows (Li, Dong, Zhang and Wang, arXiv:1910.00024): a point transformation takes independent oscillators to the
//! coordinates of a system.
//!
//! Oscillators have the Hamiltonian K(Q, P) = ½ Σ_k (P_k² + ω_k² (Q_k - b_k)²), so that at k_B T = 1 z_k = ω_k (Q_k - b_k) and P_k are
//! standard normal numbers. Couplings make the coordinates q = f(Q), and the momenta follow, p = (∂Q/∂q)ᵀ P, which makes
//! (Q, P) → (q, p) symplectic, of determinant 1, whatever f is. The oscillators of the lowest frequencies are the slow modes.

use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate, s};

use super::arrangement;
use super::config::FlowConfig;
use super::coupling::Coupling;
use crate::random::Random;

/// A symplectic flow of n coordinates, with its parameters.
#[derive(Debug, Clone)]
pub struct SymplecticFlow {
    /// n.
    pub coordinates: usize,
    /// Flat: those of the couplings from Q to q, then ln ω (n), then b (n).
    pub parameters: Array1<f64>,
    couplings: Arc<[Coupling]>,
}

impl SymplecticFlow {
    /// Random couplings, and oscillators of frequencies 1 at 0; or, where there are samples of q to learn from, with their
    /// means and 1 / their standard deviations.
    ///
    /// Shapes: samples (sample, n).
    pub fn initialize(
        (coordinates, seed): (usize, u64),
        config: &FlowConfig,
        samples: Option<ArrayView2<f32>>,
        random: &Random,
    ) -> Self {
        let couplings = arrangement::halves(coordinates, seed, config);
        let of_couplings: Array1<f64> = couplings
            .iter()
            .enumerate()
            .flat_map(|(index, coupling)| coupling.initial_parameters(random, index))
            .collect();
        let (center, deviation) = match samples {
            Some(samples) => moments(samples),
            None => (Array1::zeros(coordinates), Array1::ones(coordinates)),
        };
        let ln_frequencies = deviation.mapv(|deviation| -deviation.ln());
        let parts = [of_couplings.view(), ln_frequencies.view(), center.view()];
        let parameters = concatenate(Axis(0), &parts).expect("vectors");
        Self { coordinates, parameters, couplings: couplings.into() }
    }

    /// A flow whose parameters are known.
    ///
    /// # Errors
    /// They are not as many as it has; then it says so.
    pub fn with_parameters(
        (coordinates, seed): (usize, u64),
        config: &FlowConfig,
        parameters: Array1<f64>,
    ) -> Result<Self, String> {
        let couplings: Arc<[Coupling]> = arrangement::halves(coordinates, seed, config).into();
        let of_couplings: usize = couplings.iter().map(|c| c.network.parameter_count()).sum();
        let (found, expected) = (parameters.len(), of_couplings + 2 * coordinates);
        if found != expected {
            return Err(format!("it has {found} parameters, not {expected}"));
        }
        Ok(Self { coordinates, parameters, couplings })
    }

    /// Which coordinates each coupling freezes: 1, and 0 where it moves them. Shapes: (coupling, n).
    pub fn frozen(&self) -> Array2<u8> {
        let mut frozen = Array2::ones((self.couplings.len(), self.coordinates));
        for (mut row, coupling) in frozen.outer_iter_mut().zip(self.couplings.iter()) {
            for &moved in &coupling.updated {
                row[moved as usize] = 0;
            }
        }
        frozen
    }

    /// All couplings in the order from Q to q.
    pub fn couplings(&self) -> &Arc<[Coupling]> {
        &self.couplings
    }

    /// How many of the parameters, the first ones, belong to the couplings.
    pub fn coupling_parameters(&self) -> usize {
        self.parameters.len() - 2 * self.coordinates
    }

    /// ω of each oscillator. Shapes: (n).
    pub fn frequencies(&self) -> Array1<f64> {
        let start = self.coupling_parameters();
        self.parameters.slice(s![start..start + self.coordinates]).mapv(f64::exp)
    }

    /// Oscillators from the slowest on.
    pub fn slowest(&self) -> Vec<usize> {
        let frequencies = self.frequencies();
        let mut order: Vec<usize> = (0..self.coordinates).collect();
        order.sort_by(|&a, &b| frequencies[a].total_cmp(&frequencies[b]));
        order
    }
}

/// Means and standard deviations of all coordinates; 1 for one that is constant.
fn moments(samples: ArrayView2<f32>) -> (Array1<f64>, Array1<f64>) {
    let count = samples.nrows() as f64;
    let sum = |of: &dyn Fn(usize, f64) -> f64| -> Array1<f64> {
        let column = |i: usize| samples.column(i).iter().map(|&x| of(i, f64::from(x))).sum::<f64>();
        (0..samples.ncols()).map(column).collect()
    };
    let means = sum(&|_, x| x) / count;
    let variances = sum(&|i, x| (x - means[i]).powi(2)) / count;
    let deviation = |variance: f64| if variance > 0.0 { variance.sqrt() } else { 1.0 };
    (means, variances.mapv(deviation))
}
