//! Hostile files: images and model files, each damaged in a way of its own, give errors, NULLs or valid results, never
//! a panic, in bounded time and memory; and the corpus of attacks in fixtures/attacks.
//!
//! 100 of each by default; `WAE_CORRUPTED=1000` tries more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[path = "support/session.rs"]
mod session;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, FixedSizeListArray, Int64Array, ListArray, RecordBatch,
};
use datafusion::arrow::datatypes::{Field, Float32Type, Int64Type, Schema, UInt8Type};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;
use datafusion_wae::WaePassExec;
use session::{ROOT, TEST, TRAIN, failure, query, run};
use tempfile::TempDir;

/// Panics of any thread of this process.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Bounds the threads that decode images, each of which takes memory of its own, so that the bound on memory holds on a
/// machine of many cores too. To be called before all else.
fn few_threads() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| rayon::ThreadPoolBuilder::new().num_threads(4).build_global().unwrap());
}

/// A context with a model `m` that resizes to 28×28, so that it takes images of every size.
async fn context(dir: &Path) -> SessionContext {
    few_threads();
    let ctx = session::context(dir).await;
    for sql in [
        "SET datafusion.execution.target_partitions = 4",
        "SET wae.max_pixels = 4194304",
        &format!(
            "SELECT * FROM wae_train((SELECT image FROM '{TRAIN}' LIMIT 300), model => 'm', epochs => 1,
                 network => '4,8', size => 28)"
        ),
    ] {
        query(&ctx, sql).await;
    }
    ctx
}

fn count_panics() {
    few_threads();
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            hook(info);
        }));
    });
}

/// The number of damaged files of each kind.
fn tries() -> usize {
    std::env::var("WAE_CORRUPTED").map_or(100, |n| n.parse().expect("WAE_CORRUPTED is a number"))
}

/// The most memory that the process has used, in MB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok()).unwrap_or(0) / 1024
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): the same damage on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// A file damaged in one of six ways; `header` is how much of it counts as its head.
fn damaged(file: &[u8], others: &[Vec<u8>], header: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = file.to_vec();
    let header = header.min(bytes.len());
    match random.below(6) {
        0 => (0..=random.below(8)).for_each(|_| {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }),
        1 => bytes.truncate(random.below(bytes.len())),
        // Another file's end after this one's beginning.
        2 => {
            let other = &others[random.below(others.len())];
            bytes.truncate(random.below(bytes.len()));
            bytes.extend(&other[random.below(other.len())..]);
        }
        // A head that lies: lengths, sizes and numbers of four bytes.
        3 => {
            let at = random.below(header.saturating_sub(4));
            let lie = [u32::MAX, 0, 0x7fff_ffff, 0x0000_ffff, random.next() as u32][random.below(5)];
            let lie = if random.below(2) == 0 { lie.to_be_bytes() } else { lie.to_le_bytes() };
            bytes[at..at + 4].copy_from_slice(&lie);
        }
        // A number of the text for another; a byte of the head elsewhere.
        4 => {
            let digits: Vec<usize> = (0..header).filter(|at| bytes[*at].is_ascii_digit()).collect();
            match digits.is_empty() {
                true => bytes[random.below(header)] = random.next() as u8,
                false => bytes[digits[random.below(digits.len())]] = b'0' + random.below(10) as u8,
            }
        }
        _ => {
            let from = random.below(bytes.len());
            let len = random.below(64);
            let piece = bytes[from..(from + len).min(bytes.len())].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, piece);
        }
    }
    bytes
}

/// A model file damaged so that a good part of the damage passes the outer checks: its header in a frame that fits
/// again, a number of it, its values alone; or as any file.
fn damaged_model(file: &[u8], others: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    const LIES: [&str; 10] = ["0", "-1", "2", "3", "64", "4096", "1e400", "4294967296", "18446744073709551616", "null"];
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header = &file[8..8 + length];
    let values = &file[8 + length..];
    let framed = |header: &[u8], values: &[u8]| [&(header.len() as u64).to_le_bytes(), header, values].concat();
    match random.below(4) {
        0 => damaged(file, others, 8 + length, random),
        1 => framed(&damaged(header, &[header.to_vec()], length, random), values),
        2 => {
            let mut values = values.to_vec();
            (0..=random.below(8)).for_each(|_| {
                let at = random.below(values.len());
                values[at] ^= 1 << random.below(8);
            });
            framed(header, &values)
        }
        _ => {
            let digit = |at: &usize| header[*at].is_ascii_digit();
            let starts: Vec<usize> = (1..length).filter(|at| digit(at) && !digit(&(at - 1))).collect();
            let start = starts[random.below(starts.len())];
            let end = (start..length).find(|at| !digit(at)).unwrap_or(length);
            framed(&[&header[..start], LIES[random.below(LIES.len())].as_bytes(), &header[end..]].concat(), values)
        }
    }
}

