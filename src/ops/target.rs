//! Where tensors are made.

use std::borrow::Cow;

#[cfg(feature = "cuda")]
use super::cuda;
use super::{Running, Tensor, cpu};
use crate::dataset::Dataset;
use crate::device::Device;
use crate::error::Result;
#[cfg(feature = "cuda")]
use crate::image::Pixels;
use crate::kernels::{Geometry, backend};
use crate::model::Precision;

/// Where a network's tensors lie, and what it computes in.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// In memory. Training is in f32 there, whatever the precision.
    Cpu,
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(cuda::Place),
}

impl Target {
    /// Opens a device.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if it is a GPU that cannot be opened, or the crate is built without the feature `cuda`.
    pub(crate) fn open(device: Device, precision: Precision) -> Result<Self> {
        match resolve(device) {
            Device::Auto | Device::Cpu => Ok(Self::Cpu),
            #[cfg(feature = "cuda")]
            Device::Cuda(number) => Ok(Self::Cuda(cuda::Place { gpu: cuda::Gpu::open(number)?, precision })),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(_) => {
                let _ = precision;
                Err(crate::Error::Device(format!("{device}: cuda is not built in")))
            }
        }
    }

    /// A tensor of these values. Those of a slice are copied.
    pub(crate) fn tensor<'a>(&self, values: impl Into<Cow<'a, [f32]>>, shape: &[usize]) -> Result<Tensor> {
        let values = values.into();
        match self {
            Self::Cpu => cpu::tensor(values.into_owned(), shape).map(Tensor::Cpu),
            #[cfg(feature = "cuda")]
            Self::Cuda(place) => cuda::Array::new(&place.gpu, &values, shape).map(Tensor::Cuda),
        }
    }

    /// Training rows as a batch, (N, H, W, C). A GPU takes them as bytes where the data set holds bytes.
    pub(crate) fn batch(&self, dataset: &Dataset, rows: &[usize]) -> Result<Tensor> {
        let image = dataset.shape();
        let shape = [rows.len(), image.height(), image.width(), image.channels()];
        match self {
            Self::Cpu => self.tensor(dataset.training(rows)?, &shape),
            #[cfg(feature = "cuda")]
            Self::Cuda(place) => match dataset.training_pixels(rows)? {
                Pixels::U8(bytes) => cuda::Array::of_bytes(&place.gpu, &bytes, &shape).map(Tensor::Cuda),
                Pixels::F32(values) => self.tensor(values, &shape),
            },
        }
    }

    /// A convolution's weights, given as (k, k, C_large, C_small), which compute in `precision` on a GPU.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "the CPU takes weights as they come"))]
    pub(crate) fn weights(&self, g: &Geometry, values: Vec<f32>, precision: Precision) -> Result<Tensor> {
        match self {
            Self::Cpu => {
                let shape = [values.len()];
                cpu::tensor(values, &shape).map(Tensor::Cpu)
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(place) => cuda::weights(&place.gpu, g, &values, precision).map(Tensor::Cuda),
        }
    }

    /// Running statistics.
    pub(crate) fn running(&self, mean: Vec<f32>, variance: Vec<f32>) -> Result<Running> {
        match self {
            Self::Cpu => Ok(Running::Cpu { mean, variance }),
            #[cfg(feature = "cuda")]
            Self::Cuda(place) => cuda::Running::new(&place.gpu, &mean, &variance).map(Running::Cuda),
        }
    }

    /// The same place with another precision.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "the CPU trains in f32"))]
    pub(crate) fn with_precision(&self, precision: Precision) -> Self {
        match self {
            Self::Cpu => Self::Cpu,
            #[cfg(feature = "cuda")]
            Self::Cuda(place) => Self::Cuda(cuda::Place { precision, ..place.clone() }),
        }
    }

    /// Steps whose values need not be read before the next one is prepared: a GPU computes one meanwhile.
    pub(crate) fn steps_ahead(&self) -> usize {
        match self {
            Self::Cpu => 0,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => 1,
        }
    }

    /// Waits for all that is being computed.
    pub(crate) fn synchronize(&self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            #[cfg(feature = "cuda")]
            Self::Cuda(place) => place.gpu.synchronize(),
        }
    }

    /// What the network computes in: that of the GPU, f32 in memory.
    pub(crate) fn precision(&self) -> Precision {
        match self {
            Self::Cpu => Precision::F32,
            #[cfg(feature = "cuda")]
            Self::Cuda(place) => place.precision,
        }
    }

    /// What computes a training, as a checkpoint keeps it: the CPU's kernels, or `cuda` and the precision.
    pub(crate) fn kernels(&self) -> String {
        match self {
            Self::Cpu => backend().name().to_owned(),
            #[cfg(feature = "cuda")]
            Self::Cuda(place) => format!("cuda {}", place.precision.name()),
        }
    }
}

/// The device that `Auto` means: the first GPU if it can be opened. The first call that finds none logs why.
#[cfg(feature = "cuda")]
pub(crate) fn resolve(device: Device) -> Device {
    static FIRST: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    if device != Device::Auto {
        return device;
    }
    *FIRST.get_or_init(|| match cuda::Gpu::open(0) {
        Ok(gpu) => {
            log::info!("computing on cuda:0, {}", gpu.name());
            Device::Cuda(0)
        }
        Err(reason) => {
            log::warn!("computing on the CPU: {reason}");
            Device::Cpu
        }
    })
}

/// The device that `Auto` means: the CPU, as no other is built in.
#[cfg(not(feature = "cuda"))]
pub(crate) fn resolve(device: Device) -> Device {
    if device == Device::Auto { Device::Cpu } else { device }
}
