//! What the host asks a process that runs a plugin, and what it answers.
//!
//! Questions are JSON, rows beside them are Arrow's IPC stream, other arguments are [`Wire`](super::Wire). What is answered is what the guest
//! returned, as it returned it: the host bounds, checks and converts it, as it does with a guest in its
//! own process. So a process that was taken over can say what the guest could have said, and no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use sandcast_audit::{PluginRef, RunId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::confine::Confinement;
use crate::bindings::policy::exports::sandcast::plugin::policy as wire;
use crate::call::{CallError, Failure, Usage};
use crate::conduct::{Bounds, StageBounds};
use crate::grants::{Grants, LogLevel};
use crate::manifest::Role;
use crate::plugin::CallContext;
use crate::recording::Traced;
use crate::state::Denial;

/// The plugin of a process; its component and its compiled form follow.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) confinement: Confinement,
    pub(super) name: String,
    pub(super) reference: PluginRef,
    pub(super) role: Role,
    pub(super) grants: Grants,
    /// Whether what its guest asks for is asked of the host, and the host has its state.
    pub(super) asks_host: bool,
    pub(super) component_bytes: u64,
    pub(super) artifact_bytes: u64,
}

/// Whether a process is ready.
#[derive(Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) error: Option<String>,
}

/// What a process is asked.
#[derive(Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Question {
    /// A new instance takes its configuration; a validator its columns too, which follow.
    Open(Box<Opening>),
    /// A policy decides.
    Decide {
        /// The question.
        request: wire::Request,
    },
    /// A validator looks at rows, which follow.
    Check,
    /// A validator judges.
    Judge,
    /// A connector says what its columns are.
    Schema,
    /// A connector says what its parts are.
    Partitions,
    /// A connector begins to read what follows.
    Scan,
    /// A connector reads on.
    Next,
    /// A connector says where the next sync should begin.
    Cursor,
    /// An adapter says what it can do.
    Describe,
    /// An adapter says what it would train; for what follows.
    Declare,
    /// An adapter trains; on what follows.
    Train,
    /// An adapter predicts; with the model and for the rows that follow.
    Predict,
    /// An adapter writes; with the model, after the texts and by the options that follow.
    Generate,
    /// The instance ends.
    End,
}

impl Question {
    /// Whether rows or arguments follow it.
    pub(super) fn is_followed(&self, role: Role) -> bool {
        match self {
            Question::Open(_) => matches!(role, Role::Validator | Role::Adapter),
            Question::Check
            | Question::Schema
            | Question::Partitions
            | Question::Scan
            | Question::Next
            | Question::Cursor
            | Question::Describe
            | Question::Declare
            | Question::Train
            | Question::Predict
            | Question::Generate => true,
            Question::Decide { .. } | Question::Judge | Question::End => false,
        }
    }
}

/// What a new instance is given.
#[derive(Serialize, Deserialize)]
pub(crate) struct Opening {
    pub(crate) run: Option<RunId>,
    pub(crate) stage: String,
    pub(crate) config: Value,
    /// What its random numbers follow from.
    pub(crate) random: [u8; 32],
    /// Bytes that are kept of its calls into the host, where they are.
    pub(crate) recording_bytes: Option<u64>,
    /// What its plugin usually does in this stage.
    pub(crate) bounds: Option<StageBounds>,
    pub(crate) pace_percent: Option<u8>,
}

impl Opening {
    pub(super) fn context(&self) -> CallContext {
        CallContext::new(self.run.clone(), self.stage.clone())
    }

    pub(super) fn bounds(&self) -> Option<Bounds> {
        if self.bounds.is_none() && self.pace_percent.is_none() {
            return None;
        }
        let stage = self.bounds.clone();
        let stages = stage.map(|bounds| (self.stage.clone(), Arc::new(bounds)));
        Some(Bounds {
            stages: stages.into_iter().collect::<BTreeMap<_, _>>(),
            pace_percent: self.pace_percent,
        })
    }
}

/// What a call came to.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// What the guest returned, as JSON that is not taken apart before it is known what it is.
    Returned(Box<RawValue>),
    /// What the guest returned follows.
    Said,
    /// The guest answered that it failed.
    Failed(Failure),
    /// The instance is gone.
    Ended(CallError),
}

/// An answer, with everything that happened since the one before.
#[derive(Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) outcome: Outcome,
    pub(crate) denials: Vec<Denial>,
    pub(crate) lines: Vec<LogLine>,
    /// What the instance has used so far.
    pub(crate) usage: Usage,
    /// Calls into the host that have ended, where they are followed.
    pub(crate) host_calls: u64,
    /// All of them, at the end of an instance that is recorded.
    pub(crate) traced: Option<Traced>,
}

/// A line that a guest left in the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LogLine {
    pub(crate) level: LogLevel,
    pub(crate) context: String,
    pub(crate) message: String,
}
