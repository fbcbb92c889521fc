//! Errors as Python raises them: with the text that SQL gives, and a class for what is wrong with a statement and one
//! for what went wrong while it ran.

use datafusion::arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

static PLAN_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static EXECUTION_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The exception for an error of DataFusion: `PlanError` where the statement, its arguments or its options are wrong,
/// `ExecutionError` for data, files and resources. An exception that a Python source raised comes back as it was.
pub(crate) fn python_error(error: &DataFusionError) -> PyErr {
    Python::attach(|py| {
        if let Some(raised) = raised(py, error) {
            return raised;
        }
        let (class, name) = match error.find_root() {
            DataFusionError::Plan(_)
            | DataFusionError::SQL(..)
            | DataFusionError::SchemaError(..)
            | DataFusionError::Configuration(_)
            | DataFusionError::NotImplemented(_) => (&PLAN_ERROR, "PlanError"),
            _ => (&EXECUTION_ERROR, "ExecutionError"),
        };
        match class.import(py, "datafusion_wae._errors", name) {
            Ok(class) => PyErr::from_type(class.clone(), (error.strip_backtrace(),)),
            Err(import) => import,
        }
    })
}

/// The exception that a Python source raised while it was read.
fn raised(py: Python<'_>, error: &DataFusionError) -> Option<PyErr> {
    match error.find_root() {
        DataFusionError::External(error) => error.downcast_ref::<PyErr>().map(|e| e.clone_ref(py)),
        _ => None,
    }
}

/// An error as a consumer of a C stream gets it. The interface carries text that ends with a NUL, so that none may be
/// in it.
pub(crate) fn stream_error(error: &DataFusionError) -> ArrowError {
    ArrowError::ExternalError(error.strip_backtrace().replace('\0', "\u{fffd}").into())
}

/// An exception in the place of an error of DataFusion.
pub(crate) fn external(error: PyErr) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
