//! `wae_p_value(image [, model [, score]])`: how unusual an image is among rows like the training set.
//!
//! `p = (1 + #{held-out score ≥ s}) / (1 + n)`
//!
//! Where: s is the image's score, and n the number of held-out rows that the model was calibrated on. If the image is
//! drawn as they were, p ≤ α happens with probability at most α, on average over calibration draws.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::{Documentation, ScalarUDF};

use crate::args::{Batch, PlannedArgs};
use crate::function::{IMAGE_ARGUMENT, MODEL_ARGUMENT, ModelFunction, ModelKernel, SECTION, Texts};
use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::pass::Outputs;
use crate::scores::{self, SCORE_ARGUMENT};

/// The position of `score`.
const SCORE: usize = 2;

/// The function under a session's options.
pub(crate) fn wae_p_value_udf(options: &WaeOptions) -> ScalarUDF {
    ScalarUDF::from(ModelFunction::new::<WaePValue>(options.clone()))
}

#[derive(Debug)]
struct WaePValue;

impl ModelKernel for WaePValue {
    const NAME: &'static str = "wae_p_value";
    const PARAMETERS: &'static [&'static str] = &["image", "model", "score"];

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    fn outputs(texts: &Texts<'_>) -> Outputs {
        scores::outputs_of_text(texts(SCORE).as_deref())
    }

    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
        args.check_image(model)?;
        scores::held_out(Self::NAME, model, scores::parse(Self::NAME, args.text(SCORE)?)?).map(|_| ())
    }

    fn field(_: Option<&LoadedModel>) -> Result<Field> {
        Ok(Field::new(Self::NAME, DataType::Float64, true))
    }

    fn run(batch: &Batch<'_>) -> Result<ArrayRef> {
        Ok(Arc::new(Float64Array::from_iter(p_values(batch, SCORE)?)))
    }
}

/// The p-value of each row's image, by the score that an argument names.
pub(crate) fn p_values(batch: &Batch<'_>, score: usize) -> Result<Vec<Option<f64>>> {
    let (function, model) = (batch.function(), batch.model()?);
    let score = scores::of_batch(batch, score)?;
    let held_out = scores::held_out(function, model, score)?;
    let ranked = scores::ranked(&batch.pass()?, model, score)?;
    Ok(ranked.iter().map(|score| score.map(|score| held_out.p_value(score))).collect())
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "A conformal p-value in (0, 1]: (1 + the number of held-out rows that score at least as high) / (1 + the \
         number of held-out rows). Lower is stranger. The model must have been trained with `holdout` above 0.",
        "wae_p_value(image [, model [, score]])",
    )
    .with_sql_example("SELECT path, wae_p_value(image, 'fashion') AS p FROM 'images.parquet' ORDER BY p LIMIT 10;")
    .with_argument("image", IMAGE_ARGUMENT)
    .with_argument("model", MODEL_ARGUMENT)
    .with_argument("score", SCORE_ARGUMENT)
    .with_related_udf("wae_is_outlier")
    .with_related_udf("wae_calibrate")
    .build()
});
