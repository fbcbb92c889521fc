//! The rule of image arguments: what a call has to know of its image beside the value.
//!
//! It runs once, after names and types are resolved and before anything moves. Each call that takes an image gets
//!
//! - the tensor type of the image, found in the columns that it comes from ([`super::lineage`]), so that it holds
//!   whatever expression, aggregate, window or set operation lies between, and on other nodes;
//! - the path of the image's file as a last argument, if a column `path` stands beside the image, so that messages name
//!   the file.
//!
//! Aggregates of maps and masks get the types of both.
//!
//! A UNION of images of different layouts is refused, since DataFusion gives its column the metadata of one of them; and
//! so is an INSERT into a column of another layout. The columns of a query get the types back that its expressions lose
//! ([`super::outputs`]).

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, plan_datafusion_err, plan_err};
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    AggregateUDF, DmlStatement, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarUDF, WriteOp,
};
use datafusion::optimizer::AnalyzerRule;
use wae_core::image::ImageType;

use super::below::{below, is_over};
use super::lineage::Lineage;
use super::origins::Origins;
use super::outputs::with_tensor_types;
use crate::aggregate::image_stitch::ImageStitch;
use crate::aggregate::map_metric::MapAggregate;
use crate::scalar::function::KernelFunction;
use crate::scalar::pass::Pass;
use crate::scalar::planned_image::PlannedImage;

/// The name of the column that holds the path of an image's file.
pub(crate) const PATH: &str = "path";

/// The rule.
#[derive(Debug)]
pub(super) struct ImageArguments;

impl AnalyzerRule for ImageArguments {
    fn name(&self) -> &str {
        "wae_image_arguments"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        with_tensor_types(plan.transform_up_with_subqueries(rewrite)?.data)
    }
}

fn rewrite(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match &plan {
        LogicalPlan::Union(_) => check_union(&plan)?,
        LogicalPlan::Dml(node) if matches!(node.op, WriteOp::Insert(_)) => check_insert(node)?,
        _ => {}
    }
    let mut takes_images = false;
    plan.apply_expressions(|expr| {
        takes_images |= expr.exists(|expr| Ok(unplanned(expr).is_some() || is_unplanned_aggregate(expr)))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !takes_images {
        return Ok(Transformed::no(plan));
    }
    let inputs: Vec<LogicalPlan> = match &plan {
        // Conditions that a scan may use are over all columns of its table.
        LogicalPlan::TableScan(scan) => {
            vec![LogicalPlanBuilder::scan(scan.table_name.clone(), Arc::clone(&scan.source), None)?.build()?]
        }
        plan => plan.inputs().into_iter().cloned().collect(),
    };
    let inputs: Vec<&LogicalPlan> = inputs.iter().collect();
    let beside = match &plan {
        LogicalPlan::TableScan(scan) => scan.projected_schema.as_ref().clone(),
        _ => merge_schema(&inputs),
    };
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let planned = expr.transform_up(|expr| match unplanned(&expr) {
            Some((call, function)) => Ok(Transformed::yes(planned(call, function, &inputs, &beside)?)),
            None => match planned_aggregate(&expr, &inputs)? {
                Some(planned) => Ok(Transformed::yes(planned)),
                None => Ok(Transformed::no(expr)),
            },
        })?;
        Ok(planned.update_data(|expr| name.restore(expr)))
    })
}

/// A call of an image that the rule has not seen.
fn unplanned(expr: &Expr) -> Option<(&ScalarFunction, &KernelFunction)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let function = call.func.inner().downcast_ref::<KernelFunction>()?;
    (!function.image().is_planned() && function.takes_image(&call.args)).then_some((call, function))
}

/// Whether an expression is an aggregate of tiles, or of maps and masks, that the rule has not seen.
fn is_unplanned_aggregate(expr: &Expr) -> bool {
    let Expr::AggregateFunction(call) = expr else { return false };
    let function = call.func.inner();
    function.downcast_ref::<ImageStitch>().is_some_and(|stitch| !stitch.tile().is_planned())
        || function.downcast_ref::<MapAggregate>().is_some_and(|metric| !metric.is_planned())
}

