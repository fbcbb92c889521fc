//! The model store: models by name, and a cache of those in memory.
//!
//! A model `m` is the file `<wae.model_dir>/m.safetensors`. One cache serves the whole process: sessions that name the
//! same file share one copy of it, and a file that was replaced is read again. Whoever holds an [`Arc<LoadedModel>`]
//! keeps that version, whatever becomes of the file or of the cache.

pub(crate) mod running;

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use datafusion::common::{Result, exec_datafusion_err, plan_err};
use sha2::{Digest, Sha256};
use wae_core::{Device, ModelFile, Precision, Wae};

use crate::options::WaeOptions;

/// What a model's file name ends with.
const SUFFIX: &str = ".safetensors";

/// A model in memory, with the version of its file.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    name: String,
    sha256: String,
    wae: Wae,
}

impl LoadedModel {
    /// The name that it was found by.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The SHA-256 of its file, in hexadecimal.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The model itself.
    pub(crate) fn wae(&self) -> &Wae {
        &self.wae
    }
}

/// The model of one name, from the cache or from its file.
///
/// # Errors
/// A plan error for a bad name or a missing model, naming those that exist; an execution error for a file that cannot
/// be read or holds no model.
pub(crate) fn load(function: &str, name: &str, options: &WaeOptions) -> Result<Arc<LoadedModel>> {
    let path = existing_path(function, name, &options.model_dir())?;
    let canonical =
        path.canonicalize().map_err(|e| exec_datafusion_err!("{function}: model '{name}', {}: {e}", path.display()))?;
    let place = (options.precision(), options.device().resolved());
    let entry = CACHE.entry(&canonical, place);
    let mut slot = lock(&entry.slot);
    let stamp = Stamp::of(&canonical).map_err(|e| exec_datafusion_err!("{function}: {}: {e}", canonical.display()))?;
    if let Some((at, model)) = &*slot
        && *at == stamp
    {
        return Ok(Arc::clone(model));
    }
    let model = Arc::new(read(function, name, &canonical, place)?);
    entry.bytes.store(model.wae.memory(), Ordering::Relaxed);
    *slot = Some((stamp, Arc::clone(&model)));
    drop(slot);
    CACHE.shrink(options.cache_bytes(), &canonical);
    Ok(model)
}

/// The file of a model, whether or not it exists.
///
/// # Errors
/// A plan error if the name could leave the folder.
pub(crate) fn path_of(function: &str, name: &str, dir: &Path) -> Result<PathBuf> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || name == "." || name == ".." || !name.chars().all(valid) {
        return plan_err!("{function}: a model's name has letters, digits, '_', '.' and '-' only, got '{name}'");
    }
    Ok(dir.join(format!("{name}{SUFFIX}")))
}

/// The file of a model that exists.
///
/// # Errors
/// A plan error for a bad name or a missing model, naming those that exist.
pub(crate) fn existing_path(function: &str, name: &str, dir: &Path) -> Result<PathBuf> {
    let path = path_of(function, name, dir)?;
    if path.is_file() {
        return Ok(path);
    }
    let dir_text = dir.display();
    match names(dir) {
        Ok(names) if names.is_empty() => plan_err!("{function}: no model '{name}' in '{dir_text}', which holds none"),
        Ok(names) => plan_err!("{function}: no model '{name}' in '{dir_text}', which holds {}", names.join(", ")),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            plan_err!("{function}: no model '{name}': there is no folder '{dir_text}' (wae.model_dir)")
        }
        Err(e) => plan_err!("{function}: no model '{name}': cannot read '{dir_text}' (wae.model_dir): {e}"),
    }
}

/// The names of the models in a folder, sorted.
pub(crate) fn names(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().and_then(|n| n.strip_suffix(SUFFIX))
            && path_of("", name, dir).is_ok_and(|p| p.is_file())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Reads a model file, and the hash of the very bytes that it was read from.
pub(crate) fn read_file(function: &str, name: &str, path: &Path) -> Result<(ModelFile, String, usize)> {
    let bytes =
        fs::read(path).map_err(|e| exec_datafusion_err!("{function}: model '{name}': {}: {e}", path.display()))?;
    let file = ModelFile::from_bytes(&bytes)
        .map_err(|e| exec_datafusion_err!("{function}: model '{name}': {}: {e}", path.display()))?;
    Ok((file, hex(&Sha256::digest(&bytes)), bytes.len()))
}

fn read(function: &str, name: &str, path: &Path, (precision, device): Place) -> Result<LoadedModel> {
    let (file, sha256, _) = read_file(function, name, path)?;
    let wae = Wae::on_device(&file, precision, device)
        .map_err(|e| exec_datafusion_err!("{function}: model '{name}': {e}"))?;
    log::info!("read model '{name}' from {} (sha256 {sha256})", path.display());
    Ok(LoadedModel { name: name.to_owned(), sha256, wae })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What tells one version of a file from the next without reading it.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    /// A model is replaced by renaming another file over it, which changes the inode whatever the clock's resolution.
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { modified: metadata.modified().ok(), bytes: metadata.len(), inode: inode(&metadata) })
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}

