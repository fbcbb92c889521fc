//! The plan node that trains.
//!
//! The training runs on a worker thread ([`crate::worker`]) and looks once a batch whether it was dropped. The model is saved before the last epoch's row is sent: whoever has
//! read that row finds the model, and a query that stops earlier (`LIMIT 2` of 20 epochs, Ctrl-C) leaves none.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
use wae_core::{Dataset, Trainer};

use super::collect::Memory;
use super::{NAME, TrainCall, report};
use crate::models;
use crate::models::running::{RunningGuard, Work};
use crate::source::{in_mini_batches, one_partition};
use crate::worker::{self, Stopped, Worker};

/// Trains a model on the images of its child and yields a row an epoch.
#[derive(Debug)]
pub struct WaeTrainExec {
    input: Arc<dyn ExecutionPlan>,
    call: TrainCall,
    done: Arc<AtomicUsize>,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
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
        Self { input, call, done: Arc::default(), metrics, properties: Arc::new(properties) }
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
        let input = self.input.execute(0, in_mini_batches(&context, self.call.session.batch_size()))?;
        let training = Training {
            call: self.call.clone(),
            done: Arc::clone(&self.done),
            memory: Memory::new(&context, &self.metrics),
        };
        Ok(worker::stream(NAME, self.schema(), input, move |worker| training.run(worker)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// What the training thread works with.
struct Training {
    call: TrainCall,
    done: Arc<AtomicUsize>,
    memory: Memory,
}

impl Training {
    fn run(mut self, mut worker: Worker) -> Result<(), Stopped> {
        let dir = self.call.file.store();
        dir.create().map_err(|e| exec_datafusion_err!("{NAME}: cannot create '{dir}' (wae.model_dir): {e}"))?;
        let key = self.call.file.key();
        let cancelled = Arc::clone(worker.cancelled());
        let running = RunningGuard::try_new(NAME, Work::Training, &self.call.model, key, cancelled)?;
        self.call.check_overwrite()?;
        let dataset = self.memory.read(&self.call, &mut worker)?;
        self.train(&worker, dataset, running)
    }

    /// Trains, and saves the model when the last epoch is done.
    fn train(&self, worker: &Worker, dataset: Dataset, running: RunningGuard) -> Result<(), Stopped> {
        let stopped = |error| worker.stopped(error);
        let mut trainer = Trainer::try_new(self.call.train.clone(), dataset).map_err(stopped)?;
        let mut running = Some(running);
        while let Some(report) = trainer.next_epoch(worker.cancelled()).map_err(stopped)? {
            self.done.store(report.epoch, Ordering::Relaxed);
            let row = report::batch(std::slice::from_ref(&report))?;
            if report.epoch < self.call.train.epochs {
                if let Some(running) = &running {
                    running.push(report);
                }
            } else {
                self.call.check_overwrite()?;
                models::write_file(NAME, &self.call.file, &trainer.model().map_err(stopped)?)?;
                // Who reads the last row may start the next training of this name.
                running = None;
            }
            worker.send(row)?;
        }
        Ok(())
    }
}
