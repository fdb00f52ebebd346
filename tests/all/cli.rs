//! The commands other than `run`, and what a second `run` does.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use crate::common::{Outcome, Sweep, TINY, TINY_TASKS, contents, neuralrg, outcome, snapshot};
use ndarray::Array3;

const CRITICAL: f64 = 2.269185314213022;

fn program(arguments: &[&str]) -> Outcome {
    outcome(neuralrg().args(arguments))
}

#[test]
fn every_subcommand_has_help() {
    let general = program(&["--help"]).success().to_owned();
    for subcommand in [
        "run",
        "plan",
        "status",
        "collect",
        "respond",
        "mutual-information",
        "coarse",
        "check",
        "exact",
        "reference",
        "export",
        "sample",
        "learn",
        "canonical",
        "modes",
    ] {
        assert!(general.contains(subcommand), "{general}");
        let help = program(&[subcommand, "--help"]);
        assert!(help.success().contains(&format!("Usage: neuralrg {subcommand}")), "{help:?}");
    }
    assert!(program(&["--version"]).success().starts_with("neuralrg "));
}

/// A program without torch refuses what needs it before it leaves a folder, but reads it.
#[cfg(not(feature = "torch"))]
#[test]
fn torch_is_refused_where_the_program_was_built_without() {
    let sweep = Sweep::new(&TINY.replace("device = \"cpu\"", "engine = \"torch\""));
    let result = sweep.run();
    let told = "run.engine = \"torch\": this program was built without torch";
    assert!(matches!(result.errors()[..], [error] if error.starts_with(told)), "{result:?}");
    assert!(!sweep.dir.exists());
    program(&["check", sweep.config.to_str().unwrap()]).success();
}

#[test]
fn check_prints_every_default() {
    let sweep = Sweep::new(
        "[sweep]\nname = \"t\"\nlinear_size = 8\ndepths = [1]\n\
         temperatures = { from = 2.0, to = 2.2, step = 0.1 }\n",
    );
    let result = program(&["check", sweep.config.to_str().unwrap()]);
    let printed: toml::Table = result.success().parse().expect("it is TOML");
    for (section, key, value) in [
        ("sweep", "temperatures", "[2.0, 2.1, 2.2]"),
        ("sweep", "seeds", "[1]"),
        ("flow", "couplings", "10"),
        ("flow", "symmetry", "\"regularizer\""),
        ("flow", "symmetry_weight", "1.0"),
        ("flow", "splits", "\"random\""),
        ("flow", "networks", "\"separate\""),
        ("train", "steps", "5000"),
        ("train", "learning_rate", "0.001"),
        ("train", "schedule", "\"constant\""),
        ("train", "weight_decay", "0.001"),
        ("train", "decay", "\"l2\""),
        ("evaluate", "samples", "16384"),
        ("hmc", "chains", "64"),
        ("run", "device", "\"auto\""),
        ("run", "precision", "\"f32\""),
    ] {
        assert_eq!(printed[section][key].to_string(), value, "{section}.{key}");
    }
}

#[test]
fn exact_prints_twelve_digits_of_the_known_values() {
    // Enumeration of the 65,536 states: ln Z, energy and specific heat per site.
    let known = [
        (2.0, 17.1053671187, -1.75538029, 0.605533),
        (CRITICAL, 15.5219154588, -1.56562379, 0.783267),
        (2.7, 13.9441671531, -1.22145424, 0.754243),
    ];
    let temperatures = known.map(|row| row.0.to_string()).join(",");
    let result = program(&["exact", "--linear-size", "4", "--temperatures", &temperatures]);
    let lines: Vec<&str> = result.success().lines().collect();
    let header = "temperature,ln_z_ising,free_energy_field,energy_per_site,specific_heat_per_site";
    assert_eq!((lines[0], lines.len()), (header, 4));
    for (line, (temperature, ln_z, energy, heat)) in lines[1..].iter().zip(known) {
        let fields: Vec<&str> = line.split(',').collect();
        let numbers: Vec<f64> = fields.iter().map(|field| field.parse().expect("number")).collect();
        let expected = [
            (temperature, 0.0),
            (ln_z, 6e-11),
            (free_energy(ln_z, temperature), 1e-9),
            (energy, 6e-9),
            (heat, 6e-7),
        ];
        assert_eq!(numbers.len(), expected.len());
        for (found, (value, rounding)) in numbers.iter().zip(expected) {
            assert!((found - value).abs() <= rounding, "{found} against {value} in {line}");
        }
        for field in &fields[1..] {
            let mantissa = field.split_once('e').expect("scientific notation").0;
            assert_eq!(mantissa.matches(|c: char| c.is_ascii_digit()).count(), 12, "{field}");
        }
    }
}

