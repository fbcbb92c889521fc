//! Work on the batches of a source, on a thread of its own.
//!
//! ```text
//! source ──batches──▶ async task ──▶ worker thread ──rows──▶ stream
//! ```
//!
//! So that decoding, training and scoring never occupy the async executor. Dropping the stream sets a flag that the
//! worker looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err, exec_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use wae_core::Error;

use crate::error::{Place, exec_error, row_error};

/// Batches of the source that may wait to be decoded.
const WAITING_BATCHES: usize = 2;
/// Rows that may wait to be read. The worker blocks beyond, so that a slow reader does not let it run ahead.
const WAITING_ROWS: usize = 1;

/// The worker thread's side of a scan: batches in, rows out.
#[derive(Debug)]
pub struct Worker {
    function: &'static str,
    /// The source's batches, then `None`. A channel that closes before that means that the query was dropped.
    batches: mpsc::Receiver<Option<RecordBatch>>,
    rows: mpsc::Sender<Result<RecordBatch>>,
    cancelled: Arc<AtomicBool>,
}

impl Worker {
    /// The next batch of the source; `None` at its end.
    pub(crate) fn next_batch(&mut self) -> Result<Option<RecordBatch>, Stopped> {
        self.batches.blocking_recv().ok_or(Stopped::Cancelled)
    }

    /// Hands rows to whoever reads the stream.
    pub(crate) fn send(&self, rows: RecordBatch) -> Result<(), Stopped> {
        self.rows.blocking_send(Ok(rows)).map_err(|_| Stopped::Cancelled)
    }

    /// The flag that is set once nobody reads the stream any more.
    pub(crate) fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }

    /// An error of the engine in a column of images as the reason to stop; `place` names a row.
    pub(crate) fn stopped_at(&self, error: Error, place: impl Fn(usize) -> Place) -> Stopped {
        match error {
            Error::Row { row, source } => Stopped::Failed(row_error(self.function, place(row), source)),
            error => self.stopped(error),
        }
    }

    /// An error of the engine as the reason to stop.
    pub(crate) fn stopped(&self, error: Error) -> Stopped {
        match error {
            Error::Cancelled => Stopped::Cancelled,
            error => Stopped::Failed(exec_error(self.function, &error)),
        }
    }
}

/// Why a worker ended early.
#[derive(Debug)]
pub enum Stopped {
    /// Nobody reads its rows any more.
    Cancelled,
    /// Something went wrong.
    Failed(DataFusionError),
}

impl From<DataFusionError> for Stopped {
    fn from(error: DataFusionError) -> Self {
        Self::Failed(error)
    }
}

/// The rows that `work` makes of a source's batches. The thread bears the function's name.
pub(crate) fn stream(
    function: &'static str,
    schema: SchemaRef,
    mut input: SendableRecordBatchStream,
    work: impl FnOnce(Worker) -> Result<(), Stopped> + Send + 'static,
) -> SendableRecordBatchStream {
    let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&schema), WAITING_ROWS);
    let cancelled = Arc::new(AtomicBool::new(false));
    let (batches, received) = mpsc::channel(WAITING_BATCHES);
    let worker = Worker { function, batches: received, rows: builder.tx(), cancelled: Arc::clone(&cancelled) };
    builder.spawn(async move {
        let finished = spawn(worker, work)?;
        while let Some(batch) = input.next().await {
            // The worker hangs up when it fails; its error comes out of `finished`.
            if batches.send(Some(batch?)).await.is_err() {
                break;
            }
        }
        drop(input);
        let _ = batches.send(None).await;
        finished.await.unwrap_or_else(|_| exec_err!("{function}: its thread ended without a result"))
    });
    // Dropped with the stream, at once, even where the runtime takes its time to drop the task.
    let guard = CancelOnDrop(cancelled);
    let stream = builder.build().inspect(move |_| {
        let _ = &guard;
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, stream))
}

fn spawn(
    worker: Worker,
    work: impl FnOnce(Worker) -> Result<(), Stopped> + Send + 'static,
) -> Result<oneshot::Receiver<Result<()>>> {
    let function = worker.function;
    let (sender, finished) = oneshot::channel();
    let work = move || {
        let result = match work(worker) {
            Err(Stopped::Failed(error)) => Err(error),
            Ok(()) | Err(Stopped::Cancelled) => Ok(()),
        };
        // Nobody listens any more if the query was dropped.
        let _ = sender.send(result);
    };
    thread::Builder::new()
        .name(function.to_owned())
        .spawn(work)
        .map_err(|e| exec_datafusion_err!("{function}: cannot start a thread: {e}"))?;
    Ok(finished)
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
