//! An expression over a node's output, as it is written over the node's input.

use std::collections::HashMap;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// The same expression over the input of a node with one input that keeps its rows. `None` where there is none, or
/// where it would be computed anew.
pub(super) fn below(plan: &LogicalPlan, expr: &Expr) -> Option<Expr> {
    match plan {
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Repartition(_) => {
            Some(expr.clone())
        }
        LogicalPlan::Projection(node) => substitute(expr, &node.schema, &node.expr),
        LogicalPlan::SubqueryAlias(node) => by_position(expr, &node.schema, node.input.schema()),
        LogicalPlan::Window(node) => is_over(expr, node.input.schema()).then(|| expr.clone()),
        _ => None,
    }
}

/// The same expression over another schema with the same columns in the same places.
pub(super) fn by_position(expr: &Expr, from: &DFSchema, to: &DFSchema) -> Option<Expr> {
    let columns: Vec<_> = to.columns().into_iter().map(Expr::Column).collect();
    substitute(expr, from, &columns)
}

/// An expression as far down as it can be followed, by which two ways to write one are known to be the same.
pub(super) fn canonical(expr: &Expr, plan: &LogicalPlan) -> Expr {
    let mut expr = expr.clone();
    let mut plan = plan;
    while let (Some(lower), [input]) = (below(plan, &expr), plan.inputs().as_slice()) {
        (expr, plan) = (lower, input);
    }
    expr.unalias_nested().data
}

/// Whether all columns of an expression are in a schema.
pub(super) fn is_over(expr: &Expr, schema: &DFSchema) -> bool {
    expr.column_refs().into_iter().all(|column| schema.is_column_from_schema(column))
}

/// Whether a join's rows have the value that an expression has in the rows of its left (or right) side.
///
/// Where a row finds no partner in an outer join, the partner's columns are NULL, and so is the expression only if it
/// is made from them by what gives NULL for NULL.
pub(super) fn survives(join: JoinType, left: bool, expr: &Expr) -> bool {
    match join {
        JoinType::Inner => true,
        JoinType::Left => left || is_strict(expr),
        JoinType::Right => !left || is_strict(expr),
        JoinType::Full => is_strict(expr),
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left,
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => !left,
    }
}

fn is_strict(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Alias(alias) => is_strict(&alias.expr),
        Expr::Cast(cast) => is_strict(&cast.expr),
        Expr::ScalarFunction(call) => call.name() == "get_field" && call.args.first().is_some_and(is_strict),
        _ => false,
    }
}

/// Puts a node's expressions in place of the first columns of its schema; volatile ones would be computed anew.
fn substitute(expr: &Expr, schema: &DFSchema, exprs: &[Expr]) -> Option<Expr> {
    let map: HashMap<Column, &Expr> = schema.columns().into_iter().zip(exprs).collect();
    let mut known = true;
    let substituted = expr.clone().transform_up(|expr| match &expr {
        Expr::Column(column) => match map.get(column) {
            Some(lower) if !lower.is_volatile() => Ok(Transformed::yes((*lower).clone().unalias())),
            _ => {
                known = false;
                Ok(Transformed::no(expr))
            }
        },
        _ => Ok(Transformed::no(expr)),
    });
    substituted.ok().filter(|_| known).map(|t| t.data)
}
