//! The mutual information of one pair of 5,000 samples: neighbours by the sorted sweep, and by a k-d tree.
//!
//!     cargo bench --bench mutual_information

use std::hint::black_box;
use std::num::NonZero;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kiddo::Chebyshev;
use kiddo::immutable::float::kdtree::ImmutableKdTree;
use neuralrg::mutual_information::{Variable, mutual_information};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;

const NEIGHBOURS: usize = 3;

/// Distances to the third neighbours alone, which the estimate then needs two counts each for.
fn by_tree(points: &[[f64; 2]]) -> f64 {
    let tree = ImmutableKdTree::<f64, u32, 2, 8>::new_from_slice(points);
    // Each point is its own nearest.
    let count = NonZero::new(NEIGHBOURS + 1).expect("positive");
    points.iter().map(|point| tree.nearest_n::<Chebyshev>(point, count)[NEIGHBOURS].distance).sum()
}

fn pair(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pair");
    for samples in [500, 5000] {
        for rho in [0.0, 0.9f64] {
            let mut rng = StdRng::seed_from_u64(1);
            let mut point = || {
                let [x, noise]: [f64; 2] = [(); 2].map(|()| rng.sample(StandardNormal));
                [x, rho * x + (1.0 - rho * rho).sqrt() * noise]
            };
            let points: Vec<[f64; 2]> = (0..samples).map(|_| point()).collect();
            let [x, y] = [0, 1].map(|i| Variable::new(points.iter().map(|p| p[i]).collect()));
            let case = format!("{samples} samples, correlation {rho}");
            group.bench_function(BenchmarkId::new("sweep", &case), |bencher| {
                bencher.iter(|| black_box(mutual_information(&x, &y, NEIGHBOURS)));
            });
            group.bench_function(
                BenchmarkId::new("k-d tree, neighbours alone", &case),
                |bencher| {
                    bencher.iter(|| black_box(by_tree(&points)));
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, pair);
criterion_main!(benches);
