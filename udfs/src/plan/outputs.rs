//! The tensor types of a query's columns.
//!
//! DataFusion drops the metadata of a field from many an expression ([`super::lineage`]). A table or a file that is
//! made of such a column would hold lists whose order nothing names. So the columns of a query get the type back that
//! the images had, by DataFusion's function `with_metadata`. CREATE TABLE AS is planned as its query.

use std::sync::Arc;

use datafusion::common::{Column, Result, plan_err};
use datafusion::functions::core::with_metadata;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};

use super::lineage::Lineage;
use crate::scalar::planned_image::TensorType;

/// The plan of a statement, whose columns have the tensor types of their images.
///
/// # Errors
/// A plan error if the images of a column come from columns of different layouts.
pub(super) fn with_tensor_types(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Copy(mut node) => {
            node.input = Arc::new(restore(Arc::unwrap_or_clone(node.input))?);
            Ok(LogicalPlan::Copy(node))
        }
        LogicalPlan::Explain(mut node) => {
            node.plan = Arc::new(with_tensor_types(Arc::unwrap_or_clone(node.plan))?);
            Ok(LogicalPlan::Explain(node))
        }
        LogicalPlan::Analyze(mut node) => {
            node.input = Arc::new(with_tensor_types(Arc::unwrap_or_clone(node.input))?);
            Ok(LogicalPlan::Analyze(node))
        }
        LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Statement(_) | LogicalPlan::DescribeTable(_) => {
            Ok(plan)
        }
        plan => restore(plan),
    }
}

fn restore(plan: LogicalPlan) -> Result<LogicalPlan> {
    let types = lost_types(&plan)?;
    if types.iter().all(Option::is_none) {
        return Ok(plan);
    }
    let columns = plan.schema().iter().zip(types);
    let columns: Vec<_> = columns
        .map(|((relation, field), tensor)| {
            let column = Expr::Column(Column::from((relation, field)));
            match tensor {
                Some(tensor) => of_type(column, &tensor).alias_qualified(relation.cloned(), field.name()),
                None => column,
            }
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// The tensor types that the images of a plan's columns have, and their fields have not.
fn lost_types(plan: &LogicalPlan) -> Result<Vec<Option<TensorType>>> {
    let mut lineage = Lineage::default();
    let mut lost_type = |index| {
        let field: &Arc<_> = plan.schema().field(index);
        let named = TensorType::of(field.metadata());
        let storage = field.data_type();
        if named.as_ref().is_some_and(TensorType::is_whole) || !storage.is_nested() {
            return Ok(None);
        }
        let origins = lineage.of_column(plan, index, &[]);
        if origins.names_none() || origins.are_changed() || !origins.are_images(storage) {
            return Ok(None);
        }
        match origins.agreed(storage) {
            Ok(tensor) => Ok(tensor.filter(|tensor| named.as_ref() != Some(tensor) && tensor.fits(storage))),
            Err(message) => plan_err!("column '{}': {message}", field.name()),
        }
    };
    (0..plan.schema().fields().len()).map(&mut lost_type).collect()
}

fn of_type(column: Expr, tensor: &TensorType) -> Expr {
    let metadata = tensor.metadata().flat_map(|(key, value)| [lit(key), lit(value)]);
    Expr::ScalarFunction(ScalarFunction::new_udf(with_metadata(), [column].into_iter().chain(metadata).collect()))
}
