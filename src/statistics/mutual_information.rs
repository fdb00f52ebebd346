//! Mutual information of pairs of variables from samples (Fig. 4(b, c)): the estimator of Kraskov, Stögbauer and Grassberger,
//! Phys. Rev. E 69, 066138 (2004), cond-mat/0305641 (equations cited as there), with error bars from parts of the
//! samples (Holmes and Nemenman, Phys. Rev. E 100, 022404 (2019)).

use std::num::NonZero;
use std::ops::Range;

use kiddo::Chebyshev;
use kiddo::immutable::float::kdtree::ImmutableKdTree;
use ndarray::{Array1, Array2, ArrayView1, ArrayView3, Axis, s};
use rayon::prelude::*;
use statrs::function::gamma::digamma;

use crate::statistics::mean_and_standard_error;

/// Most parts that the samples are cut into for the error bars.
const PARTS: usize = 10;

/// Samples in a leaf of the k-d tree.
const LEAF: usize = 8;

/// Samples of one variable, also in ascending order.
#[derive(Debug)]
pub struct Variable {
    values: Vec<f64>,
    sorted: Vec<f64>,
    /// At which place of `sorted` each sample stands.
    rank: Vec<u32>,
}

impl Variable {
    /// Sorts the samples.
    pub fn new(values: Vec<f64>) -> Self {
        let mut order: Vec<u32> = (0..values.len() as u32).collect();
        order.sort_by(|&a, &b| values[a as usize].total_cmp(&values[b as usize]));
        let mut rank = vec![0; values.len()];
        for (place, &sample) in order.iter().enumerate() {
            rank[sample as usize] = place as u32;
        }
        let sorted = order.iter().map(|&sample| values[sample as usize]).collect();
        Self { values, sorted, rank }
    }

    /// How many other samples lie closer than `radius` to this one.
    fn closer(&self, sample: usize, radius: f64) -> usize {
        let place = self.rank[sample] as usize;
        let (below, above) = (&self.sorted[..place], &self.sorted[place + 1..]);
        let value = self.sorted[place];
        leading(above.len(), |steps| above[steps] - value < radius)
            + leading(below.len(), |steps| value - below[below.len() - 1 - steps] < radius)
    }
}

