//! Training and scoring under the query's memory pool: the bytes that they take of it, the images that go to a
//! temporary file, and that both are given back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/session.rs"]
mod session;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Float64Type;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, UnboundedMemoryPool,
};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_wae::WaeTrainExec;
use futures::StreamExt;
use rstest::rstest;
use session::{ROOT, TEST, TRAIN, weights, with_plugin};
use tempfile::TempDir;
use wae_core::backbone::Backbone;
use wae_core::{Device, ImageShape, TrainOptions};

const OPTIONS: &str = "network => '4,8', epochs => 2, batch_size => 50";
/// Bytes that images in work take: 256 of 28×28, as floats, with their part of the index.
const IN_WORK: usize = 256 * 784 * 4 + 4400 * 32;

/// A pool that remembers the most that it granted.
#[derive(Debug)]
struct Watched {
    pool: Arc<dyn MemoryPool>,
    most: AtomicUsize,
}

impl Watched {
    fn new(pool: impl MemoryPool + 'static) -> Arc<Self> {
        Arc::new(Self { pool: Arc::new(pool), most: AtomicUsize::new(0) })
    }

    fn seen<T>(&self, result: T) -> T {
        self.most.fetch_max(self.pool.reserved(), Ordering::Relaxed);
        result
    }
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.pool.fmt(f)
    }
}

impl MemoryPool for Watched {
    fn name(&self) -> &str {
        self.pool.name()
    }
    fn register(&self, consumer: &MemoryConsumer) {
        self.pool.register(consumer);
    }
    fn unregister(&self, consumer: &MemoryConsumer) {
        self.pool.unregister(consumer);
    }
    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.pool.grow(reservation, additional);
        self.seen(());
    }
    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.pool.shrink(reservation, shrink);
    }
    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let result = self.pool.try_grow(reservation, additional);
        self.seen(result)
    }
    fn reserved(&self) -> usize {
        self.pool.reserved()
    }
    fn memory_limit(&self) -> MemoryLimit {
        self.pool.memory_limit()
    }
}

/// A context with a pool of its own, its temporary files and its models in folders of their own.
struct Host {
    ctx: SessionContext,
    pool: Arc<Watched>,
    dir: TempDir,
}

impl Host {
    async fn new(pool: Arc<Watched>) -> Self {
        let dir = TempDir::new().unwrap();
        let mode = DiskManagerMode::Directories(vec![dir.path().join("spilled")]);
        Self::with_disk(pool, dir, DiskManagerBuilder::default().with_mode(mode)).await
    }

