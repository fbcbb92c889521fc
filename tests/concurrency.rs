//! A model that is replaced while queries use it: every query is computed by one version of it, every row wholly so,
//! and none fails. Many queries in two contexts run while their model is replaced a hundred times, and one query after
//! the other has its model replaced at each of its reads.
//!
//! 4 seconds by default; `WAE_REPLACE_SECONDS=300` is longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[path = "support/replacing_store.rs"]
mod replacing_store;
#[path = "support/session.rs"]
mod session;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Float32Type, Float64Type};
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use replacing_store::ReplacingStore;
use session::{TEST, TRAIN, query, set_model_dir, with_plugin};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use url::Url;

const REPLACEMENTS: u32 = 100;
/// Replacements before those, each of which waits until its version has computed a query.
const AWAITED: usize = 4;
const QUERIES_AT_ONCE: usize = 8;

/// A context with 300 images as table `t`, in batches that are scored by several threads.
async fn context(dir: &Path, store: Arc<dyn ObjectStore>) -> SessionContext {
    let config = SessionConfig::new().with_batch_size(50).with_target_partitions(2);
    let ctx = with_plugin(SessionContext::new_with_config(config), dir).await;
    ctx.register_object_store(&Url::parse("memory://").unwrap(), store);
    ctx.register_parquet("clothes", TEST, Default::default()).await.unwrap();
    ctx.register_parquet("train", TRAIN, Default::default()).await.unwrap();
    query(&ctx, "CREATE TABLE t AS SELECT row_number() OVER () AS id, image FROM clothes LIMIT 300").await;
    ctx
}

/// Cost, p-value and the first number of the code, a row.
async fn scores(ctx: &SessionContext, model: &str) -> Vec<(f32, f64, f32)> {
    let sql = format!(
        "SELECT wae_reconstruction_cost(image, '{model}') AS cost, wae_p_value(image, '{model}') AS p,
                wae_encode(image, '{model}')[1] AS z FROM t ORDER BY id"
    );
    let rows = |batch: &RecordBatch| {
        let cost = batch.column(0).as_primitive::<Float32Type>();
        let p = batch.column(1).as_primitive::<Float64Type>();
        let z = batch.column(2).as_primitive::<Float32Type>();
        assert!(cost.null_count() + p.null_count() + z.null_count() == 0);
        (0..batch.num_rows()).map(|i| (cost.value(i), p.value(i), z.value(i))).collect::<Vec<_>>()
    };
    query(ctx, &sql).await.iter().flat_map(rows).collect()
}

/// A model's file, and the scores that it gives.
type Version = (Vec<u8>, Vec<(f32, f64, f32)>);

/// Two versions of a model, whose scores differ in every row.
async fn versions(ctx: &SessionContext, models: &Path) -> Vec<Version> {
    let mut versions = Vec::new();
    for (name, seed) in [("old", 1), ("new", 2)] {
        let sql = format!(
            "SELECT * FROM wae_train((SELECT image FROM train LIMIT 400), model => '{name}', epochs => 1,
                 network => '4,8', holdout => 0.2, seed => {seed})"
        );
        query(ctx, &sql).await;
        let file = std::fs::read(models.join(format!("{name}.safetensors"))).unwrap();
        versions.push((file, scores(ctx, name).await));
    }
    assert!(versions[0].1.iter().zip(&versions[1].1).all(|(old, new)| old.0 != new.0 && old.2 != new.2));
    versions
}

