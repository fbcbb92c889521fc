//! The metadata of tensor types, which names the stored axes or their sizes: Arrow's, and those of other tools.
//!
//! Arrow's is written as pyarrow writes it, and read leniently. arrow-schema's own `FixedShapeTensor` serves neither
//! way: it spells `permutation` otherwise than the Arrow specification does.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AxisOrder;
use super::axes::Axes;
use crate::error::{Error, Result};

const NAME_KEY: &str = "ARROW:extension:name";
const METADATA_KEY: &str = "ARROW:extension:metadata";
pub(super) const FIXED_SHAPE: &str = "arrow.fixed_shape_tensor";
const DAFT: &str = "daft.super_extension";

/// The field of a fixed-shape tensor column of `item` (UInt8 or Float32), with the metadata that pyarrow reads.
///
/// `dims` names each dimension and gives its size, outermost first, such as `[("H", 28), ("W", 28), ("C", 1)]`. The
/// storage is a FixedSizeList whose items are called `item` and are nullable, as pyarrow's are; a product of sizes
/// beyond the largest such list is clamped to it.
///
/// # Example
/// ```
/// use arrow::datatypes::DataType;
/// use wae_core::image::{ImageShape, ImageType, tensor_field};
///
/// let field = tensor_field("image", DataType::UInt8, &[("H", 28), ("W", 28), ("C", 1)], true);
/// assert_eq!(field.metadata()["ARROW:extension:metadata"], r#"{"shape":[28,28,1],"dim_names":["H","W","C"]}"#);
/// assert_eq!(ImageType::try_new(&field)?.shape(), Some(ImageShape::new(28, 28, 1)));
/// # Ok::<(), wae_core::Error>(())
/// ```
pub fn tensor_field(name: &str, item: DataType, dims: &[(&str, usize)], nullable: bool) -> Field {
    let product = dims.iter().fold(1_usize, |product, (_, size)| product.saturating_mul(*size));
    let list_size = i32::try_from(product).unwrap_or(i32::MAX);
    let storage = DataType::FixedSizeList(Field::new("item", item, true).into(), list_size);
    let (dim_names, shape): (Vec<_>, Vec<_>) = dims.iter().copied().unzip();
    let mut metadata = HashMap::from([(NAME_KEY.to_owned(), FIXED_SHAPE.to_owned())]);
    // Numbers and strings always serialise; were it otherwise, a bare name is refused by every reader.
    if let Ok(json) = serde_json::to_string(&Written { shape, dim_names }) {
        metadata.insert(METADATA_KEY.to_owned(), json);
    }
    Field::new(name, storage, nullable).with_metadata(metadata)
}

/// The metadata as written: the order of the keys is pyarrow's.
#[derive(Serialize)]
struct Written<'a> {
    shape: Vec<usize>,
    dim_names: Vec<&'a str>,
}

/// The metadata as read: any key may be missing or null, and unknown keys are ignored.
#[derive(Debug, Default, Deserialize)]
struct Read {
    shape: Option<Vec<usize>>,
    /// The specification's name.
    permutation: Option<Vec<usize>>,
    /// arrow-schema's name.
    permutations: Option<Vec<usize>>,
    dim_names: Option<Vec<Option<String>>>,
}

impl Read {
    fn axes(&self, rank: usize) -> Result<Axes> {
        let permutation = self.permutation.as_deref().or(self.permutations.as_deref());
        Axes::try_new(rank, self.dim_names.as_deref().unwrap_or_default(), permutation)
    }
}

/// The type of a column that Daft wrote.
#[derive(Debug, Default, Deserialize)]
struct Daft {
    #[serde(default)]
    datatype: Value,
}

/// A field's metadata; where it has none, the default.
fn metadata<T: Default + DeserializeOwned>(field: &Field) -> Result<T> {
    let name = field.extension_type_name().unwrap_or_default();
    match field.extension_type_metadata() {
        None | Some("") => Ok(T::default()),
        Some(json) => serde_json::from_str(json)
            .map_err(|error| Error::Type(format!("the metadata of {name} is not readable: {error}, got {json}"))),
    }
}

