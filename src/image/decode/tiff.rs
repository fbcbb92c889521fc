//! TIFF and BigTIFF: the crate `tiff` reads samples, and their colours are made here.
//!
//! By itself, the crate reads no palettes, drops the alpha of grey images, and does not tell premultiplied alpha from
//! other. The crate is therefore given a copy of the file that declares grey pixels with the same number of samples, so
//! that it returns every sample as it is stored. [`Layout`] has the tags that say what the samples mean, and refuses by their names the kinds
//! that are not supported, before anything is allocated.

mod colour;
mod directory;
mod jpeg;
mod layout;
mod samples;

use std::fmt::Display;
use std::io::{Cursor, ErrorKind};

use ::image::{DynamicImage, ImageBuffer};
use ::tiff::TiffError;
use ::tiff::decoder::{Decoder, Limits as DecoderLimits};

use self::directory::Directory;
use self::layout::{Alpha, Layout};
use super::{most_bytes, unreadable};
use crate::error::{Error, Result};
use crate::image::Limits;

/// Decodes the first page, upright, to 8 bits a channel. With `keep_alpha`, premultiplied alpha becomes straight; without,
/// it is composited over white.
///
/// # Errors
/// [`Error::Data`] for a damaged file, a kind that is not supported, and an image above `limits`.
pub(super) fn decode(bytes: &[u8], keep_alpha: bool, limits: &Limits) -> Result<DynamicImage> {
    let directory = Directory::read(bytes)?;
    let layout = Layout::try_new(&directory, limits)?;
    jpeg::check(bytes, &directory, &layout)?;
    let samples = read(bytes, &directory, &layout, limits)?;
    let mut image = to_image(samples, &layout, keep_alpha)?;
    image.apply_orientation(layout.orientation);
    Ok(image)
}

/// Width and height of the first page, as its tags say.
///
/// # Errors
/// Those of [`decode`] before a pixel is read.
pub(super) fn dimensions(bytes: &[u8], limits: &Limits) -> Result<(u32, u32)> {
    let layout = Layout::try_new(&Directory::read(bytes)?, limits)?;
    Ok((layout.width, layout.height))
}

/// Refuses samples of more than 8 bits, which are read as 8: small numbers in a mask would be lost.
///
/// # Errors
/// [`Error::Data`] for these, and as [`decode`].
pub(super) fn check_mask(bytes: &[u8], limits: &Limits) -> Result<()> {
    match Layout::try_new(&Directory::read(bytes)?, limits)?.bits {
        ..=8 => Ok(()),
        bits => Err(Error::Data(format!(
            "the mask is a TIFF of {bits} bits a sample, expected at most 8, or a PNG of any depth"
        ))),
    }
}

/// Samples of 8 bits in the order of their pixels: those of a pixel after one another, or those of a plane.
fn read(bytes: &[u8], directory: &Directory, layout: &Layout, limits: &Limits) -> Result<Vec<u8>> {
    let mut allocations = DecoderLimits::default();
    allocations.decoding_buffer_size = usize::try_from(most_bytes(limits)).unwrap_or(usize::MAX);
    allocations.intermediate_buffer_size = allocations.decoding_buffer_size;
    let file = Cursor::new(for_decoder(bytes, directory, layout)?);
    let mut decoder = Decoder::new(file).map_err(failed)?.with_limits(allocations);
    let samples = if layout.planar { 1 } else { layout.samples };
    let [width, height] = [layout.width, layout.height].map(|side| side as usize);
    let (chunk_width, chunk_height) = layout.chunk;
    let row = width * samples;
    let mut values = vec![0; row * height * if layout.planar { layout.samples } else { 1 }];
    let mut index = 0;
    for plane in values.chunks_exact_mut(row * height) {
        for rows in plane.chunks_mut(row * chunk_height) {
            for left in (0..width).step_by(chunk_width) {
                let chunk = samples::to_bytes(decoder.read_chunk(index).map_err(failed)?, layout)?;
                index += 1;
                let len = samples * chunk_width.min(width - left);
                for (row, chunk) in rows.chunks_exact_mut(row).zip(chunk.chunks_exact(chunk_width * samples)) {
                    row[left * samples..][..len].copy_from_slice(&chunk[..len]);
                }
            }
        }
    }
    Ok(values)
}

