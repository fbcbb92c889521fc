//! What every scalar function over a model has in common: finding the model, pinning its version, checking arguments.
//!
//! # Which version of a model a query uses
//! Planning reads the model for the result's type. The optimiser's simplification then replaces the call by one that
//! holds the model itself (`ModelFunction::pinned`), so that every row is computed by one file, even if it is replaced
//! or removed while the query runs. To another node the pin travels as a name and a hash ([`crate::pin`]). A call that
//! was never simplified reads the model when it is invoked, and fails if the result's type is no longer the planned one.
//!
//! # What a function takes of the network
//! A function of an image says in [`ModelKernel::outputs`] what of a pass it is made from, and makes its result from
//! [`Batch::pass`], which computes just that. Where the image is a pass already, as the optimiser's rule has it
//! (`crate::sharing`), the outputs are taken from there, and no network runs.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};

use crate::args::{Batch, PlannedArgs};
use crate::kernel::Kernel;
pub(crate) use crate::kernel::{IMAGE_ARGUMENT, MODEL_ARGUMENT, ModelKernel, SECTION, Texts};
use crate::models::{self, LoadedModel};
use crate::options::WaeOptions;
use crate::pass::Outputs;
use crate::pin::Pin;

/// A [`ModelKernel`] as DataFusion calls it.
#[derive(Clone)]
pub(crate) struct ModelFunction {
    signature: Signature,
    options: WaeOptions,
    pinned: Option<Pin>,
    kernel: Kernel,
}

impl ModelFunction {
    /// The function under the options of a session; DataFusion refreshes them at each `SET`.
    pub(crate) fn new<K: ModelKernel>(options: WaeOptions) -> Self {
        let signature = Signature { volatility: K::VOLATILITY, ..signature(K::PARAMETERS) };
        Self { signature, options, pinned: None, kernel: Kernel::of::<K>() }
    }

    /// The same function, computed by one version of a model.
    pub(crate) fn pin(mut self, pin: Pin) -> Self {
        self.options = pin.options().clone();
        self.pinned = Some(pin);
        self
    }

    /// The version of the model that the function holds, if planning got so far.
    pub(crate) fn pinned(&self) -> Option<&Pin> {
        self.pinned.as_ref()
    }

    /// What of a pass a call needs; nothing if it takes no image.
    pub(crate) fn outputs(&self, args: &[Expr]) -> Outputs {
        (self.kernel.outputs)(&|i| match args.get(i) {
            Some(Expr::Literal(value, _)) => text(value),
            _ => None,
        })
    }

    fn model_position(&self, fields: &[FieldRef]) -> usize {
        (self.kernel.model_position)(fields.len(), &|i| fields[i].data_type().is_string())
    }

    /// The model of a call, or `None` for a prepared parameter that has no value yet.
    fn planned_model(&self, args: &ReturnFieldArgs<'_>) -> Result<Option<Arc<LoadedModel>>> {
        if let Some(pin) = &self.pinned {
            return pin.model(self.kernel.name).map(Some);
        }
        let position = self.model_position(args.arg_fields);
        let name = match (args.arg_fields.get(position), args.scalar_arguments.get(position).copied().flatten()) {
            (None, _) => default_model(self.kernel.name, &self.options)?,
            (Some(_), Some(value)) => literal_model(self.kernel.name, value)?,
            (Some(field), None) if is_placeholder(field) => return Ok(None),
            (Some(field), None) => {
                return plan_err!(
                    "{}: model must be a string literal or a prepared parameter, got an expression of type {}",
                    self.kernel.name,
                    field.data_type()
                );
            }
        };
        models::load(self.kernel.name, name, &self.options).map(Some)
    }

    /// The model of a call that is not pinned: by its argument's value.
    fn invoked_model(&self, args: &ScalarFunctionArgs, options: &WaeOptions) -> Result<Arc<LoadedModel>> {
        let model = match args.args.get(self.model_position(&args.arg_fields)) {
            None => models::load(self.kernel.name, default_model(self.kernel.name, options)?, options)?,
            Some(ColumnarValue::Scalar(value)) => {
                models::load(self.kernel.name, literal_model(self.kernel.name, value)?, options)?
            }
            // Functions called through the C interface get every argument as an array.
            Some(ColumnarValue::Array(array)) => {
                let value = crate::columns::constant(self.kernel.name, "model", array)?;
                models::load(self.kernel.name, literal_model(self.kernel.name, &value)?, options)?
            }
        };
        if (self.kernel.field)(Some(&model), &invoked_texts(args))?.data_type() != args.return_field.data_type() {
            return exec_err!(
                "{}: model '{}' was replaced by another while the query ran",
                self.kernel.name,
                model.name()
            );
        }
        Ok(model)
    }
}

