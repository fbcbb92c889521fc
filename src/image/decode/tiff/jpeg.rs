//! The JPEG streams of a TIFF, checked before they are decoded.
//!
//! The decoder allocates what a stream's header claims, and fills what a truncated stream lacks with grey.

use super::super::jpeg_ends;
use super::damaged;
use super::directory::Directory;
use super::layout::{Compression, Layout, TILE_OFFSETS};
use crate::error::Result;

/// Tables that all streams share.
const TABLES: u16 = 347;
const STRIP_OFFSETS: u16 = 273;
const STRIP_LENGTHS: u16 = 279;
const TILE_LENGTHS: u16 = 325;

/// Refuses streams that are truncated, or of another size than their strip or tile.
pub(super) fn check(bytes: &[u8], directory: &Directory, layout: &Layout) -> Result<()> {
    if layout.compression != Compression::Jpeg {
        return Ok(());
    }
    if directory.has(TABLES) && !holds_tables_only(directory.bytes(TABLES)) {
        return Err(damaged("its JPEG tables hold more than tables"));
    }
    let tiled = directory.has(TILE_OFFSETS);
    let [offsets, lengths] = if tiled { [TILE_OFFSETS, TILE_LENGTHS] } else { [STRIP_OFFSETS, STRIP_LENGTHS] };
    let (width, height) = layout.chunk;
    let components = if layout.planar { 1 } else { layout.samples };
    for (offset, len) in directory.integers(offsets).zip(directory.integers(lengths)) {
        let stream = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)?.get(..usize::try_from(len).ok()?));
        let Some(stream) = stream.filter(|stream| jpeg_ends(stream)) else {
            return Err(damaged("a JPEG stream in it is truncated"));
        };
        let fits = |frame: &Frame| {
            // Streams have whole blocks.
            let rows = usize::from(frame.height) <= height.next_multiple_of(16);
            rows && usize::from(frame.width) == width && usize::from(frame.components) == components
        };
        if !Frame::read(stream).as_ref().is_some_and(fits) {
            return Err(damaged("a JPEG stream in it has another size than its strip or tile"));
        }
    }
    Ok(())
}

/// Whether a JPEG stream holds tables only: the decoder would read a scan in it in place of each strip or tile.
fn holds_tables_only(jpeg: &[u8]) -> bool {
    let Some(mut rest) = jpeg.strip_prefix(&[0xff, 0xd8]) else { return false };
    loop {
        rest = match rest {
            [] | [0xff, 0xd9] => return true,
            // Tables, the restart interval, application data and comments.
            [0xff, 0xc4 | 0xcc | 0xdb | 0xdd | 0xe0..=0xef | 0xfe, high, low, ..] => {
                match rest.get(2 + usize::from(u16::from_be_bytes([*high, *low]))..) {
                    Some(rest) => rest,
                    None => return false,
                }
            }
            _ => return false,
        };
    }
}

/// The size that a JPEG stream declares.
struct Frame {
    height: u16,
    width: u16,
    components: u8,
}

impl Frame {
    fn read(jpeg: &[u8]) -> Option<Self> {
        let mut rest = jpeg.get(2..)?; // the start marker
        loop {
            match rest {
                [0xff, rest_of @ ..] if rest_of.first() == Some(&0xff) => rest = rest_of, // a fill byte
                // A frame, but not the tables (C4, CC) and the reserved marker (C8) among their numbers.
                [0xff, 0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf, _, _, _, a, b, c, d, components, ..] => {
                    let height = u16::from_be_bytes([*a, *b]);
                    let width = u16::from_be_bytes([*c, *d]);
                    return Some(Self { height, width, components: *components });
                }
                [0xff, _, high, low, ..] => {
                    rest = rest.get(2 + usize::from(u16::from_be_bytes([*high, *low]))..)?;
                }
                _ => return None,
            }
        }
    }
}
