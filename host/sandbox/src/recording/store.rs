//! Where recordings lie: files under the digest of what is in them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sandcast_audit::Digest;
use thiserror::Error;

/// The folder of recordings and of what they refer to: components, rows and models, each once.
///
/// A file is named by its digest, and is held against it when it is read: what was changed is never
/// used.
#[derive(Clone, Debug)]
pub struct Recordings {
    folder: PathBuf,
    /// What was there already and was read once.
    seen: Arc<Mutex<HashSet<Digest>>>,
}

/// Why something of a recording could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// It is not there.
    #[error(
        "{digest} is not among the recordings in {}; it was removed, or lies in another folder",
        folder.display()
    )]
    Missing {
        /// What was looked for.
        digest: Digest,
        /// Where.
        folder: PathBuf,
    },
    /// It is not what was recorded.
    #[error(
        "{digest} among the recordings in {} is not what was recorded: its content has the digest \
         {found}; nothing of it is run",
        folder.display()
    )]
    Changed {
        /// What was looked for.
        digest: Digest,
        /// What lies there.
        found: Digest,
        /// Where.
        folder: PathBuf,
    },
    /// It is a recording that this version does not understand.
    #[error("recording {digest} cannot be read: {reason}")]
    Format {
        /// The recording.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder cannot be read.
    #[error("the recordings in {} cannot be read: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Bytes of a file that is read, at most.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// Files of which it is remembered that they were read.
const MAX_SEEN: usize = 4096;

impl Recordings {
    /// The recordings in a folder, which is made with the first of them.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            seen: Arc::default(),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where something lies, or would.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        let shelf = name.get(..2).unwrap_or_default();
        self.folder.join(shelf).join(&name)
    }

    /// Whether something is there, as far as its name says.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path_of(digest).is_file()
    }

    /// Keeps bytes. A file appears whole or not at all; what is there already is not written again,
    /// unless it is not what it should be, as after a loss of power. It is read for that once, and
    /// after that by its length.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.path_of(&digest);
        // What is kept again is as new as what is kept for the first time.
        match fs::File::options().read(true).append(true).open(&path) {
            Ok(there) if self.is_whole(&there, &digest, bytes)? => {
                there.set_modified(SystemTime::now())?;
                return Ok(digest);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let shelf = path.parent().unwrap_or(&self.folder);
        if !shelf.is_dir() {
            make_private(&self.folder)?;
            fs::create_dir_all(shelf)?;
        }
        let mut file = tempfile::NamedTempFile::new_in(shelf)?;
        file.write_all(bytes)?;
        // Its name is not on the disk before what is in it.
        file.as_file().sync_data()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(digest)
    }

    /// Whether a file holds these bytes.
    fn is_whole(&self, there: &fs::File, digest: &Digest, bytes: &[u8]) -> io::Result<bool> {
        if there.metadata()?.len() != bytes.len() as u64 {
            return Ok(false);
        }
        // A panic elsewhere leaves a whole value.
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen().contains(digest) {
            return Ok(true);
        }
        let (mut rest, mut reader) = (bytes, BufReader::new(there));
        loop {
            let read = reader.fill_buf()?;
            let length = read.len();
            match rest.split_at_checked(length) {
                Some((same, left)) if length > 0 && same == read => rest = left,
                _ => break,
            }
            reader.consume(length);
        }
        if !rest.is_empty() {
            return Ok(false);
        }
        let mut seen = seen();
        if seen.len() >= MAX_SEEN {
            seen.clear();
        }
        seen.insert(*digest);
        Ok(true)
    }

    /// What lies there and is neither to be kept nor younger than a moment, the largest first. Files
    /// that are no part of a recording are left alone.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn others(
        &self,
        keep: &BTreeSet<Digest>,
        before: SystemTime,
    ) -> io::Result<Vec<(Digest, u64)>> {
        let mut found = Vec::new();
        let shelves = match fs::read_dir(&self.folder) {
            Ok(shelves) => shelves,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error),
        };
        for shelf in shelves {
            let shelf = shelf?;
            if !shelf.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(shelf.path())? {
                let file = file?;
                let digest = file.file_name().to_str().and_then(|name| name.parse().ok());
                let (Some(digest), metadata) = (digest, file.metadata()?) else {
                    continue;
                };
                if !keep.contains(&digest) && metadata.modified()? < before {
                    found.push((digest, metadata.len()));
                }
            }
        }
        found.sort_by_key(|(digest, bytes)| (Reverse(*bytes), *digest));
        Ok(found)
    }

    /// Takes something away, if it is there.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        match fs::remove_file(self.path_of(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What lies under a digest, once it is held against it.
    ///
    /// # Errors
    /// If it is not there, was changed, or cannot be read.
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>, RecordingError> {
        let folder = || self.folder.clone();
        let io = |source| RecordingError::Io {
            folder: folder(),
            source,
        };
        let file = match fs::File::open(self.path_of(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RecordingError::Missing {
                    digest: *digest,
                    folder: folder(),
                });
            }
            Err(error) => return Err(io(error)),
        };
        // Not more than that, whatever grows while it is read.
        let mut bytes = Vec::new();
        let size = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
        if size.map_err(io)? as u64 > MAX_FILE_BYTES {
            return Err(RecordingError::Format {
                digest: *digest,
                reason: format!("it is over {MAX_FILE_BYTES} bytes"),
            });
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(RecordingError::Changed {
                digest: *digest,
                found,
                folder: folder(),
            });
        }
        Ok(bytes)
    }
}

