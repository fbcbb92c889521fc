//! `wae_reconstruction_cost(image [, model])`: how badly the model reconstructs an image, c(x, G(E(x))).

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
pub(crate) fn wae_reconstruction_cost_udf(options: &WaeOptions) -> ScalarUDF {
    ScalarUDF::from(ModelFunction::new::<WaeReconstructionCost>(options.clone()))
}

/// c(x, G(E(x))): (H, W, C) -> a number of at least 0.
#[derive(Debug)]
struct WaeReconstructionCost;

impl ModelKernel for WaeReconstructionCost {
    const NAME: &'static str = "wae_reconstruction_cost";
    const PARAMETERS: &'static [&'static str] = &["image", "model"];

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    fn outputs(_: &Texts<'_>) -> Outputs {
        Outputs::COST
    }

    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
        args.check_image(model)
    }

    fn field(_: Option<&LoadedModel>) -> Result<Field> {
        Ok(Field::new(Self::NAME, DataType::Float32, true))
    }

    fn run(batch: &Batch<'_>) -> Result<ArrayRef> {
        Ok(Arc::new(batch.pass()?.costs()?))
    }
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "How far an image is from its reconstruction, by the cost that the model was trained with: by default the squared \
         difference, summed over pixels and channels in [0, 1]; a Float32. Higher is stranger.",
        "wae_reconstruction_cost(image [, model])",
    )
    .with_sql_example(
        "SELECT path FROM 'images.parquet' ORDER BY wae_reconstruction_cost(image, 'fashion') DESC LIMIT 10;",
    )
    .with_argument("image", IMAGE_ARGUMENT)
    .with_argument("model", MODEL_ARGUMENT)
    .with_related_udf("wae_p_value")
    .build()
});