/// -ln Z of the field on the 4 × 4 torus:
/// -ln Z_Ising - ½ ln det(K + αI) + (N/2)[ln(2/π) - α], α = 4β + 0.1.
fn free_energy(ln_z_ising: f64, temperature: f64) -> f64 {
    let (beta, alpha) = (1.0 / temperature, 4.0 / temperature + 0.1);
    // Exact cosines of 2π n/4.
    let cosines = [1.0, 0.0, -1.0, 0.0];
    let ln_det: f64 =
        cosines.iter().flat_map(|x| cosines.map(|y| (2.0 * beta * (x + y) + alpha).ln())).sum();
    -ln_z_ising - 0.5 * ln_det + 8.0 * (std::f64::consts::FRAC_2_PI.ln() - alpha)
}

#[test]
fn plan_names_each_task_once_and_respects_the_lower_bound() {
    let sweep = Sweep::new(&TINY.replace("temperatures = [2.0, 3.0]", "temperatures = [2, 3, 4]"));
    for ranks in [1, 2, 4, 100] {
        let config = sweep.config.to_str().unwrap();
        let result = program(&["plan", config, "--ranks", &ranks.to_string()]);
        let lines: Vec<&str> = result.success().lines().collect();
        let (summary, table) = lines.split_last().expect("it prints a table");
        let rows: Vec<Vec<&str>> =
            table[1..].iter().map(|line| line.split_whitespace().collect()).collect();
        let tasks: HashSet<&str> = rows.iter().map(|row| row[1]).collect();
        assert_eq!((rows.len(), tasks.len()), (6, 6), "{}", result.stdout);
        assert!(rows.iter().all(|row| row[0].parse::<usize>().expect("rank") < ranks));
        assert!(summary.starts_with(&format!("6 tasks on {ranks} ranks: ")), "{summary}");
        assert!(time_after("makespan ", summary) >= time_after("lower bound ", summary));
    }
    assert!(!sweep.dir.exists());
}

/// The time that follows a word.
fn time_after(word: &str, text: &str) -> Duration {
    let rest = text.split_once(word).expect("the line has the word").1;
    let time = rest.split([',', '(']).next().expect("a time follows").trim();
    humantime::parse_duration(time).expect("a time follows")
}

