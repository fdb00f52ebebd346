//! Sweeps whose configuration grows: what is missing is done, and what is there stays.

use std::collections::BTreeMap;
use std::fs;

use crate::common::job::{
    CHECKPOINT, EACH_STEP, Job, PROGRESS, Point, held, held_at, killed_at, release,
};
use crate::common::{
    Outcome, Sweep, TINY, assert_contains, assert_same_task, assert_same_tasks,
    everything_measured, mpirun, neuralrg, outcome, snapshot,
};

/// A text with some parts in the place of others.
fn changed(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "no {old:?} in {text}");
        text.replace(old, new)
    })
}

/// Gives a sweep another configuration and runs it.
fn run_as(sweep: &Sweep, text: &str) -> Outcome {
    fs::write(&sweep.config, text).unwrap();
    sweep.run()
}

/// A sweep that was run with one configuration and then with another.
#[track_caller]
fn grown(text: &str, larger: &str) -> Sweep {
    let sweep = Sweep::new(text);
    sweep.run().success();
    run_as(&sweep, larger).success();
    sweep
}

/// A sweep of one configuration.
#[track_caller]
fn whole(text: &str) -> Sweep {
    let sweep = Sweep::new(text);
    sweep.run().success();
    sweep
}

#[test]
fn more_temperatures_depths_seeds_and_lattices_are_the_only_ones_to_run() {
    let small = changed(TINY, &[("[2.0, 3.0]", "[3.0]"), ("[1, 2]", "[2]")]);
    let sweep = whole(&small);
    let before = snapshot(&sweep.dir.join("tasks"));
    let mut text = small;
    for (old, new, told) in [
        ("[3.0]", "[2.0, 2.5, 3.0]", "2 of 3 tasks to do"),
        ("[2]", "[1, 2]", "3 of 6 tasks to do"),
        ("[run]", "[run]\nslice_minutes = 2", "0 of 6 tasks to do"),
        ("linear_size = 4", "linear_size = [4, 8]", "6 of 12 tasks to do"),
        ("[1, 2]", "[1, 2, 3]", "3 of 15 tasks to do"),
        ("name = \"tiny\"", "name = \"grown\"\nseeds = [1, 2]", "15 of 30 tasks to do"),
    ] {
        text = changed(&text, &[(old, new)]);
        let result = run_as(&sweep, &text);
        result.success();
        assert_contains(&result.stderr, &[told]);
    }
    let after = snapshot(&sweep.dir.join("tasks"));
    assert!(before.iter().all(|(path, content)| after[path] == *content), "old files change");
    assert_eq!(after.len(), 30);

    let unbroken = whole(&text);
    for name in unbroken.task_files() {
        let paths = [&sweep, &unbroken].map(|sweep| sweep.dir.join("tasks").join(&name));
        assert_same_task(&paths[0], &paths[1], &["/configuration"]);
    }
    let table = sweep.look("status").success().to_owned();
    assert!(table.ends_with("30 tasks: 30 done\n"), "{table}");
    let collected = sweep.look("collect").success().to_owned();
    assert!(collected.lines().next().unwrap().ends_with("sweep.h5: 30 of 30 tasks"), "{collected}");
    let file = hdf5::File::open(sweep.dir.join("sweep.h5")).unwrap();
    for (group, shape) in [("L4", [3, 2, 2]), ("L8", [3, 3, 2])] {
        assert_eq!(file.dataset(&format!("{group}/complete")).unwrap().shape(), shape);
    }
}

/// All samplers, with averaged weights and states that are kept.
fn short() -> String {
    let measured = "\nmeasure_every = 3\nmeasure_trajectories = 2";
    let changes = [("[2.0, 3.0]", "[2.0]"), ("batch = 64", "batch = 16"), (measured, "")];
    changed(&everything_measured(), &changes)
}

