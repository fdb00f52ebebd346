//! The flow as a renormalization group: what is kept at each level, what fine details add, the way from one
//! configuration to another in latent space, and the effective couplings of what is kept.

use ndarray::{Array2, ArrayView2};
use tch::{Kind, Tensor};

use crate::config::Symmetry;
use crate::flow::Architecture;
use crate::flow::arrangement::latent_levels;
use crate::flow::symmetry::{SymmetrizedFlow, ln_prior, mix};
use crate::stats::{block_sums, jackknife};

/// The field that is kept at one level, before finer latents come in.
#[derive(Debug)]
pub struct Kept {
    pub level: usize,
    /// (batch, L/2^level, L/2^level): y. At level 0 it is the field, before the preconditioner if there is one; at the
    /// top the coarse latents.
    pub field: Tensor,
    /// (batch): ln q_l(y), the density of these variables alone; for the mixture ln ½[q_l(y) + q_l(-y)].
    pub ln_q: Tensor,
}

/// The fields that are kept at every level for the same latents, from the top down.
///
/// Layers of level l and above move only the sites that are multiples of 2^l, by functions of these sites alone. So
/// y is a function of the latents on these sites, and ln q_l(y) = ln p of those latents minus ln|det| of those layers.
/// The top level is there before any layer (of a checkerboard's it is after the one that acts on single sites).
///
/// Shapes: z (batch, L, L).
pub fn kept(flow: &SymmetrizedFlow, architecture: &Architecture, z: &Tensor) -> Vec<Kept> {
    let mut done = 0;
    let mut field = z.shallow_clone();
    let mut log_det = Tensor::zeros([z.size()[0]], (z.kind(), z.device()));
    let level = |level| {
        let couplings = architecture.couplings_down_to(level);
        let (moved, change) = flow.map().forward_through(done..couplings, &field);
        done = couplings;
        log_det += change;
        field = moved;
        let ln_q = ln_prior(&sublattice(z, level)) - &log_det;
        let ln_q = match flow.symmetry() {
            Symmetry::Mixture => {
                let (z, log_det) = flow.map().inverse_through(0..couplings, &-&field);
                mix(&ln_q, &(ln_prior(&sublattice(&z, level)) + log_det))
            }
            Symmetry::None | Symmetry::Construction | Symmetry::Regularizer => ln_q,
        };
        Kept { level, field: sublattice(&field, level), ln_q }
    };
    (0..=architecture.depth).rev().map(level).collect()
}

/// The sites that are multiples of 2^level. Shapes: (batch, L, L) → (batch, L/2^level, L/2^level).
fn sublattice(field: &Tensor, level: usize) -> Tensor {
    let step = 1 << level;
    field.slice(1, None, None, step).slice(2, None, None, step)
}

/// z with the latents of all levels below `level` set to 0, their mean: g of it is the field without its finer details.
///
/// Shapes: z (batch, L, L) → (batch, L, L).
pub fn without_finer(architecture: &Architecture, z: &Tensor, level: usize) -> Tensor {
    let levels = latent_levels(architecture);
    let stays: Vec<f64> = levels.iter().map(|&other| f64::from(other >= level)).collect();
    let stays = Tensor::from_slice(&stays).to_kind(z.kind()).to_device(z.device());
    let size = architecture.linear_size as i64;
    z * stays.view([size, size])
}

/// Points on the great circle from one vector of latents to another, their lengths changing evenly.
///
/// Nearly all of N(0, I) lies at |z| ≈ √N. A straight line would leave this shell, halfway by a factor of √2, for
/// latents that the flow has never seen.
///
/// Shapes: from, to (L, L), fractions from 0 to 1 → (fractions, L, L).
pub fn great_circle(from: &Tensor, to: &Tensor, fractions: &[f64]) -> Tensor {
    let number = |tensor: &Tensor| tensor.double_value(&[]);
    let lengths = [from, to].map(|z| number(&z.norm()));
    let angle = (number(&(from * to).sum(Kind::Double)) / (lengths[0] * lengths[1]))
        .clamp(-1.0, 1.0)
        .acos();
    let point = |&t: &f64| {
        // Of parallel vectors the limit.
        let weight = |t: f64| if angle < 1e-6 { t } else { (t * angle).sin() / angle.sin() };
        let length = (1.0 - t) * lengths[0] + t * lengths[1];
        (from * (weight(1.0 - t) / lengths[0]) + to * (weight(t) / lengths[1])) * length
    };
    Tensor::stack(&fractions.iter().map(point).collect::<Vec<_>>(), 0)
}

