//! Reconstruction costs of images x and reconstructions y, (N, H, W, C): the formulas of `objective/cost.rs` and
//! `objective/ssim.rs` in tensor operations.

use candle_core::Tensor;

use super::product::product;
use crate::config::Cost;
use crate::device::Precision;
use crate::error::Result;
use crate::objective::cost::{CostFunction, DISSIMILARITY, ROOT_FLOOR};
use crate::objective::ssim::{C1, C2, REACH};
use crate::objective::widest;

/// The cost of each image: (N, H, W, C) twice → (N,), in the widest type of the device.
pub(crate) fn costs(function: &CostFunction, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    sums(function, &terms(function, x, y)?)
}

/// The term of each pixel and channel in the cost, (N, H, W, C); of l2, in its square.
pub(crate) fn terms(function: &CostFunction, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    terms_with(function, x, y, SsimTensors::of(function, x, y)?.as_ref())
}

/// The cost of each image, (N,), and the gradient of their mean by y, (N, H, W, C).
pub(super) fn costs_and_gradient(function: &CostFunction, x: &Tensor, y: &Tensor) -> Result<(Tensor, Tensor)> {
    let ssim = SsimTensors::of(function, x, y)?;
    let costs = sums(function, &terms_with(function, x, y, ssim.as_ref())?)?;
    let gradient = gradient(function, x, y, &costs, ssim.as_ref())?;
    Ok((costs, gradient))
}

/// The cost of each image, (N,), from its terms, (N, H, W, C).
fn sums(function: &CostFunction, terms: &Tensor) -> Result<Tensor> {
    let (images, height, width, channels) = terms.dims4()?;
    let lines = terms.reshape((images, height, width * channels))?.sum(2)?;
    let sums = widest(&lines)?.sum(1)?;
    Ok(match function.kind() {
        Cost::L2 => (sums + ROOT_FLOOR)?.sqrt()?,
        Cost::Squared | Cost::L1 | Cost::Structural => sums,
    })
}

/// As [`terms`], with SSIM's factors where the cost has them.
fn terms_with(function: &CostFunction, x: &Tensor, y: &Tensor, ssim: Option<&SsimTensors>) -> Result<Tensor> {
    let difference = x.sub(y)?;
    let terms = match function.kind() {
        Cost::Squared | Cost::L2 | Cost::Structural => difference.sqr()?,
        Cost::L1 => difference.abs()?,
    };
    match ssim {
        Some(ssim) => Ok(terms.add(&ssim.dissimilarity()?.affine(f64::from(DISSIMILARITY), 0.0)?)?),
        None => Ok(terms),
    }
}

/// The gradient of the mean cost by y, (N, H, W, C), from the cost of each image, (N,).
fn gradient(
    function: &CostFunction,
    x: &Tensor,
    y: &Tensor,
    costs: &Tensor,
    ssim: Option<&SsimTensors>,
) -> Result<Tensor> {
    let scale = 1.0 / x.dim(0)?.max(1) as f64;
    let difference = y.sub(x)?;
    let gradient = match function.kind() {
        Cost::Squared | Cost::Structural => difference.affine(2.0 * scale, 0.0)?,
        Cost::L2 => {
            let slope = costs.recip()?.affine(scale, 0.0)?.to_dtype(y.dtype())?;
            difference.broadcast_mul(&slope.reshape(((), 1, 1, 1))?)?
        }
        // The derivative at 0 is 0.
        Cost::L1 => difference.sign()?.affine(scale, 0.0)?,
    };
    match ssim {
        Some(ssim) => Ok(gradient.add(&ssim.gradient(x, y)?.affine(f64::from(DISSIMILARITY) * scale, 0.0)?)?),
        None => Ok(gradient),
    }
}

/// SSIM's factors around each pixel, (N, H, W, C) each, with l = (2 μ_x μ_y + C₁)/d₁ and c = (2 σ_xy + C₂)/d₂.
struct SsimTensors {
    window: WindowMatrices,
    mean_x: Tensor,
    mean_y: Tensor,
    /// μ_x² + μ_y² + C₁.
    d1: Tensor,
    /// σ_x² + σ_y² + C₂.
    d2: Tensor,
    l: Tensor,
    c: Tensor,
}