#[test]
fn longer_chains_are_those_of_one_run_to_the_bit() {
    let long = changed(&short(), &[("trajectories = 10", "trajectories = 20")]);
    let sweep = Sweep::new(&short());
    sweep.run().success();
    fs::write(&sweep.config, &long).unwrap();
    let plan = |sweep: &Sweep| {
        let mut plan = neuralrg();
        plan.arg("plan").arg(&sweep.config).arg("-o").arg(&sweep.dir);
        outcome(&mut plan).success().to_owned()
    };
    let chains = "chains of latent, chains of physical, chains of fourier, chains of independence";
    let lacks = format!("L4_T2_d1_s1 lacks {chains} (hmc.trajectories = 20, there 10)");
    assert_contains(&plan(&sweep), &[&lacks, "2 tasks on 1 ranks"]);
    // Nothing has told the folder yet.
    assert_contains(sweep.look("status").success(), &["2 tasks: 2 done"]);

    let result = sweep.run();
    result.success();
    assert_contains(&result.stderr, &["2 of 2 tasks to do", "goes on with"]);
    assert!(!result.stderr.contains(": train "), "{}", result.stderr);
    assert_same_tasks(&sweep, &whole(&long));
    assert!(!sweep.dir.join("replaced").exists());
    assert_contains(&plan(&sweep), &["0 tasks on 1 ranks"]);
}

#[test]
fn longer_training_is_that_of_one_run_to_the_bit_and_what_it_replaces_is_kept() {
    let long = changed(&short(), &[("steps = 6", "steps = 10")]);
    let sweep = whole(&short());
    let before = fs::read(sweep.task("L4_T2_d2_s1")).unwrap();
    run_as(&sweep, &long).success();
    assert_same_tasks(&sweep, &whole(&long));
    assert_eq!(fs::read(sweep.dir.join("replaced/L4_T2_d2_s1.1.h5")).unwrap(), before);
}

#[test]
fn more_samples_and_samplers_take_the_trained_flow() {
    let without = changed(&short(), &[("\"physical\", \"fourier\", ", "")]);
    let long = changed(&short(), &[("samples = 64", "samples = 100")]);
    assert_same_tasks(&grown(&without, &long), &whole(&long));
}

/// What has changed in the settings of evaluation or chains is done again if the user wants that.
#[test]
fn other_settings_are_refused_but_with_redo_which_keeps_what_it_replaces() {
    let other = changed(&short(), &[("warmup = 4", "warmup = 6"), ("batch = 16", "batch = 32")]);
    let sweep = whole(&short());
    let before = snapshot(&sweep.dir.join("tasks"));
    let refused = run_as(&sweep, &other);
    let told = ["evaluate.batch = 32, there 16", "--redo", "2 tasks that are finished", "replaced"];
    assert_contains(refused.errors()[0], &told);
    assert_eq!(refused.status, Some(1));
    assert_eq!(snapshot(&sweep.dir.join("tasks")), before);

    let result = outcome(sweep.run_with(neuralrg()).arg("--redo"));
    result.success();
    assert!(!result.stderr.contains(": train "), "{}", result.stderr);
    assert_same_tasks(&sweep, &whole(&other));
    for (path, (content, _)) in before {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let kept = sweep.dir.join("replaced").join(format!("{name}.1.h5"));
        assert_eq!(fs::read(kept).unwrap(), content);
    }
}

#[test]
fn tasks_keep_the_start_that_they_had() {
    let warm = changed(TINY, &[("[train]", "[train]\nstart_from = \"higher-temperature\"")]);
    let larger = changed(&warm, &[("[2.0, 3.0]", "[2.0, 2.5, 3.0]")]);
    let sweep = whole(&warm);
    let before = snapshot(&sweep.dir.join("tasks"));
    let result = run_as(&sweep, &larger);
    result.success();
    let told = "2 finished tasks keep what they started from, though a sweep begun with all tasks would \
                have it otherwise: L4_T2_d1_s1 from L4_T3_d1_s1, not L4_T2.5_d1_s1; ";
    assert_contains(&result.stderr, &[told, "2 of 6 tasks to do", "from L4_T3_d2_s1"]);
    let after = snapshot(&sweep.dir.join("tasks"));
    assert!(before.iter().all(|(path, content)| after[path] == *content));
    let unbroken = whole(&larger);
    for name in ["L4_T2.5_d1_s1", "L4_T2.5_d2_s1", "L4_T3_d1_s1"] {
        assert_same_task(&sweep.task(name), &unbroken.task(name), &["/configuration"]);
    }
    // Longer chains do not forget it.
    run_as(&sweep, &changed(&larger, &[("trajectories = 10", "trajectories = 12")])).success();
    let contents = crate::common::contents(&sweep.task("L4_T2_d1_s1"));
    assert_eq!(contents["/@started_from"].text, ["L4_T3_d1_s1"]);
    assert_eq!(contents["/chains/latent/energy"].shape, [4, 12]);
}

