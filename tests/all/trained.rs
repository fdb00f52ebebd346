//! `export` and `sample`, which read a trained flow from its task file.

use std::fs;
use std::path::Path;

use crate::common::{Outcome, Sweep, TINY_TASKS, change_hdf5, neuralrg, outcome, snapshot};
use hdf5::File;
use ndarray::{Array1, Array3};
use neuralrg::targets::Target;
use safetensors::SafeTensors;

const COUNT: usize = 600;

fn sample(task: &Path, output: &Path, arguments: &[&str]) -> Outcome {
    outcome(neuralrg().arg("sample").arg(task).arg("-o").arg(output).args(arguments))
}

fn export(task: &Path, output: &Path) -> Outcome {
    outcome(neuralrg().arg("export").arg(task).arg("-o").arg(output))
}

fn values(file: &File, name: &str) -> Array1<f64> {
    file.dataset(name).and_then(|dataset| dataset.read_1d()).expect("it is there")
}

fn fields(file: &File, name: &str) -> Array3<f64> {
    file.dataset(name).and_then(|dataset| dataset.read()).expect("it is there")
}

#[test]
fn samples_have_the_target_and_the_mean_energy_of_the_tasks_evaluation() {
    let sweep = Sweep::finished();
    let (task, output) = (sweep.task(TINY_TASKS[1]), sweep.folder().join("samples.h5"));
    sample(&task, &output, &["-n", &COUNT.to_string()]).success();

    let file = File::open(&output).unwrap();
    let [ln_q, ln_pi, sign] = ["ln_q", "ln_pi", "sign"].map(|name| values(&file, name));
    let field = fields(&file, "field");
    let (size, temperature) = (field.dim().1, file.attr("temperature").unwrap());
    assert_eq!((field.dim(), fields(&file, "latent").dim()), ((COUNT, size, size), field.dim()));
    let temperature: f64 = temperature.read_scalar().unwrap();
    let rows = field.to_shape((COUNT, size * size)).unwrap();
    let expected = Target::ising_dual(size).density(temperature).ln_density(rows.view());
    let largest = (&ln_pi - &expected).iter().fold(0.0_f64, |most, it| most.max(it.abs()));
    assert!(largest < 1e-3, "ln pi is off by {largest} in f32");

    // 4 standard errors of both means.
    let energies = &ln_q - &ln_pi;
    let mean = energies.mean().unwrap();
    let error = energies.std(1.0) / (COUNT as f64).sqrt();
    let stored = File::open(&task).unwrap();
    let number = |name: &str| {
        stored.dataset(&format!("scalars/{name}")).unwrap().read_scalar::<f64>().unwrap()
    };
    let limit = 4.0 * error.hypot(number("free_energy_error"));
    assert!((mean - number("free_energy")).abs() < limit, "{mean}, limit {limit}");

    // Fair coins: 600 ± 5 standard deviations.
    assert!(sign.iter().all(|sign| sign.abs() == 1.0));
    assert!(sign.sum().abs() < 5.0 * (COUNT as f64).sqrt());
}

#[test]
fn first_samples_depend_on_the_seed_and_not_on_the_number_of_samples() {
    let sweep = Sweep::finished();
    let task = sweep.task(TINY_TASKS[0]);
    let draw = |name: &str, arguments: &[&str]| {
        let path = sweep.folder().join(name);
        sample(&task, &path, arguments).success();
        fields(&File::open(&path).unwrap(), "field")
    };
    let few = draw("few.h5", &["-n", "3"]);
    let many = draw("many.h5", &["-n", "300"]);
    let other = draw("other.h5", &["-n", "3", "--seed", "2"]);
    assert_eq!(many.slice(ndarray::s![..3, .., ..]), few);
    assert_ne!(other, few);
    draw("again.h5", &["-n", "3", "--seed", "1"]);
    let bytes = |name: &str| fs::read(sweep.folder().join(name)).unwrap();
    assert_eq!(bytes("again.h5"), bytes("few.h5"));
}

#[test]
fn exported_weights_are_the_parameters_of_the_task() {
    let sweep = Sweep::finished();
    let (task, output) = (sweep.task(TINY_TASKS[1]), sweep.folder().join("model.safetensors"));
    export(&task, &output).success();
    let bytes = fs::read(&output).unwrap();
    let model = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    assert_eq!(metadata["task"], TINY_TASKS[1]);
    let flow: serde_json::Value = serde_json::from_str(&metadata["flow"]).unwrap();
    assert_eq!(flow["symmetry"], "mixture");
    let mut weights: Vec<f32> = Vec::new();
    for i in 0..flow["couplings"].as_array().unwrap().len() {
        let names = (0..).map(|j| format!("couplings.{i}.weights.{j}"));
        for tensor in names.map_while(|name| model.tensor(&name).ok()) {
            let floats = tensor.data().chunks_exact(4);
            weights.extend(floats.map(|four| f32::from_le_bytes(four.try_into().unwrap())));
        }
    }
    let stored = values(&File::open(&task).unwrap(), "model/parameters");
    assert_eq!(weights, stored.iter().map(|&value| value as f32).collect::<Vec<_>>());
}

#[test]
fn output_may_be_a_bare_name() {
    let sweep = Sweep::finished();
    let task = sweep.task(TINY_TASKS[0]);
    let mut command = neuralrg();
    command.current_dir(sweep.folder()).arg("export").arg(task).args(["-o", "model.safetensors"]);
    outcome(&mut command).success();
    assert!(sweep.folder().join("model.safetensors").is_file());
}

#[test]
fn what_is_no_finished_task_or_cannot_be_written_is_refused_and_changes_nothing() {
    let sweep = Sweep::finished();
    sweep.look("collect").success();
    let [task, damaged, unfinished, _] = TINY_TASKS.map(|name| sweep.task(name));
    let length = fs::metadata(&damaged).unwrap().len();
    fs::File::options().write(true).open(&damaged).unwrap().set_len(length / 2).unwrap();
    change_hdf5(&unfinished, |file| file.delete_attr("complete").unwrap());
    neuralrg::files::seal::seal_hdf5(&unfinished).unwrap();
    let output = sweep.folder().join("out");
    let absent = sweep.folder().join("absent");
    let cases = [
        (absent.clone(), output.clone(), "cannot read task file"),
        (sweep.dir.join("sweep.h5"), output.clone(), "is no task file of neuralrg"),
        (sweep.config.clone(), output.clone(), "is no task file of neuralrg"),
        (sweep.dir.clone(), output.clone(), "cannot read task file"),
        (damaged, output.clone(), "is damaged (its checksum does not fit)"),
        (unfinished, output, "is damaged (it was never completed)"),
        (task.clone(), task.clone(), "is a file that this command reads"),
        (task.clone(), absent.join("out"), "cannot write into folder"),
        (task, sweep.dir.clone(), "cannot write"),
    ];
    let before = snapshot(sweep.folder());
    for (task, output, words) in cases {
        for result in [export(&task, &output), sample(&task, &output, &["-n", "2"])] {
            assert!(result.refusal().contains(words), "{words}: {result:?}");
        }
    }
    let bad = sample(&sweep.task(TINY_TASKS[0]), &absent, &["-n", "0"]);
    assert_eq!(bad.status, Some(2), "{bad:?}");
    assert_eq!(snapshot(sweep.folder()), before);
}
