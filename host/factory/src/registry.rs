//! Models: their versions, where each came from, and the aliases that point to them.

mod error;
mod holding;
mod keeping;
mod looking;
mod record;
mod version;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use sandcast_audit::{AuditLog, Digest, Event, RunId};

pub use error::RegistryError;
pub use holding::{HeldModels, hold_models};
pub use version::{Lineage, ModelSummary, ModelVersion, PredictPolicy, VersionSummary, Vouched};

use crate::clock;
use crate::stages::Approved;
use crate::state::{State, from_json, post, to_json};
use looking::unless_moving;
use record::OnRecord;
use version::renew;

/// The alias that is used where none is named.
pub const DEFAULT_ALIAS: &str = "champion";

/// The models of a workspace. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    state: State,
    audit: AuditLog,
    /// What was read of the log.
    record: Arc<Mutex<OnRecord>>,
}

/// The version in the place that a run wants for its model.
#[derive(Debug)]
pub(crate) enum Incumbent {
    Known(Box<ModelVersion>),
    /// The very model that the run came to, by the audit log. What the state keeps with it was changed; the
    /// run writes it anew.
    Same(u64),
}

/// What came of registering.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Registration {
    pub(crate) version: ModelVersion,
    /// Whether the version is new; the same lineage is registered once.
    pub(crate) new: bool,
    pub(crate) alias_moved: bool,
}

impl Registry {
    pub(crate) fn new(state: State, audit: AuditLog) -> Registry {
        Registry {
            state,
            audit,
            record: Arc::default(),
        }
    }

