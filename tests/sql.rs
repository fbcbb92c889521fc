//! Runs each file of tests/slt, a test a file, against a context with everything registered.
//!
//! Two models are trained once and copied for every file: `fashion`, on 28×28 grey clothes, and `uncalibrated`, the
//! same without held-out rows. `$MODELS` in a file is its own folder of models; `$MODELS/older` has a file of format
//! `wae/1` without statistics, `old`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/session.rs"]
mod session;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::DataFusionError;
use datafusion::prelude::SessionContext;
use session::{ROOT, TRAIN, context, query};
use sqllogictest::harness::{Arguments, Failed, Trial};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The folder of the trained models.
static MODELS: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    Runtime::new().unwrap().block_on(async {
        let ctx = context(dir.path()).await;
        for (name, holdout) in [("fashion", 0.2), ("uncalibrated", 0.0)] {
            let sql = format!(
                "SELECT * FROM wae_train((SELECT image FROM '{TRAIN}' LIMIT 600), model => '{name}',
                     epochs => 2, network => '8,16', holdout => {holdout})"
            );
            query(&ctx, &sql).await;
        }
    });
    dir
});

struct Engine(SessionContext);

#[async_trait]
impl AsyncDB for Engine {
    type Error = DataFusionError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, DataFusionError> {
        let frame = self.0.sql(sql).await?;
        let columns = frame.schema().fields().len();
        let batches = frame.collect().await?;
        if columns == 0 {
            return Ok(DBOutput::StatementComplete(0));
        }
        let rows = batches.iter().map(rows).collect::<Result<Vec<_>, _>>()?.concat();
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "datafusion-wae"
    }
}

/// The cells of a batch as text.
fn rows(batch: &RecordBatch) -> Result<Vec<Vec<String>>, DataFusionError> {
    let options = FormatOptions::default().with_null("NULL");
    let formatters = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column as &dyn Array, &options))
        .collect::<Result<Vec<_>, _>>()?;
    (0..batch.num_rows())
        .map(|row| formatters.iter().map(|f| Ok(one_line(&f.value(row).try_to_string()?))).collect())
        .collect()
}

/// A plan's lines in one, since a line of a script is a row.
fn one_line(cell: &str) -> String {
    cell.lines().map(str::trim).collect::<Vec<_>>().join(" / ")
}

fn run(file: &Path) -> Result<(), Failed> {
    let dir = Arc::new(tempfile::tempdir()?);
    for entry in std::fs::read_dir(MODELS.path())? {
        let from = entry?.path();
        std::fs::copy(&from, dir.path().join(from.file_name().unwrap()))?;
    }
    let older = dir.path().join("older");
    std::fs::create_dir(&older)?;
    std::fs::copy("fixtures/golden/digit.model.safetensors", older.join("old.safetensors"))?;
    let script = std::fs::read_to_string(file)?.replace("$MODELS", &dir.path().display().to_string());
    let mut runner = Runner::new(|| {
        let dir = Arc::clone(&dir);
        async move { Ok(Engine(context(dir.path()).await)) }
    });
    Runtime::new()?.block_on(runner.run_script_with_name_async(&script, file.display().to_string()))?;
    Ok(())
}

fn main() {
    // The scripts name fixtures from the repository's root.
    std::env::set_current_dir(ROOT).unwrap();
    let mut files: Vec<PathBuf> = std::fs::read_dir("tests/slt").unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "tests/slt holds no test");
    let trials = files
        .into_iter()
        .map(|file| Trial::test(file.file_stem().unwrap().to_string_lossy().into_owned(), move || run(&file)))
        .collect();
    sqllogictest::harness::run(&Arguments::from_args(), trials).exit();
}
