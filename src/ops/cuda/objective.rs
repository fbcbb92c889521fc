//! The objective on a GPU: reconstruction cost, MMD² and Adam.

use cudarc::driver::{CudaSlice, PushKernelArg};

use super::{Array, Data, Place};
use crate::config::Cost;
use crate::error::Result;
use crate::kernels::AdamStep;
use crate::objective::cost::{CostFunction, ROOT_FLOOR};
use crate::objective::mmd::Kernel;

/// Parts that an image's values are summed in.
const COST_PARTS: u32 = 32;
/// As `OTHERS` in `kernels/objective.cu`: rows that a thread of MMD² meets.
const OTHERS: usize = 64;

/// Adam's running mean and mean square of a gradient.
#[derive(Debug)]
pub(crate) struct Moments {
    m: Array,
    v: Array,
}

impl Moments {
    pub(crate) fn new(m: &Array, v: &Array) -> Self {
        Self { m: m.clone(), v: v.clone() }
    }

    /// m and v of a parameter: zeros before the first step.
    pub(crate) fn tensors(moments: Option<&Self>, parameter: &Array) -> Result<(Array, Array)> {
        match moments {
            Some(Self { m, v }) => Ok((m.clone(), v.clone())),
            None => {
                let zeros = || Array::zeros(parameter.gpu(), parameter.dims());
                Ok((zeros()?, zeros()?))
            }
        }
    }
}

pub(crate) fn adam(step: AdamStep, parameter: &Array, gradient: &Array, moments: &mut Option<Moments>) -> Result<()> {
    let gpu = parameter.gpu();
    if moments.is_none() {
        let zeros = || Array::zeros(gpu, parameter.dims());
        *moments = Some(Moments { m: zeros()?, v: zeros()? });
    }
    let Some(Moments { m, v }) = moments else { return Ok(()) };
    let gradient = gradient.widened()?;
    let n = parameter.len() as u32;
    let (w, g, m, v) = (parameter.f32()?, gradient.f32()?, m.f32()?, v.f32()?);
    gpu.launch("adam_f32", parameter.len(), |arguments| {
        arguments.arg(&n).arg(w).arg(g).arg(m).arg(v).arg(&step.learning_rate);
        arguments.arg(&step.beta1.0).arg(&step.beta1.1).arg(&step.beta2.0).arg(&step.beta2.1).arg(&step.epsilon);
        arguments.arg(&step.corrections.0).arg(&step.corrections.1);
    })
}

pub(crate) fn add(x: &Array, values: &[f32]) -> Result<Array> {
    let (gpu, n) = (x.gpu(), x.len() as u32);
    let (sum, x) = (Array::new(gpu, values, x.dims())?, x.widened()?);
    let (to, from) = (sum.f32()?, x.f32()?);
    gpu.launch("add_f32", sum.len(), |arguments| {
        arguments.arg(&n).arg(to).arg(from);
    })?;
    Ok(sum)
}

/// The structural cost looks at windows of pixels and is computed in memory.
pub(crate) fn cost(function: &CostFunction, x: &Array, y: &Array) -> Result<(f64, Array)> {
    let images = x.dims().first().copied().unwrap_or(1).max(1);
    let gpu = x.gpu();
    let kind: i32 = match function.kind() {
        Cost::Squared => 0,
        Cost::L2 => 1,
        Cost::L1 => 2,
        Cost::Structural => {
            let (cost, gradient) = function.mean(&x.to_vec()?, &y.to_vec()?, images);
            return Ok((cost, Array::new(gpu, &gradient, y.dims())?));
        }
    };
    let y = y.widened()?;
    let (pixels, reconstructions) = (x.f32()?, y.f32()?);
    let (n, rows, len) = (x.len() as u32, images as u32, (x.len() / images) as u32);
    let in_parts = gpu.uninit::<f64>(COST_PARTS as usize * images)?;
    let (sums, gradient) = (gpu.uninit::<f64>(images)?, gpu.uninit::<f32>(x.len())?);
    gpu.launch("cost_parts", in_parts.len(), |arguments| {
        arguments.arg(&rows).arg(&len).arg(&COST_PARTS).arg(pixels).arg(reconstructions).arg(&kind).arg(&in_parts);
    })?;
    gpu.launch("column_sums_f64", images, |arguments| {
        arguments.arg(&COST_PARTS).arg(&rows).arg(&in_parts).arg(&sums);
    })?;
    let scale = 1.0 / images as f32;
    gpu.launch("cost_gradient", x.len(), |arguments| {
        arguments.arg(&n).arg(&len).arg(pixels).arg(reconstructions).arg(&sums).arg(&kind);
        arguments.arg(&ROOT_FLOOR).arg(&scale).arg(&gradient);
    })?;
    let of_image = |sum: &f64| if function.kind() == Cost::L2 { (ROOT_FLOOR + sum).sqrt() } else { *sum };
    let mean = download(gpu, &sums)?.iter().map(of_image).sum::<f64>() / images as f64;
    Ok((mean, Array::of(gpu, Data::F32(gradient), y.dims())?))
}

/// MMD² and its gradient by the codes, for two rows or more of each.
pub(crate) fn mmd(place: &Place, kernel: &Kernel, q: &[f32], p: &[f32], dim: usize) -> Result<(f64, Vec<f32>)> {
    let gpu = &place.gpu;
    let (n, m) = (q.len() / dim, p.len() / dim);
    let (rows, parts) = (n + m, (n + m).div_ceil(OTHERS));
    let both: Vec<f32> = q.iter().chain(p).copied().collect();
    let (bandwidths, rbf) = match kernel {
        Kernel::Imq(bandwidths) => (bandwidths.as_slice(), 0_i32),
        Kernel::Rbf(bandwidth) => (std::slice::from_ref(bandwidth), 1),
    };
    let (both, kernels) = (Array::new(gpu, &both, &[rows, dim])?, bandwidths.len() as u32);
    let bandwidths = gpu.upload(bandwidths)?;
    let in_parts = |len: usize| gpu.uninit::<f64>(parts * len);
    let (value_parts, gradient_parts) = (in_parts(rows)?, in_parts(q.len())?);
    let (both, counts) = (both.f32()?, [n as u32, m as u32, dim as u32, parts as u32]);
    gpu.launch("mmd_parts", value_parts.len(), |arguments| {
        arguments.arg(&counts[0]).arg(&counts[1]).arg(&counts[2]).arg(&counts[3]).arg(both).arg(&bandwidths);
        arguments.arg(&kernels).arg(&rbf).arg(&value_parts).arg(&gradient_parts);
    })?;
    let sum = |from: &CudaSlice<f64>, columns: usize| -> Result<Vec<f64>> {
        let (sums, c) = (gpu.uninit::<f64>(columns)?, columns as u32);
        gpu.launch("column_sums_f64", columns, |arguments| {
            arguments.arg(&counts[3]).arg(&c).arg(from).arg(&sums);
        })?;
        download(gpu, &sums)
    };
    let values = sum(&value_parts, rows)?;
    let gradient = sum(&gradient_parts, q.len())?.into_iter().map(|v| v as f32).collect();
    Ok((values.iter().sum(), gradient))
}

fn download(gpu: &super::Gpu, values: &CudaSlice<f64>) -> Result<Vec<f64>> {
    let values = gpu.stream().clone_dtoh(values)?;
    gpu.synchronize()?;
    Ok(values)
}
