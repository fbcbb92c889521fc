//! The colours that the samples of a TIFF stand for.

use super::directory::Directory;
use super::{damaged, unsupported};
use crate::error::Result;

pub(super) const PHOTOMETRIC: u16 = 262;
const COLOUR_MAP: u16 = 320;
const INKS: u16 = 332;

/// The photometric interpretation of a grey image.
pub(super) const BLACK_IS_ZERO: u64 = 1;

/// The colours that samples stand for.
#[derive(Debug, PartialEq)]
pub(super) enum Colour {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette(Vec<[u8; 3]>),
    Cmyk,
    /// Full range, BT.601, as in JPEG.
    YCbCr,
}

impl Colour {
    pub(super) fn read(directory: &Directory, bits: u64) -> Result<Self> {
        let name = match directory.first(PHOTOMETRIC) {
            Some(0) => return Ok(Self::WhiteIsZero),
            Some(1) => return Ok(Self::BlackIsZero),
            Some(2) => return Ok(Self::Rgb),
            Some(3) => return palette(directory, bits),
            Some(5) if directory.first(INKS) == Some(2) => "other inks than CMYK",
            Some(5) => return Ok(Self::Cmyk),
            Some(6) => return Ok(Self::YCbCr),
            Some(4) => "a transparency mask alone",
            Some(8..=10) => "CIE L*a*b* colours",
            Some(32_803 | 34_892) => "raw values of a camera's sensor",
            Some(32_844 | 32_845) => "LogLuv colours",
            Some(other) => return Err(unsupported(format!("photometric interpretation {other}"))),
            None => return Err(damaged("it has no photometric interpretation")),
        };
        Err(unsupported(name))
    }

    /// Samples of a pixel, without alpha and others.
    pub(super) fn samples(&self) -> usize {
        match self {
            Self::WhiteIsZero | Self::BlackIsZero | Self::Palette(_) => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }

    /// 1 for grey, 3 for RGB.
    pub(super) fn channels(&self) -> usize {
        if matches!(self, Self::WhiteIsZero | Self::BlackIsZero) { 1 } else { 3 }
    }

    /// The colour of a pixel: R, G, B, or thrice its grey.
    pub(super) fn of(&self, sample: impl Fn(usize) -> u8) -> [u8; 3] {
        match self {
            Self::WhiteIsZero => [255 - sample(0); 3],
            Self::BlackIsZero => [sample(0); 3],
            Self::Rgb => [0, 1, 2].map(sample),
            Self::Palette(colours) => colours.get(usize::from(sample(0))).copied().unwrap_or_default(),
            Self::Cmyk => {
                let light = 255 - u32::from(sample(3));
                [0, 1, 2].map(|ink| ((light * (255 - u32::from(sample(ink))) + 127) / 255) as u8)
            }
            Self::YCbCr => {
                let [y, blue, red] = [0, 1, 2].map(|i| f32::from(sample(i)));
                let [blue, red] = [blue - 128.0, red - 128.0];
                // `as` saturates at 0 and 255.
                [y + 1.402 * red, y - 0.344_136 * blue - 0.714_136 * red, y + 1.772 * blue].map(|v| v.round() as u8)
            }
        }
    }
}

/// The colours of a map of 16 bits: all reds, then all greens, then all blues.
fn palette(directory: &Directory, bits: u64) -> Result<Colour> {
    if !matches!(bits, 1 | 2 | 4 | 8) {
        return Err(unsupported(format!("a palette of {bits}-bit samples")));
    }
    let len = 3 << bits;
    let map: Vec<u64> = directory.integers(COLOUR_MAP).take(len).collect();
    if map.len() != len {
        return Err(damaged(format!("its palette has {} values, expected {len}", map.len())));
    }
    let colours = 1_usize << bits;
    // Some writers store colours of 8 bits, whose upper byte is 0.
    let shift = if map.iter().all(|value| *value < 256) { 0 } else { 8 };
    Ok(Colour::Palette((0..colours).map(|i| [0, 1, 2].map(|c| (map[c * colours + i] >> shift) as u8)).collect()))
}
