//! The pixel values at the bottom of lists, of any type, as bytes or as floats in [0, 1].

use std::fmt::Display;
use std::ops::Range;

use arrow::array::{
    Array, ArrowPrimitiveType, AsArray, BooleanArray, Float16Array, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, PrimitiveArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use super::Pixels;
use super::meaning::Meaning;
use crate::error::{Error, Result};

/// A float this far outside [0, 1] is a rounding error.
pub(super) const TOLERANCE: f64 = 1e-5;

/// The pixel values at the bottom of the lists.
#[derive(Debug)]
pub(super) enum PixelValues {
    Bool(BooleanArray),
    I8(Int8Array),
    I16(Int16Array),
    I32(Int32Array),
    I64(Int64Array),
    U8(UInt8Array),
    U16(UInt16Array),
    U32(UInt32Array),
    U64(UInt64Array),
    F16(Float16Array),
    F32(Float32Array),
    F64(Float64Array),
}

impl PixelValues {
    /// `None` for anything but Booleans, integers and floats.
    pub(super) fn try_new(array: &dyn Array) -> Option<Self> {
        match array.data_type() {
            DataType::Boolean => array.as_boolean_opt().cloned().map(Self::Bool),
            DataType::Int8 => array.as_primitive_opt().cloned().map(Self::I8),
            DataType::Int16 => array.as_primitive_opt().cloned().map(Self::I16),
            DataType::Int32 => array.as_primitive_opt().cloned().map(Self::I32),
            DataType::Int64 => array.as_primitive_opt().cloned().map(Self::I64),
            DataType::UInt8 => array.as_primitive_opt().cloned().map(Self::U8),
            DataType::UInt16 => array.as_primitive_opt().cloned().map(Self::U16),
            DataType::UInt32 => array.as_primitive_opt().cloned().map(Self::U32),
            DataType::UInt64 => array.as_primitive_opt().cloned().map(Self::U64),
            DataType::Float16 => array.as_primitive_opt().cloned().map(Self::F16),
            DataType::Float32 => array.as_primitive_opt().cloned().map(Self::F32),
            DataType::Float64 => array.as_primitive_opt().cloned().map(Self::F64),
            _ => None,
        }
    }

    /// Whether the values come out as bytes: all integers do, except those of 16 bits without a sign.
    pub(super) fn has_bytes(&self) -> bool {
        !self.is_floating() && !matches!(self, Self::U16(_))
    }

    /// The values of these spans, one after another.
    ///
    /// # Errors
    /// [`Error::Data`] on a null, and on a value outside the range of its type; of features and numbers, on a
    /// float that is not finite, and of features on integers.
    pub(super) fn gather(&self, spans: &[Range<usize>], meaning: Meaning) -> Result<Pixels> {
        match meaning {
            Meaning::Numbers if !self.is_floating() => self.gather_pixels(spans),
            Meaning::Pixels => self.gather_pixels(spans),
            Meaning::Features | Meaning::Numbers => self.gather_numbers(spans, meaning).map(Pixels::F32),
        }
    }

    fn is_floating(&self) -> bool {
        matches!(self, Self::F16(_) | Self::F32(_) | Self::F64(_))
    }

    fn gather_numbers(&self, spans: &[Range<usize>], meaning: Meaning) -> Result<Vec<f32>> {
        match self {
            Self::F16(array) => gather(array, spans, meaning, |v| finite(v.to_f64(), v.to_f32(), meaning)),
            Self::F32(array) => gather(array, spans, meaning, |v| finite(f64::from(v), v, meaning)),
            Self::F64(array) => gather(array, spans, meaning, |v| finite(v, v as f32, meaning)),
            _ => Err(Error::Data("features are floats, got integers or Booleans".to_owned())),
        }
    }

    fn gather_pixels(&self, spans: &[Range<usize>]) -> Result<Pixels> {
        let meaning = Meaning::Pixels;
        match self {
            Self::Bool(array) => gather_bits(array, spans).map(Pixels::U8),
            Self::I8(array) => gather(array, spans, meaning, byte).map(Pixels::U8),
            Self::I16(array) => gather(array, spans, meaning, byte).map(Pixels::U8),
            Self::I32(array) => gather(array, spans, meaning, byte).map(Pixels::U8),
            Self::I64(array) => gather(array, spans, meaning, byte).map(Pixels::U8),
            Self::U8(array) => gather(array, spans, meaning, Ok).map(Pixels::U8),
            Self::U16(array) => gather(array, spans, meaning, |v| Ok(f32::from(v) / 65_535.0)).map(Pixels::F32),
            Self::U32(array) => gather(array, spans, meaning, byte).map(Pixels::U8),
            Self::U64(array) => gather(array, spans, meaning, byte).map(Pixels::U8),
            Self::F16(array) => gather(array, spans, meaning, |v| unit(v.to_f64(), v.to_f32())).map(Pixels::F32),
            Self::F32(array) => gather(array, spans, meaning, |v| unit(f64::from(v), v)).map(Pixels::F32),
            Self::F64(array) => gather(array, spans, meaning, |v| unit(v, v as f32)).map(Pixels::F32),
        }
    }
}

/// Passes an integer on if it is a byte.
fn byte<T: Copy + Display + TryInto<u8>>(value: T) -> Result<u8> {
    value.try_into().map_err(|_| {
        Error::Data(format!("an image of integers has the pixel value {value}, expected values from 0 to 255"))
    })
}

/// Passes `pixel` on if its exact `value` lies in [0, 1] or is a rounding error outside; NaN does not.
fn unit(value: f64, pixel: f32) -> Result<f32> {
    if (0.0..=1.0).contains(&value) {
        Ok(pixel + 0.0) // −0.0 becomes 0.0, so that equal images have equal bits
    } else if (-TOLERANCE..=1.0 + TOLERANCE).contains(&value) {
        Ok(if value < 0.0 { 0.0 } else { 1.0 })
    } else {
        Err(Error::Data(format!(
            "a float image has the pixel value {value}, expected values in [0, 1] (UInt8 images have 0 to 255): a model of \
             numbers of any range is trained with input => 'features'"
        )))
    }
}

/// Passes `number` on if it is finite, as its exact `value` is unless it does not fit.
fn finite(value: f64, number: f32, meaning: Meaning) -> Result<f32> {
    if number.is_finite() {
        return Ok(number + 0.0); // as for pixels
    }
    let expected = if value.is_finite() { "numbers that fit into 32 bits" } else { "finite numbers" };
    Err(Error::Data(format!("{} has the value {value}, expected {expected}", meaning.row())))
}

fn gather<T: ArrowPrimitiveType, V>(
    array: &PrimitiveArray<T>,
    spans: &[Range<usize>],
    meaning: Meaning,
    convert: impl Fn(T::Native) -> Result<V>,
) -> Result<Vec<V>> {
    let mut out = Vec::with_capacity(spans.iter().map(Range::len).sum());
    for span in spans {
        let values = array.values().get(span.clone()).ok_or_else(beyond)?;
        check_nulls(array.nulls(), span, meaning)?;
        for value in values {
            out.push(convert(*value)?);
        }
    }
    Ok(out)
}

/// Bits as black and white.
fn gather_bits(array: &BooleanArray, spans: &[Range<usize>]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(spans.iter().map(Range::len).sum());
    for span in spans {
        if span.end > array.len() {
            return Err(beyond());
        }
        check_nulls(array.nulls(), span, Meaning::Pixels)?;
        let bits = array.values().slice(span.start, span.len());
        out.extend(bits.iter().map(|bit| if bit { 255 } else { 0 }));
    }
    Ok(out)
}

fn beyond() -> Error {
    Error::Data("an image's list points beyond its values".to_owned())
}

fn check_nulls(nulls: Option<&NullBuffer>, span: &Range<usize>, meaning: Meaning) -> Result<()> {
    if nulls.is_some_and(|nulls| nulls.slice(span.start, span.len()).null_count() > 0) {
        let row = meaning.row();
        let value = meaning.value();
        return Err(Error::Data(format!("{row} contains a null {value}, expected values everywhere")));
    }
    Ok(())
}
