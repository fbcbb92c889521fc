//! Typed views of the Arrow arrays that hold images: one list level, the pixel values, the encoded bytes.
//!
//! Every view is built by a checked downcast, so that reading a row needs none.

use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BinaryViewArray, FixedSizeListArray, Float16Array,
    Float32Array, Float64Array, LargeBinaryArray, LargeListArray, LargeListViewArray, ListArray, ListViewArray,
    PrimitiveArray, UInt8Array,
};
use arrow::datatypes::DataType;

use super::Pixels;
use crate::error::{Error, Result};

/// One level of lists of any kind.
#[derive(Debug)]
pub(super) enum Lists {
    Fixed(FixedSizeListArray),
    List(ListArray),
    Large(LargeListArray),
    View(ListViewArray),
    LargeView(LargeListViewArray),
}

impl Lists {
    fn try_new(array: &dyn Array) -> Option<Self> {
        match array.data_type() {
            DataType::FixedSizeList(..) => array.as_fixed_size_list_opt().cloned().map(Self::Fixed),
            DataType::List(_) => array.as_list_opt().cloned().map(Self::List),
            DataType::LargeList(_) => array.as_list_opt().cloned().map(Self::Large),
            DataType::ListView(_) => array.as_list_view_opt().cloned().map(Self::View),
            DataType::LargeListView(_) => array.as_list_view_opt().cloned().map(Self::LargeView),
            _ => None,
        }
    }

    fn values(&self) -> &ArrayRef {
        match self {
            Self::Fixed(lists) => lists.values(),
            Self::List(lists) => lists.values(),
            Self::Large(lists) => lists.values(),
            Self::View(lists) => lists.values(),
            Self::LargeView(lists) => lists.values(),
        }
    }

    /// Whether list `index` is NULL.
    pub(super) fn is_null(&self, index: usize) -> bool {
        match self {
            Self::Fixed(lists) => lists.is_null(index),
            Self::List(lists) => lists.is_null(index),
            Self::Large(lists) => lists.is_null(index),
            Self::View(lists) => lists.is_null(index),
            Self::LargeView(lists) => lists.is_null(index),
        }
    }

    /// The place of the items of list `index` among the values. Arrow guarantees offsets that are within them and not
    /// negative.
    fn range(&self, index: usize) -> Range<usize> {
        match self {
            Self::Fixed(lists) => {
                // Not value_offset(): that is an i32, and a column may hold more than 2³¹ pixels.
                let size = usize::try_from(lists.value_length()).unwrap_or_default();
                index * size..(index + 1) * size
            }
            Self::List(lists) => span(lists.offsets().get(index), lists.offsets().get(index + 1)),
            Self::Large(lists) => span(lists.offsets().get(index), lists.offsets().get(index + 1)),
            Self::View(lists) => sized(lists.offsets().get(index), lists.sizes().get(index)),
            Self::LargeView(lists) => sized(lists.offsets().get(index), lists.sizes().get(index)),
        }
    }
}

fn position<T: Copy + TryInto<usize>>(offset: Option<&T>) -> usize {
    offset.and_then(|offset| (*offset).try_into().ok()).unwrap_or_default()
}

fn span<T: Copy + TryInto<usize>>(start: Option<&T>, end: Option<&T>) -> Range<usize> {
    position(start)..position(end)
}

fn sized<T: Copy + TryInto<usize>>(start: Option<&T>, size: Option<&T>) -> Range<usize> {
    let start = position(start);
    start..start.saturating_add(position(size))
}

/// The lists around pixel values, outermost first, and the values themselves.
#[derive(Debug)]
pub(super) struct NestedValues {
    levels: Vec<Lists>,
    values: PixelValues,
}

impl NestedValues {
    /// `None` for anything but lists of UInt8, Float16, Float32 or Float64.
    pub(super) fn try_new(array: &ArrayRef) -> Option<Self> {
        let mut levels = Vec::new();
        let mut array = array;
        while let Some(lists) = Lists::try_new(array) {
            levels.push(lists);
            array = levels.last()?.values();
        }
        Some(Self { values: PixelValues::try_new(array)?, levels })
    }

    /// Whether the outermost list `index` is NULL.
    pub(super) fn is_null(&self, index: usize) -> bool {
        self.levels.first().is_some_and(|lists| lists.is_null(index))
    }

    /// Whether the values are bytes.
    pub(super) fn has_bytes(&self) -> bool {
        matches!(self.values, PixelValues::U8(_))
    }

    /// The values under list `index`, and the length of the lists on each level.
    ///
    /// # Errors
    /// [`Error::Data`] on a null inside, on lists of unequal length on one level, on a float outside [0, 1].
    pub(super) fn read(&self, index: usize) -> Result<(Vec<usize>, Pixels)> {
        let mut lengths = vec![None; self.levels.len()];
        let mut spans = Vec::new();
        collect(&self.levels, index..index + 1, &mut lengths, &mut spans)?;
        Ok((lengths.into_iter().map(Option::unwrap_or_default).collect(), self.values.gather(&spans)?))
    }
}

