//! The documentation is true: its SQL runs, its generated parts are the code's own, its links lead somewhere.
//!
//! `UPDATE_README=1 cargo test --test readme` writes the generated parts anew. Rust runs as doctests: that of the
//! README and the guide with `datafusion-wae`, that of the cluster's page with its crate. Python runs in
//! `tests/python/test_package.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/generated.rs"]
mod generated;
#[path = "readme/links.rs"]
mod links;
#[path = "readme/pages.rs"]
mod pages;

use std::fs;
use std::path::{Path, PathBuf};

use datafusion::arrow::array::AsArray;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;

use crate::pages::{Page, pages, root};

/// A function's file that CONTRIBUTING.md shows whole.
const EXAMPLE: &str = "wae_reconstruct.rs";

/// A context whose models are in a folder of their own.
async fn context(models: &Path) -> SessionContext {
    let ctx = datafusion_wae::session_context().unwrap();
    ctx.sql(&format!("SET wae.model_dir = '{}'", models.display())).await.unwrap();
    ctx
}

/// Runs statements in turn, as the shell does; every query has to give rows. Returns the number of queries.
async fn run(ctx: &SessionContext, sql: &str) -> usize {
    let mut queries = 0;
    let mut parser = DFParserBuilder::new(sql).with_dialect(&GenericDialect {}).build().unwrap();
    for statement in parser.parse_statements().unwrap_or_else(|e| panic!("{e}\n{sql}")) {
        let text = statement.to_string();
        let is_query = matches!(&statement, Statement::Statement(s) if matches!(s.as_ref(), ast::Statement::Query(_)));
        let plan = ctx.state().statement_to_plan(statement).await;
        let plan = plan.unwrap_or_else(|e| panic!("{}\n{text}", e.strip_backtrace()));
        let frame = ctx.execute_logical_plan(plan).await;
        let frame = frame.unwrap_or_else(|e| panic!("{}\n{text}", e.strip_backtrace()));
        let rows = frame.collect().await.unwrap_or_else(|e| panic!("{}\n{text}", e.strip_backtrace()));
        if is_query {
            assert!(rows.iter().any(|batch| batch.num_rows() > 0), "no rows: {text}");
            queries += 1;
        }
    }
    queries
}

/// Writes 600 JPEG files into a folder.
async fn write_photos(ctx: &SessionContext, folder: &Path) {
    fs::create_dir(folder).unwrap();
    let sql = "SELECT image_encode(image, 'jpeg') AS jpeg FROM 'fixtures/fashion/test.parquet' LIMIT 600";
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    let files = batches.iter().flat_map(|batch| batch.column(0).as_binary::<i32>().iter().flatten());
    for (i, jpeg) in files.enumerate() {
        fs::write(folder.join(format!("{i}.jpg")), jpeg).unwrap();
    }
}

/// The README's statements train the model `clothes`; each other page begins with it, as the session's.
#[tokio::test(flavor = "multi_thread")]
async fn the_sql_of_every_page_runs() {
    root();
    let dir = tempfile::tempdir().unwrap();
    let trained = dir.path().join("README");
    fs::create_dir(&trained).unwrap();
    let ctx = context(&trained).await;
    write_photos(&ctx, &dir.path().join("photos")).await;
    let (readme, others): (Vec<Page>, Vec<Page>) = pages().into_iter().partition(|page| page.name == "README.md");
    assert_eq!(run(&ctx, &readme[0].blocks("sql").concat()).await, 5, "five statements promised");
    let photos = format!("'{}/photos/", dir.path().display());
    let mut queries = 0;
    for (i, page) in others.iter().enumerate() {
        let models = dir.path().join(i.to_string());
        fs::create_dir(&models).unwrap();
        fs::copy(trained.join("clothes.safetensors"), models.join("clothes.safetensors")).unwrap();
        let ctx = context(&models).await;
        ctx.sql("SET wae.model = 'clothes'").await.unwrap();
        queries += run(&ctx, &page.blocks("sql").concat().replace("'photos/", &photos)).await;
    }
    assert!(queries > 20, "the guide has more than {queries} queries");
}

