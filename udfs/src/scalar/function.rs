//! Scalar functions as DataFusion calls them: one wrapper finds the model, pins its version and checks arguments for
//! all.
//!
//! # Which version of a model does a query use?
//! Planning reads the model for the result's type. The optimiser's simplification then replaces the call by one that
//! holds the model itself ([`KernelFunction::pin`]), so that every row is computed by one file, even if it is replaced
//! or removed while the query runs. To another node the pin travels as a name and a hash ([`crate::models::pin`]). A
//! call that was never simplified reads the model when it is invoked, and fails if the result's type is no longer the
//! planned one. A pretrained network is held in the same way ([`PinnedNetwork`]).
//!
//! # Which outputs of the network does a function take?
//! A function of an image names them in [`ScalarKernel::outputs`], and makes its result from [`Batch::pass`], which
//! computes just those. Where the image is a pass already, as the optimiser's rule has it (`crate::plan`), the outputs
//! are taken from there, and no network runs.

use std::borrow::Cow;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_empty_array};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

use crate::models;
use crate::models::argument::{default_model, literal_model};
use crate::models::pin::Pin;
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::planned_image::PlannedImage;
use crate::scalar::scores;
use crate::weights::PinnedNetwork;

/// A [`ScalarKernel`] as DataFusion calls it.
#[derive(Clone)]
pub(crate) struct KernelFunction {
    pub(super) kernel: &'static dyn ScalarKernel,
    signature: Signature,
    documentation: Arc<Documentation>,
    pub(super) options: WaeOptions,
    pub(super) pinned: Option<Pin>,
    /// The pretrained network of a call whose arguments name its version.
    pub(super) network: PinnedNetwork,
    pub(super) image: PlannedImage,
    /// Whether the last argument is the path of the image's file, which the rule of image arguments adds.
    pub(super) path: bool,
    /// A bit for each argument that was a literal when planning looked for the image. The type of a result depends on
    /// no other literals: the optimiser makes them of constants, and a type that changed with them would not fit the
    /// plan.
    pub(super) literals: Option<u32>,
}

impl KernelFunction {
    /// The function under the options of a session; DataFusion refreshes them at each `SET`.
    pub(crate) fn new(kernel: &'static dyn ScalarKernel, options: &WaeOptions) -> Self {
        let documentation = kernel.documentation();
        // A model's file can change between statements, but not within one. Optimisers copy a stable expression to
        // wherever its column is used, which would compute a pass again there.
        let volatility = if kernel.is_pass() { Volatility::Volatile } else { Volatility::Stable };
        Self {
            kernel,
            signature: documentation.signature(volatility, &kernel.example_types()),
            documentation: Arc::new(documentation.page()),
            options: options.clone(),
            pinned: None,
            network: PinnedNetwork::default(),
            image: PlannedImage::default(),
            path: false,
            literals: None,
        }
    }

    /// The same, as DataFusion takes it.
    pub(crate) fn udf(kernel: &'static dyn ScalarKernel, options: &WaeOptions) -> ScalarUDF {
        ScalarUDF::from(Self::new(kernel, options))
    }

