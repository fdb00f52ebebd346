//! The flow as a renormalization group: what is kept at each level, what fine details add, the way from one
//! configuration to another in latent space, and the effective couplings of what is kept.

use nalgebra::{DMatrix, DVector};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip, aview1};

use crate::engine::{Image, Model};
use crate::flow::config::Symmetry;
use crate::flow::symmetry::{ln_mean_exp, ln_prior};
use crate::statistics::{block_sums, jackknife};

/// The field that is kept at one level, before finer latents come in.
#[derive(Debug)]
pub struct Kept {
    pub level: usize,
    /// (batch, N/4^level): y, on L/2^level × L/2^level sites. At level 0 it is the field, before the preconditioner if
    /// there is one; at the top the coarse latents.
    pub field: Array2<f64>,
    /// (batch): ln q_l(y), the density of these variables alone; for the mixture ln ½[q_l(y) + q_l(-y)].
    pub ln_q: Array1<f64>,
}

/// The fields that are kept at every level for the same latents, from the top down.
///
/// Layers of level l and above move only the sites that are multiples of 2^l, by functions of these sites alone. So
/// y is a function of the latents on these sites, and ln q_l(y) = ln p of those latents minus ln|det| of those layers.
/// The top level is there before any layer (of a checkerboard's it is after the one that acts on single sites).
///
/// Shapes: z (batch, N).
pub fn kept(model: &Model, z: ArrayView2<f64>) -> Vec<Kept> {
    let architecture = &model.flow.architecture;
    let mut done = 0;
    let mut field = z.to_owned();
    let mut log_det = Array1::<f64>::zeros(z.nrows());
    let level = |level| {
        let couplings = architecture.couplings_down_to(level);
        let moved = model.forward_through(done..couplings, field.view());
        done = couplings;
        log_det += &moved.log_det;
        field = moved.field;
        let ln_q = ln_prior(sublattice(z, level).view()) - &log_det;
        let ln_q = match model.symmetry() {
            Symmetry::Mixture => {
                let Image { field: z, log_det } =
                    model.inverse_through(0..couplings, (-&field).view());
                let mirrored = ln_prior(sublattice(z.view(), level).view()) + log_det;
                Zip::from(&ln_q).and(&mirrored).map_collect(|&a, &b| ln_mean_exp(a, b))
            }
            Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => ln_q,
        };
        Kept { level, field: sublattice(field.view(), level), ln_q }
    };
    (0..=architecture.depth).rev().map(level).collect()
}

/// The sites that are multiples of 2^level. Shapes: (batch, N) → (batch, N/4^level).
fn sublattice(field: ArrayView2<f64>, level: usize) -> Array2<f64> {
    let size = field.ncols().isqrt();
    let side = size >> level;
    Array2::from_shape_fn((field.nrows(), side * side), |(sample, site)| {
        field[[sample, ((site / side * size) << level) + ((site % side) << level)]]
    })
}

/// Points on the great circle from one vector of latents to another, their lengths changing evenly.
///
/// Nearly all of N(0, I) lies at |z| ≈ √N. A straight line would leave this shell, halfway by a factor of √2, for
/// latents that the flow has never seen.
///
/// Shapes: from, to (N), fractions from 0 to 1 → (fractions, N).
pub fn great_circle(from: ArrayView1<f64>, to: ArrayView1<f64>, fractions: &[f64]) -> Array2<f64> {
    let lengths = [from.dot(&from).sqrt(), to.dot(&to).sqrt()];
    let angle = (from.dot(&to) / (lengths[0] * lengths[1])).clamp(-1.0, 1.0).acos();
    let mut points = Array2::<f64>::zeros((fractions.len(), from.len()));
    for (mut point, &t) in points.rows_mut().into_iter().zip(fractions) {
        // Of parallel vectors the limit.
        let weight = |t: f64| if angle < 1e-6 { t } else { (t * angle).sin() / angle.sin() };
        let length = (1.0 - t) * lengths[0] + t * lengths[1];
        point.scaled_add(length * weight(1.0 - t) / lengths[0], &from);
        point.scaled_add(length * weight(t) / lengths[1], &to);
    }
    points
}

