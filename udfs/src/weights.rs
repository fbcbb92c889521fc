//! Pretrained networks below `wae.weights_dir`, and a cache of those in memory.
//!
//! A name is a path below that folder, of a folder or a `.safetensors` file. Links are followed within it. One cache
//! serves the whole process; weights whose files were replaced are read again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::SystemTime;

use datafusion::common::{Result, plan_datafusion_err, plan_err};
use wae_core::backbone::{Backbone, PretrainedWeights, WeightFiles};
use wae_core::{Device, Error};

use crate::models::lock;
use crate::options::WaeOptions;

/// Bytes and time of each file, by its name.
type Stamp = BTreeMap<String, (u64, Option<SystemTime>)>;

/// Networks in memory, the least recently used first.
static CACHE: LazyLock<Mutex<Vec<Cached>>> = LazyLock::new(Mutex::default);

struct Cached {
    path: PathBuf,
    device: Device,
    stamp: Stamp,
    backbone: Arc<Backbone>,
}

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
    let (name, version) = split_version(weights);
    let backbone = load_current(function, name, device, options)?;
    match version {
        Some(version) if version != backbone.sha256() => plan_err!(
            "{function}: expected weights '{name}' of sha256 {version}, wae.weights_dir holds others of this name, of \
             sha256 {}",
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
    let found = Found::try_new(function, name, options)?;
    PretrainedWeights::read(&found.files(name)).map_err(|e| plan_datafusion_err!("{function}: {e}"))
}

/// The files of a network: those of a folder, or one with those beside it.
struct Found {
    root: PathBuf,
    path: PathBuf,
    folder: PathBuf,
    single: Option<String>,
    stamp: Stamp,
}

impl Found {
    fn try_new(function: &str, name: &str, options: &WaeOptions) -> Result<Self> {
        let path = resolve(function, name, options)?;
        let (folder, single) = match path.is_dir() {
            true => (path.clone(), None),
            false => {
                (path.parent().unwrap_or(&path).to_owned(), path.file_name().map(|n| n.to_string_lossy().into_owned()))
            }
        };
        let stamp = stamp(&folder).map_err(|e| plan_datafusion_err!("{function}: weights '{name}': {e}"))?;
        Ok(Self { root: root(function, options)?, path, folder, single, stamp })
    }

    fn files(&self, name: &str) -> WeightFiles<'_> {
        let sizes = self.stamp.iter().map(|(name, (bytes, _))| (name.clone(), *bytes)).collect();
        WeightFiles::new(name, sizes, self.single.clone(), |file| {
            let size = self.stamp.get(file).map_or(0, |(bytes, _)| *bytes);
            read(&self.root, &self.folder.join(file), size)
        })
    }
}

fn load_current(function: &str, name: &str, device: Device, options: &WaeOptions) -> Result<Arc<Backbone>> {
    let found = Found::try_new(function, name, options)?;
    let device = device.resolved();
    // Locked while weights are read, so that concurrent users of a network share one load.
    let mut cache = lock(&CACHE);
    let is_it = |c: &Cached| c.path == found.path && c.device == device && c.stamp == found.stamp;
    if let Some(place) = cache.iter().position(is_it) {
        let cached = cache.remove(place);
        let backbone = Arc::clone(&cached.backbone);
        cache.push(cached);
        return Ok(backbone);
    }
    let backbone = PretrainedWeights::read(&found.files(name)).and_then(|weights| Backbone::try_new(&weights, device));
    let backbone = Arc::new(backbone.map_err(|e| plan_datafusion_err!("{function}: {e}"))?);
    log::info!("read weights '{name}' (sha256 {})", backbone.sha256());
    cache.retain(|cached| cached.path != found.path || cached.device != device);
    let Found { path, stamp, .. } = found;
    cache.push(Cached { path, device, stamp, backbone: Arc::clone(&backbone) });
    let mut total: usize = cache.iter().map(|cached| cached.backbone.memory()).sum();
    while total > options.cache_bytes() && cache.len() > 1 {
        total -= cache.remove(0).backbone.memory();
    }
    Ok(backbone)
}

/// The canonical folder of all weights.
fn root(function: &str, options: &WaeOptions) -> Result<PathBuf> {
    let dir = options.weights_dir();
    if dir.contains("://") {
        return plan_err!("{function}: wae.weights_dir is '{dir}', expected a local folder");
    }
    let canonical = Path::new(dir).canonicalize();
    canonical.map_err(|e| plan_datafusion_err!("{function}: cannot open '{dir}' (wae.weights_dir): {e}"))
}

