//! A column of images: which rows hold one, and each row as an [`Image`].

mod form;

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::Field;
use rayon::prelude::*;

use self::form::{Form, flat_layout};
use super::storage::{Bytes, NestedValues};
use super::tensor::{Kind, unsupported};
use super::{Image, ImageShape, ImageType, Limits, Pixels, Preprocess, decode};
use crate::error::{Error, Result};

/// One column of images of a record batch.
///
/// Sliced arrays, offsets and dictionaries are read in place: nothing is copied before a row is asked for.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, FixedSizeListArray};
/// use arrow::datatypes::{Field, UInt8Type};
/// use wae_core::image::{ImageColumn, ImageShape, Limits};
///
/// let rows = vec![Some(vec![Some(0), Some(255)]), None];
/// let array: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<UInt8Type, _, _>(rows, 2));
/// let field = Field::new("image", array.data_type().clone(), true);
/// let shape = ImageShape::new(1, 2, 1);
/// let column = ImageColumn::try_new(&field, &array, Some(shape))?;
/// assert!(column.is_null(1));
/// assert_eq!(column.read(&[0], shape, None, &Limits::default())?, [0.0, 1.0]);
/// # Ok::<(), wae_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ImageColumn {
    rows: usize,
    /// The place of each row's image among the values of a dictionary. Unpacking the dictionary instead would copy an
    /// image as often as it is repeated.
    keys: Option<Vec<Option<usize>>>,
    storage: Storage,
}

/// The array that holds the images, without a dictionary around it.
#[derive(Debug)]
enum Storage {
    Null,
    /// `parent`: nulls of the struct around the bytes.
    Encoded {
        parent: Option<NullBuffer>,
        bytes: Bytes,
    },
    Lists {
        parent: Option<NullBuffer>,
        lists: NestedValues,
        form: Form,
    },
}

impl ImageColumn {
    /// Reads a column as images, with its field, whose metadata may hold the tensor's shape.
    ///
    /// `fallback` is the shape of a flat list without such metadata: the model's own.
    ///
    /// # Errors
    /// [`Error::Type`] where [`ImageType::try_new`] gives it; for a flat list of unknown shape without `fallback`; and
    /// for a FixedSizeList of another size than `fallback` has values.
    pub fn try_new(field: &Field, array: &ArrayRef, fallback: Option<ImageShape>) -> Result<Self> {
        // The array's own type, since a field may differ from it in the names and nullability of what is inside.
        let field = field.clone().with_data_type(array.data_type().clone());
        let image_type = ImageType::try_new(&field)?;
        let (keys, values) = match array.as_any_dictionary_opt() {
            Some(dictionary) => (Some(keys(dictionary)), dictionary.values()),
            None => (None, array),
        };
        let storage = Storage::try_new(values, image_type.kind(), fallback)?;
        Ok(Self { rows: array.len(), keys, storage })
    }

    /// Rows, those without an image included.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether a row holds no image: it is NULL, its struct's bytes are, or there is no such row.
    pub fn is_null(&self, row: usize) -> bool {
        self.index(row).is_none()
    }

    /// The image of one row. `channels` is as in [`decode()`] and concerns encoded bytes only.
    ///
    /// # Errors
    /// [`Error::Data`] if the row is NULL, if its bytes do not decode or exceed `limits`, if a value is null or outside
    /// its range, or if the values do not make an image. The error does not name the row.
    pub fn image(&self, row: usize, channels: Option<usize>, limits: &Limits) -> Result<Image> {
        let index = self.index(row).ok_or_else(no_image)?;
        match &self.storage {
            Storage::Null => Err(no_image()),
            Storage::Encoded { bytes, .. } => decode(bytes.get(index).ok_or_else(no_image)?, channels, limits),
            Storage::Lists { lists, form, .. } => {
                let (lengths, pixels) = lists.read(index)?;
                form.image(index, &lengths, pixels)
            }
        }
    }

