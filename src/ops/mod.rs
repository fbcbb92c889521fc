//! Operations of the network on candle's tensors, each with its gradient.
//!
//! A [`Target`] is a device with the [`Operations`] that compute there:
//!
//! | tensors on | computed by |
//! |---|---|
//! | the CPU | [`cpu`]: the kernels of [`crate::kernels`] |
//! | any other device | [`composed`]: candle's own tensor operations; some of them sped up by [`accelerators`] on CUDA |
//! | the CPU under `WAE_KERNELS=composed` | [`composed`] too, so that tests run on the CPU the code that runs on a GPU |
//!
//! Activations are (N, H, W, C) and weights (k, k, C_large, C_small), f32 on every device. The order of a training step
//! is fixed, so that no graph of the network is recorded: a forward operation has its gradient beside it, and each
//! activation is freed as soon as its layer has gone backward. Objectives on codes are small: they are candle graphs
//! (`objective/`).

pub(crate) mod accelerators;
mod agreement;
pub(crate) mod composed;
mod cpu;
pub(crate) mod frozen;
mod linear;
mod map;
mod parts;
mod target;

use std::fmt::Debug;
use std::sync::Arc;

pub(crate) use candle_core::Tensor;

pub(crate) use self::cpu::to_vec;
pub(crate) use self::linear::linear;
pub(crate) use self::map::map;
pub(crate) use self::target::{MOST_VALUES, Target};
use crate::architecture::Activation;
use crate::device::Precision;
use crate::error::Result;
use crate::kernels::{AdamStep, Geometry};
use crate::objective::cost::CostFunction;

/// Share of a new batch in the running statistics (PyTorch's `momentum`; the authors' `decay` is 1 − this).
const MOMENTUM: f64 = 0.1;

/// SAME convolutions and the gradient of their weights. The data gradient of [`Self::down`] is [`Self::up`], and the
/// reverse.
///
/// The precision is that of the products; inputs and outputs are f32.
pub(crate) trait Convolution: Debug + Send + Sync {
    /// Convolution: (N, H, W, C_large) → (N, h, w, C_small).
    fn down(&self, g: &Geometry, large: &Tensor, weights: &Tensor, precision: Precision) -> Result<Tensor>;

    /// Transposed convolution: (N, h, w, C_small) → (N, H, W, C_large).
    fn up(&self, g: &Geometry, small: &Tensor, weights: &Tensor, precision: Precision) -> Result<Tensor>;

    /// The gradient of the weights, (k, k, C_large, C_small), from activations on one grid and gradients on the other.
    fn weight_gradient(&self, g: &Geometry, large: &Tensor, small: &Tensor, precision: Precision) -> Result<Tensor>;
}

