//! Layers of pretrained networks in candle's operations.

use candle_core::{D, Tensor};

use super::convolution::padded;
use super::product::{product, relu};
use crate::device::Precision;
use crate::error::Result;
use crate::kernels::{Geometry, Nonlinearity};

/// A shift a channel, a residual and a function: (…, C) → the same.
pub(crate) fn finish(x: &Tensor, shift: &Tensor, residual: Option<&Tensor>, function: Nonlinearity) -> Result<Tensor> {
    let mut x = x.broadcast_add(shift)?;
    if let Some(residual) = residual {
        x = x.add(residual)?;
    }
    Ok(match function {
        Nonlinearity::Identity => x,
        Nonlinearity::Relu => relu(&x)?,
        Nonlinearity::Relu6 => x.clamp(0.0_f32, 6.0_f32)?,
        Nonlinearity::Silu => x.silu()?,
        Nonlinearity::Gelu => x.gelu_erf()?,
        // 1 / (1 + exp(−x)) = ½ + ½ tanh(x/2), which does not overflow.
        Nonlinearity::Sigmoid => x.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)?,
    })
}

/// Sums of each channel's window, (N, H, W, C) → (N, h, w, C), with weights (k², C).
pub(crate) fn depthwise(g: &Geometry, x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let (height, width) = grid(g);
    let grid = padded(x, g.padding, (height * g.stride, width * g.stride))?;
    let mut sum: Option<Tensor> = None;
    for tap in 0..g.taps() {
        let term = places(g, &grid, tap)?.broadcast_mul(&weights.narrow(0, tap, 1)?.squeeze(0)?)?;
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    Ok(sum.map_or_else(|| x.zeros_like(), Ok)?)
}

/// The largest value of each window, (N, H, W, C) → (N, h, w, C). The padding repeats the border, whose values each
/// window that reaches beyond it holds too.
pub(crate) fn max_pool(g: &Geometry, x: &Tensor) -> Result<Tensor> {
    let (height, width) = grid(g);
    let behind = |to: usize, padding: usize, from: usize| (to * g.stride).saturating_sub(padding + from);
    let x = x.pad_with_same(1, g.padding.0, behind(height, g.padding.0, g.large.0))?;
    let x = x.pad_with_same(2, g.padding.1, behind(width, g.padding.1, g.large.1))?;
    let x = x.narrow(1, 0, height * g.stride)?.narrow(2, 0, width * g.stride)?.contiguous()?;
    let mut largest = places(g, &x, 0)?;
    for tap in 1..g.taps() {
        largest = largest.maximum(&places(g, &x, tap)?)?;
    }
    Ok(largest)
}

/// Steps of the stride that all windows reach over, down and across.
fn grid(g: &Geometry) -> (usize, usize) {
    let beyond = g.kernel.div_ceil(g.stride) - 1;
    (g.small.0 + beyond, g.small.1 + beyond)
}

/// The values under one tap of all windows of a padded grid, (N, h, w, C).
fn places(g: &Geometry, padded: &Tensor, tap: usize) -> Result<Tensor> {
    let (height, width) = grid(g);
    let (images, _, _, channels) = padded.dims4()?;
    let s = g.stride;
    let u = tap / g.kernel;
    let v = tap % g.kernel;
    let lines = padded.reshape((images, height, s, width * s * channels))?;
    let lines = lines.narrow(2, u % s, 1)?.narrow(1, u / s, g.small.0)?.contiguous()?;
    let places = lines.reshape((images * g.small.0, width, s, channels))?;
    let places = places.narrow(2, v % s, 1)?.narrow(1, v / s, g.small.1)?.contiguous()?;
    Ok(places.reshape((images, g.small.0, g.small.1, channels))?)
}

/// The most scores of an attention in memory together: 512 MB.
const SCORES: usize = 1 << 27;

/// Attention of queries, keys and values, (N, T, 3, heads, d) → (N, T, heads·d).
pub(crate) fn attention(qkv: &Tensor, precision: Precision) -> Result<Tensor> {
    let (images, tokens, _, heads, depth) = qkv.dims5()?;
    let part = |part: usize| qkv.narrow(2, part, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous(); // (N, heads, T, d)
    let queries = part(0)?.affine(1.0 / (depth as f64).sqrt(), 0.0)?;
    let keys = part(1)?.transpose(2, 3)?.contiguous()?;
    let values = part(2)?;
    // Some queries at a time: all scores together may be more values than an operation can count.
    let rows = (SCORES / (images * heads * tokens).max(1)).clamp(1, tokens);
    let mut parts = Vec::with_capacity(tokens.div_ceil(rows));
    for first in (0..tokens).step_by(rows) {
        let some = queries.narrow(2, first, rows.min(tokens - first))?.contiguous()?;
        let weights = candle_nn::ops::softmax_last_dim(&product(&some, &keys, precision)?)?;
        parts.push(product(&weights, &values, precision)?);
    }
    let values = Tensor::cat(&parts, 2)?;
    Ok(values.transpose(1, 2)?.contiguous()?.reshape((images, tokens, heads * depth))?)
}

/// `y = γ·(x − μ)/√(σ² + ε) + β` on (…, C), with each token's mean and biased variance.
pub(crate) fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, epsilon: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?;
    Ok(centred.broadcast_div(&deviation)?.broadcast_mul(gamma)?.broadcast_add(beta)?)
}
