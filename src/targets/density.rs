//! Densities given by a spectrum and a potential of each site: ln π(x) = -½ Σ_k κ_k |x_k|²/N - Σ_i V(x_i).

use ndarray::{Array1, ArrayView2, Axis};

use crate::lattice::Lattice;

/// V(x), a function of the field at one site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SitePotential {
    /// -ln cosh x.
    LnCosh,
}

impl SitePotential {
    /// (V(x), V'(x)).
    pub fn value_and_slope(self, x: f64) -> (f64, f64) {
        match self {
            Self::LnCosh => {
                let (value, slope) = ln_cosh_and_slope(x);
                (-value, -slope)
            }
        }
    }
}

/// An unnormalized density of the field at one temperature. Data, which every engine evaluates in its own way.
#[derive(Debug, Clone)]
pub struct Density {
    pub lattice: Lattice,
    /// (N): κ_k > 0, row-major in (k_x, k_y), the same for ±k_x and ±k_y.
    pub spectrum: Vec<f64>,
    pub site: SitePotential,
}

impl Density {
    /// ln π(x), the quadratic form by FFT.
    ///
    /// Shapes: x (batch, N) → (batch).
    pub fn ln_density(&self, x: ArrayView2<f64>) -> Array1<f64> {
        let weight = -0.5 / self.lattice.sites() as f64;
        let weights: Array1<f64> = self.spectrum.iter().map(|kappa| weight * kappa).collect();
        let quadratic = self.lattice.power_spectrum(x).dot(&weights);
        let site = |&x: &f64| self.site.value_and_slope(x).0;
        quadratic - x.map_axis(Axis(1), |x| x.iter().map(site).sum::<f64>())
    }

    /// ln|det ∂x/∂y| = -½ Σ ln κ of the Gaussian layer x = κ^{-1/2} y.
    pub fn layer_log_det(&self) -> f64 {
        -0.5 * self.spectrum.iter().map(|kappa| kappa.ln()).sum::<f64>()
    }

    /// κ^power of every mode.
    pub fn spectrum_to(&self, power: f64) -> Vec<f64> {
        self.spectrum.iter().map(|kappa| kappa.powf(power)).collect()
    }
}

/// (ln cosh x, tanh x) from one exponential.
fn ln_cosh_and_slope(x: f64) -> (f64, f64) {
    let decay = (-2.0 * x.abs()).exp();
    let slope = ((1.0 - decay) / (1.0 + decay)).copysign(x);
    (x.abs() + decay.ln_1p() - std::f64::consts::LN_2, slope)
}

/// ln cosh x = |x| + ln(1 + e^{-2|x|}) - ln 2, without overflow.
pub fn ln_cosh(x: f64) -> f64 {
    ln_cosh_and_slope(x).0
}
