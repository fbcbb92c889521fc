//! Tables whose rows are computed from a source's images at each scan: the common part of `wae_train` and
//! `wae_calibrate`.

use std::fmt::{self, Debug};
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};

use super::source::{Source, SourceImages, in_mini_batches, projected};
use super::worker::{self, Stopped, Worker};

/// A worker thread's part of a scan.
pub type Run = Box<dyn FnOnce(Worker) -> Result<(), Stopped> + Send>;

/// Work on the images of a source, as a call asks for it.
pub trait SourceWork: Debug + Clone + Send + Sync + 'static {
    /// The SQL function's name.
    const FUNCTION: &'static str;
    /// The plan node's name.
    const NODE: &'static str;
    /// When rows come.
    const EMISSION: EmissionType;

    /// The progress that can be seen while the work is done.
    type Progress: Debug + Default + Send + Sync;

    /// The columns of the rows.
    fn schema() -> SchemaRef;

    /// The order of the rows, if they have one.
    fn ordering() -> Option<PhysicalSortExpr> {
        None
    }

    /// Most images of a batch of the source.
    fn batch_size(&self) -> usize;

    /// Checks the call once more at a scan, before the source is planned.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Checks the type of the source's images.
    fn check_images(&self, images: &Field) -> Result<()>;

    /// The work on the batches of one scan.
    fn run(&self, progress: &Arc<Self::Progress>, context: &TaskContext, metrics: &ExecutionPlanMetricsSet) -> Run;

    /// Writes the call's part of a plan that is shown.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// The table of a call: each scan does the work.
#[derive(Debug)]
pub(crate) struct WorkTable<W> {
    source: Source,
    work: W,
    schema: SchemaRef,
}

impl<W: SourceWork> WorkTable<W> {
    /// The table of work on a source.
    pub(crate) fn new(source: Source, work: W) -> Self {
        Self { source, work, schema: W::schema() }
    }
}

#[async_trait]
impl<W: SourceWork> TableProvider for WorkTable<W> {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.work.check()?;
        let images = self.source.images(W::FUNCTION, state).await?;
        self.work.check_images(images.schema().field(0))?;
        projected(Arc::new(WorkExec::new(images, self.work.clone())), &self.schema, projection)
    }
}

/// Does the work on the images of its child, on a thread of its own, and yields the rows.
#[derive(Debug)]
pub struct WorkExec<W: SourceWork> {
    images: SourceImages,
    work: W,
    progress: Arc<W::Progress>,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

impl<W: SourceWork> WorkExec<W> {
    /// Work on the images of a source.
    fn new(images: SourceImages, work: W) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(W::schema(), W::ordering().map(|order| [order])),
            Partitioning::UnknownPartitioning(1),
            W::EMISSION,
            Boundedness::Bounded,
        );
        Self {
            images,
            work,
            progress: Arc::default(),
            metrics: ExecutionPlanMetricsSet::new(),
            properties: Arc::new(properties),
        }
    }

    /// The call.
    pub(super) fn work(&self) -> &W {
        &self.work
    }

    /// The progress so far.
    pub(super) fn progress(&self) -> &W::Progress {
        &self.progress
    }
}

impl<W: SourceWork> DisplayAs for WorkExec<W> {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", W::NODE)?;
        self.work.describe(f)
    }
}

impl<W: SourceWork> ExecutionPlan for WorkExec<W> {
    fn name(&self) -> &str {
        W::NODE
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.images.plan]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let count = children.len();
        let Some(input) = children.pop().filter(|_| count == 1) else {
            return exec_err!("{}: one source expected, got {count}", W::FUNCTION);
        };
        let images = self.images.with_plan(input);
        Ok(Arc::new(Self { progress: Arc::clone(&self.progress), ..Self::new(images, self.work.clone()) }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return exec_err!("{}: one partition expected, got partition {partition}", W::FUNCTION);
        }
        let input = self.images.execute(in_mini_batches(&context, self.work.batch_size()))?;
        let run = self.work.run(&self.progress, &context, &self.metrics);
        Ok(worker::stream(W::FUNCTION, self.schema(), input, run))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
