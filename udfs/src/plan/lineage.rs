//! The columns that an image comes from, and the tensor types that they name.
//!
//! DataFusion drops the metadata of a field in CASE, COALESCE, aggregates and windows, and merges it in a UNION. An
//! expression that hands an image on unchanged has the tensor type of the columns that it takes the image from, if they
//! agree on one. They are looked for through the nodes below, down to the tables and to the functions whose own result
//! names its type.

use std::collections::HashMap;

use arrow::datatypes::Field;
use datafusion::common::{Column, DFSchema, JoinType, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction, WindowFunction};
use datafusion::logical_expr::utils::{grouping_set_to_exprlist, merge_schema};
use datafusion::logical_expr::{Aggregate, AggregateUDF, Case, Distinct, Expr, ExprSchemable, Join, LogicalPlan};

use super::origins::{Origins, of_field};
use crate::aggregate::image_stitch::ImageStitch;
use crate::columns::list_item;
use crate::scalar::function::KernelFunction;
use crate::scalar::planned_image::TensorType;

/// Functions that give one of their arguments as it is, with the first that they may give and the one after the last.
const HAND_ON: [(&str, usize, usize); 10] = [
    ("coalesce", 0, usize::MAX),
    ("nvl", 0, 2),
    ("nvl2", 1, 3),
    ("nullif", 0, 1),
    ("greatest", 0, usize::MAX),
    ("least", 0, usize::MAX),
    ("arrow_cast", 0, 1),
    ("arrow_try_cast", 0, 1),
    ("make_array", 0, usize::MAX),
    ("array_repeat", 0, 1),
];
/// Functions that hand on the items of a list: whole images where the list is one of images.
const OF_ITEMS: [&str; 17] = [
    "array_element",
    "array_any_value",
    "array_append",
    "array_prepend",
    "array_concat",
    "array_distinct",
    "array_except",
    "array_intersect",
    "array_max",
    "array_min",
    "array_pop_back",
    "array_pop_front",
    "array_resize",
    "array_reverse",
    "array_slice",
    "array_sort",
    "array_union",
];
/// Aggregates and window functions that give their argument's values.
const OF_ROWS: [&str; 9] =
    ["first_value", "last_value", "nth_value", "any_value", "min", "max", "array_agg", "lag", "lead"];

/// The search in one plan. A column that several expressions name is followed once.
#[derive(Debug, Default)]
pub(super) struct Lineage<'a> {
    known: HashMap<(*const LogicalPlan, usize, Vec<&'a str>), Origins>,
}

impl<'a> Lineage<'a> {
    /// The origins of an expression over the outputs of plans. `fields` are those of nested structs that are taken out
    /// of its value, the outermost first.
    pub(super) fn of_expr(&mut self, expr: &'a Expr, inputs: &[&'a LogicalPlan], fields: &[&'a str]) -> Origins {
        match expr {
            Expr::Column(column) => self.of_name(column, inputs, fields),
            Expr::Alias(alias) => match alias.metadata.as_ref().and_then(|m| TensorType::of(m.inner())) {
                Some(tensor) => Origins::named(tensor),
                None => self.of_expr(&alias.expr, inputs, fields),
            },
            Expr::Cast(cast) => self.of_cast(&cast.field, &cast.expr, inputs, fields),
            Expr::TryCast(cast) => self.of_cast(&cast.field, &cast.expr, inputs, fields),
            Expr::Unnest(unnest) => self.of_expr(&unnest.expr, inputs, fields),
            Expr::Case(Case { when_then_expr, else_expr, .. }) => {
                let values = when_then_expr.iter().map(|(_, then)| then.as_ref()).chain(else_expr.as_deref());
                self.of_all(values, inputs, fields)
            }
            Expr::Literal(value, _) if value.is_null() => Origins::default(),
            Expr::Literal(_, Some(metadata)) => {
                TensorType::of(metadata.inner()).map_or_else(Origins::unnamed, Origins::named)
            }
            Expr::ScalarSubquery(subquery) => self.of_column(&subquery.subquery, 0, fields),
            Expr::OuterReferenceColumn(field, _) => of_field(field, fields),
            Expr::ScalarFunction(call) => self.of_call(expr, call, inputs, fields),
            Expr::AggregateFunction(AggregateFunction { func, params }) if OF_ROWS.contains(&func.name()) => {
                self.of_all(params.args.first(), inputs, fields)
            }
            Expr::AggregateFunction(call) if is_stitch(&call.func) => {
                let field = expr.to_field(&merge_schema(inputs)).map(|(_, field)| field);
                field.map_or_else(|_| Origins::unnamed(), |field| of_field(&field, fields))
            }
            Expr::WindowFunction(window) => {
                let WindowFunction { fun, params } = window.as_ref();
                match OF_ROWS.contains(&fun.name()) {
                    // The third argument of lag and lead is their default.
                    true => self.of_all(params.args.iter().step_by(2).take(2), inputs, fields),
                    false => Origins::unnamed(),
                }
            }
            // Another image, made of the columns that the expression names.
            other => other
                .column_refs()
                .into_iter()
                .fold(Origins::unnamed(), |all, column| all.union(self.of_name(column, inputs, &[]).changed())),
        }
    }

