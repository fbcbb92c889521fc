//! The arguments of scalar functions: checks at planning, batches at run time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, new_null_array};
use arrow::datatypes::{Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};
use wae_core::calibrate::Score;
use wae_core::image::AxisOrder;
use wae_core::{ImageColumn, ImageShape};

use crate::columns::constant;
use crate::documentation::FunctionDocumentation;
use crate::error::exec_error;
use crate::models::LoadedModel;
use crate::models::argument::is_placeholder;
use crate::options::WaeOptions;
use crate::scalar::image_argument::{check_features, check_image, check_image_or_features, check_layout, read};
use crate::scalar::pass::{Outputs, Pass, PassBuilder};
use crate::weights::PinnedNetwork;

/// The arguments of a call as planning sees them: fields, the values of literals, and the model.
pub(crate) struct PlannedArgs<'a> {
    documentation: &'static FunctionDocumentation,
    fields: &'a [FieldRef],
    literals: &'a [Option<&'a ScalarValue>],
    model: Option<&'a LoadedModel>,
    score: Score,
    options: &'a WaeOptions,
    /// Whether the image's own field does not name the type that planning found.
    lost: bool,
    /// The pretrained network that the call holds.
    pub(super) network: PinnedNetwork,
    /// A bit for each argument on whose value the type of the result may depend, if planning has looked.
    fixed: Option<u32>,
}

impl<'a> PlannedArgs<'a> {
    /// The arguments of a call whose number has been checked; `score` is that of a call that names none.
    pub(crate) fn new(
        documentation: &'static FunctionDocumentation,
        fields: &'a [FieldRef],
        literals: &'a [Option<&'a ScalarValue>],
        model: Option<&'a LoadedModel>,
        score: Score,
        options: &'a WaeOptions,
    ) -> Self {
        let network = PinnedNetwork::default();
        Self { documentation, fields, literals, model, score, options, lost: false, network, fixed: None }
    }

    /// The same, of a call that planning has seen: whether the image's own field does not name the type that was found,
    /// and the arguments that were literals.
    pub(crate) fn planned_as(self, lost: bool, fixed: Option<u32>) -> Self {
        Self { lost, fixed, ..self }
    }

    /// The same, of a call that holds its pretrained network.
    pub(crate) fn with_network(self, network: &PinnedNetwork) -> Self {
        Self { network: network.clone(), ..self }
    }

    /// The session's options.
    pub(crate) fn options(&self) -> &'a WaeOptions {
        self.options
    }

    /// The function's name.
    pub(crate) fn function(&self) -> &'static str {
        self.documentation.name
    }

    /// The model; `None` for a function over none, and while a prepared parameter has no value yet.
    pub(crate) fn model(&self) -> Option<&'a LoadedModel> {
        self.model
    }

    /// The score of a call that names none.
    pub(crate) fn score(&self) -> Score {
        self.score
    }

    /// Number of arguments that are given.
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// The field of an argument, if it is given.
    pub(crate) fn field(&self, index: usize) -> Option<&Field> {
        self.fields.get(index).map(AsRef::as_ref)
    }

    /// The name of the parameter at a position.
    pub(crate) fn parameter(&self, index: usize) -> &'static str {
        self.documentation.parameter(index).unwrap_or_default()
    }

    /// The value of an argument that is a literal.
    pub(crate) fn literal(&self, index: usize) -> Option<&ScalarValue> {
        self.literals.get(index).copied().flatten()
    }

    /// Whether an argument is a prepared parameter that has no value yet.
    pub(crate) fn is_placeholder(&self, index: usize) -> bool {
        self.literal(index).is_none() && self.field(index).is_some_and(is_placeholder)
    }

    /// The text of an argument that has to be a string literal; `None` if it is left out.
    pub(crate) fn text(&self, index: usize) -> Result<Option<&str>> {
        let Some(field) = self.field(index) else { return Ok(None) };
        match self.literal(index).and_then(ScalarValue::try_as_str) {
            Some(Some(text)) => Ok(Some(text)),
            _ => plan_err!(
                "{}: {} must be a string literal, got an expression of type {}",
                self.function(),
                self.parameter(index),
                field.data_type()
            ),
        }
    }

    /// Checks that the first argument is an image that the model, if there is one, takes, as far as its type tells. An
    /// untyped NULL is an image, and a pass comes from one.
    pub(crate) fn check_image(&self) -> Result<()> {
        let Some(image) = self.image() else { return Ok(()) };
        match self.model {
            None if self.documentation.parameters().any(|parameter| parameter == "model") => {
                check_image_or_features(self.function(), image)
            }
            model => check_image(self.function(), image, model),
        }
    }

    /// Checks that the first argument, whose type planning has looked for, says how its values make an image; the
    /// model's shape is that of a list of one channel whose type does not say it.
    pub(crate) fn check_layout(&self) -> Result<()> {
        let Some(image) = self.image() else { return Ok(()) };
        check_layout(self.function(), image, self.model.map(|model| model.wae().config()))?;
        self.model.map_or(Ok(()), |model| check_features(self.function(), image, model))
    }

    /// Whether the type of the result may depend on the value of an argument, which is a literal.
    pub(crate) fn is_fixed(&self, index: usize) -> bool {
        self.fixed.is_none_or(|fixed| index < 32 && fixed & (1 << index) != 0)
    }

    /// Whether the image's own field does not name the type that planning found.
    pub(crate) fn has_lost_type(&self) -> bool {
        self.lost
    }

    /// The field of the first argument, unless it is an untyped NULL or a pass.
    pub(crate) fn image(&self) -> Option<&Field> {
        self.field(0).filter(|field| !field.data_type().is_null() && !Pass::is(field.data_type()))
    }
}