    async fn with_disk(pool: Arc<Watched>, dir: TempDir, disk: DiskManagerBuilder) -> Self {
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&pool) as _).with_disk_manager_builder(disk);
        let config = SessionConfig::new().with_target_partitions(2);
        let ctx = SessionContext::new_with_config_rt(config, runtime.build_arc().unwrap());
        let ctx = with_plugin(ctx, &dir.path().join("models")).await;
        ctx.register_parquet("train", TRAIN, Default::default()).await.unwrap();
        ctx.register_parquet("test", TEST, Default::default()).await.unwrap();
        Self { ctx, pool, dir }
    }

    fn models(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    async fn run(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        session::run(&self.ctx, sql).await
    }

    async fn error(&self, sql: &str) -> String {
        session::failure(&self.ctx, sql).await
    }

    /// Files that the DiskManager has made and that are still there.
    fn spilled(&self) -> Vec<PathBuf> {
        files(&self.dir.path().join("spilled"))
    }

    /// Nothing is held any more, neither memory nor a file.
    async fn assert_given_back(&self) {
        let start = Instant::now();
        let disk = &self.ctx.runtime_env().disk_manager;
        // The thread that trains ends within a batch of the query. Whoever waits ten minutes waits for ever.
        while self.pool.reserved() > 0 || !self.spilled().is_empty() || disk.used_disk_space() > 0 {
            assert!(start.elapsed() < Duration::from_secs(600), "{} bytes, {:?}", self.pool.reserved(), self.spilled());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn train(name: &str, source: &str) -> String {
    format!("SELECT epoch, loss FROM wae_train(({source}), model => '{name}', {OPTIONS})")
}

/// Bytes that the network of [`OPTIONS`] takes.
fn network() -> usize {
    let options = [("network", "4,8".into()), ("batch_size", 50.into())];
    TrainOptions::try_from_options(options).unwrap().memory(ImageShape::new(28, 28, 1)).unwrap()
}

fn losses(batches: &[RecordBatch]) -> Vec<f64> {
    batches.iter().flat_map(|batch| batch.column(1).as_primitive::<Float64Type>().values().to_vec()).collect()
}

fn training(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    if plan.downcast_ref::<WaeTrainExec>().is_some() {
        return Some(Arc::clone(plan));
    }
    plan.children().into_iter().find_map(training)
}

/// 4,400 images are 3.4 MB: more than is granted beside the network, at the first row or after some.
#[rstest]
#[case::greedy_at_once(|limit| Watched::new(GreedyMemoryPool::new(limit)), 500_000)]
#[case::greedy_later(|limit| Watched::new(GreedyMemoryPool::new(limit)), 2_400_000)]
#[case::fair(|limit| Watched::new(FairSpillPool::new(limit)), 2_400_000)]
#[tokio::test(flavor = "multi_thread")]
async fn images_beyond_the_pool_go_to_a_file_and_train_the_same_model(
    #[case] pool: fn(usize) -> Arc<Watched>,
    #[case] more: usize,
) {
    let free = Host::new(Watched::new(UnboundedMemoryPool::default())).await;
    let expected = losses(&free.run(&train("m", "SELECT image FROM train")).await.unwrap());
    assert!(free.pool.most.load(Ordering::Relaxed) > network() + 3_400_000, "the images are accounted");
    assert!(free.spilled().is_empty());

    let limit = network() + IN_WORK + more;
    let host = Host::new(pool(limit)).await;
    let frame = host.ctx.sql(&train("m", "SELECT image FROM train")).await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let rows = collect(Arc::clone(&plan), host.ctx.task_ctx()).await.unwrap();
    assert_eq!(losses(&rows), expected);
    let model = |host: &Host| weights(&host.models().join("m.safetensors"));
    assert!(model(&host) == model(&free), "weights and calibration, bit for bit");

    let metrics = training(&plan).unwrap().metrics().unwrap();
    assert_eq!((metrics.spill_count(), metrics.spilled_rows()), (Some(1), Some(4400)));
    assert_eq!(metrics.spilled_bytes(), Some(4400 * 784));
    assert!(host.pool.most.load(Ordering::Relaxed) <= limit);
    host.assert_given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_analyze_shows_what_was_spilled() {
    let host = Host::new(Watched::new(GreedyMemoryPool::new(network() + IN_WORK + 500_000))).await;
    let rows = host.run(&format!("EXPLAIN ANALYZE {}", train("m", "SELECT image FROM train"))).await.unwrap();
    let shown = pretty_format_batches(&rows).unwrap().to_string();
    let line = shown.lines().find(|line| line.contains("WaeTrainExec")).unwrap();
    assert!(line.contains("spill_count=1") && line.contains("spilled_bytes=3.3 MB"), "{line}");
    assert!(!files(&host.models()).is_empty());
    host.assert_given_back().await;
}

/// A network that the pool has no room for is refused with what it takes, after the first images.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_beyond_the_pool_is_refused() {
    let host = Host::new(Watched::new(GreedyMemoryPool::new(4 << 20))).await;
    let error = host.error(&train("m", "SELECT image FROM train").replace("'4,8'", "'64,128'")).await;
    assert!(error.contains("Resources exhausted: wae_train: the training takes about "), "{error}");
    assert!(error.contains("for rows of shape [28, 28, 1] and batch_size 50: raise the memory limit"), "{error}");
    assert!(files(&host.models()).is_empty());
    host.assert_given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_temporary_files_the_error_says_what_to_raise() {
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let pool = Watched::new(GreedyMemoryPool::new(network() + IN_WORK + 500_000));
    let host = Host::with_disk(pool, TempDir::new().unwrap(), disk).await;
    let error = host.error(&train("m", "SELECT image FROM train")).await;
    let expected = "Resources exhausted: wae_train: the images do not fit in the memory that the pool grants, and the \
                    DiskManager is disabled: raise the memory limit (datafusion.runtime.memory_limit), or enable";
    assert!(error.contains(expected), "{error}");
    assert!(files(&host.models()).is_empty());
    host.assert_given_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_temporary_files_is_kept() {
    let dir = TempDir::new().unwrap();
    let mode = DiskManagerMode::Directories(vec![dir.path().join("spilled")]);
    let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(2_000_000);
    let pool = Watched::new(GreedyMemoryPool::new(network() + IN_WORK + 500_000));
    let host = Host::with_disk(pool, dir, disk).await;
    let error = host.error(&train("m", "SELECT image FROM train")).await;
    assert!(error.contains("cannot write the training images: "), "{error}");
    assert!(error.contains("datafusion.runtime.max_temp_directory_size"), "{error}");
    assert!(files(&host.models()).is_empty());
    host.assert_given_back().await;
}

/// A query that is dropped while it trains, and one whose source fails after the images went to a file.
#[tokio::test(flavor = "multi_thread")]
async fn files_and_memory_are_given_back_by_queries_that_end_early() {
    let host = Host::new(Watched::new(GreedyMemoryPool::new(network() + IN_WORK + 500_000))).await;
    let sql = train("m", "SELECT image FROM train").replace("epochs => 2", "epochs => 100000");
    let mut stream = host.ctx.sql(&sql).await.unwrap().execute_stream().await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert_eq!(host.spilled().len(), 1);
    assert!(host.pool.reserved() >= network());
    drop(stream);
    host.assert_given_back().await;

    let source = "SELECT CASE WHEN row_number() OVER () < 4300 THEN image ELSE arrow_cast('no image', 'Binary') END AS image \
                  FROM (SELECT arrow_cast(image_encode(image), 'Binary') AS image FROM train)";
    let error = host.error(&train("m", source)).await;
    assert!(error.contains("wae_train: row ") && error.contains("unknown format"), "{error}");
    assert!(files(&host.models()).is_empty());
    host.assert_given_back().await;
}

/// A pass takes a mini-batch's memory a partition, however many rows a table or DataFusion's batches have.
#[tokio::test(flavor = "multi_thread")]
async fn scoring_takes_the_memory_of_a_mini_batch() {
    let pool = Watched::new(GreedyMemoryPool::new(100 << 20));
    let host = Host::new(pool).await;
    host.run(&train("m", "SELECT image FROM train LIMIT 700")).await.unwrap();
    host.run("CREATE TABLE large AS SELECT image FROM train UNION ALL SELECT image FROM test").await.unwrap();
    let held = host.pool.reserved();
    let mut most = Vec::new();
    for table in ["test", "large"] {
        host.pool.most.store(0, Ordering::Relaxed);
        host.run(&format!("SELECT max(wae_reconstruction_cost(image, 'm')) FROM {table}")).await.unwrap();
        most.push(host.pool.most.load(Ordering::Relaxed) - held);
        assert_eq!(host.pool.reserved(), held);
    }
    let file = wae_core::ModelFile::read(host.models().join("m.safetensors")).unwrap();
    let pass = wae_core::model::scoring_memory(file.config(), 256);
    // The aggregate above has some of its own.
    let allowed = pass..2 * pass + 100_000;
    assert!(most.iter().all(|most| allowed.contains(most)), "{most:?}, {allowed:?}");

    let host = Host { pool: Watched::new(GreedyMemoryPool::new(pass / 2)), ..host };
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&host.pool) as _).build_arc().unwrap();
    let ctx = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(1), runtime);
    let ctx = with_plugin(ctx, &host.models()).await;
    ctx.register_parquet("test", TEST, Default::default()).await.unwrap();
    let host = Host { ctx, ..host };
    let sql = "SELECT max(wae_reconstruction_cost(image, 'm')) FROM test";
    let error = host.error(sql).await;
    assert!(error.contains("a pass of 256 images takes about "), "{error}");
    assert!(error.contains("raise the memory limit, or lower wae.batch_size"), "{error}");
    host.run("SET wae.batch_size = 20").await.unwrap();
    host.run(sql).await.unwrap();
    assert_eq!(host.pool.reserved(), 0);
}

/// As a model's: the layers and the features of a mini-batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_pretrained_network_takes_the_memory_of_a_mini_batch() {
    let host = Host::new(Watched::new(GreedyMemoryPool::new(400 << 20))).await;
    let folder = format!("{ROOT}/fixtures/backbones");
    host.run(&format!("SET wae.weights_dir = '{folder}'")).await.unwrap();
    host.run("SET wae.batch_size = 100").await.unwrap();
    host.run("SET datafusion.execution.target_partitions = 1").await.unwrap();
    let backbone = Backbone::open(&Path::new(&folder).join("resnet-timm"), Device::Cpu).unwrap();
    let layer = backbone.layer_selection(Some("layer1")).unwrap();
    let pass = backbone.working_memory(&layer, (64, 64), 100).unwrap();
    let sql = "SELECT max(image_features(image, 'resnet-timm', 'layer1', 64)[1]) FROM test";
    host.pool.most.store(0, Ordering::Relaxed);
    host.run(sql).await.unwrap();
    let most = host.pool.most.load(Ordering::Relaxed);
    assert!((pass..2 * pass + 100_000).contains(&most), "{most}, {pass}");
    assert_eq!(host.pool.reserved(), 0);

    let host = Host::new(Watched::new(GreedyMemoryPool::new(pass / 2))).await;
    host.run(&format!("SET wae.weights_dir = '{folder}'")).await.unwrap();
    host.run("SET wae.batch_size = 100").await.unwrap();
    let error = host.error(sql).await;
    assert!(error.contains("a pass of 100 images takes about "), "{error}");
}

/// 81 tiles of 65,536 bytes an image.
#[tokio::test(flavor = "multi_thread")]
async fn tiles_take_their_memory() {
    let sql = "SELECT count(tile) FROM (SELECT unnest(image_tiles(image_resize(image, 512, 512), 256, 32)) AS tile \
               FROM test LIMIT 3)";
    let host = Host::new(Watched::new(GreedyMemoryPool::new(200 << 20))).await;
    host.run("SET datafusion.execution.target_partitions = 1").await.unwrap();
    host.pool.most.store(0, Ordering::Relaxed);
    host.run(sql).await.unwrap();
    let most = host.pool.most.load(Ordering::Relaxed);
    assert!((81 * 65_536..64 << 20).contains(&most), "{most}");
    assert_eq!(host.pool.reserved(), 0);

    let host = Host::new(Watched::new(GreedyMemoryPool::new(2 << 20))).await;
    let error = host.error(sql).await;
    assert!(error.contains("raise the memory limit, or enlarge the stride"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calibration_takes_the_memory_of_a_mini_batch() {
    let host = Host::new(Watched::new(GreedyMemoryPool::new(100 << 20))).await;
    host.run(&train("m", "SELECT image FROM train LIMIT 700")).await.unwrap();
    host.pool.most.store(0, Ordering::Relaxed);
    host.run("SELECT * FROM wae_calibrate((SELECT image FROM test), model => 'm')").await.unwrap();
    let file = wae_core::ModelFile::read(host.models().join("m.safetensors")).unwrap();
    let fixed = wae_core::model::calibration_memory(file.config(), 256);
    let most = host.pool.most.load(Ordering::Relaxed);
    assert!((fixed..fixed + 100_000).contains(&most), "{most}, {fixed}");
    assert_eq!(host.pool.reserved(), 0);
}

/// A pixel metric keeps a count of each distinct value, of 24 bytes, in memory of the pool.
#[tokio::test(flavor = "multi_thread")]
async fn pixel_metrics_take_memory_of_the_pool() {
    let sql =
        "SELECT pixel_auroc(map, mask) FROM (SELECT make_array(make_array(CAST(value AS DOUBLE), value + 0.5)) AS map,
                   make_array(make_array(0, 1)) AS mask FROM generate_series(1, 200000))";
    let host = Host::new(Watched::new(GreedyMemoryPool::new(100 << 20))).await;
    host.run(sql).await.unwrap();
    let most = host.pool.most.load(Ordering::Relaxed);
    assert!(most > 400_000 * 24, "{most}");
    assert_eq!(host.pool.reserved(), 0);

    let host = Host::new(Watched::new(GreedyMemoryPool::new(2 << 20))).await;
    let error = host.error(sql).await;
    assert!(error.contains("Resources exhausted"), "{error}");
}
