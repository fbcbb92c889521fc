//! Operations on tensors that lie on the CPU or on a GPU: each is sent to [`cpu`] or [`cuda`] by where its tensors lie.
//!
//! The network's layers call these and nothing else, so that what computes them can change. Each forward operation has its
//! gradient beside it: the order of a training step is fixed, so that no graph of the network is recorded, and each
//! activation is freed as soon as its layer has gone backward.

mod adam;
mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod number;
mod target;
mod tensor;

pub(crate) use self::adam::{Moments, Trained, adam};
pub(crate) use self::number::Number;
pub(crate) use self::target::{Target, resolve};
#[cfg(feature = "cuda")]
use self::tensor::on_two_devices;
pub(crate) use self::tensor::{Tensor, with_values};
use crate::error::Result;
use crate::kernels::{BatchStatistics, Geometry};
use crate::model::Activation;
use crate::objective::cost::CostFunction;
use crate::objective::mmd;

/// Share of a new batch in the running statistics (PyTorch's `momentum`; the authors' `decay` is 1 − this).
const MOMENTUM: f64 = 0.1;

/// Convolution, and the data gradient of a transposed one: (N, H, W, C_large) → (N, h, w, C_small).
pub(crate) fn down(g: &Geometry, large: &Tensor, weights: &Tensor) -> Result<Tensor> {
    match (large, weights) {
        (Tensor::Cpu(large), Tensor::Cpu(weights)) => cpu::down(g, large, weights).map(Tensor::Cpu),
        #[cfg(feature = "cuda")]
        (Tensor::Cuda(large), Tensor::Cuda(weights)) => cuda::down(g, large, weights).map(Tensor::Cuda),
        #[cfg(feature = "cuda")]
        _ => Err(on_two_devices()),
    }
}

/// Transposed convolution, and the data gradient of a plain one: (N, h, w, C_small) → (N, H, W, C_large).
pub(crate) fn up(g: &Geometry, small: &Tensor, weights: &Tensor) -> Result<Tensor> {
    match (small, weights) {
        (Tensor::Cpu(small), Tensor::Cpu(weights)) => cpu::up(g, small, weights).map(Tensor::Cpu),
        #[cfg(feature = "cuda")]
        (Tensor::Cuda(small), Tensor::Cuda(weights)) => cuda::up(g, small, weights).map(Tensor::Cuda),
        #[cfg(feature = "cuda")]
        _ => Err(on_two_devices()),
    }
}

/// The gradient of a convolution's `weights`, either way, in their order.
pub(crate) fn weight_gradient(g: &Geometry, weights: &Tensor, large: &Tensor, small: &Tensor) -> Result<Tensor> {
    match (weights, large, small) {
        (Tensor::Cpu(_), Tensor::Cpu(large), Tensor::Cpu(small)) => {
            cpu::weight_gradient(g, large, small).map(Tensor::Cpu)
        }
        #[cfg(feature = "cuda")]
        (Tensor::Cuda(weights), Tensor::Cuda(large), Tensor::Cuda(small)) => {
            cuda::weight_gradient(g, weights, large, small).map(Tensor::Cuda)
        }
        #[cfg(feature = "cuda")]
        _ => Err(on_two_devices()),
    }
}

/// The values of a convolution's weights or of their gradient, (k, k, C_large, C_small).
#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "the CPU keeps weights in this order"))]
pub(crate) fn weight_values(g: &Geometry, weights: &Tensor) -> Result<Vec<f32>> {
    match weights {
        Tensor::Cpu(weights) => cpu::with_values(weights, <[f32]>::to_vec),
        #[cfg(feature = "cuda")]
        Tensor::Cuda(weights) => Ok(cuda::transposed(&weights.to_vec()?, g.small_channels)),
    }
}

/// What batch norm keeps for scoring: means of the batches' means and unbiased variances, a value a channel.
#[derive(Debug)]
pub(crate) enum Running {
    /// In memory.
    Cpu {
        /// Mean.
        mean: Vec<f32>,
        /// Variance.
        variance: Vec<f32>,
    },
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(cuda::Running),
}

