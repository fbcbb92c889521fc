//! Columns of images and codes: what a field holds, the fields of results, their arrays.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeListArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err};
use wae_core::ImageShape;
use wae_core::image::{ImageType, tensor_field};

use crate::models::LoadedModel;

/// The images that a field holds.
///
/// # Errors
/// A message that says what holds images.
pub(crate) fn image_type(field: &Field) -> Result<ImageType, String> {
    ImageType::try_new(field).map_err(|error| error.to_string())
}

/// The items of a list.
pub(crate) fn list_item(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}

/// Room for `rows` · `width` values; where memory has none, an error rather than the end of the process.
pub(crate) fn buffer<T: Clone + Default>(function: &str, rows: usize, width: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let fits = rows.checked_mul(width).filter(|count| values.try_reserve_exact(*count).is_ok());
    let Some(count) = fits else {
        return exec_err!(
            "{function}: {rows} rows of {width} values do not fit in memory, expected a smaller \
             datafusion.execution.batch_size"
        );
    };
    values.resize(count, T::default());
    Ok(values)
}

/// The features that a field holds.
///
/// # Errors
/// A message that says what holds features.
pub(crate) fn features_type(field: &Field) -> Result<ImageType, String> {
    ImageType::of_features(field).map_err(|error| error.to_string())
}

/// The end of the message for a batch whose images are too many.
pub(crate) const SMALLER_BATCH: &str = "a smaller datafusion.execution.batch_size";

/// Refuses a batch whose lists or binary values together are more than an array with offsets of 32 bits holds.
pub(crate) fn check_offsets(function: &str, bytes: usize) -> Result<()> {
    check_length(function, bytes, SMALLER_BATCH)
}

/// As [`check_offsets`], of values for which the end of the message is `expected`.
pub(crate) fn check_length(function: &str, bytes: usize, expected: &str) -> Result<()> {
    if bytes > i32::MAX as usize {
        return exec_err!("{function}: a batch of images above 2 GiB, expected {expected}");
    }
    Ok(())
}

/// The field of an image tensor of UInt8, (H, W, C).
pub(crate) fn image_field(name: &str, shape: ImageShape) -> Field {
    let dims = [("H", shape.height()), ("W", shape.width()), ("C", shape.channels())];
    tensor_field(name, DataType::UInt8, &dims, true)
}

/// The field of images whose shape a prepared parameter will tell: a list without a shape, which any check lets pass.
pub(crate) fn unknown_image_field(name: &str) -> Field {
    let item = Field::new_list_field(DataType::UInt8, true);
    Field::new(name, DataType::FixedSizeList(Arc::new(item), 0), true)
}

/// The field of a column of latent codes: its items are nullable, since array functions such as `array_normalize` take
/// no others.
pub(crate) fn code_field(name: &str, model: Option<&LoadedModel>) -> Field {
    let width = model.map_or(0, |m| m.wae().config().latent_dim());
    let item = Field::new_list_field(DataType::Float32, true);
    Field::new(name, DataType::FixedSizeList(Arc::new(item), width as i32), true)
}

/// The height and width of a model's maps.
pub(crate) fn map_size(model: &LoadedModel) -> (usize, usize) {
    model.wae().config().map_size()
}

/// The field of maps of Float32, (H, W); without a model, a list without a shape.
pub(crate) fn map_field(name: &str, model: Option<&LoadedModel>) -> Field {
    places_field(name, DataType::Float32, model)
}

/// The field of masks of UInt8 at the size of maps, (H, W); without a model, a list without a shape.
pub(crate) fn mask_field(name: &str, model: Option<&LoadedModel>) -> Field {
    places_field(name, DataType::UInt8, model)
}

fn places_field(name: &str, number: DataType, model: Option<&LoadedModel>) -> Field {
    match model.map(map_size) {
        Some((height, width)) => tensor_field(name, number, &[("H", height), ("W", width)], true),
        None => {
            let item = Field::new_list_field(number, true);
            Field::new(name, DataType::FixedSizeList(Arc::new(item), 0), true)
        }
    }
}

/// A column of lists of one length, as the field says.
pub(crate) fn fixed_size_list(field: &Field, values: ArrayRef, nulls: NullBuffer) -> Result<ArrayRef> {
    let DataType::FixedSizeList(item, length) = field.data_type() else {
        return exec_err!("a list of one length expected, got {}", field.data_type());
    };
    Ok(Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *length, values, Some(nulls))?))
}

/// Values in [0, 1] as bytes: round(255·v).
pub(crate) fn to_bytes(values: &[f32]) -> Vec<u8> {
    // The cast saturates, so that rounding errors beyond the range stay in it.
    values.iter().map(|v| (v * 255.0).round() as u8).collect()
}

/// Puts values of rows, equally many each, in their rows' places.
pub(crate) fn scatter<T: Copy>(into: &mut [T], rows: &[usize], values: &[T]) {
    let width = values.len() / rows.len();
    for (row, values) in rows.iter().zip(values.chunks_exact(width)) {
        if let Some(place) = into.get_mut(row * width..(row + 1) * width) {
            place.copy_from_slice(values);
        }
    }
}

/// The one value of an argument that came as an array, as the C interface passes literals.
pub(crate) fn constant(function: &str, parameter: &str, array: &ArrayRef) -> Result<ScalarValue> {
    if array.is_empty() {
        return ScalarValue::try_from(array.data_type());
    }
    let first = ScalarValue::try_from_array(array, 0)?;
    for row in 1..array.len() {
        if ScalarValue::try_from_array(array, row)? != first {
            return exec_err!("{function}: {parameter} must be the same in all rows");
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_too_large_is_an_error() {
        assert_eq!(buffer::<u8>("f", 2, 3).unwrap(), [0; 6]);
        for (rows, width) in [(usize::MAX, 2), (1 << 40, 1 << 22)] {
            let error = buffer::<f32>("f", rows, width).unwrap_err().strip_backtrace();
            assert!(error.contains(&format!("f: {rows} rows of {width} values do not fit in memory")), "{error}");
        }
        check_offsets("f", i32::MAX as usize).unwrap();
        let error = check_offsets("f", 1 << 31).unwrap_err().strip_backtrace();
        assert!(error.contains("f: a batch of images above 2 GiB, expected a smaller datafusion"), "{error}");
        let error = check_length("f", 1 << 31, "fewer groups").unwrap_err().strip_backtrace();
        assert!(error.contains("f: a batch of images above 2 GiB, expected fewer groups"), "{error}");
    }

    #[test]
    fn bytes_are_rounded_and_stay_in_range() {
        assert_eq!(to_bytes(&[0.0, 0.5, 1.0, 1.001, -0.1, 1.0 / 255.0]), [0, 128, 255, 255, 0, 1]);
    }
}
