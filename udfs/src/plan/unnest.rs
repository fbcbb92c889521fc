//! Tiles that become rows: the node that makes them is told, so that it may split the list of an image.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use super::exec::WaePassExec;
use super::slices::makes_tiles;

/// A node that makes rows of lists of tiles, and of no other lists, over a [`WaePassExec`] that may split them.
pub(super) fn below_unnest(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    match plan.downcast_ref::<UnnestExec>().and_then(split) {
        Some(projection) => over(plan, projection?).map(Transformed::yes),
        None => Ok(Transformed::no(plan)),
    }
}

/// A node over another input.
fn over(plan: Arc<dyn ExecutionPlan>, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.replace_children(vec![input], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// The input of such a node.
fn split(unnest: &UnnestExec) -> Option<Result<Arc<dyn ExecutionPlan>>> {
    let [list] = unnest.list_column_indices() else { return None };
    let projection = unnest.input().downcast_ref::<ProjectionExec>().filter(|_| list.depth == 1)?;
    let column = projection.expr().get(list.index_in_input_schema)?.expr.downcast_ref::<Column>()?;
    let tiles = projection.input().downcast_ref::<WaePassExec>()?;
    let first = tiles.schema().fields().len() - tiles.passes().len();
    let pass = tiles.passes().get(column.index().checked_sub(first)?)?;
    // A list that an expression makes of tiles is no list of tiles.
    let is_tiles = makes_tiles(&pass.expr) && pass.expr.children().iter().all(|argument| !makes_tiles(argument));
    let is_used_once = projection
        .expr()
        .iter()
        .filter(|expr| expr.expr.downcast_ref::<Column>().is_some_and(|other| other.index() == column.index()))
        .count()
        == 1;
    (is_tiles && is_used_once).then(|| {
        let node: Arc<dyn ExecutionPlan> = Arc::new(tiles.below_unnest(column.index()));
        over(Arc::clone(unnest.input()), node)
    })
}
