//! Studies of the finished tasks of a sweep: what the latent space of a trained flow means. Each leaves one file for
//! each task in a folder of its own, which `collect` links to.

pub mod coarse;
pub mod response;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::{Array1, Array2, Array3, ArrayD, ArrayView2, Axis, stack};

use crate::config::Config;
use crate::engine::Model;
use crate::error::{Error, Result};
use crate::files::atomic::check_writable_folder;
use crate::files::schema::{self, Item};
use crate::files::seal;
use crate::flow::arrangement::{kinds_of_latents, latent_levels, without_finer};
use crate::lattice::on_lattice;
use crate::random::Use;
use crate::sampling::config::{HmcConfig, Sampler, Start};
use crate::sampling::kernel::Kernel;
use crate::sampling::sampler;
use crate::sampling::states::TargetSamples;
use crate::seed::Stage;
use crate::statistics::between_chain;
use crate::statistics::mutual_information::{self, Pairs, of_independent};
use crate::study::coarse::{COUPLINGS, Kept, effective_couplings, great_circle, kept};
use crate::study::response::responses;
use crate::sweep::folder::SweepDir;
use crate::sweep::plan::{own_tasks, sizes_in_words};
use crate::targets::observe::Observable;
use crate::task::Task;
use crate::task::study_file::{StudyRecord, study_path, study_written, write_study};
use crate::task::task_file::{Head, Origin, TaskFile};
use crate::task::trained::Trained;

/// Samples whose coarse fields are kept.
const SHOWN: usize = 4;
/// Fields of a walk, both ends included.
const WALK_STEPS: usize = 17;
/// Samples drawn at a time.
const BATCH: usize = 1024;

/// What is asked of each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Study {
    Responses { samples: usize },
    MutualInformation { samples: usize, neighbours: usize },
    Coarse { samples: usize },
}

type Arrays = Vec<(Item, ArrayD<f64>)>;

impl Study {
    /// One of [`schema::STUDIES`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Responses { .. } => schema::STUDIES[0],
            Self::MutualInformation { .. } => schema::STUDIES[1],
            Self::Coarse { .. } => schema::STUDIES[2],
        }
    }

    /// What makes two studies of one kind differ, in words.
    fn settings(self) -> String {
        match self {
            Self::Responses { samples } | Self::Coarse { samples } => {
                format!("samples = {samples}")
            }
            Self::MutualInformation { samples, neighbours } => {
                format!("samples = {samples}, neighbours = {neighbours}")
            }
        }
    }
}

/// A study of some finished tasks of a folder.
#[derive(Debug)]
pub struct Studies {
    dir: SweepDir,
    origin: Origin,
    study: Study,
    /// Where the files go: a folder with one for each kind of study.
    output: PathBuf,
    tasks: Vec<Task>,
}

