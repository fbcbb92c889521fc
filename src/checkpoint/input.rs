//! The tensors of a model of features: the whitening of its input.

use safetensors::tensor::SafeTensors;

use super::format::{self, values};
use crate::config::Config;
use crate::error::Result;
use crate::whitening::Whitening;

/// Mean, (C,), projection, (C, k), and deviation, (k,).
const WHITENING: [&str; 3] = ["input.mean", "input.projection", "input.deviation"];

/// Name and shape of each tensor that a configuration asks for; none of a model of images.
pub(super) fn shapes(config: &Config) -> Vec<(String, Vec<usize>)> {
    if config.input().is_none() {
        return Vec::new();
    }
    let channels = config.source().channels();
    let components = config.image().channels();
    let shapes = [vec![channels], vec![channels, components], vec![components]];
    WHITENING.iter().map(|name| (*name).to_owned()).zip(shapes).collect()
}

/// The whitening of a file whose names and shapes have been checked.
pub(super) fn read_whitening(file: &SafeTensors<'_>, config: &Config) -> Result<Option<Whitening>> {
    if config.input().is_none() {
        return Ok(None);
    }
    let [mean, projection, deviation] = WHITENING.map(|name| values(name, &file.tensor(name).map_err(format::broken)?));
    Whitening::try_new(mean?, projection?, deviation?).map(Some)
}

/// Name, shape and values of each tensor of a whitening.
pub(super) fn tensors(whitening: &Whitening) -> [(&str, Vec<usize>, &[f32]); 3] {
    let channels = whitening.channels();
    let components = whitening.components();
    let [mean, projection, deviation] = WHITENING;
    [
        (mean, vec![channels], whitening.mean()),
        (projection, vec![channels, components], whitening.projection()),
        (deviation, vec![components], whitening.deviation()),
    ]
}
