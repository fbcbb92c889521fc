//! Models in memory, one cache for the whole process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use datafusion::common::Result;
use wae_core::{Device, Precision};

use super::store::{Stamp, StoredFile};
use super::{LoadedModel, lock};
use crate::options::WaeOptions;

/// The model of a file whose version is `stamp`: the one in memory, or what `read` gives, with the version that it
/// read.
pub(super) fn get(
    file: &StoredFile,
    stamp: Stamp,
    options: &WaeOptions,
    read: impl FnOnce() -> Result<(LoadedModel, Stamp)>,
) -> Result<Arc<LoadedModel>> {
    let key = file.key();
    let entry = CACHE.entry(&key, (options.precision(), options.device().resolved()));
    let mut slot = lock(&entry.slot);
    if let Some(cached) = &*slot
        && cached.stamp == stamp
    {
        return Ok(Arc::clone(&cached.model));
    }
    let (model, stamp) = read()?;
    let model = Arc::new(model);
    entry.bytes.store(model.wae().memory(), Ordering::Relaxed);
    let replaced = slot.replace(Cached { stamp, _file: file.clone(), model: Arc::clone(&model) });
    drop(slot);
    // Behind the lock: a model on a GPU waits for the work there that reads it.
    drop(replaced);
    CACHE.shrink(options.cache_bytes(), &key);
    Ok(model)
}

/// The precision and the device of a model in memory.
type Place = (Precision, Device);

static CACHE: LazyLock<Cache> = LazyLock::new(Cache::default);

/// Models by their file's key and place. `entries` is locked for look-ups only; reading a file locks that file's
/// entry alone, so that concurrent users of one model share one load and users of another do not wait.
#[derive(Debug, Default)]
struct Cache {
    entries: Mutex<HashMap<(PathBuf, Place), Arc<Entry>>>,
    clock: AtomicU64,
}

#[derive(Debug, Default)]
struct Entry {
    slot: Mutex<Option<Cached>>,
    bytes: AtomicUsize,
    used: AtomicU64,
}

#[derive(Debug)]
struct Cached {
    stamp: Stamp,
    /// Keeps the object store alive whose address is in the key.
    _file: StoredFile,
    model: Arc<LoadedModel>,
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
        // Dropped behind the lock: a model on a GPU waits for the work there that reads it.
        let mut forgotten = Vec::new();
        let mut entries = lock(&self.entries);
        let mut total: usize = entries.values().map(|e| e.bytes.load(Ordering::Relaxed)).sum();
        while total > limit {
            let oldest = entries
                .iter()
                .filter(|((path, _), _)| path.as_path() != keep)
                .min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed))
                .map(|(key, entry)| (key.clone(), entry.bytes.load(Ordering::Relaxed)));
            let Some((key, bytes)) = oldest else { return };
            forgotten.extend(entries.remove(&key));
            total -= bytes.min(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