impl Running {
    /// The means.
    pub(crate) fn mean(&self) -> Result<Vec<f32>> {
        match self {
            Self::Cpu { mean, .. } => Ok(mean.clone()),
            #[cfg(feature = "cuda")]
            Self::Cuda(running) => running.mean.to_vec(),
        }
    }

    /// The variances.
    pub(crate) fn variance(&self) -> Result<Vec<f32>> {
        match self {
            Self::Cpu { variance, .. } => Ok(variance.clone()),
            #[cfg(feature = "cuda")]
            Self::Cuda(running) => running.variance.to_vec(),
        }
    }
}

/// running ← (1 − momentum)·running + momentum·factor·batch.
fn track(running: &mut [f32], batch: &[f32], factor: f64) {
    for (running, batch) in running.iter_mut().zip(batch) {
        *running = ((1.0 - MOMENTUM) * f64::from(*running) + MOMENTUM * factor * f64::from(*batch)) as f32;
    }
}

/// What [`norm_relu`] leaves for its gradient.
#[derive(Debug)]
pub(crate) enum Statistics {
    /// In memory.
    Cpu(BatchStatistics),
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(cuda::Statistics),
}

/// Batch norm in training, then ReLU: (…, C) → the same, and the batch's statistics, which go into the running ones.
pub(crate) fn norm_relu(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    running: &mut Running,
) -> Result<(Tensor, Statistics)> {
    match (x, gamma, beta, running) {
        (Tensor::Cpu(x), Tensor::Cpu(gamma), Tensor::Cpu(beta), Running::Cpu { mean, variance }) => {
            let (out, statistics) = cpu::norm_relu(x, gamma, beta)?;
            let n = statistics.count as f64;
            // PyTorch keeps the unbiased variance; the batch itself is normed by the biased one.
            track(mean, &statistics.mean, 1.0);
            track(variance, &statistics.variance, n / (n - 1.0).max(1.0));
            Ok((Tensor::Cpu(out), Statistics::Cpu(statistics)))
        }
        #[cfg(feature = "cuda")]
        (Tensor::Cuda(x), Tensor::Cuda(gamma), Tensor::Cuda(beta), Running::Cuda(running)) => {
            let (out, statistics) = cuda::norm_relu(x, gamma, beta, running)?;
            Ok((Tensor::Cuda(out), Statistics::Cuda(statistics)))
        }
        #[cfg(feature = "cuda")]
        _ => Err(on_two_devices()),
    }
}

/// The gradients of a [`norm_relu`]: of x, γ and β.
pub(crate) fn norm_relu_gradient(
    x: &Tensor,
    out: &Tensor,
    gradient: &Tensor,
    gamma: &Tensor,
    statistics: &Statistics,
) -> Result<(Tensor, Tensor, Tensor)> {
    match (x, out, gradient, gamma, statistics) {
        (Tensor::Cpu(x), Tensor::Cpu(out), Tensor::Cpu(gradient), Tensor::Cpu(gamma), Statistics::Cpu(statistics)) => {
            let (dx, dgamma, dbeta) = cpu::norm_relu_gradient(x, out, gradient, gamma, statistics)?;
            Ok((Tensor::Cpu(dx), Tensor::Cpu(dgamma), Tensor::Cpu(dbeta)))
        }
        #[cfg(feature = "cuda")]
        (Tensor::Cuda(x), _, Tensor::Cuda(gradient), _, Statistics::Cuda(statistics)) => {
            let (dx, dgamma, dbeta) = cuda::norm_relu_gradient(x, gradient, statistics)?;
            Ok((Tensor::Cuda(dx), Tensor::Cuda(dgamma), Tensor::Cuda(dbeta)))
        }
        #[cfg(feature = "cuda")]
        _ => Err(on_two_devices()),
    }
}

/// A bias a channel, then an activation: (…, C) → the same.
pub(crate) fn bias_activation(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    match (x, bias) {
        (Tensor::Cpu(x), Tensor::Cpu(bias)) => cpu::bias_activation(x, bias, activation).map(Tensor::Cpu),
        #[cfg(feature = "cuda")]
        (Tensor::Cuda(x), Tensor::Cuda(bias)) => cuda::bias_activation(x, bias, activation).map(Tensor::Cuda),
        #[cfg(feature = "cuda")]
        _ => Err(on_two_devices()),
    }
}

