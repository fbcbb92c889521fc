//! Sessions for the plugin's tests: the fixtures' paths, contexts with a folder of models, and running SQL.
#![allow(dead_code, reason = "each test uses a part")]

use std::fmt::Display;
use std::path::Path;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::Result;
use datafusion::prelude::SessionContext;

/// The repository, from the crate `datafusion-wae`.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
pub const TRAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/fashion/train.parquet");
pub const TEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/fashion/test.parquet");

/// A context as the shell has it, with its models in a folder.
pub async fn context(models: &Path) -> SessionContext {
    let ctx = datafusion_wae::session_context().unwrap();
    set_model_dir(&ctx, models.display()).await;
    ctx
}

/// A context that exists, with the plugin and with its models in a folder.
pub async fn with_plugin(ctx: SessionContext, models: &Path) -> SessionContext {
    datafusion_wae::register_all(&ctx).unwrap();
    set_model_dir(&ctx, models.display()).await;
    ctx
}

pub async fn set_model_dir(ctx: &SessionContext, models: impl Display) {
    query(ctx, &format!("SET wae.model_dir = '{models}'")).await;
}

pub async fn run(ctx: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    ctx.sql(sql).await?.collect().await
}

/// The rows of a statement that has to succeed.
pub async fn query(ctx: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    run(ctx, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// The same as a table with a frame.
pub async fn text(ctx: &SessionContext, sql: &str) -> String {
    pretty_format_batches(&query(ctx, sql).await).unwrap().to_string()
}

/// The message of a statement that has to fail.
pub async fn failure(ctx: &SessionContext, sql: &str) -> String {
    match run(ctx, sql).await {
        Ok(rows) => panic!("{sql}: an error expected, got\n{}", pretty_format_batches(&rows).unwrap()),
        Err(e) => e.strip_backtrace(),
    }
}

/// The tensors of a model file, which lie behind its header.
pub fn weights(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header..].to_vec()
}
