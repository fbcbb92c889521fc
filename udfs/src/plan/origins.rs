//! The tensor types of the columns that images come from, and whether they agree.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field};
use wae_core::image::ImageType;

use crate::columns::{image_field, list_item};
use crate::scalar::planned_image::TensorType;

/// The origins of an expression's images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Origins {
    /// The types that are named.
    named: BTreeSet<TensorType>,
    /// Whether some come from a column without a tensor type, or are made by an expression that names none.
    unnamed: bool,
    /// Whether an expression changed some of them.
    changed: bool,
    /// The meanings of the values, before DataFusion casts those that come together to one type.
    ranges: BTreeSet<Range>,
}

/// The meaning of pixel values, by their type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Range {
    /// 0 to 255.
    Bytes,
    /// 0 to 65535.
    Words,
    /// Black and white.
    Bits,
    /// 0 to 1.
    Unit,
}

impl Range {
    /// The meaning of the values at the bottom of a type, if they may be pixels.
    fn of(data_type: &DataType) -> Option<Self> {
        if let Some(item) = list_item(data_type) {
            return Self::of(item.data_type());
        }
        match data_type {
            DataType::Dictionary(_, values) => Self::of(values),
            DataType::Struct(fields) => {
                fields.iter().find(|field| field.name() == "data").and_then(|data| Self::of(data.data_type()))
            }
            DataType::UInt16 => Some(Self::Words),
            DataType::Boolean => Some(Self::Bits),
            integer if integer.is_integer() => Some(Self::Bytes),
            float if float.is_floating() => Some(Self::Unit),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bytes => "integers of 0 to 255",
            Self::Words => "UInt16 of 0 to 65535",
            Self::Bits => "Booleans",
            Self::Unit => "floats of 0 to 1",
        }
    }
}

impl Origins {
    pub(super) fn named(tensor: TensorType) -> Self {
        Self { named: BTreeSet::from([tensor]), ..Self::default() }
    }

    pub(super) fn unnamed() -> Self {
        Self { unnamed: true, ..Self::default() }
    }

    /// The origins that a field tells.
    pub(super) fn of(field: &Field) -> Self {
        of_field(field, &[])
    }

    /// The same images, changed by an expression that does not say how their values stand.
    pub(super) fn changed(self) -> Self {
        Self { unnamed: true, changed: true, ranges: BTreeSet::new(), ..self }
    }

    /// Whether no type is named.
    pub(super) fn names_none(&self) -> bool {
        self.named.is_empty()
    }

    /// Whether an expression changed some of the images.
    pub(super) fn are_changed(&self) -> bool {
        self.changed
    }

    pub(super) fn union(mut self, other: Self) -> Self {
        self.named.extend(other.named);
        self.unnamed |= other.unnamed;
        self.changed |= other.changed;
        self.ranges.extend(other.ranges);
        self
    }

    /// Whether all types that are named are those of images with this storage.
    pub(super) fn are_images(&self, storage: &DataType) -> bool {
        self.named.iter().all(|tensor| ImageType::try_new(&tensor.field(storage.clone())).is_ok())
    }

    /// Whether all types that are named are those of images with this storage whose rows, pixels and channels follow
    /// one another, as `image_decode` takes a list's values where its call does not say otherwise.
    pub(super) fn are_plain(&self, storage: &DataType) -> bool {
        self.named.iter().all(|tensor| ImageType::try_new(&tensor.field(storage.clone())).is_ok_and(|t| is_plain(&t)))
    }

    /// The tensor type of images with this storage; `None` where nothing names one.
    ///
    /// # Errors
    /// A message if the images are laid out in more than one way, or if some of them may be.
    pub(super) fn agreed(&self, storage: &DataType) -> Result<Option<TensorType>, String> {
        // Which of both it is, the model decides.
        let read = |field: &Field| {
            let image = ImageType::try_new(field).or_else(|error| ImageType::of_features(field).map_err(|_| error));
            image.map_err(|error| error.to_string())
        };
        if self.ranges.len() > 1 {
            let ranges: Vec<_> = self.ranges.iter().map(|range| range.name()).collect();
            return Err(format!(
                "the images have values of different meanings ({}), which DataFusion casts to one type, expected one: \
                 bring each to bytes first, as in image_decode(image, height, width, channels)",
                ranges.join(", ")
            ));
        }
        let Some(first) = self.named.first() else { return Ok(None) };
        let of_first = read(&first.field(storage.clone()))?;
        for other in &self.named {
            if !read(&other.field(storage.clone()))?.has_layout_of(&of_first) {
                return Err(differ(&format!("{first} and {other}")));
            }
        }
        let unnamed = read(&Field::new("image", storage.clone(), true))?;
        if self.unnamed && !unnamed.has_layout_of(&of_first) && !is_plain_grey(&of_first) {
            return Err(differ(&format!("{first} and {storage} without a tensor type")));
        }
        // Of equal layouts, the unnamed one is still checked for a plausible order, row by row.
        Ok(Some(first.clone()).filter(|_| !self.unnamed || !unnamed.has_layout_of(&of_first)))
    }
}

fn differ(got: &str) -> String {
    format!(
        "the images come from columns of different layouts ({got}), expected one: bring each to its shape first, as in \
         image_decode(image, height, width, channels), and name the order of one that says none, as in \
         image_decode(list, height, width, channels, 'HWC')"
    )
}

/// Whether images of one channel stand row by row, as a list without a type is read.
fn is_plain_grey(image_type: &ImageType) -> bool {
    image_type.shape().is_some_and(|shape| shape.channels() == 1) && is_plain(image_type)
}

/// Whether images stand row by row, a row pixel by pixel, and a pixel channel by channel.
fn is_plain(image_type: &ImageType) -> bool {
    let plain = image_type.shape().map(|shape| ImageType::try_new(&image_field("image", shape)));
    plain.is_some_and(|plain| plain.is_ok_and(|plain| plain.has_layout_of(image_type)))
}

/// The origins that a field tells: its own type, or that of the images nested in it, and the meaning of the values.
pub(super) fn of_field(field: &Field, fields: &[&str]) -> Origins {
    let range = Range::of(field.data_type()).filter(|_| fields.is_empty());
    Origins { ranges: range.into_iter().collect(), ..types_of_field(field, fields) }
}

fn types_of_field(field: &Field, fields: &[&str]) -> Origins {
    if let Some(tensor) = TensorType::of(field.metadata()) {
        return if fields.is_empty() { Origins::named(tensor) } else { Origins::unnamed() };
    }
    if let Some(item) = list_item(field.data_type()) {
        return types_of_field(item, fields);
    }
    match field.data_type() {
        DataType::Struct(children) => match fields.split_first() {
            Some((name, rest)) => {
                let child = children.iter().find(|child| child.name() == name);
                child.map_or_else(Origins::unnamed, |child| types_of_field(child, rest))
            }
            None if ImageType::try_new(field).is_ok() => Origins::unnamed(),
            None => children.iter().fold(Origins::default(), |all, child| all.union(types_of_field(child, fields))),
        },
        _ => Origins::unnamed(),
    }
}
