//! Reading the source of a training: images are decoded as they come and kept in memory while the query's `MemoryPool`
//! grants it, then in a temporary file of its `DiskManager`. Both are given back when the training ends, however it
//! ends.

use std::io::{self, Write};
use std::sync::Arc;

use datafusion::common::{DataFusionError, exec_datafusion_err, resources_datafusion_err};
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SpillWriter, TaskContext};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, SpillMetrics};
use wae_core::config::InputChoice;
use wae_core::{Dataset, DatasetBuilder, Error, ImageColumn, ImageShape, Resources, SpillFile, TrainOptions};

use super::{NAME, TrainCall};
use crate::error::Place;
use crate::options::OnError;
use crate::table::source::paths;
use crate::table::worker::{Stopped, Worker};

/// The metric of images that passed a pretrained network.
const IMAGES_SEEN: &str = "images_seen";

/// The memory that a training was granted: for its network until it ends, and for its images, which may take a file
/// instead.
#[derive(Debug)]
pub(super) struct Memory {
    network: MemoryReservation,
    images: Option<QueryResources>,
    /// Images that a pretrained network saw.
    seen: Count,
}

impl Memory {
    /// No memory yet; the spills of the images go into the metrics.
    pub(super) fn new(context: &TaskContext, metrics: &ExecutionPlanMetricsSet) -> Self {
        let pool = context.memory_pool();
        let images = QueryResources {
            memory: MemoryConsumer::new(format!("{NAME} images")).with_can_spill(true).register(pool),
            disk: Arc::clone(&context.runtime_env().disk_manager),
            spills: SpillMetrics::new(metrics, 0),
        };
        let seen = MetricBuilder::new(metrics).counter(IMAGES_SEEN, 0);
        Self { network: MemoryConsumer::new(NAME).register(pool), images: Some(images), seen }
    }

    /// Decodes the source.
    pub(super) fn read(&mut self, call: &TrainCall, worker: &mut Worker) -> Result<Dataset, Stopped> {
        let Some(images) = self.images.take() else {
            return Err(exec_datafusion_err!("{NAME}: the source was read already").into());
        };
        let spills = images.spills.clone();
        let skip = call.session.on_error() == OnError::Null;
        let builder = DatasetBuilder::with_resources(&call.train, call.session.limits(), skip, Box::new(images));
        let mut builder = builder.cancelled_by(Arc::clone(worker.cancelled()));
        let mut rows = 0;
        let mut known = None;
        let seen = call.train.extractor().map_err(|e| worker.stopped(e))?.map(|extractor| extractor.shape());
        while let Some(batch) = worker.next_batch()? {
            let schema = batch.schema();
            let column = match (call.train.row_input(), call.train.layout) {
                (InputChoice::Features, order) => ImageColumn::of_features(schema.field(0), batch.column(0), order),
                (InputChoice::Image, Some(order)) => {
                    ImageColumn::try_new_in_order(schema.field(0), batch.column(0), None, order)
                }
                (InputChoice::Image, None) => ImageColumn::try_new(schema.field(0), batch.column(0), None),
            };
            let column = column.map_err(|e| worker.stopped(e))?;
            let place = |row| Place::of_image(row, &column, paths(&batch).as_ref());
            rows += column.len();
            // A pretrained network needs memory before it sees an image. Otherwise, as soon as the shape is known, so
            // that a network that does not fit in the pool is refused before all images are read. A batch has no more
            // rows than there are.
            if seen.is_none() {
                builder.push(&column).map_err(|e| worker.stopped_at(e, place))?;
            }
            if let Some(shape) = seen.or(builder.shape()) {
                let network = (shape, call.train.batch_size.min(rows).max(2));
                if known != Some(network) {
                    self.reserve_network(call, network, &mut builder, worker)?;
                    known = Some(network);
                }
            }
            if seen.is_some() {
                builder.push(&column).map_err(|e| worker.stopped_at(e, place))?;
            }
        }
        if rows == 0 {
            return Err(exec_datafusion_err!("{NAME}: the source has no rows").into());
        }
        self.seen.add(usize::try_from(builder.images_seen()).unwrap_or(usize::MAX));
        if spills.spill_file_count.value() > 0 {
            spills.spilled_rows.add(rows - usize::try_from(builder.skipped()).unwrap_or(rows));
        }
        builder.finish().map_err(|e| worker.stopped(e))
    }

    /// Takes the memory of the network for images of a shape and a batch size; images in memory move to the file if
    /// they stand in its way.
    fn reserve_network(
        &self,
        call: &TrainCall,
        (shape, batch_size): (ImageShape, usize),
        builder: &mut DatasetBuilder,
        worker: &Worker,
    ) -> Result<(), Stopped> {
        let options = TrainOptions { batch_size, ..call.train.clone() };
        let bytes = options.memory_of_preprocessed(shape).map_err(|e| worker.stopped(e))?;
        if self.network.try_resize(bytes).is_err() {
            builder.spill().map_err(|e| worker.stopped(e))?;
            self.network.try_resize(bytes).map_err(|e| too_small(call, shape, bytes, &e))?;
        }
        Ok(())
    }
}

/// The pool has no room for the network.
fn too_small(call: &TrainCall, shape: ImageShape, bytes: usize, error: &DataFusionError) -> DataFusionError {
    resources_datafusion_err!(
        "{NAME}: the training takes about {} MB, for rows of shape {shape} and batch_size {}: raise the memory limit, or \
         lower batch_size, the network's widths or, with a backbone, size. {}",
        bytes.div_ceil(1_000_000),
        call.train.batch_size,
        message(error)
    )
}

/// An error without its kind and its backtrace.
fn message(error: &DataFusionError) -> String {
    error.message().into_owned()
}

/// The memory pool and the temporary files of a query, for a dataset.
#[derive(Debug)]
struct QueryResources {
    memory: MemoryReservation,
    disk: Arc<DiskManager>,
    spills: SpillMetrics,
}

impl Resources for QueryResources {
    fn grow(&mut self, bytes: usize) -> wae_core::Result<()> {
        self.memory.try_grow(bytes).map_err(|e| Error::Resources(message(&e)))
    }

    fn shrink(&mut self, bytes: usize) {
        self.memory.shrink(bytes.min(self.memory.size()));
    }

    fn file(&mut self) -> wae_core::Result<SpillFile> {
        if !self.disk.tmp_files_enabled() {
            return Err(Error::Resources(
                "the images do not fit in the memory that the pool grants, and the DiskManager is disabled: raise the \
                 memory limit (datafusion.runtime.memory_limit), or enable temporary files"
                    .to_owned(),
            ));
        }
        let file = self.disk.create_tmp_file("training images").map_err(|e| Error::Resources(message(&e)))?;
        let writer = file.open_writer().map_err(|e| Error::Resources(message(&e)))?;
        let Some(path) = file.path().map(ToOwned::to_owned) else {
            return Err(Error::Resources(
                "the images do not fit in the memory that the pool grants, and the DiskManager's temporary files have no \
                 local path: raise the memory limit (datafusion.runtime.memory_limit)"
                    .to_owned(),
            ));
        };
        self.spills.spill_file_count.add(1);
        let writer = CountingWriter { writer, bytes: self.spills.spilled_bytes.clone() };
        Ok(SpillFile::new(&path, Box::new(writer), Box::new(file)))
    }
}

/// Counts the bytes written. The DiskManager's own writer refuses what exceeds its limit.
struct CountingWriter {
    writer: Box<dyn SpillWriter>,
    bytes: Count,
}

impl Write for CountingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.bytes.add(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