/// The stored axes of a tensor of fixed shape and their sizes, if a field's metadata is that of one: Arrow's, Ray's,
/// Daft's or Lance's.
///
/// # Errors
/// [`Error::Type`] if the metadata is not readable or its shape is that of no image.
pub(super) fn fixed_tensor(field: &Field) -> Result<Option<(Axes, Vec<usize>)>> {
    let name = field.extension_type_name().unwrap_or_default();
    let (axes, sizes) = match name {
        FIXED_SHAPE | "lance.arrow.fixed_shape_image_tensor" => {
            let mut read: Read = metadata(field)?;
            let Some(sizes) = read.shape.take() else {
                return Err(Error::Type(format!("the metadata of {name} has no shape, expected [H, W] or [H, W, C]")));
            };
            (read.axes(sizes.len())?, sizes)
        }
        "ray.data.arrow_tensor" | "ray.data.arrow_tensor_v2" => {
            let sizes: Vec<usize> = metadata(field)?;
            (Axes::try_new(sizes.len(), &[], None)?, sizes)
        }
        DAFT => match daft_tensor(field)? {
            Some(tensor) => tensor,
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    axes.layout(&sizes).map_err(|error| Error::Type(format!("{name}: {error}")))?;
    Ok(Some((axes, sizes)))
}

/// Daft's images and tensors of fixed shape: its metadata holds its own type.
fn daft_tensor(field: &Field) -> Result<Option<(Axes, Vec<usize>)>> {
    let daft: Daft = metadata(field)?;
    let part = |name: &str| daft.datatype.get(name).cloned().unwrap_or_default();
    if let Ok((_, sizes)) = serde_json::from_value::<(Value, Vec<usize>)>(part("FixedShapeTensor")) {
        return Ok(Some((Axes::try_new(sizes.len(), &[], None)?, sizes)));
    }
    let Ok((mode, height, width)) = serde_json::from_value::<(String, usize, usize)>(part("FixedShapeImage")) else {
        return Ok(None);
    };
    let channels = match mode.as_str() {
        "L" | "L16" => 1,
        "RGB" | "RGB16" | "RGB32F" => 3,
        "RGBA" | "RGBA16" | "RGBA32F" => 4,
        _ => {
            return Err(Error::Type(format!(
                "Daft's images of fixed shape in mode {mode} are not read, expected L, RGB or RGBA"
            )));
        }
    };
    Ok(Some((Axes::stated(AxisOrder::Hwc, 3), vec![height, width, channels])))
}

/// The axes of a tensor of variable shape: of `rank` dimensions, where its type says so. Without metadata, height comes
/// first.
///
/// # Errors
/// [`Error::Type`] if the metadata is not readable, or if no image has so many dimensions.
pub(super) fn variable_axes(field: &Field, rank: Option<usize>) -> Result<Axes> {
    // Another extension's name, as an expression may leave it, says nothing about these dimensions.
    match (field.extension_type_name(), rank) {
        (Some("arrow.variable_shape_tensor"), rank) => {
            let read: Read = metadata(field)?;
            read.axes(rank.or(read.dim_names.as_ref().map(Vec::len)).unwrap_or(3))
        }
        (Some("ray.data.arrow_variable_shaped_tensor"), None) => assumed_axes(metadata(field)?),
        (_, rank) => assumed_axes(rank),
    }
}

fn assumed_axes(rank: Option<usize>) -> Result<Axes> {
    rank.map_or(Ok(Axes::assumed()), |rank| Axes::try_new(rank, &[], None))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::super::ImageShape;
    use super::super::axes::Layout;
    use super::*;

    fn field(extension: &str, json: &str) -> Field {
        let metadata = [(NAME_KEY, extension), (METADATA_KEY, json)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        Field::new("image", DataType::Null, true).with_metadata(metadata.into())
    }

    fn read(json: &str) -> Result<Layout> {
        let (axes, sizes) = fixed_tensor(&field(FIXED_SHAPE, json))?.unwrap();
        axes.layout(&sizes)
    }

    fn shape(height: usize, width: usize, channels: usize) -> ImageShape {
        ImageShape::new(height, width, channels)
    }

    /// The metadata that pyarrow 26.0.1 writes for `fixed_shape_tensor(value_type, shape, dim_names, permutation)`,
    /// from its serialised schemas, and its `storage_type`: `fixed_size_list<item: uint8>`, items nullable.
    #[rstest]
    #[case::named(r#"{"shape":[28,28,1],"dim_names":["H","W","C"]}"#, shape(28, 28, 1), [28, 1, 1])]
    #[case::bare(r#"{"shape":[3,28,30]}"#, shape(3, 28, 30), [840, 30, 1])]
    #[case::grey(r#"{"shape":[28,30]}"#, shape(28, 30, 1), [30, 1, 1])]
    #[case::permuted(r#"{"shape":[3,2,4],"permutation":[1,2,0]}"#, shape(2, 4, 3), [4, 1, 8])]
    #[case::both(r#"{"shape":[3,2,4],"permutation":[1,2,0],"dim_names":["C","H","W"]}"#, shape(2, 4, 3), [4, 1, 8])]
    #[case::identity(r#"{"shape":[3,2,4],"permutation":[0,1,2],"dim_names":["C","H","W"]}"#, shape(2, 4, 3), [4, 1, 8])]
    fn pyarrow_metadata(#[case] json: &str, #[case] shape: ImageShape, #[case] strides: [usize; 3]) {
        assert_eq!(read(json).unwrap(), Layout { shape, strides });
    }

    #[rstest]
    #[case::arrow_rs_key(r#"{"shape":[3,2,4],"permutations":[1,2,0]}"#, shape(2, 4, 3))]
    #[case::the_columnar_specifications_example(
        r#"{"shape":[100,200,500],"permutation":[2,0,1]}"#,
        shape(500, 100, 200)
    )]
    #[case::nulls(r#"{"shape":[2,4,3],"permutation":null,"permutations":null,"dim_names":null}"#, shape(2, 4, 3))]
    #[case::unknown_keys(r#"{"shape":[2,4],"colour":{"space":"sRGB"}}"#, shape(2, 4, 1))]
    #[case::names_without_permutation(r#"{"shape":[3,2,4],"dim_names":["C","H","W"]}"#, shape(2, 4, 3))]
    #[case::lower_case(r#"{"shape":[4,2],"dim_names":["w","h"]}"#, shape(2, 4, 1))]
    #[case::other_names(r#"{"shape":[2,4,3],"dim_names":["a","b",null]}"#, shape(2, 4, 3))]
    #[case::too_few_names(r#"{"shape":[2,4,3],"dim_names":["W","H"]}"#, shape(2, 4, 3))]
    #[case::a_name_twice(r#"{"shape":[2,4,3],"dim_names":["C","H","C"]}"#, shape(2, 4, 3))]
    fn lenient_metadata(#[case] json: &str, #[case] expected: ImageShape) {
        assert_eq!(read(json).unwrap().shape(), expected);
    }

    #[rstest]
    #[case::not_json("[[", "the metadata of arrow.fixed_shape_tensor is not readable")]
    #[case::no_shape(r#"{"shape":null}"#, "has no shape, expected [H, W] or [H, W, C]")]
    #[case::empty("", "has no shape, expected [H, W] or [H, W, C]")]
    #[case::four(r#"{"shape":[1,2,4,3]}"#, "a tensor of 4 dimensions is no image")]
    #[case::zero(r#"{"shape":[2,0,3]}"#, "a tensor of shape [2, 0, 3] is no image")]
    #[case::negative(r#"{"shape":[2,-4,3]}"#, "is not readable")]
    #[case::overflow(
        r#"{"shape":[4294967296,4294967296,3]}"#,
        "a tensor of shape [4294967296, 4294967296, 3] is no image"
    )]
    #[case::repeated(
        r#"{"shape":[2,4,3],"permutation":[0,0,1]}"#,
        "the permutation [0, 0, 1] of a tensor does not order 3"
    )]
    #[case::outside(
        r#"{"shape":[2,4,3],"permutation":[1,2,3]}"#,
        "the permutation [1, 2, 3] of a tensor does not order 3"
    )]
    #[case::short(r#"{"shape":[2,4,3],"permutation":[1,0]}"#, "the permutation [1, 0] of a tensor does not order 3")]
    fn bad_metadata(#[case] json: &str, #[case] message: &str) {
        let error = read(json).unwrap_err();
        assert!(matches!(error, Error::Type(_)), "{error:?}");
        assert!(error.to_string().contains(message), "{error}");
    }

    #[test]
    fn written_metadata_is_pyarrows() {
        let field = tensor_field("image", DataType::Float32, &[("H", 2), ("W", 4), ("C", 3)], false);
        assert_eq!(field.extension_type_name(), Some("arrow.fixed_shape_tensor"));
        assert_eq!(field.extension_type_metadata(), Some(r#"{"shape":[2,4,3],"dim_names":["H","W","C"]}"#));
        let item = Field::new("item", DataType::Float32, true);
        assert_eq!(field.data_type(), &DataType::FixedSizeList(item.into(), 24));
        assert!(!field.is_nullable());
    }

    #[test]
    fn a_list_beyond_the_largest_is_clamped() {
        let field = tensor_field("image", DataType::UInt8, &[("H", usize::MAX), ("W", 2)], true);
        assert!(matches!(field.data_type(), DataType::FixedSizeList(_, i32::MAX)));
    }

    #[test]
    fn channels_move_last() {
        // Channel-first: red 0..4, green 10..14.
        let layout = read(r#"{"shape":[2,2,2],"dim_names":["C","H","W"]}"#).unwrap();
        assert_eq!(layout.arrange(vec![0, 1, 2, 3, 10, 11, 12, 13]), [0, 10, 1, 11, 2, 12, 3, 13]);
        assert_eq!(Layout::row_major(layout.shape()).arrange(vec![7; 8]), [7; 8]);
    }

    #[test]
    fn the_variable_tensors_metadata_is_optional() {
        let plain = Axes::assumed();
        assert_eq!(variable_axes(&Field::new("image", DataType::Null, true), Some(3)).unwrap(), plain);
        let variable = |json| variable_axes(&field("arrow.variable_shape_tensor", json), Some(3));
        assert_eq!(variable("").unwrap(), plain);
        assert_eq!(variable(r#"{"uniform_shape":[400,null,3]}"#).unwrap(), plain);
        let first = Axes::stated(AxisOrder::Chw, 3);
        assert_eq!(variable(r#"{"dim_names":["C","H","W"]}"#).unwrap(), first);
        assert_eq!(variable(r#"{"permutation":[1,2,0]}"#).unwrap().in_order(AxisOrder::Chw).unwrap(), first);
    }

    /// As Ray 2.60, Daft 0.7.26 and pylance 14 write them.
    #[rstest]
    #[case::ray("ray.data.arrow_tensor", "[2, 4, 3]", shape(2, 4, 3))]
    #[case::ray_2("ray.data.arrow_tensor_v2", "[2, 4]", shape(2, 4, 1))]
    #[case::lance("lance.arrow.fixed_shape_image_tensor", r#"{"shape": [2, 4, 3]}"#, shape(2, 4, 3))]
    #[case::daft_tensor(
        "daft.super_extension",
        r#"{"datatype":{"FixedShapeTensor":["Float32",[2,4,3]]},"daft_version":"0.7.26"}"#,
        shape(2, 4, 3)
    )]
    #[case::daft_rgb("daft.super_extension", r#"{"datatype":{"FixedShapeImage":["RGB",2,4]}}"#, shape(2, 4, 3))]
    #[case::daft_grey("daft.super_extension", r#"{"datatype":{"FixedShapeImage":["L",2,4]}}"#, shape(2, 4, 1))]
    #[case::daft_rgba("daft.super_extension", r#"{"datatype":{"FixedShapeImage":["RGBA",2,4]}}"#, shape(2, 4, 4))]
    fn other_writers(#[case] name: &str, #[case] json: &str, #[case] shape: ImageShape) {
        let (axes, sizes) = fixed_tensor(&field(name, json)).unwrap().unwrap();
        assert_eq!(axes.layout(&sizes).unwrap(), Layout::row_major(shape));
    }

    #[test]
    fn what_other_writers_hold_beside_tensors() {
        for datatype in [r#"{"Embedding":["Float32",2]}"#, r#""Python""#, r#"{"Tensor":"UInt8"}"#] {
            let json = format!(r#"{{"datatype":{datatype}}}"#);
            assert_eq!(fixed_tensor(&field("daft.super_extension", &json)).unwrap(), None);
        }
        let error = fixed_tensor(&field("daft.super_extension", r#"{"datatype":{"FixedShapeImage":["LA",2,4]}}"#));
        let message = error.unwrap_err().to_string();
        assert_eq!(message, "Daft's images of fixed shape in mode LA are not read, expected L, RGB or RGBA");
        for (name, json) in [("ray.data.arrow_tensor", "\u{1}pickle"), ("daft.super_extension", "[")] {
            let message = fixed_tensor(&field(name, json)).unwrap_err().to_string();
            assert!(message.starts_with(&format!("the metadata of {name} is not readable: ")), "{message}");
        }
    }

    #[test]
    fn the_rank_of_a_variable_tensor_may_be_unknown() {
        let ray = |json| variable_axes(&field("ray.data.arrow_variable_shaped_tensor", json), None);
        assert_eq!(ray("3").unwrap(), Axes::assumed());
        assert_eq!(ray("").unwrap(), Axes::assumed());
        assert_eq!(ray("2").unwrap().sides(&[None, None]), [None, None, Some(1)]);
        assert!(ray("4").unwrap_err().to_string().starts_with("a tensor of 4 dimensions is no image"));
        let daft = field("daft.super_extension", r#"{"datatype":{"Tensor":"UInt8"}}"#);
        assert_eq!(variable_axes(&daft, None).unwrap(), Axes::assumed());
    }

    proptest! {
        #[test]
        fn no_metadata_panics(json in ".{0,40}", numbers in prop::collection::vec(any::<u64>(), 0..5), order in prop::collection::vec(0_u64..4, 0..5)) {
            let _ = read(&json);
            let _ = read(&format!(r#"{{"shape":{json}}}"#));
            let _ = read(&format!(r#"{{"shape":{numbers:?},"permutation":{order:?}}}"#));
        }
    }
}
