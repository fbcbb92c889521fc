//! The plan node that calibrates: a batch of images at a time is scored and let go, and the model's file is replaced in one
//! step when the source has ended.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_datafusion_err, exec_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};
use wae_core::image::Pixels;
use wae_core::model::{calibration_memory, recalibrate};
use wae_core::{Error, ImageColumn, ModelFile};

use super::{CalibrateCall, NAME, row, schema};
use crate::error::Unreadable;
use crate::models;
use crate::models::running::{RunningGuard, Work};
use crate::scalar::image_reader::ImageReader;
use crate::table::source::{in_mini_batches, one_partition};
use crate::table::worker::{self, Stopped, Worker};

/// Bytes that the engine keeps of a row: its scores.
const BYTES_A_ROW: usize = 3 * size_of::<f32>();

/// Calibrates a model on the images of its child and yields one row.
#[derive(Debug)]
pub(super) struct WaeCalibrateExec {
    input: Arc<dyn ExecutionPlan>,
    call: CalibrateCall,
    properties: Arc<PlanProperties>,
}

impl WaeCalibrateExec {
    /// A calibration on the one column of `input`.
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, call: CalibrateCall) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input: one_partition(input), call, properties: Arc::new(properties) }
    }
}

impl DisplayAs for WaeCalibrateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaeCalibrateExec: model={}", self.call.model)
    }
}

impl ExecutionPlan for WaeCalibrateExec {
    fn name(&self) -> &str {
        "WaeCalibrateExec"
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
        Ok(Arc::new(Self::new(input, self.call.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return exec_err!("{NAME}: one partition expected, got partition {partition}");
        }
        let input = self.input.execute(0, in_mini_batches(&context, self.call.session.batch_size()))?;
        let memory = MemoryConsumer::new(NAME).register(context.memory_pool());
        let call = self.call.clone();
        Ok(worker::stream(NAME, self.schema(), input, move |worker| calibrate(&call, worker, memory)))
    }
}

/// Replaces the calibration in the model's file, and says so.
fn calibrate(call: &CalibrateCall, mut worker: Worker, memory: MemoryReservation) -> Result<(), Stopped> {
    let cancelled = Arc::clone(worker.cancelled());
    let running = RunningGuard::try_new(NAME, Work::Calibration, &call.model, &call.file, cancelled)?;
    let (file, sha256, _) = models::read_file(NAME, &call.model, &call.file, &call.session)?;
    let mut images = Images::new(call, &file, &mut worker, memory);
    let calibrated = recalibrate(&file, call.session.device(), images.by_ref());
    let (rows, skipped, stopped) = (images.rows, images.skipped, images.stopped.take());
    if let Some(stopped) = stopped {
        return Err(stopped);
    }
    let calibrated = calibrated.map_err(|e| worker.stopped(e))?;
    if rows == 0 {
        let from = if skipped == 0 { "rows".to_owned() } else { format!("image in its {skipped} rows") };
        return Err(exec_datafusion_err!("{NAME}: the source has no {from}").into());
    }
    // Another process may have trained the model anew: these scores are not of that one.
    if models::read_file(NAME, &call.model, &call.file, &call.session)?.1 != sha256 {
        let error = exec_datafusion_err!("{NAME}: model '{}' was replaced while it was calibrated", call.model);
        return Err(error.into());
    }
    models::write_file(NAME, &call.file, &calibrated)?;
    // Who reads the row may train or calibrate the model next.
    drop(running);
    worker.send(row(&call.model, rows, skipped, 1.0 / (rows + 1) as f64)?)
}

/// The images of a source as the engine takes them: some rows at a time, (N, H, W, C).
struct Images<'a> {
    reader: ImageReader<'a>,
    worker: &'a mut Worker,
    memory: MemoryReservation,
    /// The most rows of a mini-batch so far.
    largest: usize,
    batch: Option<(ImageColumn, Vec<usize>)>,
    /// Images that were read.
    rows: usize,
    /// Rows without a readable image.
    skipped: usize,
    /// Why there are no more images; the engine learns only that there are not.
    stopped: Option<Stopped>,
}

impl<'a> Images<'a> {
    fn new(call: &'a CalibrateCall, file: &'a ModelFile, worker: &'a mut Worker, memory: MemoryReservation) -> Self {
        let reader = ImageReader { function: NAME, model: &call.model, config: file.config(), options: &call.session };
        Self { reader, worker, memory, largest: 0, batch: None, rows: 0, skipped: 0, stopped: None }
    }

    /// The next images; `None` at the end of the source.
    fn read(&mut self) -> Result<Option<Pixels>, Stopped> {
        loop {
            let Some((column, rest)) = &mut self.batch else {
                let Some(batch) = self.worker.next_batch()? else { return Ok(None) };
                let shape = Some(self.reader.config.image());
                let column = ImageColumn::try_new(batch.schema().field(0), batch.column(0), shape);
                let column = column.map_err(|e| self.worker.stopped(e))?;
                let present: Vec<usize> = (0..column.len()).rev().filter(|row| !column.is_null(*row)).collect();
                self.skipped += column.len() - present.len();
                self.batch = Some((column, present));
                continue;
            };
            // The rows stand in reverse, so that those to be read next are at the end.
            let left = rest.len().saturating_sub(self.reader.options.batch_size());
            let rows: Vec<usize> = rest.drain(left..).rev().collect();
            if rows.is_empty() {
                self.batch = None;
                continue;
            }
            self.largest = self.largest.max(rows.len());
            let fixed = calibration_memory(self.reader.config, self.largest);
            self.memory.try_resize(fixed.saturating_add((self.rows + rows.len()) * BYTES_A_ROW))?;
            let (read, pixels) = self.reader.read(column, &rows, &mut Unreadable::default())?;
            self.skipped += rows.len() - read.len();
            self.rows += read.len();
            if !read.is_empty() {
                return Ok(Some(pixels));
            }
        }
    }
}

impl Iterator for Images<'_> {
    type Item = wae_core::Result<Pixels>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().map_or_else(
            |stopped| {
                self.stopped = Some(stopped);
                Some(Err(Error::Cancelled))
            },
            |images| images.map(Ok),
        )
    }
}
