//! A trained model on a GPU: its layers with norms folded in, shared by all threads that score with it.

use std::ops::Range;
use std::sync::Arc;

use super::{Array, Gpu, Place, bias_activation, down, up, weights};
use crate::error::{Error, Result};
use crate::image::PixelSlice;
use crate::kernels::Geometry;
use crate::model::{Activation, Direction, Folded, Precision};

/// Encoder and decoder.
#[derive(Debug)]
pub(crate) struct Scorer {
    gpu: Arc<Gpu>,
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    geometry: Geometry,
    direction: Direction,
    weights: Array,
    shift: Array,
    activation: Activation,
}

impl Scorer {
    /// Layers with the precision that each computes in.
    pub(crate) fn try_new(
        place: &Place,
        encoder: &[(Folded, Precision)],
        decoder: &[(Folded, Precision)],
    ) -> Result<Self> {
        let gpu = &place.gpu;
        let layers = |layers: &[(Folded, Precision)]| {
            layers.iter().map(|(layer, precision)| Layer::try_new(gpu, layer, *precision)).collect::<Result<_>>()
        };
        // Whole from the start: where memory runs out half-way, what was taken is given back.
        let mut scorer = Self { gpu: Arc::clone(gpu), encoder: Vec::new(), decoder: Vec::new() };
        scorer.encoder = layers(encoder)?;
        scorer.decoder = layers(decoder)?;
        Ok(scorer)
    }

    /// Through the encoder: rows of images → rows of codes. Bytes are uploaded as bytes, and scaled on the GPU.
    pub(crate) fn encode(&self, images: PixelSlice<'_>) -> Result<Vec<f32>> {
        self.apply(&self.encoder, images.len(), |range| match images.range(range) {
            PixelSlice::U8(bytes) => Array::of_bytes(&self.gpu, bytes, &[bytes.len()]),
            PixelSlice::F32(values) => Array::new(&self.gpu, values, &[values.len()]),
        })
    }

    /// Through the decoder: rows of codes → rows of images.
    pub(crate) fn decode(&self, codes: &[f32]) -> Result<Vec<f32>> {
        self.apply(&self.decoder, codes.len(), |range| Array::new(&self.gpu, &codes[range.clone()], &[range.len()]))
    }

    /// Rows of `len` values in all, of which `upload` takes a range. Where memory runs out, what is freed goes back to the driver
    /// and the rows are tried in two halves, once.
    fn apply(&self, layers: &[Layer], len: usize, upload: impl Fn(Range<usize>) -> Result<Array>) -> Result<Vec<f32>> {
        let pass = |range| -> Result<Vec<f32>> {
            layers.iter().try_fold(upload(range)?, |values, layer| layer.apply(&values))?.to_vec()
        };
        match pass(0..len) {
            Err(Error::DeviceMemory(reason)) => {
                let row = layers.first().map_or(1, |layer| layer.input_len());
                let rows = len / row;
                log::warn!("{rows} rows on {:?}: {reason}; trying half as many", self.gpu);
                self.gpu.trim()?;
                let half = rows.div_ceil(2) * row;
                let mut out = pass(0..half)?;
                if half < len {
                    out.extend(pass(half..len)?);
                }
                Ok(out)
            }
            other => other,
        }
    }

    /// Bytes of GPU memory that the weights hold.
    pub(crate) fn memory(&self) -> usize {
        let layers = self.encoder.iter().chain(&self.decoder);
        layers.map(|layer| layer.weights.bytes() + layer.shift.bytes()).sum()
    }
}

impl Drop for Scorer {
    fn drop(&mut self) {
        self.gpu.release(|| {
            self.encoder.clear();
            self.decoder.clear();
        });
    }
}

impl Layer {
    fn try_new(gpu: &Arc<Gpu>, layer: &Folded, precision: Precision) -> Result<Self> {
        let weights = weights(gpu, &layer.geometry, &layer.scaled(), precision)?;
        // What no training changes is kept once.
        let weights = if weights.half().is_some() { weights.narrowed()? } else { weights };
        let shift = Array::new(gpu, &layer.shift, &[layer.shift.len()])?;
        let Folded { geometry, direction, activation, .. } = *layer;
        Ok(Self { geometry, direction, weights, shift, activation })
    }

    /// Values of a row that goes in.
    fn input_len(&self) -> usize {
        match self.direction {
            Direction::Down => self.geometry.large_len(),
            Direction::Up => self.geometry.small_len(),
        }
    }

    fn apply(&self, x: &Array) -> Result<Array> {
        let convolved = match self.direction {
            Direction::Down => down(&self.geometry, x, &self.weights)?,
            Direction::Up => up(&self.geometry, x, &self.weights)?,
        };
        bias_activation(&convolved, &self.shift, self.activation)
    }
}

#[cfg(test)]
mod tests;
