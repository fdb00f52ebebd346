//! The native engine against the torch engine, whose gradients come from autograd, and both in teams against
//! themselves alone: every arrangement, conditioner, transform and symmetry.

mod common;

use neuralrg::config::{EngineChoice, Estimator, FlowConfig, RunConfig, Symmetry};
use neuralrg::engine::{Loss, Model};
use neuralrg::exact::exact_ising;
use neuralrg::flow::arrangement::{Arrangement, Neighbours, Splits};
use neuralrg::flow::coupling::{Conditioner, Networks, Transform};
use neuralrg::flow::{Architecture, Flow};
use neuralrg::host::to_array;
use neuralrg::ising::coupling_eigenvalues;
use neuralrg::random::Random;
use neuralrg::rank::Ranks;
use tch::{Device, Kind, Tensor};

const TEMPERATURE: f64 = 2.269185314213022;

fn configs() -> Vec<FlowConfig> {
    let small = FlowConfig {
        couplings: 3,
        hidden_layers: 2,
        hidden_width: 6,
        splits: Splits::Cycle,
        networks: Networks::Joint,
        symmetry: Symmetry::Mixture,
        ..Default::default()
    };
    let mut configs = Vec::new();
    for arrangement in [Arrangement::Mera, Arrangement::Checkerboard] {
        for conditioner in [Conditioner::Elu, Conditioner::Odd] {
            for transform in [Transform::Affine, Transform::Bump] {
                for preconditioner in [false, true] {
                    let flow = FlowConfig {
                        arrangement,
                        conditioner,
                        transform,
                        preconditioner,
                        ..small.clone()
                    };
                    let symmetries = match conditioner {
                        Conditioner::Odd => vec![Symmetry::Construction],
                        Conditioner::Elu => {
                            vec![Symmetry::None, Symmetry::Mixture, Symmetry::Regularizer]
                        }
                    };
                    configs.extend(
                        symmetries
                            .into_iter()
                            .map(|symmetry| FlowConfig { symmetry, ..flow.clone() }),
                    );
                }
            }
        }
    }
    for conditioner in [Conditioner::Elu, Conditioner::Odd] {
        configs.extend([Neighbours::Shells, Neighbours::Sites].map(|neighbours| FlowConfig {
            arrangement: Arrangement::Checkerboard,
            conditioner,
            neighbours,
            channels: 5,
            shells: 2,
            ..small.clone()
        }));
    }
    configs.extend(
        [Arrangement::Tree, Arrangement::Tebd]
            .map(|arrangement| FlowConfig { arrangement, ..small.clone() }),
    );
    configs.extend(separate_networks(&small));
    configs
}

/// Networks of their own for each parameter of the map, and random halves.
fn separate_networks(small: &FlowConfig) -> Vec<FlowConfig> {
    let separate = FlowConfig {
        splits: Splits::Random,
        networks: Networks::Separate,
        symmetry: Symmetry::Regularizer,
        ..small.clone()
    };
    let checkerboard =
        FlowConfig { arrangement: Arrangement::Checkerboard, channels: 4, ..separate.clone() };
    let mut configs: Vec<FlowConfig> = [Transform::Affine, Transform::Bump]
        .into_iter()
        .flat_map(|transform| {
            [&separate, &checkerboard].map(|flow| FlowConfig { transform, ..flow.clone() })
        })
        .collect();
    configs.extend([Symmetry::None, Symmetry::Mixture].map(|symmetry| FlowConfig {
        symmetry,
        preconditioner: true,
        ..separate.clone()
    }));
    configs
}

/// The same flow, away from its start, on one engine.
fn model(config: &FlowConfig, kind: Kind, engine: EngineChoice, threads: usize) -> Model {
    model_on(4, config, kind, engine, threads)
}

fn model_on(
    linear_size: usize,
    config: &FlowConfig,
    kind: Kind,
    engine: EngineChoice,
    threads: usize,
) -> Model {
    // Tensors this small gain nothing from threads.
    tch::set_num_threads(1);
    tch::manual_seed(3);
    let depth = linear_size.ilog2() as usize;
    let architecture = Architecture::new(linear_size, TEMPERATURE, depth, 1, config);
    let random = Random::new(3);
    let mut flow = Flow::initialize(architecture, &random, Kind::Double, Device::Cpu);
    // Many layers far from the identity would amplify rounding.
    let deviation = match config.transform {
        Transform::Affine if linear_size > 4 => 0.05,
        Transform::Affine => 0.2,
        Transform::Bump => 0.03,
    };
    let kicked = flow.parameters.detach() + flow.parameters.randn_like() * deviation;
    if kind == Kind::Float {
        // The same weights to rounding.
        let architecture = flow.architecture.clone();
        flow = Flow::initialize(architecture, &random, kind, Device::Cpu);
    }
    flow.parameters = kicked.to_kind(kind).set_requires_grad(true);
    Model::new(flow, &RunConfig { engine, threads, ..Default::default() })
}

