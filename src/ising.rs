//! The continuous dual of the Ising model: its couplings and the field's unnormalized density (Eq. 7).

use tch::{Device, Kind, Tensor};

/// Lowest eigenvalue of K + αI, which fixes the offset α.
pub const LOWEST_EIGENVALUE: f64 = 0.1;

/// α = 4β + 0.1: the offset for which the lowest eigenvalue of K + αI is 0.1 on a lattice of even L.
pub fn offset(beta: f64) -> f64 {
    4.0 * beta + LOWEST_EIGENVALUE
}

/// Eigenvalues of K + αI on the periodic square lattice, 2β(cos k_x + cos k_y) + α.
///
/// Shapes: L·L values, row-major in (k_x, k_y) with k = 2πn/L, n = 0…L-1.
pub fn coupling_eigenvalues(linear_size: usize, beta: f64) -> Vec<f64> {
    let cosines: Vec<f64> = (0..linear_size)
        .map(|n| (std::f64::consts::TAU * n as f64 / linear_size as f64).cos())
        .collect();
    let eigenvalue = |k_x: f64, k_y: f64| 2.0 * beta * (k_x + k_y) + offset(beta);
    cosines.iter().flat_map(|&k_x| cosines.iter().map(move |&k_y| eigenvalue(k_x, k_y))).collect()
}

/// The target density of the field at one temperature, on one device.
#[derive(Debug)]
pub struct Target {
    /// (L, L/2 + 1): weight of |x_k|² in xᵀ(K+αI)⁻¹x for the half plane that a real FFT returns.
    weights: Tensor,
}

impl Target {
    /// The density at temperature T of the L × L lattice.
    pub fn new(linear_size: usize, temperature: f64, kind: Kind, device: Device) -> Self {
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
    pub fn ln_density(&self, x: &Tensor) -> Tensor {
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
pub(crate) fn ln_cosh(x: &Tensor) -> Tensor {
    let magnitude = x.abs();
    &magnitude + (magnitude.shallow_clone() * -2.0).softplus() - std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dense K + αI of the definition: β on nearest-neighbour bonds, α on the diagonal.
    fn dense_coupling(linear_size: i64, beta: f64) -> Tensor {
        let sites = linear_size * linear_size;
        let mut matrix = vec![0.0; (sites * sites) as usize];
        for i in 0..sites {
            let (row, column) = (i / linear_size, i % linear_size);
            matrix[(i * sites + i) as usize] = offset(beta);
            for (dr, dc) in [(0, 1), (0, linear_size - 1), (1, 0), (linear_size - 1, 0)] {
                let j = (row + dr) % linear_size * linear_size + (column + dc) % linear_size;
                matrix[(i * sites + j) as usize] += beta;
            }
        }
        Tensor::from_slice(&matrix).view([sites, sites])
    }

    #[test]
    fn density_by_fft_equals_the_dense_quadratic_form() {
        for (linear_size, temperature) in [(4, 2.0), (8, 2.269185314213022), (8, 2.7)] {
            tch::manual_seed(1);
            let x = Tensor::randn([5, linear_size, linear_size], (Kind::Double, Device::Cpu)) * 2.0;
            let target = Target::new(linear_size as usize, temperature, Kind::Double, Device::Cpu);
            let flat = x.view([5, -1]);
            let inverse = dense_coupling(linear_size, 1.0 / temperature).inverse();
            let quadratic =
                (flat.matmul(&inverse) * &flat).sum_dim_intlist([1i64].as_slice(), false, None);
            let expected =
                flat.cosh().log().sum_dim_intlist([1i64].as_slice(), false, None) - quadratic * 0.5;
            let difference = (target.ln_density(&x) - expected).abs().max().double_value(&[]);
            assert!(difference < 1e-11, "L = {linear_size}: {difference}");
        }
    }

    #[test]
    fn eigenvalues_are_those_of_the_dense_matrix() {
        let mut closed_form = coupling_eigenvalues(4, 0.5);
        closed_form.sort_by(f64::total_cmp);
        let dense: Vec<f64> = dense_coupling(4, 0.5).linalg_eigvalsh("L").try_into().unwrap();
        for (a, b) in closed_form.iter().zip(&dense) {
            assert!((a - b).abs() < 1e-12);
        }
        assert!((closed_form[0] - LOWEST_EIGENVALUE).abs() < 1e-12);
    }

    #[test]
    fn density_of_a_huge_field_does_not_overflow() {
        let target = Target::new(4, 2.0, Kind::Float, Device::Cpu);
        let x = Tensor::full([1, 4, 4], 1e4, (Kind::Float, Device::Cpu));
        assert!(target.ln_density(&x).isfinite().all().int64_value(&[]) == 1);
    }
}
