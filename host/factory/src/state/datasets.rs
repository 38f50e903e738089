//! Datasets that runs have made.

use rusqlite::params;
use sandcast_audit::RunId;
use sandcast_estate::Dataset;
use serde::{Deserialize, Serialize};

use super::{State, StateError, from_json, parsed, to_json};
use crate::clock;

/// A dataset that a run has made, or found made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetRecord {
    /// The dataset.
    pub dataset: Dataset,
    /// The name of the pipeline.
    pub pipeline: String,
    /// The stage, such as `connect branch`.
    pub stage: String,
    /// The run that had it last.
    pub run: RunId,
    /// When, RFC 3339.
    pub seen: String,
}

impl State {
    /// Remembers a dataset. Its blobs are there already.
    pub(crate) fn see_dataset(&self, record: &DatasetRecord) -> Result<(), StateError> {
        self.write("remember a dataset", |transaction| {
            let statement = "INSERT OR REPLACE INTO datasets
                    (digest, name, pipeline, stage, run, seen, document)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let values = params![
                record.dataset.digest.to_string(),
                record.dataset.name,
                record.pipeline,
                record.stage,
                record.run.to_string(),
                clock::now(),
                to_json(&record.dataset)?,
            ];
            transaction.execute(statement, values).map(|_| ())
        })
    }

    /// All datasets, the latest first.
    pub(crate) fn datasets(&self) -> Result<Vec<DatasetRecord>, StateError> {
        self.read("list the datasets", |connection| {
            let mut statement = connection.prepare(
                "SELECT document, pipeline, stage, run, seen FROM datasets
                 ORDER BY seen DESC, stage DESC",
            )?;
            let rows = statement.query_map([], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get::<_, String>(3)?,
                    row.get(4)?,
                ))
            })?;
            rows.map(|row| {
                let (document, pipeline, stage, run, seen) = row?;
                let (dataset, run) = (from_json(&document)?, parsed(&run)?);
                Ok(DatasetRecord {
                    dataset,
                    pipeline,
                    stage,
                    run,
                    seen,
                })
            })
            .collect()
        })
    }
}
