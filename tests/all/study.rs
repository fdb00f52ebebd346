//! Studies of finished tasks: `respond`, `mutual-information`, `coarse`, their files, and the samples that they rest on.

use crate::common::{Outcome, Sweep, TINY, contents, neuralrg, outcome, snapshot};
use ndarray::{Array2, Array3, ArrayView2, Axis};
use neuralrg::engine::config::RunConfig;
use neuralrg::engine::device::Device;
use neuralrg::engine::{Image, Model};
use neuralrg::files::schema::STUDIES;
use neuralrg::flow::config::{FlowConfig, Splits, Symmetry};
use neuralrg::flow::coupling::Networks;
use neuralrg::flow::symmetry::ln_prior;
use neuralrg::flow::{Architecture, Flow};
use neuralrg::lattice::Lattice;
use neuralrg::random::Random;
use neuralrg::sampling::config::{HmcConfig, Sampler, Start};
use neuralrg::sampling::kernel::Kernel;
use neuralrg::sampling::sampler;
use neuralrg::sampling::states::TargetSamples;
use neuralrg::statistics::between_chain;
use neuralrg::targets::Target;
use neuralrg::targets::observe::{self, Observable};
use neuralrg::task::Task;

/// The command of each of [`STUDIES`].
const COMMANDS: [&str; 3] = ["respond", "mutual-information", "coarse"];

fn study(sweep: &Sweep, command: &str, more: &[&str]) -> Outcome {
    outcome(neuralrg().arg(command).arg(&sweep.dir).args(["--samples", "256"]).args(more))
}

fn shape(sweep: &Sweep, kind: &str, task: &str, name: &str) -> Vec<usize> {
    contents(&sweep.dir.join(kind).join(format!("{task}.h5")))[&format!("/{name}")].shape.clone()
}

fn values(sweep: &Sweep, kind: &str, task: &str, name: &str) -> Vec<f64> {
    let found = contents(&sweep.dir.join(kind).join(format!("{task}.h5")));
    found[&format!("/{name}")].bits.iter().map(|&bits| f64::from_bits(bits)).collect()
}

