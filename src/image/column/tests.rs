//! Images in every storage, and what is wrong with some of them.

mod forms;

use std::sync::Arc;

use arrow::array::{
    BinaryArray, BinaryViewArray, DictionaryArray, FixedSizeListArray, Float16Array, Float32Array, Float64Array,
    Int8Array, Int32Array, LargeBinaryArray, LargeListArray, LargeListViewArray, ListArray, ListViewArray, NullArray,
    StringArray, StructArray, UInt8Array, UInt16Array, new_empty_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Fields, Int8Type};
use half::f16;
use proptest::prelude::*;
use rstest::rstest;

use super::super::{PixelSlice, encode, tensor_field};
use super::*;

const SHAPE: ImageShape = ImageShape::new(2, 4, 3);

#[derive(Debug, Clone, Copy)]
enum ListKind {
    Fixed,
    List,
    Large,
    View,
    LargeView,
}

const LISTS: [ListKind; 5] = [ListKind::Fixed, ListKind::List, ListKind::Large, ListKind::View, ListKind::LargeView];

/// `values` in lists of `size` items each, NULL where `valid` says so.
fn wrap(kind: ListKind, values: ArrayRef, size: usize, valid: Option<Vec<bool>>) -> ArrayRef {
    let item = Arc::new(Field::new("element", values.data_type().clone(), true));
    let count = values.len() / size;
    let nulls = valid.map(NullBuffer::from);
    match kind {
        ListKind::Fixed => Arc::new(FixedSizeListArray::new(item, size as i32, values, nulls)),
        ListKind::List => {
            Arc::new(ListArray::new(item, OffsetBuffer::from_repeated_length(size, count), values, nulls))
        }
        ListKind::Large => {
            Arc::new(LargeListArray::new(item, OffsetBuffer::from_repeated_length(size, count), values, nulls))
        }
        ListKind::View => {
            let starts: ScalarBuffer<i32> = (0..count).map(|i| (i * size) as i32).collect();
            Arc::new(ListViewArray::new(item, starts, vec![size as i32; count].into(), values, nulls))
        }
        ListKind::LargeView => {
            let starts: ScalarBuffer<i64> = (0..count).map(|i| (i * size) as i64).collect();
            Arc::new(LargeListViewArray::new(item, starts, vec![size as i64; count].into(), values, nulls))
        }
    }
}

fn u8s(values: &[u8]) -> ArrayRef {
    Arc::new(UInt8Array::from(values.to_vec()))
}

fn flat(values: &[u8], size: usize) -> ArrayRef {
    wrap(ListKind::Fixed, u8s(values), size, None)
}

/// `arrow.variable_shape_tensor` storage: images of `values`, all of the stored dimensions `sizes`.
fn variable(values: ArrayRef, sizes: &[i32]) -> ArrayRef {
    let size = sizes.iter().product::<i32>() as usize;
    let count = values.len() / size;
    let shapes = Arc::new(Int32Array::from(sizes.repeat(count)));
    let shapes = wrap(ListKind::Fixed, shapes, sizes.len(), None);
    let data = wrap(ListKind::List, values, size, None);
    let fields = [("data", &data), ("shape", &shapes)];
    let fields: Fields = fields.iter().map(|(name, a)| Field::new(*name, a.data_type().clone(), true)).collect();
    Arc::new(StructArray::new(fields, vec![data, shapes], None))
}

/// Hugging Face's struct; the paths of images that are there lead nowhere, and must not matter.
fn bytes_and_path(bytes: Vec<Option<&[u8]>>, nulls: Option<NullBuffer>) -> ArrayRef {
    let paths = Arc::new(StringArray::from_iter(bytes.iter().map(|bytes| bytes.map(|_| "/nowhere"))));
    let fields = vec![Field::new("path", DataType::Utf8, true), Field::new("bytes", DataType::Binary, true)];
    Arc::new(StructArray::new(fields.into(), vec![paths, Arc::new(BinaryArray::from(bytes))], nulls))
}

fn plain_field(array: &ArrayRef) -> Field {
    Field::new("image", array.data_type().clone(), true)
}

fn column(array: &ArrayRef) -> ImageColumn {
    in_order(&plain_field(array), array, Some(SHAPE)).unwrap()
}

