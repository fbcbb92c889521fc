//! The metadata of Arrow's tensor types, which names the stored dimensions: height, width and channels.
//!
//! Written as pyarrow writes it, and read leniently. arrow-schema's own `FixedShapeTensor` serves neither way: it
//! spells `permutation` otherwise than the Arrow specification does.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

use super::ImageShape;
use crate::error::{Error, Result};

const NAME_KEY: &str = "ARROW:extension:name";
const METADATA_KEY: &str = "ARROW:extension:metadata";
pub(super) const FIXED_SHAPE: &str = "arrow.fixed_shape_tensor";

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
    fn try_new(field: &Field) -> Result<Self> {
        let name = field.extension_type_name().unwrap_or_default();
        match field.extension_type_metadata() {
            None | Some("") => Ok(Self::default()),
            Some(json) => serde_json::from_str(json)
                .map_err(|error| Error::Type(format!("the metadata of {name} is not readable: {error}, got {json}"))),
        }
    }

    fn axes(&self, rank: usize) -> Result<Axes> {
        let permutation = self.permutation.as_deref().or(self.permutations.as_deref());
        Axes::try_new(rank, self.dim_names.as_deref().unwrap_or_default(), permutation)
    }
}

/// The layout that a field's metadata gives, if the field is an `arrow.fixed_shape_tensor`.
///
/// # Errors
/// [`Error::Type`] if the metadata is not readable or its shape is that of no image.
pub(super) fn fixed_layout(field: &Field) -> Result<Option<Layout>> {
    if field.extension_type_name() != Some(FIXED_SHAPE) {
        return Ok(None);
    }
    let read = Read::try_new(field)?;
    let Some(shape) = &read.shape else {
        return Err(Error::Type(format!("the metadata of {FIXED_SHAPE} has no shape, expected [H, W] or [H, W, C]")));
    };
    let layout = read.axes(shape.len())?.layout(shape);
    layout.map(Some).map_err(|error| Error::Type(format!("{FIXED_SHAPE}: {error}")))
}

/// The axes of an `arrow.variable_shape_tensor` of `rank` dimensions; without metadata, height comes first.
///
/// # Errors
/// [`Error::Type`] if the metadata is not readable.
pub(super) fn variable_axes(field: &Field, rank: usize) -> Result<Axes> {
    // What remains of another extension says nothing about these dimensions.
    let read = match field.extension_type_name() {
        Some("arrow.variable_shape_tensor") => Read::try_new(field)?,
        _ => Read::default(),
    };
    read.axes(rank)
}

/// The stored dimensions that are height, width and, if there are any, channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axes {
    height: usize,
    width: usize,
    channels: Option<usize>,
}

impl Axes {
    /// Reads the dimensions' names, which the specification gives to the stored order, where they are those of an
    /// image; otherwise the permutation's order, dimension `permutation[i]` being the i-th of (H, W, C); otherwise that
    /// order.
    ///
    /// pyarrow 26 agrees where the permutation is its own inverse. On a cycle of three its `to_tensor` and
    /// `from_numpy_ndarray` take the inverse; here the specification decides, and names decide before it.
    fn try_new(rank: usize, names: &[Option<String>], permutation: Option<&[usize]>) -> Result<Self> {
        if !(2..=3).contains(&rank) {
            return Err(Error::Type(format!(
                "a tensor of {rank} dimensions is no image, expected [H, W] or [H, W, C]"
            )));
        }
        let stored: Vec<usize> = (0..rank).collect();
        let order = permutation.unwrap_or(&stored);
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        match (sorted == stored, order) {
            (true, &[height, width]) => Ok(Self::named(rank, names).unwrap_or(Self { height, width, channels: None })),
            (true, &[height, width, channels]) => {
                Ok(Self::named(rank, names).unwrap_or(Self { height, width, channels: Some(channels) }))
            }
            _ => Err(Error::Type(format!("the permutation {order:?} of a tensor does not order {rank} dimensions"))),
        }
    }