#[test]
fn studies_leave_a_file_for_each_task_that_collect_links_to() {
    let sweep = Sweep::finished();
    for (command, kind) in COMMANDS.into_iter().zip(STUDIES) {
        let printed = study(&sweep, command, &[]).success().to_owned();
        assert_eq!(printed.lines().count(), 4, "{printed}");
        assert!(printed.lines().all(|line| line.ends_with(".h5")), "{printed}");
        let written = snapshot(&sweep.dir.join(kind));
        assert_eq!(written.len(), 4);
        let again = study(&sweep, command, &[]).success().to_owned();
        assert!(again.lines().all(|line| line.ends_with(".h5: kept")), "{again}");
        assert_eq!(written, snapshot(&sweep.dir.join(kind)), "what is there is kept");
    }
    // Two levels: the coarse prior, then three kinds at each.
    assert_eq!(shape(&sweep, "responses", "L4_T2_d2_s1", "response"), [7, 4, 4]);
    let levels = values(&sweep, "responses", "L4_T2_d2_s1", "latent_level");
    assert_eq!(levels, [2.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    let pairs = ["latent_information", "field_information_error"];
    for name in pairs {
        assert_eq!(shape(&sweep, "mutual_information", "L4_T3_d1_s1", name), [16, 16]);
    }
    assert_eq!(shape(&sweep, "coarse", "L4_T2_d2_s1", "kept"), [3, 4, 4, 4]);
    assert_eq!(shape(&sweep, "coarse", "L4_T2_d2_s1", "coupling"), [3]);

    sweep.look("collect").success();
    let collected = hdf5::File::open(sweep.dir.join("sweep.h5")).unwrap();
    for kind in STUDIES {
        let group = collected.group(kind).unwrap();
        assert_eq!(group.member_names().unwrap().len(), 4, "{kind}");
        let linked = group.group("L4_T2_d1_s1").expect("the link leads to the file");
        assert!(linked.attr("complete").is_ok());
    }
}

#[test]
fn a_study_tells_how_far_it_is() {
    let sweep = Sweep::finished();
    study(&sweep, "coarse", &["--task", "L4_T2_d1_s1"]).success();
    let told = study(&sweep, "coarse", &[]).stderr;
    let lines: Vec<&str> = told.lines().filter(|line| line.contains(": task ")).collect();
    assert_eq!(lines.len(), 3, "{told}");
    for (number, line) in lines.iter().enumerate() {
        assert!(line.contains(&format!(": task {} of 3", number + 1)), "{told}");
        assert_eq!(line.ends_with(" left"), number > 0, "{told}");
    }
}

/// The sweep is another user's, who lets nobody write.
#[test]
fn what_is_made_of_a_sweep_may_lie_elsewhere() {
    let (sweep, mine) = (Sweep::finished(), tempfile::tempdir().unwrap());
    let before = snapshot(&sweep.dir);
    let output = mine.path().join("studies");
    let to = ["-o", output.to_str().unwrap()];
    for command in COMMANDS {
        study(&sweep, command, &to).success();
        let again = study(&sweep, command, &to).success().to_owned();
        assert_eq!(again.matches(": kept").count(), 4, "{again}");
    }
    let path = output.join("all.h5");
    let mut collect = neuralrg();
    collect.arg("collect").arg(&sweep.dir).arg("-o").arg(&path);
    assert!(outcome(&mut collect).success().starts_with(&format!("{}: 4 of 4", path.display())));
    assert_eq!(snapshot(&sweep.dir), before);
    let collected = hdf5::File::open(&path).unwrap();
    for kind in STUDIES.into_iter().chain(["tasks"]) {
        let group = collected.group(kind).unwrap();
        assert_eq!(group.member_names().unwrap().len(), 4, "{kind}");
        let linked = group.group("L4_T2_d1_s1").expect("the link leads to the file");
        assert!(linked.attr("complete").is_ok());
    }
}

#[test]
fn that_nothing_can_be_written_is_told_before_the_work_is_done() {
    let sweep = Sweep::finished();
    let file = sweep.folder().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let below = file.join("studies");
    for command in COMMANDS {
        let result = study(&sweep, command, &["-o", below.to_str().unwrap()]);
        assert_eq!(result.status, Some(1));
        assert!(result.errors()[0].contains("cannot write into folder"), "{}", result.stderr);
        assert!(!result.stderr.contains(": task "), "{}", result.stderr);
    }
    for path in [below, sweep.folder().join("absent/sweep.h5"), sweep.dir.clone()] {
        let mut collect = neuralrg();
        let result = outcome(collect.arg("collect").arg(&sweep.dir).arg("-o").arg(&path));
        assert!(result.refusal().contains("cannot write"), "{result:?}");
    }
}

#[test]
fn mutual_information_says_how_many_samples_it_needs() {
    let text = TINY.replace("chains = 4", "chains = 19").replace("[2.0, 3.0]", "[2.0]");
    let sweep = Sweep::new(&text);
    sweep.run().success();
    let few = study(&sweep, "mutual-information", &["--neighbours", "20"]);
    assert_eq!(few.status, Some(1));
    let told = "19 chains, whose parts need more than 20 samples each for 20 neighbours; give --samples 381";
    assert!(few.errors()[0].contains(told), "{}", few.stderr);
    assert!(!few.stderr.contains("panicked"), "{}", few.stderr);
}

/// At the top of the paper's flow nothing is between the kept variables and their prior, N(0, 1).
#[test]
fn the_coarse_prior_is_free_and_the_fields_are_those_of_the_flow() {
    let sweep = Sweep::finished();
    study(&sweep, "coarse", &[]).success();
    let of = |name: &str| values(&sweep, "coarse", "L4_T2_d1_s1", name);
    assert_eq!(of("level"), [1.0, 0.0]);
    let (square, error) = (of("mean_square")[0], of("mean_square_error")[0]);
    assert!((square - 1.0).abs() < 4.0 * error && error < 0.1, "{square} ± {error}");
    assert!((of("mass")[0] - square).abs() < 1e-2);
    assert!(of("coupling")[0].abs() < 1e-3 && of("quartic")[0].abs() < 1e-3);
    assert!((of("explained")[0] - 1.0).abs() < 1e-3);
    // Nothing is left out at level 0, where there is no preconditioner.
    assert_eq!(of("kept")[4 * 16..], of("blurred")[4 * 16..]);
    // Both ways begin and end at the same fields.
    let (along, straight) = (of("walk_energy"), of("straight_energy"));
    for end in [0, along.len() - 1] {
        assert!((along[end] - straight[end]).abs() < 1e-3);
    }
}

#[test]
fn a_study_is_repeated_when_its_task_or_what_is_asked_has_changed() {
    let sweep = Sweep::finished();
    let name = "L4_T2_d1_s1";
    let one = ["--task", name];
    study(&sweep, "respond", &one).success();
    assert_eq!(snapshot(&sweep.dir.join("responses")).len(), 1, "of the named task only");
    let command = |samples| {
        outcome(neuralrg().arg("respond").arg(&sweep.dir).args(one).args(["--samples", samples]))
    };
    assert!(command("256").success().contains(": kept"));
    assert!(!command("300").success().contains(": kept"), "with other settings");
    // The times of another run are others.
    std::fs::remove_file(sweep.task(name)).unwrap();
    sweep.run().success();
    sweep.look("collect").success();
    let linked = || {
        let collected = hdf5::File::open(sweep.dir.join("sweep.h5")).unwrap();
        collected.group("responses").unwrap().member_names().unwrap()
    };
    assert_eq!(linked(), [""; 0], "what another task file said is not collected");
    assert!(!command("300").success().contains(": kept"), "of another task file");
    let path = sweep.dir.join("responses").join(format!("{name}.h5"));
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(!command("300").success().contains(": kept"), "a damaged one");
    sweep.look("collect").success();
    assert_eq!(linked().len(), 1);
}

#[test]
fn what_cannot_be_studied_is_named() {
    let nowhere = Sweep::new(TINY);
    for command in COMMANDS {
        let refusal = study(&nowhere, command, &[]).refusal().to_owned();
        assert!(refusal.contains("is not a sweep folder"), "{refusal}");
    }
    let sweep = Sweep::finished();
    let unknown = study(&sweep, "respond", &["--task", "L4_T9_d1_s1"]).refusal().to_owned();
    assert!(unknown.contains("no finished task L4_T9_d1_s1; it has L4_T2_d1_s1, "), "{unknown}");
    let few = outcome(neuralrg().args(["respond", "."]).args(["--samples", "10"]));
    assert!(few.status == Some(2) && few.stderr.contains("from 256 to 1000000"), "{few:?}");
    let path = sweep.task("L4_T2_d1_s1");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = study(&sweep, "coarse", &["--task", "L4_T2_d1_s1"]);
    let damaged = damaged.errors()[0];
    assert!(damaged.contains("is damaged (its checksum does not fit)"), "{damaged}");
    assert!(!sweep.dir.join("coarse").exists(), "nothing is half-written");
}

#[test]
fn a_flow_without_levels_keeps_nothing() {
    let sweep = Sweep::new(&TINY.replace("[flow]", "[flow]\narrangement = \"tebd\""));
    sweep.run();
    let refusal = study(&sweep, "coarse", &["--task", "L4_T2_d1_s1"]);
    let refusal = refusal.errors()[0];
    assert!(refusal.contains("task L4_T2_d1_s1 has flow.arrangement = \"tebd\""), "{refusal}");
    study(&sweep, "respond", &["--task", "L4_T2_d1_s1"]).success();
    assert_eq!(shape(&sweep, "responses", "L4_T2_d1_s1", "response"), [4, 4, 4]);
}

fn samples_of(model: &Model, temperature: f64) -> TargetSamples {
    let seed = Task { linear_size: 4, temperature, depth: 2, seed: 1 }.streams();
    let hmc = HmcConfig {
        chains: 256,
        warmup: 50,
        trajectories: 32,
        leapfrog_steps: 4,
        keep_states: 256 * 8,
        ..Default::default()
    };
    let kernel = Kernel::new(Sampler::Latent, model, &hmc);
    let start = (&hmc, Start::Hot);
    let sampling = sampler::sample(Sampler::Latent, &kernel, start, &seed, None, |_| Ok(()));
    sampling.unwrap().chains(Sampler::Latent, &hmc).states
}

/// The states that a task keeps serve a study as well as those of its HMC when it runs again.
#[test]
fn kept_states_take_the_place_of_another_run() {
    let text =
        TINY.replace("trajectories = 10", "trajectories = 100").replace("[2.0, 3.0]", "[3.0]");
    let text = text.replace("depths = [1, 2]", "depths = [2]").replace("chains = 4", "chains = 32");
    let keeping = Sweep::new(&text.replace("[hmc]", "[hmc]\nkeep_states = 3200"));
    let again = Sweep::new(&text);
    let runs = |more: &[&str]| {
        [&keeping, &again].map(|sweep| {
            let told = outcome(neuralrg().arg("respond").arg(&sweep.dir).args(more));
            told.stderr.matches("samples of the target, ").count()
        })
    };
    for sweep in [&keeping, &again] {
        sweep.run().success();
    }
    assert_eq!(runs(&["--samples", "256"]), [0, 1]);
    let numbers = |name: &str| {
        [&keeping, &again].map(|sweep| values(sweep, "responses", "L4_T3_d2_s1", name))
    };
    let ([kept, other], [kept_error, other_error]) =
        (numbers("response"), numbers("response_error"));
    assert_ne!(kept, other);
    for (index, value) in kept.iter().enumerate() {
        let error = kept_error[index].hypot(other_error[index]);
        assert!((value - other[index]).abs() <= 5.0 * error, "{index}: {value} ± {error}");
    }
    assert_eq!(runs(&["--samples", "4000"]), [1, 1], "as many are not there");
}

/// (chain, N) of one draw.
fn draw_of(values: &Array3<f64>, draw: usize) -> ArrayView2<'_, f64> {
    values.index_axis(Axis(1), draw)
}

#[test]
fn samples_are_of_the_target_and_their_latents_are_theirs() {
    let temperature = 2.7;
    let model = crate::flows::trained(4, temperature, 200);
    let samples = samples_of(&model, temperature);
    assert_eq!(samples.fields.dim(), (256, 8, 16));
    let exact = crate::enumeration::enumerate(temperature);
    let mut sums = Array2::<f64>::zeros((256, 2));
    let lattice = Lattice::new(4);
    for draw in 0..8 {
        let (fields, latents) = (draw_of(&samples.fields, draw), draw_of(&samples.latents, draw));
        let made = model.forward(latents).field;
        assert!((made - fields).iter().all(|difference| difference.abs() < 1e-4));
        let structure = observe::structure_factor(&lattice, fields);
        let random = Random::new(draw as u64);
        let spins = observe::draw_spins(fields, &random, 0);
        let scalars = observe::scalars(&lattice, fields, structure.view(), spins.view());
        let observables = [Observable::Energy, Observable::MagnetizationSquared];
        for (column, observable) in observables.into_iter().enumerate() {
            let mut sum = sums.column_mut(column);
            sum += &scalars.column(observable as usize);
        }
    }
    let (mean, error) = between_chain((sums / 8.0).view());
    for (index, expected) in [exact.energy_per_site, exact.magnetization_2].into_iter().enumerate()
    {
        let pull = (mean[index] - expected) / error[index];
        assert!(pull.abs() < 4.0, "{}: {} ± {}, {expected}", index, mean[index], error[index]);
    }
}

/// With the mixture, latents of samples of the target are as often g⁻¹(x) as g⁻¹(-x) when weighted with the posterior of
/// the sign (Eq. D.4).
#[test]
fn latents_of_the_mixture_have_the_posterior_sign() {
    let flow = FlowConfig {
        couplings: 3,
        hidden_layers: 1,
        splits: Splits::Cycle,
        networks: Networks::Joint,
        hidden_width: 8,
        symmetry: Symmetry::Mixture,
        ..Default::default()
    };
    let architecture = Architecture::new(4, 2, 1, &flow);
    let flow = Flow::initialize(architecture, &Random::new(3));
    let model = Model::new(flow, Target::ising_dual(4), 2.7, &RunConfig::default(), Device::Cpu);
    let samples = samples_of(&model, 2.7);
    // Σ z² of the latents that HMC has, and its mean over both signs of each field.
    let mut differences = Array2::<f64>::zeros((256, 2));
    for draw in 0..8 {
        let x = draw_of(&samples.fields, draw);
        // |z|² and one of the latents.
        let function = |column: usize, z: ArrayView2<f64>| match column {
            0 => z.pow2().sum_axis(Axis(1)),
            _ => z.column(1).to_owned(),
        };
        let (plus, minus) = (model.inverse(x), model.inverse((-&x).view()));
        let ln_q = |image: &Image| ln_prior(image.field.view()) + &image.log_det;
        let probability = (ln_q(&minus) - ln_q(&plus)).mapv(|odds| 1.0 / (1.0 + odds.exp()));
        let own = draw_of(&samples.latents, draw);
        for column in 0..2 {
            let expected = function(column, plus.field.view()) * &probability
                + function(column, minus.field.view()) * (1.0 - &probability);
            let mut sum = differences.column_mut(column);
            sum += &(function(column, own) - expected);
        }
    }
    let (mean, error) = between_chain((differences / 8.0).view());
    for (mean, error) in mean.iter().zip(&error) {
        assert!(*error > 0.0 && mean.abs() < 4.0 * error, "{mean} ± {error}");
    }
}
