//! The files that studies of finished tasks leave.

use std::fs;
use std::path::{Path, PathBuf};

use hdf5::types::VarLenUnicode;
use ndarray::ArrayD;

use super::Task;
use super::writing::write_identity;
use crate::error::{Error, Result};
use crate::files::content::{write_array, write_hdf5, write_number, write_text};
use crate::files::schema::{self, Item};
use crate::files::seal::{self, Seal};

/// What a study of a finished task leaves behind.
#[derive(Debug)]
pub struct StudyRecord {
    pub task: Task,
    /// Checksum of the task file that it is of.
    pub task_sha256: String,
    /// What it was asked for, in words.
    pub settings: String,
    pub arrays: Vec<(Item, ArrayD<f64>)>,
}

/// Path of the file that a study of a task leaves in a folder.
pub fn study_path(folder: &Path, study: &str, task: &Task) -> PathBuf {
    folder.join(study).join(format!("{}.h5", task.name()))
}

/// Writes the file of a study, and its folder if there is none.
///
/// # Errors
/// The file cannot be written; no new one has the final name then.
pub fn write_study(path: &Path, record: &StudyRecord) -> Result<()> {
    let folder = path.parent().expect("files are written into folders");
    fs::create_dir_all(folder).map_err(Error::io("create folder", folder))?;
    write_hdf5(path, |file| {
        write_text(file, "format", schema::STUDY_FORMAT)?;
        write_number(file, "format_version", schema::STUDY_FORMAT_VERSION)?;
        write_text(file, "code_version", crate::VERSION)?;
        write_identity(file, &record.task)?;
        write_text(file, schema::STUDIED_SHA256, &record.task_sha256)?;
        write_text(file, schema::SETTINGS, &record.settings)?;
        for (item, values) in &record.arrays {
            write_array(file, item, values.view())?;
        }
        write_number(file, schema::COMPLETE, 1u8)
    })
}

/// Of which task file, by its checksum, and with which settings a study is that was written to `path`; none if there is
/// no such file, or it is damaged.
pub fn study_written(path: &Path) -> Option<(String, String)> {
    let intact = seal::check_hdf5(path).is_ok_and(|seal| seal == Seal::Intact);
    let file = hdf5::File::open(path).ok().filter(|_| intact)?;
    let text = |name: &str| file.attr(name)?.read_scalar::<VarLenUnicode>();
    let (sha256, settings) = (text(schema::STUDIED_SHA256), text(schema::SETTINGS));
    Some((sha256.ok()?.to_string(), settings.ok()?.to_string()))
}
