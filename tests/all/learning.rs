//! Learning from samples: exact samples of the target against the enumeration, maximum likelihood in both commands,
//! interruptions, and files that cannot be used.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Outcome, Sweep, TINY, contents, make_hdf5, neuralrg, outcome};
use crate::enumeration::FieldMixture;
use hdf5::types::VarLenUnicode;
use ndarray::{Array1, Array2, Array3, Array4, ArrayView1, Axis};
use neuralrg::config::Config;
use neuralrg::config::command::CommandConfig;
use neuralrg::config::learn::LearnConfig;
use neuralrg::engine::Model;
use neuralrg::engine::device::Device;
use neuralrg::error::Error;
use neuralrg::flow::{Architecture, Flow};
use neuralrg::lattice::Lattice;
use neuralrg::random::Random;
use neuralrg::seed::{Stage, TaskSeed};
use neuralrg::signals::Stop;
use neuralrg::statistics::gamma_method;
use neuralrg::targets::exact::exact_ising;
use neuralrg::targets::observe::{self, Observable};
use neuralrg::targets::{Target, wolff};
use neuralrg::task::Task;
use neuralrg::task::learn::learn;
use neuralrg::train::config::DataConfig;
use neuralrg::train::data::{Data, fields_of, write_fields};
use neuralrg::train::{Objective, Training};

const CRITICAL_TEMPERATURE: f64 = 2.269185314213022;

/// Exact samples of the field on 4 × 4.
fn exact_fields(temperature: f64, measurements: usize, seed: u64) -> Array3<f32> {
    let spins = wolff::sample(4, temperature, measurements, seed, true);
    fields_of(&spins, 4, temperature, &Random::new(seed))
}

/// Shapes: (sample, 4, 4) → (sample, 16).
fn flat(fields: &Array3<f32>) -> Array2<f64> {
    fields.mapv(f64::from).into_shape_with_order((fields.dim().0, 16)).unwrap()
}

/// Mean and error of the draws of 16 chains that follow one another.
fn estimate(values: ArrayView1<f64>) -> (f64, f64) {
    let chains = Array2::from_shape_vec((16, values_per_chain()), values.to_vec()).unwrap();
    let estimate = gamma_method(chains.view());
    (estimate.mean, estimate.error)
}

const MEASUREMENTS: usize = 40_000;

fn values_per_chain() -> usize {
    MEASUREMENTS / 16
}

#[test]
fn fields_of_cluster_spins_have_the_enumerated_moments() {
    let lattice = Lattice::new(4);
    for temperature in [2.0, CRITICAL_TEMPERATURE, 2.7] {
        let x = flat(&exact_fields(temperature, MEASUREMENTS, 1));
        let exact = crate::enumeration::enumerate(temperature);
        let mut checks = Vec::new();
        let structure_factor = observe::structure_factor(&lattice, x.view());
        let random = Random::new(2);
        let spins = observe::draw_spins(x.view(), &random, 0);
        let scalars = observe::scalars(&lattice, x.view(), structure_factor.view(), spins.view());
        for (index, expected) in
            [(0, exact.energy_per_site), (1, exact.magnetization_2), (2, exact.magnetization_4)]
        {
            checks.push((Observable::TABLE[index].1.name, scalars.column(index), expected));
        }
        // x = (K+αI)s + (K+αI)^{1/2} ξ: <|x_k|²>/N = λ_k² S(k) + λ_k, and by symmetry <x> = 0.
        let powers = lattice.power_spectrum(x.view()) / 16.0;
        let cosine = [1.0, 0.0, -1.0, 0.0];
        for (k_x, k_y) in [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)] {
            let eigenvalue = (2.0 * (cosine[k_x] + cosine[k_y]) + 4.0) / temperature + 0.1;
            let expected = eigenvalue * eigenvalue * exact.structure_factor[k_x][k_y] + eigenvalue;
            checks.push(("power of a mode", powers.column(4 * k_x + k_y), expected));
        }
        checks.push(("x", x.column(4 + 2), 0.0));
        for (name, values, expected) in checks {
            let (mean, error) = estimate(values);
            let pull = (mean - expected) / error;
            assert!(pull.abs() < 4.0, "T = {temperature}, {name}: {mean} ± {error}, {expected}");
            assert!(error < 0.03 * expected.abs().max(1.0), "{name}: {error}");
        }
    }
}

