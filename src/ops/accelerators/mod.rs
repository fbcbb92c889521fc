//! GPUs, and what speeds operations up on them.
//!
//! A device begins with the composed operations, which are compared with the CPU's kernels when it is opened: a device on which
//! they disagree is refused. Each [`Accelerator`] is then compared with the composed operations: one that cannot be loaded or
//! does not agree is left out, and the log says so once. A wrong accelerator is so a slow one, never a wrong score.

#[cfg(feature = "cuda")]
mod cuda;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::agreement::{self, Disagreement};
use super::{Adam, Convolution, Norm, Operations};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Precision;

/// A GPU that was opened, with the operations that compute on it.
#[derive(Debug, Clone)]
pub(super) struct Gpu {
    pub(super) device: candle_core::Device,
    pub(super) operations: Operations,
}

/// An implementation of one kind of operation for a device.
#[derive(Debug)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "CUDA alone has accelerators; tests make their own"))]
pub(super) enum Accelerator {
    Convolution(Arc<dyn Convolution>),
    Norm(Arc<dyn Norm>),
    Adam(Arc<dyn Adam>),
}

/// An accelerator under the name that the log gives it, or the reason why it cannot be loaded.
type Candidate = (&'static str, Result<Accelerator>);

/// Opens a GPU for a precision, once in a process.
///
/// # Errors
/// [`Error::Device`] if its kind is not built in, if it cannot be opened, or if it computes wrong.
pub(super) fn open(device: Device, precision: Precision) -> Result<Gpu> {
    static OPENED: Mutex<Option<HashMap<(Device, Precision), Gpu>>> = Mutex::new(None);
    // The lock is held while a device is opened, so that two threads do not open it twice.
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = opened.get_or_insert_default();
    if let Some(gpu) = opened.get(&(device, precision)) {
        return Ok(gpu.clone());
    }
    let failed = |e: Error| Error::Device(format!("{device}: {e}"));
    // All precisions share one stream.
    let same = opened.iter().find(|((other, _), _)| *other == device).map(|(_, gpu)| gpu.device.clone());
    let candle = same.map_or_else(|| open_device(device), Ok).map_err(failed)?;
    let composed = Operations::composed();
    agreement::composed_with_kernels(&candle, precision).map_err(|e| failed(e.into()))?;
    let (operations, left_out) = with_accelerators(composed, candidates(&candle), &candle, precision);
    for reason in left_out {
        log::warn!("{device} in {}: {reason}", precision.name());
    }
    let gpu = Gpu { device: candle, operations };
    opened.insert((device, precision), gpu.clone());
    Ok(gpu)
}

/// Operations with each candidate in its place that agrees with them, and a line for each that is left out.
fn with_accelerators(
    composed: Operations,
    candidates: Vec<Candidate>,
    device: &candle_core::Device,
    precision: Precision,
) -> (Operations, Vec<String>) {
    let mut chosen = composed.clone();
    let mut left_out = Vec::new();
    for (name, accelerator) in candidates {
        let agrees = accelerator.map_err(Disagreement::from).and_then(|accelerator| {
            match &accelerator {
                Accelerator::Convolution(c) => agreement::convolution(c.as_ref(), &composed, device, precision)?,
                Accelerator::Norm(norm) => agreement::norm(norm.as_ref(), &composed, device)?,
                Accelerator::Adam(adam) => agreement::adam(adam.as_ref(), &composed, device)?,
            }
            Ok(accelerator)
        });
        match agrees {
            Ok(Accelerator::Convolution(convolution)) => chosen.convolution = convolution,
            Ok(Accelerator::Norm(norm)) => chosen.norm = norm,
            Ok(Accelerator::Adam(adam)) => chosen.adam = adam,
            Err(reason) => left_out.push(format!("{name} is left out, slower operations take its place: {reason}")),
        }
    }
    (chosen, left_out)
}

fn open_device(device: Device) -> Result<candle_core::Device> {
    match device {
        Device::Auto | Device::Cpu => Ok(candle_core::Device::Cpu),
        #[cfg(feature = "cuda")]
        Device::Cuda(number) => cuda::open(number),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => Err(Error::Device("cuda is not built in".to_owned())),
        #[cfg(feature = "metal")]
        Device::Metal(number) => Ok(candle_core::Device::new_metal(number)?),
        #[cfg(not(feature = "metal"))]
        Device::Metal(_) => Err(Error::Device("metal is not built in".to_owned())),
    }
}

#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "CUDA alone has accelerators"))]
fn candidates(device: &candle_core::Device) -> Vec<Candidate> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return cuda::candidates(device);
    }
    Vec::new()
}

/// Gives a GPU's freed memory back to the driver.
#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "CUDA alone keeps freed memory"))]
pub(super) fn release_memory(device: &candle_core::Device) {
    #[cfg(feature = "cuda")]
    if device.is_cuda()
        && let Err(e) = cuda::release_memory(device)
    {
        log::warn!("{e}");
    }
}
