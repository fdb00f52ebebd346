//! `neuralrg canonical`: both losses, interruptions, what its file says, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Outcome, assert_contains, make_hdf5, neuralrg, outcome};
use ndarray::Array2;

/// A configuration of a ring, few steps.
const RING: &str = "[canonical]\nloss = 'variational'\nevaluate = 1000\nsamples = 3\ninformation = 200\n\
                    [source]\nkind = 'ring'\n[flow]\ncouplings = 2\nhidden_layers = 1\nhidden_width = 4\n\
                    [train]\nsteps = 5\nbatch = 16\naveraging = 0.9\n";

/// One of samples, in a file beside it.
fn of_data(folder: &Path) -> String {
    let file = folder.join("data.h5");
    write_data(&file, 300, &["phi", "psi"]);
    format!(
        "[canonical]\nloss = 'likelihood'\nseeds = [1, 2]\nkept_modes = [0, 2, 3]\nmodes = 2\n\
         information = 200\nsamples = 3\n[source]\nkind = 'data'\nfile = {file:?}\nheld_out = 100\nscale = 2\n\
         [flow]\ncouplings = 2\nhidden_layers = 1\nhidden_width = 4\n[train]\nsteps = 4\nbatch = 130\n"
    )
}

/// Three coordinates that know of the first of two angles.
fn write_data(path: &Path, samples: usize, names: &[&str]) {
    let coordinates =
        Array2::from_shape_fn((samples, 3), |(i, j)| ((i * (7 + j) + 3 * j) % 101) as f32 / 50.0);
    let angles = Array2::from_shape_fn((samples, 2), |(i, j)| match j {
        0 => f64::from(coordinates[[i, 0]]) + 1e-3 * i as f64,
        _ => ((i * 31) % 97) as f64,
    });
    make_hdf5(path, |file| {
        file.new_dataset_builder().with_data(&coordinates).create("coordinates").unwrap();
        let angles = file.new_dataset_builder().with_data(&angles).create("angles").unwrap();
        let names: Vec<hdf5::types::VarLenUnicode> =
            names.iter().map(|name| name.parse().unwrap()).collect();
        angles.new_attr_builder().with_data(&names).create("angle_names").unwrap();
    });
}

fn config(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("canonical.toml");
    fs::write(&path, text).unwrap();
    path
}

fn run(config: &Path, output: &Path) -> Outcome {
    let mut command = neuralrg();
    command.env("RUST_LOG", "error").arg("canonical").arg(config).arg("-o").arg(output);
    outcome(&mut command)
}

