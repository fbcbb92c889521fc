//! Memory and files of a dataset's host: memory is asked for, and where it is refused, a file is.

use std::any::Any;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Grants memory and files. All of it is given back when the value is dropped.
///
/// A plugin of a database answers for the database's memory pool and its temporary files; [`Unlimited`] answers for a
/// program that has the machine for itself.
pub trait Resources: fmt::Debug + Send + Sync {
    /// Asks for bytes of memory before they are allocated.
    ///
    /// # Errors
    /// [`Error::Resources`] where they are refused.
    fn grow(&mut self, bytes: usize) -> Result<()>;

    /// Gives bytes back that were granted before.
    fn shrink(&mut self, bytes: usize);

    /// A new, empty file for images that memory was refused for.
    ///
    /// # Errors
    /// [`Error::Resources`] where there is none, [`Error::Io`] where it cannot be made.
    fn file(&mut self) -> Result<SpillFile>;
}

/// A file that images go to: written once from its beginning to its end, then read at any place through its path.
pub struct SpillFile {
    path: PathBuf,
    writer: Box<dyn Write + Send>,
    owner: Box<dyn Any + Send + Sync>,
}

impl SpillFile {
    /// The empty file at `path`, with its writer, and with an owner that removes it when it is dropped.
    pub fn new(path: &Path, writer: Box<dyn Write + Send>, owner: Box<dyn Any + Send + Sync>) -> Self {
        Self { path: path.to_owned(), writer, owner }
    }

    /// Path, writer and owner.
    pub(super) fn into_parts(self) -> (PathBuf, Box<dyn Write + Send>, Box<dyn Any + Send + Sync>) {
        (self.path, self.writer, self.owner)
    }
}

impl fmt::Debug for SpillFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// All the memory there is, and no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unlimited;

impl Resources for Unlimited {
    fn grow(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    fn shrink(&mut self, _: usize) {}

    fn file(&mut self) -> Result<SpillFile> {
        Err(Error::Resources("the images do not fit in memory, and there is no file for them".to_owned()))
    }
}
