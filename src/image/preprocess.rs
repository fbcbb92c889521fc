//! Centre crop and antialiased resize: what is done to an image before the network sees it.

use ::image::imageops::FilterType;
use ::image::{ImageBuffer, Luma};
use serde::{Deserialize, Serialize};

use super::{Image, ImageShape, Pixels};
use crate::config::bounds;
use crate::error::{Error, Result};

/// Centre crop, then antialiased resize; stored in the model file, and done alike in training and in scoring.
///
/// As JSON, `{"crop":[140,140],"size":[64,64]}`: each a height and a width in pixels, each may be left out.
///
/// # Example
/// ```
/// use wae_core::image::{ImageShape, Preprocess};
///
/// // CelebA's faces, as the paper prepares them.
/// let faces = Preprocess::try_new(Some((140, 140)), Some((64, 64)))?;
/// assert_eq!(faces.output(ImageShape::new(218, 178, 3)), ImageShape::new(64, 64, 3));
/// # Ok::<(), wae_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Centre crop to (height, width), first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crop: Option<(usize, usize)>,
    /// Resize to (height, width), second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<(usize, usize)>,
}

impl Preprocess {
    /// A centre crop to (height, width), then a resize to (height, width).
    ///
    /// # Errors
    /// [`Error::Config`] if neither is given, or a side is not in 1..=4096.
    pub fn try_new(crop: Option<(usize, usize)>, size: Option<(usize, usize)>) -> Result<Self> {
        let preprocess = Self { crop, size };
        preprocess.check_sides()?;
        Ok(preprocess)
    }

    /// The centre crop's (height, width).
    pub fn crop(&self) -> Option<(usize, usize)> {
        self.crop
    }

    /// The (height, width) resized to.
    pub fn size(&self) -> Option<(usize, usize)> {
        self.size
    }

    /// Checks what was read from a file: sides within bounds, output equal to `image`'s height and width.
    pub(crate) fn validate(&self, image: ImageShape) -> Result<()> {
        let (height, width) = self.check_sides()?;
        if (height, width) == (image.height(), image.width()) {
            Ok(())
        } else {
            Err(Error::Config(format!("preprocess gives {height} × {width} pixels, but the image has shape {image}")))
        }
    }

    /// The (height, width) that comes out, if every side is within bounds.
    fn check_sides(&self) -> Result<(usize, usize)> {
        for (name, sides) in [("crop", self.crop), ("size", self.size)] {
            if let Some((height, width)) = sides {
                check_side(&format!("the height of {name}"), height)?;
                check_side(&format!("the width of {name}"), width)?;
            }
        }
        let output = self.size.or(self.crop);
        output.ok_or_else(|| Error::Config("preprocess needs a crop, a size or both".to_owned()))
    }

    /// The shape with which an image of shape `source` comes out.
    ///
    /// A crop larger than the source counts as the source's side here; [`Preprocess::apply`] refuses it.
    pub fn output(&self, source: ImageShape) -> ImageShape {
        let crop = self.crop.map(|(height, width)| (height.min(source.height()), width.min(source.width())));
        let (height, width) = self.size.or(crop).unwrap_or((source.height(), source.width()));
        ImageShape::new(height, width, source.channels())
    }

    /// Crops and resizes. An image that already has the size keeps its values; a resized one has f32 values.
    ///
    /// # Errors
    /// [`Error::Data`] if the crop is larger than the image.
    pub fn apply(&self, image: Image) -> Result<Image> {
        let image = match self.crop {
            Some((height, width)) => centre_crop(image, height, width)?,
            None => image,
        };
        match self.size {
            Some(size) if size == (image.shape().height(), image.shape().width()) => Ok(image),
            Some((height, width)) => resize(&image, height, width),
            None => Ok(image),
        }
    }
}

/// Refuses a side that is not in 1..=4096, the bounds of an image in a model.
fn check_side(name: &str, side: usize) -> Result<()> {
    if (1..=bounds::SIDE).contains(&side) {
        Ok(())
    } else {
        Err(Error::Config(format!("{name} must be between 1 and {}, got {side}", bounds::SIDE)))
    }
}

/// The middle of an image; an odd margin leaves its extra pixel at the bottom and at the right.
fn centre_crop(image: Image, height: usize, width: usize) -> Result<Image> {
    let source = image.shape();
    if (height, width) == (source.height(), source.width()) {
        return Ok(image);
    }
    if height > source.height() || width > source.width() {
        return Err(Error::Data(format!(
            "the image has {} × {} pixels, too few for a crop of {height} × {width}",
            source.height(),
            source.width()
        )));
    }
    let shape = ImageShape::new(height, width, source.channels());
    let pixels = match image.pixels() {
        Pixels::U8(values) => Pixels::U8(crop_rows(values, source, shape)),
        Pixels::F32(values) => Pixels::F32(crop_rows(values, source, shape)),
    };
    Image::try_new(shape, pixels)
}

/// The values of the centred `shape` out of those of `source`, which is at least as large.
fn crop_rows<T: Copy>(values: &[T], source: ImageShape, shape: ImageShape) -> Vec<T> {
    let top = (source.height() - shape.height()) / 2;
    let left = (source.width() - shape.width()) / 2 * source.channels();
    let rows = values.chunks_exact(source.width() * source.channels()).skip(top).take(shape.height());
    rows.flat_map(|row| row.iter().skip(left).take(shape.width() * shape.channels()).copied()).collect()
}

/// Resizes an image of any number of channels to `height` × `width`, with f32 values in [0, 1].
///
/// A triangle filter, whose support grows with the factor when shrinking, so that every pixel of the source counts
/// (Pillow's `BILINEAR`). Pixels lie at the centres of their cells, and weights that fall outside the image are left out.
/// An image that already has the size is returned as it is.
///
/// # Errors
/// [`Error::Config`] if a side is not in 1..=4096; [`Error::Data`] if a side of the source exceeds 2³² − 1.
pub fn resize(image: &Image, height: usize, width: usize) -> Result<Image> {
    check_side("height", height)?;
    check_side("width", width)?;
    let source = image.shape();
    if (height, width) == (source.height(), source.width()) {
        return Ok(image.clone());
    }
    let channels = source.channels();
    let values = image.clone().into_f32();
    let mut out = vec![0.0; height.saturating_mul(width).saturating_mul(channels)];
    for channel in 0..channels {
        let plane = values.iter().skip(channel).step_by(channels).copied().collect();
        let resized = resize_plane(plane, source, (height, width))?;
        // The filter's weights sum to 1 but for rounding, which must not leave the range.
        let pixels = out.iter_mut().skip(channel).step_by(channels);
        pixels.zip(resized).for_each(|(out, v)| *out = v.clamp(0.0, 1.0));
    }
    Image::try_new(ImageShape::new(height, width, channels), Pixels::F32(out))
}

/// One channel: the `image` crate's filters know 1 to 4 channels only, and images here may have more.
fn resize_plane(plane: Vec<f32>, source: ImageShape, (height, width): (usize, usize)) -> Result<Vec<f32>> {
    let side = |side: usize| u32::try_from(side).ok();
    let plane = side(source.width())
        .zip(side(source.height()))
        .and_then(|(width, height)| ImageBuffer::<Luma<f32>, _>::from_raw(width, height, plane));
    match (plane, side(width), side(height)) {
        (Some(plane), Some(width), Some(height)) => {
            Ok(::image::imageops::resize(&plane, width, height, FilterType::Triangle).into_raw())
        }
        _ => Err(Error::Data(format!("an image of shape {source} is too large to resize"))),
    }
}
