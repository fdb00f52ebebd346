//! One table of all flows, put through the same tests on every engine: the inverse undoes the forward map, its log_det is
//! that of the Jacobian, gradients are finite differences; what is kept at each level, and responses.

use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, aview1, s};

use super::*;
use crate::engine::config::{EngineChoice, Precision, RunConfig};
use crate::engine::device::Device;
use crate::engine::native::in_precision;
use crate::flow::arrangement::{kinds_of_latents, latent_levels, without_finer};
use crate::flow::config::{Arrangement, FlowConfig, Symmetry};
use crate::flow::coupling::{Conditioner, Transform};
use crate::flow::symmetry::{ln_prior, with_signs};
use crate::flow::tests::{architecture, architectures, random_flow, small_config};
use crate::flow::{Architecture, Flow};
use crate::random::{Random, Use};
use crate::study::coarse;
use crate::study::response::responses;
use crate::targets::Target;

/// T of all models.
const TEMPERATURE: f64 = 2.3;

/// The flow away from its start on each engine of this program.
fn models(architecture: &Architecture, precision: Precision) -> Vec<Model> {
    models_of(&|| random_flow(architecture.clone()), precision)
}

fn models_of(flow: &dyn Fn() -> Flow, precision: Precision) -> Vec<Model> {
    let model = |engine| {
        let run = RunConfig { engine, precision, ..Default::default() };
        let flow = flow();
        let target = Target::ising_dual(flow.architecture.linear_size);
        Model::new(flow, target, TEMPERATURE, &run, Device::Cpu)
    };
    choices().into_iter().map(model).collect()
}

/// Engines of this program.
fn choices() -> Vec<EngineChoice> {
    let mut engines = vec![EngineChoice::Native];
    if cfg!(feature = "torch") {
        engines.push(EngineChoice::Torch);
    }
    engines
}

fn batch_of(architecture: &Architecture) -> Array2<f64> {
    Random::new(5).normals(Use::Latents, 0..3, architecture.sites())
}

fn largest<D: ndarray::Dimension>(difference: &ndarray::Array<f64, D>) -> f64 {
    difference.iter().map(|value| value.abs()).max_by(f64::total_cmp).unwrap_or(0.0)
}

/// ln|det ∂z/∂x| of each sample.
fn jacobian(model: &Model, x: ArrayView2<f64>) -> Array1<f64> {
    let sites = x.ncols();
    let derivatives = model.inverse_derivatives(x, &(0..sites).collect::<Vec<_>>());
    let of_sample = |sample| {
        let derivative = derivatives.index_axis(Axis(1), sample);
        let matrix = nalgebra::DMatrix::from_fn(sites, sites, |i, j| derivative[[i, j]]);
        matrix.lu().u().diagonal().iter().map(|pivot| pivot.abs().ln()).sum()
    };
    (0..x.nrows()).map(of_sample).collect()
}

/// Each engine of this program with a flow and its target.
fn engines(architecture: &Architecture, precision: Precision) -> Vec<(Box<dyn Engine>, Flow)> {
    let flow = || random_flow(architecture.clone());
    let target = Target::ising_dual(architecture.linear_size);
    let couplings = flow();
    let couplings = couplings.couplings();
    let native = in_precision(precision, architecture, couplings, Some(&target), 1);
    let torch = torch_engine(architecture, &target, precision);
    std::iter::once((native, flow())).chain(torch).collect()
}

#[cfg(feature = "torch")]
fn torch_engine(
    architecture: &Architecture,
    target: &Target,
    precision: Precision,
) -> Option<(Box<dyn Engine>, Flow)> {
    let flow = random_flow(architecture.clone());
    let torch = torch::Torch::new(&flow, Some(target), precision, Device::Cpu, 1);
    Some((Box::new(torch), flow))
}

#[cfg(not(feature = "torch"))]
fn torch_engine(_: &Architecture, _: &Target, _: Precision) -> Option<(Box<dyn Engine>, Flow)> {
    None
}

