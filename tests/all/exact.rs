//! The exact references against enumeration, transfer matrices, Onsager's solution and the tables.

use std::f64::consts::{FRAC_PI_2, SQRT_2};

use crate::enumeration::{FieldMixture, SITES, cholesky, enumerate, ln_normal, multiply};
use neuralrg::targets::exact::exact_ising;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;

const CRITICAL: f64 = 2.269185314213022;
const TEMPERATURES: [f64; 5] = [1.5, 2.0, CRITICAL, 2.7, 4.0];

#[track_caller]
fn assert_close(found: f64, expected: f64, relative: f64) {
    let error = (found / expected - 1.0).abs();
    assert!(error < relative, "{found} against {expected}: relative difference {error:e}");
}

#[test]
fn four_by_four_torus_equals_enumeration() {
    for temperature in TEMPERATURES {
        let (exact, enumerated) = (exact_ising(4, temperature), enumerate(temperature));
        assert_close(exact.ln_z_ising, enumerated.ln_z, 1e-10);
        assert_close(exact.energy_per_site, enumerated.energy_per_site, 1e-10);
        assert_close(exact.specific_heat_per_site, enumerated.specific_heat_per_site, 1e-10);
    }
}

#[test]
fn enumeration_equals_the_published_table() {
    let table = [
        (2.0, [17.1053671187, -1.75538029, 0.605533, 0.91894327, 0.86892168, 0.80453008]),
        (CRITICAL, [15.5219154588, -1.56562379, 0.783267, 0.84386044, 0.76135891, 0.66569121]),
        (2.7, [13.9441671531, -1.22145424, 0.754243, 0.69485117, 0.56520578, 0.43749125]),
    ];
    let rounding = [1e-10, 1e-8, 1e-6, 1e-8, 1e-8, 1e-8].map(|digit| 0.51 * digit);
    for (temperature, expected) in table {
        let e = enumerate(temperature);
        let moments = [e.abs_magnetization, e.magnetization_2, e.magnetization_4];
        let thermal = [e.ln_z, e.energy_per_site, e.specific_heat_per_site];
        for (i, found) in thermal.into_iter().chain(moments).enumerate() {
            assert!((found - expected[i]).abs() < rounding[i], "{temperature}: {found}");
        }
    }
}

#[test]
fn structure_factor_and_correlation_obey_their_sum_rules() {
    let e = enumerate(2.5);
    assert_close(e.structure_factor[0][0], 16.0 * e.magnetization_2, 1e-12);
    assert_close(e.structure_factor.as_flattened().iter().sum::<f64>(), 16.0, 1e-12);
    assert_close(e.correlation[0][0], 1.0, 1e-12);
    // Two bonds per site, all alike.
    assert_close(-2.0 * e.correlation[0][1], e.energy_per_site, 1e-12);
    assert_close(-2.0 * e.correlation[3][0], e.energy_per_site, 1e-12);
}

/// ln Z, u and c on the 6 × 6 torus from the exact number of states of every energy.
#[test]
fn six_by_six_torus_equals_its_exact_density_of_states() {
    let counts = density_of_states_6x6();
    assert_eq!(counts.iter().sum::<f64>(), 2f64.powi(36));
    assert_eq!((counts[72], counts[71], counts[68]), (2.0, 0.0, 72.0));
    for temperature in TEMPERATURES {
        let beta = 1.0 / temperature;
        let weight =
            |satisfied: usize| counts[satisfied] * (2.0 * beta * (satisfied as f64 - 72.0)).exp();
        let energy = |satisfied: usize| 72.0 - 2.0 * satisfied as f64;
        let sum: f64 = (0..=72).map(weight).sum();
        let mean = (0..=72).map(|b| weight(b) * energy(b)).sum::<f64>() / sum;
        let variance = (0..=72).map(|b| weight(b) * (energy(b) - mean).powi(2)).sum::<f64>() / sum;
        let exact = exact_ising(6, temperature);
        assert_close(exact.ln_z_ising, 72.0 * beta + sum.ln(), 1e-12);
        assert_close(exact.energy_per_site, mean / 36.0, 1e-12);
        assert_close(exact.specific_heat_per_site, beta * beta * variance / 36.0, 1e-11);
    }
}

/// Number of states by satisfied bonds, 0…72, by a transfer matrix over polynomials: the first
/// row is fixed in turn, and sites are added one at a time.
fn density_of_states_6x6() -> Vec<f64> {
    let aligned = |row: usize| (!(row ^ (row >> 1 | (row & 1) << 5)) & 63).count_ones() as usize;
    let mut total = vec![0.0; 73];
    for first in 0..64usize {
        let mut polynomials = vec![vec![0.0; 73]; 64];
        polynomials[first][aligned(first)] = 1.0;
        for site in 0..36 {
            polynomials = with_next_site(&polynomials, site % 6);
            if site % 6 == 5 && site < 35 {
                for (row, polynomial) in polynomials.iter_mut().enumerate() {
                    polynomial.rotate_right(aligned(row));
                }
            }
        }
        // The seventh row is the first again.
        for (sum, count) in total.iter_mut().zip(&polynomials[first]) {
            *sum += count;
        }
    }
    total
}

