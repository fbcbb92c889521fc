//! Functions called from another library, by the C interface of `datafusion-ffi`: as the package `datafusion` of Python
//! does it (`udfs/python`), where literals come as arrays and nothing is simplified.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/session.rs"]
mod session;

use std::sync::Arc;

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::Result;
use datafusion::config::{ConfigOptions, ExtensionOptions};
use datafusion::logical_expr::{ScalarUDF, ScalarUDFImpl};
use datafusion::prelude::SessionContext;
use datafusion_ffi::udf::FFI_ScalarUDF;
use datafusion_wae::WaeOptions;
use rstest::rstest;
use session::{TEST, query};
use tempfile::TempDir;

/// The marker of a library that is not this one.
extern "C" fn elsewhere() -> usize {
    0
}

/// A function as another library sees it.
fn foreign(function: ScalarUDF) -> ScalarUDF {
    let mut interface = FFI_ScalarUDF::from(Arc::new(function));
    interface.library_marker_id = elsewhere;
    ScalarUDF::new_from_shared_impl(Arc::<dyn ScalarUDFImpl>::from(&interface))
}

/// A context that knows nothing of the plugin but its functions from elsewhere, with options bound to them.
fn host(options: WaeOptions) -> SessionContext {
    let mut config = ConfigOptions::default();
    config.extensions.insert(options);
    let host = SessionContext::new();
    for function in datafusion_wae::all_functions() {
        let function = function.inner().with_updated_config(&config).unwrap_or(function);
        host.register_udf(foreign(function));
    }
    host
}

/// A context with the model `m` in a folder.
async fn context(dir: &TempDir) -> SessionContext {
    let ctx = session::context(dir.path()).await;
    let options = "model => 'm', network => '8', epochs => 1";
    query(&ctx, &format!("SELECT * FROM wae_train((SELECT image FROM '{TEST}'), {options})")).await;
    ctx
}

async fn text(ctx: &SessionContext, sql: &str) -> Result<String> {
    let frame = ctx.read_parquet(TEST, Default::default()).await?.limit(0, Some(40))?;
    ctx.deregister_table("images")?;
    ctx.register_table("images", frame.into_view())?;
    Ok(pretty_format_batches(&session::run(ctx, sql).await?)?.to_string())
}

#[rstest]
#[case::code("wae_encode(image, 'm')")]
#[case::decoded("wae_decode(wae_encode(image, 'm'), 'm')")]
#[case::p_value("wae_p_value(image, 'm', 'latent_distance')")]
#[case::outlier("wae_is_outlier(image, 0.05, 'm')")]
#[case::mask("wae_anomaly_mask(image, 0.1, 'm')")]
#[case::regions("wae_anomaly_regions(image, 0.1, 'm')")]
#[case::every_score("wae_detect(image, 'm')")]
#[case::without_a_model("image_decode(image, 14, 14, 1)")]
#[tokio::test(flavor = "multi_thread")]
async fn a_call_from_elsewhere_gives_the_same(#[case] call: &str) {
    let dir = TempDir::new().unwrap();
    let ctx = context(&dir).await;
    let mut options = WaeOptions::default();
    options.set("model_dir", dir.path().to_str().unwrap()).unwrap();
    let host = host(options);
    let sql = format!("SELECT label, {call} AS value FROM images");
    assert_eq!(text(&host, &sql).await.unwrap(), text(&ctx, &sql).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_model_is_the_one_that_is_bound() {
    let dir = TempDir::new().unwrap();
    let ctx = context(&dir).await;
    let mut options = WaeOptions::default();
    options.set("model_dir", dir.path().to_str().unwrap()).unwrap();
    let sql = "SELECT wae_encode(image) AS code FROM images";
    let error = text(&host(options.clone()), sql).await.unwrap_err().strip_backtrace();
    assert!(error.contains("wae_encode: no model given, expected a model's name"), "{error}");
    options.set("model", "m").unwrap();
    let expected = text(&ctx, "SELECT wae_encode(image, 'm') AS code FROM images").await.unwrap();
    assert_eq!(text(&host(options), sql).await.unwrap(), expected);
}
