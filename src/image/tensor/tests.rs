//! Types of columns, accepted and refused.

use rstest::rstest;

use super::super::tensor_field;
use super::*;

const UNNAMED: &str = "a flat list does not say the order of the axes of its images, expected images of shape \
                       [2, 4, 3]: name it as image_decode(list, height, width, channels, layout), layout 'HWC' or \
                       'CHW'";

fn of(data_type: DataType) -> Result<ImageType> {
    ImageType::try_new(&Field::new("image", data_type, true))
}

fn list(item: DataType) -> DataType {
    DataType::List(Field::new("element", item, false).into())
}

fn fixed(item: DataType, size: i32) -> DataType {
    DataType::FixedSizeList(Field::new("item", item, true).into(), size)
}

fn structure(fields: &[(&str, DataType)]) -> DataType {
    DataType::Struct(fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect())
}

fn picture(data: DataType, channels: &str) -> DataType {
    let integers = ["height", "width", channels, "mode"].map(|name| (name, DataType::Int32));
    structure(&[integers.as_slice(), &[("data", data)]].concat())
}

fn dictionary(values: DataType) -> DataType {
    DataType::Dictionary(DataType::Int8.into(), values.into())
}

#[rstest]
#[case::null(DataType::Null)]
#[case::binary(DataType::Binary)]
#[case::large_binary(DataType::LargeBinary)]
#[case::binary_view(DataType::BinaryView)]
#[case::hugging_face(structure(&[("bytes", DataType::Binary), ("path", DataType::Utf8)]))]
#[case::flat(fixed(DataType::Float16, 784))]
#[case::flat_list(list(DataType::UInt8))]
#[case::rows(list(fixed(DataType::Float32, 28)))]
#[case::pixels(fixed(list(list(DataType::Float64)), 28))]
#[case::variable(structure(&[("shape", fixed(DataType::Int32, 3)), ("data", list(DataType::UInt8))]))]
#[case::dictionary(dictionary(DataType::Binary))]
#[case::dictionary_of_tensors(dictionary(fixed(DataType::UInt8, 784)))]
#[case::no_bytes(structure(&[("bytes", DataType::Null), ("path", DataType::Utf8)]))]
#[case::integers(list(DataType::Int64))]
#[case::masks(list(fixed(DataType::Boolean, 28)))]
#[case::ray(structure(&[("data", list(DataType::UInt8)), ("shape", list(DataType::Int64))]))]
#[case::daft_tensor(structure(&[("data", list(DataType::UInt16)), ("shape", list(DataType::UInt64))]))]
#[case::spark(picture(DataType::Binary, "nChannels"))]
#[case::spark_in_small_letters(picture(DataType::LargeBinary, "nchannels"))]
#[case::daft_picture(picture(list(DataType::UInt8), "channel"))]
fn accepted_without_a_shape(#[case] data_type: DataType) {
    assert_eq!(of(data_type).unwrap().shape(), None);
}

#[test]
fn shapes_that_the_type_fixes() {
    let shape = ImageShape::new(2, 4, 3);
    let field = tensor_field("image", DataType::Float32, &[("C", 3), ("H", 2), ("W", 4)], true);
    assert_eq!(ImageType::try_new(&field).unwrap().shape(), Some(shape));
    let packed = field.clone().with_data_type(dictionary(field.data_type().clone()));
    assert_eq!(ImageType::try_new(&packed).unwrap().shape(), Some(shape));
    let nested = fixed(fixed(fixed(DataType::UInt8, 3), 4), 2);
    assert_eq!(of(nested).unwrap().shape(), Some(shape));
    let grey = fixed(fixed(DataType::UInt8, 4), 2);
    assert_eq!(of(grey).unwrap().shape(), Some(ImageShape::new(2, 4, 1)));
}

#[rstest]
#[case::dates(list(DataType::Date32), "List(")]
#[case::number(DataType::Int64, "got Int64")]
#[case::text(DataType::Utf8, "got Utf8 (a path is not read: see read_images); images are not text: base64")]
#[case::text_view(DataType::Utf8View, "becomes bytes by decode(image, 'base64')")]
#[case::text_in_struct(structure(&[("bytes", DataType::LargeUtf8)]), "becomes bytes by decode(image, 'base64')")]
#[case::path_only(structure(&[("path", DataType::Utf8)]), "(a path is not read: see read_images)")]
#[case::path_in_dictionary(structure(&[("path", dictionary(DataType::Utf8))]), "(a path is not read: see read_images)")]
#[case::four_levels(list(list(list(list(DataType::UInt8)))), "got List(")]
#[case::float_sizes(
    structure(&[("shape", fixed(DataType::Float32, 3)), ("data", list(DataType::UInt8))]),
    "got Struct("
)]
#[case::picture_without_a_size(
    structure(&[("height", DataType::Int32), ("mode", DataType::Int32), ("data", DataType::Binary)]),
    "got Struct("
)]
#[case::nested_data(structure(&[("shape", fixed(DataType::Int32, 3)), ("data", list(list(DataType::UInt8)))]), "got Struct(")]
#[case::dictionary(dictionary(DataType::Utf8), "got Dictionary(Int8, Utf8)")]
#[case::dictionary_twice(dictionary(dictionary(DataType::Binary)), "got Dictionary(")]
fn refused(#[case] data_type: DataType, #[case] got: &str) {
    let error = of(data_type).unwrap_err();
    assert!(matches!(error, Error::Type(_)), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with("expected images: Binary, LargeBinary or BinaryView (PNG,"), "{message}");
    assert!(message.contains("lists of integers, Booleans or floats"), "{message}");
    assert!(message.contains(got), "{message}");
}

