//! What a recorded instance was asked, and what it answered.

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

impl RecordedCall {
    /// The rows that were answered, where the answer is rows: they lie beside the recording too.
    pub fn answered_rows(&self) -> Option<Digest> {
        match (&self.call, &self.outcome) {
            (Call::Predict { .. } | Call::Generate { .. }, Outcome::Returned { answer }) => {
                answer["digest"].as_str()?.parse().ok()
            }
            _ => None,
        }
    }
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
