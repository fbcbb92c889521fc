//! `wae_encode(image [, model])`: an image's latent code, z = E(x).

use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::{Documentation, ScalarUDF};

use crate::args::{Batch, PlannedArgs};
use crate::function::{IMAGE_ARGUMENT, MODEL_ARGUMENT, ModelFunction, ModelKernel, SECTION, Texts};
use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::pass::Outputs;

/// The function under a session's options.
pub(crate) fn wae_encode_udf(options: &WaeOptions) -> ScalarUDF {
    ScalarUDF::from(ModelFunction::new::<WaeEncode>(options.clone()))
}

/// z = E(x): (H, W, C) -> (Z,).
#[derive(Debug)]
struct WaeEncode;

impl ModelKernel for WaeEncode {
    const NAME: &'static str = "wae_encode";
    const PARAMETERS: &'static [&'static str] = &["image", "model"];

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    fn outputs(_: &Texts<'_>) -> Outputs {
        Outputs::LATENT
    }

    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
        args.check_image(model)
    }

    fn field(model: Option<&LoadedModel>) -> Result<Field> {
        Ok(code_field(Self::NAME, model))
    }

    fn run(batch: &Batch<'_>) -> Result<ArrayRef> {
        batch.pass()?.latent()
    }
}

/// The field of a column of latent codes: its items are nullable, since array functions such as `array_normalize` take
/// no others.
pub(crate) fn code_field(name: &str, model: Option<&LoadedModel>) -> Field {
    let width = model.map_or(0, |m| m.wae().config().latent_dim());
    let item = Field::new_list_field(DataType::Float32, true);
    Field::new(name, DataType::FixedSizeList(Arc::new(item), width as i32), true)
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "The latent code of an image: a FixedSizeList of Float32, as long as the model's latent dimension.",
        "wae_encode(image [, model])",
    )
    .with_sql_example("SELECT path, wae_encode(image, 'fashion') AS code FROM 'images.parquet';")
    .with_argument("image", IMAGE_ARGUMENT)
    .with_argument("model", MODEL_ARGUMENT)
    .with_related_udf("wae_decode")
    .build()
});
