//! The forms in which other tools keep images, each against the same images as bytes.

use arrow::array::{BooleanArray, Int16Array, Int64Array, LargeStringArray, StringViewArray, UInt32Array, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{Int16Type, UInt8Type};

use super::*;

/// A struct of arrays.
fn structure(fields: Vec<(&str, ArrayRef)>, nulls: Option<NullBuffer>) -> ArrayRef {
    let (names, arrays): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let field = |(name, array): (&str, &ArrayRef)| Field::new(name, array.data_type().clone(), true);
    let fields: Fields = names.into_iter().zip(&arrays).map(field).collect();
    Arc::new(StructArray::new(fields, arrays, nulls))
}

fn repeated(value: i64, rows: usize, data_type: &DataType) -> ArrayRef {
    cast(&Int64Array::from(vec![value; rows]), data_type).unwrap()
}

/// Spark's images, (N, H, W, C) of a shape: bytes with blue before red.
fn spark(pixels: &[u8], shape: ImageShape, mode: i64) -> ArrayRef {
    let rows = pixels.len() / shape.len();
    let swapped: Vec<u8> = match shape.channels() {
        1 => pixels.to_vec(),
        3 => pixels.chunks(3).flat_map(|p| [p[2], p[1], p[0]]).collect(),
        _ => pixels.chunks(4).flat_map(|p| [p[2], p[1], p[0], p[3]]).collect(),
    };
    let integer = |value| repeated(value, rows, &DataType::Int32);
    let fields = vec![
        ("origin", Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("/{row}.png")))) as ArrayRef),
        ("height", integer(shape.height() as i64)),
        ("width", integer(shape.width() as i64)),
        ("nChannels", integer(shape.channels() as i64)),
        ("mode", integer(mode)),
        ("data", Arc::new(BinaryArray::from_iter_values(swapped.chunks(shape.len()))) as ArrayRef),
    ];
    structure(fields, None)
}

/// Daft's images of a shape.
fn daft(values: ArrayRef, shape: ImageShape, mode: i64) -> ArrayRef {
    let rows = values.len() / shape.len();
    let fields = vec![
        ("data", wrap(ListKind::Large, values, shape.len(), None)),
        ("channel", repeated(shape.channels() as i64, rows, &DataType::UInt16)),
        ("height", repeated(shape.height() as i64, rows, &DataType::UInt32)),
        ("width", repeated(shape.width() as i64, rows, &DataType::UInt32)),
        ("mode", repeated(mode, rows, &DataType::UInt8)),
    ];
    structure(fields, None)
}

/// Values below 256 in every type of integers.
fn integers(pixels: &[u8]) -> Vec<ArrayRef> {
    let bytes = UInt8Array::from(pixels.to_vec());
    let types = [DataType::Int16, DataType::Int32, DataType::Int64, DataType::UInt32, DataType::UInt64];
    let mut arrays: Vec<ArrayRef> = types.iter().map(|data_type| cast(&bytes, data_type).unwrap()).collect();
    arrays.push(Arc::new(UInt16Array::from_iter_values(pixels.iter().map(|v| 257 * u16::from(*v)))));
    arrays
}

