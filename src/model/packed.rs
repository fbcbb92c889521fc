//! Layers packed for the processor.

use half::bf16;
use rayon::prelude::*;

use super::folded::Folded;
use crate::architecture::{Activation, Direction};
use crate::device::Precision;
use crate::kernels::{DownWeights, Epilogue, UpWeights};

/// Values that a task converts to another precision.
const CONVERTED: usize = 1 << 13;

/// A layer with its norm folded in, whose weights are packed for the CPU's kernels.
#[derive(Debug)]
pub(super) struct PackedLayer {
    weights: Weights,
    shift: Vec<f32>,
    activation: Activation,
}

#[derive(Debug)]
enum Weights {
    Down(DownWeights),
    Up(UpWeights),
    DownBf16(DownWeights<bf16>),
    UpBf16(UpWeights<bf16>),
}

/// Activations between layers, (N, H, W, C).
enum LayerValues {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

/// Passes rows through all layers.
pub(super) fn pass(layers: &[PackedLayer], rows: Vec<f32>) -> Vec<f32> {
    layers.iter().fold(LayerValues::F32(rows), |values, layer| layer.apply(values)).into_f32()
}

impl PackedLayer {
    pub(super) fn new(layer: &Folded, precision: Precision) -> Self {
        let Folded { geometry: g, weights, shift, activation, .. } = layer;
        let scale = layer.scale.as_deref();
        let narrow = precision == Precision::Bf16;
        let weights = match layer.direction {
            Direction::Down => match narrow.then(|| DownWeights::new_bf16(*g, weights, scale)).flatten() {
                Some(packed) => Weights::DownBf16(packed),
                None => Weights::Down(DownWeights::new(*g, weights, scale)),
            },
            Direction::Up => match narrow.then(|| UpWeights::new_bf16(*g, weights, scale)).flatten() {
                Some(packed) => Weights::UpBf16(packed),
                None => Weights::Up(UpWeights::new(*g, weights, scale)),
            },
        };
        Self { weights, shift: shift.clone(), activation: *activation }
    }

    /// Bytes of the packed weights.
    pub(super) fn memory(&self) -> usize {
        match &self.weights {
            Weights::Down(weights) => weights.memory(),
            Weights::Up(weights) => weights.memory(),
            Weights::DownBf16(weights) => weights.memory(),
            Weights::UpBf16(weights) => weights.memory(),
        }
    }

    fn apply(&self, input: LayerValues) -> LayerValues {
        let epilogue =
            Epilogue { shift: Some(&self.shift), relu: self.activation == Activation::Relu, ..Epilogue::default() };
        let mut output = match &self.weights {
            Weights::Down(weights) => LayerValues::F32(weights.apply(&input.into_f32(), epilogue)),
            Weights::Up(weights) => LayerValues::F32(weights.apply(&input.into_f32(), epilogue)),
            Weights::DownBf16(weights) => LayerValues::Bf16(weights.apply(&input.into_bf16(), epilogue)),
            Weights::UpBf16(weights) => LayerValues::Bf16(weights.apply(&input.into_bf16(), epilogue)),
        };
        if self.activation == Activation::Sigmoid {
            let mut values = output.into_f32();
            crate::kernels::sigmoid(&mut values);
            output = LayerValues::F32(values);
        }
        output
    }
}

impl LayerValues {
    fn into_f32(self) -> Vec<f32> {
        match self {
            Self::F32(values) => values,
            Self::Bf16(values) => values.par_iter().with_min_len(CONVERTED).map(|v| v.to_f32()).collect(),
        }
    }

    fn into_bf16(self) -> Vec<bf16> {
        match self {
            Self::F32(values) => values.par_iter().with_min_len(CONVERTED).map(|v| bf16::from_f32(*v)).collect(),
            Self::Bf16(values) => values,
        }
    }
}
