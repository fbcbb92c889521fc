//! The plan node that trains.
//!
//! The training runs on a worker thread ([`crate::table::worker`]) and looks once a batch whether it was dropped. The
//! model is saved before the last epoch's row is sent: whoever has read that row finds the model, and a query that
//! stops earlier (`LIMIT 2` of 20 epochs, Ctrl-C) leaves none, but the checkpoints that it was told to write
//! (`save.rs`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::datatypes::{Field, SchemaRef};
use datafusion::common::{Result, exec_datafusion_err, plan_err};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;

use super::collect::Memory;
use super::{NAME, TrainCall, report};
use crate::error::plan_error;
use crate::models::named::remove_leftovers;
use crate::models::running::{RunningGuard, Work};
use crate::table::source::Columns;
use crate::table::work::{Run, SourceWork, WorkExec};
use crate::table::worker::{Stopped, Worker};

/// How often a training that was dropped is asked whether its thread has ended.
const POLL: Duration = Duration::from_millis(5);

/// Trains a model on the images of its child and yields a row an epoch.
pub type WaeTrainExec = WorkExec<TrainCall>;

/// The progress of a training, as its plan node shows it.
#[derive(Debug, Default)]
pub struct TrainState {
    /// Epochs done.
    pub(super) done: AtomicUsize,
    /// Epochs of the last checkpoint; 0 for none.
    pub(super) checkpoint: AtomicUsize,
    /// Whether the model was written.
    pub(super) saved: AtomicBool,
    /// Whether the training's thread runs.
    running: AtomicBool,
}

impl TrainState {
    /// Says that a training goes on from a checkpoint of so many epochs.
    fn resumed(&self, epochs: usize) {
        self.done.store(epochs, Ordering::Relaxed);
        self.checkpoint.store(epochs, Ordering::Relaxed);
    }
}

impl WaeTrainExec {
    /// The model's name.
    pub fn model(&self) -> &str {
        &self.work().model
    }

    /// The number of epochs asked for.
    pub fn epochs(&self) -> usize {
        self.work().train.epochs
    }

    /// The number of epochs done so far.
    pub fn epochs_done(&self) -> usize {
        self.progress().done.load(Ordering::Relaxed)
    }

    /// The epoch of the checkpoint that the training would go on from, if it were stopped now.
    pub fn checkpoint(&self) -> Option<usize> {
        Some(self.progress().checkpoint.load(Ordering::Relaxed)).filter(|epoch| *epoch > 0)
    }

    /// Whether the model was written.
    pub fn is_saved(&self) -> bool {
        self.progress().saved.load(Ordering::Acquire)
    }

    /// Whether the training's thread runs: after its query is dropped, it does until the batch is done.
    pub fn is_running(&self) -> bool {
        self.progress().running.load(Ordering::Acquire)
    }

    /// Waits until the training's thread has ended.
    pub async fn stopped(&self) {
        while self.is_running() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// The training in a plan, if there is one.
    pub fn find(plan: &Arc<dyn ExecutionPlan>) -> Option<&Self> {
        plan.downcast_ref::<Self>().or_else(|| plan.children().into_iter().find_map(Self::find))
    }
}

impl SourceWork for TrainCall {
    const FUNCTION: &'static str = NAME;
    const NODE: &'static str = "WaeTrainExec";
    const EMISSION: EmissionType = EmissionType::Incremental;

    type Progress = TrainState;

    fn schema() -> SchemaRef {
        report::schema()
    }

    /// Rows come by epoch: known, `ORDER BY epoch` needs no sort, which would hold every row back until the last.
    fn ordering() -> Option<PhysicalSortExpr> {
        let schema = report::schema();
        Some(PhysicalSortExpr::new_default(Arc::new(Column::new(schema.field(0).name(), 0))))
    }

    fn batch_size(&self) -> usize {
        self.session.batch_size()
    }

    fn check(&self) -> Result<()> {
        TrainCall::check(self)
    }

    fn check_images(&self, images: &Field) -> Result<()> {
        let columns = Columns::trained_on(&self.train);
        let image_type = columns.read(images).or_else(|message| plan_err!("{NAME}: {message}"))?;
        let image_type = match self.train.layout {
            Some(order) => image_type.in_order(order).map_err(|e| plan_error(NAME, &e))?,
            None => image_type,
        };
        image_type.check_order().map_err(|e| plan_error(NAME, &e))?;
        if let Err(e) = image_type.check_flat(None) {
            return plan_err!("{NAME}: {e}; vectors of numbers are trained on with input => 'features'");
        }
        let Some(shape) = image_type.shape() else { return Ok(()) };
        self.check_colours(shape)?;
        self.check_init(shape)
    }

    fn run(&self, progress: &Arc<TrainState>, context: &TaskContext, metrics: &ExecutionPlanMetricsSet) -> Run {
        let memory = Memory::new(context, metrics);
        let training = Training { call: self.clone(), state: Arc::clone(progress), memory };
        let running = RunningThread::of(progress);
        Box::new(move |worker| {
            let _running = running;
            training.run(worker)
        })
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model={}, epochs={}, seed={}", self.model, self.train.epochs, self.train.seed)?;
        self.describe_backbone(f)
    }
}

/// Says that the training's thread runs, until it is dropped.
struct RunningThread(Arc<TrainState>);

impl RunningThread {
    fn of(state: &Arc<TrainState>) -> Self {
        state.running.store(true, Ordering::Release);
        Self(Arc::clone(state))
    }
}

impl Drop for RunningThread {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}

/// A training, as its thread takes it.
pub(super) struct Training {
    pub(super) call: TrainCall,
    pub(super) state: Arc<TrainState>,
    memory: Memory,
}

impl Training {
    fn run(mut self, mut worker: Worker) -> Result<(), Stopped> {
        let dir = self.call.file.store();
        dir.create().map_err(|e| exec_datafusion_err!("{NAME}: cannot create '{dir}' (wae.model_dir): {e}"))?;
        let cancelled = Arc::clone(worker.cancelled());
        let running = RunningGuard::try_new(NAME, Work::Training, &self.call.model, &self.call.file, cancelled)?;
        remove_leftovers(NAME, &self.call.model, &self.call.file)?;
        self.call.check()?;
        let start = self.call.start()?;
        self.state.resumed(start.epochs());
        self.call.read_weights()?;
        let dataset = self.memory.read(&self.call, &mut worker)?;
        self.train(&worker, dataset, start, running)
    }
}
