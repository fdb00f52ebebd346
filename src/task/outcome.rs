//! The output file of a command that trains for itself: beside it lies its checkpoint, and once it is finished it is left as it is.

use std::path::{Path, PathBuf};

use hdf5::types::VarLenUnicode;

use crate::error::{Error, Result};
use crate::files::Numbers;
use crate::files::schema::{self, Item};
use crate::files::seal::{self, Seal};

/// Which command writes it, and where its numbers stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub command: &'static str,
    pub group: &'static str,
    pub items: &'static [Item],
}

/// A path with something behind its name.
pub(super) fn beside(path: &Path, behind: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(behind);
    name.into()
}

/// The numbers of a finished file; `difference` tells in what its configuration, as TOML text, differs from the present one.
///
/// # Errors
/// It is no finished file of the command, or one of another configuration.
pub(super) fn read_outcome(
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
