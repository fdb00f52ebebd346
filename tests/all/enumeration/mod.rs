//! Brute force over the 65,536 states of the 4 × 4 torus: what the physics tests are held against.
//!
//! Nothing here uses the crate under test.

use std::f64::consts::{FRAC_PI_2, TAU};

pub const LINEAR_SIZE: usize = 4;
pub const SITES: usize = 16;
const STATES: usize = 1 << SITES;

/// Exact values on the 4 × 4 torus; J = k_B = 1.
#[derive(Clone, Debug)]
pub struct Enumerated {
    pub ln_z: f64,
    pub energy_per_site: f64,
    pub specific_heat_per_site: f64,
    /// <|m|>, m = (1/N) Σ s_i.
    pub abs_magnetization: f64,
    /// <m²>.
    pub magnetization_2: f64,
    /// <m⁴>.
    pub magnetization_4: f64,
    /// S(k) = Σ_r G(r) e^{ikr}, k = 2π(n_x, n_y)/4; S(0) = N <m²>.
    pub structure_factor: [[f64; 4]; 4],
    /// G(r) = <s_0 s_r>.
    pub correlation: [[f64; 4]; 4],
}

/// Sums over all states at temperature T.
pub fn enumerate(temperature: f64) -> Enumerated {
    let beta = 1.0 / temperature;
    let ln_z = ln_z(beta);
    let [mut bonds, mut m_abs, mut m_2, mut m_4] = [0.0; 4];
    let mut correlation = [[0.0; 4]; 4];
    for state in 0..STATES {
        let probability = (beta * f64::from(bond_sum(state)) - ln_z).exp();
        let magnetization = magnetization(state);
        bonds += probability * f64::from(bond_sum(state));
        m_abs += probability * magnetization.abs();
        m_2 += probability * magnetization.powi(2);
        m_4 += probability * magnetization.powi(4);
        for (site, value) in correlation.as_flattened_mut().iter_mut().enumerate() {
            *value += probability * f64::from(spin(state, 0) * spin(state, site));
        }
    }
    // A second pass about the mean: <E²> - <E>² would cancel.
    let variance: f64 = (0..STATES)
        .map(|state| f64::from(bond_sum(state)))
        .map(|sum| (beta * sum - ln_z).exp() * (sum - bonds).powi(2))
        .sum();
    Enumerated {
        ln_z,
        energy_per_site: -bonds / SITES as f64,
        specific_heat_per_site: beta * beta * variance / SITES as f64,
        abs_magnetization: m_abs,
        magnetization_2: m_2,
        magnetization_4: m_4,
        structure_factor: structure_factor(&correlation),
        correlation,
    }
}

/// The spin ±1 of a site (row-major) in a state, one bit per site.
pub fn spin(state: usize, site: usize) -> i32 {
    if state >> site & 1 == 1 { 1 } else { -1 }
}

/// Σ_bonds s_i s_j, that is -E.
pub fn bond_sum(state: usize) -> i32 {
    (0..SITES)
        .map(|site| {
            let (row, column) = (site / LINEAR_SIZE, site % LINEAR_SIZE);
            let right = row * LINEAR_SIZE + (column + 1) % LINEAR_SIZE;
            let below = (row + 1) % LINEAR_SIZE * LINEAR_SIZE + column;
            spin(state, site) * (spin(state, right) + spin(state, below))
        })
        .sum()
}

fn magnetization(state: usize) -> f64 {
    (2.0 * f64::from(state.count_ones()) - SITES as f64) / SITES as f64
}

fn ln_z(beta: f64) -> f64 {
    // Relative to the ground states, of 32 bonds.
    let sum: f64 = (0..STATES).map(|state| (beta * f64::from(bond_sum(state) - 32)).exp()).sum();
    32.0 * beta + sum.ln()
}

fn structure_factor(correlation: &[[f64; 4]; 4]) -> [[f64; 4]; 4] {
    std::array::from_fn(|k_x| {
        std::array::from_fn(|k_y| {
            (0..SITES)
                .map(|r| {
                    let phase = FRAC_PI_2 * (k_x * (r / 4) + k_y * (r % 4)) as f64;
                    correlation[r / 4][r % 4] * phase.cos()
                })
                .sum()
        })
    })
}

