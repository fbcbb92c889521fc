//! Images from encoded bytes, Arrow tensors and nested lists; and features, numbers of any range, from the latter.
//!
//! A column of images is an [`ImageColumn`]: its Arrow type is checked once, at planning, by [`ImageType`], and its
//! rows come out as [`Image`]s, or all at once as one buffer, of f32 in [`ImageColumn::read`], of bytes where they are
//! bytes in [`ImageColumn::read_pixels`]. Everywhere:
//!
//! - values stand in (H, W, C) order: height, width, channels;
//! - integers mean 0..=255, read as `v / 255`, and UInt16 0..=65535; Booleans are black and white; floats mean [0, 1];
//!   anything outside is an error;
//! - a NULL row is no image; a null pixel inside an image is bad data;
//! - nothing is resized unless a [`Preprocess`] asks for it, and grey becomes RGB (or the reverse) only in encoded
//!   bytes and in the pictures of Spark and Daft, unless [`Image::with_channels`] asks for it.
//!
//! # Example
//! ```
//! use wae_core::image::{Image, ImageShape, Limits, Pixels, decode, encode};
//!
//! let checker = Image::try_new(ImageShape::new(2, 2, 1), Pixels::U8(vec![0, 255, 255, 0]))?;
//! let png = encode(&checker, "png")?;
//! assert_eq!(decode(&png, None, &Limits::default())?, checker);
//! # Ok::<(), wae_core::Error>(())
//! ```

mod axes;
mod channels;
mod column;
mod decode;
mod encode;
mod meaning;
mod metadata;
mod order;
mod parts;
mod pixels;
mod preprocess;
mod resample;
mod rescale;
mod sharpness;
mod stitch;
mod storage;
mod tensor;
mod values;

pub use self::column::ImageColumn;
pub use self::decode::decode;
use self::decode::decode_mask;
pub use self::encode::encode;
pub use self::metadata::tensor_field;
pub use self::order::AxisOrder;
pub(crate) use self::parts::crop_rows;
pub use self::parts::{TileGrid, crop};
use self::pixels::write_f32;
pub use self::pixels::{PixelSlice, Pixels};
pub use self::preprocess::MAX_SIDE;
pub use self::preprocess::{Preprocess, resize};
pub(crate) use self::resample::cubic;
pub use self::resample::{Filter, resample};
pub use self::rescale::{Interpolation, check_output, rescale};
pub use self::sharpness::sharpness;
pub use self::stitch::Mosaic;
pub use self::tensor::{ImageType, has_bytes};
use crate::error::{Error, Result};
pub use crate::shape::ImageShape;

/// A decoded image: a shape and its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    shape: ImageShape,
    pixels: Pixels,
}

impl Image {
    /// An image of `shape` with its values in (H, W, C) order.
    ///
    /// Floats are taken as they are: a caller that does not know them to lie in [0, 1] checks them.
    ///
    /// # Errors
    /// [`Error::Data`] if the shape has no values, or another number of them than `pixels`.
    pub fn try_new(shape: ImageShape, pixels: Pixels) -> Result<Self> {
        if shape.is_empty() {
            return Err(Error::Data(format!("an image of shape {shape} has no pixels")));
        }
        if pixels.len() != shape.len() {
            return Err(Error::Data(format!(
                "an image of shape {shape} has {} values, got {}",
                shape.len(),
                pixels.len()
            )));
        }
        Ok(Self { shape, pixels })
    }

    /// (H, W, C).
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// The values.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// The values, without the shape.
    pub fn into_pixels(self) -> Pixels {
        self.pixels
    }

    /// Writes the values in [0, 1]; `out` has exactly `shape().len()` items, and only that many are written.
    ///
    /// A u8 becomes `v as f32 / 255.0`: a true division, so that a Float32 column made as v / 255 gives the same bits.
    pub fn write_to(&self, out: &mut [f32]) {
        match &self.pixels {
            Pixels::U8(values) => write_f32(values, out),
            Pixels::F32(values) => out.iter_mut().zip(values).for_each(|(out, v)| *out = *v),
        }
    }

    /// Writes the values as [`Image::to_u8`] gives them; `out` as in [`Image::write_to`].
    fn write_u8_to(&self, out: &mut [u8]) {
        match &self.pixels {
            Pixels::U8(values) => out.iter_mut().zip(values).for_each(|(out, v)| *out = *v),
            // `as` saturates at 0 and 255 and takes NaN to 0.
            Pixels::F32(values) => out.iter_mut().zip(values).for_each(|(out, v)| *out = (v * 255.0).round() as u8),
        }
    }

    /// The values as 0..=255: a float becomes `round(255·v)`, clamped, and NaN becomes 0.
    pub fn to_u8(&self) -> Vec<u8> {
        let mut values = vec![0; self.pixels.len()];
        self.write_u8_to(&mut values);
        values
    }

    /// The values as f32 in [0, 1], as [`Image::write_to`] gives them.
    fn into_f32(self) -> Vec<f32> {
        match self.pixels {
            Pixels::U8(values) => values.into_iter().map(|v| f32::from(v) / 255.0).collect(),
            Pixels::F32(values) => values,
        }
    }
}

/// Limits of an encoded image, checked before it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels (H·W) an image may declare (default 2²⁶, as many as 8192 × 8192).
    pub max_pixels: usize,
    /// Most bytes an encoded image may have (default 64 MiB).
    pub max_image_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: 1 << 26, max_image_bytes: 64 << 20 }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::too_few(ImageShape::new(2, 2, 1), 3, "an image of shape [2, 2, 1] has 4 values, got 3")]
    #[case::too_many(ImageShape::new(2, 2, 1), 5, "an image of shape [2, 2, 1] has 4 values, got 5")]
    #[case::none(ImageShape::new(2, 0, 1), 0, "an image of shape [2, 0, 1] has no pixels")]
    fn values_must_fit_the_shape(#[case] shape: ImageShape, #[case] values: usize, #[case] message: &str) {
        for pixels in [Pixels::U8(vec![0; values]), Pixels::F32(vec![0.0; values])] {
            assert_eq!(Image::try_new(shape, pixels).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn every_byte_becomes_its_quotient_and_comes_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        let image = Image::try_new(ImageShape::new(16, 16, 1), Pixels::U8(bytes.clone())).unwrap();
        let mut floats = vec![-1.0; 256];
        image.write_to(&mut floats);
        assert_eq!((floats[0], floats[51], floats[255]), (0.0, 0.2, 1.0));
        assert!((0..256).all(|v| floats[v].to_bits() == (v as f32 / 255.0).to_bits()));
        assert_eq!(image.clone().into_f32(), floats);
        let back = Image::try_new(image.shape(), Pixels::F32(floats)).unwrap();
        assert_eq!(back.to_u8(), bytes);
    }

    #[test]
    fn floats_outside_the_range_are_clamped_as_bytes() {
        let pixels = Pixels::F32(vec![-0.5, 0.5, 1.5, f32::NAN]);
        let image = Image::try_new(ImageShape::new(2, 2, 1), pixels).unwrap();
        assert_eq!(image.to_u8(), [0, 128, 255, 0]);
    }
}
