//! Resizing as Pillow's `Image.resize` does it for every mode: bytes to the level, floats of any range.
//!
//! - Bytes of two or four channels have alpha as their last: a filter runs over colours multiplied by alpha, which are
//!   divided by the resized alpha again (Pillow's modes LA and RGBA).
//! - Floats are numbers, each channel by itself (mode F).
//! - [`Interpolation::Nearest`] takes the pixel of the source that the centre of an output pixel falls into.
//!
//! # Source
//! Values of `PIL.Image.Image.resize`, Pillow 13.

use std::str::FromStr;

use super::resample::resample_numbers;
use super::{Filter, Image, ImageShape, Limits, Pixels};
use crate::error::{Error, Result};

/// The longest side of a source and of an output, for which the weights of a filter stay small.
const MAX_LENGTH: usize = 65_535;

/// A way to make the pixels of another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// A filter, over more pixels where the image shrinks.
    Filter(Filter),
}

impl Interpolation {
    /// Each with its name.
    const NAMED: [(&'static str, Self); 4] = [
        ("bilinear", Self::Filter(Filter::Bilinear)),
        ("bicubic", Self::Filter(Filter::Bicubic)),
        ("lanczos", Self::Filter(Filter::Lanczos)),
        ("nearest", Self::Nearest),
    ];
}

impl FromStr for Interpolation {
    type Err = Error;

    /// Reads a name, in letters of either case.
    fn from_str(name: &str) -> Result<Self> {
        let found = Self::NAMED.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, interpolation)| *interpolation).ok_or_else(|| {
            Error::Config(format!("filter must be 'bilinear', 'bicubic', 'lanczos' or 'nearest', got '{name}'"))
        })
    }
}

/// Resizes an image to `height` × `width`: bytes stay bytes, floats are numbers of any range and stay floats.
///
/// An image that has the size is returned as it is.
///
/// # Errors
/// [`Error::Config`] if a side of the output is not in 1..=65535, or if it has more pixels than `limits` allow;
/// [`Error::Data`] if a side of the source exceeds 65,535.
///
/// # Example
/// ```
/// use wae_core::image::{Image, ImageShape, Interpolation, Limits, Pixels, rescale};
///
/// let edge = Image::try_new(ImageShape::new(1, 2, 1), Pixels::F32(vec![-4.0, 4.0]))?;
/// let wider = rescale(&edge, 1, 4, "bilinear".parse()?, &Limits::default())?;
/// assert_eq!(wider.pixels(), &Pixels::F32(vec![-4.0, -2.0, 2.0, 4.0]));
/// # Ok::<(), wae_core::Error>(())
/// ```
pub fn rescale(
    image: &Image,
    height: usize,
    width: usize,
    interpolation: Interpolation,
    limits: &Limits,
) -> Result<Image> {
    check_output(height, width, limits)?;
    let source = image.shape();
    if source.height().max(source.width()) > MAX_LENGTH {
        return Err(Error::Data(format!(
            "an image of shape {source} is too large to resize, expected sides of at most {MAX_LENGTH}"
        )));
    }
    if (source.height(), source.width()) == (height, width) {
        return Ok(image.clone());
    }
    match (interpolation, image.pixels()) {
        (Interpolation::Nearest, _) => nearest(image, height, width),
        (Interpolation::Filter(filter), Pixels::U8(values)) if matches!(source.channels(), 2 | 4) => {
            let colours = Image::try_new(source, Pixels::U8(by_alpha(values, source.channels(), multiplied)))?;
            let resized = resample_numbers(&colours, height, width, filter)?;
            let values = by_alpha(&resized.to_u8(), source.channels(), divided);
            Image::try_new(resized.shape(), Pixels::U8(values))
        }
        (Interpolation::Filter(filter), _) => resample_numbers(image, height, width, filter),
    }
}

/// Checks the size of an output, as [`rescale`] does.
///
/// # Errors
/// [`Error::Config`] as there.
pub fn check_output(height: usize, width: usize, limits: &Limits) -> Result<()> {
    for (name, side) in [("height", height), ("width", width)] {
        if !(1..=MAX_LENGTH).contains(&side) {
            return Err(Error::Config(format!("{name} must be between 1 and {MAX_LENGTH}, got {side}")));
        }
    }
    if height * width > limits.max_pixels {
        return Err(Error::Config(format!(
            "an image of {height} × {width} = {} pixels was asked for, the limit max_pixels is {}",
            height * width,
            limits.max_pixels
        )));
    }
    Ok(())
}

