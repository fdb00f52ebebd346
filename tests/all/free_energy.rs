//! The variational free energy: target normalization, loss, symmetrizations and training, each against
//! something independent.

use std::time::Instant;

use crate::common::job::time;
use crate::common::{Sweep, contents};
use crate::enumeration::{FieldMixture, enumerate};
use nalgebra::DMatrix;
use ndarray::{Array1, Array2, ArrayView1, Axis, array};
use neuralrg::engine::config::{EngineChoice, Estimator, Precision, RunConfig};
use neuralrg::engine::device::Device;
use neuralrg::engine::{Image, Model};
use neuralrg::flow::config::{FlowConfig, Splits, Symmetry};
use neuralrg::flow::coupling::Networks;
use neuralrg::flow::symmetry::ln_prior;
use neuralrg::flow::{Architecture, Flow};
use neuralrg::random::{Random, Use};
use neuralrg::sampling::config::EvaluateConfig;
use neuralrg::sampling::evaluate::Evaluation;
use neuralrg::seed::{Stage, TaskSeed};
use neuralrg::statistics::mean_and_standard_error;
use neuralrg::targets::Target;
use neuralrg::targets::exact::exact_ising;
use neuralrg::task::Task;
use neuralrg::train::config::{Schedule, TrainConfig};
use neuralrg::train::{batch, learning_rate, train};

const CRITICAL_TEMPERATURE: f64 = 2.269185314213022;

fn seed(temperature: f64) -> TaskSeed {
    Task { linear_size: 4, temperature, depth: 2, seed: 1 }.streams()
}

/// A small flow on 4 × 4, its random weights kicked so that it is far from symmetric.
fn lopsided_flow(symmetry: Symmetry, kick: f64) -> Flow {
    let config = FlowConfig {
        couplings: 3,
        hidden_layers: 1,
        splits: Splits::Cycle,
        networks: Networks::Joint,
        hidden_width: 6,
        symmetry,
        ..Default::default()
    };
    let random = seed(2.0).at(Stage::Initialize, 0);
    let architecture = Architecture::new(4, 2, 1, &config);
    let mut flow = Flow::initialize(architecture, &random);
    let direction = direction(1, &flow.parameters);
    flow.parameters.scaled_add(kick, &direction);
    flow
}

/// A random direction in the space of the parameters.
fn direction(seed: u64, parameters: &Array1<f64>) -> Array1<f64> {
    Random::new(seed).normals(Use::NormalParameters, 0..1, parameters.len()).row(0).to_owned()
}

/// Standard normal numbers on 4 × 4 sites.
fn normals(seed: u64, samples: usize) -> Array2<f64> {
    Random::new(seed).normals(Use::Latents, 0..samples, 16)
}

fn with_engine(flow: Flow, temperature: f64, engine: EngineChoice) -> Model {
    let run = RunConfig { engine, precision: Precision::F64, ..Default::default() };
    Model::new(flow, Target::ising_dual(4), temperature, &run, Device::Cpu)
}

/// The engines of this program.
const ENGINES: &[EngineChoice] = if cfg!(feature = "torch") {
    &[EngineChoice::Torch, EngineChoice::Native]
} else {
    &[EngineChoice::Native]
};

fn site_values(x: ArrayView1<f64>) -> [f64; 16] {
    x.to_vec().try_into().unwrap()
}

/// ln π(x) - ln Z equals the normalized density of the field's exact mixture over all spin states.
#[test]
fn target_minus_exact_ln_z_is_a_normalized_density() {
    for temperature in [1.5, 2.0, CRITICAL_TEMPERATURE, 2.7, 4.0] {
        let mixture = FieldMixture::new(temperature);
        let target = Target::ising_dual(4).density(temperature);
        let ln_z = -exact_ising(4, temperature).free_energy_field;
        let fields = normals(6, 5) * 1.5 + 0.5;
        for (x, ln_density) in fields.rows().into_iter().zip(target.ln_density(fields.view())) {
            let difference = ln_density - ln_z - mixture.ln_density(&site_values(x));
            assert!(difference.abs() < 1e-9, "T = {temperature}: {difference:e}");
        }
    }
}

/// ln q(x) by the definition: the latent found by the inverse, the volume by its Jacobian; that of autograd, unless the
/// program is built without torch.
fn ln_q_by_jacobian(reference: &Model, x: ArrayView1<f64>) -> f64 {
    let x = x.insert_axis(Axis(0));
    let Image { field: z, .. } = reference.inverse(x);
    let sites: Vec<usize> = (0..16).collect();
    let derivatives = reference.inverse_derivatives(x, &sites);
    let jacobian = DMatrix::from_fn(16, 16, |i, j| derivatives[[i, 0, j]]);
    let log_det = jacobian.determinant().abs().ln();
    -0.5 * z.pow2().sum() - 8.0 * std::f64::consts::TAU.ln() + log_det
}

