//! A training as an iterator of epochs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion_wae::WaeTrainExec;
use futures::StreamExt;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyDict;

use crate::error::python_error;
use crate::runtime::{runtime, wait};

/// A training: an iterator of its epochs, each a dict. It begins with the first epoch that is asked for.
#[pyclass(module = "datafusion_wae._internal", frozen)]
pub(crate) struct Training {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    state: Mutex<State>,
}

enum State {
    Planned,
    Running(SendableRecordBatchStream),
    /// All epochs are done, or it failed, or it was stopped.
    Ended,
}

impl Training {
    pub(crate) fn new(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Self {
        Self { plan, context, state: Mutex::new(State::Planned) }
    }

    /// Its stage. A second thread that asks waits without the interpreter's lock, which the first needs.
    fn state(&self, py: Python<'_>) -> MutexGuard<'_, State> {
        self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    /// The next row; `None` after the last. Whatever goes wrong on the way, the training has ended then.
    fn next_row(&self, state: &mut State) -> PyResult<Option<RecordBatch>> {
        let mut stream = match std::mem::replace(state, State::Ended) {
            State::Planned => self.start()?,
            State::Running(stream) => stream,
            State::Ended => return Ok(None),
        };
        let (row, stream) = wait(async move { (stream.next().await, stream) })?;
        let row = row.transpose().map_err(|e| python_error(&e))?;
        if row.is_some() {
            *state = State::Running(stream);
        }
        Ok(row)
    }

    /// Waits until its thread has ended, which it does with the batch.
    fn stopped(&self) -> PyResult<()> {
        let plan = Arc::clone(&self.plan);
        wait(async move {
            if let Some(training) = WaeTrainExec::find(&plan) {
                training.stopped().await;
            }
        })
    }

    fn start(&self) -> PyResult<SendableRecordBatchStream> {
        let _guard = runtime()?.enter();
        execute_stream(Arc::clone(&self.plan), Arc::clone(&self.context)).map_err(|e| python_error(&e))
    }
}

#[pymethods]
impl Training {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    /// Trains an epoch. After an exception, Ctrl-C's too, the training has ended, and so has its thread.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let row = self.next_row(&mut self.state(py));
        if row.is_err() {
            self.stopped()?;
        }
        row?.map(|row| epoch(py, &row)).transpose()
    }

    /// The number of epochs asked for.
    #[getter]
    fn epochs(&self) -> usize {
        WaeTrainExec::find(&self.plan).map_or(0, WaeTrainExec::epochs)
    }

    /// Stops, and returns when the batch is done. Saves nothing more.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        *self.state(py) = State::Ended;
        self.stopped()
    }
}

/// The row of an epoch as a dict, by the names of the columns.
fn epoch<'py>(py: Python<'py>, row: &RecordBatch) -> PyResult<Bound<'py, PyDict>> {
    let epoch = PyDict::new(py);
    for (field, column) in row.schema_ref().fields().iter().zip(row.columns()) {
        let name = field.name();
        match ScalarValue::try_from_array(column, 0).map_err(|e| python_error(&e))? {
            ScalarValue::Int64(value) => epoch.set_item(name, value)?,
            ScalarValue::Float64(value) => epoch.set_item(name, value)?,
            other => epoch.set_item(name, other.to_string())?,
        }
    }
    Ok(epoch)
}