impl ScalarUDFImpl for ModelFunction {
    fn name(&self) -> &str {
        self.kernel.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("{}: the result's type depends on the model", self.kernel.name)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok((self.kernel.coerce)(types))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let planned = PlannedArgs::try_new(self.kernel.name, self.kernel.parameters, &args)?;
        let model = self.planned_model(&args)?;
        if let Some(model) = &model {
            (self.kernel.check)(&planned, model)?;
        }
        let literals = args.scalar_arguments;
        let texts = |i: usize| literals.get(i).copied().flatten().and_then(text);
        (self.kernel.field)(model.as_deref(), &texts).map(Arc::new)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        Some(ScalarUDF::from(Self { options: WaeOptions::of(config), pinned: None, ..self.clone() }))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let options = WaeOptions::of(info.config_options());
        let is_text = |i: usize| matches!(&args[i], Expr::Literal(value, _) if value.data_type().is_string());
        let name = match args.get((self.kernel.model_position)(args.len(), &is_text)) {
            _ if self.pinned.is_some() => return Ok(ExprSimplifyResult::Original(args)),
            None => default_model(self.kernel.name, &options)?,
            Some(Expr::Literal(value, _)) => literal_model(self.kernel.name, value)?,
            Some(_) => return Ok(ExprSimplifyResult::Original(args)),
        };
        let model = models::load_for_statement(self.kernel.name, name, &options, info)?;
        let call = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(self.clone().pin(Pin::new(model, options)))), args);
        Ok(ExprSimplifyResult::Simplified(Expr::ScalarFunction(call)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let options = args.config_options.extensions.get::<WaeOptions>().unwrap_or(&self.options).clone();
        let model = match &self.pinned {
            Some(pin) => pin.model(self.kernel.name)?,
            None => self.invoked_model(&args, &options)?,
        };
        let outputs = (self.kernel.outputs)(&invoked_texts(&args));
        let batch = Batch::new(self.kernel.name, &args, options, Some((model.as_ref(), outputs)));
        batch.finish((self.kernel.run)(&batch)?)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some((self.kernel.documentation)())
    }
}

impl Debug for ModelFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pinned = self.pinned.as_ref().map(|m| (m.name(), m.sha256()));
        f.debug_struct(self.kernel.name).field("options", &self.options).field("pinned", &pinned).finish()
    }
}

impl PartialEq for ModelFunction {
    fn eq(&self, other: &Self) -> bool {
        let version = |this: &Self| this.pinned.as_ref().map(|m| m.sha256().to_owned());
        self.kernel.name == other.kernel.name && self.options == other.options && version(self) == version(other)
    }
}

impl Eq for ModelFunction {}

impl Hash for ModelFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kernel.name.hash(state);
        self.options.hash(state);
        self.pinned.as_ref().map(|m| m.sha256()).hash(state);
    }
}

/// The texts of a call's arguments, which the C interface passes as arrays.
fn invoked_texts(args: &ScalarFunctionArgs) -> impl Fn(usize) -> Option<String> {
    |i| match args.args.get(i)? {
        ColumnarValue::Scalar(value) => text(value),
        ColumnarValue::Array(array) if array.data_type().is_string() && !array.is_empty() => {
            ScalarValue::try_from_array(array, 0).ok().as_ref().and_then(text)
        }
        ColumnarValue::Array(_) => None,
    }
}

/// The text of a value that is one.
fn text(value: &ScalarValue) -> Option<String> {
    value.try_as_str().flatten().map(str::to_owned)
}

/// A signature whose types the function checks itself, with names for its arguments.
pub(crate) fn signature(parameters: &[&str]) -> Signature {
    Signature {
        type_signature: TypeSignature::UserDefined,
        volatility: Volatility::Stable,
        parameter_names: Some(parameters.iter().map(|p| (*p).to_owned()).collect()),
    }
}

/// Whether an argument without a value is a prepared parameter: its type is not known yet, or its name is `$1`.
pub(crate) fn is_placeholder(field: &Field) -> bool {
    field.data_type().is_null() || field.name().starts_with('$')
}

/// The session's model, for a function called without one.
pub(crate) fn default_model<'a>(function: &str, options: &'a WaeOptions) -> Result<&'a str> {
    match options.model() {
        Some(name) => Ok(name),
        None => plan_err!("{function}: no model given, expected a model's name as an argument or SET wae.model"),
    }
}

/// The name of a model that an argument gives.
pub(crate) fn literal_model<'a>(function: &str, value: &'a ScalarValue) -> Result<&'a str> {
    match value.try_as_str() {
        Some(Some(name)) => Ok(name),
        _ if value.is_null() => plan_err!("{function}: model must be a model's name, got NULL"),
        _ => plan_err!("{function}: model must be a string, got {value} of type {}", value.data_type()),
    }
}
