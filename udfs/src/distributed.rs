//! Plans that other processes run: for codecs of plans, and for planners that send plans away.
//!
//! Functions travel by name. Beyond that, a call of a function over a model carries the version of the model that it
//! was planned with: the model's name, the SHA-256 of its file, and the options that it was found under. The node that
//! runs the call reads the file of that name, and refuses one of other content.

use std::sync::{Arc, LazyLock};

use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::physical_optimizer::PhysicalOptimizerRule;

use crate::aggregate;
use crate::aggregate::image_stitch::ImageStitch;
use crate::aggregate::latent::LatentAggregate;
use crate::aggregate::map_metric::MapAggregate;
use crate::models::pin::Pin;
use crate::options::WaeOptions;
use crate::plan;
use crate::scalar;
use crate::scalar::function::KernelFunction;
use crate::scalar::image_features_pass::image_features_pass_udf;
use crate::scalar::wae_pass::wae_pass_udf;
use crate::table::wae_calibrate::CalibrateTable;
use crate::table::wae_train::TrainTable;

/// Bytes that a scalar function's calls carry beyond its name; none for one that is not the plugin's, or that no
/// planning has seen yet.
pub fn encode_function(function: &ScalarUDF) -> Vec<u8> {
    function.inner().downcast_ref::<KernelFunction>().map(KernelFunction::encode).unwrap_or_default()
}

/// The scalar function of a call from another node; `None` if the name is not one of the plugin's.
///
/// # Errors
/// A plan error if a function over a model came without the version of its model: computing with whatever this node has
/// under the name could give other values than another node does.
pub fn decode_function(name: &str, bytes: &[u8]) -> Result<Option<ScalarUDF>> {
    match kernel_function(name) {
        Some(function) => Ok(Some(ScalarUDF::from(function.decode(bytes)?))),
        None => Ok(None),
    }
}

/// The plugin's scalar function of a name; those that the optimiser's rule calls are among them.
fn kernel_function(name: &str) -> Option<KernelFunction> {
    static FUNCTIONS: LazyLock<Vec<ScalarUDF>> = LazyLock::new(|| {
        let options = WaeOptions::default();
        scalar::all(&options).into_iter().chain([wae_pass_udf(&options), image_features_pass_udf(&options)]).collect()
    });
    let function = FUNCTIONS.iter().find(|function| function.name() == name)?;
    function.inner().downcast_ref::<KernelFunction>().cloned()
}

/// Bytes that an aggregate's calls carry beyond its name, as [`encode_function`] says.
pub fn encode_aggregate(function: &AggregateUDF) -> Vec<u8> {
    if let Some(stitch) = function.inner().downcast_ref::<ImageStitch>() {
        return stitch.encode();
    }
    if let Some(aggregate) = function.inner().downcast_ref::<MapAggregate>() {
        return aggregate.encode();
    }
    let pin = function.inner().downcast_ref::<LatentAggregate>().and_then(LatentAggregate::pinned);
    pin.map(Pin::encode).unwrap_or_default()
}

/// The aggregate of a call from another node; `None` if the name is not one of the plugin's.
///
/// # Errors
/// Those of [`decode_function`].
pub fn decode_aggregate(name: &str, bytes: &[u8]) -> Result<Option<AggregateUDF>> {
    let Some(function) = aggregate_function(name) else { return Ok(None) };
    if let Some(stitch) = function.inner().downcast_ref::<ImageStitch>() {
        return Ok(Some(AggregateUDF::from(stitch.decode(bytes)?)));
    }
    if let Some(aggregate) = function.inner().downcast_ref::<MapAggregate>() {
        return Ok(Some(AggregateUDF::from(aggregate.decode(bytes)?)));
    }
    match function.inner().downcast_ref::<LatentAggregate>() {
        Some(aggregate) => Ok(Some(AggregateUDF::from(aggregate.clone().pin(Pin::decode(name, bytes)?)))),
        None => Ok(Some(function)),
    }
}

/// The plugin's aggregate of a name.
fn aggregate_function(name: &str) -> Option<AggregateUDF> {
    aggregate::all().into_iter().find(|function| function.name() == name)
}

/// Whether a function computes with a model, so that its calls mean something on another node only with the bytes that
/// [`encode_function`] or [`encode_aggregate`] gives.
pub fn is_over_model(name: &str) -> bool {
    kernel_function(name).is_some_and(|function| function.is_over_model())
        || aggregate_function(name).is_some_and(|function| function.inner().is::<LatentAggregate>())
}

/// The rules of physical plans, for a planner that has rules of its own: one compares what the files of a scan say of
/// their images, the other makes a [`WaePassExec`](crate::WaePassExec). They have to come before filters move below
/// projections.
pub fn physical_rules(runtime: &Arc<RuntimeEnv>) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    plan::physical_rules(runtime)
}

/// Whether a table is in the memory of this process, or is computed by it, as the plugin's table functions are: no
/// other process can read it.
pub fn is_local_table(table: &dyn TableProvider) -> bool {
    table.is::<TrainTable>() || table.is::<CalibrateTable>() || table.is::<StreamingTable>() || table.is::<MemTable>()
}