/// A batch of several temperatures is what its parts are at theirs, with and without the Gaussian layer, wherever the
/// temperature changes in it.
#[test]
fn each_sample_is_evaluated_at_its_own_temperature() {
    let temperatures: Vec<f64> =
        [(2.0, 3), (2.5, 18), (2.0, 2)].iter().flat_map(|&(t, n)| vec![t; n]).collect();
    for preconditioner in [false, true] {
        for symmetry in [Symmetry::None, Symmetry::Mixture] {
            let config = FlowConfig { preconditioner, symmetry, ..small_config() };
            let architecture = architecture(4, 2, &config);
            let z = Random::new(6).normals(Use::Latents, 0..temperatures.len(), 16);
            let all = Batch::new(z.view(), aview1(&temperatures));
            for (engine, flow) in engines(&architecture, Precision::F64) {
                let parameters = flow.parameters.view();
                let draw = engine.draw(parameters, all);
                let x = Batch::new(draw.field.view(), aview1(&temperatures));
                let potential = engine.potential(parameters, all);
                let back = engine.inverse(parameters, x);
                let ln_q = engine.ln_likelihood(parameters, x);
                let forward = engine.forward(parameters, all);
                let likelihood = engine.likelihood_loss(parameters, x);
                let derivatives = engine.inverse_derivatives(parameters, x, &[3]);
                let loss = engine.loss(parameters, all, 0.0, Estimator::Path);
                let mut gradient = Array1::<f64>::zeros(parameters.len());
                let mut of_likelihood = gradient.clone();
                for samples in [0..3, 3..21, 21..23] {
                    let temperature = temperatures[samples.start];
                    assert!(temperatures[samples.clone()].iter().all(|t| *t == temperature));
                    let rows =
                        |array: &Array2<f64>| array.slice(s![samples.clone(), ..]).to_owned();
                    let numbers = |array: &Array1<f64>| array.slice(s![samples.clone()]).to_owned();
                    let (z, x) = (rows(&z), rows(&draw.field));
                    let alone = Batch::uniform(z.view(), &temperature);
                    let x = Batch::uniform(x.view(), &temperature);
                    let found = engine.draw(parameters, alone);
                    assert!(largest(&(found.field - rows(&draw.field))) < 1e-12);
                    assert!(largest(&(found.ln_q - numbers(&draw.ln_q))) < 1e-10);
                    let density = Target::ising_dual(4).density(temperature);
                    let ln_pi = density.ln_density(rows(&draw.field).view());
                    assert!(largest(&(ln_pi - numbers(&draw.ln_pi))) < 1e-10);
                    let found = engine.potential(parameters, alone);
                    assert!(largest(&(found.energy - numbers(&potential.energy))) < 1e-10);
                    assert!(largest(&(found.gradient - rows(&potential.gradient))) < 1e-10);
                    let found = engine.inverse(parameters, x);
                    assert!(largest(&(found.field - rows(&back.field))) < 1e-10);
                    assert!(largest(&(found.log_det - numbers(&back.log_det))) < 1e-10);
                    let found = engine.ln_likelihood(parameters, x);
                    assert!(largest(&(found - numbers(&ln_q))) < 1e-10);
                    let found = engine.forward(parameters, alone);
                    assert!(largest(&(found.field - rows(&forward.field))) < 1e-12);
                    assert!(largest(&(found.log_det - numbers(&forward.log_det))) < 1e-10);
                    let found = engine.inverse_derivatives(parameters, x, &[3]);
                    let expected = derivatives.slice(s![.., samples.clone(), ..]);
                    assert!(largest(&(found - expected)) < 1e-10);
                    let of_x = engine.likelihood_loss(parameters, x);
                    let found = engine.loss(parameters, alone, 0.0, Estimator::Path);
                    let share = samples.len() as f64 / temperatures.len() as f64;
                    gradient.scaled_add(share, &found.gradient);
                    of_likelihood.scaled_add(share, &of_x.gradient);
                }
                assert!(largest(&(gradient - loss.gradient)) < 1e-10);
                assert!(largest(&(of_likelihood - likelihood.gradient)) < 1e-10);
            }
        }
    }
}

/// Without a target its density is NaN and so is every derivative of it, on all engines.
#[test]
fn without_a_target_nothing_that_needs_it_is_a_number() {
    let architecture = architecture(4, 1, &small_config());
    let z = batch_of(&architecture);
    for choice in choices() {
        let run = RunConfig { engine: choice, precision: Precision::F64, ..Default::default() };
        let model = Model::without_target(random_flow(architecture.clone()), &run, Device::Cpu);
        let draw = model.draw(z.view());
        assert!(draw.ln_pi.iter().all(|value| value.is_nan()));
        assert!(draw.ln_q.iter().chain(&draw.field).all(|value| value.is_finite()));
        let loss = model.loss(z.view(), 0.0, Estimator::Total);
        assert!(loss.values.iter().chain(&loss.gradient).any(|value| value.is_nan()));
        let potential = model.potential(z.view());
        assert!(potential.energy.iter().chain(&potential.gradient).any(|value| value.is_nan()));
        assert!(model.likelihood_loss(draw.field.view()).gradient.iter().all(|g| g.is_finite()));
    }
}

