//! Networks in memory, models and pretrained ones: one cache for the whole process, under one limit.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use datafusion::common::Result;
use wae_core::{Device, Precision};

use super::lock;
use super::store::{ModelStore, Stamp};

/// The versions of the files that a network is read from, by their names; `None` for what is no file.
pub(crate) type Versions = BTreeMap<String, Option<Stamp>>;

/// A network by its kind, the path of its file or folder, and the precision and device that it computes in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    kind: TypeId,
    path: PathBuf,
    precision: Precision,
    device: Device,
}

impl CacheKey {
    /// The key of a network of type `T`.
    pub(crate) fn new<T: Any>(path: PathBuf, precision: Precision, device: Device) -> Self {
        Self { kind: TypeId::of::<T>(), path, precision, device: device.resolved() }
    }
}

/// A network that has been read.
pub(crate) struct ReadNetwork<T> {
    pub(crate) network: T,
    pub(crate) versions: Versions,
    /// Bytes of its weights.
    pub(crate) bytes: usize,
    /// The store that it was read from, which is kept alive, since its address may be in the key.
    pub(crate) store: ModelStore,
}

/// The network of a key whose files have these versions: the one in memory, or what `read` gives.
pub(crate) fn get<T: Any + Send + Sync>(
    key: &CacheKey,
    versions: &Versions,
    limit: usize,
    read: impl FnOnce() -> Result<ReadNetwork<T>>,
) -> Result<Arc<T>> {
    let entry = CACHE.entry(key);
    let mut slot = lock(&entry.slot);
    if let Some(network) = slot.as_ref().filter(|cached| cached.versions == *versions).and_then(Cached::network) {
        return Ok(network);
    }
    let ReadNetwork { network, versions, bytes, store } = read()?;
    let network = Arc::new(network);
    entry.bytes.store(bytes, Ordering::Relaxed);
    let replaced = slot.replace(Cached { versions, _store: store, network: Arc::clone(&network) as _ });
    drop(slot);
    // Behind the lock: a network on a GPU waits for the work there that reads it.
    drop(replaced);
    CACHE.shrink(limit, key);
    Ok(network)
}

/// The network of a key in memory, if it is the one that is looked for, whatever its files are now.
pub(crate) fn find<T: Any + Send + Sync>(key: &CacheKey, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
    let is_known = lock(&CACHE.entries).contains_key(key);
    let entry = is_known.then(|| CACHE.entry(key))?;
    let network: Arc<T> = lock(&entry.slot).as_ref()?.network()?;
    is_it(&network).then_some(network)
}

static CACHE: LazyLock<Cache> = LazyLock::new(Cache::default);

/// Networks by their keys. `entries` is locked for look-ups only; reading a network locks its entry alone, so that
/// concurrent users of one share one load and users of another do not wait.
#[derive(Debug, Default)]
struct Cache {
    entries: Mutex<HashMap<CacheKey, Arc<Entry>>>,
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
    versions: Versions,
    _store: ModelStore,
    network: Arc<dyn Any + Send + Sync>,
}

impl Cached {
    fn network<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.network).downcast().ok()
    }
}

impl Cache {
    fn entry(&self, key: &CacheKey) -> Arc<Entry> {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(key.clone()).or_default();
        entry.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Arc::clone(entry)
    }

    /// Forgets the networks least recently used until the rest fit; `keep` stays, since its query is about to run.
    fn shrink(&self, limit: usize, keep: &CacheKey) {
        // Dropped behind the lock: a network on a GPU waits for the work there that reads it.
        let mut forgotten = Vec::new();
        let mut entries = lock(&self.entries);
        let mut total: usize = entries.values().map(|e| e.bytes.load(Ordering::Relaxed)).sum();
        while total > limit {
            let oldest = entries
                .iter()
                .filter(|(key, _)| *key != keep)
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

    fn key<T: Any>(name: &str) -> CacheKey {
        CacheKey::new::<T>(name.into(), Precision::F32, Device::Cpu)
    }

    /// A model and a pretrained network may have one path: their kinds tell them apart, and one limit holds for both.
    #[test]
    fn the_cache_forgets_the_least_recently_used_of_both_kinds() {
        let cache = Cache::default();
        let [a, b, c] = [key::<u8>("a"), key::<u16>("a"), key::<u8>("c")];
        for key in [&a, &b, &c] {
            cache.entry(key).bytes.store(10, Ordering::Relaxed);
        }
        cache.entry(&a);
        cache.shrink(20, &c);
        let left = lock(&cache.entries);
        assert!(left.len() == 2 && left.contains_key(&a) && left.contains_key(&c));
        drop(left);
        cache.shrink(0, &c);
        assert_eq!(lock(&cache.entries).len(), 1);
    }

    #[test]
    fn a_network_is_read_again_for_another_version() {
        let read = |network: u32, versions: &Versions| {
            let store = ModelStore::Local(PathBuf::new());
            let versions = versions.clone();
            let read = ReadNetwork { network, versions: versions.clone(), bytes: 1, store };
            *get(&key::<u32>("again"), &versions, 1 << 30, || Ok(read)).unwrap()
        };
        let none = Versions::new();
        let other = Versions::from([("pipe".to_owned(), None)]);
        assert_eq!([read(1, &none), read(2, &none), read(3, &other)], [1, 1, 3]);
        assert_eq!(find(&key::<u32>("again"), |n: &u32| *n == 3).as_deref(), Some(&3));
        assert!(find(&key::<u32>("again"), |n: &u32| *n == 1).is_none());
        assert!(find(&key::<u32>("never"), |_: &u32| true).is_none());
    }
}
