//! What the configurations of commands that train for themselves, outside a sweep, have in common.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::text::{differences, flattened, is_of_machine, parse_over_preset};
use crate::engine::config::RunConfig;
use crate::error::{Error, Result};
use crate::flow::config::FlowConfig;

/// A configuration of `neuralrg learn` or `canonical`.
pub trait CommandConfig: Serialize + DeserializeOwned {
    /// What differs from the defaults of sweeps, as TOML.
    const DEFAULTS: &str;
    /// Key of the file that it learns from, which its checksum stands for.
    const FILE: &str;
    /// Keys on which no training depends, beside that one and those of the machine.
    const AFTER_TRAINING: &[&str];

    /// `[flow]`.
    fn flow(&self) -> &FlowConfig;
    /// `[run]`.
    fn run(&self) -> &RunConfig;
    /// Fills in the checksum of the file that it learns from, if there is one; `path` names the configuration.
    ///
    /// # Errors
    /// The file cannot be read, or the configuration has another checksum.
    fn identify(&mut self, path: &Path) -> Result<()>;
    /// Whether all values are allowed; `path` names the configuration.
    ///
    /// # Errors
    /// One is not.
    fn validate(&self, path: &Path) -> Result<()>;

    /// Reads and validates a configuration file.
    ///
    /// # Errors
    /// As [`super::Config::read`].
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read configuration", path))?;
        Self::parse(&text, path)
    }

    /// Parses and validates `text`; `path` only names it in messages.
    ///
    /// # Errors
    /// It is not TOML of the known keys, or holds a value that is not allowed.
    fn parse(text: &str, path: &Path) -> Result<Self> {
        let config: Self = parse_over_preset(text, path, Self::DEFAULTS, Self::flow)?;
        config.validate(path)?;
        Ok(config)
    }

    /// The resolved configuration as TOML, every default spelled out.
    fn to_toml(&self) -> String {
        toml::to_string(self).expect("a validated configuration has a TOML form")
    }

    /// The first key on which two configurations differ, those of the machine and where a file of the same checksum lies aside.
    fn difference(&self, other: &Self) -> Option<String> {
        let [mine, theirs] = [flattened(self), flattened(other)];
        let counts = |key: &str| !is_of_machine(key) && key != Self::FILE;
        differences(&mine, &theirs).find(|(key, _)| counts(key)).map(|(_, told)| told)
    }

    /// What its training depends on, as text: a checkpoint is of such a configuration.
    fn training(&self) -> String {
        let depends = |key: &str| {
            !is_of_machine(key)
                && key != Self::FILE
                && key != "train.log_every"
                && !Self::AFTER_TRAINING.contains(&key)
        };
        let keys = flattened(self);
        let keys = keys.iter().filter(|(key, _)| depends(key));
        keys.map(|(key, value)| format!("{key} = {value}\n")).collect()
    }
}
