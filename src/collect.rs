//! `neuralrg collect`: the task files of a sweep as one file of labelled arrays.

use std::path::{Path, PathBuf};

use hdf5::{Dataset, File, H5Type};
use ndarray::{Array1, ArrayD, ArrayView, ArrayViewD, Axis, Dimension, stack};

use crate::config::Config;
use crate::diagnostics::{LEAST_WEIGHTED_SAMPLES, judge_pulls};
use crate::dimension_scale;
use crate::error::{Error, Result};
use crate::plan::{self, Task};
use crate::run::references;
use crate::schema::{self, Item};
use crate::seal;
use crate::store::{self, SweepDir, TaskSummary, describe, write_number, write_text};
use crate::study;

/// What was collected.
#[derive(Debug)]
pub struct Collected {
    pub path: PathBuf,
    pub finished: usize,
    pub total: usize,
    /// One line for each quantity with an exact value: whether its deviations are plausible.
    pub pulls: Vec<String>,
    /// Tasks whose verdict is not ok.
    pub suspect: usize,
}

/// Writes `sweep.h5` from the finished tasks of the folder; missing tasks are NaN and masked.
///
/// # Errors
/// No sweep folder, no finished task, a damaged task file, or the file cannot be written.
pub fn collect(root: &Path) -> Result<Collected> {
    let dir = SweepDir::open(root)?;
    let config = dir.read_config()?;
    // Those on smaller lattices, which are only there to start from, would not fit into its arrays.
    let tasks = plan::own_tasks(&config);
    let summaries: Vec<Option<TaskSummary>> = tasks
        .iter()
        .map(|task| dir.task_path(task))
        .map(|path| path.exists().then(|| store::read_task(&path)).transpose())
        .collect::<Result<_>>()?;
    let finished = summaries.iter().flatten().count();
    if finished == 0 {
        return Err(Error::NothingFinished {
            dir: root.into(),
            linear_size: config.sweep.linear_size,
        });
    }
    let pulls = pull_report(&summaries);
    let suspect =
        summaries.iter().flatten().filter(|summary| summary.verdict != schema::VERDICT_OK);
    let suspect = suspect.count();
    let path = dir.sweep_path();
    store::write_hdf5(&path, |file| {
        fill(file, &config, &tasks, &summaries)?;
        link_studies(file, &dir, &tasks)
    })?;
    Ok(Collected { path, finished, total: tasks.len(), pulls, suspect })
}

/// Deviations from exact values in standard errors over the sweep, and whether their spread is plausible: of all tasks, and
/// where some verdicts are not ok, of the others. Free energies that rest on hardly any effective samples have no error to
/// speak of and are left out.
fn pull_report(summaries: &[Option<TaskSummary>]) -> Vec<String> {
    let all: Vec<&TaskSummary> = summaries.iter().flatten().collect();
    let ok: Vec<&TaskSummary> =
        all.iter().copied().filter(|summary| summary.verdict == schema::VERDICT_OK).collect();
    let line = |name: &str| {
        let mut line = format!("deviations of {name} from exact values in standard errors: ");
        line += &judgement(&all, name);
        if ok.len() < all.len() {
            line += &format!(". Where the verdict is ok: {}", judgement(&ok, name));
        }
        line
    };
    ["energy", "specific_heat", "importance_free_energy", "bridge_free_energy"].map(line).into()
}

/// Number, mean and root mean square of the deviations of a quantity, and whether they are plausible.
fn judgement(tasks: &[&TaskSummary], name: &str) -> String {
    let pulls: Vec<f64> = tasks
        .iter()
        .map(|task| &task.scalars)
        .filter(|scalars| {
            let weighted = scalars["effective_sample_size"] * scalars["weighted_samples"];
            name != "importance_free_energy" || weighted >= LEAST_WEIGHTED_SAMPLES
        })
        .map(|scalars| scalars[&format!("{name}_pull")])
        .filter(|pull| !pull.is_nan())
        .collect();
    if pulls.is_empty() {
        return "none to judge".into();
    }
    let (mean, deviation, problem) = judge_pulls(&pulls);
    let verdict = problem.map_or("plausible".into(), |problem| format!("NOT plausible: {problem}"));
    format!("{} of mean {mean:.2}, root mean square {deviation:.2}: {verdict}", pulls.len())
}