/// A copy of the file that the decoder reads as it should.
fn for_decoder(bytes: &[u8], directory: &Directory, layout: &Layout) -> Result<Vec<u8>> {
    let mut copy = bytes.to_vec();
    directory.replace(&mut copy, colour::PHOTOMETRIC, colour::BLACK_IS_ZERO)?;
    // The crate undoes a predictor even where the compression has none, and takes at most 65,535 rows in a fax strip.
    if !layout.predicts {
        directory.replace(&mut copy, layout::PREDICTOR, 1)?;
    }
    directory.replace(&mut copy, layout::ROWS_PER_STRIP, layout.chunk.1 as u64)?;
    if directory.has(layout::TILE_OFFSETS) {
        // Of tiles that reach beyond the image, it finds no end in LZW, and too many rows in all planes but the first.
        let [width, height] = [layout.width, layout.height].map(|side| side as usize);
        directory.replace(&mut copy, layout::WIDTH, width.next_multiple_of(layout.chunk.0) as u64)?;
        directory.replace(&mut copy, layout::HEIGHT, height.next_multiple_of(layout.chunk.1) as u64)?;
    }
    Ok(copy)
}

/// The image of samples of 8 bits, those of a pixel after one another, or those of a plane.
fn to_image(samples: Vec<u8>, layout: &Layout, keep_alpha: bool) -> Result<DynamicImage> {
    let alpha = layout.alpha.filter(|alpha| keep_alpha || !alpha.premultiplied);
    let channels = layout.colour.channels();
    let values = if layout.is_plain() { samples } else { blend(&samples, layout, keep_alpha) };
    let image = match (channels, alpha) {
        (1, None) => ImageBuffer::from_raw(layout.width, layout.height, values).map(DynamicImage::ImageLuma8),
        (1, Some(_)) => ImageBuffer::from_raw(layout.width, layout.height, values).map(DynamicImage::ImageLumaA8),
        (_, None) => ImageBuffer::from_raw(layout.width, layout.height, values).map(DynamicImage::ImageRgb8),
        (_, Some(_)) => ImageBuffer::from_raw(layout.width, layout.height, values).map(DynamicImage::ImageRgba8),
    };
    image.ok_or_else(|| damaged("it has fewer samples than pixels need"))
}

/// Colours of all pixels, with straight alpha where there is any to keep.
fn blend(samples: &[u8], layout: &Layout, keep_alpha: bool) -> Vec<u8> {
    let pixels = layout.width as usize * layout.height as usize;
    let channels = layout.colour.channels();
    let mut values = Vec::with_capacity(pixels * (channels + usize::from(layout.alpha.is_some())));
    for pixel in 0..pixels {
        let sample = |i: usize| {
            let at = if layout.planar { i * pixels + pixel } else { pixel * layout.samples + i };
            samples.get(at).copied().unwrap_or_default()
        };
        let colours = layout.colour.of(sample);
        let colours = &colours[..channels];
        match layout.alpha {
            None => values.extend_from_slice(colours),
            Some(Alpha { sample: i, premultiplied: false }) => {
                values.extend_from_slice(colours);
                values.push(sample(i));
            }
            Some(Alpha { sample: i, premultiplied: true }) if keep_alpha => {
                values.extend(colours.iter().map(|v| straight(*v, sample(i))));
                values.push(sample(i));
            }
            Some(Alpha { sample: i, premultiplied: true }) => {
                values.extend(colours.iter().map(|v| v.saturating_add(255 - sample(i))));
            }
        }
    }
    values
}

/// A colour before it was multiplied by its alpha.
fn straight(value: u8, alpha: u8) -> u8 {
    let alpha = u32::from(alpha);
    let straight = (u32::from(value) * 255 + alpha / 2).checked_div(alpha).unwrap_or_default();
    straight.min(255) as u8
}

fn damaged(reason: impl Display) -> Error {
    unreadable(format!("the TIFF is damaged: {reason}"))
}

fn unsupported(kind: impl Display) -> Error {
    Error::Data(format!("the image is a TIFF with {kind}, which is not supported"))
}

/// An error of the decoder. [`Layout`] has refused what it does not support.
fn failed(error: TiffError) -> Error {
    match error {
        TiffError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => damaged("it is truncated"),
        TiffError::IoError(e) => damaged(e),
        TiffError::FormatError(e) => damaged(e),
        TiffError::LimitsExceeded => damaged("it asks for more memory than its pixels need"),
        TiffError::IntSizeError => damaged("a number is too large"),
        TiffError::UnsupportedError(_) | TiffError::UsageError(_) => unsupported("a mix of compression and samples"),
    }
}

#[cfg(test)]
mod tests;
