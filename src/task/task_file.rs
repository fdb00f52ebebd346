//! Finished task files as they are read: what each says of itself in its user block, and whether it belongs where it lies.

use std::path::{Path, PathBuf};

use hdf5::types::VarLenUnicode;
use ndarray::{Array2, Array3, Array4, Axis};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::config::growth::Lacking;
use crate::error::{Error, Result};
use crate::files::schema::Item;
use crate::files::seal::{self, Seal};
use crate::files::{Numbers, schema};
use crate::flow::coupling::Half;
use crate::sampling::config::Sampler;
use crate::sampling::states::TargetSamples;
use crate::task::Task;
use crate::task::record::{TaskRecord, verdict_text};

/// What a task file says of itself, as one line of JSON in its user block: all that tables of a sweep need, so that the
/// rest of the file need not be read for them. `N` are the numbers that one wants to know of [`TaskNumbers`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head<N = TaskNumbers> {
    pub format_version: i64,
    pub task: String,
    /// Checksum of what the task's numbers depend on besides the task it started from ([`Config::sha256_of_tasks`]).
    pub configuration_sha256: String,
    /// `ok`, or what is wrong.
    pub verdict: String,
    pub numbers: N,
    /// Bytes of the HDF5 content.
    pub content_bytes: u64,
}

/// As in [`TaskRecord`]; those that are not finite are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskNumbers {
    pub scalars: Numbers,
    pub references: Numbers,
    pub timing: Numbers,
}

