//! The tensor type of an image argument, as planning found it.
//!
//! The shape of a tensor and the order of its axes stand in its field's metadata. DataFusion drops them from many an
//! expression, merges them in a UNION, and a plan that travels to another node loses them. So the rule of image
//! arguments ([`crate::plan::images`]) finds the type in the columns that an expression is made of, and the call keeps
//! it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use serde::{Deserialize, Serialize};

use crate::columns::list_item;

/// The keys of Arrow's extension types in a field's metadata.
const NAME_KEY: &str = "ARROW:extension:name";
const METADATA_KEY: &str = "ARROW:extension:metadata";

/// The extension type of a field, such as a tensor's: its name, and its metadata, if it has any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct TensorType(BTreeMap<String, String>);

impl TensorType {
    /// The extension type that metadata names.
    pub(crate) fn of<'a>(metadata: impl IntoIterator<Item = (&'a String, &'a String)>) -> Option<Self> {
        let own = |key: &str| [NAME_KEY, METADATA_KEY].contains(&key);
        let metadata = metadata.into_iter().filter(|(key, _)| own(key));
        let metadata: BTreeMap<_, _> = metadata.map(|(key, value)| (key.clone(), value.clone())).collect();
        metadata.contains_key(NAME_KEY).then_some(Self(metadata))
    }

    /// Whether the type has metadata. A UNION leaves the name alone of two types.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.contains_key(METADATA_KEY)
    }

    /// Whether readers take the type over a storage: a list of tensors is none itself, and pyarrow reads no file whose
    /// Arrow tensors of fixed shape are lists of any length.
    pub(crate) fn fits(&self, storage: &DataType) -> bool {
        let Some(item) = list_item(storage) else { return true };
        let is_fixed = self.0.get(NAME_KEY).is_some_and(|name| name == "arrow.fixed_shape_tensor");
        !item.data_type().is_nested() && (!is_fixed || matches!(storage, DataType::FixedSizeList(..)))
    }

    /// The metadata of a field of this type.
    pub(crate) fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// A field of this type over a storage.
    pub(crate) fn field(&self, storage: DataType) -> Field {
        Field::new("image", storage, true).with_metadata(self.0.clone().into_iter().collect())
    }
}

impl Display for TensorType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let part = |key| self.0.get(key).map_or("", String::as_str);
        write!(f, "{} {}", part(NAME_KEY), part(METADATA_KEY))
    }
}

/// The type of a call's image, once planning has looked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum PlannedImage {
    /// Planning has not looked for the type: the field's own metadata holds.
    #[default]
    Unplanned,
    /// The columns that the image comes from agree on this type; on none, where they are no tensors.
    Planned(Option<TensorType>),
    /// They agree on this type, which the image's own field does not name.
    Lost(TensorType),
}

impl PlannedImage {
    /// Whether planning has looked.
    pub(crate) fn is_planned(&self) -> bool {
        !matches!(self, Self::Unplanned)
    }

    /// Whether planning has found a type that the image's own field does not name.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// The type that planning has found for an image with this field.
    pub(crate) fn found(field: &Field, tensor: Option<TensorType>) -> Self {
        let is_named = TensorType::of(field.metadata()).is_some_and(|named| named.is_whole());
        match tensor {
            Some(tensor) if !is_named => Self::Lost(tensor),
            tensor => Self::Planned(tensor),
        }
    }

    /// The fields of a call's arguments, the image's with the type that planning found.
    ///
    /// Before planning has looked, a type without metadata is dropped: it is what a UNION leaves of two types.
    pub(crate) fn restore<'a>(&self, fields: &'a [FieldRef]) -> Cow<'a, [FieldRef]> {
        let Some(image) = fields.first() else { return Cow::Borrowed(fields) };
        let named = TensorType::of(image.metadata());
        let found = match self {
            Self::Planned(found) => found.as_ref(),
            Self::Lost(found) => Some(found),
            Self::Unplanned => named.as_ref().filter(|tensor| tensor.is_whole()),
        };
        if named.as_ref() == found {
            return Cow::Borrowed(fields);
        }
        let restored = match found {
            Some(tensor) => tensor.field(image.data_type().clone()).with_name(image.name()),
            None => Field::new(image.name(), image.data_type().clone(), image.is_nullable()),
        };
        let mut fields = fields.to_vec();
        fields[0] = Arc::new(restored);
        Cow::Owned(fields)
    }
}
