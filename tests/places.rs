//! The columns *Rust* and *shell* of the README's table of what works where; *Ballista* is tested by `ballista.rs`, Python's two by
//! `python/test_places.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cells;

use std::path::Path;
use std::process::Command;

use datafusion::prelude::SessionContext;
use tempfile::TempDir;

use crate::cells::{cells, prepare};

const TRAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/fashion/train.parquet");
const TEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/fashion/test.parquet");

/// What comes before the statement of a cell: the model `m` and the table `test`.
fn setup(folder: &Path) -> Vec<String> {
    let (models, data) = (folder.join("models"), folder.join("data"));
    vec![
        format!("SET wae.model_dir = '{}'", models.display()),
        "SET wae.model = 'm'".to_owned(),
        format!("CREATE EXTERNAL TABLE test STORED AS PARQUET LOCATION '{}/'", data.display()),
        prepare(),
    ]
}

async fn run(ctx: &SessionContext, sql: &str) -> usize {
    let rows = async { ctx.sql(sql).await?.collect().await }.await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    rows.iter().map(|batch| batch.num_rows()).sum()
}

/// A folder with the model and the table's file, and a context that has both.
async fn prepared() -> (TempDir, SessionContext) {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let ctx = datafusion_wae::session_context().unwrap();
    let file = folder.path().join("data/0.parquet");
    run(&ctx, &format!("COPY (SELECT 0 AS file, label, image FROM '{TEST}') TO '{}'", file.display())).await;
    run(&ctx, &format!("SET wae.model_dir = '{}'", folder.path().join("models").display())).await;
    let train = format!(
        "SELECT epoch FROM wae_train((SELECT image FROM '{TRAIN}'), model => 'm', network => '8', epochs => 1)"
    );
    run(&ctx, &train).await;
    (folder, ctx)
}

#[tokio::test]
async fn what_works_in_rust() {
    let (folder, ctx) = prepared().await;
    for sql in setup(folder.path()) {
        run(&ctx, &sql).await;
    }
    for (cell, sql) in cells() {
        let sql = sql.replace("{data}", folder.path().join("data").to_str().unwrap());
        assert!(run(&ctx, &sql).await > 0, "{cell}: no rows");
    }
}

#[tokio::test]
async fn what_works_in_the_shell() {
    // Without the feature `cli` there is no shell.
    let Some(shell) = option_env!("CARGO_BIN_EXE_wae") else { return };
    let (folder, _) = prepared().await;
    for (cell, sql) in cells() {
        let sql = sql.replace("{data}", folder.path().join("data").to_str().unwrap());
        let mut command = Command::new(shell);
        // What comes before gives no rows, so that what is printed is the cell's, under its header.
        command.args(["--format", "csv", "-c"]).args(setup(folder.path())).arg(sql).current_dir(folder.path());
        let output = command.output().unwrap();
        let (rows, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{cell}: {errors}");
        assert!(rows.lines().count() > 1, "{cell}: {rows}");
    }
}
