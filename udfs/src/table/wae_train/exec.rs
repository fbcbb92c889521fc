//! The plan node that trains.
//!
//! The training runs on a worker thread ([`crate::table::worker`]) and looks once a batch whether it was dropped. The model is
//! saved before the last epoch's row is sent: whoever has read that row finds the model, and a query that stops earlier
//! (`LIMIT 2` of 20 epochs, Ctrl-C) leaves none, but the checkpoints that it was told to write (`save.rs`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_datafusion_err, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};

use super::collect::Memory;
use super::{NAME, TrainCall, report};
use crate::models::named::remove_leftovers;
use crate::models::running::{RunningGuard, Work};
use crate::table::source::{in_mini_batches, one_partition};
use crate::table::worker::{self, Stopped, Worker};

/// How often a training that was dropped is asked whether its thread has ended.
const POLL: Duration = Duration::from_millis(5);

/// Trains a model on the images of its child and yields a row an epoch.
#[derive(Debug)]
pub struct WaeTrainExec {
    input: Arc<dyn ExecutionPlan>,
    call: TrainCall,
    state: Arc<TrainState>,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

/// The progress of a training, as its plan node shows it.
#[derive(Debug, Default)]
pub(super) struct TrainState {
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
    /// A training on the one column of `input`.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, call: TrainCall) -> Self {
        let input = one_partition(input);
        // Rows come by epoch: known, `ORDER BY epoch` needs no sort, which would hold every row back until the last.
        let schema = report::schema();
        let by_epoch = PhysicalSortExpr::new_default(Arc::new(Column::new(schema.field(0).name(), 0)));
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, [[by_epoch]]),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Self { input, call, state: Arc::default(), metrics, properties: Arc::new(properties) }
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
        self.state.done.load(Ordering::Relaxed)
    }

    /// The epoch of the checkpoint that the training would go on from, if it were stopped now.
    pub fn checkpoint(&self) -> Option<usize> {
        Some(self.state.checkpoint.load(Ordering::Relaxed)).filter(|epoch| *epoch > 0)
    }

    /// Whether the model was written.
    pub fn is_saved(&self) -> bool {
        self.state.saved.load(Ordering::Acquire)
    }

    /// Whether the training's thread runs: after its query is dropped, it does until the batch is done.
    pub fn is_running(&self) -> bool {
        self.state.running.load(Ordering::Acquire)
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
        node.state = Arc::clone(&self.state);
        Ok(Arc::new(node))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return exec_err!("{NAME}: one partition expected, got partition {partition}");
        }
        let input = self.input.execute(0, in_mini_batches(&context, self.call.session.batch_size()))?;
        let training = Training {
            call: self.call.clone(),
            state: Arc::clone(&self.state),
            memory: Memory::new(&context, &self.metrics),
        };
        let running = Running::of(&self.state);
        Ok(worker::stream(NAME, self.schema(), input, move |worker| {
            let _running = running;
            training.run(worker)
        }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Says that the training's thread runs, until it is dropped.
struct Running(Arc<TrainState>);

impl Running {
    fn of(state: &Arc<TrainState>) -> Self {
        state.running.store(true, Ordering::Release);
        Self(Arc::clone(state))
    }
}

impl Drop for Running {
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
        let dataset = self.memory.read(&self.call, &mut worker)?;
        self.train(&worker, dataset, start, running)
    }
}
