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
/// [`Error::Config`] for any other `channels`; [`Error::Data`] for empty, corrupt, truncated or unknown bytes, and for
/// an image above `limits`, which is refused before its pixels are allocated.
pub fn decode(bytes: &[u8], channels: Option<usize>, limits: &Limits) -> Result<Image> {
    if let Some(channels @ (0 | 2 | 5..)) = channels {
        return Err(Error::Config(format!("channels must be 1, 3 or 4, got {channels}")));
    }
    let format = format_of(bytes, limits)?;
    let corrupt = |error| Error::Data(format!("the image is not readable: {error}"));
    if format == ImageFormat::Jpeg && !jpeg_ends(bytes) {
        return Err(Error::Data(
            "the image is not readable: the JPEG is truncated, its end marker is missing".to_owned(),
        ));
    }
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

/// Limits of the decoders' allocations: the allowed number of the widest pixels (four f32), and room for their own
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

/// Reduces an image to 8 bits, then to the channels asked for.
fn convert(image: DynamicImage, channels: Option<usize>) -> Result<Image> {
    let height = image.height() as usize;
    let width = image.width() as usize;
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

#[cfg(test)]
mod tests {
    use ::image::codecs::jpeg::JpegEncoder;
    use ::image::codecs::png::PngEncoder;
    use ::image::{ExtendedColorType, ImageEncoder};
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// 2 rows of 3 pixels: red, green, blue; black, white, grey.
    const RGB: [u8; 18] = [255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 128, 128, 128];
    /// Its luma: Pillow 13.0.0 gives 76, 150, 29 for the primaries.
    const GREY: [u8; 6] = [76, 150, 29, 0, 255, 128];
    const FORMATS: [ImageFormat; 6] =
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::Tiff];

    fn rgb() -> DynamicImage {
        ::image::RgbImage::from_raw(3, 2, RGB.to_vec()).unwrap().into()
    }

    fn written(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn values(bytes: &[u8], channels: Option<usize>) -> (ImageShape, Vec<u8>) {
        let image = decode(bytes, channels, &Limits::default()).unwrap();
        (image.shape(), image.to_u8())
    }

    fn message(bytes: &[u8], limits: Limits) -> String {
        let error = decode(bytes, None, &limits).unwrap_err();
        assert!(matches!(error, Error::Data(_)), "{error:?}");
        error.to_string()
    }

    #[rstest]
    #[case::png(ImageFormat::Png)]
    #[case::webp(ImageFormat::WebP)]
    #[case::bmp(ImageFormat::Bmp)]
    #[case::gif(ImageFormat::Gif)]
    #[case::tiff(ImageFormat::Tiff)]
    fn lossless_formats(#[case] format: ImageFormat) {
        let bytes = written(&rgb(), format);
        assert_eq!(values(&bytes, None), (ImageShape::new(2, 3, 3), RGB.to_vec()));
        assert_eq!(values(&bytes, Some(3)), (ImageShape::new(2, 3, 3), RGB.to_vec()));
        assert_eq!(values(&bytes, Some(1)), (ImageShape::new(2, 3, 1), GREY.to_vec()));
        let opaque: Vec<u8> = RGB.chunks(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
        assert_eq!(values(&bytes, Some(4)), (ImageShape::new(2, 3, 4), opaque));
    }

    #[rstest]
    #[case::png(ImageFormat::Png)]
    #[case::jpeg(ImageFormat::Jpeg)]
    #[case::tiff(ImageFormat::Tiff)]
    fn grey_stays_grey(#[case] format: ImageFormat) {
        // One value, which JPEG keeps.
        let grey = ::image::GrayImage::from_raw(3, 2, vec![128; 6]).unwrap().into();
        let bytes = written(&grey, format);
        assert_eq!(values(&bytes, None), (ImageShape::new(2, 3, 1), vec![128; 6]));
        assert_eq!(values(&bytes, Some(3)), (ImageShape::new(2, 3, 3), vec![128; 18]));
    }

    #[test]
    fn jpeg_of_one_colour() {
        let pixel: Vec<u8> = [200, 100, 50].repeat(64);
        let image: DynamicImage = ::image::RgbImage::from_raw(8, 8, pixel.clone()).unwrap().into();
        let (shape, decoded) = values(&written(&image, ImageFormat::Jpeg), None);
        assert_eq!(shape, ImageShape::new(8, 8, 3));
        assert!(decoded.iter().zip(pixel).all(|(a, b)| a.abs_diff(b) <= 3), "{decoded:?}");
    }

    /// Transparent, half and opaque over white: v·a/255 + 255 − a.
    #[test]
    fn transparency_is_over_white() {
        let rgba = [10, 20, 30, 0, 0, 100, 200, 128, 10, 20, 30, 255];
        let image = ::image::RgbaImage::from_raw(3, 1, rgba.to_vec()).unwrap().into();
        let png = written(&image, ImageFormat::Png);
        let over = [255, 255, 255, 127, 177, 227, 10, 20, 30];
        assert_eq!(values(&png, None).1, over);
        assert_eq!(values(&png, Some(4)).1, rgba);
        assert_eq!(values(&png, Some(1)).1, over.chunks(3).map(luma).collect::<Vec<_>>());
        let grey = ::image::GrayAlphaImage::from_raw(2, 1, vec![0, 128, 40, 255]).unwrap().into();
        let png = written(&grey, ImageFormat::Png);
        assert_eq!(values(&png, None), (ImageShape::new(1, 2, 1), vec![127, 40]));
        assert_eq!(values(&png, Some(3)).1, [127, 127, 127, 40, 40, 40]);
    }

    #[test]
    fn deep_samples_become_bytes() {
        // 257·v is v in 16 bits.
        let deep: Vec<u16> = RGB.iter().map(|v| 257 * u16::from(*v)).collect();
        let deep = DynamicImage::ImageRgb16(::image::ImageBuffer::from_raw(3, 2, deep).unwrap());
        assert_eq!(values(&written(&deep, ImageFormat::Png), None).1, RGB);
        let grey: Vec<u16> = GREY.iter().map(|v| 257 * u16::from(*v)).collect();
        let grey = DynamicImage::ImageLuma16(::image::ImageBuffer::from_raw(3, 2, grey).unwrap());
        assert_eq!(values(&written(&grey, ImageFormat::Tiff), None).1, GREY);
        let float: Vec<f32> = RGB.iter().map(|v| f32::from(*v) / 255.0).collect();
        let float = DynamicImage::ImageRgb32F(::image::ImageBuffer::from_raw(3, 2, float).unwrap());
        assert_eq!(values(&written(&float, ImageFormat::Tiff), None).1, RGB);
    }

    /// The smallest EXIF block: TIFF, one directory of one entry, 0x0112 (orientation) = `value`.
    fn exif(value: u8) -> Vec<u8> {
        [&b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"[..], &[value, 0, 0, 0], &[0; 4]].concat()
    }

    #[rstest]
    #[case::upright(1, [1, 2, 3, 4, 5, 6], 2)]
    #[case::half_turn(3, [6, 5, 4, 3, 2, 1], 2)]
    #[case::clockwise(6, [4, 1, 5, 2, 6, 3], 3)]
    #[case::counterclockwise(8, [3, 6, 2, 5, 1, 4], 3)]
    #[case::unknown(99, [1, 2, 3, 4, 5, 6], 2)]
    fn exif_orientation(#[case] value: u8, #[case] expected: [u8; 6], #[case] height: usize) {
        let mut png = Vec::new();
        let mut encoder = PngEncoder::new(&mut png);
        encoder.set_exif_metadata(exif(value)).unwrap();
        encoder.write_image(&[1, 2, 3, 4, 5, 6], 3, 2, ExtendedColorType::L8).unwrap();
        assert_eq!(values(&png, None), (ImageShape::new(height, 6 / height, 1), expected.to_vec()));
        let mut jpeg = Vec::new();
        let mut encoder = JpegEncoder::new(&mut jpeg);
        encoder.set_exif_metadata(exif(value)).unwrap();
        encoder.write_image(&[0; 6], 3, 2, ExtendedColorType::L8).unwrap();
        assert_eq!(values(&jpeg, None).0, ImageShape::new(height, 6 / height, 1));
    }

    #[rstest]
    #[case::empty(b"", "the image has no bytes")]
    #[case::text(b"not an image", "the image has an unknown format, expected PNG, JPEG, WebP, BMP, GIF or TIFF")]
    #[case::ico(b"\0\0\x01\0", "the image has an unknown format, expected PNG, JPEG, WebP, BMP, GIF or TIFF")]
    #[case::header_only(b"\x89PNG\r\n\x1a\n", "the image is not readable: ")]
    fn unreadable(#[case] bytes: &[u8], #[case] start: &str) {
        let message = message(bytes, Limits::default());
        assert!(message.starts_with(start), "{message}");
    }

    /// Noise, so that no format packs the end of it into its first bytes.
    fn noise() -> DynamicImage {
        let values = (0..64 * 64 * 3).map(|v: u32| (v.wrapping_mul(2_654_435_769) >> 24) as u8).collect();
        ::image::RgbImage::from_raw(64, 64, values).unwrap().into()
    }

    #[rstest]
    fn truncated(#[values(0, 1, 2, 3, 4, 5)] format: usize, #[values(1, 4, 7)] eighths: usize) {
        let bytes = written(&noise(), FORMATS[format]);
        assert!(decode(&bytes, None, &Limits::default()).is_ok());
        let message = message(&bytes[..bytes.len() * eighths / 8], Limits::default());
        assert!(message.starts_with("the image is not readable: "), "{message}");
    }

    #[rstest]
    #[case::whole(&[0xff, 0xd8, 0xff, 0xda, 0, 2, 7, 0xff, 0xd9], true)]
    #[case::trailing_bytes(&[0xff, 0xd8, 0xff, 0xda, 0, 2, 7, 0xff, 0xd9, 0, 0], true)]
    #[case::no_end(&[0xff, 0xd8, 0xff, 0xda, 0, 2, 7, 0xff], false)]
    #[case::only_the_thumbnails(&[0xff, 0xd8, 0xff, 0xe1, 0, 4, 0xff, 0xd9, 0xff, 0xda, 0, 2, 7], false)]
    #[case::fill_and_restart(&[0xff, 0xd8, 0xff, 0xff, 0xd0, 0xff, 0xda, 0xff, 0xd9], true)]
    #[case::no_scan(&[0xff, 0xd8, 0xff, 0xe1, 0xff, 0xff, 0xff, 0xd9], false)]
    fn end_of_a_jpeg(#[case] bytes: &[u8], #[case] expected: bool) {
        assert_eq!(jpeg_ends(bytes), expected);
    }

    #[test]
    fn other_channels_are_refused() {
        for channels in [0, 2, 5, usize::MAX] {
            let error = decode(b"", Some(channels), &Limits::default()).unwrap_err();
            assert_eq!(error.to_string(), format!("channels must be 1, 3 or 4, got {channels}"));
        }
    }

    #[test]
    fn limits_are_inclusive_and_named() {
        let png = written(&rgb(), ImageFormat::Png);
        let exact = Limits { max_pixels: 6, max_image_bytes: png.len() };
        assert!(decode(&png, None, &exact).is_ok());
        assert_eq!(
            message(&png, Limits { max_pixels: 5, ..exact }),
            "the image declares 2 × 3 = 6 pixels, the limit max_pixels is 5"
        );
        assert_eq!(
            message(&png, Limits { max_image_bytes: png.len() - 1, ..exact }),
            format!("the image has {} bytes, the limit max_image_bytes is {}", png.len(), png.len() - 1)
        );
    }

    /// Files of a few bytes that declare gigabytes: the header's width and height are overwritten.
    #[rstest]
    #[case::gif(ImageFormat::Gif, 6, &[0xff, 0xff, 0xff, 0xff], "65535 × 65535 = 4294836225 pixels")]
    #[case::bmp(ImageFormat::Bmp, 18, &[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0], "65535 × 65535 = 4294836225 pixels")]
    fn bombs(#[case] format: ImageFormat, #[case] at: usize, #[case] sides: &[u8], #[case] declared: &str) {
        let mut bytes = written(&rgb(), format);
        bytes[at..at + sides.len()].copy_from_slice(sides);
        let message = message(&bytes, Limits::default());
        assert_eq!(message, format!("the image declares {declared}, the limit max_pixels is 67108864"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(format in 0..FORMATS.len(), tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let header = written(&rgb(), FORMATS[format]);
            for kept in [4, 12, 30] {
                let bytes = [&header[..kept.min(header.len())], &tail].concat();
                let _ = decode(&bytes, None, &Limits { max_pixels: 1 << 16, ..Limits::default() });
            }
        }

        #[test]
        fn no_damage_panics(
            format in 0..FORMATS.len(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            keep in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let mut bytes = written(&rgb(), FORMATS[format]);
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if cut {
                bytes.truncate(keep.index(bytes.len()));
            }
            for channels in [None, Some(1), Some(3), Some(4)] {
                let _ = decode(&bytes, channels, &Limits { max_pixels: 1 << 16, ..Limits::default() });
            }
        }
    }
}
