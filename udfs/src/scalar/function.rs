//! Scalar functions as DataFusion calls them: one wrapper finds the model, pins its version and checks arguments for
//! all.
//!
//! # Which version of a model does a query use?
//! Planning reads the model for the result's type. The optimiser's simplification then replaces the call by one that
//! holds the model itself ([`KernelFunction::pin`]), so that every row is computed by one file, even if it is replaced
//! or removed while the query runs. To another node the pin travels as a name and a hash ([`crate::models::pin`]). A
//! call that was never simplified reads the model when it is invoked, and fails if the result's type is no longer the
//! planned one.
//!
//! # Which outputs of the network does a function take?
//! A function of an image names them in [`ScalarKernel::outputs`], and makes its result from [`Batch::pass`], which
//! computes just those. Where the image is a pass already, as the optimiser's rule has it (`crate::plan`), the outputs
//! are taken from there, and no network runs.

use std::borrow::Cow;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, new_empty_array};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::columns::constant;
use crate::models::argument::{default_model, is_placeholder, literal_model};
use crate::models::pin::Pin;
use crate::models::{self, LoadedModel};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::kernel::ScalarKernel;
use crate::scalar::pass::Outputs;
use crate::scalar::planned_image::PlannedImage;

/// A [`ScalarKernel`] as DataFusion calls it.
#[derive(Clone)]
pub(crate) struct KernelFunction {
    kernel: &'static dyn ScalarKernel,
    signature: Signature,
    documentation: Arc<Documentation>,
    options: WaeOptions,
    pinned: Option<Pin>,
    image: PlannedImage,
}

impl KernelFunction {
    /// The function under the options of a session; DataFusion refreshes them at each `SET`.
    pub(crate) fn new(kernel: &'static dyn ScalarKernel, options: &WaeOptions) -> Self {
        let documentation = kernel.documentation();
        Self {
            kernel,
            signature: documentation.signature(kernel.volatility(), &kernel.example_types()),
            documentation: Arc::new(documentation.page()),
            options: options.clone(),
            pinned: None,
            image: PlannedImage::default(),
        }
    }

    /// The same, as DataFusion takes it.
    pub(crate) fn udf(kernel: &'static dyn ScalarKernel, options: &WaeOptions) -> ScalarUDF {
        ScalarUDF::from(Self::new(kernel, options))
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

    /// Whether the function computes with a model.
    pub(crate) fn is_over_model(&self) -> bool {
        self.kernel.model_position(0, &|_| false).is_some()
    }

    /// Bytes that a call carries to another node, beside the function's name: the model's version, or the image's type.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match &self.pinned {
            Some(pin) => pin.encode(),
            None => self.image.encode(),
        }
    }

    /// The function of a call that came from another node with these bytes.
    ///
    /// # Errors
    /// A plan error if a function over a model came without the version of its model.
    pub(crate) fn decode(self, bytes: &[u8]) -> Result<Self> {
        if self.is_over_model() {
            let pin = Pin::decode(self.name(), bytes)?;
            return Ok(self.pin(pin));
        }
        let image = PlannedImage::decode(self.name(), bytes)?;
        Ok(Self { image, ..self })
    }

    /// Outputs of the network that a call needs; none if it takes no image.
    pub(crate) fn outputs(&self, args: &[Expr]) -> Outputs {
        self.kernel.outputs(&|i| match args.get(i) {
            Some(Expr::Literal(value, _)) => text(value),
            _ => None,
        })
    }

    fn model_position(&self, fields: &[FieldRef]) -> Option<usize> {
        self.kernel.model_position(fields.len(), &|i| fields[i].data_type().is_string())
    }

    /// The model of a call, or `None` for a function over none, and for a prepared parameter that has no value yet.
    fn planned_model(&self, args: &ReturnFieldArgs<'_>) -> Result<Option<Arc<LoadedModel>>> {
        let function = self.name();
        if let Some(pin) = &self.pinned {
            return pin.model(function).map(Some);
        }
        let Some(position) = self.model_position(args.arg_fields) else { return Ok(None) };
        let value = args.scalar_arguments.get(position).copied().flatten();
        let name = match (args.arg_fields.get(position), value) {
            (None, _) => default_model(function, &self.options)?,
            (Some(_), Some(value)) => literal_model(function, value)?,
            (Some(field), None) if is_placeholder(field) => return Ok(None),
            (Some(field), None) => {
                return plan_err!(
                    "{function}: model must be a string literal or a prepared parameter, got an expression of type {}",
                    field.data_type()
                );
            }
        };
        models::load(function, name, &self.options).map(Some)
    }

    /// The model of a call that runs: the pinned one, or that of its argument; `None` for a function over none.
    fn invoked_model(
        &self,
        args: &ScalarFunctionArgs,
        literals: &[Option<&ScalarValue>],
        options: &WaeOptions,
    ) -> Result<Option<Arc<LoadedModel>>> {
        let function = self.name();
        if let Some(pin) = &self.pinned {
            return pin.model(function).map(Some);
        }
        let Some(position) = self.model_position(&args.arg_fields) else { return Ok(None) };
        let model = match args.args.get(position) {
            None => models::load(function, default_model(function, options)?, options)?,
            Some(ColumnarValue::Scalar(value)) => models::load(function, literal_model(function, value)?, options)?,
            // Functions called through the C interface get every argument as an array.
            Some(ColumnarValue::Array(array)) => {
                let value = constant(function, "model", array)?;
                models::load(function, literal_model(function, &value)?, options)?
            }
        };
        let planned = PlannedArgs::new(self.kernel.documentation(), &args.arg_fields, literals, Some(&model));
        // Planning checked the arguments against the model of then: with another type, or where they do not fit, it is
        // another.
        let is_planned =
            self.kernel.field(&planned).is_ok_and(|field| field.data_type() == args.return_field.data_type());
        if !is_planned {
            return exec_err!("{function}: model '{}' was replaced by another while the query ran", model.name());
        }
        Ok(Some(model))
    }
}