/// Each pixel with its colours changed by its alpha, the last channel.
fn by_alpha(values: &[u8], channels: usize, change: impl Fn(u8, u8) -> u8) -> Vec<u8> {
    let mut out = values.to_vec();
    for pixel in out.chunks_exact_mut(channels) {
        if let Some((alpha, colours)) = pixel.split_last_mut() {
            colours.iter_mut().for_each(|colour| *colour = change(*colour, *alpha));
        }
    }
    out
}

/// `colour · alpha / 255`, rounded.
fn multiplied(colour: u8, alpha: u8) -> u8 {
    let product = u32::from(colour) * u32::from(alpha) + 128;
    // Exact for products of bytes, so that the cast loses nothing.
    (((product >> 8) + product) >> 8) as u8
}

/// `colour · 255 / alpha`, rounded down, at most 255; of alpha 0 the colour.
fn divided(colour: u8, alpha: u8) -> u8 {
    match alpha {
        0 | 255 => colour,
        _ => (u32::from(colour) * 255 / u32::from(alpha)).min(255) as u8,
    }
}

fn nearest(image: &Image, height: usize, width: usize) -> Result<Image> {
    let source = image.shape();
    let rows = places(source.height(), height);
    let columns = places(source.width(), width);
    let pixels = match image.pixels() {
        Pixels::U8(values) => Pixels::U8(picked(values, source, &rows, &columns)),
        Pixels::F32(values) => Pixels::F32(picked(values, source, &rows, &columns)),
    };
    Image::try_new(ImageShape::new(height, width, source.channels()), pixels)
}

fn picked<T: Copy>(values: &[T], source: ImageShape, rows: &[usize], columns: &[usize]) -> Vec<T> {
    let channels = source.channels();
    let mut out = Vec::with_capacity(rows.len() * columns.len() * channels);
    for y in rows {
        let row = &values[y * source.width() * channels..][..source.width() * channels];
        columns.iter().for_each(|x| out.extend_from_slice(&row[x * channels..][..channels]));
    }
    out
}