/// Images of the fixtures: PNG, JPEG and TIFF for the most part, and one each of the other formats.
async fn images(ctx: &SessionContext) -> Vec<Vec<u8>> {
    let mut images = Vec::new();
    for sql in [
        format!("SELECT image['bytes'] FROM '{TEST}' LIMIT 4"),
        format!("SELECT image['bytes'] FROM '{ROOT}/fixtures/emoji/test.parquet' LIMIT 8"),
        format!("SELECT bytes FROM read_images('{ROOT}/fixtures/images/*.png')"),
        format!("SELECT bytes FROM read_images('{ROOT}/fixtures/images/*.jpg')"),
        format!("SELECT bytes FROM read_images('{ROOT}/fixtures/images/*.tiff')"),
        format!("SELECT bytes FROM read_images('{ROOT}/fixtures/images/rgb.*')"),
    ] {
        for batch in query(ctx, &format!("SELECT arrow_cast(b, 'Binary') FROM ({sql}) AS t(b)")).await {
            images.extend(batch.column(0).as_binary::<i32>().iter().map(|bytes| bytes.unwrap().to_vec()));
        }
    }
    assert!(images.iter().any(|i| i.starts_with(b"\x89PNG")) && images.iter().any(|i| i.starts_with(&[0xff, 0xd8])));
    images
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupted_images_give_errors_or_nulls() {
    count_panics();
    let dir = TempDir::new().unwrap();
    let ctx = context(dir.path()).await;
    let whole = images(&ctx).await;
    let tries = tries();
    let before = peak();
    let start = Instant::now();
    let mut random = Random(1);
    let files: Vec<_> = (0..tries).map(|i| damaged(&whole[i % whole.len()], &whole, 64, &mut random)).collect();
    let ids = Int64Array::from_iter_values(0..tries as i64);
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as _),
        ("image", Arc::new(BinaryArray::from_iter_values(&files)) as _),
    ]);
    ctx.register_batch("corrupted", batch.unwrap()).unwrap();

    // With `null`: the readable ones are scored, the others counted.
    query(&ctx, "SET wae.on_error = 'null'").await;
    let select = "SELECT id, wae_reconstruction_cost(image, 'm') AS cost FROM corrupted ORDER BY id";
    let plan = ctx.sql(select).await.unwrap().create_physical_plan().await.unwrap();
    let batches = collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap();
    let costs = batches.iter().flat_map(|b| b.column(1).as_primitive::<Float32Type>().iter().collect::<Vec<_>>());
    let costs: Vec<Option<f32>> = costs.collect();
    let scored = costs.iter().flatten().count();
    assert!(costs.iter().flatten().all(|cost| cost.is_finite() && *cost >= 0.0));
    let pass = find_pass(&plan).expect("a WaePassExec");
    let pass = pass.downcast_ref::<WaePassExec>().unwrap();
    assert_eq!((pass.rows_scored(), pass.rows_skipped()), (scored, tries - scored));
    let explained = query(&ctx, &format!("EXPLAIN ANALYZE {select}")).await;
    let explained = pretty_format_batches(&explained).unwrap().to_string();
    assert!(explained.contains("rows_skipped=") && !explained.contains("rows_skipped=0"), "{explained}");
    let train =
        "SELECT images, skipped FROM wae_train((SELECT image FROM corrupted), model => 'corrupted', epochs => 1,
                     network => '4', size => 28, holdout => 0, batch_size => 2)";
    let trained = query(&ctx, train).await;
    let number = |column: usize| trained[0].column(column).as_primitive::<Int64Type>().value(0) as usize;
    assert_eq!(number(1), tries - scored, "skipped in training");
    assert_eq!(number(0), scored / 2 * 2, "trained on");

    // With `error`: each by itself, the same ones, and the error says why.
    query(&ctx, "SET wae.on_error = 'error'").await;
    let mut reasons = BTreeMap::<String, usize>::new();
    for (id, cost) in costs.iter().enumerate() {
        let sql = format!("SELECT wae_reconstruction_cost(image, 'm') FROM corrupted WHERE id = {id}");
        match (run(&ctx, &sql).await, cost) {
            (Ok(_), Some(_)) => {}
            (Err(error), None) => {
                let text = error.strip_backtrace();
                let reason = text.split_once(": row 0 of the batch: ").unwrap_or_else(|| panic!("{id}: {text}")).1;
                let words: Vec<_> = reason.split_whitespace().take(6).collect();
                *reasons.entry(words.join(" ")).or_default() += 1;
            }
            (result, cost) => panic!("{id}: {cost:?} with on_error null, {result:?} with error"),
        }
    }
    println!("{tries} corrupted images: {scored} scored, {} refused, {:.1?}", tries - scored, start.elapsed());
    println!("peak memory: {} MB before, {} MB after; reasons: {reasons:#?}", before, peak());
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    assert!(peak() < before.max(200) + 1500, "{} MB", peak());
}