/// Height, width, channels.
fn in_order(field: &Field, array: &ArrayRef, shape: Option<ImageShape>) -> Result<ImageColumn> {
    ImageColumn::try_new_in_order(field, array, shape, AxisOrder::Hwc)
}

fn read_all(column: &ImageColumn) -> Vec<f32> {
    let rows: Vec<usize> = (0..column.len()).collect();
    let values = column.read(&rows, SHAPE, None, &Limits::default()).unwrap();
    let pixels = column.read_pixels(&rows, SHAPE, None, &Limits::default()).unwrap();
    assert_eq!(PixelSlice::from(&pixels).to_f32(), values, "whatever they are read as");
    values
}

fn pngs(pixels: &[u8]) -> Vec<Vec<u8>> {
    let image = |values: &[u8]| Image::try_new(SHAPE, Pixels::U8(values.to_vec())).unwrap();
    pixels.chunks(SHAPE.len()).map(|values| encode(&image(values), "png").unwrap()).collect()
}

/// (N, C, H, W) from (N, H, W, C).
fn channels_first(pixels: &[u8]) -> Vec<u8> {
    let plane = SHAPE.height() * SHAPE.width();
    let image = |image: &[u8]| -> Vec<u8> {
        (0..SHAPE.len()).map(|i| image[(i % plane) * SHAPE.channels() + i / plane]).collect()
    };
    pixels.chunks(SHAPE.len()).flat_map(image).collect()
}

/// The same pixels in every storage, with the field that describes it.
fn storages(pixels: &[u8]) -> Vec<(Field, ArrayRef)> {
    let n = SHAPE.len();
    let quotient = |v: &u8| f32::from(*v) / 255.0;
    let floats: ArrayRef = Arc::new(Float32Array::from_iter_values(pixels.iter().map(quotient)));
    let doubles: ArrayRef = Arc::new(Float64Array::from_iter_values(pixels.iter().map(|v| f64::from(quotient(v)))));
    let mut arrays = Vec::new();
    for values in [u8s(pixels), floats, doubles] {
        for kind in LISTS {
            arrays.push(wrap(kind, Arc::clone(&values), n, None));
            let pixels = wrap(kind, Arc::clone(&values), 3, None);
            let rows = wrap(LISTS[arrays.len() % 5], pixels, 4, None);
            arrays.push(wrap(LISTS[(arrays.len() + 2) % 5], rows, 2, None));
        }
        arrays.push(variable(values, &[2, 4, 3]));
    }
    let pngs = pngs(pixels);
    let pngs: Vec<&[u8]> = pngs.iter().map(Vec::as_slice).collect();
    arrays.push(Arc::new(BinaryArray::from_vec(pngs.clone())));
    arrays.push(Arc::new(LargeBinaryArray::from_vec(pngs.clone())));
    arrays.push(Arc::new(BinaryViewArray::from_iter_values(pngs.clone())));
    arrays.push(bytes_and_path(pngs.into_iter().map(Some).collect(), None));
    let mut storages: Vec<_> = arrays.into_iter().map(|array| (plain_field(&array), array)).collect();
    let first = flat(&channels_first(pixels), n);
    storages.push((tensor_field("image", DataType::UInt8, &[("C", 3), ("H", 2), ("W", 4)], true), first));
    storages
}

proptest! {
    #[test]
    fn any_storage_gives_the_same_bits(pixels in prop::collection::vec(any::<u8>(), 3 * SHAPE.len()), from in 0..3_usize) {
        let kept = &pixels[from * SHAPE.len()..];
        let expected: Vec<u32> = kept.iter().map(|v| (f32::from(*v) / 255.0).to_bits()).collect();
        for (field, array) in storages(&pixels) {
            let bits = |field: &Field, array: &ArrayRef| -> Vec<u32> {
                // The order of the last one is its type's.
                let column = match field.metadata().is_empty() {
                    true => in_order(field, array, Some(SHAPE)),
                    false => ImageColumn::try_new(field, array, None),
                };
                read_all(&column.unwrap()).iter().map(|v| v.to_bits()).collect()
            };
            let sliced = array.slice(from, 3 - from);
            prop_assert_eq!(bits(&field, &sliced), expected.clone(), "{}", array.data_type());
            // The same again, each row by its key, out of a dictionary.
            let keys: Int8Array = (from as i8..3).collect();
            let dictionary: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::clone(&array)));
            prop_assert_eq!(bits(&field, &dictionary), expected.clone(), "dictionary of {}", array.data_type());
        }
    }
}

