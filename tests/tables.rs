//! The study `benches/tables` on the fixture: finished cells are not computed again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;

use tables::{Options, Table, run};

#[path = "../benches/tables/main.rs"]
#[allow(dead_code, reason = "the study's main")]
mod tables;

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_computes_only_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        data: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures")),
        seeds: 1,
        epochs: 1,
        table: Table::B,
        sets: vec!["fashion".to_owned()],
        classes: vec![1],
        methods: ["mmd", "pca", "nearest"].map(str::to_owned).to_vec(),
        results: dir.path().join("results.jsonl"),
        models: dir.path().join("models"),
    };
    let first = run(&options).await.unwrap();
    assert_eq!(first.computed, 3, "{}", first.markdown);
    let text = std::fs::read_to_string(&options.results).unwrap();
    let cells: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cells.len(), 3);
    for cell in &cells {
        let auroc = cell["values"]["auroc"].as_f64().unwrap();
        // Trousers are easy to tell; a network that saw few batches need not know it yet.
        let least = if cell["method"] == "mmd" { 0.0 } else { 0.9 };
        assert!(auroc > least && auroc <= 1.0, "{cell}");
        assert!(first.markdown.contains(&format!("{auroc:.3}")), "{}", first.markdown);
    }

    let second = run(&options).await.unwrap();
    assert_eq!((second.computed, &second.markdown), (0, &first.markdown));

    // A crash in the middle of the last line loses that cell, and no other.
    std::fs::write(&options.results, &text[..text.len() - 10]).unwrap();
    assert_eq!(run(&options).await.unwrap().computed, 1);
    assert_eq!(run(&options).await.unwrap().computed, 0);

    // Another seed is another cell; the baselines have none.
    assert_eq!(run(&Options { seeds: 2, ..options }).await.unwrap().computed, 1);
}