fn find_pass(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    if plan.downcast_ref::<WaePassExec>().is_some() {
        return Some(Arc::clone(plan));
    }
    plan.children().into_iter().find_map(find_pass)
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupted_models_give_errors() {
    count_panics();
    let dir = TempDir::new().unwrap();
    let ctx = context(dir.path()).await;
    query(&ctx, &format!("CREATE TABLE one AS SELECT image FROM '{TEST}' LIMIT 1")).await;
    let file = std::fs::read(dir.path().join("m.safetensors")).unwrap();
    let golden = ["golden", "digit"].map(|name| format!("{ROOT}/fixtures/golden/{name}.model.safetensors"));
    let others: Vec<_> = golden.iter().map(|path| std::fs::read(path).unwrap()).chain([file.clone()]).collect();
    let tries = tries();
    let before = peak();
    let start = Instant::now();
    let mut random = Random(2);
    let mut valid = 0;
    let mut not_finite = 0;
    let mut reasons = BTreeMap::<String, usize>::new();
    let damaged_path = dir.path().join("damaged.safetensors");
    for i in 0..tries {
        std::fs::write(&damaged_path, damaged_model(&file, &others, &mut random)).unwrap();
        let queries =
            ["SELECT wae_reconstruction_cost(image, 'damaged') FROM one", "SELECT * FROM wae_history('damaged')"];
        match run(&ctx, queries[0]).await {
            Ok(batches) => {
                valid += 1;
                let cost = batches[0].column(0).as_primitive::<Float32Type>();
                assert!(cost.is_valid(0));
                not_finite += usize::from(!cost.value(0).is_finite());
                query(&ctx, queries[1]).await;
            }
            Err(error) => {
                let text = error.strip_backtrace();
                let place = format!("wae_reconstruction_cost: model 'damaged': {}: ", damaged_path.display());
                let reason = text.split_once(&place).unwrap_or_else(|| panic!("{i}: {text}")).1;
                let words: Vec<_> = reason.split_whitespace().take(5).collect();
                *reasons.entry(words.join(" ")).or_default() += 1;
                let history = failure(&ctx, queries[1]).await;
                assert!(history.contains("wae_history: model 'damaged': "), "{history}");
            }
        }
    }
    println!(
        "{tries} corrupted models: {valid} valid ({not_finite} of them with a cost that is not finite), {:.1?}",
        start.elapsed()
    );
    println!("peak memory: {} MB before, {} MB after; reasons: {reasons:#?}", before, peak());
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    assert!(peak() < before.max(200) + 1500, "{} MB", peak());
}

/// A model is a file of the folder: not what a link leads to outside of it, not a folder, not a pipe.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_of_the_folder_is_no_model() {
    let dir = TempDir::new().unwrap();
    let outside = TempDir::new().unwrap();
    let ctx = context(dir.path()).await;
    let secret = outside.path().join("secret.safetensors");
    std::fs::copy(dir.path().join("m.safetensors"), &secret).unwrap();
    std::os::unix::fs::symlink(&secret, dir.path().join("link.safetensors")).unwrap();
    std::os::unix::fs::symlink("m.safetensors", dir.path().join("latest.safetensors")).unwrap();
    std::fs::create_dir(dir.path().join("folder.safetensors")).unwrap();
    for (name, message) in [
        ("link", "it is a link to a file outside of the folder, expected a file in it"),
        ("folder", "it is a folder, expected a file"),
    ] {
        for sql in [format!("SELECT wae_encode(NULL, '{name}')"), format!("SELECT * FROM wae_history('{name}')")] {
            let error = failure(&ctx, &sql).await;
            let place = format!("model '{name}': {}/{name}.safetensors: {message}", dir.path().display());
            assert!(error.contains(&place), "{error}");
        }
    }
    query(&ctx, "SELECT wae_encode(NULL, 'latest')").await;
    let models = query(&ctx, "SELECT name FROM wae_models() ORDER BY name").await;
    let names = models.iter().flat_map(|b| b.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>());
    assert_eq!(names.collect::<Vec<_>>(), ["latest", "m"]);

    // A training takes the link's place, and leaves alone what it leads to.
    let train = |name: &str, options: &str| {
        format!(
            "SELECT * FROM wae_train((SELECT image FROM '{TRAIN}' LIMIT 50), model => '{name}',
                 epochs => 1, network => '4', batch_size => 10{options})"
        )
    };
    let error = failure(&ctx, &train("link", "")).await;
    assert!(error.contains("model 'link' exists already"), "{error}");
    let error = failure(&ctx, &train("folder", ", overwrite => true")).await;
    assert!(error.contains("wae_train: model 'folder': ") && error.contains("it is a folder"), "{error}");
    let before = std::fs::read(&secret).unwrap();
    query(&ctx, &train("link", ", overwrite => true")).await;
    assert_eq!(std::fs::read(&secret).unwrap(), before);
    query(&ctx, "SELECT wae_encode(NULL, 'link')").await;
}

