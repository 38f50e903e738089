//! Outputs of stages by the digest of everything that went in.

use rusqlite::{OptionalExtension as _, params};
use sandcast_audit::{Digest, RunId, SealKey};

use super::{State, StateError, parsed, to_json};
use crate::clock;

const STAGE_OUTPUTS: &str = "stage_outputs";

/// What is kept with the key of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeptOutput {
    /// Nothing: no stage has run with it.
    None,
    /// The output as JSON, as it was sealed here.
    Sealed(String),
    /// A row without the right seal: of an earlier version, or of another hand.
    Foreign,
}

impl State {
    /// The output with a key. What was not sealed here is not given.
    pub(crate) fn output(&self, key: &Digest) -> Result<KeptOutput, StateError> {
        let id = key.to_string();
        self.read("look up the output of a stage", |connection| {
            let statement =
                "SELECT stage, run, written, output, seal FROM stage_outputs WHERE key = ?1";
            let found = connection
                .query_row(statement, [id.as_str()], |row| {
                    let parts: [String; 4] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
                    Ok((parts, row.get::<_, String>(4)?))
                })
                .optional()?;
            let Some((parts, seal)) = found else {
                return Ok(KeptOutput::None);
            };
            let is_sealed = match self.key() {
                Some(key) => seal_of(key, &id, parts.each_ref().map(String::as_str))? == seal,
                None => false,
            };
            let [_, _, _, output] = parts;
            Ok(match is_sealed {
                true => KeptOutput::Sealed(output),
                false => KeptOutput::Foreign,
            })
        })
    }

    /// Keeps the output of a stage as JSON, sealed. The blobs that it names are there already.
    pub(crate) fn keep_output(
        &self,
        key: &Digest,
        stage: &str,
        run: &RunId,
        output: &str,
    ) -> Result<(), StateError> {
        self.write("keep the output of a stage", |transaction| {
            let (id, run, written) = (key.to_string(), run.to_string(), clock::now());
            let seal = match self.key() {
                Some(key) => seal_of(key, &id, [stage, &run, &written, output])?,
                None => String::new(),
            };
            let statement =
                "INSERT OR REPLACE INTO stage_outputs (key, stage, run, written, output, seal)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let values = params![id, stage, run, written, output, seal];
            transaction.execute(statement, values).map(|_| ())
        })
    }

    /// Remembers that the output of a recipe is there.
    pub(crate) fn see_recipe(&self, recipe: &Digest, run: &RunId) -> Result<(), StateError> {
        self.write("remember a stage", |transaction| {
            let statement =
                "INSERT OR REPLACE INTO recipes (recipe, run, seen) VALUES (?1, ?2, ?3)";
            let values = params![recipe.to_string(), run.to_string(), clock::now()];
            transaction.execute(statement, values).map(|_| ())
        })
    }

    /// The run that last had the output of a recipe, and when.
    pub(crate) fn last_with_recipe(
        &self,
        recipe: &Digest,
    ) -> Result<Option<(RunId, String)>, StateError> {
        self.read("look up earlier runs of a stage", |connection| {
            let found = connection
                .query_row(
                    "SELECT run, seen FROM recipes WHERE recipe = ?1",
                    [recipe.to_string()],
                    |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
                )
                .optional()?;
            found
                .map(|(run, seen)| Ok((parsed(&run)?, seen)))
                .transpose()
        })
    }
}

/// The seal of a row: of its key, and of the stage, the run, when it was written and the output.
fn seal_of(key: &SealKey, id: &str, parts: [&str; 4]) -> Result<String, rusqlite::Error> {
    let document = to_json(&parts)?;
    Ok(key.seal(STAGE_OUTPUTS, id, &document).to_hex().to_string())
}