impl Studies {
    /// Of the finished tasks of `root` with the given names, or of all, to be written to `output` or into `root` itself.
    ///
    /// # Errors
    /// No sweep folder, no finished task, none of a name, or the files could not be written.
    pub fn new(root: &Path, names: &[String], study: Study, output: Option<&Path>) -> Result<Self> {
        let dir = SweepDir::open(root)?;
        let config = dir.read_config()?;
        let finished = dir.finished_names();
        let mut tasks = own_tasks(&config);
        tasks.retain(|task| finished.contains(&task.name()));
        if tasks.is_empty() {
            return Err(Error::NothingFinished {
                dir: root.into(),
                sizes: sizes_in_words(&config),
            });
        }
        let finished: BTreeSet<String> = tasks.iter().map(Task::name).collect();
        if let Some(name) = names.iter().find(|name| !finished.contains(*name)) {
            let finished = finished.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Error::NoSuchTask { dir: root.into(), name: name.clone(), finished });
        }
        tasks.retain(|task| names.is_empty() || names.contains(&task.name()));
        let output = output.unwrap_or(root).to_owned();
        let studies = Self { dir, origin: Origin::new(&config), study, output, tasks };
        check_writable_folder(&studies.output.join(study.name()))?;
        Ok(studies)
    }

    /// Does the study of each task, unless its file is there already. `tell` gets the file's path, and whether it is new, as
    /// soon as it is there.
    ///
    /// # Errors
    /// A task file cannot be read or is another sweep's, its flow has no levels where they are needed, the samples are too
    /// few, a file cannot be written, or those of `tell`.
    pub fn run<E: From<Error>>(
        &self,
        mut tell: impl FnMut(&Path, bool) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut missing = Vec::new();
        for task in &self.tasks {
            if self.is_done(task)? {
                tell(&self.path(task), false)?;
            } else {
                missing.push(task);
            }
        }
        let start = Instant::now();
        for (index, task) in missing.iter().enumerate() {
            let left = (index > 0).then(|| {
                let each = start.elapsed().as_secs_f64() / index as f64;
                format!(", about {} left", rounded(each * (missing.len() - index) as f64))
            });
            let (number, all) = (index + 1, missing.len());
            log::info!("{}: task {number} of {all}{}", task.name(), left.unwrap_or_default());
            self.study(task)?;
            tell(&self.path(task), true)?;
        }
        Ok(())
    }

    fn path(&self, task: &Task) -> PathBuf {
        study_path(&self.output, self.study.name(), task)
    }

    /// Of which task file the study is to be, by its checksum, and with which settings.
    fn wanted(&self, task: &Task) -> Result<(String, String)> {
        let path = self.dir.task_path(task);
        let sum = seal::stated_sha256(&path).map_err(Error::io("read task file", &path))?;
        Ok((sum.unwrap_or_default(), self.study.settings()))
    }

    fn is_done(&self, task: &Task) -> Result<bool> {
        Ok(study_written(&self.path(task)) == Some(self.wanted(task)?))
    }

    /// Does the study of a task and writes its file.
    fn study(&self, task: &Task) -> Result<()> {
        let file = TaskFile::of(&self.dir.task_path(task), task, &self.origin)?;
        let (task_sha256, settings) = self.wanted(task)?;
        let trained = Trained::of(&file)?;
        let arrays = match self.study {
            Study::Responses { samples } => {
                study_responses(&trained, &sample_target(&file, &trained, samples)?)
            }
            Study::MutualInformation { samples, neighbours } => {
                let chains = trained.config.hmc.chains as usize;
                check_samples(&task.name(), chains, samples, neighbours)?;
                let samples = sample_target(&file, &trained, samples)?;
                study_information(&trained, samples, neighbours)?
            }
            Study::Coarse { samples } => study_levels(&trained, samples)?,
        };
        let record = StudyRecord { task: *task, task_sha256, settings, arrays };
        write_study(&self.path(task), &record)
    }
}

/// Trajectories between two samples, in autocorrelation times.
const THINNING: f64 = 2.0;

/// Trajectories from one sample to the next that is nearly independent of it, from the autocorrelation times of a
/// task.
fn spacing(head: &Head) -> i64 {
    let times = Observable::TABLE.map(|(_, naming)| format!("{}_tau_int", naming.name));
    let longest = times.iter().map(|name| head.scalar(name)).fold(0.5, f64::max);
    (THINNING * longest).ceil() as i64
}

/// A time that is not known to the second.
fn rounded(seconds: f64) -> String {
    let unit = if seconds < 60.0 { 1.0 } else { 60.0 };
    let whole = Duration::from_secs(((seconds / unit).ceil() * unit) as u64);
    humantime::format_duration(whole).to_string()
}