/// ln π(x) from spins: ln Z plus the mixture's normalized density.
fn ln_pi_by_mixture(mixture: &FieldMixture, x: ArrayView1<f64>) -> f64 {
    let ln_z = -exact_ising(4, 2.0).free_energy_field;
    mixture.ln_density(&site_values(x)) + ln_z
}

#[test]
fn losses_of_all_symmetrizations_equal_an_independent_computation() {
    let mixture = FieldMixture::new(2.0);
    let z = normals(7, 3);
    for &engine in ENGINES {
        for symmetry in [Symmetry::None, Symmetry::Mixture, Symmetry::Regularizer] {
            let flow = || lopsided_flow(symmetry, 0.2);
            let (model, reference) =
                (with_engine(flow(), 2.0, engine), with_engine(flow(), 2.0, EngineChoice::Torch));
            let loss = model.loss(z.view(), 0.7, Estimator::Total);
            let fields = model.draw(z.view()).field;
            assert_eq!(loss.asymmetry.is_some(), symmetry == Symmetry::Regularizer);
            for (i, energy) in loss.values.into_iter().enumerate() {
                let (x, mirrored) = (fields.row(i), -&fields.row(i));
                let ln_q = ln_q_by_jacobian(&reference, x);
                let flipped = ln_q_by_jacobian(&reference, mirrored.view());
                assert!((ln_q - flipped).abs() > 1e-2, "a symmetric flow tests nothing");
                let density = match symmetry {
                    Symmetry::Mixture => (0.5 * (ln_q.exp() + flipped.exp())).ln(),
                    _ => ln_q,
                };
                let expected = density - ln_pi_by_mixture(&mixture, x);
                assert!((energy - expected).abs() < 1e-8, "{engine:?}, {symmetry:?}: {energy}");
                if let Some(asymmetries) = &loss.asymmetry {
                    let difference = asymmetries[i] - (ln_q - flipped);
                    assert!(difference.abs() < 1e-8, "{engine:?}: asymmetry off by {difference}");
                }
            }
        }
    }
}

/// F_plain - F_mixture = KL(q ‖ q_sym) ≥ 0, and at most ln 2.
#[test]
fn loss_of_the_mixture_is_never_above_the_plain_one() {
    for kick in [0.0, 0.1, 0.3, 0.6] {
        let z = normals(8, 4000);
        let energies = |symmetry| {
            let model = with_engine(lopsided_flow(symmetry, kick), 2.0, EngineChoice::Torch);
            let draw = model.draw(z.view());
            draw.ln_q - draw.ln_pi
        };
        let difference = energies(Symmetry::None) - energies(Symmetry::Mixture);
        let (gain, error) = mean_and_standard_error(&difference.to_vec());
        assert!(gain > -3.0 * error, "kick {kick}: {gain} ± {error}");
        assert!(gain <= std::f64::consts::LN_2 + 1e-12, "kick {kick}: {gain}");
    }
}

