//! Why the registry does not do what is asked.

use sandcast_audit::AuditError;
use thiserror::Error;

use crate::state::{OutboxError, StateError};

/// Why the registry did not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is no such model.
    #[error("there is no model `{model}`{}", meant(hint))]
    NoModel {
        /// The name that was asked for.
        model: String,
        /// The nearest right one.
        hint: Option<String>,
    },
    /// The model has no such version.
    #[error("the model `{model}` has no version {version}; the latest is {latest}")]
    NoVersion {
        /// The model.
        model: String,
        /// The version that was asked for.
        version: u64,
        /// The latest there is.
        latest: u64,
    },
    /// The model has no such alias.
    #[error("the model `{model}` has no alias `{alias}`{}", meant(hint))]
    NoAlias {
        /// The model.
        model: String,
        /// The alias that was asked for.
        alias: String,
        /// The nearest right one.
        hint: Option<String>,
    },
    /// Its name alone means its champion, and it has none.
    #[error(
        "no version of the model `{model}` is its `champion`, so its name alone means none; name a version, such as \
         `{model}@{latest}`, or have one answer: `sandcast models alias {model} champion {latest}`"
    )]
    NoChampion {
        /// The model.
        model: String,
        /// The latest version.
        latest: u64,
    },
    /// The alias cannot be one.
    #[error(
        "`{alias}` cannot be an alias: use lower case letters, digits, `-` and `_`, and not only \
         digits"
    )]
    BadAlias {
        /// The alias that was asked for.
        alias: String,
    },
    /// An alias means something else than the audit log says.
    #[error(
        "`{model}@{alias}` means {} in state.sqlite and {} by the audit log: somebody changed the state past \
         the log, so nothing answers by this alias. Keep state.sqlite as evidence, and restore it and the \
         log from one copy, or say on record what it is to mean: `sandcast models alias {model} {alias} {}`",
        meaning(*state), meaning(*log), log.map_or("VERSION".to_owned(), |version| version.to_string())
    )]
    AliasChanged {
        /// The model.
        model: String,
        /// The alias.
        alias: String,
        /// The version that the state says, if any.
        state: Option<u64>,
        /// The version that the log says, if any.
        log: Option<u64>,
    },
    /// A version is not the one that the audit log says was registered.
    #[error(
        "version {version} of `{model}` in state.sqlite is not what was registered: {what}. Somebody changed \
         the state past the log, so it does not answer. Keep state.sqlite as evidence, and restore it and \
         the log from one copy, or run the pipeline again: a run that comes to the same model writes it anew"
    )]
    VersionChanged {
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// What is not as it was, with both values.
        what: String,
    },
    /// A version that the audit log says was registered is gone.
    #[error(
        "version {version} of `{model}` is registered by the audit log, and the latest in state.sqlite is {}: \
         somebody took it out past the log. Keep state.sqlite as evidence, and restore it and the log from \
         one copy, or name another version",
        meaning(*latest)
    )]
    VersionGone {
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// The latest that the state says, if any.
        latest: Option<u64>,
    },
    /// The audit log could not be read, so the state is not believed.
    #[error("what the audit log says of models cannot be read, so the state is not believed: {0}")]
    Log(#[from] AuditError),
    /// Somebody else than the registry put something into the state that is to go into the audit log.
    #[error("what the state says of models is not believed: {0}")]
    Waiting(#[source] OutboxError),
    /// The state could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The change is made, and its record waits to be written to the audit log.
    #[error("the change is made, but not yet in the audit log: {0}")]
    Audit(#[from] OutboxError),
}

fn meant(hint: &Option<String>) -> String {
    match hint {
        Some(name) => format!("; did you mean `{name}`?"),
        None => "; `sandcast models` lists what there is".to_owned(),
    }
}

impl RegistryError {
    /// Whether the state says something else than the audit log.
    #[must_use]
    pub fn is_disagreement(&self) -> bool {
        matches!(
            self,
            Self::AliasChanged { .. } | Self::VersionChanged { .. } | Self::VersionGone { .. }
        )
    }
}

fn meaning(version: Option<u64>) -> String {
    version.map_or_else(
        || "nothing".to_owned(),
        |version| format!("version {version}"),
    )
}