/// Replaces one spin of the current row by that below it, and counts the bond between them.
fn with_next_site(polynomials: &[Vec<f64>], column: usize) -> Vec<Vec<f64>> {
    (0..64)
        .map(|row: usize| {
            let mut sum = polynomials[row].clone();
            sum.rotate_right(1);
            let flipped = &polynomials[row ^ 1 << column];
            sum.iter().zip(flipped).map(|(same, other)| same + other).collect()
        })
        .collect()
}

#[test]
fn eight_by_eight_torus_equals_the_transfer_matrix() {
    for temperature in [1.5, CRITICAL, 2.7] {
        assert_close(
            exact_ising(8, temperature).ln_z_ising,
            transfer_matrix_ln_z_8(1.0 / temperature),
            1e-12,
        );
    }
}

/// ln Tr M⁸ = ln Tr (M⁴)² for the symmetric 256 × 256 matrix from row to row.
fn transfer_matrix_ln_z_8(beta: f64) -> f64 {
    const ROWS: usize = 256;
    let bonds = |satisfied: u32| 2.0 * f64::from(satisfied) - 8.0;
    let within = |row: usize| bonds((!(row ^ (row >> 1 | (row & 1) << 7)) & 255).count_ones());
    let matrix = ndarray::Array2::from_shape_fn((ROWS, ROWS), |(a, b)| {
        let between = bonds((!(a ^ b) & 255).count_ones());
        // Relative to all 16 bonds satisfied.
        (beta * (between + 0.5 * (within(a) + within(b)) - 16.0)).exp()
    });
    let fourth = matrix.dot(&matrix).dot(&matrix.dot(&matrix));
    128.0 * beta + (&fourth * &fourth.t()).sum().ln()
}

/// tests/data/exact_ising.csv has energy and specific heat by central differences of ln Z in β, of
/// steps 1e-4 and 1e-3: near T_c on large lattices c is off by up to 1e-3, which the same
/// differences show.
#[test]
fn reference_table_is_reproduced() {
    let table = include_str!("../data/exact_ising.csv");
    for line in table.lines().skip(1) {
        let value: Vec<f64> = line.split(',').map(|field| field.parse().unwrap()).collect();
        let (linear_size, beta) = (value[0] as usize, 1.0 / value[1]);
        let exact = exact_ising(linear_size, value[1]);
        let shifted = |step: f64| exact_ising(linear_size, 1.0 / (beta + step)).ln_z_ising;
        let sites = value[0] * value[0];
        let energy = (shifted(-1e-4) - shifted(1e-4)) / 2e-4 / sites;
        let curvature = (shifted(1e-3) - 2.0 * exact.ln_z_ising + shifted(-1e-3)) / 1e-6;
        assert!((exact.ln_z_ising - value[2]).abs() < 2e-10, "{line}");
        assert!((exact.free_energy_field - value[3]).abs() < 2e-10, "{line}");
        assert!((energy - value[4]).abs() < 2e-8, "{line}");
        assert!((beta * beta * curvature / sites - value[5]).abs() < 2e-6, "{line}");
        assert!((exact.energy_per_site - value[4]).abs() < 1e-6, "{line}");
        assert!((exact.specific_heat_per_site - value[5]).abs() < 1.5e-3, "{line}");
    }
    assert_eq!(table.lines().count(), 1 + 5 * 9);
}

#[test]
fn zero_mode_is_negative_above_the_critical_temperature() {
    let ln_z = exact_ising(16, 2.7).ln_z_ising;
    assert!((ln_z - 217.304667).abs() < 1e-6, "{ln_z}; 217.980342 comes from γ_0 ≥ 0");
}

#[test]
fn derivatives_equal_finite_differences_of_ln_z() {
    for linear_size in [4, 16, 64] {
        for temperature in [1.8, CRITICAL, 2.4, 3.5] {
            let (beta, step) = (1.0 / temperature, 1e-4);
            let ln_z =
                |steps: f64| exact_ising(linear_size, 1.0 / (beta + steps * step)).ln_z_ising;
            let sites = (linear_size * linear_size) as f64;
            let [a, b, c, d, e] = [-2.0, -1.0, 0.0, 1.0, 2.0].map(ln_z);
            let slope = (a - 8.0 * b + 8.0 * d - e) / (12.0 * step);
            let curvature = (-a + 16.0 * b - 30.0 * c + 16.0 * d - e) / (12.0 * step * step);
            let exact = exact_ising(linear_size, temperature);
            assert_close(exact.energy_per_site, -slope / sites, 1e-8);
            assert_close(exact.specific_heat_per_site, beta * beta * curvature / sites, 2e-4);
        }
    }
}