/// Latents that an engine draws are those that the host draws, wherever a batch begins and however it is cut.
#[test]
fn engines_draw_the_latents_of_the_host() {
    let architecture = architecture(4, 2, &small_config());
    let random = Random::new(8);
    for (engine, flow) in engines(&architecture, Precision::F64) {
        let parameters = flow.parameters.view();
        for samples in [0..40, 7..12, 100..133] {
            let z = random.normals(Use::Latents, samples.clone(), 16);
            let given = Batch::uniform(z.view(), &TEMPERATURE);
            let drawn = Batch::prior(&random, samples, 16, &TEMPERATURE);
            assert_eq!(engine.draw(parameters, given), engine.draw(parameters, drawn));
            let losses = [given, drawn].map(|z| engine.loss(parameters, z, 0.0, Estimator::Total));
            assert_eq!(losses[0], losses[1]);
        }
    }
}

#[test]
fn inverse_undoes_forward_and_log_det_is_the_jacobians() {
    for architecture in architectures() {
        let z = batch_of(&architecture);
        for model in models(&architecture, Precision::F64) {
            let name = format!("{architecture:?}");
            let Image { field: x, log_det } = model.forward(z.view());
            let back = model.inverse(x.view());
            assert!(largest(&(&back.field - &z)) < 1e-10, "{name}: inverse");
            assert!(largest(&(&log_det + &back.log_det)) < 1e-10, "{name}: log_dets cancel");
            let jacobian = jacobian(&model, x.view());
            assert!(largest(&(back.log_det - jacobian)) < 1e-10, "{name}: log_det");
            assert!(largest(&log_det) > 1e-3, "{name}: a map that changes no volume tests nothing");
        }
    }
}

/// In f32 rounding errors of some 1e-7 grow through the couplings' slopes, those of bumps most. The
/// bounds are far below what a wrong formula gives.
#[test]
fn single_precision_keeps_the_identity() {
    for architecture in architectures() {
        let bound = match architecture.config.transform {
            Transform::Affine => 1e-4,
            Transform::Bump => 1e-3,
        };
        let z = batch_of(&architecture);
        for model in models(&architecture, Precision::F32) {
            let Image { field: x, log_det } = model.forward(z.view());
            let back = model.inverse(x.view());
            let (identity, volume) =
                (largest(&(back.field - &z)), largest(&(log_det + back.log_det)));
            let fits = identity < bound && volume < bound;
            assert!(fits, "{architecture:?}: {identity:e}, {volume:e}");
        }
    }
}

#[test]
fn odd_flows_commute_with_the_sign() {
    for architecture in architectures() {
        let odd = architecture.config.conditioner == Conditioner::Odd;
        let z = batch_of(&architecture);
        for model in models(&architecture, Precision::F64) {
            let (straight, flipped) = (model.forward(z.view()), model.forward((-&z).view()));
            let difference = largest(&(straight.field + flipped.field))
                + largest(&(straight.log_det - flipped.log_det));
            assert_eq!(difference < 1e-10, odd, "{difference:e}");
        }
    }
}

/// The inverse of a bump has the derivatives of the implicit function that it is.
#[test]
fn density_gradients_to_parameters_equal_finite_differences() {
    for architecture in architectures() {
        let x = batch_of(&architecture);
        for mut model in models(&architecture, Precision::F64) {
            let gradient = model.likelihood_loss(x.view()).gradient;
            let centre = model.flow.parameters.clone();
            let direction = Random::new(6).normals(Use::Momenta, 0..1, centre.len());
            let direction = direction.row(0);
            let mut along = |shift: f64| {
                model.flow.parameters = &centre + &(&direction * shift);
                model.likelihood_loss(x.view()).values.mean().unwrap()
            };
            let numeric = (along(1e-5) - along(-1e-5)) / 2e-5;
            let analytic = gradient.dot(&direction);
            let error = (numeric / analytic - 1.0).abs();
            assert!(error < 1e-5, "{architecture:?}: {numeric}, {analytic}");
        }
    }
}

