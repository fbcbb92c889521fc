//! Pretrained networks: below `wae.weights_dir`, a folder or a URL of a registered object store, or at such a URL of
//! their own.
//!
//! A name is a path below that folder, of a folder or a `.safetensors` file. Links are followed within it. Networks are
//! kept in the cache of models; those whose files were replaced are read again.

mod pinned;

use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result, plan_datafusion_err, plan_err};
use url::Url;
use wae_core::backbone::{Backbone, PretrainedWeights, WeightFiles};
use wae_core::{Device, Error, Precision};

pub(crate) use self::pinned::PinnedNetwork;
use crate::models::cache::{self, CacheKey, ReadNetwork, Versions};
use crate::models::local::stamp_of;
use crate::models::object::ObjectDir;
use crate::models::store::ModelStore;
use crate::options::WaeOptions;

/// Stands between the name of weights and the SHA-256 of their files, where a call names it. Planning adds it, so that
/// every node computes with the weights that planning read.
const VERSION: &str = "@sha256:";

/// The name of a version of weights, as EXPLAIN shows it.
pub(crate) fn versioned(name: &str, sha256: &str) -> String {
    format!("{name}{VERSION}{sha256}")
}

/// The name of weights, and the SHA-256 of a version of them, if it is named.
pub(crate) fn split_version(weights: &str) -> (&str, Option<&str>) {
    weights.split_once(VERSION).map_or((weights, None), |(name, sha256)| (name, Some(sha256)))
}

/// The network of a name, or of a version of it, from the cache or from its files.
///
/// # Errors
/// A plan error if the name leaves `wae.weights_dir`, if it is none of a network that works, or if its files are of
/// another version.
pub(crate) fn load(function: &str, weights: &str, device: Device, options: &WaeOptions) -> Result<Arc<Backbone>> {
    let (name, sha256) = split_version(weights);
    let place = WeightsPlace::resolve(function, name, options)?;
    let key = CacheKey::new::<Backbone>(place.key(), Precision::F32, device);
    let is_it = |backbone: &Backbone| sha256 == Some(backbone.sha256());
    if let Some(backbone) = cache::find(&key, is_it) {
        return Ok(backbone);
    }
    let files = place.list(function)?;
    let backbone = cache::get(&key, &files.versions, options.cache_bytes(), || files.read(function, &place, device))?;
    match sha256 {
        Some(sha256) if !is_it(&backbone) => plan_err!(
            "{function}: expected weights '{place}' of sha256 {sha256}, there are others of this name, of sha256 {}",
            backbone.sha256()
        ),
        _ => Ok(backbone),
    }
}

/// The weights of a name, as their files have them.
///
/// # Errors
/// Those of [`load`].
pub(crate) fn read_all(function: &str, name: &str, options: &WaeOptions) -> Result<PretrainedWeights> {
    let place = WeightsPlace::resolve(function, name, options)?;
    place.list(function)?.weights(function, &place)
}

/// The folder or file of a name. It is shown by that name, or by its URL.
#[derive(Debug)]
enum WeightsPlace {
    /// A path below the canonical folder `root`.
    Local { name: String, root: PathBuf, path: PathBuf },
    /// A prefix of an object store, or an object.
    Object(ObjectDir),
}

impl WeightsPlace {
    fn resolve(function: &str, name: &str, options: &WaeOptions) -> Result<Self> {
        let refused =
            || plan_err!("{function}: weights must be a path below wae.weights_dir, without '..', got '{name}'");
        if name.contains("://") {
            // Plans show the name, and a model's file keeps it.
            if Url::parse(name).is_ok_and(|url| holds_secrets(&url)) {
                return plan_err!(
                    "{function}: weights must be a URL without user, password, query and fragment: the registered store \
                     has them"
                );
            }
            // A local file is one of the folder, whichever way it is named.
            return match ModelStore::at(function, "weights", name, options)? {
                ModelStore::Object(dir) => Ok(Self::Object(dir)),
                ModelStore::Local(_) => refused(),
            };
        }
        let is_below = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if name.is_empty() || !Path::new(name).components().all(is_below) {
            return refused();
        }
        match ModelStore::at(function, "wae.weights_dir", options.weights_dir(), options)? {
            ModelStore::Object(dir) => Ok(Self::Object(dir.join(name))),
            ModelStore::Local(dir) => Self::below(function, name, &dir),
        }
    }

    /// The file or folder of a name, which lies below a folder once links are followed.
    fn below(function: &str, name: &str, dir: &Path) -> Result<Self> {
        let unreadable = |what: &str, e: io::Error| -> DataFusionError {
            plan_datafusion_err!("{function}: {what} '{}' (wae.weights_dir): {e}", dir.display())
        };
        let root = dir.canonicalize().map_err(|e| unreadable("cannot open", e))?;
        // Without `.`, so that a network has one name in the cache. A link keeps its own name and folder: the files of a
        // download are links to others without an ending.
        let parts = Path::new(name).components().filter(|part| *part != Component::CurDir);
        let path: PathBuf = root.components().chain(parts).collect();
        let canonical = path.canonicalize().map_err(|e| unreadable(&format!("no weights '{name}' in"), e))?;
        // Where a link leads is not told: who asks may not be allowed to know.
        if canonical.starts_with(&root) {
            return Ok(Self::Local { name: name.to_owned(), root, path });
        }
        plan_err!("{function}: weights '{name}' are a link out of wae.weights_dir, expected a file or a folder in it")
    }

