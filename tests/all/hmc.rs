//! Hybrid Monte Carlo: the laws that leapfrog and Metropolis obey, and observables against enumeration.

use ndarray::{Array1, Array2, ArrayView2, Axis, s, stack};
use neuralrg::engine::config::{Precision, RunConfig};
use neuralrg::engine::device::Device;
use neuralrg::engine::{Model, Potential};
use neuralrg::error::Error;
use neuralrg::flow::config::{FlowConfig, Splits, Symmetry};
use neuralrg::flow::coupling::Networks;
use neuralrg::flow::{Architecture, Flow};
use neuralrg::random::{Random, Use};
use neuralrg::ranks::Team;
use neuralrg::sampling::config::{Count, HmcConfig, Sampler, Start};
use neuralrg::sampling::estimates::Estimates;
use neuralrg::sampling::hmc::{State, hamiltonian, leapfrog, trajectory};
use neuralrg::sampling::kernel::Kernel;
use neuralrg::sampling::physical::PhysicalPotential;
use neuralrg::sampling::sampler::{self, Chains, Recorded, Sampling};
use neuralrg::seed::Stage;
use neuralrg::statistics::{between_chain, gamma_method, mean_and_standard_error};
use neuralrg::targets::Target;
use neuralrg::targets::observe::{Derived, Observable};
use neuralrg::task::Task;
use neuralrg::train::config::{Schedule, TrainConfig};
use neuralrg::train::train;

const CRITICAL_TEMPERATURE: f64 = 2.269185314213022;

fn task(temperature: f64) -> Task {
    Task { linear_size: 4, temperature, depth: 2, seed: 1 }
}

/// Numbers for chains on 4 × 4 sites.
fn normals(seed: u64, of: Use, chains: usize) -> Array2<f64> {
    Random::new(seed).normals(of, 0..chains, 16)
}

fn untrained_model(symmetry: Symmetry, temperature: f64, precision: Precision) -> Model {
    let config = FlowConfig {
        couplings: 3,
        hidden_layers: 1,
        splits: Splits::Cycle,
        networks: Networks::Joint,
        hidden_width: 8,
        symmetry,
        ..Default::default()
    };
    let random = task(temperature).streams().at(Stage::Initialize, 0);
    let architecture = Architecture::new(4, 2, 1, &config);
    let run = RunConfig { precision, ..Default::default() };
    let flow = Flow::initialize(architecture, &random);
    Model::new(flow, Target::ising_dual(4), temperature, &run, Device::Cpu)
}

/// The latent potential of an untrained flow, which is no simple function.
fn with_latent_potential<T>(test: impl FnOnce(&dyn Fn(ArrayView2<f64>) -> Potential) -> T) -> T {
    let model = untrained_model(Symmetry::Mixture, CRITICAL_TEMPERATURE, Precision::F64);
    test(&|z| model.potential(z))
}

/// A step size for every chain.
fn sizes(step_size: f64, chains: usize) -> Array1<f64> {
    Array1::from_elem(chains, step_size)
}

fn all_below(bound: f64, values: &Array2<f64>) -> bool {
    values.iter().all(|value| value.abs() < bound)
}

#[test]
fn leapfrog_is_reversible() {
    with_latent_potential(|potential| {
        let start = State::new(&potential, normals(1, Use::Latents, 8).view());
        let momentum = normals(1, Use::Momenta, 8);
        let (end, end_momentum) =
            leapfrog(&potential, &start, momentum.view(), sizes(0.1, 8).view(), 20);
        assert!(!all_below(0.1, &(&end.position - &start.position)));
        let (back, back_momentum) =
            leapfrog(&potential, &end, (-end_momentum).view(), sizes(0.1, 8).view(), 20);
        assert!(all_below(1e-10, &(back.position - start.position)));
        assert!(all_below(1e-10, &(back_momentum + momentum)));
    });
}

#[test]
fn energy_error_falls_as_the_square_of_the_step_size() {
    with_latent_potential(|potential| {
        let start = State::new(&potential, normals(2, Use::Latents, 64).view());
        let momentum = normals(2, Use::Momenta, 64);
        let error = |steps: i64| {
            let (end, end_momentum) = leapfrog(
                &potential,
                &start,
                momentum.view(),
                sizes(0.4 / steps as f64, 64).view(),
                steps,
            );
            let before = hamiltonian(&start, momentum.view());
            let difference = hamiltonian(&end, end_momentum.view()) - before;
            difference.abs().mean().unwrap()
        };
        let (coarse, middle, fine) = (error(8), error(16), error(32));
        for ratio in [coarse / middle, middle / fine] {
            assert!((ratio - 4.0).abs() < 0.2, "halving the step divides the error by {ratio}");
        }
    });
}

