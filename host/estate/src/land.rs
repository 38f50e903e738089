//! From a source to a dataset: every split is read once, by an instance of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::common::runtime::SpawnedTask;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use futures::stream::{self, StreamExt, TryStreamExt};
use sandcast_audit::Digest;
use sandcast_sandbox::{CallContext, CallError, Plugin};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::blobs::BlobStore;
use crate::connector_table::{ConnectorTable, Source, SplitNews, call_error};
use crate::rejects::RejectWriter;
use crate::rows::{RowWriter, WriteError};
use crate::{BlobRef, Dataset, Estate, Progress, ProgressSink, Quarantine, SourceRef, SplitRef};

/// A source to be read.
#[derive(Clone)]
pub struct LandRequest {
    /// The name of the source; also of the dataset.
    pub name: String,
    /// The connector.
    pub plugin: Plugin,
    /// Its configuration, an object.
    pub config: serde_json::Value,
    /// On whose behalf.
    pub context: CallContext,
    /// Told how far it has come.
    pub progress: Option<ProgressSink>,
}

/// Why a source did not land. Nothing of it is kept as a dataset then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LandError {
    /// The connector failed before it read anything.
    #[error("source `{source_name}` cannot be opened")]
    Open {
        /// The source.
        source_name: String,
        /// What the call came to.
        source: CallError,
    },
    /// The connector failed while it read.
    #[error("source `{source_name}` cannot be read at split `{split}`")]
    Split {
        /// The source.
        source_name: String,
        /// The part of it.
        split: String,
        /// What the call came to.
        source: CallError,
    },
    /// Rows that were read are neither landed nor in quarantine.
    #[error(
        "source `{source_name}` lost rows at split `{split}`: {read} were read, {landed} landed, {rejected} were rejected"
    )]
    RowsLost {
        /// The source.
        source_name: String,
        /// The part of it.
        split: String,
        /// Rows the connector says it read.
        read: u64,
        /// Rows kept.
        landed: u64,
        /// Rows put aside.
        rejected: u64,
    },
    /// The rows cannot be kept.
    #[error("the rows of source `{source_name}` cannot be kept")]
    Write {
        /// The source.
        source_name: String,
        /// Why not.
        source: WriteError,
    },
    /// The engine that reads tables failed.
    #[error("source `{source_name}` cannot be read as a table: {message}")]
    Engine {
        /// The source.
        source_name: String,
        /// What it said.
        message: String,
    },
}

/// What became of one split.
struct LandedSplit {
    split: SplitRef,
    blobs: Vec<BlobRef>,
    quarantine: Quarantine,
}

impl Estate {
    /// Reads every row of a source. Rows that do not fit its schema go to quarantine. Splits are
    /// read side by side and kept in the order in which the connector lists them, so the digest
    /// does not depend on how many are read at a time.
    ///
    /// # Errors
    /// When the connector fails, rows would be lost, or rows cannot be kept.
    #[tracing::instrument(name = "estate.land", skip_all, fields(source = %request.name, plugin.id = %request.plugin.reference().id))]
    pub async fn land(&self, request: LandRequest) -> Result<Dataset, LandError> {
        let LandRequest {
            name,
            plugin,
            config,
            context,
            progress,
        } = request;
        let reference = plugin.reference().clone();
        let config_digest = Digest::of_json(&config);
        let source = Source {
            name: name.clone(),
            plugin,
            config,
            context,
        };
        let table = ConnectorTable::open(source)
            .await
            .map_err(|source| LandError::Open {
                source_name: name.clone(),
                source,
            })?;
        let schema = table.schema();
        let splits = self.land_splits(&name, table, progress).await?;

        let mut quarantine = Quarantine::default();
        for landed in &splits {
            quarantine.add(&landed.quarantine);
        }
        let blobs: Vec<BlobRef> = splits
            .iter()
            .flat_map(|landed| landed.blobs.iter().copied())
            .collect();
        let sources = vec![SourceRef {
            name: name.clone(),
            plugin: reference,
            config: config_digest,
            splits: splits.into_iter().map(|landed| landed.split).collect(),
        }];
        Ok(Dataset::new(name, schema, blobs, sources, None, quarantine))
    }

