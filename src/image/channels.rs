//! Images of other numbers of channels.

use super::{Image, ImageShape, Pixels};
use crate::error::{Error, Result};

/// The arithmetic of one type of values.
struct Levels<T> {
    opaque: T,
    /// A value over white, by its alpha.
    over_white: fn(T, T) -> T,
    /// Red, green and blue as grey.
    luma: fn(&[T; 3]) -> T,
}

const BYTES: Levels<u8> = Levels {
    opaque: 255,
    over_white: |value, alpha| {
        let alpha = u32::from(alpha);
        // At most 255, so that the cast loses nothing.
        ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    },
    luma: |rgb| luma(rgb),
};

const FLOATS: Levels<f32> = Levels {
    opaque: 1.0,
    over_white: |value, alpha| value * alpha + (1.0 - alpha),
    luma: |[red, green, blue]| 0.299 * red + 0.587 * green + 0.114 * blue,
};

/// BT.601 luma with Pillow's weights, which sum to 2¹⁶.
pub(super) fn luma(rgb: &[u8]) -> u8 {
    let weighted: u32 = rgb.iter().zip([19_595, 38_470, 7_471]).map(|(v, weight)| u32::from(*v) * weight).sum();
    ((weighted + (1 << 15)) >> 16) as u8
}

impl Image {
    /// The image with 1 (grey), 3 (RGB) or 4 channels (RGB and alpha), by the rules of [`super::decode()`]: two are
    /// grey and alpha, transparency is laid over white, and grey becomes three equal channels.
    ///
    /// # Errors
    /// [`Error::Data`] for other numbers of channels, unless nothing changes.
    pub fn with_channels(self, channels: usize) -> Result<Self> {
        let got = self.shape.channels();
        if got == channels {
            return Ok(self);
        }
        if !matches!((got, channels), (1..=4, 1 | 3 | 4)) {
            return Err(Error::Data(format!(
                "an image of {got} channels cannot become one of {channels}, expected 1, 3 or 4"
            )));
        }
        let shape = ImageShape::new(self.shape.height(), self.shape.width(), channels);
        let pixels = match self.pixels {
            Pixels::U8(values) => Pixels::U8(convert(&values, got, channels, &BYTES)),
            Pixels::F32(values) => Pixels::F32(convert(&values, got, channels, &FLOATS)),
        };
        Self::try_new(shape, pixels)
    }
}

fn convert<T: Copy>(values: &[T], from: usize, to: usize, levels: &Levels<T>) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len() / from * to);
    for pixel in values.chunks_exact(from) {
        let (rgb, alpha) = match *pixel {
            [grey] => ([grey; 3], levels.opaque),
            [grey, alpha] => ([grey; 3], alpha),
            [red, green, blue] => ([red, green, blue], levels.opaque),
            [red, green, blue, alpha] => ([red, green, blue], alpha),
            _ => continue,
        };
        if to == 4 {
            out.extend(rgb);
            out.push(alpha);
            continue;
        }
        let rgb = if matches!(from, 2 | 4) { rgb.map(|value| (levels.over_white)(value, alpha)) } else { rgb };
        match to {
            3 => out.extend(rgb),
            _ if from <= 2 => out.push(rgb[0]),
            _ => out.push((levels.luma)(&rgb)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::{Limits, decode, encode};
    use super::*;

    /// Black half transparent, red, blue wholly transparent.
    const RGBA: [u8; 12] = [0, 0, 0, 128, 255, 0, 0, 255, 0, 0, 255, 0];

    fn image(values: &[u8], channels: usize) -> Image {
        Image::try_new(ImageShape::new(1, values.len() / channels, channels), Pixels::U8(values.to_vec())).unwrap()
    }

    #[rstest]
    #[case::grey_to_rgb(&[7, 9], 1, 3, &[7, 7, 7, 9, 9, 9])]
    #[case::grey_to_rgba(&[7], 1, 4, &[7, 7, 7, 255])]
    #[case::alpha_over_white(&[0, 128, 9, 255], 2, 1, &[127, 9])]
    #[case::grey_and_alpha_to_rgba(&[0, 128], 2, 4, &[0, 0, 0, 128])]
    #[case::luma(&[255, 0, 0, 0, 0, 255], 3, 1, &[76, 29])]
    #[case::opaque(&[1, 2, 3], 3, 4, &[1, 2, 3, 255])]
    #[case::colours_over_white(&RGBA, 4, 3, &[127, 127, 127, 255, 0, 0, 255, 255, 255])]
    #[case::colours_to_grey(&RGBA, 4, 1, &[127, 76, 255])]
    fn channels_are_converted(#[case] values: &[u8], #[case] from: usize, #[case] to: usize, #[case] expected: &[u8]) {
        assert_eq!(image(values, from).with_channels(to).unwrap(), image(expected, to));
        let floats = Pixels::F32(values.iter().map(|v| f32::from(*v) / 255.0).collect());
        let floats = Image::try_new(image(values, from).shape(), floats).unwrap();
        assert_eq!(floats.with_channels(to).unwrap().to_u8(), expected);
    }

    #[test]
    fn channels_are_those_of_a_file() {
        let rgba = image(&RGBA, 4);
        let png = encode(&rgba, "png").unwrap();
        for channels in [1, 3, 4] {
            let decoded = decode(&png, Some(channels), &Limits::default()).unwrap();
            assert_eq!(rgba.clone().with_channels(channels).unwrap(), decoded);
        }
    }

    #[rstest]
    #[case::none(3, 0)]
    #[case::two(3, 2)]
    #[case::of_five(5, 3)]
    fn other_channels_are_refused(#[case] from: usize, #[case] to: usize) {
        let error = image(&[0; 15], from).with_channels(to).unwrap_err().to_string();
        assert_eq!(error, format!("an image of {from} channels cannot become one of {to}, expected 1, 3 or 4"));
    }
}
