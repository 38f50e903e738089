//! A source as a table of DataFusion: one partition for each split, one instance of the connector
//! for each partition that is read.
//!
//! A partition starts its instance when it is first polled, so whoever executes the plan decides
//! how many run at a time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result as DataFusionResult, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType,
};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::stream;
use sandcast_sandbox::{
    CallContext, CallError, Comparison, Connector, Filter, Literal, Plugin, Reject, ScanRequest,
    Split,
};
use tokio::sync::mpsc;

/// How a source is reached.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) plugin: Plugin,
    pub(crate) config: serde_json::Value,
    pub(crate) context: CallContext,
}

impl Source {
    async fn connect(&self) -> Result<Connector, CallError> {
        self.plugin.connector(&self.context, &self.config).await
    }
}

/// What a partition tells of its split beside the rows that fit.
pub(crate) enum SplitNews {
    /// Rows were read; these did not fit.
    Read { rows: u64, rejects: Vec<Reject> },
    /// The split was read to its end.
    End { cursor: Option<String> },
}

/// How many pieces of news may wait.
const NEWS_WAITING: usize = 4;

/// A source whose columns and splits are known.
#[derive(Clone)]
pub(crate) struct ConnectorTable {
    source: Arc<Source>,
    schema: SchemaRef,
    splits: Arc<[Split]>,
    /// For each split, where its news go; nobody listens where there is none.
    listeners: Arc<[Mutex<Option<mpsc::Sender<SplitNews>>>]>,
}

impl ConnectorTable {
    /// Asks a connector for its columns and splits, with an instance of its own.
    pub(crate) async fn open(source: Source) -> Result<Self, CallError> {
        let mut connector = source.connect().await?;
        let schema = connector.schema().await?;
        let splits: Arc<[Split]> = connector.partitions().await?.into();
        connector.finish()?;
        let listeners = splits.iter().map(|_| Mutex::new(None)).collect();
        Ok(Self {
            source: Arc::new(source),
            schema,
            splits,
            listeners,
        })
    }

    pub(crate) fn splits(&self) -> &[Split] {
        &self.splits
    }

    /// What a split tells when it is read next. The channel closes when it has been read.
    pub(crate) fn listen(&self, split: usize) -> mpsc::Receiver<SplitNews> {
        let (sender, receiver) = mpsc::channel(NEWS_WAITING);
        *self.listeners[split]
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }
}

impl fmt::Debug for ConnectorTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "ConnectorTable({}, {} splits)",
            self.source.name,
            self.splits.len()
        )
    }
}

#[async_trait]
impl TableProvider for ConnectorTable {
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
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        if self.splits.is_empty() {
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let names = |columns: &Vec<usize>| {
            columns
                .iter()
                .map(|place| self.schema.field(*place).name().clone())
                .collect()
        };
        Ok(Arc::new(ConnectorScan {
            properties: Arc::new(PlanProperties::new(
                EquivalenceProperties::new(Arc::clone(&schema)),
                Partitioning::UnknownPartitioning(self.splits.len()),
                EmissionType::Incremental,
                Boundedness::Bounded,
            )),
            table: self.clone(),
            schema,
            projection: projection.map(names),
            filters: filters.iter().filter_map(as_filter).collect(),
            limit: limit.map(|rows| rows as u64),
        }))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        // A connector may skip rows by a filter, but its word for it is not taken.
        Ok(filters
            .iter()
            .map(|filter| match as_filter(filter) {
                Some(_) => TableProviderFilterPushDown::Inexact,
                None => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }
}

/// A condition in the contract's words: a column compared with a constant.
fn as_filter(filter: &Expr) -> Option<Filter> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else {
        return None;
    };
    let (column, value, turned) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, value, false),
        (Expr::Literal(value, _), Expr::Column(column)) => (column, value, true),
        _ => return None,
    };
    let comparison = match (op, turned) {
        (Operator::Eq, _) => Comparison::Equal,
        (Operator::NotEq, _) => Comparison::NotEqual,
        (Operator::Lt, false) | (Operator::Gt, true) => Comparison::Less,
        (Operator::LtEq, false) | (Operator::GtEq, true) => Comparison::LessOrEqual,
        (Operator::Gt, false) | (Operator::Lt, true) => Comparison::Greater,
        (Operator::GtEq, false) | (Operator::LtEq, true) => Comparison::GreaterOrEqual,
        _ => return None,
    };
    let literal = match value {
        ScalarValue::Boolean(Some(value)) => Literal::Boolean(*value),
        ScalarValue::Int64(Some(value)) => Literal::Int64(*value),
        ScalarValue::Float64(Some(value)) => Literal::Float64(*value),
        ScalarValue::Utf8(Some(value)) | ScalarValue::Utf8View(Some(value)) => {
            Literal::Utf8(value.clone())
        }
        _ => return None,
    };
    Some(Filter {
        column: column.name.clone(),
        comparison,
        literal,
    })
}

