//! `wae_anomaly_score(image [, model])`: how strange the strangest place of an image is, between 0 and 1.
//!
//! `a(x) = max_p a(p) = ½ (1 + d/(1 + |d|)),  d = max_p f(p) − f₀`
//!
//! Where: f(p) is the size of the residual at a place beside what is usual there
//! ([`AnomalyStatistics`](wae_core::calibrate::AnomalyStatistics)), and f₀ the value of the maximum above which a held-out
//! row's p-value is at most 0.01. Of a model of format `wae/1`, it is s/(s + t) of the structural cost s.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::ScalarUDF;
use wae_core::calibrate::Score;

use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
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

    fn outputs(&self, _: &KnownCall<'_>) -> Outputs {
        scores::outputs(Score::AnomalyScore)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        // Models of older versions have no scale without held-out rows.
        if let Some(model) = args.model().filter(|model| model.wae().anomaly_scale().is_none()) {
            scores::held_out(NAME, model, Score::AnomalyScore)?;
        }
        Ok(Field::new(NAME, DataType::Float32, true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let model = batch.model()?;
        let anomalies = scores::ranked(&batch.pass()?, model, Score::AnomalyScore)?;
        match model.wae().anomaly_scale() {
            Some(scale) => Ok(Arc::new(scores::scaled(&anomalies, scale))),
            None => exec_err!("{NAME}: model '{}' has no calibration", model.name()),
        }
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_anomaly_score(image [, model])",
    description: "How strange the strangest place of an image is, beside what is usual there: a Float32 from 0 to 1, the largest \
         value of `wae_anomaly_map`. 0.5 is the threshold of an outlier at alpha 0.01 without `wae.confidence` (with fewer than 99 held-out rows, \
         which have no such threshold, their highest score; without any, a training row at the 50 % quantile). Higher is \
         stranger. Of a model of an older version, the structural cost of the reconstruction, scaled; training it anew gives \
         the better score (see *Which score*).",
    arguments: &[("image", IMAGE_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT path FROM 'images.parquet' WHERE wae_anomaly_score(image, 'fashion') > 0.5;",
    related: &["wae_anomaly_map", "wae_p_value"],
};