/// The exact, normalized density of the field on the 4 × 4 torus: Σ_s P(s) N(x; As, A), A = K+αI.
///
/// Multiplied out, sᵀAs = sᵀKs + αN makes it e^{-½ xᵀA⁻¹x} Π cosh x_i up to a constant: this is the
/// density of Eq. 7, normalized without the formula for ln Z that it serves to check.
pub struct FieldMixture {
    /// ln P(s) - ½ sᵀAs for every state.
    ln_weights: Vec<f64>,
    /// Lower triangle of A = CCᵀ.
    cholesky: [[f64; SITES]; SITES],
    /// K+αI, α = 4β + 0.1.
    pub covariance: [[f64; SITES]; SITES],
}

impl FieldMixture {
    pub fn new(temperature: f64) -> Self {
        let beta = 1.0 / temperature;
        let ln_z = ln_z(beta);
        let covariance = coupling_matrix(beta);
        let ln_weights = (0..STATES)
            .map(|state| {
                let spins: [f64; SITES] = std::array::from_fn(|i| f64::from(spin(state, i)));
                let quadratic: f64 = dot(&spins, &multiply(&covariance, &spins));
                beta * f64::from(bond_sum(state)) - ln_z - 0.5 * quadratic
            })
            .collect();
        Self { ln_weights, cholesky: cholesky(&covariance), covariance }
    }

    /// ln Σ_s P(s) N(x; As, A) at one field, row-major.
    pub fn ln_density(&self, field: &[f64; SITES]) -> f64 {
        // Σ s_i x_i of all states: each site doubles the list, its bit being the next higher one.
        let mut exponents = vec![0.0];
        for &x in field {
            let up: Vec<f64> = exponents.iter().map(|overlap| overlap + x).collect();
            exponents.iter_mut().for_each(|overlap| *overlap -= x);
            exponents.extend(up);
        }
        exponents.iter_mut().zip(&self.ln_weights).for_each(|(sum, ln_weight)| *sum += ln_weight);
        let largest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = exponents.iter().map(|exponent| (exponent - largest).exp()).sum();
        largest + sum.ln() + ln_normal(&self.cholesky, field)
    }
}

/// ln N(x; 0, CCᵀ) for a lower triangle C.
pub fn ln_normal(cholesky: &[[f64; SITES]; SITES], x: &[f64; SITES]) -> f64 {
    let mut solved = [0.0; SITES];
    for i in 0..SITES {
        let known: f64 = (0..i).map(|j| cholesky[i][j] * solved[j]).sum();
        solved[i] = (x[i] - known) / cholesky[i][i];
    }
    let half_ln_det: f64 = (0..SITES).map(|i| cholesky[i][i].ln()).sum();
    -0.5 * dot(&solved, &solved) - half_ln_det - 0.5 * SITES as f64 * TAU.ln()
}

/// The lower triangle C of a positive matrix CCᵀ.
pub fn cholesky(matrix: &[[f64; SITES]; SITES]) -> [[f64; SITES]; SITES] {
    let mut lower = [[0.0; SITES]; SITES];
    for i in 0..SITES {
        for j in 0..=i {
            let rest = matrix[i][j] - (0..j).map(|k| lower[i][k] * lower[j][k]).sum::<f64>();
            lower[i][j] = if i == j { rest.sqrt() } else { rest / lower[j][j] };
        }
    }
    lower
}

pub fn multiply(matrix: &[[f64; SITES]; SITES], x: &[f64; SITES]) -> [f64; SITES] {
    std::array::from_fn(|i| dot(&matrix[i], x))
}

fn dot(x: &[f64; SITES], y: &[f64; SITES]) -> f64 {
    x.iter().zip(y).map(|(a, b)| a * b).sum()
}

/// K+αI, dense: β on bonds, α = 4β + 0.1 on the diagonal.
fn coupling_matrix(beta: f64) -> [[f64; SITES]; SITES] {
    std::array::from_fn(|i| {
        std::array::from_fn(|j| {
            let step = |a: usize, b: usize| (a + 4 - b) % 4;
            match (step(i / 4, j / 4), step(i % 4, j % 4)) {
                (0, 0) => 4.0 * beta + 0.1,
                (0, 1 | 3) | (1 | 3, 0) => beta,
                _ => 0.0,
            }
        })
    })
}
