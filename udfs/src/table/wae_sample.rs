//! `wae_sample(n [, model [, seed]])`: codes drawn from the prior, and the images that they decode to.

use std::sync::Arc;

use arrow::array::{Float32Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Result, plan_err};
use wae_core::objective;

use crate::columns::{code_field, fixed_size_list};
use crate::decoded::{Decoded, decoded_field};
use crate::documentation::FunctionDocumentation;
use crate::error::exec_error;
use crate::models::argument::default_model;
use crate::models::{self, LoadedModel};
use crate::table::function::{Call, TableFunction};
use crate::table::stream::{self, Sink};

/// Most values of a call's codes, 1 GB: they are drawn in one go, so that a row does not depend on the batch size.
const MAX_VALUES: usize = 1 << 28;
/// Most values of a batch's images, unless one alone has more: 64 MB as they are decoded.
const BATCH_VALUES: usize = 1 << 24;

/// The table function.
pub(crate) const WAE_SAMPLE: TableFunction = TableFunction {
    documentation: FunctionDocumentation {
        name: "wae_sample",
        syntax: "wae_sample(n [, model [, seed]])",
        description: "Codes drawn from the prior, with the images that they decode to: latent, image.",
        arguments: &[
            ("n", "The number of rows, at most `wae.max_sample_rows`."),
            ("model", "The model's name. Left out, it is the session's `wae.model`."),
            ("seed", "An integer; the same seed gives the same rows. 0 if left out."),
        ],
        example: "SELECT image_encode(image) AS png FROM wae_sample(16, model => 'fashion', seed => 1);",
        related: &[],
    },
    takes_options: false,
    schema: |call| Ok(schema(waiting_model(call)?.as_deref())),
    plan,
};

fn plan(mut call: Call) -> Result<Arc<dyn TableProvider>> {
    let function = call.function;
    let most = call.options.max_sample_rows() as u64;
    let Some(count) = call.take_integer("n", most)? else {
        return plan_err!("{function} takes 1 to 3 arguments (n, model, seed), got no n");
    };
    let seed = call.take_integer("seed", u64::MAX)?.unwrap_or(wae_core::config::DEFAULT_SEED);
    let model = model(&mut call)?;
    let config = model.wae().config();
    let fit = MAX_VALUES / config.latent_dim();
    if count > fit as u64 {
        let name = model.name();
        return plan_err!("{function}: codes of model '{name}' fit in memory up to n = {fit}, got {count}");
    }
    let batch_size = call.options.batch_size().min((BATCH_VALUES / config.source().len()).max(1));
    let schema = schema(Some(&model));
    let produced = Arc::clone(&schema);
    stream::table(schema, move |_, sink| sample(&model, count as usize, seed, batch_size, &produced, sink))
}

/// The model of a call.
fn model(call: &mut Call) -> Result<Arc<LoadedModel>> {
    let function = call.function;
    let name = match call.take_text("model")? {
        Some(name) => name,
        None => default_model(function, &call.options)?.to_owned(),
    };
    models::load(function, &name, &call.options)
}

/// The model of a call with parameters, unless one of them is its name.
fn waiting_model(call: &Call) -> Result<Option<Arc<LoadedModel>>> {
    if call.waits_for("model") { Ok(None) } else { model(&mut call.clone()).map(Some) }
}

/// The columns; without a model, lists without a shape.
fn schema(model: Option<&LoadedModel>) -> SchemaRef {
    Arc::new(Schema::new(vec![code_field("latent", model), decoded_field("image", model)]))
}

/// Draws codes (N, Z) and decodes them to (N, H, W, C), a batch at a time.
fn sample(
    model: &LoadedModel,
    count: usize,
    seed: u64,
    batch_size: usize,
    schema: &SchemaRef,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let config = model.wae().config();
    let codes = objective::sample(config.prior(), count, config.latent_dim(), seed);
    for codes in codes.chunks(batch_size.saturating_mul(config.latent_dim())) {
        let rows = codes.len() / config.latent_dim();
        let images = model.wae().decode(codes).map_err(|e| exec_error(WAE_SAMPLE.name(), &e))?;
        let latent = Arc::new(Float32Array::from(codes.to_vec()));
        let decoded = Decoded::of(model, &images).into_array();
        let columns = vec![
            fixed_size_list(schema.field(0), latent, NullBuffer::new_valid(rows))?,
            fixed_size_list(schema.field(1), decoded, NullBuffer::new_valid(rows))?,
        ];
        if !sink(RecordBatch::try_new(Arc::clone(schema), columns)?) {
            break;
        }
    }
    Ok(())
}
