//! Convergence diagnostics and the Γ method against ArviZ and pyerrors (numbers in tests/data/statistics.json, made by
//! tests/statistics_reference.py), against processes with known autocorrelation, and against planted failures.

use ndarray::{Array2, s};
use neuralrg::statistics::convergence::{e_bfmi, ess_bulk, ess_tail, r_hat};
use neuralrg::statistics::gamma_method;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    chains: usize,
    draws: usize,
    phi: f64,
    shift: f64,
    drift: f64,
    seed: u64,
    r_hat: Option<f64>,
    ess_bulk: f64,
    ess_tail: f64,
    e_bfmi: f64,
    gamma: Gamma,
}

#[derive(Deserialize)]
struct Gamma {
    mean: f64,
    error: f64,
    tau_int: f64,
    tau_int_error: f64,
}

fn cases() -> Vec<Case> {
    let reference: Reference =
        serde_json::from_str(include_str!("../data/statistics.json")).unwrap();
    reference.cases
}

/// The chains of the script.
fn generate(case: &Case) -> Array2<f64> {
    let mut state = case.seed;
    let mut chains = Array2::zeros((case.chains, case.draws));
    for mut chain in chains.rows_mut() {
        let mut value = 0.0;
        for (draw, place) in chain.iter_mut().enumerate() {
            state = (1_103_515_245 * state + 12345) % (1 << 31);
            value = case.phi * value + state as f64 / 2f64.powi(31) - 0.5;
            *place = value + case.drift * draw as f64 / case.draws as f64;
        }
    }
    chains.row_mut(0).mapv_inplace(|value| value + case.shift);
    chains
}

#[track_caller]
fn assert_close(what: &str, found: f64, expected: f64, relative: f64) {
    let difference = (found / expected - 1.0).abs();
    assert!(difference < relative, "{what}: {found} instead of {expected}");
}

#[test]
fn diagnostics_are_those_of_arviz() {
    for case in cases() {
        let chains = generate(&case);
        let name = &case.name;
        if let Some(expected) = case.r_hat {
            assert_close(&format!("{name}: R-hat"), r_hat(chains.view()), expected, 1e-9);
        }
        let [bulk, tail] = [ess_bulk(chains.view()), ess_tail(chains.view())];
        assert_close(&format!("{name}: bulk ESS"), bulk, case.ess_bulk, 1e-9);
        assert_close(&format!("{name}: tail ESS"), tail, case.ess_tail, 1e-9);
        assert_close(&format!("{name}: E-BFMI"), e_bfmi(chains.view()), case.e_bfmi, 1e-9);
    }
}

/// The window is the same function of the data; pyerrors corrects the bias of Γ to first order and leaves the factor
/// 1 - t/n away, so that differences are of the order of window over draws.
#[test]
fn gamma_method_is_that_of_pyerrors() {
    let comparable = |case: &&Case| ["mixed", "single long"].contains(&case.name.as_str());
    for case in cases().iter().filter(comparable) {
        let estimate = gamma_method(generate(case).view());
        let (gamma, name) = (&case.gamma, &case.name);
        println!("{name}: {estimate:?} {} {} {}", gamma.error, gamma.tau_int, gamma.tau_int_error);
        assert_close(name, estimate.mean, gamma.mean, 1e-9);
        assert_close(name, estimate.error, gamma.error, 0.03);
        assert_close(name, estimate.tau_int, gamma.tau_int, 0.03);
        assert_close(name, estimate.tau_int_error, gamma.tau_int_error, 0.1);
    }
}

#[test]
fn r_hat_flags_a_stuck_sector_and_a_drift() {
    let found: Vec<(String, f64)> =
        cases().iter().map(|case| (case.name.clone(), r_hat(generate(case).view()))).collect();
    for (name, value) in found {
        let planted = ["stuck sector", "drifting"].contains(&name.as_str());
        assert_eq!(value > 1.05, planted, "{name}: {value}");
    }
    // A drift shared by all chains leaves their means equal: only halves of chains show it.
    let case = cases().into_iter().find(|case| case.name == "drifting").unwrap();
    let chains = generate(&case);
    let means = chains.mean_axis(ndarray::Axis(1)).unwrap();
    assert!(means.std(1.0) < 0.1, "{means}");
}

#[test]
fn constant_chains_and_values_that_are_not_finite_are_told_apart() {
    let constant = Array2::from_elem((4, 20), 3.0);
    assert_eq!((r_hat(constant.view()), ess_bulk(constant.view())), (1.0, 80.0));
    let mut apart = constant.clone();
    apart.row_mut(1).fill(-3.0);
    assert!(r_hat(apart.view()) > 1e3);
    let mut broken = generate(&cases()[0]);
    broken[[1, 7]] = f64::NAN;
    assert!(r_hat(broken.view()).is_nan() && ess_bulk(broken.view()).is_nan());
    assert!(r_hat(broken.slice(s![.., ..3])).is_nan());
}

/// AR(1) chains have τ_int = ½ (1+φ)/(1-φ); two stated errors hold it in 95 % of the cases. 1000 repetitions know that
/// fraction to 0.7 %: the limit is three of these below.
#[test]
fn integrated_times_of_known_processes_are_within_their_errors() {
    const REPETITIONS: usize = 1000;
    let mut rng = StdRng::seed_from_u64(21);
    for phi in [0.3, 0.7, 0.9] {
        let exact = 0.5 * (1.0 + phi) / (1.0 - phi);
        let within = (0..REPETITIONS).filter(|_| {
            let mut chains: Array2<f64> =
                Array2::from_shape_simple_fn((8, 2000), || rng.sample(StandardNormal));
            for mut chain in chains.rows_mut() {
                for t in 1..chain.len() {
                    chain[t] = phi * chain[t - 1] + (1.0 - phi * phi).sqrt() * chain[t];
                }
            }
            let estimate = gamma_method(chains.view());
            (estimate.tau_int - exact).abs() < 2.0 * estimate.tau_int_error
        });
        let fraction = within.count() as f64 / REPETITIONS as f64;
        println!("φ = {phi}: {fraction}");
        assert!(fraction > 0.93, "φ = {phi}: {fraction}");
    }
}
