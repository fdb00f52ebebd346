//! Replicas at rising temperatures: right where the flow misses a part of the target, and named where they cannot help.

use neuralrg::engine::Model;
use neuralrg::engine::config::RunConfig;
use neuralrg::engine::device::Device;
use neuralrg::random::Random;
use neuralrg::sampling::config::{Count, HmcConfig, Sampler, Start};
use neuralrg::sampling::diagnostics::{pull, verdict};
use neuralrg::sampling::estimates::Estimates;
use neuralrg::sampling::kernel::Kernel;
use neuralrg::sampling::sampler::{Chains, Sampling, sample, warmup_rule};
use neuralrg::statistics::gamma_method;
use neuralrg::targets::Target;
use neuralrg::targets::exact::exact_ising;
use neuralrg::targets::observe::{Derived, Observable};
use neuralrg::task::Task;

/// Of a flow.
const SAMPLES: usize = 32_768;

fn config(replicas: Count) -> HmcConfig {
    HmcConfig { chains: 64, warmup: 100, trajectories: 200, replicas, ..Default::default() }
}

fn chains(model: &Model, config: &HmcConfig) -> (Chains, Estimates) {
    let (linear_size, temperature) = (model.flow.architecture.linear_size, model.temperature());
    let seed = Task { linear_size, temperature, depth: 1, seed: 5 }.streams();
    let kernel = Kernel::new(Sampler::Latent, model, config);
    let start = (config, Start::Hot);
    let sampling = sample(Sampler::Latent, &kernel, start, &seed, None, |_| Ok(())).unwrap();
    let chains = sampling.chains(Sampler::Latent, config);
    let estimates = Estimates::new(&chains, linear_size, temperature);
    (chains, estimates)
}

fn problems(model: &Model, config: &HmcConfig) -> String {
    verdict(&chains(model, config).1, Sampler::Latent, config).join("; ")
}

/// Mean of tanh x of each of many samples of a flow.
fn magnetizations(model: &Model) -> Vec<f64> {
    let field = model.draw_of_prior(&Random::new(3), 0..SAMPLES).field;
    field.rows().into_iter().map(|x| x.mapv(f64::tanh).mean().unwrap()).collect()
}

/// Without symmetry a flow at low temperature learns one of the two phases and nothing of the other.
#[test]
fn a_flow_that_knows_one_sign_only_samples_both() {
    let temperature = 1.4;
    let overrides = "symmetry = 'none'\nconditioner = 'elu'\nnetworks = 'separate'\ntransform = 'affine'\n\
                     couplings = 3\nhidden_width = 12";
    let model = crate::flows::trained_as(overrides, 4, temperature, 400);
    let of_flow = magnetizations(&model);
    let up = of_flow.iter().filter(|m| **m > 0.0).count();
    assert!(up.min(SAMPLES - up) < SAMPLES / 100, "{up} of {SAMPLES} samples of the flow point up");

    let (chains, estimates) = chains(&model, &config(Count::Auto));
    let m = estimates.observable(Observable::Magnetization);
    assert!(m.r_hat < 1.02 && pull(m.estimate.mean, m.estimate.error, 0.0).abs() < 4.0, "{m:?}");
    let exact = crate::enumeration::enumerate(temperature);
    for (observable, exact) in [
        (Observable::Energy, exact.energy_per_site),
        (Observable::MagnetizationSquared, exact.magnetization_2),
    ] {
        let found = gamma_method(chains.observable(observable));
        assert!(pull(found.mean, found.error, exact).abs() < 4.0, "{observable:?}: {found:?}");
        assert!(found.error < 2e-3, "{observable:?}: {found:?}");
    }
    // Alone, with all that the flow proposes, the chains stay where it is.
    assert!(problems(&model, &config(Count::Fixed(1))).contains(" m "));
}

