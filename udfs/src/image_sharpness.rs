//! `image_sharpness(image)`: the variance of the Laplacian of the grey image.
//!
//! The formula is that of [`wae_core::image::sharpness`].

use std::sync::Arc;
use std::sync::LazyLock;

use arrow::array::Float64Array;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use wae_core::image::sharpness;

use crate::aggregate::check_arity;
use crate::args::{Batch, PlannedArgs};
use crate::function::{SECTION, signature};
use crate::options::WaeOptions;
use crate::planned_image::PlannedImage;

const NAME: &str = "image_sharpness";
const PARAMETERS: &[&str] = &["image"];

/// The function, with what is known of the image's type.
pub(crate) fn image_sharpness_udf(image: PlannedImage) -> ScalarUDF {
    ScalarUDF::from(ImageSharpness { signature: signature(PARAMETERS), image })
}

/// The function as DataFusion calls it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ImageSharpness {
    signature: Signature,
    image: PlannedImage,
}

impl ImageSharpness {
    /// What is known of the image's type.
    pub(crate) fn image(&self) -> &PlannedImage {
        &self.image
    }
}

impl ScalarUDFImpl for ImageSharpness {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        check_arity(NAME, PARAMETERS, PARAMETERS.len(), args.arg_fields.len())?;
        PlannedArgs::try_new(NAME, PARAMETERS, &args)?.image_type()?;
        Ok(Arc::new(Field::new(NAME, DataType::Float64, true)))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.image.pin(args, info, image_sharpness_udf)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let args = self.image.restore(args);
        let batch = Batch::new(NAME, &args, WaeOptions::of(&args.config_options), None);
        let limits = batch.options().limits();
        let Some(column) = batch.images(None)? else { return batch.finish(batch.nulls()) };
        let values =
            batch.map_rows(&column, |row| column.image(row, None, &limits).and_then(|image| sharpness(&image)))?;
        batch.finish(Arc::new(Float64Array::from(values)))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOCUMENTATION)
    }
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "How sharp an image is: the variance of the 3 x 3 Laplacian of the grey image (0.2989 red + 0.5870 green + 0.1140 \
         blue), pixels in [0, 1]; a Float64. Blurred images have less. Compare it with data of the same kind: it grows \
         with noise too. An image below 3 x 3 pixels is an error.",
        "image_sharpness(image)",
    )
    .with_sql_example("SELECT avg(image_sharpness(image)) FROM wae_sample(1000, model => 'fashion');")
    .with_argument("image", "The image: encoded bytes, a tensor, or an image of any other form.")
    .with_related_udf("image_encode")
    .build()
});
