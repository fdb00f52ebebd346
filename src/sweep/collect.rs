//! `neuralrg collect`: the task files of a sweep as one file of labelled arrays.

use std::path::{Path, PathBuf};

use hdf5::{Dataset, File, Group, H5Type};
use ndarray::{
    Array1, Array3, ArrayD, ArrayView, ArrayView3, ArrayViewD, Axis, Dimension, s, stack,
};

use crate::config::Config;
use crate::config::growth::Lacking;
use crate::error::{Error, Result};
use crate::files::atomic::{check_writable, folder_of};
use crate::files::content::{describe, write_hdf5, write_number, write_text};
use crate::files::schema::{self, Item};
use crate::files::{Numbers, dimension_scale, seal};
use crate::sampling::diagnostics::{has_weights, judge_pulls, misses_weight};
use crate::sweep::folder::SweepDir;
use crate::sweep::{plan, summary};
use crate::targets::Target;
use crate::task::results::References;
use crate::task::study_file::{study_path, study_written};
use crate::task::task_file::{Head, Origin, TaskArrays, TaskFile};
use crate::task::{Task, numbers};

/// What was collected.
#[derive(Debug)]
pub struct Collected {
    pub path: PathBuf,
    pub finished: usize,
    pub total: usize,
    /// One line for each quantity with an exact value: whether its deviations are plausible.
    pub pulls: Vec<String>,
    /// Which tasks to trust, and why not the others.
    pub trust: Vec<String>,
    /// Which tasks are there with less than the configuration wants.
    pub partial: Vec<String>,
}

/// What the collected file needs of a finished task.
struct Finished {
    head: Head,
    arrays: TaskArrays,
    lacking: Option<Lacking>,
}

/// The tasks of one lattice, each with what is there of it.
struct OfSize {
    linear_size: usize,
    tasks: Vec<(Task, Option<Finished>)>,
}

impl OfSize {
    fn finished(&self) -> impl Iterator<Item = (&Task, &Finished)> {
        self.tasks.iter().filter_map(|(task, finished)| Some((task, finished.as_ref()?)))
    }
}

/// Writes the finished tasks of the folder to `output`, or to its `sweep.h5`; missing tasks are NaN and masked.
///
/// # Errors
/// No sweep folder, no finished task, a damaged task file or one of another sweep, or the file cannot be written.
pub fn collect(root: &Path, output: Option<&Path>) -> Result<Collected> {
    let dir = SweepDir::open(root)?;
    let config = dir.read_config()?;
    let path = output.map_or_else(|| dir.sweep_path(), Into::into);
    check_writable(&path)?;
    let origin = Origin::new(&config);
    let files = dir.finished_names();
    let read = |task: Task| {
        let finished = files.contains(&task.name()).then(|| {
            let file = TaskFile::of(&dir.task_path(&task), &task, &origin)?;
            Ok(Finished { arrays: file.arrays()?, head: file.head, lacking: file.lacking })
        });
        Ok((task, finished.transpose()?))
    };
    // Smaller lattices, which are only there to start from, are not the sweep's own.
    let sizes: Vec<OfSize> = config
        .linear_sizes()
        .iter()
        .map(|&linear_size| {
            let tasks = plan::own_tasks_of(&config, linear_size).into_iter().map(read);
            Ok(OfSize { linear_size, tasks: tasks.collect::<Result<_>>()? })
        })
        .collect::<Result<_>>()?;
    let present: Vec<(&Task, &Finished)> = sizes.iter().flat_map(OfSize::finished).collect();
    if present.is_empty() {
        return Err(Error::NothingFinished {
            dir: root.into(),
            sizes: plan::sizes_in_words(&config),
        });
    }
    let heads: Vec<&Head> = present.iter().map(|(_, finished)| &finished.head).collect();
    let pulls = pull_report(&heads);
    let links = Links::new(&dir, &path)?;
    write_hdf5(&path, |file| {
        write_attributes(file, &config, &pulls)?;
        for of_size in sizes.iter().filter(|of_size| of_size.finished().next().is_some()) {
            fill(&file.create_group(&format!("L{}", of_size.linear_size))?, &config, of_size)?;
        }
        links.write(file, &sizes)
    })?;
    let verdicts: Vec<_> =
        present.iter().map(|(task, finished)| (*task, finished.head.verdict.as_str())).collect();
    let lacking: Vec<(Task, String)> = present
        .iter()
        .filter_map(|(task, finished)| {
            Some((**task, format!("lacks {}", finished.lacking.as_ref()?)))
        })
        .collect();
    let lacking: Vec<_> = lacking.iter().map(|(task, told)| (task, told.as_str())).collect();
    Ok(Collected {
        path,
        finished: present.len(),
        total: sizes.iter().map(|of_size| of_size.tasks.len()).sum(),
        pulls,
        trust: summary::trust(&verdicts),
        partial: summary::grouped(&lacking),
    })
}

