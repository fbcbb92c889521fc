//! The first directory of a TIFF: its tags with their values.

use super::damaged;
use crate::error::Result;

/// A tag's place in the file.
#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u16,
    kind: u16,
    count: usize,
    /// Offset of the values.
    at: usize,
}

/// The first directory of a TIFF or BigTIFF. Its values lie within the file.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    entries: Vec<Entry>,
}

impl<'a> Directory<'a> {
    /// Reads the tags, not their values.
    ///
    /// # Errors
    /// [`crate::Error::Data`] for a directory or a value that does not lie within the file.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut directory = Self { bytes, big_endian: bytes.starts_with(b"MM"), entries: Vec::new() };
        // Offsets and counts take 8 bytes in BigTIFF, whose header has the size of them first.
        let big = directory.integer(2, 2)? == 43;
        let offset_bytes = directory.integer(4, 2)?;
        if big && (offset_bytes, directory.integer(6, 2)?) != (8, 0) {
            return Err(damaged(format!("its offsets have {offset_bytes} bytes, expected 8")));
        }
        let word = if big { 8 } else { 4 };
        let mut at = directory.offset(word, word)?;
        let entries = directory.integer(at, if big { 8 } else { 2 })?;
        if entries > 1 << 16 {
            return Err(damaged(format!("it has {entries} tags, expected at most 65536")));
        }
        at += if big { 8 } else { 2 };
        for _ in 0..entries {
            let entry = directory.entry(at, word)?;
            directory.entries.extend(entry);
            at += 4 + 2 * word;
        }
        Ok(directory)
    }

    /// The entry at a place; `None` for a type that is unknown.
    fn entry(&self, at: usize, word: usize) -> Result<Option<Entry>> {
        let tag = self.integer(at, 2)? as u16;
        let kind = self.integer(at + 2, 2)? as u16;
        let count = self.integer(at + 4, word)?;
        let Some(size) = size(kind) else {
            return match word {
                4 => Ok(None),
                // The decoder would lose its place.
                _ => Err(damaged(format!("tag {tag} has the unknown type {kind}"))),
            };
        };
        let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
        let Some(len) = len.filter(|len| *len <= self.bytes.len()) else {
            return Err(damaged(format!("tag {tag} has {count} values, more than the file")));
        };
        let place = at + 4 + word;
        let at = if len <= word { place } else { self.offset(place, word)? };
        if at + len > self.bytes.len() {
            return Err(damaged(format!("the values of tag {tag} are behind its end")));
        }
        Ok(Some(Entry { tag, kind, count: len / size, at }))
    }

    /// An offset within the file.
    fn offset(&self, at: usize, word: usize) -> Result<usize> {
        let offset = usize::try_from(self.integer(at, word)?).ok();
        offset.filter(|offset| *offset <= self.bytes.len()).ok_or_else(|| damaged("it is truncated"))
    }

    fn integer(&self, at: usize, len: usize) -> Result<u64> {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.get(..len)).ok_or_else(|| damaged("it is truncated"))?;
        let append = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Ok(if self.big_endian { bytes.iter().fold(0, append) } else { bytes.iter().rev().fold(0, append) })
    }

    /// The entry of a tag: the last one, as for the decoder.
    fn find(&self, tag: u16) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.tag == tag)
    }

    /// Whether a tag is there.
    pub(super) fn has(&self, tag: u16) -> bool {
        self.find(tag).is_some()
    }

    /// The values of a tag; none where it is missing, or not of unsigned integers.
    pub(super) fn integers(&self, tag: u16) -> impl Iterator<Item = u64> {
        let entry = self.find(tag).filter(|entry| matches!(entry.kind, 1 | 3 | 4 | 13 | 16 | 18));
        entry.and_then(|entry| Some((entry, size(entry.kind)?))).into_iter().flat_map(move |(entry, size)| {
            // They lie within the file.
            (0..entry.count).filter_map(move |i| self.integer(entry.at + i * size, size).ok())
        })
    }

    /// The bytes of a tag's values; none where it is missing.
    pub(super) fn bytes(&self, tag: u16) -> &[u8] {
        let found = self.find(tag).and_then(|entry| Some((entry, size(entry.kind)?)));
        let bytes = found.and_then(|(entry, size)| self.bytes.get(entry.at..)?.get(..entry.count * size));
        bytes.unwrap_or_default()
    }

    /// The first value of a tag.
    pub(super) fn first(&self, tag: u16) -> Option<u64> {
        self.integers(tag).next()
    }

    /// Replaces the first value of a tag in a copy of the file, if the tag is there.
    ///
    /// # Errors
    /// [`crate::Error::Data`] for a value that does not fit into the tag's type.
    pub(super) fn replace(&self, copy: &mut [u8], tag: u16, value: u64) -> Result<()> {
        let Some((entry, size)) = self.find(tag).and_then(|entry| Some((entry, size(entry.kind)?))) else {
            return Ok(());
        };
        if size < 8 && value >> (8 * size) > 0 {
            return Err(damaged(format!("tag {tag} has a type that does not hold {value}")));
        }
        if let Some(bytes) = copy.get_mut(entry.at..).and_then(|rest| rest.get_mut(..size)) {
            let value = value.to_le_bytes();
            bytes.copy_from_slice(&value[..size]);
            if self.big_endian {
                bytes.reverse();
            }
        }
        Ok(())
    }
}

/// Bytes of a value of a type.
fn size(kind: u16) -> Option<usize> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 | 16..=18 => Some(8),
        _ => None,
    }
}