/// Σ ½y², Σ y_i y_j over nearest neighbours, and Σ y⁴ of periodic fields. On 2 × 2 sites each bond counts twice, as on
/// the torus.
///
/// Shapes: field (batch, n), n = l² → (batch, 3).
pub fn terms(field: ArrayView2<f64>) -> Array2<f64> {
    let mut terms = Array2::<f64>::zeros((field.nrows(), 3));
    for (mut row, y) in terms.rows_mut().into_iter().zip(field.rows()) {
        row.assign(&aview1(&terms_of_one(y)));
    }
    terms
}

fn terms_of_one(y: ArrayView1<f64>) -> [f64; 3] {
    let size = y.len().isqrt();
    let behind = |place: usize| if place == 0 { size - 1 } else { place - 1 };
    let mut terms = [0.0; 3];
    for (site, &value) in y.iter().enumerate() {
        let (row, column) = (site / size, site % size);
        let neighbours = y[behind(row) * size + column] + y[row * size + behind(column)];
        terms[0] += 0.5 * value * value;
        terms[1] += value * neighbours;
        terms[2] += value.powi(4);
    }
    terms
}

/// Number of [`effective_couplings`].
pub const COUPLINGS: usize = 5;

/// Effective couplings of variables y with energies E = -ln q_l(y): least squares of E = c + r Σ ½y² - J Σ y_i y_j +
/// u Σ y⁴ over the samples. Returned with jackknife errors, for the field scaled to ⟨y²⟩ = 1 so that levels can be
/// compared: ⟨y²⟩, r⟨y²⟩, J⟨y²⟩, u⟨y²⟩², and R², the share of the variance of E that these terms explain.
///
/// J is NaN where there is one site only, which is no neighbour.
///
/// Shapes: terms (sample, 3) as [`terms`] gives them, energies (sample).
pub fn effective_couplings(
    terms: ArrayView2<f64>,
    energies: &[f64],
    sites: usize,
) -> [(f64, f64); COUPLINGS] {
    // Relative to one energy, which takes the large constant away from products of means.
    let energies = energies.iter().map(|energy| energy - energies[0]);
    let used: &[usize] = if sites == 1 { &[0, 2] } else { &[0, 1, 2] };
    let mut columns: Vec<Vec<f64>> = used.iter().map(|&term| terms.column(term).to_vec()).collect();
    columns.push(energies.collect());
    let count = columns.len();
    let products = products(count)
        .map(|(i, j)| columns[i].iter().zip(&columns[j]).map(|(a, b)| a * b).collect::<Vec<f64>>());
    let products: Vec<Vec<f64>> = products.collect();
    let moments: Vec<f64> = columns.into_iter().chain(products).flatten().collect();
    let shape = (moments.len() / terms.nrows(), terms.nrows());
    let moments = Array2::from_shape_vec(shape, moments).expect("columns of one length");
    let sums = block_sums(moments.view().insert_axis(Axis(1)), None, 0.5);
    jackknife(sums.view(), |means| {
        let (coefficients, explained) = regression(means, count);
        let square = 2.0 * means[0] / sites as f64;
        let (mass, quartic) = (coefficients[0], coefficients[count - 2]);
        let coupling = if sites == 1 { f64::NAN } else { -coefficients[1] };
        [square, mass * square, coupling * square, quartic * square * square, explained]
    })
}

/// Pairs (i, j) with i ≤ j.
fn products(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |i| (i..count).map(move |j| (i, j)))
}

