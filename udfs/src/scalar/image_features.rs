//! `image_features(image, weights [, layer [, size]])`: layers of a pretrained network.
//!
//! The networks, their layers and the preparation of images are those of [`wae_core::backbone`].

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue, exec_err, plan_datafusion_err, plan_err};
use datafusion::logical_expr::{Expr, ScalarUDF};
use wae_core::Error;
use wae_core::backbone::{Backbone, FeatureShape, LayerSelection};
use wae_core::image::{MAX_SIDE, tensor_field};

use crate::columns::{buffer, fixed_size_list, scatter};
use crate::documentation::FunctionDocumentation;
use crate::error::{exec_error, plan_error};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::ScalarKernel;
use crate::weights;

const NAME: &str = "image_features";
/// Positions of `weights`, `layer` and `size`.
const WEIGHTS: usize = 1;
const LAYER: usize = 2;
const SIZE: usize = 3;
/// Images that are decoded at a time.
const IMAGES: usize = 64;

/// The function under a session's options.
pub(crate) fn image_features_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&ImageFeatures, options)
}

/// (H, W, 3) -> (h, w, C), or (C,).
#[derive(Debug)]
struct ImageFeatures;

/// The network of a call, its layers, and the size that images are resized to.
struct Call {
    backbone: Arc<Backbone>,
    layers: LayerSelection,
    size: Option<(usize, usize)>,
    shape: FeatureShape,
}

impl Call {
    fn try_new(options: &WaeOptions, weights: &str, layer: Option<&str>, size: Option<(usize, usize)>) -> Result<Self> {
        let backbone = weights::load(NAME, weights, options.device(), options)?;
        let layers = backbone.layer_selection(layer).map_err(|e| plan_error(NAME, &e))?;
        let Some(seen) = size.or_else(|| backbone.preprocessing().input_size()) else {
            let (name, _) = weights::split_version(weights);
            return plan_err!("{NAME}: weights '{name}' come without the size of images, expected the argument size");
        };
        let shape = backbone.shape_of(&layers, seen).map_err(|e| plan_error(NAME, &e))?;
        Ok(Self { backbone, layers, size, shape })
    }

    fn field(&self) -> Field {
        match self.shape {
            FeatureShape::Map(map) => {
                let dims = [("H", map.height()), ("W", map.width()), ("C", map.channels())];
                tensor_field(NAME, DataType::Float32, &dims, true)
            }
            FeatureShape::Vector(channels) => list_field(channels),
        }
    }
}