#[test]
fn status_tells_waiting_running_stopped_failed_and_done_tasks_apart() {
    let sweep = Sweep::finished();
    let [running, stopped, failed, done] = TINY_TASKS;
    for name in [running, stopped, failed] {
        fs::remove_file(sweep.task(name)).unwrap();
    }
    let table = sweep.look("status").success().to_owned();
    assert!(table.ends_with("4 tasks: 1 done, 3 waiting\n"), "{table}");
    // Six steps teach nothing, and status says so; forty draws are few, which the chains' own verdict says.
    assert!(table.contains(" problems") && table.contains(&format!("{done}: ")), "{table}");
    assert!(
        table.contains(": the flow is worse than a pair of Gaussians, train longer"),
        "{table}"
    );
    assert!(table.contains("(chains/latent of the task file has them)"), "{table}");
    let of_chains = &contents(&sweep.task(done))["/chains/latent@verdict"].text[0];
    assert!(of_chains.contains("of 40 draws: errors are uncertain"), "{of_chains}");

    fs::write(sweep.dir.join(format!("failed/{failed}.txt")), "it went wrong\n").unwrap();
    let now = neuralrg::clock::unix_now();
    for (name, written) in [(running, now), (stopped, now - 86_400)] {
        let progress = format!(
            "{{\"stage\":\"train\",\"step\":3,\"steps\":6,\"gap\":1.25,\"gap_error\":0.5,\
             \"fraction\":0.25,\"seconds\":10.0,\"written_unix_seconds\":{written}}}"
        );
        fs::write(sweep.dir.join(format!("running/{name}.json")), progress).unwrap();
    }
    let job = fs::File::create(sweep.dir.join("lock")).unwrap();
    job.lock().unwrap();
    let table = sweep.look("status").success().to_owned();
    let row = |name: &str| -> Vec<&str> {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.expect("each task has a row").split_whitespace().collect()
    };
    assert_eq!(row(running)[1..], ["running", "train", "3/6", "1.2500", "0.5000", "30s", "-"]);
    // It has no checkpoint.
    assert_eq!(row(stopped)[1..], ["stopped", "-", "-", "-", "-", "-"]);
    assert_eq!(row(failed)[1..], ["failed", "-", "-", "-", "-", "-"]);
    assert_eq!(row(done)[1..3], ["done", "took"]);
    assert!(table.contains(&format!("{failed}: it went wrong\n")), "{table}");
    assert!(table.ends_with("4 tasks: 1 done, 1 running, 1 stopped, 1 failed\n"), "{table}");

    // The lock falls with its job, however that ends.
    job.unlock().unwrap();
    let table = sweep.look("status").success().to_owned();
    assert!(table.ends_with("4 tasks: 1 done, 2 stopped, 1 failed\n"), "{table}");
}

#[test]
fn status_is_also_json_and_watching_ends_where_nobody_works() {
    let sweep = Sweep::finished();
    fs::remove_file(sweep.task(TINY_TASKS[0])).unwrap();
    let dir = sweep.dir.to_str().unwrap();
    let json = program(&["status", dir, "--json"]);
    let status: serde_json::Value = serde_json::from_str(json.success()).expect("it is JSON");
    assert_eq!((&status["counts"]["done"], &status["counts"]["waiting"]), (&3.into(), &1.into()));
    let tasks = status["tasks"].as_array().expect("a list");
    assert_eq!(tasks.len(), 4);
    for task in tasks {
        let name = task["task"].as_str().expect("a name");
        if name == TINY_TASKS[0] {
            assert_eq!((&task["state"], task["gap"].as_f64()), (&"waiting".into(), None));
        } else {
            let gap = contents(&sweep.task(name))["/scalars/gap"].bits[0];
            let told = task["gap"].as_f64().expect("a number");
            assert!((told - f64::from_bits(gap)).abs() <= 1e-12 * told.abs(), "{task}");
        }
    }
    let table = sweep.look("status").success().to_owned();
    assert_eq!(program(&["status", dir, "--watch", "0.1"]).success(), table);
}

#[test]
fn plan_of_a_folder_has_what_it_lacks_with_the_times_of_what_it_has() {
    let sweep = Sweep::finished();
    fs::remove_file(sweep.task(TINY_TASKS[0])).unwrap();
    let [config, dir] = [&sweep.config, &sweep.dir].map(|path| path.to_str().unwrap());
    let plan = program(&["plan", config, "-o", dir]);
    assert!(plan.success().contains("\n1 tasks on 1 ranks: "), "{}", plan.stdout);
    assert!(plan.stdout.contains("from the times of the finished tasks"));
    assert!(plan.stdout.contains(TINY_TASKS[0]) && !plan.stdout.contains(TINY_TASKS[1]));
}

