//! `image_features(image, weights [, layer [, size]])`: layers of a pretrained network.
//!
//! The networks, their layers and the preparation of images are those of [`wae_core::backbone`].

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::Field;
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, ScalarUDF};

use crate::documentation::FunctionDocumentation;
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::features_call::{FeaturesCall, NAME, check_planned, list_field};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::ScalarKernel;
use crate::scalar::pass::Pass;
use crate::weights::PinnedNetwork;

/// The function under a session's options.
pub(crate) fn image_features_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&ImageFeatures, options)
}

/// (H, W, 3) -> (h, w, C), or (C,).
#[derive(Debug)]
struct ImageFeatures;

impl ScalarKernel for ImageFeatures {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn required(&self) -> usize {
        2
    }

    fn model_position(&self, _: usize, _: &dyn Fn(usize) -> bool) -> Option<usize> {
        None
    }

    fn pin(
        &self,
        args: &[Expr],
        options: &WaeOptions,
        pinned: &PinnedNetwork,
    ) -> Result<Option<(Vec<Expr>, PinnedNetwork)>> {
        let Some(call) = FeaturesCall::of_exprs(args, options, pinned)? else { return Ok(None) };
        let versioned = args.iter().take(1).cloned().chain(call.arguments()).collect();
        Ok(Some((versioned, call.network())))
    }

    fn pretrained<'a>(&self, args: &'a [Expr]) -> Option<&'a [Expr]> {
        FeaturesCall::pinned(args)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        Ok(FeaturesCall::of_planned(args)?.map_or_else(|| list_field(0), |call| call.field()))
    }

    /// From the pass that the optimiser's rule had computed below, or computed now.
    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let planned = batch.return_field();
        if let Some(array) = batch.array(0)?.filter(|array| Pass::is(array.data_type())) {
            let features = Pass::try_from_array(NAME, &array)?.features()?;
            check_planned(planned, features.data_type())?;
            return Ok(features);
        }
        let call = FeaturesCall::of_batch(batch)?;
        check_planned(planned, call.field().data_type())?;
        Ok(call.compute(batch)?.unwrap_or_else(|| batch.nulls()))
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "image_features(image, weights [, layer [, size]])",
    description: "Features of an image by a pretrained network: a layer, as a tensor of Float32, height x width x channels, or \
         as a list where it is one vector. ResNet, ViT, DINOv2, EfficientNet and EfficientNet-Lite are read from safetensors \
         as timm, torchvision and transformers save them. Nothing is downloaded.",
    arguments: &[
        ("image", "The image: encoded bytes, a tensor, or an image of any other form, in colour."),
        (
            "weights",
            "A folder with model.safetensors, config.json and preprocessor_config.json, or a .safetensors file, below \
             `wae.weights_dir`, or a URL of one in a registered object store: a string literal. A version is named by the SHA-256 of its files, as EXPLAIN shows it: \
             'dinov2-small@sha256:...'.",
        ),
        (
            "layer",
            "The layer, or several joined by '+', maps resized to the largest of them: 'layer1' to 'layer4', 'pooled' of a \
             ResNet; 'blocks.0' and so on, 'tokens', 'cls' of a ViT; 'blocks.0' to 'blocks.6', 'pooled' of an \
             EfficientNet. By default, or where it is NULL, what suits anomaly detection: 'layer2+layer3', 'tokens', 'blocks.4+blocks.6'.",
        ),
        (
            "size",
            "The size that the whole image is resized to: a number of pixels, or a text such as '224x308', height x width. \
             Without it, the image is resized and cropped as the network's files say. By name, it must be given where \
             layer is: layer => NULL takes the default.",
        ),
    ],
    example: "SELECT image_features(image, 'dinov2-small', 'cls') AS embedding FROM 'photos.parquet';",
    related: &["image_decode", "wae_encode"],
};
