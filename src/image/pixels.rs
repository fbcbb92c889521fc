//! The values of images, as bytes or as floats.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

/// Bytes that a task converts.
const CONVERTED: usize = 1 << 13;

/// The values of an image in (H, W, C) order, or those of several after one another.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// 0..=255, meaning v / 255.
    U8(Vec<u8>),
    /// In [0, 1]; of features and of what is made by [`super::rescale()`] and [`super::crop()`], of any range.
    F32(Vec<f32>),
}

impl Pixels {
    /// Number of values.
    pub fn len(&self) -> usize {
        PixelSlice::from(self).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for more values; `false` if memory has none.
    pub(super) fn reserve(&mut self, values: usize) -> bool {
        match self {
            Self::U8(own) => own.try_reserve_exact(values).is_ok(),
            Self::F32(own) => own.try_reserve_exact(values).is_ok(),
        }
    }

    /// No values, of the same kind.
    pub(super) fn none(&self) -> Self {
        match self {
            Self::U8(_) => Self::U8(Vec::new()),
            Self::F32(_) => Self::F32(Vec::new()),
        }
    }
}

impl From<Vec<u8>> for Pixels {
    fn from(values: Vec<u8>) -> Self {
        Self::U8(values)
    }
}

impl From<Vec<f32>> for Pixels {
    fn from(values: Vec<f32>) -> Self {
        Self::F32(values)
    }
}

/// Borrowed [`Pixels`]. Slices and vectors of bytes or floats are turned into it by `into()`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PixelSlice<'a> {
    /// 0..=255, meaning v / 255.
    U8(&'a [u8]),
    /// In [0, 1].
    F32(&'a [f32]),
}

impl<'a> PixelSlice<'a> {
    /// Number of values.
    pub fn len(self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The values of a range, which must lie within.
    pub(crate) fn range(self, range: Range<usize>) -> Self {
        match self {
            Self::U8(values) => Self::U8(&values[range]),
            Self::F32(values) => Self::F32(&values[range]),
        }
    }

    /// The values in [0, 1]: bytes are converted, in parallel where they are many, and floats are what they are.
    pub(crate) fn to_f32(self) -> Cow<'a, [f32]> {
        match self {
            Self::U8(bytes) => {
                let mut values = vec![0.0; bytes.len()];
                let chunks = values.par_chunks_mut(CONVERTED).zip(bytes.par_chunks(CONVERTED));
                chunks.for_each(|(values, bytes)| write_f32(bytes, values));
                Cow::Owned(values)
            }
            Self::F32(values) => Cow::Borrowed(values),
        }
    }
}

/// Writes bytes as floats: a true division, so that a Float32 column made as v / 255 gives the same bits.
pub(super) fn write_f32(bytes: &[u8], out: &mut [f32]) {
    out.iter_mut().zip(bytes).for_each(|(out, v)| *out = f32::from(*v) / 255.0);
}

impl<'a> From<&'a [u8]> for PixelSlice<'a> {
    fn from(values: &'a [u8]) -> Self {
        Self::U8(values)
    }
}

impl<'a> From<&'a [f32]> for PixelSlice<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a Vec<u8>> for PixelSlice<'a> {
    fn from(values: &'a Vec<u8>) -> Self {
        Self::U8(values)
    }
}

impl<'a> From<&'a Vec<f32>> for PixelSlice<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a Pixels> for PixelSlice<'a> {
    fn from(pixels: &'a Pixels) -> Self {
        match pixels {
            Pixels::U8(values) => Self::U8(values),
            Pixels::F32(values) => Self::F32(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More bytes than a task converts, the last task's not full.
    #[test]
    fn bytes_are_their_quotients_and_floats_stay_where_they_are() {
        let bytes: Vec<u8> = (0..3 * CONVERTED + 5).map(|i| (i % 256) as u8).collect();
        let expected: Vec<f32> = bytes.iter().map(|v| f32::from(*v) / 255.0).collect();
        assert_eq!(PixelSlice::from(&bytes).to_f32(), expected);
        assert_eq!(*PixelSlice::from(&bytes).range(256..512).to_f32(), expected[..256]);
        let floats = PixelSlice::from(&expected).range(1..4).to_f32();
        assert!(matches!(floats, Cow::Borrowed(values) if std::ptr::eq(values, &expected[1..4])));
        assert!(Pixels::from(Vec::<u8>::new()).is_empty() && Pixels::from(expected).len() == bytes.len());
    }
}
