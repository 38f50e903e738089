//! SQL over datasets. The order of the rows, like everything else about the result, is a function
//! of the query and the datasets: plans run in one partition, and where a plan has several (as
//! under UNION ALL) they are read one after the other.

mod engine;
mod in_order;
mod message;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::FormatOptions;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use sandcast_sandbox::{CallError, Field, Kind, schema_of};
use thiserror::Error;

use crate::blobs::BlobError;
use crate::connector_table::{ConnectorTable, Source, call_error};
use crate::rows::{RowWriter, WriteError};
use crate::{Dataset, Estate, LandRequest, Progress, ProgressSink, Quarantine, SourceRef};

/// Why a query gave no dataset.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The query does not make sense.
    #[error("the sql of dataset `{dataset}` is wrong: {message}")]
    Sql {
        /// The dataset it was to make.
        dataset: String,
        /// What is wrong, the nearest name, and which tables and columns exist.
        message: String,
    },
    /// The query does something other than select.
    #[error("the sql of dataset `{dataset}` must be one SELECT, not {found}")]
    NotASelect {
        /// The dataset it was to make.
        dataset: String,
        /// What it is.
        found: String,
    },
    /// The query would give other rows another time.
    #[error(
        "the sql of dataset `{dataset}` calls `{function}`, whose value changes from run to run; write the value itself"
    )]
    Volatile {
        /// The dataset it was to make.
        dataset: String,
        /// The function.
        function: String,
    },
    /// A column of the result is of a type that plugins do not know.
    #[error(
        "column `{column}` of dataset `{dataset}` is {found}, which plugins do not know; CAST it to a number, text, date or timestamp"
    )]
    ColumnType {
        /// The dataset it was to make.
        dataset: String,
        /// The column.
        column: String,
        /// Its type.
        found: DataType,
    },
    /// Two columns of the result have one name.
    #[error("dataset `{dataset}` would have two columns `{column}`; give one another name with AS")]
    ColumnTwice {
        /// The dataset it was to make.
        dataset: String,
        /// The name.
        column: String,
    },
    /// Two tables have one name.
    #[error("two tables are named `{table}`")]
    TableTwice {
        /// The name.
        table: String,
    },
    /// The query failed while it ran.
    #[error("the sql of dataset `{dataset}` failed: {message}")]
    Run {
        /// The dataset it was to make.
        dataset: String,
        /// What happened.
        message: String,
    },
    /// A source that was asked failed.
    #[error("source `{dataset}` cannot be read")]
    Call {
        /// The source.
        dataset: String,
        /// What the call came to.
        source: CallError,
    },
    /// A table cannot be read.
    #[error("table `{table}` cannot be read")]
    Table {
        /// The table.
        table: String,
        /// What is wrong with its rows.
        source: BlobError,
    },
    /// The result cannot be kept.
    #[error("the rows of dataset `{dataset}` cannot be kept")]
    Write {
        /// The dataset.
        dataset: String,
        /// Why not.
        source: WriteError,
    },
}

impl Estate {
    /// Runs a SELECT over datasets, each under a name, and keeps the result. The columns of the
    /// result are brought to the kinds that plugins know: every whole number is an int64, every
    /// decimal a float64.
    ///
    /// # Errors
    /// When the query is wrong, does anything but select, calls a function that changes with
    /// time, runs out of memory, or its result cannot be kept.
    #[tracing::instrument(name = "estate.query", skip_all, fields(dataset = name))]
    pub async fn query(
        &self,
        name: &str,
        sql: &str,
        tables: &[(String, &Dataset)],
        progress: Option<ProgressSink>,
    ) -> Result<Dataset, QueryError> {
        let context = self.engine(name)?;
        for (table, dataset) in tables {
            for blob in &dataset.blobs {
                let failed = |source| QueryError::Table {
                    table: table.clone(),
                    source,
                };
                self.store().check(&blob.digest).await.map_err(failed)?;
            }
            register(
                &context,
                table,
                Arc::new(engine::DatasetTable::new(dataset)),
            )?;
        }
        let query = Query { name, context };
        let schemas: Vec<(&str, &Schema)> = tables
            .iter()
            .map(|(table, dataset)| (table.as_str(), dataset.schema.as_ref()))
            .collect();
        let plan = query.plan(sql, &schemas).await?;
        let schema = query.result_schema(plan.schema().as_arrow())?;

        let write_failed = |source| QueryError::Write {
            dataset: name.to_owned(),
            source,
        };
        let mut writer = RowWriter::new(self.store(), &schema);
        let mut rows = 0;
        let mut stream = query.stream(&plan).await?;
        while let Some(batch) = stream
            .try_next()
            .await
            .map_err(|error| query.failed(error))?
        {
            rows += batch.num_rows() as u64;
            writer
                .write(query.conform(&batch, &schema)?)
                .await
                .map_err(write_failed)?;
            if let Some(progress) = &progress {
                progress(Progress { rows, total: None });
            }
        }
        let blobs = writer.finish().await.map_err(write_failed)?;
        let mut sources: Vec<SourceRef> = Vec::new();
        for source in tables.iter().flat_map(|(_, dataset)| &dataset.sources) {
            if !sources.contains(source) {
                sources.push(source.clone());
            }
        }
        Ok(Dataset::new(
            name.to_owned(),
            schema,
            blobs,
            sources,
            Some(sql.to_owned()),
            Quarantine::default(),
        ))
    }

