//! The argument that names a model.

use arrow::datatypes::Field;
use datafusion::common::{Result, ScalarValue, plan_err};

use crate::options::WaeOptions;

/// Whether an argument without a value is a prepared parameter: its type is not known yet, or its name is `$1`.
pub(crate) fn is_placeholder(field: &Field) -> bool {
    field.data_type().is_null() || field.name().starts_with('$')
}

/// The session's model, for a function called without one.
pub(crate) fn default_model<'a>(function: &str, options: &'a WaeOptions) -> Result<&'a str> {
    match options.model() {
        Some(name) => Ok(name),
        None => plan_err!("{function}: no model given, expected a model's name as an argument or SET wae.model"),
    }
}

/// The name of a model that an argument gives.
pub(crate) fn literal_model<'a>(function: &str, value: &'a ScalarValue) -> Result<&'a str> {
    match value.try_as_str() {
        Some(Some(name)) => Ok(name),
        _ if value.is_null() => plan_err!("{function}: model must be a model's name, got NULL"),
        _ => plan_err!("{function}: model must be a string, got {value} of type {}", value.data_type()),
    }
}
