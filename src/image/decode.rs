//! Encoded bytes to an [`Image`]: PNG, JPEG, WebP, BMP, GIF (its first frame) and TIFF.

use std::io::Cursor;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::{Image, ImageShape, Limits, Pixels};
use crate::error::{Error, Result};

/// Decodes PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF, and applies the EXIF orientation.
///
/// Samples of 16 bits and floats are reduced to 8 bits. `channels` says what comes out:
///
/// - `None`: 1 for a grey image, 3 for any other; transparency is composited over white;
/// - 1: grey, `0.299·R + 0.587·G + 0.114·B` (ITU-R BT.601, with Pillow's integer weights); 3: RGB; both over white;
/// - 4: RGBA, opaque where the image has no transparency.
///
/// # Errors
/// [`Error::Config`] for any other `channels`; [`Error::Data`] for empty, corrupt, truncated or unknown bytes, and for an
/// image above `limits`, which is refused before its pixels are allocated.
pub fn decode(bytes: &[u8], channels: Option<usize>, limits: &Limits) -> Result<Image> {
    if let Some(channels @ (0 | 2 | 5..)) = channels {
        return Err(Error::Config(format!("channels must be 1, 3 or 4, got {channels}")));
    }
    let format = format_of(bytes, limits)?;
    let corrupt = |error| Error::Data(format!("the image is not readable: {error}"));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(decoder_limits(limits));
    let mut decoder = reader.into_decoder().map_err(corrupt)?;
    check_pixels(decoder.dimensions(), limits)?;
    // A damaged EXIF block leaves the pixels as good as they were.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(corrupt)?;
    image.apply_orientation(orientation);
    convert(image, channels)
}

fn format_of(bytes: &[u8], limits: &Limits) -> Result<ImageFormat> {
    if bytes.is_empty() {
        return Err(Error::Data("the image has no bytes".to_owned()));
    }
    if bytes.len() > limits.max_image_bytes {
        return Err(Error::Data(format!(
            "the image has {} bytes, the limit max_image_bytes is {}",
            bytes.len(),
            limits.max_image_bytes
        )));
    }
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    match ::image::guess_format(bytes) {
        Ok(format @ (Png | Jpeg | WebP | Bmp | Gif | Tiff)) => Ok(format),
        _ => Err(Error::Data("the image has an unknown format, expected PNG, JPEG, WebP, BMP, GIF or TIFF".to_owned())),
    }
}

/// What the decoders may allocate: the widest pixel there is (four f32) as often as allowed, and room for their own
/// buffers and metadata. The dimensions have their own check, with a message that names the option.
fn decoder_limits(limits: &Limits) -> ::image::Limits {
    const OWN_BUFFERS: u64 = 64 << 20;
    let pixels = u64::try_from(limits.max_pixels).unwrap_or(u64::MAX);
    let mut decoder = ::image::Limits::no_limits();
    decoder.max_alloc = Some(pixels.saturating_mul(16).saturating_add(OWN_BUFFERS));
    decoder
}

fn check_pixels((width, height): (u32, u32), limits: &Limits) -> Result<()> {
    let pixels = u64::from(width) * u64::from(height);
    if usize::try_from(pixels).is_ok_and(|pixels| pixels <= limits.max_pixels) {
        Ok(())
    } else {
        Err(Error::Data(format!(
            "the image declares {height} × {width} = {pixels} pixels, the limit max_pixels is {}",
            limits.max_pixels
        )))
    }
}

/// Reduces to 8 bits, then to the channels that are wanted.
fn convert(image: DynamicImage, channels: Option<usize>) -> Result<Image> {
    let (height, width) = (image.height() as usize, image.width() as usize);
    let grey = !image.color().has_color();
    let channels = channels.unwrap_or(if grey { 1 } else { 3 });
    let values = match (grey, channels) {
        (_, 4) => image.into_rgba8().into_raw(),
        (true, 1) => grey_values(image),
        (true, _) => grey_values(image).into_iter().flat_map(|v| [v; 3]).collect(),
        (false, 1) => rgb_values(image).chunks_exact(3).map(luma).collect(),
        (false, _) => rgb_values(image),
    };
    Image::try_new(ImageShape::new(height, width, channels), Pixels::U8(values))
}

fn grey_values(image: DynamicImage) -> Vec<u8> {
    match image.color().has_alpha() {
        true => over_white(&image.into_luma_alpha8().into_raw(), 2),
        false => image.into_luma8().into_raw(),
    }
}

fn rgb_values(image: DynamicImage) -> Vec<u8> {
    match image.color().has_alpha() {
        true => over_white(&image.into_rgba8().into_raw(), 4),
        false => image.into_rgb8().into_raw(),
    }
}

/// Composites pixels of `channels` values, the last of which is alpha, over white, rounding to the nearest.
fn over_white(values: &[u8], channels: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len());
    for (alpha, colour) in values.chunks_exact(channels).filter_map(<[u8]>::split_last) {
        let alpha = u32::from(*alpha);
        // At most 255, so that the cast loses nothing.
        out.extend(colour.iter().map(|v| ((u32::from(*v) * alpha + 255 * (255 - alpha) + 127) / 255) as u8));
    }
    out
}

/// BT.601 luma with Pillow's weights, which sum to 2¹⁶.
fn luma(rgb: &[u8]) -> u8 {
    let weighted: u32 = rgb.iter().zip([19_595, 38_470, 7_471]).map(|(v, weight)| u32::from(*v) * weight).sum();
    ((weighted + (1 << 15)) >> 16) as u8
}
