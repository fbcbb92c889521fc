//! The meaning of a TIFF's samples, from its tags.

use ::image::metadata::Orientation;

use super::super::{check_pixels, most_bytes};
use super::colour::Colour;
use super::directory::Directory;
use super::{damaged, unsupported};
use crate::error::{Error, Result};
use crate::image::Limits;

pub(super) const WIDTH: u16 = 256;
pub(super) const HEIGHT: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const FILL_ORDER: u16 = 266;
const ORIENTATION: u16 = 274;
const SAMPLES: u16 = 277;
pub(super) const ROWS_PER_STRIP: u16 = 278;
const PLANES: u16 = 284;
pub(super) const PREDICTOR: u16 = 317;
const TILE_WIDTH: u16 = 322;
const TILE_HEIGHT: u16 = 323;
pub(super) const TILE_OFFSETS: u16 = 324;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;
const CHROMA: u16 = 530;

/// The sample that holds alpha.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Alpha {
    pub(super) sample: usize,
    /// Whether the colours are multiplied by it.
    pub(super) premultiplied: bool,
}

impl Alpha {
    /// Alpha among the samples that follow the colours; others are left out.
    fn read(directory: &Directory, colour: &Colour, samples: usize) -> Result<Option<Self>> {
        let extra: Vec<u64> = directory.integers(EXTRA_SAMPLES).take(1 << 16).collect();
        let first = colour.samples();
        if extra.is_empty() && *colour == Colour::Rgb && samples == first + 1 {
            return Ok(Some(Self { sample: first, premultiplied: false }));
        }
        if first + extra.len() != samples {
            let said = first + extra.len();
            return Err(unsupported(format!("{samples} samples a pixel, of which its tags explain {said}")));
        }
        // 999 is CorelDRAW's.
        let alpha = extra.iter().position(|kind| matches!(kind, 1 | 2 | 999));
        Ok(alpha.map(|i| Self { sample: first + i, premultiplied: extra[i] == 1 }))
    }
}

/// The way that samples are compressed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Compression {
    None,
    Fax4,
    Jpeg,
    PackBits,
    /// LZW or Deflate, before which samples may be replaced by differences.
    Predicting,
}

impl Compression {
    fn read(directory: &Directory) -> Result<Self> {
        let name = match directory.first(COMPRESSION).unwrap_or(1) {
            1 => return Ok(Self::None),
            4 => return Ok(Self::Fax4),
            5 | 8 | 32_946 => return Ok(Self::Predicting),
            7 => return Ok(Self::Jpeg),
            32_773 => return Ok(Self::PackBits),
            2 | 3 => "fax compression of another kind than Group 4",
            6 => "JPEG compression of the old kind",
            34_712 | 33_003 | 33_005 => "JPEG 2000 compression",
            34_887 => "LERC compression",
            34_925 => "LZMA compression",
            50_000 => "Zstandard compression",
            50_001 => "WebP compression",
            other => return Err(unsupported(format!("compression {other}"))),
        };
        Err(unsupported(name))
    }
}

/// The samples of a TIFF, of a kind that is supported.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Width and height of a strip or tile.
    pub(super) chunk: (usize, usize),
    /// Samples of a pixel.
    pub(super) samples: usize,
    pub(super) bits: u64,
    /// Whether the samples of one kind follow one another, not those of a pixel.
    pub(super) planar: bool,
    /// Whether the bits of a byte stand in the reverse order.
    pub(super) reversed: bool,
    /// Whether a predictor's differences are to be undone.
    pub(super) predicts: bool,
    pub(super) compression: Compression,
    pub(super) colour: Colour,
    pub(super) alpha: Option<Alpha>,
    pub(super) orientation: Orientation,
}