/// Mean responses of one latent of each kind over samples of the target, with errors between chains.
fn study_responses(trained: &Trained, samples: &TargetSamples) -> Arrays {
    let architecture = &trained.model.flow.architecture;
    let size = architecture.linear_size;
    let latents = kinds_of_latents(architecture);
    let fields = &samples.fields;
    let (chains, draws, sites) = fields.dim();
    let mut means = Array3::<f64>::zeros((0, latents.len(), sites));
    // Many samples share the price of a backward pass.
    for fields in fields.axis_chunks_iter(Axis(0), (BATCH / draws).max(1)) {
        let field = fields.into_shape_with_order((fields.len() / sites, sites));
        let each = responses(&trained.model, field.expect("chains lie one by one"), &latents);
        for chain in each.axis_chunks_iter(Axis(1), draws) {
            let mean = chain.mean_axis(Axis(1)).expect("a chain has draws");
            means.push(Axis(0), mean.view()).expect("as many latents and sites");
        }
    }
    let means = means.into_shape_with_order((chains, latents.len() * sites));
    let (mean, error) = between_chain(means.expect("as many numbers").view());
    let levels = latent_levels(architecture);
    let of_latent = |number: &dyn Fn(usize) -> usize| -> Array1<f64> {
        latents.iter().map(|&site| number(site) as f64).collect()
    };
    let places = [
        of_latent(&|site| levels[site]),
        of_latent(&|site| site / size),
        of_latent(&|site| site % size),
    ];
    let images = [mean, error].map(|values| {
        values.into_shape_with_order((latents.len(), size, size)).expect("as many numbers")
    });
    let places = schema::RESPONDING.into_iter().zip(places.map(Array1::into_dyn));
    places.chain(schema::RESPONSES.into_iter().zip(images.map(Array3::into_dyn))).collect()
}

/// Mutual information of all pairs of latents, and of all pairs of field variables.
fn study_information(
    trained: &Trained,
    samples: TargetSamples,
    neighbours: usize,
) -> Result<Arrays> {
    let architecture = &trained.model.flow.architecture;
    let size = architecture.linear_size;
    let task = || trained.task.name();
    let TargetSamples { fields, latents } = samples;
    let levels = latent_levels(architecture).into_iter().map(|level| level as f64);
    let squares: BTreeSet<usize> =
        (0..size * size).map(|site| square_distance(size, 0, site)).collect();
    let squares: Vec<usize> = squares.into_iter().collect();
    let distances = squares.iter().map(|&square| (square as f64).sqrt());
    let mut arrays = vec![
        (schema::VARIABLE_LEVEL, levels.collect::<Array1<f64>>().into_dyn()),
        (schema::DISTANCE, distances.collect::<Array1<f64>>().into_dyn()),
    ];
    for (items, samples) in schema::MUTUAL_INFORMATION.into_iter().zip([latents, fields]) {
        let start = Instant::now();
        let (chains, draws, _) = samples.dim();
        let moved = mutual_information::fewest_moved(samples.view());
        if moved <= neighbours {
            return Err(Error::StuckChains { task: task(), moved, neighbours });
        }
        let pairs = Pairs::estimate(samples.view(), neighbours);
        let class = |i, j| {
            let square = square_distance(size, i, j);
            squares.binary_search(&square).expect("all distances are listed")
        };
        let means = pairs.class_means(squares.len(), class);
        let [information, error] = pairs.matrices();
        let (mean, mean_error): (Vec<f64>, Vec<f64>) = means.into_iter().unzip();
        let independent = of_independent(samples.view(), neighbours);
        let vectors = [mean, mean_error, independent].map(|values| Array1::from(values).into_dyn());
        let values = [information, error].into_iter().map(Array2::into_dyn).chain(vectors);
        let [all, ..] = &items;
        log::info!(
            "{}: {} of {} variables by {} samples, {:.0} s",
            task(),
            all.name,
            size * size,
            chains * draws,
            start.elapsed().as_secs_f64()
        );
        arrays.extend(items.into_iter().zip(values));
    }
    Ok(arrays)
}

/// Whether so many samples, a few more where they do not divide evenly among the chains, have enough in each part.
fn check_samples(task: &str, chains: usize, samples: usize, neighbours: usize) -> Result<()> {
    if chains < 2 {
        return Err(Error::OneChain { task: task.into() });
    }
    let of_part = mutual_information::chains_of_part(chains);
    // More than `neighbours` in a part.
    let draws = neighbours / of_part + 1;
    let needed = (draws - 1) * chains + 1;
    if samples < needed {
        return Err(Error::TooFewSamples { task: task.into(), chains, neighbours, needed });
    }
    Ok(())
}