/// <exp(-ΔH)> = 1 holds in equilibrium whatever the step size (Creutz 1988): in a Gaussian, where
/// equilibrium can be drawn from.
#[test]
fn mean_of_exp_minus_energy_error_is_one() {
    let potential = |z: ArrayView2<f64>| Potential {
        energy: z.pow2().sum_axis(Axis(1)) * 1.5,
        gradient: &z * 3.0,
        field: z.to_owned(),
    };
    let position = normals(3, Use::Latents, 20_000) / 3f64.sqrt();
    let start = State::new(&potential, position.view());
    let moved = trajectory(&potential, &start, (0.45, 3), &Team::Alone, &Random::new(3));
    let (mean, error) = mean_and_standard_error(&(-moved.energy_error).exp().to_vec());
    assert!(error > 1e-3, "a step too small for an energy error tests nothing");
    assert!((mean - 1.0).abs() < 4.0 * error, "{mean} ± {error}");
    let acceptance = moved.acceptance.mean().unwrap();
    assert!((0.5..0.97).contains(&acceptance), "{acceptance}");
    // Equilibrium stays: <z²> = 1/3.
    let squares = moved.state.position.pow2().mean_axis(Axis(1)).unwrap();
    let (mean, error) = mean_and_standard_error(&squares.to_vec());
    assert!((mean - 1.0 / 3.0).abs() < 4.0 * error, "{mean} ± {error}");
}

