//! Asks a registered model.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use sandcast_estate::BlobError;
use sandcast_sandbox::{CallContext, CallError, LoadError, Model, ModelError, Plugin};
use thiserror::Error;

use crate::registry::ModelVersion;
use crate::workspace::Workspace;

/// A model version that is loaded and may answer. Cheap to clone; clones share the weights.
#[derive(Clone)]
pub struct ServedModel {
    version: Arc<ModelVersion>,
    plugin: Plugin,
    model: Arc<Model>,
    schema: SchemaRef,
    context: CallContext,
}

/// Why a model does not answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InferenceError {
    /// A blob of the version could not be read.
    #[error("model `{model}` version {version} cannot be read: {source}")]
    Blob {
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// Why not.
        source: BlobError,
    },
    /// The adapter, or a policy, was refused.
    #[error("model `{model}` version {version} cannot be loaded: {source}")]
    Load {
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// Why not.
        source: LoadError,
    },
    /// The model file does not make sense.
    #[error("model `{model}` version {version} cannot be loaded: {source}")]
    Model {
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// Why not.
        source: ModelError,
    },
    /// A policy does not let it answer.
    #[error("policy `{policy}` does not let `{model}` version {version} answer: {}", reasons.join("; "))]
    Denied {
        /// The policy.
        policy: String,
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// Why not.
        reasons: Vec<String>,
    },
    /// The rows that were given are not those the model knows.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The adapter failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The audit log could not be written, so nothing is answered.
    #[error(transparent)]
    Audit(#[from] sandcast_audit::AuditError),
}

/// What is wrong with rows that were given to a model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RowsError {
    /// A row is not an object.
    #[error("row {row} is not an object of column names and values")]
    NotAnObject {
        /// The row, from 0.
        row: usize,
    },
    /// A column that the model needs is not there.
    #[error("row {row} has no column `{column}`; the model wants {wanted}")]
    MissingColumn {
        /// The row, from 0.
        row: usize,
        /// The column.
        column: String,
        /// All columns that the model wants.
        wanted: String,
    },
    /// A column is there that the model does not know.
    #[error("row {row} has a column `{column}` that the model does not know; {hint}")]
    UnknownColumn {
        /// The row, from 0.
        row: usize,
        /// The column.
        column: String,
        /// The nearest right one, or all of them.
        hint: String,
    },
    /// A value is of another type.
    #[error("row {row}: column `{column}` must be {wanted}, and is {found}")]
    WrongType {
        /// The row, from 0.
        row: usize,
        /// The column.
        column: String,
        /// The type that the model wants.
        wanted: String,
        /// What was given.
        found: String,
    },
    /// There are too many rows.
    #[error("{rows} rows are too many; give at most {limit} at once")]
    TooMany {
        /// How many were given.
        rows: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The columns have another form than the model wants.
    #[error("the columns do not fit: {message}")]
    Columns {
        /// What does not fit.
        message: String,
    },
}

impl ServedModel {
    /// Loads a version: its adapter from the blobs, its weights onto the device. Policies at the
    /// control point `predict` are asked here, once.
    ///
    /// # Errors
    /// If a part of it cannot be loaded, or a policy says no.
    pub async fn load(
        workspace: &Workspace,
        version: &ModelVersion,
    ) -> Result<ServedModel, InferenceError> {
        let _ = (workspace, version);
        unimplemented!()
    }

    /// The version.
    pub fn version(&self) -> &ModelVersion {
        &self.version
    }

    /// The columns that the model wants, in order.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The adapter.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Makes rows out of JSON objects: `[{"age": 41, "purpose": "car"}, …]`. A value may be null,
    /// or left out, where the column was nullable in training.
    ///
    /// # Errors
    /// If a column is missing or unknown, or a value is of another type; row and column are named.
    pub fn rows_from_json(&self, rows: &[serde_json::Value]) -> Result<RecordBatch, RowsError> {
        let _ = rows;
        unimplemented!()
    }

    /// Predicts, in an instance of its own: for a classification a float64 column
    /// `probability:<class>` for each class, for a regression a float64 column `prediction`; as
    /// many rows as it was given, in their order. The columns may be in any order.
    ///
    /// # Errors
    /// If the columns are not those the model wants, or the adapter fails.
    pub async fn predict(&self, rows: &RecordBatch) -> Result<RecordBatch, InferenceError> {
        let _ = (rows, &self.model, &self.context);
        unimplemented!()
    }
}