/// Begun tasks, too, go on from the task that they started from.
#[test]
fn interrupted_tasks_go_on_with_what_a_grown_configuration_leaves_of_them() {
    let warm = changed(
        TINY,
        &[
            ("[train]", "[train]\nstart_from = \"higher-temperature\""),
            ("[1, 2]", "[2]"),
            ("[run]", &format!("[run]\n{EACH_STEP}")),
        ],
    );
    let sweep = Sweep::new(&warm);
    let path = format!("checkpoints/L4_T2_d2_s1{CHECKPOINT}");
    killed_at(sweep.run_with(neuralrg()), &sweep, Point { path: &path, number: 12, later: 0 });
    let larger = changed(
        &warm,
        &[("[2.0, 3.0]", "[2.0, 2.5, 3.0]"), ("trajectories = 10", "trajectories = 15")],
    );
    let result = run_as(&sweep, &larger);
    result.success();
    assert_contains(&result.stderr, &["task L4_T2_d2_s1 begins from L4_T3_d2_s1"]);
    let unbroken = whole(&changed(&warm, &[("trajectories = 10", "trajectories = 15")]));
    for name in ["L4_T2_d2_s1", "L4_T3_d2_s1"] {
        assert_same_task(&sweep.task(name), &unbroken.task(name), &["/configuration"]);
    }
}

#[test]
fn killed_anywhere_while_it_grows_a_sweep_comes_to_the_same_end() {
    let small = changed(&short(), &[("[1, 2]", "[2]"), ("[run]", &format!("[run]\n{EACH_STEP}"))]);
    let large =
        changed(&small, &[("[2.0]", "[2.0, 3.0]"), ("trajectories = 10", "trajectories = 20")]);
    let (begun, unbroken) = (whole(&small), whole(&large));
    let point = |path: &'static str, number, later| Point { path, number, later };
    for point in [
        // The configuration is being written, is written, and is there when the job makes itself known.
        point("/sweep/.unfinished-", 1, 0),
        point("/sweep/.unfinished-", 1, 2),
        point("/jobs/", 1, 0),
        point("checkpoints/L4_T3_d2_s1.previous", 5, 0),
        point("checkpoints/L4_T2_d2_s1.previous", 2, 0),
        point("checkpoints/L4_T2_d2_s1.previous", 9, 0),
        // The two tasks write what they go on from one day, then their files.
        point("/states/.unfinished-", 1, 0),
        point("/states/.unfinished-", 1, 2),
        point("/tasks/.unfinished-", 1, 0),
        point("/tasks/.unfinished-", 1, 2),
        point("/states/.unfinished-", 2, 0),
    ] {
        let sweep = Sweep::new(&large);
        crate::common::copy_folder(&begun.dir, &sweep.dir);
        killed_at(sweep.run_with(neuralrg()), &sweep, point);
        assert!(sweep.task("L4_T2_d2_s1").exists(), "{point:?}");
        outcome(&mut sweep.run_with(mpirun(2))).success();
        assert_same_tasks(&sweep, &unbroken);
    }
}

#[test]
fn without_its_checkpoint_a_finished_task_cannot_go_on_and_says_so() {
    let text = changed(TINY, &[("[run]", "[run]\nkeep_checkpoints = false")]);
    let sweep = whole(&text);
    assert_eq!(fs::read_dir(sweep.dir.join("states")).unwrap().count(), 0);
    let before = snapshot(&sweep.dir.join("tasks"));
    let refused = run_as(&sweep, &changed(&text, &[("trajectories = 10", "trajectories = 20")]));
    let told = ["is finished but for its chains of latent", "states", "move", "whole task again"];
    assert_contains(refused.errors()[0], &told);
    assert_eq!(snapshot(&sweep.dir.join("tasks")), before);
    // The folder is still what it was.
    let result = run_as(&sweep, &text);
    result.success();
    assert_contains(&result.stderr, &["0 of 4 tasks to do"]);
}

