//! `image_sharpness(image)`: the variance of the Laplacian of the grey image.
//!
//! The formula is that of [`wae_core::image::sharpness`].

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use wae_core::image::sharpness;

use crate::documentation::FunctionDocumentation;
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::ScalarKernel;

const NAME: &str = "image_sharpness";

/// The function under a session's options.
pub(crate) fn image_sharpness_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&ImageSharpness, options)
}

/// (H, W, C) -> a number of at least 0.
#[derive(Debug)]
struct ImageSharpness;

impl ScalarKernel for ImageSharpness {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn model_position(&self, _: usize, _: &dyn Fn(usize) -> bool) -> Option<usize> {
        None
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        Ok(Field::new(NAME, DataType::Float64, true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let limits = batch.options().limits();
        let Some(column) = batch.images_in_order(None, None)? else { return Ok(batch.nulls()) };
        let values =
            batch.map_rows(&column, |row| column.image(row, None, &limits).and_then(|image| sharpness(&image)))?;
        Ok(Arc::new(Float64Array::from(values)))
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "image_sharpness(image)",
    description: "How sharp an image is: the variance of the 3 x 3 Laplacian of the grey image (0.2989 red + 0.5870 green + 0.1140 \
         blue), pixels in [0, 1]; a Float64. Blurred images have less. Compare it with data of the same kind: it grows \
         with noise too. An image below 3 x 3 pixels is an error.",
    arguments: &[("image", "The image: encoded bytes, a tensor, or an image of any other form.")],
    example: "SELECT avg(image_sharpness(image)) FROM wae_sample(1000, model => 'fashion');",
    related: &["image_encode"],
};
