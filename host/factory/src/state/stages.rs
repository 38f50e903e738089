//! Outputs of stages by the digest of everything that went in.

use rusqlite::{OptionalExtension as _, params};
use sandcast_audit::{Digest, RunId};

use super::{State, StateError, parsed};
use crate::clock;

impl State {
    /// The output with a key as JSON, if a stage has run with it.
    pub(crate) fn output(&self, key: &Digest) -> Result<Option<String>, StateError> {
        self.read("look up the output of a stage", |connection| {
            let statement = "SELECT output FROM stage_outputs WHERE key = ?1";
            connection
                .query_row(statement, [key.to_string()], |row| row.get(0))
                .optional()
        })
    }

    /// Keeps the output of a stage as JSON. The blobs that it names are there already.
    pub(crate) fn keep_output(
        &self,
        key: &Digest,
        stage: &str,
        run: &RunId,
        output: &str,
    ) -> Result<(), StateError> {
        self.write("keep the output of a stage", |transaction| {
            let statement =
                "INSERT OR REPLACE INTO stage_outputs (key, stage, run, written, output)
                 VALUES (?1, ?2, ?3, ?4, ?5)";
            let values = params![
                key.to_string(),
                stage,
                run.to_string(),
                clock::now(),
                output
            ];
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
