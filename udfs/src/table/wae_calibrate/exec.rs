//! The plan node that calibrates: a batch of images at a time is scored and let go, and the model's file is replaced in
//! one step when the source has ended.

use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, SchemaRef};
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use wae_core::image::Pixels;
use wae_core::model::{calibration_memory, recalibrate};
use wae_core::{Error, ImageColumn};

use super::{CalibrateCall, NAME, row, schema};
use crate::error::Unreadable;
use crate::models::running::{RunningGuard, Work};
use crate::models::{self, LoadedModel};
use crate::scalar::image_argument::{check_image, check_layout, read_for};
use crate::scalar::image_reader::ImageReader;
use crate::table::source::paths;
use crate::table::work::{Run, SourceWork};
use crate::table::worker::{Stopped, Worker};

/// Bytes that the engine keeps of a row: its scores.
const BYTES_A_ROW: usize = 3 * size_of::<f32>();

impl SourceWork for CalibrateCall {
    const FUNCTION: &'static str = NAME;
    const NODE: &'static str = "WaeCalibrateExec";
    const EMISSION: EmissionType = EmissionType::Final;

    type Progress = ();

    fn schema() -> SchemaRef {
        schema()
    }

    fn batch_size(&self) -> usize {
        self.session.batch_size()
    }

    fn check_images(&self, images: &Field) -> Result<()> {
        let model = models::load(NAME, &self.model, &self.session)?;
        check_image(NAME, images, Some(&model))?;
        check_layout(NAME, images, Some(model.wae().config()))
    }

    fn run(&self, _: &Arc<()>, context: &TaskContext, _: &ExecutionPlanMetricsSet) -> Run {
        let memory = MemoryConsumer::new(NAME).register(context.memory_pool());
        let call = self.clone();
        Box::new(move |worker| calibrate(&call, worker, memory))
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model={}", self.model)
    }
}

/// Replaces the calibration in the model's file, and says so.
fn calibrate(call: &CalibrateCall, mut worker: Worker, memory: MemoryReservation) -> Result<(), Stopped> {
    let cancelled = Arc::clone(worker.cancelled());
    let running = RunningGuard::try_new(NAME, Work::Calibration, &call.model, &call.file, cancelled)?;
    let (file, sha256, _) = models::read_file(NAME, &call.model, &call.file, &call.session)?;
    let loaded = models::load(NAME, &call.model, &call.session)?;
    if loaded.sha256() != sha256 {
        return Err(replaced(&call.model).into());
    }
    let mut images = Images::new(call, &loaded, &mut worker, memory);
    let calibrated = recalibrate(&file, call.session.device(), images.by_ref());
    let rows = images.rows;
    let skipped = images.skipped;
    if let Some(stopped) = images.stopped.take() {
        return Err(stopped);
    }
    let calibrated = calibrated.map_err(|e| worker.stopped(e))?;
    if rows == 0 {
        let from = if skipped == 0 { "rows".to_owned() } else { format!("image in its {skipped} rows") };
        return Err(exec_datafusion_err!("{NAME}: the source has no {from}").into());
    }
    // Another process may have trained the model anew: these scores are not of that one.
    if models::read_version(NAME, &call.model, &call.file, &call.session)? != sha256 {
        return Err(replaced(&call.model).into());
    }
    models::write_file(NAME, &call.file, &calibrated)?;
    // Who reads the row may train or calibrate the model next.
    drop(running);
    worker.send(row(&call.model, rows, skipped, 1.0 / (rows + 1) as f64)?)
}

fn replaced(model: &str) -> DataFusionError {
    exec_datafusion_err!("{NAME}: model '{model}' was replaced while it was calibrated")
}

/// The images of a source as the engine takes them: some rows at a time, (N, H, W, C).
struct Images<'a> {
    reader: ImageReader<'a>,
    worker: &'a mut Worker,
    memory: MemoryReservation,
    /// The most rows of a mini-batch so far.
    largest: usize,
    batch: Option<(ImageColumn, Option<ArrayRef>, Vec<usize>)>,
    /// Images that were read.
    rows: usize,
    /// Rows without a readable image.
    skipped: usize,
    /// Why there are no more images; the engine learns only that there are not.
    stopped: Option<Stopped>,
}

impl<'a> Images<'a> {
    fn new(call: &'a CalibrateCall, model: &'a LoadedModel, worker: &'a mut Worker, memory: MemoryReservation) -> Self {
        let options = &call.session;
        let reader = ImageReader {
            function: NAME,
            model: &call.model,
            config: model.wae().config(),
            whitening: model.wae().whitening(),
            extractor: model.wae().extractor(),
            options,
            paths: None,
        };
        Self { reader, worker, memory, largest: 0, batch: None, rows: 0, skipped: 0, stopped: None }
    }

    /// The next images; `None` at the end of the source.
    fn read(&mut self) -> Result<Option<Pixels>, Stopped> {
        loop {
            let Some((column, paths, rest)) = &mut self.batch else {
                let Some(batch) = self.worker.next_batch()? else { return Ok(None) };
                let column = read_for(self.reader.config, batch.schema().field(0), batch.column(0));
                let column = column.map_err(|e| self.worker.stopped(e))?;
                let present: Vec<usize> = (0..column.len()).rev().filter(|row| !column.is_null(*row)).collect();
                self.skipped += column.len() - present.len();
                self.batch = Some((column, paths(&batch), present));
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
            let network = self.reader.extractor.map_or(0, |extractor| {
                extractor.working_memory(self.largest).saturating_add(extractor.backbone().memory())
            });
            let fixed = calibration_memory(self.reader.config, self.largest).saturating_add(network);
            self.memory.try_resize(fixed.saturating_add((self.rows + rows.len()) * BYTES_A_ROW))?;
            let reader = ImageReader { paths: paths.as_ref(), ..self.reader };
            let mut unreadable = Unreadable::default();
            let (read, pixels) = reader.read(column, &rows, &mut unreadable)?;
            unreadable.warn(NAME, rows.len(), Some(reader.model));
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
