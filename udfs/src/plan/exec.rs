//! The plan node that runs images through networks, and the rule that puts it into physical plans.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, Statistics, exec_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{ChildFilterDescription, FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};

use super::evaluation::{PassEvaluation, is_pass};
use super::slices::{Slices, makes_tiles, pieces};
use super::unnest::below_unnest;
use crate::error::Skipped;
use crate::options::WaeOptions;
use crate::table::source::in_mini_batches;

/// Computes passes, and tiles of images, into columns after those of its input.
///
/// It takes `wae.batch_size` rows at a time, or fewer where their tiles would take much memory, so that a query that
/// stops early (`LIMIT`) runs few images too many. The metric `rows_scored` of `EXPLAIN ANALYZE` counts the images that
/// went through the network. The metric `rows_skipped` counts those that could not be read and are NULL
/// (`wae.on_error = 'null'`). No filter that reads a pass moves below the node.
#[derive(Debug, Clone)]
pub struct WaePassExec {
    /// All columns of the input, then the passes. The columns keep their places: DataFusion moves a sort below a node
    /// that it does not know, and expects the columns of the sort where they were.
    projection: ProjectionExec,
    /// The column of lists of tiles of which the node above makes rows, so that a list may be split.
    unnested: Option<usize>,
    metrics: ExecutionPlanMetricsSet,
}

impl WaePassExec {
    /// Adds passes to the columns of an input.
    ///
    /// # Errors
    /// Those of a projection.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, passes: Vec<ProjectionExpr>) -> Result<Self> {
        let column = |(i, name): (usize, &str)| ProjectionExpr::new(Arc::new(Column::new(name, i)), name);
        let schema = input.schema();
        let columns = schema.fields().iter().map(|f| f.name().as_str()).enumerate().map(column);
        let exprs: Vec<_> = columns.chain(passes).collect();
        let projection = ProjectionExec::try_new(exprs, input)?;
        Ok(Self { projection, unnested: None, metrics: ExecutionPlanMetricsSet::new() })
    }

    /// The same node below one that makes rows of the lists in a column, and of no other.
    pub(super) fn below_unnest(&self, lists: usize) -> Self {
        Self { unnested: Some(lists), ..self.clone() }
    }

    /// The passes.
    pub fn passes(&self) -> &[ProjectionExpr] {
        &self.projection.expr()[self.projection.input().schema().fields().len()..]
    }

    /// The number of images that went through the network so far, over all passes of this node.
    pub fn rows_scored(&self) -> usize {
        self.metric(ROWS_SCORED)
    }

    /// The number of images that could not be read so far and are NULL, over all passes of this node.
    pub fn rows_skipped(&self) -> usize {
        self.metric(ROWS_SKIPPED)
    }

    fn metric(&self, name: &str) -> usize {
        self.metrics.clone_inner().sum_by_name(name).map_or(0, |value| value.as_usize())
    }
}

/// The metrics' names.
const ROWS_SCORED: &str = "rows_scored";
const ROWS_SKIPPED: &str = "rows_skipped";

impl DisplayAs for WaePassExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaePassExec: ")?;
        for (i, pass) in self.passes().iter().enumerate() {
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
        let [input] = children.as_slice() else {
            return exec_err!("WaePassExec: one input expected, got {}", children.len());
        };
        let node = Self::try_new(Arc::clone(input), self.passes().to_vec())?;
        Ok(Arc::new(Self { unnested: self.unnested, ..node }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = WaeOptions::of(context.session_config().options()).batch_size();
        let slices = Slices::new(self.passes(), &self.projection.input().schema(), rows);
        let input = self.projection.input().execute(partition, in_mini_batches(&context, slices.rows_read()))?;
        let mut evaluation = PassEvaluation {
            passes: self.passes().to_vec(),
            schema: self.schema(),
            memory: MemoryConsumer::new(format!("WaePassExec[{partition}]")).register(context.memory_pool()),
            baseline: BaselineMetrics::new(&self.metrics, partition),
            scored: MetricBuilder::new(&self.metrics).counter(ROWS_SCORED, partition),
            unread: MetricBuilder::new(&self.metrics).counter(ROWS_SKIPPED, partition),
            skipped: Skipped::default(),
        };
        let parts = input.map_ok(move |batch| stream::iter(slices.of(batch).map(Ok::<_, DataFusionError>)));
        let parts = parts.try_flatten();
        let stream = parts.map(move |part| evaluation.project(&part?));
        let unnested = self.unnested;
        let pieces_of = move |batch: Result<RecordBatch>| -> Result<_> {
            Ok(stream::iter(pieces(batch?, unnested)?.into_iter().map(Ok::<_, DataFusionError>)))
        };
        let stream = stream.map(pieces_of).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.projection.child_stats_requests(partition)
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        match self.unnested {
            // A list that is split is several rows.
            Some(_) => Ok(Arc::new(Statistics::new_unknown(&self.schema()))),
            None => self.projection.statistics_from_inputs(inputs, args),
        }
    }

    fn supports_limit_pushdown(&self) -> bool {
        self.unnested.is_none()
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        if self.unnested.is_none() { CardinalityEffect::Equal } else { CardinalityEffect::GreaterEqual }
    }

    /// Filters of the input's own columns go below, so that rows are left out before the network sees them.
    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let input = self.projection.input();
        let schema = input.schema();
        // Filters are moved by name: not those of columns that share theirs.
        let unique = |i: &usize| schema.fields().iter().filter(|f| f.name() == schema.field(*i).name()).count() == 1;
        let kept: HashSet<_> = (0..schema.fields().len()).filter(unique).collect();
        let child = ChildFilterDescription::from_child_with_allowed_indices(&filters, kept, input)?;
        Ok(FilterDescription::new().with_child(child))
    }
}

/// Whether a projection's expression is computed in a node of its own, below it.
fn is_below(expr: &ProjectionExpr) -> bool {
    is_pass(&expr.expr) || makes_tiles(&expr.expr)
}

/// The rule of physical plans: what a projection computes of passes and tiles becomes a [`WaePassExec`] below it.
#[derive(Debug)]
pub(crate) struct WaePassPlanner;

impl PhysicalOptimizerRule for WaePassPlanner {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| match plan.downcast_ref::<ProjectionExec>() {
            Some(projection) if projection.expr().iter().any(is_below) => {
                Ok(Transformed::yes(with_passes_below(projection)?))
            }
            _ => below_unnest(plan),
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

fn with_passes_below(projection: &ProjectionExec) -> Result<Arc<dyn ExecutionPlan>> {
    let input = projection.input();
    let mut exprs = projection.expr().to_vec();
    let first = input.schema().fields().len();
    let mut passes = Vec::new();
    for expr in exprs.iter_mut().filter(|e| is_below(e)) {
        let column = Column::new(&expr.alias, first + passes.len());
        passes.push(expr.clone());
        expr.expr = Arc::new(column);
    }
    let node = Arc::new(WaePassExec::try_new(Arc::clone(input), passes)?);
    Ok(Arc::new(ProjectionExec::try_new_with_schema_metadata(exprs, node, &projection.schema())?))
}
