//! Columns of image tensors that functions make: of one shape, where planning knows it, or of a shape a row.
//!
//! | planning knows | type |
//! |---|---|
//! | height, width and channels | `arrow.fixed_shape_tensor` |
//! | not all of them | `arrow.variable_shape_tensor`: a struct of `data`, a list, and `shape` |
//!
//! Images of integers and encoded ones make UInt8, those of floats and of UInt16 Float32. Images without an axis of
//! channels, such as maps, make tensors without one.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Int32Array, ListArray, StructArray, UInt8Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, exec_err};
use wae_core::image::{Image, ImageShape, ImageType, Pixels, has_bytes, tensor_field};

use crate::columns::{SMALLER_BATCH, check_length, fixed_size_list};

/// The names of the axes of a tensor.
const AXES: [&str; 3] = ["H", "W", "C"];

/// Height and width of a tensor, as planning knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// These, in every row.
    Known(usize, usize),
    /// Those of the parameters of a prepared statement, which have no value yet.
    Prepared,
    /// Each row has its own.
    PerRow,
}

/// The form of tensors that are made from images of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TensorForm {
    floats: bool,
    channels: Option<usize>,
    /// Whether there is an axis of channels.
    channel_axis: bool,
}

impl TensorForm {
    /// Bytes of any number of channels.
    pub(crate) const BYTES: Self = Self { floats: false, channels: None, channel_axis: true };

    /// The form of tensors from images of a field.
    ///
    /// # Errors
    /// Those of [`ImageType::try_new`].
    pub(crate) fn of(field: &Field) -> wae_core::Result<Self> {
        let image_type = ImageType::try_new(field)?;
        Ok(Self {
            floats: !has_bytes(field),
            channels: image_type.channels(),
            channel_axis: image_type.has_channel_axis(),
        })
    }

    /// The field of tensors of a size.
    pub(crate) fn field(self, name: &str, size: Size) -> Field {
        let item = if self.floats { DataType::Float32 } else { DataType::UInt8 };
        match (size, self.channels) {
            (Size::Known(height, width), Some(channels)) if is_list_length(height, width, channels) => {
                let dims = [("H", height), ("W", width), ("C", channels)];
                tensor_field(name, item, &dims[..self.rank()], true)
            }
            // A list without a shape, which any check lets pass.
            (Size::Prepared, Some(_)) => Field::new(name, DataType::FixedSizeList(list_item(item), 0), true),
            _ => variable_field(name, item, self.rank()),
        }
    }

    fn rank(self) -> usize {
        if self.channel_axis { 3 } else { 2 }
    }
}

fn is_list_length(height: usize, width: usize, channels: usize) -> bool {
    let values = height.checked_mul(width).and_then(|places| places.checked_mul(channels));
    values.is_some_and(|values| i32::try_from(values).is_ok())
}

fn list_item(item: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(item, true))
}