#[test]
fn a_depth_cut_leaves_the_coarse_field_to_the_prior() {
    let architecture = architecture(8, 1, &small_config());
    let z = batch_of(&architecture);
    // Sites that are two apart share no block of level 0, so their blocks cannot see each other beyond
    // the disentangler's reach: a far latent changes nothing.
    let mut changed = z.clone();
    changed.column_mut(4 * 8 + 4).fill(3.0);
    for model in models(&architecture, Precision::F64) {
        let difference = model.forward(z.view()).field - model.forward(changed.view()).field;
        let reach = difference.map_axis(Axis(0), |values| largest(&values.to_owned()));
        assert!(reach[4 * 8 + 4] > 0.0);
        for far in [0, 1, 2, 7] {
            assert_eq!(reach[far * 8 + far], 0.0, "site {far}");
        }
    }
}

#[test]
fn the_coarsest_latent_is_a_function_of_the_whole_field_at_full_depth() {
    for arrangement in [Arrangement::Mera, Arrangement::Checkerboard] {
        let config = FlowConfig { arrangement, couplings: 6, ..small_config() };
        let architecture = architecture(8, 3, &config);
        let z = batch_of(&architecture);
        for model in models(&architecture, Precision::F64) {
            let x = model.forward(z.view()).field;
            let of_coarsest = model.inverse_derivatives(x.view(), &[0]);
            assert!(of_coarsest.iter().all(|slope| *slope != 0.0));
        }
    }
}

#[test]
fn a_fresh_flow_is_a_pure_shift_whose_scales_have_gradients() {
    for architecture in architectures() {
        if architecture.config.transform != Transform::Affine {
            continue;
        }
        let x = batch_of(&architecture);
        let fresh = || Flow::initialize(architecture.clone(), &Random::new(4));
        for model in models_of(&fresh, Precision::F64) {
            let log_det = model.forward_through(0..model.flow.couplings().len(), x.view()).log_det;
            assert_eq!(largest(&log_det), 0.0);
            let gradient = model.likelihood_loss(x.view()).gradient;
            for coupling in model.flow.couplings().iter() {
                let slope = gradient[coupling.parameters().end - 1];
                assert!(slope != 0.0, "{architecture:?}");
            }
        }
    }
}

#[test]
fn parts_of_the_map_compose_to_the_whole() {
    for architecture in architectures().into_iter().filter(|a| !a.config.preconditioner) {
        let name = format!("{architecture:?}");
        let z = batch_of(&architecture);
        let cuts: Vec<usize> = (0..=architecture.depth)
            .rev()
            .map(|level| architecture.couplings_down_to(level))
            .collect();
        assert!(cuts.is_sorted() && *cuts.last().unwrap() == architecture.couplings().len());
        for model in models(&architecture, Precision::F64) {
            let Image { mut field, mut log_det } = model.forward_through(0..cuts[0], z.view());
            for range in cuts.windows(2) {
                let range = range[0]..range[1];
                let next = model.forward_through(range.clone(), field.view());
                let back = model.inverse_through(range.clone(), next.field.view());
                assert!(largest(&(back.field - &field)) < 1e-10, "{name}: {range:?}");
                assert!(largest(&(&next.log_det + &back.log_det)) < 1e-10, "{name}: {range:?}");
                log_det += &next.log_det;
                field = next.field;
            }
            let whole = model.forward(z.view());
            assert!(largest(&(field - whole.field)) < 1e-12, "{name}");
            assert!(largest(&(log_det - whole.log_det)) < 1e-12, "{name}");
        }
    }
}

fn with_levels() -> impl Iterator<Item = Architecture> {
    architectures().into_iter().filter(|a| a.config.arrangement.has_levels())
}

/// Sites that are multiples of 2^level.
fn places(size: usize, level: usize) -> Vec<usize> {
    let step = 1 << level;
    let along = (0..size).step_by(step);
    along.clone().flat_map(|row| along.clone().map(move |column| row * size + column)).collect()
}

