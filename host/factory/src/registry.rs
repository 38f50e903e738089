//! Models: their versions, where each came from, and the aliases that point to them.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension as _, Transaction, params};
use sandcast_audit::{AuditLog, Digest, Event, PluginRef, RunId};
use sandcast_sandbox::{Grants, Signatures, Task, TrustRule};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock;
use crate::conduct::ConductSection;
use crate::config::nearest;
use crate::metrics::Evaluation;
use crate::stages::Approved;
use crate::state::{OutboxError, State, StateError, from_json, post, to_json};

/// The alias that is used where none is named.
pub const DEFAULT_ALIAS: &str = "champion";

/// The models of a workspace. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    state: State,
    audit: AuditLog,
}

/// A model with its versions and aliases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// The name of the model.
    pub name: String,
    /// Its versions, the latest first.
    pub versions: Vec<VersionSummary>,
    /// The versions that aliases point to.
    pub aliases: BTreeMap<String, u64>,
}

/// A version of a model, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionSummary {
    /// The version.
    pub version: u64,
    /// When it was registered, RFC 3339.
    pub created: String,
    /// The run that made it.
    pub run: RunId,
    /// Its numbers over the test rows.
    pub metrics: BTreeMap<String, f64>,
}

/// A version of a model with everything that answering and auditing need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// The name of the model.
    pub model: String,
    /// The version, from 1.
    pub version: u64,
    /// When it was registered, RFC 3339.
    pub created: String,
    /// The run that made it.
    pub run: RunId,
    /// What it was made of.
    pub lineage: Lineage,
    /// What it was measured by.
    pub evaluation: Evaluation,
    /// What it answers, from which columns.
    pub task: Task,
    /// The adapter that made it and answers with it.
    pub adapter: PluginRef,
    /// The name of the adapter in the pipeline.
    pub adapter_name: String,
    /// The blob with the bytes of the adapter's component.
    pub component: Digest,
    /// What the adapter may do.
    pub grants: Grants,
    /// Who vouches for the adapter, and who must.
    #[serde(default, skip_serializing_if = "Vouched::is_empty")]
    pub vouched: Vouched,
    /// What is done about its adapter where that does otherwise than it usually does while it is
    /// served, and whether it and the policies run in processes of their own while they are not
    /// trusted, as the pipeline has it.
    #[serde(default, skip_serializing_if = "ConductSection::is_default")]
    pub conduct: ConductSection,
    /// The blob with the model.
    pub artifact: Digest,
    /// Who is asked before it answers.
    pub policies: Vec<PredictPolicy>,
}

/// A policy that is asked before a model answers, kept with the version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PredictPolicy {
    /// The name of the plugin in the pipeline.
    pub name: String,
    /// The plugin.
    pub plugin: PluginRef,
    /// The blob with the bytes of its component.
    pub component: Digest,
    /// What it may do.
    pub grants: Grants,
    /// Who vouches for it, and who must.
    #[serde(default, skip_serializing_if = "Vouched::is_empty")]
    pub vouched: Vouched,
    /// Its configuration.
    pub config: serde_json::Value,
}

/// The signature of a component that is kept with a model, and the rule that it is held to whenever
/// the model is loaded: that of the pipeline. It is no part of the lineage; a run that comes to the
/// same model renews it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Vouched {
    /// The signed note that lay beside the component, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The Sigstore bundle that came with the component, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// Who may sign plugins of its role, where the pipeline says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustRule>,
}

impl Vouched {
    /// What says who signed the component.
    pub fn signatures(&self) -> Signatures<'_> {
        Signatures {
            note: self.signature.as_deref(),
            bundle: self.bundle.as_deref(),
        }
    }

    fn is_empty(&self) -> bool {
        *self == Vouched::default()
    }
}

/// Everything a model was made of. Two models with the same lineage are the same model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The rows after validation.
    pub data: Digest,
    /// The rows of each source, by its name.
    pub sources: BTreeMap<String, Digest>,
    /// The plugins that took part, by their names in the pipeline.
    pub plugins: BTreeMap<String, PluginRef>,
    /// What the pipeline file said.
    pub config: Digest,
    /// The name of the pipeline.
    pub pipeline: String,
    /// The seed of everything random.
    pub seed: u64,
    /// The digest of the model.
    pub artifact: Digest,
    /// The version of Sandcast.
    pub sandcast_version: String,
}

