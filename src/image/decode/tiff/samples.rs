//! Samples of any type to 8 bits: integers by their full range, floats from 0 to 1.

use ::tiff::decoder::DecodingResult;

use super::colour::Colour;
use super::damaged;
use super::layout::Layout;
use crate::error::{Error, Result};
use crate::image::values::TOLERANCE;

/// Samples as bytes, in the order that they are stored in. Indices of a palette stay what they are.
pub(super) fn to_bytes(samples: DecodingResult, layout: &Layout) -> Result<Vec<u8>> {
    match samples {
        DecodingResult::U8(mut values) => {
            if layout.reversed {
                values.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
            }
            Ok(if layout.bits < 8 { unpacked(&values, layout) } else { values })
        }
        DecodingResult::U16(values) => Ok(values.into_iter().map(|v| scaled(v.into(), u16::MAX.into())).collect()),
        DecodingResult::U32(values) => Ok(values.into_iter().map(|v| scaled(v.into(), u32::MAX.into())).collect()),
        DecodingResult::U64(values) => Ok(values.into_iter().map(|v| scaled(v, u64::MAX)).collect()),
        DecodingResult::F16(values) => values.into_iter().map(|v| float(v.into())).collect(),
        DecodingResult::F32(values) => values.into_iter().map(|v| float(v.into())).collect(),
        DecodingResult::F64(values) => values.into_iter().map(float).collect(),
        DecodingResult::I8(_) | DecodingResult::I16(_) | DecodingResult::I32(_) | DecodingResult::I64(_) => {
            Err(damaged("its type of samples changed while it was read"))
        }
    }
}

/// 255·v / most, rounded.
fn scaled(value: u64, most: u64) -> u8 {
    // At most 255, so that the cast loses nothing.
    ((u128::from(value) * 255 + u128::from(most / 2)) / u128::from(most)) as u8
}

fn float(value: f64) -> Result<u8> {
    if !(-TOLERANCE..=1.0 + TOLERANCE).contains(&value) {
        return Err(Error::Data(format!("the image is a TIFF of floats with a value of {value}, expected 0 to 1")));
    }
    // `as` saturates at 0 and 255.
    Ok((value * 255.0).round() as u8)
}

/// Samples of 1, 2 or 4 bits, whose rows begin at a byte, the first sample in the highest bits.
fn unpacked(packed: &[u8], layout: &Layout) -> Vec<u8> {
    let bits = layout.bits as usize;
    let most = (1_u8 << bits) - 1;
    let factor = if matches!(layout.colour, Colour::Palette(_)) { 1 } else { 255 / most };
    let row = layout.chunk.0 * if layout.planar { 1 } else { layout.samples };
    let sample = |bytes: &[u8], i: usize| (bytes[i * bits / 8] >> (8 - bits - i * bits % 8)) & most;
    let rows = packed.chunks_exact((row * bits).div_ceil(8));
    rows.flat_map(|bytes| (0..row).map(move |i| factor * sample(bytes, i))).collect()
}
