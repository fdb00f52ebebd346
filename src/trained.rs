//! A trained model, loaded from the file of its task, for the commands that ask something of it.

use std::path::Path;

use crate::config::{Config, DeviceChoice};
use crate::device;
use crate::engine::Model;
use crate::error::{Error, Result};
use crate::flow::{Architecture, Flow};
use crate::plan::Task;
use crate::store::{self, StoredFlow, folder_of};

/// A task's trained model.
#[derive(Debug)]
pub struct Trained {
    pub task: Task,
    /// The configuration of the sweep, with the threads of this machine.
    pub config: Config,
    /// The sweep's own configuration, as TOML.
    pub configuration: String,
    pub model: Model,
}

impl Trained {
    /// Loads the model of a finished task in the precision and with the engine of its configuration, on all
    /// cores of this machine; on a GPU only where there is one, wherever it was trained.
    ///
    /// # Errors
    /// As [`store::read_flow`], or the file holds a flow other than its configuration says.
    pub fn load(path: &Path) -> Result<Self> {
        let StoredFlow { task, configuration, parameters } = store::read_flow(path)?;
        let mut config = Config::parse(&configuration, path)?;
        let architecture = task.architecture(&config.flow);
        check_parameters(path, &architecture, &parameters)?;

        config.run.threads = std::thread::available_parallelism().map_or(1, usize::from);
        tch::set_num_threads(config.run.threads as i32);
        let device = device::select(
            match config.run.device_choice() {
                DeviceChoice::Cpu => DeviceChoice::Cpu,
                DeviceChoice::Auto | DeviceChoice::Cuda => DeviceChoice::Auto,
            },
            0,
        )?;
        let kind = config.run.precision.kind();
        let flow = Flow::with_parameters(architecture, &parameters, kind, device);
        let model = Model::new(flow, &config.run);
        Ok(Self { task, config, configuration, model })
    }
}

/// Whether a command may write `output`: not over the task file that it reads, and into a folder that is there, so
/// that this is known before the work is done.
///
/// # Errors
/// It may not.
pub fn check_output(task: &Path, output: &Path) -> Result<()> {
    let folder = folder_of(output);
    if !folder.is_dir() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Error::io("write into folder", folder)(missing));
    }
    let same = |a: &Path, b: &Path| {
        a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
    };
    if same(task, output) {
        return Err(Error::Usage(format!(
            "--output {} is the task file itself; choose another name",
            output.display()
        )));
    }
    Ok(())
}

/// Whether a task file's parameters are as many as its flow has.
///
/// # Errors
/// They are not ([`Error::DamagedTask`]).
pub fn check_parameters(
    path: &Path,
    architecture: &Architecture,
    parameters: &[f64],
) -> Result<()> {
    let (found, expected) = (parameters.len(), architecture.parameter_count());
    if found == expected {
        return Ok(());
    }
    let problem = format!("it has {found} parameters, not {expected}");
    Err(Error::DamagedTask { path: path.into(), problem })
}
