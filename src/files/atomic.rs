//! Files that are written beside their final name, synced and renamed, so that one with its final name is finished.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How names of files begin that are still being written.
const UNFINISHED: &str = ".unfinished-";

/// How long a network file system may take to show a file that another node has written.
const LATEST: Duration = Duration::from_secs(60);

/// How the names of files begin that this process is writing: with its number and machine.
fn unfinished_prefix() -> String {
    let host = gethostname::gethostname();
    format!("{UNFINISHED}{}-{}-", std::process::id(), host.to_string_lossy())
}

/// Whether a file was being written by a process that is no more: one of this machine that does not run, or
/// any that has not written for a day.
pub(crate) fn is_left_behind(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy().into_owned();
    let Some(rest) = name.strip_prefix(UNFINISHED) else { return false };
    let modified = entry.metadata().and_then(|data| data.modified()).ok();
    let age = modified.and_then(|modified| modified.elapsed().ok());
    if age.is_some_and(|age| age > Duration::from_secs(86_400)) {
        return true;
    }
    let host = gethostname::gethostname();
    let Some((process, rest)) = rest.split_once('-') else { return true };
    let here = rest.starts_with(&format!("{}-", host.to_string_lossy()));
    let running = Path::new("/proc").join(process).exists();
    here && (!running || process == std::process::id().to_string())
}

/// Writes a file beside its final name, syncs it and renames it.
///
/// # Errors
/// Any of these steps fails; the final name then keeps what it had.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<()> {
    write_beside(path, |beside| fs::write(beside, contents).map_err(Error::io("write", path)))
}

/// Lets `write` fill a file beside `path`, then syncs it and renames it to `path`.
pub(crate) fn write_beside(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = folder_of(path);
    let beside = tempfile::Builder::new()
        .prefix(&unfinished_prefix())
        // As every program makes files: what the umask lets through, so that a group can share a folder.
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(Error::io("create a file in", folder))?
        .into_temp_path();
    write(&beside)?;
    let synced = File::open(&beside).and_then(|file| file.sync_all());
    synced.map_err(Error::io("sync", path))?;
    beside.persist(path).map_err(|error| Error::io("rename a file to", path)(error.error))?;
    // The rename itself lasts through a power cut only when the folder is synced too.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", folder))
}

/// Whether a file of this name could be written, so that this is known before the work is done.
///
/// # Errors
/// Its folder is not there or cannot be written, or it is a folder itself.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        let problem = std::io::Error::from(std::io::ErrorKind::IsADirectory);
        return Err(Error::io("write", path)(problem));
    }
    probe(folder_of(path))
}

/// Whether files could be written into a folder that may still have to be made.
///
/// # Errors
/// They could not.
pub fn check_writable_folder(folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|folder| folder.exists());
    probe(there.unwrap_or(Path::new(".")))
}

/// Makes a file in a folder and removes it.
fn probe(folder: &Path) -> Result<()> {
    let file = tempfile::Builder::new().prefix(&unfinished_prefix()).tempfile_in(folder);
    // The name that tempfile adds to its errors is no user's.
    let cause = |error: std::io::Error| {
        error.raw_os_error().map_or(error, std::io::Error::from_raw_os_error)
    };
    file.map(drop).map_err(|error| Error::io("write into folder", folder)(cause(error)))
}

/// The folder that a file of this name is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder == Path::new("") => Path::new("."),
        Some(folder) => folder,
        None => path,
    }
}

/// Waits, not for ever, until a file that is known to be finished is seen on this node too.
pub fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() && start.elapsed() < LATEST {
        std::thread::sleep(Duration::from_millis(100));
    }
}
