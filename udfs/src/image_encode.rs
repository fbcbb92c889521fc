//! `image_encode(image [, format])`: an image as the bytes of a PNG or JPEG file.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BinaryArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use wae_core::image::encode;

use crate::args::{Batch, PlannedArgs};
use crate::columns::check_offsets;
use crate::function::{SECTION, is_placeholder, signature};
use crate::options::WaeOptions;
use crate::planned_image::PlannedImage;

const NAME: &str = "image_encode";
const PARAMETERS: &[&str] = &["image", "format"];
const DEFAULT_FORMAT: &str = "png";

/// The function, with what is known of the image's type.
pub(crate) fn image_encode_udf(image: PlannedImage) -> ScalarUDF {
    ScalarUDF::from(ImageEncode { signature: signature(PARAMETERS), image })
}

/// The function as DataFusion calls it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ImageEncode {
    signature: Signature,
    image: PlannedImage,
}

impl ImageEncode {
    /// What is known of the image's type.
    pub(crate) fn image(&self) -> &PlannedImage {
        &self.image
    }
}

impl ScalarUDFImpl for ImageEncode {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let planned = PlannedArgs::try_new(NAME, PARAMETERS, &args)?;
        planned.image_type()?;
        if !planned.field(1).is_some_and(|f| planned.literal(1).is_none() && is_placeholder(f)) {
            check_format(planned.text(1)?.unwrap_or(DEFAULT_FORMAT))?;
        }
        Ok(Arc::new(Field::new(NAME, DataType::Binary, true)))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.image.pin(args, info, image_encode_udf)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let args = self.image.restore(args);
        let batch = Batch::new(NAME, &args, WaeOptions::of(&args.config_options), None);
        let format = batch.scalar(1, "format")?;
        let format = format.as_ref().and_then(|f| f.try_as_str().flatten()).unwrap_or(DEFAULT_FORMAT);
        check_format(format)?;
        batch.finish(encode_rows(&batch, format)?)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOCUMENTATION)
    }
}

fn check_format(format: &str) -> Result<()> {
    match format {
        "png" | "jpeg" => Ok(()),
        other => plan_err!("{NAME}: format must be 'png' or 'jpeg', got '{other}'"),
    }
}

fn encode_rows(batch: &Batch<'_>, format: &str) -> Result<ArrayRef> {
    let limits = batch.options().limits();
    let Some(column) = batch.images(None)? else { return Ok(batch.nulls()) };
    let encoded =
        batch.map_rows(&column, |row| column.image(row, None, &limits).and_then(|image| encode(&image, format)))?;
    check_offsets(NAME, encoded.iter().flatten().map(Vec::len).sum())?;
    Ok(Arc::new(BinaryArray::from_iter(encoded)))
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "Encodes an image as the bytes of a PNG or JPEG file.",
        "image_encode(image [, format])",
    )
    .with_sql_example("SELECT image_encode(image) AS png FROM wae_sample(16, model => 'fashion');")
    .with_argument("image", "The image: a tensor, or an image of any other form.")
    .with_argument("format", "'png' (the default) or 'jpeg': a string literal.")
    .with_related_udf("image_decode")
    .build()
});
