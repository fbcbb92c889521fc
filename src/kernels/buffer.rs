//! Memory that many tasks write at once.

use std::mem::MaybeUninit;

/// An output buffer that starts uninitialised, since each kernel writes all of it: zeroing 50 MB first would cost as much
/// as a small layer.
pub(super) struct Output(Vec<MaybeUninit<f32>>);

impl Output {
    /// Room for `len` values.
    pub(super) fn new(len: usize) -> Self {
        let mut values = Vec::with_capacity(len);
        // SAFETY: `MaybeUninit` needs no initialisation, and the capacity is `len`.
        unsafe { values.set_len(len) };
        Self(values)
    }

    /// A pointer for tasks that write disjoint values.
    pub(super) fn as_shared(&mut self) -> Shared {
        Shared(self.0.as_mut_ptr().cast())
    }

    /// The values.
    ///
    /// # Safety
    /// Every value has been written.
    pub(super) unsafe fn assume_init(self) -> Vec<f32> {
        let mut values = std::mem::ManuallyDrop::new(self.0);
        // SAFETY: `MaybeUninit<f32>` has the layout of f32, the parts come from a Vec, and the caller vouches for the values.
        unsafe { Vec::from_raw_parts(values.as_mut_ptr().cast(), values.len(), values.capacity()) }
    }
}

/// A pointer that tasks share. They must write disjoint values within its buffer, and end before the buffer is used.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut f32);

// SAFETY: the pointer itself is plain data; whoever writes through it vouches for disjointness (see the type).
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn of(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// The address of value `index`.
    ///
    /// # Safety
    /// `index` lies within the buffer.
    #[inline]
    pub(super) unsafe fn at(self, index: usize) -> *mut f32 {
        // SAFETY: the caller vouches for the index.
        unsafe { self.0.add(index) }
    }
}
