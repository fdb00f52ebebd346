//! Checkpoints that lack an array, or have another in its place: their stage begins anew, with a warning and to the same
//! numbers.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use crate::common::{Sweep, TINY, everything_measured};
use indicatif::MultiProgress;
use neuralrg::config::Config;
use neuralrg::engine::device::Device;
use neuralrg::error::Error;
use neuralrg::files::seal::sha256;
use neuralrg::ranks::{Ranks, Team};
use neuralrg::signals::Stop;
use neuralrg::sweep::folder::SweepDir;
use neuralrg::task::Task;
use neuralrg::task::checkpoint::Checkpoints;
use neuralrg::task::progress::TaskProgress;
use neuralrg::task::record::TaskRecord;
use neuralrg::task::run::run_task;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// Warnings of the program, in which these tests look.
struct Warnings;

thread_local! {
    /// Those of this test alone, whose tasks run in its thread.
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            WARNINGS.with_borrow_mut(|warnings| warnings.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// Stages of a task with all samplers, in their order.
const STAGES: [&str; 6] = ["train", "evaluate", "latent", "physical", "fourier", "independence"];

const TASK: Task = Task { linear_size: 4, temperature: 2.0, depth: 2, seed: 1 };

struct Place {
    config: Config,
    dir: SweepDir,
    _sweep: Sweep,
}

impl Place {
    fn new(text: &str) -> Self {
        let sweep = Sweep::new(text);
        let config = Config::read(&sweep.config).unwrap();
        let (dir, _lock) = SweepDir::prepare(&sweep.dir, &config, false).unwrap();
        Self { config, dir, _sweep: sweep }
    }

    /// Runs the task from its checkpoint on; to its end, or for one step.
    fn run(&self, one_step: bool) -> Result<TaskRecord, Error> {
        let stop = Stop::default();
        if one_step {
            stop.request();
        }
        let (ranks, team) = (Ranks::alone(), Team::Alone);
        let mut progress = TaskProgress::new(
            &TASK,
            &self.config,
            (&self.dir.progress_path(&TASK), &self.dir.log_path(&TASK)),
            (&ranks, &team),
            &MultiProgress::new(),
        );
        let path = self.dir.checkpoint_path(&TASK);
        let mut checkpoints = Checkpoints::open(path, &TASK.name(), None, stop, &team);
        let place = (&team, Device::Cpu);
        run_task(&TASK, &self.config, place, None, &mut checkpoints, &mut progress)
    }

    /// Everything that the task leaves but the times.
    fn numbers(record: &TaskRecord) -> Vec<u64> {
        let chains = record.samplers.iter().flat_map(|sampler| sampler.chains.iter());
        let course = record.course.rows().into_iter().enumerate();
        // Rows 1 to 3 are times.
        let course = course.filter(|(row, _)| !(1..4).contains(row)).map(|(_, row)| row.to_vec());
        let course: Vec<f64> = course.flatten().collect();
        let numbers = record.scalars.values().chain(&record.parameters).chain(&record.history);
        let numbers = numbers.chain(&record.ln_q).chain(&record.samples).chain(chains);
        numbers.chain(&course).map(|number| number.to_bits()).collect()
    }
}

/// Metadata and arrays of a checkpoint: type, shape and bytes of each.
type Parts = (HashMap<String, String>, BTreeMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)>);

fn read(path: &Path) -> Parts {
    let bytes = fs::read(path).unwrap();
    let body = &bytes[bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1..];
    let (_, header) = SafeTensors::read_metadata(body).unwrap();
    let tensors = SafeTensors::deserialize(body).unwrap();
    let part = |(name, view): (String, TensorView)| {
        (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
    };
    (header.metadata().clone().unwrap(), tensors.tensors().into_iter().map(part).collect())
}

fn write(path: &Path, (metadata, tensors): &Parts) {
    let views = tensors.iter().map(|(name, (kind, shape, bytes))| {
        (name.as_str(), TensorView::new(*kind, shape.clone(), bytes).unwrap())
    });
    let body = safetensors::serialize(views, &Some(metadata.clone())).unwrap();
    let mut bytes = format!("neuralrg checkpoint 7 sha256 {}\n", sha256(&body)).into_bytes();
    bytes.extend(body);
    fs::write(path, bytes).unwrap();
}

/// Checkpoints in the middle of each stage, and of the training also at its end.
fn checkpoints_of_all_stages(place: &Place) -> Vec<(String, Parts)> {
    let path = place.dir.checkpoint_path(&TASK);
    let mut found: Vec<(String, Parts)> = Vec::new();
    while let Err(error) = place.run(true) {
        assert!(matches!(error, Error::Stopped), "{error}");
        let parts = read(&path);
        let begun =
            |stage: &&str| parts.1.keys().any(|name| name.starts_with(&format!("{stage}/")));
        let present = STAGES.into_iter().rfind(begun).expect("a stage goes on");
        // Of each stage the last one but one, at which everything has begun: later ones take its place.
        match found.iter_mut().find(|(stage, _)| stage == present) {
            Some((_, kept)) => *kept = parts,
            None => found.push((present.into(), parts)),
        }
    }
    found
}

#[test]
fn a_stage_without_one_of_its_arrays_begins_anew_to_the_same_numbers() {
    log::set_logger(&Warnings).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let place = Place::new(&everything_measured().replace("batch = 64", "batch = 16"));
    let expected = Place::numbers(&place.run(false).unwrap());
    let saved = checkpoints_of_all_stages(&place);
    let stages: Vec<&str> = saved.iter().map(|(stage, _)| stage.as_str()).collect();
    assert_eq!(stages, STAGES);
    let path = place.dir.checkpoint_path(&TASK);
    let mut tried = 0;
    for (stage, (metadata, tensors)) in &saved {
        // Those of the stages that are done are in all later checkpoints.
        for name in tensors.keys().filter(|name| name.starts_with(stage) || *name == "seconds") {
            for longer in [false, true] {
                let mut changed = tensors.clone();
                let (kind, mut shape, bytes) = changed.remove(name).unwrap();
                if longer {
                    shape.push(1);
                    changed.insert(name.clone(), (kind, shape, bytes));
                }
                for file in fs::read_dir(path.parent().unwrap()).unwrap() {
                    fs::remove_file(file.unwrap().path()).unwrap();
                }
                write(&path, &(metadata.clone(), changed));
                WARNINGS.take();
                let record = place.run(false).unwrap_or_else(|error| panic!("{name}: {error}"));
                let warnings = WARNINGS.take().join("\n");
                let own = name.rsplit('/').next().unwrap();
                let told = if longer { "its array" } else { "it has no array" };
                assert!(warnings.contains(told) && warnings.contains(own), "{name}: {warnings:?}");
                assert!(Place::numbers(&record) == expected, "{stage} without {name}");
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried} checkpoints");
    println!("{tried} checkpoints without an array, or with another");
}

#[test]
fn a_finished_training_without_one_of_its_arrays_begins_anew() {
    let place = Place::new(TINY);
    let expected = Place::numbers(&place.run(false).unwrap());
    let saved = checkpoints_of_all_stages(&place);
    let (_, (metadata, tensors)) = saved.iter().find(|(stage, _)| stage == "latent").unwrap();
    let path = place.dir.checkpoint_path(&TASK);
    let of_done = |name: &&String| name.starts_with("train/") || name.starts_with("evaluate/");
    for name in tensors.keys().filter(of_done) {
        let mut changed = tensors.clone();
        changed.remove(name);
        write(&path, &(metadata.clone(), changed));
        let record = place.run(false).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(Place::numbers(&record) == expected, "without {name}");
    }
}

#[test]
fn status_of_a_stopped_task_is_what_its_checkpoint_has() {
    let place = Place::new(TINY);
    for _ in 0..4 {
        assert!(matches!(place.run(true), Err(Error::Stopped)));
    }
    // The report that a killed job left is ahead of what was saved.
    let report = place.dir.progress_path(&TASK);
    let ahead = "{\"stage\":\"train\",\"step\":6,\"steps\":6,\"gap\":null,\"gap_error\":null,\
                 \"fraction\":0.5,\"seconds\":1.0,\"written_unix_seconds\":1}";
    fs::write(&report, ahead).unwrap();
    let look = || {
        let mut status = crate::common::neuralrg();
        status.arg("status").arg(place.dir.root()).args(["--task", &TASK.name()]);
        crate::common::outcome(&mut status).success().to_owned()
    };
    let row = |table: &str| {
        table.lines().last().unwrap().split_whitespace().collect::<Vec<_>>()[1..4].join(" ")
    };
    assert_eq!(row(&look()), "stopped train 4/6");
    // Its last checkpoint is damaged; the one before has a step less.
    let path = place.dir.checkpoint_path(&TASK);
    fs::write(&path, "damaged").unwrap();
    assert_eq!(row(&look()), "stopped train 3/6");
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(row(&look()), "stopped - -");
}
