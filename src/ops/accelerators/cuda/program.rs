//! `kernels/`, compiled by NVRTC when a device is opened, and their launches.

use std::fmt;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::{CudaDevice, Tensor};

use super::memory::{address, counted};
use crate::error::{Error, Result};

/// The files of `kernels/` as one: first the one that all others need.
const SOURCE: &str =
    concat!(include_str!("kernels/common.cu"), include_str!("kernels/norm.cu"), include_str!("kernels/adam.cu"));
/// The name under which candle's device keeps the loaded kernels.
const MODULE: &str = "wae-core";
/// The newest architecture that kernels are compiled for. They use nothing newer, the driver makes machine code of it
/// for every GPU since, and a GPU that is newer than NVRTC has its kernels, too.
const NEWEST: i32 = 80;
/// Threads a block.
const BLOCK: u32 = 256;

/// The kernels, loaded on a device.
pub(super) struct Program {
    device: CudaDevice,
    ptx: String,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("device", &self.device).finish_non_exhaustive()
    }
}

/// An argument of a kernel.
pub(super) enum Argument<'a> {
    Count(u32),
    F32(f32),
    F64(f64),
    /// The address of a tensor's values.
    Values(&'a Tensor),
}

impl Program {
    /// Compiles and loads the kernels.
    ///
    /// # Errors
    /// [`Error::Device`] with NVRTC's messages; or the driver's error if it cannot load what NVRTC made.
    pub(super) fn compile(device: &CudaDevice) -> Result<Self> {
        let (major, minor) = device.cuda_stream().context().compute_capability().w()?;
        let architecture = format!("--gpu-architecture=compute_{}", (10 * major + minor).min(NEWEST));
        let options = CompileOptions { options: vec![architecture], ..CompileOptions::default() };
        let compiled = compile_ptx_with_opts(SOURCE, options);
        let ptx = compiled.map_err(|e| Error::Device(format!("NVRTC: {e}")))?.to_src();
        device.get_or_load_custom_func("adam", MODULE, &ptx)?;
        Ok(Self { device: device.clone(), ptx })
    }

    pub(super) fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// Runs a kernel in at least `threads` threads, on the device's stream.
    ///
    /// # Safety
    /// The arguments are those that the kernel declares, in order, and each tensor is on this device, has the kernel's
    /// type, and as many values as the kernel reads and writes there.
    pub(super) unsafe fn launch(&self, kernel: &str, threads: usize, arguments: &[Argument<'_>]) -> Result<()> {
        let addresses = arguments.iter().map(|argument| match argument {
            Argument::Values(tensor) => address(tensor),
            _ => Ok(0),
        });
        let addresses = addresses.collect::<Result<Vec<_>>>()?;
        let function = self.device.get_or_load_custom_func(kernel, MODULE, &self.ptx)?;
        let mut launch = function.builder();
        for (argument, address) in arguments.iter().zip(&addresses) {
            match argument {
                Argument::Count(count) => launch.arg(count),
                Argument::F32(value) => launch.arg(value),
                Argument::F64(value) => launch.arg(value),
                Argument::Values(_) => launch.arg(address),
            };
        }
        let blocks = counted(threads)?.div_ceil(BLOCK);
        let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the caller says so of the arguments. Threads beyond the kernel's count return at once.
        unsafe { launch.launch(config) }.w()?;
        Ok(())
    }
}
