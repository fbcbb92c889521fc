//! The plugin on a Ballista cluster: real processes, whose answers are those of one process or a clear error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cells;
mod cluster;
#[path = "support/forms.rs"]
mod forms;
#[path = "support/session.rs"]
mod session;

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::Result;
use datafusion::prelude::SessionContext;
use datafusion_wae_ballista::remote;

use crate::cells::{cells, prepare};
use crate::cluster::{Binaries, Cluster};
use crate::forms::Form;
use crate::session::{failure, query, run, set_model_dir, text};

const TRAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/fashion/train.parquet");
const TEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/fashion/test.parquet");
const WEIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/backbones");

/// Rows of the test images; each of the four files that the cluster reads has them all.
const ROWS: usize = 1500;
const FILES: usize = 4;

/// Seconds without a sign of life after which an executor is dead, where none is killed.
const EXECUTOR_TIMEOUT: u32 = 300;

/// The outlier query: which rows, with which scores. Costs of the same image are equal, so that the order is by all.
const OUTLIERS: &str = "SELECT file, label, wae_reconstruction_cost(image) AS cost, wae_p_value(image) AS p, \
     wae_anomaly_score(image) AS score, wae_encode(image) AS code \
     FROM test WHERE wae_is_outlier(image, 0.01) ORDER BY cost DESC, file, label";

/// A query of a pretrained network in a fifth of the rows, once in each.
const FEATURES: &str = "SELECT file, label, max(image_features(image, 'resnet-timm', 'layer2', 28)[2]) AS m FROM test \
     WHERE label < 2 AND image_features(image, 'resnet-timm', 'layer2', '28x28')[1] >= 0 GROUP BY file, label \
     ORDER BY max(image_features(image, 'resnet-timm', 'layer2', 28)[3]), file, label";

/// A folder of a test, emptied.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ballista").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn binaries() -> Binaries {
    Binaries {
        scheduler: env!("CARGO_BIN_EXE_wae-scheduler").into(),
        executor: env!("CARGO_BIN_EXE_wae-executor").into(),
    }
}

/// Runs a test's future on threads with room for the recursion of planners in unoptimised builds.
fn block_on(test: impl Future<Output = ()> + Send + 'static) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().worker_threads(2).thread_stack_size(32 << 20).build().unwrap();
    if let Err(e) = runtime.block_on(runtime.spawn(test)) {
        std::panic::resume_unwind(e.into_panic());
    }
}

/// A context of one process, with a model `m` that it trains on clothes and the table `test` of four files.
async fn one_process(folder: &Path) -> SessionContext {
    let ctx = datafusion_wae::session_context().unwrap();
    let data = folder.join("data");
    set_model(&ctx, &folder.join("models")).await;
    let train = format!(
        "SELECT epoch FROM wae_train((SELECT image FROM '{TRAIN}' WHERE label IN (0, 1, 2, 3, 4, 6)), model => 'm', \
         network => '8,16', epochs => 1)"
    );
    query(&ctx, &train).await;
    fs::create_dir_all(&data).unwrap();
    for file in 0..FILES {
        let path = data.join(format!("{file}.parquet"));
        let copy = format!("COPY (SELECT {file} AS file, label, image FROM '{TEST}') TO '{}'", path.display());
        query(&ctx, &copy).await;
    }
    register_test(&ctx, folder).await;
    ctx
}

async fn set_model(ctx: &SessionContext, models: &Path) {
    set_model_dir(ctx, models.display()).await;
    query(ctx, "SET wae.model = 'm'").await;
}

async fn register_test(ctx: &SessionContext, folder: &Path) {
    ctx.register_parquet("test", folder.join("data").to_str().unwrap(), Default::default()).await.unwrap();
}

/// A client with the same model and table.
async fn client(cluster: &Cluster, folder: &Path) -> SessionContext {
    let ctx = remote(&cluster.url()).await.unwrap();
    set_model(&ctx, &folder.join("models")).await;
    register_test(&ctx, folder).await;
    ctx
}

/// A cluster of executors that take one task at a time.
fn start(folder: &Path, executors: usize) -> Cluster {
    start_with_timeout(folder, executors, EXECUTOR_TIMEOUT)
}

