//! DataFusion, set up so that it reads datasets and nothing else.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{Expr, LogicalPlan, TableType, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;

use crate::blobs::BlobStore;
use crate::{BlobRef, Dataset};

/// Where the engine finds blobs.
const BLOBS: &str = "sandcast://blobs";

/// A context without tables. It has no way to any file but the blobs.
pub(super) fn start(
    store: &Arc<BlobStore>,
    spill_folder: &Path,
    memory_bytes: usize,
) -> Result<SessionContext> {
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_information_schema(false);
    // A query that feeds itself might never end.
    config.options_mut().execution.enable_recursive_ctes = false;
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_limit(memory_bytes, 1.0)
        .with_temp_file_path(spill_folder)
        .build_arc()?;
    runtime.deregister_object_store(ObjectStoreUrl::local_filesystem().as_ref())?;
    runtime.register_object_store(ObjectStoreUrl::parse(BLOBS)?.as_ref(), store.object_store());
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .build();
    Ok(SessionContext::new_with_state(state))
}

/// What a statement is, unless it is a SELECT.
pub(super) fn other_than_select(statement: &Statement) -> Option<String> {
    if let Statement::Statement(inner) = statement
        && matches!(**inner, SqlStatement::Query(_))
    {
        return None;
    }
    let text = statement.to_string();
    Some(
        text.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" "),
    )
}

/// Refuses a plan that would change anything.
pub(super) fn only_reads(plan: &LogicalPlan) -> Result<()> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
}

/// A function in a plan whose value is not a function of its arguments alone.
pub(super) fn changing_function(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if let Expr::ScalarFunction(call) = part
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    found = Some(call.func.name().to_owned());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// A dataset as a table: one partition, its files in order.
#[derive(Debug)]
pub(super) struct DatasetTable {
    schema: SchemaRef,
    blobs: Vec<BlobRef>,
    rows: u64,
}

impl DatasetTable {
    pub(super) fn new(dataset: &Dataset) -> Self {
        Self {
            schema: Arc::clone(&dataset.schema),
            blobs: dataset.blobs.clone(),
            rows: dataset.rows,
        }
    }
}

#[async_trait]
impl TableProvider for DatasetTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.blobs.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => Arc::clone(&self.schema),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let files = self
            .blobs
            .iter()
            .map(|blob| PartitionedFile::new(BlobStore::place(&blob.digest), blob.bytes));
        let rows = usize::try_from(self.rows).map_or(Precision::Absent, Precision::Exact);
        let source = Arc::new(ParquetSource::new(Arc::clone(&self.schema)));
        let scan = FileScanConfigBuilder::new(ObjectStoreUrl::parse(BLOBS)?, source)
            .with_file_group(FileGroup::new(files.collect()))
            .with_statistics(Statistics::new_unknown(&self.schema).with_num_rows(rows))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_preserve_order(true)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}
