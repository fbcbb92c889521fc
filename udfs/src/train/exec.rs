//! The plan node that trains.
//!
//! ```text
//! source ──batches──▶ async task ──▶ worker thread: decode, train, save ──rows──▶ stream
//! ```
//!
//! The worker is a thread of its own, so that training never occupies the async executor. Dropping the stream sets a
//! flag that the trainer looks at once a batch. The model is saved before the last epoch's row is sent: whoever has
//! read that row finds the model, and a query that stops earlier (`LIMIT 2` of 20 epochs, Ctrl-C) leaves none.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use arrow::array::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err, exec_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalSortExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, Partitioning, PhysicalExpr,
    PlanProperties,
};
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use wae_core::{Dataset, DatasetBuilder, Error, ImageColumn, Trainer};

use super::{NAME, TrainCall, report};
use crate::error::exec_error;
use crate::models::running::{self, RunningGuard};
use crate::options::OnError;

/// Batches of the source that may wait to be decoded.
const WAITING_BATCHES: usize = 2;
/// Rows that may wait to be read. The trainer blocks beyond, so that a slow reader does not let it run ahead.
const WAITING_ROWS: usize = 1;

/// Trains a model on the images of its child and yields a row an epoch.
#[derive(Debug)]
pub struct WaeTrainExec {
    input: Arc<dyn ExecutionPlan>,
    call: TrainCall,
    done: Arc<AtomicUsize>,
    properties: Arc<PlanProperties>,
}

impl WaeTrainExec {
    /// A training on the one column of `input`.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, call: TrainCall) -> Self {
        let input = if input.output_partitioning().partition_count() > 1 {
            Arc::new(CoalescePartitionsExec::new(input))
        } else {
            input
        };
        // Rows come by epoch: known, `ORDER BY epoch` needs no sort, which would hold every row back until the last.
        let schema = report::schema();
        let by_epoch = PhysicalSortExpr::new_default(Arc::new(Column::new(schema.field(0).name(), 0)));
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, [[by_epoch]]),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { input, call, done: Arc::default(), properties: Arc::new(properties) }
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.call.model
    }

    /// The number of epochs asked for.
    pub fn epochs(&self) -> usize {
        self.call.train.epochs
    }

    /// The number of epochs done so far.
    pub fn epochs_done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }
}

impl DisplayAs for WaeTrainExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let train = &self.call.train;
        write!(f, "WaeTrainExec: model={}, epochs={}, seed={}", self.call.model, train.epochs, train.seed)
    }
}

