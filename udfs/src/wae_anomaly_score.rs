//! `wae_anomaly_score(image [, model])`: how unlike its reconstruction an image is, between 0 and 1.
//!
//! `a(x) = s/(s + t),  s = Σ (x − y)² + ½ DSSIM(x, y)`
//!
//! Where: y = G(E(x)), Σ is over pixels and channels, DSSIM is the structural dissimilarity of 7×7 neighbourhoods, and t is the
//! value of s above which a held-out row's p-value is at most 0.01.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Float32Array};
use arrow::datatypes::{DataType, Field, Float32Type};
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
pub(crate) fn wae_anomaly_score_udf(options: &WaeOptions) -> ScalarUDF {
    ScalarUDF::from(ModelFunction::new::<WaeAnomalyScore>(options.clone()))
}

#[derive(Debug)]
struct WaeAnomalyScore;

impl ModelKernel for WaeAnomalyScore {
    const NAME: &'static str = "wae_anomaly_score";
    const PARAMETERS: &'static [&'static str] = &["image", "model"];

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    fn outputs(_: &Texts<'_>) -> Outputs {
        scores::outputs(Score::AnomalyScore)
    }

    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
        args.check_image(model)?;
        scores::held_out(Self::NAME, model, Score::AnomalyScore).map(|_| ())
    }

    fn field(_: Option<&LoadedModel>) -> Result<Field> {
        Ok(Field::new(Self::NAME, DataType::Float32, true))
    }

    fn run(batch: &Batch<'_>) -> Result<ArrayRef> {
        let scale = scores::held_out(Self::NAME, batch.model()?, Score::AnomalyScore)?.scale();
        let anomalies = scores::ranked(&batch.pass()?, batch.model()?, Score::AnomalyScore)?;
        let scaled: Float32Array = anomalies.unary::<_, Float32Type>(|anomaly| scale.of(anomaly));
        Ok(Arc::new(scaled))
    }
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "How unlike its reconstruction an image is, by brightness and by pattern, whatever cost the model was trained with; a \
         Float32 from 0 to 1, where 0.5 is the threshold of an outlier at alpha 0.01 (with fewer than 99 held-out rows, which \
         have no such threshold, their highest). Higher is stranger. Of the scores, it \
         tells strange images best (see *Which score*).",
        "wae_anomaly_score(image [, model])",
    )
    .with_sql_example("SELECT path FROM 'images.parquet' WHERE wae_anomaly_score(image, 'fashion') > 0.5;")
    .with_argument("image", IMAGE_ARGUMENT)
    .with_argument("model", MODEL_ARGUMENT)
    .with_related_udf("wae_p_value")
    .build()
});