/// A small flow of preset `best` at L = 4, in f64.
fn small_flow(text: &str) -> (Config, Model, TaskSeed) {
    let text = format!(
        "[sweep]\nname = 'test'\nlinear_size = 4\ntemperatures = [{CRITICAL_TEMPERATURE}]\ndepths = [2]\n\
         [flow]\npreset = 'best'\ncouplings = 3\nhidden_width = 8\n[run]\nprecision = 'f64'\n{text}"
    );
    let config = Config::parse(&text, Path::new("test.toml")).unwrap();
    let task = Task { linear_size: 4, temperature: CRITICAL_TEMPERATURE, depth: 2, seed: 1 };
    let seed = task.streams();
    let random = seed.at(Stage::Initialize, 0);
    let architecture = Architecture::new(4, 2, 1, &config.flow);
    let flow = Flow::initialize(architecture, &random);
    let model =
        Model::new(flow, Target::ising_dual(4), CRITICAL_TEMPERATURE, &config.run, Device::Cpu);
    (config, model, seed)
}

/// KL(π ‖ q) from fresh samples and the normalized density of the enumeration: no formula for ln Z, no file.
fn independent_forward_kl(model: &Model) -> (f64, f64) {
    let fields = flat(&exact_fields(CRITICAL_TEMPERATURE, 800, 99));
    let ln_q = model.ln_likelihood(fields.view());
    let mixture = FieldMixture::new(CRITICAL_TEMPERATURE);
    let differences = fields.outer_iter().zip(&ln_q).map(|(field, ln_q)| {
        mixture.ln_density(field.as_slice().unwrap().try_into().unwrap()) - ln_q
    });
    let differences = Array1::from_iter(differences).insert_axis(Axis(0));
    let estimate = gamma_method(differences.view());
    (estimate.mean, estimate.error)
}

#[test]
fn forward_kl_falls_to_what_an_independent_estimate_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fields.h5");
    let fields = exact_fields(CRITICAL_TEMPERATURE, 12_000, 1);
    write_fields(&file, &[CRITICAL_TEMPERATURE], &[fields]).unwrap();
    let data = DataConfig { file, held_out: 3000, sha256: String::new() };
    let data = Data::at_temperature(&data, 4, CRITICAL_TEMPERATURE).unwrap();
    let ln_z = -exact_ising(4, CRITICAL_TEMPERATURE).free_energy_field;
    let judge = |model: &Model| data.judge(model, Some(ln_z));

    let (config, mut model, seed) = small_flow("[train]\nsteps = 150\nbatch = 64\n");
    let before = judge(&model);
    let mut training = Training::new(&model, &config.train);
    let objective = Objective::ForwardKl(&data);
    training.run(&mut model, &config.train, objective, &seed, |_, _, _| Ok(())).unwrap();
    let after = judge(&model);

    let (kl, error) = after.forward_kl.unwrap();
    println!("{before:?}\n{after:?}");
    assert!(kl + 10.0 * error < before.forward_kl.unwrap().0, "{kl} ± {error}, before {before:?}");
    let (independent, its_error) = independent_forward_kl(&model);
    let pull = (kl - independent) / error.hypot(its_error);
    assert!(pull.abs() < 4.0, "{kl} ± {error}, independent {independent} ± {its_error}");
    assert!(independent > -4.0 * its_error && error.max(its_error) < 0.05, "{error}, {its_error}");
    // What training and held-out samples cost differs by overfitting, of which there is hardly any.
    let difference = after.negative_ln_likelihood.0 - after.training_negative_ln_likelihood.0;
    let error = after.negative_ln_likelihood.1 * 2f64.sqrt();
    assert!(difference.abs() < 4.0 * error, "{difference} ± {error}");
}

// The program