fn start_with_timeout(folder: &Path, executors: usize, timeout: u32) -> Cluster {
    let mut cluster = Cluster::start(&binaries(), folder, folder, timeout);
    (0..executors).for_each(|_| cluster.add_executor(1, folder));
    cluster
}

#[test]
fn outliers_are_those_of_one_process_and_all_executors_work() {
    block_on(async move {
        let folder = folder("outliers");
        let local = one_process(&folder).await;
        let expected = text(&local, OUTLIERS).await;
        assert!(expected.lines().count() > 20, "{expected}");
        let cluster = start(&folder, 2);
        let ctx = client(&cluster, &folder).await;
        assert_eq!(text(&ctx, OUTLIERS).await, expected);
        for executor in 0..2 {
            assert!(cluster.logged(executor, "Finished task") > 0, "executor {executor} had no task");
            // Once for all its tasks.
            assert_eq!(cluster.logged(executor, "read model 'm'"), 1, "executor {executor}");
        }
        // One pass a row, over all executors: cost, p-value, score and code share it.
        let analyzed = text(&ctx, &format!("EXPLAIN ANALYZE {OUTLIERS}")).await;
        assert_eq!(scored(&analyzed), ROWS * FILES, "{analyzed}");
    });
}

/// The images that went through the network, of an EXPLAIN ANALYZE.
fn scored(analyzed: &str) -> usize {
    let counts = analyzed.split("rows_scored=").skip(1);
    let counts = counts.map(|rest| rest.split(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | 'K' | ' '))).next());
    counts.map(|count| number(count.unwrap_or_default())).sum()
}

/// A count as DataFusion writes it: `900`, or `6.00 K`.
fn number(text: &str) -> usize {
    match text.trim().strip_suffix('K') {
        Some(thousands) => (thousands.trim().parse::<f64>().unwrap() * 1000.0).round() as usize,
        None => text.trim().parse().unwrap_or_else(|e| panic!("'{text}': {e}")),
    }
}

