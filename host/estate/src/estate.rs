use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use sandcast_audit::Digest;

use crate::blobs::{BlobError, BlobStore};
use crate::rows::{self, ReadError};
use crate::{BlobRef, Dataset};

/// A folder of datasets: `blobs/` keeps their bytes, `spill/` what a query cannot hold in memory.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Estate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<BlobStore>,
    spill_folder: PathBuf,
    options: EstateOptions,
}

/// How much an [`Estate`] may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EstateOptions {
    /// Splits of a source that are read side by side. No result depends on it.
    pub parallelism: NonZeroUsize,
    /// Bytes a query may hold in memory; sorting and grouping go to disk beyond it.
    pub query_memory_bytes: usize,
}

impl Default for EstateOptions {
    /// A split for each core, and 2 GiB.
    fn default() -> Self {
        Self {
            parallelism: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            query_memory_bytes: 2 << 30,
        }
    }
}

/// How far a landing, a query, a check or a profile has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Rows done.
    pub rows: u64,
    /// Rows in all, if that is known.
    pub total: Option<u64>,
}

/// Told how far the work has come, from any thread.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

impl Estate {
    /// Opens a folder, which is made if it is not there, with the default options.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        Self::with_options(root, EstateOptions::default())
    }

    /// Opens a folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn with_options(root: &Path, options: EstateOptions) -> Result<Self, BlobError> {
        let spill_folder = root.join("spill");
        fs::create_dir_all(&spill_folder).map_err(|source| BlobError::Open {
            path: spill_folder.clone(),
            source,
        })?;
        let store = Arc::new(BlobStore::open(&root.join("blobs"))?);
        Ok(Self {
            shared: Arc::new(Shared {
                store,
                spill_folder,
                options,
            }),
        })
    }

    /// Keeps some bytes.
    ///
    /// # Errors
    /// When the folder cannot be written to; nothing is left half-written.
    pub async fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        self.store().put(bytes).await
    }

    /// Keeps the content of a file.
    ///
    /// # Errors
    /// When the file cannot be read or the folder not written to.
    pub async fn put_file(&self, path: &Path) -> Result<Digest, BlobError> {
        self.store().put_file(path).await
    }

    /// The bytes with a digest, checked against it.
    ///
    /// # Errors
    /// When they are not there, or are others.
    pub async fn get(&self, digest: &Digest) -> Result<Vec<u8>, BlobError> {
        self.store().get(digest).await
    }

    /// Whether there is a blob with this digest.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        self.store().contains(digest).await
    }

    /// Keeps the description of a dataset as a JSON blob, whose digest [`load`](Self::load) takes.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn save(&self, dataset: &Dataset) -> Result<Digest, BlobError> {
        let not_json = |source| BlobError::NotADataset {
            digest: dataset.digest,
            source,
        };
        let bytes = serde_json::to_vec(dataset).map_err(not_json)?;
        self.put(&bytes).await
    }

    /// The dataset that was saved under this digest.
    ///
    /// # Errors
    /// As [`get`](Self::get); and when the blob is no description of a dataset.
    pub async fn load(&self, saved: &Digest) -> Result<Dataset, BlobError> {
        let bytes = self.get(saved).await?;
        serde_json::from_slice(&bytes).map_err(|source| BlobError::NotADataset {
            digest: *saved,
            source,
        })
    }

    /// Every row, in order. For a dataset that does not fit in memory use [`stream`](Self::stream).
    ///
    /// # Errors
    /// When the dataset cannot be read, or a blob of it was changed.
    pub async fn read(&self, dataset: &Dataset) -> Result<Vec<RecordBatch>, ReadError> {
        self.stream(dataset).try_collect().await
    }

    /// Every row, in order, a batch of at most 65,536 rows at a time.
    pub fn stream(&self, dataset: &Dataset) -> BoxStream<'static, Result<RecordBatch, ReadError>> {
        self.stream_blobs(&dataset.blobs)
    }

    /// The rows of Parquet blobs, such as those of a [`Quarantine`](crate::Quarantine), in order.
    pub fn stream_blobs(
        &self,
        blobs: &[BlobRef],
    ) -> BoxStream<'static, Result<RecordBatch, ReadError>> {
        rows::stream(self.store(), blobs.iter().copied())
    }

    pub(crate) fn store(&self) -> &Arc<BlobStore> {
        &self.shared.store
    }

    pub(crate) fn spill_folder(&self) -> &Path {
        &self.shared.spill_folder
    }

    pub(crate) fn parallelism(&self) -> NonZeroUsize {
        self.shared.options.parallelism
    }

    pub(crate) fn query_memory_bytes(&self) -> usize {
        self.shared.options.query_memory_bytes
    }
}