/// No multiple of the native engine's 16 lanes.
const BATCH: i64 = 21;

fn latents(model: &Model, kind: Kind, batch: i64) -> Tensor {
    tch::manual_seed(4);
    let size = model.flow.architecture.linear_size as i64;
    Tensor::randn([batch, size, size], (Kind::Double, Device::Cpu)).to_kind(kind)
}

/// Everything that an engine computes, with names.
fn everything(model: &Model, kind: Kind) -> Vec<(String, Tensor)> {
    everything_of(model, kind, BATCH)
}

fn everything_of(model: &Model, kind: Kind, batch: i64) -> Vec<(String, Tensor)> {
    let z = latents(model, kind, batch);
    let mut found = Vec::new();
    for estimator in [Estimator::Total, Estimator::Path] {
        let loss = model.loss(&z, 0.7, estimator);
        found.push((format!("losses, {estimator:?}"), loss.values));
        found.push((format!("gradient, {estimator:?}"), loss.gradient));
        found.extend(loss.asymmetry.map(|asymmetry| ("asymmetry".to_owned(), asymmetry)));
    }
    // Fields that the flow did not make: further out than its own.
    let x = &z * 1.5;
    let likelihood = model.likelihood_loss(&x);
    found.push(("-ln q of given fields".to_owned(), likelihood.values));
    found.push(("its gradient".to_owned(), likelihood.gradient));
    let frozen = model.freeze();
    found.push(("ln q of given fields".to_owned(), frozen.ln_likelihood(&x)));
    let (draw, potential) = (frozen.draw(&z), frozen.potential(&z));
    let named = [
        ("field", draw.field),
        ("ln q", draw.ln_q),
        ("ln π", draw.ln_pi),
        ("potential", potential.energy),
        ("force", potential.gradient),
        ("field of the potential", potential.field),
    ];
    found.extend(named.map(|(name, values)| (name.to_owned(), values)));
    found
}

/// Largest difference, relative to the largest value.
fn relative_error(values: &Tensor, expected: &Tensor) -> f64 {
    let expected = expected.to_kind(Kind::Double);
    let difference = (values.to_kind(Kind::Double) - &expected).abs().max();
    (difference / expected.abs().max()).double_value(&[])
}

fn compare(linear_size: usize, config: &FlowConfig, kind: Kind, bound: f64) {
    let model = |kind, engine| model_on(linear_size, config, kind, engine, 1);
    let torch = everything(&model(Kind::Double, EngineChoice::Torch), Kind::Double);
    let native = everything(&model(kind, EngineChoice::Native), kind);
    assert_eq!(torch.len(), native.len());
    for ((name, expected), (_, values)) in torch.iter().zip(&native) {
        let error = relative_error(values, expected);
        assert!(error < bound, "{name}: off by {error:e} for {config:?}");
    }
}

#[test]
fn engines_agree_in_double_precision() {
    for config in configs() {
        compare(4, &config, Kind::Double, 1e-10);
    }
}

/// On larger lattices rows are worked on in several chunks, and wide networks are computed again in the
/// derivative, since their activations would not stay in the cache.
#[test]
fn engines_agree_on_a_larger_lattice() {
    let paper = FlowConfig { couplings: 6, ..Default::default() };
    let wide = FlowConfig { couplings: 10, hidden_width: 64, ..paper.clone() };
    let joint = FlowConfig { splits: Splits::Cycle, networks: Networks::Joint, ..paper.clone() };
    let convolutions = FlowConfig {
        arrangement: Arrangement::Checkerboard,
        couplings: 4,
        channels: 7,
        shells: 2,
        hidden_width: 64,
        ..paper.clone()
    };
    for config in [paper, joint, wide, convolutions] {
        compare(16, &config, Kind::Double, 1e-10);
    }
}

