//! The Arrow types that hold images, and the parts of an image's shape that each fixes before a row is read.

use arrow::datatypes::{DataType, Field, Fields};

use super::ImageShape;
use super::metadata::{Axes, Layout, fixed_layout, variable_axes};
use crate::error::{Error, Result};

/// The kind of images in an Arrow type. Checked at planning.
///
/// Accepted, each also as the values of a dictionary:
///
/// | Arrow type | image |
/// |---|---|
/// | Binary, LargeBinary, BinaryView | encoded bytes: PNG, JPEG, WebP, BMP, GIF or TIFF |
/// | a struct with a field `bytes` of these | the same; other fields, such as a path, are never read |
/// | lists of lists, or of lists of lists | H×W, or H×W×C |
/// | `arrow.fixed_shape_tensor` | \[H, W\] or \[H, W, C\], or what its dimension names or its permutation say |
/// | a flat list | H·W·C values of a shape that the reader must know |
/// | a struct of `data` and `shape`, as `arrow.variable_shape_tensor` has | a shape a row |
/// | Null | no image in any row |
///
/// Where: a list is a FixedSizeList, List, LargeList, ListView or LargeListView, and values are UInt8, Float16, Float32
/// or Float64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageType {
    kind: Kind,
    /// The sides of (H, W, C) that the type fixes.
    sides: [Option<usize>; 3],
}

/// The form of a row's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// None.
    Null,
    /// Encoded bytes, in a struct's field `bytes` or alone.
    Encoded,
    /// A flat list whose shape the type does not say.
    Flat { values: Option<usize> },
    /// A flat list with a tensor's metadata.
    Fixed(Layout),
    /// Lists of lists (of lists).
    Nested,
    /// A struct of a flat list and its shape.
    Variable(Axes),
}

impl ImageType {
    /// Reads the type of a column, and of its metadata the extension's name and shape.
    ///
    /// # Errors
    /// [`Error::Type`] if the type holds no images, naming those accepted and the one that came, or if the tensor's
    /// metadata is not readable or does not fit the list.
    pub fn try_new(field: &Field) -> Result<Self> {
        let data_type = match field.data_type() {
            DataType::Dictionary(_, values) => values,
            other => other,
        };
        match data_type {
            DataType::Null => Ok(Self { kind: Kind::Null, sides: [None; 3] }),
            DataType::Struct(fields) => Self::of_struct(field, fields),
            data_type if is_binary(data_type) => Ok(Self { kind: Kind::Encoded, sides: [None; 3] }),
            data_type => Self::of_lists(field, data_type),
        }
    }

    /// The shape that the type fixes, (H, W, C).
    pub fn shape(&self) -> Option<ImageShape> {
        match self.sides {
            [Some(height), Some(width), Some(channels)] => Some(ImageShape::new(height, width, channels)),
            _ => None,
        }
    }

