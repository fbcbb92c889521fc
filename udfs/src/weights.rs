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

/// The network of a name, from the cache or from its files.
///
/// # Errors
/// A plan error if the name leaves `wae.weights_dir`, or if it is none of a network that works.
pub(crate) fn load(function: &str, name: &str, options: &WaeOptions) -> Result<Arc<Backbone>> {
    let path = resolve(function, name, options)?;
    let refused = |e: &dyn std::fmt::Display| plan_datafusion_err!("{function}: {e}");
    let (folder, single) = match path.is_dir() {
        true => (path.clone(), None),
        false => {
            (path.parent().unwrap_or(&path).to_owned(), path.file_name().map(|n| n.to_string_lossy().into_owned()))
        }
    };
    let stamp = stamp(&folder).map_err(|e| refused(&format!("weights '{name}': {e}")))?;
    let device = options.device().resolved();
    // Locked while weights are read, so that concurrent users of a network share one load.
    let mut cache = lock(&CACHE);
    if let Some(found) = cache.iter().position(|c| c.path == path && c.device == device && c.stamp == stamp) {
        let cached = cache.remove(found);
        let backbone = Arc::clone(&cached.backbone);
        cache.push(cached);
        return Ok(backbone);
    }
    let root = root(function, options)?;
    let sizes = stamp.iter().map(|(name, (bytes, _))| (name.clone(), *bytes)).collect();
    let files = WeightFiles::new(name, sizes, single, |file| {
        read(&root, &folder.join(file), stamp.get(file).map_or(0, |(bytes, _)| *bytes))
    });
    let backbone = PretrainedWeights::read(&files).and_then(|weights| Backbone::try_new(&weights, device));
    let backbone = Arc::new(backbone.map_err(|e| refused(&e))?);
    log::info!("read weights '{name}' (sha256 {})", backbone.sha256());
    cache.retain(|cached| cached.path != path || cached.device != device);
    drop(files);
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
        let first = load("f", "sub/net", &options).unwrap();
        assert!(Arc::ptr_eq(&first, &load("f", "./sub/net", &options).unwrap()));
        let config = fs::read_to_string(folder.join("config.json")).unwrap();
        fs::write(folder.join("config.json"), config + " ").unwrap();
        let second = load("f", "sub/net", &options).unwrap();
        assert_ne!(first.sha256(), second.sha256());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_cannot_leave_the_folder() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        symlink(fixtures().canonicalize().unwrap().join("resnet-timm"), dir.path().join("out")).unwrap();
        let error = load("f", "out", &options).unwrap_err().strip_backtrace();
        assert!(error.contains("f: weights 'out' are a link out of wae.weights_dir"), "{error}");
        let folder = dir.path().join("net");
        fs::create_dir(&folder).unwrap();
        let model = fixtures().canonicalize().unwrap().join("resnet-timm/model.safetensors");
        symlink(&model, folder.join("model.safetensors")).unwrap();
        let error = load("f", "net", &options).unwrap_err().strip_backtrace();
        assert!(error.contains("it is no file below wae.weights_dir, or a link out of it"), "{error}");
        // As in the cache of Hugging Face: links to other folders below the root.
        fs::copy(&model, dir.path().join("blob")).unwrap();
        fs::remove_file(folder.join("model.safetensors")).unwrap();
        symlink("../blob", folder.join("model.safetensors")).unwrap();
        load("f", "net", &options).unwrap();
        load("f", "net/model.safetensors", &options).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_or_not_local() {
        let error = load("f", "net", &options(Path::new("absent"))).unwrap_err().strip_backtrace();
        assert!(error.contains("f: cannot open 'absent' (wae.weights_dir)"), "{error}");
        let error = load("f", "net", &options(Path::new("s3://bucket/nets"))).unwrap_err().strip_backtrace();
        assert!(error.contains("wae.weights_dir is 's3://bucket/nets', expected a local folder"), "{error}");
    }
}
