//! The scores of an image: the reconstruction cost, the distance of its code, the structural anomaly.

use arrow::array::{Array, AsArray, Float32Array};
use arrow::datatypes::Float32Type;
use datafusion::common::{Result, exec_err, plan_err};
use wae_core::calibrate::{HeldOut, Score};

use crate::models::LoadedModel;
use crate::scalar::args::Batch;
use crate::scalar::pass::{Outputs, Pass};

/// The description of the argument that names a score.
pub(crate) const SCORE_ARGUMENT: &str = "The score: 'cost', the reconstruction cost (the default), 'latent_distance' \
     or 'anomaly_score'; a string literal.";

/// The score of a name; the cost where there is none.
pub(crate) fn parse(function: &str, name: Option<&str>) -> Result<Score> {
    let Some(name) = name else { return Ok(Score::default()) };
    match Score::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        Some((_, score)) => Ok(*score),
        None => {
            let names: Vec<String> = Score::ALL.iter().map(|(name, _)| format!("'{name}'")).collect();
            plan_err!("{function}: score must be {}, got '{name}'", names.join(" or "))
        }
    }
}

/// The output of a pass that a score is made from.
pub(crate) fn outputs(score: Score) -> Outputs {
    match score {
        Score::Cost => Outputs::COST,
        Score::LatentDistance => Outputs::LATENT,
        Score::AnomalyScore => Outputs::ANOMALY,
    }
}

/// The output of a pass that the score of a name is made from; an unknown one is refused elsewhere, at planning.
pub(crate) fn outputs_of_text(name: Option<&str>) -> Outputs {
    outputs(parse("", name).unwrap_or_default())
}

/// The score that an argument of a call names.
pub(crate) fn of_batch(batch: &Batch<'_>, position: usize) -> Result<Score> {
    let name = batch.scalar(position, "score")?;
    parse(batch.function(), name.as_ref().and_then(|name| name.try_as_str().flatten()))
}

/// The rows' scores as they are ranked, which for the anomaly score is before it is scaled. Higher is stranger.
pub(crate) fn ranked(pass: &Pass<'_>, model: &LoadedModel, score: Score) -> Result<Float32Array> {
    match score {
        Score::Cost => pass.costs(),
        Score::AnomalyScore => pass.anomalies(),
        Score::LatentDistance => {
            let codes = pass.latent()?;
            let codes = codes.as_fixed_size_list(); // (N, Z)
            // A NULL row holds zeros, or what stood there: its distance is a number that its NULL hides.
            let start = codes.value_offset(0) as usize;
            let width = codes.value_length() as usize;
            let values = &codes.values().as_primitive::<Float32Type>().values()[start..start + codes.len() * width];
            match model.wae().latent_distances(values) {
                Some(distances) => Ok(Float32Array::new(distances.into(), codes.nulls().cloned())),
                None => exec_err!("{}", no_latent_statistics(model)),
            }
        }
    }
}

/// Refuses a model whose file does not say where its training codes lie.
pub(crate) fn check_latent_statistics(function: &str, model: &LoadedModel) -> Result<()> {
    if model.wae().has_latent_statistics() {
        return Ok(());
    }
    plan_err!("{function}: {}", no_latent_statistics(model))
}

fn no_latent_statistics(model: &LoadedModel) -> String {
    format!("model '{}' does not hold where its training codes lie, expected one trained by this version", model.name())
}

/// The held-out rows' scores; a model trained without held-out rows has none.
///
/// # Errors
/// A plan error that says what the model's file lacks.
pub(crate) fn held_out<'a>(function: &str, model: &'a LoadedModel, score: Score) -> Result<&'a HeldOut> {
    let name = model.name();
    if score == Score::LatentDistance {
        check_latent_statistics(function, model)?;
    }
    match find_held_out(model, score) {
        Some(held_out) => Ok(held_out),
        None if model.wae().calibration().is_none() => plan_err!(
            "{function}: model '{name}' has no calibration, expected one trained with holdout above 0, or calibrated \
             by wae_calibrate"
        ),
        None => plan_err!(
            "{function}: model '{name}' has no held-out values of {}, expected one trained or calibrated by this \
             version",
            score.name()
        ),
    }
}

/// The held-out rows' scores, if the model has them.
pub(crate) fn find_held_out(model: &LoadedModel, score: Score) -> Option<&HeldOut> {
    model.wae().calibration()?.scores(score)
}
