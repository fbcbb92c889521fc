//! Operations on the CPU, on [`crate::kernels`].
//!
//! They read and write candle's storage in place of candle's own operations, whose convolutions pad symmetrically, whose ReLU
//! has derivative 1 at 0, and whose convolution gradients fail on some shapes.

use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Storage, Tensor};

use crate::error::{Error, Result};
use crate::kernels::{self, AdamStep, BatchStatistics, DownWeights, Epilogue, Geometry, UpWeights};
use crate::model::Activation;

/// Reads a tensor's values, which must lie on the CPU in order.
pub(super) fn with_values<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(values(storage, layout)?)),
        Storage::Cuda(_) | Storage::Metal(_) => Err(not_on_cpu(tensor)),
    }
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32], candle_core::Error> {
    let range = layout.contiguous_offsets();
    match (storage, range) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => Err(candle_core::Error::Msg("expected a contiguous f32 tensor".to_owned())),
    }
}

fn not_on_cpu(tensor: &Tensor) -> Error {
    Error::Config(format!("device {:?} is not built in", tensor.device().location()))
}

pub(super) fn tensor(values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// The shape (N, …) of a batch on a convolution's large grid.
fn large_shape(g: &Geometry, values: &[f32]) -> [usize; 4] {
    [values.len() / g.large_len(), g.large.0, g.large.1, g.large_channels]
}

fn small_shape(g: &Geometry, values: &[f32]) -> [usize; 4] {
    [values.len() / g.small_len(), g.small.0, g.small.1, g.small_channels]
}

pub(super) fn down(g: &Geometry, large: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let packed = with_values(weights, |weights| DownWeights::new(*g, weights, None))?;
    let small = with_values(large, |large| packed.apply(large, Epilogue::default()))?;
    let shape = small_shape(g, &small);
    tensor(small, &shape)
}

pub(super) fn up(g: &Geometry, small: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let packed = with_values(weights, |weights| UpWeights::new(*g, weights, None))?;
    let large = with_values(small, |small| packed.apply(small, Epilogue::default()))?;
    let shape = large_shape(g, &large);
    tensor(large, &shape)
}

pub(super) fn weight_gradient(g: &Geometry, large: &Tensor, small: &Tensor) -> Result<Tensor> {
    let gradient = with_values(large, |large| with_values(small, |small| kernels::weight_gradient(g, large, small)))??;
    tensor(gradient, &[g.weights_len()])
}

pub(super) fn norm_relu(x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<(Tensor, BatchStatistics)> {
    let result =
        with_values(x, |x| with_values(gamma, |gamma| with_values(beta, |beta| kernels::norm_relu(x, gamma, beta))))???;
    Ok((tensor(result.0, x.dims())?, result.1))
}

pub(super) fn norm_relu_gradient(
    x: &Tensor,
    out: &Tensor,
    gradient: &Tensor,
    gamma: &Tensor,
    statistics: &BatchStatistics,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (dx, dgamma, dbeta) = with_values(x, |x| {
        with_values(out, |out| {
            with_values(gradient, |gradient| {
                with_values(gamma, |gamma| kernels::norm_relu_gradient(x, out, gradient, gamma, statistics))
            })
        })
    })????;
    let channels = [dgamma.len()];
    Ok((tensor(dx, x.dims())?, tensor(dgamma, &channels)?, tensor(dbeta, &channels)?))
}

pub(super) fn bias_activation(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let mut values = with_values(x, <[f32]>::to_vec)?;
    with_values(bias, |bias| kernels::add_bias(&mut values, bias))?;
    match activation {
        Activation::Identity => {}
        Activation::Relu => kernels::relu(&mut values),
        Activation::Sigmoid => kernels::sigmoid(&mut values),
    }
    tensor(values, x.dims())
}

pub(super) fn bias_activation_gradient(
    out: &Tensor,
    gradient: &Tensor,
    activation: Activation,
) -> Result<(Tensor, Tensor)> {
    let mut values = with_values(gradient, <[f32]>::to_vec)?;
    with_values(out, |out| match activation {
        Activation::Identity => {}
        Activation::Relu => kernels::relu_gradient(out, &mut values),
        Activation::Sigmoid => kernels::sigmoid_gradient(out, &mut values),
    })?;
    let channels = out.dims().last().copied().unwrap_or(1);
    let bias = kernels::sum_rows(&values, channels);
    Ok((tensor(values, out.dims())?, tensor(bias, &[channels])?))
}

pub(super) fn adam(step: AdamStep, parameter: &Tensor, gradient: &Tensor, moments: &mut Moments) -> Result<()> {
    let op = AdamOp { step, moments: std::sync::Mutex::new(moments) };
    Ok(parameter.inplace_op2(gradient, &op)?)
}

/// Adam's running mean m and mean square v of a parameter's gradient.
#[derive(Debug, Clone, Default)]
pub(super) struct Moments {
    m: Vec<f32>,
    v: Vec<f32>,
}

impl Moments {
    pub(super) fn new(m: &Tensor, v: &Tensor) -> Result<Self> {
        Ok(Self { m: with_values(m, <[f32]>::to_vec)?, v: with_values(v, <[f32]>::to_vec)? })
    }

    /// m and v of a parameter of `len` values: zeros before the first step.
    pub(super) fn tensors(&self, len: usize) -> Result<(Tensor, Tensor)> {
        let padded = |values: &[f32]| {
            let mut values = values.to_vec();
            values.resize(len, 0.0);
            tensor(values, &[len])
        };
        Ok((padded(&self.m)?, padded(&self.v)?))
    }
}

struct AdamOp<'a> {
    step: AdamStep,
    moments: std::sync::Mutex<&'a mut Moments>,
}

impl InplaceOp2 for AdamOp<'_> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let gradient = values(gradient, gradient_layout)?;
        let (CpuStorage::F32(parameter), Some((start, end))) = (parameter, layout.contiguous_offsets()) else {
            return Err(candle_core::Error::Msg("expected a contiguous f32 parameter".to_owned()));
        };
        let mut moments = self.moments.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        moments.m.resize(gradient.len(), 0.0);
        moments.v.resize(gradient.len(), 0.0);
        let Moments { m, v } = &mut **moments;
        kernels::adam(self.step, &mut parameter[start..end], gradient, m, v);
        Ok(())
    }
}
