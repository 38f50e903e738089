//! What a recorded instance was asked, and what it answered.

use arrow::record_batch::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use sandcast_audit::{Digest, PluginRef, RunId};
use sandcast_kernels::Precision;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::trace::Traced;
use crate::grants::Grants;
use crate::grants::http::Exchange;
use crate::instance::STRAYED;
use crate::model::Task;
use crate::roles::{GenerationOptions, Request};

/// The version of what is written.
pub(super) const VERSION: u32 = 1;

/// The life of one instance: everything that is needed to live it again.
///
/// Components, rows and models are named by their digests and lie beside it, see
/// [`Recordings`](super::Recordings).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// The version of this form: 1.
    pub version: u32,
    /// The version of the host that recorded.
    pub host: String,
    /// The plugin; its component is kept under its digest.
    pub plugin: PluginRef,
    /// The name the pipeline gave it.
    pub name: String,
    /// The run, if it was one.
    pub run: Option<RunId>,
    /// The stage it ran in.
    pub stage: String,
    /// What it was granted.
    pub grants: Grants,
    /// Its configuration.
    pub config: Value,
    /// What tensor programs ran on, such as `cpu`.
    pub device: String,
    /// The calls, in order.
    pub calls: Vec<RecordedCall>,
    /// The key of its random numbers, where they came from the system.
    pub(super) random: Option<[u8; 32]>,
    /// Its calls into the host.
    #[serde(flatten)]
    pub(super) traced: Traced,
    /// What it sent over HTTP, and what came back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) exchanges: Vec<Exchange>,
}

impl Recording {
    /// Calls into the host.
    pub fn host_calls(&self) -> u64 {
        self.traced.host_calls.count()
    }
}

/// A call and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedCall {
    /// What was asked.
    pub call: Call,
    /// What was answered.
    pub outcome: Outcome,
    /// Calls into the host that the instance had made when it ended.
    pub host_calls: u64,
}

/// A call of an export. Rows and models are digests of what is kept beside the recording: rows in
/// Arrow's IPC stream format, a model as its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub enum Call {
    /// A policy takes its configuration.
    ConfigurePolicy,
    /// A policy decides.
    Decide {
        /// The question.
        request: Request,
    },
    /// A validator takes its configuration and the columns.
    ConfigureValidator {
        /// No rows, with the schema.
        schema: Digest,
    },
    /// A validator looks at rows.
    Check {
        /// The rows.
        rows: Digest,
    },
    /// A validator judges.
    Judge,
    /// An adapter is made.
    Open,
    /// An adapter says what it can do.
    Describe,
    /// An adapter says what it would train.
    Declare {
        /// What is to be learnt.
        task: Task,
        /// The sizes of the vocabularies.
        cardinalities: Vec<u32>,
        /// The adapter's settings.
        hyperparameters: Value,
    },
    /// An adapter trains.
    Train {
        /// What is to be learnt.
        task: Task,
        /// The adapter's settings.
        hyperparameters: Value,
        /// The seed.
        seed: u64,
        /// The rows it learns from.
        training: Digest,
        /// The rows it stops early by.
        validation: Option<Digest>,
        /// How exact products were.
        precision: Precision,
    },
    /// An adapter predicts.
    Predict {
        /// The model.
        model: Digest,
        /// The rows.
        rows: Digest,
    },
    /// An adapter writes.
    Generate {
        /// The model.
        model: Digest,
        /// The prompts.
        prompts: Digest,
        /// How it goes on from them.
        options: GenerationOptions,
    },
}

impl Call {
    /// The export, as the contract names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ConfigurePolicy | Self::ConfigureValidator { .. } => "configure",
            Self::Decide { .. } => "decide",
            Self::Check { .. } => "check",
            Self::Judge => "finish",
            Self::Open => "instantiate",
            Self::Describe => "describe",
            Self::Declare { .. } => "declare",
            Self::Train { .. } => "train",
            Self::Predict { .. } => "predict",
            Self::Generate { .. } => "generate",
        }
    }

    /// What else the call refers to.
    pub(crate) fn parts(&self) -> Vec<Digest> {
        match self {
            Self::ConfigurePolicy
            | Self::Decide { .. }
            | Self::Judge
            | Self::Open
            | Self::Describe
            | Self::Declare { .. } => Vec::new(),
            Self::ConfigureValidator { schema } => vec![*schema],
            Self::Check { rows } => vec![*rows],
            Self::Train {
                training,
                validation,
                ..
            } => [Some(*training), *validation]
                .into_iter()
                .flatten()
                .collect(),
            Self::Predict { model, rows } => vec![*model, *rows],
            Self::Generate { model, prompts, .. } => vec![*model, *prompts],
        }
    }
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// An answer: the value of a decision, of rules, findings and verdicts; the digest of rows and
    /// of models.
    Returned {
        /// The answer.
        answer: Value,
    },
    /// No answer.
    Failed {
        /// How, such as `trapped`.
        how: String,
        /// Why, in a sentence.
        why: String,
    },
}

impl Outcome {
    /// Whether it is a function of the recording: how long something took is not.
    pub fn is_replayable(&self) -> bool {
        const NOT: [&str; 4] = ["out of time", "host", STRAYED, super::answers::NOT_KEPT];
        !matches!(self, Self::Failed { how, .. } if NOT.contains(&how.as_str()))
    }
}

/// Rows as they are kept.
pub(crate) fn rows_to_bytes(
    schema: &arrow::datatypes::Schema,
    batches: &[RecordBatch],
) -> std::io::Result<Vec<u8>> {
    let written = || {
        let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
        for batch in batches {
            writer.write(batch)?;
        }
        writer.into_inner()
    };
    written().map_err(std::io::Error::other)
}

/// The rows in bytes that were kept.
pub(crate) fn rows_of_bytes(bytes: &[u8]) -> Result<Vec<RecordBatch>, String> {
    let read = || {
        let reader = StreamReader::try_new(bytes, None)?;
        let schema = reader.schema();
        let mut batches = reader.collect::<Result<Vec<_>, _>>()?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema));
        }
        Ok::<_, arrow::error::ArrowError>(batches)
    };
    read().map_err(|error| format!("its rows cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn rows_are_kept_as_they_are_also_slices_and_none() {
        let names: StringArray = ["a", "b", "c"].into_iter().map(Some).collect();
        let numbers = Int64Array::from(vec![Some(1), None, Some(3)]);
        let all = RecordBatch::try_from_iter_with_nullable([
            ("name", Arc::new(names) as _, false),
            ("number", Arc::new(numbers) as _, true),
        ])
        .expect("rows");
        for kept in [vec![all.slice(1, 2), all.clone()], vec![all.slice(0, 0)]] {
            let bytes = rows_to_bytes(&all.schema(), &kept).expect("bytes");
            assert_eq!(rows_of_bytes(&bytes).expect("rows"), kept);
            let again = rows_to_bytes(&all.schema(), &kept).expect("bytes");
            assert_eq!(again, bytes, "the same rows are the same bytes");
        }
        assert!(rows_of_bytes(b"no rows").is_err());
    }
}