/// Bad values, each with its message; nothing is written.
#[test]
fn bad_configurations_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.h5");
    let data = of_data(folder.path());
    for (text, from, to, message) in [
        (
            RING,
            "kind = 'ring'",
            "kind = 'ring'\nbeads = 4",
            "`source.beads` is given, but must be given for source.kind = \"harmonic-chain\"",
        ),
        (RING, "kind = 'ring'", "kind = 'harmonic-chain'", "`source.beads` is missing"),
        (RING, "kind = 'ring'", "kind = 'harmonic-chain'\nbeads = 1", "`source.beads` is 1"),
        (
            RING,
            "kind = 'ring'",
            "kind = 'data'\nfile = 'a.h5'",
            "`canonical.loss` is \"variational\", but must be \"likelihood\" for source.kind = \"data\"",
        ),
        (RING, "kind = 'ring'", "kind = 'data'", "`source.file` is missing"),
        (RING, "kind = 'ring'", "kind = 'ring'\nscale = 2", "`source.scale` is 2"),
        (
            RING,
            "'variational'",
            "'likelihood'",
            "`source.samples` is missing, but must be given where the likelihood of a ring or chain",
        ),
        (RING, "kind = 'ring'", "kind = 'star'", "unknown variant `star`"),
        (RING, "'variational'", "'variational'\nseeds = []", "`canonical.seeds` is empty"),
        (RING, "'variational'", "'variational'\nseeds = [1, 1]", "`canonical.seeds` has 1 twice"),
        (
            RING,
            "'variational'",
            "'variational'\nkept_modes = [1]",
            "`canonical.kept_modes` is a list, but must be empty, unless canonical.loss is",
        ),
        (
            RING,
            "samples = 3\ninformation = 200\n[source]\nkind = 'ring'",
            "samples = 3\ninformation = 1e6\n[source]\nkind = 'harmonic-chain'\nbeads = 60000",
            "`canonical.information` is 1000000, but must be at most 35791 for 60000 coordinates",
        ),
        (
            RING,
            "'variational'\nevaluate = 1000\nsamples = 3\ninformation = 200\n[source]\nkind = 'ring'",
            "'likelihood'\n[source]\nkind = 'ring'\nsamples = 50",
            "`source.samples` is 50, but must be from 100 to",
        ),
        (RING, "evaluate = 1000", "evaluate = 1", "`canonical.evaluate` is 1"),
        (RING, "samples = 3", "samples = 0", "`canonical.samples` is 0"),
        (RING, "information = 200", "information = 20", "`canonical.information` is 20"),
        (
            RING,
            "[train]",
            "[train]\nestimator = 'path'\n[run]\nengine = 'native'\n[x]",
            "unknown field `x`",
        ),
        (RING, "batch = 16", "batch = 16\ntarget_gap = 1", "`train.target_gap` is 1"),
        (
            RING,
            "[train]",
            "[run]\nengine = 'native'\n[train]",
            "`run.engine` is \"native\", but must be \"auto\" or \"torch\"",
        ),
        (
            RING,
            "couplings = 2",
            "couplings = 2\narrangement = 'mera'",
            "`flow.arrangement` is \"mera\", but must be \"halves\"",
        ),
        (
            RING,
            "couplings = 2",
            "couplings = 2\nsymmetry = 'mixture'",
            "`flow.symmetry` is \"mixture\"",
        ),
        (
            &data,
            "steps = 4",
            "steps = 4\nestimator = 'path'",
            "`train.estimator` is \"path\", but must be \"total\"",
        ),
        (&data, "held_out = 100", "held_out = 1", "`source.held_out` is 1"),
        (&data, "scale = 2", "scale = 0", "`source.scale` is 0"),
    ] {
        assert!(text.contains(from), "{from}");
        let config = config(folder.path(), &text.replacen(from, to, 1));
        let refused = run(&config, &output);
        assert_contains(refused.refusal(), &[message]);
        assert_contains(outcome(neuralrg().arg("check").arg(&config)).refusal(), &[message]);
        assert!(!output.exists());
    }
}

#[test]
fn configurations_of_the_project_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/canonical");
    let paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(paths.len() >= 3);
    for path in paths {
        outcome(neuralrg().arg("check").arg(path)).success();
    }
}

#[test]
fn check_prints_every_default() {
    let folder = tempfile::tempdir().unwrap();
    let checked = outcome(neuralrg().arg("check").arg(config(folder.path(), RING)));
    for line in ["momenta = \"drawn\"", "arrangement = \"halves\"", "held_out = 1000"] {
        assert_contains(checked.success(), &[line]);
    }
}

#[cfg(not(feature = "torch"))]
#[test]
fn without_torch_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.h5");
    let refused = run(&config(folder.path(), RING), &output);
    assert_contains(
        refused.refusal(),
        &["canonical transformations need torch, without which this program was built"],
    );
    assert!(!output.exists());
}

#[cfg(feature = "torch")]
mod with_torch {
    use ndarray::{Array1, Array3, Axis};
    use neuralrg::error::Error;
    use neuralrg::signals::Stop;
    use neuralrg::targets::surface::Surface;
    use neuralrg::task::canonical::canonical;

    use super::*;
    use crate::common::contents;

    fn read<D: ndarray::Dimension>(path: &Path, name: &str) -> ndarray::Array<f64, D> {
        hdf5::File::open(path).and_then(|file| file.dataset(name)?.read()).unwrap()
    }