/// Reads a source.
#[derive(Debug)]
struct ConnectorScan {
    table: ConnectorTable,
    schema: SchemaRef,
    projection: Option<Vec<String>>,
    filters: Vec<Filter>,
    limit: Option<u64>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for ConnectorScan {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            table,
            projection,
            filters,
            limit,
            ..
        } = self;
        write!(
            formatter,
            "ConnectorScan: source={}, splits={}, projection={projection:?}, filters={filters:?}, limit={limit:?}",
            table.source.name,
            table.splits.len()
        )
    }
}

impl ExecutionPlan for ConnectorScan {
    fn name(&self) -> &'static str {
        "ConnectorScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        _: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let split = self.table.splits.get(partition).cloned().ok_or_else(|| {
            DataFusionError::Internal(format!(
                "source {} has no split {partition}",
                self.table.source.name
            ))
        })?;
        let reader = SplitReader {
            source: Arc::clone(&self.table.source),
            schema: Arc::clone(&self.schema),
            request: ScanRequest {
                split,
                projection: self.projection.clone(),
                filters: self.filters.clone(),
                limit: self.limit,
                cursor: None,
            },
            news: self.table.listeners[partition]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
            connector: None,
            rows_given: 0,
        };
        let rows = stream::try_unfold(reader, SplitReader::next);
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            rows,
        )))
    }
}

/// Reads one split.
struct SplitReader {
    source: Arc<Source>,
    schema: SchemaRef,
    request: ScanRequest,
    news: Option<mpsc::Sender<SplitNews>>,
    /// There from the first poll on.
    connector: Option<Connector>,
    rows_given: u64,
}

impl SplitReader {
    async fn next(mut self) -> DataFusionResult<Option<(RecordBatch, Self)>> {
        let mut connector = match self.connector.take() {
            Some(connector) => connector,
            None => {
                let mut connector = self.source.connect().await.map_err(external)?;
                connector.scan(&self.request).await.map_err(external)?;
                connector
            }
        };
        while self
            .request
            .limit
            .is_none_or(|limit| self.rows_given < limit)
        {
            let Some(chunk) = connector.next().await.map_err(external)? else {
                let cursor = connector.cursor().await.map_err(external)?;
                self.tell(SplitNews::End { cursor }).await;
                break;
            };
            self.tell(SplitNews::Read {
                rows: chunk.rows_read,
                rejects: chunk.rejects,
            })
            .await;
            if let Some(batch) = chunk.batch.filter(|batch| batch.num_rows() > 0) {
                self.rows_given += batch.num_rows() as u64;
                // The sandbox has checked the columns; this gives them the table's own schema.
                let batch =
                    RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())?;
                self.connector = Some(connector);
                return Ok(Some((batch, self)));
            }
        }
        connector.finish().map_err(external)?;
        Ok(None)
    }

    async fn tell(&self, news: SplitNews) {
        if let Some(listener) = &self.news
            && listener.send(news).await.is_err()
        {
            // Whoever listened has given up; so will whoever polls this stream.
            tracing::debug!(source = %self.source.name, split = %self.request.split.id, "nobody listens any more");
        }
    }
}

fn external(error: CallError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The error of a connector inside an error of DataFusion.
pub(crate) fn call_error(error: DataFusionError) -> Result<CallError, DataFusionError> {
    match error {
        DataFusionError::External(inner) => inner
            .downcast::<CallError>()
            .map(|error| *error)
            .map_err(DataFusionError::External),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            call_error(*inner)
        }
        other => Err(other),
    }
}
