//! Table functions with named arguments.
//!
//! DataFusion's own table functions take positional arguments only. A [`RelationPlanner`] sees the call as it was
//! written, names included; hosts that lack one still have the positional form. Both end in the same [`Call`].
//! [`super::parameters`] plans calls with parameters such as `$1`, which need the first.

use std::fmt::{self, Debug, Display, Formatter};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr, TableFactor};
use wae_core::error::unknown_name;

use super::parameters::{self, has_parameter};
use crate::documentation::{FunctionDocumentation, of_expression};
use crate::files;
use crate::options::WaeOptions;

/// A table function of the plugin.
#[derive(Debug)]
pub(crate) struct TableFunction {
    /// The entry in the SQL reference, with the function's name and parameters.
    pub(crate) documentation: FunctionDocumentation,
    /// Whether other names are options, which the function checks itself.
    pub(crate) takes_options: bool,
    /// The columns of a call's rows, before its parameters have values.
    pub(crate) schema: fn(&Call) -> Result<SchemaRef>,
    /// Plans a call.
    pub(crate) plan: fn(Call) -> Result<Arc<dyn TableProvider>>,
}

impl TableFunction {
    /// The SQL name.
    pub(crate) const fn name(&self) -> &'static str {
        self.documentation.name
    }

    /// The scan of a call's table.
    pub(super) fn scan(&self, table: Arc<dyn TableProvider>) -> Result<LogicalPlan> {
        LogicalPlanBuilder::scan(self.name(), provider_as_source(table), None)?.build()
    }
}

/// The value of an argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Argument {
    /// A literal; integers are Int64 or UInt64.
    Value(ScalarValue),
    /// The text of a parameter, which stands for any value: DataFusion casts the values of a prepared statement to the
    /// types of its parameters, and a parameter of unknown type is text.
    Text(String),
    /// A subquery.
    Plan(LogicalPlan),
    /// A parameter without its value, alone or in an expression.
    Parameter(Expr),
}

impl Argument {
    /// The value, if it is a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Value(value) => value.try_as_str().flatten(),
            Self::Text(text) => Some(text),
            Self::Plan(_) | Self::Parameter(_) => None,
        }
    }
}

impl Display for Argument {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{text}"),
            Self::Plan(_) => write!(f, "a subquery"),
            Self::Parameter(expr) => write!(f, "{expr}"),
        }
    }
}

/// A call of a table function: its arguments by name, in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    pub(crate) function: &'static str,
    pub(super) arguments: Vec<(String, Argument)>,
    pub(crate) options: WaeOptions,
}

impl Call {
    /// Names each argument and refuses those that do not fit.
    fn try_new(
        function: &TableFunction,
        given: Vec<(Option<String>, Argument)>,
        config: &ConfigOptions,
    ) -> Result<Self> {
        let name = function.name();
        let parameters: Vec<_> = function.documentation.parameters().collect();
        let mut arguments: Vec<(String, Argument)> = Vec::with_capacity(given.len());
        let mut named = false;
        for (position, (given_name, argument)) in given.into_iter().enumerate() {
            let is_named = given_name.is_some();
            let is_known = |given: &str| parameters.contains(&given);
            let argument_name = match (given_name, function.documentation.parameter(position)) {
                (Some(given), _) if function.takes_options || is_known(&given) => given,
                (Some(given), _) if parameters.is_empty() => {
                    return plan_err!("{name} takes no arguments, got '{given}'");
                }
                (Some(given), _) => return plan_err!("{name}: {}", unknown_name("argument", &given, &parameters)),
                (None, _) if named => return plan_err!("{name}: positional arguments come before named ones"),
                (None, Some(parameter)) => parameter.to_owned(),
                (None, None) => {
                    let most = function.documentation.arguments.len();
                    return plan_err!("{name} takes at most {most} positional arguments, got more");
                }
            };
            if arguments.iter().any(|(other, _)| *other == argument_name) {
                return plan_err!("{name}: argument '{argument_name}' is given twice");
            }
            named |= is_named;
            arguments.push((argument_name, argument));
        }
        Ok(Self { function: name, arguments, options: WaeOptions::of(config) })
    }

    /// Takes an argument out of the call.
    pub(crate) fn take(&mut self, parameter: &str) -> Option<Argument> {
        let position = self.arguments.iter().position(|(name, _)| name == parameter)?;
        Some(self.arguments.remove(position).1)
    }

    /// Whether the value of an argument comes later.
    pub(crate) fn waits_for(&self, parameter: &str) -> bool {
        self.arguments.iter().any(|(name, argument)| name == parameter && matches!(argument, Argument::Parameter(_)))
    }

    /// Takes a string out of the call.
    pub(crate) fn take_text(&mut self, parameter: &str) -> Result<Option<String>> {
        let function = self.function;
        let Some(argument) = self.take(parameter) else { return Ok(None) };
        match argument.text() {
            Some(text) => Ok(Some(text.to_owned())),
            None => plan_err!("{function}: {parameter} must be a string, got {argument}"),
        }
    }

    /// Takes an integer of at most `max` out of the call.
    pub(crate) fn take_integer(&mut self, parameter: &str, max: u64) -> Result<Option<u64>> {
        let function = self.function;
        let Some(argument) = self.take(parameter) else { return Ok(None) };
        let number = match &argument {
            Argument::Value(ScalarValue::Int64(Some(v))) => u64::try_from(*v).ok(),
            Argument::Value(ScalarValue::UInt64(Some(v))) => Some(*v),
            Argument::Text(text) => text.parse().ok(),
            _ => None,
        };
        match number.filter(|v| *v <= max) {
            Some(number) => Ok(Some(number)),
            None => plan_err!("{function}: {parameter} must be an integer between 0 and {max}, got {argument}"),
        }
    }

