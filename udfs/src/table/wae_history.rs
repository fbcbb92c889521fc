//! `wae_history(model)`: the epochs of a model's training, one a row; those so far while it trains.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Result;

use crate::documentation::FunctionDocumentation;
use crate::models::argument::default_model;
use crate::models::{self, running};
use crate::table::function::{Call, TableFunction};
use crate::table::stream;
use crate::table::wae_train::report;

/// The table function.
pub(crate) const WAE_HISTORY: TableFunction = TableFunction {
    documentation: FunctionDocumentation {
        name: "wae_history",
        syntax: "wae_history([model])",
        description: "The epochs of a model's training, with the columns of `wae_train`; while it trains, those so \
         far.",
        arguments: &[("model", "The model's name. Left out, it is the session's `wae.model`.")],
        example: "SELECT epoch, holdout_reconstruction_cost FROM wae_history('fashion') ORDER BY epoch;",
        related: &[],
    },
    takes_options: false,
    schema: |_| Ok(report::schema()),
    plan,
};

fn plan(mut call: Call) -> Result<Arc<dyn TableProvider>> {
    let function = call.function;
    let name = match call.take_text("model")? {
        Some(name) => name,
        None => default_model(function, &call.options)?.to_owned(),
    };
    let options = call.options;
    let file = models::file(function, &name, &options)?;
    let key = file.key();
    if running::history(&key).is_none() {
        models::existing_file(function, &name, &options)?;
    }
    stream::table(report::schema(), move |_, sink| {
        // The training may have ended since planning, or begun.
        let history = match running::history(&key) {
            Some(history) => history,
            None => models::read_file(function, &name, &file, &options)?.0.history().to_vec(),
        };
        sink(report::batch(&history)?);
        Ok(())
    })
}
