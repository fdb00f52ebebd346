//! What a training starts from: the trained flow of another task, of this sweep or another one, or of an exported file.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::export::FORMAT;
use super::task_file::{StoredFlow, TaskFile};
use super::trained::check_flow;
use super::{Start, Task};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::seal;
use crate::flow::{Architecture, transfer};

/// What a task starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    pub start: Start,
    /// What that flow started from, and so on, back to the one that started at random: names with ` < ` between them.
    pub ancestry: String,
    /// None where the training goes on and does not need it.
    pub flow: Option<TrainedFlow>,
}

/// A flow with its flat parameter vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainedFlow {
    pub architecture: Architecture,
    pub parameters: Vec<f64>,
}

impl Parent {
    /// The flow of a finished task.
    ///
    /// # Errors
    /// The file lacks it, or has couplings that this version does not draw for its seed.
    pub fn of_task(start: Start, file: &TaskFile) -> Result<Self> {
        let StoredFlow { task, configuration, parameters } = file.flow()?;
        let architecture = task.architecture(&Config::parse(&configuration, file.path())?.flow);
        check_flow(file, &architecture)?;
        let flow = Some(TrainedFlow { architecture, parameters });
        Ok(Self { start, ancestry: file.ancestry()?, flow })
    }

    /// The flow of a file that a user names: a task file, or, with the ending `.safetensors`, an exported flow.
    ///
    /// # Errors
    /// It is neither, or has another content than the expected checksum says.
    pub fn of_file(path: &Path, expected: Option<&str>) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read flow", path))?;
        let sha256 = seal::sha256(&bytes);
        if expected.is_some_and(|expected| expected != sha256) {
            let problem = "it has changed since the job began".into();
            return Err(Error::NoFlow { path: path.into(), problem });
        }
        let start = Start::File { path: path.into(), sha256 };
        if path.extension() == Some(OsStr::new("safetensors")) {
            let flow = Some(read_exported(path, &bytes)?);
            return Ok(Self { start, ancestry: "an exported flow".into(), flow });
        }
        Self::of_task(start, &TaskFile::named(path)?)
    }

    /// The parameters of a flow that starts from this one; the initial ones where it has not been read.
    ///
    /// # Errors
    /// Nothing of it fits.
    pub fn give(&self, architecture: &Architecture, initial: &[f64]) -> Result<Vec<f64>> {
        let Some(flow) = &self.flow else { return Ok(initial.to_vec()) };
        let parameters = transfer(architecture, initial, &flow.architecture, &flow.parameters);
        if parameters == initial {
            let start = self.start.to_string();
            return Err(Error::NothingFits { start });
        }
        Ok(parameters)
    }
}

/// Structure and flat parameter vector of a flow in a file of [`export`](super::export::export), whose weights may have been
/// trained on elsewhere: `couplings.I.weights.J`, one after the other.
fn read_exported(path: &Path, bytes: &[u8]) -> Result<TrainedFlow> {
    let unfit = |problem: String| Error::NoFlow { path: path.into(), problem };
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| unfit(error.to_string()))?;
    let header = SafeTensors::read_metadata(bytes).map_err(|error| unfit(error.to_string()))?.1;
    let metadata: HashMap<String, String> = header.metadata().clone().unwrap_or_default();
    let told =
        |key: &str| metadata.get(key).ok_or_else(|| unfit(format!("its metadata have no {key:?}")));
    if told("format")? != FORMAT {
        return Err(unfit(format!("its format is {:?}, not {FORMAT:?}", told("format")?)));
    }
    let task = told("task")?;
    let task = Task::named(task).ok_or_else(|| unfit(format!("{task:?} names no task")))?;
    let config = Config::parse(told("configuration")?, path)?;
    let architecture = task.architecture(&config.flow);
    let mut parameters = Vec::with_capacity(architecture.parameter_count());
    for (i, coupling) in architecture.couplings().iter().enumerate() {
        for (j, shape) in coupling.network.parameter_shapes().into_iter().enumerate() {
            let name = format!("couplings.{i}.weights.{j}");
            let tensor = tensors.tensor(&name).map_err(|error| unfit(error.to_string()))?;
            if tensor.shape() != shape {
                return Err(unfit(format!(
                    "{name} has the shape {:?}, not {shape:?}",
                    tensor.shape()
                )));
            }
            let bytes = tensor.data();
            match tensor.dtype() {
                Dtype::F32 => {
                    let values = bytes.as_chunks().0.iter();
                    parameters.extend(values.map(|&bytes| f64::from(f32::from_le_bytes(bytes))));
                }
                Dtype::F64 => {
                    let values = bytes.as_chunks().0.iter();
                    parameters.extend(values.map(|&bytes| f64::from_le_bytes(bytes)));
                }
                other => return Err(unfit(format!("{name} is {other:?}, neither F32 nor F64"))),
            }
        }
    }
    if let Some(value) = parameters.iter().find(|value| !value.is_finite()) {
        return Err(unfit(format!("one of its weights is {value}")));
    }
    Ok(TrainedFlow { architecture, parameters })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tasks_are_read_back() {
        for temperature in [2.0, 2.269185314213022, 0.01, 1000.0, 2.25] {
            let task = Task { linear_size: 12, temperature, depth: 2, seed: 7 };
            assert_eq!(Task::named(&task.name()), Some(task));
        }
        for name in ["", "L8", "L8_T2_d3", "L8_T2.0_d3_s1", "L8_T2_d3_s1_x", "x8_T2_d3_s1"] {
            assert_eq!(Task::named(name), None, "{name}");
        }
    }
}
