//! The objective on a GPU: reconstruction cost and MMD².

use std::sync::Arc;

use cudarc::driver::{CudaSlice, PushKernelArg};

use super::structural::structural;
use super::{Array, Data, Gpu, Number};
use crate::config::Cost;
use crate::error::Result;
use crate::objective::cost::{CostFunction, ROOT_FLOOR};
use crate::objective::mmd::Kernel;

/// Parts that an image's values are summed in.
const COST_PARTS: u32 = 32;
/// As `OTHERS` in `kernels/objective.cu`: rows that a thread of MMD² meets at once.
const OTHERS: usize = 32;
/// The most values that the parts of MMD²'s gradient have in all, unless one part has more: 256 MB.
const GRADIENTS: usize = 1 << 25;
/// Values that a thread adds.
const TERMS: usize = 32;

pub(crate) fn add_scaled(x: &Array, weight: f32, y: &Array) -> Result<Array> {
    let (gpu, n) = (x.gpu(), x.len() as u32);
    let (x, y) = (x.widened()?, y.widened()?);
    let (out, to, from) = (gpu.uninit::<f32>(x.len())?, x.f32()?, y.f32()?);
    gpu.launch("add_scaled_f32", x.len(), |arguments| {
        arguments.arg(&n).arg(to).arg(&weight).arg(from).arg(&out);
    })?;
    Array::of(gpu, Data::F32(out), x.dims())
}

/// The mean cost of images x and reconstructions y, and its gradient by y.
pub(crate) fn cost(function: &CostFunction, x: &Array, y: &Array) -> Result<(Number, Array)> {
    let images = x.dims().first().copied().unwrap_or(1).max(1);
    let gpu = x.gpu();
    let kind: i32 = match function.kind() {
        Cost::Squared => 0,
        Cost::L2 => 1,
        Cost::L1 => 2,
        Cost::Structural => {
            let (shares, gradient) = structural(function.shape(), x, y)?;
            return Ok((total(gpu, shares)?, gradient));
        }
    };
    let y = y.widened()?;
    let (pixels, reconstructions) = (x.f32()?, y.f32()?);
    let (n, rows, len) = (x.len() as u32, images as u32, (x.len() / images) as u32);
    let in_parts = gpu.uninit::<f64>(COST_PARTS as usize * images)?;
    let (sums, means, gradient) = (gpu.uninit::<f64>(images)?, gpu.uninit::<f64>(images)?, gpu.uninit::<f32>(x.len())?);
    gpu.launch("cost_parts", in_parts.len(), |arguments| {
        arguments.arg(&rows).arg(&len).arg(&COST_PARTS).arg(pixels).arg(reconstructions).arg(&kind).arg(&in_parts);
    })?;
    gpu.launch("cost_images", images, |arguments| {
        arguments.arg(&rows).arg(&COST_PARTS).arg(&in_parts).arg(&kind).arg(&ROOT_FLOOR).arg(&sums).arg(&means);
    })?;
    let scale = 1.0 / images as f32;
    gpu.launch("cost_gradient", x.len(), |arguments| {
        arguments.arg(&n).arg(&len).arg(pixels).arg(reconstructions).arg(&sums).arg(&kind);
        arguments.arg(&ROOT_FLOOR).arg(&scale).arg(&gradient);
    })?;
    Ok((total(gpu, means)?, Array::of(gpu, Data::F32(gradient), y.dims())?))
}

/// MMD² of codes q, (n, dim), and draws p, (m, dim), and its gradient by the codes, for two rows or more of each.
pub(crate) fn mmd(kernel: &Kernel, q: &Array, p: &[f32], dim: usize) -> Result<(Number, Array)> {
    let groups = (q.len() + p.len()).div_ceil(dim * OTHERS);
    mmd_in_parts(kernel, q, p, dim, groups.min(GRADIENTS / q.len().max(1)).max(1))
}

