//! `image_features_pass(image, weights, layer, size, preparation)`: features of an image, for the optimiser's rule.
//!
//! The rule puts it in place of the calls of `image_features` that share it, as [`super::wae_pass`] in place of
//! functions over a model.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{Expr, ScalarUDF, lit};

use crate::documentation::FunctionDocumentation;
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::features_call::{FeaturesCall, check_planned};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::ScalarKernel;
use crate::scalar::pass::Pass;
use crate::weights::PinnedNetwork;

/// The name of the function.
const NAME: &str = "image_features_pass";

/// The function under a session's options.
pub(crate) fn image_features_pass_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&ImageFeaturesPass, options)
}

/// The arguments of a pass that answers calls with these, beside the image.
///
/// # Errors
/// Those of reading the weights, if the call does not hold its network.
pub(crate) fn arguments(pretrained: &[Expr], options: &WaeOptions, pinned: &PinnedNetwork) -> Result<Vec<Expr>> {
    // The image, which planning has seen, has no part in what is done to it.
    let args = [&[lit(ScalarValue::Null)][..], pretrained].concat();
    match FeaturesCall::of_exprs(&args, options, pinned)? {
        Some(call) => Ok([pretrained, &[lit(call.preparation())]].concat()),
        None => plan_err!("{NAME}: weights, layer and size must be literals"),
    }
}

/// (H, W, 3) -> a struct with (h, w, C), or (C,).
#[derive(Debug)]
pub(crate) struct ImageFeaturesPass;

impl ScalarKernel for ImageFeaturesPass {
    fn is_pass(&self) -> bool {
        true
    }

    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn required(&self) -> usize {
        5
    }

    fn model_position(&self, _: usize, _: &dyn Fn(usize) -> bool) -> Option<usize> {
        None
    }

    fn pretrained<'a>(&self, args: &'a [Expr]) -> Option<&'a [Expr]> {
        FeaturesCall::pinned(args)
    }

    fn pretrained_memory(
        &self,
        literals: &[Option<&ScalarValue>],
        options: &WaeOptions,
        pinned: &PinnedNetwork,
        rows: usize,
    ) -> Result<usize> {
        FeaturesCall::try_new(options, pinned, |i| literals.get(i).copied().flatten().cloned())?.memory(rows)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        match FeaturesCall::of_planned(args)? {
            Some(call) => Ok(Field::new(NAME, Pass::type_of_features(call.field().data_type().clone()), true)),
            None => plan_err!("{NAME}: weights, layer and size must be literals"),
        }
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let call = FeaturesCall::of_batch(batch)?;
        let planned = batch.return_field();
        check_planned(planned, &Pass::type_of_features(call.field().data_type().clone()))?;
        match call.compute(batch)? {
            Some(features) => Pass::of_features(planned.data_type(), features),
            None => Ok(batch.nulls()),
        }
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "image_features_pass(image, weights, layer, size, preparation)",
    description: "The features of an image that calls of `image_features` take: a struct. Queries have no use for it; the \
         optimiser's rule calls it.",
    arguments: &[
        ("image", "The image, in colour."),
        ("weights", "The weights with the SHA-256 of their files, as `image_features` takes them."),
        ("layer", "The layers."),
        ("size", "The height and width that the whole image is resized to; NULL where the network's files say it."),
        ("preparation", "The network's family and what is done to an image before, for `EXPLAIN`."),
    ],
    example: "SELECT image_features_pass(image, 'dinov2-small@sha256:...', 'cls', NULL, 'ViT: ...') FROM 'photos.parquet';",
    related: &[],
};