    /// All models, by name.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn models(&self) -> Result<Vec<ModelSummary>, RegistryError> {
        let mut models: BTreeMap<String, ModelSummary> = BTreeMap::new();
        let summary = |name: &str| ModelSummary {
            name: name.to_owned(),
            versions: Vec::new(),
            aliases: BTreeMap::new(),
        };
        for version in
            self.documents("SELECT document FROM model_versions ORDER BY version DESC")?
        {
            let model = models
                .entry(version.model.clone())
                .or_insert_with(|| summary(&version.model));
            model.versions.push(VersionSummary {
                version: version.version,
                metrics: crate::gate::metrics_by_name(&version.evaluation),
                created: version.created,
                run: version.run,
            });
        }
        for (name, model) in &mut models {
            model.aliases = self.aliases(name)?;
        }
        Ok(models.into_values().collect())
    }

    /// A version of a model: by alias, by number, or, if neither is given, the one that
    /// [`DEFAULT_ALIAS`] points to. It is what the audit log says was registered, and the
    /// alias means what the log says.
    ///
    /// # Errors
    /// If there is no such model, version or alias, the state says something else of it than the audit
    /// log, or one of them cannot be read.
    pub fn resolve(
        &self,
        model: &str,
        alias_or_version: Option<&str>,
    ) -> Result<ModelVersion, RegistryError> {
        unless_moving(|| self.look_up(model, alias_or_version))
    }

    /// The version that an alias points to, or nothing if there is no such model or alias.
    pub(crate) fn at_alias(
        &self,
        model: &str,
        alias: &str,
    ) -> Result<Option<ModelVersion>, RegistryError> {
        match self.resolve(model, Some(alias)) {
            Ok(version) => Ok(Some(version)),
            Err(RegistryError::NoModel { .. } | RegistryError::NoAlias { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same for a run that came to a model.
    pub(crate) fn incumbent(
        &self,
        model: &str,
        alias: &str,
        artifact: Digest,
    ) -> Result<Option<Incumbent>, RegistryError> {
        match self.at_alias(model, alias) {
            Err(RegistryError::VersionChanged { version, .. })
                if self.on_record_now()?.artifact(model, version) == Some(artifact) =>
            {
                Ok(Some(Incumbent::Same(version)))
            }
            found => Ok(found?.map(|version| Incumbent::Known(Box::new(version)))),
        }
    }

    /// Makes an alias point to a version, and says which it pointed to before. That is on record also
    /// where the state says so already and the audit log does not.
    ///
    /// # Errors
    /// If there is no such version, it is not the one that was registered, the alias cannot be one, or the state or the audit log cannot
    /// be written.
    pub fn set_alias(
        &self,
        model: &str,
        alias: &str,
        version: u64,
    ) -> Result<Option<u64>, RegistryError> {
        if !crate::config::is_plain(alias) || alias.parse::<u64>().is_ok() {
            return Err(RegistryError::BadAlias {
                alias: alias.to_owned(),
            });
        }
        self.resolve(model, Some(&version.to_string()))?;
        let moved = Moved {
            logged: self.on_record_now()?.alias(model, alias),
            ..Moved::default()
        };
        let before = self.state.write("move an alias", |transaction| {
            self.move_alias(transaction, model, alias, version, moved)
        })?;
        self.state.empty_outbox(&self.audit)?;
        Ok(before)
    }

    /// Whether an alias could be made to point to a version, and which it points to now.
    ///
    /// # Errors
    /// If there is no such version, the alias cannot be one, or the state cannot be read.
    pub fn could_set_alias(
        &self,
        model: &str,
        alias: &str,
        version: u64,
    ) -> Result<(ModelVersion, Option<u64>), RegistryError> {
        if !crate::config::is_plain(alias) || alias.parse::<u64>().is_ok() {
            return Err(RegistryError::BadAlias {
                alias: alias.to_owned(),
            });
        }
        let version = self.resolve(model, Some(&version.to_string()))?;
        let now = self.aliases(model)?.get(alias).copied();
        looking::same_alias(&self.on_record_now()?, (model, alias), now)?;
        Ok((version, now))
    }

    /// Makes an alias point to a version because somebody approved exactly that, once for each
    /// approval: the move and the mark that it was made are one transaction. Where the alias means
    /// something else by now than what was approved, or the version is another, nothing is moved,
    /// and why is given back.
    ///
    /// # Errors
    /// If the state or the audit log cannot be read or written.
    pub fn set_alias_as_approved(
        &self,
        approval: &str,
        wanted: &ApprovedMove<'_>,
    ) -> Result<Result<(), String>, RegistryError> {
        let ApprovedMove {
            model,
            alias,
            from,
            to,
            artifact,
            lineage,
        } = *wanted;
        let record = self.on_record_now()?;
        let outcome = self.state.write("move an alias", |transaction| {
            let done = "SELECT 1 FROM carried_out WHERE approval = ?1";
            if transaction
                .query_row(done, [approval], |_| Ok(()))
                .optional()?
                .is_some()
            {
                return Ok(Ok(()));
            }
            let document = document_of(transaction, model, to)?.unwrap_or_default();
            // What is served is what the document says, so that is what is held to the approval.
            let found = from_json::<ModelVersion>(&document)
                .ok()
                .filter(|found| found.artifact == artifact && found.lineage.digest() == lineage);
            let Some(found) = found else {
                return Ok(Err(format!(
                    "version {to} of {model} is not the one that was approved"
                )));
            };
            if let Err(why) = record.hold((model, to), &found, &document) {
                return Ok(Err(format!(
                    "version {to} of {model} is not what was registered: {why}"
                )));
            }
            let now = alias_of(transaction, model, alias)?;
            // By the log as by the state, which somebody may have set back.
            if let Some(now) = [now, record.alias(model, alias)]
                .into_iter()
                .find(|now| *now != from)
            {
                let now = now.map_or_else(|| "nothing".to_owned(), |now| now.to_string());
                return Ok(Err(format!("{model}@{alias} means version {now} by now")));
            }
            let insert = "INSERT INTO carried_out (approval, done) VALUES (?1, ?2)";
            transaction.execute(insert, params![approval, clock::now()])?;
            let by = Moved {
                run: None,
                approval: Some(approval),
                logged: record.alias(model, alias),
            };
            self.move_alias(transaction, model, alias, to, by)?;
            Ok(Ok(()))
        })?;
        self.state.empty_outbox(&self.audit)?;
        Ok(outcome)
    }

    /// Registers an approved model. The version, the alias and their audit events are one
    /// transaction; a lineage that is registered already keeps its version, and takes the signatures
    /// and rules of trust of the new run.
    pub(crate) fn register(
        &self,
        approved: &Approved,
        version: ModelVersion,
        alias: Option<&str>,
    ) -> Result<Registration, RegistryError> {
        let registration = self.insert(approved.run(), version, alias)?;
        self.state.empty_outbox(&self.audit)?;
        Ok(registration)
    }

    fn insert(
        &self,
        run: &RunId,
        version: ModelVersion,
        alias: Option<&str>,
    ) -> Result<Registration, RegistryError> {
        let lineage = version.lineage.digest();
        let record = self.on_record_now()?;
        let registered = self.state.write("register the model", |transaction| {
            let (version, new) = self.insert_version(transaction, version, &lineage, &record)?;
            let before = match alias {
                Some(alias) => self.move_alias(
                    transaction,
                    &version.model,
                    alias,
                    version.version,
                    Moved {
                        run: Some(run),
                        approval: None,
                        logged: record.alias(&version.model, alias),
                    },
                )?,
                None => Some(version.version),
            };
            let alias_moved = before != Some(version.version);
            Ok(Registration {
                version,
                new,
                alias_moved,
            })
        })?;
        Ok(registered)
    }

    fn aliases(&self, model: &str) -> Result<BTreeMap<String, u64>, RegistryError> {
        let what = "look up aliases";
        let aliases = self
            .state
            .read(what, |connection| aliases_of(connection, model))?;
        Ok(aliases)
    }

    fn documents(&self, query: &str) -> Result<Vec<ModelVersion>, RegistryError> {
        let versions = self.state.read("list the models", |connection| {
            let mut statement = connection.prepare(query)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.map(|document| from_json(&document?)).collect()
        })?;
        Ok(versions)
    }

    /// Adds a version, or finds the one with the same lineage. One that is not what was registered is
    /// written anew: what it is comes from the run, which got it past the gate.
    fn insert_version(
        &self,
        transaction: &Transaction<'_>,
        mut version: ModelVersion,
        lineage: &Digest,
        record: &OnRecord,
    ) -> Result<(ModelVersion, bool), rusqlite::Error> {
        self.keep(&version.lineage.text())?;
        let same = "SELECT version, document FROM model_versions WHERE model = ?1 AND lineage = ?2";
        let found = transaction
            .query_row(same, params![version.model, lineage.to_string()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        if let Some((number, document)) = found {
            let number = number as u64;
            let place = (version.model.as_str(), number);
            let known = from_json::<ModelVersion>(&document).ok();
            let known = known.filter(|known| record.hold(place, known, &document).is_ok());
            let Some(mut known) = known else {
                version.version = number;
                let document = self.replace_document(transaction, &version)?;
                let event = registered(&version, lineage, document);
                post(transaction, self.state.key(), &event)?;
                return Ok((version, false));
            };
            // One of before all of it was on record is on record from now on.
            let is_partly_known = !record.has_document(place);
            if renew(&mut known, &version) || is_partly_known {
                let event = Event::VersionRenewed {
                    run: version.run,
                    model: version.model,
                    version: number,
                    document: self.replace_document(transaction, &known)?,
                };
                post(transaction, self.state.key(), &event)?;
            }
            return Ok((known, false));
        }
        let latest = "SELECT coalesce(max(version), 0) FROM model_versions WHERE model = ?1";
        let latest: i64 = transaction.query_row(latest, [&version.model], |row| row.get(0))?;
        // A number that the log knows is not given again, whatever became of the row.
        let latest = (latest as u64).max(record.latest(&version.model).unwrap_or(0));
        version.version = latest + 1;
        let document = to_json(&version)?;
        let insert = "INSERT INTO model_versions (model, version, lineage, created, document)
                      VALUES (?1, ?2, ?3, ?4, ?5)";
        let values = params![
            version.model,
            version.version as i64,
            lineage.to_string(),
            version.created,
            document,
        ];
        transaction.execute(insert, values)?;
        let event = registered(&version, lineage, self.keep(document.as_bytes())?);
        post(transaction, self.state.key(), &event)?;
        Ok((version, true))
    }

    /// Writes what is kept with a version in place of what was, and gives back the digest of that.
    fn replace_document(
        &self,
        transaction: &Transaction<'_>,
        version: &ModelVersion,
    ) -> Result<Digest, rusqlite::Error> {
        let document = to_json(version)?;
        let update = "UPDATE model_versions SET document = ?3 WHERE model = ?1 AND version = ?2";
        let values = params![version.model, version.version as i64, document];
        transaction.execute(update, values)?;
        self.keep(document.as_bytes())
    }

    /// Keeps what an entry about a version names by this digest.
    fn keep(&self, text: &[u8]) -> Result<Digest, rusqlite::Error> {
        let kept = self.audit.keep(text);
        kept.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
    }

    /// Moves an alias, and says where it pointed before.
    fn move_alias(
        &self,
        transaction: &Transaction<'_>,
        model: &str,
        alias: &str,
        version: u64,
        moved: Moved<'_>,
    ) -> Result<Option<u64>, rusqlite::Error> {
        let before = alias_of(transaction, model, alias)?;
        if before == Some(version) && moved.logged == before {
            return Ok(before);
        }
        let upsert = "INSERT INTO aliases (model, alias, version, moved) VALUES (?1, ?2, ?3, ?4)
                      ON CONFLICT (model, alias) DO UPDATE SET version = ?3, moved = ?4";
        transaction.execute(upsert, params![model, alias, version as i64, clock::now()])?;
        let event = Event::AliasMoved {
            model: model.to_owned(),
            alias: alias.to_owned(),
            // As the log has it, also where the state was changed past it.
            from: moved.logged,
            to: version,
            run: moved.run.cloned(),
            approval: moved.approval.map(str::to_owned),
        };
        post(transaction, self.state.key(), &event)?;
        Ok(before)
    }
}

fn aliases_of(
    connection: &Connection,
    model: &str,
) -> Result<BTreeMap<String, u64>, rusqlite::Error> {
    let mut statement =
        connection.prepare("SELECT alias, version FROM aliases WHERE model = ?1")?;
    let rows = statement.query_map([model], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)? as u64))
    })?;
    rows.collect()
}

fn document_of(
    connection: &Connection,
    model: &str,
    version: u64,
) -> Result<Option<String>, rusqlite::Error> {
    let statement = "SELECT document FROM model_versions WHERE model = ?1 AND version = ?2";
    connection
        .query_row(statement, params![model, version as i64], |row| row.get(0))
        .optional()
}

fn registered(version: &ModelVersion, lineage: &Digest, document: Digest) -> Event {
    Event::Registered {
        run: version.run.clone(),
        model: version.model.clone(),
        version: version.version,
        model_digest: version.artifact,
        lineage: *lineage,
        document: Some(document),
    }
}

/// A move of an alias that somebody is asked to approve, or approved.
#[derive(Debug, Clone, Copy)]
pub struct ApprovedMove<'a> {
    /// The model.
    pub model: &'a str,
    /// The alias.
    pub alias: &'a str,
    /// The version that it must mean before.
    pub from: Option<u64>,
    /// The version that it is to mean.
    pub to: u64,
    /// The digest of that version's model file.
    pub artifact: Digest,
    /// The digest of that version's lineage.
    pub lineage: Digest,
}

/// On whose account an alias moves; on that of a person where there is neither.
#[derive(Default)]
struct Moved<'a> {
    run: Option<&'a RunId>,
    approval: Option<&'a str>,
    /// What the alias means by the audit log.
    logged: Option<u64>,
}

fn alias_of(
    transaction: &Transaction<'_>,
    model: &str,
    alias: &str,
) -> Result<Option<u64>, rusqlite::Error> {
    let found = "SELECT version FROM aliases WHERE model = ?1 AND alias = ?2";
    let found = transaction
        .query_row(found, params![model, alias], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(found.map(|version| version as u64))
}

#[cfg(test)]
mod tests;
