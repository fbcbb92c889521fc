//! Bytes that are first appended, then read at any place. They are in memory while it is granted, and in a file from
//! then on.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::resources::{Resources, SpillFile};
use crate::error::{Error, Result};

/// Bytes of memory asked for at a time, and written at a time.
pub(super) const BLOCK: usize = 1 << 20;

/// A store that is being written.
#[derive(Debug)]
pub(super) struct StoreWriter {
    place: WritePlace,
    len: u64,
    resources: Box<dyn Resources>,
}

enum WritePlace {
    /// Blocks, all full but the last, so that none moves while more come.
    Memory(Vec<Vec<u8>>),
    File {
        path: PathBuf,
        writer: BufWriter<Box<dyn Write + Send>>,
        owner: Box<dyn Any + Send + Sync>,
    },
}

impl StoreWriter {
    /// An empty store in memory.
    pub(super) fn new(resources: Box<dyn Resources>) -> Self {
        Self { place: WritePlace::Memory(Vec::new()), len: 0, resources }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds bytes at the end. Where memory for them is refused, everything moves to a file.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.grow_blocks(bytes.len())? {
            self.spill()?;
        }
        match &mut self.place {
            WritePlace::Memory(blocks) => append_to(blocks, bytes),
            WritePlace::File { path, writer, .. } => {
                writer.write_all(bytes).map_err(|e| failed(path, "cannot write the training images", e))?;
            }
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Makes room for bytes in memory. `false` if there is none; `true` also if the bytes go to a file.
    fn grow_blocks(&mut self, bytes: usize) -> Result<bool> {
        let WritePlace::Memory(blocks) = &mut self.place else { return Ok(true) };
        let free = blocks.last().map_or(0, |block| BLOCK - block.len());
        for _ in 0..bytes.saturating_sub(free).div_ceil(BLOCK) {
            match self.resources.grow(BLOCK) {
                Ok(()) => {}
                Err(Error::Resources(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
            let mut block = Vec::new();
            if block.try_reserve_exact(BLOCK).is_err() {
                self.resources.shrink(BLOCK);
                return Ok(false);
            }
            blocks.push(block);
        }
        Ok(true)
    }

    /// Asks for memory beside the store, which moves to a file if that is what it takes.
    ///
    /// # Errors
    /// [`Error::Resources`] if it is refused all the same.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<()> {
        match self.resources.grow(bytes) {
            Err(Error::Resources(_)) if self.memory() > 0 => {
                self.spill()?;
                self.resources.grow(bytes)
            }
            result => result,
        }
    }

    /// Gives back what [`Self::reserve`] asked for.
    pub(super) fn release(&mut self, bytes: usize) {
        self.resources.shrink(bytes);
    }

    /// Moves everything to a file, block by block, and gives the memory back.
    pub(super) fn spill(&mut self) -> Result<()> {
        let WritePlace::Memory(blocks) = &mut self.place else { return Ok(()) };
        let (path, writer, owner) = SpillFile::into_parts(self.resources.file()?);
        let mut writer = BufWriter::with_capacity(BLOCK, writer);
        for block in std::mem::take(blocks) {
            writer.write_all(&block).map_err(|e| failed(&path, "cannot write the training images", e))?;
            self.resources.shrink(BLOCK);
        }
        log::info!("{} bytes of training images moved to {}", self.len, path.display());
        self.place = WritePlace::File { path, writer, owner };
        Ok(())
    }

    /// Bytes of memory that the store was granted.
    fn memory(&self) -> usize {
        match &self.place {
            WritePlace::Memory(blocks) => blocks.len() * BLOCK,
            WritePlace::File { .. } => 0,
        }
    }

    /// The store, to be read.
    pub(super) fn finish(self) -> Result<Store> {
        let place = match self.place {
            WritePlace::Memory(blocks) => Place::Memory(blocks),
            WritePlace::File { path, mut writer, owner } => {
                let flushed = writer.flush();
                flushed.map_err(|e| failed(&path, "cannot write the training images", e))?;
                let file = File::open(&path).map_err(|e| failed(&path, "cannot open the training images", e))?;
                Place::File { path, file, _owner: owner }
            }
        };
        Ok(Store { place, _resources: self.resources })
    }
}

/// Fills the blocks from the first that is not full. They must have room for the bytes.
fn append_to(blocks: &mut [Vec<u8>], mut bytes: &[u8]) {
    let full = blocks.iter().rev().position(|block| block.len() == BLOCK).map_or(0, |last| blocks.len() - last);
    for block in &mut blocks[full..] {
        let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - block.len()));
        block.extend_from_slice(now);
        bytes = rest;
    }
}

/// A store that is read.
#[derive(Debug)]
pub(super) struct Store {
    place: Place,
    /// Kept as long as the memory and the file that they granted.
    _resources: Box<dyn Resources>,
}

enum Place {
    Memory(Vec<Vec<u8>>),
    /// The owner comes last: it removes the file, which is closed by then.
    File {
        path: PathBuf,
        file: File,
        _owner: Box<dyn Any + Send + Sync>,
    },
}

impl Store {
    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, or is shorter than what was written.
    pub(super) fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match &self.place {
            Place::Memory(blocks) => copy_from(blocks, offset, out),
            Place::File { path, file, .. } => read_exact_at(file, offset, out).map_err(|e| {
                let what = format!("cannot read {} bytes of the training images at {offset}", out.len());
                failed(path, &what, e)
            }),
        }
    }
}

fn copy_from(blocks: &[Vec<u8>], offset: u64, mut out: &mut [u8]) -> Result<()> {
    let outside = || Error::Data(format!("the training images have no bytes at {offset}"));
    let mut position = usize::try_from(offset).map_err(|_| outside())?;
    while !out.is_empty() {
        let block = blocks.get(position / BLOCK).ok_or_else(outside)?;
        let block = block.get(position % BLOCK..).filter(|rest| !rest.is_empty()).ok_or_else(outside)?;
        let len = block.len().min(out.len());
        let (now, rest) = out.split_at_mut(len);
        now.copy_from_slice(&block[..len]);
        (out, position) = (rest, position + now.len());
    }
    Ok(())
}

/// Without a cursor, so that threads read side by side; not mapped into memory, whose pages would count as the
/// process's.
#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !out.is_empty() {
        match file.seek_read(out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                offset += read as u64;
                out = &mut out[read..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An error of the file, with what was being done.
fn failed(path: &Path, what: &str, error: io::Error) -> Error {
    Error::io(path, io::Error::new(error.kind(), format!("{what}: {error}")))
}

impl fmt::Debug for WritePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(blocks) => write!(f, "{} blocks", blocks.len()),
            Self::File { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(blocks) => write!(f, "{} blocks", blocks.len()),
            Self::File { path, .. } => write!(f, "{}", path.display()),
        }
    }
}
