//! The Arrow types that hold images, and the parts of an image's shape that each fixes before a row is read.

use arrow::datatypes::{DataType, Field, Fields};

use super::axes::{Axes, Layout, not_an_image, side_names};
use super::meaning::Meaning;
use super::metadata::{fixed_tensor, variable_axes};
use super::{AxisOrder, ImageShape};
use crate::error::{Error, Result};

/// The kind of images in an Arrow type. Checked at planning.
///
/// Accepted, each also as the values of a dictionary:
///
/// | Arrow type | image |
/// |---|---|
/// | Binary, LargeBinary, BinaryView | encoded bytes: PNG, JPEG, WebP, BMP, GIF or TIFF |
/// | a struct with a field `bytes` of these | the same; a field `path` names the image in errors and is never read |
/// | lists of lists, or of lists of lists | H×W, or H×W×C |
/// | `arrow.fixed_shape_tensor`, Ray's, Daft's | \[H, W\] or \[H, W, C\], or as dimension names or a permutation say |
/// | a flat list | H·W·C values of a shape that the reader must know |
/// | a struct of `data` and `shape`, as `arrow.variable_shape_tensor` has | a shape a row |
/// | a struct of `data`, `height`, `width`, `mode` and `nChannels` or `channel` | a picture of Spark or Daft |
/// | Null | no image in any row |
///
/// Where: a list is a FixedSizeList, List, LargeList, ListView or LargeListView, and values are integers, Booleans or
/// floats. Lists and tensors whose type does not name the order of the axes are read as height, width, channels, unless
/// their shape makes that implausible ([`ImageType::check_order`]) or a caller states another
/// ([`ImageType::in_order`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageType {
    kind: Kind,
    axes: Axes,
    /// The sizes of the stored axes, as far as the type fixes them.
    sizes: Vec<Option<usize>>,
    meaning: Meaning,
}

/// The form of a row's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// None.
    Null,
    /// Encoded bytes, in a struct's field `bytes` or alone.
    Encoded,
    /// A flat list whose shape the type does not say. Its order is the caller's, where `stated`.
    Flat { values: Option<usize>, stated: Option<AxisOrder> },
    /// A flat list with a tensor's metadata.
    Fixed,
    /// Lists of lists (of lists).
    Nested,
    /// A struct of a flat list and its shape.
    Variable,
    /// A struct of values and their height, width and channels.
    Picture,
}

impl ImageType {
    /// Reads the type of a column, and of its metadata the extension's name and shape.
    ///
    /// # Errors
    /// [`Error::Type`] if the type holds no images, naming those accepted and the one that came, or if the tensor's
    /// metadata is not readable or does not fit the list.
    pub fn try_new(field: &Field) -> Result<Self> {
        let image_type = match values_of(field.data_type()) {
            DataType::Null => Ok(Self::of_kind(Kind::Null)),
            DataType::Struct(fields) => Self::of_struct(field, fields),
            data_type if is_binary(data_type) => Ok(Self::of_kind(Kind::Encoded)),
            data_type => Self::of_lists(field, data_type),
        }?;
        // A vector, of which images are not made.
        if image_type.axes.rank() == 1 { Err(not_an_image(1)) } else { Ok(image_type) }
    }

    /// Reads the type of a column of features: floats of any range.
    ///
    /// | Arrow type | features |
    /// |---|---|
    /// | a flat list; a tensor of one dimension | a vector, 1×1×C |
    /// | lists of lists; a tensor of two dimensions | H×W×1 |
    /// | lists of lists of lists; a tensor of three dimensions | H×W×C, or as dimension names or a permutation say |
    /// | a struct of `data` and `shape`, as `arrow.variable_shape_tensor` has | a shape a row |
    /// | Null | none in any row |
    ///
    /// # Errors
    /// [`Error::Type`] for any other type, saying what is expected, and for metadata as in [`Self::try_new`].
    pub fn of_features(field: &Field) -> Result<Self> {
        let no_features = || Error::Type(no_features(field.data_type()));
        let features = match values_of(field.data_type()) {
            DataType::Null => Ok(Self::of_kind(Kind::Null)),
            DataType::Struct(fields) => match (child_of(fields, "data"), child_of(fields, "shape")) {
                (Some(data), Some(shape)) if levels(data.data_type()).1.is_floating() => {
                    Self::of_variable(field, data.data_type(), shape.data_type())
                }
                _ => return Err(no_features()),
            },
            data_type => match levels(data_type) {
                (levels, leaf) if leaf.is_floating() && (1..=3).contains(&levels.len()) => {
                    Self::of_lists(field, data_type)
                }
                _ => return Err(no_features()),
            },
        }?;
        let features = match features.kind {
            Kind::Flat { values, .. } => {
                Self { kind: Kind::Nested, axes: Axes::try_new(1, &[], None)?, sizes: vec![values], ..features }
            }
            _ => features,
        };
        Ok(Self { meaning: Meaning::Features, ..features })
    }

