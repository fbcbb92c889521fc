//! `wae_train(source, model => '...', options...)`: trains a model, a row an epoch.
//!
//! The options are read at planning, and so is the source's type. The plan node is [`WaeTrainExec`].

mod backbone;
mod collect;
mod exec;
pub(crate) mod report;
mod save;
pub(crate) mod start;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Result, ScalarValue, plan_err};
use serde_json::Value;
use wae_core::TrainOptions;
use wae_core::config::TrainOption;

use self::backbone::resolve_backbone;
pub use self::exec::WaeTrainExec;
use crate::documentation::FunctionDocumentation;
use crate::error::plan_error;
use crate::models;
use crate::models::store::StoredFile;
use crate::options::WaeOptions;
use crate::table::function::{Argument, Call, TableFunction};
use crate::table::source::{Columns, SOURCE_ARGUMENT, Source};
use crate::table::work::WorkTable;

const NAME: &str = "wae_train";

/// The table function.
pub(crate) const WAE_TRAIN: TableFunction = TableFunction {
    documentation: FunctionDocumentation {
        name: NAME,
        syntax: "wae_train(source, model => '...' [, option => value, ...])",
        description: "Trains a model on a column of images, by a pretrained network with `backbone => '...'`, or with `input => 'features'` of features, and writes it to `wae.model_dir` when the last epoch is \
         done. A row an epoch, sent as the epoch ends: epoch, loss, reconstruction_cost, divergence, \
         holdout_reconstruction_cost, holdout_divergence, learning_rate, images, skipped, images_per_second, seconds. \
         A query that is dropped or stops earlier, such as one with a LIMIT below the number of epochs, saves \
         no model; with `checkpoint_every`, the last checkpoint stays, and the same call with `resume => true` goes on \
         from there.",
        arguments: &[
            ("source", SOURCE_ARGUMENT),
            ("model", "The name that the model gets: letters, digits, `_`, `.` and `-`."),
            (
                "options",
                "The options as a JSON object, for the positional form, as in `wae_train(source, 'fashion', \
                 '{\"epochs\": 20}')`.",
            ),
        ],
        example: "SELECT epoch, loss FROM wae_train((SELECT image FROM 'images.parquet'), model => 'fashion', \
         epochs => 20);",
        related: &[],
    },
    takes_options: true,
    schema: |_| Ok(report::schema()),
    plan,
};

/// The arguments of a call, read and checked.
#[derive(Debug, Clone)]
pub struct TrainCall {
    /// The model's name.
    pub(crate) model: String,
    /// The model's file.
    pub(crate) file: StoredFile,
    /// How to train.
    pub(crate) train: TrainOptions,
    /// The session's options.
    pub(crate) session: WaeOptions,
}

fn plan(mut call: Call) -> Result<Arc<dyn TableProvider>> {
    let source = call.take("source");
    let Some(model) = call.take_text("model")? else {
        return plan_err!("{NAME}: no model given, expected the name of the model to train, as in model => 'fashion'");
    };
    let file = models::file(NAME, &model, &call.options)?;
    let json = call.take_text("options")?;
    let session = call.options.clone();
    let options = options(json.as_deref(), call.into_rest())?;
    let mut train = TrainOptions::try_from_options(options).map_err(|e| plan_error(NAME, &e))?;
    let source = Source::try_new(NAME, source, Columns::trained_on(&train))?;
    train.device.get_or_insert(session.device());
    train.precision.get_or_insert(session.precision());
    resolve_backbone(&mut train, &session)?;
    let call = TrainCall { model, file, train, session };
    call.check()?;
    Ok(Arc::new(TrainTable::new(source, call)))
}

/// The options of a call: those in the JSON object, then the named ones.
fn options(json: Option<&str>, named: Vec<(String, Argument)>) -> Result<Vec<(String, Value)>> {
    let mut options = Vec::new();
    if let Some(json) = json {
        match serde_json::from_str(json) {
            Ok(Value::Object(object)) => options.extend(object),
            Ok(other) => return plan_err!("{NAME}: options must be a JSON object, got {other}"),
            Err(e) => return plan_err!("{NAME}: options must be a JSON object, such as '{{\"epochs\": 20}}': {e}"),
        }
    }
    for (name, argument) in named {
        let value = match argument {
            Argument::Value(value) => json_value(&name, &value)?,
            Argument::Text(text) => text_value(&name, &text),
            argument => return plan_err!("{NAME}: option '{name}' must be a literal, got {argument}"),
        };
        options.push((name, value));
    }
    Ok(options)
}

/// The value that a parameter's text stands for: the text, where the option takes that, or the number, boolean or list
/// that it spells.
fn text_value(name: &str, text: &str) -> Value {
    let value = Value::from(text);
    match TrainOption::find(name) {
        Ok(option) if !option.takes(&value) => {
            serde_json::from_str(text).ok().filter(|read: &Value| !read.is_null()).unwrap_or(value)
        }
        _ => value,
    }
}

/// A literal as the engine's options take it.
fn json_value(name: &str, value: &ScalarValue) -> Result<Value> {
    if let Some(Some(text)) = value.try_as_str() {
        return Ok(text.into());
    }
    match value {
        ScalarValue::Boolean(Some(v)) => Ok((*v).into()),
        ScalarValue::Int64(Some(v)) => Ok((*v).into()),
        ScalarValue::UInt64(Some(v)) => Ok((*v).into()),
        ScalarValue::List(list) if !value.is_null() => {
            let items = list.values();
            let item = |i| json_value(name, &ScalarValue::try_from_array(items, i)?);
            (0..arrow::array::Array::len(items)).map(item).collect::<Result<Vec<_>>>().map(Value::Array)
        }
        other => match other.cast_to(&arrow::datatypes::DataType::Float64) {
            Ok(ScalarValue::Float64(Some(v))) => Ok(v.into()),
            _ => plan_err!("{NAME}: option '{name}' must be a number, a string, a boolean or a list, got {other}"),
        },
    }
}

/// A training as a table: scanning it trains.
pub(crate) type TrainTable = WorkTable<TrainCall>;
