use ::image::codecs::jpeg::JpegEncoder;
use ::image::codecs::png::PngEncoder;
use ::image::{ExtendedColorType, ImageEncoder};
use proptest::prelude::*;
use rstest::rstest;

use super::super::channels::luma;
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

/// Numbers of 16 bits that are 0 in 8; a palette's colours; black and transparent pixels are none.
#[test]
fn masks_are_marked_at_the_files_depth() {
    let marked = |image: DynamicImage| {
        let image = decode_mask(&written(&image, ImageFormat::Png), &Limits::default()).unwrap();
        assert_eq!(image.shape(), ImageShape::new(1, 4, 1));
        image.to_u8()
    };
    let deep = ::image::ImageBuffer::from_raw(4, 1, vec![0_u16, 1, 127, 65535]).unwrap();
    assert_eq!(marked(DynamicImage::ImageLuma16(deep)), [0, 255, 255, 255]);
    let grey = ::image::GrayImage::from_raw(4, 1, vec![0, 1, 0, 255]).unwrap();
    assert_eq!(marked(grey.into()), [0, 255, 0, 255]);
    let colours = ::image::RgbImage::from_raw(4, 1, vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 128, 0, 0]).unwrap();
    assert_eq!(marked(colours.into()), [0, 255, 0, 255]);
    let clear = vec![0, 0, 0, 0, 255, 255, 255, 0, 0, 0, 0, 255, 9, 0, 0, 1];
    assert_eq!(marked(::image::RgbaImage::from_raw(4, 1, clear).unwrap().into()), [0, 0, 0, 255]);
    let error = decode_mask(b"no image", &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("unknown format"), "{error}");
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

/// A PNG file of 2 rows of 3 pixels with a chunk before its pixels, or behind them. The checksum is not looked at.
fn png_with(kind: &[u8], data: &[u8], behind: bool) -> Vec<u8> {
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(&[1, 2, 3, 4, 5, 6], 3, 2, ExtendedColorType::L8).unwrap();
    let after = png.split_off(if behind { png.len() - 12 } else { 8 + 25 });
    [png, (data.len() as u32).to_be_bytes().to_vec(), kind.to_vec(), data.to_vec(), checksum(kind, data), after]
        .concat()
}

fn checksum(kind: &[u8], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    crc.sum().to_be_bytes().to_vec()
}

#[rstest]
#[case::clockwise(exif(6), 3)]
#[case::with_a_prefix([b"Exif\0\0".to_vec(), exif(6)].concat(), 3)]
#[case::upright(exif(1), 2)]
#[case::damaged(b"II*".to_vec(), 2)]
fn exif_of_a_chunk(#[case] exif: Vec<u8>, #[case] height: usize) {
    for behind in [false, true] {
        assert_turned(&png_with(b"eXIf", &exif, behind), height == 3);
    }
}

fn assert_turned(png: &[u8], is_turned: bool) {
    let (height, pixels) = if is_turned { (3, [4, 1, 5, 2, 6, 3]) } else { (2, [1, 2, 3, 4, 5, 6]) };
    assert_eq!(values(png, None), (ImageShape::new(height, 6 / height, 1), pixels.to_vec()));
}

/// EXIF as ImageMagick writes it into a text.
fn profile(exif: &[u8]) -> Vec<u8> {
    let hex: Vec<String> =
        exif.chunks(36).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    format!("\nexif\n{:8}\n{}\n", exif.len(), hex.join("\n")).into_bytes()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[rstest]
#[case::plain(b"tEXt", b"", profile(&exif(6)), true)]
#[case::with_a_prefix(b"tEXt", b"", profile(&[b"Exif\0\0".to_vec(), exif(6)].concat()), true)]
#[case::long(b"tEXt", b"", profile(&[exif(6), vec![7; 200_000]].concat()), true)]
#[case::in_capitals(b"tEXt", b"", profile(&exif(6)).to_ascii_uppercase(), true)]
#[case::of_windows(b"tEXt", b"", String::from_utf8(profile(&exif(6))).unwrap().replace('\n', "\r\n").into(), true)]
#[case::compressed(b"zTXt", b"\0", zlib(&profile(&exif(6))), true)]
#[case::damaged_behind_the_beginning(
    b"zTXt",
    b"\0",
    [&zlib(&profile(&[exif(6), vec![7; 99]].concat()))[..], &[9; 4]].concat(),
    true
)]
#[case::international(b"iTXt", b"\0\0de\0Profil\0", profile(&exif(6)), true)]
#[case::international_compressed(b"iTXt", b"\x01\0\0\0", zlib(&profile(&exif(6))), true)]
#[case::upright(b"zTXt", b"\0", zlib(&profile(&exif(1))), false)]
#[case::another_method(b"zTXt", b"\x01", zlib(&profile(&exif(6))), false)]
#[case::no_zlib(b"zTXt", b"\0", profile(&exif(6)), false)]
#[case::no_digits(b"tEXt", b"", b"\nexif\n 4\nzzzzzzzz".to_vec(), false)]
#[case::no_lines(b"tEXt", b"", b"exif".to_vec(), false)]
#[case::no_text(b"iTXt", b"\0\0de", Vec::new(), false)]
#[case::a_bomb(b"zTXt", b"\0", zlib(&vec![b'\n'; 64 << 20]), false)]
fn exif_of_a_text(#[case] kind: &[u8], #[case] head: &[u8], #[case] text: Vec<u8>, #[case] is_turned: bool) {
    let data = [b"Raw profile type exif\0", head, &text].concat();
    for behind in [false, true] {
        assert_turned(&png_with(kind, &data, behind), is_turned);
    }
}

#[test]
fn a_chunk_of_exif_counts_before_a_text() {
    let text = [b"Raw profile type exif\0".to_vec(), profile(&exif(6))].concat();
    let png = png_with(b"tEXt", &text, false);
    let end = png.len() - 12;
    let upright = exif(1);
    let chunk = [&(upright.len() as u32).to_be_bytes()[..], b"eXIf", &upright, &checksum(b"eXIf", &upright)].concat();
    assert_turned(&[&png[..end], &chunk, &png[end..]].concat(), false);
}

/// The pictures of `fixtures/images`, and the files there that no reader may accept.
#[test]
fn fixtures_are_seen_as_they_are_known() {
    let read = |name: &str| std::fs::read(format!("{}/fixtures/images/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let files: Vec<serde_json::Value> = serde_json::from_slice(&read("expected.json")).unwrap();
    assert!(files.len() >= 35, "{}", files.len());
    for file in files {
        let name = file["file"].as_str().unwrap();
        let number = |key: &str| file[key].as_u64().unwrap();
        let channels = file["channels"].as_u64();
        let image = decode(&read(name), channels.filter(|c| *c == 4).map(|_| 4), &Limits::default());
        if file["readable"] == false {
            assert!(image.is_err(), "{name}");
            continue;
        }
        let image = image.unwrap_or_else(|error| panic!("{name}: {error}"));
        let sides = ["height", "width", "channels"].map(|key| number(key) as usize);
        assert_eq!(image.shape(), ImageShape::new(sides[0], sides[1], sides[2]), "{name}");
        let most = (1 << number("bits")) - 1;
        let expected = file["pixels"].as_array().unwrap().iter();
        let expected = expected.map(|v| ((v.as_u64().unwrap() * 255 + most / 2) / most) as u8);
        let differences = expected.zip(image.to_u8()).map(|(a, b)| u64::from(a.abs_diff(b)));
        let largest = differences.max().unwrap();
        assert!(largest <= number("tolerance"), "{name}: {largest} of 255");
    }
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