#[test]
fn bytes_stay_bytes_and_floats_floats() {
    let pixels: Vec<u8> = (0..24).collect();
    let read = |array: &ArrayRef| column(array).image(0, None, &Limits::default()).unwrap().pixels().clone();
    assert_eq!(read(&flat(&pixels, 24)), Pixels::U8(pixels));
    // Halves are exact in 16 bits.
    let halves: ArrayRef = Arc::new(Float16Array::from(vec![f16::from_f32(0.5); 24]));
    assert_eq!(read(&wrap(ListKind::List, halves, 24, None)), Pixels::F32(vec![0.5; 24]));
}

#[test]
fn a_permuted_tensor_is_put_in_order() {
    // Stored (C, H, W), and dimension permutation[i] is the i-th of (H, W, C).
    let pixels: Vec<u8> = (0..24).collect();
    let array = flat(&channels_first(&pixels), 24);
    let json = r#"{"shape":[3,2,4],"permutation":[1,2,0]}"#.to_owned();
    let name = "arrow.fixed_shape_tensor".to_owned();
    let metadata = [("ARROW:extension:name".to_owned(), name), ("ARROW:extension:metadata".to_owned(), json)];
    let field = plain_field(&array).with_metadata(metadata.into());
    // The type's shape goes before the fallback.
    let column = ImageColumn::try_new(&field, &array, Some(ImageShape::new(1, 1, 1))).unwrap();
    let image = column.image(0, None, &Limits::default()).unwrap();
    assert_eq!(image, Image::try_new(SHAPE, Pixels::U8(pixels)).unwrap());
}

#[test]
fn a_variable_tensor_has_a_shape_a_row() {
    let square = variable(u8s(&[1, 2, 3, 4]), &[2, 2]);
    let row = variable(u8s(&[5, 6, 7]), &[1, 3]);
    let both = concat(&[square.as_ref(), row.as_ref()]).unwrap();
    let column = ImageColumn::try_new(&plain_field(&both), &both, None).unwrap();
    let shape = |row| column.image(row, None, &Limits::default()).unwrap().shape();
    assert_eq!((shape(0), shape(1)), (ImageShape::new(2, 2, 1), ImageShape::new(1, 3, 1)));
    let error = column.read(&[0, 1], ImageShape::new(2, 2, 1), None, &Limits::default()).unwrap_err();
    assert!(matches!(&error, Error::Row { row: 1, source } if matches!(**source, Error::Shape { .. })), "{error:?}");
    assert_eq!(error.to_string(), "row 1: image has shape [1, 3, 1], expected [2, 2, 1]");
}

#[rstest]
#[case::other_product(&[1, 2, 2, 1], "a list of 4 values is no image of shape [1, 2, 1], which has 2")]
#[case::negative(&[-1, 2, -2, 2], "the shape of a tensor has a null or negative size")]
#[case::zero(&[0, 2, 2, 2], "a tensor of shape [0, 2] is no image")]
#[case::huge(&[i32::MAX, i32::MAX, 2, 2], "a list of 4 values is no image of shape [2147483647, 2147483647, 1], which has 4611686014132420609")]
fn a_variable_tensors_lies(#[case] sizes: &[i32], #[case] message: &str) {
    let good = variable(u8s(&[1, 2, 3, 4, 5, 6, 7, 8]), &[2, 2]);
    let (fields, mut children, nulls) = good.as_struct().clone().into_parts();
    children[1] = wrap(ListKind::Fixed, Arc::new(Int32Array::from(sizes.to_vec())), 2, None);
    // Items of one name, so that the struct's type still holds.
    let array: ArrayRef = Arc::new(StructArray::new(fields, children, nulls));
    let error = column(&array).image(0, None, &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), message);
}

