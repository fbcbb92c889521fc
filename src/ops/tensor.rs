//! Values in a shape, wherever they lie.

use super::cpu;
#[cfg(feature = "cuda")]
use super::cuda;
#[cfg(feature = "cuda")]
use crate::error::Error;
use crate::error::Result;

/// Values in a shape, on the CPU or on a GPU. Clones share them.
#[derive(Debug, Clone)]
pub(crate) enum Tensor {
    /// In memory.
    Cpu(candle_core::Tensor),
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(cuda::Array),
}

impl Tensor {
    /// The shape.
    pub(crate) fn dims(&self) -> &[usize] {
        match self {
            Self::Cpu(tensor) => tensor.dims(),
            #[cfg(feature = "cuda")]
            Self::Cuda(array) => array.dims(),
        }
    }

    /// Rows, by the first dimension.
    pub(crate) fn rows(&self) -> usize {
        self.dims().first().copied().unwrap_or(1)
    }

    /// The same values in another shape of as many.
    pub(crate) fn reshape(&self, shape: &[usize]) -> Result<Self> {
        Ok(match self {
            Self::Cpu(tensor) => Self::Cpu(tensor.reshape(shape)?),
            #[cfg(feature = "cuda")]
            Self::Cuda(array) => Self::Cuda(array.reshape(shape)?),
        })
    }
}

/// What is said of tensors that do not lie together.
#[cfg(feature = "cuda")]
pub(super) fn on_two_devices() -> Error {
    Error::Device("an operation met tensors of two devices".to_owned())
}

/// Reads a tensor's values in order; those on a GPU are waited for.
pub(crate) fn with_values<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    match tensor {
        Tensor::Cpu(tensor) => cpu::with_values(tensor, f),
        #[cfg(feature = "cuda")]
        Tensor::Cuda(array) => Ok(f(&array.to_vec()?)),
    }
}