impl SsimTensors {
    /// The factors of a cost that has them.
    fn of(function: &CostFunction, x: &Tensor, y: &Tensor) -> Result<Option<Self>> {
        (function.kind() == Cost::Structural).then(|| Self::new(x, y)).transpose()
    }

    fn new(x: &Tensor, y: &Tensor) -> Result<Self> {
        let window = WindowMatrices::new(x)?;
        let mean_x = window.mean(x)?;
        let mean_y = window.mean(y)?;
        let squares = window.mean(&x.sqr()?.add(&y.sqr()?)?)?;
        let products = window.mean(&x.mul(y)?)?;
        let of_means = mean_x.sqr()?.add(&mean_y.sqr()?)?;
        let mean_product = mean_x.mul(&mean_y)?;
        let d1 = (&of_means + f64::from(C1))?;
        // Rounding can leave a variance of nothing just below 0.
        let d2 = (squares.sub(&of_means)?.relu()? + f64::from(C2))?;
        let l = mean_product.affine(2.0, f64::from(C1))?.div(&d1)?;
        let c = products.sub(&mean_product)?.affine(2.0, f64::from(C2))?.div(&d2)?;
        Ok(Self { window, mean_x, mean_y, d1, d2, l, c })
    }

    /// DSSIM = (1 − l·c)/2.
    fn dissimilarity(&self) -> Result<Tensor> {
        Ok(self.l.mul(&self.c)?.affine(-0.5, 0.5)?)
    }

    /// The gradient of Σ DSSIM by y. A mean over a window is its own transpose.
    fn gradient(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let by_covariance = self.l.affine(2.0, 0.0)?.div(&self.d2)?;
        let by_variance = self.l.mul(&self.c)?.div(&self.d2)?.neg()?;
        let of_l = self.mean_x.sub(&self.l.mul(&self.mean_y)?)?.mul(&self.c)?.affine(2.0, 0.0)?.div(&self.d1)?;
        let of_c = by_covariance.mul(&self.mean_x)?.add(&by_variance.mul(&self.mean_y)?.affine(2.0, 0.0)?)?;
        let by_mean = self.window.mean(&of_l.sub(&of_c)?)?;
        let by_product = self.window.mean(&by_covariance)?.mul(x)?;
        let by_square = self.window.mean(&by_variance)?.mul(y)?.affine(2.0, 0.0)?;
        Ok(by_mean.add(&by_product)?.add(&by_square)?.affine(-0.5, 0.0)?)
    }
}

/// Means over windows, as products with matrices that add up what lies within reach.
struct WindowMatrices {
    /// (N, H, H): a row for a pixel's line, divided by the window's pixels.
    vertical: Tensor,
    /// (W·C, W·C): a column for a pixel and channel of a line.
    horizontal: Tensor,
}

impl WindowMatrices {
    fn new(x: &Tensor) -> Result<Self> {
        let (images, height, width, channels) = x.dims4()?;
        let side = 2 * REACH + 1;
        let matrix = |size: usize, channels: usize, value: f32| -> Result<Tensor> {
            let near = |i: usize| {
                let a = i / size;
                let b = i % size;
                let within = a % channels == b % channels && (a / channels).abs_diff(b / channels) <= REACH;
                if within { value } else { 0.0 }
            };
            Ok(Tensor::from_iter((0..size * size).map(near), x.device())?.reshape((size, size))?)
        };
        let vertical = matrix(height, 1, 1.0 / (side * side) as f32)?;
        // A batch of products takes dense operands.
        let vertical = vertical.unsqueeze(0)?.repeat((images, 1, 1))?;
        Ok(Self { vertical, horizontal: matrix(width * channels, channels, 1.0)? })
    }

    /// (N, H, W, C) → the same.
    fn mean(&self, values: &Tensor) -> Result<Tensor> {
        let (images, height, width, channels) = values.dims4()?;
        let lines = values.reshape((images * height, width * channels))?;
        let lines = product(&lines, &self.horizontal, Precision::F32)?.reshape((images, height, width * channels))?;
        Ok(product(&self.vertical, &lines, Precision::F32)?.reshape(values.shape())?)
    }
}
