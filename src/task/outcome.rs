//! The output file of a command that trains for itself: beside it lies its checkpoint, and once it is finished it is left as it is.

use std::fs;
use std::path::{Path, PathBuf};

use hdf5::types::VarLenUnicode;

use crate::config::command::CommandConfig;
use crate::error::{Error, Result};
use crate::files::Numbers;
use crate::files::atomic::{check_writable, folder_of};
use crate::files::schema::{self, Item};
use crate::files::seal::{self, Seal, sha256};
use crate::host;
use crate::ranks::Team;
use crate::signals::Stop;
use crate::task::checkpoint::Checkpoints;

/// Which command writes it, and where its numbers stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub command: &'static str,
    pub group: &'static str,
    pub items: &'static [Item],
}

/// What there is to do for an output.
pub(super) enum Begun<C> {
    /// Nothing: it is finished, with these numbers.
    Finished(Numbers),
    /// All of it, with this configuration, at this absolute path.
    Unfinished(C, PathBuf),
}

/// Reads a configuration, and what is there of its output.
///
/// # Errors
/// The configuration or the file that it learns from; or the output is that of another one.
pub(super) fn begin<C: CommandConfig>(
    config_path: &Path,
    output: &Path,
    outcome: Outcome,
) -> Result<Begun<C>> {
    let mut config = C::read(config_path)?;
    config.identify(config_path)?;
    let output = std::path::absolute(output).map_err(Error::io("find", output))?;
    if output.exists() {
        let difference = |text: &str| Ok(config.difference(&C::parse(text, &output)?));
        return read_outcome(&output, outcome, difference).map(Begun::Finished);
    }
    host::keep_freed_memory();
    Ok(Begun::Unfinished(config, output))
}

/// The checkpoints beside an output, whose folder is made.
///
/// # Errors
/// Nothing can be written there.
pub(super) fn checkpoints(
    config: &impl CommandConfig,
    output: &Path,
    outcome: Outcome,
    stop: Stop,
) -> Result<Checkpoints> {
    let folder = folder_of(output);
    fs::create_dir_all(folder).map_err(Error::io("create folder", folder))?;
    check_writable(output)?;
    let identity = format!("{} {}", outcome.command, sha256(config.training().as_bytes()));
    let (path, interval) = (beside(output, ".checkpoint"), config.run().checkpoint_interval());
    Ok(Checkpoints::open(path, &identity, interval, stop, &Team::Alone))
}

/// A path with something behind its name.
fn beside(path: &Path, behind: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(behind);
    name.into()
}

/// The numbers of a finished file; `difference` tells in what its configuration, as TOML text, differs from the present one.
///
/// # Errors
/// It is no finished file of the command, or one of another configuration.
fn read_outcome(
    path: &Path,
    Outcome { command, group, items }: Outcome,
    difference: impl FnOnce(&str) -> Result<Option<String>>,
) -> Result<Numbers> {
    let unfinished = |problem: String| Error::NotLearned { path: path.into(), command, problem };
    if seal::check_hdf5(path).map_err(Error::io("read", path))? != Seal::Intact {
        return Err(unfinished("its checksum does not fit".into()));
    }
    let read = || -> hdf5::Result<(String, Numbers)> {
        let file = hdf5::File::open(path)?;
        let text: VarLenUnicode = file.dataset(schema::CONFIGURATION.name)?.read_scalar()?;
        let group = file.group(group)?;
        let known = items.iter().filter(|item| group.link_exists(item.name));
        let numbers = known
            .map(|item| Ok((item.name.to_owned(), group.dataset(item.name)?.read_scalar()?)))
            .collect::<hdf5::Result<Numbers>>()?;
        Ok((text.to_string(), numbers))
    };
    let (text, numbers) = read().map_err(|error| unfinished(error.to_string()))?;
    match difference(&text)? {
        Some(difference) => Err(Error::OtherLearned { path: path.into(), difference }),
        None => Ok(numbers),
    }
}