/// Square of the distance between two sites on the torus.
fn square_distance(size: usize, a: usize, b: usize) -> usize {
    let along = |a: usize, b: usize| a.abs_diff(b).min(size - a.abs_diff(b)).pow(2);
    along(a / size, b / size) + along(a % size, b % size)
}

/// Coarse fields, a walk and the effective couplings of every level, all for latents of the prior.
fn study_levels(trained: &Trained, samples: usize) -> Result<Arrays> {
    let model = &trained.model;
    let architecture = &model.flow.architecture;
    if !architecture.config.arrangement.has_levels() {
        return Err(Error::NoLevels { task: trained.task.name() });
    }
    let draw = |step: i64, count: usize| {
        let random = trained.task.streams().at(Stage::Study, step);
        random.normals(Use::Latents, 0..count, architecture.sites())
    };
    let levels: Array1<f64> = (0..=architecture.depth).rev().map(|level| level as f64).collect();
    let mut arrays = vec![(schema::LEVEL, levels.into_dyn())];
    arrays.extend(coarse_fields(model, draw(0, SHOWN).view()));
    arrays.extend(walk(model, draw(1, BATCH).view()));
    arrays.extend(couplings(model, samples, |batch, count| draw(2 + batch, count)));
    Ok(arrays)
}

/// What is kept at each level of some samples, and the fields that it makes without finer details.
fn coarse_fields(model: &Model, z: ArrayView2<f64>) -> Arrays {
    let architecture = &model.flow.architecture;
    let size = architecture.linear_size;
    let spread = |kept: &Kept| {
        let side = size >> kept.level;
        let place = |site: usize| {
            let (row, column) = (site / size, site % size);
            (row >> kept.level) * side + (column >> kept.level)
        };
        Array2::from_shape_fn(z.dim(), |(sample, site)| kept.field[[sample, place(site)]])
    };
    let blurred = |level| model.forward(without_finer(architecture, z, level).view()).field;
    let all: [Vec<Array2<f64>>; 2] = [
        kept(model, z).iter().map(spread).collect(),
        (0..=architecture.depth).rev().map(blurred).collect(),
    ];
    let fields = all.map(|levels| {
        let views: Vec<_> = levels.iter().map(Array2::view).collect();
        let stacked = stack(Axis(0), &views).expect("all have the shape of the latents");
        on_lattice(stacked).into_dyn()
    });
    schema::COARSE_FIELDS.into_iter().zip(fields).collect()
}

/// The way through latent space from the sample of the lowest mean field to that of the highest, and the energies on it.
fn walk(model: &Model, z: ArrayView2<f64>) -> Arrays {
    let target = model.density();
    let means = model.forward(z).field.mean_axis(Axis(1)).expect("fields have sites");
    let by_mean = |a: &usize, b: &usize| means[*a].total_cmp(&means[*b]);
    let samples = 0..means.len();
    let ends = [samples.clone().min_by(by_mean), samples.max_by(by_mean)];
    let [from, to] = ends.map(|sample| z.row(sample.expect("there are samples")));
    let fractions: Vec<f64> =
        (0..WALK_STEPS).map(|step| step as f64 / (WALK_STEPS - 1) as f64).collect();
    let fields = model.forward(great_circle(from, to, &fractions).view()).field;
    let (first, last) = (fields.row(0), fields.row(WALK_STEPS - 1));
    let straight = Array2::from_shape_fn(fields.dim(), |(step, site)| {
        first[site] * (1.0 - fractions[step]) + last[site] * fractions[step]
    });
    let [along, straight] = [&fields, &straight].map(|x| (-target.ln_density(x.view())).into_dyn());
    let fields = on_lattice(fields).into_dyn();
    let values = [Array1::from(fractions).into_dyn(), fields, along, straight];
    schema::WALK.into_iter().zip(values).collect()
}

