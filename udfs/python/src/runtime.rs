//! The runtime that statements run on, and how Python waits for it.
//!
//! Whoever waits lets go of the interpreter's lock: other Python threads run, and sources that are Python objects can
//! be read. Ctrl-C is looked for while waiting, since Python handles signals on its main thread only, between
//! instructions.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use tokio::runtime::Runtime;

/// How long Ctrl-C may wait to be seen.
const TICK: Duration = Duration::from_millis(100);

/// The runtime, and the process whose threads serve it.
static RUNTIME: OnceLock<(u32, Runtime)> = OnceLock::new();

/// The runtime, started by its first use.
///
/// # Errors
/// `RuntimeError` in a process that was forked after that: threads do not survive a fork, and waiting for them would
/// never end.
pub(crate) fn runtime() -> PyResult<&'static Runtime> {
    if RUNTIME.get().is_none() {
        let runtime = Runtime::new().map_err(|e| PyOSError::new_err(format!("datafusion_wae: no threads: {e}")))?;
        // Another thread may have been faster.
        let _ = RUNTIME.set((std::process::id(), runtime));
    }
    match RUNTIME.get() {
        Some((process, runtime)) if *process == std::process::id() => Ok(runtime),
        _ => Err(PyRuntimeError::new_err(
            "datafusion_wae was used before this process was forked, and its threads are not in the fork: start \
             processes with multiprocessing's 'spawn' or 'forkserver'",
        )),
    }
}

/// Waits for a future, which runs on the runtime's threads, without the interpreter's lock.
///
/// # Errors
/// `KeyboardInterrupt`, or what else a signal's handler raises; the future is dropped as soon as it lets go of its
/// thread.
pub(crate) fn wait<F>(future: F) -> PyResult<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let runtime = runtime()?;
    let waiting = async {
        let mut task = SpawnedTask::spawn(future);
        loop {
            tokio::select! {
                output = &mut task => return output.map_err(|e| PyRuntimeError::new_err(format!("datafusion_wae: {e}"))),
                () = tokio::time::sleep(TICK) => check_signals()?,
            }
        }
    };
    // A consumer of a stream may hold the lock or not when it asks for the next batch. A Python that shuts down has
    // none, and leaves the future where it was.
    let mut waiting = Some(waiting);
    let attached = Python::try_attach(|py| waiting.take().map(|waiting| py.detach(|| runtime.block_on(waiting))));
    match (attached.flatten(), waiting) {
        (Some(output), _) => output,
        (None, Some(waiting)) => runtime.block_on(waiting),
        (None, None) => Err(PyRuntimeError::new_err("datafusion_wae: nothing to wait for")),
    }
}

/// Runs the handlers of signals that have come in.
fn check_signals() -> PyResult<()> {
    Python::try_attach(|py| py.check_signals()).unwrap_or(Ok(()))
}
