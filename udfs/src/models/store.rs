//! Where models and pretrained networks are kept: a local folder, or a prefix of an object store that the session has
//! registered.
//!
//! A file is read whole, with the stamp of its version, and written in one step, so that a reader finds the old file or
//! the new one. Planning and scalar functions are synchronous: an object store is waited for, on a thread of the
//! plugin's own ([`super::object`]).
//!
//! A file is a regular one of the folder itself. A link inside of it is followed; one that leads out of it is refused,
//! and so is what is no file: reading a FIFO or a device could wait without end.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use datafusion::common::{Result, plan_datafusion_err, plan_err};
use url::Url;

use super::local;
use super::object::ObjectDir;
use crate::options::WaeOptions;

/// Where models are kept.
#[derive(Debug, Clone)]
pub(crate) enum ModelStore {
    /// A local folder, which need not exist.
    Local(PathBuf),
    /// A prefix of an object store.
    Object(ObjectDir),
}

impl ModelStore {
    /// The store that `wae.model_dir` names.
    ///
    /// # Errors
    /// A plan error for a URL that is none, or whose object store is not registered.
    pub(crate) fn try_new(function: &str, options: &WaeOptions) -> Result<Self> {
        Self::at(function, "wae.model_dir", options.model_dir(), options)
    }

    /// The store of a folder or a URL, which messages call `option`.
    ///
    /// # Errors
    /// As [`Self::try_new`].
    pub(crate) fn at(function: &str, option: &str, dir: &str, options: &WaeOptions) -> Result<Self> {
        if Path::new(dir).is_absolute() || !dir.contains("://") {
            return Ok(Self::Local(dir.into()));
        }
        // The scheme alone: what follows may be a user and a password.
        let scheme = dir.split(':').next().unwrap_or_default();
        let unfit = |e: &dyn Display| plan_datafusion_err!("{function}: {option} of scheme '{scheme}' is no URL: {e}");
        let url = Url::parse(dir).map_err(|e| unfit(&e))?;
        if url.cannot_be_a_base() {
            return Err(unfit(&"expected the form s3://bucket/folder"));
        }
        if url.scheme() == "file" {
            let path = url.to_file_path().map_err(|()| unfit(&"a file URL has the form file:///folder"))?;
            return Ok(Self::Local(path));
        }
        let Some(registry) = options.object_stores() else {
            return plan_err!(
                "{function}: {option} is '{}', but these options hold no object stores, expected those of a context \
                 with register_all, WaeOptions::with_object_stores or set_default_object_stores",
                shown(&url)
            );
        };
        ObjectDir::try_new(function, option, &url, registry.as_ref()).map(Self::Object)
    }

    /// A file of the store by its name, which is a single component of a path.
    pub(crate) fn file(&self, name: String) -> StoredFile {
        StoredFile { store: self.clone(), name }
    }

    /// The names of the files, in no order.
    ///
    /// # Errors
    /// Those of listing the folder; [`io::ErrorKind::NotFound`] if it is a local one that does not exist.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        match self {
            Self::Local(dir) => local::names(dir),
            Self::Object(dir) => dir.names(),
        }
    }

    /// Makes the folder where there is none; an object store needs none.
    ///
    /// # Errors
    /// Those of making a local folder.
    pub(crate) fn create(&self) -> io::Result<()> {
        match self {
            Self::Local(dir) => std::fs::create_dir_all(dir),
            Self::Object(_) => Ok(()),
        }
    }
}

impl Display for ModelStore {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(dir) => dir.display().fmt(f),
            Self::Object(dir) => dir.fmt(f),
        }
    }
}

/// A file of a store, whether or not it exists. It is shown as its path or URL.
#[derive(Debug, Clone)]
pub(crate) struct StoredFile {
    store: ModelStore,
    name: String,
}

impl StoredFile {
    /// The store that it is in.
    pub(crate) fn store(&self) -> &ModelStore {
        &self.store
    }

    /// Its name in the store.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its path, if it is a local file.
    pub(crate) fn local_path(&self) -> Option<PathBuf> {
        match &self.store {
            ModelStore::Local(dir) => Some(dir.join(&self.name)),
            ModelStore::Object(_) => None,
        }
    }

