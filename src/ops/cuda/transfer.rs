//! Copies between the machine's memory and a GPU's, by way of page-locked memory, from and to which a GPU copies by itself.
//!
//! An upload returns before the values are there; so does a number that is sent back. Page-locked memory is slow to take, and is
//! kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use cudarc::driver::result::{memcpy_dtoh_async, memcpy_htod_async};
use cudarc::driver::{CudaEvent, CudaSlice, DevicePtr, DevicePtrMut, DeviceRepr, PinnedHostSlice};

use super::Gpu;
use super::gpu::lock;
use crate::error::{Error, Result};

/// Pieces of page-locked memory that uploads go through: those of two training steps, since one is prepared while another is
/// computed. Threads that upload at once have one more each.
const PIECES: usize = 8;

/// Page-locked memory that waits to be used again.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// In the order of their last use.
    pieces: Mutex<VecDeque<Piece<u8>>>,
    numbers: Mutex<Vec<Piece<f64>>>,
}

/// Page-locked memory, and when the last copy from or to it was done.
#[derive(Debug)]
struct Piece<T> {
    memory: PinnedHostSlice<T>,
    copied: CudaEvent,
}

impl<T: DeviceRepr> Piece<T> {
    fn take(gpu: &Gpu, len: usize) -> Result<Self> {
        let context = gpu.stream().context();
        // SAFETY: it is written before it is read, here by an upload and by the GPU for a number.
        let memory = unsafe { context.alloc_pinned_with_flags(len.max(1), 0) };
        let memory = memory.map_err(|e| match Error::from(e) {
            // The driver calls it the same whether the GPU's memory or the machine's is at its end.
            Error::DeviceMemory(_) => {
                Error::DeviceMemory(format!("the machine gave no {} bytes of page-locked memory", len * size_of::<T>()))
            }
            other => other,
        })?;
        Ok(Self { memory, copied: context.new_event(None)? })
    }
}

impl Transfers {
    /// A piece of at least `bytes` that no copy reads any more: the smallest that is free; a new one while they are few; else
    /// the one whose last use is longest ago, which is waited for.
    fn piece(&self, gpu: &Gpu, bytes: usize) -> Result<Piece<u8>> {
        let mut pieces = lock(&self.pieces);
        let free = pieces.iter().enumerate().filter(|(_, p)| p.memory.len() >= bytes && p.copied.is_complete());
        let smallest = free.min_by_key(|(_, piece)| piece.memory.len()).map(|(at, _)| at);
        if let Some(piece) = smallest.and_then(|at| pieces.remove(at)) {
            return Ok(piece);
        }
        let oldest = if pieces.len() < PIECES { None } else { pieces.pop_front() };
        drop(pieces);
        if let Some(piece) = oldest {
            piece.copied.synchronize()?;
            if piece.memory.len() >= bytes {
                return Ok(piece);
            }
        }
        Piece::take(gpu, bytes)
    }

    /// Frees what no copy uses: other threads may have begun some. The GPU must be current on this thread.
    pub(super) fn clear(&self) {
        lock(&self.pieces).retain(|piece| !piece.copied.is_complete());
        lock(&self.numbers).retain(|piece| !piece.copied.is_complete());
    }
}

impl Gpu {
    /// Copies values to the GPU, and returns before they are there.
    pub(super) fn upload<T: DeviceRepr>(&self, values: &[T]) -> Result<CudaSlice<T>> {
        let mut to = self.uninit::<T>(values.len())?;
        // SAFETY: `DeviceRepr` types are numbers, every byte of which is initialised; the slice ends with `values`.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        self.stream().context().bind_to_thread()?;
        let mut piece = self.transfers().piece(self, bytes.len())?;
        // cudarc's own event of the memory is not recorded, as tracking is off.
        let memory = &mut piece.memory.as_mut_slice()?[..bytes.len()];
        memory.copy_from_slice(bytes);
        {
            let (address, _written) = to.device_ptr_mut(self.stream());
            // SAFETY: `to` has as many bytes as `memory`, which is left alone until `copied`.
            unsafe { memcpy_htod_async(address, memory, self.stream().cu_stream()) }?;
        }
        piece.copied.record(self.stream())?;
        lock(&self.transfers().pieces).push_back(piece);
        Ok(to)
    }

