//! Table functions with named arguments.
//!
//! DataFusion's own table functions take positional arguments only. A [`RelationPlanner`] sees the call as it was
//! written, names included; hosts that lack one still have the positional form. Both end in the same [`Call`].

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr, TableFactor};

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
    /// Plans a call.
    pub(crate) plan: fn(Call) -> Result<Arc<dyn TableProvider>>,
}

impl TableFunction {
    /// The SQL name.
    pub(crate) const fn name(&self) -> &'static str {
        self.documentation.name
    }
}

/// The value of an argument.
#[derive(Debug, Clone)]
pub(crate) enum Argument {
    /// A literal.
    Value(ScalarValue),
    /// A subquery.
    Plan(LogicalPlan),
}

/// A call of a table function: its arguments by name, in the order in which they were given.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) function: &'static str,
    arguments: Vec<(String, Argument)>,
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
        let parameters = function.documentation.parameter_list();
        let mut arguments: Vec<(String, Argument)> = Vec::with_capacity(given.len());
        let mut named = false;
        for (position, (given_name, argument)) in given.into_iter().enumerate() {
            let is_named = given_name.is_some();
            let is_known = |given: &str| function.documentation.parameters().any(|parameter| parameter == given);
            let argument_name = match (given_name, function.documentation.parameter(position)) {
                (Some(given), _) if function.takes_options || is_known(&given) => given,
                (Some(given), _) => {
                    return plan_err!("{name}: unknown argument '{given}', expected one of {parameters}");
                }
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

    /// Takes a string out of the call.
    pub(crate) fn take_text(&mut self, parameter: &str) -> Result<Option<String>> {
        let function = self.function;
        match self.take(parameter) {
            None => Ok(None),
            Some(Argument::Value(value)) => match value.try_as_str() {
                Some(Some(text)) => Ok(Some(text.to_owned())),
                _ => plan_err!("{function}: {parameter} must be a string, got {value}"),
            },
            Some(Argument::Plan(_)) => plan_err!("{function}: {parameter} must be a string, got a subquery"),
        }
    }

    /// Takes an integer of at most `max` out of the call.
    pub(crate) fn take_integer(&mut self, parameter: &str, max: u64) -> Result<Option<u64>> {
        let refuse =
            |got: String| plan_err!("{}: {parameter} must be an integer between 0 and {max}, got {got}", self.function);
        let value = match self.arguments.iter().find(|(name, _)| name == parameter) {
            None => return Ok(None),
            Some((_, Argument::Plan(_))) => return refuse("a subquery".to_owned()),
            Some((_, Argument::Value(value))) => value,
        };
        let number = match value {
            ScalarValue::Int64(Some(v)) => u64::try_from(*v).ok(),
            ScalarValue::UInt64(Some(v)) => Some(*v),
            _ => None,
        };
        match number.filter(|v| *v <= max) {
            Some(number) => {
                self.take(parameter);
                Ok(Some(number))
            }
            None => refuse(value.to_string()),
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
        let TableFactor::Table { name, alias, args, .. } = &relation else {
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
            if let Some(page) = called.and_then(|name| of_expression(&name, context.context_provider())) {
                let example = page.sql_example.unwrap_or(page.syntax_example);
                return plan_err!("{name} is no table function: it stands in an expression, as in {example}");
            }
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let mut given = Vec::with_capacity(args.args.len());
        for (position, arg) in args.args.iter().enumerate() {
            let (name, expr) = name_and_value(function.name(), arg)?;
            let parameter = name.as_deref().or(function.documentation.parameter(position)).unwrap_or("an argument");
            let argument = plan_argument(function.name(), parameter, expr, context)?;
            given.push((name, argument));
        }
        let call = Call::try_new(function, given, context.context_provider().options())?;
        let provider = provider_as_source((function.plan)(call)?);
        let plan = LogicalPlanBuilder::scan(function.name(), provider, None)?.build()?;
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
    literal(function, planned, context.context_provider().options())
}

/// Folds an expression such as `[0.5, 1]` or `'a' || 'b'` into its value.
fn literal(function: &str, expr: Expr, config: &ConfigOptions) -> Result<Argument> {
    let context = SimplifyContext::builder().with_config_options(Arc::new(config.clone())).build();
    let simplifier = ExprSimplifier::new(context);
    match simplifier.coerce(expr, &DFSchema::empty()).and_then(|e| simplifier.simplify(e))? {
        Expr::Literal(value, _) => Ok(Argument::Value(value)),
        other => plan_err!("{function}: an argument must be a literal or a subquery, got {other}"),
    }
}

/// The positional form of a table function.
#[derive(Debug)]
pub(crate) struct Positional(pub(crate) &'static TableFunction);

impl TableFunctionImpl for Positional {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let config = args.session().config_options();
        let mut given = Vec::with_capacity(args.exprs().len());
        for expr in args.exprs() {
            let argument = match expr {
                Expr::ScalarSubquery(query) => Argument::Plan(query.subquery.as_ref().clone()),
                other => literal(self.0.name(), other.clone(), config)?,
            };
            given.push((None, argument));
        }
        (self.0.plan)(Call::try_new(self.0, given, config)?)
    }
}
