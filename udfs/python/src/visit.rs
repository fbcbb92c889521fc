//! Visits of the package's own threads to Python, and their end when the interpreter shuts down.
//!
//! A thread that asks for the interpreter's lock while it shuts down is ended on the spot, within whatever code it is
//! in, and the process with it. So `atexit` lets no further thread in, and waits for those that are there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use log::LevelFilter;
use pyo3::prelude::*;

/// How long the interpreter's end waits for a source that does not return.
const PATIENCE: Duration = Duration::from_secs(5);

static CLOSED: AtomicBool = AtomicBool::new(false);
static VISITORS: AtomicUsize = AtomicUsize::new(0);

/// A stay in Python's code, of a thread that Python did not start.
pub(crate) struct Visit(());

impl Visit {
    /// Begins a stay; `None` once the interpreter shuts down.
    pub(crate) fn begin() -> Option<Self> {
        // Counted first: whoever closes then sees this visitor, or this visitor sees that it is closed.
        VISITORS.fetch_add(1, Ordering::SeqCst);
        let visit = Self(());
        (!CLOSED.load(Ordering::SeqCst)).then_some(visit)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        VISITORS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Has `atexit` end all visits.
pub(crate) fn end_at_exit(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let end = wrap_pyfunction!(end, module)?;
    module.py().import("atexit")?.call_method1("register", (end,))?;
    Ok(())
}

#[pyfunction]
fn end(py: Python<'_>) {
    // Messages go to Python's logging.
    log::set_max_level(LevelFilter::Off);
    CLOSED.store(true, Ordering::SeqCst);
    py.detach(|| {
        let start = Instant::now();
        while VISITORS.load(Ordering::SeqCst) > 0 && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
    });
}
