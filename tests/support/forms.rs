//! Tables of the same RGB pictures in many forms: tensors of all layouts, nested lists, encoded bytes.
#![allow(dead_code, reason = "each test uses a part")]

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, DictionaryArray, FixedSizeListArray, Int8Array, Int32Array, Int64Array, ListArray,
    RecordBatch, StructArray, UInt8Array,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema};
use wae_core::image::{Image, ImageShape, Pixels, encode};

const SHAPE: ImageShape = ImageShape::new(8, 6, 3);
pub const ROWS: usize = 6;
/// The row that has no image.
const NULL_ROW: usize = 4;

/// The form of a column of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// H, W, C with names, without, and C, H, W with names.
    Named,
    Unnamed,
    ChannelsFirst,
    /// Stored as W, C, H, with the permutation to H, W, C.
    Permuted,
    /// A shape a row, stored as C, H, W and as H, W, C.
    VariableFirst,
    VariableLast,
    /// Lists of lists of lists.
    Nested,
    /// PNG files.
    Encoded,
    /// A list without a word on its shape.
    Bare,
}

/// The forms that queries begin with; a list without a word meets them in unions only.
pub const FORMS: [Form; 8] = [
    Form::Named,
    Form::Unnamed,
    Form::ChannelsFirst,
    Form::Permuted,
    Form::VariableFirst,
    Form::VariableLast,
    Form::Nested,
    Form::Encoded,
];

/// Picture `row`, (H, W, C): no two values of neighbours are alike, so that another order gives another picture.
fn picture(row: usize) -> Vec<u8> {
    let value = |i: usize| {
        let y = i / 18;
        let x = i / 3 % 6;
        let c = i % 3;
        (20 * y + 9 * x * (c + 1) + 31 * c + 40 * row) % 256
    };
    (0..SHAPE.len()).map(|i| value(i) as u8).collect()
}

/// The same picture with its axes in another order: 0 is height, 1 width, 2 channels.
fn stored(picture: &[u8], axes: [usize; 3]) -> Vec<u8> {
    let sides = [SHAPE.height(), SHAPE.width(), SHAPE.channels()];
    let strides = [sides[1] * sides[2], sides[2], 1];
    let mut values = Vec::new();
    for i in 0..sides[axes[0]] {
        for j in 0..sides[axes[1]] {
            for k in 0..sides[axes[2]] {
                values.push(picture[i * strides[axes[0]] + j * strides[axes[1]] + k * strides[axes[2]]]);
            }
        }
    }
    values
}

fn pictures() -> Vec<Vec<u8>> {
    (0..ROWS).map(picture).collect()
}

fn nulls() -> NullBuffer {
    (0..ROWS).map(|row| row != NULL_ROW).collect::<Vec<_>>().into()
}

fn in_order(axes: [usize; 3]) -> ArrayRef {
    let values: Vec<u8> = pictures().iter().flat_map(|picture| stored(picture, axes)).collect();
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    Arc::new(FixedSizeListArray::new(item, SHAPE.len() as i32, Arc::new(UInt8Array::from(values)), Some(nulls())))
}

fn lists(values: ArrayRef, length: usize, nulls: Option<NullBuffer>) -> ArrayRef {
    let item = Arc::new(Field::new("item", values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_repeated_length(length, values.len() / length);
    Arc::new(ListArray::new(item, offsets, values, nulls))
}

fn flat(axes: [usize; 3]) -> ArrayRef {
    let values: Vec<u8> = pictures().iter().flat_map(|picture| stored(picture, axes)).collect();
    Arc::new(UInt8Array::from(values))
}

fn variable(axes: [usize; 3]) -> ArrayRef {
    let sides = [SHAPE.height(), SHAPE.width(), SHAPE.channels()];
    let sizes: Vec<i32> = axes.map(|axis| sides[axis] as i32).repeat(ROWS);
    let item = Arc::new(Field::new("item", DataType::Int32, true));
    let shapes: ArrayRef = Arc::new(FixedSizeListArray::new(item, 3, Arc::new(Int32Array::from(sizes)), None));
    let data = lists(flat(axes), SHAPE.len(), None);
    let fields = [("data", &data), ("shape", &shapes)];
    let fields: Fields = fields.iter().map(|(name, a)| Field::new(*name, a.data_type().clone(), true)).collect();
    Arc::new(StructArray::new(fields, vec![data, shapes], Some(nulls())))
}

fn encoded() -> ArrayRef {
    let png = |row: usize| encode(&Image::try_new(SHAPE, Pixels::U8(picture(row))).unwrap(), "png").unwrap();
    Arc::new(BinaryArray::from_iter((0..ROWS).map(|row| (row != NULL_ROW).then(|| png(row)))))
}

/// The column in a form, with its field.
fn column(form: Form) -> (Field, ArrayRef) {
    let fixed = "arrow.fixed_shape_tensor";
    let variable_shape = "arrow.variable_shape_tensor";
    let (array, extension) = match form {
        Form::Named => (in_order([0, 1, 2]), Some((fixed, r#"{"shape":[8,6,3],"dim_names":["H","W","C"]}"#))),
        Form::Unnamed => (in_order([0, 1, 2]), Some((fixed, r#"{"shape":[8,6,3]}"#))),
        Form::ChannelsFirst => (in_order([2, 0, 1]), Some((fixed, r#"{"shape":[3,8,6],"dim_names":["C","H","W"]}"#))),
        Form::Permuted => (in_order([1, 2, 0]), Some((fixed, r#"{"shape":[6,3,8],"permutation":[2,0,1]}"#))),
        Form::VariableFirst => (variable([2, 0, 1]), Some((variable_shape, r#"{"dim_names":["C","H","W"]}"#))),
        Form::VariableLast => (variable([0, 1, 2]), Some((variable_shape, r#"{"dim_names":["H","W","C"]}"#))),
        Form::Nested => (lists(lists(lists(flat([0, 1, 2]), 3, None), 6, None), 8, Some(nulls())), None),
        Form::Encoded => (encoded(), None),
        Form::Bare => (in_order([0, 1, 2]), None),
    };
    let field = Field::new("image", array.data_type().clone(), true);
    let metadata = extension.map(|(name, json)| {
        let keys = ["ARROW:extension:name", "ARROW:extension:metadata"].map(str::to_owned);
        HashMap::from_iter(keys.into_iter().zip([name.to_owned(), json.to_owned()]))
    });
    (field.with_metadata(metadata.unwrap_or_default()), array)
}

/// A table of a form: as it is, a slice of a longer one, or packed in a dictionary.
pub fn table(form: Form, packing: usize) -> RecordBatch {
    let (field, array) = column(form);
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS as i64));
    let (field, array): (Field, ArrayRef) = match packing {
        0 => (field, array),
        1 => {
            let twice = datafusion::arrow::compute::concat(&[array.as_ref(), array.as_ref()]).unwrap();
            (field, twice.slice(ROWS, ROWS))
        }
        _ => {
            let keys = Int8Array::from_iter_values(0..ROWS as i8);
            let packed: ArrayRef = Arc::new(DictionaryArray::new(keys, array));
            (field.with_data_type(packed.data_type().clone()), packed)
        }
    };
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, false), field]);
    RecordBatch::try_new(Arc::new(schema), vec![ids, array]).unwrap()
}
