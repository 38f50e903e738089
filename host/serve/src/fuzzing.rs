//! Bodies of requests, opened for the targets in `tests/`: any bytes at all are read, or refused.

use sandcast_sandbox::{Field, Kind};

use crate::handlers::CompletionRequest;
use crate::protocol::{Envelope, rows_of_request};

/// Rows that a target takes.
const MAX_ROWS: usize = 1000;

/// The columns of the model that is asked: one of every kind, by its name.
const FEATURES: [(&str, Kind); 6] = [
    ("truth", Kind::Boolean),
    ("whole", Kind::Int64),
    ("number", Kind::Float64),
    ("text", Kind::Utf8),
    ("day", Kind::Date32),
    ("moment", Kind::TimestampUs),
];

/// The body of `POST /v2/models/{model}/infer`, with where its JSON ends, for a model of as many
/// of the columns as are said.
///
/// # Errors
/// When it is refused, with what the client is told.
pub fn infer(body: &[u8], json_length: Option<&str>, features: usize) -> Result<(), String> {
    let features: Vec<Field> = FEATURES
        .iter()
        .take(features)
        .map(|(name, kind)| Field {
            name: (*name).to_owned(),
            kind: *kind,
            nullable: true,
        })
        .collect();
    let envelope = Envelope::parse(body, json_length).map_err(|error| error.message)?;
    let rows = rows_of_request(&envelope, &features, MAX_ROWS).map_err(|error| error.message)?;
    assert!(rows.num_rows() <= MAX_ROWS && rows.num_columns() == features.len());
    Ok(())
}

/// The body of `POST /v1/completions`.
///
/// # Errors
/// When it is refused, with what the client is told.
pub fn completion(body: &[u8]) -> Result<(), String> {
    let parsed = CompletionRequest::parse(body).map(|_| ());
    parsed.map_err(|error| error.message)
}