impl ExecutionPlan for WaeTrainExec {
    fn name(&self) -> &str {
        "WaeTrainExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let count = children.len();
        let Some(input) = children.pop().filter(|_| count == 1) else {
            return exec_err!("{NAME}: one source expected, got {count}");
        };
        let mut node = Self::new(input, self.call.clone());
        node.done = Arc::clone(&self.done);
        Ok(Arc::new(node))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return exec_err!("{NAME}: one partition expected, got partition {partition}");
        }
        let mut input = self.input.execute(0, Arc::clone(&context))?;
        let mut builder = RecordBatchReceiverStream::builder(self.schema(), WAITING_ROWS);
        let cancelled = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            call: self.call.clone(),
            rows: builder.tx(),
            done: Arc::clone(&self.done),
            cancelled: Arc::clone(&cancelled),
            memory: MemoryConsumer::new(NAME).register(context.memory_pool()),
        };
        builder.spawn(async move {
            let (batches, received) = mpsc::channel(WAITING_BATCHES);
            let finished = worker.spawn(received)?;
            while let Some(batch) = input.next().await {
                // The worker hangs up when it fails; its error comes out of `finished`.
                if batches.send(Some(batch?)).await.is_err() {
                    break;
                }
            }
            drop(input);
            let _ = batches.send(None).await;
            finished.await.unwrap_or_else(|_| exec_err!("{NAME}: the training thread ended without a result"))
        });
        // Dropped with the stream, at once, even where the runtime takes its time to drop the task.
        let guard = CancelOnDrop(cancelled);
        let stream = builder.build().inspect(move |_| {
            let _ = &guard;
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the training thread works with.
struct Worker {
    call: TrainCall,
    rows: mpsc::Sender<Result<RecordBatch>>,
    done: Arc<AtomicUsize>,
    cancelled: Arc<AtomicBool>,
    memory: MemoryReservation,
}

/// The source's batches, then `None`. A channel that closes before that means that the query was dropped.
type Batches = mpsc::Receiver<Option<RecordBatch>>;

impl Worker {
    fn spawn(self, batches: Batches) -> Result<oneshot::Receiver<Result<()>>> {
        let (sender, finished) = oneshot::channel();
        let work = move || {
            let result = match self.run(batches) {
                Err(WorkerError::Cancelled) => Ok(()),
                Err(WorkerError::Failed(error)) => Err(error),
                Ok(()) => Ok(()),
            };
            // Nobody listens any more if the query was dropped.
            let _ = sender.send(result);
        };
        thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(work)
            .map_err(|e| exec_datafusion_err!("{NAME}: cannot start a thread: {e}"))?;
        Ok(finished)
    }

    fn run(self, batches: Batches) -> Result<(), WorkerError> {
        if let Some(dir) = self.call.path.parent() {
            let failed = |e| exec_datafusion_err!("{NAME}: cannot create '{}' (wae.model_dir): {e}", dir.display());
            fs::create_dir_all(dir).map_err(failed)?;
        }
        let key = running::key(&self.call.path);
        let running = RunningGuard::try_new(NAME, &self.call.model, key, Arc::clone(&self.cancelled))?;
        self.call.check_overwrite()?;
        let dataset = self.read(batches)?;
        self.train(dataset, running)
    }

    /// Decodes the source.
    fn read(&self, mut batches: Batches) -> Result<Dataset, WorkerError> {
        let session = &self.call.session;
        let skip = session.on_error() == OnError::Null;
        let mut builder = DatasetBuilder::new(&self.call.train, session.limits(), skip);
        let mut rows = 0;
        loop {
            let batch = match batches.blocking_recv() {
                Some(Some(batch)) => batch,
                Some(None) => break,
                None => return Err(WorkerError::Cancelled),
            };
            let column = ImageColumn::try_new(batch.schema().field(0), batch.column(0), None)?;
            builder.push(&column)?;
            rows += column.len();
            self.memory.try_resize(builder.memory())?;
        }
        if rows == 0 {
            return Err(exec_datafusion_err!("{NAME}: the source has no rows").into());
        }
        Ok(builder.finish()?)
    }

    /// Trains, and saves the model when the last epoch is done.
    fn train(&self, dataset: Dataset, running: RunningGuard) -> Result<(), WorkerError> {
        let mut trainer = Trainer::try_new(self.call.train.clone(), dataset)?;
        let mut running = Some(running);
        while let Some(report) = trainer.next_epoch(&self.cancelled)? {
            self.done.store(report.epoch, Ordering::Relaxed);
            let row = report::batch(std::slice::from_ref(&report))?;
            if report.epoch < self.call.train.epochs {
                if let Some(running) = &running {
                    running.push(report);
                }
            } else {
                self.call.check_overwrite()?;
                trainer.model()?.write(&self.call.path)?;
                log::info!("{NAME}: wrote {}", self.call.path.display());
                // Who reads the last row may start the next training of this name.
                running = None;
            }
            if self.rows.blocking_send(Ok(row)).is_err() {
                return Err(WorkerError::Cancelled);
            }
        }
        Ok(())
    }
}

/// Why a training ended early.
enum WorkerError {
    /// Nobody reads its rows any more.
    Cancelled,
    /// Something went wrong.
    Failed(DataFusionError),
}

impl From<DataFusionError> for WorkerError {
    fn from(error: DataFusionError) -> Self {
        Self::Failed(error)
    }
}

impl From<Error> for WorkerError {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Self::Cancelled,
            error => Self::Failed(exec_error(NAME, &error)),
        }
    }
}