/// How many of the first numbers below `limit` a condition holds for that fails for all numbers after the first
/// failure: by doubling, then halving steps, since there are few.
fn leading(limit: usize, holds: impl Fn(usize) -> bool) -> usize {
    let mut failing = 1;
    while failing <= limit && holds(failing - 1) {
        failing *= 2;
    }
    let (mut low, mut high) = (failing / 2, limit.min(failing - 1));
    while low < high {
        let middle = usize::midpoint(low, high);
        if holds(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// Estimate of I(X; Y) in nats from the distances to the k-th nearest neighbours in the maximum norm: ψ(k) + ψ(n) -
/// ⟨ψ(n_x + 1) + ψ(n_y + 1)⟩, n_x being how many other samples are closer in x than that neighbour (algorithm 1,
/// Eq. 8). On average it is 0 for independent variables, and negative as often as positive.
///
/// Panics unless there are as many samples of both variables, and more than `neighbours`.
pub fn mutual_information(x: &Variable, y: &Variable, neighbours: usize) -> f64 {
    let count = x.values.len();
    assert!(y.values.len() == count && count > neighbours && neighbours > 0);
    let digammas: Vec<f64> = (1..=count).map(|n| digamma(n as f64)).collect();
    let points: Vec<[f64; 2]> = x.values.iter().zip(&y.values).map(|(&x, &y)| [x, y]).collect();
    let tree = ImmutableKdTree::<f64, u32, 2, LEAF>::new_from_slice(&points);
    // Each sample is its own nearest.
    let nearest = NonZero::new(neighbours + 1).expect("positive");
    let marginal = points.iter().enumerate().map(|(sample, point)| {
        let radius = tree.nearest_n::<Chebyshev>(point, nearest)[neighbours].distance;
        digammas[x.closer(sample, radius)] + digammas[y.closer(sample, radius)]
    });
    let marginal = marginal.sum::<f64>() / count as f64;
    digammas[neighbours - 1] + digammas[count - 1] - marginal
}

/// Mutual information of all pairs of variables.
#[derive(Debug)]
pub struct Pairs {
    variables: usize,
    /// (pair, 1 + part): estimates from all samples and from each part of them; pairs (i, j) with i < j, row by row.
    estimates: Array2<f64>,
}

impl Pairs {
    /// Estimates of all pairs on all threads of rayon. Parts are groups of whole chains, ten of them if there are as
    /// many chains, so that the errors know of correlations along the chains. Draws at which a chain did not move are left
    /// out.
    ///
    /// Shapes: samples (chain, draw, variable); two chains or more, and more draws in each than `neighbours`.
    pub fn estimate(samples: ArrayView3<f64>, neighbours: usize) -> Self {
        let (chains, _, variables) = samples.dim();
        let ranges = parts(chains);
        let parts = ranges.len();
        let sorted: Vec<Vec<Variable>> = std::iter::once(0..chains)
            .chain(ranges)
            .map(|range| variables_of_moved(samples.slice(s![range, .., ..])))
            .collect();
        let pairs: Vec<(usize, usize)> = pairs(variables).collect();
        let of_pair = |&(i, j): &(usize, usize)| {
            let estimate = |set: &Vec<Variable>| mutual_information(&set[i], &set[j], neighbours);
            sorted.iter().map(estimate).collect::<Vec<f64>>()
        };
        let estimates: Vec<f64> = pairs.par_iter().flat_map_iter(of_pair).collect();
        let estimates = Array2::from_shape_vec((pairs.len(), 1 + parts), estimates);
        Self { variables, estimates: estimates.expect("as many estimates for each pair") }
    }

    /// I of each pair in nats, and its standard error: that of the mean over the parts, whose variance is as many times
    /// larger as they have fewer samples. NaN on the diagonal. Shapes: (variable, variable).
    pub fn matrices(&self) -> [Array2<f64>; 2] {
        let mut matrices = [(); 2].map(|()| Array2::from_elem([self.variables; 2], f64::NAN));
        for ((i, j), row) in pairs(self.variables).zip(self.estimates.rows()) {
            let row = row.as_slice().expect("rows are contiguous");
            let (_, error) = mean_and_standard_error(&row[1..]);
            for (matrix, value) in matrices.iter_mut().zip([row[0], error]) {
                matrix[[i, j]] = value;
                matrix[[j, i]] = value;
            }
        }
        matrices
    }

    /// Mean of I over all pairs of each class, with its standard error, which knows that pairs share samples. NaN for
    /// a class without pairs.
    pub fn class_means(
        &self,
        classes: usize,
        class: impl Fn(usize, usize) -> usize,
    ) -> Vec<(f64, f64)> {
        let mut sums = Array2::<f64>::zeros((classes, self.estimates.ncols()));
        let mut counts = Array1::<f64>::zeros(classes);
        for ((i, j), row) in pairs(self.variables).zip(self.estimates.rows()) {
            let class = class(i, j);
            sums.row_mut(class).scaled_add(1.0, &row);
            counts[class] += 1.0;
        }
        let means = sums.outer_iter().zip(&counts).map(|(sums, &count)| {
            let means: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
            (means[0], mean_and_standard_error(&means[1..]).1)
        });
        means.collect()
    }
}

/// What the estimator gives for variables that are independent: each one, and the next one in the chain after. Chains
/// know nothing of each other, so the spread of these is the noise of single estimates, correlations along the chains
/// included.
///
/// Shapes: samples (chain, draw, variable) → (variable).
pub fn of_independent(samples: ArrayView3<f64>, neighbours: usize) -> Vec<f64> {
    let (chains, _, variables) = samples.dim();
    let shifted: Vec<usize> = (0..chains).map(|chain| (chain + 1) % chains).collect();
    let others = variables_of(samples.select(Axis(0), &shifted).view());
    let these = variables_of(samples);
    let estimate =
        |i: usize| mutual_information(&these[i], &others[(i + 1) % variables], neighbours);
    (0..variables).into_par_iter().map(estimate).collect()
}

/// The chains of each part of the samples.
fn parts(chains: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    let parts = chains.min(PARTS);
    (0..parts).map(move |part| part * chains / parts..(part + 1) * chains / parts)
}

/// Chains of the smallest part.
pub fn chains_of_part(chains: usize) -> usize {
    parts(chains).map(|range| range.len()).min().unwrap_or(0)
}

/// Draws of the part with fewest at which a chain had moved, of which [`Pairs::estimate`] needs more than neighbours.
///
/// Shapes: samples (chain, draw, variable).
pub fn fewest_moved(samples: ArrayView3<f64>) -> usize {
    let moved = |range| rows_of_moved(samples.slice(s![range, .., ..])).len();
    parts(samples.dim().0).map(moved).min().unwrap_or(0)
}

/// All pairs (i, j) with i < j, row by row.
fn pairs(variables: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..variables).flat_map(move |i| (i + 1..variables).map(move |j| (i, j)))
}

/// Each variable's samples from all chains.
fn variables_of(samples: ArrayView3<f64>) -> Vec<Variable> {
    let rows: Vec<ArrayView1<f64>> = samples.rows().into_iter().collect();
    variables_of_rows(samples.dim().2, &rows)
}

/// The same without draws at which a chain stayed where it was. Samples that are equal in all variables look like
/// infinitely dependent ones, and a chain that rejects a dozen proposals in a row adds some 10 nats × 12 / 5000 to every
/// pair.
fn variables_of_moved(samples: ArrayView3<f64>) -> Vec<Variable> {
    let variables = samples.dim().2;
    let places = rows_of_moved(samples);
    let rows: Vec<ArrayView1<f64>> =
        places.iter().map(|&(chain, draw)| samples.slice(s![chain, draw, ..])).collect();
    variables_of_rows(variables, &rows)
}

/// (chain, draw) of the draws at which a chain had moved, the first ones included.
fn rows_of_moved(samples: ArrayView3<f64>) -> Vec<(usize, usize)> {
    let (chains, draws, _) = samples.dim();
    let row = |chain, draw| samples.slice(s![chain, draw, ..]);
    let places = (0..chains).flat_map(|chain| (0..draws).map(move |draw| (chain, draw)));
    places.filter(|&(chain, draw)| draw == 0 || row(chain, draw) != row(chain, draw - 1)).collect()
}

fn variables_of_rows(variables: usize, rows: &[ArrayView1<f64>]) -> Vec<Variable> {
    let of = |variable: usize| Variable::new(rows.iter().map(|row| row[variable]).collect());
    (0..variables).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use rand_distr::StandardNormal;
    use serde::Deserialize;

    /// Normal variables of which neighbours are correlated by ρ: (chain, draw, variable).
    fn normal_chains(shape: (usize, usize, usize), rho: f64, rng: &mut StdRng) -> Array3<f64> {
        let mut samples = Array3::from_shape_simple_fn(shape, || rng.sample(StandardNormal));
        for variable in 1..shape.2 {
            for mut row in samples.rows_mut() {
                row[variable] = rho * row[variable - 1] + (1.0 - rho * rho).sqrt() * row[variable];
            }
        }
        samples
    }

    fn exact(rho: f64) -> f64 {
        -0.5 * (1.0 - rho * rho).ln()
    }

    /// The definition, looking at all samples for each.
    fn brute_force(x: &[f64], y: &[f64], neighbours: usize) -> f64 {
        let count = x.len();
        let marginal = (0..count).map(|i| {
            let others = || (0..count).filter(move |&j| j != i);
            let mut distances: Vec<f64> =
                others().map(|j| (x[i] - x[j]).abs().max((y[i] - y[j]).abs())).collect();
            distances.sort_by(f64::total_cmp);
            let closer = |values: &[f64]| {
                let radius = distances[neighbours - 1];
                others().filter(|&j| (values[i] - values[j]).abs() < radius).count()
            };
            digamma(closer(x) as f64 + 1.0) + digamma(closer(y) as f64 + 1.0)
        });
        let marginal = marginal.sum::<f64>() / count as f64;
        digamma(neighbours as f64) + digamma(count as f64) - marginal
    }

    #[test]
    fn neighbours_are_those_of_the_definition_ties_and_all() {
        let mut rng = StdRng::seed_from_u64(1);
        for (count, neighbours) in [(2, 1), (5, 3), (100, 1), (100, 3), (300, 8), (9, 8)] {
            for rounding in [0.0, 0.5] {
                let samples = normal_chains((1, count, 2), 0.7, &mut rng);
                let column = |i: usize| -> Vec<f64> {
                    let values = samples.slice(s![0, .., i]).to_vec();
                    // Rounded values repeat, as in a chain that rejects.
                    let rounded = values.iter().map(|value: &f64| (value / rounding).round());
                    if rounding > 0.0 { rounded.collect() } else { values }
                };
                let (x, y) = (column(0), column(1));
                let expected = brute_force(&x, &y, neighbours);
                let (x, y) = (Variable::new(x), Variable::new(y));
                for found in
                    [mutual_information(&x, &y, neighbours), mutual_information(&y, &x, neighbours)]
                {
                    assert!((found - expected).abs() < 1e-12, "{count}, {neighbours}: {found}");
                }
            }
        }
    }

    #[derive(Deserialize)]
    struct Reference {
        samples: usize,
        seed: u64,
        rho: f64,
        neighbours: usize,
        mutual_information: f64,
    }

    /// Uniform noise as tests/mutual_information_reference.py has it.
    fn generate(reference: &Reference) -> [Vec<f64>; 2] {
        let mut state = reference.seed;
        let mut uniform = || {
            state = (1_103_515_245 * state + 12345) % (1 << 31);
            state as f64 / 2f64.powi(31) - 0.5
        };
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for _ in 0..reference.samples {
            x.push(uniform());
            y.push(reference.rho * x[x.len() - 1] + uniform());
        }
        [x, y]
    }

    #[test]
    fn estimates_are_those_of_scikit_learn() {
        let text = include_str!("../../tests/data/mutual_information.json");
        let references: Vec<Reference> = serde_json::from_str(text).unwrap();
        assert!(references.len() > 5);
        for reference in references {
            let [x, y] = generate(&reference).map(Variable::new);
            let found = mutual_information(&x, &y, reference.neighbours);
            let difference = (found - reference.mutual_information).abs();
            assert!(difference < 1e-9, "{found} instead of {}", reference.mutual_information);
        }
    }

    #[test]
    fn correlated_gaussians_share_what_theory_says_within_errors() {
        let mut rng = StdRng::seed_from_u64(2);
        for rho in [0.0, 0.3, 0.6, 0.9, 0.99] {
            let samples = normal_chains((50, 100, 2), rho, &mut rng);
            let pairs = Pairs::estimate(samples.view(), 3);
            let [information, error] = pairs.matrices().map(|matrix| matrix[[0, 1]]);
            println!("{rho}: {information:.4} ± {error:.4}, exact {:.4}", exact(rho));
            assert!((information - exact(rho)).abs() < 4.0 * error, "ρ = {rho}: {information}");
            assert!((0.003..0.03).contains(&error), "ρ = {rho}: {error}");
        }
    }

    #[test]
    fn error_bars_are_calibrated() {
        let mut rng = StdRng::seed_from_u64(3);
        for rho in [0.0, 0.6] {
            let mut pull = || {
                let pairs = Pairs::estimate(normal_chains((20, 100, 2), rho, &mut rng).view(), 3);
                let [information, error] = pairs.matrices().map(|matrix| matrix[[0, 1]]);
                (information - exact(rho)) / error
            };
            let pulls: Vec<f64> = (0..200).map(|_| pull()).collect();
            let mean = pulls.iter().sum::<f64>() / 200.0;
            let spread = (pulls.iter().map(|pull| pull * pull).sum::<f64>() / 200.0).sqrt();
            println!("ρ = {rho}: {mean:.3} {spread:.3}");
            // An error from ten parts makes the spread that of Student's t, √(9/7) = 1.13.
            assert!((0.95..1.4).contains(&spread), "ρ = {rho}: {spread}");
            assert!(mean.abs() < 0.4, "ρ = {rho}: {mean}");
        }
    }

    /// A chain of variables, each correlated with the next: distance d apart they are correlated by ρ^d.
    #[test]
    fn all_pairs_of_a_chain_decay_as_they_must() {
        let mut rng = StdRng::seed_from_u64(4);
        let samples = normal_chains((20, 100, 8), 0.8, &mut rng);
        let pairs = Pairs::estimate(samples.view(), 3);
        let [information, error] = pairs.matrices();
        let pulls = ndarray::Zip::indexed(&information).and(&error).map_collect(
            |(i, j), &found, &error| {
                if i == j {
                    0.0
                } else {
                    (found - exact(0.8f64.powi(i.abs_diff(j) as i32))) / error
                }
            },
        );
        assert!(pulls.iter().all(|pull| pull.abs() < 5.0), "{pulls:.2}");
        assert_eq!(information[[2, 5]], information[[5, 2]]);
        let means = pairs.class_means(8, usize::abs_diff);
        assert!(means[0].0.is_nan());
        for (distance, (mean, error)) in means.into_iter().enumerate().skip(1) {
            let expected = exact(0.8f64.powi(distance as i32));
            assert!((mean - expected).abs() < 4.5 * error, "{distance}: {mean} ± {error}");
        }
    }

    #[test]
    fn a_chain_that_does_not_move_adds_nothing() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut samples = normal_chains((20, 50, 3), 0.0, &mut rng);
        let all = Pairs::estimate(samples.view(), 3).matrices()[0][[0, 1]];
        for draw in 1..12 {
            let first = samples.slice(s![4, 0, ..]).to_owned();
            samples.slice_mut(s![4, draw, ..]).assign(&first);
        }
        let stuck = Pairs::estimate(samples.view(), 3).matrices()[0][[0, 1]];
        assert!((stuck - all).abs() < 0.01, "{stuck}, {all}");
        // Left in, they would count for much.
        let [x, y, _] = variables_of(samples.view()).try_into().unwrap();
        assert!(mutual_information(&x, &y, 3) > all + 0.05);
    }

    #[test]
    fn variables_of_other_chains_are_independent() {
        let mut rng = StdRng::seed_from_u64(5);
        let samples = normal_chains((20, 50, 40), 0.95, &mut rng);
        let null = of_independent(samples.view(), 3);
        let (mean, error) = mean_and_standard_error(&null);
        assert!(null.len() == 40 && mean.abs() < 5.0 * error, "{mean} ± {error}");
        // Were the chains not shifted, each estimate would be near 1.16.
        assert!(null.iter().all(|value| value.abs() < 0.2), "{null:?}");
    }
}