/// The file or folder of a name, which lies below `wae.weights_dir` once links are followed.
fn resolve(function: &str, name: &str, options: &WaeOptions) -> Result<PathBuf> {
    let root = root(function, options)?;
    let is_below = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if name.is_empty() || !Path::new(name).components().all(is_below) {
        return plan_err!("{function}: weights must be a path below wae.weights_dir, without '..', got '{name}'");
    }
    // Without `.`, so that a network has one name in the cache. A link keeps its own name and folder: the files of a
    // download are links to others without an ending.
    let path: PathBuf =
        root.components().chain(Path::new(name).components().filter(|c| *c != Component::CurDir)).collect();
    let canonical = path.canonicalize().map_err(|e| {
        plan_datafusion_err!("{function}: no weights '{name}' in '{}' (wae.weights_dir): {e}", options.weights_dir())
    })?;
    // Where a link leads is not told: who asks may not be allowed to know.
    if canonical.starts_with(&root) {
        return Ok(path);
    }
    plan_err!("{function}: weights '{name}' are a link out of wae.weights_dir, expected a file or a folder in it")
}

fn stamp(folder: &Path) -> std::io::Result<Stamp> {
    let mut stamp = Stamp::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
            stamp.insert(name, (metadata.len(), metadata.modified().ok()));
        }
    }
    Ok(stamp)
}

/// Reads a file of a network, which lies below the root once links are followed, and at most a byte beyond the size that
/// was checked.
fn read(root: &Path, path: &Path, size: u64) -> wae_core::Result<Vec<u8>> {
    let at = |e| Error::io(path, e);
    let canonical = path.canonicalize().map_err(at)?;
    if !canonical.starts_with(root) || !fs::metadata(&canonical).map_err(at)?.is_file() {
        let reason = "it is no file below wae.weights_dir, or a link out of it";
        return Err(at(std::io::Error::other(reason)));
    }
    let mut bytes = Vec::new();
    File::open(&canonical).map_err(at)?.take(size.saturating_add(1)).read_to_end(&mut bytes).map_err(at)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use datafusion::config::ExtensionOptions;

    use super::*;

    fn options(dir: &Path) -> WaeOptions {
        let mut options = WaeOptions::default();
        options.set("weights_dir", &dir.display().to_string()).unwrap();
        options
    }

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/backbones")
    }

    #[test]
    fn a_network_is_kept_until_a_file_of_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("sub/net");
        fs::create_dir_all(&folder).unwrap();
        for file in ["model.safetensors", "config.json"] {
            fs::copy(fixtures().join("resnet-timm").join(file), folder.join(file)).unwrap();
        }
        let options = options(dir.path());
        let first = load("f", "sub/net", Device::Cpu, &options).unwrap();
        assert!(Arc::ptr_eq(&first, &load("f", "./sub/net", Device::Cpu, &options).unwrap()));
        let config = fs::read_to_string(folder.join("config.json")).unwrap();
        fs::write(folder.join("config.json"), config + " ").unwrap();
        let second = load("f", "sub/net", Device::Cpu, &options).unwrap();
        assert_ne!(first.sha256(), second.sha256());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_cannot_leave_the_folder() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        symlink(fixtures().canonicalize().unwrap().join("resnet-timm"), dir.path().join("out")).unwrap();
        let error = load("f", "out", Device::Cpu, &options).unwrap_err().strip_backtrace();
        assert!(error.contains("f: weights 'out' are a link out of wae.weights_dir"), "{error}");
        let folder = dir.path().join("net");
        fs::create_dir(&folder).unwrap();
        let model = fixtures().canonicalize().unwrap().join("resnet-timm/model.safetensors");
        symlink(&model, folder.join("model.safetensors")).unwrap();
        let error = load("f", "net", Device::Cpu, &options).unwrap_err().strip_backtrace();
        assert!(error.contains("it is no file below wae.weights_dir, or a link out of it"), "{error}");
        // As in the cache of Hugging Face: links to other folders below the root.
        fs::copy(&model, dir.path().join("blob")).unwrap();
        fs::remove_file(folder.join("model.safetensors")).unwrap();
        symlink("../blob", folder.join("model.safetensors")).unwrap();
        load("f", "net", Device::Cpu, &options).unwrap();
        load("f", "net/model.safetensors", Device::Cpu, &options).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_or_not_local() {
        let error = load("f", "net", Device::Cpu, &options(Path::new("absent"))).unwrap_err().strip_backtrace();
        assert!(error.contains("f: cannot open 'absent' (wae.weights_dir)"), "{error}");
        let error =
            load("f", "net", Device::Cpu, &options(Path::new("s3://bucket/nets"))).unwrap_err().strip_backtrace();
        assert!(error.contains("wae.weights_dir is 's3://bucket/nets', expected a local folder"), "{error}");
    }
}
