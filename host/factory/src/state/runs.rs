//! The record of runs.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sandcast_audit::{Digest, Event, RunId};
use serde::{Deserialize, Serialize};

use super::{State, StateError, from_json, parsed, post, to_json};
use crate::clock;

/// What is remembered of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run.
    pub run: RunId,
    /// The name of its pipeline.
    pub pipeline: String,
    /// The digest of what the pipeline file said.
    pub config: Digest,
    /// The seed of everything random.
    pub seed: u64,
    /// When it began, RFC 3339.
    pub started: String,
    /// When it ended, RFC 3339.
    pub finished: Option<String>,
    /// How it went.
    pub status: RunStatus,
    /// The stage in which it stopped, if it did not complete.
    pub stage: Option<String>,
    /// Why it stopped.
    pub reasons: Vec<String>,
    /// The name of the model it registered.
    pub model: Option<String>,
    /// The version of the model it registered.
    pub version: Option<u64>,
    /// Its stages, in order. Empty in a list of runs.
    pub stages: Vec<StageRecord>,
}

/// How a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunStatus {
    /// It goes on.
    Running,
    /// Its model was registered.
    Completed,
    /// Data, a policy, the gate or a plugin stopped it.
    Rejected,
    /// Something of the host stopped it.
    Failed,
    /// A person stopped it.
    Cancelled,
    /// Its process ended without a word. What it had done is kept.
    Interrupted,
}

impl RunStatus {
    /// The name in the record and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "running",
            RunStatus::Completed => "completed",
            RunStatus::Rejected => "rejected",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
            RunStatus::Interrupted => "interrupted",
        }
    }
}

impl std::fmt::Display for RunStatus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What is remembered of a stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The stage, such as `connect branch`.
    pub stage: String,
    /// How it went.
    pub status: StageStatus,
    /// The digest of everything that went in.
    pub key: Option<Digest>,
    /// The digest of what came out.
    pub output: Option<Digest>,
    /// Whether the output was there from an earlier run.
    pub cached: bool,
    /// How long it took.
    pub seconds: f64,
    /// Rows that went in.
    pub rows_in: Option<u64>,
    /// Rows that came out.
    pub rows_out: Option<u64>,
    /// Rows that went to quarantine.
    pub rows_quarantined: Option<u64>,
    /// What it came to, or why it stopped, in a sentence.
    pub message: String,
}

/// How a stage went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageStatus {
    /// It is done.
    Done,
    /// It said no.
    Rejected,
    /// It could not be done.
    Failed,
}

const COLUMNS: &str = "id, pipeline, config, seed, started, finished, status, stage, reasons, \
                       model, version";