/// A sweep of two temperatures that learns from fields in its temporary folder.
fn sweep_with_fields() -> Sweep {
    let sweep = Sweep::new("");
    let fields = sweep.folder().join("fields.h5");
    let arguments = ["--linear-size=4", "--temperatures=2.0,3.0", "--measurements=1000"];
    let mut command = neuralrg();
    command.arg("reference").args(arguments).arg("--fields").arg(&fields);
    let plain = outcome(neuralrg().arg("reference").args(arguments));
    assert_eq!(outcome(&mut command).success(), plain.success(), "fields change no estimate");
    fs::write(&sweep.config, with_data(&fields, 200)).unwrap();
    sweep
}

fn with_data(fields: &Path, held_out: usize) -> String {
    format!("{TINY}\n[data]\nfile = {fields:?}\nheld_out = {held_out}\n")
}

#[test]
fn sweep_learns_from_fields_and_belongs_to_their_file() {
    let sweep = sweep_with_fields();
    sweep.run().success();
    let found = contents(&sweep.task("L4_T3_d2_s1"));
    let number = |name: &str| f64::from_bits(found[name].bits[0]);
    assert_eq!(number("/held_out/samples"), 200.0);
    // The history's loss is -ln q, which is what the held-out samples cost, and no free energy.
    let nll = number("/held_out/negative_ln_likelihood");
    let losses: Vec<f64> =
        found["/train/loss"].bits.iter().map(|&bits| f64::from_bits(bits)).collect();
    let loss = losses.iter().sum::<f64>() / losses.len() as f64;
    // Six batches of eight, while the parameters have hardly moved.
    let deviation = number("/held_out/negative_ln_likelihood_error") * 200f64.sqrt();
    let error = deviation / 48f64.sqrt();
    assert!((nll - loss).abs() < 4.0 * error, "{nll}, {loss} ± {error}");
    assert!(number("/held_out/forward_kl") > 0.0);
    assert!(!found.contains_key("/held_out/bits_per_dimension"));
    outcome(neuralrg().arg("collect").arg(&sweep.dir)).success();

    let again = outcome(&mut sweep.run_with(neuralrg()));
    assert!(again.stderr.contains("0 of 4 tasks to do"), "{}", again.stderr);
    let fields = sweep.folder().join("fields.h5");
    let mut other = neuralrg();
    other.args(["reference", "--linear-size=4", "--temperatures=2.0,3.0", "--measurements=1000"]);
    outcome(other.args(["--seed=2", "--fields"]).arg(&fields)).success();
    let refusal = sweep.run().errors().join("");
    assert!(refusal.contains("has tasks of another configuration (data.sha256 = "), "{refusal}");
}

/// Pictures whose pixels are independent, as a data file of `neuralrg learn`.
fn write_pictures(path: &Path, fields: &Array3<f32>, ln_noise: &[f64]) {
    make_hdf5(path, |file| {
        file.new_dataset_builder().with_data(fields).create("fields").unwrap();
        file.new_dataset_builder().with_data(ln_noise).create("ln_noise").unwrap();
        file.new_dataset_builder().with_data(&[0.0; 15]).create("edges").unwrap();
        for (name, value) in
            [("rows", 3i64), ("columns", 4), ("pixel_levels", 16), ("held_out", 400)]
        {
            file.new_attr::<i64>().create(name).unwrap().write_scalar(&value).unwrap();
        }
    });
}

/// A configuration of `learn` with pictures beside it.
fn learning(folder: &Path) -> PathBuf {
    let fields = exact_fields(3.0, 400, 5);
    write_pictures(&folder.join("pictures.h5"), &fields, &vec![20.0; fields.dim().0]);
    let config = folder.join("learn.toml");
    let text = format!(
        "[learn]\ndepth = 2\nsamples = 3\n[data]\nfile = {:?}\nheld_out = 100\n\
         [flow]\ncouplings = 2\nhidden_layers = 1\nhidden_width = 4\n\
         [train]\nsteps = 9\nbatch = 130\nbatch_doublings = 1\naveraging = 0.9\n",
        folder.join("pictures.h5")
    );
    fs::write(&config, text).unwrap();
    config
}

