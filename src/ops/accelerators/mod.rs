//! GPUs, and accelerators: operations that are faster there than the composed ones.
//!
//! A device begins with the composed operations, which are compared with the CPU's kernels when it is opened: a device
//! on which they disagree is refused. Each [`Accelerator`] is then compared with the composed operations. One that
//! cannot be loaded or does not agree is left out, and the log says so once. So a wrong accelerator makes a device
//! slow, and no score wrong.

#[cfg(feature = "cuda")]
mod cuda;
mod fallback;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use self::fallback::WithFallback;
use super::agreement::{self, Disagreement};
use super::{Adam, Convolution, Norm, Operations};
use crate::device::{Device, Precision};
use crate::error::{Error, Result};

/// A GPU that was opened, with the operations that compute on it.
#[derive(Debug, Clone)]
pub(super) struct Gpu {
    pub(super) device: candle_core::Device,
    pub(super) operations: Operations,
}

/// An implementation of one kind of operation for a device.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "cudnn"), allow(dead_code, reason = "CUDA and cuDNN alone make some; tests make all"))]
enum Accelerator {
    Convolution(Arc<dyn Convolution>),
    Norm(Arc<dyn Norm>),
    Adam(Arc<dyn Adam>),
}

/// An accelerator under the name that the log gives it, or the reason why it cannot be loaded.
type Candidate = (&'static str, Result<Accelerator>);

/// A device that stays open as long as the process runs. All precisions share its stream and its accelerators.
struct Opened {
    device: candle_core::Device,
    candidates: Vec<Candidate>,
    /// The operations of each precision that was asked for, after their comparison.
    operations: HashMap<Precision, Operations>,
    /// Lines that were logged, so that each is logged once.
    logged: HashSet<String>,
}

/// Opens a GPU for a precision, once in a process.
///
/// # Errors
/// [`Error::Device`] if its kind is not built in, if it cannot be opened, or if it computes wrong.
pub(super) fn open(device: Device, precision: Precision) -> Result<Gpu> {
    static OPENED: Mutex<Option<HashMap<Device, Opened>>> = Mutex::new(None);
    // The lock is held while a device is opened, so that two threads do not open it twice.
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = |e: Error| Error::Device(format!("{device}: {e}"));
    let opened = match opened.get_or_insert_default().entry(device) {
        Entry::Occupied(opened) => opened.into_mut(),
        Entry::Vacant(place) => place.insert(Opened::try_new(device).map_err(failed)?),
    };
    let operations = opened.operations(device, precision).map_err(failed)?;
    Ok(Gpu { device: opened.device.clone(), operations })
}

impl Opened {
    fn try_new(device: Device) -> Result<Self> {
        let device = open_device(device)?;
        let candidates = candidates(&device);
        Ok(Self { device, candidates, operations: HashMap::new(), logged: HashSet::new() })
    }

    /// The operations of a precision. They are compared when they are first asked for.
    fn operations(&mut self, name: Device, precision: Precision) -> Result<Operations> {
        if let Some(operations) = self.operations.get(&precision) {
            return Ok(operations.clone());
        }
        let (operations, left_out) = apart(|| {
            agreement::composed_with_kernels(&self.device, precision)?;
            Ok(with_accelerators(Operations::composed(), &self.candidates, &self.device, precision))
        })?;
        for line in left_out {
            if self.logged.insert(line.clone()) {
                log::warn!("{name}: {line}");
            }
        }
        self.operations.insert(precision, operations.clone());
        Ok(operations)
    }
}

/// Runs work that computes on rayon in a thread and a pool of its own.
///
/// Devices are opened under a lock. A thread of the host's pool that waited there for work in its own pool would
/// meanwhile take other tasks of that pool, and one of them may open a device too: it would wait for the lock that its
/// own thread holds.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let failed = |e: &dyn fmt::Display| Error::Device(format!("cannot start the comparison of operations: {e}"));
    let pool = rayon::ThreadPoolBuilder::new().build().map_err(|e| failed(&e))?;
    thread::scope(|scope| {
        let work = thread::Builder::new().spawn_scoped(scope, || pool.install(work)).map_err(|e| failed(&e))?;
        work.join().unwrap_or_else(|_| Err(Error::Device("the comparison of operations panicked".to_owned())))
    })
}

/// Operations with each candidate in its place that agrees with them, and a line for each that is left out.
fn with_accelerators(
    composed: Operations,
    candidates: &[Candidate],
    device: &candle_core::Device,
    precision: Precision,
) -> (Operations, Vec<String>) {
    let mut chosen = composed.clone();
    let mut left_out = Vec::new();
    for (name, candidate) in candidates {
        match compared(candidate, &composed, device, precision) {
            Ok(Accelerator::Convolution(c)) => {
                chosen.convolution = Arc::new(WithFallback::new(c, Arc::clone(&composed.convolution)));
            }
            Ok(Accelerator::Norm(norm)) => chosen.norm = norm,
            Ok(Accelerator::Adam(adam)) => chosen.adam = adam,
            Err(reason) => left_out.push(format!("{name}: left out for slower operations, as {reason}")),
        }
    }
    (chosen, left_out)
}

/// An accelerator that agrees with the composed operations, or why it cannot be used.
fn compared(
    candidate: &Result<Accelerator>,
    composed: &Operations,
    device: &candle_core::Device,
    precision: Precision,
) -> Result<Accelerator, Disagreement> {
    let accelerator = candidate.as_ref()?;
    match accelerator {
        Accelerator::Convolution(c) => agreement::convolution(c.as_ref(), composed, device, precision)?,
        Accelerator::Norm(norm) => agreement::norm(norm.as_ref(), composed, device)?,
        Accelerator::Adam(adam) => agreement::adam(adam.as_ref(), composed, device)?,
    }
    Ok(accelerator.clone())
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

#[cfg(test)]
mod tests;
