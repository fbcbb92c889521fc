//! Sorting by columns: the optimiser's rule of the scheduler.
//!
//! Ballista encodes what the rows between two stages are sorted by itself, without the session's codec, so that a call
//! there would lose the version of its model. The rule computes such calls into columns first:
//!
//! ```text
//! Projection: label                                           Projection: label
//!   Sort: wae_reconstruction_cost(__wae_pass_1)      ->         Sort: __wae_sort_0
//!                                                                 Projection: label, wae_reconstruction_cost(..) AS __wae_sort_0
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, SortExpr};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion_wae::distributed;

/// The beginning of the names of columns to sort by.
const COLUMN: &str = "__wae_sort_";

/// The rule.
#[derive(Debug)]
pub(crate) struct SortColumns;

impl OptimizerRule for SortColumns {
    fn name(&self) -> &str {
        "wae_sort_columns"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut computed = Computed::default();
        let exprs = plan.expressions();
        let exprs: Vec<_> = match &plan {
            LogicalPlan::Sort(_) => exprs.into_iter().map(|expr| computed.column_of(expr)).collect(),
            LogicalPlan::Window(_) => exprs.into_iter().map(|expr| computed.within(expr)).collect::<Result<_>>()?,
            _ => return Ok(Transformed::no(plan)),
        };
        if computed.0.is_empty() {
            return Ok(Transformed::no(plan));
        }
        let outputs = columns(&plan);
        let input = plan.inputs()[0].clone();
        let below = columns(&input).into_iter().chain(computed.0).collect();
        let plan = plan.with_new_exprs(exprs, vec![project(below, input)?])?;
        Ok(Transformed::yes(project(outputs, plan)?))
    }
}

/// Expressions that become columns.
#[derive(Debug, Default)]
struct Computed(Vec<Expr>);

impl Computed {
    /// The column in the place of an expression, if it has to be one.
    fn column_of(&mut self, expr: Expr) -> Expr {
        if !carries(&expr) {
            return expr;
        }
        let name = format!("{COLUMN}{}", self.0.len());
        self.0.push(expr.alias(name.clone()));
        Expr::Column(Column::new_unqualified(name))
    }

    /// A window expression with columns in the places of what its rows are sorted and parted by, under the same name.
    fn within(&mut self, expr: Expr) -> Result<Expr> {
        let name = NamePreserver::new_for_projection().save(&expr);
        let replaced = expr.transform_down(|expr| match expr {
            Expr::WindowFunction(mut window) => {
                let sorts = std::mem::take(&mut window.params.order_by);
                let column = |sort: SortExpr| SortExpr { expr: self.column_of(sort.expr), ..sort };
                window.params.order_by = sorts.into_iter().map(column).collect();
                let parts = std::mem::take(&mut window.params.partition_by);
                window.params.partition_by = parts.into_iter().map(|expr| self.column_of(expr)).collect();
                Ok(Transformed::yes(Expr::WindowFunction(window)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(name.restore(replaced.data))
    }
}

/// Whether a call in an expression carries more than its name.
fn carries(expr: &Expr) -> bool {
    let is_call = |expr: &Expr| matches!(expr, Expr::ScalarFunction(call) if !distributed::encode_function(&call.func).is_empty());
    expr.exists(|expr| Ok(is_call(expr))).unwrap_or(false)
}

fn columns(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().columns().into_iter().map(Expr::Column).collect()
}

fn project(exprs: Vec<Expr>, input: LogicalPlan) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
}
