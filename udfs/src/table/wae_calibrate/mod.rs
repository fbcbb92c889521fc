//! `wae_calibrate(source, model => '...')`: replaces a model's calibration by the scores of new normal rows.
//!
//! The network stays as it is, and so do all scores; p-values are ranks among other rows from then on. The plan node is
//! [`exec::WaeCalibrateExec`].

mod exec;

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use self::exec::WaeCalibrateExec;
use crate::columns::image_type;
use crate::documentation::FunctionDocumentation;
use crate::error::shape_mismatch;
use crate::models;
use crate::models::argument::default_model;
use crate::models::store::StoredFile;
use crate::options::WaeOptions;
use crate::table::function::{Call, TableFunction};
use crate::table::source::{SOURCE_ARGUMENT, Source, projected};

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
    plan,
};

/// What a calibration was asked to do.
#[derive(Debug, Clone)]
struct CalibrateCall {
    /// The model's name.
    model: String,
    /// The model's file.
    file: StoredFile,
    /// The session's options.
    session: WaeOptions,
}

fn plan(mut call: Call) -> Result<Arc<dyn TableProvider>> {
    let source = Source::take(&mut call)?;
    let model = match call.take_text("model")? {
        Some(model) => model,
        None => default_model(NAME, &call.options)?.to_owned(),
    };
    let file = models::existing_file(NAME, &model, &call.options)?;
    let call = CalibrateCall { model, file, session: call.options };
    Ok(Arc::new(CalibrateTable { source, call, schema: schema() }))
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
#[derive(Debug)]
pub(crate) struct CalibrateTable {
    source: Source,
    call: CalibrateCall,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for CalibrateTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = self.source.images(NAME, state).await?;
        let model = models::load(NAME, &self.call.model, &self.call.session)?;
        let config = model.wae().config();
        let shape = image_type(input.schema().field(0)).ok().and_then(|t| t.shape());
        if let Some(got) = shape.filter(|got| config.preprocess().is_none() && *got != config.image()) {
            return plan_err!("{NAME}: {}", shape_mismatch(got, model.name(), config.image()));
        }
        projected(Arc::new(WaeCalibrateExec::new(input, self.call.clone())), &self.schema, projection)
    }
}
