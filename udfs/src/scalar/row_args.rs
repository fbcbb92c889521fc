//! Arguments that may have a value a row: literals are checked at planning, columns where a row is computed.

use std::fmt::Display;
use std::ops::RangeInclusive;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use wae_core::Error;
use wae_core::image::MAX_SIDE;

use crate::error::{Place, row_error};
use crate::scalar::args::{Batch, PlannedArgs};

/// Height and width of a row, unless it has none.
pub(crate) type SizeOfRow = Option<(usize, usize)>;

/// Integers of any width as Int64, from the second argument on.
pub(crate) fn coerce_integers(types: &[DataType]) -> Vec<DataType> {
    let number = |t: &DataType| if t.is_integer() { DataType::Int64 } else { t.clone() };
    types.iter().enumerate().map(|(i, t)| if i == 0 { t.clone() } else { number(t) }).collect()
}

/// The values that an integer may have, as messages name them.
fn range_name(range: &RangeInclusive<i64>) -> String {
    match *range.end() {
        i64::MAX => format!("of at least {}", range.start()),
        end => format!("between {} and {end}", range.start()),
    }
}

impl PlannedArgs<'_> {
    /// The value of an argument that is an integer, where it is a literal other than NULL.
    ///
    /// # Errors
    /// A plan error for an argument of another type, and for a literal outside the range.
    pub(crate) fn integer(&self, index: usize, range: RangeInclusive<i64>) -> Result<Option<i64>> {
        let Some(field) = self.field(index) else { return Ok(None) };
        let refused = |got: &dyn Display| {
            plan_err!(
                "{}: {} must be an integer {}, got {got}",
                self.function(),
                self.parameter(index),
                range_name(&range)
            )
        };
        match self.literal(index) {
            Some(value) if value.is_null() => Ok(None),
            Some(value) => match value.data_type().is_integer().then(|| value.cast_to(&DataType::Int64)) {
                Some(Ok(ScalarValue::Int64(Some(integer)))) if range.contains(&integer) => Ok(Some(integer)),
                _ => refused(value),
            },
            None if field.data_type().is_integer() || field.data_type().is_null() => Ok(None),
            None if self.is_placeholder(index) => Ok(None),
            None => refused(&format!("an expression of type {}", field.data_type())),
        }
    }

    /// The value of an argument that is a size (see [`size_of`]), where it is a literal other than NULL.
    ///
    /// # Errors
    /// A plan error for an argument of another type, and for a literal that is no size.
    pub(crate) fn size(&self, index: usize) -> Result<Option<(usize, usize)>> {
        let parameter = self.parameter(index);
        match (self.literal(index), self.field(index)) {
            (Some(value), _) => size_of(value).or_else(|e| plan_err!("{}: {parameter} {e}", self.function())),
            (None, Some(field)) if !self.is_placeholder(index) => match field.data_type() {
                kind if kind.is_integer() || kind.is_string() || kind.is_null() => Ok(None),
                other => plan_err!(
                    "{}: {parameter} must be a number of pixels or a text such as '224x308', got an expression of \
                     type {other}",
                    self.function()
                ),
            },
            _ => Ok(None),
        }
    }

    /// Checks that an argument, if it is given, is a text; and gives it where it is a literal other than NULL.
    ///
    /// # Errors
    /// A plan error for an argument of another type.
    pub(crate) fn text_of_row(&self, index: usize) -> Result<Option<&str>> {
        let Some(field) = self.field(index).filter(|_| !self.is_placeholder(index)) else { return Ok(None) };
        match (field.data_type().is_string(), self.literal(index)) {
            (true, literal) => Ok(literal.and_then(|value| value.try_as_str().flatten())),
            (false, _) if field.data_type().is_null() => Ok(None),
            (false, _) => plan_err!(
                "{}: {} must be a string, got an expression of type {}",
                self.function(),
                self.parameter(index),
                field.data_type()
            ),
        }
    }
}