/// Native f32 against torch f64: rounding, and no more.
#[test]
fn native_single_precision_is_within_1e_minus_5() {
    for config in configs() {
        compare(4, &config, Kind::Float, 1e-5);
    }
}

/// More than the 512 samples of which each tile of 16 is a part of its own: three tiles a part, the last one not full.
const LARGE_BATCH: i64 = 1100;

#[test]
fn threads_change_no_bit() {
    for config in configs() {
        let [one, two, five] = [1, 2, 5].map(|threads| {
            let model = model(&config, Kind::Float, EngineChoice::Native, threads);
            everything_of(&model, Kind::Float, LARGE_BATCH)
        });
        for (((name, one), (_, two)), (_, five)) in one.iter().zip(&two).zip(&five) {
            assert!(one == two && one == five, "{name} of {config:?}");
        }
    }
}

#[test]
fn engines_agree_where_parts_of_the_gradient_have_several_tiles() {
    for config in configs() {
        let [torch, native] = [EngineChoice::Torch, EngineChoice::Native].map(|engine| {
            everything_of(&model(&config, Kind::Double, engine, 2), Kind::Double, LARGE_BATCH)
        });
        for ((name, expected), (_, values)) in torch.iter().zip(&native) {
            let error = relative_error(values, expected);
            assert!(error < 1e-10, "{name}: off by {error:e} for {config:?}");
        }
    }
}

/// Values and gradients, with their losses of one kind, of a batch at once and in small ones: the values of the small ones one
/// after the other, and the mean of their gradients.
#[test]
fn gradient_of_a_large_batch_is_the_mean_of_those_of_small_ones() {
    for config in configs() {
        let model = model(&config, Kind::Double, EngineChoice::Native, 2);
        let z = latents(&model, Kind::Double, LARGE_BATCH);
        let losses: [&dyn Fn(&Tensor) -> Loss; 3] = [
            &|z| model.loss(z, 0.7, Estimator::Total),
            &|z| model.loss(z, 0.7, Estimator::Path),
            &|x| model.likelihood_loss(x),
        ];
        for (index, loss) in losses.into_iter().enumerate() {
            let whole = loss(&z);
            let small: Vec<Loss> = z.split(BATCH, 0).iter().map(loss).collect();
            let values: Vec<&Tensor> = small.iter().map(|part| &part.values).collect();
            assert_eq!(whole.values, Tensor::cat(&values, 0), "{index} of {config:?}");
            let mut gradient = whole.gradient.zeros_like();
            for part in &small {
                gradient += &part.gradient * part.values.size()[0] as f64;
            }
            let error = relative_error(&whole.gradient, &(gradient / LARGE_BATCH as f64));
            assert!(error < 1e-12, "{index}: off by {error:e} for {config:?}");
        }
    }
}

#[test]
fn teams_compute_what_one_rank_does() {
    for ranks in [2, 3] {
        common::assert_holds_on_ranks(ranks, "member_gets_what_one_rank_computes");
    }
}

/// With 21 samples, which no team divides, and with fewer samples than members.
#[test]
#[ignore = "mpirun starts it"]
fn member_gets_what_one_rank_computes() {
    let ranks = Ranks::start().expect("MPI has threads");
    assert!(ranks.size() > 1, "mpirun starts it");
    let team = ranks.team(ranks.size());
    let compare = |config: &FlowConfig, engine, (kind, bound), batch| {
        let alone = everything_of(&model(config, kind, engine, 1), kind, batch);
        let shared = model(config, kind, engine, 1).with_team(&team);
        let shared = everything_of(&shared, kind, batch);
        assert_eq!(alone.len(), shared.len());
        let mut values = Vec::new();
        for ((name, expected), (_, found)) in alone.iter().zip(&shared) {
            let shape = (found.kind(), found.size());
            assert_eq!(shape, (expected.kind(), expected.size()), "{name}");
            let error = relative_error(found, expected);
            assert!(error < bound, "{engine:?}, {name}: off by {error:e} for {config:?}");
            values.extend(to_array::<ndarray::IxDyn>(found));
        }
        assert_eq!(values, team.leaders(values.clone()), "all members have the same");
    };
    // A failure must not leave the others waiting.
    let all = team.together(|| {
        for (index, config) in configs().iter().enumerate() {
            for engine in [EngineChoice::Native, EngineChoice::Torch] {
                compare(config, engine, (Kind::Double, 1e-13), BATCH);
                if index % 8 == 0 {
                    compare(config, engine, (Kind::Double, 1e-13), 1);
                    compare(config, engine, (Kind::Float, 1e-5), BATCH);
                }
            }
        }
        Ok(())
    });
    all.unwrap();
}

