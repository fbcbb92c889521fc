//! What a plan needs to be run by other processes: for codecs of plans, and for planners that send plans away.
//!
//! Functions travel by name. Beyond that, a call of a function over a model carries the version of the model that it was
//! planned with: the model's name, the SHA-256 of its file, and the options that it was found under. The node that runs
//! the call reads the file of that name, and refuses one of other content.

use std::sync::Arc;

use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::physical_optimizer::PhysicalOptimizerRule;

use crate::function::ModelFunction;
use crate::image_decode::{ImageDecode, image_decode_udf};
use crate::image_encode::{ImageEncode, image_encode_udf};
use crate::image_sharpness::{ImageSharpness, image_sharpness_udf};
use crate::latent_aggregate::{LatentAggregate, LatentStatistic};
use crate::options::WaeOptions;
use crate::pin::Pin;
use crate::planned_image::PlannedImage;
use crate::sharing::WaePassPlanner;
use crate::train::TrainTable;
use crate::wae_calibrate::CalibrateTable;
use crate::wae_mmd::WaeMmd;
use crate::wae_mmd_p_value::WaeMmdPValue;

/// What a scalar function's calls carry beyond its name; nothing for one that is not the plugin's, or that no planning
/// has seen yet.
pub fn encode_function(function: &ScalarUDF) -> Vec<u8> {
    let inner = function.inner();
    if let Some(function) = inner.downcast_ref::<ModelFunction>() {
        return function.pinned().map(Pin::encode).unwrap_or_default();
    }
    let image = inner.downcast_ref::<ImageEncode>().map(ImageEncode::image);
    let image = image.or_else(|| inner.downcast_ref::<ImageDecode>().map(ImageDecode::image));
    let image = image.or_else(|| inner.downcast_ref::<ImageSharpness>().map(ImageSharpness::image));
    image.map(PlannedImage::encode).unwrap_or_default()
}

/// The scalar function of a call from another node; `None` if the name is not one of the plugin's.
///
/// # Errors
/// A plan error if a function over a model came without the version of its model: computing with whatever this node has
/// under the name could give other values than another node does.
pub fn decode_function(name: &str, bytes: &[u8]) -> Result<Option<ScalarUDF>> {
    let function = match name {
        "image_encode" => image_encode_udf(PlannedImage::decode(name, bytes)?),
        "image_decode" => image_decode_udf(PlannedImage::decode(name, bytes)?),
        "image_sharpness" => image_sharpness_udf(PlannedImage::decode(name, bytes)?),
        _ => {
            let functions = crate::functions(&WaeOptions::default());
            let Some(function) = functions.into_iter().find(|function| function.name() == name) else {
                return Ok(None);
            };
            match function.inner().downcast_ref::<ModelFunction>() {
                Some(model_function) => ScalarUDF::from(model_function.clone().pin(Pin::decode(name, bytes)?)),
                None => function,
            }
        }
    };
    Ok(Some(function))
}

/// What an aggregate's calls carry beyond its name, as [`encode_function`] says.
pub fn encode_aggregate(function: &AggregateUDF) -> Vec<u8> {
    let inner = function.inner();
    let pin = inner.downcast_ref::<LatentAggregate<WaeMmd>>().and_then(LatentAggregate::pin);
    let pin = pin.or_else(|| inner.downcast_ref::<LatentAggregate<WaeMmdPValue>>().and_then(LatentAggregate::pin));
    pin.map(Pin::encode).unwrap_or_default()
}

/// The aggregate of a call from another node; `None` if the name is not one of the plugin's.
///
/// # Errors
/// Those of [`decode_function`].
pub fn decode_aggregate(name: &str, bytes: &[u8]) -> Result<Option<AggregateUDF>> {
    match name {
        WaeMmd::NAME => pinned::<WaeMmd>(bytes).map(Some),
        WaeMmdPValue::NAME => pinned::<WaeMmdPValue>(bytes).map(Some),
        _ => Ok(crate::all_aggregates().into_iter().find(|function| function.name() == name)),
    }
}

fn pinned<K: LatentStatistic>(bytes: &[u8]) -> Result<AggregateUDF> {
    Ok(AggregateUDF::from(LatentAggregate::<K>::pinned(Pin::decode(K::NAME, bytes)?)))
}

/// Whether a function computes with a model, so that its calls mean something on another node only with what
/// [`encode_function`] or [`encode_aggregate`] gives.
pub fn is_over_model(name: &str) -> bool {
    let scalar = crate::all_functions().iter().any(|f| f.name() == name && f.inner().is::<ModelFunction>());
    scalar || [WaeMmd::NAME, WaeMmdPValue::NAME].contains(&name)
}

/// The rule of physical plans that makes a [`WaePassExec`](crate::WaePassExec), for a planner that has rules of its own: it
/// has to come before filters move below projections.
pub fn pass_rule() -> Arc<dyn PhysicalOptimizerRule + Send + Sync> {
    Arc::new(WaePassPlanner)
}

/// Whether a table is in the memory of this process, or is computed by it, as the plugin's table functions are: no other
/// process can read it.
pub fn is_local_table(table: &dyn TableProvider) -> bool {
    table.is::<TrainTable>() || table.is::<CalibrateTable>() || table.is::<StreamingTable>() || table.is::<MemTable>()
}
