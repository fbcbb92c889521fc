//! `wae_reconstruct(image [, model])`: what the model makes of an image, G(E(x)).

use std::sync::LazyLock;

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::common::Result;
use datafusion::logical_expr::{Documentation, ScalarUDF};

use crate::args::{Batch, PlannedArgs};
use crate::function::{IMAGE_ARGUMENT, MODEL_ARGUMENT, ModelFunction, ModelKernel, SECTION, Texts};
use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::pass::Outputs;
use crate::wae_decode::decoded_field;

/// The function under a session's options.
pub(crate) fn wae_reconstruct_udf(options: &WaeOptions) -> ScalarUDF {
    ScalarUDF::from(ModelFunction::new::<WaeReconstruct>(options.clone()))
}

/// y = G(E(x)): (H, W, C) -> (H, W, C).
#[derive(Debug)]
struct WaeReconstruct;

impl ModelKernel for WaeReconstruct {
    const NAME: &'static str = "wae_reconstruct";
    const PARAMETERS: &'static [&'static str] = &["image", "model"];

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    fn outputs(_: &Texts<'_>) -> Outputs {
        Outputs::RECONSTRUCTION
    }

    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
        args.check_image(model)
    }

    fn field(model: Option<&LoadedModel>) -> Result<Field> {
        Ok(decoded_field(Self::NAME, model))
    }

    fn run(batch: &Batch<'_>) -> Result<ArrayRef> {
        batch.pass()?.reconstruction()
    }
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "An image as the model reconstructs it, an image tensor of UInt8: encoded and decoded again.",
        "wae_reconstruct(image [, model])",
    )
    .with_sql_example("SELECT image_encode(wae_reconstruct(image, 'fashion')) AS png FROM 'images.parquet';")
    .with_argument("image", IMAGE_ARGUMENT)
    .with_argument("model", MODEL_ARGUMENT)
    .with_related_udf("wae_reconstruction_cost")
    .build()
});
