//! `wae_drop(model)`: removes a model, and the checkpoint of a training of its name that was stopped.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Result, plan_err};

use crate::documentation::FunctionDocumentation;
use crate::models::named::{Named, failed};
use crate::models::running::{RunningGuard, Work};
use crate::options::WaeOptions;
use crate::table::function::{Call, TableFunction};
use crate::table::stream;

const NAME: &str = "wae_drop";

/// The table function.
pub(crate) const WAE_DROP: TableFunction = TableFunction {
    documentation: FunctionDocumentation {
        name: NAME,
        syntax: "wae_drop(model)",
        description: "Removes a model when the query runs, and the checkpoint of a training of its name that was stopped; also \
         one of them where the other is not. One row: model, and dropped (`model`, `checkpoint`, or `model and checkpoint`). It is \
         refused while the model is trained or calibrated. Queries that have begun keep the version that they were planned with.",
        arguments: &[("model", "The model's name.")],
        example: "SELECT * FROM wae_drop('fashion');",
        related: &[],
    },
    takes_options: false,
    schema: |_| Ok(schema()),
    plan,
};

fn plan(mut call: Call) -> Result<Arc<dyn TableProvider>> {
    let Some(name) = call.take_text("model")? else {
        return plan_err!("{NAME}: no model given, expected the name of the model to remove, as in {NAME}('fashion')");
    };
    let options = call.options;
    Named::try_new(NAME, &name, &options)?.required(NAME, &options)?;
    stream::table(schema(), move |_, sink| {
        let dropped = remove(&name, &options)?;
        let columns = [name.clone(), dropped].map(|text| Arc::new(StringArray::from(vec![text])) as _);
        sink(RecordBatch::try_new(schema(), columns.to_vec())?);
        Ok(())
    })
}

fn schema() -> SchemaRef {
    let column = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![column("model"), column("dropped")]))
}

/// Removes what there is of a name, and says what that was.
fn remove(name: &str, options: &WaeOptions) -> Result<String> {
    let named = Named::try_new(NAME, name, options)?;
    // Before the lock, whose file would need the folder.
    named.required(NAME, options)?;
    let _running = RunningGuard::try_new(NAME, Work::Removal, name, &named.model, Arc::default())?;
    let existing = named.required(NAME, options)?;
    for (_, file) in &existing {
        file.delete().map_err(|e| failed(NAME, file, &e))?;
        log::info!("{NAME}: removed {file}");
    }
    named.remove_leftovers(NAME)?;
    Ok(existing.iter().map(|(kind, _)| kind.to_string()).collect::<Vec<_>>().join(" and "))
}