/// Recordings hold the data of calls, so they are their owner's alone.
fn make_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if fs::metadata(folder)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_there_and_what_was_changed_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let recordings = Recordings::at(folder.path().join("recordings"));
        let digest = recordings.put(b"a component").expect("kept");
        assert_eq!(recordings.put(b"a component").expect("kept"), digest);
        assert_eq!(recordings.get(&digest).expect("there"), b"a component");
        let other = Digest::of(b"another");
        assert!(matches!(
            recordings.get(&other),
            Err(RecordingError::Missing { .. })
        ));
        // After a loss of power there may be a name with nothing, or not all, or something else in it.
        for cut in [b"".as_slice(), b"a comp", &[0; 11]] {
            let recordings = Recordings::at(recordings.folder());
            fs::write(recordings.path_of(&digest), cut).expect("changed");
            assert_eq!(recordings.put(b"a component").expect("kept"), digest);
            assert_eq!(recordings.get(&digest).expect("there"), b"a component");
        }
        fs::write(recordings.path_of(&digest), b"another one").expect("changed");
        let error = recordings.get(&digest).expect_err("it was changed");
        assert!(matches!(error, RecordingError::Changed { .. }), "{error}");
    }

    #[test]
    fn what_is_old_and_not_to_be_kept_is_found_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let recordings = Recordings::at(folder.path().join("recordings"));
        let none = BTreeSet::new();
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        assert!(recordings.others(&none, later).expect("none").is_empty());
        let [small, large] = [b"ab".as_slice(), b"abc"].map(|it| recordings.put(it).expect("kept"));
        fs::write(recordings.folder().join("notes"), b"mine").expect("another's file");
        let all = recordings.others(&none, later).expect("listed");
        assert_eq!(all, [(large, 3), (small, 2)]);
        let earlier = SystemTime::now() - std::time::Duration::from_secs(60);
        assert!(recordings.others(&none, earlier).expect("young").is_empty());
        let keep = BTreeSet::from([large]);
        assert_eq!(
            recordings.others(&keep, later).expect("listed"),
            [(small, 2)]
        );
        recordings.remove(&small).expect("removed");
        recordings.remove(&small).expect("it is gone already");
        assert!(recordings.has(&large) && !recordings.has(&small));
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let recordings = Recordings::at(folder.path().join("recordings"));
        recordings.put(b"rows").expect("kept");
        let mode = fs::metadata(recordings.folder())
            .expect("made")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o700);
    }
}
