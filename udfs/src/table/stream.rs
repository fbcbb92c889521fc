//! A table whose rows are computed on a thread of their own while they are read.

use std::fmt::{self, Debug};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::PartitionStream;

/// Takes batches in turn; it answers `false` once nobody reads them any more.
pub(crate) type Sink<'a> = dyn FnMut(RecordBatch) -> bool + 'a;

/// Computes a table's rows and hands them to the sink.
type Producer = dyn Fn(&TaskContext, &mut Sink<'_>) -> Result<()> + Send + Sync;

/// Batches that may wait to be read: enough that reading and computing overlap, few enough to hold in memory.
const WAITING: usize = 2;

/// A table of one partition whose rows `producer` computes at each scan.
pub(crate) fn table(
    schema: SchemaRef,
    producer: impl Fn(&TaskContext, &mut Sink<'_>) -> Result<()> + Send + Sync + 'static,
) -> Result<Arc<dyn TableProvider>> {
    let rows = ComputedRows { schema: Arc::clone(&schema), producer: Arc::new(producer) };
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(rows)])?))
}

struct ComputedRows {
    schema: SchemaRef,
    producer: Arc<Producer>,
}

impl Debug for ComputedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComputedRows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PartitionStream for ComputedRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), WAITING);
        let sender = builder.tx();
        let producer = Arc::clone(&self.producer);
        builder.spawn_blocking(move || producer(&context, &mut |batch| sender.blocking_send(Ok(batch)).is_ok()));
        builder.build()
    }
}
