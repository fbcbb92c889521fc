//! The device of tensors, and the operations on it.

use candle_core::DType;

use super::accelerators::{self, Gpu};
use super::{Operations, Tensor};
use crate::device::{Device, Precision};
use crate::error::{Error, Result};
use crate::image::PixelSlice;
use crate::kernels::{backend, is_composed};

/// The largest number of values that one operation on a device other than the CPU may have: candle counts them in 32
/// bits there.
pub(crate) const MOST_VALUES: usize = 1 << 30;
/// Steps of a training on a GPU whose values are read together: reading waits for the GPU.
const STEPS_READ_TOGETHER: usize = 16;

/// A device with the operations that compute on it, and their precision.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    device: candle_core::Device,
    operations: Operations,
    precision: Precision,
}

impl Target {
    /// The CPU with its kernels, or with composed operations where `WAE_KERNELS` says so.
    pub(crate) fn cpu() -> Self {
        let operations = if is_composed() { Operations::composed() } else { Operations::kernels() };
        Self { device: candle_core::Device::Cpu, operations, precision: Precision::F32 }
    }

    /// The CPU with composed operations, as a GPU computes.
    #[cfg(test)]
    pub(crate) fn composed(precision: Precision) -> Self {
        Self { device: candle_core::Device::Cpu, operations: Operations::composed(), precision }
    }

    /// The first CUDA GPU, for tests that need one. Without one they are skipped, which is printed, or fail where
    /// `WAE_REQUIRE_GPU` is set.
    #[cfg(all(test, feature = "cuda"))]
    pub(crate) fn gpu_of_tests(precision: Precision) -> Option<Self> {
        match Self::open(Device::Cuda(0), precision) {
            Ok(target) => Some(target),
            Err(e) => {
                assert!(std::env::var_os("WAE_REQUIRE_GPU").is_none(), "{e}");
                eprintln!("skipped: {e}");
                None
            }
        }
    }

    /// Opens a device. On the CPU, training is in f32 whatever the precision.
    ///
    /// # Errors
    /// [`Error::Device`] if a GPU cannot be opened, computes wrong, or is of a kind that is not built in.
    pub(crate) fn open(device: Device, precision: Precision) -> Result<Self> {
        let Gpu { device, operations } = match device.resolved() {
            Device::Auto | Device::Cpu => return Ok(Self::cpu()),
            gpu => accelerators::open(gpu, precision)?,
        };
        Ok(Self { device, operations, precision })
    }

    /// The device.
    pub(crate) fn device(&self) -> &candle_core::Device {
        &self.device
    }

    /// The operations.
    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
    }

    /// The precision of convolutions' products; f32 on the CPU.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// The same device with another precision.
    pub(crate) fn with_precision(&self, precision: Precision) -> Self {
        Self { precision, ..self.clone() }
    }

    /// Whether scoring uses weights packed for the CPU, on slices.
    pub(crate) fn has_kernels(&self) -> bool {
        self.device.is_cpu() && !is_composed()
    }

    /// An f32 tensor of these values.
    pub(crate) fn tensor(&self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(values, shape, &self.device)?)
    }

    /// Pixels as floats in [0, 1]. Bytes go to a GPU as bytes, and are divided by 255 there.
    pub(crate) fn pixels(&self, pixels: PixelSlice<'_>, shape: &[usize]) -> Result<Tensor> {
        match pixels {
            PixelSlice::U8(bytes) if !self.device.is_cpu() => {
                let bytes = Tensor::from_slice(bytes, shape, &self.device)?.to_dtype(DType::F32)?;
                // v / 255, the bits of the CPU's quotient; v · (1/255) is not.
                Ok(bytes.broadcast_div(&Tensor::new(255.0_f32, &self.device)?)?)
            }
            PixelSlice::U8(_) => self.tensor(pixels.to_f32().into_owned(), shape),
            PixelSlice::F32(values) => Ok(Tensor::from_slice(values, shape, &self.device)?),
        }
    }

    /// Steps whose values are read together: on a GPU the next steps are computed meanwhile; on the CPU the values are
    /// there at once.
    pub(crate) fn steps_read_together(&self) -> usize {
        if self.device.is_cpu() { 1 } else { STEPS_READ_TOGETHER }
    }

    /// Waits for all that is being computed.
    pub(crate) fn synchronize(&self) -> Result<()> {
        Ok(self.device.synchronize()?)
    }

    /// Gives a GPU's freed memory back to the driver.
    pub(crate) fn release_memory(&self) {
        accelerators::release_memory(&self.device);
    }

    /// The name of the kernels that compute a training, for its checkpoint: the CPU's instructions, `composed`, or
    /// `cuda` or `metal` and the precision.
    pub(crate) fn kernels(&self) -> String {
        let kind = match self.device.location() {
            candle_core::DeviceLocation::Cpu if is_composed() => return "composed".to_owned(),
            candle_core::DeviceLocation::Cpu => return backend().name().to_owned(),
            candle_core::DeviceLocation::Cuda { .. } => "cuda",
            candle_core::DeviceLocation::Metal { .. } => "metal",
        };
        format!("{kind} {}", self.precision.name())
    }

    /// Refuses a batch with which an operation would have more values than a GPU counts.
    ///
    /// # Errors
    /// [`Error::TrainOption`] that names the largest number of rows.
    pub(crate) fn check_rows(&self, rows: usize, values_a_row: usize) -> Result<()> {
        if self.device.is_cpu() { Ok(()) } else { check_countable(rows, values_a_row) }
    }
}

/// Refuses rows that have more than [`MOST_VALUES`] values together.
pub(super) fn check_countable(rows: usize, values_a_row: usize) -> Result<()> {
    let most = (MOST_VALUES / values_a_row.max(1)).max(1);
    if rows <= most {
        return Ok(());
    }
    let problem =
        format!("must be at most {most} for this network on a GPU, where a layer may have 2^30 values, got {rows}");
    Err(Error::train_option("batch_size", problem))
}

impl Device {
    /// The device that `Auto` means: the first CUDA GPU if it can be opened, else the CPU. The log says once which it
    /// is, and why. Another device stays what it is.
    pub fn resolved(self) -> Self {
        static FIRST: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
        match self {
            Self::Auto if cfg!(feature = "cuda") => {
                *FIRST.get_or_init(|| match accelerators::open(Self::Cuda(0), Precision::F32) {
                    Ok(_) => {
                        log::info!("computing on cuda:0");
                        Self::Cuda(0)
                    }
                    Err(reason) => {
                        log::warn!("computing on the CPU: {reason}");
                        Self::Cpu
                    }
                })
            }
            Self::Auto => Self::Cpu,
            named => named,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_means_a_device_and_others_stay() {
        assert_ne!(Device::Auto.resolved(), Device::Auto);
        assert_eq!(Device::Cpu.resolved(), Device::Cpu);
        if !cfg!(feature = "cuda") {
            assert_eq!(Device::Auto.resolved(), Device::Cpu);
        }
    }
}