/// What a table of many tasks shows of each.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Brief {
    pub scalars: Gap,
    pub timing: WallTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Gap {
    #[serde(default)]
    pub gap: Option<f64>,
    #[serde(default)]
    pub gap_error: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct WallTime {
    pub wall_seconds: f64,
}

impl Head {
    /// The head of a record, for content whose length is not known yet: no length takes more room than this one.
    pub(crate) fn of(record: &TaskRecord, config: &Config) -> Self {
        let finite = |numbers: &Numbers| {
            let mut numbers = numbers.clone();
            numbers.retain(|_, value| value.is_finite());
            numbers
        };
        Self {
            format_version: crate::FORMAT_VERSION,
            task: record.task.name(),
            configuration_sha256: config.sha256_of_tasks(),
            verdict: verdict_text(&record.verdict),
            numbers: TaskNumbers {
                scalars: finite(&record.scalars),
                references: finite(&record.references),
                timing: finite(&record.timing),
            },
            content_bytes: u64::MAX,
        }
    }

    /// The scalar of this name; NaN where the file has none.
    pub fn scalar(&self, name: &str) -> f64 {
        self.numbers.scalars.get(name).copied().unwrap_or(f64::NAN)
    }

    /// The time of this name; NaN where the file has none.
    pub fn time(&self, name: &str) -> f64 {
        self.numbers.timing.get(name).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn line(&self) -> String {
        serde_json::to_string(self).expect("a head has a JSON form")
    }
}

impl<N: DeserializeOwned> Head<N> {
    /// Reads the head of a file, and nothing else; none where it is not as it was written, of another version, or the
    /// file is longer or shorter than it says.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let found = seal::line_of_block(path).map_err(Error::io("read task file", path))?;
        let Some((line, length)) = found else { return Ok(None) };
        let head: Option<Self> = serde_json::from_str(&line).ok();
        Ok(head.filter(|head| {
            let block = length.checked_sub(head.content_bytes);
            let whole = block.is_some_and(|block| {
                block.is_power_of_two() && block >= seal::block_for(Some(&line))
            });
            whole && head.format_version == crate::FORMAT_VERSION
        }))
    }
}

/// What the task files of a folder must be of.
#[derive(Debug, Clone)]
pub struct Origin {
    config: Config,
    sha256: String,
}

impl Origin {
    /// Of tasks of this configuration.
    pub fn new(config: &Config) -> Self {
        Self { config: config.clone(), sha256: config.sha256_of_tasks() }
    }

    /// What a file, which must be that of `task` with a flow of this configuration, lacks of it.
    ///
    /// # Errors
    /// It is another one ([`Error::ForeignTask`]), or cannot be read.
    pub fn check<N>(&self, path: &Path, task: &Task, head: &Head<N>) -> Result<Option<Lacking>> {
        let foreign = |problem| Err(Error::ForeignTask { path: path.into(), problem });
        if head.task != task.name() {
            return foreign(format!("is of another task ({}, by what it says)", head.task));
        }
        if head.configuration_sha256 == self.sha256 {
            return Ok(None);
        }
        let theirs = TaskFile::open(path)?.configuration()?;
        match self.config.lacks(&Config::parse(&theirs, path)?) {
            Err(difference) => foreign(format!("belongs to another configuration ({difference})")),
            Ok(lacking) => Ok(Some(lacking).filter(|lacking| !lacking.is_nothing())),
        }
    }
}

/// An open file of a finished task, whose checksum fits.
#[derive(Debug)]
pub struct TaskFile {
    path: PathBuf,
    file: hdf5::File,
    pub head: Head,
    /// What it lacks of the configuration that it was looked at with; none where it is finished.
    pub lacking: Option<Lacking>,
}

/// A trained flow as its task file holds it.
#[derive(Debug)]
pub struct StoredFlow {
    pub task: Task,
    /// The resolved configuration of the sweep, as TOML.
    pub configuration: String,
    /// Flat parameter vector.
    pub parameters: Vec<f64>,
}

/// Arrays of a task that the collected file has too.
#[derive(Debug)]
pub struct TaskArrays {
    /// (sample, L, L).
    pub samples: Array3<f64>,
    /// (quantity, L, L), quantities as in [`schema::LATTICE_OBSERVABLES`].
    pub lattice: Array3<f64>,
}

impl TaskFile {
    /// Opens a finished task file of the version that this program reads. A file that cannot be read now, for
    /// lack of permission or of locks, or was written by another version, is not a damaged one.
    ///
    /// # Errors
    /// [`Error::DamagedTask`], [`Error::OtherVersion`], or it cannot be read now.
    pub fn open(path: &Path) -> Result<Self> {
        let damaged = |problem: String| Error::DamagedTask { path: path.into(), problem };
        let seal = seal::check_hdf5(path).map_err(Error::io("read task file", path))?;
        if seal == Seal::Broken {
            return Err(damaged("its checksum does not fit".into()));
        }
        let file = hdf5::File::open(path).map_err(|error| match error.to_string() {
            message if message.contains("unable to lock") => {
                Error::Hdf5 { action: "read", path: path.into(), message }
            }
            message => damaged(message),
        })?;
        let number =
            |name: &str| file.attr(name).and_then(|attribute| attribute.read_scalar::<i64>());
        number(schema::COMPLETE).map_err(|_| damaged("it was never completed".into()))?;
        match number("format_version") {
            Ok(crate::FORMAT_VERSION) if seal == Seal::Intact => {}
            Ok(version) if seal == Seal::Intact || version == 1 => {
                return Err(Error::OtherVersion { path: path.into(), version });
            }
            Ok(_) => return Err(damaged("it has lost its checksum".into())),
            Err(error) => return Err(damaged(error.to_string())),
        }
        let head = Head::read(path)?.ok_or_else(|| damaged("it does not say what it is".into()))?;
        Ok(Self { path: path.into(), file, head, lacking: None })
    }

    /// The same, of a file that must be that of `task`, with a flow of `origin`; it may lack some of it.
    ///
    /// # Errors
    /// Also those of [`Origin::check`].
    pub fn of(path: &Path, task: &Task, origin: &Origin) -> Result<Self> {
        let mut file = Self::open(path)?;
        file.lacking = origin.check(path, task, &file.head)?;
        Ok(file)
    }

    /// What it started from: the name of a task, a file with its checksum, or that it started at random.
    ///
    /// # Errors
    /// It does not say.
    pub fn started_from(&self) -> Result<String> {
        let text = self.file.attr(schema::STARTED_FROM);
        let text = text.and_then(|text| text.read_scalar::<VarLenUnicode>());
        text.map(|text| text.to_string()).map_err(|error| self.damaged(&error))
    }

    /// What it started from, what that had started from, and so on.
    ///
    /// # Errors
    /// It does not say.
    pub fn ancestry(&self) -> Result<String> {
        let text = self.file.attr(schema::ANCESTRY);
        let text = text.and_then(|text| text.read_scalar::<VarLenUnicode>());
        text.map(|text| text.to_string()).map_err(|error| self.damaged(&error))
    }

    /// Opens a file that a user names, which may be none of a task at all.
    ///
    /// # Errors
    /// Also [`Error::NotATask`].
    pub fn named(path: &Path) -> Result<Self> {
        Self::open(path).map_err(|error| match error {
            Error::DamagedTask { .. } if is_foreign(path) => Error::NotATask { path: path.into() },
            error => error,
        })
    }

    /// Its place.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration of its sweep, as TOML.
    ///
    /// # Errors
    /// It is not there.
    pub fn configuration(&self) -> Result<String> {
        let text = self.file.dataset(schema::CONFIGURATION.name);
        let text = text.and_then(|text| text.read_scalar::<VarLenUnicode>());
        text.map(|text| text.to_string()).map_err(|error| self.damaged(&error))
    }

    /// How many parameters the flow has.
    ///
    /// # Errors
    /// They are not there.
    pub fn parameter_count(&self) -> Result<usize> {
        Ok(self.parameters().map_err(|error| self.damaged(&error))?.size())
    }

    /// Which sites of their blocks the flow's couplings freeze; none of checkerboards.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn halves(&self) -> Result<Vec<Half>> {
        let read = || -> hdf5::Result<Vec<Half>> {
            let group = self.file.group(schema::MODEL)?;
            if !group.link_exists(schema::HALVES.name) {
                return Ok(Vec::new());
            }
            let sites: Array2<i8> = group.dataset(schema::HALVES.name)?.read_2d()?;
            Ok(sites
                .outer_iter()
                .map(|pair| [pair[0], pair[1]].map(|site| site as usize))
                .collect())
        };
        read().map_err(|error| self.damaged(&error))
    }

    /// The trained flow.
    ///
    /// # Errors
    /// Something of it is not there.
    pub fn flow(&self) -> Result<StoredFlow> {
        let whole = |name: &str| self.file.attr(name)?.read_scalar::<u64>();
        let task = || -> hdf5::Result<Task> {
            Ok(Task {
                linear_size: whole("linear_size")? as usize,
                temperature: self.file.attr("temperature")?.read_scalar()?,
                depth: whole("depth")? as usize,
                seed: whole("seed")?,
            })
        };
        let parameters = self.parameters().and_then(|parameters| parameters.read_raw());
        Ok(StoredFlow {
            task: task().map_err(|error| self.damaged(&error))?,
            configuration: self.configuration()?,
            parameters: parameters.map_err(|error| self.damaged(&error))?,
        })
    }

    /// Its arrays.
    ///
    /// # Errors
    /// They are not there.
    pub fn arrays(&self) -> Result<TaskArrays> {
        let read = || -> hdf5::Result<TaskArrays> {
            let samples = self.file.group(schema::EVALUATE)?.dataset(schema::SAMPLES.name)?;
            let observables = self.file.group(schema::OBSERVABLES)?;
            let lattice: Vec<Array2<f64>> = schema::LATTICE_OBSERVABLES
                .iter()
                .map(|item| observables.dataset(item.name)?.read_2d())
                .collect::<hdf5::Result<_>>()?;
            let views: Vec<_> = lattice.iter().map(Array2::view).collect();
            let lattice = ndarray::stack(Axis(0), &views).map_err(|error| error.to_string())?;
            Ok(TaskArrays { samples: samples.read()?, lattice })
        };
        read().map_err(|error| self.damaged(&error))
    }

    /// The states that its latent HMC kept; none where it kept none.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn states(&self) -> Result<Option<TargetSamples>> {
        let read = || -> hdf5::Result<Option<TargetSamples>> {
            let chains = self.file.group(schema::CHAINS_GROUP)?.group(Sampler::Latent.name())?;
            if !chains.link_exists(schema::STATES_GROUP) {
                return Ok(None);
            }
            let group = chains.group(schema::STATES_GROUP)?;
            let read = |item: &Item| -> hdf5::Result<Array3<f64>> {
                let values: Array4<f64> = group.dataset(item.name)?.read()?;
                let (chains, draws, rows, columns) = values.dim();
                let flat = values.into_shape_with_order((chains, draws, rows * columns));
                flat.map_err(|error| error.to_string().into())
            };
            let [fields, latents] = &schema::STATES;
            Ok(Some(TargetSamples { fields: read(fields)?, latents: read(latents)? }))
        };
        read().map_err(|error| self.damaged(&error))
    }

    fn parameters(&self) -> hdf5::Result<hdf5::Dataset> {
        self.file.group(schema::MODEL)?.dataset(schema::PARAMETERS.name)
    }

    fn damaged(&self, error: &hdf5::Error) -> Error {
        Error::DamagedTask { path: self.path.clone(), problem: error.to_string() }
    }
}

/// Whether a file, to judge by its beginning and its format, never was a task file.
fn is_foreign(path: &Path) -> bool {
    let format =
        hdf5::File::open(path).and_then(|file| file.attr("format")?.read_scalar::<VarLenUnicode>());
    let is_task = format.is_ok_and(|format| format.as_str() == schema::TASK_FORMAT);
    let is_broken = seal::check_hdf5(path).is_ok_and(|seal| seal == Seal::Broken);
    !is_task && !is_broken
}