fn attacks(kind: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(format!("{ROOT}/fixtures/attacks/{kind}")).unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{kind}: {files:?}");
    files
}

/// Every model file of the corpus is refused, by every function that reads one, and hides no other model.
#[tokio::test(flavor = "multi_thread")]
async fn attacking_models_are_refused() {
    count_panics();
    let dir = TempDir::new().unwrap();
    let ctx = context(dir.path()).await;
    std::fs::copy(format!("{ROOT}/fixtures/attacks/seed/tiny.safetensors"), dir.path().join("tiny.safetensors"))
        .unwrap();
    run(&ctx, "SELECT * FROM wae_sample(1, 'tiny')").await.expect("what the attacks spoil is a model");
    for path in attacks("model") {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        std::fs::copy(&path, dir.path().join(format!("{name}.safetensors"))).unwrap();
        for sql in [
            format!("SELECT wae_encode(NULL, '{name}')"),
            format!("SELECT * FROM wae_sample(1, '{name}')"),
            format!("SELECT * FROM wae_history('{name}')"),
        ] {
            // Its parts are as they should be; only who computes with them sees that they do not go together.
            if name == "found-norm-overflows" && sql.contains("wae_history") {
                continue;
            }
            let error = failure(&ctx, &sql).await;
            assert!(error.contains(&format!(": model '{name}': ")), "{error}");
        }
    }
    let models = query(&ctx, "SELECT name FROM wae_models()").await;
    assert_eq!(models.iter().map(RecordBatch::num_rows).sum::<usize>(), 3, "only m, tiny and found-norm-overflows");
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

/// Every image of the corpus is refused, and takes little memory.
#[tokio::test(flavor = "multi_thread")]
async fn attacking_images_are_refused() {
    count_panics();
    let dir = TempDir::new().unwrap();
    let ctx = context(dir.path()).await;
    for path in attacks("image") {
        let sql = format!("SELECT wae_encode(bytes, 'm') FROM read_images('{}')", path.display());
        let error = failure(&ctx, &sql).await;
        assert!(error.contains(&format!("wae_encode: '{}': the image ", path.display())), "{error}");
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

/// Metadata that lies about lists of four values is refused, whether the type says that they have one length or not.
#[tokio::test]
async fn attacking_metadata_is_refused() {
    count_panics();
    let ctx = datafusion_wae::session_context().unwrap();
    let rows = || [Some([Some(1); 4])];
    let fixed: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<UInt8Type, _, _>(rows(), 4));
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<UInt8Type, _, _>(rows()));
    for path in attacks("metadata") {
        for pixels in [&fixed, &lists] {
            let metadata = [
                ("ARROW:extension:name", "arrow.fixed_shape_tensor".to_owned()),
                ("ARROW:extension:metadata", std::fs::read_to_string(&path).unwrap()),
            ];
            let field = Field::new("image", pixels.data_type().clone(), true)
                .with_metadata(metadata.map(|(key, value)| (key.to_owned(), value)).into());
            let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::clone(pixels)]);
            ctx.deregister_table("t").unwrap();
            ctx.register_batch("t", batch.unwrap()).unwrap();
            let error = run(&ctx, "SELECT image_sharpness(image) FROM t").await;
            let error = error.expect_err(&path.display().to_string()).strip_backtrace();
            assert!(error.contains("image_sharpness: "), "{}: {error}", path.display());
        }
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}
