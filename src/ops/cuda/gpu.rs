//! A GPU that has been opened.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cublas::CudaBlas;
use cudarc::driver::result::{device, mem_pool};
use cudarc::driver::sys::CUmemPool_attribute_enum;
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, DeviceRepr, LaunchArgs, LaunchConfig};
use cudarc::nvrtc::Ptx;

use super::compile::{compile, names};
use super::convolution::Plans;
use super::dnn::Handle;
use super::transfer::Transfers;
use crate::error::{Error, Result};
use crate::model::Precision;

/// Threads a block.
const BLOCK: u32 = 256;

/// A GPU, and what a network computes in on it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) precision: Precision,
}

/// A GPU with its stream, kernels and libraries. There is one a number in the process.
pub(crate) struct Gpu {
    name: String,
    stream: Arc<CudaStream>,
    kernels: HashMap<String, CudaFunction>,
    libraries: Mutex<Libraries>,
    transfers: Transfers,
    /// Trainings that run.
    trainings: AtomicUsize,
}

/// Handles that one thread at a time may use, and what belongs to them.
pub(super) struct Libraries {
    pub(super) cudnn: Handle,
    pub(super) blas: CudaBlas,
    pub(super) plans: Plans,
    /// cuDNN's scratch memory, as large as any call has needed.
    workspace: Option<CudaSlice<u8>>,
}

// SAFETY: cuDNN's handle and descriptors may be used from any thread, but by one at a time; they are reached through the
// mutex of `Gpu` alone, and no reference to them leaves it.
unsafe impl Send for Libraries {}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({}, {})", self.stream.context().ordinal(), self.name)
    }
}

impl Gpu {
    /// The GPU of a number, opened once.
    ///
    /// # Errors
    /// [`Error::Device`] if a library is missing or there is no such GPU.
    pub(crate) fn open(number: usize) -> Result<Arc<Self>> {
        static OPEN: Mutex<Option<HashMap<usize, Arc<Gpu>>>> = Mutex::new(None);
        let mut open = lock(&OPEN);
        let open = open.get_or_insert_default();
        if let Some(gpu) = open.get(&number) {
            return Ok(Arc::clone(gpu));
        }
        // cudarc panics where a library lacks a function that it calls, as one of another version may.
        let opened = std::panic::catch_unwind(|| Self::try_new(number));
        let opened = opened.unwrap_or_else(|_| Err(Error::Device("a library of another version".to_owned())));
        let gpu = opened.map_err(|e| Error::Device(format!("cuda:{number}: {e}")))?;
        Ok(Arc::clone(open.entry(number).or_insert(Arc::new(gpu))))
    }

    fn try_new(number: usize) -> Result<Self> {
        // cudarc also panics where a library is missing, which is no surprise.
        // SAFETY: opening NVIDIA's libraries runs their initialisers, which have no preconditions.
        let present = unsafe {
            [
                ("libcuda (the driver)", cudarc::driver::sys::is_culib_present()),
                ("libnvrtc", cudarc::nvrtc::sys::is_culib_present()),
                ("libcublas", cudarc::cublas::sys::is_culib_present()),
                ("libcudnn", cudarc::cudnn::sys::is_culib_present()),
            ]
        };
        if let Some((name, _)) = present.iter().find(|(_, present)| !present) {
            return Err(Error::Device(format!("{name} was not found")));
        }
        let context = CudaContext::new(number)?;
        // SAFETY: every array is made, used and freed on the one stream below, which orders them.
        unsafe { context.disable_event_tracking() };
        // Not the default stream, which waits for every other one in the process.
        let stream = context.new_stream()?;
        let kernels = kernels(&context)?;
        let gpu = Self {
            name: context.name()?,
            kernels,
            libraries: Mutex::new(Libraries {
                cudnn: Handle::try_new(&stream)?,
                blas: CudaBlas::new(Arc::clone(&stream))?,
                plans: Plans::default(),
                workspace: None,
            }),
            transfers: Transfers::default(),
            trainings: AtomicUsize::new(0),
            stream,
        };
        gpu.keep_freed_memory()?;
        Ok(gpu)
    }

