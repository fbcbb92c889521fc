//! The runtime that statements run on, and how Python waits for it.
//!
//! Whoever waits lets go of the interpreter's lock: other Python threads run, and sources that are Python objects can be
//! read. Ctrl-C is looked for while waiting, since Python handles signals on its main thread only, between instructions.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

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
/// `RuntimeError` in a process that was forked after that: threads do not survive a fork, and waiting for them would never
/// end.
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

/// Waits for a future, without the interpreter's lock.
///
/// # Errors
/// `KeyboardInterrupt`, or what else a signal handler raises; the future is dropped, and with it what it computed.
pub(crate) fn wait<F>(future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let runtime = runtime()?;
    let waiting = async {
        tokio::pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return Ok(output),
                () = tokio::time::sleep(TICK) => check_signals()?,
            }
        }
    };
    // A consumer of a stream may or may not hold the lock when it asks for the next batch; `None` is a Python that shuts
    // down and has no lock to give.
    let mut waiting = Some(waiting);
    let mut block = || waiting.take().map(|waiting| runtime.block_on(waiting));
    let output = match Python::try_attach(|py| py.detach(&mut block)) {
        Some(output) => output,
        None => block(),
    };
    output.unwrap_or_else(|| Err(PyRuntimeError::new_err("datafusion_wae: waited twice")))
}

/// Runs the handlers of signals that have come in.
fn check_signals() -> PyResult<()> {
    Python::try_attach(|py| py.check_signals()).unwrap_or(Ok(()))
}
