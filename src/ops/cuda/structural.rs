//! The structural cost on a GPU: squares of differences and a dissimilarity over windows, `objective/ssim.rs`.

use cudarc::driver::{CudaSlice, PushKernelArg};

use super::{Array, Data};
use crate::error::Result;
use crate::image::ImageShape;
use crate::objective::cost::DISSIMILARITY;

/// Each value's share of the mean cost, and the gradient of that by the reconstructions y.
pub(super) fn structural(shape: ImageShape, x: &Array, y: &Array) -> Result<(CudaSlice<f64>, Array)> {
    let (gpu, len, y) = (x.gpu(), x.len(), y.widened()?);
    let (pixels, reconstructions) = (x.f32()?, y.f32()?);
    let (shares, gradient) = (gpu.uninit::<f64>(len)?, gpu.uninit::<f32>(len)?);
    let slopes = gpu.uninit::<f32>(3 * len)?;
    let images = len / shape.len();
    let [n, height, width, channels, count] =
        [len, shape.height(), shape.width(), shape.channels(), images].map(|v| v as u32);
    gpu.launch("structural_windows", len, |arguments| {
        arguments.arg(&n).arg(&height).arg(&width).arg(&channels).arg(&count).arg(&DISSIMILARITY);
        arguments.arg(pixels).arg(reconstructions).arg(&shares).arg(&slopes);
    })?;
    let scale = 1.0 / images as f32;
    gpu.launch("structural_gradient", len, |arguments| {
        arguments.arg(&n).arg(&height).arg(&width).arg(&channels).arg(&scale).arg(&DISSIMILARITY);
        arguments.arg(pixels).arg(reconstructions).arg(&slopes).arg(&gradient);
    })?;
    Ok((shares, Array::of(gpu, Data::F32(gradient), y.dims())?))
}
