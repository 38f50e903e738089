//! All that a state says of models, held against its audit log.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::RegistryError;
use super::looking::{held, same_alias, unless_moving};
use super::record::OnRecord;
use crate::state::{OutboxError, State, waiting};
use sandcast_audit::Waiting;

/// What came of holding the models of a state against its log.
#[derive(Debug, Default, Serialize)]
pub struct HeldModels {
    /// Versions that are what was registered.
    pub versions: u64,
    /// Aliases that mean what the log says.
    pub aliases: u64,
    /// What is not, in sentences.
    #[serde(serialize_with = "in_sentences")]
    pub disagreements: Vec<RegistryError>,
}

fn in_sentences<S: serde::Serializer>(
    errors: &[RegistryError],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(errors.iter().map(ToString::to_string))
}

/// Holds every version and every alias in the state of a folder against the log in it, and changes
/// nothing. None where there is no state, or one that the next run has yet to bring up to date.
///
/// # Errors
/// If one of them cannot be read, or somebody else than a registry put something into the state that is
/// to go into the log.
pub fn hold_models(folder: &Path) -> Result<Option<HeldModels>, RegistryError> {
    let Some(state) = State::look(folder)? else {
        return Ok(None);
    };
    let log = folder.join("audit");
    let mut found = HeldModels::default();
    let held = unless_moving(|| {
        found = look(&state, &log)?;
        // A change that is under way is looked at again; what stays is told in full.
        match found.disagreements.pop() {
            None => Ok(()),
            Some(last) => Err(last),
        }
    });
    match held {
        Ok(()) => {}
        Err(error) if error.is_disagreement() => found.disagreements.push(error),
        Err(error) => return Err(error),
    }
    Ok(Some(found))
}

/// What a state says of models.
struct Said {
    versions: BTreeMap<(String, u64), String>,
    aliases: BTreeMap<(String, String), u64>,
    waiting: Vec<Waiting>,
}

fn look(state: &State, log: &Path) -> Result<HeldModels, RegistryError> {
    let said = said(state)?;
    let mut record = OnRecord::default();
    record.catch_up_in(log)?;
    let record = record.with(&said.waiting);
    let mut found = HeldModels::default();
    let mut note = |outcome: Result<(), RegistryError>, count: &mut u64| match outcome {
        Ok(()) => *count += 1,
        Err(error) => found.disagreements.push(error),
    };
    let (mut versions, mut aliases) = (0, 0);
    for ((model, version), document) in &said.versions {
        let same = held(&record, (model, *version), document);
        note(same.map(|_| ()), &mut versions);
    }
    for (model, version) in record.versions() {
        if !said.versions.contains_key(&(model.to_owned(), version)) {
            let of_model = said.versions.keys().filter(|(name, _)| name == model);
            let gone = RegistryError::VersionGone {
                model: model.to_owned(),
                version,
                latest: of_model.map(|(_, version)| *version).max(),
            };
            note(Err(gone), &mut versions);
        }
    }
    for ((model, alias), to) in &said.aliases {
        note(same_alias(&record, (model, alias), Some(*to)), &mut aliases);
    }
    for (model, alias) in record.aliases() {
        let key = (model.to_owned(), alias.to_owned());
        if !said.aliases.contains_key(&key) {
            note(same_alias(&record, (model, alias), None), &mut aliases);
        }
    }
    (found.versions, found.aliases) = (versions, aliases);
    Ok(found)
}

fn said(state: &State) -> Result<Said, RegistryError> {
    let key = state.key();
    let said = state.read("list what is said of models", |connection| {
        // All of it at one time.
        let connection = connection.unchecked_transaction()?;
        let mut statement =
            connection.prepare("SELECT model, version, document FROM model_versions")?;
        let versions = statement.query_map([], |row| {
            let version: i64 = row.get(1)?;
            Ok(((row.get(0)?, version as u64), row.get(2)?))
        })?;
        let versions = versions.collect::<Result<_, _>>()?;
        let mut statement = connection.prepare("SELECT model, alias, version FROM aliases")?;
        let aliases = statement.query_map([], |row| {
            let version: i64 = row.get(2)?;
            Ok(((row.get(0)?, row.get(1)?), version as u64))
        })?;
        let aliases = aliases.collect::<Result<_, _>>()?;
        Ok(waiting(&connection, key)?.map(|waiting| Said {
            versions,
            aliases,
            waiting,
        }))
    })?;
    said.map_err(|id| RegistryError::Waiting(OutboxError::Foreign { id }))
}