/// The same images in every form, with the field that describes it.
fn forms(pixels: &[u8]) -> Vec<(Field, ArrayRef)> {
    let n = SHAPE.len();
    let rows = pixels.len() / n;
    let mut arrays = Vec::new();
    for values in integers(pixels) {
        let kind = LISTS[arrays.len() % 5];
        arrays.push(wrap(kind, Arc::clone(&values), n, None));
        let pixels = wrap(kind, Arc::clone(&values), 3, None);
        arrays.push(wrap(ListKind::List, wrap(ListKind::View, pixels, 4, None), 2, None));
        arrays.push(variable(Arc::clone(&values), &[2, 4, 3]));
        for data_type in [DataType::Int64, DataType::UInt64, DataType::Int8] {
            let sizes = cast(&Int64Array::from([2, 4, 3].repeat(rows)), &data_type).unwrap();
            let sizes = wrap(kind, sizes, 3, None);
            let data = wrap(ListKind::Large, Arc::clone(&values), n, None);
            arrays.push(structure(vec![("data", data), ("shape", sizes)], None));
        }
        if !matches!(values.data_type(), DataType::UInt16) {
            arrays.push(daft(values, SHAPE, 3));
        }
    }
    arrays.push(daft(Arc::clone(&integers(pixels)[5]), SHAPE, 7));
    arrays.push(daft(u8s(pixels), SHAPE, 3));
    arrays.push(spark(pixels, SHAPE, 16));
    let mut forms: Vec<_> = arrays.into_iter().map(|array| (plain_field(&array), array)).collect();
    let flat = wrap(ListKind::Large, u8s(pixels), n, None);
    let flat_field = |name: &str, json: &str| {
        let metadata = [("ARROW:extension:name", name), ("ARROW:extension:metadata", json)];
        plain_field(&flat).with_metadata(metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into())
    };
    for (name, json) in [
        ("ray.data.arrow_tensor_v2", "[2, 4, 3]"),
        ("daft.super_extension", r#"{"datatype":{"FixedShapeImage":["RGB",2,4]}}"#),
        ("daft.super_extension", r#"{"datatype":{"FixedShapeTensor":["UInt8",[2,4,3]]}}"#),
    ] {
        forms.push((flat_field(name, json), Arc::clone(&flat)));
    }
    forms
}

proptest! {
    #[test]
    fn any_form_gives_the_same_pixels(
        pixels in prop::collection::vec(any::<u8>(), 4 * SHAPE.len()),
        from in 0..3_usize,
        null in 0..4_usize,
    ) {
        let expected: Vec<f32> = pixels.iter().map(|v| f32::from(*v) / 255.0).collect();
        let expected: Vec<&[f32]> = expected.chunks(SHAPE.len()).collect();
        for (field, array) in forms(&pixels) {
            let sliced = array.slice(from, 4 - from);
            let keys = (from as i8..4).map(|row| (row as usize != null).then_some(row)).collect::<Int8Array>();
            let dictionary: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::clone(&array)));
            for (array, null) in [(&sliced, None), (&dictionary, null.checked_sub(from))] {
                let column = in_order(&field, array, Some(SHAPE)).unwrap();
                for row in 0..4 - from {
                    prop_assert_eq!(column.is_null(row), null == Some(row));
                    if null == Some(row) {
                        continue;
                    }
                    let read = column.read(&[row], SHAPE, None, &Limits::default()).unwrap();
                    let near = read.iter().zip(expected[from + row]).all(|(a, b)| (a - b).abs() < 1e-6);
                    prop_assert!(near, "{}: {read:?}", array.data_type());
                    let pixels = column.read_pixels(&[row], SHAPE, None, &Limits::default()).unwrap();
                    prop_assert_eq!(PixelSlice::from(&pixels).to_f32(), read);
                }
            }
        }
    }

    #[test]
    fn channels_first_is_read_in_the_order_that_is_stated(
        pixels in prop::collection::vec(any::<u8>(), 2 * SHAPE.len()),
    ) {
        let first = channels_first(&pixels);
        let rows = wrap(ListKind::List, wrap(ListKind::Fixed, u8s(&first), 4, None), 2, None);
        let expected: Vec<f32> = pixels.iter().map(|v| f32::from(*v) / 255.0).collect();
        let nested = wrap(ListKind::Large, rows, 3, None);
        for array in [flat(&first, SHAPE.len()), nested, variable(u8s(&first), &[3, 2, 4])] {
            let column = ImageColumn::try_new_in_order(&plain_field(&array), &array, Some(SHAPE), AxisOrder::Chw);
            prop_assert_eq!(read_all(&column.unwrap()), expected.clone());
        }
    }
}

#[test]
fn booleans_are_black_and_white() {
    let bits: Vec<bool> = (0..24).map(|i| i % 3 == 0).collect();
    let array = wrap(ListKind::List, Arc::new(BooleanArray::from(bits.clone())), 24, None);
    let expected: Vec<u8> = bits.iter().map(|bit| if *bit { 255 } else { 0 }).collect();
    let column = column(&array.slice(0, 1));
    assert_eq!(column.image(0, None, &Limits::default()).unwrap().pixels(), &Pixels::U8(expected));
    let null = wrap(ListKind::List, Arc::new(BooleanArray::from(vec![None; 24])), 24, None);
    let error = super::column(&null).image(0, None, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error, "an image contains a null pixel, expected values everywhere");
}

#[rstest]
#[case::negative(Arc::new(Int8Array::from(vec![-1; 24])), "-1")]
#[case::above(Arc::new(Int64Array::from(vec![256; 24])), "256")]
#[case::short(Arc::new(Int16Array::from(vec![-300; 24])), "-300")]
#[case::words(Arc::new(UInt32Array::from(vec![65_535; 24])), "65535")]
#[case::largest(Arc::new(UInt64Array::from(vec![u64::MAX; 24])), "18446744073709551615")]
fn integers_out_of_range(#[case] values: ArrayRef, #[case] value: &str) {
    let array = wrap(ListKind::List, values, 24, None);
    let error = column(&array).image(0, None, &Limits::default()).unwrap_err();
    assert!(matches!(error, Error::Data(_)));
    assert_eq!(
        error.to_string(),
        format!("an image of integers has the pixel value {value}, expected values from 0 to 255")
    );
}