/// What a sampler measured that is no longer wanted is not lost with the file that has it.
#[test]
fn chains_of_a_sampler_that_is_dropped_are_kept_aside() {
    let sweep = whole(&short());
    let before = fs::read(sweep.task("L4_T2_d2_s1")).unwrap();
    let fewer = changed(&short(), &[("\"physical\", ", "")]);
    run_as(&sweep, &fewer).success();
    assert_eq!(fs::read(sweep.task("L4_T2_d2_s1")).unwrap(), before);
    let longer = changed(&fewer, &[("samples = 64", "samples = 100")]);
    run_as(&sweep, &longer).success();
    assert_same_tasks(&sweep, &whole(&longer));
    assert_eq!(fs::read(sweep.dir.join("replaced/L4_T2_d2_s1.1.h5")).unwrap(), before);
}

/// Stages that have nothing to do are not lost where an earlier one is interrupted.
#[test]
fn chains_outlive_an_interruption_of_the_evaluation_that_goes_on() {
    let text = changed(&short(), &[("[1, 2]", "[2]"), ("[run]", &format!("[run]\n{EACH_STEP}"))]);
    let longer = changed(&text, &[("samples = 64", "samples = 256")]);
    let sweep = whole(&text);
    fs::write(&sweep.config, &longer).unwrap();
    let path = format!("checkpoints/L4_T2_d2_s1{CHECKPOINT}");
    killed_at(sweep.run_with(neuralrg()), &sweep, Point { path: &path, number: 4, later: 0 });
    let result = sweep.run();
    result.success();
    assert!(!result.stderr.contains(": hmc "), "{}", result.stderr);
    assert_same_tasks(&sweep, &whole(&longer));
}

/// What a job works on is as good as begun, though nothing of it is saved.
#[test]
fn while_a_job_works_others_may_add_tasks_and_no_more() {
    let sweep = Sweep::new(TINY);
    let command =
        held_at(sweep.run_with(neuralrg()), &sweep, Point { path: PROGRESS, number: 1, later: 0 });
    let mut job = Job::start(command);
    job.wait_until_held(&sweep, 1);
    for (old, new) in
        [("couplings = 2", "couplings = 4"), ("[2.0, 3.0]", "[2.0]"), ("steps = 6", "steps = 8")]
    {
        let refused = run_as(&sweep, &changed(TINY, &[(old, new)]));
        assert_eq!(refused.status, Some(1), "{new}");
        assert_contains(
            refused.errors()[0],
            &["is working on", "until it has ended", new.split(' ').next().unwrap()],
        );
    }
    let larger = changed(TINY, &[("[2.0, 3.0]", "[2.0, 2.5, 3.0]")]);
    fs::write(&sweep.config, &larger).unwrap();
    let mut second = Job::start(sweep.run_with(neuralrg()));
    second.wait_until(|told| told.contains("6 of 6 tasks to do"));
    release(&held(&sweep));
    job.end().success();
    second.end().success();
    assert_eq!(sweep.task_files().len(), 6);
}

