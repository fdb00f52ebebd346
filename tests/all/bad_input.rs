//! Bad configurations and bad states of a sweep's folder: each is refused or survived with its message.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use neuralrg::files::seal::seal_hdf5;

use crate::common::job::{CHECKPOINT, EACH_STEP, Point, killed_at};
use crate::common::{
    Outcome, Sweep, TINY, TINY_TASKS, assert_contains, assert_same_task, change_hdf5, contents,
    neuralrg, outcome, snapshot,
};

/// TOML files of a folder of the project, sorted.
fn toml_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).expect("the folder is part of the project");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.retain(|path| path.extension() == Some("toml".as_ref()));
    files.sort();
    files
}

fn check(path: &Path) -> Outcome {
    outcome(neuralrg().arg("check").arg(path))
}

fn exact(arguments: &[&str]) -> Outcome {
    outcome(neuralrg().arg("exact").args(arguments))
}

fn on_cuda() -> String {
    TINY.replace("device = \"cpu\"", "device = \"cuda\"")
}

fn truncate(path: &Path) {
    let length = fs::metadata(path).expect("it is there").len();
    File::options().write(true).open(path).and_then(|file| file.set_len(length / 2)).expect("cut");
}

// Configurations

#[test]
fn every_bad_configuration_is_refused_with_its_message() {
    let files = toml_files("tests/bad");
    assert!(files.len() >= 30);
    let problem = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("it is text");
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# expects: "));
        let expected = expected.expect("the first line says what is expected");
        let Outcome { status, stdout, stderr } = check(path);
        let fine = status == Some(1)
            && stdout.is_empty()
            && stderr.trim_end().lines().count() == 1
            && stderr.starts_with(&format!("neuralrg: error: {}: ", path.display()))
            && stderr.contains(expected);
        (!fine).then(|| format!("expected {expected:?}\n{status:?} {stdout}{stderr}"))
    };
    let (left, right) = files.split_at(files.len() / 2);
    let problems: Vec<String> = std::thread::scope(|scope| {
        let other = scope.spawn(|| left.iter().filter_map(problem).collect::<Vec<_>>());
        let mut problems: Vec<_> = right.iter().filter_map(problem).collect();
        problems.extend(other.join().expect("it does not panic"));
        problems
    });
    assert!(problems.is_empty(), "{} of {}:\n{}", problems.len(), files.len(), problems.join("\n"));
}

#[test]
fn every_given_configuration_passes_and_its_resolved_form_is_a_fixed_point() {
    let files = toml_files("configs");
    assert!(!files.is_empty());
    for path in files {
        let resolved = check(&path).success().to_owned();
        let again = Sweep::new(&resolved);
        assert_eq!(check(&again.config).success(), resolved, "{}", path.display());
    }
}

#[test]
fn missing_configuration_is_named() {
    let sweep = Sweep::new(TINY);
    fs::remove_file(&sweep.config).unwrap();
    let name = sweep.config.display().to_string();
    for result in [sweep.run(), check(&sweep.config), outcome(neuralrg().arg("plan").arg(&name))] {
        assert_contains(result.refusal(), &["cannot read configuration", &name, "No such file"]);
        assert_eq!(result.refusal().matches("No such file").count(), 1, "{}", result.refusal());
    }
    assert!(!sweep.dir.exists());
}

#[test]
fn folder_as_configuration_is_refused() {
    let sweep = Sweep::new(TINY);
    let refusal = check(sweep.folder());
    assert_contains(refusal.refusal(), &["cannot read configuration", "Is a directory"]);
}

#[test]
fn configuration_that_is_not_text_is_refused() {
    let sweep = Sweep::new(TINY);
    fs::write(&sweep.config, b"[sweep]\nname = \"\xff\xfe\"\n").unwrap();
    assert_contains(check(&sweep.config).refusal(), &["sweep.toml", "UTF-8"]);
}

#[test]
fn bad_configuration_makes_no_folder() {
    let sweep = Sweep::new(&TINY.replace("linear_size = 4", "linear_size = 5"));
    assert_contains(sweep.run().refusal(), &["sweep.toml", "`sweep.linear_size` is 5"]);
    assert!(!sweep.dir.exists());
}

// Command line

