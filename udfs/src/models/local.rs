//! Files of a local folder.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::store::{Stamp, too_large};

/// The names of the files of a folder, in no order.
pub(super) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// The key of a file within this process: its folder is canonical, the file need not exist.
pub(super) fn key(dir: &Path, name: &str) -> PathBuf {
    let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    here.canonicalize().unwrap_or_else(|_| dir.to_owned()).join(name)
}

/// Whether a file or a link has the name.
pub(super) fn exists(dir: &Path, name: &str) -> io::Result<bool> {
    if fs::symlink_metadata(dir.join(name))?.is_dir() {
        return Err(io::Error::other("it is a folder, expected a file"));
    }
    Ok(true)
}

/// The version of the file.
pub(super) fn stamp(dir: &Path, name: &str) -> io::Result<Stamp> {
    Ok(stamp_of(&fs::metadata(resolve(dir, name)?)?))
}

/// The bytes of the file and their version.
pub(super) fn read(dir: &Path, name: &str, limit: usize) -> io::Result<(Vec<u8>, Stamp)> {
    let file = File::open(resolve(dir, name)?)?;
    // Of the open file: the name may stand for another by now.
    let metadata = file.metadata()?;
    check_regular(&metadata)?;
    let limit_bytes = limit as u64;
    if metadata.len() > limit_bytes {
        return Err(too_large(metadata.len(), limit));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // A file may grow while it is read.
    let read = file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)? as u64;
    if read > limit_bytes {
        return Err(too_large(read, limit));
    }
    Ok((bytes, stamp_of(&metadata)))
}

/// The file itself: a regular one that lies in the folder once links are followed.
fn resolve(dir: &Path, name: &str) -> io::Result<PathBuf> {
    let path = dir.join(name).canonicalize()?;
    let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    // Where the link leads is not told: who asks may not be allowed to know.
    if !path.starts_with(here.canonicalize()?) {
        return Err(io::Error::other("it is a link to a file outside of the folder, expected a file in it"));
    }
    // Before opening: that of a FIFO waits for a writer.
    check_regular(&fs::metadata(&path)?)?;
    Ok(path)
}

fn check_regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let kind = if metadata.is_dir() { "a folder" } else { "a device, a pipe or a socket" };
    Err(io::Error::other(format!("it is {kind}, expected a file")))
}

/// The version of a file with this metadata.
pub(crate) fn stamp_of(metadata: &Metadata) -> Stamp {
    Stamp::Local { modified: metadata.modified().ok(), bytes: metadata.len(), inode: inode(metadata) }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}