/// The file while it is written, with the coordinates that arrays are attached to.
struct SweepFile {
    file: File,
    scales: Vec<(&'static str, Dataset)>,
}

impl SweepFile {
    /// A coordinate: an HDF5 dimension scale of the item's name.
    fn coordinate<T: H5Type>(&mut self, item: &Item, values: &Array1<T>) -> hdf5::Result<()> {
        let dataset = self.file.new_dataset_builder().with_data(values).create(item.name)?;
        describe(&dataset, item)?;
        dimension_scale::make_scale(&dataset, item.name)?;
        self.scales.push((item.name, dataset));
        Ok(())
    }

    /// An array whose axes are the coordinates of the given names.
    fn array<T: H5Type, D: Dimension>(
        &self,
        item: &Item,
        axes: &[&str],
        values: ArrayView<'_, T, D>,
    ) -> hdf5::Result<()> {
        let dataset = self.file.new_dataset_builder().with_data(values).create(item.name)?;
        describe(&dataset, &Item { axes: &[], ..*item })?;
        for (index, axis) in axes.iter().enumerate() {
            let (_, scale) = self
                .scales
                .iter()
                .find(|(name, _)| name == axis)
                .expect("coordinates are written before the arrays over them");
            dimension_scale::attach(&dataset, scale, index)?;
        }
        Ok(())
    }
}

fn fill(
    file: &File,
    config: &Config,
    tasks: &[Task],
    summaries: &[Option<TaskSummary>],
) -> hdf5::Result<()> {
    let mut sweep = SweepFile { file: file.clone(), scales: Vec::new() };
    write_attributes(&sweep.file, config)?;
    write_text(&sweep.file, schema::PULLS, &pull_report(summaries).join("; "))?;
    write_coordinates(&mut sweep, config)?;
    write_references(&sweep, config)?;

    let shape = [config.temperatures().len(), config.depths().len(), config.sweep.seeds.len()];
    let grid = schema::COMPLETENESS.axes;
    let complete: Vec<i8> = summaries.iter().map(|summary| i8::from(summary.is_some())).collect();
    let complete = ArrayViewD::from_shape(&shape[..], &complete).expect("one flag a task");
    sweep.array(&schema::COMPLETENESS, grid, complete)?;

    let scalar = |item: &Item, pick: &dyn Fn(&TaskSummary) -> f64| {
        let values: Vec<f64> =
            summaries.iter().map(|summary| summary.as_ref().map_or(f64::NAN, pick)).collect();
        let values = ArrayViewD::from_shape(&shape[..], &values).expect("one value a task");
        sweep.array(item, grid, values)
    };
    for item in schema::task_scalars() {
        scalar(item, &|summary| summary.scalars[item.name])?;
    }
    for item in schema::TIMING_SCALARS {
        scalar(item, &|summary| summary.timing[item.name])?;
    }
    for (index, item) in schema::LATTICE_OBSERVABLES.iter().enumerate() {
        let values = over_tasks(summaries, &shape, |summary| {
            summary.lattice.index_axis(Axis(0), index).to_owned().into_dyn()
        });
        sweep.array(item, &[grid, item.axes].concat(), values.view())?;
    }
    let samples = over_tasks(summaries, &shape, |summary| summary.samples.clone().into_dyn());
    let samples = samples.mapv(|value| value as f32);
    sweep.array(&schema::SAMPLES, &[grid, schema::SAMPLES.axes].concat(), samples.view())?;
    link_tasks(&sweep.file, tasks, summaries)?;
    Ok(())
}

fn write_attributes(file: &File, config: &Config) -> hdf5::Result<()> {
    write_text(file, "format", schema::SWEEP_FORMAT)?;
    write_number(file, "format_version", schema::SWEEP_FORMAT_VERSION)?;
    write_text(file, "name", &config.sweep.name)?;
    write_number(file, "linear_size", config.sweep.linear_size as i64)?;
    write_text(file, schema::CONFIGURATION.name, &config.to_toml())?;
    write_text(file, "code_version", crate::VERSION)
}

fn write_coordinates(sweep: &mut SweepFile, config: &Config) -> hdf5::Result<()> {
    let integers = |values: &[usize]| values.iter().map(|&value| value as i64).collect();
    let seeds: Vec<usize> = config.sweep.seeds.iter().map(|&seed| seed as usize).collect();
    sweep.coordinate(&schema::TEMPERATURE, &Array1::from_vec(config.temperatures().to_vec()))?;
    sweep.coordinate(&schema::DEPTH, &integers(config.depths()))?;
    sweep.coordinate(&schema::SEED, &integers(&seeds))?;
    let samples = Array1::from_iter(0..config.evaluate.keep_samples);
    sweep.coordinate(&schema::SAMPLE, &samples)?;
    let size = config.sweep.linear_size as i64;
    for item in schema::LATTICE_ROWS.iter().chain(&schema::DISTANCES) {
        sweep.coordinate(item, &Array1::from_iter(0..size))?;
    }
    for item in &schema::WAVE_NUMBERS {
        let wave_number = |n: i64| std::f64::consts::TAU * n as f64 / size as f64;
        sweep.coordinate(item, &Array1::from_iter((0..size).map(wave_number)))?;
    }
    Ok(())
}

/// Exact values and the Gaussian yardstick over temperature; they need no finished task.
fn write_references(sweep: &SweepFile, config: &Config) -> hdf5::Result<()> {
    let numbers: Vec<_> = config
        .temperatures()
        .iter()
        .map(|&temperature| references(config.sweep.linear_size, temperature))
        .collect();
    for item in schema::REFERENCE_SCALARS {
        let values: Array1<f64> = numbers.iter().map(|numbers| numbers[item.name]).collect();
        sweep.array(item, &[schema::TEMPERATURE.name], values.view())?;
    }
    Ok(())
}

/// Stacks an array of each task over (temperature, depth, seed); NaN where the task is missing.
fn over_tasks(
    summaries: &[Option<TaskSummary>],
    grid: &[usize; 3],
    pick: impl Fn(&TaskSummary) -> ArrayD<f64>,
) -> ArrayD<f64> {
    let arrays: Vec<Option<ArrayD<f64>>> =
        summaries.iter().map(|summary| summary.as_ref().map(&pick)).collect();
    let present = arrays.iter().flatten().next().expect("at least one task is finished");
    let absent = ArrayD::from_elem(present.raw_dim(), f64::NAN);
    let views: Vec<_> =
        arrays.iter().map(|array| array.as_ref().unwrap_or(&absent).view()).collect();
    let stacked = stack(Axis(0), &views).expect("tasks of one sweep have arrays of one shape");
    let shape = [&grid[..], present.shape()].concat();
    stacked.into_shape_with_order(shape).expect("tasks are ordered as the grid is")
}

/// Group `tasks` with an external link to each finished task's file, relative to the collected file.
fn link_tasks(file: &File, tasks: &[Task], summaries: &[Option<TaskSummary>]) -> hdf5::Result<()> {
    let group = file.create_group("tasks")?;
    for (task, _) in tasks.iter().zip(summaries).filter(|(_, summary)| summary.is_some()) {
        let name = task.name();
        group.link_external(&format!("tasks/{name}.h5"), "/", &name)?;
    }
    Ok(())
}

/// A group for each kind of study with links to the files of those that are of the tasks as they are now.
fn link_studies(file: &File, dir: &SweepDir, tasks: &[Task]) -> hdf5::Result<()> {
    for study in study::NAMES {
        let group = file.create_group(study)?;
        for task in tasks {
            let of = store::study_written(&dir.study_path(study, task)).map(|(sha256, _)| sha256);
            let now = seal::stated_sha256(&dir.task_path(task)).ok().flatten();
            if of.is_some() && of == now {
                let name = task.name();
                group.link_external(&format!("{study}/{name}.h5"), "/", &name)?;
            }
        }
    }
    Ok(())
}
