//! Wasserstein auto-encoders as SQL functions for Apache DataFusion.
//!
//! Models are trained, and images encoded, decoded and scored for anomalies, in SQL over Arrow columns. A model is one
//! safetensors file in `wae.model_dir`, a folder or a URL of an object store that the session has registered.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> datafusion::error::Result<()> {
//! let ctx = datafusion_wae::session_context()?;
//! for sql in [
//!     // A row an epoch, streamed while the model trains.
//!     "SELECT epoch, loss FROM wae_train((SELECT image FROM 'fixtures/fashion/train.parquet'), model => 'fashion')",
//!     "SET wae.model = 'fashion'",
//!     // The ten strangest images.
//!     "SELECT label, wae_reconstruction_cost(image) AS cost
//!      FROM 'fixtures/fashion/test.parquet' ORDER BY cost DESC LIMIT 10",
//!     // Outliers: at most 1 % false alarms, on average over calibration draws, on rows like the training set.
//!     "SELECT count(*) FROM 'fixtures/fashion/test.parquet' WHERE wae_is_outlier(image, 0.01)",
//!     // Embeddings, and images from the prior.
//!     "SELECT wae_encode(image) AS code FROM 'fixtures/fashion/test.parquet'",
//!     "SELECT image_encode(image) AS png FROM wae_sample(16)",
//! ] {
//!     ctx.sql(sql).await?.show().await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [The guide](guide) answers questions, from images to clusters.
//!
//! A context that exists already takes the functions with [`register_all`]:
//!
//! ```
//! use datafusion::prelude::SessionContext;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> datafusion::error::Result<()> {
//! let ctx = SessionContext::new();
//! datafusion_wae::register_all(&ctx)?;
//! let models = ctx.sql("SELECT name, latent_dim FROM wae_models()").await?.collect().await?;
//! # assert!(models.iter().all(|b| b.num_rows() == 0));
//! # Ok(())
//! # }
//! ```
//!
//! | scalar function | gives |
//! |---|---|
//! | `wae_encode(image [, model])` | the latent code |
//! | `wae_decode(latent [, model])` | the image of a code |
//! | `wae_reconstruct(image [, model])` | the image, encoded and decoded |
//! | `wae_reconstruction_cost(image [, model])` | how far that is from the image |
//! | `wae_latent_distance(image [, model])` | how far the code is from the training codes |
//! | `wae_anomaly_score(image [, model])` | how strange the image is beside what is usual, from 0 to 1 |
//! | `wae_anomaly_map(image [, model])` | where |
//! | `wae_anomaly_mask(image [, alpha [, model]])` | the places that alone make it an outlier |
//! | `wae_anomaly_regions(image [, alpha [, model]])` | the connected parts of these |
//! | `wae_cost_map(image [, model])` | what each pixel adds to the cost |
//! | `wae_p_value(image [, model [, score]])` | how unusual a score is |
//! | `wae_detect(image [, model])` | all of these at once |
//! | `wae_is_outlier(image [, alpha [, model [, score]]])` | whether it is too unusual |
//! | `image_decode(bytes [, height, width, channels])` | an image tensor |
//! | `wae_interpolate(a, b, steps [, model])` | the images between two codes |
//! | `image_encode(image [, format])` | the bytes of a PNG or JPEG file |
//! | `image_resize(image, height, width [, filter])` | the image in another size |
//! | `image_crop(image, y, x, height, width)` | a box cut out of it |
//! | `image_tiles(image, size [, stride])` | the tiles that cover it |
//! | `image_sharpness(image)` | how sharp it is |
//! | `image_features(image, weights [, layer [, size]])` | features by a pretrained network |
//!
//! | aggregate | gives |
//! |---|---|
//! | `auroc(score, is_positive)` | how well a score tells positives from the rest |
//! | `average_precision(score, is_positive)` | the same, where positives are few |
//! | `pixel_auroc(map, mask)` | how well a map tells pixels of defects from the rest |
//! | `aupro(map, mask)` | the same, each defect counting alike |
//! | `wae_mmd(latent [, model])` | how far codes are from the prior |
//! | `wae_mmd_p_value(latent [, model])` | whether they could be draws from it |
//! | `frechet_distance(x, y)` | how far two samples of vectors are apart |
//! | `image_stitch(tile, y, x)` | the image that tiles, or maps of tiles, make |
//!
//! | window function | gives |
//! |---|---|
//! | `wae_fdr(p) OVER ()` | p-values adjusted for the number of rows tested |
//!
//! | table function | rows |
//! |---|---|
//! | `wae_train(source, model => '...', options...)` | one an epoch |
//! | `wae_calibrate(source [, model])` | one: p-values from new normal rows, without training |
//! | `wae_history([model])` | one an epoch of a model that was trained or is being trained |
//! | `wae_sample(n [, model [, seed]])` | codes from the prior, with their images |
//! | `wae_models()` | the models there are |
//! | `wae_drop(model)` | one: a model is removed |
//! | `wae_rename(model, to)` | one: a model gets another name |
//! | `read_images(glob)` | files, with their bytes |
//!
//! [`report()`] (feature `report`, on by default) makes a page about a model and a table of images.