impl Layout {
    /// Reads and checks the tags.
    ///
    /// # Errors
    /// [`crate::Error::Data`] for a kind that is not supported, named, and for an image above `limits`.
    pub(super) fn try_new(directory: &Directory, limits: &Limits) -> Result<Self> {
        let [width, height] = [side(directory, WIDTH)?, side(directory, HEIGHT)?];
        check_pixels((width, height), limits)?;
        let samples = directory.first(SAMPLES).unwrap_or(1) as usize;
        let bits = same(directory.integers(BITS), "bits a sample")?.unwrap_or(1);
        let format = same(directory.integers(SAMPLE_FORMAT), "types of samples")?.unwrap_or(1);
        let compression = Compression::read(directory)?;
        let colour = Colour::read(directory, bits)?;
        let alpha = Alpha::read(directory, &colour, samples)?;
        let predictor = directory.first(PREDICTOR).unwrap_or(1);
        let halved = directory.integers(CHROMA).ne([1, 1]);
        if halved && colour == Colour::YCbCr && compression != Compression::Jpeg {
            return Err(unsupported("YCbCr colours of fewer samples than pixels, without JPEG compression"));
        }
        let orientation = directory.first(ORIENTATION).and_then(|value| u8::try_from(value).ok());
        let layout = Self {
            width,
            height,
            chunk: chunk(directory, width, height)?,
            samples,
            bits,
            planar: directory.first(PLANES) == Some(2) && samples > 1,
            reversed: directory.first(FILL_ORDER) == Some(2),
            predicts: compression == Compression::Predicting && predictor != 1,
            compression,
            colour,
            alpha,
            orientation: orientation.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms),
        };
        layout.check_samples(format)?;
        layout.check_compression(format, predictor)?;
        layout.check_size(limits)?;
        Ok(layout)
    }

    fn check_samples(&self, format: u64) -> Result<()> {
        let bits = self.bits;
        match (format, bits) {
            (1, 1 | 2 | 4) if matches!(self.colour, Colour::Palette(_)) && self.alpha.is_some() => {
                Err(unsupported(format!("a palette of {bits}-bit samples and alpha")))
            }
            (1, 1 | 2 | 4 | 8 | 16 | 32 | 64) => Ok(()),
            (3, _) if matches!(self.colour, Colour::Palette(_)) => Err(unsupported("a palette of floats")),
            (3, 16 | 32 | 64) => Ok(()),
            (1, _) => Err(unsupported(format!("{bits}-bit samples"))),
            (2, _) => Err(unsupported("signed integers")),
            (3, _) => Err(unsupported(format!("floats of {bits} bits"))),
            (5 | 6, _) => Err(unsupported("complex numbers")),
            _ => Err(unsupported("samples of an undefined type")),
        }
    }

    fn check_compression(&self, format: u64, predictor: u64) -> Result<()> {
        let bits = self.bits;
        let jpeg = self.compression == Compression::Jpeg;
        if jpeg && (format, bits) != (1, 8) {
            return Err(unsupported(format!("JPEG compression of {bits}-bit samples")));
        }
        if self.compression == Compression::Fax4 && (bits, self.samples) != (1, 1) {
            return Err(unsupported(format!("fax compression of {bits}-bit samples, {} a pixel", self.samples)));
        }
        if jpeg && !self.planar && self.samples == 2 {
            return Err(unsupported("JPEG compression of 2 samples a pixel"));
        }
        if self.predicts && !(predictor == 2 && bits >= 8 || predictor == 3 && format == 3) {
            return Err(unsupported(format!("predictor {predictor} of {bits}-bit samples")));
        }
        if self.reversed && (self.compression != Compression::None || bits > 8) {
            return Err(unsupported("bits in the reverse order (FillOrder 2), compressed or in samples above 8 bits"));
        }
        Ok(())
    }

    /// Before anything is allocated, or multiplied by the decoder.
    fn check_size(&self, limits: &Limits) -> Result<()> {
        let pixel = self.samples as u128 * u128::from(self.bits.div_ceil(8));
        let bytes = |width: usize, height: usize| width as u128 * height as u128 * pixel;
        let largest = bytes(self.width as usize, self.height as usize).max(bytes(self.chunk.0, self.chunk.1));
        let rows = u64::from(self.height).checked_mul(self.samples as u64);
        if largest > most_bytes(limits).into() || rows.is_none_or(|rows| rows > u32::MAX.into()) {
            return Err(Error::Data(format!(
                "the image takes {largest} bytes, the limit max_pixels = {} allows {}",
                limits.max_pixels,
                most_bytes(limits)
            )));
        }
        Ok(())
    }

    /// Whether the samples are the values of the image.
    pub(super) fn is_plain(&self) -> bool {
        !self.planar
            && self.samples == self.colour.samples()
            && matches!(self.colour, Colour::BlackIsZero | Colour::Rgb)
    }
}

/// Width and height of a strip or tile.
fn chunk(directory: &Directory, width: u32, height: u32) -> Result<(usize, usize)> {
    if directory.has(TILE_OFFSETS) {
        return Ok((side(directory, TILE_WIDTH)? as usize, side(directory, TILE_HEIGHT)? as usize));
    }
    let rows = if directory.has(ROWS_PER_STRIP) { side(directory, ROWS_PER_STRIP)? } else { height };
    Ok((width as usize, rows.min(height) as usize))
}

fn side(directory: &Directory, tag: u16) -> Result<u32> {
    let side = directory.first(tag).and_then(|side| u32::try_from(side).ok());
    side.filter(|side| *side > 0)
        .ok_or_else(|| damaged(format!("its tag {tag} is missing or 0, expected a number of pixels")))
}

/// The one value that all samples have.
fn same(mut values: impl Iterator<Item = u64>, name: &str) -> Result<Option<u64>> {
    let Some(first) = values.next() else { return Ok(None) };
    match values.find(|value| *value != first) {
        None => Ok(Some(first)),
        Some(other) => Err(unsupported(format!("{name} that differ between channels: {first} and {other}"))),
    }
}
