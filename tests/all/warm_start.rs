//! Tasks that start from the trained flows of others.

use std::fs;

use crate::common::job::{CHECKPOINT, EACH_STEP, Job, Point, held, held_at, killed_at, release};
use crate::common::{
    Sweep, TINY, assert_same_task, change_hdf5, contents, mpirun, neuralrg, outcome,
};

const THREE_TEMPERATURES: &str = "temperatures = [2.0, 2.5, 3.0]";

/// The tiny sweep with another start.
fn tiny(start_from: &str) -> String {
    TINY.replace("[train]", &format!("[train]\nstart_from = \"{start_from}\""))
}

/// Two chains of three tasks, the shallow one T = 3 → 2.5 → 2 at depth 1.
fn two_chains() -> String {
    tiny("higher-temperature").replace("temperatures = [2.0, 3.0]", THREE_TEMPERATURES)
}

/// A training on the 8 × 8 lattice that learns something.
fn training(start_from: &str, temperatures: &str, depths: &str) -> String {
    tiny(start_from)
        .replace("linear_size = 4", "linear_size = 8")
        .replace("temperatures = [2.0, 3.0]", &format!("temperatures = {temperatures}"))
        .replace("depths = [1, 2]", &format!("depths = {depths}"))
        .replace("hidden_width = 4", "hidden_width = 8")
        .replace("couplings = 2", "couplings = 4")
        .replace("steps = 6\nbatch = 8", "steps = 100\nbatch = 64\nlearning_rate = 0.01")
}

fn started_from(sweep: &Sweep, task: &str) -> String {
    contents(&sweep.task(task))["/@started_from"].text[0].clone()
}

/// Gap of the first training step in nats, that is, at the parameters where the training starts.
fn first_gap(sweep: &Sweep, task: &str) -> f64 {
    let contents = contents(&sweep.task(task));
    let first = |name: &str| f64::from_bits(contents[name].bits[0]);
    first("/train/loss") - first("/references/free_energy_exact")
}

#[test]
fn first_loss_of_a_task_that_starts_from_another_is_far_below_that_of_a_random_start() {
    let random = Sweep::new(&training("none", "[2.4]", "[3]").replace("steps = 100", "steps = 1"));
    random.run().success();
    let task = "L8_T2.4_d3_s1";
    assert_eq!(started_from(&random, task), "random");
    for (start_from, temperatures, depths, parent) in [
        ("higher-temperature", "[2.4, 2.7]", "[3]", "L8_T2.7_d3_s1"),
        ("shallower", "[2.4]", "[2, 3]", "L8_T2.4_d2_s1"),
        ("half-size", "[2.4]", "[3]", "L4_T2.4_d2_s1"),
    ] {
        let warm = Sweep::new(&training(start_from, temperatures, depths));
        warm.run().success();
        assert_eq!(started_from(&warm, task), parent);
        let (gap, cold) = (first_gap(&warm, task), first_gap(&random, task));
        // Measured: 4.8 to 5.8 against 80 nat.
        assert!(gap < 0.2 * cold, "{start_from}: {gap} against {cold} nat");
    }
}

#[test]
fn tasks_on_smaller_lattices_are_planned_run_and_shown_but_not_collected() {
    let text = tiny("half-size").replace("linear_size = 4", "linear_size = 8");
    let sweep = Sweep::new(&text.replace("depths = [1, 2]", "depths = [1, 3]"));
    let plan = outcome(neuralrg().arg("plan").arg(&sweep.config)).success().to_owned();
    let row = |name: &str| -> Vec<&str> {
        let line = plan.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        line.expect("each task has a row").split_whitespace().collect()
    };
    assert_eq!(row("L8_T2_d3_s1").last(), Some(&"L4_T2_d2_s1"));
    for first in ["L8_T2_d1_s1", "L4_T2_d2_s1"] {
        assert_eq!(row(first).last(), Some(&"random"));
    }
    assert!(plan.contains("6 tasks on 1 ranks: "), "{plan}");

    outcome(&mut sweep.run_with(mpirun(2))).success();
    assert_eq!(sweep.task_files().len(), 6);
    let table = sweep.look("status").success().to_owned();
    assert!(table.ends_with("6 tasks (2 on smaller lattices): 6 done\n"), "{table}");
    let collected = sweep.look("collect").success().to_owned();
    assert!(collected.lines().next().unwrap().ends_with("sweep.h5: 4 of 4 tasks"), "{collected}");

    for name in ["L8_T2_d1_s1", "L8_T2_d3_s1", "L8_T3_d1_s1", "L8_T3_d3_s1"] {
        fs::remove_file(sweep.task(name)).unwrap();
    }
    assert!(sweep.look("collect").refusal().contains("has no finished task of L = 8"));
}

