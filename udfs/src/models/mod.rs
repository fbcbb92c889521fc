//! The models: by name, in a store ([`store`]), with a cache of those in memory, and of pretrained networks
//! ([`cache`]).
//!
//! A model `m` is the file `m.safetensors` of `wae.model_dir`, a local folder or a URL. One cache serves the whole
//! process: sessions that name the same file share one copy of it, and a file that was replaced is read again. Whoever
//! holds an [`Arc<LoadedModel>`] keeps that version, whatever becomes of the file or of the cache.

pub(crate) mod argument;
pub(crate) mod cache;
pub(crate) mod local;
mod name_lock;
pub(crate) mod named;
pub(crate) mod object;
pub(crate) mod pin;
mod pins;
pub(crate) mod running;
pub(crate) mod store;

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::common::{DataFusionError, Result, exec_datafusion_err, plan_err};
use sha2::{Digest, Sha256};
use wae_core::backbone::Backbone;
use wae_core::{Config, Error, ModelFile, Wae};

use self::cache::{CacheKey, ReadNetwork, Versions};
pub(crate) use self::pins::load_for_statement;
use self::store::{ModelStore, Stamp, StoredFile};
use crate::options::WaeOptions;
use crate::weights;

/// The end of a model's file name.
const SUFFIX: &str = ".safetensors";

/// A model in memory, by the name that it was found by.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    name: String,
    version: Arc<ModelVersion>,
}

/// A version of a model's file in memory. The cache keeps it for as long as a [`LoadedModel`] holds it.
#[derive(Debug)]
struct ModelVersion {
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
        &self.version.sha256
    }

    /// The model itself.
    pub(crate) fn wae(&self) -> &Wae {
        &self.version.wae
    }
}

/// The model of one name, from the cache or from its file. Each call gives an [`Arc`] of its own; they share the
/// weights.
///
/// # Errors
/// A plan error for a bad name or a missing model, naming those that exist; an execution error for a file that cannot
/// be read or holds no model.
pub(crate) fn load(function: &str, name: &str, options: &WaeOptions) -> Result<Arc<LoadedModel>> {
    let file = file(function, name, options)?;
    let stamp = match file.stamp() {
        Ok(stamp) => stamp,
        Err(e) => return Err(missing(function, name, &file, &e)),
    };
    let key = CacheKey::new::<ModelVersion>(file.key(), options.precision(), options.device());
    let limit = options.cache_bytes();
    let version = cache::get(&key, &versions(&file, stamp), limit, || read(function, name, &file, options))?;
    // Of weights that the file only names, each session has its own folder, and what lies there may have been replaced.
    network_beside(function, name, version.wae.config(), options)?;
    Ok(Arc::new(LoadedModel { name: name.to_owned(), version }))
}

/// The pretrained network of a model whose file names its weights and does not hold them.
///
/// # Errors
/// A plan error if there are no such weights below `wae.weights_dir`, or others.
fn network_beside(function: &str, model: &str, config: &Config, options: &WaeOptions) -> Result<Option<Arc<Backbone>>> {
    let Some(backbone) = config.backbone().filter(|backbone| !backbone.embed) else { return Ok(None) };
    let function = format!("{function}: model '{model}'");
    let weights = weights::versioned(&backbone.name, &backbone.sha256);
    weights::load(&function, &weights, options.device(), options).map(Some)
}

/// The file of a model, whether or not it exists.
///
/// # Errors
/// A plan error if the name could leave the folder, and those of [`ModelStore::try_new`].
pub(crate) fn file(function: &str, name: &str, options: &WaeOptions) -> Result<StoredFile> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || name == "." || name == ".." || !name.chars().all(valid) {
        return plan_err!("{function}: a model's name has letters, digits, '_', '.' and '-' only, got '{name}'");
    }
    Ok(ModelStore::try_new(function, options)?.file(format!("{name}{SUFFIX}")))
}

