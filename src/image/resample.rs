//! Resizing as Pillow 13 does it, to the level: along one side, rounded to bytes, then along the other, in fixed point.
//!
//! ```text
//! out[o] = Σ_i in[i] · f((i + ½ − c_o)/w) / Σ_i f((i + ½ − c_o)/w),   c_o = (o + ½)·s,  w = max(s, 1)
//! ```
//!
//! Where: s is the side of the source by that of the output, and f the filter. Values outside the image do not count.
//! Rows are resized first, unless the height shrinks by more than twice of what the width does; Pillow 12 and older
//! always take rows first. Floats go the same way without rounding, and are clamped to [0, 1] in the end.
//!
//! # Source
//! Values of `PIL.Image.Image.resize`, of which the order of the sides was found by trials on 8,000 sizes.

use serde::{Deserialize, Serialize};

use super::{Image, ImageShape, MAX_SIDE, Pixels};
use crate::error::{Error, Result};

/// Bits of a weight behind the point: what a sum of bytes leaves of 32.
const BITS: u32 = 32 - 8 - 2;

/// A filter of Pillow's `Image.resize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// A triangle, over two pixels.
    Bilinear,
    /// Keys' cubic with a = −½, over four pixels.
    Bicubic,
    /// A sinc under a sinc's window, over six pixels.
    Lanczos,
}

impl Filter {
    /// Pixels on either side that a value depends on.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => cubic(x, -0.5),
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }

    /// Its name, as timm has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Lanczos => "lanczos",
        }
    }
}

/// Keys' cubic.
pub(crate) fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

/// Resizes an image to `height` × `width`, of bytes to the bytes that Pillow gives, of floats clamped to [0, 1].
///
/// An image that has the size is returned as it is.
///
/// # Errors
/// [`Error::Config`] if a side is not in 1..=4096.
pub fn resample(image: &Image, height: usize, width: usize, filter: Filter) -> Result<Image> {
    for (name, side) in [("height", height), ("width", width)] {
        if !(1..=MAX_SIDE).contains(&side) {
            return Err(Error::Config(format!("{name} must be between 1 and {MAX_SIDE}, got {side}")));
        }
    }
    let mut resized = resample_numbers(image, height, width, filter)?;
    if let Pixels::F32(values) = &mut resized.pixels {
        values.iter_mut().for_each(|value| *value = value.clamp(0.0, 1.0));
    }
    Ok(resized)
}

/// As [`resample`], with sides of any length, and floats of any range as they come out of the filter.
///
/// # Errors
/// [`Error::Data`] if a side is 0.
pub(super) fn resample_numbers(image: &Image, height: usize, width: usize, filter: Filter) -> Result<Image> {
    let source = image.shape();
    let shape = ImageShape::new(height, width, source.channels());
    if shape == source {
        return Ok(image.clone());
    }
    let columns = (source.width() != width).then(|| windows(source.width(), width, filter));
    let rows = (source.height() != height).then(|| windows(source.height(), height, filter));
    let pixels = match image.pixels() {
        Pixels::U8(values) => Pixels::U8(resized(values, source, shape, columns.as_deref(), rows.as_deref())),
        Pixels::F32(values) => Pixels::F32(resized(values, source, shape, columns.as_deref(), rows.as_deref())),
    };
    Image::try_new(shape, pixels)
}

/// The window of an output place: the first place of the source, and a weight for each from there on.
struct Window {
    first: usize,
    weights: Vec<f64>,
    /// The weights in fixed point.
    fixed: Vec<i32>,
}

