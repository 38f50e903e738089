//! The file of the private key, beside the folder of the log and never in it: who is given the
//! folder is not given the key.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::note::LogKey;

/// The key that signs now: `audit.key` for the folder `audit`.
pub(crate) fn path(dir: &Path) -> PathBuf {
    with_ending(dir, ".key")
}

/// The key that is to sign next, while the log does not name it yet.
pub(crate) fn next_path(dir: &Path) -> PathBuf {
    with_ending(dir, ".key.next")
}

pub(crate) fn with_ending(dir: &Path, ending: &str) -> PathBuf {
    // Without a slash at the end, which would put the key into the folder.
    let mut path = OsString::from(dir.components().as_path());
    path.push(ending);
    path.into()
}

/// Reads a key. `Ok(None)` when there is none.
///
/// # Errors
/// When it cannot be read, or, as `InvalidData`, when it is not a key.
pub fn load(path: &Path) -> io::Result<Option<LogKey>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(4096).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    LogKey::parse(&text)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes a key that only its owner may read, onto the disk itself.
///
/// # Errors
/// When it cannot be written.
pub fn store(path: &Path, key: &LogKey) -> io::Result<()> {
    let temporary = with_ending(path, ".new");
    // Left by a crash, it may have other permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(key.to_text().as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The log names it from now on, and that is pushed to the disk.
    push_folder_of(path)
}

/// Pushes the names in the folder of a file to the disk.
pub(crate) fn push_folder_of(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    match path.parent() {
        Some(folder) if folder != Path::new("") => File::open(folder)?.sync_all()?,
        _ => File::open(".")?.sync_all()?,
    }
    Ok(())
}
