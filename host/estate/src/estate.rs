use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use sandcast_audit::Digest;
use sandcast_sandbox::{CallContext, CallError, Plugin};
use thiserror::Error;

use crate::{BlobRef, Check, Dataset, Profile, ValidateError, Validation};

/// A folder of datasets. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Estate {
    root: Arc<PathBuf>,
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

/// A source to be read.
#[derive(Clone)]
pub struct LandRequest {
    /// The name of the source; also of the dataset.
    pub name: String,
    /// The connector.
    pub plugin: Plugin,
    /// Its configuration, an object.
    pub config: serde_json::Value,
    /// On whose behalf.
    pub context: CallContext,
    /// Told how far it has come.
    pub progress: Option<ProgressSink>,
}

/// Why a blob cannot be kept or given back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BlobError {
    /// It is not there.
    #[error("blob {digest} is not in the store")]
    Missing {
        /// The blob.
        digest: Digest,
    },
}

/// Why a source did not land.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LandError {
    /// The connector failed.
    #[error("source `{source_name}` cannot be read")]
    Call {
        /// The source.
        source_name: String,
        /// What the call came to.
        source: CallError,
    },
}

/// Why a query gave no dataset.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The query does not make sense.
    #[error("the sql of dataset `{dataset}` is wrong: {message}")]
    Sql {
        /// The dataset it was to make.
        dataset: String,
        /// What is wrong, and what exists.
        message: String,
    },
}

/// Why a dataset cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// One of its blobs cannot be had.
    #[error("dataset `{dataset}` cannot be read")]
    Blob {
        /// The dataset.
        dataset: String,
        /// What is wrong with the blob.
        source: BlobError,
    },
}

impl Estate {
    /// Opens a folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        Ok(Self {
            root: Arc::new(root.to_owned()),
        })
    }

    /// Keeps some bytes.
    ///
    /// # Errors
    /// When the folder cannot be written to; nothing is left half-written.
    pub async fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let _ = (bytes, &self.root);
        unimplemented!()
    }

    /// Keeps the content of a file.
    ///
    /// # Errors
    /// When the file cannot be read or the folder not written to.
    pub async fn put_file(&self, path: &Path) -> Result<Digest, BlobError> {
        let _ = path;
        unimplemented!()
    }

    /// The bytes with a digest, checked against it.
    ///
    /// # Errors
    /// When they are not there, or are others.
    pub async fn get(&self, digest: &Digest) -> Result<Vec<u8>, BlobError> {
        let _ = digest;
        unimplemented!()
    }

    /// Whether there is a blob with this digest.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        let _ = digest;
        unimplemented!()
    }

    /// Keeps the description of a dataset as a JSON blob, whose digest [`load`](Self::load) takes.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn save(&self, dataset: &Dataset) -> Result<Digest, BlobError> {
        let _ = dataset;
        unimplemented!()
    }

    /// The dataset that was saved under this digest.
    ///
    /// # Errors
    /// As [`get`](Self::get); and when the blob is no description of a dataset.
    pub async fn load(&self, saved: &Digest) -> Result<Dataset, BlobError> {
        let _ = saved;
        unimplemented!()
    }

    /// Reads every row of a source. Rows that do not fit its schema go to quarantine.
    ///
    /// # Errors
    /// When the connector fails, or rows would be lost, or the rows cannot be kept.
    pub async fn land(&self, request: LandRequest) -> Result<Dataset, LandError> {
        let _ = request;
        unimplemented!()
    }

    /// Runs a SELECT over datasets, each under a name. The order of the rows is a function of
    /// the query and the datasets.
    ///
    /// # Errors
    /// When the query is wrong, does anything but select, or its result cannot be kept.
    pub async fn query(
        &self,
        name: &str,
        sql: &str,
        tables: &[(String, &Dataset)],
    ) -> Result<Dataset, QueryError> {
        let _ = (name, sql, tables);
        unimplemented!()
    }

    /// Shows every row to every check, and splits them into those that passed and those that
    /// did not.
    ///
    /// # Errors
    /// When a validator fails, or rows would be lost.
    pub async fn validate(
        &self,
        dataset: &Dataset,
        checks: &[Check],
        context: &CallContext,
        progress: Option<ProgressSink>,
    ) -> Result<Validation, ValidateError> {
        let _ = (dataset, checks, context, progress);
        unimplemented!()
    }

    /// Describes every column, in one pass.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub async fn profile(&self, dataset: &Dataset) -> Result<Profile, ReadError> {
        let _ = dataset;
        unimplemented!()
    }

    /// Every row, in order.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub async fn read(&self, dataset: &Dataset) -> Result<Vec<RecordBatch>, ReadError> {
        let _ = dataset;
        unimplemented!()
    }

    /// Every row, in order, a batch at a time.
    pub fn stream(&self, dataset: &Dataset) -> BoxStream<'static, Result<RecordBatch, ReadError>> {
        let _ = dataset;
        unimplemented!()
    }

    /// The rows of Parquet blobs, such as those of a [`Quarantine`](crate::Quarantine), in order.
    pub fn stream_blobs(
        &self,
        blobs: &[BlobRef],
    ) -> BoxStream<'static, Result<RecordBatch, ReadError>> {
        let _ = blobs;
        unimplemented!()
    }
}