/// Batch norm in training, then ReLU.
pub(crate) trait Norm: Debug + Send + Sync {
    /// `y = max(0, γ·(x − μ)/√(σ² + ε) + β)` on (…, C), with the batch's statistics.
    fn norm_relu(&self, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<(Tensor, NormStatistics)>;

    /// The gradients of x, γ and β, from that of y. ReLU's derivative at 0 is 0.
    fn norm_relu_gradient(
        &self,
        x: &Tensor,
        y: &Tensor,
        gradient: &Tensor,
        gamma: &Tensor,
        statistics: &NormStatistics,
    ) -> Result<NormGradients>;
}

/// Adam.
pub(crate) trait Adam: Debug + Send + Sync {
    /// A step on several parameters at once.
    fn adam(&self, step: AdamStep, trained: &mut [Trained<'_>]) -> Result<()>;
}

/// Operations value by value: a bias with its activation, and reconstruction costs.
pub(crate) trait Pointwise: Debug + Send + Sync {
    /// A bias a channel, then an activation: (…, C) → the same.
    fn bias_activation(&self, x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor>;

    /// The gradients of x and of the bias, from the output y and its gradient.
    fn bias_activation_gradient(
        &self,
        y: &Tensor,
        gradient: &Tensor,
        activation: Activation,
    ) -> Result<(Tensor, Tensor)>;

    /// The mean cost of a batch of images x and reconstructions y, (N, H, W, C), a scalar, and its gradient by y.
    fn cost(&self, function: &CostFunction, x: &Tensor, y: &Tensor) -> Result<(Tensor, Tensor)>;
}

/// Means and variances of a batch, one value for each channel.
#[derive(Debug)]
pub(crate) struct NormStatistics {
    /// μ.
    pub(crate) mean: Tensor,
    /// σ², biased.
    pub(crate) variance: Tensor,
    /// 1 / √(σ² + ε).
    pub(crate) inverse_deviation: Tensor,
    /// Values a channel.
    pub(crate) count: usize,
}

/// The gradients of a [`Norm::norm_relu`].
#[derive(Debug)]
pub(crate) struct NormGradients {
    /// By its input.
    pub(crate) x: Tensor,
    /// By the factor a channel.
    pub(crate) gamma: Tensor,
    /// By the term a channel.
    pub(crate) beta: Tensor,
}

/// Mean and variance of each channel that norms use in scoring: running means over the batches of a training.
#[derive(Debug)]
pub(crate) struct RunningStatistics {
    /// The running mean of the batches' means.
    pub(crate) mean: Tensor,
    /// The running mean of the batches' unbiased variances.
    pub(crate) variance: Tensor,
}

impl RunningStatistics {
    /// running ← (1 − momentum)·running + momentum·batch.
    pub(crate) fn track(&mut self, batch: &NormStatistics) -> Result<()> {
        let n = batch.count as f64;
        // PyTorch keeps the unbiased variance; the batch itself is normed by the biased one.
        let unbiased = n / (n - 1.0).max(1.0);
        let moved = |running: &Tensor, batch: &Tensor, factor: f64| -> Result<Tensor> {
            Ok((running.affine(1.0 - MOMENTUM, 0.0)? + batch.affine(MOMENTUM * factor, 0.0)?)?)
        };
        self.mean = moved(&self.mean, &batch.mean, 1.0)?;
        self.variance = moved(&self.variance, &batch.variance, unbiased)?;
        Ok(())
    }
}

/// A parameter with its gradient and Adam's running means.
#[derive(Debug)]
pub(crate) struct Trained<'a> {
    /// The parameter, which the step changes.
    pub(crate) parameter: &'a mut Tensor,
    /// Its gradient, of the same shape.
    pub(crate) gradient: Tensor,
    /// Adam's running means, which the step changes.
    pub(crate) moments: &'a mut AdamMoments,
}

/// Adam's running means of a gradient and of its square, of the parameter's shape each.
#[derive(Debug, Clone)]
pub(crate) struct AdamMoments {
    /// m, of the gradient.
    pub(crate) mean: Tensor,
    /// v, of its square.
    pub(crate) square: Tensor,
}

impl AdamMoments {
    /// Zeros, as before the first step.
    pub(crate) fn zeros(parameter: &Tensor) -> Result<Self> {
        Ok(Self { mean: parameter.zeros_like()?, square: parameter.zeros_like()? })
    }
}

/// The operations of a device, by kind: an accelerator replaces one kind.
#[derive(Debug, Clone)]
pub(crate) struct Operations {
    pub(crate) convolution: Arc<dyn Convolution>,
    pub(crate) norm: Arc<dyn Norm>,
    pub(crate) adam: Arc<dyn Adam>,
    pub(crate) pointwise: Arc<dyn Pointwise>,
}

impl Operations {
    /// The operations by [`crate::kernels`], on CPU tensors.
    pub(crate) fn kernels() -> Self {
        let kernels = Arc::new(cpu::Kernels);
        Self {
            convolution: Arc::clone(&kernels) as _,
            norm: Arc::clone(&kernels) as _,
            adam: Arc::clone(&kernels) as _,
            pointwise: kernels,
        }
    }

    /// The operations composed of candle's own, on tensors of any device.
    pub(crate) fn composed() -> Self {
        let composed = Arc::new(composed::Composed);
        Self {
            convolution: Arc::clone(&composed) as _,
            norm: Arc::clone(&composed) as _,
            adam: Arc::clone(&composed) as _,
            pointwise: composed,
        }
    }
}