/// The arguments of a call on one batch. Where all are literals, it is one row, whatever the batch's number of rows.
#[derive(Clone)]
pub(crate) struct Batch<'a> {
    function: &'a str,
    args: &'a ScalarFunctionArgs,
    options: WaeOptions,
    model: Option<&'a LoadedModel>,
    outputs: Outputs,
    paths: Option<ArrayRef>,
    /// The pretrained network that the call holds.
    pub(super) network: PinnedNetwork,
    rows: usize,
    scalar: bool,
}

impl<'a> Batch<'a> {
    /// The batch of a call, with its model if the function takes one, and the outputs of the network that it is made
    /// from.
    pub(crate) fn new(
        function: &'a str,
        args: &'a ScalarFunctionArgs,
        options: WaeOptions,
        model: Option<&'a LoadedModel>,
        outputs: Outputs,
    ) -> Self {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        Self { function, args, options, model, outputs, paths: None, network: PinnedNetwork::default(), rows, scalar }
    }

    /// The same, of images whose files have these paths.
    pub(crate) fn with_paths(self, paths: Option<ArrayRef>) -> Self {
        Self { paths, ..self }
    }

    /// The same, of a call that holds its pretrained network.
    pub(crate) fn with_network(self, network: &PinnedNetwork) -> Self {
        Self { network: network.clone(), ..self }
    }

    /// The function's name, for messages.
    pub(crate) fn function(&self) -> &'a str {
        self.function
    }

    /// The same arguments, with another function's name in messages.
    pub(crate) fn on_behalf_of<'b>(&self, function: &'b str) -> Batch<'b>
    where
        'a: 'b,
    {
        Batch { function, ..self.clone() }
    }

    /// The paths of the images' files, where a column beside the images has them.
    pub(super) fn paths(&self) -> Option<&ArrayRef> {
        self.paths.as_ref()
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The session's options.
    pub(crate) fn options(&self) -> &WaeOptions {
        &self.options
    }

    /// The field that planning promised.
    pub(crate) fn return_field(&self) -> &Field {
        &self.args.return_field
    }

    /// The model of the call.
    pub(crate) fn model(&self) -> Result<&'a LoadedModel> {
        self.model.ok_or_else(|| exec_datafusion_err!("{}: no model", self.function))
    }

    /// The outputs of the network on the first argument's images that the function is made from: those that the
    /// optimiser's rule had computed below, or computed now.
    pub(crate) fn pass(&self) -> Result<Pass<'a>> {
        match self.array(0)? {
            Some(array) if Pass::is(array.data_type()) => {
                Pass::try_of_model(self.function, &array, self.outputs, self.model()?)
            }
            _ => {
                let model = self.model()?;
                let mut builder = PassBuilder::try_new(self.function, self.rows, self.outputs, model)?;
                let valid = self.for_images(|wae, rows, images| builder.fill(wae, rows, images))?;
                builder.finish(valid)
            }
        }
    }

    /// An argument's values, one a row; `None` if it is left out.
    pub(crate) fn array(&self, index: usize) -> Result<Option<ArrayRef>> {
        self.args.args.get(index).map(|a| a.to_array(self.rows)).transpose()
    }

    /// An argument that has one value for the whole batch; `None` if it is left out.
    pub(crate) fn scalar(&self, index: usize, parameter: &str) -> Result<Option<ScalarValue>> {
        match self.args.args.get(index) {
            None => Ok(None),
            Some(ColumnarValue::Scalar(value)) => Ok(Some(value.clone())),
            Some(ColumnarValue::Array(array)) => constant(self.function, parameter, array).map(Some),
        }
    }

    /// The first argument as `read` reads it; `None` if it is an untyped NULL.
    pub(crate) fn images(
        &self,
        read: impl Fn(&Field, &ArrayRef) -> wae_core::Result<ImageColumn>,
    ) -> Result<Option<ImageColumn>> {
        let (Some(array), Some(field)) = (self.array(0)?, self.args.arg_fields.first()) else { return Ok(None) };
        if array.data_type().is_null() {
            return Ok(None);
        }
        read(field, &array).map(Some).map_err(|e| exec_error(self.function, &e))
    }

    /// The first argument as images, of a call that states the shape of lists without one, and maybe the order of their
    /// axes; `None` if it is an untyped NULL.
    pub(crate) fn images_in_order(
        &self,
        shape: Option<ImageShape>,
        order: Option<AxisOrder>,
    ) -> Result<Option<ImageColumn>> {
        self.images(|field, array| read(field, array, shape, order))
    }

    /// Gives the result back as DataFusion expects it.
    pub(crate) fn finish(&self, array: ArrayRef) -> Result<ColumnarValue> {
        if self.scalar {
            // Of a list, `try_from_array` drops the item's metadata, and with it the type that was promised.
            return match array.as_list_opt::<i32>() {
                Some(list) => Ok(ColumnarValue::Scalar(ScalarValue::List(Arc::new(list.clone())))),
                None => ScalarValue::try_from_array(&array, 0).map(ColumnarValue::Scalar),
            };
        }
        Ok(ColumnarValue::Array(array))
    }

    /// A result that is NULL in every row.
    pub(crate) fn nulls(&self) -> ArrayRef {
        new_null_array(self.return_field().data_type(), self.rows)
    }
}
