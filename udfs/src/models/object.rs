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

use super::store::{Stamp, redacted, too_large};
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
    /// The prefix that a URL stands for.
    pub(super) fn try_new(function: &str, url: &Url, registry: &dyn ObjectStoreRegistry) -> Result<Self> {
        let text = redacted(url);
        let prefix = Path::from_url_path(url.path()).map_err(|e| {
            plan_datafusion_err!("{function}: wae.model_dir '{text}' is no prefix of an object store: {e}")
        })?;
        let store = registry.get_store(url).map_err(|_| {
            let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
            let root = format!("{}://{host}", url.scheme());
            plan_datafusion_err!(
                "{function}: no object store is registered for '{root}' (wae.model_dir is '{text}'), expected one from \
                 SessionContext::register_object_store(\"{root}\", store)"
            )
        })?;
        Ok(Self { url: text, prefix, store })
    }

    /// The names of the objects right under the prefix.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let store = Arc::clone(&self.store);
        let prefix = self.prefix.clone();
        let listed = block_on(async move { store.list_with_delimiter(Some(&prefix)).await })?;
        Ok(listed.objects.iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect())
    }

    /// The key of a file within this process.
    pub(super) fn key(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{:p}/{}/{name}", Arc::as_ptr(&self.store), self.url))
    }

    /// The version of a file.
    pub(super) fn stamp(&self, name: &str) -> io::Result<Stamp> {
        let (store, path) = self.object(name);
        Ok(stamp_of(&block_on(async move { store.head(&path).await })?))
    }

    /// The bytes of a file and their version.
    pub(super) fn read(&self, name: &str, limit: usize) -> io::Result<(Vec<u8>, Stamp)> {
        let (store, path) = self.object(name);
        let read = block_on(async move {
            let object = store.get(&path).await?;
            let meta = object.meta.clone();
            if meta.size > limit as u64 {
                return Ok(Err(meta.size));
            }
            Ok(Ok((object.bytes().await?, meta)))
        })?;
        match read {
            Ok((bytes, _)) if bytes.len() > limit => Err(too_large(bytes.len() as u64, limit)),
            Ok((bytes, meta)) => Ok((bytes.into(), stamp_of(&meta))),
            Err(size) => Err(too_large(size, limit)),
        }
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