#[test]
fn a_variable_tensor_without_a_shape_is_no_image() {
    let good = variable(u8s(&[1, 2, 3, 4, 5, 6, 7, 8]), &[2, 2]);
    let (fields, mut children, nulls) = good.as_struct().clone().into_parts();
    let sizes = Arc::new(Int32Array::from(vec![2; 4]));
    children[1] = wrap(ListKind::Fixed, sizes, 2, Some(vec![false, true]));
    let array: ArrayRef = Arc::new(StructArray::new(fields, children, nulls));
    let column = column(&array);
    assert_eq!((column.is_null(0), column.is_null(1)), (true, false));
}

#[test]
fn nulls_hold_no_image() {
    let valid = Some(vec![true, false, true]);
    let png = &pngs(&[9; 24])[0];
    let keys = Int8Array::from(vec![Some(1), None, Some(1)]);
    let values: ArrayRef = Arc::new(BinaryArray::from(vec![None, Some(png.as_slice())]));
    let dictionary = DictionaryArray::<Int8Type>::new(keys, Arc::clone(&values));
    let to_null = DictionaryArray::<Int8Type>::new(Int8Array::from(vec![1, 0, 1]), values);
    let some = Some(png.as_slice());
    let arrays: Vec<ArrayRef> = vec![
        wrap(ListKind::Fixed, u8s(&[9; 72]), 24, valid.clone()),
        wrap(ListKind::LargeView, u8s(&[9; 72]), 24, valid.clone()),
        bytes_and_path(vec![some, None, some], None),
        bytes_and_path(vec![some; 3], valid.map(NullBuffer::from)),
        Arc::new(dictionary),
        Arc::new(to_null),
    ];
    for array in arrays {
        let column = column(&array);
        let nulls: Vec<bool> = (0..4).map(|row| column.is_null(row)).collect();
        assert_eq!(nulls, [false, true, false, true], "{}", array.data_type());
        assert_eq!(column.len(), 3);
        assert_eq!(column.read(&[2, 0], SHAPE, None, &Limits::default()).unwrap(), [9.0 / 255.0; 48]);
        let error = column.read(&[0, 1], SHAPE, None, &Limits::default()).unwrap_err().to_string();
        assert_eq!(error, "row 1: there is no image: the row is NULL");
        // The nulls move with a slice.
        let sliced = array.slice(1, 2);
        let sliced = in_order(&plain_field(&array), &sliced, Some(SHAPE)).unwrap();
        assert_eq!((sliced.is_null(0), sliced.is_null(1)), (true, false), "{}", array.data_type());
    }
}

#[test]
fn columns_without_any_image() {
    let null: ArrayRef = Arc::new(NullArray::new(2));
    assert!(column(&null).is_null(0) && column(&null).image(0, None, &Limits::default()).is_err());
    let empty = new_empty_array(flat(&[0; 24], 24).data_type());
    assert!(column(&empty).is_empty() && column(&empty).is_null(0));
    assert_eq!(read_all(&column(&empty)), [0.0; 0]);
    let keys = UInt16Array::from(vec![None, None]);
    let dictionary: ArrayRef = Arc::new(DictionaryArray::new(keys, new_empty_array(&DataType::Binary)));
    assert!(column(&dictionary).is_null(1));
}

#[test]
fn what_lies_under_a_null_row_is_not_read() {
    // Row 0 is NULL over values that no image may have.
    let values = Arc::new(Float32Array::from_iter((0..48).map(|i| (i >= 24).then_some(0.25))));
    let array = wrap(ListKind::Fixed, values, 24, Some(vec![false, true]));
    assert_eq!(column(&array).read(&[1], SHAPE, None, &Limits::default()).unwrap(), [0.25; 24]);
}

