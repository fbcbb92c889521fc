//! The reader of tensor metadata: any name, JSON and list type give an image type or an error, and a column of that
//! type can be opened and read, or not.
//!
//! Input: a byte each for the extension, the item type, the kind of list and the list's size, then the metadata as
//! text.
#![no_main]

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{DataType, Field, Fields};
use libfuzzer_sys::fuzz_target;
use wae_core::image::{ImageColumn, ImageShape, ImageType, Limits};

const NAMES: [&str; 6] = [
    "arrow.fixed_shape_tensor",
    "arrow.variable_shape_tensor",
    "arrow.json",
    "arrow.fixed_shape_tensor ",
    "ray.data.arrow_tensor_v2",
    "daft.super_extension",
];

fuzz_target!(|input: &[u8]| {
    let Some(([name, item, kind, size], json)) = input.split_first_chunk() else { return };
    let Ok(json) = std::str::from_utf8(json) else { return };
    let item = [DataType::UInt8, DataType::Float32, DataType::Float64, DataType::Utf8][usize::from(item % 4)].clone();
    let list = |item: DataType| Arc::new(Field::new("item", item, true));
    let data_type = match kind % 5 {
        0 => DataType::FixedSizeList(list(item), i32::from(*size)),
        1 => DataType::List(list(item)),
        2 => DataType::Struct(Fields::from(vec![
            Field::new("data", DataType::List(list(item)), true),
            Field::new("shape", DataType::FixedSizeList(list(DataType::Int32), i32::from(size % 5)), true),
        ])),
        3 => DataType::FixedSizeList(list(DataType::FixedSizeList(list(item), 3)), i32::from(*size)),
        _ => DataType::Dictionary(
            Box::new(DataType::Int32),
            Box::new(DataType::FixedSizeList(list(item), i32::from(*size))),
        ),
    };
    let metadata = HashMap::from([
        ("ARROW:extension:name".to_owned(), NAMES[usize::from(*name) % NAMES.len()].to_owned()),
        ("ARROW:extension:metadata".to_owned(), json.to_owned()),
    ]);
    let field = Field::new("image", data_type.clone(), true).with_metadata(metadata);
    let Ok(image_type) = ImageType::try_new(&field) else { return };
    let shape = image_type.shape().unwrap_or(ImageShape::new(2, 2, 1));
    let array: ArrayRef = new_null_array(&data_type, 2);
    let Ok(column) = ImageColumn::try_new(&field, &array, Some(shape)) else { return };
    assert!(column.is_null(0) && column.is_null(1));
    // A buffer is made for the shape that the reader expects, which is a model's and bounded.
    if shape.len() <= 1 << 16 {
        assert!(column.read(&[0], shape, None, &Limits::default()).is_err());
    }
});
