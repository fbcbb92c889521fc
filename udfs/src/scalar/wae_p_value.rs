//! `wae_p_value(image [, model [, score]])`: how unusual an image is among rows like the training set.
//!
//! `p = (1 + #{held-out score ≥ s}) / (1 + n)`
//!
//! Where: s is the image's score, and n the number of held-out rows that the model was calibrated on. If the image is
//! drawn as they were, p ≤ α happens with probability at most α, on average over calibration draws.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::pass::Outputs;
use crate::scalar::scores::{self, SCORE_ARGUMENT};

/// The position of `score`.
const SCORE: usize = 2;

const NAME: &str = "wae_p_value";

/// The function under a session's options.
pub(crate) fn wae_p_value_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaePValue, options)
}

#[derive(Debug)]
struct WaePValue;

impl ScalarKernel for WaePValue {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn outputs(&self, call: &KnownCall<'_>) -> Outputs {
        scores::outputs_of_call(call, SCORE)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        if let Some(model) = args.model() {
            scores::held_out(NAME, model, scores::of_args(args, SCORE)?)?;
        }
        Ok(Field::new(NAME, DataType::Float64, true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        Ok(Arc::new(Float64Array::from_iter(p_values(batch, SCORE)?)))
    }
}

/// The p-value of each row's image, by the score that an argument names.
fn p_values(batch: &Batch<'_>, score: usize) -> Result<Vec<Option<f64>>> {
    let function = batch.function();
    let model = batch.model()?;
    let score = scores::of_batch(batch, score)?;
    let held_out = scores::held_out(function, model, score)?;
    let ranked = scores::ranked(&batch.pass()?, model, score)?;
    Ok(ranked.iter().map(|score| score.map(|score| held_out.p_value(score))).collect())
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_p_value(image [, model [, score]])",
    description: "A conformal p-value in (0, 1]: (1 + the number of held-out rows that score at least as high) / (1 + the \
         number of held-out rows). Lower is stranger. The model must have been trained with `holdout` above 0.",
    arguments: &[("image", IMAGE_ARGUMENT), ("model", MODEL_ARGUMENT), ("score", SCORE_ARGUMENT)],
    example: "SELECT path, wae_p_value(image, 'fashion') AS p FROM 'images.parquet' ORDER BY p LIMIT 10;",
    related: &["wae_is_outlier", "wae_calibrate"],
};
