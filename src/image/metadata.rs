//! The metadata of Arrow's tensor types: which stored dimension is the height, which the width, which the channels.
//!
//! Written as pyarrow writes it, and read leniently. arrow-schema's own `FixedShapeTensor` serves neither way: it spells
//! `permutation` otherwise than the Arrow specification does.

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
/// storage is a FixedSizeList whose items are called `item` and are nullable, as pyarrow's are; a product of sizes beyond
/// the largest such list is clamped to it.
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

/// Which stored dimension is the height, which the width, and which, if any, the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axes {
    height: usize,
    width: usize,
    channels: Option<usize>,
}

impl Axes {
    /// Reads the dimensions' names, which the specification gives to the stored order, where they are those of an image;
    /// otherwise the permutation's order, dimension `permutation[i]` being the i-th of (H, W, C); otherwise that order.
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

/// Where the value (h, w, c) of an image stands in a flat list: at the inner product with `strides`.
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

    /// Brings values into (H, W, C) order. What lies beyond `values` is left out.
    pub(super) fn arrange<T: Copy>(self, values: Vec<T>) -> Vec<T> {
        if self == Self::row_major(self.shape) || values.len() != self.shape.len() {
            return values;
        }
        let [h, w, c] = self.strides;
        let (height, width, channels) = (self.shape.height(), self.shape.width(), self.shape.channels());
        (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| (0..channels).map(move |k| y * h + x * w + k * c)))
            .filter_map(|at| values.get(at).copied())
            .collect()
    }
}