/// As the definition has it: the kept field is a function of the latents that are not finer, and its density
/// follows from the Jacobian of this function.
#[test]
fn kept_variables_are_functions_of_their_own_latents() {
    for architecture in with_levels() {
        let z = batch_of(&architecture);
        for model in models(&architecture, Precision::F64) {
            for kept in coarse::kept(&model, z.view()) {
                // Finer latents are anything.
                let mut other = Array2::from_elem(z.dim(), 0.7);
                for site in places(architecture.linear_size, kept.level) {
                    other.column_mut(site).assign(&z.column(site));
                }
                let others = coarse::kept(&model, other.view());
                let same = others.into_iter().find(|other| other.level == kept.level).unwrap();
                assert!(largest(&(same.field - &kept.field)) < 1e-12, "{architecture:?}");
                assert!(largest(&(same.ln_q - &kept.ln_q)) < 1e-10, "{architecture:?}");
            }
        }
    }
}

/// With the mixture, kept variables and their negatives are equally likely; at level 0 the density is that
/// of the flow.
#[test]
fn kept_variables_of_the_mixture_have_its_density() {
    let config = FlowConfig { symmetry: Symmetry::Mixture, ..small_config() };
    let architecture = architecture(8, 3, &config);
    let z = batch_of(&architecture);
    for model in models(&architecture, Precision::F64) {
        let levels = coarse::kept(&model, z.view());
        assert_eq!(levels.iter().map(|kept| kept.level).collect::<Vec<_>>(), [3, 2, 1, 0]);
        let draw = model.draw(z.view());
        let finest = levels.last().unwrap();
        assert!(largest(&(&finest.field - &draw.field)) < 1e-12);
        assert!(largest(&(&finest.ln_q - &draw.ln_q)) < 1e-12);
        // The latents of -y have the same density of y.
        let couplings = architecture.couplings_down_to(1);
        let field = model.forward_through(0..couplings, z.view()).field;
        let mirrored = model.inverse_through(0..couplings, (-field).view()).field;
        let other = &coarse::kept(&model, mirrored.view())[2];
        assert!(largest(&(&other.field + &levels[2].field)) < 1e-10);
        assert!(largest(&(&other.ln_q - &levels[2].ln_q)) < 1e-10);
    }
}

#[test]
fn fields_get_sharper_level_by_level_up_to_the_whole_one() {
    for architecture in with_levels() {
        let z = batch_of(&architecture);
        for model in models(&architecture, Precision::F64) {
            let blurred = |level| {
                let latents = without_finer(&architecture, z.view(), level);
                model.forward(latents.view()).field
            };
            let whole = model.forward(z.view()).field;
            assert!(largest(&(blurred(0) - &whole)) == 0.0);
            for level in 1..=architecture.depth {
                let latents = model.inverse(blurred(level).view()).field;
                let own = places(architecture.linear_size, level);
                let thin = |x: &Array2<f64>| x.select(Axis(1), &own);
                assert!(largest(&(thin(&latents) - thin(&z))) < 1e-9, "{architecture:?}");
                let rest = latents.pow2().sum() - thin(&z).pow2().sum();
                assert!(rest.abs() < 1e-7, "{architecture:?}: finer latents are 0");
            }
        }
    }
}

#[test]
fn responses_are_finite_differences_of_the_latents() {
    let mixtures = [Arrangement::Mera, Arrangement::Checkerboard].map(|arrangement| {
        architecture(
            4,
            2,
            &FlowConfig { arrangement, symmetry: Symmetry::Mixture, ..small_config() },
        )
    });
    for architecture in architectures().into_iter().chain(mixtures) {
        let (size, sites) = (architecture.linear_size, architecture.sites());
        let x = batch_of(&architecture);
        let latents = [0, 1, 2 * size + 1];
        for model in models(&architecture, Precision::F64) {
            let found = responses(&model, x.view(), &latents);
            // Both signs with their probabilities, as in Eq. D.4.
            let ln_q = |x: &Array2<f64>| {
                let image = model.inverse(x.view());
                ln_prior(image.field.view()) + image.log_det
            };
            let odds = (ln_q(&-&x) - ln_q(&x)).mapv(|difference| 1.0 / (1.0 + difference.exp()));
            let signs = match model.symmetry() {
                Symmetry::Mixture => vec![(1.0, odds.clone()), (-1.0, 1.0 - &odds)],
                _ => vec![(1.0, Array1::ones(3))],
            };
            let step = 1e-5;
            for j in [0, size + 1, sites - 1] {
                let mut expected = Array2::<f64>::zeros((3, 3));
                for (sign, probability) in &signs {
                    let z = |shift: f64| {
                        let mut x = &x * *sign;
                        x.column_mut(j).iter_mut().for_each(|value| *value += shift);
                        model.inverse(x.view()).field.select(Axis(1), &latents)
                    };
                    let slope = (z(step) - z(-step)) / (2.0 * step);
                    expected += &(&slope.t() * probability);
                }
                let error = largest(&(&found.index_axis(Axis(2), j) - &expected));
                assert!(error < 1e-6, "{architecture:?}: {error}");
            }
        }
    }
}

