//! `image_crop(image, y, x, height, width)`: a box cut out of an image.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use wae_core::image::crop;

use crate::documentation::{ANY_IMAGE_ARGUMENT, FunctionDocumentation};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::ScalarKernel;

const NAME: &str = "image_crop";
/// The positions of the box's parameters.
const Y: usize = 1;
const X: usize = 2;
const HEIGHT: usize = 3;
const WIDTH: usize = 4;

/// The function under a session's options.
pub(crate) fn image_crop_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&ImageCrop, options)
}

/// (H, W, C) -> (height, width, C).
#[derive(Debug)]
struct ImageCrop;

impl ScalarKernel for ImageCrop {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn required(&self) -> usize {
        5
    }

    fn model_position(&self, _: usize, _: &dyn Fn(usize) -> bool) -> Option<usize> {
        None
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        args.integer(Y, 0..=i64::MAX)?;
        args.integer(X, 0..=i64::MAX)?;
        let height = args.integer(HEIGHT, 1..=i64::MAX)?;
        let width = args.integer(WIDTH, 1..=i64::MAX)?;
        args.tensor_field([(HEIGHT, height), (WIDTH, width)])
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let limits = batch.options().limits();
        let Some(column) = batch.images_of_numbers()? else { return Ok(batch.nulls()) };
        let ys = batch.integers(Y)?;
        let xs = batch.integers(X)?;
        let heights = batch.integers(HEIGHT)?;
        let widths = batch.integers(WIDTH)?;
        batch.map_images(NAME, &column, |row| {
            let Some(y) = ys.at_least(row, 0, "y")? else { return Ok(None) };
            let Some(x) = xs.at_least(row, 0, "x")? else { return Ok(None) };
            let Some(height) = heights.at_least(row, 1, "height")? else { return Ok(None) };
            let Some(width) = widths.at_least(row, 1, "width")? else { return Ok(None) };
            crop(&column.image(row, None, &limits)?, (y, x), (height, width)).map(Some)
        })
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "image_crop(image, y, x, height, width)",
    description: "A box cut out of an image: a tensor of UInt8, or of Float32 for an image of floats, whose numbers \
         may have any range, or of UInt16, whose 65535 becomes 1. Encoded images with transparency come out RGB, over \
         white. A box that is not within the image is an error, also with `wae.on_error = 'null'`; NULL where an \
         argument is.",
    arguments: &[
        ("image", ANY_IMAGE_ARGUMENT),
        ("y", "The row of the box's first pixel, from 0 at the top: an integer."),
        ("x", "The column of the box's first pixel, from 0 at the left: an integer."),
        ("height", "The height in pixels: an integer."),
        ("width", "The width in pixels: an integer."),
    ],
    example: "SELECT image_encode(image_crop(bytes, 0, 0, 64, 64)) AS corner FROM read_images('photos/*.jpg');",
    related: &["image_resize", "image_tiles"],
};
