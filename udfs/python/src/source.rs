//! Tables that are Python objects: whatever gives an Arrow C stream, and pyarrow's data sets.
//!
//! # How often an object can be read
//! A query may read a table twice, and a session may run many queries. A table or a frame gives a new stream each time;
//! a reader of batches gives its rows once, and afterwards, without a word, none. The interface does not say which an
//! object is: one that knows its number of rows (`__len__`) holds them, and is taken for a table; any other is read
//! once, and a second reading is an error.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ffi::FFI_ArrowSchema;
use arrow::ffi_stream::{ArrowArrayStreamReader, FFI_ArrowArrayStream};
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::PartitionStream;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use tokio::sync::mpsc::Sender;

use crate::error::external;
use crate::visit::Visit;

/// Batches that may wait for the query.
const WAITING_BATCHES: usize = 2;

/// A Python object as a table.
pub(crate) struct PythonTable {
    source: Arc<Source>,
    schema: SchemaRef,
}

/// The object, by the way it is read.
enum Source {
    /// Gives a stream of its rows whenever it is asked.
    Table(Py<PyAny>),
    /// A data set of pyarrow's, of which only the columns that a query names are read.
    Dataset(Py<PyAny>),
    /// A stream, until it is read.
    Once { name: String, stream: Mutex<Option<ArrowArrayStreamReader>> },
}

impl PythonTable {
    /// The table of an object; `name` is for messages.
    ///
    /// # Errors
    /// `TypeError` for an object without Arrow data.
    pub(crate) fn try_new(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if object.hasattr("__arrow_c_stream__")? {
            let stream = open(object)?;
            let schema = stream.schema();
            let source = if object.hasattr("__len__")? {
                Source::Table(object.clone().unbind())
            } else {
                Source::Once { name: name.to_owned(), stream: Mutex::new(Some(stream)) }
            };
            return Ok(Self { source: Arc::new(source), schema });
        }
        if object.hasattr("scanner")? && object.hasattr("schema")? {
            let schema = schema(&object.getattr("schema")?)?;
            return Ok(Self { source: Arc::new(Source::Dataset(object.clone().unbind())), schema });
        }
        Err(PyTypeError::new_err(format!(
            "{name}: expected a query, or Arrow data such as a pyarrow table or a polars frame, got {}",
            object.get_type().name()?
        )))
    }
}

impl fmt::Debug for PythonTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonTable").field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for PythonTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        let rows = Rows { source: Arc::clone(&self.source), columns, schema: Arc::clone(&schema) };
        StreamingTable::try_new(schema, vec![Arc::new(rows)])?.scan(state, None, filters, limit).await
    }
}

/// Some columns of a source, as a partition of a plan.
#[derive(Clone)]
struct Rows {
    source: Arc<Source>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonRows").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Reads on a thread on which waiting for Python holds up nobody else.
    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), WAITING_BATCHES);
        let (rows, sender, size) = (self.clone(), builder.tx(), context.session_config().batch_size());
        builder.spawn_blocking(move || rows.send(&sender, size));
        builder.build()
    }
}

impl Rows {
    /// Sends the rows, `size` at a time, until they end or nobody listens.
    fn send(&self, sender: &Sender<Result<RecordBatch>>, size: usize) -> Result<()> {
        let (mut reader, columns) = visit(|| self.open())??;
        while let Some(batch) = reader.next()? {
            // A table may hold all its rows in one batch, which a LIMIT would wait for.
            for start in (0..batch.num_rows()).step_by(size) {
                let rows = batch.slice(start, size.min(batch.num_rows() - start));
                let rows = columns.map_or_else(|| Ok(rows.clone()), |columns| rows.project(columns))?;
                if sender.blocking_send(Ok(rows.with_schema(Arc::clone(&self.schema))?)).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The stream to read, and the columns to take of it; `None` if it has no others.
    fn open(&self) -> Result<(Reader, Option<&[usize]>)> {
        match self.source.as_ref() {
            Source::Table(object) => {
                let reader = Python::attach(|py| open(object.bind(py))).map_err(external)?;
                Ok((Reader(Some(reader)), Some(&self.columns)))
            }
            Source::Dataset(object) => {
                let reader = Python::attach(|py| self.open_dataset(object.bind(py))).map_err(external)?;
                Ok((Reader(Some(reader)), None))
            }
            Source::Once { name, stream } => match stream.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(reader) => Ok((Reader(Some(reader)), Some(&self.columns))),
                None => exec_err!(
                    "{name} is a stream, which can be read once, and it was: register a table, such as a pyarrow.Table"
                ),
            },
        }
    }

    fn open_dataset(&self, dataset: &Bound<'_, PyAny>) -> PyResult<ArrowArrayStreamReader> {
        let names: Vec<_> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        let arguments = PyDict::new(dataset.py());
        arguments.set_item("columns", names)?;
        open(&dataset.call_method("scanner", (), Some(&arguments))?.call_method0("to_reader")?)
    }
}

/// A stream whose batches, and whose end, may run Python's code.
struct Reader(Option<ArrowArrayStreamReader>);

impl Reader {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(reader) = &mut self.0 else { return Ok(None) };
        Ok(visit(|| reader.next())?.transpose()?)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let reader = self.0.take();
        match Visit::begin() {
            Some(_visit) => drop(reader),
            // The process ends; to leave the stream as it is does no harm.
            None => std::mem::forget(reader),
        }
    }
}

/// Runs Python's code on this thread.
fn visit<T>(run: impl FnOnce() -> T) -> Result<T> {
    match Visit::begin() {
        Some(_visit) => Ok(run()),
        None => exec_err!("the interpreter shuts down"),
    }
}

/// The Arrow stream of an object.
fn open(object: &Bound<'_, PyAny>) -> PyResult<ArrowArrayStreamReader> {
    let capsule = object.call_method0("__arrow_c_stream__")?;
    let capsule = capsule.cast::<PyCapsule>()?;
    let pointer = capsule.pointer_checked(Some(c"arrow_array_stream"))?.cast::<FFI_ArrowArrayStream>();
    // SAFETY: a capsule of this name holds an ArrowArrayStream (Arrow's PyCapsule interface), which belongs to whoever
    // takes it out; a released one is left behind, so that the capsule frees nothing twice.
    let stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.as_ptr()) };
    ArrowArrayStreamReader::try_new(stream).map_err(invalid)
}

/// The schema that an object of pyarrow's describes.
fn schema(object: &Bound<'_, PyAny>) -> PyResult<SchemaRef> {
    let capsule = object.call_method0("__arrow_c_schema__")?;
    let capsule = capsule.cast::<PyCapsule>()?;
    let pointer = capsule.pointer_checked(Some(c"arrow_schema"))?.cast::<FFI_ArrowSchema>();
    // SAFETY: a capsule of this name holds an ArrowSchema, which lives as long as the capsule does; it is only looked
    // at.
    let schema = Schema::try_from(unsafe { pointer.as_ref() }).map_err(invalid)?;
    Ok(Arc::new(schema))
}

fn invalid(error: ArrowError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