    /// Writes one row's image into `out`, preprocessed, as (H, W, C) values in [0, 1]. Encoded bytes are brought to the
    /// channels of `shape` where it has 1, 3 or 4.
    ///
    /// # Errors
    /// As [`ImageColumn::image`] and [`Preprocess::apply`]; [`Error::Shape`] if the image then has another shape than
    /// `shape`; [`Error::Data`] if `out` has another length. The error does not name the row.
    pub fn read_row(
        &self,
        row: usize,
        shape: ImageShape,
        preprocess: Option<&Preprocess>,
        limits: &Limits,
        out: &mut [f32],
    ) -> Result<()> {
        let image = self.prepared(row, shape, preprocess, limits)?;
        if out.len() != shape.len() {
            return Err(Error::Data(format!("a buffer of {} values takes no image of shape {shape}", out.len())));
        }
        image.write_to(out);
        Ok(())
    }

    /// Reads `rows`, in their order and in parallel, into one buffer of f32 in [0, 1], each image preprocessed.
    ///
    /// # Shapes
    /// The buffer is (N, H, W, C): N = `rows.len()`, and `shape` is (H, W, C) after preprocessing.
    ///
    /// # Errors
    /// [`Error::Row`] around the error of [`ImageColumn::read_row`], of the first of `rows` that has one; a NULL row is
    /// an error, as [`ImageColumn::is_null`] tells before. [`Error::Data`] if the buffer would not fit in memory.
    pub fn read(
        &self,
        rows: &[usize],
        shape: ImageShape,
        preprocess: Option<&Preprocess>,
        limits: &Limits,
    ) -> Result<Vec<f32>> {
        read_rows(rows, shape, |row, out| self.read_row(row, shape, preprocess, limits, out))
    }

    /// As [`ImageColumn::read`], but as bytes where the column holds bytes and nothing resizes them: a quarter of the
    /// memory, and of what goes to a GPU.
    ///
    /// # Errors
    /// Those of [`ImageColumn::read`].
    pub fn read_pixels(
        &self,
        rows: &[usize],
        shape: ImageShape,
        preprocess: Option<&Preprocess>,
        limits: &Limits,
    ) -> Result<Pixels> {
        if !self.storage.has_bytes() || preprocess.is_some_and(|preprocess| preprocess.size().is_some()) {
            return self.read(rows, shape, preprocess, limits).map(Pixels::F32);
        }
        let bytes = read_rows(rows, shape, |row, out| {
            self.prepared(row, shape, preprocess, limits).map(|image| image.write_u8_to(out))
        });
        bytes.map(Pixels::U8)
    }

    /// The image of one row, preprocessed, of the shape given.
    fn prepared(
        &self,
        row: usize,
        shape: ImageShape,
        preprocess: Option<&Preprocess>,
        limits: &Limits,
    ) -> Result<Image> {
        let channels = Some(shape.channels()).filter(|channels| matches!(channels, 1 | 3 | 4));
        let mut image = self.image(row, channels, limits)?;
        if let Some(preprocess) = preprocess {
            image = preprocess.apply(image)?;
        }
        if image.shape() != shape {
            return Err(Error::Shape { expected: shape, got: image.shape() });
        }
        Ok(image)
    }

    /// The place of a row's image in the storage, if it has one.
    fn index(&self, row: usize) -> Option<usize> {
        let index = match &self.keys {
            Some(keys) => *keys.get(row)?,
            None => Some(row).filter(|row| *row < self.rows),
        };
        index.filter(|index| !self.storage.is_null(*index))
    }
}

fn no_image() -> Error {
    Error::Data("there is no image: the row is NULL".to_owned())
}

/// A buffer of `rows`, each of which `write` fills with an image; in parallel.
fn read_rows<T: Clone + Default + Send>(
    rows: &[usize],
    shape: ImageShape,
    write: impl Fn(usize, &mut [T]) -> Result<()> + Sync,
) -> Result<Vec<T>> {
    let mut buffer = zeros(rows.len(), shape)?;
    let failed = rows
        .par_iter()
        .zip(buffer.par_chunks_mut(shape.len().max(1)))
        .map(|(&row, out)| write(row, out).map_err(|error| error.in_row(row)))
        .find_map_first(Result::err);
    match failed {
        Some(error) => Err(error),
        None => Ok(buffer),
    }
}