    /// The key within this process.
    fn key(&self) -> PathBuf {
        match self {
            Self::Local { path, .. } => path.clone(),
            Self::Object(dir) => dir.key(""),
        }
    }

    /// The files of the folder, or of the folder that the file is in.
    fn list(&self, function: &str) -> Result<Files> {
        self.files().map_err(|e| plan_datafusion_err!("{function}: weights '{self}': {e}"))
    }

    fn files(&self) -> io::Result<Files> {
        match self {
            Self::Local { root, path, .. } => {
                let single = path.file_name().filter(|_| !path.is_dir());
                let folder = path.parent().filter(|_| single.is_some()).unwrap_or(path);
                Ok(Files {
                    versions: list(folder)?,
                    folder: ModelStore::Local(folder.to_owned()),
                    root: root.clone(),
                    single: single.map(|name| name.to_string_lossy().into_owned()),
                })
            }
            Self::Object(dir) => {
                let files = |dir: &ObjectDir, versions, single| Files {
                    versions,
                    folder: ModelStore::Object(dir.clone()),
                    root: PathBuf::new(),
                    single,
                };
                let versions = dir.versions()?;
                if versions.is_empty()
                    && let Some((parent, name)) = dir.parent()
                {
                    let beside = parent.versions()?;
                    if beside.contains_key(&name) {
                        return Ok(files(&parent, beside, Some(name)));
                    }
                }
                Ok(files(dir, versions, None))
            }
        }
    }
}

impl Display for WeightsPlace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { name, .. } => f.write_str(name),
            Self::Object(dir) => dir.fmt(f),
        }
    }
}

/// The files of a network.
#[derive(Debug)]
struct Files {
    versions: Versions,
    folder: ModelStore,
    /// The folder that local files lie in once links are followed.
    root: PathBuf,
    /// The weights among them, where one file was named and not the folder.
    single: Option<String>,
}

impl Files {
    /// Reads a network for the cache.
    fn read(&self, function: &str, place: &WeightsPlace, device: Device) -> Result<ReadNetwork<Backbone>> {
        let network = Backbone::try_new(&self.weights(function, place)?, device.resolved());
        let network = network.map_err(|e| plan_datafusion_err!("{function}: {e}"))?;
        log::info!("read weights '{place}' (sha256 {})", network.sha256());
        let bytes = network.memory();
        Ok(ReadNetwork { network, versions: self.versions.clone(), bytes, store: self.folder.clone() })
    }

    /// Reads the weights.
    fn weights(&self, function: &str, place: &WeightsPlace) -> Result<PretrainedWeights> {
        let size = |name: &str| self.versions.get(name)?.as_ref().map(|stamp| stamp.bytes());
        let sizes = self.versions.keys().map(|name| (name.clone(), size(name))).collect();
        let read = |name: &str| self.read_file(name, size(name).unwrap_or(0));
        let files = WeightFiles::new(place.to_string(), sizes, self.single.clone(), read);
        PretrainedWeights::read(&files).map_err(|e| plan_datafusion_err!("{function}: {e}"))
    }

    /// Reads a file, and at most a byte beyond the size that was checked.
    fn read_file(&self, name: &str, size: u64) -> wae_core::Result<Vec<u8>> {
        let read = match &self.folder {
            ModelStore::Local(folder) => read_below(&self.root, &folder.join(name), size),
            ModelStore::Object(dir) => match dir.fetch(name, usize::try_from(size).unwrap_or(usize::MAX)) {
                Ok(Ok((bytes, _))) => Ok(bytes),
                Ok(Err(bytes)) => Err(io::Error::other(format!("it had {size} bytes when it was listed, now {bytes}"))),
                Err(e) => Err(e),
            },
        };
        read.map_err(|e| Error::io(self.folder.file(name.to_owned()).to_string(), e))
    }
}

/// Whether a URL has parts that may be secrets.
fn holds_secrets(url: &Url) -> bool {
    let has_user = !url.username().is_empty() || url.password().is_some();
    has_user || url.query().is_some() || url.fragment().is_some()
}

/// The files of a folder, of which links are followed.
fn list(folder: &Path) -> io::Result<Versions> {
    let mut versions = Versions::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let stamp = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file).map(|file| stamp_of(&file));
        if let Ok(name) = entry.file_name().into_string() {
            versions.insert(name, stamp);
        }
    }
    Ok(versions)
}

/// Reads a file that lies below the root once links are followed, and at most a byte beyond the size that was checked.
fn read_below(root: &Path, path: &Path, size: u64) -> io::Result<Vec<u8>> {
    let canonical = path.canonicalize()?;
    if !canonical.starts_with(root) || !fs::metadata(&canonical)?.is_file() {
        return Err(io::Error::other("it is no file below wae.weights_dir, or a link out of it"));
    }
    let mut bytes = Vec::new();
    File::open(&canonical)?.take(size.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
