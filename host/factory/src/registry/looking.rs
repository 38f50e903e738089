//! Looking a model up: what the state says of it, as far as the audit log says the same.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use super::keeping::{keep, kept};
use super::record::OnRecord;
use super::{DEFAULT_ALIAS, ModelVersion, Registry, RegistryError, aliases_of, document_of};
use crate::config::nearest;
use crate::state::{OutboxError, waiting};
use sandcast_audit::Waiting;

impl Registry {
    pub(super) fn look_up(
        &self,
        model: &str,
        which: Option<&str>,
    ) -> Result<ModelVersion, RegistryError> {
        let seen = self.see(model, which)?;
        let record = self.on_record(&seen.waiting)?;
        let gone = |version| RegistryError::VersionGone {
            model: model.to_owned(),
            version,
            latest: seen.latest,
        };
        let Some(latest) = seen.latest else {
            if let Some(version) = record.latest(model) {
                return Err(gone(version));
            }
            let models = self.models()?;
            let names = models.iter().map(|summary| summary.name.as_str());
            let hint = nearest(model, names).map(str::to_owned);
            return Err(RegistryError::NoModel {
                model: model.to_owned(),
                hint,
            });
        };
        let alias = match which {
            None => Some(DEFAULT_ALIAS),
            Some(text) => text.parse::<u64>().is_err().then_some(text),
        };
        if let Some(alias) = alias {
            same_alias(&record, (model, alias), seen.aliases.get(alias).copied())?;
        }
        let version = match (seen.version, which) {
            (Some(version), _) => version,
            // Nobody has said which one is to answer.
            (None, None) => {
                return Err(RegistryError::NoChampion {
                    model: model.to_owned(),
                    latest,
                });
            }
            (None, Some(alias)) => {
                let hint = nearest(alias, seen.aliases.keys().map(String::as_str));
                return Err(RegistryError::NoAlias {
                    model: model.to_owned(),
                    alias: alias.to_owned(),
                    hint: hint.map(str::to_owned),
                });
            }
        };
        let Some(document) = seen.document else {
            let is_registered = record.versions().any(|known| known == (model, version));
            return Err(match is_registered {
                true => gone(version),
                false => RegistryError::NoVersion {
                    model: model.to_owned(),
                    version,
                    latest,
                },
            });
        };
        held(&record, (model, version), &document)
    }

    /// What the state says of a model, all of it at one time.
    fn see(&self, model: &str, which: Option<&str>) -> Result<Seen, RegistryError> {
        let key = self.state.key();
        let seen = self.state.read("look up a model", |connection| {
            let connection = &connection.unchecked_transaction()?;
            let latest = "SELECT max(version) FROM model_versions WHERE model = ?1";
            let latest: Option<i64> = connection.query_row(latest, [model], |row| row.get(0))?;
            let latest = latest.map(|latest| latest as u64);
            let aliases = aliases_of(connection, model)?;
            let version = match which {
                None => aliases.get(DEFAULT_ALIAS).copied(),
                Some(text) => text.parse().ok().or_else(|| aliases.get(text).copied()),
            };
            let document = match version {
                Some(version) => document_of(connection, model, version)?,
                None => None,
            };
            let waiting = waiting(connection, key)?;
            Ok(waiting.map(|waiting| Seen {
                latest,
                aliases,
                version,
                document,
                waiting,
            }))
        })?;
        seen.map_err(|id| RegistryError::Waiting(OutboxError::Foreign { id }))
    }

    /// What the audit log says by now, with what waits for it.
    fn on_record(&self, waiting: &[Waiting]) -> Result<OnRecord, RegistryError> {
        let record = self.record.lock();
        let mut record = record.unwrap_or_else(PoisonError::into_inner);
        if record.bytes() == 0
            && self.audit.dir().is_some()
            && let Some(kept) = kept(&self.state)?
        {
            *record = kept;
        }
        let before = record.bytes();
        record.catch_up(&self.audit)?;
        keep(&self.state, &record, before);
        Ok(record.with(waiting))
    }

    /// The same before something is changed.
    pub(super) fn on_record_now(&self) -> Result<OnRecord, RegistryError> {
        let key = self.state.key();
        let waiting = self
            .state
            .read("look up what waits", |connection| waiting(connection, key))?
            .map_err(|id| RegistryError::Waiting(OutboxError::Foreign { id }))?;
        self.on_record(&waiting)
    }
}

/// What the state says of a model.
struct Seen {
    latest: Option<u64>,
    aliases: BTreeMap<String, u64>,
    /// The version that is asked for, and what is kept with it.
    version: Option<u64>,
    document: Option<String>,
    /// What the audit log does not say yet.
    waiting: Vec<Waiting>,
}

/// How often the state and the log are looked at before they are said to disagree, and what lies between:
/// another process may write the one and then the other.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

pub(super) fn unless_moving<T>(
    mut look: impl FnMut() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    for _ in 1..LOOKS {
        match look() {
            Err(error) if error.is_disagreement() => thread::sleep(BETWEEN_LOOKS),
            seen => return seen,
        }
    }
    look()
}

/// An alias means what the log says.
pub(super) fn same_alias(
    record: &OnRecord,
    (model, alias): (&str, &str),
    state: Option<u64>,
) -> Result<(), RegistryError> {
    let log = record.alias(model, alias);
    if state == log {
        return Ok(());
    }
    Err(RegistryError::AliasChanged {
        model: model.to_owned(),
        alias: alias.to_owned(),
        state,
        log,
    })
}

/// What is kept with a version, if it is the one that was registered.
pub(super) fn held(
    record: &OnRecord,
    (model, number): (&str, u64),
    document: &str,
) -> Result<ModelVersion, RegistryError> {
    let changed = |what| RegistryError::VersionChanged {
        model: model.to_owned(),
        version: number,
        what,
    };
    let version: ModelVersion = serde_json::from_str(document)
        .map_err(|error| changed(format!("what is kept with it cannot be read: {error}")))?;
    let same = record.hold((model, number), &version, document);
    same.map(|()| version).map_err(changed)
}
