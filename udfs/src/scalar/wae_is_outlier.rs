//! `wae_is_outlier(image [, alpha [, model [, score]]])`: whether an image's p-value is at most alpha.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::alpha::{self, ALPHA_ARGUMENT};
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::pass::Outputs;
use crate::scalar::scores::{self, SCORE_ARGUMENT};

/// The position of `score`.
const SCORE: usize = 3;

const NAME: &str = "wae_is_outlier";

/// The function under a session's options.
pub(crate) fn wae_is_outlier_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeIsOutlier, options)
}

#[derive(Debug)]
struct WaeIsOutlier;

impl ScalarKernel for WaeIsOutlier {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn model_position(&self, arguments: usize, is_text: &dyn Fn(usize) -> bool) -> Option<usize> {
        Some(alpha::model_position(arguments, is_text))
    }

    fn coerce(&self, types: &[DataType]) -> Vec<DataType> {
        alpha::coerce(types)
    }

    fn outputs(&self, call: &KnownCall<'_>) -> Outputs {
        scores::outputs_of_call(call, SCORE)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        if let Some(model) = args.model() {
            alpha::check(args, model, scores::held_out(NAME, model, scores::of_args(args, SCORE)?)?)?;
        }
        Ok(Field::new(NAME, DataType::Boolean, true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let model = batch.model()?;
        let score = scores::of_batch(batch, SCORE)?;
        let thresholds = alpha::thresholds(batch, scores::held_out(NAME, model, score)?)?;
        let ranked = scores::ranked(&batch.pass()?, model, score)?;
        let outliers = ranked.iter().zip(thresholds).map(|(score, threshold)| Some(threshold?.is_exceeded_by(score?)));
        Ok(Arc::new(BooleanArray::from_iter(outliers)))
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_is_outlier(image [, alpha [, model [, score]]])",
    description: "Whether an image's p-value is at most alpha. Of rows drawn like the training set, a share of at most alpha is \
         flagged, on average over calibration draws. `SET wae.confidence = 0.95` makes alpha hold for the held-out rows at hand, \
         with that probability: the p-value must then be at most k/(n + 1), for the largest k that allows it.",
    arguments: &[
        ("image", IMAGE_ARGUMENT),
        ("alpha", ALPHA_ARGUMENT),
        ("model", MODEL_ARGUMENT),
        ("score", SCORE_ARGUMENT),
    ],
    example: "SELECT count(*) FROM 'images.parquet' WHERE wae_is_outlier(image, 0.01, 'fashion');",
    related: &["wae_p_value", "wae_anomaly_mask"],
};