/// Deviations from exact values in standard errors over the sweep, and whether their spread is plausible: of the tasks whose
/// verdict is ok, and where there are others, of all. Importance-weighted free energies whose error is their distance to the
/// bridge have no deviation of their own and are left out.
fn pull_report(all: &[&Head]) -> Vec<String> {
    let ok: Vec<&Head> =
        all.iter().copied().filter(|head| head.verdict == schema::VERDICT_OK).collect();
    let line = |name: &str| {
        let mut line = format!("deviations of {name} from exact values in standard errors: ");
        if ok.len() < all.len() {
            line += &format!(
                "of tasks whose verdict is ok, {}. Of all, {}",
                judgement(&ok, name),
                judgement(all, name)
            );
        } else {
            line += &judgement(all, name);
        }
        line
    };
    schema::COMPARED.map(line).into()
}

/// Number, mean and root mean square of the deviations of a quantity, and whether they are plausible.
fn judgement(heads: &[&Head], name: &str) -> String {
    let judged = |head: &&&Head| name != schema::IMPORTANCE_FREE_ENERGY || weights_suffice(head);
    let pulls: Vec<f64> = heads
        .iter()
        .filter(judged)
        .map(|head| head.scalar(&format!("{name}_pull")))
        .filter(|pull| !pull.is_nan())
        .collect();
    if pulls.is_empty() {
        return "none to judge".into();
    }
    let (mean, deviation, problem) = judge_pulls(&pulls);
    let verdict = problem.unwrap_or_else(|| "plausible".into());
    format!("{} of mean {mean:.2}, root mean square {deviation:.2}: {verdict}", pulls.len())
}

/// Whether nothing is known against a task's importance weights.
fn weights_suffice(head: &Head) -> bool {
    let [own, forward, samples] =
        ["effective_sample_size", "forward_effective_sample_size", "weighted_samples"]
            .map(|name| head.scalar(name));
    has_weights(own, samples) && !misses_weight(own, forward)
}