/// Runs a script of the examples with one epoch in the place of eight, and a folder of its own for the model. Returns
/// the number of queries, and the context afterwards.
async fn example(name: &str) -> (usize, SessionContext) {
    let (root, dir) = (root(), tempfile::tempdir().unwrap());
    let mut script = fs::read_to_string(root.join(format!("examples/{name}.sql"))).unwrap();
    let (folder, models) = (format!("target/{name}/models"), dir.path().display().to_string());
    for (from, to) in [("epochs => 8", "epochs => 1"), (&folder, &models)] {
        assert_eq!(script.matches(from).count(), 1, "{name}.sql has '{from}' once");
        script = script.replace(from, to);
    }
    let ctx = datafusion_wae::session_context().unwrap();
    let queries = run(&ctx, &script).await;
    assert!(dir.path().join("clothes.safetensors").is_file());
    (queries, ctx)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_in_sql_runs() {
    assert_eq!(example("quickstart").await.0, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outliers_in_sql_run() {
    let (queries, ctx) = example("outliers").await;
    assert_eq!(queries, 12);
    // The backfill encoded the rows that arrived later.
    let left = ctx.sql("SELECT id FROM items WHERE z IS NULL OR id > 1500").await.unwrap().count().await.unwrap();
    assert_eq!((left, ctx.table("items").await.unwrap().count().await.unwrap()), (0, 1500));
}

#[test]
fn the_reference_is_current() {
    generated::check("readme", "udfs/src/guide/reference.md", "reference", &datafusion_wae::sql_reference());
}

#[test]
fn the_example_of_a_function_is_a_file_of_the_plugin() {
    let file = find(&root().join("udfs/src"), EXAMPLE).expect(EXAMPLE);
    let code = fs::read_to_string(file).unwrap();
    generated::check("readme", "CONTRIBUTING.md", "example", &format!("```rust\n{code}```\n"));
}

/// A file by its name, in a folder or below.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let here = paths.iter().find(|path| path.is_file() && path.ends_with(name)).cloned();
    here.or_else(|| paths.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}

/// Targets are not found by themselves (`autotests = false` and the like): a file that nobody declares would never run.
/// Python's tests are found by their names, by pytest, which `.ci/run` has to call; one of them runs the examples.
#[test]
fn every_test_example_and_bench_is_declared() {
    let root = root();
    let manifests: Vec<(PathBuf, String)> = [root.join("Cargo.toml"), root.join("udfs/Cargo.toml")]
        .into_iter()
        .chain(fs::read_dir(root.join("udfs")).unwrap().map(|entry| entry.unwrap().path().join("Cargo.toml")))
        .filter_map(|path| Some((path.parent()?.to_owned(), fs::read_to_string(&path).ok()?)))
        .collect();
    for (folder, kind) in [("tests", "test"), ("examples", "example"), ("benches", "bench")] {
        let declared: Vec<PathBuf> =
            manifests.iter().flat_map(|(at, manifest)| targets(at, manifest, kind, folder)).collect();
        let mut found = 0;
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "rs") {
                found += 1;
                let path = path.canonicalize().unwrap();
                assert!(declared.contains(&path), "{} is no [[{kind}]] of any Cargo.toml", path.display());
            }
        }
        assert!(found > 0, "{folder} holds no file");
    }
}

#[test]
fn every_test_and_example_in_python_is_run() {
    let root = root();
    let ci = fs::read_to_string(root.join(".ci/run")).unwrap();
    assert!(ci.contains("-m pytest -q tests/python"), ".ci/run runs pytest");
    let tests: Vec<(String, String)> = fs::read_dir(root.join("tests/python"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "py"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect();
    assert!(tests.len() > 1, "tests/python holds no tests");
    for (name, text) in &tests {
        assert!(name == "conftest.py" || name.starts_with("test_"), "pytest does not collect tests/python/{name}");
        assert!(name == "conftest.py" || text.contains("\ndef test_"), "tests/python/{name} holds no test");
    }
    for entry in fs::read_dir(root.join("examples/python")).unwrap() {
        let name = entry.unwrap().file_name().to_str().unwrap().to_owned();
        let path = format!("examples/python/{name}");
        assert!(tests.iter().any(|(_, text)| text.contains(&path)), "no test in tests/python runs {path}");
    }
}

/// The files of a manifest's `[[kind]]` sections: their `path`, or `folder/name.rs`.
fn targets(at: &Path, manifest: &str, kind: &str, folder: &str) -> Vec<PathBuf> {
    let value = |section: &str, key: &str| {
        let line = section.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='))?;
        Some(line.trim().trim_matches('"').to_owned())
    };
    let sections = manifest.split("\n[").filter_map(|s| s.strip_prefix(&format!("[{kind}]]")));
    sections
        .filter_map(|s| value(s, "path").or_else(|| Some(format!("{folder}/{}.rs", value(s, "name")?))))
        .filter_map(|path| at.join(path).canonicalize().ok())
        .collect()
}
