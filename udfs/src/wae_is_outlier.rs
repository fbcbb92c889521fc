//! `wae_is_outlier(image [, alpha [, model [, score]]])`: whether an image's p-value is at most alpha.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{Documentation, ScalarUDF};

use crate::args::{Batch, PlannedArgs};
use crate::error::row_error;
use crate::function::{IMAGE_ARGUMENT, MODEL_ARGUMENT, ModelFunction, ModelKernel, SECTION, Texts};
use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::pass::Outputs;
use crate::scores::{self, SCORE_ARGUMENT};
use crate::wae_p_value::p_values;

/// The false-alarm rate when none is given.
pub(crate) const DEFAULT_ALPHA: f64 = 0.01;
/// The positions of `alpha` and `score`.
const ALPHA: usize = 1;
const SCORE: usize = 3;

/// The function under a session's options.
pub(crate) fn wae_is_outlier_udf(options: &WaeOptions) -> ScalarUDF {
    ScalarUDF::from(ModelFunction::new::<WaeIsOutlier>(options.clone()))
}

#[derive(Debug)]
struct WaeIsOutlier;

impl ModelKernel for WaeIsOutlier {
    const NAME: &'static str = "wae_is_outlier";
    const PARAMETERS: &'static [&'static str] = &["image", "alpha", "model", "score"];

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    /// A string as the second of two arguments is the model, as in the other functions.
    fn model_position(arguments: usize, is_text: impl Fn(usize) -> bool) -> usize {
        if arguments == ALPHA + 1 && is_text(ALPHA) { ALPHA } else { ALPHA + 1 }
    }

    fn coerce(types: &[DataType]) -> Vec<DataType> {
        let mut types = types.to_vec();
        if let Some(alpha) = types.get_mut(ALPHA)
            && (alpha.is_numeric() || alpha.is_null())
        {
            *alpha = DataType::Float64;
        }
        types
    }

    fn outputs(texts: &Texts<'_>) -> Outputs {
        scores::outputs_of_text(texts(SCORE).as_deref())
    }

    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
        args.check_image(model)?;
        let score = scores::parse(Self::NAME, args.text(SCORE)?)?;
        let rows = scores::held_out(Self::NAME, model, score)?.len();
        let check_literal =
            |alpha: f64| check_alpha(alpha, rows, model).or_else(|message| plan_err!("{}: {message}", Self::NAME));
        match (args.field(ALPHA).map(Field::data_type), args.literal(ALPHA)) {
            (None, _) => check_literal(DEFAULT_ALPHA),
            (Some(text), _) if text.is_string() && args.field(ALPHA + 1).is_none() => check_literal(DEFAULT_ALPHA),
            (Some(_), Some(value)) if value.is_null() => Ok(()),
            (Some(DataType::Float64), Some(value)) => match value.cast_to(&DataType::Float64)? {
                ScalarValue::Float64(Some(alpha)) => check_literal(alpha),
                other => plan_err!("wae_is_outlier: alpha must be a number, got {other}"),
            },
            (Some(DataType::Float64), None) => Ok(()),
            (Some(other), _) => plan_err!("wae_is_outlier: alpha must be a number, got {other}"),
        }
    }

    fn field(_: Option<&LoadedModel>) -> Result<Field> {
        Ok(Field::new(Self::NAME, DataType::Boolean, true))
    }

    fn run(batch: &Batch<'_>) -> Result<ArrayRef> {
        let model = batch.model()?;
        // A string is the model.
        let alphas = batch.array(ALPHA)?.filter(|alphas| !alphas.data_type().is_string());
        let rows = scores::held_out(Self::NAME, model, scores::of_batch(batch, SCORE)?)?.len();
        let alphas = alphas.as_ref().map(AsArray::as_primitive::<Float64Type>);
        if let Some(alphas) = alphas {
            for (row, alpha) in alphas.iter().enumerate() {
                if let Some(Err(message)) = alpha.map(|alpha| check_alpha(alpha, rows, model)) {
                    return Err(row_error(Self::NAME, row, message));
                }
            }
        }
        let outliers = p_values(batch, SCORE)?.into_iter().enumerate().map(|(row, p)| {
            let alpha = match alphas {
                Some(alphas) => alphas.is_valid(row).then(|| alphas.value(row)),
                None => Some(DEFAULT_ALPHA),
            };
            Some(p? <= alpha?)
        });
        Ok(Arc::new(BooleanArray::from_iter(outliers)))
    }
}

/// Refuses what is no rate, and a rate that no p-value can reach: the smallest is 1 / (n + 1).
pub(crate) fn check_alpha(alpha: f64, rows: usize, model: &LoadedModel) -> Result<(), String> {
    if !(alpha > 0.0 && alpha < 1.0) {
        return Err(format!("alpha must be between 0 and 1, both excluded, got {alpha}"));
    }
    let needed = (1.0 / alpha).ceil() as usize - 1;
    if alpha * ((rows + 1) as f64) < 1.0 && rows < needed {
        let name = model.name();
        return Err(format!(
            "alpha = {alpha} needs {needed} held-out rows, model '{name}' has {rows}: no image could be an outlier"
        ));
    }
    Ok(())
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "Whether an image's p-value is at most alpha. Of rows drawn like the training set, a share of at most alpha is \
         flagged, on average over calibration draws.",
        "wae_is_outlier(image [, alpha [, model [, score]]])",
    )
    .with_sql_example("SELECT count(*) FROM 'images.parquet' WHERE wae_is_outlier(image, 0.01, 'fashion');")
    .with_argument("image", IMAGE_ARGUMENT)
    .with_argument(
        "alpha",
        "The highest rate of false alarms, between 0 and 1, both excluded. 0.01 if left out, as in \
         `wae_is_outlier(image, 'fashion')`; by name, it must be given where `model` is. A literal below 1/(n + 1), \
         where n is the number of held-out rows, is refused at planning.",
    )
    .with_argument("model", MODEL_ARGUMENT)
    .with_argument("score", SCORE_ARGUMENT)
    .with_related_udf("wae_p_value")
    .build()
});
