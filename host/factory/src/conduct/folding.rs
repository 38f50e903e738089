//! What entries of the audit log change, between the database and the fold.

use std::collections::{HashMap, hash_map};

use rusqlite::Transaction;
use sandcast_audit::{Digest, Entry, PluginRef, RunId};

use super::cache::{STANDING, Sql, document};
use super::fold::Memory;
use super::observation::{Observation, RunFacts};
use super::standing::StandingRecord;
use crate::state::to_json;

/// Runs of one pipeline whose observations are kept.
const MAX_RUNS: i64 = 256;

type ObservationKey = (RunId, Digest, String);

/// What entries change, held until it is written.
pub(crate) struct Folding<'t> {
    transaction: &'t Transaction<'t>,
    runs: HashMap<RunId, Option<RunFacts>>,
    /// Runs that begin here.
    begun: Vec<RunId>,
    observations: HashMap<ObservationKey, Observation>,
    standings: HashMap<Digest, Option<StandingRecord>>,
}

impl<'t> Folding<'t> {
    pub(crate) fn new(transaction: &'t Transaction<'t>) -> Self {
        Self {
            transaction,
            runs: HashMap::new(),
            begun: Vec::new(),
            observations: HashMap::new(),
            standings: HashMap::new(),
        }
    }

    /// Writes what entries have changed, and lets it go.
    pub(crate) fn flush(&mut self) -> Sql<()> {
        let mut pipelines: Vec<String> = Vec::new();
        let begun = std::mem::take(&mut self.begun);
        // Looked up once: it is a look at every run that is kept.
        let last = "SELECT coalesce(max(sequence), 0) FROM runs";
        let last: i64 = match begun.is_empty() {
            true => 0,
            false => self.transaction.query_row(last, [], |row| row.get(0))?,
        };
        for (run, sequence) in begun.into_iter().zip(last + 1..) {
            if let Some(Some(facts)) = self.runs.get(&run) {
                pipelines.push(facts.pipeline.clone());
            }
            let statement =
                "INSERT OR REPLACE INTO runs (run, pipeline, sequence, is_open, document)
                 VALUES (?1, '', ?2, 1, '')";
            self.transaction
                .prepare(statement)?
                .execute((run.as_str(), sequence))?;
        }
        for (run, facts) in self.runs.drain() {
            let Some(facts) = facts else { continue };
            let statement =
                "UPDATE runs SET pipeline = ?2, is_open = ?3, document = ?4 WHERE run = ?1";
            let values = (
                run.as_str(),
                &facts.pipeline,
                facts.is_open(),
                to_json(&facts)?,
            );
            self.transaction.prepare(statement)?.execute(values)?;
        }
        for ((run, digest, stage), seen) in self.observations.drain() {
            let statement = "INSERT OR REPLACE INTO observations
                 (run, digest, stage, id, role, document) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let (id, role) = (&seen.plugin.id, &seen.plugin.role);
            let values = (
                run.as_str(),
                digest.to_string(),
                stage,
                id,
                role,
                to_json(&seen)?,
            );
            self.transaction.prepare(statement)?.execute(values)?;
        }
        for (digest, record) in self.standings.drain() {
            let Some(record) = record else { continue };
            let statement =
                "INSERT OR REPLACE INTO standings (digest, id, document) VALUES (?1, ?2, ?3)";
            let values = (digest.to_string(), &record.plugin.id, to_json(&record)?);
            self.transaction.prepare(statement)?.execute(values)?;
        }
        pipelines.sort_unstable();
        pipelines.dedup();
        pipelines
            .iter()
            .try_for_each(|pipeline| self.forget(pipeline))
    }

    /// Lets go of the oldest runs of a pipeline.
    fn forget(&self, pipeline: &str) -> Sql<()> {
        const OLD: &str = "SELECT run FROM runs WHERE pipeline = ?1
             ORDER BY sequence DESC LIMIT -1 OFFSET ?2";
        for table in ["observations", "runs"] {
            let statement = format!("DELETE FROM {table} WHERE run IN ({OLD})");
            self.transaction.execute(&statement, (pipeline, MAX_RUNS))?;
        }
        Ok(())
    }
}

impl Memory for Folding<'_> {
    type Error = rusqlite::Error;

    fn run(&mut self, run: &RunId) -> Sql<Option<&mut RunFacts>> {
        let facts = match self.runs.entry(run.clone()) {
            hash_map::Entry::Occupied(known) => known.into_mut(),
            hash_map::Entry::Vacant(unknown) => {
                let statement = "SELECT document FROM runs WHERE run = ?1";
                unknown.insert(document(self.transaction, statement, [run.as_str()])?)
            }
        };
        Ok(facts.as_mut())
    }

    fn begin_run(&mut self, run: &RunId, facts: RunFacts) -> Sql<()> {
        self.runs.insert(run.clone(), Some(facts));
        self.begun.push(run.clone());
        Ok(())
    }

    fn observation(
        &mut self,
        run: &RunId,
        plugin: &PluginRef,
        stage: &str,
    ) -> Sql<&mut Observation> {
        let key = (run.clone(), plugin.digest, stage.to_owned());
        Ok(match self.observations.entry(key) {
            hash_map::Entry::Occupied(known) => known.into_mut(),
            hash_map::Entry::Vacant(unknown) => {
                let statement = "SELECT document FROM observations
                     WHERE run = ?1 AND digest = ?2 AND stage = ?3";
                let values = (run.as_str(), plugin.digest.to_string(), stage);
                let kept = document(self.transaction, statement, values)?;
                let new = || Observation::new(plugin.clone(), run.clone(), stage.to_owned());
                unknown.insert(kept.unwrap_or_else(new))
            }
        })
    }

    fn standing(&mut self, digest: &Digest) -> Sql<Option<&mut StandingRecord>> {
        let record = match self.standings.entry(*digest) {
            hash_map::Entry::Occupied(known) => known.into_mut(),
            hash_map::Entry::Vacant(unknown) => {
                unknown.insert(document(self.transaction, STANDING, [digest.to_string()])?)
            }
        };
        Ok(record.as_mut())
    }

    fn set_standing(&mut self, record: StandingRecord) -> Sql<()> {
        self.standings.insert(record.plugin.digest, Some(record));
        Ok(())
    }

    fn has_standings(&mut self) -> Sql<bool> {
        if self.standings.values().any(Option::is_some) {
            return Ok(true);
        }
        let statement = "SELECT EXISTS (SELECT 1 FROM standings)";
        self.transaction.query_row(statement, [], |row| row.get(0))
    }

    fn remember(&mut self, digest: &Digest, entry: &Entry) -> Sql<()> {
        let statement =
            "INSERT OR REPLACE INTO history (digest, sequence, document) VALUES (?1, ?2, ?3)";
        let sequence = i64::try_from(entry.sequence).unwrap_or(i64::MAX);
        let values = (digest.to_string(), sequence, to_json(entry)?);
        self.transaction.prepare(statement)?.execute(values)?;
        Ok(())
    }
}
