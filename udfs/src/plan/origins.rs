//! The tensor types of the columns that images come from, and whether they agree.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field};
use wae_core::image::ImageType;

use crate::columns::image_field;
use crate::scalar::planned_image::TensorType;

/// The origins of an expression's images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Origins {
    /// The types that are named.
    named: BTreeSet<TensorType>,
    /// Whether some come from a column without a tensor type, or are made by an expression that names none.
    unnamed: bool,
}

impl Origins {
    pub(super) fn named(tensor: TensorType) -> Self {
        Self { named: BTreeSet::from([tensor]), unnamed: false }
    }

    pub(super) fn unnamed() -> Self {
        Self { named: BTreeSet::new(), unnamed: true }
    }

    pub(super) fn union(mut self, other: Self) -> Self {
        self.named.extend(other.named);
        self.unnamed |= other.unnamed;
        self
    }

    /// Whether all types that are named are those of images with this storage.
    pub(super) fn are_images(&self, storage: &DataType) -> bool {
        self.named.iter().all(|tensor| ImageType::try_new(&tensor.field(storage.clone())).is_ok())
    }

    /// The tensor type of images with this storage; `None` where nothing names one.
    ///
    /// # Errors
    /// A message if the images are laid out in more than one way, or if some of them may be.
    pub(super) fn agreed(&self, storage: &DataType) -> Result<Option<TensorType>, String> {
        let read = |field: &Field| ImageType::try_new(field).map_err(|error| error.to_string());
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
         image_decode(image, height, width, channels)"
    )
}

/// Whether images of one channel stand row by row, as a list without a type is read.
fn is_plain_grey(image_type: &ImageType) -> bool {
    let shape = image_type.shape().filter(|shape| shape.channels() == 1);
    shape.is_some_and(|shape| {
        ImageType::try_new(&image_field("image", shape)).is_ok_and(|plain| plain.has_layout_of(image_type))
    })
}

/// The origins that a field tells: its own type, or that of the images nested in it.
pub(super) fn of_field(field: &Field, fields: &[&str]) -> Origins {
    if let Some(tensor) = TensorType::of(field.metadata()) {
        return if fields.is_empty() { Origins::named(tensor) } else { Origins::unnamed() };
    }
    match field.data_type() {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => of_field(item, fields),
        DataType::Struct(children) => match fields.split_first() {
            Some((name, rest)) => {
                let child = children.iter().find(|child| child.name() == name);
                child.map_or_else(Origins::unnamed, |child| of_field(child, rest))
            }
            None if ImageType::try_new(field).is_ok() => Origins::unnamed(),
            None => children.iter().fold(Origins::default(), |all, child| all.union(of_field(child, fields))),
        },
        _ => Origins::unnamed(),
    }
}
