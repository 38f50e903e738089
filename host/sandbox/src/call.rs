//! What a call into a plugin can come to.

use std::collections::BTreeMap;
use std::fmt;

use sandcast_audit::{Digest, HostUse};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text;

/// What kind of thing went wrong in a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// The configuration does not make sense; the message names the key.
    InvalidConfig,
    /// The data does not make sense.
    InvalidInput,
    /// The host refused something the plugin asked for.
    Denied,
    /// Something outside is missing or does not answer; trying again may help.
    Unavailable,
    /// A bound was reached.
    Exhausted,
    /// The plugin does not do this.
    Unsupported,
    /// Anything else.
    Internal,
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureCode::InvalidConfig => "invalid configuration",
            FailureCode::InvalidInput => "invalid input",
            FailureCode::Denied => "denied",
            FailureCode::Unavailable => "unavailable",
            FailureCode::Exhausted => "exhausted",
            FailureCode::Unsupported => "unsupported",
            FailureCode::Internal => "internal failure",
        })
    }
}

/// An expected failure: the plugin's own answer, cut to a bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub code: FailureCode,
    /// What and where, in one sentence.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// What an instance has used in its life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Calls into the host by name.
    pub host_calls: BTreeMap<String, u64>,
    /// What these took, by name.
    #[serde(default)]
    pub host_use: BTreeMap<String, HostUse>,
    /// Bytes that went into the guest.
    pub bytes_in: u64,
    /// Bytes that came out of the guest.
    pub bytes_out: u64,
    /// Seconds the guest ran, without those the host computed for it.
    pub guest_seconds: f64,
    /// The most linear memory it held.
    pub peak_memory_bytes: u64,
    /// Times that something was refused to it.
    #[serde(default)]
    pub denials: u64,
    /// Its recording, where it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<Digest>,
}