    /// What the driver calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The libraries, for this thread alone until the guard is dropped, with the GPU made current.
    pub(super) fn libraries(&self) -> Result<MutexGuard<'_, Libraries>> {
        let libraries = lock(&self.libraries);
        self.stream.context().bind_to_thread()?;
        Ok(libraries)
    }

    /// Memory for `len` values, which must be written before they are read.
    pub(super) fn uninit<T: DeviceRepr>(&self, len: usize) -> Result<CudaSlice<T>> {
        // Kernels count in 32 bits, and so does cuDNN.
        if len > i32::MAX as usize {
            return Err(Error::DeviceMemory(format!("{len} values in one array: try a smaller batch_size")));
        }
        // SAFETY: the callers, all in this module, write each value on the same stream before anything reads it.
        Ok(unsafe { self.stream.alloc(len.max(1)) }?)
    }

    /// Runs a kernel in at least `threads` threads on the arguments that `push` adds.
    ///
    /// The arguments must be those of the kernel, in order, and each array as long as the kernel reads and writes: a contract of
    /// this module, whose functions take arrays with their shapes and are what the rest of the crate can call. The tests compare
    /// every kernel with the CPU's operation.
    pub(super) fn launch<'a>(
        &'a self,
        kernel: &str,
        threads: usize,
        push: impl FnOnce(&mut LaunchArgs<'a>),
    ) -> Result<()> {
        if threads == 0 {
            return Ok(());
        }
        let function =
            self.kernels.get(kernel).ok_or_else(|| Error::Device(format!("there is no kernel '{kernel}'")))?;
        let mut arguments = self.stream.launch_builder(function);
        push(&mut arguments);
        let blocks = u32::try_from(threads.div_ceil(BLOCK as usize))
            .map_err(|_| Error::Device(format!("'{kernel}' in {threads} threads")))?;
        let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: as said above; kernels look at no value beyond the counts that they are given.
        unsafe { arguments.launch(config) }?;
        Ok(())
    }

    /// Page-locked memory for copies from and to the GPU.
    pub(super) fn transfers(&self) -> &Transfers {
        &self.transfers
    }

    /// Waits for all work so far.
    pub(crate) fn synchronize(&self) -> Result<()> {
        Ok(self.stream.synchronize()?)
    }

    /// Memory that is freed stays with the process, since a training frees and takes the same amounts in each step.
    fn keep_freed_memory(&self) -> Result<()> {
        let mut threshold = u64::MAX;
        let attribute = CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the device is that of a living context; the attribute is a u64.
        unsafe {
            let pool = device::get_default_mem_pool(self.stream.context().cu_device())?;
            mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast())?;
        }
        Ok(())
    }

    /// Says that a training begins; [`Self::end_training`] ends it.
    pub(crate) fn begin_training(&self) {
        self.trainings.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops what a training had on the GPU.
    pub(crate) fn end_training(&self, drop: impl FnOnce()) {
        self.trainings.fetch_sub(1, Ordering::Relaxed);
        self.release(drop);
    }

    /// Drops what lies on the GPU, and gives its memory back to the driver; while a training runs the memory stays, as the
    /// next step takes as much.
    pub(crate) fn release(&self, drop: impl FnOnce()) {
        // The driver frees memory of the GPU that is current on this thread, which may never have computed on it. It frees it
        // behind what computes with it.
        let current = self.stream.context().bind_to_thread();
        drop();
        let trimmed = || if self.trainings.load(Ordering::Relaxed) == 0 { self.trim() } else { Ok(()) };
        let freed = current.map_err(Error::from).and_then(|()| trimmed());
        if let Err(e) = freed {
            log::warn!("freeing memory of {self:?}: {e}");
        }
    }

    /// Gives freed memory back to the driver.
    pub(crate) fn trim(&self) -> Result<()> {
        self.libraries()?.workspace = None;
        self.stream.synchronize()?;
        self.transfers.clear();
        // SAFETY: as above.
        unsafe {
            let pool = device::get_default_mem_pool(self.stream.context().cu_device())?;
            mem_pool::trim_to(pool, 0)?;
        }
        Ok(())
    }
}

impl Libraries {
    /// cuDNN's scratch memory, of at least `bytes`.
    pub(super) fn workspace(workspace: &mut Option<CudaSlice<u8>>, gpu: &Gpu, bytes: usize) -> Result<()> {
        if workspace.as_ref().is_none_or(|w| w.len() < bytes) {
            *workspace = None;
            // In bytes, of which there may be more than an array may have values.
            // SAFETY: cuDNN writes its scratch memory before it reads it.
            *workspace = Some(unsafe { gpu.stream.alloc(bytes.max(1)) }?);
        }
        Ok(())
    }

    /// Its parts, so that each can be borrowed beside the others.
    pub(super) fn parts(&mut self) -> (&Handle, &mut Plans, &mut Option<CudaSlice<u8>>) {
        (&self.cudnn, &mut self.plans, &mut self.workspace)
    }
}

/// The kernels, compiled for a GPU.
fn kernels(context: &Arc<CudaContext>) -> Result<HashMap<String, CudaFunction>> {
    let (major, minor) = context.compute_capability()?;
    let code = compile(&format!("sm_{major}{minor}"))?;
    let module = context.load_module(Ptx::from_binary(code))?;
    names().into_iter().map(|name| Ok((name.clone(), module.load_function(&name)?))).collect()
}

/// Locks; a thread that panicked while it held the lock left a whole value behind.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
