//! The native engine against the torch engine, whose gradients come from autograd, and both in teams against
//! themselves alone: every arrangement, conditioner, transform and symmetry.

use ndarray::{Array1, Array2, ArrayD, ArrayView2, Axis, concatenate, stack};
use neuralrg::engine::config::{EngineChoice, Estimator, Precision, RunConfig};
use neuralrg::engine::device::Device;
use neuralrg::engine::{Loss, Model};
use neuralrg::flow::config::{Arrangement, FlowConfig, Neighbours, Splits, Symmetry};
use neuralrg::flow::coupling::{Conditioner, Networks, Transform};
use neuralrg::flow::{Architecture, Flow};
use neuralrg::random::{Random, Use};
use neuralrg::ranks::Ranks;
use neuralrg::targets::Target;
use neuralrg::targets::exact::exact_ising;
use neuralrg::targets::ising::coupling_eigenvalues;

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
fn model(config: &FlowConfig, precision: Precision, engine: EngineChoice, threads: usize) -> Model {
    model_on(4, config, precision, engine, threads)
}

fn model_on(
    linear_size: usize,
    config: &FlowConfig,
    precision: Precision,
    engine: EngineChoice,
    threads: usize,
) -> Model {
    let depth = linear_size.ilog2() as usize;
    let architecture = Architecture::new(linear_size, depth, 1, config);
    let random = Random::new(3);
    let mut flow = Flow::initialize(architecture, &random);
    // Many layers far from the identity would amplify rounding.
    let deviation = match config.transform {
        Transform::Affine if linear_size > 4 => 0.05,
        Transform::Affine => 0.2,
        Transform::Bump => 0.03,
    };
    let kick = random.normals(Use::Momenta, 0..1, flow.parameters.len());
    flow.parameters.scaled_add(deviation, &kick.row(0));
    let run = RunConfig { engine, precision, threads, ..Default::default() };
    Model::new(flow, Target::ising_dual(linear_size), TEMPERATURE, &run, Device::Cpu)
}

/// The engines of this program.
fn engines() -> Vec<EngineChoice> {
    match cfg!(feature = "torch") {
        true => vec![EngineChoice::Native, EngineChoice::Torch],
        false => vec![EngineChoice::Native],
    }
}

/// No multiple of the native engine's 16 lanes.
const BATCH: usize = 21;

fn latents(model: &Model, batch: usize) -> Array2<f64> {
    Random::new(4).normals(Use::Latents, 0..batch, model.flow.architecture.sites())
}

/// Everything that an engine computes, with names.
fn everything_of(model: &Model, batch: usize) -> Vec<(String, ArrayD<f64>)> {
    let z = latents(model, batch);
    let mut found = Vec::new();
    for estimator in [Estimator::Total, Estimator::Path] {
        let loss = model.loss(z.view(), 0.7, estimator);
        found.push((format!("losses, {estimator:?}"), loss.values.into_dyn()));
        found.push((format!("gradient, {estimator:?}"), loss.gradient.into_dyn()));
        found
            .extend(loss.asymmetry.map(|asymmetry| ("asymmetry".to_owned(), asymmetry.into_dyn())));
    }
    // Fields that the flow did not make: further out than its own.
    let x = &z * 1.5;
    let likelihood = model.likelihood_loss(x.view());
    found.push(("-ln q of given fields".to_owned(), likelihood.values.into_dyn()));
    found.push(("its gradient".to_owned(), likelihood.gradient.into_dyn()));
    found.push(("ln q of given fields".to_owned(), model.ln_likelihood(x.view()).into_dyn()));
    let (draw, potential) = (model.draw(z.view()), model.potential(z.view()));
    let (forward, inverse) = (model.forward(z.view()), model.inverse(x.view()));
    let some = 1..model.flow.couplings().len() - 1;
    let [part, back] =
        [model.forward_through(some.clone(), z.view()), model.inverse_through(some, x.view())];
    let named = [
        ("field", draw.field.into_dyn()),
        ("ln q", draw.ln_q.into_dyn()),
        ("ln π", draw.ln_pi.into_dyn()),
        ("potential", potential.energy.into_dyn()),
        ("force", potential.gradient.into_dyn()),
        ("field of the potential", potential.field.into_dyn()),
        ("field alone", forward.field.into_dyn()),
        ("its ln|det|", forward.log_det.into_dyn()),
        ("latents", inverse.field.into_dyn()),
        ("their ln|det|", inverse.log_det.into_dyn()),
        ("fields of some couplings", part.field.into_dyn()),
        ("their ln|det|", part.log_det.into_dyn()),
        ("latents of some couplings", back.field.into_dyn()),
        ("their ln|det|", back.log_det.into_dyn()),
        ("derivatives", model.inverse_derivatives(x.view(), &[0, 5]).into_dyn()),
    ];
    found.extend(named.map(|(name, values)| (name.to_owned(), values)));
    found
}

