//! Layers whose weights do not change: those of pretrained networks.
//!
//! On the CPU they are [`crate::kernels`], with the shift, the residual and the function behind a convolution in its
//! store; elsewhere, and under `WAE_KERNELS=composed`, they are [`super::composed`].

mod agreement;
mod convolution;

pub(crate) use self::agreement::agrees_with_kernels;
pub(crate) use self::convolution::{FrozenConvolution, FrozenDepthwise};
use super::composed::frozen as composed;
use super::cpu::{tensor, with_values};
use super::{Target, Tensor};
use crate::error::{Error, Result};
use crate::kernels::{self, Geometry};

/// The padding of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    /// ⌊k/2⌋ on each side, as PyTorch's networks have it.
    Symmetric,
    /// TensorFlow's, whose odd row and column come last.
    Same,
    /// None, as for patches.
    None,
}

/// The window of a convolution, square.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Side of the kernel.
    pub(crate) kernel: usize,
    /// Pixels from one window to the next.
    pub(crate) stride: usize,
    /// Padding around the image.
    pub(crate) padding: Padding,
}

impl Window {
    /// A window of one pixel: a dense layer at each place.
    pub(crate) const POINT: Self = Self { kernel: 1, stride: 1, padding: Padding::None };

    /// A window that pads symmetrically.
    pub(crate) const fn symmetric(kernel: usize, stride: usize) -> Self {
        Self { kernel, stride, padding: Padding::Symmetric }
    }

    /// (h, w) of the output for images of (H, W).
    pub(crate) fn output(&self, size: (usize, usize)) -> (usize, usize) {
        self.geometry(size, (1, 1)).small
    }

    fn geometry(&self, large: (usize, usize), channels: (usize, usize)) -> Geometry {
        let Self { kernel, stride, padding } = *self;
        match padding {
            Padding::Symmetric => Geometry::padded(large, channels, kernel, stride, kernel / 2),
            Padding::Same => Geometry::same(large, channels, kernel, stride),
            Padding::None => Geometry::padded(large, channels, kernel, stride, 0),
        }
    }

    /// The geometry of a batch of images, which the window must fit into.
    fn geometry_of(&self, x: &Tensor, channels: (usize, usize)) -> Result<Geometry> {
        let (_, height, width, inputs) = x.dims4()?;
        let g = self.geometry((height, width), channels);
        if inputs != channels.0 || g.small.0 == 0 || g.small.1 == 0 {
            let kernel = self.kernel;
            let expected = channels.0;
            return Err(Error::Data(format!(
                "maps of {height} × {width} × {inputs} do not fit a window of {kernel} × {kernel} × {expected}"
            )));
        }
        Ok(g)
    }
}

/// The norm of each token, with a factor and a term a channel.
#[derive(Debug)]
pub(crate) struct FrozenLayerNorm {
    gamma: Tensor,
    beta: Tensor,
    epsilon: f64,
}

impl FrozenLayerNorm {
    /// A norm of C channels.
    pub(crate) fn try_new(target: &Target, gamma: Vec<f32>, beta: Vec<f32>, epsilon: f64) -> Result<Self> {
        let channels = [gamma.len()];
        Ok(Self { gamma: target.tensor(gamma, &channels)?, beta: target.tensor(beta, &channels)?, epsilon })
    }

    /// (…, C) → the same.
    pub(crate) fn apply(&self, target: &Target, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        if !target.has_kernels() {
            return composed::layer_norm(&x, &self.gamma, &self.beta, self.epsilon);
        }
        let norm = |x: &[f32], gamma: &[f32], beta: &[f32]| kernels::layer_norm(x, gamma, beta, self.epsilon as f32);
        let y = with_values(&x, |x| {
            with_values(&self.gamma, |gamma| with_values(&self.beta, |beta| norm(x, gamma, beta)))
        })???;
        tensor(y, x.dims())
    }
}

/// Attention: queries, keys and values (N, T, 3·heads·d) → (N, T, heads·d).
pub(crate) fn attention(target: &Target, qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let (images, tokens, width) = qkv.dims3()?;
    let depth = width / 3 / heads;
    let qkv = qkv.contiguous()?;
    if !target.has_kernels() {
        return composed::attention(&qkv.reshape((images, tokens, 3, heads, depth))?, target.precision());
    }
    tensor(with_values(&qkv, |qkv| kernels::attention(qkv, tokens, heads, depth))?, &[images, tokens, heads * depth])
}

/// The largest value of each 3 × 3 window, two pixels apart, with a border of one: (N, H, W, C) → (N, h, w, C).
pub(crate) fn max_pool(target: &Target, x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let channels = x.dim(3)?;
    let g = POOL.geometry_of(&x, (channels, channels))?;
    if !target.has_kernels() {
        return composed::max_pool(&g, &x);
    }
    tensor(with_values(&x, |x| kernels::max_pool(&g, x))?, &[x.dim(0)?, g.small.0, g.small.1, channels])
}

/// The window of [`max_pool`].
pub(crate) const POOL: Window = Window::symmetric(3, 2);

/// The mean over places: (N, h, w, C) → (N, C).
pub(crate) fn mean_of_places(target: &Target, x: &Tensor) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let x = x.contiguous()?;
    if !target.has_kernels() {
        return Ok(x.reshape((images, height * width, channels))?.mean(1)?);
    }
    tensor(with_values(&x, |x| kernels::mean_of_places(x, height * width, channels))?, &[images, channels])
}

/// Each image's channels times its gate: (N, h, w, C) and (N, C) → (N, h, w, C).
pub(crate) fn scale_channels(target: &Target, x: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let (images, height, width, channels) = x.dims4()?;
    let x = x.contiguous()?;
    if !target.has_kernels() {
        return Ok(x.broadcast_mul(&gate.reshape((images, 1, 1, channels))?)?);
    }
    let scaled = |x: &[f32], gate: &[f32]| kernels::scale_channels(x, gate, height * width, channels);
    tensor(with_values(&x, |x| with_values(gate, |gate| scaled(x, gate)))??, x.dims())
}

/// Resizes maps bilinearly, pixels at the centres of their cells and borders repeated, as PyTorch does without
/// antialiasing: (N, h, w, C) → (N, h', w', C).
pub(crate) fn resize_bilinear(x: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
    let (_, from_height, from_width, _) = x.dims4()?;
    let x = interpolated(x, 1, from_height, height)?;
    interpolated(&x, 2, from_width, width)
}

/// Interpolates one dimension between two places each.
fn interpolated(x: &Tensor, dimension: usize, from: usize, to: usize) -> Result<Tensor> {
    if from == to {
        return Ok(x.clone());
    }
    let mut first = Vec::with_capacity(to);
    let mut second = Vec::with_capacity(to);
    let mut share = Vec::with_capacity(to);
    for place in 0..to {
        let at = ((place as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        first.push(low as u32);
        second.push((low + 1).min(from - 1) as u32);
        share.push((at - low as f64) as f32);
    }
    let mut shape = [1; 4];
    shape[dimension] = to;
    let share = Tensor::from_vec(share, &shape, x.device())?;
    let a = x.index_select(&Tensor::from_vec(first, to, x.device())?, dimension)?;
    let b = x.index_select(&Tensor::from_vec(second, to, x.device())?, dimension)?;
    Ok((&a + (b - &a)?.broadcast_mul(&share)?)?)
}

#[cfg(test)]
mod tests;
