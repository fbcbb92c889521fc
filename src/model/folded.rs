//! A layer with its norm folded into the weights before it.
//!
//! `γ·(w·x − μ)/√(σ² + ε) + β = (w·γ/√(σ² + ε))·x + (β − μ·γ/√(σ² + ε))`

use crate::architecture::{Activation, Direction, LayerSpec, Role, Tail};
use crate::checkpoint::Tensors;
use crate::error::{Error, Result};
use crate::kernels::{EPSILON, Geometry};

/// A convolution, a shift a channel and an activation.
#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) geometry: Geometry,
    pub(crate) direction: Direction,
    /// In the order of the kernels, not scaled yet.
    pub(crate) weights: Vec<f32>,
    /// The factor of each output channel's weights; `None` for 1.
    pub(crate) scale: Option<Vec<f32>>,
    pub(crate) shift: Vec<f32>,
    pub(crate) activation: Activation,
}

impl Folded {
    pub(super) fn try_new(spec: &LayerSpec, tensors: &Tensors) -> Result<Self> {
        let tensor = |wanted: Role| -> Result<Vec<f32>> {
            let found = spec.tensors().into_iter().find(|(role, ..)| *role == wanted);
            let (_, name, _) = found.ok_or_else(|| Error::Model(format!("{} has no {wanted:?}", spec.name)))?;
            let tensor = tensors.get(&name).ok_or_else(|| Error::model_tensor(&name, "is missing"))?;
            Ok(spec.read_layout(wanted, &tensor.values))
        };
        let (scale, shift, activation) = match spec.tail {
            Tail::Bias(activation) => (None, tensor(Role::Bias)?, activation),
            Tail::Norm => {
                let mean = tensor(Role::RunningMean)?;
                let variance = tensor(Role::RunningVariance)?;
                let gamma = tensor(Role::Gamma)?;
                let beta = tensor(Role::Beta)?;
                let deviation = |v: f32| (f64::from(v) + EPSILON).sqrt();
                let scale: Vec<f32> =
                    gamma.iter().zip(&variance).map(|(g, v)| (f64::from(*g) / deviation(*v)) as f32).collect();
                let shift = (0..beta.len()).map(|c| beta[c] - mean[c] * scale[c]).collect();
                (Some(scale), shift, Activation::Relu)
            }
        };
        let weights = tensor(Role::Weight)?;
        let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
        let largest = weights.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
        // An infinite weight times a zero of the padding would be NaN in some tiles and left out in others.
        if !finite(&shift) || !scale.as_deref().unwrap_or_default().iter().all(|s| (s * largest).is_finite()) {
            return Err(Error::Model(format!("the norm of {} does not fit into 32 bits", spec.name)));
        }
        Ok(Self { geometry: spec.geometry, direction: spec.direction, weights, scale, shift, activation })
    }

    /// The weights with the scale in them: (k, k, C_large, C_small), of which the output channel is the last going down
    /// and the one before going up.
    pub(crate) fn scaled(&self) -> Vec<f32> {
        let Some(scale) = &self.scale else { return self.weights.clone() };
        let large = self.geometry.large_channels;
        let small = self.geometry.small_channels;
        let channel = |i: usize| match self.direction {
            Direction::Down => i % small,
            Direction::Up => i / small % large,
        };
        self.weights.iter().enumerate().map(|(i, w)| w * scale[channel(i)]).collect()
    }
}