/// 3 channels of 5×6, and 1 of 5×6, without names.
#[rstest]
#[case::rgb(3)]
#[case::grey(1)]
fn rows_with_channels_first_are_refused(#[case] channels: usize) {
    let values = u8s(&vec![7; 30 * channels]);
    let rows = wrap(ListKind::List, wrap(ListKind::List, Arc::clone(&values), 6, None), 5, None);
    let nested = wrap(ListKind::List, rows, channels, None);
    let tensors = variable(values, &[channels as i32, 5, 6]);
    for array in [nested, tensors] {
        let column = ImageColumn::try_new(&plain_field(&array), &array, None).unwrap();
        let error = column.image(0, None, &Limits::default()).unwrap_err();
        assert!(matches!(&error, Error::Data(message) if message.contains("order of the axes")), "{error:?}");
        assert!(error.to_string().contains(&format!("[{channels}, 5, 6]")), "{error}");
    }
}

#[test]
fn a_type_with_channels_first_is_refused() {
    let array = flat(&[0; 90], 90);
    let json = r#"{"shape":[3,5,6],"permutation":[0,1,2]}"#;
    let metadata = [("ARROW:extension:name", "arrow.fixed_shape_tensor"), ("ARROW:extension:metadata", json)];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let field = plain_field(&array).with_metadata(metadata.into());
    let error = ImageColumn::try_new(&field, &array, None).unwrap_err();
    assert!(matches!(&error, Error::Type(message) if message.contains("layout => 'CHW'")), "{error:?}");
    let column = ImageColumn::try_new_in_order(&field, &array, None, AxisOrder::Chw).unwrap();
    assert_eq!(column.image(0, None, &Limits::default()).unwrap().shape(), ImageShape::new(5, 6, 3));
}

#[test]
fn a_flat_list_of_several_channels_needs_an_order() {
    let array = flat(&[0; 24], 24);
    let error = ImageColumn::try_new(&plain_field(&array), &array, Some(SHAPE)).unwrap_err();
    assert!(matches!(error, Error::Type(_)));
    let message = error.to_string();
    assert!(message.starts_with("a flat list does not say the order of the axes of its images"), "{message}");
    let grey = Some(ImageShape::new(4, 6, 1));
    assert!(ImageColumn::try_new(&plain_field(&array), &array, grey).is_ok());
}

#[rstest]
#[case::text(Arc::new(StringArray::from(vec![Some("a.png"), Some("b.png"), None, Some("")])))]
#[case::large(Arc::new(LargeStringArray::from(vec![Some("a.png"), Some("b.png"), None, Some("")])))]
#[case::view(Arc::new(StringViewArray::from(vec![Some("a.png"), Some("b.png"), None, Some("")])))]
#[case::dictionary(Arc::new(DictionaryArray::<Int16Type>::from_iter([Some("a.png"), Some("b.png"), None, Some("")])))]
fn a_path_without_bytes_is_an_error(#[case] paths: ArrayRef) {
    let png = &pngs(&[9; 24])[0];
    let bytes = BinaryArray::from(vec![Some(png.as_slice()), None, None, None]);
    let rows = structure(vec![("bytes", Arc::new(bytes) as ArrayRef), ("path", Arc::clone(&paths))], None);
    let column = column(&rows);
    let nulls: Vec<bool> = (0..4).map(|row| column.is_null(row)).collect();
    assert_eq!(nulls, [false, false, true, true]);
    assert_eq!((column.path(0), column.path(1), column.path(2)), (Some("a.png"), Some("b.png"), None));
    assert!(column.image(0, None, &Limits::default()).is_ok());
    let error = column.image(1, None, &Limits::default()).unwrap_err();
    assert!(matches!(error, Error::Data(_)));
    assert_eq!(
        error.to_string(),
        "the image has no bytes, only the path 'b.png', which is not read: read the files with read_images"
    );
    // As pyarrow writes a column of bytes that are all NULL; and a row that is NULL has no path.
    let none: ArrayRef = Arc::new(NullArray::new(4));
    let nulls = Some(NullBuffer::from(vec![true, false, true, true]));
    let column = super::column(&structure(vec![("bytes", none), ("path", paths)], nulls));
    assert!(!column.is_null(0) && column.is_null(1) && column.path(1).is_none());
    assert!(column.image(0, None, &Limits::default()).unwrap_err().to_string().contains("the path 'a.png'"));
}

#[test]
fn a_path_beside_no_bytes_at_all() {
    let bytes = BinaryArray::from_iter_values([b""]);
    let paths = StringArray::from(vec!["a.png"]);
    let fields: Vec<(&str, ArrayRef)> = vec![("bytes", Arc::new(bytes)), ("path", Arc::new(paths))];
    let column = column(&structure(fields, None));
    assert!(column.image(0, None, &Limits::default()).unwrap_err().to_string().contains("the path 'a.png'"));
}

