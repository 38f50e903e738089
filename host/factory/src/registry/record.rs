//! What the audit log says of models, for the state to be held against.
//!
//! The state is a file that nobody signs: whoever can write it can point an alias at another version, or
//! change what is kept with one. The log is chained and signed, and has an entry for every version that was
//! registered and for every alias that was moved. So nothing of the state is used that the log does not say
//! too; what an effect of a moment ago has yet to tell the log waits in the state under a seal.

use std::collections::BTreeMap;
use std::path::Path;

use sandcast_audit::{AuditError, AuditLog, Digest, Event, Position, Waiting, read, read_after};

use serde::{Deserialize, Serialize};

use super::ModelVersion;
use crate::clock;
use crate::conduct::is_one_of;

/// The events that say something of models.
const WANTED: [&[u8]; 3] = [b"registered\"", b"version-renewed\"", b"alias-moved\""];

/// What the log says of models, up to some entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OnRecord {
    /// Where to read on.
    position: Option<Position>,
    #[serde(with = "pairs")]
    versions: BTreeMap<(String, u64), Registered>,
    #[serde(with = "pairs")]
    aliases: BTreeMap<(String, String), Moved>,
}

/// A map as a list: its keys are no strings.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let all = Vec::<(K, V)>::deserialize(deserializer)?;
        Ok(all.into_iter().collect())
    }
}

/// What the log says of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Registered {
    artifact: Digest,
    lineage: Digest,
    /// Of all that is kept with it. Entries of before that was told have none.
    document: Option<Digest>,
    time: String,
}

/// What the log says of an alias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Moved {
    to: u64,
    time: String,
}

impl OnRecord {
    /// Takes in what a log has gained.
    pub(crate) fn catch_up(&mut self, log: &AuditLog) -> Result<(), AuditError> {
        match log.dir() {
            Some(folder) => self.catch_up_in(&folder),
            None => {
                *self = Self::default();
                for entry in log.entries()? {
                    self.take(&entry.time, &entry.event);
                }
                Ok(())
            }
        }
    }

    /// Bytes of the log up to where it was read.
    pub(crate) fn bytes(&self) -> u64 {
        self.position.map_or(0, |position| position.bytes())
    }

    /// The same of the log in a folder. Only entries about models are parsed.
    pub(crate) fn catch_up_in(&mut self, folder: &Path) -> Result<(), AuditError> {
        let after = match self.position {
            Some(position) => read_after(folder, position)?,
            None => None,
        };
        let mut entries = match after {
            Some(entries) => entries,
            None => {
                *self = Self::default();
                read(folder)?
            }
        };
        while let Some(entry) = entries.next_wanted(|line| is_one_of(line, &WANTED))? {
            self.take(&entry.time, &entry.event);
        }
        self.position = Some(entries.position());
        Ok(())
    }

    /// The same with what waits for the log. What comes back after the log has said something later is
    /// of no account.
    pub(crate) fn with(&self, waiting: &[Waiting]) -> Self {
        let mut all = self.clone();
        for Waiting { posted, event } in waiting {
            let posted = posted.to_string();
            let last = match event {
                Event::Registered { model, version, .. }
                | Event::VersionRenewed { model, version, .. } => {
                    all.version(model, *version).map(|known| &known.time)
                }
                Event::AliasMoved { model, alias, .. } => {
                    let key = (model.clone(), alias.clone());
                    all.aliases.get(&key).map(|known| &known.time)
                }
                _ => continue,
            };
            if last.is_none_or(|last| !clock::is_before(&posted, last)) {
                all.take(&posted, event);
            }
        }
        all
    }

    fn take(&mut self, time: &str, event: &Event) {
        let time = time.to_owned();
        match event {
            Event::Registered {
                model,
                version,
                model_digest,
                lineage,
                document,
                ..
            } => {
                let registered = Registered {
                    artifact: *model_digest,
                    lineage: *lineage,
                    document: *document,
                    time,
                };
                self.versions.insert((model.clone(), *version), registered);
            }
            Event::VersionRenewed {
                model,
                version,
                document,
                ..
            } => {
                if let Some(known) = self.versions.get_mut(&(model.clone(), *version)) {
                    known.document = Some(*document);
                    known.time = time;
                }
            }
            Event::AliasMoved {
                model, alias, to, ..
            } => {
                let moved = Moved { to: *to, time };
                self.aliases.insert((model.clone(), alias.clone()), moved);
            }
            _ => {}
        }
    }

    fn version(&self, model: &str, version: u64) -> Option<&Registered> {
        self.versions.get(&(model.to_owned(), version))
    }

    /// The version that an alias means.
    pub(crate) fn alias(&self, model: &str, alias: &str) -> Option<u64> {
        let key = (model.to_owned(), alias.to_owned());
        self.aliases.get(&key).map(|moved| moved.to)
    }

    /// The model file of a version.
    pub(crate) fn artifact(&self, model: &str, version: u64) -> Option<Digest> {
        self.version(model, version).map(|known| known.artifact)
    }

    /// All aliases, by model and name.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = (&str, &str)> {
        let keys = self.aliases.keys();
        keys.map(|(model, alias)| (model.as_str(), alias.as_str()))
    }

    /// All versions, by model and number.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&str, u64)> {
        let keys = self.versions.keys();
        keys.map(|(model, version)| (model.as_str(), *version))
    }

    /// The latest version of a model.
    pub(crate) fn latest(&self, model: &str) -> Option<u64> {
        let all = (model.to_owned(), 0)..=(model.to_owned(), u64::MAX);
        let last = self.versions.range(all).next_back();
        last.map(|((_, version), _)| *version)
    }

    /// Whether all that is kept with a version is on record.
    pub(crate) fn has_document(&self, (model, version): (&str, u64)) -> bool {
        let known = self.version(model, version);
        known.is_some_and(|known| known.document.is_some())
    }

    /// Whether a version is the one that was registered: why not, in words.
    pub(crate) fn hold(
        &self,
        (model, number): (&str, u64),
        version: &ModelVersion,
        document: &str,
    ) -> Result<(), String> {
        let Some(known) = self.version(model, number) else {
            return Err("the audit log has no such version".to_owned());
        };
        let same = |what: &str, here: Digest, there: Digest| match here == there {
            true => Ok(()),
            false => Err(format!(
                "{what} is {} in state.sqlite and {} by the audit log",
                here.short(),
                there.short()
            )),
        };
        if (version.model.as_str(), version.version) != (model, number) {
            return Err(format!(
                "what is kept there in state.sqlite is version {} of `{}`",
                version.version, version.model
            ));
        }
        same("its model file", version.artifact, known.artifact)?;
        same("its lineage", version.lineage.digest(), known.lineage)?;
        match known.document {
            Some(there) => same(
                "all that is kept with it",
                Digest::of(document.as_bytes()),
                there,
            ),
            // The lineage names the plugins, and with them the component that answers.
            None => {
                let trained = version.lineage.plugins.get(&version.adapter_name);
                let digest = trained.map_or(Digest::ZERO, |plugin| plugin.digest);
                same("its adapter", version.component, digest)
            }
        }
    }
}
