//! The functions for a `datafusion.SessionContext` of PyPI, through the C interface of `datafusion-ffi`.
//!
//! The interface takes planning, types and computing to the other side, and leaves some things behind:
//!
//! - Options `wae.*` are no options of that context. [`HostFunction`] holds those that `register` was called with.
//! - The optimiser does not simplify foreign functions, by which ours pin a model: each batch looks the model up, in a
//!   cache. Aggregates can do so at planning only; [`HostModelAggregate`] has the model that `register` was called
//!   with.
//! - Parameters have no names there, so that there are no named arguments. Literals come as arrays.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DFSchema, Result, exec_err, plan_err};
use datafusion::config::{ConfigOptions, ExtensionOptions};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, WindowUDF, col,
};
use datafusion_ffi::udaf::FFI_AggregateUDF;
use datafusion_ffi::udf::FFI_ScalarUDF;
use datafusion_ffi::udwf::FFI_WindowUDF;
use datafusion_wae::WaeOptions;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::error::python_error;

/// The functions under options: scalar functions, aggregates, and window functions.
///
/// Aggregates over a model are among them if the options name one.
#[pyfunction]
pub(crate) fn host_functions(
    options: Vec<(String, String)>,
) -> PyResult<(Vec<HostScalar>, Vec<HostAggregate>, Vec<HostWindow>)> {
    let config = config(&options).map_err(|e| python_error(&e))?;
    let scalars = scalars(&config).into_iter().map(|f| HostScalar(Arc::new(f))).collect();
    let aggregates = aggregates(&config).map_err(|e| python_error(&e))?;
    let aggregates = aggregates.into_iter().map(|f| HostAggregate(Arc::new(f))).collect();
    let windows = datafusion_wae::all_window_functions().into_iter().map(|f| HostWindow(Arc::new(f))).collect();
    Ok((scalars, aggregates, windows))
}

/// A scalar function, as `datafusion.udf` takes it.
#[pyclass(module = "datafusion_wae._internal", frozen)]
pub(crate) struct HostScalar(Arc<ScalarUDF>);

#[pymethods]
impl HostScalar {
    fn __datafusion_scalar_udf__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        PyCapsule::new_with_value(py, FFI_ScalarUDF::from(Arc::clone(&self.0)), c"datafusion_scalar_udf")
    }
}

/// An aggregate, as `datafusion.udaf` takes it.
#[pyclass(module = "datafusion_wae._internal", frozen)]
pub(crate) struct HostAggregate(Arc<AggregateUDF>);

#[pymethods]
impl HostAggregate {
    fn __datafusion_aggregate_udf__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        PyCapsule::new_with_value(py, FFI_AggregateUDF::from(Arc::clone(&self.0)), c"datafusion_aggregate_udf")
    }
}

/// A window function, as `datafusion.udwf` takes it.
#[pyclass(module = "datafusion_wae._internal", frozen)]
pub(crate) struct HostWindow(Arc<WindowUDF>);

#[pymethods]
impl HostWindow {
    fn __datafusion_window_udf__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        PyCapsule::new_with_value(py, FFI_WindowUDF::from(Arc::clone(&self.0)), c"datafusion_window_udf")
    }
}

/// The options of a session in which `wae.<name>` is set for each of these.
fn config(options: &[(String, String)]) -> Result<Arc<ConfigOptions>> {
    let mut wae = WaeOptions::default();
    for (name, value) in options {
        wae.set(name, value)?;
    }
    let mut config = ConfigOptions::default();
    config.extensions.insert(wae);
    Ok(Arc::new(config))
}

fn scalars(config: &Arc<ConfigOptions>) -> Vec<ScalarUDF> {
    let bind = |function: ScalarUDF| {
        let function = function.inner().with_updated_config(config).unwrap_or(function);
        ScalarUDF::from(HostFunction { function, options: WaeOptions::of(config) })
    };
    datafusion_wae::all_functions().into_iter().map(bind).collect()
}

fn aggregates(config: &Arc<ConfigOptions>) -> Result<Vec<AggregateUDF>> {
    let mut bound = Vec::new();
    for function in datafusion_wae::all_aggregates() {
        if function.simplify().is_none() {
            bound.push(function);
        } else if WaeOptions::of(config).model().is_some() {
            bound.push(AggregateUDF::from(HostModelAggregate::try_new(function, config)?));
        }
    }
    Ok(bound)
}

/// A scalar function that computes under options of its own, whatever the context's are.
#[derive(Debug, PartialEq, Eq, Hash)]
struct HostFunction {
    function: ScalarUDF,
    options: WaeOptions,
}

impl ScalarUDFImpl for HostFunction {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.inner().return_type(types)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut config = ConfigOptions::default();
        config.extensions.insert(self.options.clone());
        args.config_options = Arc::new(config);
        self.function.invoke_with_args(args)
    }
}

/// An aggregate over the model of `register`'s options: `wae_mmd(latent)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct HostModelAggregate {
    function: AggregateUDF,
    signature: Signature,
}

impl HostModelAggregate {
    /// Has the plugin's own simplification put the model into the function.
    fn try_new(function: AggregateUDF, config: &Arc<ConfigOptions>) -> Result<Self> {
        let signature = Signature::user_defined(function.signature().volatility);
        let name = function.name().to_owned();
        let Some(simplify) = function.simplify() else {
            return exec_err!("{name}: the aggregate takes no model");
        };
        let latent = Field::new("latent", DataType::new_list(DataType::Float32, true), true);
        let schema = DFSchema::from_unqualified_fields(vec![latent].into(), Default::default())?;
        let context =
            SimplifyContext::builder().with_schema(Arc::new(schema)).with_config_options(Arc::clone(config)).build();
        let call =
            AggregateFunction::new_udf(Arc::new(function.clone()), vec![col("latent")], false, None, vec![], None);
        match simplify(call, &context)? {
            Expr::AggregateFunction(call) => Ok(Self { function: call.func.as_ref().clone(), signature }),
            other => exec_err!("{name}: expected an aggregate, got {other}"),
        }
    }
}

impl AggregateUDFImpl for HostModelAggregate {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.len() != 1 {
            let (name, got) = (self.name(), types.len());
            return plan_err!("{name} takes 1 argument here (latent), got {got}: its model is that of register()");
        }
        self.function.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.function.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.function.state_fields(args)
    }
}