/// The place of the source that each place of the output takes.
fn places(from: usize, to: usize) -> Vec<usize> {
    let step = from as f64 / to as f64;
    // Pillow adds the steps up, which rounds otherwise than a product.
    let mut centre = step * 0.5;
    let next = |_| {
        let place = (centre as usize).min(from - 1);
        centre += step;
        place
    };
    (0..to).map(next).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// `i² mod 251` over a picture of 13 × 17 pixels.
    fn picture(channels: usize) -> Image {
        let values = (0..13 * 17 * channels).map(|i| (i * i % 251) as u8).collect();
        Image::try_new(ImageShape::new(13, 17, channels), Pixels::U8(values)).unwrap()
    }

    fn rescaled(image: &Image, height: usize, width: usize, filter: &str) -> Image {
        rescale(image, height, width, filter.parse().unwrap(), &Limits::default()).unwrap()
    }

    /// The sum of `(i + 1)·v_i` modulo 65,521, of Pillow's values and of these.
    fn checksum(values: &[u8]) -> usize {
        values.iter().enumerate().fold(0, |sum, (i, v)| (sum + (i + 1) * usize::from(*v)) % 65_521)
    }

    /// Pillow 13: `Image.fromarray(picture, mode).resize((width, height), filter)`, modes L, LA, RGB and RGBA.
    #[rstest]
    #[case(4, 6, 50, "bilinear", (23553, [152, 192, 192, 57, 152, 192]))]
    #[case(4, 40, 31, "bicubic", (5719, [0, 0, 0, 5, 0, 0]))]
    #[case(4, 7, 9, "lanczos", (16561, [88, 107, 147, 52, 68, 115]))]
    #[case(2, 7, 9, "bilinear", (53365, [110, 81, 82, 62, 66, 96]))]
    #[case(2, 20, 5, "lanczos", (54655, [0, 0, 119, 117, 143, 139]))]
    #[case(3, 7, 9, "bicubic", (43914, [68, 55, 50, 105, 96, 127]))]
    #[case(1, 40, 31, "lanczos", (48924, [0, 0, 0, 0, 0, 0]))]
    #[case(3, 7, 9, "nearest", (47159, [0, 1, 4, 36, 49, 64]))]
    #[case(1, 29, 40, "nearest", (18295, [0, 0, 1, 1, 1, 4]))]
    #[case(4, 5, 50, "nearest", (55329, [106, 243, 131, 21, 106, 243]))]
    #[case(2, 13, 6, "nearest", (14609, [4, 9, 64, 81, 196, 225]))]
    fn bytes_are_those_of_pillow(
        #[case] channels: usize,
        #[case] height: usize,
        #[case] width: usize,
        #[case] filter: &str,
        #[case] expected: (usize, [u8; 6]),
    ) {
        let image = rescaled(&picture(channels), height, width, filter);
        let Pixels::U8(values) = image.pixels() else { panic!("bytes") };
        assert_eq!(image.shape(), ImageShape::new(height, width, channels));
        assert_eq!((checksum(values), &values[..6]), (expected.0, &expected.1[..]));
    }

    /// Pillow 13, mode F, of `picture / 2 − 40`: the sum of all values, and those at 0, 1, 17 and the end.
    #[rstest]
    #[case(7, 9, "bilinear", 1310.1397043466568, [-18.705784, -7.3675594, 35.534225, 17.82313])]
    #[case(40, 31, "bicubic", 25216.931650921702, [-41.90655, -42.347786, -3.783237, 81.61825])]
    #[case(5, 20, "lanczos", 2093.0191693603992, [-16.214008, 0.77379423, 34.378345, 38.84142])]
    #[case(7, 9, "nearest", 1163.5, [-40.0, -38.0, 80.5, 64.0])]
    fn floats_are_those_of_pillow(
        #[case] height: usize,
        #[case] width: usize,
        #[case] filter: &str,
        #[case] sum: f64,
        #[case] expected: [f32; 4],
    ) {
        let values = picture(1).to_u8().into_iter().map(|v| f32::from(v) / 2.0 - 40.0).collect();
        let image = Image::try_new(picture(1).shape(), Pixels::F32(values)).unwrap();
        let resized = rescaled(&image, height, width, filter);
        let Pixels::F32(values) = resized.pixels() else { panic!("floats") };
        let got = [0, 1, 17, values.len() - 1].map(|i| values[i]);
        assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-5), "{got:?}");
        assert!((values.iter().copied().map(f64::from).sum::<f64>() - sum).abs() < 1e-2);
    }

    #[test]
    fn floats_have_no_alpha() {
        let values: Vec<f32> = (0..4 * 6).map(|i| i as f32 * 3.0 - 30.0).collect();
        let four = Image::try_new(ImageShape::new(2, 3, 4), Pixels::F32(values.clone())).unwrap();
        let Pixels::F32(four) = rescaled(&four, 5, 2, "bicubic").pixels().clone() else { panic!("floats") };
        for channel in 0..4 {
            let plane = values.iter().skip(channel).step_by(4).copied().collect();
            let plane = Image::try_new(ImageShape::new(2, 3, 1), Pixels::F32(plane)).unwrap();
            let Pixels::F32(plane) = rescaled(&plane, 5, 2, "bicubic").pixels().clone() else { panic!("floats") };
            assert!(four.iter().skip(channel).step_by(4).eq(&plane));
        }
    }

    #[test]
    fn the_same_size_is_the_same_image() {
        for filter in ["NEAREST", "Bilinear"] {
            assert_eq!(rescaled(&picture(4), 13, 17, filter), picture(4));
        }
    }

    #[rstest]
    #[case(0, 4, "height must be between 1 and 65535, got 0")]
    #[case(4, 65_536, "width must be between 1 and 65535, got 65536")]
    #[case(4, 26, "an image of 4 × 26 = 104 pixels was asked for, the limit max_pixels is 100")]
    fn sizes_are_bounded(#[case] height: usize, #[case] width: usize, #[case] message: &str) {
        let limits = Limits { max_pixels: 100, ..Limits::default() };
        let error = rescale(&picture(1), height, width, Interpolation::Nearest, &limits).unwrap_err();
        assert!(matches!(error, Error::Config(_)));
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn a_source_too_long_is_refused() {
        let long = Image::try_new(ImageShape::new(1, 65_536, 1), Pixels::U8(vec![0; 65_536])).unwrap();
        let error = rescale(&long, 1, 4, Interpolation::Nearest, &Limits::default()).unwrap_err().to_string();
        assert!(error.starts_with("an image of shape [1, 65536, 1] is too large to resize"), "{error}");
        let error = "box".parse::<Interpolation>().unwrap_err().to_string();
        assert_eq!(error, "filter must be 'bilinear', 'bicubic', 'lanczos' or 'nearest', got 'box'");
    }
}