    /// Checks, at planning, that images of this type can have shape `expected`, with nothing done to them.
    ///
    /// # Errors
    /// [`Error::Shape`] if the type fixes another shape; [`Error::Type`] if it rules `expected` out in another way,
    /// such as a flat list of another length, or more channels than an encoded image ever has.
    pub fn check_shape(&self, expected: ImageShape) -> Result<()> {
        if let Some(got) = self.shape() {
            return if got == expected { Ok(()) } else { Err(Error::Shape { expected, got }) };
        }
        let wanted = [expected.height(), expected.width(), expected.channels()];
        if self.sides.iter().zip(wanted).any(|(side, wanted)| side.is_some_and(|side| side != wanted)) {
            let sides = self.sides.map(|side| side.map_or("any".to_owned(), |side| side.to_string())).join(", ");
            return Err(Error::Type(format!("images have shape [{sides}], expected {expected}")));
        }
        match self.kind {
            Kind::Flat { values: Some(values) } => check_length(values, expected).map_err(Error::Type),
            Kind::Encoded if !matches!(expected.channels(), 1 | 3 | 4) => {
                Err(Error::Type(format!("encoded images have 1, 3 or 4 channels, expected shape {expected}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    fn of_struct(field: &Field, fields: &Fields) -> Result<Self> {
        let child = |name: &str| fields.iter().find(|field| field.name() == name).map(|field| field.data_type());
        if child("bytes").is_some_and(is_binary) {
            return Ok(Self { kind: Kind::Encoded, sides: [None; 3] });
        }
        // By the names alone: the extension's own name is lost in many an expression.
        let (Some(data), Some(DataType::FixedSizeList(size, rank))) = (child("data"), child("shape")) else {
            return Err(unsupported(field.data_type()));
        };
        let (levels, leaf) = levels(data);
        if levels.len() != 1 || !is_pixel(leaf) || size.data_type() != &DataType::Int32 {
            return Err(unsupported(field.data_type()));
        }
        let axes = variable_axes(field, usize::try_from(*rank).unwrap_or_default())?;
        let channels = if axes.has_channels() { None } else { Some(1) };
        Ok(Self { kind: Kind::Variable(axes), sides: [None, None, channels] })
    }

    fn of_lists(field: &Field, data_type: &DataType) -> Result<Self> {
        let (levels, leaf) = levels(data_type);
        if !is_pixel(leaf) {
            return Err(unsupported(field.data_type()));
        }
        match levels[..] {
            [values] => Self::of_flat_list(field, values),
            [height, width] => Ok(Self { kind: Kind::Nested, sides: [height, width, Some(1)] }),
            [height, width, channels] => Ok(Self { kind: Kind::Nested, sides: [height, width, channels] }),
            _ => Err(unsupported(field.data_type())),
        }
    }

    fn of_flat_list(field: &Field, values: Option<usize>) -> Result<Self> {
        let Some(layout) = fixed_layout(field)? else {
            return Ok(Self { kind: Kind::Flat { values }, sides: [None; 3] });
        };
        let shape = layout.shape();
        if let Some(values) = values {
            check_length(values, shape).map_err(|message| Error::Type(format!("tensor metadata: {message}")))?;
        }
        let sides = [shape.height(), shape.width(), shape.channels()].map(Some);
        Ok(Self { kind: Kind::Fixed(layout), sides })
    }
}

/// Refuses a flat list whose length is not that of an image of a shape; the message names both numbers.
pub(super) fn check_length(values: usize, shape: ImageShape) -> Result<(), String> {
    if values == shape.len() {
        Ok(())
    } else {
        Err(format!("a list of {values} values is no image of shape {shape}, which has {}", shape.len()))
    }
}

/// The error of a type that holds no images.
pub(super) fn unsupported(data_type: &DataType) -> Error {
    Error::Type(format!(
        "expected images: Binary, LargeBinary or BinaryView (PNG, JPEG, WebP, BMP, GIF, TIFF), a struct with such a field \
         `bytes`, lists of UInt8, Float16, Float32 or Float64 (flat, H×W or H×W×C), arrow.fixed_shape_tensor or \
         arrow.variable_shape_tensor; got {data_type}"
    ))
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn is_pixel(data_type: &DataType) -> bool {
    matches!(data_type, DataType::UInt8 | DataType::Float16 | DataType::Float32 | DataType::Float64)
}

/// The list levels around a type, outermost first, each with its length if it is fixed, and the type inside.
fn levels(mut data_type: &DataType) -> (Vec<Option<usize>>, &DataType) {
    let mut levels = Vec::new();
    loop {
        let (item, length) = match data_type {
            DataType::FixedSizeList(item, length) => (item, usize::try_from(*length).ok()),
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item) => (item, None),
            _ => return (levels, data_type),
        };
        levels.push(length);
        data_type = item.data_type();
    }
}

#[cfg(test)]
mod tests {
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
}