/// The group of a lattice while it is written, with the coordinates that arrays are attached to.
struct SweepGroup {
    group: Group,
    scales: Vec<(&'static str, Dataset)>,
}

impl SweepGroup {
    /// A coordinate: an HDF5 dimension scale of the item's name.
    fn coordinate<T: H5Type>(&mut self, item: &Item, values: &Array1<T>) -> hdf5::Result<()> {
        let dataset = self.group.new_dataset_builder().with_data(values).create(item.name)?;
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
        let dataset = self.group.new_dataset_builder().with_data(values).create(item.name)?;
        describe(&dataset, item)?;
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

/// Everything of the tasks on one lattice.
fn fill(group: &Group, config: &Config, of_size: &OfSize) -> hdf5::Result<()> {
    let linear_size = of_size.linear_size;
    let mut sweep = SweepGroup { group: group.clone(), scales: Vec::new() };
    write_number(group, "linear_size", linear_size as i64)?;
    write_coordinates(&mut sweep, config, linear_size)?;
    write_references(&sweep, config, of_size)?;

    let finished: Vec<Option<&Finished>> =
        of_size.tasks.iter().map(|(_, finished)| finished.as_ref()).collect();
    let depths = config.depths_of(linear_size).len();
    let shape = [config.temperatures().len(), depths, config.sweep.seeds.len()];
    let grid = schema::COMPLETENESS.axes;
    let complete: Vec<i8> = finished.iter().map(|task| i8::from(task.is_some())).collect();
    let complete = ArrayViewD::from_shape(&shape[..], &complete).expect("one flag a task");
    sweep.array(&schema::COMPLETENESS, grid, complete)?;

    let scalar = |item: &Item, pick: &dyn Fn(&Head) -> f64| {
        let pick = |task: &Option<&Finished>| task.map_or(f64::NAN, |it| pick(&it.head));
        let values: Vec<f64> = finished.iter().map(pick).collect();
        let values = ArrayViewD::from_shape(&shape[..], &values).expect("one value a task");
        sweep.array(item, grid, values)
    };
    for item in schema::task_scalars() {
        scalar(item, &|head| head.scalar(item.name))?;
    }
    for item in schema::TIMING_SCALARS {
        scalar(item, &|head| head.time(item.name))?;
    }
    for (index, item) in schema::LATTICE_OBSERVABLES.iter().enumerate() {
        let values: Vec<Option<ArrayViewD<f64>>> = finished
            .iter()
            .map(|task| task.map(|it| it.arrays.lattice.index_axis(Axis(0), index).into_dyn()))
            .collect();
        let values = over_grid(&values, &shape);
        sweep.array(item, &[grid, item.axes].concat(), values.view())?;
    }
    let kept = config.evaluate.keep_samples as usize;
    let samples: Vec<Option<Array3<f64>>> =
        finished.iter().map(|task| task.map(|it| padded(it.arrays.samples.view(), kept))).collect();
    let samples: Vec<Option<ArrayViewD<f64>>> =
        samples.iter().map(|it| it.as_ref().map(|it| it.view().into_dyn())).collect();
    let samples = over_grid(&samples, &shape);
    let samples = samples.mapv(|value| value as f32);
    sweep.array(&schema::SAMPLES, &[grid, schema::SAMPLES.axes].concat(), samples.view())
}

/// The first samples of a task that has kept others than the configuration wants, NaN behind the last.
///
/// Shapes: samples (any, L, L) → (kept, L, L).
fn padded(samples: ArrayView3<f64>, kept: usize) -> Array3<f64> {
    let (there, rows, columns) = samples.dim();
    let there = there.min(kept);
    let mut all = Array3::from_elem((kept, rows, columns), f64::NAN);
    all.slice_mut(s![..there, .., ..]).assign(&samples.slice(s![..there, .., ..]));
    all
}

fn write_attributes(file: &File, config: &Config, pulls: &[String]) -> hdf5::Result<()> {
    write_text(file, "format", schema::SWEEP_FORMAT)?;
    write_number(file, "format_version", schema::SWEEP_FORMAT_VERSION)?;
    write_text(file, "name", &config.sweep.name)?;
    write_text(file, schema::PULLS, &pulls.join("; "))?;
    write_text(file, schema::CONFIGURATION.name, &config.to_toml())?;
    write_text(file, "code_version", crate::VERSION)
}

fn write_coordinates(
    sweep: &mut SweepGroup,
    config: &Config,
    linear_size: usize,
) -> hdf5::Result<()> {
    let integers = |values: &[usize]| values.iter().map(|&value| value as i64).collect();
    let seeds: Vec<usize> = config.sweep.seeds.iter().map(|&seed| seed as usize).collect();
    sweep.coordinate(&schema::TEMPERATURE, &Array1::from_vec(config.temperatures().to_vec()))?;
    sweep.coordinate(&schema::DEPTH, &integers(&config.depths_of(linear_size)))?;
    sweep.coordinate(&schema::SEED, &integers(&seeds))?;
    let samples = Array1::from_iter(0..config.evaluate.keep_samples);
    sweep.coordinate(&schema::SAMPLE, &samples)?;
    let size = linear_size as i64;
    for item in schema::LATTICE_ROWS.iter().chain(&schema::DISTANCES) {
        sweep.coordinate(item, &Array1::from_iter(0..size))?;
    }
    for item in &schema::WAVE_NUMBERS {
        let wave_number = |n: i64| std::f64::consts::TAU * n as f64 / size as f64;
        sweep.coordinate(item, &Array1::from_iter((0..size).map(wave_number)))?;
    }
    Ok(())
}

/// Exact values and the Gaussian yardstick over temperature: those that a task has, computed where none is finished.
fn write_references(sweep: &SweepGroup, config: &Config, of_size: &OfSize) -> hdf5::Result<()> {
    let target = Target::ising_dual(of_size.linear_size);
    let (temperatures, tasks) = (config.temperatures(), &of_size.tasks);
    let tasks = tasks.chunks(tasks.len() / temperatures.len());
    let numbers: Vec<Numbers> = temperatures
        .iter()
        .zip(tasks)
        .map(|(&temperature, tasks)| match tasks.iter().find_map(|(_, it)| it.as_ref()) {
            Some(finished) => finished.head.numbers.references.clone(),
            None => numbers::of_references(References::of(&target, temperature).as_ref()),
        })
        .collect();
    for item in schema::REFERENCE_SCALARS {
        let value = |numbers: &Numbers| numbers.get(item.name).copied().unwrap_or(f64::NAN);
        let values: Array1<f64> = numbers.iter().map(value).collect();
        sweep.array(item, &[schema::TEMPERATURE.name], values.view())?;
    }
    Ok(())
}

/// Stacks arrays, one a task, over (temperature, depth, seed); NaN where there is none.
fn over_grid(arrays: &[Option<ArrayViewD<f64>>], grid: &[usize; 3]) -> ArrayD<f64> {
    let present = arrays.iter().flatten().next().expect("at least one task is finished");
    let absent = ArrayD::from_elem(present.raw_dim(), f64::NAN);
    let views: Vec<_> =
        arrays.iter().map(|it| it.as_ref().map_or(absent.view(), ArrayViewD::view)).collect();
    let stacked = stack(Axis(0), &views).expect("tasks on one lattice have arrays of one shape");
    let shape = [&grid[..], present.shape()].concat();
    stacked.into_shape_with_order(shape).expect("tasks are ordered as the grid is")
}

/// What the collected file links to: the files of tasks and of their studies.
struct Links<'a> {
    dir: &'a SweepDir,
    /// How the sweep's folder is reached from the collected file's: not at all where they are one, so that both can be
    /// moved together.
    root: PathBuf,
    /// Folders that may have studies, as they are and as they are reached.
    studies: Vec<(PathBuf, PathBuf)>,
}

impl<'a> Links<'a> {
    fn new(dir: &'a SweepDir, output: &Path) -> Result<Self> {
        let absolute = |path: &Path| path.canonicalize().map_err(Error::io("find folder", path));
        let (root, beside) = (absolute(dir.root())?, absolute(folder_of(output))?);
        let here = (beside.clone(), PathBuf::new());
        if root == beside {
            return Ok(Self { dir, root: PathBuf::new(), studies: vec![here] });
        }
        Ok(Self { dir, root: root.clone(), studies: vec![here, (root.clone(), root)] })
    }