#[test]
fn tasks_behind_a_failed_one_are_not_run_but_recorded_and_repeated_with_it() {
    let unbroken = Sweep::new(&two_chains());
    unbroken.run().success();
    for command in [neuralrg, || mpirun(3)] {
        let sweep = Sweep::new(&two_chains());
        let failing = "L4_T3_d1_s1";
        let result = sweep.run_with_obstacle(command(), failing);
        assert_eq!(result.errors().len(), 1, "{}", result.stderr);
        assert!(result.errors()[0].starts_with("3 of 6 tasks failed"), "{}", result.stderr);
        for (child, parent) in [("L4_T2.5_d1_s1", failing), ("L4_T2_d1_s1", "L4_T2.5_d1_s1")] {
            let recorded = fs::read_to_string(sweep.dir.join(format!("failed/{child}.txt")));
            let expected = format!(
                "not run, since task {parent}, which it starts from, failed; the same command tries \
                 both again\n"
            );
            assert_eq!(recorded.unwrap(), expected);
            assert!(!result.stderr.contains(&format!("{child} begins")), "{}", result.stderr);
        }
        fs::remove_dir_all(sweep.task(failing)).unwrap();
        let table = sweep.look("status").success().to_owned();
        assert!(table.ends_with("6 tasks: 3 done, 3 failed\n"), "{table}");

        let result = outcome(&mut sweep.run_with(command()));
        result.success();
        assert!(result.stderr.contains("3 of 6 tasks to do"), "{}", result.stderr);
        assert!(fs::read_dir(sweep.dir.join("failed")).unwrap().next().is_none());
        for name in unbroken.task_files() {
            let tasks = [&sweep, &unbroken].map(|sweep| sweep.dir.join("tasks").join(&name));
            assert_same_task(&tasks[0], &tasks[1], &[]);
        }
    }
}

#[test]
fn killed_job_goes_on_from_the_parents_that_it_finished() {
    let text = two_chains().replace("[run]", &format!("[run]\n{EACH_STEP}"));
    let (sweep, unbroken) = (Sweep::new(&text), Sweep::new(&text));
    unbroken.run().success();
    let path = format!("checkpoints/L4_T2_d2_s1{CHECKPOINT}");
    let point = Point { path: &path, number: 3, later: 0 };
    let result = killed_at(sweep.run_with(neuralrg()), &sweep, point);
    assert_eq!(result.status, None, "a signal ended it");
    assert!(sweep.task("L4_T2.5_d2_s1").exists());
    let finished = sweep.task_files().len();
    assert!(finished < 6);

    let result = sweep.run();
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    let to_do = format!("{} of 6 tasks to do", 6 - finished);
    assert!(result.stderr.contains(&to_do), "{}", result.stderr);
    for name in unbroken.task_files() {
        let tasks = [&sweep, &unbroken].map(|sweep| sweep.dir.join("tasks").join(&name));
        assert_same_task(&tasks[0], &tasks[1], &[]);
    }
}

/// The finished sweep of two temperatures without its lower one, whose tasks start from the higher.
fn half_finished() -> Sweep {
    let text = tiny("higher-temperature").replace("[run]", "[run]\nkeep_checkpoints = false");
    let sweep = Sweep::new(&text);
    sweep.run().success();
    for name in ["L4_T2_d1_s1", "L4_T2_d2_s1"] {
        fs::remove_file(sweep.task(name)).unwrap();
    }
    sweep
}

#[test]
fn damaged_file_of_a_parent_fails_its_child_with_the_file_and_the_remedy() {
    let sweep = half_finished();
    let (parent, child) = ("L4_T3_d1_s1", "L4_T2_d1_s1");
    let path = sweep.task(parent);
    // Every file was looked at, none was begun with.
    let point = Point { path: "/claims/", number: 1, later: 0 };
    let mut job = Job::start(held_at(sweep.run_with(neuralrg()), &sweep, point));
    job.wait_until_held(&sweep, 1);
    fs::write(&path, "not HDF5").expect("the file can be written");
    release(&held(&sweep));
    let result = job.end();
    assert_eq!(result.status, Some(1), "{}", result.stderr);
    let recorded = fs::read_to_string(sweep.dir.join(format!("failed/{child}.txt"))).unwrap();
    assert_eq!(recorded.trim_end().lines().count(), 1);
    for part in [
        &format!("cannot start from task {parent}: "),
        &format!("task file {} is damaged", path.display()),
        "moves it aside and repeats the task; the same command tries again",
    ] {
        assert!(recorded.contains(part), "no {part:?} in {recorded:?}");
    }

    let result = sweep.run();
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    assert!(result.stderr.contains("2 of 4 tasks to do"), "{}", result.stderr);
    assert_eq!(started_from(&sweep, child), parent);
}

#[test]
fn task_file_with_another_number_of_parameters_is_moved_aside() {
    let sweep = half_finished();
    change_hdf5(&sweep.task("L4_T3_d1_s1"), |file| {
        let model = file.group("model").unwrap();
        model.unlink("parameters").unwrap();
        model.new_dataset_builder().with_data(&[1.0, 2.0]).create("parameters").unwrap();
    });
    neuralrg::files::seal::seal_hdf5(&sweep.task("L4_T3_d1_s1")).unwrap();
    let result = sweep.run();
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    for part in ["is damaged (it has 2 parameters, not ", "3 of 4 tasks to do"] {
        assert!(result.stderr.contains(part), "{}", result.stderr);
    }
}