    /// The same type, whose floats are numbers of any range.
    pub(super) fn of_numbers(self) -> Self {
        Self { meaning: Meaning::Numbers, ..self }
    }

    /// The same type with the order of its axes where it names none.
    pub fn in_default_order(self, order: Option<AxisOrder>) -> Self {
        Self { axes: order.map_or(self.axes, |order| self.axes.in_default_order(order)), ..self }
    }

    /// The same type with the order of its axes stated by the caller, where it is a list or tensor that does not name
    /// one. Encoded bytes have no order to state.
    ///
    /// # Errors
    /// [`Error::Type`] if the type names another order.
    pub fn in_order(mut self, order: AxisOrder) -> Result<Self> {
        match &mut self.kind {
            Kind::Null | Kind::Encoded => return Ok(self),
            Kind::Flat { stated, .. } => *stated = Some(order),
            Kind::Fixed | Kind::Nested | Kind::Variable | Kind::Picture => {}
        }
        self.axes = self.axes.in_order(order)?;
        Ok(self)
    }

    /// The shape that the type fixes, (H, W, C).
    pub fn shape(&self) -> Option<ImageShape> {
        match self.sides() {
            [Some(height), Some(width), Some(channels)] => Some(ImageShape::new(height, width, channels)),
            _ => None,
        }
    }

    /// The number of channels that the type fixes.
    pub fn channels(&self) -> Option<usize> {
        self.sides()[2]
    }

    /// Whether the images are encoded, so that no value is known before they are decoded.
    pub fn is_encoded(&self) -> bool {
        matches!(self.kind, Kind::Encoded)
    }

    /// Whether the type has an axis of channels; of encoded images, and of lists without a shape, it has.
    pub fn has_channel_axis(&self) -> bool {
        self.axes.rank() == 3
    }

    /// Checks, at planning, that the type does not fix a shape that is hardly height, width, channels, where nothing
    /// states the order of its axes: what PyTorch makes, channels first, is not taken for 3 rows of pixels.
    ///
    /// # Errors
    /// [`Error::Type`] that says how to state the order.
    pub fn check_order(&self) -> Result<()> {
        self.axes.check(self.sides(), self.meaning).map_err(Error::Type)
    }