impl Batch<'_> {
    /// The integers of an argument that is given.
    pub(crate) fn integers(&self, index: usize) -> Result<Integers> {
        let array = self.array_or_null(index)?;
        // An integer that does not fit is an error, not NULL.
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let integers = cast_with_options(&array, &DataType::Int64, &options)?;
        Ok(Integers(integers.as_primitive::<Int64Type>().clone()))
    }

    /// The texts of an argument; `None` if it is left out.
    pub(crate) fn texts(&self, index: usize) -> Result<Option<StringArray>> {
        let Some(array) = self.array(index)? else { return Ok(None) };
        Ok(Some(cast(&array, &DataType::Utf8)?.as_string().clone()))
    }

    /// The sizes of an argument, NULL or not; `None` if it is left out.
    ///
    /// # Errors
    /// An execution error that names the row of one that is no size.
    pub(crate) fn sizes(&self, index: usize, parameter: &str) -> Result<Option<Vec<SizeOfRow>>> {
        let Some(array) = self.array(index)? else { return Ok(None) };
        let size = |row| {
            let value = ScalarValue::try_from_array(&array, row)?;
            size_of(&value).map_err(|e| row_error(self.function(), Place::Row(row), format!("{parameter} {e}")))
        };
        (0..array.len()).map(size).collect::<Result<_>>().map(Some)
    }

    fn array_or_null(&self, index: usize) -> Result<ArrayRef> {
        match self.array(index)? {
            Some(array) => Ok(array),
            None => ScalarValue::Int64(None).to_array_of_size(self.rows()),
        }
    }
}

/// The integers of an argument.
#[derive(Debug)]
pub(crate) struct Integers(Int64Array);

impl Integers {
    /// The integer of a row, unless it is NULL.
    ///
    /// # Errors
    /// [`Error::Config`] if it is below `least`.
    pub(crate) fn at_least(&self, row: usize, least: usize, parameter: &str) -> wae_core::Result<Option<usize>> {
        if self.0.is_null(row) {
            return Ok(None);
        }
        let value = self.0.value(row);
        let integer = usize::try_from(value).ok().filter(|integer| *integer >= least);
        let refused = || Error::Config(format!("{parameter} must be an integer of at least {least}, got {value}"));
        integer.map(Some).ok_or_else(refused)
    }
}

/// The height and width of a size: a number is both, a text such as '224x308' has each; `None` of NULL. Of anything
/// else, the end of a message.
pub(crate) fn size_of(value: &ScalarValue) -> Result<Option<(usize, usize)>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let expected = || format!("must be a whole number from 1 to {MAX_SIDE}, or two such as '224x308', got {value}");
    let text = match value.try_as_str().flatten() {
        Some(text) => text.to_owned(),
        None if value.data_type().is_integer() => value.to_string(),
        None => return Err(expected()),
    };
    let side = |side: &str| side.trim().parse().ok().filter(|side| (1..=MAX_SIDE).contains(side)).ok_or_else(expected);
    let (height, width) = text.split_once(['x', '×']).unwrap_or((&text, &text));
    Ok(Some((side(height)?, side(width)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_or_two() {
        for value in [ScalarValue::Int64(Some(224)), ScalarValue::UInt8(Some(224)), ScalarValue::from("224")] {
            assert_eq!(size_of(&value), Ok(Some((224, 224))));
        }
        for text in ["224x308", "224 × 308"] {
            assert_eq!(size_of(&ScalarValue::from(text)), Ok(Some((224, 308))));
        }
        assert_eq!(size_of(&ScalarValue::Null), Ok(None));
        for (bad, got) in [
            (ScalarValue::Int64(Some(0)), "0"),
            (ScalarValue::Int32(Some(-1)), "-1"),
            (ScalarValue::from("5000x10"), "5000x10"),
            (ScalarValue::from("x"), "x"),
            (ScalarValue::from(1.5), "1.5"),
        ] {
            let error = size_of(&bad).unwrap_err();
            let expected = format!("must be a whole number from 1 to 4096, or two such as '224x308', got {got}");
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn integers_of_rows_are_checked() {
        let integers = Integers(Int64Array::from(vec![Some(3), None, Some(-1)]));
        assert_eq!(integers.at_least(0, 1, "height").unwrap(), Some(3));
        assert_eq!(integers.at_least(1, 1, "height").unwrap(), None);
        let error = integers.at_least(2, 0, "y").unwrap_err().to_string();
        assert_eq!(error, "y must be an integer of at least 0, got -1");
    }
}
