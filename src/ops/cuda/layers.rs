//! What follows a layer's convolution: batch norm with ReLU, or a bias with an activation.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, PushKernelArg};

use super::{Array, Data, Gpu};
use crate::error::Result;
use crate::kernels::EPSILON;
use crate::model::Activation;
use crate::ops::MOMENTUM;

/// Threads that sum over rows: enough that their loads fill a large GPU's memory bus.
const THREADS: usize = 1 << 17;
/// The fewest rows a part.
const PART: usize = 32;
/// The most parts that one thread joins without groups before it.
const FEW: usize = 128;

/// How the rows of a sum are cut, as `kernels/common.cu` says: into parts of every `parts`th row, joined in groups. It follows
/// from the shape alone, so that the order of the sum does too.
#[derive(Debug, Clone, Copy)]
struct Cut {
    parts: usize,
    /// They divide the parts. As many as these: there is nothing to join before the last step.
    groups: usize,
}

impl Cut {
    fn new(rows: usize, channels: usize) -> Self {
        let parts = (THREADS / channels).min(rows / PART).max(1).min(rows);
        if parts <= FEW {
            return Self { parts, groups: parts };
        }
        let groups = parts.isqrt();
        Self { parts: parts - parts % groups, groups }
    }
}

/// As `TOGETHER` in `kernels/common.cu`: rows that a thread loads at once.
const TOGETHER: usize = 8;

/// Parts of rows, where a thread goes through its values one by one and nothing is joined: twice the threads of a sum, with as
/// many rows each as are loaded at once.
fn spread(rows: usize, channels: usize) -> usize {
    (2 * THREADS / channels).min(rows / TOGETHER).max(1).min(rows)
}

/// Running mean and variance of a norm.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) mean: Array,
    pub(crate) variance: Array,
}

impl Running {
    pub(crate) fn new(gpu: &Arc<Gpu>, mean: &[f32], variance: &[f32]) -> Result<Self> {
        let array = |values: &[f32]| Array::new(gpu, values, &[values.len()]);
        Ok(Self { mean: array(mean)?, variance: array(variance)? })
    }
}

/// What a batch is normed by: μ, 1 / √(σ² + ε), and these with γ and β as a product and a sum, (4, channels).
#[derive(Debug)]
pub(crate) struct Statistics(CudaSlice<f32>);

pub(crate) fn norm_relu(x: &Array, gamma: &Array, beta: &Array, running: &Running) -> Result<(Array, Statistics)> {
    let (gpu, channels) = (x.gpu(), x.channels());
    let spread = spread(x.len() / channels, channels);
    let [rows, c, parts] = [x.len() / channels, channels, spread].map(|v| v as u32);
    let statistics = statistics(x, gamma, beta, running)?;
    let y = x.data().uninit_like(gpu, x.len())?;
    gpu.launch(&y.kernel("norm_apply"), spread * channels, |arguments| {
        arguments.arg(&rows).arg(&c).arg(&parts);
        x.data().push(arguments);
        arguments.arg(&statistics.0);
        y.push(arguments);
    })?;
    Ok((Array::of(gpu, y, x.dims())?, statistics))
}

/// A batch's statistics, which go into the running ones.
fn statistics(x: &Array, gamma: &Array, beta: &Array, running: &Running) -> Result<Statistics> {
    let (gpu, channels) = (x.gpu(), x.channels());
    let cut = Cut::new(x.len() / channels, channels);
    let [rows, c, parts, groups] = [x.len() / channels, channels, cut.parts, cut.groups].map(|v| v as u32);
    let mut moments = gpu.uninit::<f64>(2 * cut.parts * channels)?;
    gpu.launch(&x.data().kernel("norm_parts"), cut.parts * channels, |arguments| {
        arguments.arg(&rows).arg(&c).arg(&parts);
        x.data().push(arguments);
        arguments.arg(&moments);
    })?;
    if cut.groups < cut.parts {
        let grouped = gpu.uninit::<f64>(2 * cut.groups * channels)?;
        gpu.launch("norm_groups", cut.groups * channels, |arguments| {
            arguments.arg(&rows).arg(&c).arg(&parts).arg(&groups).arg(&moments).arg(&grouped);
        })?;
        moments = grouped;
    }
    let statistics = gpu.uninit::<f32>(4 * channels)?;
    let (epsilon, momentum, gamma, beta) = (EPSILON, MOMENTUM, gamma.f32()?, beta.f32()?);
    let (running_mean, running_variance) = (running.mean.f32()?, running.variance.f32()?);
    gpu.launch("norm_statistics", channels, |arguments| {
        arguments.arg(&rows).arg(&c).arg(&groups).arg(&moments).arg(&epsilon).arg(&momentum);
        arguments.arg(gamma).arg(beta).arg(&statistics).arg(running_mean).arg(running_variance);
    })?;
    Ok(Statistics(statistics))
}

