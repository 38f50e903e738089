//! Bytes under the digest of their content, in a local folder.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use sandcast_audit::{Digest, DigestHasher};
use thiserror::Error;
use tokio::io::AsyncReadExt;

/// Where blobs are written before they have a name.
const INCOMING: &str = "incoming";
/// What a process that was killed left there is removed after this time.
const INCOMING_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes written at a time.
const PART_BYTES: usize = 4 << 20;

/// Why a blob cannot be kept or given back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The folder cannot be made or opened.
    #[error("cannot open the blob folder {}; it must be on a disk that can be written to", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// There is no room.
    #[error("no room is left for blobs in {}; nothing was kept of this one; free some space and run again", path.display())]
    Full {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The folder may not be written to.
    #[error("blobs cannot be written to {}; make the folder writable or choose another state folder", path.display())]
    ReadOnly {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Writing failed in another way.
    #[error("a blob could not be written to {}", path.display())]
    Write {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: object_store::Error,
    },
    /// Reading failed.
    #[error("blob {digest} cannot be read")]
    Read {
        /// The blob.
        digest: Digest,
        /// The cause.
        source: object_store::Error,
    },
    /// It is not there.
    #[error("blob {digest} is not in {}; run the stage that makes it again", path.display())]
    Missing {
        /// The blob.
        digest: Digest,
        /// The folder.
        path: PathBuf,
    },
    /// It holds other bytes than it should.
    #[error("blob {digest} was changed: {} now holds {found}; remove the file and run the stage that makes it again", path.display())]
    Changed {
        /// The blob.
        digest: Digest,
        /// The digest of what is there.
        found: Digest,
        /// The file.
        path: PathBuf,
    },
    /// A file that was to be kept cannot be read.
    #[error("cannot read {}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A blob that was to describe a dataset does not.
    #[error("blob {digest} does not describe a dataset")]
    NotADataset {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A folder of blobs: `<first two characters>/<digest>`.
#[derive(Debug)]
pub(crate) struct BlobStore {
    store: Arc<LocalFileSystem>,
    folder: PathBuf,
    /// Blobs whose bytes this process has checked.
    checked: Mutex<HashSet<Digest>>,
    incoming: AtomicU64,
}

impl BlobStore {
    pub(crate) fn open(folder: &Path) -> Result<Self, BlobError> {
        let failed = |source| BlobError::Open {
            path: folder.to_owned(),
            source,
        };
        fs::create_dir_all(folder.join(INCOMING)).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(folder)
            .map_err(|error| failed(io::Error::other(error)))?;
        remove_abandoned(&folder.join(INCOMING));
        Ok(Self {
            store: Arc::new(store),
            folder: folder.to_owned(),
            checked: Mutex::default(),
            incoming: AtomicU64::new(0),
        })
    }

    /// The store itself, for readers that want parts of a blob.
    pub(crate) fn object_store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    /// Where a blob is in the store.
    pub(crate) fn place(digest: &Digest) -> StorePath {
        let name = digest.to_string();
        StorePath::from_iter([&name[..2], name.as_str()])
    }

    /// Starts to write a blob whose digest is not yet known. What is written has no name until
    /// [`BlobWriter::finish`]; dropping the writer leaves nothing.
    pub(crate) async fn writer(self: &Arc<Self>) -> Result<BlobWriter, BlobError> {
        let number = self.incoming.fetch_add(1, Ordering::Relaxed);
        let clock = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let name = format!("{}-{number}-{}", std::process::id(), clock.as_nanos());
        let temporary = StorePath::from_iter([INCOMING, &name]);
        let upload = self
            .store
            .put_multipart(&temporary)
            .await
            .map_err(|error| self.write_error(error))?;
        Ok(BlobWriter {
            store: Arc::clone(self),
            upload: WriteMultipart::new_with_chunk_size(upload, PART_BYTES),
            temporary,
            hasher: Digest::hasher(),
            bytes: 0,
        })
    }

    pub(crate) async fn put(self: &Arc<Self>, bytes: &[u8]) -> Result<Digest, BlobError> {
        let mut writer = self.writer().await?;
        writer.write(bytes).await?;
        Ok(writer.finish().await?.0)
    }

    pub(crate) async fn put_file(self: &Arc<Self>, path: &Path) -> Result<Digest, BlobError> {
        let failed = |source| BlobError::ReadFile {
            path: path.to_owned(),
            source,
        };
        let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
        let mut writer = self.writer().await?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).await.map_err(failed)? {
                0 => return Ok(writer.finish().await?.0),
                count => writer.write(&buffer[..count]).await?,
            }
        }
    }

    pub(crate) async fn get(&self, digest: &Digest) -> Result<Vec<u8>, BlobError> {
        let failed = |error| self.read_error(digest, error);
        let bytes = self
            .store
            .get(&Self::place(digest))
            .await
            .map_err(failed)?
            .bytes()
            .await
            .map_err(failed)?;
        self.compare(digest, Digest::of(&bytes))?;
        Ok(bytes.into())
    }

    pub(crate) async fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        match self.store.head(&Self::place(digest)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.read_error(digest, error)),
        }
    }

    /// Checks a blob that will be read in parts; once in the life of this process.
    pub(crate) async fn check(&self, digest: &Digest) -> Result<(), BlobError> {
        if self
            .checked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(digest)
        {
            return Ok(());
        }
        let failed = |error| self.read_error(digest, error);
        let mut stream = self
            .store
            .get(&Self::place(digest))
            .await
            .map_err(failed)?
            .into_stream();
        let mut hasher = Digest::hasher();
        while let Some(bytes) = stream.try_next().await.map_err(failed)? {
            hasher.update(&bytes);
        }
        self.compare(digest, hasher.finish())?;
        self.checked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(*digest);
        Ok(())
    }

    fn compare(&self, digest: &Digest, found: Digest) -> Result<(), BlobError> {
        if found == *digest {
            return Ok(());
        }
        let name = digest.to_string();
        Err(BlobError::Changed {
            digest: *digest,
            found,
            path: self.folder.join(&name[..2]).join(name),
        })
    }

    fn read_error(&self, digest: &Digest, source: object_store::Error) -> BlobError {
        match source {
            object_store::Error::NotFound { .. } => BlobError::Missing {
                digest: *digest,
                path: self.folder.clone(),
            },
            source => BlobError::Read {
                digest: *digest,
                source,
            },
        }
    }

    fn write_error(&self, source: object_store::Error) -> BlobError {
        use io::ErrorKind::{
            FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        };
        let path = self.folder.clone();
        let Some(cause) = io_cause(&source) else {
            return BlobError::Write { path, source };
        };
        let copy = cause.raw_os_error().map_or_else(
            || io::Error::from(cause.kind()),
            io::Error::from_raw_os_error,
        );
        match cause.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => BlobError::Full { path, source: copy },
            ReadOnlyFilesystem | PermissionDenied => BlobError::ReadOnly { path, source: copy },
            _ => BlobError::Write { path, source },
        }
    }
}