#[test]
fn learning_that_is_interrupted_after_every_step_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let config = learning(folder.path());
    let [unbroken, broken] = ["a.h5", "b.h5"].map(|name| folder.path().join(name));
    let numbers = learn(&config, &unbroken, Stop::default()).unwrap();
    let stop = Stop::default();
    stop.request();
    let mut interruptions = 0;
    let again = loop {
        match learn(&config, &broken, stop.clone()) {
            Err(Error::Stopped) => interruptions += 1,
            done => break done.unwrap(),
        }
    };
    assert_eq!((interruptions, &again), (9, &numbers));
    assert_eq!(contents(&broken), contents(&unbroken));
    // What is finished stays, and is told again.
    let before = fs::read(&broken).unwrap();
    assert_eq!(learn(&config, &broken, Stop::default()).unwrap(), numbers);
    assert_eq!(fs::read(&broken).unwrap(), before);
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 4, "no checkpoint is left");

    // -ln q of fields in nats, by hand to bits for the 12 pixels inside the padding.
    let nll = numbers["negative_ln_likelihood"];
    let bits = (nll + 20.0) / (12.0 * std::f64::consts::LN_2);
    assert!((numbers["bits_per_dimension"] - bits).abs() < 1e-10, "{numbers:?}");
    let levels: Array4<f64> = read(&unbroken, "evaluate/levels");
    let samples: Array3<f64> = read(&unbroken, "evaluate/samples");
    assert_eq!(levels.shape(), [3, 3, 4, 4]);
    assert_eq!(levels.index_axis(Axis(0), 0), samples);
    let finest = levels.index_axis(Axis(0), 2);
    assert_ne!(finest.index_axis(Axis(0), 0), finest.index_axis(Axis(0), 1), "one latent is left");
}

fn read<D: ndarray::Dimension>(path: &Path, name: &str) -> ndarray::Array<f64, D> {
    hdf5::File::open(path).and_then(|file| file.dataset(name)?.read()).unwrap()
}

fn run_learn(config: &Path, output: &Path) -> Outcome {
    outcome(neuralrg().env("RUST_LOG", "error").arg("learn").arg(config).arg("-o").arg(output))
}

/// What follows a training may fail; the training is not lost. Where the data lie and how many pictures are kept belong to no
/// training.
#[test]
fn learning_is_saved_once_its_training_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let config = learning(folder.path());
    let pictures = folder.path().join("pictures.h5");
    let mut fields = exact_fields(3.0, 400, 5);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("couplings = 2", "couplings = 2\ntransform = 'bump'")).unwrap();
    // Of the last picture, which is held out, exponential scales are no numbers.
    let count = fields.dim().0;
    fields.index_axis_mut(Axis(0), count - 1).fill(1e30);
    write_pictures(&pictures, &fields, &vec![20.0; count]);
    let output = folder.path().join("model.h5");
    let not_finite = |stop: &Stop| match learn(&config, &output, stop.clone()) {
        Err(Error::NotFinite { .. }) => {}
        other => panic!("{other:?}"),
    };
    not_finite(&Stop::default());
    assert!(folder.path().join("model.h5.checkpoint").exists());
    let moved = folder.path().join("moved.h5");
    fs::rename(&pictures, &moved).unwrap();
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("pictures.h5", "moved.h5").replace("samples = 3", "samples = 4");
    fs::write(&config, text).unwrap();
    let stop = Stop::default();
    stop.request();
    // One that began anew would stop after its first step.
    not_finite(&stop);
}

#[test]
fn outputs_that_cannot_be_written_are_refused_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let refused = run_learn(&learning(folder.path()), Path::new("/proc/model.h5"));
    assert!(refused.refusal().contains("cannot write into folder /proc"), "{refused:?}");
}