#[test]
fn a_flow_without_domain_walls_samples_them() {
    let temperature = 1.8;
    // What it learned where walls have a weight of e^-30.
    let Model { flow, .. } = crate::flows::trained(8, 0.8, 1000);
    let (target, run) = (Target::ising_dual(8), RunConfig::default());
    let model = Model::new(flow, target, temperature, &run, Device::Cpu);
    let walls = |m: &[f64]| m.iter().filter(|m| m.abs() < 0.4).count() as f64 / m.len() as f64;
    let of_flow = walls(&magnetizations(&model));
    let many = HmcConfig { chains: 256, ..config(Count::Auto) };
    let (chains, estimates) = chains(&model, &many);
    let of_chains =
        walls(&chains.observable(Observable::Magnetization).iter().copied().collect::<Vec<_>>());
    assert!(of_flow < 0.25 * of_chains, "walls: {of_flow} by the flow, {of_chains} by the chains");
    let exact = exact_ising(8, temperature);
    let energy = estimates.observable(Observable::Energy).estimate;
    let heat = estimates.derived(Derived::SpecificHeat);
    let pulls = [
        pull(energy.mean, energy.error, exact.energy_per_site),
        pull(heat.0, heat.1, exact.specific_heat_per_site),
    ];
    assert!(pulls.iter().all(|pull| pull.abs() < 4.0), "{pulls:?}");
    assert!(energy.error < 2e-3 && heat.1 < 0.05 * heat.0, "{energy:?} {heat:?}");
    let exchanged = estimates.exchanged.unwrap();
    assert!(exchanged.round_trips > 10.0 && exchanged.least_rate() > 0.3, "{exchanged:?}");
}

/// At T = 0.5 the fields of both signs are wells 32 apart at every site, between which nothing goes.
#[test]
fn wells_far_apart_are_named() {
    let model = crate::flows::trained(4, 0.5, 0);
    let alone = HmcConfig { global_moves: false, ..config(Count::Fixed(1)) };
    let found = problems(&model, &alone);
    assert!(found.contains("the sign sectors do not mix"), "{found}");
}

#[test]
fn a_ladder_that_does_not_exchange_is_named() {
    let model = crate::flows::trained(8, 1.0, 0);
    let found = problems(&model, &config(Count::Fixed(2)));
    assert!(found.contains("replicas at T = 1.000 and 2.723 exchange in 0.0 %"), "{found}");
    let (_, estimates) = chains(&model, &config(Count::Auto));
    let found = estimates.exchanged.unwrap();
    assert!(found.temperatures.len() > 3 && found.least_rate() > 0.3, "{found:?}");
}

/// A warm-up of so few sweeps that no state comes back; an interrupted sampling goes on without them to the same bits.
#[test]
fn replicas_of_which_nothing_comes_back_are_given_up() {
    let model = crate::flows::trained(8, 1.6, 0);
    let config = HmcConfig {
        chains: 4,
        warmup: 4,
        trajectories: 12,
        sweeps: Count::Fixed(1),
        ..config(Count::Auto)
    };
    let kernel = Kernel::new(Sampler::Latent, &model, &config);
    let seed = Task { linear_size: 8, temperature: 1.6, depth: 3, seed: 1 }.streams();
    let start = (&config, Start::Hot);
    let mut saved = None;
    let whole = sample(Sampler::Latent, &kernel, start, &seed, None, |sampling| {
        if sampling.done == config.warmup + 2 {
            saved = Some(sampling.state());
        }
        Ok(())
    });
    let whole = whole.unwrap().chains(Sampler::Latent, &config);
    let exchanged = whole.exchanged.as_ref().unwrap();
    assert_eq!(exchanged.temperatures, [1.6]);
    assert!(exchanged.left_out.len() > 2, "{exchanged:?}");
    let told = warmup_rule(&config, Some(exchanged));
    assert!(told.contains(", 2.7230 are given up, since states came back"), "{told}");
    let restored = Sampling::restore(&kernel, &config, 64, &saved.unwrap()).unwrap();
    let rest = sample(Sampler::Latent, &kernel, start, &seed, Some(restored), |_| Ok(())).unwrap();
    let rest = rest.chains(Sampler::Latent, &config);
    assert_eq!((rest.records, rest.exchanged), (whole.records, whole.exchanged));
}
