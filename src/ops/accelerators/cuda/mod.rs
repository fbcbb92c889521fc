//! CUDA: a device of candle's, and the accelerators on it.
//!
//! Accelerators work on candle's own storage and on the stream of candle's device, and their results are candle's
//! tensors: whatever was asked for before on a device is done before, and memory is freed behind its last use.
//!
//! | accelerator | by |
//! |---|---|
//! | [`norm`] | kernels of `kernels/`, which NVRTC compiles for the device ([`program`]) |
//! | [`adam`] | a kernel, too |
//! | `convolution` | cuDNN, with the feature `cudnn` |

mod adam;
#[cfg(feature = "cudnn")]
mod convolution;
#[cfg(feature = "cudnn")]
mod descriptors;
#[cfg(feature = "cudnn")]
mod dnn;
mod memory;
mod norm;
mod program;

use std::sync::Arc;

use candle_core::CudaDevice;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::result::{device as driver, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::{CUmemPool_attribute_enum, CUmemoryPool};

use self::adam::AdamKernel;
use self::norm::NormKernels;
use self::program::Program;
use super::{Accelerator, Candidate};
use crate::error::{Error, Result};

/// Opens the GPU of a number, from 0.
///
/// # Errors
/// [`Error::Device`] with the driver's reason.
pub(super) fn open(number: usize) -> Result<candle_core::Device> {
    open_device(number).map_err(|e| Error::Device(e.to_string()))
}

fn open_device(number: usize) -> Result<candle_core::Device> {
    // `new_cuda` takes another stream for each thread, and nothing orders the work of two threads.
    let opened = candle_core::Device::new_cuda_with_stream(number)?;
    let device = opened.as_cuda_device()?;
    // SAFETY: every tensor of this device is made, used and freed on its one stream, which orders all of it.
    unsafe { device.disable_event_tracking() };
    keep_freed_memory(device)?;
    Ok(opened)
}

/// The pool that the device's memory comes from.
fn pool(device: &CudaDevice) -> Result<CUmemoryPool> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    // SAFETY: the number is that of the device of a living context.
    Ok(unsafe { driver::get_default_mem_pool(stream.context().cu_device()) }.w()?)
}

/// Memory that is freed stays with the process, as a training frees and takes the same amounts in each step. By default
/// the driver takes it back each time the device is waited for.
fn keep_freed_memory(device: &CudaDevice) -> Result<()> {
    let mut threshold = u64::MAX;
    let attribute = CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool is that of a living context, and the attribute's type is a u64.
    Ok(unsafe { mem_pool::set_attribute(pool(device)?, attribute, (&raw mut threshold).cast()) }.w()?)
}

/// Gives freed memory back to the driver.
pub(super) fn release_memory(device: &candle_core::Device) -> Result<()> {
    // What is freed behind work that goes on is free only after it.
    device.synchronize()?;
    // SAFETY: the pool is that of a living context.
    Ok(unsafe { mem_pool::trim_to(pool(device.as_cuda_device()?)?, 0) }.w()?)
}

/// The accelerators of a device, or why each cannot be loaded.
pub(super) fn candidates(device: &candle_core::Device) -> Vec<Candidate> {
    let device = match device.as_cuda_device() {
        Ok(device) => device,
        Err(e) => return vec![("CUDA's accelerators", Err(e.into()))],
    };
    let program = Program::compile(device).map(Arc::new);
    let by_program = |accelerator: fn(Arc<Program>) -> Accelerator| match &program {
        Ok(program) => Ok(accelerator(Arc::clone(program))),
        Err(reason) => Err(Error::Device(reason.to_string())),
    };
    vec![
        ("the norm kernels", by_program(|program| Accelerator::Norm(Arc::new(NormKernels::new(program))))),
        ("the Adam kernel", by_program(|program| Accelerator::Adam(Arc::new(AdamKernel::new(program))))),
        #[cfg(feature = "cudnn")]
        (
            "cuDNN's convolutions",
            convolution::CudnnConvolutions::try_new(device).map(|cudnn| Accelerator::Convolution(Arc::new(cudnn))),
        ),
    ]
}

#[cfg(test)]
mod tests;
