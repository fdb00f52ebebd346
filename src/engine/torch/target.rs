//! The target density with torch operations, through which gradients pass.

use tch::{Device, Kind, Tensor};

use crate::targets::density::{Density, SitePotential};

/// The target density at the temperatures of a batch, on one device.
#[derive(Debug)]
pub(super) struct TensorTarget {
    /// (1 or batch, L, L/2 + 1): weight of |x_k|² in Σ_k κ_k |x_k|²/N for the half plane that a real FFT returns.
    weights: Tensor,
    site: SitePotential,
}

impl TensorTarget {
    /// Of one density for all samples, or of one for each.
    pub(super) fn new(densities: &[Density], kind: Kind, device: Device) -> Self {
        let lattice = &densities[0].lattice;
        let (size, sites) = (lattice.linear_size(), lattice.sites() as f64);
        let half = size / 2 + 1;
        let weight = |density: &Density, i: usize| {
            let (row, column) = (i / half, i % half);
            // Columns other than k_y = 0 and π stand for their mirror images too.
            let images = if column == 0 || 2 * column == size { 1.0 } else { 2.0 };
            images * density.spectrum[row * size + column] / sites
        };
        let of = |density| (0..size * half).map(move |i| weight(density, i));
        let weights: Vec<f64> = densities.iter().flat_map(of).collect();
        let weights = Tensor::from_slice(&weights).view([-1, size as i64, half as i64]);
        Self { weights: weights.to_kind(kind).to_device(device), site: densities[0].site }
    }

    /// ln π(x) = -½ Σ_k κ_k |x_k|²/N - Σ V(x_i), the quadratic form by FFT.
    ///
    /// Shapes: x (batch, L, L) → (batch).
    pub(super) fn ln_density(&self, x: &Tensor) -> Tensor {
        let modes = x.fft_rfft2(None::<&[i64]>, [-2, -1], "backward").view_as_real();
        let quadratic = (modes.square() * self.weights.unsqueeze(-1)).sum_dim_intlist(
            [1i64, 2, 3].as_slice(),
            false,
            None,
        );
        let site = match self.site {
            SitePotential::LnCosh => -ln_cosh(x),
        };
        quadratic * -0.5 - site.sum_dim_intlist([1i64, 2].as_slice(), false, None)
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
    use crate::targets::Target;

    #[test]
    fn density_is_that_of_the_host() {
        for (linear_size, temperature) in [(4, 2.0), (8, 2.269185314213022), (8, 2.7)] {
            let x = Random::new(1).normals(Use::Latents, 0..5, linear_size * linear_size) * 2.0;
            let density = Target::ising_dual(linear_size).density(temperature);
            let expected = density.ln_density(x.view());
            let size = linear_size as i64;
            let x = Tensor::from_slice(&x.into_raw_vec_and_offset().0).view([5, size, size]);
            let target = TensorTarget::new(&[density], Kind::Double, Device::Cpu);
            let found: Vec<f64> = target.ln_density(&x).try_into().unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-11, "{found} {expected}");
            }
        }
    }

    #[test]
    fn density_of_a_huge_field_does_not_overflow() {
        let density = Target::ising_dual(4).density(2.0);
        let target = TensorTarget::new(&[density], Kind::Float, Device::Cpu);
        let x = Tensor::full([1, 4, 4], 1e4, (Kind::Float, Device::Cpu));
        assert!(target.ln_density(&x).isfinite().all().int64_value(&[]) == 1);
    }
}
