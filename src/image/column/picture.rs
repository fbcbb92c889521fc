//! Pictures in structs that say their size and their mode: Spark's, whose rows are of OpenCV, and Daft's.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};

use super::stored::child;
use crate::error::{Error, Result};
use crate::image::meaning::Meaning;
use crate::image::storage::{Bytes, NestedValues};
use crate::image::tensor::{check_length, unsupported};
use crate::image::{Image, ImageShape, Pixels};

/// A column of such structs, without the struct's own nulls.
#[derive(Debug)]
pub(super) struct Pictures {
    height: Int64Array,
    width: Int64Array,
    channels: Int64Array,
    mode: Int64Array,
    data: Data,
}

#[derive(Debug)]
enum Data {
    /// Bytes in the order blue, green, red, alpha.
    Spark(Bytes),
    /// Values in the order red, green, blue, alpha.
    Daft(NestedValues),
}

impl Pictures {
    pub(super) fn try_new(parent: &StructArray) -> Result<Self> {
        let unreadable = || unsupported(parent.data_type());
        let integers = |name: &str| -> Result<Int64Array> {
            let array: ArrayRef = cast(child(parent, name)?, &DataType::Int64).map_err(|_| unreadable())?;
            array.as_primitive_opt::<Int64Type>().cloned().ok_or_else(unreadable)
        };
        let data = child(parent, "data")?;
        let (data, channels) = match Bytes::try_new(data) {
            Some(bytes) => (Data::Spark(bytes), "nChannels"),
            None => (Data::Daft(NestedValues::try_new(data, Meaning::Pixels).ok_or_else(unreadable)?), "channel"),
        };
        let height = integers("height")?;
        let width = integers("width")?;
        Ok(Self { height, width, channels: integers(channels)?, mode: integers("mode")?, data })
    }

    /// Whether row `index` has no values.
    pub(super) fn is_null(&self, index: usize) -> bool {
        match &self.data {
            Data::Spark(bytes) => bytes.get(index).is_none(),
            Data::Daft(lists) => lists.is_null(index),
        }
    }

    /// Whether the values come out as bytes.
    pub(super) fn has_bytes(&self) -> bool {
        match &self.data {
            Data::Spark(_) => true,
            Data::Daft(lists) => lists.has_bytes(),
        }
    }

    /// Bytes of the values of row `index`.
    pub(super) fn bytes(&self, index: usize) -> usize {
        match &self.data {
            Data::Spark(bytes) => bytes.get(index).map_or(0, <[u8]>::len),
            Data::Daft(lists) => lists.bytes(index),
        }
    }

    /// The picture of one row. `channels` is as in [`crate::image::decode()`].
    pub(super) fn image(&self, index: usize, channels: Option<usize>) -> Result<Image> {
        let image = match &self.data {
            Data::Spark(bytes) => self.spark(index, bytes.get(index).unwrap_or_default())?,
            Data::Daft(lists) => self.daft(index, lists)?,
        };
        let own = if image.shape().channels() <= 2 { 1 } else { 3 };
        image.with_channels(channels.unwrap_or(own))
    }

    fn spark(&self, index: usize, bytes: &[u8]) -> Result<Image> {
        let channels = match value(&self.mode, index)? {
            0 => 1,
            16 => 3,
            24 => 4,
            -1 => return Err(Error::Data("Spark could not read this image: its mode is -1, undefined".to_owned())),
            mode => {
                return Err(Error::Data(format!(
                    "an image of Spark has the mode {mode}, expected 0 (CV_8UC1), 16 (CV_8UC3) or 24 (CV_8UC4)"
                )));
            }
        };
        let shape = self.shape(index, channels)?;
        check_length(bytes.len(), shape).map_err(Error::Data)?;
        let mut values = bytes.to_vec();
        if channels >= 3 {
            values.chunks_exact_mut(channels).for_each(|pixel| pixel.swap(0, 2));
        }
        Image::try_new(shape, Pixels::U8(values))
    }

    fn daft(&self, index: usize, lists: &NestedValues) -> Result<Image> {
        let channels = match value(&self.mode, index)? {
            // L, and of 16 bits.
            1 | 5 => 1,
            // LA.
            2 | 6 => 2,
            // RGB, and of 16 bits, and of floats.
            3 | 7 | 9 => 3,
            // RGBA.
            4 | 8 | 10 => 4,
            mode => {
                return Err(Error::Data(format!(
                    "an image of Daft has the mode {mode}, expected 1 (L), 2 (LA), 3 (RGB), 4 (RGBA), those of 16 bits \
                     (5 to 8) or of floats (9, 10)"
                )));
            }
        };
        let shape = self.shape(index, channels)?;
        let (_, pixels) = lists.read(index)?;
        check_length(pixels.len(), shape).map_err(Error::Data)?;
        Image::try_new(shape, pixels)
    }

    /// The shape of a row, whose mode says its number of channels.
    fn shape(&self, index: usize, channels: usize) -> Result<ImageShape> {
        let side = |array: &Int64Array| {
            let side = value(array, index)?;
            usize::try_from(side).map_err(|_| Error::Data(format!("an image has the negative side {side}")))
        };
        let shape = ImageShape::new(side(&self.height)?, side(&self.width)?, channels);
        let stored = side(&self.channels)?;
        if stored == channels {
            Ok(shape)
        } else {
            Err(Error::Data(format!("the mode of an image means {channels} channels, and it has {stored}")))
        }
    }
}

fn value(array: &Int64Array, index: usize) -> Result<i64> {
    let value = array.is_valid(index).then(|| array.value(index));
    value.ok_or_else(|| Error::Data("an image has a NULL height, width, mode or number of channels".to_owned()))
}
