//! `wae_models()`: the models of `wae.model_dir`, one a row.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::{Result, exec_datafusion_err};
use wae_core::{Calibration, ModelFile};

use crate::documentation::FunctionDocumentation;
use crate::models;
use crate::models::store::ModelStore;
use crate::options::WaeOptions;
use crate::table::function::{Call, TableFunction};
use crate::table::stream::{self, Sink};

/// The table function.
pub(crate) const WAE_MODELS: TableFunction = TableFunction {
    documentation: FunctionDocumentation {
        name: "wae_models",
        syntax: "wae_models()",
        description: "The models in `wae.model_dir`: name, latent_dim, height, width, channels, objective, lambda, \
         rows, epochs, parameters, bytes, sha256, created, calibrated (the number of rows that p-values are ranks among, \
         0 for none). Files that are no model are left out, with a warning in the log.",
        arguments: &[],
        example: "SELECT name, latent_dim, epochs, created FROM wae_models();",
        related: &[],
    },
    takes_options: false,
    schema: |_| Ok(schema()),
    plan,
};

fn plan(call: Call) -> Result<Arc<dyn TableProvider>> {
    let options = call.options;
    let store = ModelStore::try_new(call.function, &options)?;
    let schema = schema();
    let produced = Arc::clone(&schema);
    stream::table(schema, move |_, sink| list(&store, &options, &produced, sink))
}

fn schema() -> SchemaRef {
    let column = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        column("latent_dim", DataType::Int64),
        column("height", DataType::Int64),
        column("width", DataType::Int64),
        column("channels", DataType::Int64),
        column("objective", DataType::Utf8),
        column("lambda", DataType::Float64),
        column("rows", DataType::Int64),
        column("epochs", DataType::Int64),
        column("parameters", DataType::Int64),
        column("bytes", DataType::Int64),
        column("sha256", DataType::Utf8),
        column("created", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        column("calibrated", DataType::Int64),
    ]))
}

/// Reads each model in turn, so that one at a time is in memory. A file that is no model is left out, with a warning:
/// it must not hide the others.
fn list(store: &ModelStore, options: &WaeOptions, schema: &SchemaRef, sink: &mut Sink<'_>) -> Result<()> {
    let function = WAE_MODELS.name();
    let names = match models::names(store) {
        Ok(names) => names,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(exec_datafusion_err!("{function}: cannot list '{store}' (wae.model_dir): {e}")),
    };
    for name in names {
        match models::file(function, &name, options).and_then(|file| models::read_file(function, &name, &file, options))
        {
            Ok((file, sha256, bytes)) => {
                if !sink(row(schema, &name, &file, sha256, bytes)?) {
                    break;
                }
            }
            Err(e) => log::warn!("{}", e.strip_backtrace()),
        }
    }
    Ok(())
}

fn row(schema: &SchemaRef, name: &str, file: &ModelFile, sha256: String, bytes: usize) -> Result<RecordBatch> {
    let config = file.config();
    let training = file.training();
    let integer = |v: usize| Arc::new(Int64Array::from(vec![v as i64])) as ArrayRef;
    let text = |v: &str| Arc::new(StringArray::from(vec![v])) as ArrayRef;
    let created = training.and_then(|t| string_to_timestamp_nanos(&t.created).ok()).map(|ns| ns / 1000);
    let columns: Vec<ArrayRef> = vec![
        text(name),
        integer(config.latent_dim()),
        integer(config.row_shape().height()),
        integer(config.row_shape().width()),
        integer(config.row_shape().channels()),
        text(config.objective().name()),
        Arc::new(Float64Array::from(vec![config.objective().lambda()])),
        Arc::new(Int64Array::from(vec![training.and_then(|t| i64::try_from(t.rows).ok())])),
        integer(file.history().len()),
        integer(file.parameters()),
        integer(bytes),
        text(&sha256),
        Arc::new(TimestampMicrosecondArray::from(vec![created]).with_timezone("UTC")),
        integer(file.calibration().map_or(0, Calibration::len)),
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