impl Lineage {
    /// The digest of the whole lineage.
    pub fn digest(&self) -> Digest {
        // Strings, numbers and sorted maps: this always has a JSON form.
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }
}

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
    /// The alias cannot be one.
    #[error(
        "`{alias}` cannot be an alias: use lower case letters, digits, `-` and `_`, and not only \
         digits"
    )]
    BadAlias {
        /// The alias that was asked for.
        alias: String,
    },
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
        Registry { state, audit }
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
    /// [`DEFAULT_ALIAS`] points to, else the latest.
    ///
    /// # Errors
    /// If there is no such model, version or alias, or the state cannot be read.
    pub fn resolve(
        &self,
        model: &str,
        alias_or_version: Option<&str>,
    ) -> Result<ModelVersion, RegistryError> {
        let Some(latest) = self.latest(model)? else {
            let models = self.models()?;
            let names = models.iter().map(|summary| summary.name.as_str());
            let hint = nearest(model, names).map(str::to_owned);
            return Err(RegistryError::NoModel {
                model: model.to_owned(),
                hint,
            });
        };
        let aliases = self.aliases(model)?;
        let version = match alias_or_version {
            None => aliases.get(DEFAULT_ALIAS).copied().unwrap_or(latest),
            Some(text) => match (text.parse::<u64>(), aliases.get(text)) {
                (Ok(version), _) => version,
                (Err(_), Some(version)) => *version,
                (Err(_), None) => {
                    let hint = nearest(text, aliases.keys().map(String::as_str));
                    return Err(RegistryError::NoAlias {
                        model: model.to_owned(),
                        alias: text.to_owned(),
                        hint: hint.map(str::to_owned),
                    });
                }
            },
        };
        let found = self.state.read("look up a model version", |connection| {
            let statement = "SELECT document FROM model_versions WHERE model = ?1 AND version = ?2";
            let document = connection
                .query_row(statement, params![model, version as i64], |row| {
                    row.get::<_, String>(0)
                })
                .optional()?;
            document
                .map(|document| from_json::<ModelVersion>(&document))
                .transpose()
        })?;
        found.ok_or(RegistryError::NoVersion {
            model: model.to_owned(),
            version,
            latest,
        })
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

    /// Makes an alias point to a version, and says which it pointed to before.
    ///
    /// # Errors
    /// If there is no such version, the alias cannot be one, or the state or the audit log cannot
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
        let before = self.state.write("move an alias", |transaction| {
            move_alias(transaction, model, alias, version, Moved::default())
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
        let outcome = self.state.write("move an alias", |transaction| {
            let done = "SELECT 1 FROM carried_out WHERE approval = ?1";
            if transaction
                .query_row(done, [approval], |_| Ok(()))
                .optional()?
                .is_some()
            {
                return Ok(Ok(()));
            }
            let found = "SELECT document FROM model_versions WHERE model = ?1 AND version = ?2";
            let found = transaction
                .query_row(found, params![model, to as i64], |row| {
                    row.get::<_, String>(0)
                })
                .optional()?;
            // What is served is what the document says, so that is what is held to the approval.
            let is_same = match found
                .as_deref()
                .map(from_json::<ModelVersion>)
                .transpose()?
            {
                Some(found) => found.artifact == artifact && found.lineage.digest() == lineage,
                None => false,
            };
            if !is_same {
                return Ok(Err(format!(
                    "version {to} of {model} is not the one that was approved"
                )));
            }
            let now = alias_of(transaction, model, alias)?;
            if now != from {
                let now = now.map_or_else(|| "nothing".to_owned(), |now| now.to_string());
                return Ok(Err(format!("{model}@{alias} means version {now} by now")));
            }
            let insert = "INSERT INTO carried_out (approval, done) VALUES (?1, ?2)";
            transaction.execute(insert, params![approval, clock::now()])?;
            let by = Moved {
                run: None,
                approval: Some(approval),
            };
            move_alias(transaction, model, alias, to, by)?;
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
    ) -> Result<Registration, StateError> {
        let lineage = version.lineage.digest();
        self.state.write("register the model", |transaction| {
            let (version, new) = insert_version(transaction, version, &lineage)?;
            let before = match alias {
                Some(alias) => move_alias(
                    transaction,
                    &version.model,
                    alias,
                    version.version,
                    Moved {
                        run: Some(run),
                        approval: None,
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
        })
    }

    fn latest(&self, model: &str) -> Result<Option<u64>, RegistryError> {
        let latest = self.state.read("look up a model", |connection| {
            let statement = "SELECT max(version) FROM model_versions WHERE model = ?1";
            connection.query_row(statement, [model], |row| row.get::<_, Option<i64>>(0))
        })?;
        Ok(latest.map(|version| version as u64))
    }

    fn aliases(&self, model: &str) -> Result<BTreeMap<String, u64>, RegistryError> {
        let aliases = self.state.read("look up aliases", |connection| {
            let mut statement =
                connection.prepare("SELECT alias, version FROM aliases WHERE model = ?1")?;
            let rows = statement.query_map([model], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)? as u64))
            })?;
            rows.collect::<Result<BTreeMap<_, _>, _>>()
        })?;
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
}

/// Adds a version, or finds the one with the same lineage.
fn insert_version(
    transaction: &Transaction<'_>,
    mut version: ModelVersion,
    lineage: &Digest,
) -> Result<(ModelVersion, bool), rusqlite::Error> {
    let same = "SELECT document FROM model_versions WHERE model = ?1 AND lineage = ?2";
    let found = transaction
        .query_row(same, params![version.model, lineage.to_string()], |row| {
            row.get::<_, String>(0)
        })
        .optional()?;
    if let Some(document) = found {
        let mut known: ModelVersion = from_json(&document)?;
        if renew(&mut known, &version) {
            let update =
                "UPDATE model_versions SET document = ?3 WHERE model = ?1 AND version = ?2";
            let values = params![known.model, known.version as i64, to_json(&known)?];
            transaction.execute(update, values)?;
        }
        return Ok((known, false));
    }
    let latest = "SELECT coalesce(max(version), 0) FROM model_versions WHERE model = ?1";
    let latest: i64 = transaction.query_row(latest, [&version.model], |row| row.get(0))?;
    version.version = latest as u64 + 1;
    let insert = "INSERT INTO model_versions (model, version, lineage, created, document)
                  VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![
        version.model,
        version.version as i64,
        lineage.to_string(),
        version.created,
        to_json(&version)?,
    ];
    transaction.execute(insert, values)?;
    let event = Event::Registered {
        run: version.run.clone(),
        model: version.model.clone(),
        version: version.version,
        model_digest: version.artifact,
        lineage: *lineage,
    };
    post(transaction, &event)?;
    Ok((version, true))
}

/// Takes over who vouches for the components of a version; whether that changed anything.
fn renew(known: &mut ModelVersion, new: &ModelVersion) -> bool {
    let mut changed = false;
    let mut take = |old: &mut Vouched, new: &Vouched| {
        if old != new {
            new.clone_into(old);
            changed = true;
        }
    };
    if known.component == new.component {
        take(&mut known.vouched, &new.vouched);
    }
    for policy in &mut known.policies {
        let same = new
            .policies
            .iter()
            .find(|it| it.name == policy.name && it.component == policy.component);
        if let Some(same) = same {
            take(&mut policy.vouched, &same.vouched);
        }
    }
    changed
}

/// A move of an alias that somebody approved.
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

/// Moves an alias, and says where it pointed before.
fn move_alias(
    transaction: &Transaction<'_>,
    model: &str,
    alias: &str,
    version: u64,
    moved: Moved<'_>,
) -> Result<Option<u64>, rusqlite::Error> {
    let before = alias_of(transaction, model, alias)?;
    if before == Some(version) {
        return Ok(before);
    }
    let upsert = "INSERT INTO aliases (model, alias, version, moved) VALUES (?1, ?2, ?3, ?4)
                  ON CONFLICT (model, alias) DO UPDATE SET version = ?3, moved = ?4";
    transaction.execute(upsert, params![model, alias, version as i64, clock::now()])?;
    let event = Event::AliasMoved {
        model: model.to_owned(),
        alias: alias.to_owned(),
        from: before,
        to: version,
        run: moved.run.cloned(),
        approval: moved.approval.map(str::to_owned),
    };
    post(transaction, &event)?;
    Ok(before)
}

#[cfg(test)]
mod tests;