#[test]
fn pictures_of_spark() {
    let read = |array: &ArrayRef, channels| super::column(array).image(0, channels, &Limits::default());
    let grey = ImageShape::new(1, 2, 1);
    assert_eq!(read(&spark(&[7, 8], grey, 0), None).unwrap().pixels(), &Pixels::U8(vec![7, 8]));
    assert_eq!(read(&spark(&[7, 8], grey, 0), Some(3)).unwrap().pixels(), &Pixels::U8(vec![7, 7, 7, 8, 8, 8]));
    let rgba = spark(&[1, 2, 3, 0, 4, 5, 6, 255], ImageShape::new(1, 2, 4), 24);
    assert_eq!(read(&rgba, Some(4)).unwrap().pixels(), &Pixels::U8(vec![1, 2, 3, 0, 4, 5, 6, 255]));
    assert_eq!(read(&rgba, None).unwrap().pixels(), &Pixels::U8(vec![255, 255, 255, 4, 5, 6]));
    assert_eq!(super::column(&rgba).path(0), Some("/0.png"));
}

#[rstest]
#[case::undefined(-1, "Spark could not read this image: its mode is -1, undefined")]
#[case::floats(21, "an image of Spark has the mode 21, expected 0 (CV_8UC1), 16 (CV_8UC3) or 24 (CV_8UC4)")]
#[case::other_channels(24, "the mode of an image means 4 channels, and it has 3")]
fn modes_of_spark(#[case] mode: i64, #[case] message: &str) {
    let array = spark(&[0; 24], SHAPE, mode);
    let error = column(&array).image(0, None, &Limits::default()).unwrap_err();
    assert!(matches!(error, Error::Data(_)));
    assert_eq!(error.to_string(), message);
}

#[test]
fn pictures_must_agree_with_their_size() {
    for array in [spark(&[0; 24], SHAPE, 16), daft(u8s(&[0; 24]), SHAPE, 3)] {
        let (fields, mut columns, nulls) = array.as_struct().clone().into_parts();
        let height = fields.iter().position(|field| field.name() == "height").unwrap();
        for (value, message) in [
            (3, "a list of 24 values is no image of shape [3, 4, 3], which has 36"),
            (0, "a list of 24 values is no image of shape [0, 4, 3], which has 0"),
        ] {
            columns[height] = repeated(value, 1, columns[height].data_type());
            let array: ArrayRef = Arc::new(StructArray::new(fields.clone(), columns.clone(), nulls.clone()));
            assert_eq!(column(&array).image(0, None, &Limits::default()).unwrap_err().to_string(), message);
        }
        columns[height] = arrow::array::new_null_array(columns[height].data_type(), 1);
        let array: ArrayRef = Arc::new(StructArray::new(fields, columns, nulls));
        let error = column(&array).image(0, None, &Limits::default()).unwrap_err().to_string();
        assert_eq!(error, "an image has a NULL height, width, mode or number of channels");
    }
}

#[test]
fn pictures_of_daft() {
    let read = |array: &ArrayRef, channels| super::column(array).image(0, channels, &Limits::default());
    let alpha = daft(u8s(&[0, 128, 9, 255]), ImageShape::new(1, 2, 2), 2);
    assert_eq!(read(&alpha, None).unwrap(), Image::try_new(ImageShape::new(1, 2, 1), vec![127, 9].into()).unwrap());
    assert_eq!(read(&alpha, Some(3)).unwrap().shape(), ImageShape::new(1, 2, 3));
    let deep: ArrayRef = Arc::new(UInt16Array::from(vec![0, 65_535]));
    let deep = daft(deep, ImageShape::new(1, 2, 1), 5);
    assert_eq!(read(&deep, None).unwrap().pixels(), &Pixels::F32(vec![0.0, 1.0]));
    let error = read(&daft(u8s(&[0; 24]), SHAPE, 11), None).unwrap_err().to_string();
    assert!(error.starts_with("an image of Daft has the mode 11, expected 1 (L), 2 (LA), 3 (RGB)"), "{error}");
}

#[test]
fn pictures_without_values_are_null() {
    let data = ListArray::from_iter_primitive::<UInt8Type, _, _>([None, Some(vec![Some(3)])]);
    let one = |data_type| repeated(1, 2, &data_type);
    let fields = vec![
        ("data", Arc::new(data) as ArrayRef),
        ("height", one(DataType::Int8)),
        ("width", one(DataType::UInt64)),
        ("channel", one(DataType::Int64)),
        ("mode", one(DataType::UInt8)),
    ];
    let column = column(&structure(fields, None));
    assert_eq!((column.is_null(0), column.is_null(1), column.path(1)), (true, false, None));
    assert_eq!(column.image(1, None, &Limits::default()).unwrap().pixels(), &Pixels::U8(vec![3]));
}