#[test]
fn learn_prints_what_it_found_and_refuses_another_configurations_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = learning(folder.path());
    let output = folder.path().join("new").join("model.h5");
    let checked = outcome(neuralrg().arg("check").arg(&config));
    assert!(checked.success().contains("samples = 3\n"), "{checked:?}");
    let printed = run_learn(&config, &output);
    assert!(printed.success().starts_with("quantity,value,unit\nsamples,"), "{printed:?}");
    assert!(printed.stdout.contains("bits_per_dimension_error,"), "{printed:?}");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("steps = 9", "steps = 8")).unwrap();
    let refusal = run_learn(&config, &output);
    let message = "was made by another configuration (train.steps = 8, there 9)";
    assert!(refusal.refusal().contains(message), "{refusal:?}");
    fs::write(&output, "text").unwrap();
    let refusal = run_learn(&config, &output);
    assert!(refusal.refusal().contains("is no finished file of `neuralrg learn`"), "{refusal:?}");
}

#[test]
fn bad_configurations_of_learn_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = learning(folder.path());
    let text = fs::read_to_string(&config).unwrap();
    let output = folder.path().join("model.h5");
    for (from, to, message) in [
        (
            "depth = 2",
            "depth = 3",
            "`learn.depth` is 3, but must be from 1 to 2, as often as L can be halved",
        ),
        ("depth = 2", "depth = 0", "`learn.depth` is 0"),
        ("samples = 3", "samples = 0", "`learn.samples` is 0"),
        ("samples = 3", "samples = 1e12", "`learn.samples` is 1000000000000, but must be from 1"),
        (
            "hidden_width = 4",
            "hidden_width = 4096\nrepeats = 100",
            "`flow.hidden_width` is 4096, but must be at most 819 in so many layers of networks",
        ),
        ("held_out = 100", "held_out = 1", "`data.held_out` is 1, but must be 2 or more"),
        ("held_out = 100", "held_out = 399", "data.held_out = 399 must leave at least 2 of them"),
        ("held_out = 100", "sha256 = 'a'", "`data.sha256` is a, but must be "),
        ("[flow]", "[flow]\nsymmetry = 'mixture'", "`flow.symmetry` is \"mixture\""),
        (
            "[flow]",
            "[flow]\nconditioner = 'odd'\nnetworks = 'joint'",
            "`flow.conditioner` is \"odd\"",
        ),
        ("[flow]", "[flow]\npreconditioner = true", "`flow.preconditioner` is true"),
        ("[flow]", "[flow]\npreset = 'best'", "`flow.conditioner` is \"odd\""),
        ("[train]", "[train]\ntarget_gap = 0.1", "`train.target_gap` is 0.1"),
        ("[train]", "[train]\nmeasure_every = 5", "`train.measure_every` is 5"),
        ("[train]", "[train]\nstart_from = 'shallower'", "`train.start_from` is \"shallower\""),
        ("[learn]", "[sweep]", "unknown field `sweep`"),
        ("pictures.h5", "nothing.h5", "cannot read data file"),
    ] {
        assert!(text.contains(from));
        fs::write(&config, text.replacen(from, to, 1)).unwrap();
        let result = run_learn(&config, &output);
        assert!(result.refusal().contains(message), "{to}: {result:?}");
        assert!(!output.exists());
    }
}

