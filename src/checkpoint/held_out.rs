//! Optional tensors of a model file, checked as weights are: scores of held-out rows, and statistics of training codes.

use safetensors::tensor::SafeTensors;

use super::format::{values, wrong_shape};
use crate::calibrate::{Calibration, LatentStatistics, Score};
use crate::error::{Error, Result};

/// The sorted scores of held-out rows, (n,) each; the costs are there if any are.
pub(super) const SCORES: [(Score, &str); 3] = [
    (Score::Cost, "calibration.costs"),
    (Score::LatentDistance, "calibration.latent_distances"),
    (Score::AnomalyScore, "calibration.anomaly_scores"),
];
/// Mean and precision of the training codes, (Z,) and (Z, Z), or (Z,) for wide codes.
pub(super) const LATENT: [&str; 2] = ["calibration.latent_mean", "calibration.latent_precision"];

/// (Z, Z), or (Z,) for codes whose precision is diagonal.
pub(super) fn precision_shape(dim: usize) -> Vec<usize> {
    if LatentStatistics::precision_len(dim) == dim { vec![dim] } else { vec![dim, dim] }
}

pub(super) fn read_latent(file: &SafeTensors<'_>, dim: usize) -> Result<Option<LatentStatistics>> {
    let [mean, precision] = LATENT.map(|name| file.tensor(name).map(|view| (name, view)));
    let (mean, precision) = match (mean, precision) {
        (Ok(mean), Ok(precision)) => (mean, precision),
        (Err(_), Err(_)) => return Ok(None),
        _ => return Err(Error::Model(format!("expected both of {} or neither", LATENT.join(" and ")))),
    };
    for ((name, view), expected) in [(&mean, vec![dim]), (&precision, precision_shape(dim))] {
        if view.shape() != expected {
            return Err(wrong_shape(name, expected, view));
        }
    }
    LatentStatistics::try_new(values(mean.0, &mean.1)?, values(precision.0, &precision.1)?).map(Some)
}

pub(super) fn read_calibration(file: &SafeTensors<'_>) -> Result<Option<Calibration>> {
    let mut calibration: Option<Calibration> = None;
    let unfit = |e: Error| Error::Model(e.to_string());
    for (score, name) in SCORES {
        let Ok(view) = file.tensor(name) else { continue };
        let scores = values(name, &view)?;
        calibration = Some(match (calibration, score) {
            (None, Score::Cost) => Calibration::try_new(scores).map_err(unfit)?,
            (None, _) => return Err(Error::model_tensor(name, format!("without '{}'", SCORES[0].1))),
            (Some(calibration), _) => calibration.with_scores(score, scores).map_err(unfit)?,
        });
    }
    Ok(calibration)
}

/// Whether a tensor is one of these optional ones.
pub(super) fn is_known(name: &str, shape: &[usize]) -> bool {
    LATENT.contains(&name) || (shape.len() == 1 && SCORES.iter().any(|(_, known)| *known == name))
}
