//! The rows of a statement, computed when they are read.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ffi::FFI_ArrowSchema;
use arrow::ffi_stream::FFI_ArrowArrayStream;
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::Result;
use datafusion::dataframe::DataFrame;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;
use pyo3::exceptions::{PyKeyboardInterrupt, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::error::{python_error, stream_error};
use crate::runtime::wait;

/// Rows of a statement, computed whenever they are read.
///
/// Anything that takes Arrow streams takes a query: `pyarrow.table(query)`, `polars.DataFrame(query)`,
/// `pandas.DataFrame.from_arrow(query)`, DuckDB by the variable's name.
#[pyclass(module = "datafusion_wae", frozen)]
pub(crate) struct Query {
    pub(crate) frame: DataFrame,
    schema: SchemaRef,
}

impl Query {
    pub(crate) fn new(frame: DataFrame, schema: SchemaRef) -> Self {
        Self { frame, schema }
    }

    /// Rows as a table with a frame; of no rows, the names of its columns.
    fn table(&self, rows: &[RecordBatch]) -> Result<String> {
        let empty = [RecordBatch::new_empty(Arc::clone(&self.schema))];
        let rows = if rows.is_empty() { &empty[..] } else { rows };
        let options = FormatOptions::default();
        let rows = rows.iter().map(|rows| datafusion_wae::table_batch(rows, &options));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        Ok(pretty_format_batches(&rows)?.to_string())
    }

    /// Starts to compute.
    fn stream(&self) -> PyResult<Rows> {
        let stream = wait(self.frame.clone().execute_stream())?.map_err(|e| python_error(&e))?;
        Ok(Rows { schema: stream.schema(), stream: Some(stream) })
    }
}

#[pymethods]
impl Query {
    /// The rows as an Arrow C stream. Each call computes them anew.
    ///
    /// The rows have the query's types whatever `requested_schema` says, as the interface allows.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        drop(requested_schema);
        let stream = FFI_ArrowArrayStream::new(Box::new(self.stream()?));
        PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
    }

    /// The columns as an Arrow C schema, as `pyarrow.schema(query)` takes it. Computes nothing.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.schema.as_ref());
        let schema = schema.map_err(|e| PyValueError::new_err(e.to_string()))?;
        PyCapsule::new_with_value(py, schema, c"arrow_schema")
    }

    /// Computes the first rows and prints them as a table, long lists and binary values cut.
    #[pyo3(signature = (limit=20))]
    fn show(&self, py: Python<'_>, limit: usize) -> PyResult<()> {
        let frame = self.frame.clone();
        // What is not a query of rows takes no LIMIT.
        let whole = matches!(frame.logical_plan(), LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
        let frame = if whole { Ok(frame) } else { frame.limit(0, Some(limit)) };
        let rows = wait(async move { frame?.collect().await });
        let table = rows?.and_then(|rows| self.table(&rows)).map_err(|e| python_error(&e))?;
        py.import("builtins")?.getattr("print")?.call1((table,))?;
        Ok(())
    }

    fn __repr__(&self) -> String {
        let columns: Vec<_> = self.schema.fields().iter().map(|f| format!("{}: {}", f.name(), f.data_type())).collect();
        format!("<datafusion_wae.Query ({})>", columns.join(", "))
    }
}

/// The rows of a running query as a consumer of the C stream reads them: waiting, on the consumer's thread.
struct Rows {
    schema: SchemaRef,
    /// `None` after the last row, and after an error: what follows one is not defined.
    stream: Option<SendableRecordBatchStream>,
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut stream = self.stream.take()?;
        match wait(async move { (stream.next().await, stream) }) {
            Ok((Some(Ok(batch)), stream)) => {
                self.stream = Some(stream);
                Some(Ok(batch))
            }
            Ok((Some(Err(error)), _)) => Some(Err(stream_error(&error))),
            Ok((None, _)) => None,
            Err(interrupt) => Some(Err(interrupted(&interrupt))),
        }
    }
}

impl RecordBatchReader for Rows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// The exception of a signal's handler as text, which is all that the C stream can say. Ctrl-C is raised once more for
/// Python, which sees it after the consumer's own exception, so that it is not lost on who catches that one.
fn interrupted(raised: &PyErr) -> ArrowError {
    let text = raised.to_string();
    let _ = Python::try_attach(|py| {
        if raised.is_instance_of::<PyKeyboardInterrupt>(py) {
            // SAFETY: the thread is attached to the interpreter; the call sets a flag.
            unsafe { pyo3::ffi::PyErr_SetInterrupt() };
        }
    });
    ArrowError::ExternalError(text.replace('\0', "\u{fffd}").into())
}