/// Largest difference, relative to the largest value.
fn relative_error(values: &ArrayD<f64>, expected: &ArrayD<f64>) -> f64 {
    let largest = |values: &ArrayD<f64>| {
        values.iter().map(|value| value.abs()).max_by(f64::total_cmp).unwrap_or(0.0)
    };
    largest(&(values - expected)) / largest(expected).max(f64::MIN_POSITIVE)
}

#[cfg(feature = "torch")]
fn compare(linear_size: usize, config: &FlowConfig, precision: Precision, bound: f64) {
    let model = |precision, engine| model_on(linear_size, config, precision, engine, 1);
    let torch = everything_of(&model(Precision::F64, EngineChoice::Torch), BATCH);
    let native = everything_of(&model(precision, EngineChoice::Native), BATCH);
    assert_eq!(torch.len(), native.len());
    for ((name, expected), (_, values)) in torch.iter().zip(&native) {
        let error = relative_error(values, expected);
        assert!(error < bound, "{name}: off by {error:e} for {config:?}");
    }
}

#[cfg(feature = "torch")]
#[test]
fn engines_agree_in_double_precision() {
    for config in configs() {
        compare(4, &config, Precision::F64, 1e-10);
    }
}

/// On larger lattices rows are worked on in several chunks, and wide networks are computed again in the
/// derivative, since their activations would not stay in the cache.
#[cfg(feature = "torch")]
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
        compare(16, &config, Precision::F64, 1e-10);
    }
}

/// Native f32 against torch f64: rounding, and no more.
#[cfg(feature = "torch")]
#[test]
fn native_single_precision_is_within_1e_minus_5() {
    for config in configs() {
        compare(4, &config, Precision::F32, 1e-5);
    }
}

/// More than the 512 samples of which each tile of 16 is a part of its own: three tiles a part, the last one not full.
const LARGE_BATCH: usize = 1100;

#[test]
fn threads_change_no_bit() {
    for config in configs() {
        let [one, two, five] = [1, 2, 5].map(|threads| {
            let model = model(&config, Precision::F32, EngineChoice::Native, threads);
            everything_of(&model, LARGE_BATCH)
        });
        for (((name, one), (_, two)), (_, five)) in one.iter().zip(&two).zip(&five) {
            assert!(one == two && one == five, "{name} of {config:?}");
        }
    }
}

#[cfg(feature = "torch")]
#[test]
fn engines_agree_where_parts_of_the_gradient_have_several_tiles() {
    for config in configs() {
        let [torch, native] = [EngineChoice::Torch, EngineChoice::Native]
            .map(|engine| everything_of(&model(&config, Precision::F64, engine, 2), LARGE_BATCH));
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
        let model = model(&config, Precision::F64, EngineChoice::Native, 2);
        let z = latents(&model, LARGE_BATCH);
        let loss = |index: usize, batch: ArrayView2<f64>| -> Loss {
            match index {
                0 => model.loss(batch, 0.7, Estimator::Total),
                1 => model.loss(batch, 0.7, Estimator::Path),
                _ => model.likelihood_loss(batch),
            }
        };
        for index in 0..3 {
            let whole = loss(index, z.view());
            let batches = z.axis_chunks_iter(Axis(0), BATCH);
            let small: Vec<Loss> = batches.map(|batch| loss(index, batch)).collect();
            let values: Vec<_> = small.iter().map(|part| part.values.view()).collect();
            assert_eq!(
                whole.values,
                concatenate(Axis(0), &values).unwrap(),
                "{index} of {config:?}"
            );
            let mut gradient = Array1::zeros(whole.gradient.len());
            for part in &small {
                gradient.scaled_add(part.values.len() as f64 / LARGE_BATCH as f64, &part.gradient);
            }
            let error = relative_error(&whole.gradient.into_dyn(), &gradient.into_dyn());
            assert!(error < 1e-12, "{index}: off by {error:e} for {config:?}");
        }
    }
}

