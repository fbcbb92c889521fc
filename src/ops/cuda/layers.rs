//! What follows a layer's convolution: batch norm with ReLU, or a bias with an activation.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, PushKernelArg};

use super::{Array, Data, Gpu};
use crate::error::Result;
use crate::kernels::EPSILON;
use crate::model::Activation;
use crate::ops::MOMENTUM;

/// The fewest rows that a thread sums, and the most parts that they are cut into.
const PART: usize = 64;
const PARTS: usize = 1024;
/// Parts that a thread joins.
const GROUP: u32 = 32;

/// How the rows of a sum are cut: `per` rows a part, `GROUP` parts a group. It follows from their number alone, so that the
/// order of the sum does too.
struct Cut {
    per: u32,
    parts: u32,
    groups: u32,
}

impl Cut {
    fn new(rows: usize) -> Self {
        let per = rows.div_ceil(PARTS).max(PART);
        let parts = rows.div_ceil(per) as u32;
        Self { per: per as u32, parts, groups: parts.div_ceil(GROUP) }
    }
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

/// A batch's mean and 1 / √(σ² + ε), a value a channel.
#[derive(Debug)]
pub(crate) struct Statistics {
    mean: CudaSlice<f32>,
    inverse: CudaSlice<f32>,
}

pub(crate) fn norm_relu(x: &Array, gamma: &Array, beta: &Array, running: &Running) -> Result<(Array, Statistics)> {
    let (gpu, channels) = (x.gpu(), x.channels());
    let (n, c) = (x.len() as u32, channels as u32);
    let statistics = statistics(x, running)?;
    let y = x.data().uninit_like(gpu, x.len())?;
    let (gamma, beta) = (gamma.f32()?, beta.f32()?);
    gpu.launch(&y.kernel("norm_apply"), x.len(), |arguments| {
        arguments.arg(&n).arg(&c);
        x.data().push(arguments);
        arguments.arg(gamma).arg(beta).arg(&statistics.mean).arg(&statistics.inverse);
        y.push(arguments);
    })?;
    Ok((Array::of(gpu, y, x.dims())?, statistics))
}

/// A batch's statistics, which go into the running ones.
fn statistics(x: &Array, running: &Running) -> Result<Statistics> {
    let (gpu, channels) = (x.gpu(), x.channels());
    let rows = x.len() / channels;
    let Cut { per, parts, groups } = Cut::new(rows);
    let (rows, c) = (rows as u32, channels as u32);
    let in_parts = || gpu.uninit::<f32>(parts as usize * channels);
    let in_groups = || gpu.uninit::<f64>(groups as usize * channels);
    let (means, squares, group_means, group_squares) = (in_parts()?, in_parts()?, in_groups()?, in_groups()?);
    gpu.launch(&x.data().kernel("norm_parts"), means.len(), |arguments| {
        arguments.arg(&rows).arg(&c).arg(&per).arg(&parts);
        x.data().push(arguments);
        arguments.arg(&means).arg(&squares);
    })?;
    gpu.launch("norm_groups", group_means.len(), |arguments| {
        arguments.arg(&rows).arg(&c).arg(&per).arg(&parts).arg(&GROUP).arg(&groups);
        arguments.arg(&means).arg(&squares).arg(&group_means).arg(&group_squares);
    })?;
    let statistics = Statistics { mean: gpu.uninit(channels)?, inverse: gpu.uninit(channels)? };
    let (per_group, epsilon, momentum) = (per * GROUP, EPSILON, MOMENTUM);
    let (running_mean, running_variance) = (running.mean.f32()?, running.variance.f32()?);
    gpu.launch("norm_statistics", channels, |arguments| {
        arguments.arg(&rows).arg(&c).arg(&per_group).arg(&groups).arg(&group_means).arg(&group_squares);
        arguments.arg(&epsilon).arg(&momentum).arg(&statistics.mean).arg(&statistics.inverse);
        arguments.arg(running_mean).arg(running_variance);
    })?;
    Ok(statistics)
}

pub(crate) fn norm_relu_gradient(
    x: &Array,
    out: &Array,
    gradient: &Array,
    gamma: &Array,
    statistics: &Statistics,
) -> Result<(Array, Array, Array)> {
    let (gpu, channels) = (x.gpu(), x.channels());
    let gradient = gradient.as_type_of(x)?;
    let rows = x.len() / channels;
    let Cut { per, parts, .. } = Cut::new(rows);
    let (n, rows, c) = (x.len() as u32, rows as u32, channels as u32);
    let in_parts = || gpu.uninit::<f32>(parts as usize * channels);
    let (gamma_parts, beta_parts) = (in_parts()?, in_parts()?);
    let Statistics { mean, inverse } = statistics;
    gpu.launch(&x.data().kernel("norm_sums"), gamma_parts.len(), |arguments| {
        arguments.arg(&rows).arg(&c).arg(&per).arg(&parts);
        x.data().push(arguments);
        out.data().push(arguments);
        gradient.data().push(arguments);
        arguments.arg(mean).arg(inverse).arg(&gamma_parts).arg(&beta_parts);
    })?;
    let dgamma = sum_columns(gpu, &gamma_parts, parts, channels)?;
    let dbeta = sum_columns(gpu, &beta_parts, parts, channels)?;
    let dx = x.data().uninit_like(gpu, x.len())?;
    let gamma = gamma.f32()?;
    gpu.launch(&dx.kernel("norm_input"), x.len(), |arguments| {
        arguments.arg(&n).arg(&rows).arg(&c);
        x.data().push(arguments);
        out.data().push(arguments);
        gradient.data().push(arguments);
        arguments.arg(gamma).arg(mean).arg(inverse).arg(&dgamma).arg(&dbeta);
        dx.push(arguments);
    })?;
    let array = |values| Array::of(gpu, Data::F32(values), &[channels]);
    Ok((Array::of(gpu, dx, x.dims())?, array(dgamma)?, array(dbeta)?))
}

/// The sums of columns that lie in parts, (parts, columns) → (columns), in f64.
fn sum_columns(gpu: &Gpu, values: &CudaSlice<f32>, parts: u32, columns: usize) -> Result<CudaSlice<f32>> {
    let (c, groups) = (columns as u32, parts.div_ceil(GROUP));
    let (in_groups, sums) = (gpu.uninit::<f64>(groups as usize * columns)?, gpu.uninit::<f32>(columns)?);
    gpu.launch("column_groups", in_groups.len(), |arguments| {
        arguments.arg(&parts).arg(&c).arg(&GROUP).arg(&groups).arg(values).arg(&in_groups);
    })?;
    gpu.launch("column_sums", columns, |arguments| {
        arguments.arg(&groups).arg(&c).arg(&in_groups).arg(&sums);
    })?;
    Ok(sums)
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
    let gpu = x.gpu();
    let (n, channels, kind) = (x.len() as u32, bias.len() as u32, number(activation));
    let y = x.data().uninit_like(gpu, x.len())?;
    let bias = bias.f32()?;
    gpu.launch(&y.kernel("bias_activation"), x.len(), |arguments| {
        arguments.arg(&n).arg(&channels);
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
    let rows = out.len() / channels;
    let Cut { per, parts, .. } = Cut::new(rows);
    let (n, rows, c, kind) = (out.len() as u32, rows as u32, channels as u32, number(activation));
    let (dx, in_parts) = (gpu.uninit::<f32>(out.len())?, gpu.uninit::<f32>(parts as usize * channels)?);
    let (y, by_y) = (out.f32()?, gradient.f32()?);
    gpu.launch("activation_gradient_f32", out.len(), |arguments| {
        arguments.arg(&n).arg(y).arg(by_y).arg(&kind).arg(&dx);
    })?;
    gpu.launch("column_parts", in_parts.len(), |arguments| {
        arguments.arg(&rows).arg(&c).arg(&per).arg(&parts).arg(&dx).arg(&in_parts);
    })?;
    let dbias = sum_columns(gpu, &in_parts, parts, channels)?;
    Ok((Array::of(gpu, Data::F32(dx), out.dims())?, Array::of(gpu, Data::F32(dbias), &[channels])?))
}
