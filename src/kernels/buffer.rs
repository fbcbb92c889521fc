//! Memory that many tasks write at once.

use std::mem::MaybeUninit;

/// An output buffer that starts uninitialised, since each kernel writes all of it: zeroing 50 MB first would cost as
/// much as a small layer.
pub(super) struct Output<T>(Vec<MaybeUninit<T>>);

impl<T: Copy> Output<T> {
    /// Room for `len` values.
    pub(super) fn new(len: usize) -> Self {
        let mut values = Vec::with_capacity(len);
        // SAFETY: `MaybeUninit` needs no initialisation, and the capacity is `len`.
        unsafe { values.set_len(len) };
        Self(values)
    }

    /// The values, to be written.
    pub(super) fn values(&mut self) -> &mut [MaybeUninit<T>] {
        &mut self.0
    }

    /// A pointer for tasks that write disjoint values.
    pub(super) fn as_shared(&mut self) -> Shared<T> {
        Shared(self.0.as_mut_ptr().cast())
    }

    /// The values.
    ///
    /// # Safety
    /// Every value has been written.
    pub(super) unsafe fn assume_init(self) -> Vec<T> {
        let mut values = std::mem::ManuallyDrop::new(self.0);
        // SAFETY: `MaybeUninit<T>` has the layout of T, the parts come from a Vec, and the caller vouches for the
        // values.
        unsafe { Vec::from_raw_parts(values.as_mut_ptr().cast(), values.len(), values.capacity()) }
    }
}

/// A pointer that tasks share. They must write disjoint values within its buffer, and end before the buffer is used.
#[derive(Clone, Copy)]
pub(super) struct Shared<T>(*mut T);

// SAFETY: the pointer itself is plain data; whoever writes through it vouches for disjointness (see the type).
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(super) fn of(values: &mut [T]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// The address of value `index`.
    ///
    /// # Safety
    /// `index` lies within the buffer, or at its end.
    #[inline]
    pub(super) unsafe fn at(self, index: usize) -> *mut T {
        // SAFETY: the caller vouches for the index.
        unsafe { self.0.add(index) }
    }

    /// The buffer from value `index` on.
    ///
    /// # Safety
    /// As for [`Self::at`].
    pub(super) unsafe fn from(self, index: usize) -> Self {
        // SAFETY: the caller vouches for the index.
        Self(unsafe { self.at(index) })
    }
}