/// The same, a thread of which meets one of so many parts of the rows, at most a part for `OTHERS` rows.
fn mmd_in_parts(kernel: &Kernel, q: &Array, p: &[f32], dim: usize, parts: usize) -> Result<(Number, Array)> {
    let (gpu, q, dims) = (q.gpu(), q.widened()?, q.dims());
    let (n, m) = (q.len() / dim, p.len() / dim);
    let rows = n + m;
    let (bandwidths, rbf) = match kernel {
        Kernel::Imq(bandwidths) => (bandwidths.as_slice(), 0_i32),
        Kernel::Rbf(bandwidth) => (std::slice::from_ref(bandwidth), 1),
    };
    let (codes, draws, kernels) = (q.f32()?, gpu.upload(p)?, bandwidths.len() as u32);
    let bandwidths = gpu.upload(bandwidths)?;
    let in_parts = |len: usize| gpu.uninit::<f64>(parts * len);
    let (value_parts, gradient_parts) = (in_parts(rows)?, in_parts(q.len())?);
    let (gradient, columns) = (gpu.uninit::<f32>(q.len())?, q.len() as u32);
    let counts = [n as u32, m as u32, dim as u32, parts as u32];
    gpu.launch("mmd_parts", value_parts.len(), |arguments| {
        arguments.arg(&counts[0]).arg(&counts[1]).arg(&counts[2]).arg(&counts[3]).arg(codes).arg(&draws);
        arguments.arg(&bandwidths).arg(&kernels).arg(&rbf).arg(&value_parts).arg(&gradient_parts);
    })?;
    gpu.launch("column_sums", q.len(), |arguments| {
        arguments.arg(&counts[3]).arg(&columns).arg(&gradient_parts).arg(&gradient);
    })?;
    Ok((total(gpu, value_parts)?, Array::of(gpu, Data::F32(gradient), dims)?))
}

/// The sum of values, in rounds of `TERMS` whose order follows from their number alone.
fn total(gpu: &Arc<Gpu>, mut values: CudaSlice<f64>) -> Result<Number> {
    while values.len() > 1 {
        let sums = gpu.uninit::<f64>(values.len().div_ceil(TERMS))?;
        let (rows, columns, groups) = (values.len() as u32, 1_u32, sums.len() as u32);
        gpu.launch("column_groups", sums.len(), |arguments| {
            arguments.arg(&rows).arg(&columns).arg(&groups).arg(&values).arg(&sums);
        })?;
        values = sums;
    }
    gpu.send(&values)
}

#[cfg(test)]
mod tests {
    use super::super::tests::gpu;
    use super::*;
    use crate::config::{IMQ_SCALES, KernelKind, Prior};
    use crate::model::Precision;
    use crate::objective::sample;
    use crate::ops::Target;

    /// 100 rows are four groups: in fewer parts, as of wide codes, a thread meets several.
    #[test]
    fn mmd_is_the_same_in_fewer_parts() {
        let Some(Target::Cuda(place)) = gpu(Precision::F32) else { return };
        let kernel = Kernel::new(KernelKind::Imq, &IMQ_SCALES, 3, Prior::default());
        let (q, p) = (sample(Prior::default(), 41, 3, 1), sample(Prior::default(), 59, 3, 2));
        let q = Array::new(&place.gpu, &q, &[41, 3]).unwrap();
        let in_parts = |parts: usize| {
            let (value, gradient) = mmd_in_parts(&kernel, &q, &p, 3, parts).unwrap();
            (value.read().unwrap(), gradient.to_vec().unwrap())
        };
        let (value, gradient) = in_parts(4);
        for parts in 1..4 {
            let (other, of_other) = in_parts(parts);
            assert!((other - value).abs() < 1e-12, "{parts}: {other}, expected {value}");
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-7;
            assert!(gradient.iter().zip(&of_other).all(near), "{parts}");
        }
    }
}
