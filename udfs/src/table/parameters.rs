//! Calls of table functions with parameters, such as `$1`, among their arguments or in their subquery.
//!
//! A call of literals is a scan as soon as SQL is planned. A call with parameters becomes a plan node, [`WaitingCall`],
//! whose expressions are the parameters, so that DataFusion finds, types and replaces them as in any other node. Once
//! they have values, the node plans the call, and an analyzer rule, [`ScanCalls`], puts the scan in its place.
//!
//! The node hides the subquery: DataFusion moves a condition without columns, such as `random() < 0.5`, below a node
//! with inputs, where it would leave out images instead of rows.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::catalog::TableProvider;
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, ParamValues, Result, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::optimizer::AnalyzerRule;
use datafusion::prelude::SessionContext;

use super::function::{Argument, Call, TableFunction, literal};

/// Adds the rule to a context, once.
pub(crate) fn register(ctx: &SessionContext) {
    if !ctx.state().analyzer().rules.iter().any(|rule| rule.name() == ScanCalls.name()) {
        ctx.add_analyzer_rule(Arc::new(ScanCalls));
    }
}

/// Plans a call: a scan, or a node that waits for values.
pub(super) fn plan(function: &'static TableFunction, call: Call, config: Arc<ConfigOptions>) -> Result<LogicalPlan> {
    let parameters = parameters(&call)?;
    if parameters.is_empty() {
        return function.scan((function.plan)(call)?);
    }
    let node = Arc::new(WaitingCall::try_new(function, call, config, parameters)?);
    Ok(LogicalPlan::Extension(Extension { node }))
}

/// Whether an expression holds a parameter.
pub(super) fn has_parameter(expr: &Expr) -> Result<bool> {
    expr.exists(|expr| Ok(matches!(expr, Expr::Placeholder(_))))
}

