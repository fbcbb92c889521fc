//! The argument `alpha` of verdicts: the rate of false alarms, and the score above which a row is an outlier then.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use wae_core::calibrate::{Guarantee, HeldOut, Threshold};

use crate::error::{Place, row_error};
use crate::models::LoadedModel;
use crate::scalar::args::{Batch, PlannedArgs};

/// The false-alarm rate when none is given.
pub(crate) const DEFAULT_ALPHA: f64 = 0.01;
/// The position of `alpha`.
const ALPHA: usize = 1;

/// The description of the argument.
pub(crate) const ALPHA_ARGUMENT: &str = "The highest rate of false alarms, between 0 and 1, both excluded. 0.01 if left out, as in \
     `wae_is_outlier(image, 'fashion')`; by name, it must be given where `model` is. A literal below 1/(n + 1), where n is \
     the number of held-out rows, is refused at planning; under `wae.confidence`, one below 1 − (1 − confidence)^(1/n).";

/// The position of the model: a string as the second of two arguments is the model, as in the other functions.
pub(crate) fn model_position(arguments: usize, is_text: &dyn Fn(usize) -> bool) -> usize {
    if arguments == ALPHA + 1 && is_text(ALPHA) { ALPHA } else { ALPHA + 1 }
}

/// The types of the arguments, with a Float64 for any number.
pub(crate) fn coerce(types: &[DataType]) -> Vec<DataType> {
    let mut types = types.to_vec();
    if let Some(alpha) = types.get_mut(ALPHA)
        && (alpha.is_numeric() || alpha.is_null())
    {
        *alpha = DataType::Float64;
    }
    types
}

/// Checks the type of alpha, and the value of a literal.
pub(crate) fn check(args: &PlannedArgs<'_>, model: &LoadedModel, held_out: &HeldOut) -> Result<()> {
    let function = args.function();
    let check_literal = |alpha: f64| match threshold(alpha, args.options().confidence(), held_out, model) {
        Ok(_) => Ok(()),
        Err(message) => plan_err!("{function}: {message}"),
    };
    match (args.field(ALPHA).map(Field::data_type), args.literal(ALPHA)) {
        (None, _) => check_literal(DEFAULT_ALPHA),
        (Some(text), _) if text.is_string() && args.len() == ALPHA + 1 => check_literal(DEFAULT_ALPHA),
        (Some(_), Some(value)) if value.is_null() => Ok(()),
        (Some(DataType::Float64), Some(value)) => match value.cast_to(&DataType::Float64)? {
            ScalarValue::Float64(Some(alpha)) => check_literal(alpha),
            other => plan_err!("{function}: alpha must be a number, got {other}"),
        },
        (Some(DataType::Float64), None) => Ok(()),
        (Some(other), _) => plan_err!("{function}: alpha must be a number, got {other}"),
    }
}

/// The score above which each row of a batch is an outlier; `None` where alpha is NULL.
///
/// # Errors
/// An execution error that names the first row whose alpha is no rate, or one that no row could reach.
pub(crate) fn thresholds(batch: &Batch<'_>, held_out: &HeldOut) -> Result<Vec<Option<Threshold>>> {
    let model = batch.model()?;
    let of_rate = |alpha: f64, row: usize| {
        threshold(alpha, batch.options().confidence(), held_out, model)
            .map_err(|message| row_error(batch.function(), Place::Row(row), message))
    };
    // A string is the model.
    let alphas: Option<ArrayRef> = batch.array(ALPHA)?.filter(|alphas| !alphas.data_type().is_string());
    let Some(alphas) = &alphas else { return Ok(vec![Some(of_rate(DEFAULT_ALPHA, 0)?); batch.rows()]) };
    let mut thresholds = Vec::with_capacity(batch.rows());
    // Most often, all rows have one rate.
    let mut last: Option<(f64, Threshold)> = None;
    for (row, alpha) in alphas.as_primitive::<Float64Type>().iter().enumerate() {
        thresholds.push(match (alpha, last) {
            (None, _) => None,
            (Some(alpha), Some((known, threshold))) if known == alpha => Some(threshold),
            (Some(alpha), _) => {
                let threshold = of_rate(alpha, row)?;
                last = Some((alpha, threshold));
                Some(threshold)
            }
        });
    }
    Ok(thresholds)
}

/// The score above which a row is an outlier at a rate of false alarms, which holds with the session's confidence where it
/// has one. Refuses what is no rate, and a rate at which no row could be an outlier.
pub(crate) fn threshold(
    alpha: f64,
    confidence: Option<f64>,
    held_out: &HeldOut,
    model: &LoadedModel,
) -> Result<Threshold, String> {
    let guarantee = Guarantee::try_new(alpha, confidence).map_err(|e| e.to_string())?;
    held_out.threshold(guarantee).ok_or_else(|| {
        let confidence = confidence.map(|c| format!(" at wae.confidence = {c}")).unwrap_or_default();
        format!(
            "alpha = {alpha}{confidence} needs {} held-out rows, model '{}' has {}: no image could be an outlier",
            needed(guarantee),
            model.name(),
            held_out.len()
        )
    })
}

/// The number of held-out rows that a guarantee needs, which is counted up to 2⁵³.
fn needed(guarantee: Guarantee) -> String {
    match guarantee.least_rows() as u64 {
        rows if rows < 1 << 53 => rows.to_string(),
        _ => "more than 2⁵³".to_owned(),
    }
}
