//! `wae_anomaly_score(image [, model])`: how unlike its reconstruction an image is, between 0 and 1.
//!
//! `a(x) = s/(s + t),  s = Σ (x − y)² + ½ DSSIM(x, y)`
//!
//! Where: y = G(E(x)), Σ is over pixels and channels, DSSIM is the structural dissimilarity of 7×7 neighbourhoods, and
//! t is the value of s above which a held-out row's p-value is at most 0.01.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array};
use arrow::datatypes::{DataType, Field, Float32Type};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use wae_core::calibrate::Score;

use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{ScalarKernel, Texts};
use crate::scalar::pass::Outputs;
use crate::scalar::scores;

const NAME: &str = "wae_anomaly_score";

/// The function under a session's options.
pub(crate) fn wae_anomaly_score_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeAnomalyScore, options)
}

#[derive(Debug)]
struct WaeAnomalyScore;

impl ScalarKernel for WaeAnomalyScore {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn outputs(&self, _: &Texts<'_>) -> Outputs {
        scores::outputs(Score::AnomalyScore)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        if let Some(model) = args.model() {
            scores::held_out(NAME, model, Score::AnomalyScore)?;
        }
        Ok(Field::new(NAME, DataType::Float32, true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let scale = scores::held_out(NAME, batch.model()?, Score::AnomalyScore)?.scale();
        let anomalies = scores::ranked(&batch.pass()?, batch.model()?, Score::AnomalyScore)?;
        let scaled: Float32Array = anomalies.unary::<_, Float32Type>(|anomaly| scale.of(anomaly));
        Ok(Arc::new(scaled))
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_anomaly_score(image [, model])",
    description: "How unlike its reconstruction an image is, by brightness and by pattern, whatever cost the model was trained with; a \
         Float32 from 0 to 1, where 0.5 is the threshold of an outlier at alpha 0.01 (with fewer than 99 held-out rows, which \
         have no such threshold, their highest). Higher is stranger. Of the scores, it \
         tells strange images best (see *Which score*).",
    arguments: &[("image", IMAGE_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT path FROM 'images.parquet' WHERE wae_anomaly_score(image, 'fashion') > 0.5;",
    related: &["wae_p_value"],
};
