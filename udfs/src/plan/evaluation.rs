//! Passes of the batches of one partition, the memory that they take, and how many images they read.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, resources_datafusion_err};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, RecordOutput};
use datafusion::physical_plan::projection::ProjectionExpr;

use super::slices::makes_tiles;
use crate::error::Skipped;
use crate::scalar::function::KernelFunction;

/// The evaluation of passes on the batches of a partition.
pub(super) struct PassEvaluation {
    pub(super) passes: Vec<ProjectionExpr>,
    pub(super) schema: SchemaRef,
    /// Held from the first batch to the last, so that what sorts or groups the scores does not take it between two.
    pub(super) memory: MemoryReservation,
    pub(super) baseline: BaselineMetrics,
    pub(super) scored: Count,
    pub(super) unread: Count,
    pub(super) skipped: Skipped,
}

impl PassEvaluation {
    /// Asks for the memory of what is named, so many bytes in all.
    fn reserve(&self, bytes: usize, name: &str, advice: &str) -> Result<()> {
        if bytes <= self.memory.size() {
            return Ok(());
        }
        self.memory.try_resize(bytes).map_err(|e| {
            resources_datafusion_err!(
                "{name} takes about {} MB: raise the memory limit, or {advice}. {}",
                bytes.div_ceil(1_000_000),
                e.message()
            )
        })
    }

    /// The batch with the columns of the passes.
    pub(super) fn project(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let timer = self.baseline.elapsed_compute().timer();
        let rows = batch.num_rows();
        let network = self.passes.iter().map(|pass| pass_memory(&pass.expr, rows));
        let network = network.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0);
        self.reserve(network, &format!("a pass of {rows} images"), "lower wae.batch_size")?;
        let mut tiles = 0;
        let mut columns = batch.columns().to_vec();
        for pass in &self.passes {
            let before = self.skipped.count();
            let column = self.skipped.collect(|| pass.expr.evaluate(batch))?.into_array(rows)?;
            self.unread.add(self.skipped.count() - before);
            if is_pass(&pass.expr) {
                // NULL where there is no image, where it could not be read, and where nothing needs it.
                self.scored.add(rows - column.null_count());
            }
            if makes_tiles(&pass.expr) {
                tiles += column.get_array_memory_size();
                self.reserve(network + tiles, &format!("the tiling of {rows} images"), "enlarge the stride")?;
            }
            columns.push(column);
        }
        timer.done();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        Ok(batch.record_output(&self.baseline))
    }
}

/// Bytes for `rows` images in the pass of an expression, whose network planning has found.
///
/// # Errors
/// Those of [`KernelFunction::memory`].
fn pass_memory(expr: &Arc<dyn PhysicalExpr>, rows: usize) -> Result<usize> {
    let mut bytes = 0;
    expr.apply(|expr| {
        let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() else { return Ok(TreeNodeRecursion::Continue) };
        if let Some(function) = call.fun().inner().downcast_ref::<KernelFunction>() {
            let literals = call.args().iter().map(|arg| arg.downcast_ref::<Literal>().map(Literal::value));
            bytes = bytes.max(function.memory(&literals.collect::<Vec<_>>(), rows)?);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(bytes)
}

/// Whether an expression runs a network.
pub(super) fn is_pass(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let is_call = |expr: &Arc<dyn PhysicalExpr>| {
        expr.downcast_ref::<ScalarFunctionExpr>()
            .and_then(|call| call.fun().inner().downcast_ref::<KernelFunction>())
            .is_some_and(KernelFunction::is_pass)
    };
    expr.exists(|expr| Ok(is_call(expr))).unwrap_or(false)
}
