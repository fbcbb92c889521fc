//! `image_decode(bytes [, height, width, channels])`: encoded bytes as an image tensor.
//!
//! With a height, width and channels it is an `arrow.fixed_shape_tensor`, and images of another size are resized;
//! without, each image keeps its own shape, in an `arrow.variable_shape_tensor`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, FixedSizeListArray, Int32Array, ListArray, StructArray, UInt8Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use wae_core::image::{Limits, resize};
use wae_core::{Error, ImageColumn, ImageShape};

use crate::args::{Batch, PlannedArgs};
use crate::columns::{buffer, check_offsets, fixed_size_list, image_field, unknown_image_field};
use crate::function::{SECTION, is_placeholder, signature};
use crate::options::WaeOptions;
use crate::planned_image::PlannedImage;

const NAME: &str = "image_decode";
const PARAMETERS: &[&str] = &["bytes", "height", "width", "channels"];

/// The function, with what is known of the image's type.
pub(crate) fn image_decode_udf(image: PlannedImage) -> ScalarUDF {
    ScalarUDF::from(ImageDecode { signature: signature(PARAMETERS), image })
}

/// The function as DataFusion calls it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ImageDecode {
    signature: Signature,
    image: PlannedImage,
}

impl ImageDecode {
    /// What is known of the image's type.
    pub(crate) fn image(&self) -> &PlannedImage {
        &self.image
    }
}

impl ScalarUDFImpl for ImageDecode {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("{NAME}: the result's type depends on the arguments' values")
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let number = |t: &DataType| if t.is_integer() { DataType::Int64 } else { t.clone() };
        Ok(types.iter().enumerate().map(|(i, t)| if i == 0 { t.clone() } else { number(t) }).collect())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let planned = PlannedArgs::try_new(NAME, PARAMETERS, &args)?;
        planned.image_type()?;
        if args.arg_fields.len() == 1 {
            return Ok(Arc::new(variable_field()));
        }
        if args.arg_fields.len() < PARAMETERS.len() {
            return plan_err!(
                "{NAME}: height, width and channels go together, got {} of them",
                args.arg_fields.len() - 1
            );
        }
        if (1..PARAMETERS.len()).any(|i| planned.literal(i).is_none() && planned.field(i).is_some_and(is_placeholder)) {
            return Ok(Arc::new(unknown_image_field(NAME)));
        }
        let side = |i: usize, max: i64| dimension(PARAMETERS[i], planned.literal(i), max);
        let shape = ImageShape::new(side(1, MAX_SIDE)?, side(2, MAX_SIDE)?, side(3, MAX_CHANNELS)?);
        Ok(Arc::new(image_field(NAME, shape)))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.image.pin(args, info, image_decode_udf)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let args = self.image.restore(args);
        let options = WaeOptions::of(&args.config_options);
        let limits = options.limits();
        let batch = Batch::new(NAME, &args, options, None);
        let Some(column) = batch.images(None)? else { return batch.finish(batch.nulls()) };
        let mut target = None;
        if args.args.len() == PARAMETERS.len() {
            let side = |i: usize, max: i64| dimension(PARAMETERS[i], batch.scalar(i, PARAMETERS[i])?.as_ref(), max);
            target = Some(ImageShape::new(side(1, MAX_SIDE)?, side(2, MAX_SIDE)?, side(3, MAX_CHANNELS)?));
        }
        let images = batch.map_rows(&column, |row| decode_row(&column, row, target, &limits))?;
        batch.finish(match target {
            Some(shape) => fixed(batch.return_field(), shape, &images)?,
            None => variable(&images)?,
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOCUMENTATION)
    }
}

/// Largest height or width of a result, in pixels.
const MAX_SIDE: i64 = 4096;
/// Most channels of a result: red, green, blue, alpha.
const MAX_CHANNELS: i64 = 4;

/// A dimension that has to be a literal.
fn dimension(parameter: &str, value: Option<&ScalarValue>, max: i64) -> Result<usize> {
    match value.map(|v| v.cast_to(&DataType::Int64)).transpose()? {
        Some(ScalarValue::Int64(Some(v))) if (1..=max).contains(&v) => Ok(v as usize),
        Some(other) => plan_err!("{NAME}: {parameter} must be an integer between 1 and {max}, got {other}"),
        None => plan_err!("{NAME}: {parameter} must be a literal"),
    }
}

/// A shape and the bytes of its pixels, (H, W, C).
type Decoded = (ImageShape, Vec<u8>);

