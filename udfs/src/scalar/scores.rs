//! The scores of an image: the reconstruction cost, the distance of its code, the strangest place of its anomaly map.

use arrow::array::{Array, AsArray, Float32Array};
use arrow::datatypes::Float32Type;
use datafusion::common::{Result, exec_err, plan_err};
use wae_core::calibrate::{HeldOut, Scale, Score};

use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::kernel::KnownCall;
use crate::scalar::pass::{Outputs, Pass};

/// The description of the argument that names a score.
pub(crate) const SCORE_ARGUMENT: &str = "The score: 'anomaly_score', 'cost', the reconstruction cost, or \
     'latent_distance'; a string literal. If left out, the session's `wae.score`, or else the model's own: 'anomaly_score', \
     or 'cost' of models of older versions.";

/// The score of calls that name none: the session's, or else the model's own.
pub(crate) fn default_score(model: Option<&LoadedModel>, options: &WaeOptions) -> Score {
    options.score().or(model.map(|model| model.wae().config().score())).unwrap_or_default()
}

/// The score of a name.
fn parse(function: &str, name: &str) -> Result<Score> {
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

/// The output of a pass that a call's score is made from; an unknown name is refused elsewhere, at planning.
pub(crate) fn outputs_of_call(call: &KnownCall<'_>, position: usize) -> Outputs {
    let named = (call.text)(position).and_then(|name| parse("", &name).ok());
    outputs(named.unwrap_or(call.score))
}

/// The score that an argument of a planned call names.
pub(crate) fn of_args(args: &PlannedArgs<'_>, position: usize) -> Result<Score> {
    args.text(position)?.map_or(Ok(args.score()), |name| parse(args.function(), name))
}

/// The score that an argument of a call names.
pub(crate) fn of_batch(batch: &Batch<'_>, position: usize) -> Result<Score> {
    let name = batch.scalar(position, "score")?;
    match name.as_ref().and_then(|name| name.try_as_str().flatten()) {
        Some(name) => parse(batch.function(), name),
        None => Ok(default_score(Some(batch.model()?), batch.options())),
    }
}

/// Anomaly scores as they are reported, between 0 and 1.
pub(crate) fn scaled(anomalies: &Float32Array, scale: Scale) -> Float32Array {
    anomalies.unary::<_, Float32Type>(|anomaly| scale.of(anomaly))
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

/// The scale of a model's anomaly map. Refuses a model of an older version, which has no map.
pub(crate) fn scale_of_map(function: &str, model: &LoadedModel) -> Result<Scale> {
    match model.wae().anomaly_scale().filter(|_| model.wae().has_anomaly_map()) {
        Some(scale) => Ok(scale),
        None => plan_err!(
            "{function}: model '{}' is of an older version and has no anomaly map: train it anew",
            model.name()
        ),
    }
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