/// The field of tensors of a shape a row. Its parts are nullable, since a field taken out of a struct
/// (`image['shape']`) does not know that the struct was NULL.
fn variable_field(name: &str, item: DataType, rank: usize) -> Field {
    let axes: Vec<_> = AXES[..rank].iter().map(|axis| format!("\"{axis}\"")).collect();
    let metadata = HashMap::from([
        ("ARROW:extension:name".to_owned(), "arrow.variable_shape_tensor".to_owned()),
        ("ARROW:extension:metadata".to_owned(), format!(r#"{{"dim_names":[{}]}}"#, axes.join(","))),
    ]);
    let shape = DataType::FixedSizeList(list_item(DataType::Int32), rank as i32);
    let fields = vec![Field::new("data", DataType::List(list_item(item)), true), Field::new("shape", shape, true)];
    Field::new(name, DataType::Struct(fields.into()), true).with_metadata(metadata)
}

/// A column of tensors while it is made, row by row.
#[derive(Debug)]
pub(crate) struct Tensors {
    function: &'static str,
    /// The end of the message for images that are too many.
    expected: &'static str,
    shapes: Vec<Option<ImageShape>>,
    /// The values of the rows that have a tensor, one after another.
    values: Option<Pixels>,
}

impl Tensors {
    /// A column without rows, of a function.
    pub(crate) fn new(function: &'static str) -> Self {
        Self { function, expected: SMALLER_BATCH, shapes: Vec::new(), values: None }
    }

    /// The same column, with the end of the message for images that are too many.
    pub(crate) fn expecting(self, expected: &'static str) -> Self {
        Self { expected, ..self }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Those of [`Tensors::extend`].
    pub(crate) fn push(&mut self, image: Option<Image>) -> Result<()> {
        match image {
            Some(image) => {
                let shape = image.shape();
                self.extend(shape, 1, image.into_pixels())
            }
            None => {
                self.shapes.push(None);
                Ok(())
            }
        }
    }

    /// Adds rows without a tensor, up to a number of rows.
    pub(crate) fn fill(&mut self, rows: usize) {
        self.shapes.resize(rows.max(self.shapes.len()), None);
    }

    /// Adds rows of one shape, whose values stand one after another.
    ///
    /// # Errors
    /// An execution error if memory has no room for them.
    pub(crate) fn extend(&mut self, shape: ImageShape, rows: usize, values: Pixels) -> Result<()> {
        let count = values.len();
        let fits = match (&mut self.values, values) {
            (Some(Pixels::U8(own)), Pixels::U8(values)) => append(own, &values),
            (Some(Pixels::F32(own)), Pixels::F32(values)) => append(own, &values),
            (own @ None, values) => {
                *own = Some(values);
                true
            }
            _ => return exec_err!("{}: images of bytes and of floats came together", self.function),
        };
        if !fits {
            return exec_err!(
                "{}: {count} more values do not fit in memory, expected {}",
                self.function,
                self.expected
            );
        }
        self.shapes.extend(std::iter::repeat_n(Some(shape), rows));
        Ok(())
    }

    /// The column, of the type that planning promised.
    ///
    /// # Errors
    /// An execution error if the images do not have the shape of that type, or are too many for one array.
    pub(crate) fn finish(self, field: &Field) -> Result<ArrayRef> {
        match field.data_type() {
            DataType::FixedSizeList(item, length) => self.fixed(field, item, *length as usize),
            DataType::Struct(fields) => self.variable(fields),
            other => exec_err!("{}: a tensor expected, got {other}", self.function),
        }
    }

    fn fixed(self, field: &Field, item: &Field, length: usize) -> Result<ArrayRef> {
        if let Some(other) = self.shapes.iter().flatten().find(|shape| shape.len() != length) {
            let planned = field.data_type();
            return exec_err!("{}: images of shape {other} do not fit the planned type {planned}", self.function);
        }
        let nulls = self.nulls();
        let values = match self.values {
            Some(Pixels::U8(values)) => Some(Pixels::U8(spread(values, &nulls, length))),
            Some(Pixels::F32(values)) => Some(Pixels::F32(spread(values, &nulls, length))),
            None => None,
        };
        let values = array(self.function, values, item.data_type(), nulls.len() * length)?;
        fixed_size_list(field, values, nulls)
    }

    fn variable(self, fields: &Fields) -> Result<ArrayRef> {
        let nulls = Some(self.nulls());
        let [data, shape] = fields.as_ref() else { return exec_err!("{}: no tensor of two fields", self.function) };
        let DataType::List(item) = data.data_type() else {
            return exec_err!("{}: no tensor of a list", self.function);
        };
        let DataType::FixedSizeList(size, rank) = shape.data_type() else {
            return exec_err!("{}: no tensor with a shape", self.function);
        };
        check_length(self.function, self.values.as_ref().map_or(0, Pixels::len), self.expected)?;
        let length = |shape: &Option<ImageShape>| shape.map_or(0, ImageShape::len);
        let offsets = OffsetBuffer::from_lengths(self.shapes.iter().map(length));
        let sides = |shape: &Option<ImageShape>| {
            shape.map_or([0; 3], |s| [s.height() as i32, s.width() as i32, s.channels() as i32])
        };
        let sizes: Int32Array = self.shapes.iter().flat_map(|s| sides(s).into_iter().take(*rank as usize)).collect();
        let values = array(self.function, self.values, item.data_type(), 0)?;
        let data = ListArray::try_new(Arc::clone(item), offsets, values, nulls.clone())?;
        let sizes = FixedSizeListArray::try_new(Arc::clone(size), *rank, Arc::new(sizes), nulls.clone())?;
        let columns: Vec<ArrayRef> = vec![Arc::new(data), Arc::new(sizes)];
        Ok(Arc::new(StructArray::try_new(fields.clone(), columns, nulls)?))
    }

    fn nulls(&self) -> NullBuffer {
        self.shapes.iter().map(Option::is_some).collect::<Vec<_>>().into()
    }
}

/// Appends values, unless memory has no room for them.
fn append<T: Copy>(own: &mut Vec<T>, values: &[T]) -> bool {
    let fits = own.try_reserve(values.len()).is_ok();
    if fits {
        own.extend_from_slice(values);
    }
    fits
}

/// The values of all rows, with zeros under the NULL ones.
fn spread<T: Copy + Default>(values: Vec<T>, nulls: &NullBuffer, length: usize) -> Vec<T> {
    if nulls.null_count() == 0 || length == 0 {
        return values;
    }
    let mut out = vec![T::default(); nulls.len() * length];
    let places = out.chunks_exact_mut(length).zip(nulls).filter(|(_, valid)| *valid);
    places.zip(values.chunks_exact(length)).for_each(|((place, _), values)| place.copy_from_slice(values));
    out
}

/// Values as an array of a type; `zeros` of them where no row has any.
fn array(function: &str, values: Option<Pixels>, item: &DataType, zeros: usize) -> Result<ArrayRef> {
    match (values, item) {
        (Some(Pixels::U8(values)), DataType::UInt8) => Ok(Arc::new(UInt8Array::from(values))),
        (Some(Pixels::F32(values)), DataType::Float32) => Ok(Arc::new(Float32Array::from(values))),
        (None, DataType::UInt8) => Ok(Arc::new(UInt8Array::from(vec![0; zeros]))),
        (None, DataType::Float32) => Ok(Arc::new(Float32Array::from(vec![0.0; zeros]))),
        (_, other) => exec_err!("{function}: the images do not have values of the planned type {other}"),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float32Type, Int32Type, UInt8Type};

    use super::*;

    fn bytes(height: usize, width: usize, values: &[u8]) -> Option<Image> {
        let shape = ImageShape::new(height, width, values.len() / height / width);
        Some(Image::try_new(shape, Pixels::U8(values.to_vec())).unwrap())
    }

    fn column(images: impl IntoIterator<Item = Option<Image>>) -> Tensors {
        let mut tensors = Tensors::new("f");
        images.into_iter().for_each(|image| tensors.push(image).unwrap());
        tensors
    }

    #[test]
    fn rows_have_their_own_shapes() {
        let field = TensorForm::BYTES.field("f", Size::PerRow);
        let array = column([None, bytes(1, 2, &[1, 2]), bytes(2, 1, &[3, 4, 5, 6])]).finish(&field).unwrap();
        let array = array.as_struct();
        assert!(array.is_null(0) && array.column(0).is_null(0) && array.column(1).is_null(0));
        assert_eq!(array.column(0).as_list::<i32>().value(2).as_primitive::<UInt8Type>().values(), &[3, 4, 5, 6]);
        assert_eq!(array.column(1).as_fixed_size_list().value(2).as_primitive::<Int32Type>().values(), &[2, 1, 2]);
        assert_eq!(field.metadata()["ARROW:extension:metadata"], r#"{"dim_names":["H","W","C"]}"#);
    }

    #[test]
    fn one_shape_is_a_fixed_tensor() {
        let map = tensor_field("map", DataType::Float32, &[("H", 9), ("W", 9)], true);
        let field = TensorForm::of(&map).unwrap().field("f", Size::Known(1, 2));
        assert_eq!(field, tensor_field("f", DataType::Float32, &[("H", 1), ("W", 2)], true));
        let image = Image::try_new(ImageShape::new(1, 2, 1), Pixels::F32(vec![-1.5, 9.0])).unwrap();
        let array = column([None, Some(image), None]).finish(&field).unwrap();
        assert!(array.is_null(0) && array.is_valid(1) && array.is_null(2));
        let second = array.as_fixed_size_list().value(1);
        assert_eq!(second.as_primitive::<Float32Type>().values(), &[-1.5, 9.0]);
        assert_eq!(column([None, None]).finish(&field).unwrap().null_count(), 2);
        assert_eq!(Tensors::new("f").finish(&field).unwrap().len(), 0);
        let error = column([bytes(1, 1, &[1])]).finish(&field).unwrap_err().strip_backtrace();
        assert!(error.contains("f: images of shape [1, 1, 1] do not fit the planned type FixedSizeList"), "{error}");
        let error = column([bytes(1, 2, &[1, 2])]).finish(&field).unwrap_err().strip_backtrace();
        assert!(error.contains("f: the images do not have values of the planned type Float32"), "{error}");
    }

    #[test]
    fn a_tensor_beyond_the_largest_list_has_a_shape_a_row() {
        let rgb = tensor_field("image", DataType::UInt8, &[("H", 9), ("W", 9), ("C", 3)], true);
        let form = TensorForm::of(&rgb).unwrap();
        assert!(matches!(form.field("f", Size::Known(30_000, 30_000)).data_type(), DataType::Struct(_)));
        assert!(matches!(form.field("f", Size::Prepared).data_type(), DataType::FixedSizeList(_, 0)));
        let mut tensors = column([None]);
        tensors.fill(3);
        assert_eq!(tensors.finish(&form.field("f", Size::PerRow)).unwrap().null_count(), 3);
    }
}