#[test]
fn every_function_gives_what_it_gives_in_one_process() {
    block_on(async move {
        let folder = folder("functions");
        let local = one_process(&folder).await;
        let cluster = start(&folder, 2);
        let ctx = client(&cluster, &folder).await;
        for context in [&ctx, &local] {
            query(context, &format!("SET wae.weights_dir = '{WEIGHTS}'")).await;
        }
        // Models with a pretrained network, in the file or beside it.
        for (model, embed) in [("seen", true), ("named", false)] {
            let train = format!(
                "SELECT epoch FROM wae_train((SELECT image FROM '{TRAIN}' LIMIT 200), model => '{model}', epochs => 1, \
                 backbone => 'resnet-timm', size => 32, batch_size => 50, embed => {embed})"
            );
            query(&local, &train).await;
        }
        for sql in [
            "SELECT file, wae_anomaly_map(image, 'seen') AS map FROM test WHERE wae_is_outlier(image, 0.1, 'seen') \
             ORDER BY wae_anomaly_score(image, 'seen') DESC, file LIMIT 3",
            "SELECT label, max(wae_reconstruction_cost(image, 'named')) AS cost FROM test GROUP BY label ORDER BY label",
            "SELECT file, label, wae_latent_distance(image) AS d, wae_detect(image) AS s FROM test WHERE file = 1 \
             ORDER BY d DESC LIMIT 10",
            "SELECT label, count(*) AS n, sum(CAST(wae_is_outlier(image, 0.05) AS INT)) AS outliers FROM test \
             GROUP BY label ORDER BY label",
            "SELECT file, image_encode(wae_reconstruct(image)) AS png FROM test ORDER BY wae_reconstruction_cost(image), \
             file LIMIT 3",
            "SELECT image_encode(img) AS png FROM (SELECT wae_decode(wae_encode(image)) AS img, \
             wae_reconstruction_cost(image) AS c, file FROM test ORDER BY c DESC, file LIMIT 3)",
            "SELECT label, image_sharpness(image_decode(image_encode(image), 14, 14, 1)) AS s, \
             image_sharpness(image_decode(image_encode(image))) AS t FROM test WHERE file = 2 ORDER BY s DESC LIMIT 5",
            "SELECT file, image_stitch(image_crop(image_resize(tile['image'], 20, 18), 1, 2, 16, 15), tile['y'], tile['x']) AS s \
             FROM (SELECT file, image_encode(image) AS png, \
             unnest(image_tiles(image_decode(image, 28, 28, 1), 14, 10)) AS tile FROM test) \
             GROUP BY file, png ORDER BY file, png",
            "SELECT file, wae_anomaly_map(image) AS map FROM test ORDER BY wae_anomaly_score(image) DESC, file LIMIT 2",
            "SELECT file, wae_anomaly_mask(image, 0.05) AS m, wae_anomaly_regions(image, 0.05) AS r FROM test \
             ORDER BY wae_anomaly_score(image) DESC, file LIMIT 2",
            "SELECT round(pixel_auroc(wae_cost_map(image), wae_anomaly_mask(image, 0.05)), 9) AS a, \
             round(aupro(CASE WHEN label < 9 THEN wae_anomaly_map(image) END, wae_anomaly_mask(image, 0.1)), 9) AS b FROM test",
            "SELECT file, image_features(image, 'efficientnet-lite', 'pooled', 32) AS f FROM test \
             ORDER BY wae_reconstruction_cost(image), file LIMIT 3",
            "SELECT label, max(image_features(image, 'vit-timm', 'cls')[1]) AS m FROM test GROUP BY label ORDER BY label",
            FEATURES,
            "SELECT cardinality(wae_interpolate(wae_encode(image), wae_encode(image), 3)) AS n, count(*) FROM test \
             GROUP BY n",
            "SELECT auroc(wae_reconstruction_cost(image), label IN (5, 7, 8, 9)) AS a, \
             average_precision(wae_reconstruction_cost(image), label IN (5, 7, 8, 9)) AS b FROM test",
            "SELECT wae_mmd(wae_encode(image)) AS mmd, wae_mmd_p_value(wae_encode(image)) AS p FROM test",
            "SELECT label, wae_mmd(wae_encode(image)) AS mmd FROM test GROUP BY label ORDER BY label",
            "SELECT count(*) FROM (SELECT wae_fdr(wae_p_value(image)) OVER () AS q FROM test) WHERE q <= 0.2",
            "SELECT file, label, rank() OVER (ORDER BY wae_reconstruction_cost(image)) AS r FROM test ORDER BY r, file, label \
             LIMIT 5",
            "SELECT label, row_number() OVER (PARTITION BY wae_is_outlier(image, 0.05), file ORDER BY \
             wae_reconstruction_cost(image), label) AS r, file FROM test ORDER BY r DESC, file LIMIT 5",
            "SELECT a.label, max(wae_reconstruction_cost(a.image)) AS m FROM test a JOIN test b ON a.label = b.label \
             AND a.file = 0 AND b.file = 1 AND a.label IN (0, 8) AND wae_reconstruction_cost(b.image) > 40 \
             GROUP BY a.label ORDER BY a.label",
            "SELECT count(*) FROM test WHERE wae_reconstruction_cost(image) > \
             (SELECT avg(wae_reconstruction_cost(image)) FROM test WHERE file = 3)",
        ] {
            assert_eq!(text(&ctx, sql).await, text(&local, sql).await, "{sql}");
        }
        let analyzed = text(&ctx, &format!("EXPLAIN ANALYZE {FEATURES}")).await;
        assert_eq!(scored(&analyzed), ROWS * FILES / 5, "{analyzed}");
        // Sums of floats over partitions: equal but for their order.
        let distance = "SELECT round(frechet_distance(wae_encode(image), wae_encode(image)), 9) AS d FROM test";
        assert_eq!(text(&ctx, distance).await, text(&local, distance).await);
        // Options travel: executors read the model for the session's precision, and codes are the same here and there.
        // They differ from those in f32 on some processors only.
        let codes = "SELECT file, label, wae_encode(image) AS z, wae_reconstruction_cost(image) AS c FROM test \
             ORDER BY c DESC, file LIMIT 5";
        let read = |precision: &str| {
            let line = format!("read model 'm' for precision {precision} ");
            (0..2).map(|executor| cluster.logged(executor, &line)).sum::<usize>()
        };
        assert!(read("f32") > 0 && read("bf16") == 0);
        for context in [&ctx, &local] {
            query(context, "SET wae.precision = 'bf16'").await;
        }
        assert_eq!(text(&ctx, codes).await, text(&local, codes).await);
        assert!(read("bf16") > 0, "no executor has read the model for bf16");
    });
}