/// Effective couplings of what is kept at each level.
fn couplings(model: &Model, samples: usize, draw: impl Fn(i64, usize) -> Array2<f64>) -> Arrays {
    let architecture = &model.flow.architecture;
    let levels = architecture.depth + 1;
    let mut all = vec![(Array2::<f64>::zeros((0, 3)), Vec::new()); levels];
    for batch in 0..samples.div_ceil(BATCH) {
        let z = draw(batch as i64, BATCH.min(samples - batch * BATCH));
        for (kept, (terms, energies)) in kept(model, z.view()).into_iter().zip(&mut all) {
            let found = coarse::terms(kept.field.view());
            terms.append(Axis(0), found.view()).expect("all have three columns");
            energies.extend(-kept.ln_q);
        }
    }
    let mut found = Array3::zeros((COUPLINGS, 2, levels));
    for (index, (terms, energies)) in all.iter().enumerate() {
        let side = architecture.linear_size >> (architecture.depth - index);
        let couplings = effective_couplings(terms.view(), energies, side * side);
        for (coupling, (value, error)) in couplings.into_iter().enumerate() {
            found[[coupling, 0, index]] = value;
            found[[coupling, 1, index]] = error;
        }
    }
    let items = schema::EFFECTIVE_COUPLINGS.as_flattened().iter().copied();
    let values = found.into_shape_with_order((2 * COUPLINGS, levels)).expect("as many numbers");
    items.zip(values.outer_iter().map(|row| row.to_owned().into_dyn())).collect()
}

/// So many samples of the target, or a few more: states that the task's latent HMC kept, or, where these are too few or too close
/// to each other, those of the same chains, which run again with the same random numbers.
fn sample_target(file: &TaskFile, trained: &Trained, samples: usize) -> Result<TargetSamples> {
    let Trained { task, config: Config { hmc, .. }, model, .. } = trained;
    let (name, spacing) = (task.name(), spacing(&file.head));
    let draws = samples.div_ceil(hmc.chains as usize);
    if let Some(kept) = file.states()? {
        let every = (spacing as u64).div_ceil(hmc.kept_spacing() as u64) as usize;
        let enough = kept.draws() / every;
        if enough >= draws {
            return Ok(kept.thinned(draws));
        }
        log::info!(
            "{name}: its file keeps {} states {spacing} trajectories apart, fewer than {samples}; its HMC runs again",
            enough * hmc.chains as usize
        );
    }
    let start = Instant::now();
    let hmc = HmcConfig {
        trajectories: spacing * draws as i64,
        keep_states: draws as i64 * hmc.chains,
        ..hmc.clone()
    };
    let kernel = Kernel::new(Sampler::Latent, model, &hmc);
    let settings = (&hmc, Start::Hot);
    let seed = task.streams();
    let again = sampler::sample(Sampler::Latent, &kernel, settings, &seed, None, |_| Ok(()))?;
    let seconds = start.elapsed().as_secs_f64();
    log::info!("{name}: samples of the target, {seconds:.0} s");
    Ok(again.chains(Sampler::Latent, &hmc).states)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_enough_where_each_part_has_more_than_the_neighbours() {
        // 19 chains: ten parts, the smallest of one chain, which needs 21 draws.
        assert!(check_samples("t", 19, 20 * 19 + 1, 20).is_ok());
        let told = check_samples("t", 19, 20 * 19, 20).unwrap_err().to_string();
        assert!(told.contains("--samples 381"), "{told}");
        // 64 chains: parts of six or seven.
        assert!(check_samples("t", 64, 256, 20).is_ok());
        assert!(check_samples("t", 2, 256, 20).is_ok());
        assert!(check_samples("t", 1, 256, 3).unwrap_err().to_string().contains("hmc.chains = 1"));
    }

    #[test]
    fn times_are_rounded_up() {
        assert_eq!([0.2, 59.9, 60.1, 3599.0].map(rounded), ["1s", "1m", "2m", "1h"]);
    }
}
