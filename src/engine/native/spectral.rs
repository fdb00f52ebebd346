//! Functions of a spectrum, diagonal in the separable real Fourier basis U ⊗ U of the L × L torus.

use super::kernels::{Store, Units, UnitsMut, product};
use super::lanes::{Lanes, Real};
use crate::engine::fourier;

/// The basis.
#[derive(Debug, Clone)]
pub struct Spectral<T> {
    linear_size: usize,
    /// U, (frequency, site).
    basis: Vec<T>,
    /// Uᵀ.
    transposed: Vec<T>,
}

/// A number for each mode of the basis.
pub type Multipliers<T> = Vec<T>;

impl<T: Real> Spectral<T> {
    pub fn new(linear_size: usize) -> Self {
        let basis = fourier::basis(linear_size);
        let converted = |values: &[f64]| values.iter().map(|&value| T::of(value)).collect();
        Self {
            linear_size,
            transposed: converted(&fourier::transposed(&basis, linear_size)),
            basis: converted(&basis),
        }
    }

    /// Numbers that are given over (k_x, k_y), the same for ±k_x and ±k_y.
    pub fn multipliers(&self, numbers: &[f64]) -> Multipliers<T> {
        fourier::multipliers(self.linear_size, numbers).into_iter().map(T::of).collect()
    }

    /// `field` ← (U ⊗ U)ᵀ diag(multipliers) (U ⊗ U) `field`, for (site, lane); `scratch` is as long.
    pub fn apply(
        &self,
        multipliers: &Multipliers<T>,
        field: &mut [Lanes<T>],
        scratch: &mut [Lanes<T>],
    ) {
        self.along_both_axes(&self.transposed, field, scratch);
        for (lanes, multiplier) in field.iter_mut().zip(multipliers) {
            lanes.0.iter_mut().for_each(|value| *value = *value * *multiplier);
        }
        self.along_both_axes(&self.basis, field, scratch);
    }

    /// Multiplies columns and then rows with a matrix, given transposed.
    fn along_both_axes(&self, matrix: &[T], field: &mut [Lanes<T>], scratch: &mut [Lanes<T>]) {
        let size = self.linear_size;
        for _ in 0..2 {
            let inputs = Units { lanes: &*field, stride: size, first: 0, count: size };
            let outputs = UnitsMut { lanes: &mut *scratch, stride: size, first: 0, count: size };
            product(matrix, size, inputs, outputs, Store::Overwrite);
            for (row, lanes) in scratch.chunks_exact(size).enumerate() {
                for (column, lanes) in lanes.iter().enumerate() {
                    field[column * size + row] = *lanes;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::native::lanes::LANES;
    use crate::targets::ising::coupling_eigenvalues;

    #[test]
    fn basis_is_orthonormal_and_diagonalizes() {
        for size in [2, 4, 6, 8] {
            let beta = 0.3;
            let spectral = Spectral::<f64>::new(size);
            let power = |power: f64| -> Vec<f64> {
                let eigenvalues = coupling_eigenvalues(size, beta);
                eigenvalues.iter().map(|value| value.powf(power)).collect()
            };
            let sites = size * size;
            // K + αI = β × (sum over neighbours) + (4β + 0.1).
            let field: Vec<Lanes<f64>> =
                (0..sites).map(|site| Lanes([((site * site) as f64).sin(); LANES])).collect();
            let at = |x: usize, y: usize| field[x % size * size + y % size].0[3];
            let (mut applied, mut scratch) = (field.clone(), field.clone());
            spectral.apply(&spectral.multipliers(&power(1.0)), &mut applied, &mut scratch);
            for (site, value) in applied.iter().enumerate() {
                let (x, y) = (site / size, site % size);
                let neighbours =
                    at(x + 1, y) + at(x + size - 1, y) + at(x, y + 1) + at(x, y + size - 1);
                let expected = beta * neighbours + (4.0 * beta + 0.1) * at(x, y);
                assert!((value.0[3] - expected).abs() < 1e-12);
            }
            spectral.apply(&spectral.multipliers(&power(-0.5)), &mut applied, &mut scratch);
            spectral.apply(&spectral.multipliers(&power(-0.5)), &mut applied, &mut scratch);
            for (value, expected) in applied.iter().zip(&field) {
                assert!((value.0[3] - expected.0[3]).abs() < 1e-12);
            }
        }
    }
}
