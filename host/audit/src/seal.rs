//! A seal for a row of a database beside a log: whoever can write the database and cannot read the key
//! cannot make one.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use blake3::Hash;

use crate::key_file;

/// The key that seals rows, in a file beside the database that only its owner may read.
#[derive(Clone)]
pub struct SealKey([u8; 32]);

impl fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SealKey").finish_non_exhaustive()
    }
}

impl SealKey {
    /// Reads the key.
    ///
    /// # Errors
    /// When it is not there, cannot be read or is none.
    pub fn load(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.take(33).read_to_end(&mut bytes)?;
        let bytes = bytes
            .try_into()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not 32 bytes long"))?;
        Ok(Self(bytes))
    }

    /// Makes a key and writes it to the disk itself. One that is there stays. Of processes that make one
    /// for the same database only one may be here at a time.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn load_or_make(path: &Path) -> io::Result<Self> {
        match Self::load(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            loaded => return loaded,
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let temporary = path.with_extension("key.new");
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private(&temporary)?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // What it seals may be on the disk before its name is, else.
        key_file::push_folder_of(path)?;
        Ok(Self(key))
    }

    /// Moves the file of a key to where another one lies, which is gone then.
    ///
    /// # Errors
    /// When it is not there or cannot be moved.
    pub fn put_in_place(next: &Path, path: &Path) -> io::Result<()> {
        fs::rename(next, path)?;
        key_file::push_folder_of(path)
    }

    /// The seal of a row: of its table, its key and everything in it.
    #[must_use]
    pub fn seal(&self, table: &str, id: &str, document: &str) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in [table, id, document] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize()
    }
}

/// Makes a new file that only its owner may read and write.
///
/// # Errors
/// When it is there, or cannot be made.
pub fn private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