/// The file of the checkpoint of a model's training: `.m.checkpoint` beside `m.safetensors`, hidden and without a
/// model's suffix, so that no listing shows it and no model's name leads to it.
pub(crate) fn checkpoint_file(name: &str, model: &StoredFile) -> StoredFile {
    model.store().file(format!(".{name}.checkpoint"))
}

/// The file of a model that exists.
///
/// # Errors
/// A plan error for a bad name or a missing model, naming those that exist; an execution error if it cannot be looked
/// up or is no regular file.
pub(crate) fn existing_file(function: &str, name: &str, options: &WaeOptions) -> Result<StoredFile> {
    let file = file(function, name, options)?;
    match file.stamp() {
        Ok(_) => Ok(file),
        Err(e) => Err(missing(function, name, &file, &e)),
    }
}

/// The names of the models of a store, sorted.
pub(crate) fn names(store: &ModelStore) -> std::io::Result<Vec<String>> {
    let names = store.names()?;
    let mut names: Vec<_> = names.iter().filter_map(|name| name.strip_suffix(SUFFIX).map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// Reads a model file; gives also the hash and the number of the very bytes that it was read from.
///
/// # Errors
/// An execution error if it cannot be read or holds no model.
pub(crate) fn read_file(
    function: &str,
    name: &str,
    file: &StoredFile,
    options: &WaeOptions,
) -> Result<(ModelFile, String, usize)> {
    let (bytes, _) = file.read(options.max_model_bytes()).map_err(|e| unreadable(function, name, file, e))?;
    let model = ModelFile::from_bytes(&bytes).map_err(|e| unreadable(function, name, file, e))?;
    Ok((model, sha256(&bytes), bytes.len()))
}

/// The hash of a model file's bytes.
///
/// # Errors
/// An execution error if it cannot be read.
pub(crate) fn read_version(function: &str, name: &str, file: &StoredFile, options: &WaeOptions) -> Result<String> {
    let (bytes, _) = file.read(options.max_model_bytes()).map_err(|e| unreadable(function, name, file, e))?;
    Ok(sha256(&bytes))
}

/// Writes a model file in one step.
///
/// # Errors
/// An execution error if it cannot be written.
pub(crate) fn write_file(function: &str, file: &StoredFile, model: &ModelFile) -> Result<()> {
    let bytes = model.to_bytes().map_err(|e| exec_datafusion_err!("{function}: {e}"))?;
    file.write(bytes).map_err(|e| exec_datafusion_err!("{function}: cannot write {file}: {e}"))?;
    log::info!("{function}: wrote {file}");
    Ok(())
}

/// A model of `wae.model_dir`, and the SHA-256 of its file in hexadecimal, for hosts that look into it themselves.
///
/// # Errors
/// A plan error for a bad name or a missing model; an execution error for a file that cannot be read or holds no model.
pub fn read_model(name: &str, options: &WaeOptions) -> Result<(ModelFile, String)> {
    let function = "read_model";
    let file = existing_file(function, name, options)?;
    let (model, sha256, _) = read_file(function, name, &file, options)?;
    Ok((model, sha256))
}

/// The one version of a model's file.
fn versions(file: &StoredFile, stamp: Stamp) -> Versions {
    Versions::from([(file.name().to_owned(), Some(stamp))])
}

/// Reads a model for the cache.
fn read(function: &str, name: &str, file: &StoredFile, options: &WaeOptions) -> Result<ReadNetwork<ModelVersion>> {
    let (bytes, stamp) = file.read(options.max_model_bytes()).map_err(|e| unreadable(function, name, file, e))?;
    let mut model = ModelFile::from_bytes(&bytes).map_err(|e| unreadable(function, name, file, e))?;
    let beside = network_beside(function, name, model.config(), options)?;
    // The cache counts a network that is shared once, as its own.
    let shared = beside.as_ref().map_or(0, |network| network.memory());
    if let Some(network) = beside {
        model = model.with_backbone(network).map_err(|e| unreadable(function, name, file, e))?;
    }
    let wae = Wae::try_new(&model, options.device(), options.precision()).map_err(|e| match e {
        // The device's fault, and not the file's.
        Error::Device(_) | Error::DeviceMemory(_) => {
            exec_datafusion_err!("{function}: model '{name}': {e}")
        }
        e => unreadable(function, name, file, e),
    })?;
    let sha256 = sha256(&bytes);
    if !wae.has_anomaly_map() {
        log::info!(
            "model '{name}' is of an older version: its verdicts rank the cost; trained anew, a model has an anomaly map, whose \
             score finds more"
        );
    }
    log::info!("read model '{name}' for precision {} from {file} (sha256 {sha256})", options.precision().name());
    let bytes = wae.memory().saturating_sub(shared);
    let network = ModelVersion { sha256, wae };
    Ok(ReadNetwork { network, versions: versions(file, stamp), bytes, store: file.store().clone() })
}

/// Why there is no model of a name.
fn missing(function: &str, name: &str, file: &StoredFile, error: &std::io::Error) -> DataFusionError {
    if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
        return unreadable(function, name, file, error);
    }
    let store = file.store();
    let what = match names(store) {
        Ok(names) if names.is_empty() => format!(" in '{store}', which holds none"),
        Ok(names) => format!(" in '{store}', which holds {}", names.join(", ")),
        Err(e) if e.kind() == ErrorKind::NotFound => format!(": there is no folder '{store}' (wae.model_dir)"),
        Err(e) => format!(": cannot list '{store}' (wae.model_dir): {e}"),
    };
    datafusion::common::plan_datafusion_err!("{function}: no model '{name}'{what}")
}

fn unreadable(function: &str, name: &str, file: &StoredFile, error: impl std::fmt::Display) -> DataFusionError {
    exec_datafusion_err!("{function}: model '{name}': {file}: {error}")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Locks; a thread that panicked while it held the lock left a whole value behind, since each is replaced in one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use datafusion::config::ExtensionOptions;
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
        let error = file("wae_encode", name, &WaeOptions::default()).unwrap_err().strip_backtrace();
        assert!(error.contains("wae_encode: a model's name has letters, digits"), "{error}");
    }

    #[test]
    fn a_missing_model_names_those_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        let error = |name: &str, dir: &Path| {
            let mut options = WaeOptions::default();
            options.set("model_dir", &dir.display().to_string()).unwrap();
            existing_file("f", name, &options).unwrap_err().strip_backtrace()
        };
        assert!(error("m", dir.path()).contains("which holds none"));
        fs::write(dir.path().join("b.safetensors"), "").unwrap();
        fs::write(dir.path().join("a.safetensors"), "").unwrap();
        fs::write(dir.path().join("notes.txt"), "").unwrap();
        assert!(error("m", dir.path()).contains("no model 'm' in '"));
        assert!(error("m", dir.path()).ends_with("which holds a, b"), "{}", error("m", dir.path()));
        assert!(error("m", &dir.path().join("none")).contains("there is no folder"));
    }

    /// No machine has a hundred.
    #[cfg(feature = "cuda")]
    #[test]
    fn a_gpu_that_is_not_there_is_not_the_files_fault() {
        let dir = tempfile::tempdir().unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden/golden.model.safetensors");
        fs::copy(golden, dir.path().join("m.safetensors")).unwrap();
        let mut options = WaeOptions::default();
        options.set("model_dir", &dir.path().display().to_string()).unwrap();
        options.set("device", "cuda:99").unwrap();
        let file = existing_file("f", "m", &options).unwrap();
        let error = read("f", "m", &file, &options).err().unwrap().strip_backtrace();
        assert!(error.contains("f: model 'm': cuda:99: ") && !error.contains("safetensors"), "{error}");
    }
}
