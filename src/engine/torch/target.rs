//! The target density (Eq. 7) with torch operations, through which gradients pass.

use tch::{Device, Kind, Tensor};

use crate::targets::ising::coupling_eigenvalues;

/// The target density of the field at one temperature, on one device.
#[derive(Debug)]
pub(super) struct TensorTarget {
    /// (L, L/2 + 1): weight of |x_k|² in xᵀ(K+αI)⁻¹x for the half plane that a real FFT returns.
    weights: Tensor,
}

impl TensorTarget {
    /// The density at temperature T of the L × L lattice.
    pub(super) fn new(linear_size: usize, temperature: f64, kind: Kind, device: Device) -> Self {
        let half = linear_size / 2 + 1;
        let sites = (linear_size * linear_size) as f64;
        let eigenvalues = coupling_eigenvalues(linear_size, 1.0 / temperature);
        let weights: Vec<f64> = (0..linear_size * half)
            .map(|i| {
                let (row, column) = (i / half, i % half);
                // Columns other than k_y = 0 and π stand for their mirror images too.
                let images = if column == 0 || 2 * column == linear_size { 1.0 } else { 2.0 };
                images / (sites * eigenvalues[row * linear_size + column])
            })
            .collect();
        let shape = [linear_size as i64, half as i64];
        Self { weights: Tensor::from_slice(&weights).view(shape).to_kind(kind).to_device(device) }
    }

    /// ln π(x) = -½ xᵀ(K+αI)⁻¹x + Σ ln cosh x_i (Eq. 7), the quadratic form by FFT.
    ///
    /// Shapes: x (batch, L, L) → (batch).
    pub(super) fn ln_density(&self, x: &Tensor) -> Tensor {
        let modes = x.fft_rfft2(None::<&[i64]>, [-2, -1], "backward").view_as_real();
        let quadratic = (modes.square() * self.weights.unsqueeze(-1)).sum_dim_intlist(
            [1i64, 2, 3].as_slice(),
            false,
            None,
        );
        let ln_cosh = ln_cosh(x).sum_dim_intlist([1i64, 2].as_slice(), false, None);
        ln_cosh - quadratic * 0.5
    }
}

/// ln cosh x = |x| + ln(1 + e^{-2|x|}) - ln 2, without overflow.
fn ln_cosh(x: &Tensor) -> Tensor {
    let magnitude = x.abs();
    &magnitude + (magnitude.shallow_clone() * -2.0).softplus() - std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Random, Use};
    use crate::targets::ising::Target;

    #[test]
    fn density_is_that_of_the_host() {
        for (linear_size, temperature) in [(4, 2.0), (8, 2.269185314213022), (8, 2.7)] {
            let x = Random::new(1).normals(Use::Latents, 0..5, linear_size * linear_size) * 2.0;
            let expected = Target::new(linear_size, temperature).ln_density(x.view());
            let size = linear_size as i64;
            let x = Tensor::from_slice(&x.into_raw_vec_and_offset().0).view([5, size, size]);
            let target = TensorTarget::new(linear_size, temperature, Kind::Double, Device::Cpu);
            let found: Vec<f64> = target.ln_density(&x).try_into().unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-11, "{found} {expected}");
            }
        }
    }

    #[test]
    fn density_of_a_huge_field_does_not_overflow() {
        let target = TensorTarget::new(4, 2.0, Kind::Float, Device::Cpu);
        let x = Tensor::full([1, 4, 4], 1e4, (Kind::Float, Device::Cpu));
        assert!(target.ln_density(&x).isfinite().all().int64_value(&[]) == 1);
    }
}