/// The parameters of a call, by name, each once. Of those that an argument consists of, the type is text where the
/// statement says nothing else.
fn parameters(call: &Call) -> Result<Vec<(String, Expr)>> {
    let mut fields: BTreeMap<String, Option<FieldRef>> = BTreeMap::new();
    let mut find = |expr: &Expr| {
        expr.apply(|expr| {
            if let Expr::Placeholder(Placeholder { id, field }) = expr {
                let known = fields.entry(id.clone()).or_default();
                *known = known.take().or_else(|| field.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    };
    for (_, argument) in &call.arguments {
        match argument {
            Argument::Plan(plan) => plan.apply_with_subqueries(|node| node.apply_expressions(&mut find))?,
            Argument::Parameter(expr) => find(expr)?,
            Argument::Value(_) | Argument::Text(_) => continue,
        };
    }
    for (_, argument) in &call.arguments {
        if let Argument::Parameter(Expr::Placeholder(Placeholder { id, .. })) = argument {
            let text = || Arc::new(Field::new("", DataType::Utf8, true));
            fields.entry(id.clone()).or_default().get_or_insert_with(text);
        }
    }
    let placeholder = |id: String, field| Expr::Placeholder(Placeholder::new_with_field(id, field));
    Ok(fields.into_iter().map(|(id, field)| (id.clone(), placeholder(id, field))).collect())
}

/// The values of parameters, once all of them have one.
fn values(parameters: &[(String, Expr)]) -> Option<ParamValues> {
    let value = |(id, expr): &(String, Expr)| match expr {
        // DataFusion looks names up without the sign before them.
        Expr::Literal(value, metadata) => {
            Some((id.get(1..)?.to_owned(), ScalarAndMetadata::new(value.clone(), metadata.clone())))
        }
        _ => None,
    };
    parameters.iter().map(value).collect::<Option<HashMap<_, _>>>().map(ParamValues::Map)
}

/// A call with values for its parameters.
fn with_values(mut call: Call, values: &ParamValues, config: &Arc<ConfigOptions>) -> Result<Call> {
    for (_, argument) in &mut call.arguments {
        match argument {
            Argument::Plan(plan) if !plan.get_parameter_names()?.is_empty() => {
                *plan = plan.clone().replace_params_with_values(values)?;
            }
            Argument::Parameter(expr) => *argument = with_value(call.function, expr.clone(), values, config)?,
            _ => {}
        }
    }
    Ok(call)
}

/// The argument that an expression gives with values for its parameters.
fn with_value(function: &str, expr: Expr, values: &ParamValues, config: &Arc<ConfigOptions>) -> Result<Argument> {
    let alone = matches!(expr, Expr::Placeholder(_));
    let replace = |expr: Expr| match expr {
        Expr::Placeholder(Placeholder { id, .. }) => {
            let (value, metadata) = values.get_placeholders_with_values(&id)?.into_inner();
            Ok(Transformed::yes(Expr::Literal(value, metadata)))
        }
        other => Ok(Transformed::no(other)),
    };
    let value = literal(function, expr.transform_up(replace)?.data, config)?;
    match value.try_as_str().flatten() {
        Some(text) if alone => Ok(Argument::Text(text.to_owned())),
        _ => Ok(Argument::Value(value)),
    }
}

/// A call of a table function that waits for the values of its parameters, or has them.
#[derive(Debug, Clone)]
struct WaitingCall {
    function: &'static TableFunction,
    /// The call as it was written.
    call: Call,
    /// The session's options when the statement was planned.
    config: Arc<ConfigOptions>,
    /// The parameters by name: placeholders, or literals in their place.
    parameters: Vec<(String, Expr)>,
    schema: DFSchemaRef,
    /// The call's table, once all parameters have values.
    table: Option<Arc<dyn TableProvider>>,
}

impl WaitingCall {
    fn try_new(
        function: &'static TableFunction,
        call: Call,
        config: Arc<ConfigOptions>,
        parameters: Vec<(String, Expr)>,
    ) -> Result<Self> {
        let plan = |values| (function.plan)(with_values(call.clone(), &values, &config)?);
        let table = values(&parameters).map(plan).transpose()?;
        let schema = match &table {
            Some(table) => table.schema(),
            None => (function.schema)(&call)?,
        };
        let schema = Arc::new(DFSchema::try_from_qualified_schema(function.name(), &schema)?);
        Ok(Self { function, call, config, parameters, schema, table })
    }

    /// The scan of the call's table.
    fn scan(&self) -> Result<LogicalPlan> {
        match &self.table {
            Some(table) => self.function.scan(Arc::clone(table)),
            None => plan_err!(
                "{}: no value given for {}, expected EXECUTE of a prepared statement or with_param_values",
                self.function.name(),
                self.names()
            ),
        }
    }

    /// The names of the parameters, with commas between them.
    fn names(&self) -> String {
        self.parameters.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl PartialEq for WaitingCall {
    fn eq(&self, other: &Self) -> bool {
        self.call == other.call && self.parameters == other.parameters
    }
}

impl Eq for WaitingCall {}

impl PartialOrd for WaitingCall {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl Hash for WaitingCall {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.call.hash(state);
        self.parameters.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for WaitingCall {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.parameters.iter().map(|(_, expr)| expr.clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.function.name(), self.names())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, _: Vec<LogicalPlan>) -> Result<Self> {
        let function = self.function.name();
        if exprs.len() != self.parameters.len() {
            return plan_err!("{function}: {} parameters expected, got {}", self.parameters.len(), exprs.len());
        }
        // A value bears the name of its parameter as an alias.
        let exprs = exprs.into_iter().map(Expr::unalias);
        let parameters: Vec<_> = self.parameters.iter().map(|(id, _)| id.clone()).zip(exprs).collect();
        if parameters == self.parameters {
            return Ok(self.clone());
        }
        Self::try_new(self.function, self.call.clone(), Arc::clone(&self.config), parameters)
    }
}

/// The rule that puts the scan of a call in the place of its node.
#[derive(Debug)]
struct ScanCalls;

impl AnalyzerRule for ScanCalls {
    fn name(&self) -> &str {
        "wae_table_functions"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(scan_in_place)?.data)
    }
}

fn scan_in_place(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Extension(Extension { node }) = &plan else { return Ok(Transformed::no(plan)) };
    match node.as_any().downcast_ref::<WaitingCall>() {
        Some(call) => call.scan().map(Transformed::yes),
        None => Ok(Transformed::no(plan)),
    }
}
