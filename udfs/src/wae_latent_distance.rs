//! `wae_latent_distance(image [, model])`: how far an image's code is from the training codes.
//!
//! `d(z) = √((z − μ)ᵀ P (z − μ))`
//!
//! Where: μ is the mean of training codes, and P their precision matrix (`wae_core::calibrate::LatentStatistics`).

use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::{Documentation, ScalarUDF};
use wae_core::calibrate::Score;

use crate::args::{Batch, PlannedArgs};
use crate::function::{IMAGE_ARGUMENT, MODEL_ARGUMENT, ModelFunction, ModelKernel, SECTION, Texts};
use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::pass::Outputs;
use crate::scores;

/// The function under a session's options.
pub(crate) fn wae_latent_distance_udf(options: &WaeOptions) -> ScalarUDF {
    ScalarUDF::from(ModelFunction::new::<WaeLatentDistance>(options.clone()))
}

#[derive(Debug)]
struct WaeLatentDistance;

impl ModelKernel for WaeLatentDistance {
    const NAME: &'static str = "wae_latent_distance";
    const PARAMETERS: &'static [&'static str] = &["image", "model"];

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    fn outputs(_: &Texts<'_>) -> Outputs {
        scores::outputs(Score::LatentDistance)
    }

    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
        args.check_image(model)?;
        scores::check_latent_statistics(Self::NAME, model)
    }

    fn field(_: Option<&LoadedModel>) -> Result<Field> {
        Ok(Field::new(Self::NAME, DataType::Float32, true))
    }

    fn run(batch: &Batch<'_>) -> Result<ArrayRef> {
        Ok(Arc::new(scores::ranked(&batch.pass()?, batch.model()?, Score::LatentDistance)?))
    }
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "The Mahalanobis distance of an image's latent code from the codes of the training rows; a Float32 of at least 0. It \
         tells codes that training did not make. It need not be high for a strange image, which may well be encoded near \
         the middle: compare it with `auroc` before you rely on it.",
        "wae_latent_distance(image [, model])",
    )
    .with_sql_example("SELECT path FROM 'images.parquet' ORDER BY wae_latent_distance(image, 'fashion') DESC LIMIT 10;")
    .with_argument("image", IMAGE_ARGUMENT)
    .with_argument("model", MODEL_ARGUMENT)
    .with_related_udf("wae_anomaly_score")
    .build()
});