#[test]
fn second_run_does_nothing() {
    let sweep = Sweep::finished();
    let before = snapshot(&sweep.dir);
    let result = sweep.run();
    result.success();
    assert!(result.stderr.contains("0 of 4 tasks to do"), "{}", result.stderr);
    assert!(!result.stderr.contains(" begins"), "{}", result.stderr);
    assert_eq!(snapshot(&sweep.dir), before);
}

/// By what the loader of libraries tells of each that is looked for, on any machine.
#[test]
fn gpu_is_looked_for_only_where_one_may_be_used() {
    let libraries = |device: &str| {
        let sweep =
            Sweep::new(&TINY.replace("device = \"cpu\"", &format!("device = \"{device}\"")));
        outcome(sweep.run_with(neuralrg()).env("LD_DEBUG", "libs")).stderr
    };
    let looked_for =
        ["cpu", "auto"].map(|device| libraries(device).contains("find library=libcuda.so"));
    assert_eq!(looked_for, [false, true]);
}

#[test]
fn rust_log_sets_how_much_is_told() {
    let sweep = Sweep::finished();
    let result = outcome(sweep.run_with(neuralrg()).env("RUST_LOG", "error"));
    result.success();
    assert_eq!(result.stderr, "");
}

#[test]
fn collect_masks_missing_tasks_and_says_how_many_there_are() {
    let sweep = Sweep::finished();
    let path = sweep.dir.join("sweep.h5");
    let told = |finished: usize| format!("{}: {finished} of 4 tasks\n", path.display());
    let all = sweep.look("collect").success().to_owned();
    assert!(all.starts_with(&told(4)), "{all}");
    for name in ["energy", "specific_heat", "importance_free_energy", "bridge_free_energy"] {
        assert!(
            all.contains(&format!("deviations of {name} from exact values in standard errors: ")),
            "{all}"
        );
    }

    // Temperature 3 (index 1), depth 1 (index 0).
    fs::remove_file(sweep.task("L4_T3_d1_s1")).unwrap();
    assert!(sweep.look("collect").success().starts_with(&told(3)));
    let file = hdf5::File::open(&path).and_then(|file| file.group("L4")).unwrap();
    let complete = file.dataset("complete").and_then(|data| data.read_raw::<i8>()).unwrap();
    assert_eq!(complete, [1, 1, 0, 1]);
    for name in ["gap", "energy", "wall_seconds"] {
        let values: Array3<f64> = file.dataset(name).and_then(|data| data.read()).unwrap();
        assert_eq!(values.dim(), (2, 2, 1));
        let finite: Vec<bool> = values.iter().map(|value| value.is_finite()).collect();
        assert_eq!(finite, [true, true, false, true], "{name}");
    }
    for name in ["samples", "structure_factor"] {
        let values: ndarray::ArrayD<f64> = file.dataset(name).and_then(|data| data.read()).unwrap();
        let missing = values.index_axis(ndarray::Axis(0), 1);
        let missing = missing.index_axis(ndarray::Axis(0), 0).iter().all(|value| value.is_nan());
        assert!(missing, "{name}");
    }
    let exact = file.dataset("free_energy_exact").and_then(|data| data.read_1d::<f64>()).unwrap();
    assert!(exact.len() == 2 && exact.iter().all(|value| value.is_finite()));
}

/// What is wrong first of all with all tasks of the tiny sweep, in one line.
const WORSE_THAN_GAUSSIANS: &str = "4 tasks: the flow is worse than a pair of Gaussians, train longer, or start from another \
    task's flow (train.start_from), or take flow.preset = \"best\" (T 2 to 3, depth 1, 2)";