    fn of_all(
        &mut self,
        exprs: impl IntoIterator<Item = &'a Expr>,
        inputs: &[&'a LogicalPlan],
        fields: &[&'a str],
    ) -> Origins {
        exprs.into_iter().fold(Origins::default(), |all, expr| all.union(self.of_expr(expr, inputs, fields)))
    }

    fn of_cast(&mut self, to: &Field, expr: &'a Expr, inputs: &[&'a LogicalPlan], fields: &[&'a str]) -> Origins {
        TensorType::of(to.metadata()).map_or_else(|| self.of_expr(expr, inputs, fields), Origins::named)
    }

    fn of_call(
        &mut self,
        expr: &'a Expr,
        call: &'a ScalarFunction,
        inputs: &[&'a LogicalPlan],
        fields: &[&'a str],
    ) -> Origins {
        let name = call.name();
        if let Some((_, first, end)) = HAND_ON.iter().find(|(function, ..)| *function == name) {
            let handed = call.args.iter().skip(*first).take(end - first);
            return self.of_all(handed, inputs, fields);
        }
        let schema = merge_schema(inputs);
        match (name, call.args.as_slice()) {
            ("get_field", [of, names @ ..]) => {
                let names: Option<Vec<&str>> = names.iter().map(text).collect();
                let Some(names) = names else { return Origins::unnamed() };
                let fields: Vec<&str> = names.into_iter().chain(fields.iter().copied()).collect();
                self.of_expr(of, inputs, &fields)
            }
            ("named_struct", args) => {
                let values = args.chunks_exact(2).filter_map(|pair| Some((text(&pair[0])?.to_owned(), &pair[1])));
                self.of_struct(values.collect(), inputs, fields)
            }
            ("struct", args) => {
                let values = args.iter().enumerate().map(|(i, value)| (format!("c{i}"), value));
                self.of_struct(values.collect(), inputs, fields)
            }
            (name, args) if OF_ITEMS.contains(&name) => self.of_items(args, inputs, &schema, fields),
            _ => {
                let field = expr.to_field(&schema).map(|(_, field)| field);
                let own = field.map_or_else(|_| Origins::unnamed(), |field| of_field(&field, fields));
                let mut changed = || self.of_all(&call.args, inputs, &[]).changed();
                if own.names_none() && !is_plugins(call) { own.union(changed()) } else { own }
            }
        }
    }

    /// The origins of a struct's values, or of the one that is taken out.
    fn of_struct(
        &mut self,
        values: Vec<(String, &'a Expr)>,
        inputs: &[&'a LogicalPlan],
        fields: &[&'a str],
    ) -> Origins {
        let Some((field, fields)) = fields.split_first() else {
            return self.of_all(values.into_iter().map(|(_, value)| value), inputs, fields);
        };
        let value = values.into_iter().find(|(name, _)| name == field);
        value.map_or_else(Origins::unnamed, |(_, value)| self.of_expr(value, inputs, fields))
    }

    /// The origins of a list that is made of lists and of items. Of a list of numbers, which is an image itself, another
    /// image comes out.
    fn of_items(
        &mut self,
        args: &'a [Expr],
        inputs: &[&'a LogicalPlan],
        schema: &DFSchema,
        fields: &[&'a str],
    ) -> Origins {
        if !args.iter().any(|arg| has_nested_items(arg, schema)) {
            return Origins::unnamed();
        }
        let is_nested = |arg: &&Expr| arg.to_field(schema).is_ok_and(|(_, field)| field.data_type().is_nested());
        self.of_all(args.iter().filter(is_nested), inputs, fields)
    }

    fn of_name(&mut self, column: &Column, inputs: &[&'a LogicalPlan], fields: &[&'a str]) -> Origins {
        let place = inputs.iter().find_map(|input| Some((*input, input.schema().maybe_index_of_column(column)?)));
        place.map_or_else(Origins::unnamed, |(input, index)| self.of_column(input, index, fields))
    }

    /// The origins of an output of a plan.
    pub(super) fn of_column(&mut self, plan: &'a LogicalPlan, index: usize, fields: &[&'a str]) -> Origins {
        let key = (std::ptr::from_ref(plan), index, fields.to_vec());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let origins = self.follow(plan, index, fields);
        self.known.insert(key, origins.clone());
        origins
    }

    fn follow(&mut self, plan: &'a LogicalPlan, index: usize, fields: &[&'a str]) -> Origins {
        let inputs = plan.inputs();
        let mut through = |exprs: &'a [Expr]| self.of_all(exprs.get(index), &inputs, fields);
        match plan {
            LogicalPlan::Projection(node) => through(&node.expr),
            LogicalPlan::Distinct(Distinct::On(node)) => through(&node.select_expr),
            LogicalPlan::Filter(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::RecursiveQuery(_) => {
                inputs.iter().fold(Origins::default(), |all, input| all.union(self.of_column(input, index, fields)))
            }
            LogicalPlan::Window(node) => match index.checked_sub(node.input.schema().fields().len()) {
                Some(own) => self.of_all(node.window_expr.get(own), &inputs, fields),
                None => self.of_column(&node.input, index, fields),
            },
            LogicalPlan::Aggregate(node) => self.of_all(output(node, index), &inputs, fields),
            LogicalPlan::Join(node) => match side(node, index) {
                Some((input, index)) => self.of_column(input, index, fields),
                None => Origins::unnamed(),
            },
            LogicalPlan::Values(node) => node
                .values
                .iter()
                .fold(Origins::default(), |all, row| all.union(self.of_all(row.get(index), &[], fields))),
            LogicalPlan::Unnest(node) => match node.dependency_indices.get(index) {
                Some(index) => self.of_column(&node.input, *index, fields),
                None => Origins::unnamed(),
            },
            LogicalPlan::EmptyRelation(_) => Origins::default(),
            other => of_field(other.schema().field(index), fields),
        }
    }
}

/// The expression of an aggregation's output.
fn output(node: &Aggregate, index: usize) -> Option<&Expr> {
    let groups = node.schema.fields().len() - node.aggr_expr.len();
    match index.checked_sub(groups) {
        Some(own) => node.aggr_expr.get(own),
        None => grouping_set_to_exprlist(&node.group_expr).ok()?.get(index).copied(),
    }
}

/// The side of a join that an output comes from, and its place there.
fn side(node: &Join, index: usize) -> Option<(&LogicalPlan, usize)> {
    let left = node.left.schema().fields().len();
    match node.join_type {
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => Some((node.right.as_ref(), index)),
        _ if index < left => Some((node.left.as_ref(), index)),
        _ => Some((node.right.as_ref(), index - left)),
    }
    .filter(|(input, index)| *index < input.schema().fields().len())
}

/// Whether an aggregate is `image_stitch`, whose field says what its result is.
fn is_stitch(function: &AggregateUDF) -> bool {
    function.inner().is::<ImageStitch>()
}

/// Whether a call is one of the plugin's, whose field says what its result is.
fn is_plugins(call: &ScalarFunction) -> bool {
    call.func.inner().is::<KernelFunction>()
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => ScalarValue::try_as_str(value).flatten(),
        _ => None,
    }
}

/// Whether an expression is a list of lists or structs.
fn has_nested_items(expr: &Expr, schema: &DFSchema) -> bool {
    let is_nested = |field: &Field| list_item(field.data_type()).is_some_and(|item| item.data_type().is_nested());
    expr.to_field(schema).is_ok_and(|(_, field)| is_nested(&field))
}