/// What a model in memory computes in, and where.
type Place = (Precision, Device);

static CACHE: LazyLock<Cache> = LazyLock::new(Cache::default);

/// Models by canonical path and place. `entries` is locked for look-ups only; reading a file locks that file's
/// entry alone, so that concurrent users of one model share one load and users of another do not wait.
#[derive(Debug, Default)]
struct Cache {
    entries: Mutex<HashMap<(PathBuf, Place), Arc<Entry>>>,
    clock: AtomicU64,
}

#[derive(Debug, Default)]
struct Entry {
    slot: Mutex<Option<(Stamp, Arc<LoadedModel>)>>,
    bytes: AtomicUsize,
    used: AtomicU64,
}

impl Cache {
    fn entry(&self, path: &Path, place: Place) -> Arc<Entry> {
        let mut entries = lock(&self.entries);
        let entry = entries.entry((path.to_owned(), place)).or_default();
        entry.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Arc::clone(entry)
    }

    /// Forgets the models least recently used until the rest fit; `keep` stays, since its query is about to run.
    fn shrink(&self, limit: usize, keep: &Path) {
        let mut entries = lock(&self.entries);
        let mut total: usize = entries.values().map(|e| e.bytes.load(Ordering::Relaxed)).sum();
        while total > limit {
            let oldest = entries
                .iter()
                .filter(|((path, _), _)| path.as_path() != keep)
                .min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed))
                .map(|(key, entry)| (key.clone(), entry.bytes.load(Ordering::Relaxed)));
            let Some((key, bytes)) = oldest else { return };
            entries.remove(&key);
            total -= bytes.min(total);
        }
    }
}

/// Locks; a thread that panicked while it held the lock left a whole value behind, since each is replaced in one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("")]
    #[case(".")]
    #[case("..")]
    #[case("a/b")]
    #[case("a\\b")]
    #[case("ä")]
    #[case("a b")]
    #[case("a\0")]
    fn a_name_cannot_leave_the_folder(#[case] name: &str) {
        let error = path_of("wae_encode", name, Path::new("models")).unwrap_err().strip_backtrace();
        assert!(error.contains("wae_encode: a model's name has letters, digits"), "{error}");
    }

    #[test]
    fn a_missing_model_names_those_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        let error = |name: &str, dir: &Path| existing_path("f", name, dir).unwrap_err().strip_backtrace();
        assert!(error("m", dir.path()).contains("which holds none"));
        fs::write(dir.path().join("b.safetensors"), "").unwrap();
        fs::write(dir.path().join("a.safetensors"), "").unwrap();
        fs::write(dir.path().join("notes.txt"), "").unwrap();
        assert!(error("m", dir.path()).contains("no model 'm' in '"));
        assert!(error("m", dir.path()).ends_with("which holds a, b"), "{}", error("m", dir.path()));
        assert!(error("m", &dir.path().join("none")).contains("there is no folder"));
    }

    #[test]
    fn the_cache_forgets_the_least_recently_used() {
        const CPU: Place = (Precision::F32, Device::Cpu);
        let cache = Cache::default();
        for name in ["a", "b", "c"] {
            cache.entry(Path::new(name), CPU).bytes.store(10, Ordering::Relaxed);
        }
        cache.entry(Path::new("a"), CPU);
        cache.shrink(20, Path::new("c"));
        let mut left: Vec<_> = lock(&cache.entries).keys().map(|(path, _)| path.clone()).collect();
        left.sort();
        assert_eq!(left, [PathBuf::from("a"), PathBuf::from("c")]);
        cache.shrink(0, Path::new("c"));
        assert_eq!(lock(&cache.entries).len(), 1);
    }
}
