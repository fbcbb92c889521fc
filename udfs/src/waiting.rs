//! Futures that synchronous code waits for.
//!
//! Object stores are asynchronous, planning and scalar functions are not, and neither may wait on the runtime that they
//! are called from. So the stores' futures run on a runtime of the plugin's own, with one thread that starts at the
//! first use, and the caller waits for the answer. How long a request may take is the store's to say (its client's
//! timeout).

use std::io;
use std::sync::{LazyLock, mpsc};

use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<io::Result<Runtime>> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).thread_name("wae_stores").enable_all().build());

/// Waits for a future.
///
/// # Errors
/// An I/O error if there is no runtime, or if the future panics.
pub(crate) fn wait_for<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    let runtime = RUNTIME.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()))?;
    let (sender, receiver) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        // Nobody waits any more only if the caller's thread is gone.
        let _ = sender.send(future.await);
    });
    // A store that panics drops the sender.
    receiver.recv().map_err(|_| io::Error::other("the object store's client broke off"))
}
