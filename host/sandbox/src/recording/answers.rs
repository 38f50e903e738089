//! Answers as a recording says them: the same words then and now.

use arrow::record_batch::RecordBatch;
use sandcast_audit::Digest;
use serde::Serialize;
use serde_json::{Value, json};

use super::call::Outcome;
use super::rows::rows_to_bytes;
use crate::call::CallError;
use crate::instance::outcome_of;
use crate::roles::{Declaration, Trained};

/// The limit of a recording, and how a call ended that went over it.
pub(crate) const RECORDING_BYTES: &str = "recording.bytes";
pub(super) const NOT_KEPT: &str = "over what is kept";

/// Bytes of an answer as text; of a longer one the digest is kept.
const MAX_ANSWER_BYTES: usize = 64 << 10;

impl Outcome {
    /// What a call came to.
    pub(crate) fn of<T>(
        outcome: &Result<T, CallError>,
        answer: impl FnOnce(&T) -> Value,
    ) -> Outcome {
        match outcome {
            Ok(value) => Outcome::Returned {
                answer: answer(value),
            },
            Err(error) => Outcome::failed(error),
        }
    }

    pub(crate) fn failed(error: &CallError) -> Outcome {
        // A replay keeps nothing, so it does not run into what may be kept.
        let how = match error {
            CallError::OverLimit { limit, .. } if limit == RECORDING_BYTES => NOT_KEPT,
            error => outcome_of(error),
        };
        Outcome::Failed {
            how: how.to_owned(),
            why: error.to_string(),
        }
    }
}

/// A value as it is, or its digest where it is long.
pub(crate) fn value<T: Serialize + ?Sized>(value: &T) -> Value {
    let text = match serde_json::to_string(value) {
        Ok(text) => text,
        Err(error) => return json!({ "unreadable": error.to_string() }),
    };
    if text.len() > MAX_ANSWER_BYTES {
        return json!({ "bytes": text.len(), "digest": Digest::of(text.as_bytes()) });
    }
    serde_json::from_str(&text).unwrap_or_default()
}

/// What an adapter would train.
pub(crate) fn declaration(declaration: &Declaration) -> Value {
    match declaration {
        Declaration::Program { graph, .. } => {
            json!({ "program": value(graph) })
        }
        Declaration::Forest(plan) => json!({ "forest": format!("{plan:?}") }),
    }
}

/// The model by its digest, and the report but for how long it took.
pub(crate) fn trained(trained: &Trained) -> Value {
    let report = trained.report.as_ref().map(|report| {
        json!({
            "steps": report.steps,
            "rows": report.rows,
            "best_epoch": report.best_epoch,
            "losses": report.epochs.iter()
                .map(|epoch| json!([epoch.train_loss, epoch.validation_loss]))
                .collect::<Vec<_>>(),
        })
    });
    json!({ "model": trained.model.digest(), "report": report })
}

/// Rows by their digest. The error is a sentence.
pub(crate) fn rows(outcome: &Result<RecordBatch, CallError>) -> Result<Outcome, String> {
    match outcome {
        Err(error) => Ok(Outcome::failed(error)),
        Ok(rows) => {
            let bytes = rows_to_bytes(&rows.schema(), std::slice::from_ref(rows));
            let bytes = bytes.map_err(|error| error.to_string())?;
            Ok(Outcome::Returned {
                answer: rows_answer(rows, Digest::of(&bytes)),
            })
        }
    }
}

/// The same for rows that were kept under a digest.
pub(crate) fn rows_answer(rows: &RecordBatch, digest: Digest) -> Value {
    json!({ "rows": rows.num_rows(), "digest": digest })
}
