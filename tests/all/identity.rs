//! Task files in folders that they are not of: whoever looks at them says so, and nothing is made of them.

use std::fs;

use crate::common::{
    Sweep, TINY, TINY_TASKS, assert_contains, change_hdf5, neuralrg, outcome, snapshot,
};

/// The tiny sweep with another way to the symmetry.
fn regularized() -> String {
    TINY.replace("\"mixture\"", "\"regularizer\"")
}

/// A folder of one configuration with the task files of another.
fn with_foreign_files(files: &Sweep) -> Sweep {
    let sweep = Sweep::new(&regularized());
    fs::create_dir_all(sweep.dir.join("tasks")).unwrap();
    for name in files.task_files() {
        fs::copy(files.dir.join("tasks").join(&name), sweep.dir.join("tasks").join(name)).unwrap();
    }
    sweep
}

/// The parameters are as many as those of the folder's own flows, so that only what the files say tells.
#[test]
fn files_of_another_configuration_are_refused_by_all_that_would_use_them() {
    let sweep = with_foreign_files(&Sweep::finished());
    let before = snapshot(&sweep.dir.join("tasks"));
    let key = "flow.symmetry = \"regularizer\", there \"mixture\"";
    let expected = ["belongs to another configuration", key, "choose another folder with -o"];
    let result = sweep.run();
    assert_eq!(result.status, Some(1));
    assert_contains(result.errors()[0], &expected);
    assert!(!result.stderr.contains(" begins"), "{}", result.stderr);

    let table = sweep.look("status").success().to_owned();
    assert_contains(&table, &["4 tasks: 4 foreign\n", "4 tasks: ", key]);
    let mut details = neuralrg();
    details.arg("status").arg(&sweep.dir).args(["--task", TINY_TASKS[0]]);
    let told = format!(
        "task file {} belongs to another configuration",
        sweep.task(TINY_TASKS[0]).display()
    );
    assert_contains(outcome(&mut details).success(), &[&told]);

    assert_contains(sweep.look("collect").refusal(), &expected);
    assert!(!sweep.dir.join("sweep.h5").exists());
    for study in ["respond", "mutual-information", "coarse"] {
        let result = sweep.look(study);
        assert_contains(result.errors()[0], &expected);
        assert_eq!((result.status, result.stdout.as_str()), (Some(1), ""));
    }
    assert_eq!(snapshot(&sweep.dir.join("tasks")), before);
}

#[test]
fn a_file_under_another_tasks_name_is_refused() {
    let sweep = Sweep::finished();
    let [first, second, ..] = TINY_TASKS;
    fs::copy(sweep.task(second), sweep.task(first)).unwrap();
    let expected = [first, &format!("is of another task ({second}, by what it says)")];
    assert_contains(sweep.run().errors()[0], &expected);
    assert_contains(sweep.look("status").success(), &["4 tasks: 3 done, 1 foreign"]);
    assert_contains(sweep.look("status").success(), &expected);
    assert_contains(sweep.look("collect").refusal(), &expected);
    assert_contains(sweep.look("coarse").errors()[0], &expected);
}

/// The numbers of a task that starts at random depend on no other task, nor on the machine.
#[test]
fn files_of_a_sweep_with_other_tasks_or_threads_are_as_good_as_its_own() {
    let more = TINY
        .replace("temperatures = [2.0, 3.0]", "temperatures = [2.0, 2.5, 3.0]")
        .replace("name = \"tiny\"", "name = \"more\"")
        .replace("[run]", "[run]\nthreads = 2\ncheckpoint_minutes = 3");
    let (sweep, smaller) = (Sweep::new(&more), Sweep::finished());
    fs::create_dir_all(sweep.dir.join("tasks")).unwrap();
    for name in TINY_TASKS {
        fs::copy(smaller.task(name), sweep.task(name)).unwrap();
    }
    let result = sweep.run();
    result.success();
    assert_contains(&result.stderr, &["2 of 6 tasks to do"]);
    assert_contains(sweep.look("status").success(), &["6 tasks: 6 done"]);
    assert_contains(sweep.look("collect").success(), &["6 of 6 tasks"]);
}

/// Random halves of blocks are part of a flow: weights that were trained with others mean something else.
#[test]
fn a_flow_whose_couplings_freeze_other_sites_is_refused_also_as_a_start() {
    let sweep = Sweep::new(&TINY.replace("[train]", "[train]\nstart_from = 'higher-temperature'"));
    sweep.run().success();
    let ([child, parent, ..], path) = (TINY_TASKS, sweep.task(TINY_TASKS[1]));
    change_hdf5(&path, |file| {
        let halves = file.dataset("model/halves").unwrap();
        let mut sites = halves.read_2d::<i8>().unwrap();
        // Two levels, two layers, two couplings: each half is followed by its complement.
        assert_eq!(sites.dim(), (8, 2));
        for pair in sites.exact_chunks((2, 2)) {
            let mut all: Vec<i8> = pair.iter().copied().collect();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3]);
        }
        sites.invert_axis(ndarray::Axis(0));
        halves.write(sites.as_standard_layout().view()).unwrap();
    });
    neuralrg::files::seal::seal_hdf5(&path).unwrap();
    fs::remove_file(sweep.task(child)).unwrap();

    let expected = [parent, "freeze other sites of their blocks (model/halves)"];
    let result = sweep.run();
    assert_eq!(result.status, Some(1));
    assert_contains(result.errors()[0], &expected);
    assert!(!sweep.task(child).exists());
    let mut export = neuralrg();
    export.arg("export").arg(&path).arg("-o").arg(sweep.folder().join("model.safetensors"));
    assert_contains(outcome(&mut export).refusal(), &expected);
}