    /// Sends a number to memory, where it is waited for when it is read.
    pub(super) fn send(self: &Arc<Self>, number: &CudaSlice<f64>) -> Result<Number> {
        self.stream().context().bind_to_thread()?;
        let kept = lock(&self.transfers().numbers).pop();
        let mut piece = match kept {
            Some(piece) => piece,
            None => Piece::take(self, 1)?,
        };
        {
            let (address, _read) = number.device_ptr(self.stream());
            let memory = &mut piece.memory.as_mut_slice()?[..1];
            // SAFETY: one value is copied, which `memory` has room for and which nobody reads before `copied`.
            unsafe { memcpy_dtoh_async(memory, address, self.stream().cu_stream()) }?;
        }
        piece.copied.record(self.stream())?;
        Ok(Number { gpu: Arc::clone(self), piece: Some(piece) })
    }

    /// The values in memory, once all work that was asked for before is done.
    pub(super) fn download(&self, values: &CudaSlice<f32>, len: usize) -> Result<Vec<f32>> {
        let mut to = vec![0.0; len];
        if len > 0 {
            self.stream().memcpy_dtoh(&values.slice(..len), &mut to)?;
            // Not for the whole stream, to which other threads add.
            self.stream().record_event(None)?.synchronize()?;
        }
        Ok(to)
    }
}

/// A number on its way to memory.
#[derive(Debug)]
pub(crate) struct Number {
    gpu: Arc<Gpu>,
    piece: Option<Piece<f64>>,
}

impl Number {
    /// The number, once it has come.
    pub(crate) fn read(&self) -> Result<f64> {
        let lost = || Error::Device("a number has lost its memory".to_owned());
        let piece = self.piece.as_ref().ok_or_else(lost)?;
        piece.copied.synchronize()?;
        Ok(piece.memory.as_slice()?[0])
    }
}

impl Drop for Number {
    /// Its memory is used again: a copy that is still under way comes before the next one's.
    fn drop(&mut self) {
        lock(&self.gpu.transfers().numbers).extend(self.piece.take());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::tests::gpu;
    use super::*;
    use crate::model::Precision;
    use crate::ops::Target;

    /// Far more copies than pieces, of sizes that fit no piece before them, from several threads, beside one that gives memory
    /// back all the while.
    #[test]
    fn uploads_come_unmixed() {
        let Some(Target::Cuda(place)) = gpu(Precision::F32) else { return };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let gpu = &place.gpu;
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    gpu.trim().unwrap();
                    std::thread::yield_now();
                }
            });
            let uploads = [0_u32, 1, 2].map(|thread| {
                scope.spawn(move || {
                    let values = |i: u32| vec![(1000 * thread + i) as f32; 1 + (i * 37 % 50) as usize];
                    let uploaded: Vec<_> = (0..40).map(|i| gpu.upload(&values(i)).unwrap()).collect();
                    for (i, uploaded) in (0..).zip(&uploaded) {
                        let expected = values(i);
                        assert_eq!(gpu.download(uploaded, expected.len()).unwrap(), expected);
                    }
                })
            });
            let ended = uploads.map(std::thread::ScopedJoinHandle::join);
            done.store(true, Ordering::Relaxed);
            assert!(ended.iter().all(Result::is_ok));
        });
    }

    /// One thread needs no more than these pieces, whatever else runs.
    #[test]
    fn pieces_are_used_again() {
        let Some(Target::Cuda(place)) = gpu(Precision::F32) else { return };
        let uploaded: Vec<_> = (0..100).map(|i| place.gpu.upload(&vec![0_u8; 1 + i]).unwrap()).collect();
        drop(uploaded);
        let pieces = lock(&place.gpu.transfers().pieces).len();
        assert!(pieces <= PIECES + std::thread::available_parallelism().unwrap().get() + 64, "{pieces}");
    }

    /// Some are never read, and their memory is used again.
    #[test]
    fn numbers_are_read_in_any_order() {
        let Some(Target::Cuda(place)) = gpu(Precision::F32) else { return };
        for _ in 0..3 {
            let numbers: Vec<Number> =
                (0..10).map(|i| place.gpu.send(&place.gpu.upload(&[f64::from(i)]).unwrap()).unwrap()).collect();
            for i in [7_u8, 2, 9, 0] {
                assert_eq!(numbers[usize::from(i)].read().unwrap(), f64::from(i));
            }
        }
    }
}
