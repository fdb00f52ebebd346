//! The Gaussian layer x = κ^{-1/2} y: the flow's last one, which takes the stiff modes of the target's quadratic form
//! away.

use tch::{Device, Kind, Tensor};

use crate::targets::density::Density;

/// The layer at the temperatures of a batch, diagonal in Fourier space. It knows all of the lattice, which a local
/// hierarchy does not.
#[derive(Debug)]
pub(super) struct Preconditioner {
    /// (1 or batch, L, L/2 + 1): κ^{-1/2}, for the half plane that a real FFT returns.
    scales: Tensor,
    /// (1 or batch): -½ Σ ln κ.
    log_det: Tensor,
}

impl Preconditioner {
    /// Of one density for all samples, or of one for each.
    pub(super) fn new(densities: &[Density], kind: Kind, device: Device) -> Self {
        let size = densities[0].lattice.linear_size() as i64;
        let log_det: Vec<f64> = densities.iter().map(Density::layer_log_det).collect();
        let scales: Vec<f64> =
            densities.iter().flat_map(|density| density.spectrum_to(-0.5)).collect();
        let scales = Tensor::from_slice(&scales).view([-1, size, size]).narrow(2, 0, size / 2 + 1);
        let here = |tensor: Tensor| tensor.to_kind(kind).to_device(device);
        Self { scales: here(scales), log_det: here(Tensor::from_slice(&log_det)) }
    }

    /// x = κ^{-1/2} y with ln|det ∂x/∂y|. Shapes: y (batch, L, L) → (batch, L, L), (1 or batch).
    pub(super) fn forward(&self, y: &Tensor) -> (Tensor, Tensor) {
        (filter(y, &self.scales), self.log_det.shallow_clone())
    }

    /// y = κ^{1/2} x with ln|det ∂y/∂x|. Shapes: x (batch, L, L) → (batch, L, L), (1 or batch).
    pub(super) fn inverse(&self, x: &Tensor) -> (Tensor, Tensor) {
        (filter(x, &self.scales.reciprocal()), -&self.log_det)
    }
}

/// Multiplies a field's Fourier modes by real factors. Shapes: field (batch, L, L), factors (1 or batch, L, L/2 + 1).
fn filter(field: &Tensor, factors: &Tensor) -> Tensor {
    let size = field.size()[1];
    let modes = field.fft_rfft2(None::<&[i64]>, [-2, -1], "backward");
    (modes * factors).fft_irfft2([size, size].as_slice(), [-2, -1], "backward")
}