fn windows(from: usize, to: usize, filter: Filter) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let wide = scale.max(1.0);
    let support = filter.support() * wide;
    let window = |place: usize| {
        let centre = (place as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let last = ((centre + support + 0.5) as usize).min(from);
        let weight = |i: usize| filter.at((i as f64 - centre + 0.5) * (1.0 / wide));
        let mut weights: Vec<f64> = (first..last).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().filter(|_| sum != 0.0).for_each(|weight| *weight /= sum);
        let fixed = |weight: &f64| {
            let scaled = weight * f64::from(1_u32 << BITS);
            (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
        };
        Window { first, fixed: weights.iter().map(fixed).collect(), weights }
    };
    (0..to).map(window).collect()
}

/// A value of an image, and how Pillow sums it.
trait Value: Copy + Default {
    /// A sum of weighted values.
    type Sum: Copy;
    type Weight: Copy;
    const START: Self::Sum;
    fn weights(window: &Window) -> &[Self::Weight];
    fn add(sum: &mut Self::Sum, value: Self, weight: Self::Weight);
    fn finish(sum: Self::Sum) -> Self;
}

impl Value for u8 {
    type Sum = i32;
    type Weight = i32;
    /// One half, so that the shift rounds.
    const START: i32 = 1 << (BITS - 1);

    fn weights(window: &Window) -> &[i32] {
        &window.fixed
    }

    #[inline(always)]
    fn add(sum: &mut i32, value: Self, weight: i32) {
        *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
    }

    #[inline(always)]
    fn finish(sum: i32) -> Self {
        (sum >> BITS).clamp(0, 255) as Self
    }
}

impl Value for f32 {
    type Sum = f64;
    type Weight = f64;
    const START: f64 = 0.0;

    fn weights(window: &Window) -> &[f64] {
        &window.weights
    }

    #[inline(always)]
    fn add(sum: &mut f64, value: Self, weight: f64) {
        *sum += f64::from(value) * weight;
    }

    #[inline(always)]
    fn finish(sum: f64) -> Self {
        sum as Self
    }
}

/// One side, then the other, each only where it changes.
fn resized<T: Value>(
    values: &[T],
    source: ImageShape,
    shape: ImageShape,
    columns: Option<&[Window]>,
    rows: Option<&[Window]>,
) -> Vec<T> {
    let along = |values: &[T], source: ImageShape, windows: &[Window]| match shape.channels() {
        1 => along_rows::<T, 1>(values, source, windows),
        3 => along_rows::<T, 3>(values, source, windows),
        4 => along_rows::<T, 4>(values, source, windows),
        _ => along_rows_of_any(values, source, windows),
    };
    match (columns, rows) {
        (Some(columns), Some(rows)) if takes_columns_first(source, shape) => {
            let middle = along_columns(values, source.width() * source.channels(), rows);
            along(&middle, ImageShape::new(shape.height(), source.width(), source.channels()), columns)
        }
        (Some(columns), Some(rows)) => {
            along_columns(&along(values, source, columns), shape.width() * shape.channels(), rows)
        }
        (Some(columns), None) => along(values, source, columns),
        (None, Some(rows)) => along_columns(values, shape.width() * shape.channels(), rows),
        (None, None) => values.to_vec(),
    }
}

/// Whether the height shrinks, and by more than twice of what the width does.
fn takes_columns_first(source: ImageShape, shape: ImageShape) -> bool {
    source.height() > shape.height() && source.height() - shape.height() + 2 * shape.width() > 2 * source.width()
}

/// Resizes each row of pixels of C channels.
fn along_rows<T: Value, const C: usize>(values: &[T], source: ImageShape, windows: &[Window]) -> Vec<T> {
    let mut out = vec![T::default(); source.height() * windows.len() * C];
    let rows = values.chunks_exact(source.width() * C).zip(out.chunks_exact_mut(windows.len() * C));
    for (row, out) in rows {
        let (row, _) = row.as_chunks::<C>();
        let (out, _) = out.as_chunks_mut::<C>();
        for (window, out) in windows.iter().zip(out) {
            let mut sums = [T::START; C];
            for (pixel, weight) in row[window.first..].iter().zip(T::weights(window)) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    T::add(sum, *value, *weight);
                }
            }
            *out = sums.map(T::finish);
        }
    }
    out
}

/// As [`along_rows`], a channel after another.
fn along_rows_of_any<T: Value>(values: &[T], source: ImageShape, windows: &[Window]) -> Vec<T> {
    let channels = source.channels();
    let mut out = vec![T::default(); source.height() * windows.len() * channels];
    let rows = values.chunks_exact(source.width() * channels).zip(out.chunks_exact_mut(windows.len() * channels));
    for (row, out) in rows {
        for (window, out) in windows.iter().zip(out.chunks_exact_mut(channels)) {
            for (channel, out) in out.iter_mut().enumerate() {
                let mut sum = T::START;
                let pixels = row[window.first * channels..].chunks_exact(channels);
                pixels.zip(T::weights(window)).for_each(|(pixel, weight)| T::add(&mut sum, pixel[channel], *weight));
                *out = T::finish(sum);
            }
        }
    }
    out
}

