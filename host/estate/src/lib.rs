//! The data plane: datasets as content-addressed Parquet, connectors as tables, SQL, checks,
//! quarantine and profiles.
//!
//! An [`Estate`] is a folder of blobs. [`Estate::land`] reads a source through its connector,
//! [`Estate::query`] runs SQL over what has landed, [`Estate::validate`] splits rows into those
//! that can be trusted and those that cannot, [`Estate::profile`] describes columns. Each gives a
//! [`Dataset`] whose digest is a function of what went in: the same input gives the same digest,
//! at any degree of parallelism. No row is dropped: rows in are rows passed and rows quarantined.

mod blobs;
mod connector_table;
mod dataset;
mod estate;
mod land;
mod profile;
mod query;
mod rejects;
mod rows;
#[cfg(test)]
mod trial;
mod validate;

pub use blobs::BlobError;
pub use dataset::{BlobRef, Dataset, Quarantine, SourceRef, SplitRef};
pub use estate::{Estate, EstateOptions, Progress, ProgressSink};
pub use land::{LandError, LandRequest};
pub use profile::{ColumnProfile, Histogram, Numbers, Profile, ValueCount};
pub use query::QueryError;
pub use rows::{ReadError, WriteError};
pub use validate::{Check, RuleOutcome, ValidateError, Validation};
