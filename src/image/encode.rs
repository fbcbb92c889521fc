//! An [`Image`] to encoded bytes: PNG and JPEG.

use ::image::codecs::jpeg::JpegEncoder;
use ::image::codecs::png::PngEncoder;
use ::image::{ExtendedColorType, ImageEncoder};

use super::Image;
use crate::error::{Error, Result};

/// High enough that the loss is hard to see, without the size of the steps above it.
const JPEG_QUALITY: u8 = 90;

/// The formats that an image can be encoded in.
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
    let values = image.to_u8();
    let mut out = Vec::new();
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::{ImageShape, Limits, Pixels, decode};
    use super::*;

    fn ramp(channels: usize) -> Image {
        let values = (0..32 * channels).map(|v| (v * 255 / (32 * channels)) as u8).collect();
        Image::try_new(ImageShape::new(8, 4, channels), Pixels::U8(values)).unwrap()
    }

    #[rstest]
    fn png_is_lossless(#[values(1, 3, 4)] channels: usize) {
        let png = encode(&ramp(channels), "PNG").unwrap();
        assert_eq!(decode(&png, Some(channels), &Limits::default()).unwrap(), ramp(channels));
    }

    #[rstest]
    fn jpeg_is_near(#[values(1, 3)] channels: usize, #[values("jpeg", "jpg")] format: &str) {
        let jpeg = encode(&ramp(channels), format).unwrap();
        let back = decode(&jpeg, None, &Limits::default()).unwrap();
        assert_eq!(back.shape(), ramp(channels).shape());
        let far = back.to_u8().iter().zip(ramp(channels).to_u8()).map(|(a, b)| a.abs_diff(b)).max();
        assert!(far <= Some(16), "{far:?}");
    }

    #[test]
    fn floats_are_rounded() {
        let floats = Pixels::F32(vec![0.0, 0.49 / 255.0, 0.51 / 255.0, 1.0]);
        let image = Image::try_new(ImageShape::new(2, 2, 1), floats).unwrap();
        let back = decode(&encode(&image, "png").unwrap(), None, &Limits::default()).unwrap();
        assert_eq!(back.pixels(), &Pixels::U8(vec![0, 0, 1, 255]));
    }

    #[rstest]
    #[case::format(1, "gif", "format must be png or jpeg, got gif")]
    #[case::png(2, "png", "PNG holds images of 1, 3 or 4 channels, got shape [8, 4, 2]")]
    #[case::jpeg(4, "jpeg", "JPEG holds images of 1 or 3 channels, got shape [8, 4, 4]")]
    fn refusals(#[case] channels: usize, #[case] format: &str, #[case] message: &str) {
        assert_eq!(encode(&ramp(channels), format).unwrap_err().to_string(), message);
    }

    #[test]
    fn a_side_beyond_the_format_is_an_error() {
        let long = Image::try_new(ImageShape::new(1, 65_536, 1), Pixels::U8(vec![0; 65_536])).unwrap();
        let error = encode(&long, "jpeg").unwrap_err().to_string();
        assert!(error.starts_with("an image of shape [1, 65536, 1] was not encoded: "), "{error}");
    }
}
