//! The continuous dual of the Ising model: its couplings and the field's unnormalized density (Eq. 7).

use super::density::{Density, SitePotential};
use crate::lattice::Lattice;

/// Lowest eigenvalue of K + αI, which fixes the offset α.
pub const LOWEST_EIGENVALUE: f64 = 0.1;

/// T_c = 2/ln(1 + √2) of the infinite lattice (Onsager 1944).
pub const CRITICAL_TEMPERATURE: f64 = 2.269185314213022;

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

/// ln π(x) = -½ xᵀ(K+αI)⁻¹x + Σ ln cosh x_i (Eq. 7) at temperature T.
pub fn dual_density(lattice: Lattice, temperature: f64) -> Density {
    let eigenvalues = coupling_eigenvalues(lattice.linear_size(), 1.0 / temperature);
    let spectrum = eigenvalues.iter().map(|eigenvalue| eigenvalue.recip()).collect();
    Density { lattice, spectrum, site: SitePotential::LnCosh }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Random, Use};
    use nalgebra::{DMatrix, DVector};
    use ndarray::Array2;

    /// The dense K + αI of the definition: β on nearest-neighbour bonds, α on the diagonal.
    fn dense_coupling(linear_size: usize, beta: f64) -> DMatrix<f64> {
        let sites = linear_size * linear_size;
        let mut matrix = DMatrix::from_diagonal_element(sites, sites, offset(beta));
        for i in 0..sites {
            let (row, column) = (i / linear_size, i % linear_size);
            for (dr, dc) in [(0, 1), (0, linear_size - 1), (1, 0), (linear_size - 1, 0)] {
                let j = (row + dr) % linear_size * linear_size + (column + dc) % linear_size;
                matrix[(i, j)] += beta;
            }
        }
        matrix
    }

    #[test]
    fn density_by_fft_equals_the_dense_quadratic_form() {
        for (linear_size, temperature) in [(4, 2.0), (8, 2.269185314213022), (8, 2.7)] {
            let sites = linear_size * linear_size;
            let x = Random::new(1).normals(Use::Latents, 0..5, sites) * 2.0;
            let found = dual_density(Lattice::new(linear_size), temperature).ln_density(x.view());
            let inverse = dense_coupling(linear_size, 1.0 / temperature).try_inverse().unwrap();
            for (x, found) in x.rows().into_iter().zip(found) {
                let vector = DVector::from_iterator(sites, x.iter().copied());
                let ln_cosh: f64 = x.iter().map(|x| x.cosh().ln()).sum();
                let difference = found - (ln_cosh - 0.5 * vector.dot(&(&inverse * &vector)));
                assert!(difference.abs() < 1e-11, "L = {linear_size}: {difference}");
            }
        }
    }

    #[test]
    fn eigenvalues_are_those_of_the_dense_matrix() {
        let mut closed_form = coupling_eigenvalues(4, 0.5);
        closed_form.sort_by(f64::total_cmp);
        let mut dense = dense_coupling(4, 0.5).symmetric_eigenvalues().as_slice().to_vec();
        dense.sort_by(f64::total_cmp);
        assert_eq!(closed_form.len(), dense.len());
        for (a, b) in closed_form.iter().zip(&dense) {
            assert!((a - b).abs() < 1e-12);
        }
        assert!((closed_form[0] - LOWEST_EIGENVALUE).abs() < 1e-12);
    }

    #[test]
    fn density_of_a_huge_field_does_not_overflow() {
        let x = Array2::from_elem((1, 16), 1e4);
        assert!(dual_density(Lattice::new(4), 2.0).ln_density(x.view())[0].is_finite());
    }
}