impl State {
    /// Writes down that a run has begun, and posts the entry that says so.
    pub(crate) fn begin_run(&self, record: &RunRecord) -> Result<(), StateError> {
        self.write("record the run", |transaction| {
            let statement = "INSERT INTO runs (id, pipeline, config, seed, started, status)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let values = params![
                record.run.to_string(),
                record.pipeline,
                record.config.to_string(),
                record.seed.to_string(),
                record.started,
                record.status.as_str(),
            ];
            transaction.execute(statement, values)?;
            let event = Event::RunStarted {
                run: record.run.clone(),
                pipeline: record.pipeline.clone(),
                config: record.config,
            };
            post(transaction, self.key(), &event)
        })
    }

    /// Adds a stage to a run.
    pub(crate) fn add_stage(&self, run: &RunId, stage: &StageRecord) -> Result<(), StateError> {
        self.write("record a stage", |transaction| {
            let statement = "INSERT INTO run_stages (run, ordinal, stage, record) VALUES (?1,
                    (SELECT count(*) FROM run_stages WHERE run = ?1), ?2, ?3)";
            let values = params![run.to_string(), stage.stage, to_json(stage)?];
            transaction.execute(statement, values).map(|_| ())
        })
    }

    /// Writes down how a run has ended, and posts the entry that says so. A run ends once: where it
    /// has, nothing is written.
    pub(crate) fn end_run(&self, record: &RunRecord) -> Result<(), StateError> {
        self.write("record the end of the run", |transaction| {
            let statement = "UPDATE runs SET finished = ?2, status = ?3, stage = ?4, reasons = ?5,
                        model = ?6, version = ?7
                 WHERE id = ?1 AND status = 'running'";
            let values = params![
                record.run.to_string(),
                record.finished,
                record.status.as_str(),
                record.stage,
                to_json(&record.reasons)?,
                record.model,
                record.version.map(|version| version as i64),
            ];
            if transaction.execute(statement, values)? == 0 {
                return Ok(());
            }
            let reasons = &record.reasons;
            let event = Event::RunFinished {
                run: record.run.clone(),
                outcome: record.status.as_str().to_owned(),
                message: (!reasons.is_empty()).then(|| reasons.join("; ")),
            };
            post(transaction, self.key(), &event)
        })
    }

    /// Marks runs whose process is gone, and posts the entries that say so. Only whoever holds the
    /// lock of runs may ask for this.
    pub(crate) fn mark_interrupted(&self) -> Result<Vec<RunId>, StateError> {
        self.write("mark interrupted runs", |transaction| {
            let mut statement = transaction.prepare(
                "UPDATE runs SET status = 'interrupted', finished = ?1
                 WHERE status = 'running' RETURNING id",
            )?;
            let ids = statement.query_map([clock::now()], |row| row.get::<_, String>(0))?;
            let runs: Vec<RunId> = ids.map(|id| parsed(&id?)).collect::<Result<_, _>>()?;
            for run in &runs {
                let event = Event::RunFinished {
                    run: run.clone(),
                    outcome: RunStatus::Interrupted.as_str().to_owned(),
                    message: None,
                };
                post(transaction, self.key(), &event)?;
            }
            Ok(runs)
        })
    }

    /// All runs, the latest first, without their stages.
    pub(crate) fn runs(&self) -> Result<Vec<RunRecord>, StateError> {
        self.read("list the runs", |connection| {
            let mut statement =
                connection.prepare(&format!("SELECT {COLUMNS} FROM runs ORDER BY id DESC"))?;
            let records = statement.query_map([], |row| Ok(of_row(row)))?;
            records.map(|record| record?).collect()
        })
    }

    /// One run with its stages.
    pub(crate) fn run(&self, run: &RunId) -> Result<Option<RunRecord>, StateError> {
        self.read("look up a run", |connection| {
            let statement = format!("SELECT {COLUMNS} FROM runs WHERE id = ?1");
            let found = connection
                .query_row(&statement, [run.to_string()], |row| Ok(of_row(row)))
                .optional()?;
            let Some(record) = found else { return Ok(None) };
            let mut record = record?;
            record.stages = stages_of(connection, run)?;
            Ok(Some(record))
        })
    }
}

fn stages_of(connection: &Connection, run: &RunId) -> Result<Vec<StageRecord>, rusqlite::Error> {
    let mut statement =
        connection.prepare("SELECT record FROM run_stages WHERE run = ?1 ORDER BY ordinal")?;
    let records = statement.query_map([run.to_string()], |row| row.get::<_, String>(0))?;
    records.map(|record| from_json(&record?)).collect()
}

fn of_row(row: &Row<'_>) -> Result<RunRecord, rusqlite::Error> {
    let text = |column: usize| row.get::<_, String>(column);
    Ok(RunRecord {
        run: parsed(&text(0)?)?,
        pipeline: text(1)?,
        config: parsed(&text(2)?)?,
        seed: parsed(&text(3)?)?,
        started: text(4)?,
        finished: row.get(5)?,
        status: from_json(&format!("\"{}\"", text(6)?))?,
        stage: row.get(7)?,
        reasons: from_json(&text(8)?)?,
        model: row.get(9)?,
        version: row.get::<_, Option<i64>>(10)?.map(|version| version as u64),
        stages: Vec::new(),
    })
}