/// The path gradient leaves out a term of mean zero: over many samples both estimators agree.
#[test]
fn path_gradient_has_the_same_mean() {
    let config = FlowConfig { couplings: 3, hidden_layers: 1, ..Default::default() };
    let model = model(&config, Kind::Double, EngineChoice::Native, 1);
    let batches: Vec<Tensor> = (0..200)
        .map(|i| {
            tch::manual_seed(100 + i);
            let z = Tensor::randn([64, 4, 4], (Kind::Double, Device::Cpu));
            let [total, path] = [Estimator::Total, Estimator::Path]
                .map(|estimator| model.loss(&z, 0.0, estimator).gradient);
            total - path
        })
        .collect();
    let differences = Tensor::stack(&batches, 0);
    let error = differences.std_dim([0i64].as_slice(), true, false) / 200f64.sqrt();
    let mean = differences.mean_dim([0i64].as_slice(), false, Kind::Double);
    let used = error.gt(1e-9);
    let pulls = (mean / error).masked_select(&used);
    let largest = pulls.abs().max().double_value(&[]);
    let spread = pulls.std(true).double_value(&[]);
    assert!(largest < 5.0 && (0.8..1.2).contains(&spread), "pulls to {largest}, spread {spread}");
}

/// So low that all spins point up or all down, but for one in e^{8/T} = 10¹⁷ fields.
const COLD: f64 = 0.2;

/// A flow, with random weights wherever they do not matter, that is exact at low temperature: with spins all up or all down
/// the target is a pair of Gaussians of covariance A = K + αI with means ±A1. That is the mixture of the flow
/// x = A^(1/2) (z + m), whose shift is m = √λ of the uniform mode.
fn exact_flow() -> Flow {
    let config = FlowConfig {
        couplings: 2,
        hidden_layers: 2,
        hidden_width: 6,
        splits: Splits::Cycle,
        networks: Networks::Joint,
        symmetry: Symmetry::Mixture,
        preconditioner: true,
        ..Default::default()
    };
    let architecture = Architecture::new(4, COLD, 1, 1, &config);
    let flow = Flow::initialize(architecture, &Random::new(3), Kind::Double, Device::Cpu);
    let mut parameters: Vec<f64> = to_array::<ndarray::Ix1>(&flow.parameters.detach()).to_vec();
    // How many couplings shift each site.
    let mut shifts = [0; 16];
    for coupling in flow.couplings().iter() {
        coupling.updated.iter().for_each(|&site| shifts[site as usize] += 1);
    }
    assert!(shifts[0] > 0 && shifts.iter().all(|&count| count == shifts[0]), "{shifts:?}");
    let shift = coupling_eigenvalues(4, 1.0 / COLD)[0].sqrt() / f64::from(shifts[0]);
    for coupling in flow.couplings().iter() {
        // The last of the parameters: weights of the outputs s, t, their biases, and the scales of s, which are 0.
        let sites = coupling.network.updated_per_row;
        let biases = coupling.parameters().end - 2 * sites;
        parameters[biases..biases + sites].fill(shift);
        let weights = biases - sites;
        parameters[weights - sites * config.hidden_width..weights].fill(0.0);
    }
    Flow::with_parameters(flow.architecture, &parameters, Kind::Double, Device::Cpu)
}

#[test]
fn path_gradient_has_no_noise_where_the_flow_is_exact() {
    for engine in [EngineChoice::Native, EngineChoice::Torch] {
        let model = Model::new(exact_flow(), &RunConfig { engine, ..Default::default() });
        let z = latents(&model, Kind::Double, 64);
        let [total, path] =
            [Estimator::Total, Estimator::Path].map(|estimator| model.loss(&z, 0.0, estimator));
        let free_energy = exact_ising(4, COLD).free_energy_field;
        let deviation = (&total.values - free_energy).abs().max().double_value(&[]);
        assert!(deviation < 1e-9, "{engine:?}: ln q - ln π is off by {deviation:e}");
        let [total, path] = [total, path].map(|loss| loss.gradient.abs().max().double_value(&[]));
        assert!(total > 0.1 && path < 1e-10, "{engine:?}: {total} and {path:e}");
    }
}
