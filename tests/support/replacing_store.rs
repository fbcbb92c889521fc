//! An object store in memory that replaces an object by another at a given request: what happens between two requests
//! of a client is so decided by their order, and not by a clock.

use std::fmt;
use std::sync::Mutex;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// The store.
#[derive(Debug, Default)]
pub struct ReplacingStore {
    store: InMemory,
    next: Mutex<Option<Replacement>>,
}

/// The replacement that is to come.
#[derive(Debug)]
struct Replacement {
    /// Requests of the object that see what it is, and one.
    requests: usize,
    path: Path,
    object: Vec<u8>,
}

impl ReplacingStore {
    /// Replaces an object just before its request of this number, from now on, is answered; the first is 1. Metadata
    /// alone is a request too.
    pub fn replace_at(&self, request: usize, path: &str, object: &[u8]) {
        let replacement = Replacement { requests: request, path: path.into(), object: object.to_vec() };
        *self.next.lock().unwrap() = Some(replacement);
    }

    /// Whether the request has come.
    pub fn has_replaced(&self) -> bool {
        self.next.lock().unwrap().is_none()
    }

    /// Counts a request; gives the object that comes in place of the one that is there.
    fn due(&self, path: &Path) -> Option<Vec<u8>> {
        let mut next = self.next.lock().unwrap();
        let replacement = next.as_mut().filter(|replacement| replacement.path == *path)?;
        replacement.requests -= 1;
        if replacement.requests > 0 {
            return None;
        }
        next.take().map(|replacement| replacement.object)
    }
}

impl fmt::Display for ReplacingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplacingStore({})", self.store)
    }
}

#[async_trait]
impl ObjectStore for ReplacingStore {
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(object) = self.due(path) {
            self.store.put(path, object.into()).await?;
        }
        self.store.get_opts(path, options).await
    }

    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