/// The error of the operating system behind an error of the store.
fn io_cause<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(cause) = error.downcast_ref::<io::Error>() {
            return Some(cause);
        }
        next = error.source();
    }
    None
}

/// Removes what processes that were killed have left. Whatever cannot be removed does no harm.
fn remove_abandoned(incoming: &Path) {
    for entry in fs::read_dir(incoming).into_iter().flatten().flatten() {
        let age = entry
            .metadata()
            .and_then(|data| data.modified())
            .ok()
            .and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > INCOMING_KEPT)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!(path = %entry.path().display(), %error, "cannot remove an abandoned blob");
        }
    }
}

/// Writes one blob.
pub(crate) struct BlobWriter {
    store: Arc<BlobStore>,
    upload: WriteMultipart,
    temporary: StorePath,
    hasher: DigestHasher,
    bytes: u64,
}

impl BlobWriter {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.upload
            .wait_for_capacity(2)
            .await
            .map_err(|error| self.store.write_error(error))?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.upload.write(bytes);
        Ok(())
    }

    /// Gives the blob its name, once it is on the disk. The digest and the size.
    pub(crate) async fn finish(self) -> Result<(Digest, u64), BlobError> {
        let Self {
            store,
            upload,
            temporary,
            hasher,
            bytes,
        } = self;
        upload
            .finish()
            .await
            .map_err(|error| store.write_error(error))?;
        let digest = hasher.finish();
        let named = async {
            let path = store.store.path_to_filesystem(&temporary)?;
            // A name must never stand for bytes that a loss of power could still take.
            tokio::fs::File::open(&path)
                .await
                .map_err(|source| object_store::Error::Generic {
                    store: "blobs",
                    source: source.into(),
                })?
                .sync_data()
                .await
                .map_err(|source| object_store::Error::Generic {
                    store: "blobs",
                    source: source.into(),
                })?;
            // Renaming over a blob that is there already mends it, should it have been damaged.
            store
                .store
                .rename(&temporary, &BlobStore::place(&digest))
                .await
        };
        if let Err(error) = named.await {
            if let Err(error) = store.store.delete(&temporary).await {
                tracing::debug!(%error, "cannot remove a blob that could not be named");
            }
            return Err(store.write_error(error));
        }
        Ok((digest, bytes))
    }
}

#[cfg(test)]
mod tests;