/// The model is replaced at the first request of a query for its file, then at the second of another query, and so on,
/// until a query makes fewer requests. So it is replaced between all steps of planning that look at the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_whose_model_is_replaced_while_it_is_planned_is_computed_by_one_version() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(ReplacingStore::default());
    let ctx = context(dir.path(), Arc::clone(&store) as _).await;
    let versions = versions(&ctx, dir.path()).await;
    set_model_dir(&ctx, "memory:///models").await;
    let mut counts = [0, 0];
    let mut request = 0;
    // A query that was over before its model was replaced is the last.
    while request == 0 || store.has_replaced() {
        request += 1;
        store.put(&"models/m.safetensors".into(), versions[0].0.clone().into()).await.unwrap();
        store.replace_at(request, "models/m.safetensors", &versions[1].0);
        let scored = scores(&ctx, "m").await;
        let version = versions.iter().position(|(_, expected)| *expected == scored);
        counts[version.unwrap_or_else(|| panic!("replaced at request {request}: rows of two versions"))] += 1;
    }
    let [old, new] = counts;
    println!(
        "the model replaced at each of {request} requests: {old} queries by the old version, {new} by the new one"
    );
    assert!(old > 0 && new > 0, "{old} and {new} queries");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_scored_by_one_version_while_the_model_is_replaced() {
    let seconds = std::env::var("WAE_REPLACE_SECONDS").map_or(4, |n| n.parse().expect("a number of seconds"));
    let dir = TempDir::new().unwrap();
    let store = Arc::new(InMemory::new());
    let contexts =
        [context(dir.path(), Arc::clone(&store) as _).await, context(dir.path(), Arc::clone(&store) as _).await];
    let versions = versions(&contexts[0], dir.path()).await;
    for local in [true, false] {
        let place = if local { dir.path().display().to_string() } else { "memory:///models".to_owned() };
        for ctx in &contexts {
            set_model_dir(ctx, &place).await;
        }
        let place =
            if local { Place::Folder(dir.path().join("m.safetensors")) } else { Place::Store(Arc::clone(&store) as _) };
        replace_while_scoring(&contexts, &versions, place, Duration::from_secs(seconds) / 2).await;
    }
}

enum Place {
    Folder(std::path::PathBuf),
    Store(Arc<dyn ObjectStore>),
}

impl Place {
    /// In one step, as a training does it.
    async fn write(&self, file: &[u8]) {
        match self {
            Self::Folder(path) => wae_core::checkpoint::write_atomically(path, file).unwrap(),
            Self::Store(store) => {
                store.put(&"models/m.safetensors".into(), file.to_vec().into()).await.unwrap();
            }
        }
    }
}

async fn replace_while_scoring(contexts: &[SessionContext], versions: &[Version], place: Place, time: Duration) {
    place.write(&versions[0].0).await;
    let done = Arc::new(AtomicBool::new(false));
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let expected: Arc<Vec<_>> = Arc::new(versions.iter().map(|(_, scores)| scores.clone()).collect());
    let mut queries = Vec::new();
    for ctx in contexts.iter().flat_map(|ctx| (0..QUERIES_AT_ONCE).map(move |_| ctx.clone())) {
        let done = Arc::clone(&done);
        let counts = Arc::clone(&counts);
        let expected = Arc::clone(&expected);
        queries.push(tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let scored = scores(&ctx, "m").await;
                let version = expected.iter().position(|expected| *expected == scored);
                counts[version.expect("all rows are those of one version")].fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    // By the order of events, both versions are met, however slow the machine is.
    for i in 1..=AWAITED {
        let before = counts[i % 2].load(Ordering::Relaxed);
        place.write(&versions[i % 2].0).await;
        // A query that has ended has failed, which is told below.
        while counts[i % 2].load(Ordering::Relaxed) == before && !queries.iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let start = Instant::now();
    for i in 1..=REPLACEMENTS {
        tokio::time::sleep_until((start + time * i / REPLACEMENTS).into()).await;
        place.write(&versions[i as usize % 2].0).await;
    }
    done.store(true, Ordering::Relaxed);
    for query in queries {
        query.await.expect("no query fails");
    }
    let [old, new] = [0, 1].map(|version| counts[version].load(Ordering::Relaxed));
    println!(
        "{AWAITED} replacements that were awaited and {REPLACEMENTS} in {:.1?}, {} queries at once: {old} queries by one version, {new} by the other, 300 rows each",
        start.elapsed(),
        contexts.len() * QUERIES_AT_ONCE
    );
    assert!(old > 0 && new > 0, "{old} and {new} queries");
}
