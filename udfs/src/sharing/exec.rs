//! The plan node that runs images through networks, and the rule that puts it into physical plans.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, Statistics, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{ChildFilterDescription, FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties,
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::function::ModelFunction;
use crate::options::WaeOptions;
use crate::wae_pass;

/// A projection with passes among its expressions.
///
/// It takes `wae.batch_size` rows at a time, so that a query that stops early (`LIMIT`) has run few images too many, and
/// counts the images that went through the network as the metric `rows_scored` of `EXPLAIN ANALYZE`. No filter that
/// reads a pass moves below it.
#[derive(Debug, Clone)]
pub struct WaePassExec {
    projection: ProjectionExec,
    metrics: ExecutionPlanMetricsSet,
}

impl WaePassExec {
    fn new(projection: ProjectionExec) -> Self {
        Self { projection, metrics: ExecutionPlanMetricsSet::new() }
    }

    /// The number of images that went through the network so far, over all passes of this node.
    pub fn rows_scored(&self) -> usize {
        self.metrics.clone_inner().sum_by_name(ROWS_SCORED).map_or(0, |value| value.as_usize())
    }

    /// Over a projection's input again, which has other properties now.
    fn over(&self, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Self> {
        let [input] = children.as_slice() else {
            return exec_err!("WaePassExec: one input expected, got {}", children.len());
        };
        Ok(Self::new(ProjectionExec::try_new(self.projection.expr().to_vec(), Arc::clone(input))?))
    }
}

/// The metric's name.
const ROWS_SCORED: &str = "rows_scored";

impl DisplayAs for WaePassExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaePassExec: ")?;
        for (i, pass) in self.projection.expr().iter().filter(|e| is_pass(&e.expr)).enumerate() {
            write!(f, "{}{} as {}", if i > 0 { ", " } else { "" }, pass.expr, pass.alias)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for WaePassExec {
    fn name(&self) -> &str {
        "WaePassExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.projection.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.projection.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.projection.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(self.over(children)?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.projection.input().execute(partition, Arc::clone(&context))?;
        let rows = WaeOptions::of(context.session_config().options()).batch_size();
        let worker = Worker {
            exprs: self.projection.expr().to_vec(),
            schema: self.schema(),
            baseline: BaselineMetrics::new(&self.metrics, partition),
            scored: MetricBuilder::new(&self.metrics).counter(ROWS_SCORED, partition),
        };
        let parts = input.map_ok(move |batch| stream::iter(slices(batch, rows).map(Ok::<_, DataFusionError>))).try_flatten();
        let stream = parts.map(move |part| worker.project(&part?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.projection.child_stats_requests(partition)
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        self.projection.statistics_from_inputs(inputs, args)
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    /// Filters of the input's own columns go below, so that rows are left out before the network sees them.
    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let (input, exprs) = (self.projection.input(), self.projection.expr());
        let schema = input.schema();
        // Filters are moved by name: only columns that keep theirs, and share it with no other.
        let unique = |name: &str| schema.fields().iter().filter(|f| f.name() == name).count() == 1;
        let kept = |e: &ProjectionExpr| {
            e.expr.downcast_ref::<Column>().is_some_and(|c| c.name() == e.alias && unique(&e.alias))
        };
        let kept: HashSet<_> = exprs.iter().enumerate().filter(|(_, e)| kept(e)).map(|(i, _)| i).collect();
        let child = ChildFilterDescription::from_child_with_allowed_indices(&filters, kept, input)?;
        Ok(FilterDescription::new().with_child(child))
    }
}

/// A batch in parts of at most `rows` rows; the values are shared.
fn slices(batch: RecordBatch, rows: usize) -> impl Iterator<Item = RecordBatch> {
    let count = batch.num_rows();
    (0..count).step_by(rows).map(move |start| batch.slice(start, rows.min(count - start)))
}

/// What computes a partition's batches.
struct Worker {
    exprs: Vec<ProjectionExpr>,
    schema: SchemaRef,
    baseline: BaselineMetrics,
    scored: Count,
}

impl Worker {
    fn project(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let timer = self.baseline.elapsed_compute().timer();
        let rows = batch.num_rows();
        let mut columns = Vec::with_capacity(self.exprs.len());
        for expr in &self.exprs {
            let column = expr.expr.evaluate(batch)?.into_array(rows)?;
            if is_pass(&expr.expr) {
                // NULL where there is no image, where it could not be read, and where nothing needs it.
                self.scored.add(rows - column.null_count());
            }
            columns.push(column);
        }
        timer.done();
        self.baseline.output_rows().add(rows);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

fn is_pass(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let is_call = |expr: &Arc<dyn PhysicalExpr>| {
        expr.downcast_ref::<ScalarFunctionExpr>()
            .is_some_and(|call| call.fun().inner().is::<ModelFunction>() && call.name() == wae_pass::NAME)
    };
    expr.exists(|expr| Ok(is_call(expr))).unwrap_or(false)
}

/// The rule of physical plans: projections that compute passes become [`WaePassExec`].
#[derive(Debug)]
pub(super) struct WaePassPlanner;

impl PhysicalOptimizerRule for WaePassPlanner {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| match plan.downcast_ref::<ProjectionExec>() {
            Some(projection) if projection.expr().iter().any(|e| is_pass(&e.expr)) => {
                Ok(Transformed::yes(Arc::new(WaePassExec::new(projection.clone())) as _))
            }
            _ => Ok(Transformed::no(plan)),
        })
        .data()
    }

    fn name(&self) -> &str {
        "wae_passes"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
