//! Rows from the cluster under the schema that they were planned with.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::TryStreamExt;

/// Gives the batches of its input the input's schema.
///
/// The metadata of fields, and with it the type of a tensor, is lost between the stages of a query that runs on a
/// cluster: the batches that come back lack what the plan has.
#[derive(Debug)]
pub struct PlannedSchemaExec {
    input: Arc<dyn ExecutionPlan>,
}

impl PlannedSchemaExec {
    /// The rows of a plan.
    pub fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        Self { input }
    }
}

impl DisplayAs for PlannedSchemaExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlannedSchemaExec")
    }
}

impl ExecutionPlan for PlannedSchemaExec {
    fn name(&self) -> &str {
        "PlannedSchemaExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.as_slice() {
            [input] => Ok(Arc::new(Self::new(Arc::clone(input)))),
            children => exec_err!("PlannedSchemaExec: one input expected, got {}", children.len()),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.input.schema();
        let planned = Arc::clone(&schema);
        let stream = self.input.execute(partition, context)?.map_ok(move |batch| under(batch, &planned));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.input.metrics()
    }
}

/// A batch under a schema of the same types; one of other types stays as it is.
fn under(batch: RecordBatch, schema: &SchemaRef) -> RecordBatch {
    let same = batch.schema().fields().len() == schema.fields().len()
        && batch.schema().fields().iter().zip(schema.fields()).all(|(a, b)| a.data_type() == b.data_type());
    match same {
        true => RecordBatch::try_new(Arc::clone(schema), batch.columns().to_vec()).unwrap_or(batch),
        false => batch,
    }
}
