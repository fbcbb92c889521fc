//! `wae_is_outlier(image [, alpha [, model [, score]]])`: whether an image's p-value is at most alpha.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::ScalarUDF;

use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::error::{Place, row_error};
use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::pass::Outputs;
use crate::scalar::scores::{self, SCORE_ARGUMENT};
use crate::scalar::wae_p_value::p_values;

/// The false-alarm rate when none is given.
pub(crate) const DEFAULT_ALPHA: f64 = 0.01;
/// The positions of `alpha` and `score`.
const ALPHA: usize = 1;
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

    /// A string as the second of two arguments is the model, as in the other functions.
    fn model_position(&self, arguments: usize, is_text: &dyn Fn(usize) -> bool) -> Option<usize> {
        Some(if arguments == ALPHA + 1 && is_text(ALPHA) { ALPHA } else { ALPHA + 1 })
    }

    fn coerce(&self, types: &[DataType]) -> Vec<DataType> {
        let mut types = types.to_vec();
        if let Some(alpha) = types.get_mut(ALPHA)
            && (alpha.is_numeric() || alpha.is_null())
        {
            *alpha = DataType::Float64;
        }
        types
    }

    fn outputs(&self, call: &KnownCall<'_>) -> Outputs {
        scores::outputs_of_call(call, SCORE)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        if let Some(model) = args.model() {
            check(args, model)?;
        }
        Ok(Field::new(NAME, DataType::Boolean, true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let model = batch.model()?;
        // A string is the model.
        let alphas = batch.array(ALPHA)?.filter(|alphas| !alphas.data_type().is_string());
        let rows = scores::held_out(NAME, model, scores::of_batch(batch, SCORE)?)?.len();
        let alphas = alphas.as_ref().map(AsArray::as_primitive::<Float64Type>);
        if let Some(alphas) = alphas {
            for (row, alpha) in alphas.iter().enumerate() {
                if let Some(Err(message)) = alpha.map(|alpha| check_alpha(alpha, rows, model)) {
                    return Err(row_error(NAME, Place::Row(row), message));
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

/// Checks the score, and a literal alpha.
fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
    let rows = scores::held_out(NAME, model, scores::of_args(args, SCORE)?)?.len();
    let check_literal = |alpha: f64| check_alpha(alpha, rows, model).or_else(|message| plan_err!("{NAME}: {message}"));
    match (args.field(ALPHA).map(Field::data_type), args.literal(ALPHA)) {
        (None, _) => check_literal(DEFAULT_ALPHA),
        (Some(text), _) if text.is_string() && args.len() == ALPHA + 1 => check_literal(DEFAULT_ALPHA),
        (Some(_), Some(value)) if value.is_null() => Ok(()),
        (Some(DataType::Float64), Some(value)) => match value.cast_to(&DataType::Float64)? {
            ScalarValue::Float64(Some(alpha)) => check_literal(alpha),
            other => plan_err!("{NAME}: alpha must be a number, got {other}"),
        },
        (Some(DataType::Float64), None) => Ok(()),
        (Some(other), _) => plan_err!("{NAME}: alpha must be a number, got {other}"),
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

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_is_outlier(image [, alpha [, model [, score]]])",
    description: "Whether an image's p-value is at most alpha. Of rows drawn like the training set, a share of at most alpha is \
         flagged, on average over calibration draws.",
    arguments: &[
        ("image", IMAGE_ARGUMENT),
        (
            "alpha",
            "The highest rate of false alarms, between 0 and 1, both excluded. 0.01 if left out, as in \
         `wae_is_outlier(image, 'fashion')`; by name, it must be given where `model` is. A literal below 1/(n + 1), \
         where n is the number of held-out rows, is refused at planning.",
        ),
        ("model", MODEL_ARGUMENT),
        ("score", SCORE_ARGUMENT),
    ],
    example: "SELECT count(*) FROM 'images.parquet' WHERE wae_is_outlier(image, 0.01, 'fashion');",
    related: &["wae_p_value"],
};