    /// The key of the file within this process, whether or not it exists: its path in the canonical folder, or its URL
    /// with the address of the registered store, since two sessions may have registered two stores under one URL. The
    /// address stands for that store for as long as this value, or a clone of it, is held.
    pub(crate) fn key(&self) -> PathBuf {
        match &self.store {
            ModelStore::Local(dir) => local::key(dir, &self.name),
            ModelStore::Object(dir) => dir.key(&self.name),
        }
    }

    /// Whether there is such a file: for a local folder, anything of that name that a rename would replace.
    ///
    /// # Errors
    /// Those of looking it up, and an error if it is a folder.
    pub(crate) fn exists(&self) -> io::Result<bool> {
        let found = match &self.store {
            ModelStore::Local(dir) => local::exists(dir, &self.name),
            ModelStore::Object(dir) => dir.stamp(&self.name).map(|_| true),
        };
        match found {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            found => found,
        }
    }

    /// Which version the file has.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none; others if it cannot be looked up, is no regular file or lies
    /// outside of the folder.
    pub(crate) fn stamp(&self) -> io::Result<Stamp> {
        match &self.store {
            ModelStore::Local(dir) => local::stamp(dir, &self.name),
            ModelStore::Object(dir) => dir.stamp(&self.name),
        }
    }

    /// The bytes of the file, and which version they are.
    ///
    /// # Errors
    /// Those of [`Self::stamp`] and of reading, and an error if it has more than `limit` bytes, which are then not
    /// read.
    pub(crate) fn read(&self, limit: usize) -> io::Result<(Vec<u8>, Stamp)> {
        match &self.store {
            ModelStore::Local(dir) => local::read(dir, &self.name, limit),
            ModelStore::Object(dir) => dir.read(&self.name, limit),
        }
    }

    /// Writes the file in one step: who reads meanwhile finds what was there before, or all of it.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn write(&self, bytes: Vec<u8>) -> io::Result<()> {
        match &self.store {
            ModelStore::Local(dir) => wae_core::checkpoint::write_atomically(&dir.join(&self.name), &bytes),
            ModelStore::Object(dir) => dir.write(&self.name, bytes),
        }
    }

    /// Removes the file; a link is removed, not what it leads to.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none, and those of removing.
    pub(crate) fn delete(&self) -> io::Result<()> {
        match &self.store {
            ModelStore::Local(dir) => std::fs::remove_file(dir.join(&self.name)),
            ModelStore::Object(dir) => dir.delete(&self.name),
        }
    }

    /// Gives the file another name in the same store, in place of a file that has it. In an object store that is a copy
    /// and a removal: a crash between them leaves both.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none, and those of renaming.
    pub(crate) fn rename(&self, name: &str) -> io::Result<()> {
        match &self.store {
            ModelStore::Local(dir) => std::fs::rename(dir.join(&self.name), dir.join(name)),
            ModelStore::Object(dir) => dir.rename(&self.name, name),
        }
    }
}

impl Display for StoredFile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.store {
            ModelStore::Local(dir) => dir.join(&self.name).display().fmt(f),
            ModelStore::Object(dir) => write!(f, "{dir}/{}", self.name),
        }
    }
}

/// The stamp of a version of a file, by which it is told from the next without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Of a local file.
    Local {
        modified: Option<SystemTime>,
        bytes: u64,
        /// A model is replaced by renaming another file over it, which changes the inode whatever the clock's
        /// resolution.
        inode: u64,
    },
    /// Of an object: what its store says.
    Object { e_tag: Option<String>, version: Option<String>, modified: SystemTime, bytes: u64 },
}

impl Stamp {
    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Local { bytes, .. } | Self::Object { bytes, .. } => *bytes,
        }
    }
}

/// A file that is larger than it may be.
pub(super) fn too_large(bytes: u64, limit: usize) -> io::Error {
    io::Error::other(format!("it has {bytes} bytes, expected at most {limit} (wae.max_model_bytes)"))
}

/// A URL as messages show it that refuse it: up to its scheme where it may be one with a password that holds a slash,
/// which is then read as a host and a path.
pub(super) fn shown(url: &Url) -> String {
    if url.path().contains('@') { format!("{}://…", url.scheme()) } else { redacted(url) }
}

/// A URL without user and password, query and fragment, and without a slash at the end.
pub(super) fn redacted(url: &Url) -> String {
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    format!("{}://{host}{}", url.scheme(), url.path()).trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests;
