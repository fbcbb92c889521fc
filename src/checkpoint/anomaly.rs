//! Tensors of the anomaly map, checked as weights are. A configuration with `score_scales` has them all.

use std::collections::BTreeMap;

use safetensors::tensor::SafeTensors;

use super::format::{broken, values};
use crate::calibrate::{AnomalyStatistics, Covariance};
use crate::config::Config;
use crate::error::{Error, Result};

/// The usual size of each place's term, (H, W).
const USUAL: &str = "score.usual";
/// The median and the 95 % quantile of each scale, (S, 2).
const LEVELS: &str = "score.levels";
/// The covariance of training residuals, (C, C), of a model of features.
const COVARIANCE: &str = "score.covariance";

/// Names and shapes of the tensors of a configuration.
pub(super) fn shapes(config: &Config) -> BTreeMap<String, Vec<usize>> {
    if config.score_scales().is_empty() {
        return BTreeMap::new();
    }
    let image = config.image();
    let mut shapes = BTreeMap::from([
        (USUAL.to_owned(), vec![image.height(), image.width()]),
        (LEVELS.to_owned(), vec![config.score_scales().len(), 2]),
    ]);
    if config.input().is_some() {
        shapes.insert(COVARIANCE.to_owned(), vec![image.channels(); 2]);
    }
    shapes
}

/// Reads the tensors, whose names and shapes have been checked.
pub(super) fn read(file: &SafeTensors<'_>, config: &Config) -> Result<Option<AnomalyStatistics>> {
    if config.score_scales().is_empty() {
        return Ok(None);
    }
    let tensor = |name| values(name, &file.tensor(name).map_err(broken)?);
    let image = config.image();
    let places = (image.height(), image.width());
    let of_file = |e: Error| Error::Model(format!("the anomaly map's statistics: {e}"));
    let covariance = match config.input() {
        Some(_) => Some(Covariance::try_new(tensor(COVARIANCE)?, image.channels()).map_err(of_file)?),
        None => None,
    };
    let scales = config.score_scales();
    let statistics = AnomalyStatistics::try_new(places, scales, tensor(USUAL)?, &tensor(LEVELS)?, covariance);
    statistics.map(Some).map_err(of_file)
}

/// A tensor of the file: its name, shape and values.
type Named<'a> = (&'static str, Vec<usize>, &'a [f32]);

/// The tensors of statistics.
pub(super) fn tensors<'a>(config: &Config, statistics: &'a AnomalyStatistics) -> Vec<Named<'a>> {
    let image = config.image();
    let covariance =
        statistics.covariance().map(|covariance| (COVARIANCE, vec![image.channels(); 2], covariance.values()));
    let usual = (USUAL, vec![image.height(), image.width()], statistics.usual());
    let levels = (LEVELS, vec![config.score_scales().len(), 2], statistics.levels());
    [usual, levels].into_iter().chain(covariance).collect()
}