/// Decodes one row, and resizes it where a shape is asked for.
fn decode_row(
    column: &ImageColumn,
    row: usize,
    target: Option<ImageShape>,
    limits: &Limits,
) -> wae_core::Result<Decoded> {
    let mut image = column.image(row, target.map(ImageShape::channels), limits)?;
    if let Some(expected) = target {
        let got = image.shape();
        if (got.height(), got.width()) != (expected.height(), expected.width()) {
            image = resize(&image, expected.height(), expected.width())?;
        }
        // Channels are converted while bytes are decoded; a tensor has those that it has.
        if image.shape() != expected {
            return Err(Error::Shape { expected, got });
        }
    }
    Ok((image.shape(), image.to_u8()))
}

/// Images of one shape, as an `arrow.fixed_shape_tensor`.
fn fixed(field: &Field, shape: ImageShape, images: &[Option<Decoded>]) -> Result<ArrayRef> {
    let DataType::FixedSizeList(_, length) = field.data_type() else { return exec_err!("{NAME}: not a tensor") };
    if *length as usize != shape.len() {
        return exec_err!("{NAME}: images of shape {shape} do not fit the planned type {}", field.data_type());
    }
    let mut values = buffer(NAME, images.len(), shape.len())?; // (N, H, W, C)
    for (slot, image) in values.chunks_exact_mut(shape.len()).zip(images) {
        if let Some((_, pixels)) = image {
            slot.copy_from_slice(pixels);
        }
    }
    fixed_size_list(field, Arc::new(UInt8Array::from(values)), nulls(images))
}

/// Images of any shapes, as an `arrow.variable_shape_tensor`.
fn variable(images: &[Option<Decoded>]) -> Result<ArrayRef> {
    let length = |image: &Option<Decoded>| image.as_ref().map_or(0, |(_, pixels)| pixels.len());
    check_offsets(NAME, images.iter().map(length).sum())?;
    let offsets = OffsetBuffer::from_lengths(images.iter().map(length));
    let nulls = nulls(images);
    let pixels: Vec<u8> = images.iter().flatten().flat_map(|(_, pixels)| pixels).copied().collect();
    let sides = |s: ImageShape| [s.height() as i32, s.width() as i32, s.channels() as i32];
    let shapes: Vec<i32> = images.iter().flat_map(|i| i.as_ref().map_or([0; 3], |(s, _)| sides(*s))).collect();
    let data =
        ListArray::try_new(item(DataType::UInt8), offsets, Arc::new(UInt8Array::from(pixels)), Some(nulls.clone()))?;
    let shapes = Arc::new(Int32Array::from(shapes));
    let shape = FixedSizeListArray::try_new(item(DataType::Int32), 3, shapes, Some(nulls.clone()))?;
    let columns: Vec<ArrayRef> = vec![Arc::new(data), Arc::new(shape)];
    Ok(Arc::new(StructArray::try_new(variable_fields(), columns, Some(nulls))?))
}

fn nulls<T>(images: &[Option<T>]) -> NullBuffer {
    images.iter().map(Option::is_some).collect::<Vec<_>>().into()
}

fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(data_type, true))
}

/// Nullable, since a field taken out of a struct (`image['shape']`) does not know that the struct was NULL.
fn variable_fields() -> Fields {
    Fields::from(vec![
        Field::new("data", DataType::List(item(DataType::UInt8)), true),
        Field::new("shape", DataType::FixedSizeList(item(DataType::Int32), 3), true),
    ])
}

fn variable_field() -> Field {
    let metadata = HashMap::from([
        ("ARROW:extension:name".to_owned(), "arrow.variable_shape_tensor".to_owned()),
        ("ARROW:extension:metadata".to_owned(), r#"{"dim_names":["H","W","C"]}"#.to_owned()),
    ]);
    Field::new(NAME, DataType::Struct(variable_fields()), true).with_metadata(metadata)
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "Decodes PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF into an image tensor of UInt8, height x width x \
         channels. With a height, width and channels, images are converted and resized to them; without, each keeps \
         its own shape.",
        "image_decode(bytes [, height, width, channels])",
    )
    .with_sql_example("SELECT image_decode(bytes, 64, 64, 3) AS image FROM read_images('photos/*.jpg');")
    .with_argument("bytes", "The encoded image, or an image of any other form.")
    .with_argument("height", "Rows of pixels: an integer literal.")
    .with_argument("width", "Pixels a row: an integer literal.")
    .with_argument("channels", "1 (grey), 3 (RGB) or 4 (RGB and alpha): an integer literal.")
    .with_related_udf("image_encode")
    .build()
});