impl ScalarUDFImpl for KernelFunction {
    fn name(&self) -> &str {
        self.kernel.documentation().name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("{}: the result's type depends on the arguments' values", self.name())
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(self.kernel.coerce(types))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let documentation = self.kernel.documentation();
        documentation.check_arity(self.kernel.required(), args.arg_fields.len())?;
        let unknown = without_values(&args);
        let args = match &unknown {
            Some(arg_fields) => ReturnFieldArgs { arg_fields, ..args },
            None => args,
        };
        let model = self.planned_model(&args)?;
        let planned = PlannedArgs::new(documentation, args.arg_fields, args.scalar_arguments, model.as_deref());
        self.kernel.field(&planned).map(Arc::new)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        Some(ScalarUDF::from(Self { options: WaeOptions::of(config), pinned: None, ..self.clone() }))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let is_text = |i: usize| matches!(&args[i], Expr::Literal(value, _) if value.data_type().is_string());
        let Some(position) = self.kernel.model_position(args.len(), &is_text) else {
            return self.image.pin(args, info, |image| ScalarUDF::from(Self { image, ..self.clone() }));
        };
        let options = WaeOptions::of(info.config_options());
        let name = match args.get(position) {
            _ if self.pinned.is_some() => return Ok(ExprSimplifyResult::Original(args)),
            None => default_model(self.name(), &options)?,
            Some(Expr::Literal(value, _)) => literal_model(self.name(), value)?,
            Some(_) => return Ok(ExprSimplifyResult::Original(args)),
        };
        let model = models::load_for_statement(self.name(), name, &options, info)?;
        let call = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(self.clone().pin(Pin::new(model, options)))), args);
        Ok(ExprSimplifyResult::Simplified(Expr::ScalarFunction(call)))
    }

    /// Parameters count as arguments that may not be computed, since DataFusion moves what several calls surely compute
    /// into a column of its own, in which a prepared model could not be found any more.
    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        let (parameters, others): (Vec<_>, Vec<_>) = args.iter().partition(|arg| matches!(arg, Expr::Placeholder(_)));
        (!parameters.is_empty()).then_some((others, parameters))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        // Through the C interface, the arguments of no row have no value either, such as the model's name.
        if args.number_rows == 0 {
            return Ok(ColumnarValue::Array(new_empty_array(args.return_field.data_type())));
        }
        let args = self.image.restore(args);
        let options = args.config_options.extensions.get::<WaeOptions>().unwrap_or(&self.options).clone();
        let literals: Vec<_> = args.args.iter().map(literal).collect();
        let literals: Vec<_> = literals.iter().map(Option::as_deref).collect();
        let model = self.invoked_model(&args, &literals, &options)?;
        let outputs = self.kernel.outputs(&|i| text(literals.get(i).copied().flatten()?));
        let batch = Batch::new(self.name(), &args, options, model.as_deref(), outputs);
        batch.finish(self.kernel.run(&batch)?)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

impl Debug for KernelFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pinned = self.pinned.as_ref().map(|m| (m.name(), m.sha256()));
        f.debug_struct(self.name()).field("options", &self.options).field("pinned", &pinned).finish()
    }
}

impl PartialEq for KernelFunction {
    fn eq(&self, other: &Self) -> bool {
        let version = |this: &Self| this.pinned.as_ref().map(|m| m.sha256().to_owned());
        self.name() == other.name()
            && self.options == other.options
            && version(self) == version(other)
            && self.image == other.image
    }
}

impl Eq for KernelFunction {}

impl Hash for KernelFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
        self.options.hash(state);
        self.pinned.as_ref().map(|m| m.sha256()).hash(state);
        self.image.hash(state);
    }
}

/// The arguments of a call of which `information_schema` asks for the result's type, by fields of these names and without
/// a value: they are prepared parameters that have none yet.
fn without_values(args: &ReturnFieldArgs<'_>) -> Option<Vec<FieldRef>> {
    let mut fields = args.arg_fields.iter().enumerate();
    let is_asked = args.scalar_arguments.iter().all(Option::is_none)
        && fields.all(|(i, field)| field.name().strip_prefix("arg_") == Some(i.to_string().as_str()));
    let unknown = |(i, field): (usize, &FieldRef)| Arc::new(field.as_ref().clone().with_name(format!("${}", i + 1)));
    is_asked.then(|| args.arg_fields.iter().enumerate().map(unknown).collect())
}

/// The value of an argument that has one for all rows. The C interface passes literals as arrays; of those, strings are
/// told.
fn literal(argument: &ColumnarValue) -> Option<Cow<'_, ScalarValue>> {
    match argument {
        ColumnarValue::Scalar(value) => Some(Cow::Borrowed(value)),
        ColumnarValue::Array(array) if array.data_type().is_string() && !array.is_empty() => {
            ScalarValue::try_from_array(array, 0).ok().map(Cow::Owned)
        }
        ColumnarValue::Array(_) => None,
    }
}

/// The text of a value that is one.
fn text(value: &ScalarValue) -> Option<String> {
    value.try_as_str().flatten().map(str::to_owned)
}