    /// Runs a SELECT over a source itself, without landing it: to look at a few rows. The table
    /// has the name of the source. Rows that do not fit are left out, and nothing is kept. The
    /// connector is told the columns, the conditions and the LIMIT.
    ///
    /// # Errors
    /// When the connector fails, or as [`query`](Self::query).
    pub async fn peek(
        &self,
        request: LandRequest,
        sql: &str,
    ) -> Result<Vec<RecordBatch>, QueryError> {
        let LandRequest {
            name,
            plugin,
            config,
            context,
            progress: _,
        } = request;
        let source = Source {
            name: name.clone(),
            plugin,
            config,
            context,
        };
        let table = ConnectorTable::open(source)
            .await
            .map_err(|source| QueryError::Call {
                dataset: name.clone(),
                source,
            })?;
        let schema = table.schema();
        let context = self.engine(&name)?;
        register(&context, &name, Arc::new(table))?;
        let query = Query {
            name: &name,
            context,
        };
        let plan = query.plan(sql, &[(&name, &schema)]).await?;
        let schema = query.result_schema(plan.schema().as_arrow())?;
        let mut batches = Vec::new();
        let mut stream = query.stream(&plan).await?;
        while let Some(batch) = stream
            .try_next()
            .await
            .map_err(|error| query.failed(error))?
        {
            batches.push(query.conform(&batch, &schema)?);
        }
        Ok(batches)
    }

    fn engine(&self, name: &str) -> Result<SessionContext, QueryError> {
        engine::start(self.store(), self.spill_folder(), self.query_memory_bytes()).map_err(
            |error| QueryError::Run {
                dataset: name.to_owned(),
                message: error.strip_backtrace(),
            },
        )
    }
}

fn register(
    context: &SessionContext,
    name: &str,
    table: Arc<dyn TableProvider>,
) -> Result<(), QueryError> {
    let twice = || QueryError::TableTwice {
        table: name.to_owned(),
    };
    let reference = datafusion::common::TableReference::bare(name);
    match context.register_table(reference, table) {
        Ok(None) => Ok(()),
        Ok(Some(_)) | Err(_) => Err(twice()),
    }
}

struct Query<'q> {
    /// The dataset it is to make.
    name: &'q str,
    context: SessionContext,
}

impl Query<'_> {
    /// From text to a plan that only selects.
    async fn plan(&self, sql: &str, tables: &[(&str, &Schema)]) -> Result<LogicalPlan, QueryError> {
        let wrong = |error| QueryError::Sql {
            dataset: self.name.to_owned(),
            message: message::explain(&error, tables),
        };
        let state = self.context.state();
        let dialect = state.config_options().sql_parser.dialect;
        let statement = state.sql_to_statement(sql, &dialect).map_err(wrong)?;
        if let Some(found) = engine::other_than_select(&statement) {
            return Err(QueryError::NotASelect {
                dataset: self.name.to_owned(),
                found,
            });
        }
        let plan = state.statement_to_plan(statement).await.map_err(wrong)?;
        engine::only_reads(&plan).map_err(wrong)?;
        match engine::changing_function(&plan).map_err(wrong)? {
            Some(function) => Err(QueryError::Volatile {
                dataset: self.name.to_owned(),
                function,
            }),
            None => Ok(plan),
        }
    }

    /// The rows of a plan.
    async fn stream(&self, plan: &LogicalPlan) -> Result<SendableRecordBatchStream, QueryError> {
        let plan = self.context.state().create_physical_plan(plan).await;
        plan.and_then(in_order::in_order)
            .and_then(|plan| plan.execute(0, self.context.task_ctx()))
            .map_err(|error| self.failed(error))
    }

    /// The schema of the result in kinds that plugins know.
    fn result_schema(&self, schema: &Schema) -> Result<SchemaRef, QueryError> {
        let dataset = || self.name.to_owned();
        let mut names = BTreeSet::new();
        let mut fields = Vec::new();
        for field in schema.fields() {
            let column = field.name().clone();
            let Some(kind) = kind_for(field.data_type()) else {
                return Err(QueryError::ColumnType {
                    dataset: dataset(),
                    column,
                    found: field.data_type().clone(),
                });
            };
            if !names.insert(column.clone()) {
                return Err(QueryError::ColumnTwice {
                    dataset: dataset(),
                    column,
                });
            }
            fields.push(Field {
                name: column,
                kind,
                nullable: field.is_nullable(),
            });
        }
        Ok(schema_of(&fields))
    }

    fn conform(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, QueryError> {
        let options = CastOptions {
            safe: false,
            format_options: FormatOptions::default(),
        };
        let columns: Result<Vec<_>, ArrowError> = batch
            .columns()
            .iter()
            .zip(schema.fields())
            .map(|(column, field)| cast_with_options(column, field.data_type(), &options))
            .collect();
        columns
            .and_then(|columns| RecordBatch::try_new(Arc::clone(schema), columns))
            .map_err(|error| QueryError::Run {
                dataset: self.name.to_owned(),
                message: error.to_string(),
            })
    }

    fn failed(&self, error: DataFusionError) -> QueryError {
        let dataset = self.name.to_owned();
        match call_error(error) {
            Ok(source) => QueryError::Call { dataset, source },
            Err(error) => QueryError::Run {
                dataset,
                message: message::plain(&error),
            },
        }
    }
}

/// The kind to which a column of a result is brought.
fn kind_for(found: &DataType) -> Option<Kind> {
    match found {
        DataType::Boolean => Some(Kind::Boolean),
        found if found.is_integer() => Some(Kind::Int64),
        found if found.is_floating() || found.is_decimal() => Some(Kind::Float64),
        // A column of nothing but NULL.
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            Some(Kind::Utf8)
        }
        DataType::Date32 | DataType::Date64 => Some(Kind::Date32),
        DataType::Timestamp(..) => Some(Kind::TimestampUs),
        DataType::Dictionary(_, values) => kind_for(values),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