    #[test]
    fn interrupted_after_every_step_it_ends_with_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        for (text, steps) in [(RING.to_owned(), 5), (of_data(folder.path()), 8)] {
            let config = config(folder.path(), &text);
            let [unbroken, broken] = ["a.h5", "b.h5"].map(|name| folder.path().join(name));
            let numbers = canonical(&config, &unbroken, Stop::default()).unwrap();
            let stop = Stop::default();
            stop.request();
            let mut interruptions = 0;
            let again = loop {
                match canonical(&config, &broken, stop.clone()) {
                    Err(Error::Stopped) => interruptions += 1,
                    done => break done.unwrap(),
                }
            };
            assert_eq!((interruptions, &again), (steps, &numbers));
            assert_eq!(contents(&broken), contents(&unbroken));
            // What is finished stays, and is told again.
            let before = fs::read(&broken).unwrap();
            assert_eq!(canonical(&config, &broken, Stop::default()).unwrap(), numbers);
            assert_eq!(fs::read(&broken).unwrap(), before);
            assert!(!folder.path().join("b.h5.checkpoint").exists());
            for file in [unbroken, broken] {
                fs::remove_file(file).unwrap();
            }
        }
    }

    /// The exponential scales of bumps diverge with steps of 1; the command ends with the error of the last seed.
    #[test]
    fn seeds_that_all_diverge_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let text = RING
            .replace("'variational'", "'variational'\nseeds = [1, 2]")
            .replace("couplings = 2", "couplings = 2\ntransform = 'bump'")
            .replace(
                "steps = 5",
                "steps = 200\nlearning_rate = 1\nmax_skipped_steps = 0\nlog_every = 1",
            );
        let output = folder.path().join("out.h5");
        let config = config(folder.path(), &text);
        let mut command = neuralrg();
        command.arg("canonical").arg(config).arg("-o").arg(&output);
        let result = outcome(command.env("RUST_LOG", "warn"));
        assert_eq!(result.status, Some(1), "{result:?}");
        assert_contains(&result.stderr, &["seed 1 fails: ", "seed 2 fails: ", "neuralrg: error: "]);
        assert!(!output.exists());
        // What diverged is known, and not trained again: the training would stop after its first step.
        let stop = Stop::default();
        stop.request();
        let again = canonical(&folder.path().join("canonical.toml"), &output, stop);
        assert!(matches!(again, Err(Error::TrainingDiverged { .. })), "{again:?}");
    }

    #[test]
    fn the_file_of_data_holds_both_seeds_and_the_best_one() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("new").join("out.h5");
        let config = config(folder.path(), &of_data(folder.path()));
        let printed = run(&config, &output);
        assert_contains(printed.success(), &["quantity,value,unit\nheld_out_samples,1.0"]);
        let losses: Array1<f64> = read(&output, "modes/seed_loss");
        let frequencies: Array2<f64> = read(&output, "modes/seed_frequency");
        let best = usize::from(losses[1] < losses[0]);
        let frequency: Array1<f64> = read(&output, "modes/frequency");
        assert_eq!(frequency, frequencies.row(best));
        assert!(frequency.windows(2).into_iter().all(|pair| pair[0] <= pair[1]));
        let difference = (&frequencies.row(0) - &frequencies.row(1)).mapv(f64::abs);
        let errors: Array1<f64> = read(&output, "modes/frequency_error");
        assert!((errors - difference / 2f64.sqrt()).iter().all(|value| value.abs() < 1e-12));
        // Of coordinates that are kept whole nothing changes; of none nothing stays.
        let originals: Array2<f64> = read(&output, "evaluate/original");
        let redrawn: Array3<f64> = read(&output, "evaluate/redrawn");
        assert_eq!(redrawn.shape(), [3, 16, 3]);
        let whole = &redrawn.index_axis(Axis(0), 2) - &originals;
        assert!(whole.iter().all(|value| value.abs() < 1e-4), "{whole}");
        assert!(
            (&redrawn.index_axis(Axis(0), 0) - &originals).iter().any(|value| value.abs() > 0.1)
        );
        // A path goes through the same point at rest whatever the mode.
        let paths: Array3<f64> = read(&output, "modes/path");
        let middle = paths.index_axis(Axis(1), 12);
        assert_eq!((paths.shape(), middle.row(0)), (&[2, 25, 3][..], middle.row(1)));

        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("steps = 4", "steps = 3")).unwrap();
        let message = "was made by another configuration (train.steps = 3, there 4)";
        assert_contains(run(&config, &output).refusal(), &[message]);
        fs::write(&output, "text").unwrap();
        assert_contains(
            run(&config, &output).refusal(),
            &["is no finished file of `neuralrg canonical`"],
        );
    }

    /// Where the data lie, how often progress is told and what is told of a flow belong to no training.
    #[test]
    fn data_that_have_moved_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.h5");
        let text = of_data(folder.path());
        let path = config(folder.path(), &text);
        let stop = Stop::default();
        stop.request();
        assert!(matches!(canonical(&path, &output, stop.clone()), Err(Error::Stopped)));
        fs::rename(folder.path().join("data.h5"), folder.path().join("moved.h5")).unwrap();
        let text = text.replace("data.h5", "moved.h5").replace("samples = 3", "samples = 4");
        let text = text.replace("steps = 4", "steps = 4\nlog_every = 1");
        config(folder.path(), &text);
        let mut interruptions = 1;
        while let Err(error) = canonical(&path, &output, stop.clone()) {
            assert!(matches!(error, Error::Stopped), "{error}");
            interruptions += 1;
        }
        assert_eq!(interruptions, 8, "it has gone on from its checkpoint");
        fs::rename(folder.path().join("moved.h5"), folder.path().join("data.h5")).unwrap();
        config(folder.path(), &text.replace("moved.h5", "data.h5"));
        canonical(&path, &output, Stop::default()).unwrap();
    }

    /// Where all oscillators but one rest the modes are known; the program reads the units that the flow learned from.
    #[test]
    fn modes_of_paths_are_their_positions() {
        let folder = tempfile::tempdir().unwrap();
        let [file, data, output] =
            ["out.h5", "paths.h5", "modes.h5"].map(|name| folder.path().join(name));
        let config = config(folder.path(), &of_data(folder.path()));
        run(&config, &file).success();
        let paths: Array3<f64> = read(&file, "modes/path");
        let points: Vec<f32> = paths.iter().map(|&q| (q / 2.0) as f32).collect();
        let points = Array2::from_shape_vec((2 * 25, 3), points).unwrap();
        make_hdf5(&data, |file| {
            file.new_dataset_builder().with_data(&points).create("coordinates").unwrap();
        });
        let modes = |data: &Path, output: &Path, more: &[&str]| {
            let mut command = neuralrg();
            command.arg("modes").arg(&file).arg(data).arg("-o").arg(output).args(more);
            outcome(&mut command)
        };
        modes(&data, &output, &[]).success();
        let positions: Array1<f64> = read(&file, "modes/path_position");
        let found: Array2<f64> = read(&output, "modes");
        let expected = Array2::from_shape_fn((50, 3), |(row, mode)| {
            if row / 25 == mode { positions[row % 25] } else { 0.0 }
        });
        let largest = (&found - &expected).mapv(f64::abs).into_iter().fold(0.0, f64::max);
        assert!(largest < 1e-4, "{largest}");
        let frequencies: Array1<f64> = read(&file, "modes/frequency");
        assert_eq!(read::<ndarray::Ix1>(&output, "frequency"), frequencies);
        modes(&data, &output, &["--slowest", "2"]).success();
        assert_eq!(read::<ndarray::Ix2>(&output, "modes"), found.slice(ndarray::s![.., ..2]));

        let before = fs::read(&data).unwrap();
        let message = "is a file that this command reads";
        assert_contains(modes(&data, &data, &[]).refusal(), &[message]);
        assert_eq!(fs::read(&data).unwrap(), before);
        let message = "is no finished file of `neuralrg canonical`";
        let mut command = neuralrg();
        command.arg("modes").arg(&data).arg(&data).arg("-o").arg(&output);
        assert_contains(outcome(&mut command).refusal(), &[message]);
        make_hdf5(&data, |file| {
            let values = Array2::<f32>::zeros((300, 4));
            file.new_dataset_builder().with_data(&values).create("coordinates").unwrap();
        });
        let message = "it has 4 coordinates, the transformation 3";
        assert_contains(modes(&data, &output, &[]).refusal(), &[message]);
    }

    #[test]
    fn bad_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), &of_data(folder.path()));
        let (file, output) = (folder.path().join("data.h5"), folder.path().join("out.h5"));
        let refused = |message: &str| {
            let result = run(&config, &output);
            assert_contains(result.refusal(), &[message]);
            assert_contains(result.refusal(), &["data.h5"]);
            assert!(!output.exists());
        };
        write_data(&file, 101, &["phi", "psi"]);
        refused("it has 101 samples; source.held_out = 100 must leave at least 2 of them");
        write_data(&file, 300, &["phi"]);
        refused("`angles` must have a finite number for each sample and each of its 1 names");
        write_data(&file, 300, &["phi", "psi"]);
        let of_pictures = hdf5::File::append(&file).unwrap();
        of_pictures
            .new_attr::<i64>()
            .create("held_out")
            .and_then(|held_out| held_out.write_scalar(&99))
            .unwrap();
        of_pictures.close().unwrap();
        refused("source.held_out = 100, but all but the last 99 pictures were looked at");
        make_hdf5(&file, |file| {
            let values = Array2::<f32>::from_elem((300, 3), f32::NAN);
            file.new_dataset_builder().with_data(&values).create("coordinates").unwrap();
        });
        refused("sample 0 has a value that is not a finite number");
        make_hdf5(&file, |file| {
            let values = Array1::<f32>::zeros(300);
            file.new_dataset_builder().with_data(&values).create("coordinates").unwrap();
        });
        refused("`coordinates` must have the axes (sample, coordinate)");
        make_hdf5(&file, |_| {});
        refused("it has no dataset `coordinates`");
        fs::remove_file(&file).unwrap();
        refused("cannot read data file");
    }

    /// Four coupled beads: what importance weights, modes and both losses say is exact.
    #[test]
    fn a_short_chain_is_learned_by_either_loss() {
        let folder = tempfile::tempdir().unwrap();
        let surface = Surface::HarmonicChain { beads: 4 };
        let flow = "[flow]\ncouplings = 6\nconditioner = 'odd'\nnetworks = 'joint'\nhidden_layers = 1\n\
                    hidden_width = 2\n[train]\nsteps = 1200\nlearning_rate = 0.02\nschedule = 'cosine'\n\
                    weight_decay = 0\naveraging = 0.95\n[run]\nprecision = 'f64'\n";
        let source = "[source]\nkind = 'harmonic-chain'\nbeads = 4\n";
        for (canonical, estimator) in [
            (
                "[canonical]\nloss = 'variational'\nevaluate = 20000\n",
                "batch = 64\nestimator = 'path'\n",
            ),
            (
                "[canonical]\nloss = 'likelihood'\nevaluate = 20000\nmomenta = 'integrated'\n",
                "batch = 512\n",
            ),
        ] {
            let samples = if canonical.contains("likelihood") { "samples = 20000\n" } else { "" };
            let flow = flow.replace("[run]", &format!("{estimator}[run]"));
            let config = config(folder.path(), &format!("{canonical}{source}{samples}{flow}"));
            let output = folder.path().join("chain.h5");
            let printed = run(&config, &output);
            let number = |name: &str| -> f64 {
                let line =
                    printed.success().lines().find(|line| line.starts_with(&format!("{name},")));
                line.unwrap().split(',').nth(1).unwrap().parse().unwrap()
            };
            let pull = (number("importance_free_energy") - surface.free_energy())
                / number("importance_free_energy_error");
            println!("{}", printed.success());
            assert!(pull.abs() < 4.0 && number("phase_gap") < 0.02, "{printed:?}");
            let frequency: Array1<f64> = read(&output, "modes/frequency");
            let exact = surface.frequencies().unwrap();
            let worst = (&frequency / &exact - 1.0).mapv(f64::abs).fold(0.0, |a: f64, &b| a.max(b));
            assert!(worst < 0.02, "{frequency} {exact}");
            fs::remove_file(&output).unwrap();
        }
    }
}
