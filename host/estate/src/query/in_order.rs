//! Keeps a plan from letting its partitions race each other.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::limit::LimitStream;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use futures::stream::{self, StreamExt, TryStreamExt};

/// Makes a plan of one partition, in which partitions that are put together are read one after the
/// other. With one target partition the engine spreads rows nowhere; a plan that would is refused
/// rather than run in chance order.
pub(super) fn in_order(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|node| {
        if let Some(coalesce) = node.downcast_ref::<CoalescePartitionsExec>() {
            let chain = ChainExec::new(Arc::clone(coalesce.input()), coalesce.fetch());
            return Ok(Transformed::yes(Arc::new(chain) as _));
        }
        if let Some(repartition) = node.downcast_ref::<RepartitionExec>() {
            if repartition.partitioning().partition_count() == 1 {
                return Ok(Transformed::yes(Arc::new(ChainExec::new(
                    Arc::clone(repartition.input()),
                    None,
                )) as _));
            }
            return Err(DataFusionError::NotImplemented(
                "a query whose rows would come in no certain order".into(),
            ));
        }
        Ok(Transformed::no(node))
    });
    let plan = plan.data()?;
    let several = plan.output_partitioning().partition_count() > 1;
    Ok(if several {
        Arc::new(ChainExec::new(plan, None))
    } else {
        plan
    })
}

/// Its input's partitions, one after the other, as one.
#[derive(Debug)]
struct ChainExec {
    input: Arc<dyn ExecutionPlan>,
    fetch: Option<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ChainExec {
    fn new(input: Arc<dyn ExecutionPlan>, fetch: Option<usize>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self {
            input,
            fetch,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for ChainExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ChainExec: fetch={:?}", self.fetch)
    }
}

impl ExecutionPlan for ChainExec {
    fn name(&self) -> &'static str {
        "ChainExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(input, self.fetch))),
            _ => Err(DataFusionError::Internal(
                "a ChainExec has one child".to_owned(),
            )),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        task: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = Arc::clone(&self.input);
        // Each partition starts when the one before it has ended.
        let rows = stream::iter(0..input.output_partitioning().partition_count())
            .map(move |partition| input.execute(partition, Arc::clone(&task)))
            .try_flatten();
        let rows: SendableRecordBatchStream =
            Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows));
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        Ok(match self.fetch {
            Some(fetch) => Box::pin(LimitStream::new(rows, 0, Some(fetch), metrics)),
            None => rows,
        })
    }
}
