//! Calls in the wrong place: a table function outside FROM, a window function without OVER. Their error says where they
//! stand.
//!
//! DataFusion knows a table function in FROM only, and a window function with OVER only. Elsewhere it answers with the
//! function whose name is the nearest, whatever that does. It has no hook for a name that it does not know, so that the
//! names are registered where it looks them up:
//!
//! - a table function's as a higher-order function, which takes arguments of any names and is listed nowhere, while a
//!   scalar function would be listed as one that can be called;
//! - a window function's as an aggregate, which is what a call without OVER could be. With OVER, DataFusion takes the
//!   aggregate first, and the planner here puts the window function in its place. `information_schema` lists the
//!   aggregate beside the window function, with a description that says so.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawWindowExpr};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Documentation, HigherOrderFunctionArgs,
    HigherOrderReturnFieldArgs, HigherOrderSignature, HigherOrderUDF, HigherOrderUDFImpl, LambdaParametersProgress,
    Signature, ValueOrLambda, Volatility, WindowFunctionDefinition, WindowUDF,
};
use datafusion::prelude::SessionContext;

use crate::table::function::TableFunction;
use crate::{table, window};

/// Registers the names of table and window functions where they do not belong.
pub(crate) fn register(ctx: &SessionContext) -> Result<()> {
    for function in table::ALL {
        ctx.register_higher_order_function(Arc::new(HigherOrderUDF::new_from_impl(OutsideFrom::new(function))));
    }
    for function in window::all() {
        ctx.register_udaf(AggregateUDF::from(WithoutOver::new(function)));
    }
    let state = ctx.state_ref();
    state.write().register_expr_planner(Arc::new(WithOver))
}

/// A table function in an expression.
#[derive(Debug)]
struct OutsideFrom {
    function: &'static TableFunction,
    signature: HigherOrderSignature,
}

impl OutsideFrom {
    fn new(function: &'static TableFunction) -> Self {
        Self { function, signature: HigherOrderSignature::user_defined(Volatility::Volatile) }
    }

    fn refuse<T>(&self) -> Result<T> {
        let example = self.function.documentation.example;
        plan_err!("{} is a table function: it stands in FROM, as in {example}", self.name())
    }
}

impl PartialEq for OutsideFrom {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for OutsideFrom {}

impl Hash for OutsideFrom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl HigherOrderUDFImpl for OutsideFrom {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &HigherOrderSignature {
        &self.signature
    }

    /// Called first, with the types of any arguments.
    fn coerce_value_types(&self, _: &[DataType]) -> Result<Vec<DataType>> {
        self.refuse()
    }

    fn lambda_parameters(
        &self,
        _: usize,
        _: &[ValueOrLambda<FieldRef, Option<FieldRef>>],
    ) -> Result<LambdaParametersProgress> {
        self.refuse()
    }

    fn return_field_from_args(&self, _: HigherOrderReturnFieldArgs) -> Result<FieldRef> {
        self.refuse()
    }

    fn invoke_with_args(&self, _: HigherOrderFunctionArgs) -> Result<ColumnarValue> {
        self.refuse()
    }
}

/// A window function without OVER.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WithoutOver {
    window: Arc<WindowUDF>,
    documentation: Option<Documentation>,
}

impl WithoutOver {
    fn new(window: WindowUDF) -> Self {
        let description = format!("Without OVER, an error: {} is a window function.", window.name());
        let documentation = window.documentation().cloned().map(|page| Documentation { description, ..page });
        Self { window: Arc::new(window), documentation }
    }

    fn refuse<T>(&self) -> Result<T> {
        let name = self.name();
        let example = self.documentation.as_ref().and_then(|page| page.sql_example.as_deref()).unwrap_or(name);
        plan_err!("{name} is a window function: it needs OVER (), as in {example}")
    }
}

impl AggregateUDFImpl for WithoutOver {
    fn name(&self) -> &str {
        self.window.name()
    }

    /// The window function's: names of arguments are read before the planner comes.
    fn signature(&self) -> &Signature {
        self.window.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        self.refuse()
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.refuse()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.documentation.as_ref()
    }
}

/// Puts the window function in the place of [`WithoutOver`] where there is OVER, and refuses the call where there is
/// none.
#[derive(Debug)]
struct WithOver;

impl ExprPlanner for WithOver {
    fn plan_aggregate(&self, call: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        match call.func.inner().downcast_ref::<WithoutOver>() {
            Some(function) => function.refuse(),
            None => Ok(PlannerResult::Original(call)),
        }
    }

    fn plan_window(&self, mut call: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        if let WindowFunctionDefinition::AggregateUDF(function) = &call.func_def
            && let Some(function) = function.inner().downcast_ref::<WithoutOver>()
        {
            call.func_def = WindowFunctionDefinition::WindowUDF(Arc::clone(&function.window));
        }
        Ok(PlannerResult::Original(call))
    }
}