#[rstest]
#[case::nan(
    f32::NAN,
    "a float image has the pixel value NaN, expected values in [0, 1] (UInt8 images have 0 to 255): a model of numbers of any range is trained with input => 'features'"
)]
#[case::infinite(f32::INFINITY, "a float image has the pixel value inf, expected values in [0, 1]")]
#[case::negative(-0.5, "a float image has the pixel value -0.5, expected values in [0, 1]")]
#[case::bytes_as_floats(255.0, "a float image has the pixel value 255, expected values in [0, 1]")]
fn floats_out_of_range(#[case] value: f32, #[case] message: &str) {
    let mut values = vec![0.5; 48];
    values[30] = value;
    let doubles: ArrayRef = Arc::new(Float64Array::from_iter_values(values.iter().map(|v| f64::from(*v))));
    let halves: ArrayRef = Arc::new(Float16Array::from_iter_values(values.iter().map(|v| f16::from_f32(*v))));
    for values in [Arc::new(Float32Array::from(values)) as ArrayRef, doubles, halves] {
        let array = wrap(ListKind::List, values, 24, None);
        let error = column(&array).read(&[0, 1], SHAPE, None, &Limits::default()).unwrap_err();
        assert!(matches!(&error, Error::Row { row: 1, source } if matches!(**source, Error::Data(_))), "{error:?}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn rounding_errors_are_clamped() {
    let read = |value: f64| {
        let values = Arc::new(Float64Array::from(vec![value; 24]));
        column(&wrap(ListKind::List, values, 24, None)).image(0, None, &Limits::default())
    };
    for (value, clamped) in [(1.000_000_36, 1.0), (1.000_01, 1.0), (-0.000_01, 0.0), (-1e-12, 0.0)] {
        assert_eq!(read(value).unwrap().pixels(), &Pixels::F32(vec![clamped; 24]));
    }
    for value in [1.000_011, -0.000_011] {
        let error = read(value).unwrap_err().to_string();
        assert!(error.contains(&format!("the pixel value {value}, expected values in [0, 1]")), "{error}");
    }
}

#[test]
fn nulls_inside_an_image_are_bad_data() {
    let pixel = Arc::new(UInt8Array::from_iter((0..24).map(|i| (i != 5).then_some(0))));
    let array = wrap(ListKind::Fixed, pixel, 24, None);
    let error = column(&array).image(0, None, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error, "an image contains a null pixel, expected values everywhere");
    let rows = wrap(ListKind::List, u8s(&[0; 8]), 4, Some(vec![true, false]));
    let array = wrap(ListKind::List, rows, 2, None);
    let error = column(&array).image(0, None, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error, "an image contains a null list, expected pixel values everywhere");
}

#[test]
fn ragged_rows_are_bad_data() {
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    let rows: ArrayRef = Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([4, 3]), u8s(&[0; 7]), None));
    let array = wrap(ListKind::List, rows, 2, None);
    let error = column(&array).image(0, None, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error, "an image has lists of 4 and of 3 values on one level, expected equal lengths");
}

#[test]
fn an_empty_list_is_no_image() {
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    let rows: ArrayRef = Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([0, 0]), u8s(&[]), None));
    let error = column(&rows).image(0, None, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error, "a list of 0 values is no image of shape [2, 4, 3], which has 24");
    let nested = wrap(ListKind::List, rows, 2, None);
    let error = column(&nested).image(0, None, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error, "an image in lists of [2, 0] has no pixels");
}

#[test]
fn lists_that_do_not_lie_side_by_side() {
    // Views of the same values, backwards and with a gap: rows [4, 5] and [0, 1].
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    let starts = vec![4, 0].into();
    let sizes = vec![2, 2].into();
    let rows: ArrayRef = Arc::new(ListViewArray::new(item, starts, sizes, u8s(&[0, 1, 2, 3, 4, 5]), None));
    let image = column(&wrap(ListKind::Fixed, rows, 2, None)).image(0, None, &Limits::default()).unwrap();
    assert_eq!(image, Image::try_new(ImageShape::new(2, 2, 1), Pixels::U8(vec![4, 5, 0, 1])).unwrap());
}