fn list_field(length: usize) -> Field {
    let item = Field::new_list_field(DataType::Float32, true);
    Field::new(NAME, DataType::FixedSizeList(Arc::new(item), length as i32), true)
}

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

    fn pin(&self, args: &[Expr], options: &WaeOptions) -> Result<Option<Vec<Expr>>> {
        let Some(Expr::Literal(value, metadata)) = args.get(WEIGHTS) else { return Ok(None) };
        let name = value.try_as_str().flatten().filter(|name| weights::split_version(name).1.is_none());
        let Some(name) = name else { return Ok(None) };
        let sha256 = weights::load(NAME, name, options.device(), options)?.sha256().to_owned();
        let mut pinned = args.to_vec();
        pinned[WEIGHTS] = Expr::Literal(weights::versioned(name, &sha256).into(), metadata.clone());
        Ok(Some(pinned))
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        if [WEIGHTS, LAYER, SIZE].iter().any(|i| args.is_placeholder(*i)) {
            return Ok(list_field(0));
        }
        let size = match args.field(SIZE) {
            None => None,
            Some(field) => match args.literal(SIZE) {
                Some(value) => size_of(value)?,
                None => {
                    return plan_err!(
                        "{NAME}: size must be a literal, got an expression of type {}",
                        field.data_type()
                    );
                }
            },
        };
        let weights = args.text(WEIGHTS)?.unwrap_or_default();
        let layer = match args.literal(LAYER) {
            Some(value) if value.is_null() => None,
            _ => args.text(LAYER)?,
        };
        Ok(Call::try_new(args.options(), weights, layer, size)?.field())
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let text = |i: usize| -> Result<Option<String>> {
            let value = batch.scalar(i, DOCUMENTATION.parameter(i).unwrap_or_default())?;
            Ok(value.and_then(|value| value.try_as_str().flatten().map(str::to_owned)))
        };
        let size = batch.scalar(SIZE, "size")?.map(|size| size_of(&size)).transpose()?.flatten();
        let call = Call::try_new(batch.options(), &text(WEIGHTS)?.unwrap_or_default(), text(LAYER)?.as_deref(), size)?;
        let planned = batch.return_field();
        if planned.data_type() != call.field().data_type() {
            return exec_err!("{NAME}: the weights were replaced while the query was planned, expected one version");
        }
        let Some(column) = batch.images_in_order(None, None)? else { return Ok(batch.nulls()) };
        let limits = batch.options().limits();
        let width = call.shape.len();
        let mut values = buffer(NAME, batch.rows(), width)?;
        let mut valid = vec![false; batch.rows()];
        let read = |row: usize| column.image(row, Some(3), &limits);
        batch.map_chunks(&column, IMAGES, read, |rows, images| {
            let features = call.backbone.features(&images, &call.layers, call.size).map_err(|e| match e {
                Error::Row { row, source } => exec_error(NAME, &source.in_row(rows[row])),
                e => exec_error(NAME, &e),
            })?;
            for (row, features) in rows.iter().zip(features) {
                scatter(&mut values, &[*row], features.values());
                valid[*row] = true;
            }
            Ok(())
        })?;
        fixed_size_list(planned, Arc::new(Float32Array::from(values)), valid.into())
    }
}

/// The height and width of `size`: a number is both, a text such as '224x308' has each; `None` of NULL.
fn size_of(value: &ScalarValue) -> Result<Option<(usize, usize)>> {
    if value.is_null() {
        return Ok(None);
    }
    let expected = || {
        plan_datafusion_err!(
            "{NAME}: size must be a whole number from 1 to {MAX_SIDE}, or two such as '224x308', got {value}"
        )
    };
    let text = match value.try_as_str().flatten() {
        Some(text) => text.to_owned(),
        None if value.data_type().is_integer() => value.to_string(),
        None => return Err(expected()),
    };
    let side = |side: &str| side.trim().parse().ok().filter(|side| (1..=MAX_SIDE).contains(side)).ok_or_else(expected);
    let (height, width) = text.split_once(['x', '×']).unwrap_or((&text, &text));
    Ok(Some((side(height)?, side(width)?)))
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
             `wae.weights_dir`: a string literal. A version is named by the SHA-256 of its files, as EXPLAIN shows it: \
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_or_two() {
        for value in [ScalarValue::Int64(Some(224)), ScalarValue::UInt8(Some(224)), ScalarValue::from("224")] {
            assert_eq!(size_of(&value).unwrap(), Some((224, 224)));
        }
        for text in ["224x308", "224 × 308"] {
            assert_eq!(size_of(&ScalarValue::from(text)).unwrap(), Some((224, 308)));
        }
        assert_eq!(size_of(&ScalarValue::Null).unwrap(), None);
        for (bad, got) in [
            (ScalarValue::Int64(Some(0)), "0"),
            (ScalarValue::Int32(Some(-1)), "-1"),
            (ScalarValue::from("5000x10"), "5000x10"),
            (ScalarValue::from("x"), "x"),
            (ScalarValue::from(1.5), "1.5"),
        ] {
            let error = size_of(&bad).unwrap_err().strip_backtrace();
            let expected = format!("size must be a whole number from 1 to 4096, or two such as '224x308', got {got}");
            assert!(error.contains(&expected), "{error}");
        }
    }
}
