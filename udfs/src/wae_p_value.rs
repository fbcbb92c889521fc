//! `wae_p_value(image [, model [, score]])`: how unusual an image is among rows like the training set.
//!
//! `p = (1 + #{held-out score ≥ s}) / (1 + n)`
//!
//! Where: s is the image's score, and n the number of held-out rows that the model was calibrated on. If the image is
//! drawn as they were, p ≤ α happens with probability at most α, on average over calibration draws.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{Documentation, ScalarUDF};
use wae_core::Calibration;

use crate::args::{Batch, PlannedArgs};
use crate::function::{IMAGE_ARGUMENT, MODEL_ARGUMENT, ModelFunction, ModelKernel, SECTION};
use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::wae_reconstruction_cost::reconstruction_costs;

/// The description of the argument that names a score.
pub(crate) const SCORE_ARGUMENT: &str = "The score: 'cost', the reconstruction cost (the default).";

/// The function under a session's options.
pub(crate) fn wae_p_value_udf(options: &WaeOptions) -> ScalarUDF {
    ScalarUDF::from(ModelFunction::<WaePValue>::new(options.clone()))
}

#[derive(Debug)]
struct WaePValue;

impl ModelKernel for WaePValue {
    const NAME: &'static str = "wae_p_value";
    const PARAMETERS: &'static [&'static str] = &["image", "model", "score"];

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
        args.check_image(model)?;
        check_score(Self::NAME, args.text(2)?)?;
        calibration(Self::NAME, model).map(|_| ())
    }

    fn field(_: Option<&LoadedModel>) -> Result<Field> {
        Ok(Field::new(Self::NAME, DataType::Float64, true))
    }

    fn run(batch: &Batch<'_>) -> Result<ArrayRef> {
        Ok(Arc::new(Float64Array::from_iter(p_values(batch)?)))
    }
}

/// The p-value of each row's image.
pub(crate) fn p_values(batch: &Batch<'_>) -> Result<Vec<Option<f64>>> {
    let calibration = calibration(batch.function(), batch.model()?)?;
    let (costs, valid) = reconstruction_costs(batch)?;
    Ok(costs.iter().zip(valid.iter()).map(|(cost, valid)| valid.then(|| calibration.p_value(*cost))).collect())
}

/// The model's calibration; a model trained without held-out rows has none.
pub(crate) fn calibration<'a>(function: &str, model: &'a LoadedModel) -> Result<&'a Calibration> {
    match model.wae().calibration() {
        Some(calibration) => Ok(calibration),
        None => plan_err!(
            "{function}: model '{}' has no calibration, expected one trained with holdout above 0, or wae_calibrate",
            model.name()
        ),
    }
}

/// Refuses a score that is not known.
pub(crate) fn check_score(function: &str, score: Option<&str>) -> Result<()> {
    match score {
        None | Some("cost") => Ok(()),
        Some(other) => plan_err!("{function}: score must be 'cost', got '{other}'"),
    }
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
    .build()
});
