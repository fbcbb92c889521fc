//! Types of columns, accepted and refused.

use rstest::rstest;

use super::super::tensor_field;
use super::*;

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
#[case::integers(list(DataType::Int64), "List(")]
#[case::number(DataType::Int64, "got Int64")]
#[case::text(DataType::Utf8, "got Utf8")]
#[case::text_in_struct(structure(&[("bytes", DataType::Utf8)]), "got Struct(")]
#[case::path_only(structure(&[("path", DataType::Utf8)]), "got Struct(")]
#[case::four_levels(list(list(list(list(DataType::UInt8)))), "got List(")]
#[case::long_sizes(structure(&[("shape", fixed(DataType::Int64, 3)), ("data", list(DataType::UInt8))]), "got Struct(")]
#[case::nested_data(structure(&[("shape", fixed(DataType::Int32, 3)), ("data", list(list(DataType::UInt8)))]), "got Struct(")]
#[case::dictionary(dictionary(DataType::Utf8), "got Dictionary(Int8, Utf8)")]
#[case::dictionary_twice(dictionary(dictionary(DataType::Binary)), "got Dictionary(")]
fn refused(#[case] data_type: DataType, #[case] got: &str) {
    let error = of(data_type).unwrap_err();
    assert!(matches!(error, Error::Type(_)), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with("expected images: Binary, LargeBinary or BinaryView (PNG,"), "{message}");
    assert!(message.contains("lists of UInt8, Float16, Float32 or Float64"), "{message}");
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
#[case::flat(fixed(DataType::UInt8, 24), None)]
#[case::any_list(list(DataType::UInt8), None)]
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
#[case::other_width(
    list(fixed(list(DataType::UInt8), 5)),
    Some("images have shape [any, 5, any], expected [2, 4, 3]")
)]
#[case::grey(list(list(DataType::UInt8)), Some("images have shape [any, any, 1], expected [2, 4, 3]"))]
fn shapes_at_planning(#[case] data_type: DataType, #[case] message: Option<&str>) {
    let checked = of(data_type).unwrap().check_shape(ImageShape::new(2, 4, 3));
    assert_eq!(checked.err().map(|error| error.to_string()).as_deref(), message);
}

#[test]
fn encoded_images_have_few_channels() {
    let bytes = of(DataType::Binary).unwrap();
    assert!(bytes.check_shape(ImageShape::new(2, 4, 4)).is_ok());
    let error = bytes.check_shape(ImageShape::new(2, 4, 2)).unwrap_err().to_string();
    assert_eq!(error, "encoded images have 1, 3 or 4 channels, expected shape [2, 4, 2]");
}
