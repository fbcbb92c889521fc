//! Rows a second of a cluster of 1, 2 and 4 executors on this machine, and the bytes between its stages.
//!
//! ```sh
//! cargo build -p datafusion-wae-ballista --bins
//! cargo run -p datafusion-wae-ballista --example cluster -- [COPIES] [THREADS]
//! ```
//!
//! The 1,500 test images of the fixture stand COPIES times (112) in 16 Parquet files; a model of the network `small`
//! scores them. Each executor takes one task at a time and computes with THREADS threads (1), so that up to as many
//! executors as there are cores work on cores of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a measurement")]

#[path = "../../tests/cluster/mod.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod cluster;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::common::Result;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use datafusion_wae_ballista::remote;

use crate::cluster::{Binaries, Cluster};

const TRAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/fashion/train.parquet");
const TEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/fashion/test.parquet");
const FILES: usize = 16;

/// The queries that are measured: a statistic of all rows, and a column of codes that the client takes.
const QUERIES: [(&str, &str); 2] = [
    ("outliers by label", "SELECT label, count(*) AS n FROM images WHERE wae_is_outlier(image, 0.01) GROUP BY label"),
    ("codes", "SELECT label, wae_encode(image) AS code FROM images"),
];

fn main() -> Result<()> {
    // Planners walk plans by recursion, which takes room in unoptimised builds.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(32 << 20).build()?;
    runtime.block_on(async { tokio::spawn(measure(env::args().skip(1).collect())).await.unwrap() })
}

async fn measure(arguments: Vec<String>) -> Result<()> {
    let copies: usize = arguments.first().map_or(112, |text| text.parse().expect("a number of copies"));
    let threads = arguments.get(1).cloned().unwrap_or_else(|| "1".to_owned());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cluster");
    let rows = prepare(&folder, copies).await?;
    println!("{rows} rows in {FILES} files, {threads} threads an executor\n| query | executors | seconds | rows/s |");
    println!("|---|---|---|---|");
    for executors in [1, 2, 4] {
        let cluster = start(&folder, executors, &threads);
        let ctx = client(&cluster, &folder).await?;
        // The model is read, and files are in the page cache.
        run(&ctx, "SELECT max(wae_reconstruction_cost(image)) FROM one").await?;
        for (name, sql) in QUERIES {
            let start = Instant::now();
            run(&ctx, sql).await?;
            let seconds = start.elapsed().as_secs_f64();
            println!("| {name} | {executors} | {seconds:.1} | {:.0} |", rows as f64 / seconds);
        }
        if executors == 2 {
            bytes(&ctx).await?;
        }
    }
    Ok(())
}

/// Writes the model and the files; gives the number of rows.
async fn prepare(folder: &Path, copies: usize) -> Result<usize> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder.join("images"))?;
    let ctx = datafusion_wae::session_context()?;
    run(&ctx, &format!("SET wae.model_dir = '{}'", folder.join("models").display())).await?;
    let train = format!(
        "SELECT epoch FROM wae_train((SELECT image FROM '{TRAIN}' WHERE label IN (0, 1, 2, 3, 4, 6)), model => 'm', \
         network => 'small', epochs => 2)"
    );
    run(&ctx, &train).await?;
    let each = copies.div_ceil(FILES);
    for file in 0..FILES {
        let path = folder.join(format!("images/{file}.parquet"));
        let copy = format!(
            "COPY (SELECT label, image FROM '{TEST}' CROSS JOIN generate_series(1, {each})) TO '{}'",
            path.display()
        );
        run(&ctx, &copy).await?;
    }
    let count = run(&ctx, &format!("SELECT count(*) FROM '{}/images/'", folder.display())).await?;
    Ok(count[0].column(0).as_primitive::<Int64Type>().value(0) as usize)
}

fn start(folder: &Path, executors: usize, threads: &str) -> Cluster {
    let program = |name: &str| -> PathBuf { env::current_exe().unwrap().with_file_name("..").join(name) };
    let binaries = Binaries { scheduler: program("wae-scheduler"), executor: program("wae-executor") };
    let mut cluster = Cluster::start(&binaries, folder, folder, 60);
    cluster.environment = vec![("RAYON_NUM_THREADS", threads.to_owned())];
    (0..executors).for_each(|_| cluster.add_executor(1, folder));
    cluster
}

async fn client(cluster: &Cluster, folder: &Path) -> Result<SessionContext> {
    let ctx = remote(&cluster.url()).await?;
    run(&ctx, &format!("SET wae.model_dir = '{}'", folder.join("models").display())).await?;
    run(&ctx, "SET wae.model = 'm'").await?;
    let images = folder.join("images");
    ctx.register_parquet("images", images.to_str().unwrap(), Default::default()).await?;
    ctx.register_parquet("one", images.join("0.parquet").to_str().unwrap(), Default::default()).await?;
    Ok(ctx)
}

async fn run(ctx: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    ctx.sql(sql).await?.collect().await
}

/// Prints the bytes that go between stages and to the client, for each row of the table that is read.
async fn bytes(ctx: &SessionContext) -> Result<()> {
    let count = run(ctx, "SELECT count(*) FROM one").await?[0].column(0).as_primitive::<Int64Type>().value(0) as f64;
    for (name, sql) in QUERIES {
        let sql = sql.replace("FROM images", "FROM one");
        let plan = ctx.sql(&sql).await?.create_physical_plan().await?;
        collect(Arc::clone(&plan), ctx.task_ctx()).await?;
        let sent =
            plan.metrics().and_then(|metrics| metrics.sum_by_name("transferred_bytes")).map_or(0, |v| v.as_usize());
        let analyzed = run(ctx, &format!("EXPLAIN ANALYZE {sql}")).await?;
        let text = arrow::util::pretty::pretty_format_batches(&analyzed)?.to_string();
        let between: Vec<_> = text.split("decoded_bytes=").skip(1).filter_map(|rest| rest.split(',').next()).collect();
        println!(
            "{name}: to the client {:.1} bytes a row; between stages {between:?} of {count} rows",
            sent as f64 / count
        );
    }
    Ok(())
}