/// A buffer for `count` images; refused, rather than aborting, where memory has no room for it.
fn zeros<T: Clone + Default>(count: usize, shape: ImageShape) -> Result<Vec<T>> {
    let too_large = || Error::Data(format!("{count} images of shape {shape} do not fit in memory"));
    if shape.is_empty() {
        return Err(Error::Data(format!("images of shape {shape} have no pixels")));
    }
    let values = count.checked_mul(shape.len()).ok_or_else(too_large)?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(values).map_err(|_| too_large())?;
    buffer.resize(values, T::default());
    Ok(buffer)
}

/// The place of each row of a dictionary among its values.
fn keys(dictionary: &dyn arrow::array::AnyDictionaryArray) -> Vec<Option<usize>> {
    let keys = dictionary.keys();
    if dictionary.values().is_empty() {
        return vec![None; keys.len()];
    }
    let normalized = dictionary.normalized_keys().into_iter().enumerate();
    normalized.map(|(row, key)| keys.is_valid(row).then_some(key)).collect()
}

impl Storage {
    fn try_new(array: &ArrayRef, kind: &Kind, fallback: Option<ImageShape>) -> Result<Self> {
        let unreadable = || unsupported(array.data_type());
        let (mut parent, data) = match (array.as_struct_opt(), kind) {
            (Some(parent), Kind::Variable(_)) => (parent.nulls().cloned(), child(parent, "data")?),
            (Some(parent), _) => (parent.nulls().cloned(), child(parent, "bytes")?),
            (None, _) => (None, array),
        };
        let form = match kind {
            Kind::Null => return Ok(Self::Null),
            Kind::Encoded => {
                return Ok(Self::Encoded { parent, bytes: Bytes::try_new(data).ok_or_else(unreadable)? });
            }
            Kind::Fixed(layout) => Form::Fixed(*layout),
            Kind::Flat { values } => Form::Fixed(flat_layout(*values, fallback)?),
            Kind::Nested => Form::Nested,
            Kind::Variable(axes) => {
                let sizes = array.as_struct_opt().and_then(|parent| parent.column_by_name("shape"));
                let sizes = sizes.and_then(|sizes| sizes.as_fixed_size_list_opt()).ok_or_else(unreadable)?;
                // An image without a shape is none, whatever values lie under its NULL.
                parent = NullBuffer::union(parent.as_ref(), sizes.nulls());
                let rank = usize::try_from(sizes.value_length()).map_err(|_| unreadable())?;
                let sizes = sizes.values().as_primitive_opt().ok_or_else(unreadable)?.clone();
                Form::Variable { axes: *axes, sizes, rank }
            }
        };
        Ok(Self::Lists { parent, lists: NestedValues::try_new(data).ok_or_else(unreadable)?, form })
    }

    /// Whether every image is bytes. Encoded ones are decoded to bytes, whatever their depth.
    fn has_bytes(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Encoded { .. } => true,
            Self::Lists { lists, .. } => lists.has_bytes(),
        }
    }

    fn is_null(&self, index: usize) -> bool {
        let null = |parent: &Option<NullBuffer>| parent.as_ref().is_some_and(|nulls| nulls.is_null(index));
        match self {
            Self::Null => true,
            Self::Encoded { parent, bytes } => null(parent) || bytes.get(index).is_none(),
            Self::Lists { parent, lists, .. } => null(parent) || lists.is_null(index),
        }
    }
}

fn child<'a>(parent: &'a StructArray, name: &str) -> Result<&'a ArrayRef> {
    parent.column_by_name(name).ok_or_else(|| unsupported(parent.data_type()))
}

#[cfg(test)]
mod tests;