mod aggregate;
mod columns;
mod decoded;
pub mod distributed;
mod documentation;
mod error;
mod files;
pub mod guide;
mod misplaced;
mod models;
mod options;
mod plan;
mod reference;
#[cfg(feature = "report")]
mod report;
mod scalar;
mod table;
mod tensors;
mod text;
mod vectors;
mod waiting;
mod weights;
mod window;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use datafusion::prelude::{SessionConfig, SessionContext};

pub use crate::models::read_model;
pub use crate::options::{OnError, WaeOptions, set_default_object_stores};
pub use crate::plan::WaePassExec;
pub use crate::reference::sql_reference;
#[cfg(feature = "report")]
pub use crate::report::{Html, ReportOptions, report};
use crate::table::function::{Positional, WaeRelationPlanner};
pub use crate::table::wae_train::WaeTrainExec;
pub use crate::text::{csv_batch, table_batch};

/// Registers everything with a context: the options `wae.*`, the scalar, aggregate, window and table functions, the
/// planner that gives table functions named arguments, and the optimiser's rules by which functions of one image share
/// one pass through the network ([`WaePassExec`]). Statements that were prepared before are forgotten.
///
/// It also sets `datafusion.execution.parquet.skip_metadata = false`: DataFusion's default takes the tensor type off
/// every column that it reads from Parquet. With it, files' own metadata (Hugging Face writes some) survives into the
/// physical plan of a UNION but not into the logical one, which DataFusion then takes for an error of its planner under
/// an aggregate; so `datafusion.execution.skip_physical_aggregate_schema_check = true` is set too. Options of the
/// plugin that the context has already are kept.
///
/// # Errors
/// Those of DataFusion's registration.
pub fn register_all(ctx: &SessionContext) -> Result<()> {
    let object_stores = Arc::clone(&ctx.runtime_env().object_store_registry);
    let options = {
        let state = ctx.state_ref();
        let mut state = state.write();
        let config = state.config_mut().options_mut();
        config.execution.parquet.skip_metadata = false;
        config.execution.skip_physical_aggregate_schema_check = true;
        let kept = WaeOptions::of(config);
        config.extensions.insert(kept.with_object_stores(object_stores));
        WaeOptions::of(config)
    };
    for function in scalar::all(&options) {
        ctx.register_udf(function);
    }
    for function in aggregate::all() {
        ctx.register_udaf(function);
    }
    for function in window::all() {
        ctx.register_udwf(function);
    }
    for function in table::ALL {
        ctx.register_udtf(function.name(), Arc::new(Positional(function)));
    }
    misplaced::register(ctx)?;
    plan::register(ctx);
    table::parameters::register(ctx);
    ctx.register_relation_planner(Arc::new(WaeRelationPlanner(table::ALL)))
}

/// The scalar functions, under the default options; a session's own come with its next `SET`.
pub fn all_functions() -> Vec<ScalarUDF> {
    scalar::all(&WaeOptions::default())
}

/// The aggregates.
pub fn all_aggregates() -> Vec<AggregateUDF> {
    aggregate::all()
}

/// The window functions.
pub fn all_window_functions() -> Vec<WindowUDF> {
    window::all()
}

/// A context with everything registered, in which a file can be named in FROM by its path. Beside DataFusion's own
/// endings, it reads `.jsonl` and `.ndjson`.
///
/// # Errors
/// Those of [`register_all`].
pub fn session_context() -> Result<SessionContext> {
    let config = SessionConfig::new().with_information_schema(true);
    let ctx = SessionContext::new_with_config(config).enable_url_table();
    files::register_json_lines(&ctx)?;
    register_all(&ctx)?;
    Ok(ctx)
}

/// Compiles and runs the Rust of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
