//! Encoded bytes to an [`Image`]: PNG, JPEG, WebP, BMP, GIF (its first frame) and TIFF (its first page).

mod png;
mod tiff;

use std::io::Cursor;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::{Image, ImageShape, Limits, Pixels};
use crate::error::{Error, Result};

/// Decodes PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF (first page), and applies the orientation.
///
/// Deeper samples are reduced to 8 bits: integers by their full range, floats from 0 to 1. `channels` says what comes out:
///
/// - `None`: 1 for a grey image, 3 for any other; transparency is composited over white;
/// - 1: grey, `0.299·R + 0.587·G + 0.114·B` (ITU-R BT.601, with Pillow's integer weights); 3: RGB; both over white;
/// - 4: RGBA, opaque where the image has no transparency.
///
/// # Errors
/// [`Error::Config`] for any other `channels`; [`Error::Data`] for empty, corrupt, truncated or unknown bytes, for a kind
/// of TIFF that is not supported, and for an image above `limits`, which is refused before its pixels are allocated.
pub fn decode(bytes: &[u8], channels: Option<usize>, limits: &Limits) -> Result<Image> {
    if let Some(channels @ (0 | 2 | 5..)) = channels {
        return Err(Error::Config(format!("channels must be 1, 3 or 4, got {channels}")));
    }
    let image = match format_of(bytes, limits)? {
        ImageFormat::Tiff => tiff::decode(bytes, channels == Some(4), limits)?,
        format => decode_as(format, bytes, limits)?,
    };
    convert(image, channels)
}

/// The pixels that an encoded image declares in its header; 0 where that cannot be read.
pub(super) fn declared_pixels(bytes: &[u8]) -> usize {
    let limits = Limits { max_pixels: usize::MAX, max_image_bytes: usize::MAX };
    let sides = match format_of(bytes, &limits) {
        Ok(ImageFormat::Tiff) => tiff::dimensions(bytes, &limits).ok(),
        Ok(format) => ImageReader::with_format(Cursor::new(bytes), format).into_dimensions().ok(),
        Err(_) => None,
    };
    sides.map_or(0, |(width, height)| (width as usize).saturating_mul(height as usize))
}

/// Decodes a mask: white where a pixel is marked, and black elsewhere. A pixel is marked that is neither black nor wholly
/// transparent, at the depth that the file has: numbers of defects in 16 bits are not reduced to 0.
///
/// # Errors
/// Those of [`decode`]; [`Error::Data`] for a TIFF of more than 8 bits a sample.
pub(super) fn decode_mask(bytes: &[u8], limits: &Limits) -> Result<Image> {
    let image = match format_of(bytes, limits)? {
        ImageFormat::Tiff => {
            tiff::check_mask(bytes, limits)?;
            tiff::decode(bytes, true, limits)?
        }
        format => decode_as(format, bytes, limits)?,
    };
    let shape = ImageShape::new(image.height() as usize, image.width() as usize, 1);
    let is_marked = |[colours @ .., alpha]: &[f32; 4]| *alpha > 0.0 && colours.iter().any(|colour| *colour != 0.0);
    let marked = image.into_rgba32f().pixels().map(|pixel| 255 * u8::from(is_marked(&pixel.0))).collect();
    Image::try_new(shape, Pixels::U8(marked))
}

/// Decodes another format than TIFF.
fn decode_as(format: ImageFormat, bytes: &[u8], limits: &Limits) -> Result<DynamicImage> {
    if format == ImageFormat::Jpeg && !jpeg_ends(bytes) {
        return Err(unreadable("the JPEG is truncated, its end marker is missing"));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut allocations = ::image::Limits::no_limits();
    allocations.max_alloc = Some(most_bytes(limits));
    reader.limits(allocations);
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    check_pixels(decoder.dimensions(), limits)?;
    // A damaged EXIF block leaves the pixels as good as they were.
    let orientation = match format {
        ImageFormat::Png => png::orientation(bytes),
        _ => decoder.orientation().ok(),
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Ok(image)
}

fn unreadable(reason: impl std::fmt::Display) -> Error {
    Error::Data(format!("the image is not readable: {reason}"))
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
    if let [b'I', b'I', 43, 0, ..] | [b'M', b'M', 0, 43, ..] = bytes {
        return Ok(Tiff); // BigTIFF
    }
    match ::image::guess_format(bytes) {
        Ok(format @ (Png | Jpeg | WebP | Bmp | Gif | Tiff)) => Ok(format),
        _ => Err(Error::Data("the image has an unknown format, expected PNG, JPEG, WebP, BMP, GIF or TIFF".to_owned())),
    }
}

/// Whether the end marker (FF D9) follows the first scan (FF DA), where no other bytes can look like it.
///
/// The decoder does not ask: it fills what a truncated file lacks with grey, which would be scored as if it were real.
fn jpeg_ends(jpeg: &[u8]) -> bool {
    let mut rest = jpeg.get(2..).unwrap_or_default();
    loop {
        rest = match rest {
            [0xff, 0xda, scan @ ..] => return scan.windows(2).any(|pair| pair == [0xff, 0xd9]),
            // Markers without a payload.
            [0xff, 0x01 | 0xd0..=0xd7, rest @ ..] => rest,
            // A thumbnail, with an end of its own, may lie in a payload. Its length counts the two bytes that hold it.
            [0xff, 0x02..=0xfe, rest @ ..] => match rest {
                [high, low, ..] => rest.get(usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default(),
                _ => return false,
            },
            // Fill bytes, and what the decoder skips.
            [_, rest @ ..] => rest,
            [] => return false,
        };
    }
}

/// The most bytes that a decoder may allocate: the allowed number of the widest pixels (four f32), and room for its own
/// buffers and metadata. The dimensions have their own check, with a message that names the option.
fn most_bytes(limits: &Limits) -> u64 {
    const OWN_BUFFERS: u64 = 64 << 20;
    let pixels = u64::try_from(limits.max_pixels).unwrap_or(u64::MAX);
    pixels.saturating_mul(16).saturating_add(OWN_BUFFERS)
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

/// Reduces an image to 8 bits, then to the channels asked for.
fn convert(image: DynamicImage, channels: Option<usize>) -> Result<Image> {
    let height = image.height() as usize;
    let width = image.width() as usize;
    let colour = image.color();
    let channels = channels.unwrap_or(if colour.has_color() { 3 } else { 1 });
    let (stored, values) = match (colour.has_color(), colour.has_alpha()) {
        (false, false) => (1, image.into_luma8().into_raw()),
        (false, true) => (2, image.into_luma_alpha8().into_raw()),
        (true, false) => (3, image.into_rgb8().into_raw()),
        (true, true) => (4, image.into_rgba8().into_raw()),
    };
    Image::try_new(ImageShape::new(height, width, stored), Pixels::U8(values))?.with_channels(channels)
}

#[cfg(test)]
mod tests;
