//! `wae_rename(model, to)`: gives a model another name, with the checkpoint of a training of its name that was stopped.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Result, plan_err};

use crate::documentation::FunctionDocumentation;
use crate::models::named::{Kind, Named, failed};
use crate::models::running::{RunningGuard, Work};
use crate::models::store::StoredFile;
use crate::options::WaeOptions;
use crate::table::function::{Call, TableFunction};
use crate::table::stream;

const NAME: &str = "wae_rename";

/// The table function.
pub(crate) const WAE_RENAME: TableFunction = TableFunction {
    documentation: FunctionDocumentation {
        name: NAME,
        syntax: "wae_rename(model, to)",
        description: "Gives a model another name when the query runs; the checkpoint of a training of its name that was stopped \
         goes with it. One row: model, to, and renamed (`model`, `checkpoint`, or `model and checkpoint`). It is refused while one \
         of the two is trained or calibrated, and where the other name is taken. Queries that have begun keep the version that \
         they were planned with. In a local folder it is one step for each file; in an object store a copy and a removal.",
        arguments: &[("model", "The model's name."), ("to", "The name that it gets.")],
        example: "SELECT * FROM wae_rename('fashion', 'fashion-2026');",
        related: &[],
    },
    takes_options: false,
    schema: |_| Ok(schema()),
    plan,
};

fn plan(mut call: Call) -> Result<Arc<dyn TableProvider>> {
    let (Some(from), Some(to)) = (call.take_text("model")?, call.take_text("to")?) else {
        return plan_err!(
            "{NAME}: two names expected, the model's and the one that it gets, as in {NAME}('old', 'new')"
        );
    };
    let options = call.options;
    check(&from, &to, &options)?;
    stream::table(schema(), move |_, sink| {
        let renamed = rename(&from, &to, &options)?;
        let columns = [from.clone(), to.clone(), renamed].map(|text| Arc::new(StringArray::from(vec![text])) as _);
        sink(RecordBatch::try_new(schema(), columns.to_vec())?);
        Ok(())
    })
}

fn schema() -> SchemaRef {
    let column = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![column("model"), column("to"), column("renamed")]))
}

/// The files of both names, once the first has some and the second has none.
fn check(from: &str, to: &str, options: &WaeOptions) -> Result<(Named, Named)> {
    let source = Named::try_new(NAME, from, options)?;
    let target = Named::try_new(NAME, to, options)?;
    source.required(NAME, options)?;
    match target.existing(NAME)?.first() {
        _ if from == to => plan_err!("{NAME}: model '{from}' has that name already"),
        Some((what, file)) => {
            plan_err!("{NAME}: there is a {what} of the name '{to}' already ({file}), expected another name")
        }
        None => Ok((source, target)),
    }
}

/// Renames what there is of a name, and says what that was.
fn rename(from: &str, to: &str, options: &WaeOptions) -> Result<String> {
    let (source, target) = check(from, to, options)?;
    let claim =
        |name: &str, named: &Named| RunningGuard::try_new(NAME, Work::Renaming, name, &named.model, Arc::default());
    let _running = (claim(from, &source)?, claim(to, &target)?);
    // Once more, now that nobody else changes it.
    check(from, to, options)?;
    let existing = source.required(NAME, options)?;
    for (done, (kind, file)) in existing.iter().enumerate() {
        let name = target.file(*kind).name();
        if let Err(e) = file.rename(name) {
            put_back(&existing[..done], &target);
            return Err(failed(NAME, file, &e));
        }
        log::info!("{NAME}: renamed {file} to {name}");
    }
    source.remove_leftovers(NAME)?;
    Ok(existing.iter().map(|(kind, _)| kind.to_string()).collect::<Vec<_>>().join(" and "))
}

/// Gives files their first names again, so that what belongs together stays together.
fn put_back(renamed: &[(Kind, &StoredFile)], target: &Named) {
    for (kind, file) in renamed {
        let now = target.file(*kind);
        if let Err(e) = now.rename(file.name()) {
            log::warn!("{NAME}: {now} could not get its name {file} back: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::config::ExtensionOptions;

    use super::*;

    #[test]
    fn half_a_rename_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = WaeOptions::default();
        options.set("model_dir", dir.path().to_str().unwrap()).unwrap();
        let named = |name| Named::try_new(NAME, name, &options).unwrap();
        let (source, target) = (named("a"), named("b"));
        // As after a first rename that was followed by one that failed.
        source.file(Kind::Checkpoint).write(b"checkpoint".to_vec()).unwrap();
        target.file(Kind::Model).write(b"model".to_vec()).unwrap();
        put_back(&[(Kind::Model, source.file(Kind::Model))], &target);
        assert_eq!(source.file(Kind::Model).read(9).unwrap().0, b"model");
        assert_eq!(source.existing(NAME).unwrap().len(), 2);
        assert!(target.existing(NAME).unwrap().is_empty());
    }
}