/// Σ ½y², Σ y_i y_j over nearest neighbours, and Σ y⁴ of periodic fields. On 2 × 2 sites each bond counts twice, as on
/// the torus.
///
/// Shapes: field (batch, l, l) → (batch, 3).
pub fn terms(field: &Tensor) -> Tensor {
    let field = field.to_kind(Kind::Double);
    let neighbours = field.roll([1], [1]) + field.roll([1], [2]);
    let terms = [field.square() * 0.5, &field * neighbours, field.square().square()];
    let sum = |term: &Tensor| term.sum_dim_intlist([1i64, 2].as_slice(), false, None);
    Tensor::stack(&terms.each_ref().map(sum), 1)
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
    let sums = block_sums(moments.view().insert_axis(ndarray::Axis(1)), None, 0.5);
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
/// products: coefficients, and R².
fn regression(means: &[f64], count: usize) -> (Vec<f64>, f64) {
    let mut covariance = vec![0.0; count * count];
    for ((i, j), product) in products(count).zip(&means[count..]) {
        let value = product - means[i] * means[j];
        covariance[i * count + j] = value;
        covariance[j * count + i] = value;
    }
    let covariance = Tensor::from_slice(&covariance).view([count as i64, -1]);
    let terms = count as i64 - 1;
    let [matrix, right] = [0, terms].map(|start| {
        covariance.narrow(0, 0, terms).narrow(1, start, if start == 0 { terms } else { 1 })
    });
    // The terms have different magnitudes.
    let scale = matrix.diag(0).sqrt().unsqueeze(1);
    let scaled = &matrix / (&scale * scale.transpose(0, 1));
    let solution = Tensor::linalg_solve(&scaled, &(&right / &scale), true) / scale;
    let explained = (&solution * &right).sum(Kind::Double) / covariance.get(terms).get(terms);
    let coefficients = Vec::<f64>::try_from(solution.view([-1])).expect("a vector of f64");
    (coefficients, explained.double_value(&[]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.reshape([-1])).unwrap()
    }

    fn matrix(tensor: &Tensor) -> Array2<f64> {
        crate::host::to_array(tensor)
    }

    /// Energies that are such a sum: nothing is left to noise but ⟨y²⟩.
    #[test]
    fn couplings_of_a_phi_fourth_energy_are_found_exactly() {
        tch::manual_seed(1);
        for (size, coupling) in [(1, 0.0), (2, 0.2), (4, 0.2), (8, -0.1)] {
            let y = Tensor::randn([500, size, size], F64) * 1.5;
            let terms = terms(&y);
            let weights = Tensor::from_slice(&[0.7, -coupling, 0.3]);
            let energies = numbers(&(terms.matmul(&weights) + 12_345.0));
            let sites = (size * size) as usize;
            let [square, mass, found, quartic, explained] =
                effective_couplings(matrix(&terms).view(), &energies, sites);
            assert!((square.0 - 2.25).abs() < 4.0 * square.1, "{square:?}");
            let mean = numbers(&y.square().mean(Kind::Double))[0];
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
        tch::manual_seed(2);
        let pulls: Vec<Vec<f64>> = (0..100)
            .map(|_| {
                let y = Tensor::randn([400, 4, 4], F64);
                let terms = terms(&y);
                let noise = Tensor::randn([400], F64) * 3.0;
                let energies = terms.matmul(&Tensor::from_slice(&[1.0, -0.4, 0.1])) + noise;
                let found = effective_couplings(matrix(&terms).view(), &numbers(&energies), 16);
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
        let y = Tensor::from_slice(&[1.0, 2.0, 3.0, 5.0]).view([1, 2, 2]);
        let bonds = 2.0 * (2.0 + 15.0 + 3.0 + 10.0);
        let fourth = 1.0 + 16.0 + 81.0 + 625.0;
        assert_eq!(numbers(&terms(&y)), [19.5, bonds, fourth]);
        let uniform = Tensor::ones([1, 4, 4], F64) * 2.0;
        assert_eq!(numbers(&terms(&uniform)), [32.0, 128.0, 256.0]);
    }

    #[test]
    fn a_great_circle_keeps_the_length_and_ends_where_it_should() {
        tch::manual_seed(3);
        let [from, to] = [(); 2].map(|()| Tensor::randn([8, 8], F64));
        let path = great_circle(&from, &to, &[0.0, 0.25, 0.5, 1.0]);
        assert!((path.get(0) - &from).abs().max().double_value(&[]) < 1e-12);
        assert!((path.get(3) - &to).abs().max().double_value(&[]) < 1e-12);
        let length = |z: &Tensor| z.norm().double_value(&[]);
        let halfway = 0.5 * (length(&from) + length(&to));
        assert!((length(&path.get(2)) - halfway).abs() < 1e-12);
        let angle = |a: &Tensor, b: &Tensor| {
            ((a * b).sum(Kind::Double).double_value(&[]) / (length(a) * length(b))).acos()
        };
        assert!((angle(&from, &path.get(1)) - 0.25 * angle(&from, &to)).abs() < 1e-12);
        let same = great_circle(&from, &(&from * 3.0), &[0.5]);
        assert!((same - &from * 2.0).abs().max().double_value(&[]) < 1e-12);
    }
}
