//! An [`Image`] to encoded bytes: PNG and JPEG.

use ::image::codecs::jpeg::JpegEncoder;
use ::image::codecs::png::PngEncoder;
use ::image::{ExtendedColorType, ImageEncoder};

use super::Image;
use crate::error::{Error, Result};

/// Visually faithful, at about a fifth of the PNG's size on photographs.
const JPEG_QUALITY: u8 = 90;

/// What an image can be encoded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Png,
    Jpeg,
}

impl Format {
    fn parse(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "png" => Ok(Self::Png),
            "jpeg" | "jpg" => Ok(Self::Jpeg),
            _ => Err(Error::Config(format!("format must be png or jpeg, got {name}"))),
        }
    }
}

/// Encodes as PNG (`"png"`, lossless; 1, 3 or 4 channels) or JPEG (`"jpeg"`, quality 90; 1 or 3 channels).
///
/// Floats become bytes as [`Image::to_u8`] says: `round(255·v)`.
///
/// # Errors
/// [`Error::Config`] for another format; [`Error::Data`] for a number of channels that the format does not hold, or a
/// side beyond what it holds (65,535 pixels for JPEG).
pub fn encode(image: &Image, format: &str) -> Result<Vec<u8>> {
    let format = Format::parse(format)?;
    let shape = image.shape();
    let colour = match (format, shape.channels()) {
        (_, 1) => ExtendedColorType::L8,
        (_, 3) => ExtendedColorType::Rgb8,
        (Format::Png, 4) => ExtendedColorType::Rgba8,
        (Format::Png, _) => return Err(refused(image, "PNG", "1, 3 or 4 channels")),
        (Format::Jpeg, _) => return Err(refused(image, "JPEG", "1 or 3 channels")),
    };
    let (Ok(width), Ok(height)) = (u32::try_from(shape.width()), u32::try_from(shape.height())) else {
        return Err(refused(image, "PNG", "sides below 2^32"));
    };
    let (values, mut out) = (image.to_u8(), Vec::new());
    let written = match format {
        Format::Png => PngEncoder::new(&mut out).write_image(&values, width, height, colour),
        Format::Jpeg => {
            JpegEncoder::new_with_quality(&mut out, JPEG_QUALITY).write_image(&values, width, height, colour)
        }
    };
    written.map_err(|error| Error::Data(format!("an image of shape {shape} was not encoded: {error}")))?;
    Ok(out)
}

fn refused(image: &Image, format: &str, holds: &str) -> Error {
    Error::Data(format!("{format} holds images of {holds}, got shape {}", image.shape()))
}