/// The gradients of a [`bias_activation`], from its output: of x and of the bias.
pub(crate) fn bias_activation_gradient(
    out: &Tensor,
    gradient: &Tensor,
    activation: Activation,
) -> Result<(Tensor, Tensor)> {
    match (out, gradient) {
        (Tensor::Cpu(out), Tensor::Cpu(gradient)) => {
            let (dx, dbias) = cpu::bias_activation_gradient(out, gradient, activation)?;
            Ok((Tensor::Cpu(dx), Tensor::Cpu(dbias)))
        }
        #[cfg(feature = "cuda")]
        (Tensor::Cuda(out), Tensor::Cuda(gradient)) => {
            let (dx, dbias) = cuda::bias_activation_gradient(out, gradient, activation)?;
            Ok((Tensor::Cuda(dx), Tensor::Cuda(dbias)))
        }
        #[cfg(feature = "cuda")]
        _ => Err(on_two_devices()),
    }
}

/// The mean cost of a batch of images x and reconstructions y, (n, H, W, C), and its gradient by y.
pub(crate) fn cost(function: &CostFunction, x: &Tensor, y: &Tensor) -> Result<(Number, Tensor)> {
    match (x, y) {
        (Tensor::Cpu(x), Tensor::Cpu(y)) => {
            let (rows, shape) = (x.dims().first().copied().unwrap_or(1), y.dims());
            let (cost, gradient) = cpu::with_values(x, |x| cpu::with_values(y, |y| function.mean(x, y, rows)))??;
            Ok((Number::Known(cost), Tensor::Cpu(cpu::tensor(gradient, shape)?)))
        }
        #[cfg(feature = "cuda")]
        (Tensor::Cuda(x), Tensor::Cuda(y)) => {
            let (cost, gradient) = cuda::cost(function, x, y)?;
            Ok((Number::Cuda(cost), Tensor::Cuda(gradient)))
        }
        #[cfg(feature = "cuda")]
        _ => Err(on_two_devices()),
    }
}

/// MMD² of codes q, (n, dim), and draws p, (m, dim), with its gradient by the codes; `None` below two rows of either.
pub(crate) fn mmd(kernel: &mmd::Kernel, q: &Tensor, p: &[f32], dim: usize) -> Result<Option<(Number, Tensor)>> {
    match q {
        Tensor::Cpu(codes) => cpu::with_values(codes, |q| {
            let value = mmd::value(kernel, q, p, dim).map(Number::Known);
            let gradient =
                |value| Ok((value, Tensor::Cpu(cpu::tensor(mmd::gradient(kernel, q, p, dim), codes.dims())?)));
            value.map(gradient).transpose()
        })?,
        #[cfg(feature = "cuda")]
        Tensor::Cuda(q) if q.rows() >= 2 && p.len() >= 2 * dim => {
            let (value, gradient) = cuda::mmd(kernel, q, p, dim)?;
            Ok(Some((Number::Cuda(value), Tensor::Cuda(gradient))))
        }
        #[cfg(feature = "cuda")]
        Tensor::Cuda(_) => Ok(None),
    }
}

/// x + `weight` · y.
pub(crate) fn add_scaled(x: &Tensor, weight: f64, y: &Tensor) -> Result<Tensor> {
    match (x, y) {
        (Tensor::Cpu(x), Tensor::Cpu(y)) => {
            let sum = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x + y * weight as f32).collect();
            let sums = cpu::with_values(x, |x| cpu::with_values(y, |y| sum(x, y)))??;
            cpu::tensor(sums, x.dims()).map(Tensor::Cpu)
        }
        #[cfg(feature = "cuda")]
        (Tensor::Cuda(x), Tensor::Cuda(y)) => cuda::add_scaled(x, weight as f32, y).map(Tensor::Cuda),
        #[cfg(feature = "cuda")]
        _ => Err(on_two_devices()),
    }
}