/// Averaged over the mixture, weighting with the sign's probability is the same as taking each sample with the
/// sign that it was drawn with.
#[test]
fn mean_responses_of_the_mixture_are_those_of_the_flow_at_its_own_samples() {
    let config = FlowConfig { symmetry: Symmetry::Mixture, ..small_config() };
    let samples = 20_000;
    let z = Random::new(7).normals(Use::Latents, 0..samples, 16);
    let model = |config: &FlowConfig| {
        models(&architecture(4, 2, config), Precision::F64).into_iter().next().unwrap()
    };
    let flow = model(&config);
    let x = flow.forward(z.view()).field;
    let without = model(&FlowConfig { symmetry: Symmetry::None, ..config });
    let mixed = with_signs(x.clone(), Symmetry::Mixture, &Random::new(1), 0);
    let mean = |values: &Array3<f64>| values.mean_axis(Axis(1)).unwrap();
    let answers = |model: &Model, x: &Array2<f64>| responses(model, x.view(), &[0, 1]);
    let difference = answers(&flow, &mixed) - answers(&without, &x);
    let error = difference.std_axis(Axis(1), 1.0) / (samples as f64).sqrt();
    // Some sites lie beyond what a latent sees.
    assert!((mean(&difference).abs() - &error * 4.5).iter().all(|excess| *excess <= 0.0));
    // It matters which sign: here the answers of both differ.
    let (other, own) = (mean(&answers(&without, &-&x)), mean(&answers(&flow, &mixed)));
    assert!(((own - other).abs() - error * 10.0).iter().any(|excess| *excess > 0.0));
}

#[test]
fn latents_of_one_kind_respond_alike_to_translated_fields() {
    let has_translations = |it: &Architecture| it.config.arrangement != Arrangement::Halves;
    for architecture in architectures().into_iter().filter(has_translations) {
        let name = format!("{architecture:?}");
        let (size, depth) = (architecture.linear_size, architecture.depth);
        let levels = latent_levels(&architecture);
        let kinds = kinds_of_latents(&architecture);
        assert!(kinds.iter().map(|&site| levels[site]).is_sorted_by(|a, b| a >= b), "{name}");
        let x = batch_of(&architecture);
        let moved_by = |site: usize, down: usize, right: usize| {
            (site / size + down) % size * size + (site % size + right) % size
        };
        for model in models(&architecture, Precision::F64) {
            let z = model.inverse(x.view()).field;
            let mut seen = 0;
            for &site in &kinds {
                let cell = 1 << depth.min(levels[site] + 1);
                let shifts = (0..size).step_by(cell);
                for (down, right) in
                    shifts.clone().flat_map(|down| shifts.clone().map(move |right| (down, right)))
                {
                    seen += 1;
                    let mut moved = x.clone();
                    for from in 0..size * size {
                        moved.column_mut(moved_by(from, down, right)).assign(&x.column(from));
                    }
                    let moved = model.inverse(moved.view()).field;
                    let there = moved.column(moved_by(site, down, right));
                    let difference = largest(&(&z.column(site) - &there));
                    assert!(difference < 1e-9, "{name}: {site} {down} {right}");
                }
            }
            assert_eq!(seen, size * size, "{name}: every latent is of one kind");
        }
    }
}

/// What only torch knows: Jacobians by autograd.
#[cfg(feature = "torch")]
mod autograd {
    use ndarray::ArrayView1;
    use tch::{Kind, Tensor};

    use super::*;
    use crate::engine::torch::Torch;

    fn tensor(values: &Array2<f64>) -> Tensor {
        let values = values.as_standard_layout();
        let [batch, columns] = [values.nrows(), values.ncols()].map(|length| length as i64);
        Tensor::from_slice(values.as_slice().unwrap()).view([batch, columns])
    }