#[test]
fn teams_compute_what_one_rank_does() {
    for ranks in [2, 3] {
        crate::common::assert_holds_on_ranks(ranks, "engines::member_gets_what_one_rank_computes");
    }
}

/// With 21 samples, which no team divides, and with fewer samples than members.
#[test]
#[ignore = "mpirun starts it"]
fn member_gets_what_one_rank_computes() {
    let ranks = Ranks::start().expect("MPI has threads");
    assert!(ranks.size() > 1, "mpirun starts it");
    let team = ranks.team(ranks.size());
    let compare = |config: &FlowConfig, engine, (precision, bound), batch| {
        let alone = everything_of(&model(config, precision, engine, 1), batch);
        let shared = model(config, precision, engine, 1).with_team(&team);
        let shared = everything_of(&shared, batch);
        assert_eq!(alone.len(), shared.len());
        let mut values: Vec<f64> = Vec::new();
        for ((name, expected), (_, found)) in alone.iter().zip(&shared) {
            assert_eq!(found.shape(), expected.shape(), "{name}");
            let error = relative_error(found, expected);
            assert!(error < bound, "{engine:?}, {name}: off by {error:e} for {config:?}");
            values.extend(found);
        }
        assert_eq!(values, team.leaders(values.clone()), "all members have the same");
    };
    // A failure must not leave the others waiting.
    let all = team.together(|| {
        for (index, config) in configs().iter().enumerate() {
            for engine in engines() {
                compare(config, engine, (Precision::F64, 1e-13), BATCH);
                if index % 8 == 0 {
                    compare(config, engine, (Precision::F64, 1e-13), 1);
                    compare(config, engine, (Precision::F32, 1e-5), BATCH);
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
    let model = model(&config, Precision::F64, EngineChoice::Native, 1);
    let batches: Vec<Array1<f64>> = (0..200)
        .map(|i| {
            let z = Random::new(100 + i).normals(Use::Latents, 0..64, 16);
            let [total, path] = [Estimator::Total, Estimator::Path]
                .map(|estimator| model.loss(z.view(), 0.0, estimator).gradient);
            total - path
        })
        .collect();
    let views: Vec<_> = batches.iter().map(Array1::view).collect();
    let differences = stack(Axis(0), &views).unwrap();
    let errors = differences.std_axis(Axis(0), 1.0) / 200f64.sqrt();
    let means = differences.mean_axis(Axis(0)).unwrap();
    let used = means.iter().zip(&errors).filter(|(_, error)| **error > 1e-9);
    let pulls: Array1<f64> = used.map(|(mean, error)| mean / error).collect();
    let largest = pulls.iter().fold(0.0_f64, |largest, pull| largest.max(pull.abs()));
    let spread = pulls.std(1.0);
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
    let architecture = Architecture::new(4, 1, 1, &config);
    let flow = Flow::initialize(architecture, &Random::new(3));
    let mut parameters = flow.parameters.to_vec();
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
    Flow::with_parameters(flow.architecture, parameters.into())
}

#[test]
fn path_gradient_has_no_noise_where_the_flow_is_exact() {
    for engine in engines() {
        let run = RunConfig { engine, precision: Precision::F64, ..Default::default() };
        let model = Model::new(exact_flow(), Target::ising_dual(4), COLD, &run, Device::Cpu);
        let z = latents(&model, 64);
        let [total, path] = [Estimator::Total, Estimator::Path]
            .map(|estimator| model.loss(z.view(), 0.0, estimator));
        let free_energy = exact_ising(4, COLD).free_energy_field;
        let largest = |values: &Array1<f64>| {
            values.iter().map(|value| value.abs()).max_by(f64::total_cmp).unwrap_or(0.0)
        };
        let deviation = largest(&(&total.values - free_energy));
        assert!(deviation < 1e-9, "{engine:?}: ln q - ln π is off by {deviation:e}");
        let [total, path] = [total, path].map(|loss| largest(&loss.gradient));
        assert!(total > 0.1 && path < 1e-10, "{engine:?}: {total} and {path:e}");
    }
}