#[test]
fn status_groups_what_is_said_of_several_tasks_and_details_one() {
    let sweep = Sweep::finished();
    let dir = sweep.dir.to_str().unwrap();
    let table = sweep.look("status").success().to_owned();
    let (rows, remarks): (Vec<&str>, Vec<&str>) =
        table.lines().skip(1).partition(|line| line.starts_with(' '));
    assert_eq!(rows.len(), 4, "{table}");
    assert!(remarks.contains(&WORSE_THAN_GAUSSIANS), "{table}");
    assert!(!table.contains("two Gaussians have"), "{table}");
    let details = program(&["status", dir, "--task", TINY_TASKS[0]]);
    let lines: Vec<&str> = details.success().lines().collect();
    let problems = lines.iter().filter(|line| line.starts_with(&format!("{}: ", TINY_TASKS[0])));
    assert!(problems.count() >= 2, "{details:?}");
    assert!(details.stdout.contains(" nat (two Gaussians have "), "{details:?}");
    assert!(!details.stdout.contains(TINY_TASKS[1]));
    let refusal = program(&["status", dir, "--task", "L4_T9_d1_s1"]).refusal().to_owned();
    assert!(
        refusal.contains("--task L4_T9_d1_s1: the sweep has no task of this name"),
        "{refusal}"
    );
}

/// What a new user reads last.
#[test]
fn run_and_collect_end_with_which_tasks_to_trust_and_why_not_the_others() {
    let sweep = Sweep::finished();
    let collected = sweep.look("collect").success().to_owned();
    let trust = "trust none of the 4 finished tasks, since of them\n";
    let (_, last) = collected.split_once(trust).expect("no task is ok");
    assert!(last.lines().all(|line| line.starts_with("  ")), "{collected}");
    assert!(last.contains(&format!("  {WORSE_THAN_GAUSSIANS}\n")), "{collected}");

    let told = sweep.run().stderr;
    let lines: Vec<&str> = told.lines().collect();
    let next = format!("all 4 tasks are finished; next: neuralrg collect {}", sweep.dir.display());
    assert!(lines.last().unwrap().ends_with(&next), "{told}");
    assert!(told.contains(trust.trim_end()), "{told}");
}

#[test]
fn status_tells_when_all_will_be_done_while_a_job_works() {
    let sweep = Sweep::finished();
    fs::remove_file(sweep.task(TINY_TASKS[0])).unwrap();
    assert!(!sweep.look("status").success().contains("all in about"));
    // A living job of one rank that has not begun.
    let claims = std::sync::Arc::new(neuralrg::sweep::claims::Claims::new(&sweep.dir));
    let job = neuralrg::sweep::claims::JobFile::create(claims, 1).unwrap();
    let table = sweep.look("status").success().to_owned();
    assert!(table.contains("3 done, 1 waiting; all in about "), "{table}");
    let json = program(&["status", sweep.dir.to_str().unwrap(), "--json"]);
    let status: serde_json::Value = serde_json::from_str(json.success()).expect("it is JSON");
    assert!(status["remaining_seconds"].as_f64().expect("a number") > 0.0);
    drop(job);
    assert!(!sweep.look("status").success().contains("all in about"));
}

/// L = 12 has two factors of two: the lattice of 3 × 3 at the top of two levels is the prior.
#[test]
fn lattice_of_twelve_goes_the_whole_way() {
    let sweep = Sweep::new(&TINY.replace("linear_size = 4", "linear_size = 12"));
    sweep.run().success();
    sweep.look("coarse").success();
    let collected = sweep.look("collect");
    assert!(collected.success().contains("4 of 4 tasks"), "{}", collected.stdout);
    let exact = outcome(neuralrg().args(["exact", "--linear-size", "12", "--temperatures", "2"]));
    let exact = exact.success().lines().nth(1).unwrap().split(',').nth(2).unwrap().to_owned();
    let exact: f64 = exact.parse().unwrap();
    let file = hdf5::File::open(sweep.task("L12_T2_d2_s1")).unwrap();
    let found: f64 = file.dataset("references/free_energy_exact").unwrap().read_scalar().unwrap();
    assert!((found - exact).abs() < 1e-8, "{found} and {exact}");
    assert_eq!(file.dataset("evaluate/samples").unwrap().shape()[1..], [12, 12]);
    let refusal = Sweep::new(&TINY.replace("linear_size = 4", "linear_size = 10")).run();
    assert!(refusal.refusal().contains("must be from 1 to 1"), "{refusal:?}");
}
