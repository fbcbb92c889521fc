//! The array that holds the images of a column, without a dictionary around it.

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::Field;

use super::dark::DarkWatch;
use super::form::{Form, flat_layout};
use super::no_image;
use super::picture::Pictures;
use crate::error::{Error, Result};
use crate::image::decode::declared_pixels;
use crate::image::meaning::Meaning;
use crate::image::storage::{Bytes, Lists, NestedValues, Texts};
use crate::image::tensor::{Kind, unsupported};
use crate::image::{Image, ImageShape, ImageType, Limits, decode, decode_mask};

/// The array that holds the images. `parent`: nulls of the struct around them.
#[derive(Debug)]
pub(super) enum Stored {
    Null,
    Encoded { parent: Option<NullBuffer>, bytes: Bytes, paths: Option<Texts>, masks: bool },
    Lists { parent: Option<NullBuffer>, lists: NestedValues, form: Form, watch: Option<DarkWatch> },
    Pictures { parent: Option<NullBuffer>, pictures: Box<Pictures>, paths: Option<Texts> },
}

impl Stored {
    /// Reads the array of a field, which has the type given.
    pub(super) fn try_new(
        field: &Field,
        array: &ArrayRef,
        image_type: &ImageType,
        shape: Option<ImageShape>,
    ) -> Result<Self> {
        let unreadable = || unsupported(array.data_type());
        let parent = array.as_struct_opt();
        let nulls = parent.and_then(|parent| parent.nulls().cloned());
        let (data, form) = match (image_type.kind(), parent) {
            (Kind::Null, _) => return Ok(Self::Null),
            (Kind::Encoded, parent) => {
                let data = parent.map_or(Ok(array), |parent| child(parent, "bytes"))?;
                let bytes = Bytes::try_new(data).ok_or_else(unreadable)?;
                return Ok(Self::Encoded { parent: nulls, bytes, paths: texts(parent, "path"), masks: false });
            }
            (Kind::Picture, Some(parent)) => {
                let pictures = Box::new(Pictures::try_new(parent)?);
                return Ok(Self::Pictures { parent: nulls, pictures, paths: texts(Some(parent), "origin") });
            }
            (Kind::Variable, Some(parent)) => return Self::variable(field, parent, image_type),
            (Kind::Fixed, None) => {
                let sizes = image_type.sizes().ok_or_else(unreadable)?;
                (array, Form::Fixed(image_type.axes().layout(&sizes)?))
            }
            (Kind::Flat { .. }, None) => (array, Form::Fixed(flat_layout(image_type, shape)?)),
            (Kind::Nested, None) => (array, Form::Nested(image_type.axes())),
            _ => return Err(unreadable()),
        };
        let lists = NestedValues::try_new(data, image_type.meaning()).ok_or_else(unreadable)?;
        Ok(Self::Lists { parent: nulls, lists, form, watch: DarkWatch::new(field) })
    }

    fn variable(field: &Field, parent: &StructArray, image_type: &ImageType) -> Result<Self> {
        let unreadable = || unsupported(parent.data_type());
        let lists = NestedValues::try_new(child(parent, "data")?, image_type.meaning()).ok_or_else(unreadable)?;
        let sizes = child(parent, "shape")?;
        // An image without a shape is none, whatever values lie under its NULL.
        let nulls = NullBuffer::union(parent.nulls(), sizes.nulls());
        let sizes = Lists::try_new(sizes).ok_or_else(unreadable)?;
        let form = Form::Variable { axes: image_type.axes(), sizes };
        Ok(Self::Lists { parent: nulls, lists, form, watch: DarkWatch::new(field) })
    }

    /// The same images as masks: without a watch over dark values, and encoded ones black and white.
    pub(super) fn of_masks(self) -> Self {
        match self {
            Self::Encoded { parent, bytes, paths, .. } => Self::Encoded { parent, bytes, paths, masks: true },
            other => other.unwatched(),
        }
    }

