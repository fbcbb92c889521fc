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
    let network = CACHE.get(key, versions, read);
    match &network {
        // Where nothing was read, too: networks that were in use may be idle by now.
        Ok(_) => CACHE.shrink(limit, key),
        Err(_) => CACHE.forget_empty(key),
    }
    network
}

/// The network of a key in memory, if it is the one that is looked for, whatever its files are now.
pub(crate) fn find<T: Any + Send + Sync>(key: &CacheKey, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
    let entry = lock(&CACHE.entries).get(key).map(|entry| CACHE.touch(entry))?;
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

impl Entry {
    /// Whether nothing but the cache holds the entry and its network, so that removing both frees memory. Threads take
    /// entries under the lock of all: where it is held, an entry that nobody has taken stays so.
    fn is_idle(self: &Arc<Self>) -> bool {
        let is_unused = |cached: &Cached| Arc::strong_count(&cached.network) == 1;
        Arc::strong_count(self) == 1 && lock(&self.slot).as_ref().is_none_or(is_unused)
    }
}

impl Cache {
    fn entry(&self, key: &CacheKey) -> Arc<Entry> {
        self.touch(lock(&self.entries).entry(key.clone()).or_default())
    }

    /// An entry that is used now.
    fn touch(&self, entry: &Arc<Entry>) -> Arc<Entry> {
        entry.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Arc::clone(entry)
    }

    fn get<T: Any + Send + Sync>(
        &self,
        key: &CacheKey,
        versions: &Versions,
        read: impl FnOnce() -> Result<ReadNetwork<T>>,
    ) -> Result<Arc<T>> {
        let entry = self.entry(key);
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
        Ok(network)
    }

    /// Removes the entry of a network that could not be read, unless another thread reads it now.
    fn forget_empty(&self, key: &CacheKey) {
        let mut entries = lock(&self.entries);
        if entries.get(key).is_some_and(|entry| entry.is_idle() && lock(&entry.slot).is_none()) {
            entries.remove(key);
        }
    }

    /// Forgets the networks least recently used until the rest fit. Networks in use stay, and so does `keep`, since its
    /// query is about to run.
    fn shrink(&self, limit: usize, keep: &CacheKey) {
        // Each is dropped behind the lock: a network on a GPU waits for the work there that reads it. A model that is
        // dropped may leave its pretrained network idle.
        while let Some(forgotten) = self.forget_oldest(limit, keep) {
            drop(forgotten);
        }
    }

    /// Takes out the idle network least recently used, if all together have more bytes than the limit.
    fn forget_oldest(&self, limit: usize, keep: &CacheKey) -> Option<Arc<Entry>> {
        let mut entries = lock(&self.entries);
        let bytes = entries.values().map(|entry| entry.bytes.load(Ordering::Relaxed));
        if bytes.fold(0, usize::saturating_add) <= limit {
            return None;
        }
        let idle = entries.iter().filter(|(key, entry)| *key != keep && entry.is_idle());
        let oldest = idle.min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed))?.0.clone();
        entries.remove(&oldest)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::exec_err;

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

    fn read<T>(network: T, bytes: usize) -> Result<ReadNetwork<T>> {
        Ok(ReadNetwork { network, versions: Versions::new(), bytes, store: ModelStore::Local(PathBuf::new()) })
    }

    /// The model `a` shares the network `b`, as one whose file only names its weights does.
    #[test]
    fn networks_in_use_stay_and_a_shared_one_goes_after_its_model() {
        let cache = Cache::default();
        let [a, b, c] = [key::<Arc<u8>>("a"), key::<u8>("b"), key::<u8>("c")];
        let none = Versions::new();
        let model = cache.get(&a, &none, || {
            let network = cache.get(&b, &none, || read(1_u8, 10))?;
            // The entry of the model stays while the model is read.
            cache.shrink(0, &b);
            read(network, 1)
        });
        let model = model.unwrap();
        cache.shrink(0, &c);
        assert_eq!(lock(&cache.entries).len(), 2, "a query holds the model, and that its network");
        drop(model);
        cache.shrink(0, &b);
        assert!(!lock(&cache.entries).contains_key(&a) && lock(&cache.entries).contains_key(&b));
        let model = cache.get(&a, &none, || read(cache.get(&b, &none, || read(2_u8, 10))?, 1)).unwrap();
        assert_eq!(**model, 1, "the network was in memory");
        drop(model);
        cache.shrink(0, &c);
        assert!(lock(&cache.entries).is_empty());
    }

    #[test]
    fn a_failed_read_leaves_nothing() {
        let key = key::<u64>("failed");
        assert!(get::<u64>(&key, &Versions::new(), 1 << 30, || exec_err!("no file")).is_err());
        assert!(!lock(&CACHE.entries).contains_key(&key));
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