    fn named(rank: usize, names: &[Option<String>]) -> Option<Self> {
        if names.len() != rank {
            return None;
        }
        let find = |wanted: &str| {
            names.iter().position(|name| name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(wanted)))
        };
        let channels = if rank == 3 { Some(find("C")?) } else { None };
        Some(Self { height: find("H")?, width: find("W")?, channels })
    }

    /// Whether there is a dimension of channels; without one an image is grey.
    pub(super) fn has_channels(self) -> bool {
        self.channels.is_some()
    }

    /// The layout of a tensor whose stored dimensions have these sizes.
    ///
    /// # Errors
    /// [`Error::Data`] if a dimension is zero or missing, or the product does not fit.
    pub(super) fn layout(self, sizes: &[usize]) -> Result<Layout> {
        let bad = || Error::Data(format!("a tensor of shape {sizes:?} is no image"));
        // What one step along a stored dimension skips: the sizes of all dimensions inside it.
        let mut strides = vec![1_usize; sizes.len()];
        let mut product = 1_usize;
        for (stride, size) in strides.iter_mut().zip(sizes).rev() {
            *stride = product;
            product = product.checked_mul(*size).filter(|product| *product > 0).ok_or_else(bad)?;
        }
        let axis = |axis: usize| Some((*sizes.get(axis)?, *strides.get(axis)?));
        let (height, h) = axis(self.height).ok_or_else(bad)?;
        let (width, w) = axis(self.width).ok_or_else(bad)?;
        let (channels, c) = self.channels.map_or(Some((1, 1)), axis).ok_or_else(bad)?;
        Ok(Layout { shape: ImageShape::new(height, width, channels), strides: [h, w, c] })
    }
}

/// The place of the value (h, w, c) of an image in a flat list: its inner product with `strides`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    shape: ImageShape,
    strides: [usize; 3],
}

impl Layout {
    /// Values in (H, W, C) order.
    pub(super) fn row_major(shape: ImageShape) -> Self {
        Self { shape, strides: [shape.width().saturating_mul(shape.channels()), shape.channels(), 1] }
    }

    /// (H, W, C), whatever the stored order.
    pub(super) fn shape(self) -> ImageShape {
        self.shape
    }

    /// Brings values into (H, W, C) order. Places beyond `values` are left out.
    pub(super) fn arrange<T: Copy>(self, values: Vec<T>) -> Vec<T> {
        if self == Self::row_major(self.shape) || values.len() != self.shape.len() {
            return values;
        }
        let [h, w, c] = self.strides;
        let height = self.shape.height();
        let width = self.shape.width();
        let channels = self.shape.channels();
        (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| (0..channels).map(move |k| y * h + x * w + k * c)))
            .filter_map(|at| values.get(at).copied())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn field(extension: &str, json: &str) -> Field {
        let metadata = [(NAME_KEY, extension), (METADATA_KEY, json)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        Field::new("image", DataType::Null, true).with_metadata(metadata.into())
    }

    fn read(json: &str) -> Result<Layout> {
        fixed_layout(&field(FIXED_SHAPE, json)).map(Option::unwrap)
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
    #[case::one_dimension(r#"{"shape":[8]}"#, "a tensor of 1 dimensions is no image, expected [H, W] or [H, W, C]")]
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
        let plain = Axes { height: 0, width: 1, channels: Some(2) };
        assert_eq!(variable_axes(&Field::new("image", DataType::Null, true), 3).unwrap(), plain);
        let variable = |json| variable_axes(&field("arrow.variable_shape_tensor", json), 3);
        assert_eq!(variable("").unwrap(), plain);
        assert_eq!(variable(r#"{"uniform_shape":[400,null,3]}"#).unwrap(), plain);
        let first = Axes { height: 1, width: 2, channels: Some(0) };
        assert_eq!(variable(r#"{"dim_names":["C","H","W"]}"#).unwrap(), first);
        assert_eq!(variable(r#"{"permutation":[1,2,0]}"#).unwrap(), first);
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