#[test]
fn metadata_must_fit_the_list() {
    let field = tensor_field("image", DataType::UInt8, &[("H", 2), ("W", 4)], true);
    let error = ImageType::try_new(&field.with_data_type(fixed(DataType::UInt8, 9))).unwrap_err().to_string();
    assert_eq!(error, "tensor metadata: a list of 9 values is no image of shape [2, 4, 1], which has 8");
}

#[rstest]
#[case::variable_of_five(5)]
#[case::variable_of_one(1)]
fn ranks_of_variable_tensors(#[case] rank: i32) {
    let data_type = structure(&[("shape", fixed(DataType::Int32, rank)), ("data", list(DataType::UInt8))]);
    let error = of(data_type).unwrap_err().to_string();
    assert_eq!(error, format!("a tensor of {rank} dimensions is no image, expected [H, W] or [H, W, C]"));
}

#[rstest]
#[case::bytes(DataType::Binary, None)]
#[case::flat(fixed(DataType::UInt8, 24), Some(UNNAMED))]
#[case::any_list(list(DataType::Int64), Some(UNNAMED))]
#[case::nested(fixed(fixed(fixed(DataType::UInt8, 3), 4), 2), None)]
#[case::part_known(list(fixed(list(DataType::UInt8), 4)), None)]
#[case::other_length(
    fixed(DataType::UInt8, 784),
    Some("a list of 784 values is no image of shape [2, 4, 3], which has 24")
)]
#[case::other_shape(
    fixed(fixed(fixed(DataType::UInt8, 1), 4), 2),
    Some("image has shape [2, 4, 1], expected [2, 4, 3]")
)]
#[case::other_width(list(fixed(list(DataType::UInt8), 5)), Some("images have shape [any, 5, any], expected [2, 4, 3]"))]
#[case::grey(list(list(DataType::UInt8)), Some("images have shape [any, any, 1], expected [2, 4, 3]"))]
fn shapes_at_planning(#[case] data_type: DataType, #[case] message: Option<&str>) {
    let checked = of(data_type).unwrap().check_shape(ImageShape::new(2, 4, 3));
    assert_eq!(checked.err().map(|error| error.to_string()).as_deref(), message);
}

#[test]
fn a_caller_names_the_order_of_a_flat_list() {
    let flat = of(fixed(DataType::UInt8, 24)).unwrap();
    for order in [AxisOrder::Hwc, AxisOrder::Chw] {
        let flat = flat.clone().in_order(order).unwrap();
        assert!(flat.check_shape(ImageShape::new(2, 4, 3)).is_ok());
        assert!(flat.check_shape(ImageShape::new(2, 5, 3)).is_err());
    }
    assert!(flat.check_shape(ImageShape::new(4, 6, 1)).is_ok(), "one channel has no order");
}

#[test]
fn an_implausible_order_is_refused_at_planning() {
    let nested = |sides: [i32; 3]| fixed(fixed(fixed(DataType::Float32, sides[2]), sides[1]), sides[0]);
    let torch = of(nested([3, 16, 20])).unwrap();
    let shape = ImageShape::new(16, 20, 3);
    for error in [torch.check_order(), torch.check_shape(shape), torch.check_shape(ImageShape::new(3, 16, 20))] {
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::Type(message) if message.contains("'CHW'")), "{error:?}");
    }
    let stated = torch.clone().in_order(AxisOrder::Chw).unwrap();
    assert_eq!(stated.shape(), Some(shape));
    assert!(stated.check_shape(shape).is_ok());
    let tall = torch.in_order(AxisOrder::Hwc).unwrap();
    assert!(tall.check_shape(ImageShape::new(3, 16, 20)).is_ok());
    assert!(of(nested([16, 20, 3])).unwrap().check_order().is_ok());
    assert!(of(list(nested([16, 20, 0]))).is_err());
}

