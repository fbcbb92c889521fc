//! The image sets under fixtures/.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Field, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use wae_core::image::Limits;
use wae_core::{ImageColumn, ImageShape};

/// The classes of Fashion-MNIST that are clothes; the others are shoes and bags.
pub const CLOTHES: [i64; 6] = [0, 1, 2, 3, 4, 6];

/// The path of a fixture.
pub fn path(name: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR").trim_end_matches("/udfs");
    format!("{root}/fixtures/{name}")
}

/// A column of images and its field.
pub struct Images {
    pub field: Field,
    pub array: ArrayRef,
}

/// The `image` column of a Parquet file, of all rows or of those with the given labels.
pub fn images(name: &str, labels: Option<&[i64]>) -> Images {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path(name)).unwrap()).unwrap();
    let schema = Arc::clone(reader.schema());
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    let mut rows = concat_batches(&schema, &batches).unwrap();
    if let Some(labels) = labels {
        let column = rows.column_by_name("label").unwrap().as_primitive::<Int64Type>().clone();
        let wanted: BooleanArray = column.iter().map(|label| label.map(|l| labels.contains(&l))).collect();
        rows = filter_record_batch(&rows, &wanted).unwrap();
    }
    let index = schema.index_of("image").unwrap();
    Images { field: schema.field(index).clone(), array: Arc::clone(rows.column(index)) }
}

impl Images {
    /// The column as the engine reads it.
    pub fn column(&self) -> ImageColumn {
        ImageColumn::try_new(&self.field, &self.array, None).unwrap()
    }

    /// The first `rows` images in [0, 1], (N, H, W, C).
    pub fn pixels(&self, rows: usize, shape: ImageShape) -> Vec<f32> {
        let rows: Vec<usize> = (0..rows.min(self.array.len())).collect();
        self.column().read(&rows, shape, None, &Limits::default()).unwrap()
    }
}