    /// Checks, at planning, that images of this type can have shape `expected`, with nothing done to them.
    ///
    /// # Errors
    /// [`Error::Shape`] if the type fixes another shape; [`Error::Type`] if it rules `expected` out in another way,
    /// such as a flat list of another length, or more channels than an encoded image ever has; if it is a flat list of
    /// several channels whose order nobody states; and as [`ImageType::check_order`].
    pub fn check_shape(&self, expected: ImageShape) -> Result<()> {
        self.check_order()?;
        if let Some(got) = self.shape() {
            return if got == expected { Ok(()) } else { Err(Error::Shape { expected, got }) };
        }
        let wanted = [expected.height(), expected.width(), expected.channels()];
        let known = self.sides();
        if known.iter().zip(wanted).any(|(side, wanted)| side.is_some_and(|side| side != wanted)) {
            return Err(Error::Type(format!("images have shape {}, expected {expected}", side_names(known))));
        }
        match self.kind {
            Kind::Flat { .. } => self.flat_order(expected).map(|_| ()),
            Kind::Encoded if !matches!(expected.channels(), 1 | 3 | 4) => {
                Err(Error::Type(format!("encoded images have 1, 3 or 4 channels, expected shape {expected}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks, at planning, that a list whose type says neither shape nor order can be read: by `shape`, where it has one
    /// channel.
    ///
    /// # Errors
    /// [`Error::Type`] if it cannot, saying how to name both.
    pub fn check_flat(&self, shape: Option<ImageShape>) -> Result<()> {
        match (&self.kind, shape) {
            (Kind::Flat { .. }, Some(shape)) => self.flat_order(shape).map(|_| ()),
            (Kind::Flat { .. }, None) => Err(unknown_shape()),
            _ => Ok(()),
        }
    }

    /// Whether a list's type says neither shape nor order.
    pub fn is_flat(&self) -> bool {
        matches!(self.kind, Kind::Flat { .. })
    }

    /// Whether the same values make the same images as either type.
    pub fn has_layout_of(&self, other: &Self) -> bool {
        let layout = |this: &Self| this.axes.layout(&this.sizes()?).ok().map(Layout::canonical);
        match (&self.kind, &other.kind) {
            (Kind::Fixed, Kind::Fixed) => layout(self) == layout(other),
            (kind, other_kind) => kind == other_kind && self.axes.has_order_of(other.axes),
        }
    }

    /// The order of the values of a flat list that holds images of a shape: any, where they have one channel.
    ///
    /// # Errors
    /// [`Error::Type`] if the list has another length, or if nobody states the order of several channels.
    pub(super) fn flat_order(&self, shape: ImageShape) -> Result<AxisOrder> {
        let Kind::Flat { values, stated } = self.kind else { return Ok(AxisOrder::Hwc) };
        if let Some(values) = values {
            check_length(values, shape).map_err(Error::Type)?;
        }
        match stated {
            Some(order) => Ok(order),
            None if shape.channels() <= 1 => Ok(AxisOrder::Hwc),
            None => Err(Error::Type(format!(
                "a flat list does not say the order of the axes of its images, expected images of shape {shape}: name \
                 it as image_decode(list, height, width, channels, layout), layout 'HWC' or 'CHW'"
            ))),
        }
    }

    pub(super) fn meaning(&self) -> Meaning {
        self.meaning
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) fn axes(&self) -> Axes {
        self.axes
    }

    /// The sizes of the stored axes, where the type fixes them all.
    pub(super) fn sizes(&self) -> Option<Vec<usize>> {
        self.sizes.iter().copied().collect()
    }

    /// The sides of (H, W, C) that the type fixes.
    fn sides(&self) -> [Option<usize>; 3] {
        self.axes.sides(&self.sizes)
    }

    /// A type that fixes no sides.
    fn of_kind(kind: Kind) -> Self {
        Self { kind, axes: Axes::assumed(), sizes: Vec::new(), meaning: Meaning::Pixels }
    }

    fn of_struct(field: &Field, fields: &Fields) -> Result<Self> {
        // By the names alone: the extension's own name is lost in many an expression.
        let child = |name: &str| child_of(fields, name).map(Field::data_type);
        match (child("bytes"), child("data"), child("shape")) {
            (Some(bytes), _, _) if is_binary(bytes) || bytes.is_null() => Ok(Self::of_kind(Kind::Encoded)),
            (None, Some(data), Some(shape)) => Self::of_variable(field, data, shape),
            (None, Some(data), None) if is_picture(fields, data) => {
                Ok(Self { axes: Axes::stated(AxisOrder::Hwc, 3), ..Self::of_kind(Kind::Picture) })
            }
            _ => Err(unsupported(field.data_type())),
        }
    }

    fn of_variable(field: &Field, data: &DataType, shape: &DataType) -> Result<Self> {
        let (data_levels, leaf) = levels(data);
        let (shape_levels, size) = levels(shape);
        let ([_], [rank], true, true) = (&data_levels[..], &shape_levels[..], is_pixel(leaf), size.is_integer()) else {
            return Err(unsupported(field.data_type()));
        };
        Ok(Self { axes: variable_axes(field, *rank)?, ..Self::of_kind(Kind::Variable) })
    }

    fn of_lists(field: &Field, data_type: &DataType) -> Result<Self> {
        let (levels, leaf) = levels(data_type);
        if !is_pixel(leaf) {
            return Err(unsupported(field.data_type()));
        }
        match levels[..] {
            [values] => Self::of_flat_list(field, values),
            [_, _] => Ok(Self { axes: Axes::try_new(2, &[], None)?, sizes: levels, ..Self::of_kind(Kind::Nested) }),
            [_, _, _] => Ok(Self { sizes: levels, ..Self::of_kind(Kind::Nested) }),
            _ => Err(unsupported(field.data_type())),
        }
    }

    fn of_flat_list(field: &Field, values: Option<usize>) -> Result<Self> {
        let Some((axes, sizes)) = fixed_tensor(field)? else {
            return Ok(Self::of_kind(Kind::Flat { values, stated: None }));
        };
        let shape = axes.layout(&sizes)?.shape();
        if let Some(values) = values {
            check_length(values, shape).map_err(|message| Error::Type(format!("tensor metadata: {message}")))?;
        }
        Ok(Self { axes, sizes: sizes.into_iter().map(Some).collect(), ..Self::of_kind(Kind::Fixed) })
    }
}

/// Whether the images of a field come out as bytes: encoded ones and integers do, but for UInt16.
pub fn has_bytes(field: &Field) -> bool {
    let values = match values_of(field.data_type()) {
        DataType::Struct(fields) => child_of(fields, "data").map_or(field.data_type(), Field::data_type),
        values => values,
    };
    let (_, leaf) = levels(values);
    !leaf.is_floating() && leaf != &DataType::UInt16
}

/// The type of a column's values, without a dictionary around them.
fn values_of(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}

/// A struct's field by its name, in letters of either case: some engines write all names in small letters.
pub(super) fn child_of<'a>(fields: &'a Fields, name: &str) -> Option<&'a Field> {
    fields.iter().find(|field| field.name().eq_ignore_ascii_case(name)).map(AsRef::as_ref)
}

/// Whether a struct with `data` has the other fields of Spark's or Daft's images, too.
fn is_picture(fields: &Fields, data: &DataType) -> bool {
    let (levels, leaf) = levels(data);
    let spark = is_binary(data);
    let daft = levels.len() == 1 && is_pixel(leaf);
    let sizes = ["height", "width", "mode", if spark { "nChannels" } else { "channel" }];
    (spark || daft) && sizes.iter().all(|name| child_of(fields, name).is_some_and(|f| f.data_type().is_integer()))
}

/// Refuses a flat list whose length is not that of an image of a shape; the message names both numbers.
pub(super) fn check_length(values: usize, shape: ImageShape) -> Result<(), String> {
    if values == shape.len() {
        Ok(())
    } else {
        Err(format!("a list of {values} values is no image of shape {shape}, which has {}", shape.len()))
    }
}

/// The error of a flat list of which nothing says the shape.
pub(super) fn unknown_shape() -> Error {
    Error::Type(
        "the shape of the images in a flat list is unknown: give the column arrow.fixed_shape_tensor metadata, nest the \
         lists as H×W×C, or name it as image_decode(list, height, width, channels, layout), layout 'HWC' or 'CHW'"
            .to_owned(),
    )
}

/// The error of a type that holds no images.
pub(super) fn unsupported(data_type: &DataType) -> Error {
    Error::Type(format!(
        "expected images: Binary, LargeBinary or BinaryView (PNG, JPEG, WebP, BMP, GIF, TIFF), a struct with such a \
         field `bytes`, lists of integers, Booleans or floats (flat, H×W or H×W×C), arrow.fixed_shape_tensor, \
         arrow.variable_shape_tensor, or an image of Spark or Daft; got {data_type}{}",
        hint(data_type)
    ))
}

/// The message for a type that holds no features.
fn no_features(data_type: &DataType) -> String {
    let (levels, leaf) = levels(values_of(data_type));
    let leaf = match leaf {
        DataType::Struct(fields) => child_of(fields, "bytes").map_or(leaf, Field::data_type),
        leaf => leaf,
    };
    let hint = match leaf {
        leaf if leaf.is_integer() || leaf.is_decimal() || leaf == &DataType::Boolean => match levels.len() {
            0 => "; columns of numbers become a vector by make_array(a::float, b::float, ...)".to_owned(),
            lists => {
                let to = "List(".repeat(lists) + "Float32" + &")".repeat(lists);
                format!("; cast integers to floats, as in arrow_cast(x, '{to}') or x::float")
            }
        },
        leaf if leaf.is_floating() && levels.is_empty() => {
            "; columns of numbers become a vector by make_array(a, b, ...)".to_owned()
        }
        leaf if is_binary(leaf) => "; leave input => 'features' out to train on images".to_owned(),
        _ => String::new(),
    };
    format!(
        "expected features: lists of Float16, Float32 or Float64 (a vector, H×W or H×W×C), arrow.fixed_shape_tensor or \
         arrow.variable_shape_tensor of these; got {data_type}{hint}"
    )
}

/// How images are made of text, or of a struct that only names their files.
fn hint(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Dictionary(_, values) => hint(values),
        DataType::Struct(fields) => match (child_of(fields, "bytes"), child_of(fields, "path")) {
            (Some(bytes), _) => hint(bytes.data_type()),
            (None, Some(path)) if hint(path.data_type()) == TEXT => " (a path is not read: see read_images)",
            (None, _) => "",
        },
        data_type if data_type.is_string() => TEXT,
        _ => "",
    }
}

/// The ways from text to images.
const TEXT: &str =
    " (a path is not read: see read_images); images are not text: base64 becomes bytes by decode(image, 'base64')";

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn is_pixel(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(data_type, DataType::Boolean | DataType::Float16 | DataType::Float32 | DataType::Float64)
}

/// The list levels around a type, outermost first, each with its length if it is fixed, and the type inside.
pub(super) fn levels(mut data_type: &DataType) -> (Vec<Option<usize>>, &DataType) {
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
mod tests;