/// Channels first, with names that do not survive between stages.
#[test]
fn a_tensors_layout_survives_a_shuffle() {
    block_on(async move {
        let folder = folder("layouts");
        let data = folder.join("data");
        fs::create_dir_all(&data).unwrap();
        let local = datafusion_wae::session_context().unwrap();
        local.register_batch("rgb", forms::table(Form::ChannelsFirst, 0)).unwrap();
        for file in 0..FILES {
            let path = data.join(format!("{file}.parquet"));
            query(&local, &format!("COPY (SELECT {file} AS file, id, image FROM rgb) TO '{}'", path.display())).await;
        }
        set_model(&local, &folder.join("models")).await;
        let train = "SELECT epoch FROM wae_train('rgb', model => 'm', network => '4', epochs => 1, holdout => 0)";
        query(&local, train).await;
        register_test(&local, &folder).await;
        let cluster = start(&folder, 2);
        let ctx = client(&cluster, &folder).await;
        let plain = text(&local, "SELECT id, wae_reconstruction_cost(image) AS c FROM rgb ORDER BY id").await;
        for image in [
            "SELECT id, first_value(image) AS image FROM test GROUP BY id",
            "SELECT id, CASE WHEN id >= 0 THEN image END AS image FROM (SELECT DISTINCT id, image FROM test)",
            "SELECT a.id, a.image FROM test AS a JOIN test AS b ON a.id = b.id WHERE a.file = 1 AND b.file = 2",
            "SELECT id, unnest(images) AS image FROM (SELECT id, array_agg(image) AS images FROM test WHERE file = 1 GROUP BY id)",
        ] {
            let sql = format!("SELECT id, wae_reconstruction_cost(image) AS c FROM ({image}) ORDER BY id");
            assert_eq!(text(&local, &sql).await, plain, "{sql}");
            assert_eq!(text(&ctx, &sql).await, plain, "on the cluster: {sql}");
        }
    });
}

/// The sum of costs over each file so many times.
fn costs(times: usize) -> String {
    let times: Vec<_> = (0..times).map(|i| format!("({i})")).collect();
    format!(
        "SELECT count(*) AS n, sum(CAST(wae_reconstruction_cost(image) * 1024 AS BIGINT)) AS cost \
         FROM (SELECT image FROM test CROSS JOIN (VALUES {}) AS times (t))",
        times.join(", ")
    )
}

/// Runs a query until executor 1 computes a task of it, and kills the executor then. The executor is paused for the
/// look at its log, which is so that of the moment of its death. A query that was over too early is followed by a
/// longer one. Gives how often the files were read, and the answer.
async fn kill_within_a_task(cluster: &mut Cluster, ctx: &SessionContext) -> (usize, Result<Vec<RecordBatch>>) {
    let mut times = 8;
    loop {
        let ctx = ctx.clone();
        let sql = costs(times);
        let query = tokio::spawn(async move { run(&ctx, &sql).await });
        let begun = [0, 1].map(|executor| cluster.logged(executor, "Execute task"));
        while !query.is_finished() && (0..2).any(|executor| cluster.logged(executor, "Execute task") == begun[executor])
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cluster.pause(1);
        if cluster.logged(1, "Execute task") > cluster.logged(1, "Finished task") {
            cluster.kill(1);
            let killed = Instant::now();
            let answer = tokio::time::timeout(Duration::from_secs(600), query).await.expect("an end").unwrap();
            eprintln!(
                "ended {:?} after the executor: {}",
                killed.elapsed(),
                answer.as_ref().map_or("error", |_| "rows")
            );
            return (times, answer);
        }
        cluster.resume(1);
        query.await.unwrap().unwrap();
        times *= 2;
    }
}

