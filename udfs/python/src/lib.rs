//! The Python package `datafusion_wae`: sessions with everything that SQL has here, and the functions for a
//! `datafusion.SessionContext` of PyPI.
//!
//! This crate is `datafusion_wae._internal`; what users see are the modules in `python/datafusion_wae`, and their
//! docstrings.
//!
//! - Computing happens without the interpreter's lock (`runtime`), and Ctrl-C is looked for ten times a second.
//! - Arrow data goes both ways through the C stream interface (`query`, `source`), so that no Arrow library of Python's
//!   is needed, and any of them fits.
//! - What the `log` facade is told goes to Python's `logging`, from level INFO up.
//! - Functions reach other DataFusions through the C interface of `datafusion-ffi` (`host`).

mod error;
mod host;
mod query;
mod runtime;
mod session;
mod source;
mod train;
mod visit;

use log::LevelFilter;
use pyo3::prelude::*;
use pyo3_log::{Caching, Logger};

/// As the shell, and for its reason: with glibc's, the megabytes of a step's activations would go back to the system
/// and be faulted in again at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The native half of `datafusion_wae`.
#[pymodule]
mod _internal {
    use super::*;

    #[pymodule_export]
    use super::host::{HostAggregate, HostScalar, HostWindow, host_functions};
    #[pymodule_export]
    use super::query::Query;
    #[pymodule_export]
    use super::session::Session;
    #[pymodule_export]
    use super::train::Training;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Levels are asked for each time, since users set them at any time; DataFusion's many messages stay below.
        let logger = Logger::new(module.py(), Caching::Loggers)?.filter(LevelFilter::Info);
        // A second interpreter of the process finds it installed.
        let _ = logger.install();
        visit::end_at_exit(module)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