/// What becomes of a change to the configuration of a finished folder.
enum Becomes {
    /// So many tasks are to do.
    Runs(usize),
    /// Refused, in these words.
    Refused(&'static str),
}

#[test]
fn every_change_runs_what_is_missing_or_names_the_key_and_the_tasks() {
    use Becomes::{Refused, Runs};
    let text = changed(
        TINY,
        &[
            ("[run]", "[controls]\nsamplers = [\"fourier\"]\n[run]"),
            ("[hmc]", "[hmc]\nkeep_states = 8"),
        ],
    );
    let finished = whole(&text);
    let changes: &[(&str, &str, Becomes)] = &[
        ("[2.0, 3.0]", "[3.0, 2.0]", Runs(0)),
        ("[2.0, 3.0]", "{ from = 2.0, to = 3.0, step = 0.5 }", Runs(2)),
        ("[2.0, 3.0]", "[2.0]", Refused("sweep.temperatures = [2.0], there [2.0, 3.0]")),
        ("[2.0, 3.0]", "[2.0, 3.1]", Refused("sweep.temperatures = [2.0, 3.1], there [2.0, 3.0]")),
        ("[1, 2]", "[1]", Refused("sweep.depths = [1], there [1, 2]")),
        ("linear_size = 4", "linear_size = [8, 4]", Runs(4)),
        ("linear_size = 4", "linear_size = 8", Refused("sweep.linear_size = [8], there [4]")),
        ("name = \"tiny\"", "name = \"other\"", Runs(0)),
        ("name = \"tiny\"", "name = \"tiny\"\nseeds = [1, 5]", Runs(4)),
        (
            "name = \"tiny\"",
            "name = \"tiny\"\nseeds = [5]",
            Refused("sweep.seeds = [5], there [1]"),
        ),
        ("couplings = 2", "couplings = 4", Refused("flow.couplings = 4, there 2")),
        ("hidden_width = 4", "hidden_width = 8", Refused("flow.hidden_width = 8, there 4")),
        ("\"mixture\"", "\"none\"", Refused("flow.symmetry = \"none\", there \"mixture\"")),
        ("steps = 6", "steps = 8", Runs(4)),
        ("steps = 6", "steps = 4", Refused("train.steps = 4, there 6")),
        ("batch = 8", "batch = 16", Refused("train.batch = 16, there 8")),
        ("log_every = 3", "log_every = 2", Refused("train.log_every = 2, there 3")),
        (
            "log_every = 3",
            "log_every = 3\nlearning_rate = 0.01",
            Refused("train.learning_rate = 0.01, there 0.001"),
        ),
        (
            "log_every = 3",
            "log_every = 3\nschedule = \"cosine\"",
            Refused("train.schedule = \"cosine\", there \"constant\""),
        ),
        (
            "log_every = 3",
            "log_every = 3\nstart_from = \"shallower\"",
            Refused("train.start_from = \"shallower\", there \"none\""),
        ),
        ("samples = 64", "samples = 128", Runs(4)),
        ("samples = 64", "samples = 32", Refused("evaluate.samples = 32, there 64")),
        ("keep_samples = 2", "keep_samples = 4", Refused("evaluate.keep_samples = 4, there 2")),
        ("trajectories = 10", "trajectories = 20", Runs(4)),
        ("trajectories = 10", "trajectories = 9", Refused("hmc.trajectories = 9, there 10")),
        ("trajectories = 10", "trajectories = 12", Refused("hmc.trajectories = 12, there 10")),
        ("chains = 4", "chains = 8", Refused("hmc.chains = 8, there 4")),
        ("warmup = 4", "warmup = 5", Refused("hmc.warmup = 5, there 4")),
        ("keep_states = 8", "keep_states = 0", Refused("hmc.keep_states = 0, there 8")),
        ("[\"fourier\"]", "[\"fourier\", \"physical\"]", Runs(4)),
        ("[\"fourier\"]", "[]", Runs(0)),
        (
            "[controls]",
            "[controls]\nstart = \"cold\"",
            Refused("controls.start = \"cold\", there \"hot\""),
        ),
        ("[run]", "[run]\nprecision = \"f64\"", Refused("run.precision = \"f64\", there \"f32\"")),
        ("[run]", "[run]\nthreads = 2\nengine = \"native\"", Runs(0)),
    ];
    let before = finished.task_files();
    for (old, new, becomes) in changes {
        let sweep = Sweep::new(&changed(&text, &[(old, new)]));
        crate::common::copy_folder(&finished.dir, &sweep.dir);
        let files = snapshot(&sweep.dir.join("tasks"));
        let result = sweep.run();
        match becomes {
            Runs(count) => {
                result.success();
                assert_contains(&result.stderr, &[&format!("{count} of ")]);
                assert_contains(sweep.look("collect").success(), &["sweep.h5"]);
                let after: BTreeMap<_, _> = snapshot(&sweep.dir.join("tasks"));
                let same = files.iter().filter(|(path, content)| after[*path] == **content);
                let new = after.len() - files.len();
                assert_eq!(files.len() - same.count() + new, *count, "{new}");
            }
            Refused(told) => {
                assert_eq!(result.status, Some(1), "{new}: {}", result.stderr);
                let error = result.errors()[0];
                assert_contains(
                    error,
                    &[told, "that are finished or begun", "choose another folder"],
                );
                assert_eq!(snapshot(&sweep.dir.join("tasks")), files);
                assert_contains(sweep.look("status").success(), &["4 tasks: 4 done"]);
            }
        }
    }
    assert!(changes.len() >= 30 && before.len() == 4);
}

/// Where nothing was begun, a configuration that failed to say what was meant is no reason for another folder.
#[test]
fn a_folder_without_finished_or_begun_tasks_takes_any_configuration() {
    let sweep = Sweep::finished();
    fs::remove_dir_all(sweep.dir.join("tasks")).unwrap();
    let text = changed(TINY, &[("couplings = 2", "couplings = 4"), ("[2.0, 3.0]", "[2.5]")]);
    run_as(&sweep, &text).success();
    assert_eq!(sweep.task_files(), ["L4_T2.5_d1_s1.h5", "L4_T2.5_d2_s1.h5"]);
}

#[test]
fn partial_tasks_are_shown_and_collected_as_what_they_are() {
    let sweep = whole(&changed(TINY, &[("[2.0, 3.0]", "[2.0]"), ("[1, 2]", "[1]")]));
    let file = fs::read(sweep.task("L4_T2_d1_s1")).unwrap();
    let long = changed(TINY, &[("[1, 2]", "[1]"), ("samples = 64", "samples = 128")]);
    run_as(&sweep, &long).success();
    fs::write(sweep.task("L4_T2_d1_s1"), file).unwrap();
    let told = "L4_T2_d1_s1: lacks evaluation (evaluate.samples = 128, there 64)";
    assert_contains(sweep.look("status").success(), &[told, "2 tasks: 1 done, 1 partial"]);
    assert_contains(sweep.look("collect").success(), &[told, "2 of 2 tasks"]);
}

/// A wish that was given up half way is no worse than one that was never begun.
#[test]
fn after_a_growth_that_was_interrupted_the_file_may_grow_by_less() {
    let each = changed(&short(), &[("[1, 2]", "[2]"), ("[run]", &format!("[run]\n{EACH_STEP}"))]);
    let sweep = whole(&each);
    let far = changed(&each, &[("steps = 6", "steps = 20")]);
    fs::write(&sweep.config, &far).unwrap();
    let path = format!("checkpoints/L4_T2_d2_s1{CHECKPOINT}");
    killed_at(sweep.run_with(neuralrg()), &sweep, Point { path: &path, number: 12, later: 0 });
    let near = changed(&each, &[("steps = 6", "steps = 8")]);
    run_as(&sweep, &near).success();
    assert_same_tasks(&sweep, &whole(&near));
}

/// What a finished task has kept is of its own flow, or of none.
#[test]
fn a_state_of_another_flow_is_not_gone_on_from() {
    let sweep = Sweep::finished();
    let states = sweep.dir.join("states");
    fs::copy(states.join("L4_T3_d2_s1"), states.join("L4_T2_d2_s1")).unwrap();
    let longer = changed(TINY, &[("trajectories = 10", "trajectories = 20")]);
    let before = fs::read(sweep.task("L4_T2_d2_s1")).unwrap();
    let result = run_as(&sweep, &longer);
    assert_eq!(result.status, Some(1));
    assert!(result.errors()[0].starts_with("1 of 4 tasks failed"), "{}", result.stderr);
    assert_contains(&result.stderr, &["task L4_T2_d2_s1 is finished but for its chains of latent"]);
    assert_eq!(fs::read(sweep.task("L4_T2_d2_s1")).unwrap(), before);
}