#[test]
fn exact_refuses_sizes_and_temperatures_that_it_cannot_do() {
    let size = "L must be an even number from 4 to 1024";
    let temperature = "a temperature must be a number from 0.01 to 1000";
    for (linear_size, temperatures, expected) in [
        ("5", "2.0", size),
        ("2", "2.0", size),
        ("large", "2.0", size),
        ("4", "0", temperature),
        ("4", "2.0,-1", temperature),
        ("4", "2.0,warm", temperature),
        ("4", "2,269185", "decimals begin with a point, not with a comma: 2.27"),
        ("4", "", temperature),
    ] {
        let result = exact(&[
            &format!("--linear-size={linear_size}"),
            &format!("--temperatures={temperatures}"),
        ]);
        assert_eq!((result.status, result.stdout.as_str()), (Some(2), ""), "{linear_size}");
        assert_contains(&result.stderr, &[expected]);
    }
}

#[test]
fn temperatures_that_look_like_decimal_commas_are_taken_with_a_hint() {
    let hint = "neuralrg: hint: a comma separates two temperatures; decimals begin with a point";
    let result = exact(&["--linear-size=4", "--temperatures=2,27"]);
    assert_eq!(result.success().lines().count(), 3, "both are temperatures");
    assert!(result.stderr.starts_with(hint), "{}", result.stderr);
    let sweep = Sweep::new(&TINY.replace("[2.0, 3.0]", "[2, 27]"));
    let config = sweep.config.to_str().unwrap();
    for arguments in [&["check", config][..], &["plan", config]] {
        let result = outcome(neuralrg().args(arguments));
        result.success();
        assert!(result.stderr.starts_with(hint), "{}", result.stderr);
    }
    let result = exact(&["--linear-size=4", "--temperatures=2.0,2.7"]);
    assert_eq!((result.status, result.stderr.as_str()), (Some(0), ""));
    fs::write(&sweep.config, TINY.replace("[2.0, 3.0]", "[2,1, 2,2]")).unwrap();
    assert_contains(
        check(&sweep.config).refusal(),
        &["has 2 twice", "decimals begin with a point"],
    );
}

