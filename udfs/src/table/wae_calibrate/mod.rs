//! `wae_calibrate(source, model => '...')`: replaces a model's calibration by the scores of new normal rows.
//!
//! The network stays as it is, and so do all scores; p-values are ranks among other rows from then on. The plan node is
//! a [`WorkExec`](crate::table::work::WorkExec).

mod exec;

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::Result;

use crate::documentation::FunctionDocumentation;
use crate::models;
use crate::models::argument::default_model;
use crate::models::store::StoredFile;
use crate::options::WaeOptions;
use crate::table::function::{Call, TableFunction};
use crate::table::source::{Columns, SOURCE_ARGUMENT, Source};
use crate::table::work::WorkTable;

const NAME: &str = "wae_calibrate";

/// The table function.
pub(crate) const WAE_CALIBRATE: TableFunction = TableFunction {
    documentation: FunctionDocumentation {
        name: NAME,
        syntax: "wae_calibrate(source [, model])",
        description: "Replaces a model's calibration by the scores of new rows, without training: p-values are ranks among \
         these rows from then on. The rows must be normal and must not have been trained on. One row: model, rows, skipped \
         (NULL images, and unreadable ones under `wae.on_error = 'null'`), and smallest_p, the smallest p-value that so many \
         rows can give, 1/(rows + 1). Without a single image it is an error, and the model stays as it was. Computed on \
         `wae.device`, in f32 whatever `wae.precision` is.",
        arguments: &[
            ("source", SOURCE_ARGUMENT),
            ("model", "The model's name. Left out, it is the session's `wae.model`."),
        ],
        example: "SELECT * FROM wae_calibrate((SELECT image FROM 'normal.parquet'), model => 'fashion');",
        related: &[],
    },
    takes_options: false,
    schema: |_| Ok(schema()),
    plan,
};

/// A call of `wae_calibrate`.
#[derive(Debug, Clone)]
pub struct CalibrateCall {
    /// The model's name.
    model: String,
    /// The model's file.
    file: StoredFile,
    /// The session's options.
    session: WaeOptions,
}

fn plan(mut call: Call) -> Result<Arc<dyn TableProvider>> {
    let source = call.take("source");
    let model = match call.take_text("model")? {
        Some(model) => model,
        None => default_model(NAME, &call.options)?.to_owned(),
    };
    let file = models::existing_file(NAME, &model, &call.options)?;
    let columns = Columns::of(models::load(NAME, &model, &call.options)?.wae().config());
    let source = Source::try_new(NAME, source, columns)?;
    let call = CalibrateCall { model, file, session: call.options };
    Ok(Arc::new(CalibrateTable::new(source, call)))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("model", DataType::Utf8, false),
        Field::new("rows", DataType::Int64, false),
        Field::new("skipped", DataType::Int64, false),
        Field::new("smallest_p", DataType::Float64, false),
    ]))
}

/// The one row of a calibration.
fn row(model: &str, rows: usize, skipped: usize, smallest_p: f64) -> Result<RecordBatch> {
    let integer = |value: usize| Arc::new(Int64Array::from(vec![value as i64]));
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(StringArray::from(vec![model])),
        integer(rows),
        integer(skipped),
        Arc::new(Float64Array::from(vec![smallest_p])),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// A calibration as a table: scanning it calibrates.
pub(crate) type CalibrateTable = WorkTable<CalibrateCall>;
