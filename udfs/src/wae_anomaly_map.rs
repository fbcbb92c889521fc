//! `wae_anomaly_map(image [, model])`: where an image is unlike its reconstruction.

use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::{Documentation, ScalarUDF};
use wae_core::image::tensor_field;

use crate::args::{Batch, PlannedArgs};
use crate::function::{IMAGE_ARGUMENT, MODEL_ARGUMENT, ModelFunction, ModelKernel, SECTION, Texts};
use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::pass::Outputs;

/// The function under a session's options.
pub(crate) fn wae_anomaly_map_udf(options: &WaeOptions) -> ScalarUDF {
    ScalarUDF::from(ModelFunction::new::<WaeAnomalyMap>(options.clone()))
}

#[derive(Debug)]
struct WaeAnomalyMap;

impl ModelKernel for WaeAnomalyMap {
    const NAME: &'static str = "wae_anomaly_map";
    const PARAMETERS: &'static [&'static str] = &["image", "model"];

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    fn outputs(_: &Texts<'_>) -> Outputs {
        Outputs::MAP
    }

    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
        args.check_image(model)
    }

    fn field(model: Option<&LoadedModel>) -> Result<Field> {
        Ok(map_field(Self::NAME, model))
    }

    fn run(batch: &Batch<'_>) -> Result<ArrayRef> {
        batch.pass()?.map()
    }
}

/// The field of maps, (H, W); without a model, a list without a shape.
pub(crate) fn map_field(name: &str, model: Option<&LoadedModel>) -> Field {
    match model.map(|model| model.wae().config().image()) {
        Some(shape) => tensor_field(name, DataType::Float32, &[("H", shape.height()), ("W", shape.width())], true),
        None => {
            let item = Field::new_list_field(DataType::Float32, true);
            Field::new(name, DataType::FixedSizeList(Arc::new(item), 0), true)
        }
    }
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "What each pixel adds to the reconstruction cost, summed over channels: a Float32 tensor, height x width, whose values \
         sum to `wae_reconstruction_cost`; for a model of cost 'l2', to its square.",
        "wae_anomaly_map(image [, model])",
    )
    .with_sql_example("SELECT wae_anomaly_map(image, 'fashion') AS map FROM 'images.parquet' ORDER BY wae_p_value(image, 'fashion') LIMIT 10;")
    .with_argument("image", IMAGE_ARGUMENT)
    .with_argument("model", MODEL_ARGUMENT)
    .with_related_udf("wae_reconstruction_cost")
    .build()
});