/// Such an aggregate with the types of its tiles, or of its map and mask; `None` of another expression.
fn planned_aggregate(expr: &Expr, inputs: &[&LogicalPlan]) -> Result<Option<Expr>> {
    let Expr::AggregateFunction(call) = expr else { return Ok(None) };
    if !is_unplanned_aggregate(expr) {
        return Ok(None);
    }
    let function = call.func.inner();
    let type_of = |argument: &Expr| planned_image(call.func.name(), argument, inputs);
    let func = match (function.downcast_ref::<ImageStitch>(), function.downcast_ref::<MapAggregate>()) {
        (Some(stitch), _) => match call.params.args.first() {
            Some(tile) => AggregateUDF::from(stitch.of_tile(type_of(tile)?)),
            None => return Ok(None),
        },
        (None, Some(metric)) => match call.params.args.as_slice() {
            [map, mask] => AggregateUDF::from(metric.of_types([type_of(map)?, type_of(mask)?])),
            _ => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    let planned = Expr::AggregateFunction(AggregateFunction { func: Arc::new(func), params: call.params.clone() });
    planned.to_field(&merge_schema(inputs))?;
    Ok(Some(planned))
}

/// The call with all that it has to know; `beside` has the columns that stand beside its image. A call over columns of
/// another table, as in MERGE, stays as it is: its field says what there is to know.
fn planned(
    call: &ScalarFunction,
    function: &KernelFunction,
    inputs: &[&LogicalPlan],
    beside: &DFSchema,
) -> Result<Expr> {
    let mut args = call.args.clone();
    let image = args.first().filter(|image| is_over(image, &merge_schema(inputs)));
    let Some(image) = image else { return Ok(Expr::ScalarFunction(call.clone())) };
    let image_type = match planned_image(call.name(), image, inputs) {
        // The call itself says the order, where the columns do not agree on one.
        Err(_) if function.states_layout(&args) => PlannedImage::Planned(None),
        image_type => image_type?,
    };
    let path = path_beside(image, inputs, beside);
    let over_model = function.is_over_model();
    let mut function = function.of_image(image_type, path.is_some());
    if !over_model {
        function = function.with_literals(&args);
    }
    args.extend(path);
    let planned = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), args));
    if !over_model {
        // Calls over a model are checked once they are pinned to its version.
        planned.to_field(&merge_schema(inputs))?;
    }
    Ok(planned)
}

/// The tensor type of an image over the outputs of plans.
///
/// # Errors
/// A plan error if it comes from columns of different layouts.
pub(crate) fn planned_image(function: &str, image: &Expr, inputs: &[&LogicalPlan]) -> Result<PlannedImage> {
    let (_, field) = image.to_field(&merge_schema(inputs))?;
    let storage = field.data_type();
    if storage.is_null() || Pass::is(storage) {
        return Ok(PlannedImage::Planned(None));
    }
    let tensor = Lineage::default().of_expr(image, inputs, &[]).agreed(storage);
    let found = tensor.map(|tensor| PlannedImage::found(&field, tensor));
    found.map_err(|message| plan_datafusion_err!("{function}: {message}"))
}

/// The column of paths that stands beside an image over the outputs of plans: one of the table that the image's columns
/// come from, or the only one there is, where no other table is joined. None where the image is another row's.
pub(crate) fn path_beside(image: &Expr, inputs: &[&LogicalPlan], schema: &DFSchema) -> Option<Expr> {
    if let [input] = inputs
        && is_of_window(image, input)
    {
        return None;
    }
    let columns = image.column_refs();
    let relation = columns.iter().next()?.relation.clone();
    let is_path = |field: &Field| field.name() == PATH && is_text(field.data_type());
    let paths = || schema.iter().filter(|(_, field)| is_path(field));
    let of_table = columns.iter().all(|column| column.relation == relation).then_some(relation).flatten();
    let relations: HashSet<_> = schema.iter().filter_map(|(relation, _)| relation).collect();
    let path = match of_table.and_then(|table| paths().find(|(relation, _)| *relation == Some(&table))) {
        Some(path) => path,
        None => paths().next().filter(|_| relations.len() <= 1 && paths().count() == 1)?,
    };
    let path = Column::from(path);
    (!columns.contains(&path)).then_some(Expr::Column(path))
}

/// Whether an image is the value of a window function, such as `lag`.
fn is_of_window(image: &Expr, plan: &LogicalPlan) -> bool {
    let mut image = image.clone();
    let mut plan = plan;
    while let [input] = plan.inputs().as_slice() {
        match below(plan, &image) {
            Some(lower) => image = lower,
            None => return matches!(plan, LogicalPlan::Window(_)),
        }
        plan = input;
    }
    false
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => values.is_string(),
        other => other.is_string(),
    }
}

/// Refuses to insert images into a column whose tensor type is not theirs, or that has none and would lose their order.
fn check_insert(node: &DmlStatement) -> Result<()> {
    for (index, field) in node.target.schema().fields().iter().enumerate() {
        let storage = field.data_type();
        let target = Origins::of(field);
        let source = Lineage::default().of_column(&node.input, index, &[]);
        let loses_none = target.names_none() && (source.are_changed() || source.are_plain(storage));
        let both = target.union(source);
        if loses_none || both.names_none() || !both.are_images(storage) {
            continue;
        }
        if let Err(message) = both.agreed(storage) {
            return plan_err!("INSERT INTO, column '{}': {message}", field.name());
        }
    }
    Ok(())
}

/// Refuses a union whose inputs have images of different layouts in one column.
fn check_union(plan: &LogicalPlan) -> Result<()> {
    for (index, field) in plan.schema().fields().iter().enumerate() {
        let storage = Field::new(field.name(), field.data_type().clone(), true);
        if field.data_type().is_null() || ImageType::try_new(&storage).is_err() {
            continue;
        }
        let origins = Lineage::default().of_column(plan, index, &[]);
        // A tensor of another rank is no image, but a vector, say.
        if origins.names_none() || !origins.are_images(field.data_type()) {
            continue;
        }
        if let Err(message) = origins.agreed(field.data_type()) {
            return plan_err!("UNION, column '{}': {message}", field.name());
        }
    }
    Ok(())
}