    /// The same images without a watch over dark values.
    pub(super) fn unwatched(self) -> Self {
        match self {
            Self::Lists { parent, lists, form, .. } => Self::Lists { parent, lists, form, watch: None },
            other => other,
        }
    }

    /// Whether every image is bytes. Encoded ones are decoded to bytes, whatever their depth.
    pub(super) fn has_bytes(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Encoded { .. } => true,
            Self::Lists { lists, .. } => lists.has_bytes(),
            Self::Pictures { pictures, .. } => pictures.has_bytes(),
        }
    }

    /// Whether the values are features.
    pub(super) fn holds_features(&self) -> bool {
        matches!(self, Self::Lists { lists, .. } if lists.meaning() == Meaning::Features)
    }

    /// Whether row `index` holds no image. A path without bytes is an image that cannot be read.
    pub(super) fn is_null(&self, index: usize) -> bool {
        let null = |parent: &Option<NullBuffer>| parent.as_ref().is_some_and(|nulls| nulls.is_null(index));
        match self {
            Self::Null => true,
            Self::Encoded { parent, bytes, .. } => {
                null(parent) || (bytes.get(index).is_none() && self.path(index).is_none())
            }
            Self::Lists { parent, lists, .. } => null(parent) || lists.is_null(index),
            Self::Pictures { parent, pictures, .. } => {
                null(parent) || (pictures.is_null(index) && self.path(index).is_none())
            }
        }
    }

    /// The path that stands beside the image of row `index`.
    pub(super) fn path(&self, index: usize) -> Option<&str> {
        match self {
            Self::Encoded { paths, .. } | Self::Pictures { paths, .. } => paths.as_ref()?.get(index),
            Self::Null | Self::Lists { .. } => None,
        }
    }

    /// About the bytes that the values of the image of row `index` take.
    pub(super) fn declared_bytes(&self, index: usize) -> usize {
        match self {
            Self::Null => 0,
            // Three channels, as most photographs have.
            Self::Encoded { bytes, .. } => bytes.get(index).map_or(0, |bytes| declared_pixels(bytes).saturating_mul(3)),
            Self::Lists { lists, .. } => lists.bytes(index),
            Self::Pictures { pictures, .. } => pictures.bytes(index),
        }
    }

    /// The image of row `index`, which must not be NULL.
    pub(super) fn image(&self, index: usize, channels: Option<usize>, limits: &Limits) -> Result<Image> {
        match self {
            Self::Null => Err(no_image()),
            Self::Encoded { bytes, masks, .. } => match (bytes.get(index), self.path(index)) {
                (None | Some([]), Some(path)) => Err(no_bytes(path)),
                (Some(bytes), _) if *masks => decode_mask(bytes, limits),
                (Some(bytes), _) => decode(bytes, channels, limits),
                (None, None) => Err(no_image()),
            },
            Self::Lists { lists, form, watch, .. } => {
                let (lengths, pixels) = lists.read(index)?;
                if let Some(watch) = watch {
                    watch.note(&pixels);
                }
                form.image(index, &lengths, pixels, lists.meaning())
            }
            Self::Pictures { pictures, .. } => match self.path(index) {
                Some(path) if pictures.is_null(index) => Err(no_bytes(path)),
                _ => pictures.image(index, channels),
            },
        }
    }
}

fn no_bytes(path: &str) -> Error {
    Error::Data(format!(
        "the image has no bytes, only the path '{path}', which is not read: read the files with read_images"
    ))
}

/// A struct's field by its name, in letters of either case.
pub(super) fn child<'a>(parent: &'a StructArray, name: &str) -> Result<&'a ArrayRef> {
    find(parent, name).ok_or_else(|| unsupported(parent.data_type()))
}

fn find<'a>(parent: &'a StructArray, name: &str) -> Option<&'a ArrayRef> {
    let index = parent.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name))?;
    parent.columns().get(index)
}

fn texts(parent: Option<&StructArray>, name: &str) -> Option<Texts> {
    Texts::try_new(find(parent?, name)?)
}
