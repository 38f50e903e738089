use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Everything that can be asked for. A call that is none of these is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Run a pipeline.
    Run,
    /// See what a pipeline would do.
    Plan,
    /// See models, runs, plugins and programs.
    Inspect,
    /// See rows of data.
    DataRead,
    /// Read, verify and prove entries of the audit log.
    AuditRead,
    /// Hand the audit log over.
    Export,
    /// See recordings, and replay them.
    RecordingRead,
    /// Take recordings away that are older than they are to be kept.
    RecordingRemove,
    /// Take away what a plugin keeps.
    StateClear,
    /// Take the oldest entries out of the audit log, into an archive.
    LogArchive,
    /// Point an alias to another version of a model.
    Promote,
    /// Let a plugin in that was never seen.
    PluginAdmit,
    /// Vouch for a plugin.
    PluginTrust,
    /// Keep a plugin from being loaded.
    PluginQuarantine,
    /// Keep a plugin from ever being loaded again.
    PluginRevoke,
    /// Let a quarantined plugin go on.
    PluginRelease,
    /// Widen what a pipeline grants its plugins.
    GrantWiden,
    /// Have the key of the audit log, or that of access, give way to another.
    KeyRotate,
    /// Replace the key of the audit log without its signature.
    KeyNew,
    /// See principals, tokens, policies and approvals.
    AccessRead,
    /// Add, disable and enable principals.
    PrincipalManage,
    /// Give a principal a token.
    TokenIssue,
    /// Replace a token by another of the same principal.
    TokenRotate,
    /// End a token.
    TokenRevoke,
    /// Approve or reject what somebody else requested.
    Approve,
    /// Start a server.
    Serve,
    /// Have a model answer.
    Predict,
    /// Have a model write.
    Generate,
}

impl Action {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 28] = [
        Self::Run,
        Self::Plan,
        Self::Inspect,
        Self::DataRead,
        Self::AuditRead,
        Self::Export,
        Self::RecordingRead,
        Self::RecordingRemove,
        Self::StateClear,
        Self::LogArchive,
        Self::Promote,
        Self::PluginAdmit,
        Self::PluginTrust,
        Self::PluginQuarantine,
        Self::PluginRevoke,
        Self::PluginRelease,
        Self::GrantWiden,
        Self::KeyRotate,
        Self::KeyNew,
        Self::AccessRead,
        Self::PrincipalManage,
        Self::TokenIssue,
        Self::TokenRotate,
        Self::TokenRevoke,
        Self::Approve,
        Self::Serve,
        Self::Predict,
        Self::Generate,
    ];

    /// The word in policies and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Plan => "plan",
            Self::Inspect => "inspect",
            Self::DataRead => "data-read",
            Self::AuditRead => "audit-read",
            Self::Export => "export",
            Self::RecordingRead => "recording-read",
            Self::RecordingRemove => "recording-remove",
            Self::StateClear => "state-clear",
            Self::LogArchive => "log-archive",
            Self::Promote => "promote",
            Self::PluginAdmit => "plugin-admit",
            Self::PluginTrust => "plugin-trust",
            Self::PluginQuarantine => "plugin-quarantine",
            Self::PluginRevoke => "plugin-revoke",
            Self::PluginRelease => "plugin-release",
            Self::GrantWiden => "grant-widen",
            Self::KeyRotate => "key-rotate",
            Self::KeyNew => "key-new",
            Self::AccessRead => "access-read",
            Self::PrincipalManage => "principal-manage",
            Self::TokenIssue => "token-issue",
            Self::TokenRotate => "token-rotate",
            Self::TokenRevoke => "token-revoke",
            Self::Approve => "approve",
            Self::Serve => "serve",
            Self::Predict => "predict",
            Self::Generate => "generate",
        }
    }

    /// Whether it changes something that others see. Such a call is on record in a state where
    /// access is not set up, too.
    #[must_use]
    pub fn changes_something(self) -> bool {
        !matches!(
            self,
            Self::Plan
                | Self::Inspect
                | Self::DataRead
                | Self::AuditRead
                | Self::Export
                | Self::RecordingRead
                | Self::AccessRead
                | Self::Serve
                | Self::Predict
                | Self::Generate
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// A word that is no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no action; one is: {}", all_actions())]
pub struct ParseActionError {
    text: String,
}

fn all_actions() -> String {
    Action::ALL.map(Action::as_str).join(", ")
}

impl FromStr for Action {
    type Err = ParseActionError;

    fn from_str(text: &str) -> Result<Self, ParseActionError> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| ParseActionError {
                text: text.to_owned(),
            })
    }
}

/// What something is done to: a kind and an id, such as `model:credit-risk`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Resource(String);

/// The longest id of a resource, in bytes; what is longer is cut.
const LONGEST_ID_BYTES: usize = 256;

impl Resource {
    /// The state folder as a whole.
    #[must_use]
    pub fn state() -> Self {
        Self("state:here".to_owned())
    }

    /// A model, by its name.
    #[must_use]
    pub fn model(name: &str) -> Self {
        Self::of("model", name)
    }

    /// A plugin, by the id in its manifest.
    #[must_use]
    pub fn plugin(id: &str) -> Self {
        Self::of("plugin", id)
    }

    /// A pipeline, by its name.
    #[must_use]
    pub fn pipeline(name: &str) -> Self {
        Self::of("pipeline", name)
    }

    /// A principal.
    #[must_use]
    pub fn principal(id: &crate::PrincipalId) -> Self {
        Self::of("principal", id.as_str())
    }

    /// Whoever has a token that is not there: nobody is called so.
    #[must_use]
    pub fn holder_of(token: &crate::TokenId) -> Self {
        Self::of("principal", &format!("holder of {token}"))
    }

    /// A request for an approval.
    #[must_use]
    pub fn approval(id: &str) -> Self {
        Self::of("approval", id)
    }

    fn of(kind: &str, id: &str) -> Self {
        let id: String = id.chars().filter(|letter| !letter.is_control()).collect();
        let end = id.floor_char_boundary(LONGEST_ID_BYTES);
        Self(format!("{kind}:{}", &id[..end]))
    }

    /// As it stands in records.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl FromStr for Resource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const KINDS: [&str; 6] = [
            "state",
            "model",
            "plugin",
            "pipeline",
            "principal",
            "approval",
        ];
        match text.split_once(':') {
            Some((kind, id)) if KINDS.contains(&kind) && !id.is_empty() => Ok(Self::of(kind, id)),
            _ => Err(format!(
                "`{text}` names no resource; write a kind, a colon and an id, such as \
                 `model:credit-risk`; kinds: {}",
                KINDS.join(", ")
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_read_as_they_are_written() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
            let json = serde_json::to_value(action).expect("a word");
            assert_eq!(json, action.as_str());
        }
        let error = "fly".parse::<Action>().expect_err("none").to_string();
        assert!(
            error.starts_with("`fly` is no action; one is: run, "),
            "{error}"
        );
    }

    #[test]
    fn resources_have_a_kind_and_bounded_plain_ids() {
        assert_eq!(Resource::model("a\nb").as_str(), "model:ab");
        assert!(Resource::model(&"ä".repeat(500)).as_str().len() <= 262);
        assert_eq!("model:x".parse(), Ok(Resource::model("x")));
        for text in ["x", "file:x", "model:"] {
            text.parse::<Resource>().expect_err(text);
        }
    }
}
