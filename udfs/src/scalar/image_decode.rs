//! `image_decode(image [, height, width, channels [, layout]])`: encoded bytes, or an image of any other form, as an
//! image tensor.
//!
//! With a height, width and channels it is an `arrow.fixed_shape_tensor`, and images of another size or other channels
//! are resized and converted; without, each image keeps its own shape, in an `arrow.variable_shape_tensor`. Of a flat
//! list, whose type says no shape, they are the shape, and `layout` is the order of its values.

use arrow::array::{ArrayRef, new_empty_array};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::ScalarUDF;
use wae_core::image::{AxisOrder, Image, Limits, Pixels, resize};
use wae_core::{ImageColumn, ImageShape};

use crate::columns::{image_field, unknown_image_field};
use crate::documentation::FunctionDocumentation;
use crate::error::plan_error;
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::image_argument::read;
use crate::scalar::kernel::ScalarKernel;
use crate::scalar::row_args::coerce_integers;
use crate::tensors::{Size, TensorForm};

const NAME: &str = "image_decode";
/// The positions of `height`, `width` and `channels`, each with its largest value.
const DIMENSIONS: [(usize, i64); 3] = [(1, MAX_SIDE), (2, MAX_SIDE), (3, MAX_CHANNELS)];
/// Largest height or width of a result, in pixels.
const MAX_SIDE: i64 = 4096;
/// Most channels of a result, as of a model's images. Between 1, 3 and 4 channels images are converted.
const MAX_CHANNELS: i64 = 16;
/// The position of `layout`.
const LAYOUT: usize = 4;

/// The function under a session's options.
pub(crate) fn image_decode_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&ImageDecode, options)
}

/// Bytes -> (H, W, C).
#[derive(Debug)]
struct ImageDecode;

impl ScalarKernel for ImageDecode {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn model_position(&self, _: usize, _: &dyn Fn(usize) -> bool) -> Option<usize> {
        None
    }

    fn coerce(&self, types: &[DataType]) -> Vec<DataType> {
        coerce_integers(types)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        match args.len() {
            1 => Ok(TensorForm::BYTES.field(NAME, Size::PerRow)),
            given if given <= DIMENSIONS.len() => {
                plan_err!("{NAME}: height, width and channels go together, got {} of them", given - 1)
            }
            _ if DIMENSIONS.iter().any(|(i, _)| args.is_placeholder(*i)) => Ok(unknown_image_field(NAME)),
            _ => {
                if !args.is_placeholder(LAYOUT) {
                    order(args.text(LAYOUT)?)?;
                }
                Ok(image_field(NAME, shape(|i| Ok(args.literal(i).cloned()))?))
            }
        }
    }

    /// The call itself says how a list makes an image, where it has the dimensions.
    fn check_layout(&self, args: &PlannedArgs<'_>) -> Result<()> {
        if args.len() <= DIMENSIONS.len() {
            return args.check_layout();
        }
        if args.is_placeholder(LAYOUT) || DIMENSIONS.iter().any(|(i, _)| args.is_placeholder(*i)) {
            return Ok(());
        }
        check_order(args, order(args.text(LAYOUT)?)?, shape(|i| Ok(args.literal(i).cloned()))?)
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let limits = batch.options().limits();
        let mut target = None;
        if batch.scalar(DIMENSIONS.len(), parameter(DIMENSIONS.len()))?.is_some() {
            target = Some(shape(|i| batch.scalar(i, parameter(i)))?);
        }
        let layout = batch.scalar(LAYOUT, parameter(LAYOUT))?;
        let order = order(layout.as_ref().and_then(|layout| layout.try_as_str().flatten()))?;
        let Some(column) = batch.images_in_order(target, order)? else { return Ok(batch.nulls()) };
        batch.map_images(NAME, &column, |row| decode_row(&column, row, target, &limits).map(Some))
    }
}

/// The shape whose dimensions are the values of arguments.
fn shape(value: impl Fn(usize) -> Result<Option<ScalarValue>>) -> Result<ImageShape> {
    let mut sides = [0; DIMENSIONS.len()];
    for (side, (position, max)) in sides.iter_mut().zip(DIMENSIONS) {
        *side = dimension(parameter(position), value(position)?.as_ref(), max)?;
    }
    let [height, width, channels] = sides;
    Ok(ImageShape::new(height, width, channels))
}

/// The order of axes that the call states.
fn order(layout: Option<&str>) -> Result<Option<AxisOrder>> {
    layout.map(str::parse).transpose().map_err(|e| plan_error(NAME, &e))
}

/// Refuses an order that the image's type contradicts, and a list that does not have the values of the shape.
fn check_order(args: &PlannedArgs<'_>, order: Option<AxisOrder>, shape: ImageShape) -> Result<()> {
    let Some(image) = args.image() else { return Ok(()) };
    let array = new_empty_array(image.data_type());
    read(image, &array, Some(shape), order).map(|_| ()).map_err(|e| plan_error(NAME, &e))
}

/// The name of a parameter.
fn parameter(position: usize) -> &'static str {
    DOCUMENTATION.parameter(position).unwrap_or_default()
}

/// A dimension that has to be a literal.
fn dimension(parameter: &str, value: Option<&ScalarValue>, max: i64) -> Result<usize> {
    let integer =
        |v: &ScalarValue| if v.data_type().is_integer() { v.cast_to(&DataType::Int64) } else { Ok(v.clone()) };
    match value.map(integer).transpose()? {
        Some(ScalarValue::Int64(Some(v))) if (1..=max).contains(&v) => Ok(v as usize),
        Some(other) => plan_err!("{NAME}: {parameter} must be an integer between 1 and {max}, got {other}"),
        None => plan_err!("{NAME}: {parameter} must be a literal"),
    }
}

/// Decodes one row, and resizes it where a shape is asked for.
fn decode_row(
    column: &ImageColumn,
    row: usize,
    target: Option<ImageShape>,
    limits: &Limits,
) -> wae_core::Result<Image> {
    let channels = target.map(ImageShape::channels).filter(|channels| matches!(channels, 1 | 3 | 4));
    let mut image = column.image(row, channels, limits)?;
    if let Some(expected) = target {
        let got = image.shape();
        if got.channels() != expected.channels() {
            image = image.with_channels(expected.channels())?;
        }
        if (got.height(), got.width()) != (expected.height(), expected.width()) {
            image = resize(&image, expected.height(), expected.width())?;
        }
    }
    match image.pixels() {
        Pixels::U8(_) => Ok(image),
        Pixels::F32(_) => Image::try_new(image.shape(), Pixels::U8(image.to_u8())),
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "image_decode(bytes [, height, width, channels [, layout]])",
    description: "Decodes PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF into an image tensor of UInt8, height x width x \
         channels. With a height, width and channels, images are converted and resized to them; without, each keeps \
         its own shape. A flat list of numbers becomes the image of that height, width and channels.",
    arguments: &[
        ("bytes", "The encoded image, or an image of any other form."),
        ("height", "Rows of pixels: an integer literal."),
        ("width", "Pixels a row: an integer literal."),
        (
            "channels",
            "1 (grey), 3 (RGB) or 4 (RGB and alpha); of a list or tensor also others, up to 16: an integer literal.",
        ),
        (
            "layout",
            "The order of the axes of a list or tensor whose type does not name it: 'HWC' (height, width, channels; the \
             default) or 'CHW': a string literal.",
        ),
    ],
    example: "SELECT image_decode(bytes, 64, 64, 3) AS image FROM read_images('photos/*.jpg');",
    related: &["image_encode"],
};