#[test]
fn prior_is_the_standard_normal() {
    let z = array![[0.3, -1.2, 0.0, 2.0]];
    let one = |z: f64| (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
    let expected: f64 = z.iter().map(|&z| one(z).ln()).sum();
    assert!((ln_prior(z.view())[0] - expected).abs() < 1e-14);
}

/// The analytic gradient and the numeric slope along a random direction, of a function of the model.
#[track_caller]
fn assert_slope(
    mut model: Model,
    gradient: &Array1<f64>,
    function: impl Fn(&Model) -> f64,
    name: &str,
) {
    let centre = model.flow.parameters.clone();
    let direction = direction(11, &centre);
    let mut along = |shift: f64| {
        model.flow.parameters = &centre + &direction * shift;
        function(&model)
    };
    let numeric = (along(1e-5) - along(-1e-5)) / 2e-5;
    let analytic = gradient.dot(&direction);
    let error = (numeric / analytic - 1.0).abs();
    assert!(error < 1e-6, "{name}: {numeric}, {analytic}");
}

#[test]
fn gradient_of_the_objective_equals_finite_differences() {
    let z = normals(9, 4);
    let weight = 0.7;
    for &engine in ENGINES {
        for symmetry in [Symmetry::None, Symmetry::Mixture, Symmetry::Regularizer] {
            let model = with_engine(lopsided_flow(symmetry, 0.2), 2.0, engine);
            let loss = |model: &Model| model.loss(z.view(), weight, Estimator::Total);
            let gradient = loss(&model).gradient;
            let objective = |model: &Model| {
                let loss = loss(model);
                let mean = |values: &Array1<f64>| values.mean().unwrap();
                mean(&loss.values) + weight * loss.asymmetry.as_ref().map_or(0.0, mean)
            };
            assert_slope(model, &gradient, objective, &format!("{engine:?}, {symmetry:?}"));
        }
    }
}

#[test]
fn gradient_of_the_likelihood_equals_finite_differences() {
    let x = normals(10, 5) * 1.5;
    for &engine in ENGINES {
        for symmetry in [Symmetry::None, Symmetry::Mixture] {
            let model = with_engine(lopsided_flow(symmetry, 0.2), 2.0, engine);
            let gradient = model.likelihood_loss(x.view()).gradient;
            let objective = |model: &Model| -model.ln_likelihood(x.view()).mean().unwrap();
            assert_slope(model, &gradient, objective, &format!("{engine:?}, {symmetry:?}"));
        }
    }
}

fn short_training() -> TrainConfig {
    TrainConfig {
        steps: 120,
        batch: 64,
        learning_rate: 1e-2,
        schedule: Schedule::Cosine,
        warmup_steps: 10,
        weight_decay: 0.0,
        clip_norm: 10.0,
        log_every: 10,
        ..Default::default()
    }
}

fn trained(symmetry: Symmetry, config: &TrainConfig) -> (Model, Vec<f64>) {
    let flow = lopsided_flow(symmetry, 0.0);
    let mut model = with_engine(flow, CRITICAL_TEMPERATURE, EngineChoice::Auto);
    let mut course = Vec::new();
    train(&mut model, config, 1.0, &seed(CRITICAL_TEMPERATURE), |progress, _| {
        course.extend(progress.loss.map(|(loss, _)| loss));
    })
    .unwrap();
    (model, course)
}

#[test]
fn training_lowers_the_bound_and_never_passes_the_exact_free_energy() {
    let exact = exact_ising(4, CRITICAL_TEMPERATURE).free_energy_field;
    for symmetry in [Symmetry::None, Symmetry::Mixture, Symmetry::Regularizer] {
        let (model, course) = trained(symmetry, &short_training());
        let (first, last) = (course[0], course[course.len() - 1]);
        assert!(last < first - 1.0, "{symmetry:?}: {first} to {last}");
        let config = EvaluateConfig { samples: 4096, batch: 512, keep_samples: 4 };
        let evaluation = Evaluation::draw(&model, &config, &seed(2.0), None, |_| Ok(())).unwrap();
        let (free_energy, error) = evaluation.free_energy();
        assert!(free_energy > exact - 4.0 * error, "{free_energy} ± {error} below {exact}");
        assert!(free_energy < exact + 4.0, "{symmetry:?}: {free_energy}");
        // Between the exact value and, by Jensen's inequality, the bound.
        let importance = evaluation.importance();
        assert!(importance.free_energy > exact - 5.0 * importance.free_energy_error);
        assert!(importance.free_energy < free_energy);
        assert!((0.0..=1.0).contains(&importance.effective_sample_size));
        assert_eq!(evaluation.fields.dim(), (4, 16));
    }
}

#[test]
fn training_twice_gives_the_same_parameters_to_the_bit() {
    let config = TrainConfig { steps: 20, ..short_training() };
    let (first, _) = trained(Symmetry::Mixture, &config);
    let (second, _) = trained(Symmetry::Mixture, &config);
    assert_eq!(first.flow.parameters, second.flow.parameters);
}

#[test]
fn non_finite_steps_are_skipped_counted_and_at_last_fail_the_task() {
    let mut flow = lopsided_flow(Symmetry::None, 0.0);
    flow.parameters.fill(f64::NAN);
    let mut model = with_engine(flow, 2.0, EngineChoice::Auto);
    let config =
        TrainConfig { steps: 50, log_every: 10, max_skipped_steps: 20, ..short_training() };
    let error = train(&mut model, &config, 0.0, &seed(2.0), |_, _| ()).unwrap_err().to_string();
    assert!(
        error.contains("30 of 30 steps") && error.contains("max_skipped_steps = 20"),
        "{error}"
    );
}

#[test]
fn learning_rate_warms_up_and_decays_to_its_final_fraction() {
    let config = TrainConfig {
        warmup_steps: 10,
        learning_rate: 0.5,
        schedule: Schedule::Cosine,
        final_learning_rate_fraction: 0.1,
        ..Default::default()
    };
    assert!((learning_rate(&config, 0, 0.0) - 0.05).abs() < 1e-15);
    assert!((learning_rate(&config, 9, 0.0) - 0.5).abs() < 1e-15);
    assert!((learning_rate(&config, 60, 0.5) - 0.275).abs() < 1e-12, "half way down the cosine");
    assert!((learning_rate(&config, 110, 1.0) - 0.05).abs() < 1e-12);
    let constant = TrainConfig { schedule: Schedule::Constant, ..config };
    assert!((learning_rate(&constant, 0, 0.0) - 0.05).abs() < 1e-15);
    assert!([0.1, 0.5, 1.0].iter().all(|&progress| learning_rate(&constant, 60, progress) == 0.5));
}

#[test]
fn batches_double_at_equal_intervals() {
    let config = TrainConfig { batch: 64, batch_doublings: 2, ..Default::default() };
    let batches = [0.0, 0.33, 0.34, 0.66, 0.67, 0.99, 1.0].map(|progress| batch(&config, progress));
    assert_eq!(batches, [64, 64, 128, 128, 256, 256, 256]);
}

const MILLION: i64 = 1_000_000;

/// Steps of a training that is limited to a million of them, and the seconds that it took.
fn trained_for(limits: TrainConfig) -> (i64, f64) {
    let config = TrainConfig { steps: MILLION, ..limits };
    let mut model = with_engine(lopsided_flow(Symmetry::Mixture, 0.0), 2.7, EngineChoice::Auto);
    let start = Instant::now();
    let mut last = 0;
    let history = train(&mut model, &config, 0.0, &seed(2.7), |progress, _| last = progress.step);
    let columns = history.unwrap().values.ncols() as i64;
    assert_eq!(columns, last, "the history holds the steps that were done");
    (last, start.elapsed().as_secs_f64())
}

#[test]
fn training_ends_when_its_seconds_are_spent_or_its_target_is_reached() {
    let seconds = time(0.5).as_secs_f64();
    let (steps, taken) = trained_for(TrainConfig { seconds, ..short_training() });
    assert!((1..MILLION).contains(&steps) && taken >= seconds, "{steps} steps in {taken} s");
    // An untrained 4 × 4 flow is some nats away: this target is reached, but not at once.
    let (steps, _) = trained_for(TrainConfig { target_gap: 1.0, ..short_training() });
    assert!((5..20_000).contains(&steps), "{steps} steps");
}

/// The free energy of the spins from a finished task, also its difference between two temperatures, of which that of the
/// field's is three times as large.
#[test]
fn ising_free_energy_is_that_of_the_enumerated_spins() {
    let sweep = Sweep::new(
        "[sweep]\nname='t'\nlinear_size=4\ntemperatures=[2.0,2.7]\ndepths=[2]\n[flow]\npreset='best'\n\
         [train]\nsteps=300\n[hmc]\nchains=32\nwarmup=100\n[run]\ndevice='cpu'\n",
    );
    assert_eq!(sweep.run().status, Some(0));
    let mut found = Vec::new();
    for temperature in [2.0, 2.7] {
        let contents = contents(&sweep.task(&format!("L4_T{temperature}_d2_s1")));
        let number = |name: &str| f64::from_bits(contents[name].bits[0]);
        let scalar = |name| number(&format!("/scalars/{name}"));
        let exact = -enumerate(temperature).ln_z;
        assert!((number("/references/ising_free_energy_exact") - exact).abs() < 1e-9);
        let [free_energy, error] = ["ising_free_energy", "ising_free_energy_error"].map(scalar);
        assert!(error < 0.05, "T = {temperature}: {error}");
        assert!((free_energy - exact).abs() < 5.0 * error, "{free_energy} ± {error}, {exact}");
        let of_field = scalar("bridge_free_energy") - number("/references/free_energy_exact");
        assert!((free_energy - exact - of_field).abs() < 1e-9, "the deviation is the field's");
        found.push((free_energy, exact, scalar("bridge_free_energy")));
    }
    let difference = |of: fn((f64, f64, f64)) -> f64| of(found[1]) - of(found[0]);
    let (estimate, exact) = (difference(|task| task.0), difference(|task| task.1));
    assert!((estimate - exact).abs() < 0.1 && (exact - 3.1612).abs() < 1e-4, "{estimate} {exact}");
    assert!(difference(|task| task.2) > 9.0, "the trap");
}