#[test]
fn a_killed_executor_costs_no_rows() {
    block_on(async move {
        let folder = folder("killed");
        let local = one_process(&folder).await;
        let mut cluster = start_with_timeout(&folder, 2, 10);
        let ctx = client(&cluster, &folder).await;
        let (times, answer) = kill_within_a_task(&mut cluster, &ctx).await;
        match answer {
            Ok(rows) => {
                assert_eq!(pretty_format_batches(&rows).unwrap().to_string(), text(&local, &costs(times)).await);
            }
            Err(e) => assert!(e.strip_backtrace().to_lowercase().contains("executor"), "{e}"),
        }
    });
}

/// Executors that see another folder `models`: its path is relative and leads up to the root first. Client and
/// scheduler begin at the crate's folder, and the executor as deep below the test's. Gives the cluster, a client, and
/// the models that the executor sees.
async fn apart(folder: &Path) -> (Cluster, SessionContext, PathBuf) {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().unwrap();
    let folder = folder.canonicalize().unwrap();
    let depth = crate_folder.components().count() - 1;
    let of_root = folder.strip_prefix("/").unwrap().join("models");
    let at = folder.join(["a"].repeat(depth).join("/"));
    let models = folder.join(&of_root);
    fs::create_dir_all(&at).unwrap();
    fs::create_dir_all(&models).unwrap();
    let mut cluster = Cluster::start(&binaries(), &folder, &crate_folder, EXECUTOR_TIMEOUT);
    cluster.add_executor(1, &at);
    let ctx = remote(&cluster.url()).await.unwrap();
    set_model(&ctx, &Path::new(&"../".repeat(depth)).join(of_root)).await;
    register_test(&ctx, &folder).await;
    (cluster, ctx, models)
}

#[test]
fn an_executor_without_the_model_says_so() {
    block_on(async move {
        let folder = folder("missing");
        one_process(&folder).await;
        let (_cluster, ctx, _) = apart(&folder).await;
        for sql in
            ["SELECT max(wae_reconstruction_cost(image)) FROM test", "SELECT wae_mmd(wae_encode(image)) FROM test"]
        {
            let error = failure(&ctx, sql).await;
            assert!(error.contains("no model 'm' in '") && error.contains("which holds none"), "{error}");
        }
    });
}

#[test]
fn an_executor_with_another_model_of_the_name_says_so() {
    block_on(async move {
        let folder = folder("stale");
        let local = one_process(&folder).await;
        let (_cluster, ctx, models) = apart(&folder).await;
        set_model(&local, &models).await;
        let train = format!(
            "SELECT epoch FROM wae_train((SELECT image FROM '{TRAIN}' WHERE label < 2), model => 'm', network => '8,16', \
             epochs => 1, seed => 1)"
        );
        query(&local, &train).await;
        for sql in
            ["SELECT max(wae_reconstruction_cost(image)) FROM test", "SELECT wae_mmd(wae_encode(image)) FROM test"]
        {
            let error = failure(&ctx, sql).await;
            assert!(error.contains("the query was planned with model 'm' of sha256 "), "{error}");
            assert!(error.contains("holds another of this name, of sha256 "), "{error}");
        }
    });
}