    /// The arguments that nobody took.
    pub(crate) fn into_rest(self) -> Vec<(String, Argument)> {
        self.arguments
    }
}

/// Plans these table functions with named arguments, whatever the case of their names.
#[derive(Debug)]
pub(crate) struct WaeRelationPlanner(pub(crate) &'static [&'static TableFunction]);

impl RelationPlanner for WaeRelationPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { name, alias, args, sample, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some(args) = args else {
            check_path(name, context)?;
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let called = match name.0.as_slice() {
            [part] => part.as_ident().map(|i| i.value.to_ascii_lowercase()),
            _ => None,
        };
        let Some(function) = self.0.iter().find(|f| Some(f.name()) == called.as_deref()) else {
            if let Some(called) = called
                && let Some(page) = of_expression(&called, context.context_provider())
            {
                let example = page.sql_example.unwrap_or(page.syntax_example);
                return plan_err!("{called} is no table function: it stands in an expression, as in {example}");
            }
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        if sample.is_some() {
            return plan_err!(
                "{}: TABLESAMPLE is not read, expected a condition such as random() < 0.1",
                function.name()
            );
        }
        let config = Arc::new(context.context_provider().options().clone());
        let mut given = Vec::with_capacity(args.args.len());
        for (position, arg) in args.args.iter().enumerate() {
            let (name, expr) = name_and_value(function.name(), arg)?;
            let parameter = name.as_deref().or(function.documentation.parameter(position)).unwrap_or("an argument");
            let argument = plan_argument(function.name(), parameter, expr, &config, context)?;
            given.push((name, argument));
        }
        let call = Call::try_new(function, given, &config)?;
        let plan = parameters::plan(function, call, config)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

/// Refuses a path that is there and gives no table, with the way to read it. A name without quotes is no path.
fn check_path(name: &ast::ObjectName, context: &dyn RelationPlannerContext) -> Result<()> {
    let parts: Vec<_> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    let is_quoted = |part: &ast::Ident| part.quote_style.is_some();
    let path = parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
    let is_path = match parts.as_slice() {
        [part] => part.quote_style == Some('\'') || is_quoted(part) && path.contains(['/', '.']),
        _ => !parts.iter().any(|part| is_quoted(part)) && Path::new(&path).is_file(),
    };
    let provider = context.context_provider();
    if !is_path || provider.get_table_source(context.object_name_to_table_reference(name.clone())?).is_ok() {
        return Ok(());
    }
    if parts.len() > 1 {
        return plan_err!("no table {path}: the path of a file stands in quotes, as in FROM '{path}'");
    }
    files::explain(&path, provider.options()).map_or(Ok(()), |message| plan_err!("{message}"))
}

/// The name, if there is one, and the value of an argument as it was written.
fn name_and_value<'a>(function: &str, arg: &'a FunctionArg) -> Result<(Option<String>, &'a ast::Expr)> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok((None, expr)),
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. }
        | FunctionArg::ExprNamed { name: ast::Expr::Identifier(name), arg: FunctionArgExpr::Expr(expr), .. } => {
            Ok((Some(name.value.to_ascii_lowercase()), expr))
        }
        other => plan_err!("{function}: cannot read argument {other}"),
    }
}

fn plan_argument(
    function: &str,
    parameter: &str,
    expr: &ast::Expr,
    config: &Arc<ConfigOptions>,
    context: &mut dyn RelationPlannerContext,
) -> Result<Argument> {
    if let ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) = expr {
        let name = expr.to_string().replace('"', "");
        return plan_err!("{function}: {parameter} must be a literal; did you mean '{name}'?");
    }
    if let ast::Expr::Subquery(query) = expr {
        let derived = TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None };
        return context.plan(derived).map(Argument::Plan);
    }
    let planned = context.sql_to_expr(expr.clone(), &DFSchema::empty())?;
    if has_parameter(&planned)? {
        return Ok(Argument::Parameter(planned));
    }
    literal(function, planned, config).map(Argument::Value)
}

/// Folds an expression such as `[0.5, 1]` or `'a' || 'b'` into its value.
pub(super) fn literal(function: &str, expr: Expr, config: &Arc<ConfigOptions>) -> Result<ScalarValue> {
    let context = SimplifyContext::builder().with_config_options(Arc::clone(config)).build();
    let simplifier = ExprSimplifier::new(context);
    match simplifier.coerce(expr, &DFSchema::empty()).and_then(|e| simplifier.simplify(e))? {
        // A parameter may have a narrower type than an integer of SQL.
        Expr::Literal(value, _) if value.data_type().is_integer() && value.data_type() != DataType::UInt64 => {
            value.cast_to(&DataType::Int64)
        }
        Expr::Literal(value, _) => Ok(value),
        other => plan_err!("{function}: an argument must be a literal or a subquery, got {other}"),
    }
}

/// The positional form of a table function.
#[derive(Debug)]
pub(crate) struct Positional(pub(crate) &'static TableFunction);

impl TableFunctionImpl for Positional {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let config = Arc::new(args.session().config_options().clone());
        let mut given = Vec::with_capacity(args.exprs().len());
        for expr in args.exprs() {
            let argument = match expr {
                Expr::ScalarSubquery(query) => Argument::Plan(query.subquery.as_ref().clone()),
                other => Argument::Value(literal(self.0.name(), other.clone(), &config)?),
            };
            given.push((None, argument));
        }
        (self.0.plan)(Call::try_new(self.0, given, &config)?)
    }
}
