//! Estimates of the memory that a network takes, from its architecture alone.
//!
//! They count the values that are in memory together at the worst moment, without the scratch memory of the kernels'
//! tasks.

use super::inference::images_a_pass;
use crate::architecture::{Architecture, Direction, LayerSpec, Tail, parameters};
use crate::config::Config;

/// Bytes of a value.
const VALUE: usize = size_of::<f32>();
/// Tensors of the largest layer beside those that layers keep: a gradient, the next one, which is made of it, and a
/// copy.
const AT_WORK: usize = 3;
/// Tensors of the largest layer in scoring: a layer's input and its output.
const READ_AND_WRITTEN: usize = 2;

/// Bytes for a pass of `rows` images through a model, and for its results: four for each of
///
/// ```text
/// rows · (3·H·W·C + d_z)  +  min(rows, those that pass together) · 2·a
/// ```
///
/// values. Where: a is the number of values of the largest layer. An image is there three times: as it was read, as its
/// reconstruction, and as the result. Features are there twice more, as they were read and without their mean. All values are counted as floats; images that are read as bytes take less.
pub fn scoring_memory(config: &Config, rows: usize) -> usize {
    let image = config.image().len().saturating_mul(3).saturating_add(config.latent_dim());
    let image = image.saturating_add(source_values(config));
    let layers = images_a_pass(config).min(rows).saturating_mul(READ_AND_WRITTEN * widest(config));
    VALUE.saturating_mul(rows.saturating_mul(image).saturating_add(layers))
}

/// Bytes for a step on `rows` images: every layer's output is kept for the backward pass, and the input of its norm.
pub(crate) fn step_memory(config: &Config, rows: usize) -> usize {
    let architecture = Architecture::new(config);
    let codes = architecture.adversary.iter().map(|layer| 2 * remembered(layer)).sum::<usize>();
    let layers = architecture.encoder.iter().chain(&architecture.decoder).map(remembered).sum::<usize>();
    // The batch, the same with noise, and the gradient of the reconstruction.
    let image = 3 * config.image().len() + source_values(config);
    VALUE.saturating_mul(rows.saturating_mul(codes + layers + image + AT_WORK * widest(config)))
}

/// Bytes for a step on `rows` images of the encoder alone.
pub(crate) fn encoder_step_memory(config: &Config, rows: usize) -> usize {
    let layers = Architecture::new(config).encoder.iter().map(remembered).sum::<usize>();
    let image = 2 * config.image().len();
    VALUE.saturating_mul(rows.saturating_mul(layers + image + AT_WORK * widest(config)))
}

/// Bytes for `rows` images.
pub(crate) fn images_memory(config: &Config, rows: usize) -> usize {
    VALUE.saturating_mul(rows).saturating_mul(config.image().len())
}

/// Values of a row of features beside those that the network sees: as it was read, and without its mean.
fn source_values(config: &Config) -> usize {
    if config.input().is_some() { config.source().len().saturating_mul(2) } else { 0 }
}

/// Bytes for the statistics that features are whitened by: three matrices of the size of their covariance, in 64 bits.
pub(crate) fn whitening_memory(config: &Config) -> usize {
    let channels = if config.input().is_some() { config.source().channels() } else { 0 };
    channels * channels * 3 * size_of::<f64>()
}

/// Bytes for `copies` of every weight.
pub(crate) fn weights_memory(config: &Config, copies: usize) -> usize {
    VALUE.saturating_mul(copies).saturating_mul(parameters(config))
}

/// Values of the largest layer of an image.
fn widest(config: &Config) -> usize {
    let values = |layer: &LayerSpec| layer.geometry.large_len().max(layer.geometry.small_len());
    Architecture::new(config).layers().map(values).max().unwrap_or(0)
}

/// Values of an image that a layer keeps in the forward pass.
fn remembered(layer: &LayerSpec) -> usize {
    let g = &layer.geometry;
    let output = match layer.direction {
        Direction::Down => g.small_len(),
        Direction::Up => g.large_len(),
    };
    match layer.tail {
        Tail::Norm => 2 * output,
        Tail::Bias(_) => output,
    }
}