/// A potential that is wrong for chain 0 once it moves, and right for the others.
#[test]
fn a_chain_without_finite_energy_stays_and_changes_no_other() {
    for poison in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let start = normals(4, Use::Latents, 4);
        let clean = |z: ArrayView2<f64>| Potential {
            energy: z.pow2().sum_axis(Axis(1)),
            gradient: &z * 2.0,
            field: z.sin(),
        };
        let poisoned = |z: ArrayView2<f64>| {
            let mut potential = clean(z);
            if z != start {
                potential.energy[0] += poison;
                potential.field.row_mut(0).mapv_inplace(|value| value * poison);
            }
            potential
        };
        let run = |potential: &dyn Fn(ArrayView2<f64>) -> Potential| {
            let mut state = State::new(&potential, start.view());
            let mut divergent = 0;
            for step in 0..5 {
                let random = Random::new(100 + step);
                let moved = trajectory(&potential, &state, (0.2, 4), &Team::Alone, &random);
                divergent += moved.energy_error.iter().filter(|error| error.is_infinite()).count();
                state = moved.state;
            }
            (state, divergent)
        };
        let ((good, none), (bad, divergent)) = (run(&clean), run(&poisoned));
        assert_eq!((none, divergent), (0, 5), "every bad trajectory is counted");
        assert_eq!(bad.position.slice(s![1.., ..]), good.position.slice(s![1.., ..]));
        assert_eq!(bad.position.row(0), start.row(0), "chain 0 keeps its last good state");
        assert_eq!(bad.field.row(0), start.row(0).sin());
        assert!(bad.gradient.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn adaptation_reaches_the_target_acceptance() {
    // Below 0.75 this potential has no such step size: at the stability limit of its stiffest mode the
    // acceptance falls off a cliff.
    for target_acceptance in [0.8, 0.9, 0.95] {
        let config = HmcConfig {
            chains: 128,
            warmup: 100,
            trajectories: 30,
            leapfrog_steps: 3,
            max_leapfrog_steps: 64,
            target_acceptance,
            step_size: 0.01,
            ..Default::default()
        };
        let chains = sample(&untrained_model(Symmetry::None, 2.7, Precision::F64), 2.7, &config);
        let acceptance = chains.recorded(Recorded::Acceptance).mean().unwrap();
        assert!((acceptance - target_acceptance).abs() < 0.05, "{acceptance}");
    }
}

fn sample(model: &Model, temperature: f64, config: &HmcConfig) -> Chains {
    sample_by(Sampler::Latent, model, temperature, config)
}

fn sample_by(name: Sampler, model: &Model, temperature: f64, config: &HmcConfig) -> Chains {
    let seed = task(temperature).streams();
    let kernel = Kernel::new(name, model, config);
    let settings = (config, Start::Hot);
    let sampling = sampler::sample(name, &kernel, settings, &seed, None, |_| Ok(()));
    sampling.unwrap().chains(name, config)
}

/// All observables of the chains within 4 standard errors of the enumeration.
fn assert_equal_to_enumeration(chains: &Chains, temperature: f64) {
    let exact = crate::enumeration::enumerate(temperature);
    let expected = [
        exact.energy_per_site,
        exact.magnetization_2,
        exact.magnetization_4,
        exact.abs_magnetization,
    ];
    for (((observable, _), expected), values) in
        Observable::TABLE.iter().zip(expected).zip(chains.scalars().axis_iter(Axis(0)))
    {
        let estimate = gamma_method(values);
        let pull = (estimate.mean - expected) / estimate.error;
        assert!(
            pull.abs() < 4.0,
            "{observable:?}: {} ± {}, exact {expected}",
            estimate.mean,
            estimate.error
        );
        assert!(estimate.error < 0.02 * expected.abs(), "{observable:?}: error {}", estimate.error);
    }
    let estimates = Estimates::new(chains, 4, temperature);
    let mean = |observable| {
        let estimate = estimates.observable(observable).estimate;
        (estimate.mean, estimate.error)
    };
    let (m_2, m_4) = (exact.magnetization_2, exact.magnetization_4);
    let connected = 16.0 / temperature * (m_2 - exact.abs_magnetization.powi(2));
    let ratio = exact.structure_factor[0][0] / exact.structure_factor[0][1];
    let derived = [
        (Derived::SpecificHeat, exact.specific_heat_per_site),
        (Derived::BinderCumulant, 1.0 - m_4 / (3.0 * m_2 * m_2)),
        (Derived::Susceptibility, 16.0 * m_2 / temperature),
        (Derived::SusceptibilityConnected, connected),
        (Derived::CorrelationLength, (ratio - 1.0).sqrt() / 2f64.sqrt()),
    ];
    let derived = derived.map(|(quantity, expected)| {
        (format!("{quantity:?}"), estimates.derived(quantity), expected)
    });
    let smallest = exact.structure_factor[0][1];
    let means = [(Observable::Magnetization, 0.0), (Observable::StructureFactorKMin, smallest)];
    let means =
        means.map(|(observable, expected)| (format!("{observable:?}"), mean(observable), expected));
    for (name, (value, error), expected) in derived.into_iter().chain(means) {
        assert!(((value - expected) / error).abs() < 4.0, "{name}: {value} ± {error}, {expected}");
        assert!(error < 0.02 * expected.abs().max(1.0), "{name}: error {error}");
    }
    for (means, exact) in [
        (&chains.structure_factors, exact.structure_factor),
        (&chains.correlations, exact.correlation),
    ] {
        let flat = means.view().into_shape_with_order((means.dim().0, 16)).unwrap();
        let (mean, error) = between_chain(flat);
        for (i, expected) in exact.as_flattened().iter().enumerate() {
            let difference = (mean[i] - expected).abs();
            assert!(
                difference < 4.0 * error[i] + 1e-10,
                "component {i}: {} ± {}",
                mean[i],
                error[i]
            );
        }
    }
}

fn long_chains() -> HmcConfig {
    HmcConfig {
        chains: 512,
        warmup: 100,
        trajectories: 100,
        leapfrog_steps: 12,
        max_leapfrog_steps: 64,
        ..Default::default()
    }
}

#[test]
fn untrained_flow_samples_the_enumerated_ising_model() {
    for symmetry in [Symmetry::None, Symmetry::Mixture] {
        let model = untrained_model(symmetry, 2.7, Precision::F32);
        assert_equal_to_enumeration(&sample(&model, 2.7, &long_chains()), 2.7);
    }
}

#[test]
fn trained_flow_samples_the_enumerated_ising_model() {
    let temperature = CRITICAL_TEMPERATURE;
    let mut model = untrained_model(Symmetry::Mixture, temperature, Precision::F32);
    let config = TrainConfig {
        steps: 200,
        batch: 128,
        learning_rate: 1e-2,
        schedule: Schedule::Cosine,
        warmup_steps: 50,
        weight_decay: 0.0,
        clip_norm: 10.0,
        ..Default::default()
    };
    let mut gap = f64::INFINITY;
    let exact = neuralrg::targets::exact::exact_ising(4, temperature).free_energy_field;
    train(&mut model, &config, 0.0, &task(temperature).streams(), |progress, _| {
        gap = progress.loss.map_or(gap, |(loss, _)| loss - exact);
    })
    .unwrap();
    assert!(gap < 1.5, "trained to a gap of {gap} nats");
    let alone = Count::Fixed(1);
    let moves =
        [(true, 1.0, alone), (true, 0.6, alone), (false, 1.0, alone), (true, 1.0, Count::Auto)];
    for (global_moves, global_step, replicas) in moves {
        let config = HmcConfig { global_moves, global_step, replicas, ..long_chains() };
        assert_equal_to_enumeration(&sample(&model, temperature, &config), temperature);
    }
}

/// At low temperature HMC hardly leaves a sector of the latent space; proposals of the flow do.
#[test]
fn global_moves_carry_chains_between_sectors() {
    let temperature = 1.6;
    let model = crate::flows::trained(4, temperature, 500);
    let time_of_m = |global_moves| {
        let replicas = Count::Fixed(1);
        let config = HmcConfig { global_moves, replicas, chains: 64, ..long_chains() };
        let chains = sample(&model, temperature, &config);
        gamma_method(chains.observable(Observable::Magnetization)).tau_int
    };
    let (with, without) = (time_of_m(true), time_of_m(false));
    println!("tau_int of m with {with:.2}, without {without:.2}");
    assert!(with < 2.0 && with < 0.5 * without, "tau_int of m with {with}, without {without}");
}

#[test]
fn physical_and_independence_samplers_sample_the_enumerated_ising_model() {
    let model = crate::flows::trained(4, 2.7, 300);
    for name in [Sampler::Physical, Sampler::Fourier, Sampler::Independence] {
        let config = HmcConfig { chains: 256, trajectories: 250, ..long_chains() };
        assert_equal_to_enumeration(&sample_by(name, &model, 2.7, &config), 2.7);
    }
}

/// The rule at work in a whole sampling: from some trajectory on, chain 2 has no finite energy when it moves.
#[test]
fn a_chain_that_breaks_while_measured_is_counted_and_changes_no_other() {
    let potential = PhysicalPotential::new(Target::ising_dual(4).density(2.7), true);
    let config = HmcConfig { chains: 4, ..Default::default() };
    for poison in [f64::NAN, f64::INFINITY] {
        let run = |break_at: u64| {
            let start = potential.start(4, Start::Hot, &Random::new(5));
            let mut state = State::new(&|x: ArrayView2<f64>| potential.at(x), start.view());
            let mut divergences = 0;
            let mut fields = Vec::new();
            for draw in 0..20 {
                let kept = state.position.clone();
                let poisoned = |x: ArrayView2<f64>| {
                    let mut found = potential.at(x);
                    // For three trajectories only; then the chain must go on.
                    if (break_at..break_at + 3).contains(&draw) && x != kept {
                        found.energy[2] += poison;
                        found.gradient.row_mut(2).mapv_inplace(|value| value * poison);
                    }
                    found
                };
                let random = Random::new(100 + draw);
                let moved = trajectory(&poisoned, &state, (0.5, 3), &Team::Alone, &random);
                divergences += moved.divergences(config.divergence_threshold);
                state = moved.state;
                fields.push(state.field.clone());
            }
            let fields: Vec<_> = fields.iter().map(Array2::view).collect();
            // (draw, chain, N).
            (divergences, stack(Axis(0), &fields).unwrap())
        };
        let ((none, good), (counted, bad)) = (run(1000), run(8));
        assert_eq!((none, counted), (0, 3));
        for chain in [0, 1, 3] {
            assert_eq!(good.index_axis(Axis(1), chain), bad.index_axis(Axis(1), chain));
        }
        let broken = bad.index_axis(Axis(1), 2).to_owned();
        assert_eq!(broken.row(7), broken.row(10), "it keeps its last good state");
        let way = &broken.row(19) - &broken.row(10);
        assert!(way.iter().any(|step| step.abs() > 0.1), "and goes on from there");
        assert!(bad.iter().all(|value| value.is_finite()));
    }
}

/// A sampling that is cut between two trajectories and goes on from its plain numbers is the same to the bit, in the
/// warm-up and after it.
#[test]
fn a_sampling_goes_on_from_its_numbers_as_if_never_stopped() {
    let model = untrained_model(Symmetry::Mixture, 2.0, Precision::F32);
    let seed = task(2.0).streams();
    let config = HmcConfig { chains: 8, warmup: 20, trajectories: 20, ..Default::default() };
    let kernel = Kernel::new(Sampler::Latent, &model, &config);
    let stage = (&seed, Stage::LatentHmc);
    let begin = || {
        let random = seed.at(Stage::LatentHmc, -1);
        let position = kernel.start(8, Start::Hot, &random);
        Sampling::new(position, kernel.replicas(&config, &random), &config)
    };
    let mut unbroken = begin();
    unbroken.finish(&kernel, &config, stage, |_| Ok(())).unwrap();
    let expected = unbroken.chains(Sampler::Latent, &config);
    for cut in [7, 20, 33] {
        let mut first = begin();
        let stopped = first.finish(&kernel, &config, stage, |sampling| match sampling.done {
            done if done == cut => Err(Error::Stopped),
            _ => Ok(()),
        });
        assert!(matches!(stopped, Err(Error::Stopped)) && first.done == cut);
        let mut second = Sampling::restore(&kernel, &config, 16, &first.state()).unwrap();
        second.finish(&kernel, &config, stage, |_| Ok(())).unwrap();
        let found = second.chains(Sampler::Latent, &config);
        assert_eq!(found.records, expected.records, "cut after {cut}");
        assert_eq!(found.step_size, expected.step_size);
    }
}
