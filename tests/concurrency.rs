//! Many queries in two contexts while their model is replaced a hundred times: every query is computed by one version of
//! it, every row wholly so, and none fails.
//!
//! 4 seconds by default; `WAE_REPLACE_SECONDS=300` is longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Float32Type, Float64Type};
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;
use url::Url;

const TRAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/fashion/train.parquet");
const TEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/fashion/test.parquet");
const REPLACEMENTS: u32 = 100;
const QUERIES_AT_ONCE: usize = 8;

async fn run(ctx: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    let batches = async { ctx.sql(sql).await?.collect().await };
    batches.await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// A context with 300 images as table `t`, in batches that are scored by several threads.
async fn context(dir: &Path, store: &Arc<InMemory>) -> SessionContext {
    let config = SessionConfig::new().with_batch_size(50).with_target_partitions(2);
    let ctx = SessionContext::new_with_config(config);
    datafusion_wae::register_all(&ctx).unwrap();
    ctx.register_object_store(&Url::parse("memory://").unwrap(), Arc::clone(store) as _);
    ctx.register_parquet("clothes", TEST, Default::default()).await.unwrap();
    ctx.register_parquet("train", TRAIN, Default::default()).await.unwrap();
    run(&ctx, &format!("SET wae.model_dir = '{}'", dir.display())).await;
    run(&ctx, "CREATE TABLE t AS SELECT row_number() OVER () AS id, image FROM clothes LIMIT 300").await;
    ctx
}

/// Cost, p-value and the first number of the code, a row.
async fn scores(ctx: &SessionContext, model: &str) -> Vec<(f32, f64, f32)> {
    let sql = format!(
        "SELECT wae_reconstruction_cost(image, '{model}') AS cost, wae_p_value(image, '{model}') AS p,
                wae_encode(image, '{model}')[1] AS z FROM t ORDER BY id"
    );
    let rows = |batch: &RecordBatch| {
        let (cost, z) = (batch.column(0).as_primitive::<Float32Type>(), batch.column(2).as_primitive::<Float32Type>());
        let p = batch.column(1).as_primitive::<Float64Type>();
        assert!(cost.null_count() + p.null_count() + z.null_count() == 0);
        (0..batch.num_rows()).map(|i| (cost.value(i), p.value(i), z.value(i))).collect::<Vec<_>>()
    };
    run(ctx, &sql).await.iter().flat_map(rows).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_scored_by_one_version_while_the_model_is_replaced() {
    let seconds = std::env::var("WAE_REPLACE_SECONDS").map_or(4, |n| n.parse().expect("a number of seconds"));
    let (dir, store) = (TempDir::new().unwrap(), Arc::new(InMemory::new()));
    let contexts = [context(dir.path(), &store).await, context(dir.path(), &store).await];
    let mut versions = Vec::new();
    for (name, seed) in [("old", 1), ("new", 2)] {
        let sql = format!(
            "SELECT * FROM wae_train((SELECT image FROM train LIMIT 400), model => '{name}', epochs => 1,
                 network => '4,8', holdout => 0.2, seed => {seed})"
        );
        run(&contexts[0], &sql).await;
        let file = std::fs::read(dir.path().join(format!("{name}.safetensors"))).unwrap();
        versions.push((file, scores(&contexts[0], name).await));
    }
    assert!(versions[0].1.iter().zip(&versions[1].1).all(|(old, new)| old.0 != new.0 && old.2 != new.2));
    for local in [true, false] {
        let place = if local { dir.path().display().to_string() } else { "memory:///models".to_owned() };
        for ctx in &contexts {
            run(ctx, &format!("SET wae.model_dir = '{place}'")).await;
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

type Version = (Vec<u8>, Vec<(f32, f64, f32)>);

async fn replace_while_scoring(contexts: &[SessionContext], versions: &[Version], place: Place, time: Duration) {
    place.write(&versions[0].0).await;
    let (done, counts) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]));
    let expected: Arc<Vec<_>> = Arc::new(versions.iter().map(|(_, scores)| scores.clone()).collect());
    let mut queries = Vec::new();
    for ctx in contexts.iter().flat_map(|ctx| (0..QUERIES_AT_ONCE).map(move |_| ctx.clone())) {
        let (done, counts, expected) = (Arc::clone(&done), Arc::clone(&counts), Arc::clone(&expected));
        queries.push(tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let scored = scores(&ctx, "m").await;
                let version = expected.iter().position(|expected| *expected == scored);
                counts[version.expect("all rows are those of one version")].fetch_add(1, Ordering::Relaxed);
            }
        }));
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
        "{REPLACEMENTS} replacements in {:.1?}, {} queries at once: {old} queries by one version, {new} by the other, 300 rows each",
        start.elapsed(),
        contexts.len() * QUERIES_AT_ONCE
    );
    assert!(old > 0 && new > 0, "{old} and {new} queries");
}
