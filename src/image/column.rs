//! A column of images: which rows hold one, and each row as an [`Image`].

mod dark;
mod form;
mod picture;
mod stored;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Field;
use rayon::prelude::*;

use self::stored::Stored;
use super::storage::dictionary_keys;
use super::{AxisOrder, Image, ImageShape, ImageType, Limits, Pixels, Preprocess};
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
    stored: Stored,
}

impl ImageColumn {
    /// Reads a column as images, with its field, whose metadata may hold the tensor's shape.
    ///
    /// `fallback` is the shape of a flat list without such metadata: the model's own. It does not tell the order of
    /// several channels, which [`ImageColumn::try_new_in_order`] takes.
    ///
    /// # Errors
    /// [`Error::Type`] where [`ImageType::try_new`] and [`ImageType::check_order`] give it; for a flat list of unknown
    /// shape without `fallback`, or of several channels; and for a FixedSizeList of another size than `fallback` has
    /// values.
    pub fn try_new(field: &Field, array: &ArrayRef, fallback: Option<ImageShape>) -> Result<Self> {
        let image_type = ImageType::try_new(&of_array(field, array))?;
        Self::of_type(field, array, fallback, image_type)
    }

    /// As [`ImageColumn::try_new`], with the order of the axes stated by the caller. `shape` is that of a flat list
    /// without metadata: height, width and channels in any order.
    ///
    /// # Errors
    /// As [`ImageColumn::try_new`], but for the order; [`Error::Type`] if the type names another order.
    pub fn try_new_in_order(
        field: &Field,
        array: &ArrayRef,
        shape: Option<ImageShape>,
        order: AxisOrder,
    ) -> Result<Self> {
        let image_type = ImageType::try_new(&of_array(field, array))?.in_order(order)?;
        Self::of_type(field, array, shape, image_type)
    }

    /// Reads a column as features, numbers of any range ([`ImageType::of_features`]); a vector of C numbers has the
    /// shape (1, 1, C). `order` is that of the axes where the type names none.
    ///
    /// # Errors
    /// [`Error::Type`] where [`ImageType::of_features`] and [`ImageType::check_order`] give it.
    ///
    /// # Example
    /// ```
    /// use std::sync::Arc;
    /// use arrow::array::{ArrayRef, ListArray};
    /// use arrow::datatypes::{Field, Float64Type};
    /// use wae_core::image::{ImageColumn, ImageShape, Limits};
    ///
    /// let rows = vec![Some(vec![Some(-3.5), Some(1e6)])];
    /// let array: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(rows));
    /// let field = Field::new("embedding", array.data_type().clone(), true);
    /// let column = ImageColumn::of_features(&field, &array, None)?;
    /// assert_eq!(column.read(&[0], ImageShape::new(1, 1, 2), None, &Limits::default())?, [-3.5, 1e6]);
    /// # Ok::<(), wae_core::Error>(())
    /// ```
    pub fn of_features(field: &Field, array: &ArrayRef, order: Option<AxisOrder>) -> Result<Self> {
        let features = ImageType::of_features(&of_array(field, array))?.in_default_order(order);
        Self::of_type(field, array, None, features)
    }

    /// Reads a column as masks: as [`ImageColumn::try_new`], but an encoded image comes out black, and white where a pixel
    /// is neither black nor wholly transparent, and integers that are all 0 or 1 are no reason for a warning.
    ///
    /// # Errors
    /// Those of [`ImageColumn::try_new`].
    pub fn of_masks(field: &Field, array: &ArrayRef, fallback: Option<ImageShape>) -> Result<Self> {
        let column = Self::try_new(field, array, fallback)?;
        Ok(Self { stored: column.stored.of_masks(), ..column })
    }

    /// Reads a column as images whose values are only moved and weighted, as a resize and a crop do: floats may have any
    /// range, as those of maps and features have, and dark integers are no reason for a warning.
    ///
    /// # Errors
    /// As [`ImageColumn::try_new`] without a fallback.
    pub fn of_numbers(field: &Field, array: &ArrayRef) -> Result<Self> {
        let images = ImageType::try_new(&of_array(field, array))?.of_numbers();
        let column = Self::of_type(field, array, None, images)?;
        Ok(Self { stored: column.stored.unwatched(), ..column })
    }

    fn of_type(field: &Field, array: &ArrayRef, shape: Option<ImageShape>, image_type: ImageType) -> Result<Self> {
        image_type.check_order()?;
        let (keys, values) = match array.as_any_dictionary_opt() {
            Some(dictionary) => (Some(dictionary_keys(dictionary)), dictionary.values()),
            None => (None, array),
        };
        let stored = Stored::try_new(&of_array(field, array), values, &image_type, shape)?;
        Ok(Self { rows: array.len(), keys, stored })
    }

    /// Whether the column was read as features.
    pub(crate) fn holds_features(&self) -> bool {
        self.stored.holds_features()
    }

    /// Rows, those without an image included.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether a row holds no image: it is NULL, its struct's bytes are and no path stands beside them, or there is no
    /// such row.
    pub fn is_null(&self, row: usize) -> bool {
        self.index(row).is_none()
    }

    /// The path that stands beside a row's image, for messages: a struct's field `path`, or `origin` in Spark's.
    pub fn path(&self, row: usize) -> Option<&str> {
        self.stored.path(self.index(row)?)
    }

    /// About the bytes that the values of a row's image take, as its list or its header says; 0 without an image, and of
    /// one whose header cannot be read. No pixel is decoded.
    pub fn declared_bytes(&self, row: usize) -> usize {
        self.index(row).map_or(0, |index| self.stored.declared_bytes(index))
    }

    /// The image of one row. `channels` is as in [`super::decode()`] and concerns encoded bytes and the pictures of
    /// Spark and Daft; other images have the channels that they have.
    ///
    /// # Errors
    /// [`Error::Data`] if the row is NULL, if its bytes do not decode or exceed `limits`, if there is a path and no
    /// bytes, if a value is null or outside its range, if the values do not make an image, or if the order of its axes is
    /// implausible. The error does not name the row.
    pub fn image(&self, row: usize, channels: Option<usize>, limits: &Limits) -> Result<Image> {
        self.stored.image(self.index(row).ok_or_else(no_image)?, channels, limits)
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
        if !self.stored.has_bytes() || preprocess.is_some_and(|preprocess| preprocess.size().is_some()) {
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

    /// The place of a row's image in the array that holds it, if it has one.
    fn index(&self, row: usize) -> Option<usize> {
        let index = match &self.keys {
            Some(keys) => *keys.get(row)?,
            None => Some(row).filter(|row| *row < self.rows),
        };
        index.filter(|index| !self.stored.is_null(*index))
    }
}

/// The field with the array's own type, since it may differ in the names and nullability of what is inside.
fn of_array(field: &Field, array: &ArrayRef) -> Field {
    field.clone().with_data_type(array.data_type().clone())
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

#[cfg(test)]
mod tests;