/// Least squares of the last of `count` variables by the others and a constant, from the means of all and of their
/// products: coefficients, and R². NaN where some of the others follow from the rest.
fn regression(means: &[f64], count: usize) -> (Vec<f64>, f64) {
    let mut covariance = DMatrix::<f64>::zeros(count, count);
    for ((i, j), product) in products(count).zip(&means[count..]) {
        let value = product - means[i] * means[j];
        covariance[(i, j)] = value;
        covariance[(j, i)] = value;
    }
    let terms = count - 1;
    // The terms have different magnitudes.
    let scale: Vec<f64> = (0..terms).map(|i| covariance[(i, i)].sqrt()).collect();
    let matrix = DMatrix::from_fn(terms, terms, |i, j| covariance[(i, j)] / (scale[i] * scale[j]));
    let right = DVector::from_fn(terms, |i, _| covariance[(i, terms)] / scale[i]);
    let solution = matrix.lu().solve(&right);
    let solution = solution.unwrap_or_else(|| DVector::from_element(terms, f64::NAN));
    let explained = solution.dot(&right) / covariance[(terms, terms)];
    (solution.iter().zip(&scale).map(|(value, scale)| value / scale).collect(), explained)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Random, Use};

    fn fields(seed: u64, samples: usize, size: usize) -> Array2<f64> {
        Random::new(seed).normals(Use::Latents, 0..samples, size * size)
    }

    /// Energies that are such a sum: nothing is left to noise but ⟨y²⟩.
    #[test]
    fn couplings_of_a_phi_fourth_energy_are_found_exactly() {
        for (size, coupling) in [(1, 0.0), (2, 0.2), (4, 0.2), (8, -0.1)] {
            let y = fields(size as u64, 500, size) * 1.5;
            let terms = terms(y.view());
            let energies = terms.dot(&aview1(&[0.7, -coupling, 0.3])) + 12_345.0;
            let [square, mass, found, quartic, explained] =
                effective_couplings(terms.view(), &energies.to_vec(), size * size);
            assert!((square.0 - 2.25).abs() < 4.0 * square.1, "{square:?}");
            let mean = y.pow2().mean().unwrap();
            assert!((mass.0 / mean - 0.7).abs() < 1e-3, "{mass:?}");
            assert!((mass.0 / square.0 - 0.7).abs() < 1e-9);
            assert!((quartic.0 / (mean * mean) - 0.3).abs() < 2e-3, "{quartic:?}");
            assert!((explained.0 - 1.0).abs() < 1e-9 && explained.1 < 1e-9);
            if size == 1 {
                assert!(found.0.is_nan());
            } else {
                assert!((found.0 / square.0 - coupling).abs() < 1e-9, "{found:?}");
            }
        }
    }

    #[test]
    fn couplings_of_a_noisy_energy_have_calibrated_errors() {
        let pulls: Vec<Vec<f64>> = (0..100)
            .map(|seed| {
                let terms = terms(fields(seed, 400, 4).view());
                let noise = Random::new(seed).normals(Use::Momenta, 0..1, 400) * 3.0;
                let energies = terms.dot(&aview1(&[1.0, -0.4, 0.1])) + noise.row(0);
                let found = effective_couplings(terms.view(), &energies.to_vec(), 16);
                let expected = [1.0, 1.0, 0.4, 0.1];
                found.iter().zip(expected).map(|((value, error), x)| (value - x) / error).collect()
            })
            .collect();
        for index in 0..4 {
            let squares = pulls.iter().map(|pulls| pulls[index].powi(2));
            let spread = (squares.sum::<f64>() / 100.0).sqrt();
            println!("{index}: {spread:.3}");
            assert!((0.75..1.3).contains(&spread), "{index}: {spread}");
        }
    }

    /// Two by two, each site has two bonds to each of two neighbours; by hand.
    #[test]
    fn terms_count_each_bond_of_the_torus() {
        let y = aview1(&[1.0, 2.0, 3.0, 5.0]).insert_axis(Axis(0));
        let bonds = 2.0 * (2.0 + 15.0 + 3.0 + 10.0);
        let fourth = 1.0 + 16.0 + 81.0 + 625.0;
        assert_eq!(terms(y).row(0).to_vec(), [19.5, bonds, fourth]);
        let uniform = Array2::from_elem((1, 16), 2.0);
        assert_eq!(terms(uniform.view()).row(0).to_vec(), [32.0, 128.0, 256.0]);
    }

    #[test]
    fn a_great_circle_keeps_the_length_and_ends_where_it_should() {
        let ends = fields(3, 2, 8);
        let (from, to) = (ends.row(0), ends.row(1));
        let path = great_circle(from, to, &[0.0, 0.25, 0.5, 1.0]);
        let close = |a: ArrayView1<f64>, b: ArrayView1<f64>| {
            a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12)
        };
        assert!(close(path.row(0), from) && close(path.row(3), to));
        let length = |z: ArrayView1<f64>| z.dot(&z).sqrt();
        let halfway = 0.5 * (length(from) + length(to));
        assert!((length(path.row(2)) - halfway).abs() < 1e-12);
        let angle =
            |a: ArrayView1<f64>, b: ArrayView1<f64>| (a.dot(&b) / (length(a) * length(b))).acos();
        assert!((angle(from, path.row(1)) - 0.25 * angle(from, to)).abs() < 1e-12);
        let same = great_circle(from, (&from * 3.0).view(), &[0.5]);
        assert!(close(same.row(0), (&from * 2.0).view()));
    }
}