#[test]
fn bad_files_of_pictures_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = learning(folder.path());
    let pictures = folder.path().join("pictures.h5");
    let output = folder.path().join("model.h5");
    let refused = |message: &str| {
        let result = run_learn(&config, &output);
        let refusal = result.refusal();
        assert!(refusal.contains(message) && refusal.contains("pictures.h5"), "{refusal}");
        assert!(!output.exists());
    };
    let fields = Array3::<f32>::zeros((300, 4, 4));
    let mut damaged = fields.clone();
    damaged[[17, 2, 3]] = f32::NAN;
    write_pictures(&pictures, &damaged, &vec![0.0; 300]);
    refused("sample 17 has a value that is not a finite number");
    write_pictures(&pictures, &fields, &vec![0.0; 299]);
    refused("`ln_noise` must have a finite number for each sample");
    write_pictures(&pictures, &fields, &vec![0.0; 300]);
    let file = hdf5::File::append(&pictures).unwrap();
    file.attr("pixel_levels").unwrap().write_scalar(&17i64).unwrap();
    file.close().unwrap();
    refused("`edges` must be one fewer than `pixel_levels`");
    write_pictures(&pictures, &fields, &vec![0.0; 300]);
    let file = hdf5::File::append(&pictures).unwrap();
    file.attr("held_out").unwrap().write_scalar(&99i64).unwrap();
    file.close().unwrap();
    refused("data.held_out = 100, but all but the last 99 pictures were looked at");
    make_hdf5(&pictures, |file| {
        file.new_dataset_builder().with_data(&fields).create("fields").unwrap();
        file.new_dataset_builder().with_data(&[0.0; 300]).create("log_jacobian").unwrap();
    });
    refused("it is of an earlier version of analysis/pictures.py; make it anew");
    write_pictures(&pictures, &Array3::zeros((300, 7, 7)), &vec![0.0; 300]);
    refused(
        "pictures of 7 × 7 pixels; pad them to squares whose side is an even number from 4 to 1024",
    );
    write_pictures(&pictures, &Array3::zeros((300, 4, 8)), &vec![0.0; 300]);
    refused("pictures of 4 × 8 pixels");
    write_fields(&pictures, &[2.0], std::slice::from_ref(&fields)).unwrap();
    refused("fields at temperatures are for `neuralrg run`");
    make_hdf5(&pictures, |file| {
        file.new_dataset_builder().with_data(&fields).create("images").unwrap();
    });
    refused("it has no dataset `fields`");
    make_hdf5(&pictures, |file| {
        file.new_dataset::<VarLenUnicode>().shape([3, 4, 4]).create("fields").unwrap();
    });
    refused("cannot read HDF5 file");
    fs::write(&pictures, "no HDF5").unwrap();
    refused("cannot read HDF5 file");
}

#[test]
fn bad_files_of_fields_are_refused_before_a_folder_is_made() {
    let sweep = sweep_with_fields();
    let file = sweep.folder().join("fields.h5");
    let refused = |text: &str, message: &str| {
        fs::write(&sweep.config, text).unwrap();
        let refusal = sweep.run().errors().join("");
        assert!(refusal.contains(message), "{refusal}");
        assert!(!sweep.dir.exists());
    };
    let text = with_data(&file, 200);
    let other = text.replace("[2.0, 3.0]", "[2.0, 2.5]");
    refused(&other, "it has no fields at T = 2.5, but at [2.0, 3.0]");
    let other = text.replace("linear_size = 4", "linear_size = 8");
    refused(&other, "its fields are 4 × 4, but sweep.linear_size = 8");
    write_pictures(&file, &Array3::zeros((300, 4, 4)), &vec![0.0; 300]);
    refused(&text, "`fields` must have the axes (temperature, sample, row, column)");
    let fields = Array3::<f32>::zeros((300, 4, 4));
    write_fields(&file, &[2.0, 3.0], &[fields.clone(), fields.clone()]).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    refused(&text, "it is damaged (its checksum does not fit)");
    fs::remove_file(&file).unwrap();
    refused(&text, "cannot read data file");

    // Values are looked at by the tasks, each its own.
    let mut damaged = fields.clone();
    damaged[[7, 0, 0]] = f32::INFINITY;
    write_fields(&file, &[2.0, 3.0], &[fields, damaged]).unwrap();
    let failed = sweep.run();
    assert_eq!(failed.status, Some(1));
    assert!(failed.stderr.contains("2 of 4 tasks failed"), "{}", failed.stderr);
    assert!(failed.stderr.contains("sample 7 has a value that is not a finite number"));
}

#[test]
fn configurations_of_the_project_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/learn");
    let mut kinds = [0, 0];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let pictures = text.contains("\n[learn]");
        match pictures {
            true => assert_eq!(LearnConfig::parse(&text, &path).unwrap().data.sha256, ""),
            false => assert!(Config::parse(&text, &path).unwrap().data.is_some()),
        }
        kinds[usize::from(pictures)] += 1;
    }
    assert_eq!(kinds, [1, 2]);
}
