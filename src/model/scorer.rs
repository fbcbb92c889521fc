//! A trained model as tensors on a device: layers with norms folded in, shared by all threads that score with it.

use std::ops::Range;

use super::folded::Folded;
use crate::architecture::{Activation, Direction};
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::image::{ImageShape, PixelSlice};
use crate::kernels::Geometry;
use crate::objective::cost::CostFunction;
use crate::ops::{Target, Tensor, composed, to_vec};

/// Encoder and decoder.
#[derive(Debug)]
pub(super) struct Scorer {
    target: Target,
    encoder: Vec<ScoringLayer>,
    decoder: Vec<ScoringLayer>,
}

/// A layer with its norm folded in, as tensors on the device.
#[derive(Debug)]
struct ScoringLayer {
    geometry: Geometry,
    direction: Direction,
    weights: Tensor,
    shift: Tensor,
    activation: Activation,
    precision: Precision,
}

impl Scorer {
    /// Layers with the precision that each computes in.
    pub(super) fn try_new(
        target: &Target,
        encoder: &[(Folded, Precision)],
        decoder: &[(Folded, Precision)],
    ) -> Result<Self> {
        let layers = |layers: &[(Folded, Precision)]| {
            layers
                .iter()
                .map(|(layer, precision)| ScoringLayer::try_new(target, layer, *precision))
                .collect::<Result<_>>()
        };
        Ok(Self { target: target.clone(), encoder: layers(encoder)?, decoder: layers(decoder)? })
    }

    /// The encoder's pass: rows of images → rows of codes. Bytes are uploaded as bytes, and scaled on the device.
    pub(super) fn encode(&self, images: PixelSlice<'_>) -> Result<Vec<f32>> {
        self.apply(&self.encoder, images.len(), |range| {
            let images = images.range(range);
            self.target.pixels(images, &[images.len()])
        })
    }

    /// The decoder's pass: rows of codes → rows of images.
    pub(super) fn decode(&self, codes: &[f32]) -> Result<Vec<f32>> {
        self.apply(&self.decoder, codes.len(), |range| {
            let codes = codes[range].to_vec();
            let len = codes.len();
            self.target.tensor(codes, &[len])
        })
    }

    /// The cost of each image and its reconstruction: (N, H, W, C) twice → (N,).
    pub(super) fn costs(
        &self,
        function: &CostFunction,
        shape: ImageShape,
        images: PixelSlice<'_>,
        reconstructions: &[f32],
    ) -> Result<Vec<f32>> {
        let (x, y) = self.pairs(shape, images, reconstructions)?;
        to_vec(&composed::costs(function, &x, &y)?.to_dtype(candle_core::DType::F32)?)
    }

    /// The term of each pixel in the cost, summed over channels: (N, H, W, C) twice → (N, H, W).
    pub(super) fn maps(
        &self,
        function: &CostFunction,
        shape: ImageShape,
        images: PixelSlice<'_>,
        reconstructions: &[f32],
    ) -> Result<Vec<f32>> {
        let (x, y) = self.pairs(shape, images, reconstructions)?;
        to_vec(&composed::terms(function, &x, &y)?.sum(3)?)
    }

    /// Images and reconstructions on the device, (N, H, W, C) each.
    fn pairs(&self, shape: ImageShape, images: PixelSlice<'_>, reconstructions: &[f32]) -> Result<(Tensor, Tensor)> {
        let shape = [images.len() / shape.len(), shape.height(), shape.width(), shape.channels()];
        Ok((self.target.pixels(images, &shape)?, self.target.pixels(PixelSlice::F32(reconstructions), &shape)?))
    }

    /// Passes rows of `len` values in all through layers; `upload` takes a range of the values to the device. If memory
    /// runs out, freed memory goes back to the driver, and the rows are tried once in two halves.
    fn apply(
        &self,
        layers: &[ScoringLayer],
        len: usize,
        upload: impl Fn(Range<usize>) -> Result<Tensor>,
    ) -> Result<Vec<f32>> {
        let pass = |range: Range<usize>| -> Result<Vec<f32>> {
            to_vec(&layers.iter().try_fold(upload(range)?, |values, layer| layer.apply(&self.target, &values))?)
        };
        match pass(0..len) {
            Err(Error::DeviceMemory(reason)) => {
                let row = layers.first().map_or(1, ScoringLayer::input_len);
                let rows = len / row;
                log::warn!("{rows} rows on {:?}: {reason}; trying half as many", self.target.device().location());
                self.target.release_memory();
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

    /// Bytes of the device's memory that the weights hold.
    pub(super) fn memory(&self) -> usize {
        let layers = self.encoder.iter().chain(&self.decoder);
        layers.map(|layer| (layer.weights.elem_count() + layer.shift.elem_count()) * size_of::<f32>()).sum()
    }
}

impl Drop for Scorer {
    fn drop(&mut self) {
        self.encoder.clear();
        self.decoder.clear();
        self.target.release_memory();
    }
}

impl ScoringLayer {
    fn try_new(target: &Target, layer: &Folded, precision: Precision) -> Result<Self> {
        let weights = target.tensor(layer.scaled(), &layer.geometry.weights_shape())?;
        let shift = target.tensor(layer.shift.clone(), &[layer.shift.len()])?;
        let Folded { geometry, direction, activation, .. } = *layer;
        Ok(Self { geometry, direction, weights, shift, activation, precision })
    }

    /// Values of a row of the layer's input.
    fn input_len(&self) -> usize {
        match self.direction {
            Direction::Down => self.geometry.large_len(),
            Direction::Up => self.geometry.small_len(),
        }
    }

    fn apply(&self, target: &Target, x: &Tensor) -> Result<Tensor> {
        let operations = target.operations();
        let g = &self.geometry;
        let convolved = match self.direction {
            Direction::Down => {
                let x = x.reshape(((), g.large.0, g.large.1, g.large_channels))?;
                operations.convolution.down(g, &x, &self.weights, self.precision)?
            }
            Direction::Up => {
                let x = x.reshape(((), g.small.0, g.small.1, g.small_channels))?;
                operations.convolution.up(g, &x, &self.weights, self.precision)?
            }
        };
        operations.pointwise.bias_activation(&convolved, &self.shift, self.activation)
    }
}