    /// ln|det ∂y/∂x| of each sample, by one backward pass for each output. Shapes: x and y (batch, n).
    fn log_det(map: &dyn Fn(&Tensor) -> Tensor, x: &Tensor) -> Vec<f64> {
        let x = x.detach().set_requires_grad(true);
        let outputs = map(&x);
        let rows: Vec<Tensor> = (0..outputs.size()[1])
            .map(|i| {
                let output = outputs.select(1, i).sum(Kind::Double);
                Tensor::run_backward(&[output], &[&x], true, false).pop().unwrap()
            })
            .collect();
        Tensor::stack(&rows, 1).slogdet().1.try_into().unwrap()
    }

    fn close(found: ArrayView1<f64>, expected: &[f64], bound: f64, name: &str) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < bound, "{name}: {found} and {expected}");
        }
    }

    #[test]
    fn log_det_is_that_of_autograds_jacobian_in_both_directions() {
        for architecture in architectures() {
            let name = format!("{architecture:?}");
            let flow = random_flow(architecture.clone());
            let target = Target::ising_dual(architecture.linear_size);
            let torch = Torch::new(&flow, Some(&target), Precision::F64, Device::Cpu, 1);
            let map = torch.map(flow.parameters.view(), TEMPERATURE);
            let size = architecture.linear_size as i64;
            let fields = |x: &Tensor| x.view([-1, size, size]);
            let z = batch_of(&architecture);
            for model in models(&architecture, Precision::F64) {
                let image = model.forward(z.view());
                let expected = log_det(&|z| map.forward(&fields(z)).0.flatten(1, -1), &tensor(&z));
                close(image.log_det.view(), &expected, 1e-10, &name);
                let back = model.inverse(image.field.view());
                let inverse = |x: &Tensor| map.inverse(&fields(x)).0.flatten(1, -1);
                let expected = log_det(&inverse, &tensor(&image.field));
                close(back.log_det.view(), &expected, 1e-10, &name);
            }
        }
    }

    #[test]
    fn kept_variables_have_the_density_of_their_own_latents() {
        for architecture in with_levels() {
            let name = format!("{architecture:?}");
            let flow = random_flow(architecture.clone());
            let target = Target::ising_dual(architecture.linear_size);
            let torch = Torch::new(&flow, Some(&target), Precision::F64, Device::Cpu, 1);
            let map = torch.map(flow.parameters.view(), TEMPERATURE);
            let size = architecture.linear_size;
            let z = batch_of(&architecture);
            let model = models(&architecture, Precision::F64).remove(0);
            for kept in coarse::kept(&model, z.view()) {
                let sites = places(size, kept.level);
                let index: Vec<i64> = sites.iter().map(|&site| site as i64).collect();
                let index = Tensor::from_slice(&index);
                let couplings = architecture.couplings_down_to(kept.level);
                let place = |own: &Tensor| {
                    // Finer latents are anything.
                    let all = Tensor::ones([3, (size * size) as i64], tch::kind::DOUBLE_CPU) * 0.7;
                    let all = all.index_copy(1, &index, own);
                    let all = all.view([3, size as i64, size as i64]);
                    let (field, _) = map.forward_through(0..couplings, &all);
                    field.flatten(1, -1).index_select(1, &index)
                };
                let own = z.select(Axis(1), &sites);
                let jacobian = Array1::from(log_det(&place, &tensor(&own)));
                let expected = ln_prior(own.view()) - jacobian;
                close(kept.ln_q.view(), expected.as_slice().unwrap(), 1e-10, &name);
            }
        }
    }

    /// The device is a GPU where the machine has one.
    #[test]
    fn the_machines_device_computes_what_the_cpu_does() {
        use crate::engine::config::DeviceChoice;

        let device = device::select(EngineChoice::Torch, DeviceChoice::Auto, 0).unwrap();
        let architecture = architecture(4, 2, &small_config());
        let z = batch_of(&architecture);
        let run = RunConfig { engine: EngineChoice::Torch, ..Default::default() };
        let [here, there] = [Device::Cpu, device].map(|device| {
            let (flow, target) = (random_flow(architecture.clone()), Target::ising_dual(4));
            Model::new(flow, target, TEMPERATURE, &run, device).forward(z.view())
        });
        let close = |a: f64, b: f64| (a - b).abs() < 1e-4;
        assert!(here.field.iter().zip(&there.field).all(|(&a, &b)| close(a, b)));
    }
}