#[test]
fn large_lattice_approaches_onsager() {
    for temperature in [1.5, 2.0, 2.6, 4.0] {
        let exact = exact_ising(1024, temperature);
        let (ln_z, energy) = onsager(1.0 / temperature);
        // Two ordered phases add ln 2 to ln Z below T_c.
        let phases = if temperature < CRITICAL { 2f64.ln() } else { 0.0 };
        assert_close(exact.ln_z_ising - phases, ln_z * 1024f64.powi(2), 1e-12);
        assert_close(exact.energy_per_site, energy, 1e-11);
    }
    // At T_c: ln Z/N = ½ ln 2 + 2G/π with Catalan's G, u = -√2, up to corrections in 1/L² and 1/L.
    let critical = exact_ising(1024, CRITICAL);
    assert_close(critical.ln_z_ising / 1024f64.powi(2), 0.929695398341610, 1e-6);
    assert_close(critical.energy_per_site, -SQRT_2, 1e-3);
}

/// ln Z/N and u of the infinite lattice (Onsager, Phys. Rev. 65, 117 (1944)).
fn onsager(beta: f64) -> (f64, f64) {
    let k = 2.0 * beta;
    let modulus = 2.0 * k.sinh() / k.cosh().powi(2);
    // The trapezoidal rule converges exponentially for these periodic integrands.
    const POINTS: usize = 4000;
    let average = |f: &dyn Fn(f64) -> f64| {
        let angle = |i: usize| FRAC_PI_2 * (i as f64 + 0.5) / POINTS as f64;
        (0..POINTS).map(|i| f(angle(i))).sum::<f64>() / POINTS as f64
    };
    let root = |angle: f64| (1.0 - (modulus * angle.sin()).powi(2)).sqrt();
    let ln_z = (SQRT_2 * k.cosh()).ln() + 0.5 * average(&|angle| (1.0 + root(angle)).ln());
    let elliptic = FRAC_PI_2 * average(&|angle| 1.0 / root(angle));
    let energy = -(1.0 + (2.0 * k.tanh().powi(2) - 1.0) * elliptic / FRAC_PI_2) / k.tanh();
    (ln_z, energy)
}

#[test]
fn extreme_temperatures_and_sizes_stay_finite() {
    for linear_size in [4, 32, 1024] {
        for temperature in [0.001, 0.01, 0.1, 1.0, CRITICAL, 10.0, 1e3, 1e6] {
            let exact = exact_ising(linear_size, temperature);
            assert!(exact.ln_z_ising.is_finite() && exact.free_energy_field.is_finite());
            assert!((-2.0..=0.0).contains(&exact.energy_per_site));
            assert!(exact.specific_heat_per_site.abs() < 10.0);
        }
    }
    assert_close(exact_ising(1024, 0.01).ln_z_ising, 2.0 * 1024f64.powi(2) * 100.0, 1e-8);
}

/// E_r[p/r] = 1 and E_r[(p/r) x_i x_j] = (A + AGA)_ij for the mixture p, sampled from the Gaussian
/// r of the same covariance: A + AGA, where G is the spins' correlation.
#[test]
fn field_mixture_is_normalized_and_has_the_exact_covariance() {
    let temperature = 5.0;
    let (mixture, e) = (FieldMixture::new(temperature), enumerate(temperature));
    let a = mixture.covariance;
    let correlation: [[f64; SITES]; SITES] = std::array::from_fn(|i| {
        std::array::from_fn(|j| e.correlation[(i / 4 + 4 - j / 4) % 4][(i % 4 + 4 - j % 4) % 4])
    });
    let covariance: [[f64; SITES]; SITES] = std::array::from_fn(|i| {
        let aga = multiply(&a, &multiply(&correlation, &a[i]));
        std::array::from_fn(|j| a[i][j] + aga[j])
    });
    let lower = cholesky(&covariance);
    let mut rng = StdRng::seed_from_u64(5);
    let samples: Vec<[f64; 3]> = (0..1000)
        .map(|_| {
            let noise = std::array::from_fn(|_| rng.sample(StandardNormal));
            let x = multiply(&lower, &noise);
            let weight = (mixture.ln_density(&x) - ln_normal(&lower, &x)).exp();
            [weight, weight * x[0] * x[0], weight * x[3] * x[0]]
        })
        .collect();
    for (i, expected) in [1.0, covariance[0][0], covariance[3][0]].into_iter().enumerate() {
        let values: Vec<f64> = samples.iter().map(|sample| sample[i]).collect();
        let (mean, error) = neuralrg::statistics::mean_and_standard_error(&values);
        assert!(error < 0.15 * expected, "{expected}: {mean} ± {error}");
        assert!((mean - expected).abs() < 4.0 * error, "{expected}: {mean} ± {error}");
    }
}