#[test]
fn a_flat_list_takes_its_shape_from_the_reader() {
    let fixed = flat(&[0; 24], 24);
    let error = ImageColumn::try_new(&plain_field(&fixed), &fixed, None).unwrap_err();
    assert!(matches!(error, Error::Type(_)));
    let message = error.to_string();
    assert!(message.contains("image_decode(list, height, width, channels, layout)"), "{message}");
    assert!(message.contains("is unknown: give the column arrow.fixed_shape_tensor metadata, nest"), "{message}");
    let grey = Some(ImageShape::new(28, 28, 1));
    let error = ImageColumn::try_new(&plain_field(&fixed), &fixed, grey).unwrap_err().to_string();
    assert_eq!(error, "a list of 24 values is no image of shape [28, 28, 1], which has 784");
    let list = wrap(ListKind::List, u8s(&[0; 24]), 24, None);
    let column = ImageColumn::try_new(&plain_field(&list), &list, grey).unwrap();
    let error = column.read(&[0], ImageShape::new(28, 28, 1), None, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error, "row 0: a list of 24 values is no image of shape [28, 28, 1], which has 784");
}

#[test]
fn channels_are_converted_only_from_encoded_bytes() {
    let grey = ImageShape::new(2, 4, 1);
    let pngs = pngs(&[60; 24]);
    let encoded: ArrayRef = Arc::new(BinaryArray::from_iter_values(&pngs));
    assert_eq!(column(&encoded).read(&[0], grey, None, &Limits::default()).unwrap(), [60.0 / 255.0; 8]);
    let error = column(&flat(&[60; 24], 24)).read(&[0], grey, None, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error, "row 0: image has shape [2, 4, 3], expected [2, 4, 1]");
    // Five channels are no one's request to the decoder: the shape alone is wrong.
    let five = ImageShape::new(2, 4, 5);
    let error = column(&encoded).read(&[0], five, None, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error, "row 0: image has shape [2, 4, 3], expected [2, 4, 5]");
}

#[test]
fn rows_are_preprocessed() {
    let crop = Preprocess::try_new(Some((1, 2)), None).unwrap();
    let pixels: Vec<u8> = (0..48).collect();
    let read = column(&flat(&pixels, 24)).read(&[1], ImageShape::new(1, 2, 3), Some(&crop), &Limits::default());
    let expected: Vec<f32> = (27..33_u8).map(|v| f32::from(v) / 255.0).collect();
    assert_eq!(read.unwrap(), expected);
}

#[test]
fn bytes_stay_bytes_until_they_are_resized() {
    let pixels: Vec<u8> = (0..48).collect();
    let read = |array: &ArrayRef, shape: ImageShape, preprocess: Option<&Preprocess>| {
        column(array).read_pixels(&[1], shape, preprocess, &Limits::default()).unwrap()
    };
    let encoded: ArrayRef = Arc::new(BinaryArray::from_iter_values(pngs(&pixels)));
    for array in [&flat(&pixels, 24), &encoded] {
        assert_eq!(read(array, SHAPE, None), Pixels::U8(pixels[24..].to_vec()));
        let crop = Preprocess::try_new(Some((1, 2)), None).unwrap();
        assert_eq!(read(array, ImageShape::new(1, 2, 3), Some(&crop)), Pixels::U8((27..33).collect()));
        let resize = Preprocess::try_new(None, Some((1, 2))).unwrap();
        assert!(matches!(read(array, ImageShape::new(1, 2, 3), Some(&resize)), Pixels::F32(_)));
    }
    let floats = wrap(ListKind::Fixed, Arc::new(Float32Array::from(vec![0.25; 48])), 24, None);
    assert_eq!(read(&floats, SHAPE, None), Pixels::F32(vec![0.25; 24]));
    let error = column(&encoded).read_pixels(&[0, 2], SHAPE, None, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error, "row 2: there is no image: the row is NULL");
}

#[test]
fn the_first_bad_row_is_named() {
    let good = &pngs(&[0; 24])[0];
    let bytes = (0..200).map(|row| if row % 7 == 3 { b"bad".as_slice() } else { good.as_slice() });
    let array: ArrayRef = Arc::new(BinaryArray::from_iter_values(bytes));
    let rows: Vec<usize> = (0..200).rev().collect();
    let error = column(&array).read(&rows, SHAPE, None, &Limits::default()).unwrap_err().to_string();
    // In the order asked for: 199 is 3 mod 7.
    assert!(error.starts_with("row 199: the image has an unknown format"), "{error}");
}

