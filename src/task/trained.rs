//! A trained model, loaded from the file of its task, for the commands that ask something of it.

use std::path::Path;

use crate::config::Config;
use crate::engine::{Model, device};
use crate::error::{Error, Result};
use crate::files::atomic::check_writable;
use crate::flow::{Architecture, Flow};
use crate::task::Task;
use crate::task::task_file::{StoredFlow, TaskFile};

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
    /// Loads the model of the finished task in a file that a user names.
    ///
    /// # Errors
    /// As [`TaskFile::named`] and [`Trained::of`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::of(&TaskFile::named(path)?)
    }

    /// The model of a finished task in the precision and with the engine of its configuration, on all
    /// cores of this machine; on a GPU only where there is one, wherever it was trained.
    ///
    /// # Errors
    /// The file holds a flow other than its configuration says, or none.
    pub fn of(file: &TaskFile) -> Result<Self> {
        let StoredFlow { task, configuration, parameters } = file.flow()?;
        let mut config = Config::parse(&configuration, file.path())?;
        let architecture = task.architecture(&config.flow);
        check_flow(file, &architecture)?;

        let (run, choice) = config.run.on_this_machine();
        config.run = run;
        let device = device::select(config.run.engine, choice, 0)?;
        let flow = Flow::with_parameters(architecture, parameters.into());
        let model = Model::new(flow, task.target(), task.temperature, &config.run, device);
        Ok(Self { task, config, configuration, model })
    }
}

/// Whether a command may write `output`: not over a file that it reads, and where it can, so that this is known before the
/// work is done.
///
/// # Errors
/// It may not.
pub fn check_output(input: &Path, output: &Path) -> Result<()> {
    check_writable(output)?;
    let same = |a: &Path, b: &Path| {
        a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
    };
    if same(input, output) {
        return Err(Error::Usage(format!(
            "--output {} is a file that this command reads; choose another name",
            output.display()
        )));
    }
    Ok(())
}

/// Whether a task file has as many parameters as its flow, and these were trained with the halves of blocks that the flow
/// has: with others they would mean something else.
///
/// # Errors
/// It is not so ([`Error::DamagedTask`], [`Error::ForeignTask`]).
pub fn check_flow(file: &TaskFile, architecture: &Architecture) -> Result<()> {
    let path = file.path().to_owned();
    let (found, expected) = (file.parameter_count()?, architecture.parameter_count());
    if found != expected {
        let problem = format!("it has {found} parameters, not {expected}");
        return Err(Error::DamagedTask { path, problem });
    }
    if file.halves()? != architecture.halves() {
        let problem = "has couplings that freeze other sites of their blocks (model/halves) than this version draws for \
                       its seed"
            .into();
        return Err(Error::ForeignTask { path, problem });
    }
    Ok(())
}