/// Resizes each column, a row of sums at a time.
fn along_columns<T: Value>(values: &[T], row: usize, windows: &[Window]) -> Vec<T> {
    let mut out = vec![T::default(); windows.len() * row];
    let mut sums = vec![T::START; row];
    for (window, out) in windows.iter().zip(out.chunks_exact_mut(row)) {
        sums.fill(T::START);
        for (values, weight) in values.chunks_exact(row).skip(window.first).zip(T::weights(window)) {
            sums.iter_mut().zip(values).for_each(|(sum, value)| T::add(sum, *value, *weight));
        }
        out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = T::finish(*sum));
    }
    out
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// `i² mod 251` over a picture of 13 × 17 pixels: values that clip in bicubic and Lanczos.
    fn picture(channels: usize) -> Image {
        let values = (0..13 * 17 * channels).map(|i| (i * i % 251) as u8).collect();
        Image::try_new(ImageShape::new(13, 17, channels), Pixels::U8(values)).unwrap()
    }

    /// The sum of `(i + 1)·v_i` modulo 65,521, of Pillow's values and of these.
    fn checksum(values: &[u8]) -> usize {
        values.iter().enumerate().fold(0, |sum, (i, v)| (sum + (i + 1) * usize::from(*v)) % 65_521)
    }

    /// Pillow 13: `Image.fromarray(picture).resize((width, height), filter)`.
    #[rstest]
    #[case(3, 7, 9, Filter::Bilinear, (40738, [77, 63, 59, 109, 101, 120]))]
    #[case(3, 7, 9, Filter::Bicubic, (43914, [68, 55, 50, 105, 96, 127]))]
    #[case(3, 7, 9, Filter::Lanczos, (48372, [67, 50, 45, 102, 93, 137]))]
    #[case(3, 40, 31, Filter::Bilinear, (42123, [0, 1, 4, 3, 6, 11]))]
    #[case(3, 40, 31, Filter::Bicubic, (25759, [0, 0, 0, 0, 0, 2]))]
    #[case(3, 40, 31, Filter::Lanczos, (1495, [0, 0, 0, 0, 0, 0]))]
    #[case(1, 5, 17, Filter::Bicubic, (284, [52, 87, 55, 96, 125, 111]))]
    #[case(1, 13, 4, Filter::Bicubic, (41155, [4, 34, 109, 158, 111, 133]))]
    #[case(4, 6, 50, Filter::Bilinear, (48004, [77, 140, 98, 57, 77, 139]))]
    #[case(3, 6, 16, Filter::Bicubic, (47407, [56, 92, 26, 109, 43, 96]))]
    #[case(3, 5, 13, Filter::Bilinear, (42393, [87, 89, 56, 140, 74, 112]))]
    #[case(3, 4, 13, Filter::Bilinear, (9374, [99, 94, 65, 153, 86, 107]))]
    #[case(1, 20, 50, Filter::Lanczos, (21186, [0, 0, 0, 0, 0, 0]))]
    fn bytes_are_those_of_pillow(
        #[case] channels: usize,
        #[case] height: usize,
        #[case] width: usize,
        #[case] filter: Filter,
        #[case] expected: (usize, [u8; 6]),
    ) {
        let image = resample(&picture(channels), height, width, filter).unwrap();
        let Pixels::U8(values) = image.pixels() else { panic!("bytes") };
        assert_eq!(image.shape(), ImageShape::new(height, width, channels));
        assert_eq!((checksum(values), &values[..6]), (expected.0, &expected.1[..]));
    }

    #[test]
    fn other_channels_are_resized_apart() {
        let five = resample(&picture(5), 7, 9, Filter::Bicubic).unwrap().to_u8();
        for channel in 0..5 {
            let plane = picture(5).to_u8().into_iter().skip(channel).step_by(5).collect();
            let plane = Image::try_new(ImageShape::new(13, 17, 1), Pixels::U8(plane)).unwrap();
            let expected = resample(&plane, 7, 9, Filter::Bicubic).unwrap().to_u8();
            assert!(five.iter().skip(channel).step_by(5).eq(&expected));
        }
    }

    #[test]
    fn floats_are_the_bytes_before_rounding() {
        let bytes = picture(3);
        let floats = bytes.to_u8().into_iter().map(|v| f32::from(v) / 255.0).collect();
        let floats = Image::try_new(bytes.shape(), Pixels::F32(floats)).unwrap();
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            let rounded = resample(&bytes, 6, 40, filter).unwrap().to_u8();
            let Pixels::F32(exact) = resample(&floats, 6, 40, filter).unwrap().pixels().clone() else {
                panic!("floats")
            };
            // Bytes are rounded, and clipped, between rows and columns too.
            let near = |(a, b): (&u8, &f32)| (f32::from(*a) - 255.0 * b).abs() < 40.0 && (0.0..=1.0).contains(b);
            assert!(rounded.iter().zip(&exact).all(near), "{filter:?}");
        }
    }

    #[test]
    fn the_same_size_is_the_same_image_and_sides_are_bounded() {
        assert_eq!(resample(&picture(3), 13, 17, Filter::Bicubic).unwrap(), picture(3));
        let error = resample(&picture(3), 0, 17, Filter::Bicubic).unwrap_err().to_string();
        assert_eq!(error, "height must be between 1 and 4096, got 0");
        assert!(resample(&picture(3), 1, 4097, Filter::Bicubic).is_err());
    }
}