/// Walks down the lists of `range`, notes each level's length and the spans of values at the bottom.
fn collect(
    levels: &[Lists],
    range: Range<usize>,
    lengths: &mut [Option<usize>],
    spans: &mut Vec<Range<usize>>,
) -> Result<()> {
    let (Some((level, levels)), Some((length, lengths))) = (levels.split_first(), lengths.split_first_mut()) else {
        // Neighbours are merged, so that an image whose lists lie side by side is copied in one piece.
        match spans.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => spans.push(range),
        }
        return Ok(());
    };
    for index in range {
        if level.is_null(index) {
            return Err(Error::Data("an image contains a null list, expected pixel values everywhere".to_owned()));
        }
        let inner = level.range(index);
        match *length {
            Some(length) if length != inner.len() => {
                return Err(Error::Data(format!(
                    "an image has lists of {length} and of {} values on one level, expected equal lengths",
                    inner.len()
                )));
            }
            _ => *length = Some(inner.len()),
        }
        collect(levels, inner, lengths, spans)?;
    }
    Ok(())
}

/// The pixel values at the bottom of the lists.
#[derive(Debug)]
enum PixelValues {
    U8(UInt8Array),
    F16(Float16Array),
    F32(Float32Array),
    F64(Float64Array),
}

impl PixelValues {
    fn try_new(array: &dyn Array) -> Option<Self> {
        match array.data_type() {
            DataType::UInt8 => array.as_primitive_opt().cloned().map(Self::U8),
            DataType::Float16 => array.as_primitive_opt().cloned().map(Self::F16),
            DataType::Float32 => array.as_primitive_opt().cloned().map(Self::F32),
            DataType::Float64 => array.as_primitive_opt().cloned().map(Self::F64),
            _ => None,
        }
    }

    fn gather(&self, spans: &[Range<usize>]) -> Result<Pixels> {
        match self {
            Self::U8(array) => gather(array, spans, Ok).map(Pixels::U8),
            Self::F16(array) => gather(array, spans, |v| unit(v.to_f64(), v.to_f32())).map(Pixels::F32),
            Self::F32(array) => gather(array, spans, |v| unit(f64::from(v), v)).map(Pixels::F32),
            Self::F64(array) => gather(array, spans, |v| unit(v, v as f32)).map(Pixels::F32),
        }
    }
}

/// Passes `pixel` on if its exact `value` lies in [0, 1]; NaN does not.
fn unit(value: f64, pixel: f32) -> Result<f32> {
    if (0.0..=1.0).contains(&value) {
        Ok(pixel + 0.0) // −0.0 becomes 0.0, so that equal images have equal bits
    } else {
        Err(Error::Data(format!(
            "a float image has the pixel value {value}, expected values in [0, 1] (UInt8 images have 0 to 255)"
        )))
    }
}

fn gather<T: ArrowPrimitiveType, V>(
    array: &PrimitiveArray<T>,
    spans: &[Range<usize>],
    convert: impl Fn(T::Native) -> Result<V>,
) -> Result<Vec<V>> {
    let mut out = Vec::with_capacity(spans.iter().map(Range::len).sum());
    for span in spans {
        let Some(values) = array.values().get(span.clone()) else {
            return Err(Error::Data("an image's list points beyond its values".to_owned()));
        };
        if array.nulls().is_some_and(|nulls| nulls.slice(span.start, span.len()).null_count() > 0) {
            return Err(Error::Data("an image contains a null pixel, expected values everywhere".to_owned()));
        }
        for value in values {
            out.push(convert(*value)?);
        }
    }
    Ok(out)
}

/// Encoded images.
#[derive(Debug)]
pub(super) enum Bytes {
    Binary(BinaryArray),
    Large(LargeBinaryArray),
    View(BinaryViewArray),
}

impl Bytes {
    /// `None` for anything but Binary, LargeBinary and BinaryView.
    pub(super) fn try_new(array: &dyn Array) -> Option<Self> {
        match array.data_type() {
            DataType::Binary => array.as_binary_opt().cloned().map(Self::Binary),
            DataType::LargeBinary => array.as_binary_opt().cloned().map(Self::Large),
            DataType::BinaryView => array.as_binary_view_opt().cloned().map(Self::View),
            _ => None,
        }
    }

    /// The bytes of row `index`, unless they are NULL. The row must exist.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        match self {
            Self::Binary(array) => array.is_valid(index).then(|| array.value(index)),
            Self::Large(array) => array.is_valid(index).then(|| array.value(index)),
            Self::View(array) => array.is_valid(index).then(|| array.value(index)),
        }
    }
}