/// The gradients of x, γ and β. What ReLU took follows from x and the statistics.
pub(crate) fn norm_relu_gradient(
    x: &Array,
    gradient: &Array,
    statistics: &Statistics,
) -> Result<(Array, Array, Array)> {
    let (gpu, channels) = (x.gpu(), x.channels());
    let gradient = gradient.as_type_of(x)?;
    let (cut, spread) = (Cut::new(x.len() / channels, channels), spread(x.len() / channels, channels));
    let [rows, c, parts, spread_parts] = [x.len() / channels, channels, cut.parts, spread].map(|v| v as u32);
    let sums = gpu.uninit::<f64>(2 * cut.parts * channels)?;
    gpu.launch(&x.data().kernel("norm_sums"), cut.parts * channels, |arguments| {
        arguments.arg(&rows).arg(&c).arg(&parts);
        x.data().push(arguments);
        gradient.data().push(arguments);
        arguments.arg(&statistics.0).arg(&sums);
    })?;
    let (sums, groups) = (grouped(gpu, sums, cut, 2 * channels)?, cut.groups as u32);
    let (dgamma, dbeta) = (gpu.uninit::<f32>(channels)?, gpu.uninit::<f32>(channels)?);
    gpu.launch("norm_gradients", 2 * channels, |arguments| {
        arguments.arg(&groups).arg(&c).arg(&sums).arg(&dgamma).arg(&dbeta);
    })?;
    let dx = x.data().uninit_like(gpu, x.len())?;
    gpu.launch(&dx.kernel("norm_input"), spread * channels, |arguments| {
        arguments.arg(&rows).arg(&c).arg(&spread_parts);
        x.data().push(arguments);
        gradient.data().push(arguments);
        arguments.arg(&statistics.0).arg(&dgamma).arg(&dbeta);
        dx.push(arguments);
    })?;
    let array = |values| Array::of(gpu, Data::F32(values), &[channels]);
    Ok((Array::of(gpu, dx, x.dims())?, array(dgamma)?, array(dbeta)?))
}

/// Sums of columns, (parts, columns), with the parts of a group joined: (groups, columns).
fn grouped(gpu: &Gpu, sums: CudaSlice<f64>, cut: Cut, columns: usize) -> Result<CudaSlice<f64>> {
    if cut.groups == cut.parts {
        return Ok(sums);
    }
    let [parts, groups, c] = [cut.parts, cut.groups, columns].map(|v| v as u32);
    let in_groups = gpu.uninit::<f64>(cut.groups * columns)?;
    gpu.launch("column_groups", in_groups.len(), |arguments| {
        arguments.arg(&parts).arg(&c).arg(&groups).arg(&sums).arg(&in_groups);
    })?;
    Ok(in_groups)
}

/// As `kernels/values.cu` numbers activations.
fn number(activation: Activation) -> i32 {
    match activation {
        Activation::Identity => 0,
        Activation::Relu => 1,
        Activation::Sigmoid => 2,
    }
}

pub(crate) fn bias_activation(x: &Array, bias: &Array, activation: Activation) -> Result<Array> {
    let (gpu, channels, kind) = (x.gpu(), bias.len(), number(activation));
    let spread = spread(x.len() / channels, channels);
    let [rows, c, parts] = [x.len() / channels, channels, spread].map(|v| v as u32);
    let y = x.data().uninit_like(gpu, x.len())?;
    let bias = bias.f32()?;
    gpu.launch(&y.kernel("bias_activation"), spread * channels, |arguments| {
        arguments.arg(&rows).arg(&c).arg(&parts);
        x.data().push(arguments);
        arguments.arg(bias).arg(&kind);
        y.push(arguments);
    })?;
    Array::of(gpu, y, x.dims())
}

pub(crate) fn bias_activation_gradient(
    out: &Array,
    gradient: &Array,
    activation: Activation,
) -> Result<(Array, Array)> {
    let (gpu, channels) = (out.gpu(), out.channels());
    let (out, gradient) = (out.widened()?, gradient.widened()?);
    let cut = Cut::new(out.len() / channels, channels);
    let [rows, c, parts, groups] = [out.len() / channels, channels, cut.parts, cut.groups].map(|v| v as u32);
    let (kind, dx, sums) = (number(activation), gpu.uninit::<f32>(out.len())?, gpu.uninit(cut.parts * channels)?);
    let (y, by_y) = (out.f32()?, gradient.f32()?);
    gpu.launch("bias_activation_gradient", cut.parts * channels, |arguments| {
        arguments.arg(&rows).arg(&c).arg(&parts).arg(y).arg(by_y).arg(&kind).arg(&dx).arg(&sums);
    })?;
    let (sums, dbias) = (grouped(gpu, sums, cut, channels)?, gpu.uninit::<f32>(channels)?);
    gpu.launch("column_sums", channels, |arguments| {
        arguments.arg(&groups).arg(&c).arg(&sums).arg(&dbias);
    })?;
    Ok((Array::of(gpu, Data::F32(dx), out.dims())?, Array::of(gpu, Data::F32(dbias), &[channels])?))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Every row is in one part of one group, parts are neither small nor more than there are threads for, and the last step
    /// is short.
    #[rstest]
    #[case(0, 3, 0, 0)]
    #[case(1, 3, 1, 1)]
    #[case(31, 3, 1, 1)]
    #[case(128 * 32, 3, 128, 128)]
    #[case(129 * 32, 3, 121, 11)]
    #[case(1000 * 64 * 64, 3, 43_681, 209)]
    #[case(1000 * 28 * 28, 128, 1_024, 32)]
    #[case(1000, 200_000, 1, 1)]
    fn rows_are_cut(#[case] rows: usize, #[case] channels: usize, #[case] parts: usize, #[case] groups: usize) {
        let cut = Cut::new(rows, channels);
        assert_eq!((cut.parts, cut.groups), (parts, groups));
    }
}
