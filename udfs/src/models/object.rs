//! Files of an object store.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::common::{Result, plan_datafusion_err};
use datafusion::execution::object_store::ObjectStoreRegistry;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use url::Url;

use super::cache::Versions;
use super::store::{Stamp, redacted, shown, too_large};
use crate::waiting::wait_for;

/// A prefix of an object store that the session has registered.
#[derive(Debug, Clone)]
pub(crate) struct ObjectDir {
    /// The URL, for messages.
    url: String,
    prefix: Path,
    store: Arc<dyn ObjectStore>,
}

impl ObjectDir {
    /// The prefix that a URL stands for, which messages call `option`.
    pub(super) fn try_new(function: &str, option: &str, url: &Url, registry: &dyn ObjectStoreRegistry) -> Result<Self> {
        let text = shown(url);
        let is_whole = text == redacted(url);
        let prefix = Path::from_url_path(url.path()).map_err(|e| {
            let reason = if is_whole { format!(": {e}") } else { String::new() };
            plan_datafusion_err!("{function}: {option} '{text}' is no prefix of an object store{reason}")
        })?;
        let store = registry.get_store(url).map_err(|_| {
            let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
            let root = if is_whole { format!("{}://{host}", url.scheme()) } else { text.clone() };
            plan_datafusion_err!(
                "{function}: no object store is registered for '{root}' ({option} is '{text}'), expected one from \
                 SessionContext::register_object_store(\"{root}\", store)"
            )
        })?;
        Ok(Self { url: redacted(url), prefix, store })
    }

    /// The prefix of a path below this one, whose parts stand between slashes.
    pub(crate) fn join(&self, path: &str) -> Self {
        let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
        parts.fold(self.clone(), |dir, part| Self {
            url: format!("{dir}/{part}"),
            prefix: dir.prefix.join(part),
            store: dir.store,
        })
    }

    /// The prefix that this one is right under, and its name there; `None` of the whole store.
    pub(crate) fn parent(&self) -> Option<(Self, String)> {
        let name = self.prefix.filename()?.to_owned();
        let (url, _) = self.url.rsplit_once('/')?;
        Some((Self { url: url.to_owned(), prefix: self.prefix.parent()?, store: Arc::clone(&self.store) }, name))
    }

    /// The names of the objects right under the prefix.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.versions()?.into_keys().collect())
    }

    /// The versions of the objects right under the prefix, by their names.
    pub(crate) fn versions(&self) -> io::Result<Versions> {
        let store = Arc::clone(&self.store);
        let prefix = self.prefix.clone();
        let listed = block_on(async move { store.list_with_delimiter(Some(&prefix)).await })?;
        let named = |object: &ObjectMeta| {
            let parts: Vec<_> = object.location.prefix_match(&self.prefix)?.collect();
            let [name] = parts.as_slice() else { return None };
            Some((name.as_ref().to_owned(), Some(stamp_of(object))))
        };
        Ok(listed.objects.iter().filter_map(named).collect())
    }

    /// The key of a file within this process.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{:p}/{}/{name}", Arc::as_ptr(&self.store), self.url))
    }

    /// The version of a file.
    pub(super) fn stamp(&self, name: &str) -> io::Result<Stamp> {
        let (store, path) = self.object(name);
        Ok(stamp_of(&block_on(async move { store.head(&path).await })?))
    }

    /// The bytes of a file and their version.
    pub(super) fn read(&self, name: &str, limit: usize) -> io::Result<(Vec<u8>, Stamp)> {
        self.fetch(name, limit)?.map_err(|bytes| too_large(bytes, limit))
    }

    /// The bytes of a file and their version, or how many there are, if that is above the limit.
    pub(crate) fn fetch(&self, name: &str, limit: usize) -> io::Result<std::result::Result<(Vec<u8>, Stamp), u64>> {
        let (store, path) = self.object(name);
        let fetched = block_on(async move {
            let object = store.get(&path).await?;
            let meta = object.meta.clone();
            if meta.size > limit as u64 {
                return Ok(Err(meta.size));
            }
            Ok(Ok((object.bytes().await?, meta)))
        })?;
        Ok(match fetched {
            Ok((bytes, _)) if bytes.len() > limit => Err(bytes.len() as u64),
            Ok((bytes, meta)) => Ok((bytes.into(), stamp_of(&meta))),
            Err(bytes) => Err(bytes),
        })
    }

    /// Puts a file in one request.
    pub(super) fn write(&self, name: &str, bytes: Vec<u8>) -> io::Result<()> {
        let (store, path) = self.object(name);
        block_on(async move { store.put(&path, PutPayload::from(bytes)).await }).map(drop)
    }

    /// Removes a file.
    pub(super) fn delete(&self, name: &str) -> io::Result<()> {
        let (store, path) = self.object(name);
        // Stores such as S3 remove what is not there without a word.
        block_on(async move {
            store.head(&path).await.map(drop)?;
            store.delete(&path).await
        })
    }

    /// Gives a file another name.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let ((store, from), (_, to)) = (self.object(from), self.object(to));
        block_on(async move { store.rename(&from, &to).await })
    }

    fn object(&self, name: &str) -> (Arc<dyn ObjectStore>, Path) {
        (Arc::clone(&self.store), self.prefix.clone().join(name))
    }
}

impl Display for ObjectDir {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

fn stamp_of(meta: &ObjectMeta) -> Stamp {
    Stamp::Object {
        e_tag: meta.e_tag.clone(),
        version: meta.version.clone(),
        modified: meta.last_modified.into(),
        bytes: meta.size,
    }
}

/// Waits for a store.
fn block_on<T: Send + 'static>(
    request: impl Future<Output = object_store::Result<T>> + Send + 'static,
) -> io::Result<T> {
    wait_for(request)?.map_err(io::Error::from)
}
