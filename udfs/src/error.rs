//! The engine's errors as DataFusion's, with the function's name put before each.

use datafusion::common::DataFusionError;
use wae_core::Error;

/// An error of planning: a wrong type, option or configuration.
pub(crate) fn plan_error(function: &str, error: &Error) -> DataFusionError {
    datafusion::common::plan_datafusion_err!("{function}: {error}")
}

/// An error of execution: bad data, a file that cannot be used.
pub(crate) fn exec_error(function: &str, error: &Error) -> DataFusionError {
    datafusion::common::exec_datafusion_err!("{function}: {error}")
}