/// Why a call into a plugin gave no answer. Every message names plugin and stage.
#[derive(Clone, Debug, Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CallError {
    /// The guest trapped: a bug of the plugin, or hostility.
    #[error("plugin `{plugin}` trapped in stage `{stage}`: {cause}")]
    Trap {
        /// The plugin as the pipeline names it.
        plugin: String,
        /// The stage.
        stage: String,
        /// What it did.
        cause: String,
    },
    /// The guest ran out of time.
    #[error(
        "plugin `{plugin}` ran out of time in stage `{stage}`: {limit} is {limit_seconds} s; raise it at `plugins.{plugin}.grants.limits.{limit}`"
    )]
    Timeout {
        /// The plugin as the pipeline names it.
        plugin: String,
        /// The stage.
        stage: String,
        /// Which limit: `call_timeout` or `total_timeout`.
        limit: String,
        /// Its value.
        limit_seconds: f64,
    },
    /// The guest wanted more memory than it may have.
    #[error(
        "plugin `{plugin}` wanted more than {limit_bytes} bytes of memory in stage `{stage}`; raise it at `plugins.{plugin}.grants.limits.memory`"
    )]
    MemoryLimit {
        /// The plugin as the pipeline names it.
        plugin: String,
        /// The stage.
        stage: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// The guest went over another of its limits.
    #[error(
        "plugin `{plugin}` went over a limit in stage `{stage}`: {detail}; raise it at `plugins.{plugin}.grants.{limit}`"
    )]
    OverLimit {
        /// The plugin as the pipeline names it.
        plugin: String,
        /// The stage.
        stage: String,
        /// Which limit, such as `limits.resources`.
        limit: String,
        /// What it did.
        detail: String,
    },
    /// The guest went beyond what its plugin usually does, and was to be ended then.
    #[error(
        "plugin `{plugin}` was ended in stage `{stage}`, for it went beyond what it usually does: {what}; `sandcast plugins show` tells what that is, and `conduct` of the pipeline what happens then"
    )]
    Strayed {
        /// The plugin as the pipeline names it.
        plugin: String,
        /// The stage.
        stage: String,
        /// What it did.
        what: String,
    },
    /// The host refused something the guest asked for.
    #[error(
        "plugin `{plugin}` was denied `{capability}` in stage `{stage}`: {detail}; grant it with {grant_with}"
    )]
    Denied {
        /// The plugin as the pipeline names it.
        plugin: String,
        /// The stage.
        stage: String,
        /// The capability.
        capability: String,
        /// What was refused.
        detail: String,
        /// The line of the pipeline that would grant it.
        grant_with: String,
    },
    /// The plugin answered that it failed.
    #[error("plugin `{plugin}` failed in stage `{stage}` ({}): {}{}", failure.code, failure.message, hint_text(failure))]
    Failed {
        /// The plugin as the pipeline names it.
        plugin: String,
        /// The stage.
        stage: String,
        /// Its answer.
        failure: Failure,
    },
    /// The plugin answered with something that is not allowed.
    #[error("plugin `{plugin}` returned something wrong in stage `{stage}`: {what}")]
    BadOutput {
        /// The plugin as the pipeline names it.
        plugin: String,
        /// The stage.
        stage: String,
        /// What is wrong with it.
        what: String,
    },
    /// What the host was asked to pass to the plugin cannot be passed.
    #[error("plugin `{plugin}` cannot be given its input in stage `{stage}`: {what}")]
    BadInput {
        /// The plugin as the pipeline names it.
        plugin: String,
        /// The stage.
        stage: String,
        /// What is wrong with it.
        what: String,
    },
    /// The instance ended with an earlier error.
    #[error("plugin `{plugin}` was called in stage `{stage}` after its instance had ended")]
    Ended {
        /// The plugin as the pipeline names it.
        plugin: String,
        /// The stage.
        stage: String,
    },
    /// The plugin plays another role.
    #[error("plugin `{plugin}` is a {found}, not a {wanted}")]
    WrongRole {
        /// The plugin as the pipeline names it.
        plugin: String,
        /// The role it was used in.
        wanted: crate::Role,
        /// The role it plays.
        found: crate::Role,
    },
    /// Something of the host went wrong.
    #[error("the host could not run plugin `{plugin}` in stage `{stage}`: {reason}")]
    Host {
        /// The plugin as the pipeline names it.
        plugin: String,
        /// The stage.
        stage: String,
        /// What went wrong.
        reason: String,
    },
}

impl CallError {
    /// The same of a plugin in a stage, in the host's words: for one that another process tells of.
    pub(crate) fn of(self, name: &str, at: &str) -> Self {
        let short = |words: &str| text::sentence(words, 1024);
        let (plugin, stage) = (name.to_owned(), at.to_owned());
        match self {
            Self::Trap { cause, .. } => Self::Trap {
                plugin,
                stage,
                cause: short(&cause),
            },
            Self::Timeout {
                limit,
                limit_seconds,
                ..
            } => Self::Timeout {
                plugin,
                stage,
                limit: short(&limit),
                limit_seconds,
            },
            Self::MemoryLimit { limit_bytes, .. } => Self::MemoryLimit {
                plugin,
                stage,
                limit_bytes,
            },
            Self::OverLimit { limit, detail, .. } => Self::OverLimit {
                plugin,
                stage,
                limit: short(&limit),
                detail: short(&detail),
            },
            Self::Strayed { what, .. } => Self::Strayed {
                plugin,
                stage,
                what: short(&what),
            },
            Self::BadInput { what, .. } => Self::BadInput {
                plugin,
                stage,
                what: short(&what),
            },
            Self::Ended { .. } => Self::Ended { plugin, stage },
            other => Self::Host {
                plugin,
                stage,
                reason: short(&other.to_string()),
            },
        }
    }
}

fn hint_text(failure: &Failure) -> String {
    failure
        .hint
        .as_deref()
        .map_or_else(String::new, |hint| format!("; {hint}"))
}