#[test]
fn only_lists_and_tensors_have_an_order_to_name() {
    for data_type in [DataType::Binary, DataType::Null, structure(&[("bytes", DataType::Binary)])] {
        let image_type = of(data_type).unwrap();
        assert_eq!(image_type.clone().in_order(AxisOrder::Chw).unwrap(), image_type);
    }
    let spark = of(picture(DataType::Binary, "nChannels")).unwrap();
    assert!(spark.clone().in_order(AxisOrder::Hwc).is_ok() && spark.in_order(AxisOrder::Chw).is_err());
    let first = tensor_field("image", DataType::UInt8, &[("C", 3), ("H", 2), ("W", 4)], true);
    let first = ImageType::try_new(&first).unwrap();
    assert!(first.clone().in_order(AxisOrder::Chw).is_ok() && first.in_order(AxisOrder::Hwc).is_err());
}

#[test]
fn encoded_images_have_few_channels() {
    let bytes = of(DataType::Binary).unwrap();
    assert!(bytes.check_shape(ImageShape::new(2, 4, 4)).is_ok());
    let error = bytes.check_shape(ImageShape::new(2, 4, 2)).unwrap_err().to_string();
    assert_eq!(error, "encoded images have 1, 3 or 4 channels, expected shape [2, 4, 2]");
}

/// A tensor of one dimension is a vector of features, and no image.
#[test]
fn a_tensor_of_one_dimension_is_a_vector() {
    let field = tensor_field("x", DataType::Float32, &[("x", 8)], true);
    let error = ImageType::try_new(&field).unwrap_err();
    assert!(matches!(error, Error::Type(_)), "{error:?}");
    assert_eq!(error.to_string(), "a tensor of 1 dimensions is no image, expected [H, W] or [H, W, C]");
    assert_eq!(ImageType::of_features(&field).unwrap().shape(), Some(ImageShape::new(1, 1, 8)));
}

#[rstest]
#[case::list(list(DataType::Float64), None)]
#[case::vector(fixed(DataType::Float16, 5), Some((1, 1, 5)))]
#[case::grid(fixed(fixed(DataType::Float32, 3), 2), Some((2, 3, 1)))]
#[case::map(fixed(fixed(fixed(DataType::Float32, 12), 3), 2), Some((2, 3, 12)))]
#[case::dictionary(DataType::Dictionary(DataType::Int8.into(), list(DataType::Float32).into()), None)]
#[case::variable(structure(&[("data", list(DataType::Float32)), ("shape", fixed(DataType::Int32, 3))]), None)]
#[case::null(DataType::Null, None)]
fn types_of_features(#[case] data_type: DataType, #[case] shape: Option<(usize, usize, usize)>) {
    let features = ImageType::of_features(&Field::new("x", data_type, true)).unwrap();
    assert_eq!(features.shape(), shape.map(|(h, w, c)| ImageShape::new(h, w, c)));
    features.check_order().unwrap();
    features.check_flat(None).unwrap();
}

#[rstest]
#[case::integers(list(DataType::Int64), "; cast integers to floats, as in arrow_cast(x, 'List(Float32)')")]
#[case::bytes(DataType::Binary, "; leave input => 'features' out to train on images")]
#[case::hugging_face(structure(&[("bytes", DataType::Binary)]), "; leave input => 'features' out to train on images")]
#[case::number(DataType::Float64, "; columns of numbers become a vector by make_array(a, b, ...)")]
#[case::text(DataType::Utf8, "got Utf8")]
#[case::deep(list(list(list(list(DataType::Float32)))), "expected features: ")]
#[case::picture(picture(list(DataType::Float32), "channel"), "expected features: ")]
fn types_of_no_features(#[case] data_type: DataType, #[case] message: &str) {
    let error = ImageType::of_features(&Field::new("x", data_type, true)).unwrap_err().to_string();
    assert!(error.starts_with("expected features: ") && error.contains(message), "{error}");
}

#[rstest]
#[case::encoded(DataType::BinaryView, true)]
#[case::bytes(list(list(DataType::UInt8)), true)]
#[case::masks(fixed(DataType::Boolean, 4), true)]
#[case::words(list(list(DataType::UInt16)), false)]
#[case::floats(dictionary(fixed(DataType::Float64, 4)), false)]
#[case::variable(structure(&[("data", list(DataType::Float32)), ("shape", fixed(DataType::Int32, 3))]), false)]
#[case::file(structure(&[("bytes", DataType::Binary), ("path", DataType::Utf8)]), true)]
fn the_kind_of_values_is_known_before_a_row_is(#[case] data_type: DataType, #[case] expected: bool) {
    assert_eq!(has_bytes(&Field::new("image", data_type, true)), expected);
}