#[test]
fn misused_command_line_is_explained() {
    for (arguments, expected) in [
        (&["dance"][..], "unrecognized subcommand 'dance'"),
        (&["run", "sweep.toml"][..], "--output <DIR>"),
        (&["plan", "sweep.toml", "--ranks", "0"][..], "--ranks"),
        (&["exact", "--linear-size", "4"][..], "--temperatures"),
        (&[][..], "Usage:"),
    ] {
        let result = outcome(neuralrg().args(arguments));
        assert_eq!((result.status, result.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert_contains(&result.stderr, &[expected]);
    }
}

// Folders

#[test]
fn folder_that_cannot_be_made_is_named() {
    let sweep = Sweep::new(TINY);
    let below_a_file = sweep.config.join("sweep");
    for dir in [&below_a_file, Path::new("/proc/neuralrg")] {
        let result = outcome(neuralrg().arg("run").arg(&sweep.config).arg("-o").arg(dir));
        let name = dir.display().to_string();
        assert_contains(result.refusal(), &["cannot create folder", &name]);
    }
}

#[test]
fn folder_that_is_no_sweep_is_refused() {
    let sweep = Sweep::new(TINY);
    for dir in [sweep.folder(), &sweep.dir] {
        for subcommand in ["status", "collect"] {
            let result = outcome(neuralrg().arg(subcommand).arg(dir));
            let expected = ["is not a sweep folder", "neuralrg run CONFIG -o"];
            assert_contains(result.refusal(), &expected);
        }
    }
    assert!(!sweep.dir.exists());
}

#[test]
fn damaged_configuration_of_a_folder_is_named() {
    let sweep = Sweep::finished();
    let kept = sweep.dir.join("config.toml");
    let text = fs::read_to_string(&kept).unwrap();
    fs::write(&kept, text.split_once("temperatures").expect("the key is there").0).unwrap();
    let before = snapshot(&sweep.dir);
    for result in [sweep.look("status"), sweep.look("collect"), sweep.run()] {
        assert_contains(result.refusal(), &[&kept.display().to_string()]);
    }
    assert_eq!(snapshot(&sweep.dir), before);
}

#[test]
fn folder_of_another_configuration_is_refused_and_left_untouched() {
    let sweep = Sweep::finished();
    fs::write(&sweep.config, TINY.replace("batch = 8", "batch = 16")).unwrap();
    let before = snapshot(&sweep.dir);
    let result = sweep.run();
    let expected =
        ["another configuration", "train.batch = 16", "there 8", "with -o", "config.toml"];
    assert_contains(result.refusal(), &expected);
    assert_eq!(snapshot(&sweep.dir), before);
}

#[test]
fn folder_that_another_job_works_on_is_refused() {
    let sweep = Sweep::finished();
    let lock = File::create(sweep.dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let before = snapshot(&sweep.dir);
    assert_contains(sweep.run().refusal(), &["another job is working on"]);
    assert_eq!(snapshot(&sweep.dir), before);
    lock.unlock().unwrap();
    assert_eq!(sweep.run().status, Some(0), "the lock ends with its holder");
}

#[test]
fn nothing_finished_is_nothing_to_collect() {
    let sweep = Sweep::finished();
    fs::remove_dir_all(sweep.dir.join("tasks")).unwrap();
    assert_contains(sweep.look("collect").refusal(), &["has no finished task", "neuralrg run"]);
    assert!(!sweep.dir.join("sweep.h5").exists());
}

// Task files

#[test]
fn truncated_task_file_is_moved_aside_and_only_its_task_repeated() {
    let sweep = Sweep::finished();
    let whole = Sweep::finished();
    let [damaged, others @ ..] = TINY_TASKS.map(|name| sweep.task(name));
    truncate(&damaged);
    let cut = fs::read(&damaged).unwrap();
    let before = snapshot(&sweep.dir);

    let result = sweep.run();
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    assert_contains(
        &result.stderr,
        &["is damaged", "h5.damaged, the task runs again", "1 of 4 tasks"],
    );
    assert_eq!(result.stderr.matches(" begins").count(), 1, "{}", result.stderr);
    assert_eq!(fs::read(damaged.with_extension("h5.damaged")).unwrap(), cut);
    let after = snapshot(&sweep.dir);
    for path in others {
        assert_eq!(after[&path], before[&path], "{}", path.display());
    }
    assert_same_task(&damaged, &whole.task(TINY_TASKS[0]), &[]);
}

#[test]
fn truncated_task_file_is_shown_by_status_and_refused_by_collect() {
    let sweep = Sweep::finished();
    let path = sweep.task(TINY_TASKS[1]);
    truncate(&path);
    let table = sweep.look("status");
    assert_contains(table.success(), &["damaged", "4 tasks: 3 done, 1 damaged"]);
    let result = sweep.look("collect");
    let expected = ["is damaged", &path.display().to_string(), "repeats the task"];
    assert_contains(result.refusal(), &expected);
    assert!(!sweep.dir.join("sweep.h5").exists());
}

#[test]
fn task_file_without_the_completion_attribute_is_not_finished() {
    let sweep = Sweep::finished();
    let path = sweep.task(TINY_TASKS[2]);
    change_hdf5(&path, |file| file.delete_attr("complete").unwrap());
    seal_hdf5(&path).unwrap();
    assert_contains(sweep.look("collect").refusal(), &["is damaged (it was never completed)"]);
    let result = sweep.run();
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    assert_contains(&result.stderr, &["it was never completed", "1 of 4 tasks to do"]);
    assert_contains(sweep.look("status").success(), &["4 tasks: 4 done"]);
}

#[test]
fn task_file_that_cannot_be_locked_is_no_damaged_one() {
    let sweep = Sweep::finished();
    let path = sweep.task(TINY_TASKS[0]);
    let before = snapshot(&sweep.dir);
    let locked = File::open(&path).unwrap();
    locked.lock().unwrap();
    let expected = ["unable to lock file", &path.display().to_string(), "HDF5_USE_FILE_LOCKING"];
    assert_contains(sweep.run().errors()[0], &expected);
    assert_contains(sweep.look("collect").refusal(), &expected);
    // What status reads no lock keeps away.
    assert_contains(sweep.look("status").success(), &["4 tasks: 4 done"]);
    drop(locked);
    assert_eq!(snapshot(&sweep.dir), before);
}

#[test]
fn task_file_of_another_format_version_is_left_alone() {
    let sweep = Sweep::finished();
    let path = sweep.task(TINY_TASKS[0]);
    change_hdf5(&path, |file| file.attr("format_version").unwrap().write_scalar(&99i64).unwrap());
    seal_hdf5(&path).unwrap();
    let before = snapshot(&sweep.dir);
    let expected = ["has format version 99", "reads version 3", "another folder with -o"];
    assert_contains(sweep.run().errors()[0], &expected);
    assert_contains(sweep.look("collect").refusal(), &expected);
    assert_eq!(snapshot(&sweep.dir), before);
}

/// The files of version 2 had checksums, but did not say what they are of.
#[test]
fn folder_of_the_last_version_is_left_alone_with_a_remedy() {
    let sweep = Sweep::finished();
    for name in TINY_TASKS {
        let path = sweep.task(name);
        change_hdf5(&path, |file| {
            file.attr("format_version").unwrap().write_scalar(&2i64).unwrap();
        });
        let bytes = fs::read(&path).unwrap();
        let signature = bytes.windows(8).position(|it| it == b"\x89HDF\r\n\x1a\n").unwrap();
        fs::write(&path, [&[0; 512], &bytes[signature..]].concat()).unwrap();
        seal_hdf5(&path).unwrap();
    }
    let before = snapshot(&sweep.dir);
    let expected = ["has format version 2", "reads version 3", "use the version that wrote it"];
    assert_contains(sweep.run().errors()[0], &expected);
    for command in ["collect", "status"] {
        assert_contains(sweep.look(command).refusal(), &expected);
    }
    assert_contains(sweep.look("coarse").errors()[0], &expected);
    assert_eq!(snapshot(&sweep.dir), before);
}

/// Version 1 had neither checksums nor the folders of jobs and checkpoints.
#[test]
fn folder_of_an_older_version_is_left_alone_with_a_remedy() {
    let sweep = Sweep::finished();
    for folder in ["checkpoints", "claims", "jobs", "logs"] {
        fs::remove_dir_all(sweep.dir.join(folder)).unwrap();
    }
    let kept = sweep.dir.join("config.toml");
    let text = fs::read_to_string(&kept).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("# ") && !line.contains("checkpoint"));
    fs::write(&kept, lines.collect::<Vec<_>>().join("\n")).unwrap();
    for name in TINY_TASKS {
        let path = sweep.task(name);
        change_hdf5(&path, |file| {
            file.attr("format_version").unwrap().write_scalar(&1i64).unwrap();
        });
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, [&[0; 512], &bytes[512..]].concat()).unwrap();
    }
    let before = snapshot(&sweep.dir.join("tasks"));
    let expected = ["has format version 1", "reads version 3", "another folder with -o"];
    assert_contains(sweep.run().errors()[0], &expected);
    assert_contains(sweep.look("collect").refusal(), &expected);
    assert_contains(sweep.look("status").refusal(), &expected);
    assert_eq!(snapshot(&sweep.dir.join("tasks")), before);
}

#[test]
fn file_that_is_no_hdf5_is_moved_aside() {
    let sweep = Sweep::finished();
    let path = sweep.task(TINY_TASKS[3]);
    fs::write(&path, "not HDF5").unwrap();
    assert_contains(sweep.look("collect").refusal(), &["is damaged"]);
    assert_eq!(sweep.run().status, Some(0));
    assert_eq!(fs::read(path.with_extension("h5.damaged")).unwrap(), b"not HDF5");
}

// Failing tasks

#[test]
fn failed_task_is_recorded_while_the_others_go_on_and_the_next_run_repeats_it() {
    let sweep = Sweep::new(TINY);
    let name = TINY_TASKS[3];
    let result = sweep.run_with_obstacle(neuralrg(), name);
    assert_eq!(result.status, Some(1));
    assert_contains(result.errors()[0], &["1 of 4 tasks failed", "failed; the same command tries"]);
    let recorded = fs::read_to_string(sweep.dir.join(format!("failed/{name}.txt"))).unwrap();
    assert_contains(&recorded, &["cannot rename", &sweep.task(name).display().to_string()]);
    assert_eq!(recorded.trim_end().lines().count(), 1);
    for name in &TINY_TASKS[..3] {
        assert_eq!(contents(&sweep.task(name))["/@complete"].bits, [1]);
    }

    fs::remove_dir_all(sweep.task(name)).unwrap();
    assert_contains(sweep.look("status").success(), &[recorded.trim_end(), "3 done, 1 failed"]);
    let result = sweep.run();
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    assert_contains(&result.stderr, &["1 of 4 tasks to do", "goes on with its file"]);
    assert_contains(sweep.look("status").success(), &["4 tasks: 4 done"]);
    assert!(fs::read_dir(sweep.dir.join("failed")).unwrap().next().is_none());
}

#[test]
fn diverging_training_fails_its_task_with_the_count_and_the_remedy() {
    // The weight overflows f32: no step has a finite loss.
    let text = TINY.replace("\"mixture\"", "\"regularizer\"\nsymmetry_weight = 1e300");
    let text = text.replace("log_every = 3", "log_every = 3\nmax_skipped_steps = 2");
    let sweep = Sweep::new(&text);
    let result = sweep.run();
    assert_eq!(result.status, Some(1));
    assert_contains(result.errors()[0], &["4 of 4 tasks failed"]);
    let recorded = fs::read_to_string(sweep.dir.join("failed/L4_T2_d1_s1.txt")).unwrap();
    assert_contains(
        &recorded,
        &[
            "training diverged: 3 of 3 steps had a non-finite loss or gradient",
            "train.max_skipped_steps = 2",
            "lower train.learning_rate",
        ],
    );
    assert_eq!(sweep.task_files(), [""; 0]);
    assert_contains(sweep.look("status").success(), &["4 tasks: 4 failed"]);
}

#[test]
fn killed_job_leaves_only_finished_files_and_goes_on_to_the_numbers_of_an_unbroken_run() {
    let text = TINY.replace("[run]", &format!("[run]\n{EACH_STEP}"));
    let (sweep, unbroken) = (Sweep::new(&text), Sweep::new(&text));
    unbroken.run().success();
    // In the middle of the second task.
    let path = format!("checkpoints/{}{CHECKPOINT}", TINY_TASKS[1]);
    let point = Point { path: &path, number: 3, later: 0 };
    let result = killed_at(sweep.run_with(neuralrg()), &sweep, point);
    assert_eq!(result.status, None, "a signal ended it");
    let finished = sweep.task_files();
    assert!((1..4).contains(&finished.len()), "{finished:?}");
    assert!(!sweep.look("status").success().contains("damaged"));
    let before = snapshot(&sweep.dir);

    let result = sweep.run();
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    assert_contains(&result.stderr, &[&format!("{} of 4 tasks to do", 4 - finished.len())]);
    let after = snapshot(&sweep.dir);
    for name in finished {
        let path = sweep.dir.join("tasks").join(name);
        assert_eq!(after[&path], before[&path], "{}", path.display());
    }
    for name in TINY_TASKS {
        assert_same_task(&sweep.task(name), &unbroken.task(name), &[]);
    }
}

// GPU

#[test]
fn cuda_where_there_is_none_is_refused_with_a_remedy_and_without_a_folder() {
    let sweep = Sweep::new(&on_cuda());
    // Hides the GPUs of machines that have some.
    let result = outcome(sweep.run_with(neuralrg()).env("CUDA_VISIBLE_DEVICES", ""));
    assert_contains(result.refusal(), &["run.device = \"cuda\"", "set run.device = \"cpu\""]);
    assert!(!sweep.dir.exists());
}

#[cfg(feature = "torch")]
#[test]
fn cuda_library_that_cannot_be_loaded_is_named_with_its_reason() {
    let sweep = Sweep::new(&on_cuda().replace("[run]", "[run]\nengine = \"torch\""));
    fs::write(sweep.folder().join("libtorch_cuda.so"), "no library").unwrap();
    let result = outcome(sweep.run_with(neuralrg()).env("LD_LIBRARY_PATH", sweep.folder()));
    let expected = ["no usable CUDA part", "libtorch_cuda.so", "TORCH_CUDA=1", "LIBTORCH"];
    assert_contains(result.refusal(), &expected);
}

#[cfg(feature = "torch")]
#[test]
fn cuda_part_of_libtorch_is_loaded_when_asked_for_and_only_then() {
    let sweep = Sweep::new(&on_cuda().replace("[run]", "[run]\nengine = \"torch\""));
    let source = sweep.folder().join("stub.c");
    let text = "#include <stdio.h>\n#include <stdlib.h>\n__attribute__((constructor)) static void \
                loaded(void) { fclose(fopen(getenv(\"MARKER\"), \"w\")); }\n";
    fs::write(&source, text).unwrap();
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(sweep.folder().join("libtorch_cuda.so"));
    assert!(compiler.arg(&source).status().expect("there is a C compiler").success());
    let marker = sweep.folder().join("loaded");
    let run = || {
        let mut command = sweep.run_with(neuralrg());
        command.env("LD_LIBRARY_PATH", sweep.folder()).env("MARKER", &marker);
        outcome(command.env("CUDA_VISIBLE_DEVICES", "3,5"))
    };

    let expected = ["no GPU is visible (CUDA_VISIBLE_DEVICES is 3,5)", "set run.device = \"cpu\""];
    assert_contains(run().refusal(), &expected);
    assert!(marker.exists() && !sweep.dir.exists());

    fs::remove_file(&marker).unwrap();
    fs::write(&sweep.config, TINY).unwrap();
    run().success();
    assert!(!marker.exists(), "a CPU run pays nothing for CUDA");
}