/// The 8 × 8 training at one temperature, from a start elsewhere.
fn elsewhere(start_from: &str, temperature: &str) -> String {
    training("none", &format!("[{temperature}]"), "[3]")
        .replace("start_from = \"none\"", &format!("start_from = {start_from}"))
}

fn ancestry(sweep: &Sweep, task: &str) -> String {
    contents(&sweep.task(task))["/@ancestry"].text[0].clone()
}

/// A flow of another sweep, of a task file and of an exported file are the same start, and the file says which.
#[test]
fn trainings_start_from_flows_of_other_sweeps_and_files() {
    let other = Sweep::new(&training("higher-temperature", "[2.3, 2.7]", "[3]"));
    other.run().success();
    let (nearest, task) = (other.task("L8_T2.3_d3_s1"), "L8_T2.35_d3_s1");
    let exported = other.folder().join("flow.safetensors");
    let mut export = neuralrg();
    outcome(export.arg("export").arg(&nearest).arg("-o").arg(&exported)).success();
    let random = Sweep::new(&elsewhere("\"none\"", "2.35").replace("steps = 100", "steps = 1"));
    random.run().success();
    assert_eq!(ancestry(&random, task), "random");

    let from = |start: String, key: &str| {
        let sweep = Sweep::new(&elsewhere(&start, "2.35"));
        sweep.run().success();
        let told = started_from(&sweep, task);
        assert!(told.starts_with(&format!("{key} (sha256 ")), "{told}");
        assert!(first_gap(&sweep, task) < 0.2 * first_gap(&random, task), "{start}");
        sweep
    };
    let path = nearest.display().to_string();
    let sweep = from(format!("{{ sweep = {:?} }}", other.dir), &path);
    let before = "L8_T2.7_d3_s1 < random";
    assert_eq!(ancestry(&sweep, task), format!("{} < {before}", started_from(&sweep, task)));
    let file = from(format!("{{ file = {nearest:?} }}"), &path);
    let name = exported.display().to_string();
    let flow = from(format!("{{ file = {exported:?} }}"), &name);
    assert_eq!(ancestry(&flow, task), format!("{} < an exported flow", started_from(&flow, task)));
    let parameters = |sweep: &Sweep| contents(&sweep.task(task))["/model/parameters"].bits.clone();
    assert_eq!(parameters(&file), parameters(&sweep));
    // Exported weights are rounded to single precision.
    assert!((first_gap(&flow, task) / first_gap(&file, task) - 1.0).abs() < 1e-3);

    // Two ranks that share the task get the flow from the one that reads it.
    let team = elsewhere(&format!("{{ file = {nearest:?} }}"), "2.35")
        .replace("[run]", "[run]\nranks_per_task = 2");
    let team = Sweep::new(&team);
    outcome(&mut team.run_with(mpirun(2))).success();
    assert!((first_gap(&team, task) / first_gap(&file, task) - 1.0).abs() < 1e-9);

    // A file of another content would be another start.
    fs::copy(other.task("L8_T2.7_d3_s1"), &nearest).unwrap();
    assert!(file.run().errors()[0].contains("train.start_from = "), "it is refused");
}

#[test]
fn starts_that_are_none_are_refused_before_anything_runs() {
    let small = Sweep::finished();
    let other = Sweep::new(&TINY.replace("hidden_width = 4", "hidden_width = 8"));
    other.run().success();
    let large = Sweep::new(&training("none", "[2.3]", "[1]").replace("steps = 100", "steps = 1"));
    large.run().success();
    let text = small.folder().join("text.safetensors");
    fs::write(&text, "nothing").unwrap();
    let start = |value: String| TINY.replace("[train]", &format!("[train]\nstart_from = {value}"));
    for (value, told) in [
        (format!("{{ sweep = {:?} }}", small.folder()), "is not a sweep folder"),
        (
            format!("{{ sweep = {:?} }}", large.dir),
            "has no finished task that L4_T2_d1_s1 could start from",
        ),
        (format!("{{ file = {:?} }}", small.folder().join("absent.h5")), "cannot read flow"),
        (format!("{{ file = {text:?} }}"), "has no flow to start from"),
        (format!("{{ file = {:?} }}", small.config), "is no task file"),
        (format!("{{ file = {:?} }}", other.task("L4_T2_d2_s1")), "no layer of the flow of"),
        ("{ folder = \"somewhere\" }".to_owned(), "start_from"),
    ] {
        let sweep = Sweep::new(&start(value.clone()));
        let result = sweep.run();
        assert_eq!(result.status, Some(1), "{value}");
        let recorded = fs::read_dir(sweep.dir.join("failed")).into_iter().flatten().flatten();
        let failures = recorded.map(|entry| fs::read_to_string(entry.path()).unwrap());
        let all = failures.chain([result.errors()[0].to_owned()]).collect::<String>();
        assert!(all.contains(told), "{value}: {all}");
        assert!(!sweep.dir.join("tasks/L4_T2_d1_s1.h5").exists(), "{value}");
    }
}