#[test]
fn limits_hold_for_columns() {
    let array: ArrayRef = Arc::new(BinaryArray::from_iter_values(pngs(&[0; 24])));
    let limits = Limits { max_pixels: 7, ..Limits::default() };
    let error = column(&array).read(&[0], SHAPE, None, &limits).unwrap_err().to_string();
    assert_eq!(error, "row 0: the image declares 2 × 4 = 8 pixels, the limit max_pixels is 7");
}

#[rstest]
#[case::overflow(ImageShape::new(usize::MAX, 2, 3), "do not fit in memory")]
#[case::larger_than_memory(ImageShape::new(1 << 50, 1, 1), "do not fit in memory")]
#[case::empty(ImageShape::new(0, 2, 3), "images of shape [0, 2, 3] have no pixels")]
fn hostile_shapes(#[case] shape: ImageShape, #[case] message: &str) {
    let error = column(&flat(&[0; 24], 24)).read(&[0, 0], shape, None, &Limits::default()).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn a_row_needs_a_buffer_of_its_size() {
    let column = column(&flat(&[255; 24], 24));
    let mut out = vec![0.0; 24];
    column.read_row(0, SHAPE, None, &Limits::default(), &mut out).unwrap();
    assert_eq!(out, [1.0; 24]);
    let error = column.read_row(0, SHAPE, None, &Limits::default(), &mut out[..23]).unwrap_err().to_string();
    assert_eq!(error, "a buffer of 23 values takes no image of shape [2, 4, 3]");
}

/// Numbers of any range are images to resize or cut, and of all other kinds the same as pixels.
#[rstest]
#[case::floats(Arc::new(Float32Array::from(vec![-3.5, 0.0, 1e30, -0.0])), Pixels::F32(vec![-3.5, 0.0, 1e30, 0.0]))]
#[case::doubles(Arc::new(Float64Array::from(vec![1.5; 4])), Pixels::F32(vec![1.5; 4]))]
#[case::bytes(u8s(&[1, 2, 3, 255]), Pixels::U8(vec![1, 2, 3, 255]))]
#[case::words(Arc::new(UInt16Array::from(vec![0, 65_535, 0, 0])), Pixels::F32(vec![0.0, 1.0, 0.0, 0.0]))]
fn numbers_have_any_range(#[case] values: ArrayRef, #[case] expected: Pixels) {
    let array = wrap(ListKind::List, wrap(ListKind::Fixed, values, 2, None), 2, None);
    let field = Field::new("map", array.data_type().clone(), true);
    let column = ImageColumn::of_numbers(&field, &array).unwrap();
    let image = column.image(0, None, &Limits::default()).unwrap();
    assert_eq!((image.shape(), image.pixels()), (ImageShape::new(2, 2, 1), &expected));
    let bytes = if matches!(expected, Pixels::U8(_)) { 4 } else { 16 };
    assert_eq!((column.declared_bytes(0), column.declared_bytes(1)), (bytes, 0));
}

#[rstest]
#[case(f64::NAN, "finite numbers")]
#[case(1e300, "numbers that fit into 32 bits")]
fn numbers_are_finite(#[case] value: f64, #[case] expected: &str) {
    let array = wrap(ListKind::List, wrap(ListKind::List, Arc::new(Float64Array::from(vec![value])), 1, None), 1, None);
    let field = Field::new("map", array.data_type().clone(), true);
    let column = ImageColumn::of_numbers(&field, &array).unwrap();
    let error = column.image(0, None, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error, format!("an image has the value {value}, expected {expected}"));
}

/// Of three channels, as a file of 4 × 8 pixels declares them; none where the header cannot be read.
#[test]
fn encoded_images_declare_their_size() {
    for (name, expected) in [
        ("rgb.png", 96),
        ("rgb.jpg", 96),
        ("rgb.webp", 96),
        ("rgb.tiff", 96),
        ("rgb.gif", 96),
        ("truncated-header.jpg", 0),
    ] {
        let bytes = std::fs::read(format!("fixtures/images/{name}")).unwrap();
        let array: ArrayRef = Arc::new(BinaryArray::from(vec![Some(bytes.as_slice()), None]));
        let field = Field::new("image", DataType::Binary, true);
        let column = ImageColumn::try_new(&field, &array, None).unwrap();
        assert_eq!((column.declared_bytes(0), column.declared_bytes(1)), (expected, 0), "{name}");
    }
}