    /// The call with its pretrained network, and with the arguments that name the version.
    fn pin_network(&self, args: Vec<Expr>, options: WaeOptions) -> Result<ExprSimplifyResult> {
        let (own, path) = self.split(&args);
        let Some((mut pinned, network)) = self.kernel.pin(own, &options, &self.network)? else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        if pinned == own && self.network.is_loaded() {
            return Ok(ExprSimplifyResult::Original(args));
        }
        pinned.extend(path.cloned());
        let function = ScalarUDF::from(Self { options, ..self.clone() }.with_network(network));
        let call = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), pinned));
        Ok(ExprSimplifyResult::Simplified(call))
    }

    /// The arguments that the user wrote, the image's field as planning saw it; and the paths of the images' files.
    fn own_args(&self, mut args: ScalarFunctionArgs) -> Result<(ScalarFunctionArgs, Option<ArrayRef>)> {
        let mut paths = None;
        if self.path {
            args.arg_fields.pop();
            paths = args.args.pop().map(|path| path.to_array(args.number_rows)).transpose()?;
        }
        if let Cow::Owned(fields) = self.image.restore(&args.arg_fields) {
            args.arg_fields = fields;
        }
        Ok((args, paths))
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
        let (own, path) = self.split(types);
        Ok(self.kernel.coerce(own).into_iter().chain(path.cloned()).collect())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let documentation = self.kernel.documentation();
        let (arg_fields, _) = self.split(args.arg_fields);
        let (scalar_arguments, _) = self.split(args.scalar_arguments);
        documentation.check_arity(self.kernel.required(), arg_fields.len())?;
        let unknown = without_values(&ReturnFieldArgs { arg_fields, scalar_arguments });
        let arg_fields = unknown.as_deref().unwrap_or(arg_fields);
        let model = self.planned_model(&ReturnFieldArgs { arg_fields, scalar_arguments })?;
        let arg_fields = self.image.restore(arg_fields);
        let score = scores::default_score(model.as_deref(), &self.options);
        let planned =
            PlannedArgs::new(documentation, &arg_fields, scalar_arguments, model.as_deref(), score, &self.options)
                .planned_as(self.image.is_lost(), self.literals)
                .with_network(&self.network);
        let field = self.kernel.field(&planned)?;
        let waits_for_model = model.is_none() && self.is_over_model();
        if self.image.is_planned() && !waits_for_model {
            self.kernel.check_layout(&planned)?;
        }
        Ok(Arc::new(field))
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let function = Self { options: WaeOptions::of(config), pinned: None, ..self.clone() };
        Some(ScalarUDF::from(function.with_network(PinnedNetwork::default())))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let (own, _) = self.split(&args);
        let is_text = |i: usize| matches!(&own[i], Expr::Literal(value, _) if value.data_type().is_string());
        let options = WaeOptions::of(info.config_options());
        let Some(position) = self.kernel.model_position(own.len(), &is_text) else {
            return self.pin_network(args, options);
        };
        let name = match own.get(position) {
            _ if self.pinned.is_some() => return Ok(ExprSimplifyResult::Original(args)),
            None => default_model(self.name(), &options)?,
            Some(Expr::Literal(value, _)) => literal_model(self.name(), value)?,
            Some(_) => return Ok(ExprSimplifyResult::Original(args)),
        };
        let model = models::load_for_statement(self.name(), name, &options, info)?;
        let pinned = Expr::ScalarFunction(ScalarFunction::new_udf(
            Arc::new(ScalarUDF::from(self.clone().pin(Pin::new(model, options)))),
            args,
        ));
        // The type of the image is known by now, and with it whether the model takes it.
        pinned.to_field(info.schema().as_ref())?;
        Ok(ExprSimplifyResult::Simplified(pinned))
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
        let (args, paths) = self.own_args(args)?;
        let options = args.config_options.extensions.get::<WaeOptions>().unwrap_or(&self.options).clone();
        let literals: Vec<_> = args.args.iter().map(literal).collect();
        let literals: Vec<_> = literals.iter().map(Option::as_deref).collect();
        let model = self.invoked_model(&args, &literals, &options)?;
        let text = |i: usize| text(literals.get(i).copied().flatten()?);
        let score = scores::default_score(model.as_deref(), &options);
        let outputs = self.kernel.outputs(&KnownCall { text: &text, score });
        let batch = Batch::new(self.name(), &args, options, model.as_deref(), outputs);
        let batch = batch.with_paths(paths).with_network(&self.network);
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
            && self.path == other.path
            && self.literals == other.literals
    }
}

impl Eq for KernelFunction {}

impl Hash for KernelFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
        self.options.hash(state);
        self.pinned.as_ref().map(|m| m.sha256()).hash(state);
        self.image.hash(state);
        self.path.hash(state);
        self.literals.hash(state);
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
pub(super) fn text(value: &ScalarValue) -> Option<String> {
    value.try_as_str().flatten().map(str::to_owned)
}
