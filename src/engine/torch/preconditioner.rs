//! The Gaussian preconditioner x = (K + αI)^{1/2} y: the flow's last layer, which takes the stiff modes of
//! the target's quadratic form away.

use tch::{Device, Kind, Tensor};

use crate::targets::ising::coupling_eigenvalues;

/// The layer at one temperature, diagonal in Fourier space. It knows all of the lattice, which a local
/// hierarchy does not.
#[derive(Debug)]
pub(super) struct Preconditioner {
    /// (L, L/2 + 1): square roots of the eigenvalues, for the half plane that a real FFT returns.
    scales: Tensor,
    /// ½ ln det(K + αI).
    log_det: f64,
}

impl Preconditioner {
    /// The layer of the L × L lattice at temperature T.
    pub(super) fn new(linear_size: usize, temperature: f64, kind: Kind, device: Device) -> Self {
        let eigenvalues = coupling_eigenvalues(linear_size, 1.0 / temperature);
        let log_det = 0.5 * eigenvalues.iter().map(|value| value.ln()).sum::<f64>();
        let scales: Vec<f64> = eigenvalues.iter().map(|value| value.sqrt()).collect();
        let size = linear_size as i64;
        let scales = Tensor::from_slice(&scales).view([size, size]).narrow(1, 0, size / 2 + 1);
        Self { scales: scales.to_kind(kind).to_device(device), log_det }
    }

    /// x = (K + αI)^{1/2} y with ln|det ∂x/∂y|. Shapes: y (batch, L, L).
    pub(super) fn forward(&self, y: &Tensor) -> (Tensor, f64) {
        (filter(y, &self.scales), self.log_det)
    }

    /// y = (K + αI)^{-1/2} x with ln|det ∂y/∂x|. Shapes: x (batch, L, L).
    pub(super) fn inverse(&self, x: &Tensor) -> (Tensor, f64) {
        (filter(x, &self.scales.reciprocal()), -self.log_det)
    }
}

/// Multiplies a field's Fourier modes by real factors. Shapes: field (batch, L, L), factors (L, L/2 + 1).
fn filter(field: &Tensor, factors: &Tensor) -> Tensor {
    let size = field.size()[1];
    let modes = field.fft_rfft2(None::<&[i64]>, [-2, -1], "backward");
    (modes * factors).fft_irfft2([size, size].as_slice(), [-2, -1], "backward")
}