    async fn land_splits(
        &self,
        name: &str,
        table: ConnectorTable,
        progress: Option<ProgressSink>,
    ) -> Result<Vec<LandedSplit>, LandError> {
        if table.splits().is_empty() {
            return Ok(Vec::new());
        }
        let engine = |error: DataFusionError| LandError::Engine {
            source_name: name.to_owned(),
            message: error.strip_backtrace(),
        };
        let context = SessionContext::new();
        let plan = context
            .read_table(Arc::new(table.clone()))
            .map_err(engine)?;
        let plan = plan.create_physical_plan().await.map_err(engine)?;
        let task = context.task_ctx();
        let meter = Arc::new(Meter {
            rows: AtomicU64::new(0),
            total: table.splits().iter().map(|split| split.rows).sum(),
            sink: progress,
        });
        let store = Arc::clone(self.store());
        let lands = (0..table.splits().len()).map(|place| {
            let lander = SplitLander {
                name: name.to_owned(),
                place,
                table: table.clone(),
                plan: Arc::clone(&plan),
                store: Arc::clone(&store),
                meter: Arc::clone(&meter),
            };
            let task = Arc::clone(&task);
            async move {
                // A task of its own, so that guests run on several cores; aborted when dropped.
                SpawnedTask::spawn(lander.land(task))
                    .join_unwind()
                    .await
                    .map_err(|error| LandError::Engine {
                        source_name: name.to_owned(),
                        message: error.to_string(),
                    })?
            }
        });
        stream::iter(lands)
            .buffered(self.parallelism().get())
            .try_collect()
            .await
    }
}

struct SplitLander {
    name: String,
    place: usize,
    table: ConnectorTable,
    plan: Arc<dyn ExecutionPlan>,
    store: Arc<BlobStore>,
    meter: Arc<Meter>,
}

impl SplitLander {
    async fn land(
        self,
        task: Arc<datafusion::execution::TaskContext>,
    ) -> Result<LandedSplit, LandError> {
        let split = self.table.splits()[self.place].clone();
        let news = self.table.listen(self.place);
        let rows = self
            .plan
            .execute(self.place, task)
            .map_err(|error| self.failed(&split.id, error))?;
        let keep_rows = async {
            let mut rows = rows;
            let mut writer = RowWriter::new(&self.store, &self.table.schema());
            while let Some(batch) = rows
                .try_next()
                .await
                .map_err(|error| self.failed(&split.id, error))?
            {
                writer
                    .write(batch)
                    .await
                    .map_err(|source| self.unkept(source))?;
            }
            // The stream holds the other end of the news.
            drop(rows);
            writer.finish().await.map_err(|source| self.unkept(source))
        };
        let (blobs, told) = futures::try_join!(keep_rows, self.keep_rejects(&split.id, news))?;

        let landed: u64 = blobs.iter().map(|blob| blob.rows).sum();
        if told.read != landed + told.quarantine.rows {
            return Err(LandError::RowsLost {
                source_name: self.name,
                split: split.id,
                read: told.read,
                landed,
                rejected: told.quarantine.rows,
            });
        }
        let split = SplitRef {
            id: split.id,
            version: split.version,
            rows: told.read,
            rejected: told.quarantine.rows,
            cursor: told.cursor,
        };
        Ok(LandedSplit {
            split,
            blobs,
            quarantine: told.quarantine,
        })
    }

    async fn keep_rejects(
        &self,
        split: &str,
        mut news: mpsc::Receiver<SplitNews>,
    ) -> Result<Told, LandError> {
        let mut told = Told {
            read: 0,
            cursor: None,
            quarantine: Quarantine::default(),
        };
        let mut writer = RejectWriter::new(&self.store, &self.name, split);
        while let Some(news) = news.recv().await {
            match news {
                SplitNews::Read { rows, rejects } => {
                    told.read += rows;
                    self.meter.add(rows);
                    writer
                        .write(&rejects)
                        .await
                        .map_err(|source| self.unkept(source))?;
                }
                SplitNews::End { cursor } => told.cursor = cursor,
            }
        }
        told.quarantine = writer
            .finish()
            .await
            .map_err(|source| self.unkept(source))?;
        Ok(told)
    }

    fn failed(&self, split: &str, error: DataFusionError) -> LandError {
        let source_name = self.name.clone();
        match call_error(error) {
            Ok(source) => LandError::Split {
                source_name,
                split: split.to_owned(),
                source,
            },
            Err(error) => LandError::Engine {
                source_name,
                message: error.strip_backtrace(),
            },
        }
    }

    fn unkept(&self, source: WriteError) -> LandError {
        LandError::Write {
            source_name: self.name.clone(),
            source,
        }
    }
}

/// What a split told of itself.
struct Told {
    read: u64,
    cursor: Option<String>,
    quarantine: Quarantine,
}

struct Meter {
    rows: AtomicU64,
    total: Option<u64>,
    sink: Option<ProgressSink>,
}

impl Meter {
    fn add(&self, rows: u64) {
        let rows = self.rows.fetch_add(rows, Ordering::Relaxed) + rows;
        if let Some(sink) = &self.sink {
            sink(Progress {
                rows,
                total: self.total,
            });
        }
    }
}

impl Quarantine {
    /// Puts another one's rows after these.
    pub(crate) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.blobs.extend_from_slice(&other.blobs);
        for (reason, rows) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += rows;
        }
    }

    pub(crate) fn new(blobs: Vec<BlobRef>, reasons: BTreeMap<String, u64>) -> Self {
        Self {
            rows: blobs.iter().map(|blob| blob.rows).sum(),
            reasons,
            blobs,
        }
    }
}
