//! Centre crop and antialiased resize of images before the network sees them.

use ::image::imageops::FilterType;
use ::image::{ImageBuffer, Luma};
use serde::{Deserialize, Serialize};

use super::{Image, ImageShape, Pixels, crop};
use crate::error::{Error, Result};

/// The largest height and width of an image in a model, in pixels.
pub const MAX_SIDE: usize = 4096;

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

    /// Checks values from a file: sides within bounds, output equal to `image`'s height and width.
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
    if (1..=MAX_SIDE).contains(&side) {
        Ok(())
    } else {
        Err(Error::Config(format!("{name} must be between 1 and {MAX_SIDE}, got {side}")))
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
    let place = ((source.height() - height) / 2, (source.width() - width) / 2);
    crop(&image, place, (height, width))
}

/// Resizes an image of any number of channels to `height` × `width`, with f32 values in [0, 1].
///
/// A triangle filter, whose support grows with the factor when shrinking, so that every pixel of the source counts
/// (Pillow's `BILINEAR`). Pixels lie at the centres of their cells, and weights that fall outside the image are left
/// out. An image that already has the size is returned as it is.
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn floats(height: usize, width: usize, channels: usize, values: Vec<f32>) -> Image {
        Image::try_new(ImageShape::new(height, width, channels), Pixels::F32(values)).unwrap()
    }

    fn bytes(height: usize, width: usize, channels: usize, values: Vec<u8>) -> Image {
        Image::try_new(ImageShape::new(height, width, channels), Pixels::U8(values)).unwrap()
    }

    fn close(image: &Image, expected: &[f32]) {
        let values = image.clone().into_f32();
        assert_eq!(values.len(), expected.len());
        assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}, expected {expected:?}");
    }

    /// Halving: the output pixel at 1.0 weighs the sources at 0.5, 1.5, 2.5 by 3/4, 3/4, 1/4, and they sum to 7/4.
    /// Doubling: the output pixels at 0.25, 0.75, 1.25, 1.75 weigh the sources at 0.5 and 1.5.
    #[rstest]
    #[case::shrink_near(vec![1.0, 0.0, 0.0, 0.0], 2, &[3.0 / 7.0, 0.0])]
    #[case::shrink_far(vec![0.0, 0.0, 1.0, 0.0], 2, &[1.0 / 7.0, 3.0 / 7.0])]
    #[case::grow(vec![0.0, 1.0], 4, &[0.0, 0.25, 0.75, 1.0])]
    fn triangle_filter(#[case] row: Vec<f32>, #[case] size: usize, #[case] expected: &[f32]) {
        let source = row.len();
        close(&resize(&floats(1, source, 1, row.clone()), 1, size).unwrap(), expected);
        close(&resize(&floats(source, 1, 1, row), size, 1).unwrap(), expected);
    }

    /// Pillow 13.0.0: `Image.fromarray((arange(15)**2 / 196).reshape(3, 5)).resize((w, h), BILINEAR)`, mode F.
    #[rstest]
    #[case::shrink(2, 3, &[0.0582179, 0.1087727, 0.1824891, 0.4044278, 0.5552013, 0.7291363])]
    #[case::mixed(4, 2, &[0.0088126, 0.0496289, 0.1204198, 0.2250116, 0.3500116, 0.5311341, 0.6210575, 0.8659555])]
    fn agrees_with_pillow(#[case] height: usize, #[case] width: usize, #[case] expected: &[f32]) {
        let ramp = floats(3, 5, 1, (0..15_u8).map(|i| f32::from(i).powi(2) / 196.0).collect());
        close(&resize(&ramp, height, width).unwrap(), expected);
    }

    #[test]
    fn channels_are_resized_apart() {
        let image = floats(1, 2, 5, vec![0.0, 1.0, 0.5, 0.2, 0.0, 1.0, 0.0, 0.5, 0.2, 0.0]);
        let grown = resize(&image, 1, 4).unwrap();
        assert_eq!(grown.shape(), ImageShape::new(1, 4, 5));
        close(
            &grown,
            &[0.0, 1.0, 0.5, 0.2, 0.0, 0.25, 0.75, 0.5, 0.2, 0.0, 0.75, 0.25, 0.5, 0.2, 0.0, 1.0, 0.0, 0.5, 0.2, 0.0],
        );
    }

    #[test]
    fn bytes_are_resized_as_floats_within_the_range() {
        let white = resize(&bytes(7, 5, 3, vec![255; 105]), 3, 4).unwrap();
        assert!(matches!(white.pixels(), Pixels::F32(values) if values.iter().all(|v| (0.999_999..=1.0).contains(v))));
    }

    #[rstest]
    #[case::same_size(None, Some((2, 3)))]
    #[case::same_crop(Some((2, 3)), None)]
    fn nothing_to_do_keeps_the_bytes(#[case] crop: Option<(usize, usize)>, #[case] size: Option<(usize, usize)>) {
        let image = bytes(2, 3, 1, vec![0, 1, 2, 3, 4, 5]);
        assert_eq!(Preprocess::try_new(crop, size).unwrap().apply(image.clone()).unwrap(), image);
        assert_eq!(resize(&image, 2, 3).unwrap(), image);
    }

    #[test]
    fn the_crop_is_the_centre_rounded_up_and_left() {
        // Rows of 0.., 10.., 20.., 30..; margins of 3 and 1 pixels give 1 above and 0 to the left.
        let rows = (0..4_u8).flat_map(|y| (0..3_u8).flat_map(move |x| [10 * y + x, 100 + 10 * y + x])).collect();
        let crop = Preprocess::try_new(Some((1, 2)), None).unwrap();
        assert_eq!(crop.apply(bytes(4, 3, 2, rows)).unwrap(), bytes(1, 2, 2, vec![10, 110, 11, 111]));
    }

    #[test]
    fn the_crop_comes_before_the_resize() {
        let both = Preprocess::try_new(Some((1, 2)), Some((1, 4))).unwrap();
        let image = floats(1, 4, 1, vec![0.7, 0.0, 1.0, 0.7]);
        close(&both.apply(image).unwrap(), &[0.0, 0.25, 0.75, 1.0]);
        assert_eq!(both.output(ImageShape::new(9, 9, 3)), ImageShape::new(1, 4, 3));
    }

    #[test]
    fn too_large_a_crop_is_refused() {
        let crop = Preprocess::try_new(Some((2, 4)), None).unwrap();
        let error = crop.apply(bytes(2, 3, 1, vec![0; 6])).unwrap_err().to_string();
        assert_eq!(error, "the image has 2 × 3 pixels, too few for a crop of 2 × 4");
        assert_eq!(crop.output(ImageShape::new(2, 3, 1)), ImageShape::new(2, 3, 1));
    }

    #[rstest]
    #[case::neither(None, None, "preprocess needs a crop, a size or both")]
    #[case::zero(Some((0, 1)), None, "the height of crop must be between 1 and 4096, got 0")]
    #[case::large(None, Some((1, 4097)), "the width of size must be between 1 and 4096, got 4097")]
    fn bounds_on_sides(
        #[case] crop: Option<(usize, usize)>,
        #[case] size: Option<(usize, usize)>,
        #[case] message: &str,
    ) {
        assert_eq!(Preprocess::try_new(crop, size).unwrap_err().to_string(), message);
        assert_eq!(Preprocess { crop, size }.validate(ImageShape::new(1, 1, 1)).unwrap_err().to_string(), message);
    }

    #[rstest]
    #[case::nothing(0, 4, "height must be between 1 and 4096, got 0")]
    #[case::large(4, 1 << 40, "width must be between 1 and 4096, got 1099511627776")]
    fn resizing_is_bounded(#[case] height: usize, #[case] width: usize, #[case] message: &str) {
        assert_eq!(resize(&bytes(1, 1, 1, vec![0]), height, width).unwrap_err().to_string(), message);
    }

    #[test]
    fn the_output_must_be_the_models_image() {
        let faces = Preprocess::try_new(Some((140, 140)), Some((64, 64))).unwrap();
        assert!(faces.validate(ImageShape::new(64, 64, 3)).is_ok());
        let error = faces.validate(ImageShape::new(140, 140, 3)).unwrap_err().to_string();
        assert_eq!(error, "preprocess gives 64 × 64 pixels, but the image has shape [140, 140, 3]");
        assert!(Preprocess::try_new(Some((28, 30)), None).unwrap().validate(ImageShape::new(28, 30, 1)).is_ok());
    }

    #[rstest]
    #[case::both(r#"{"crop":[140,140],"size":[64,64]}"#, Some((140, 140)), Some((64, 64)))]
    #[case::size(r#"{"size":[64,32]}"#, None, Some((64, 32)))]
    fn json_form(#[case] json: &str, #[case] crop: Option<(usize, usize)>, #[case] size: Option<(usize, usize)>) {
        let preprocess = Preprocess::try_new(crop, size).unwrap();
        assert_eq!(serde_json::to_string(&preprocess).unwrap(), json);
        assert_eq!(serde_json::from_str::<Preprocess>(json).unwrap(), preprocess);
        assert_eq!((preprocess.crop(), preprocess.size()), (crop, size));
    }
}
