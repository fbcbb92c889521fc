//! `image_encode(image [, format])`: an image as the bytes of a PNG or JPEG file.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::ScalarUDF;
use wae_core::image::encode;

use crate::columns::check_offsets;
use crate::documentation::FunctionDocumentation;
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::ScalarKernel;

const NAME: &str = "image_encode";
const DEFAULT_FORMAT: &str = "png";
/// The position of `format`.
const FORMAT: usize = 1;

/// The function under a session's options.
pub(crate) fn image_encode_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&ImageEncode, options)
}

/// (H, W, C) -> bytes.
#[derive(Debug)]
struct ImageEncode;

impl ScalarKernel for ImageEncode {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn model_position(&self, _: usize, _: &dyn Fn(usize) -> bool) -> Option<usize> {
        None
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        if !args.is_placeholder(FORMAT) {
            check_format(args.text(FORMAT)?.unwrap_or(DEFAULT_FORMAT))?;
        }
        Ok(Field::new(NAME, DataType::Binary, true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let format = batch.scalar(FORMAT, "format")?;
        let format = format.as_ref().and_then(|f| f.try_as_str().flatten()).unwrap_or(DEFAULT_FORMAT);
        check_format(format)?;
        let limits = batch.options().limits();
        let Some(column) = batch.images_in_order(None, None)? else { return Ok(batch.nulls()) };
        let encoded =
            batch.map_rows(&column, |row| column.image(row, None, &limits).and_then(|image| encode(&image, format)))?;
        check_offsets(NAME, encoded.iter().flatten().map(Vec::len).sum())?;
        Ok(Arc::new(BinaryArray::from_iter(encoded)))
    }
}

fn check_format(format: &str) -> Result<()> {
    match format {
        "png" | "jpeg" | "jpg" => Ok(()),
        other => plan_err!("{NAME}: format must be 'png' or 'jpeg', got '{other}'"),
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "image_encode(image [, format])",
    description: "Encodes an image as the bytes of a PNG or JPEG file.",
    arguments: &[
        ("image", "The image: a tensor, or an image of any other form."),
        ("format", "'png' (the default) or 'jpeg' (also 'jpg'): a string literal."),
    ],
    example: "SELECT image_encode(image) AS png FROM wae_sample(16, model => 'fashion');",
    related: &["image_decode"],
};
