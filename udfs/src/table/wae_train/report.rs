//! The rows of `wae_train` and `wae_history`: one an epoch.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;
use wae_core::EpochReport;

/// The columns.
pub(crate) fn schema() -> SchemaRef {
    let integer = |name: &str| Field::new(name, DataType::Int64, false);
    let number = |name: &str| Field::new(name, DataType::Float64, false);
    let optional = |name: &str| Field::new(name, DataType::Float64, true);
    Arc::new(Schema::new(vec![
        integer("epoch"),
        number("loss"),
        number("reconstruction_cost"),
        optional("divergence"),
        optional("holdout_reconstruction_cost"),
        optional("holdout_divergence"),
        number("learning_rate"),
        integer("images"),
        integer("skipped"),
        number("images_per_second"),
        number("seconds"),
    ]))
}

/// A row a report.
pub(crate) fn batch(reports: &[EpochReport]) -> Result<RecordBatch> {
    let integer = |get: fn(&EpochReport) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(reports.iter().map(|r| get(r) as i64)))
    };
    let number = |get: fn(&EpochReport) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(reports.iter().map(get)))
    };
    let optional = |get: fn(&EpochReport) -> Option<f64>| -> ArrayRef {
        Arc::new(reports.iter().map(get).collect::<Float64Array>())
    };
    let columns = vec![
        integer(|r| r.epoch as u64),
        number(|r| r.loss),
        number(|r| r.reconstruction_cost),
        optional(|r| r.divergence),
        optional(|r| r.holdout_reconstruction_cost),
        optional(|r| r.holdout_divergence),
        number(|r| r.learning_rate),
        integer(|r| r.images),
        integer(|r| r.skipped),
        number(|r| r.images_per_second),
        number(|r| r.seconds),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}
