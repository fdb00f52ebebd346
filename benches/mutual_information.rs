//! The mutual information of one pair of variables.
//!
//!     cargo bench --bench mutual_information

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use neuralrg::statistics::mutual_information::{Variable, mutual_information};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;

const NEIGHBOURS: usize = 3;

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
            let id = BenchmarkId::new(format!("{samples} samples"), format!("correlation {rho}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| black_box(mutual_information(&x, &y, NEIGHBOURS)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pair);
criterion_main!(benches);
