//! Adam on a GPU: all parameters in one launch, as most of a network's dozens are small.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, DevicePtr, PushKernelArg};

use super::{Array, Data, Gpu};
use crate::error::Result;
use crate::kernels::AdamStep;

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

/// A parameter with its gradient and its moments, which are empty before the first step.
#[derive(Debug)]
pub(crate) struct Trained<'a> {
    pub(crate) parameter: &'a Array,
    pub(crate) gradient: &'a Array,
    pub(crate) moments: &'a mut Option<Moments>,
}

/// A step on parameters of one GPU, in place.
pub(crate) fn adam(step: AdamStep, trained: &mut [Trained<'_>]) -> Result<()> {
    let Some(gpu) = trained.first().map(|first| Arc::clone(first.parameter.gpu())) else { return Ok(()) };
    // As `Parameter` in kernels/adam.cu.
    let (mut table, mut values) = (Vec::new(), 0_usize);
    for Trained { parameter, gradient, moments } in trained.iter_mut() {
        if moments.is_none() {
            let (m, v) = Moments::tensors(None, parameter)?;
            **moments = Some(Moments { m, v });
        }
        let Some(Moments { m, v }) = moments else { continue };
        let (gradient, is_bf16) = match gradient.data() {
            Data::F32(values) => (address(&gpu, values), 0),
            Data::Bf16(values) => (address(&gpu, values), 1),
        };
        let [w, m, v] = [parameter.f32()?, m.f32()?, v.f32()?].map(|values| address(&gpu, values));
        let half = parameter.half().map_or(0, |values| address(&gpu, values));
        table.extend([values as u64, w, half, gradient, m, v, is_bf16]);
        values += parameter.len();
    }
    let (n, count, table) = (values as u32, trained.len() as u32, gpu.upload(&table)?);
    // The addresses stay: what lies there is freed behind this launch, on the same stream.
    gpu.launch("adam", values, |arguments| {
        arguments.arg(&n).arg(&count).arg(&table).arg(&step.learning_rate);
        arguments.arg(&step.beta1.0).arg(&step.beta1.1).arg(&step.beta2.0).arg(&step.beta2.1).arg(&step.epsilon);
        arguments.arg(&step.corrections.0).arg(&step.corrections.1);
    })
}

/// Where values lie on the GPU.
fn address<T>(gpu: &Gpu, values: &CudaSlice<T>) -> u64 {
    values.device_ptr(gpu.stream()).0
}
