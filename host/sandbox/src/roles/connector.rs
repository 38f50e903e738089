//! Brings rows in.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::call::{CallError, Usage};

/// A part of a source that can be read alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Names the split among those of its source.
    pub id: String,
    /// What the plugin needs to read it again.
    pub token: String,
    /// Rows, if that is known.
    pub rows: Option<u64>,
    /// Bytes, if that is known.
    pub bytes: Option<u64>,
    /// Changes when the content does, if that is known.
    pub version: Option<String>,
}

/// A constant in a filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Literal {
    /// A truth value.
    Boolean(bool),
    /// A whole number.
    Int64(i64),
    /// A number.
    Float64(f64),
    /// Text.
    Utf8(String),
}

/// How a filter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A condition the reader may use to skip rows; whoever asks applies it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// The column.
    pub column: String,
    /// How it compares.
    pub comparison: Comparison,
    /// With what.
    pub literal: Literal,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanRequest {
    /// The part of the source.
    pub split: Split,
    /// The columns wanted, in order; all of them when absent.
    pub projection: Option<Vec<String>>,
    /// Conditions the reader may use.
    pub filters: Vec<Filter>,
    /// Rows after which the reader may stop.
    pub limit: Option<u64>,
    /// Where an earlier sync stopped.
    pub cursor: Option<String>,
}

impl ScanRequest {
    /// Everything in a split.
    pub fn all(split: Split) -> Self {
        Self { split, projection: None, filters: Vec::new(), limit: None, cursor: None }
    }
}

/// A row of the source that could not be made into a row of the schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Counted from 1 within the split.
    pub row: u64,
    /// The line it starts on in a source of lines.
    pub line: Option<u64>,
    /// The column at fault.
    pub column: Option<String>,
    /// A short stable name of the reason.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// The row as it stood, cut to a bound.
    pub raw: String,
}

/// Some rows: those of the batch and the rejects together are `rows_read`.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Rows of the source that were read.
    pub rows_read: u64,
    /// Those that fit the schema.
    pub batch: Option<RecordBatch>,
    /// Those that did not.
    pub rejects: Vec<Reject>,
}

/// An instance that reads.
pub struct Connector {
    _private: (),
}

impl Connector {
    /// The columns of the source.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn schema(&mut self) -> Result<SchemaRef, CallError> {
        unimplemented!()
    }

    /// The parts of the source; their ids differ.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn partitions(&mut self) -> Result<Vec<Split>, CallError> {
        unimplemented!()
    }

    /// Starts to read a split.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn scan(&mut self, request: &ScanRequest) -> Result<(), CallError> {
        let _ = request;
        unimplemented!()
    }

    /// The next rows, or nothing at the end. The columns are those of the projection, or of the
    /// schema.
    ///
    /// # Errors
    /// See [`CallError`]; also when rows read are not those of the batch and the rejects together.
    pub async fn next(&mut self) -> Result<Option<Chunk>, CallError> {
        unimplemented!()
    }

    /// Where the next incremental sync should start; known after the end.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn cursor(&mut self) -> Result<Option<String>, CallError> {
        unimplemented!()
    }

    /// Ends the instance and says what it used.
    pub fn finish(self) -> Usage {
        unimplemented!()
    }
}