#[test]
fn table_functions_run_in_the_client() {
    block_on(async move {
        let folder = folder("tables");
        let local = one_process(&folder).await;
        let cluster = start(&folder, 2);
        let ctx = client(&cluster, &folder).await;
        // A training reads its source on the cluster; the same rows train the same model.
        let train = |name: &str| {
            format!(
                "SELECT epoch, loss, images FROM wae_train((SELECT image FROM test WHERE label IN (0, 2) AND \
                 wae_reconstruction_cost(image) < 1000), model => '{name}', network => '8', epochs => 2)"
            )
        };
        assert_eq!(text(&ctx, &train("there")).await, text(&local, &train("here")).await);
        assert!((0..2).all(|executor| cluster.logged(executor, "Finished task") > 0));
        let hashes = "SELECT count(DISTINCT wae_encode(image, 'here') = wae_encode(image, 'there')) AS n, \
             bool_and(wae_encode(image, 'here') = wae_encode(image, 'there')) AS same FROM test";
        assert!(text(&ctx, hashes).await.contains("true"));
        let calibrate = "SELECT model, rows, smallest_p FROM wae_calibrate((SELECT image FROM test WHERE label = 4), \
             model => 'there')";
        assert!(text(&ctx, calibrate).await.contains("| there | "));
        for sql in [
            "SELECT name, epochs FROM wae_models() ORDER BY name",
            "SELECT epoch, images FROM wae_history('there') ORDER BY epoch",
            "SELECT wae_reconstruction_cost(image) AS c, latent FROM wae_sample(3, seed => 1) ORDER BY c",
            "SELECT count(*) AS n, wae_mmd(latent) AS mmd FROM wae_sample(100)",
        ] {
            assert_eq!(text(&ctx, sql).await, text(&local, sql).await, "{sql}");
        }
        let images = folder.join("images");
        fs::create_dir_all(&images).unwrap();
        fs::write(images.join("a.png"), "no image").unwrap();
        let files =
            format!("SELECT count(*) AS n, max(length(bytes)) AS l FROM read_images('{}/*.png')", images.display());
        assert_eq!(text(&ctx, &files).await, text(&local, &files).await);
        let plan = text(&ctx, &format!("EXPLAIN {}", train("planned"))).await;
        assert!(plan.contains("WaeTrainExec") && plan.contains("DistributedQueryExec"), "{plan}");
        // What neither side can read alone is refused.
        let mixed = "SELECT frechet_distance(x, y) FROM (SELECT wae_encode(image) AS x, NULL AS y FROM wae_sample(10) \
             UNION ALL SELECT NULL, wae_encode(image) FROM test)";
        let error = failure(&ctx, mixed).await;
        assert!(
            error.contains("wae_sample is a table of the client, which the cluster cannot read beside test"),
            "{error}"
        );
    });
}

/// The column *Ballista* of the table *What works where?* in the guide's page `hosts.md`.
#[test]
fn what_works_on_a_cluster() {
    block_on(async move {
        let folder = folder("cells");
        let local = one_process(&folder).await;
        let cluster = start(&folder, 1);
        let ctx = client(&cluster, &folder).await;
        query(&local, &prepare()).await;
        query(&ctx, &prepare()).await;
        for (cell, sql) in cells() {
            let sql = sql.replace("{data}", folder.join("data").to_str().unwrap());
            if cell == "these beside other tables" {
                let error = failure(&ctx, &sql).await;
                assert!(error.contains("wae_sample is a table of the client"), "{cell}: {error}");
            } else {
                assert_eq!(text(&ctx, &sql).await, text(&local, &sql).await, "{cell}");
            }
        }
    });
}

#[test]
fn errors_are_those_of_one_process() {
    block_on(async move {
        let folder = folder("errors");
        let local = one_process(&folder).await;
        let cluster = start(&folder, 1);
        let ctx = client(&cluster, &folder).await;
        // At planning, in the client.
        for sql in [
            "SELECT wae_encode(image, 'none') FROM test",
            "SELECT wae_encode(label) FROM test",
            "SELECT wae_is_outlier(image, 0.0001) FROM test",
            "SELECT * FROM wae_train((SELECT label FROM test), model => 'x')",
        ] {
            assert_eq!(failure(&ctx, sql).await, failure(&local, sql).await, "{sql}");
        }
        // In a task, on an executor.
        let broken = "SELECT count(image_decode(arrow_cast('no image', 'Binary'))) FROM test";
        let message = failure(&ctx, broken).await;
        assert!(message.contains("image_decode"), "{message}");
        query(&ctx, "SET wae.on_error = 'null'").await;
        assert!(text(&ctx, broken).await.contains("| 0"));
        let error = remote("df://127.0.0.1:1").await.err().unwrap().strip_backtrace();
        assert!(error.contains("no scheduler answers at 'df://127.0.0.1:1'"), "{error}");
    });
}
