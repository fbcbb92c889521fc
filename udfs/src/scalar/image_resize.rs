//! `image_resize(image, height, width [, filter])`: an image of another size.
//!
//! The arithmetic is Pillow's ([`wae_core::image::rescale`]).

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::datatypes::Field;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use wae_core::image::{Filter, Interpolation, check_output, rescale};

use crate::documentation::{ANY_IMAGE_ARGUMENT, FunctionDocumentation};
use crate::error::plan_error;
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::ScalarKernel;

const NAME: &str = "image_resize";
/// The positions of `height`, `width` and `filter`.
const HEIGHT: usize = 1;
const WIDTH: usize = 2;
const FILTER: usize = 3;
const DEFAULT_FILTER: Interpolation = Interpolation::Filter(Filter::Bilinear);

/// The function under a session's options.
pub(crate) fn image_resize_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&ImageResize, options)
}

/// (H, W, C) -> (height, width, C).
#[derive(Debug)]
struct ImageResize;

impl ScalarKernel for ImageResize {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn required(&self) -> usize {
        3
    }

    fn model_position(&self, _: usize, _: &dyn Fn(usize) -> bool) -> Option<usize> {
        None
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        let height = args.integer(HEIGHT, 1..=i64::MAX)?;
        let width = args.integer(WIDTH, 1..=i64::MAX)?;
        if let Some(filter) = args.text_of_row(FILTER)? {
            filter.parse::<Interpolation>().map_err(|e| plan_error(NAME, &e))?;
        }
        // Each side alone, too, where the other has a value a row.
        let rows = height.unwrap_or(1) as usize;
        let columns = width.unwrap_or(1) as usize;
        check_output(rows, columns, &args.options().limits()).map_err(|e| plan_error(NAME, &e))?;
        args.tensor_field([(HEIGHT, height), (WIDTH, width)])
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let limits = batch.options().limits();
        let Some(column) = batch.images_of_numbers()? else { return Ok(batch.nulls()) };
        let heights = batch.integers(HEIGHT)?;
        let widths = batch.integers(WIDTH)?;
        let filters = batch.texts(FILTER)?;
        batch.map_images(NAME, &column, |row| {
            let Some(height) = heights.at_least(row, 1, "height")? else { return Ok(None) };
            let Some(width) = widths.at_least(row, 1, "width")? else { return Ok(None) };
            let Some(filter) = filter_of(filters.as_ref(), row)? else { return Ok(None) };
            rescale(&column.image(row, None, &limits)?, height, width, filter, &limits).map(Some)
        })
    }
}

/// The filter of a row; `None` where it is NULL.
fn filter_of(filters: Option<&StringArray>, row: usize) -> wae_core::Result<Option<Interpolation>> {
    match filters {
        None => Ok(Some(DEFAULT_FILTER)),
        Some(filters) if filters.is_null(row) => Ok(None),
        Some(filters) => filters.value(row).parse().map(Some),
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "image_resize(image, height, width [, filter])",
    description: "An image of another size, as Pillow's Image.resize makes it, to the level: a tensor of UInt8, or of \
         Float32 for an image of floats, whose numbers may have any range (Pillow's mode F), or of UInt16, whose 65535 \
         becomes 1. Encoded images with transparency come out RGB, over white. Tensors of UInt8 with 2 or 4 channels \
         are taken as grey and alpha, or RGB and alpha: colours are weighted by alpha. Other numbers of channels, and \
         maps without channels, are resized channel by channel. The whole image is stretched; NULL where an argument \
         is.",
    arguments: &[
        ("image", ANY_IMAGE_ARGUMENT),
        ("height", "The height in pixels, an integer: height x width is at most `wae.max_pixels`."),
        ("width", "The width in pixels, an integer."),
        (
            "filter",
            "'bilinear' (the default), 'bicubic' or 'lanczos', each antialiased where the image shrinks, or 'nearest'.",
        ),
    ],
    example: "SELECT image_encode(image_resize(bytes, 96, 128, 'lanczos')) AS thumbnail FROM read_images('photos/*.jpg');",
    related: &["image_crop", "image_decode"],
};
