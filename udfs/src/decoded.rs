//! The rows that a model decodes, as users have them: images as bytes, features in the units that they came in.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, UInt8Array};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use wae_core::Config;
use wae_core::image::tensor_field;

use crate::columns::{buffer, image_field, scatter, to_bytes, unknown_image_field};
use crate::models::LoadedModel;

/// The values of decoded rows, end to end.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// Images.
    Bytes(Vec<u8>),
    /// Features.
    Floats(Vec<f32>),
}

impl Decoded {
    /// Room for so many rows.
    ///
    /// # Errors
    /// An execution error where memory has no room.
    pub(crate) fn with_rows(function: &str, rows: usize, model: &LoadedModel) -> Result<Self> {
        let config = model.wae().config();
        let width = config.source().len();
        match config.input() {
            None => buffer(function, rows, width).map(Self::Bytes),
            Some(_) => buffer(function, rows, width).map(Self::Floats),
        }
    }

    /// The rows that the decoder gave, (N, H, W, C).
    pub(crate) fn of(model: &LoadedModel, decoded: &[f32]) -> Self {
        match model.wae().whitening() {
            None => Self::Bytes(to_bytes(decoded)),
            Some(whitening) => Self::Floats(whitening.undo(decoded)),
        }
    }

    /// Whether there are no values.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Bytes of the values.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Floats(values) => size_of_val(values.as_slice()),
        }
    }

    /// Puts rows in their places.
    pub(crate) fn put(&mut self, rows: &[usize], decoded: &Self) {
        match (self, decoded) {
            (Self::Bytes(into), Self::Bytes(values)) => scatter(into, rows, values),
            (Self::Floats(into), Self::Floats(values)) => scatter(into, rows, values),
            _ => {}
        }
    }

    /// Adds rows of the same model at the end.
    pub(crate) fn extend(&mut self, decoded: Self) {
        match (self, decoded) {
            (Self::Bytes(into), Self::Bytes(values)) => into.extend(values),
            (Self::Floats(into), Self::Floats(values)) => into.extend(values),
            (this, decoded) if this.is_empty() => *this = decoded,
            _ => {}
        }
    }

    /// The values as an array.
    pub(crate) fn into_array(self) -> ArrayRef {
        match self {
            Self::Bytes(values) => Arc::new(UInt8Array::from(values)),
            Self::Floats(values) => Arc::new(Float32Array::from(values)),
        }
    }
}

/// The field of a column of rows as a model makes them; without a model, a list without a shape.
pub(crate) fn decoded_field(name: &str, model: Option<&LoadedModel>) -> Field {
    model.map_or_else(|| unknown_image_field(name), |model| field_of(name, model.wae().config()))
}

/// Image tensors of UInt8; tensors of Float32 for maps of features, and lists for vectors.
fn field_of(name: &str, config: &Config) -> Field {
    let shape = config.source();
    if config.input().is_none() {
        return image_field(name, shape);
    }
    if shape.height() * shape.width() == 1 {
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        return Field::new(name, DataType::FixedSizeList(item, shape.channels() as i32), true);
    }
    let dims = [("H", shape.height()), ("W", shape.width()), ("C", shape.channels())];
    tensor_field(name, DataType::Float32, &dims, true)
}
