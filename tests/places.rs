//! The columns *Rust* and *shell* of the table *What works where?* in the guide's page `hosts.md`. *Ballista* is tested
//! by `ballista.rs`, Python's two by `python/test_places.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cells;
#[path = "support/session.rs"]
mod session;

use std::path::Path;
use std::process::Command;

use datafusion::prelude::SessionContext;
use session::{TEST, TRAIN, query};
use tempfile::TempDir;

use crate::cells::{cells, prepare};

/// The statements before that of a cell: the model `m` and the table `test`.
fn setup(folder: &Path) -> Vec<String> {
    let folder = folder.display();
    vec![
        format!("SET wae.model_dir = '{folder}/models'"),
        "SET wae.model = 'm'".to_owned(),
        format!("CREATE EXTERNAL TABLE test STORED AS PARQUET LOCATION '{folder}/data/'"),
        prepare(),
    ]
}

/// A folder with the model and the table's file, and a context that has both.
async fn prepared() -> (TempDir, SessionContext) {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let ctx = session::context(&folder.path().join("models")).await;
    let file = folder.path().join("data/0.parquet");
    query(&ctx, &format!("COPY (SELECT 0 AS file, label, image FROM '{TEST}') TO '{}'", file.display())).await;
    let train = format!(
        "SELECT epoch FROM wae_train((SELECT image FROM '{TRAIN}'), model => 'm', network => '8', epochs => 1)"
    );
    query(&ctx, &train).await;
    (folder, ctx)
}

#[tokio::test]
async fn what_works_in_rust() {
    let (folder, ctx) = prepared().await;
    for sql in setup(folder.path()) {
        query(&ctx, &sql).await;
    }
    for (cell, sql) in cells() {
        let sql = sql.replace("{data}", folder.path().join("data").to_str().unwrap());
        assert!(query(&ctx, &sql).await.iter().any(|batch| batch.num_rows() > 0), "{cell}: no rows");
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
        // The statements before it give no rows, so that the cell's are printed alone, under their header.
        command.args(["--format", "csv", "-c"]).args(setup(folder.path())).arg(sql).current_dir(folder.path());
        let output = command.output().unwrap();
        let rows = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{cell}: {errors}");
        assert!(rows.lines().count() > 1, "{cell}: {rows}");
    }
}