    fn write(&self, file: &File, sizes: &[OfSize]) -> hdf5::Result<()> {
        let group = file.create_group("tasks")?;
        for (task, _) in sizes.iter().flat_map(OfSize::finished) {
            link(&group, &self.root.join("tasks"), task)?;
        }
        for study in schema::STUDIES {
            let group = file.create_group(study)?;
            for (task, _) in sizes.iter().flat_map(|of_size| &of_size.tasks) {
                if let Some(folder) = self.folder_of_study(study, task) {
                    link(&group, &folder, task)?;
                }
            }
        }
        Ok(())
    }

    /// The folder with a study of the task as it is now.
    fn folder_of_study(&self, study: &str, task: &Task) -> Option<PathBuf> {
        let (_, reached) = self.studies.iter().find(|(folder, _)| {
            let path = study_path(folder, study, task);
            path.is_file() && {
                let of = study_written(&path).map(|(sha256, _)| sha256);
                let now = seal::stated_sha256(&self.dir.task_path(task)).ok().flatten();
                of.is_some() && of == now
            }
        })?;
        Some(reached.join(study))
    }
}

/// An external link to a task's file in a folder.
fn link(group: &Group, folder: &Path, task: &Task) -> hdf5::Result<()> {
    let name = task.name();
    let path = folder.join(format!("{name}.h5"));
    group.link_external(&path.to_string_lossy(), "/", &name)
}
