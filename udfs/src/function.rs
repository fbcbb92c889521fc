//! What every scalar function over a model has in common: finding the model, pinning its version, checking arguments.
//!
//! # Which version of a model a query uses
//! Planning reads the model for the result's type. The optimiser's simplification then replaces the call by one that
//! holds the model itself (`ModelFunction::pinned`), so that every row is computed by one file, even if it is replaced
//! or removed while the query runs. A call that was never simplified, such as one that another node decoded by name,
//! reads the model when it is invoked, and fails if the result's type is no longer the planned one.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, DocSection, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, TypeSignature, Volatility,
};

use crate::args::{Batch, PlannedArgs};
use crate::models::{self, LoadedModel};
use crate::options::WaeOptions;

/// The section of the SQL reference that the plugin's functions stand in.
pub(crate) const SECTION: DocSection =
    DocSection { include: true, label: "Wasserstein auto-encoder functions", description: None };

/// The description of the argument that holds an image.
pub(crate) const IMAGE_ARGUMENT: &str = "The image: encoded bytes, a struct with a field `bytes`, a tensor or nested \
     lists, of the height, width and channels that the model takes; of any size where it was trained with `size`.";

/// The description of the argument that names a model.
pub(crate) const MODEL_ARGUMENT: &str =
    "The model's name: a string literal or a prepared parameter. Left out, it is the session's `wae.model`.";

/// One function over a model: its names, its type rule and its computation.
pub(crate) trait ModelKernel: Debug + Send + Sync + 'static {
    /// The SQL name.
    const NAME: &'static str;
    /// The parameters in order; those after the first may be left out.
    const PARAMETERS: &'static [&'static str];

    /// The reference page.
    fn documentation() -> &'static Documentation;

    /// Which of a call's arguments names the model; they may be fewer. `is_text` tells whether one is a string.
    fn model_position(_arguments: usize, _is_text: impl Fn(usize) -> bool) -> usize {
        1
    }

    /// The types that arguments are cast to; most functions take them as they are.
    fn coerce(types: &[DataType]) -> Vec<DataType> {
        types.to_vec()
    }

    /// Checks the arguments against the model, at planning.
    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()>;

    /// The result's field; without a model, which is so while a prepared parameter has no value yet, a stand-in.
    fn field(model: Option<&LoadedModel>) -> Result<Field>;

    /// Computes a batch: one value a row.
    fn run(batch: &Batch<'_>) -> Result<ArrayRef>;
}

/// A [`ModelKernel`] as DataFusion calls it.
pub(crate) struct ModelFunction<K> {
    signature: Signature,
    options: WaeOptions,
    pinned: Option<Arc<LoadedModel>>,
    kernel: PhantomData<K>,
}

impl<K: ModelKernel> ModelFunction<K> {
    /// The function under the options of a session; DataFusion refreshes them at each `SET`.
    pub(crate) fn new(options: WaeOptions) -> Self {
        Self { signature: signature(K::PARAMETERS), options, pinned: None, kernel: PhantomData }
    }

    /// The model of a call, or `None` for a prepared parameter that has no value yet.
    fn planned_model(&self, args: &ReturnFieldArgs<'_>) -> Result<Option<Arc<LoadedModel>>> {
        if let Some(model) = &self.pinned {
            return Ok(Some(Arc::clone(model)));
        }
        let position = model_position::<K>(args.arg_fields);
        let name = match (args.arg_fields.get(position), args.scalar_arguments.get(position).copied().flatten()) {
            (None, _) => default_model(K::NAME, &self.options)?,
            (Some(_), Some(value)) => literal_model(K::NAME, value)?,
            (Some(field), None) if is_placeholder(field) => return Ok(None),
            (Some(field), None) => {
                return plan_err!(
                    "{}: model must be a string literal or a prepared parameter, got an expression of type {}",
                    K::NAME,
                    field.data_type()
                );
            }
        };
        models::load(K::NAME, name, &self.options).map(Some)
    }

    /// The model of a call that is not pinned: by its argument's value.
    fn invoked_model(&self, args: &ScalarFunctionArgs, options: &WaeOptions) -> Result<Arc<LoadedModel>> {
        let model = match args.args.get(model_position::<K>(&args.arg_fields)) {
            None => models::load(K::NAME, default_model(K::NAME, options)?, options)?,
            Some(ColumnarValue::Scalar(value)) => models::load(K::NAME, literal_model(K::NAME, value)?, options)?,
            // Functions called through the C interface get every argument as an array.
            Some(ColumnarValue::Array(array)) => {
                let value = crate::args::constant(K::NAME, "model", array)?;
                models::load(K::NAME, literal_model(K::NAME, &value)?, options)?
            }
        };
        if K::field(Some(&model))?.data_type() != args.return_field.data_type() {
            return exec_err!("{}: model '{}' was replaced by another while the query ran", K::NAME, model.name());
        }
        Ok(model)
    }
}

impl<K: ModelKernel> ScalarUDFImpl for ModelFunction<K> {
    fn name(&self) -> &str {
        K::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("{}: the result's type depends on the model", K::NAME)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(K::coerce(types))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let planned = PlannedArgs::try_new(K::NAME, K::PARAMETERS, &args)?;
        let model = self.planned_model(&args)?;
        if let Some(model) = &model {
            K::check(&planned, model)?;
        }
        K::field(model.as_deref()).map(Arc::new)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        Some(ScalarUDF::from(Self::new(WaeOptions::of(config))))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let options = WaeOptions::of(info.config_options());
        let is_text = |i: usize| matches!(&args[i], Expr::Literal(value, _) if value.data_type().is_string());
        let name = match args.get(K::model_position(args.len(), is_text)) {
            _ if self.pinned.is_some() => return Ok(ExprSimplifyResult::Original(args)),
            None => default_model(K::NAME, &options)?,
            Some(Expr::Literal(value, _)) => literal_model(K::NAME, value)?,
            Some(_) => return Ok(ExprSimplifyResult::Original(args)),
        };
        let pinned = Some(models::load(K::NAME, name, &options)?);
        let function = Self { signature: self.signature.clone(), options, pinned, kernel: PhantomData };
        let call = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), args);
        Ok(ExprSimplifyResult::Simplified(Expr::ScalarFunction(call)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let options = args.config_options.extensions.get::<WaeOptions>().unwrap_or(&self.options).clone();
        let model = match &self.pinned {
            Some(model) => Arc::clone(model),
            None => self.invoked_model(&args, &options)?,
        };
        let batch = Batch::new(K::NAME, &args, options, Some(&model));
        batch.finish(K::run(&batch)?)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(K::documentation())
    }
}

impl<K: ModelKernel> Debug for ModelFunction<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pinned = self.pinned.as_ref().map(|m| (m.name(), m.sha256()));
        f.debug_struct(K::NAME).field("options", &self.options).field("pinned", &pinned).finish()
    }
}

impl<K: ModelKernel> PartialEq for ModelFunction<K> {
    fn eq(&self, other: &Self) -> bool {
        let version = |this: &Self| this.pinned.as_ref().map(|m| m.sha256().to_owned());
        self.options == other.options && version(self) == version(other)
    }
}

impl<K: ModelKernel> Eq for ModelFunction<K> {}

impl<K: ModelKernel> Hash for ModelFunction<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        K::NAME.hash(state);
        self.options.hash(state);
        self.pinned.as_ref().map(|m| m.sha256()).hash(state);
    }
}

fn model_position<K: ModelKernel>(fields: &[FieldRef]) -> usize {
    K::model_position(fields.len(), |i| fields[i].data_type().is_string())
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
