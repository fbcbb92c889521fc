//! The other side of each interface: pyarrow and polars read and write the images, PyTorch runs the models, and layers of
//! a pretrained network of JPEG files are those that Pillow and PyTorch give.
//!
//! The scripts in tests/interop/ run under the Python that the environment variable `WAE_PYTHON` names, else under
//! `python3`. Where it lacks a module that a test needs, the test says `skipped: ...` on stderr and passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/session.rs"]
mod session;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type, Schema, UInt8Type};
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};
use session::{ROOT, TEST, TRAIN, query};
use tempfile::TempDir;
use wae_core::image::Limits;
use wae_core::{ImageColumn, ImageShape};

const FASHION: ImageShape = ImageShape::new(28, 28, 1);

/// The Python that scripts run under.
struct Python(String);

impl Python {
    /// Finds Python and imports modules there; where that fails, says so.
    fn with(modules: &[&str]) -> Option<Self> {
        let name = std::env::var("WAE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let imports = format!("import {}", modules.join(", "));
        let why = match Command::new(&name).args(["-c", &imports]).output() {
            Ok(output) if output.status.success() => return Some(Self(name)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no message").to_owned(),
            Err(error) => error.to_string(),
        };
        skipped(&format!("{name} cannot import {}: {why}", modules.join(", ")));
        None
    }

    /// Runs a script and gives what it prints.
    fn run<S: AsRef<OsStr>>(&self, script: &str, args: impl IntoIterator<Item = S>) -> Value {
        // -B: no compiled files beside the scripts and the fixtures.
        let script = Path::new(ROOT).join("tests/interop").join(script);
        let output = Command::new(&self.0).arg("-B").arg(&script).args(args).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", script.display());
        match &output.stdout[..] {
            [] => Value::Null,
            printed => serde_json::from_slice(printed).unwrap(),
        }
    }
}

/// Says that a test, or a part of it, did not run.
#[expect(clippy::explicit_write, reason = "of a test that passes, the harness keeps what eprintln! writes to itself")]
fn skipped(why: &str) {
    let thread = std::thread::current();
    writeln!(std::io::stderr(), "skipped: {}: {why}", thread.name().unwrap_or("a test")).unwrap();
}

/// A context whose models are in `dir`. Rows keep the order of their file: one partition, nothing to repartition.
async fn context(dir: &Path) -> SessionContext {
    let ctx = session::context(dir).await;
    ctx.register_parquet("train", TRAIN, Default::default()).await.unwrap();
    query(&ctx, "SET datafusion.execution.target_partitions = 1").await;
    ctx
}

/// The rows of a statement as one batch.
async fn run(ctx: &SessionContext, sql: &str) -> RecordBatch {
    let batches = query(ctx, sql).await;
    match batches.first() {
        Some(first) => concat_batches(&first.schema(), &batches).unwrap(),
        None => RecordBatch::new_empty(Arc::new(Schema::empty())),
    }
}

/// Trains an epoch on 700 of the clothes.
async fn train(ctx: &SessionContext, name: &str, network: &str) {
    let source = "SELECT image FROM train WHERE label = 0";
    let options = format!("model => '{name}', network => '{network}', epochs => 1");
    run(ctx, &format!("SELECT epoch FROM wae_train(({source}), {options})")).await;
}

/// A column's numbers, of its lists one after the other; none is NULL or NaN.
fn numbers(rows: &RecordBatch, column: &str) -> Vec<f64> {
    let mut array = Arc::clone(rows.column_by_name(column).unwrap());
    loop {
        assert_eq!(array.null_count(), 0, "{column}");
        array = match array.data_type() {
            DataType::FixedSizeList(..) => Arc::clone(array.as_fixed_size_list().values()),
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                let first = lists.value_offsets()[0];
                let last = lists.value_offsets()[lists.len()];
                lists.values().slice(first as usize, (last - first) as usize)
            }
            _ => break,
        }
    }
    let numbers = cast(&array, &DataType::Float64).unwrap().as_primitive::<Float64Type>().values().to_vec();
    assert!(numbers.iter().all(|v| v.is_finite()), "{column}");
    numbers
}

/// max|a − b| / max|b|, where a difference up to `allowed` counts as none.
fn difference(a: &[f64], b: &[f64], allowed: f64) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let gap = largest(&mut a.iter().zip(b).map(|(a, b)| ((a - b).abs() - allowed).max(0.0)));
    gap / largest(&mut b.iter().map(|b| b.abs()))
}

/// The pixels of column `image`, as the model gets them.
fn pixels(rows: &RecordBatch) -> Vec<f32> {
    let field = rows.schema().field_with_name("image").unwrap().clone();
    let column = ImageColumn::try_new(&field, rows.column_by_name("image").unwrap(), Some(FASHION)).unwrap();
    let every: Vec<usize> = (0..column.len()).collect();
    column.read(&every, FASHION, None, &Limits::default()).unwrap()
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The files that pyarrow writes, each with the beginning of its column's type where the plugin meets it.
const KINDS: [(&str, &str); 15] = [
    ("png_struct", "Struct"),
    ("png_binary", "Binary"),
    ("png_large_binary", "LargeBinary"),
    ("png_dictionary", "Dictionary"),
    ("u8_fixed", "FixedSizeList(784 x UInt8"),
    ("u8_list", "List(UInt8"),
    ("u8_nested", "List(List(UInt8"),
    ("u8_parquet", "List(UInt8"),
    ("f32_list", "List(Float32"),
    ("f64_list", "List(Float64"),
    ("u8_tensor_hwc", "FixedSizeList(784 x UInt8"),
    ("u8_tensor_hw", "FixedSizeList(784 x UInt8"),
    ("u8_tensor_numpy", "FixedSizeList(784 x UInt8"),
    ("u8_tensor_transposed", "FixedSizeList(784 x UInt8"),
    ("f32_tensor", "FixedSizeList(784 x Float32"),
];

#[tokio::test(flavor = "multi_thread")]
async fn one_image_has_one_code_in_whatever_column_pyarrow_writes_it() {
    let Some(python) = Python::with(&["pyarrow", "PIL", "numpy"]) else { return };
    let dir = TempDir::new().unwrap();
    let ctx = context(dir.path()).await;
    train(&ctx, "m", "8,16").await;
    python.run("write_images.py", [TEST, &dir.path().display().to_string()]);
    let select = |what: &str, kind: &str| format!("SELECT {what} FROM '{}/{kind}.parquet'", dir.path().display());

    let expected = run(&ctx, &format!("SELECT image FROM '{TEST}' LIMIT 50")).await;
    let expected = pixels(&expected);
    let codes = numbers(&run(&ctx, &select("wae_encode(image, 'm') AS code", "png_struct")).await, "code");
    assert_eq!(codes.len(), 50 * 8);
    assert!(codes.chunks(8).skip(1).all(|code| code != &codes[..8]), "codes differ between images");

    // DataFusion reads Binary and LargeBinary as BinaryView unless it is told otherwise.
    for views in [true, false] {
        run(&ctx, &format!("SET datafusion.execution.parquet.schema_force_view_types = {views}")).await;
        for (kind, stored) in KINDS {
            let rows = run(&ctx, &select("image, wae_encode(image, 'm') AS code", kind)).await;
            let found = rows.column(0).data_type().to_string();
            let stored = if views && kind.ends_with("binary") { "BinaryView" } else { stored };
            assert!(found.starts_with(stored), "{kind} is {found}");
            assert!(pixels(&rows) == expected, "{kind}, views {views}: pixels");
            assert!(bits(&numbers(&rows, "code")) == bits(&codes), "{kind}, views {views}: codes");
        }
    }

    // Half precision has 11 bits, so that v / 255 is rounded, by up to 2⁻¹² below 1: other pixels, and nearly the same
    // codes.
    let rows = run(&ctx, &select("image, wae_encode(image, 'm') AS code", "f16_list")).await;
    assert!(pixels(&rows).iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 0.5_f32.powi(12)));
    let error = difference(&numbers(&rows, "code"), &codes, 0.0);
    eprintln!("codes of half-precision pixels: {error:e}");
    assert!(error > 0.0 && error < 1e-3, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_reads_decoded_images_as_tensors() {
    let Some(python) = Python::with(&["pyarrow", "numpy"]) else { return };
    let dir = TempDir::new().unwrap();
    let ctx = context(dir.path()).await;
    train(&ctx, "m", "8,16").await;
    run(&ctx, "SET wae.model = 'm'").await;
    for (name, image) in [("decoded", "wae_decode(wae_encode(image))"), ("reconstructed", "wae_reconstruct(image)")] {
        let [parquet, plain] = ["parquet", "bytes"].map(|e| dir.path().join(format!("{name}.{e}")));
        let select = format!("SELECT {image} AS image FROM '{TEST}' LIMIT 50");
        run(&ctx, &format!("COPY ({select}) TO '{}'", parquet.display())).await;
        let rows = run(&ctx, &select).await;
        let bytes = rows.column(0).as_fixed_size_list().values().as_primitive::<UInt8Type>().values().to_vec();
        assert_eq!(bytes.len(), 50 * FASHION.len());
        std::fs::write(&plain, bytes).unwrap();

        let found = python.run("read_tensors.py", [&parquet, &plain]);
        eprintln!("{name}: {found}");
        let expected = json!({
            "extension": "arrow.fixed_shape_tensor",
            "shape": [28, 28, 1],
            "dim_names": ["H", "W", "C"],
            "value_type": "uint8",
            "array_shape": [50, 28, 28, 1],
            "array_equal": true,
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&found[key], value, "{name}: {key}");
        }
        match &found["polars_equal"] {
            Value::Null => skipped("polars is not installed"),
            equal => assert_eq!(equal, &json!(true), "{name}: polars"),
        }
    }
}

/// The largest max|a − b| / max|b| that passes, as of the golden files.
const TOLERANCE: f64 = 1e-4;

/// Compares a model's codes, costs and reconstructed bytes from SQL with PyTorch's.
async fn compare_with_torch(ctx: &SessionContext, dir: &Path, model: &str, images: &str) {
    let torch = run(ctx, &format!("SELECT * FROM '{}/{model}.values.parquet'", dir.display())).await;
    let select = format!(
        "SELECT wae_encode(image, '{model}') AS code, wae_reconstruct(image, '{model}') AS image,
                wae_reconstruction_cost(image, '{model}') AS cost FROM '{images}'"
    );
    let rows = run(ctx, &select).await;
    let error = |column, unit: f64, allowed| {
        let ours: Vec<f64> = numbers(&rows, column).into_iter().map(|v| v / unit).collect();
        difference(&ours, &numbers(&torch, column), allowed)
    };
    // SQL gives bytes: half a step of 1/255 is rounding.
    let errors = [error("code", 1.0, 0.0), error("image", 255.0, 0.5 / 255.0), error("cost", 1.0, 0.0)];
    eprintln!("{model}: {} rows; code, image, cost: {errors:?}", rows.num_rows());
    assert!(errors.iter().all(|e| *e <= TOLERANCE), "{model}: code, image, cost: {errors:?}");
}

/// Checks that PyTorch missed, and did not expect, no keys but those that its module and the file need not share.
fn assert_keys(answer: &Value, model: &str) {
    let keys = |which: &str| answer[model][which].as_array().unwrap().clone();
    assert!(keys("missing").iter().all(|k| k.as_str().unwrap().ends_with(".num_batches_tracked")), "{answer}");
    let beside_weights = |key: &str| key.starts_with("calibration.") || key.starts_with("score.");
    assert!(keys("unexpected").iter().all(|k| beside_weights(k.as_str().unwrap())), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_trained_here_runs_in_pytorch() {
    let Some(python) = Python::with(&["torch", "safetensors", "pyarrow", "PIL", "numpy"]) else { return };
    let dir = TempDir::new().unwrap();
    let ctx = context(dir.path()).await;
    let images = dir.path().join("images.parquet").display().to_string();
    run(&ctx, &format!("COPY (SELECT image FROM '{TEST}' LIMIT 200) TO '{images}'")).await;
    let models = [("widths", "8,16"), ("small", "small")];
    for (name, network) in models {
        train(&ctx, name, network).await;
    }
    let folder = dir.path().display().to_string();
    let answer = python.run("torch_models.py", ["run", &folder, &images, "widths", "small"]);
    for (name, _) in models {
        assert_keys(&answer, name);
        compare_with_torch(&ctx, dir.path(), name, &images).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_made_in_pytorch_runs_here() {
    let Some(python) = Python::with(&["torch", "safetensors", "pyarrow", "numpy"]) else { return };
    let dir = TempDir::new().unwrap();
    let ctx = context(dir.path()).await;
    let folder = dir.path().display().to_string();
    let answer = python.run("torch_models.py", ["make", &folder]);
    // Half precision rounds the weights. PyTorch computes with the rounded weights too, in float64, so that the same
    // tolerance holds; the codes of the full weights are only near: bfloat16 keeps 8 bits of each, float16 11.
    for architecture in ["odd", "deep"] {
        let images = format!("{folder}/{architecture}.images.parquet");
        let code = |kind: &str| format!("SELECT wae_encode(image, '{architecture}_{kind}') AS code FROM '{images}'");
        let full = numbers(&run(&ctx, &code("f32")).await, "code");
        for (kind, near) in [("f32", 0.0), ("f16", 5e-3), ("bf16", 5e-2)] {
            let model = format!("{architecture}_{kind}");
            assert_keys(&answer, &model);
            compare_with_torch(&ctx, dir.path(), &model, &images).await;
            let error = difference(&numbers(&run(&ctx, &code(kind)).await, "code"), &full, 0.0);
            eprintln!("{model}: codes beside those of the full weights: {error:e}");
            assert!(error <= near, "{model}: {error}");
            assert_eq!(error == 0.0, kind == "f32", "{model}: weights are rounded");
        }
    }
}

/// The layers of each JPEG file, as `fixtures/jpeg/make.py` computes them with Pillow: by `name.jpg how/layer`.
fn layers_of_jpegs() -> Vec<(String, Vec<f32>)> {
    let bytes = std::fs::read(Path::new(ROOT).join("fixtures/jpeg/values.safetensors")).unwrap();
    let data = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..data]).unwrap();
    let offset = |entry: &Value, end: usize| data + entry["data_offsets"][end].as_u64().unwrap() as usize;
    let values = |entry: &Value| {
        let values = bytes[offset(entry, 0)..offset(entry, 1)].as_chunks::<4>().0;
        values.iter().map(|value| f32::from_le_bytes(*value)).collect()
    };
    header.iter().map(|(key, entry)| (key.clone(), values(entry))).collect()
}

/// From the bytes of a JPEG file to a layer, in SQL: decoded, turned, resized and computed as Pillow and PyTorch do it.
///
/// Of the photograph, whose chroma is enlarged, decoders give pixels that differ by a few levels of 255.
#[tokio::test]
async fn features_of_jpeg_files_are_those_of_pillow_and_pytorch() {
    let dir = TempDir::new().unwrap();
    let ctx = context(dir.path()).await;
    query(&ctx, &format!("SET wae.weights_dir = '{ROOT}/fixtures/backbones'")).await;
    let layers = layers_of_jpegs();
    assert_eq!(layers.len(), 6 * (5 + 2));
    for (key, expected) in layers {
        let (file, how) = key.split_once(' ').unwrap();
        let (size, layer) = how.split_once('/').unwrap();
        let size = if size == "files" { String::new() } else { format!(", '{size}'") };
        let sql = format!(
            "SELECT image_features(bytes, 'resnet-timm', '{layer}'{size}) AS f
             FROM read_images('{ROOT}/fixtures/jpeg/{file}')"
        );
        let rows = run(&ctx, &sql).await;
        let features = rows.column(0).as_fixed_size_list().values().as_primitive::<Float32Type>().values().to_vec();
        assert_eq!(features.len(), expected.len(), "{key}");
        let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let error = features.iter().zip(&expected).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / largest;
        eprintln!("{key}: {error:.1e} of the largest value");
        let allowed = if file == "photograph.jpg" { 2e-2 } else { 1e-3 };
        assert!(error <= allowed, "{key}: {error}");
    }
}

/// The largest differences that a script prints.
fn differences(answer: &Value) -> Vec<(String, f64)> {
    let columns = answer.as_object().unwrap().iter();
    columns.map(|(column, difference)| (column.clone(), difference.as_f64().unwrap())).collect()
}

/// Grey, RGB, RGBA, and maps of floats of any range.
#[tokio::test(flavor = "multi_thread")]
async fn resized_and_cropped_images_are_those_of_pillow_and_numpy() {
    let Some(python) = Python::with(&["pyarrow", "numpy", "PIL"]) else { return };
    let dir = TempDir::new().unwrap();
    let ctx = context(dir.path()).await;
    train(&ctx, "m", "4,8").await;
    run(
        &ctx,
        &format!(
            "CREATE TABLE pictures AS SELECT image_decode(a.image, 28, 28, 1) AS grey, image_decode(b.image) AS rgb,
                 image_decode(b.image, 24, 20, 4) AS rgba, wae_cost_map(a.image, 'm') AS map
             FROM (SELECT row_number() OVER () AS id, image FROM '{TEST}' LIMIT 12) AS a
             JOIN (SELECT row_number() OVER () AS id, image FROM '{ROOT}/fixtures/emoji/test.parquet') AS b ON a.id = b.id"
        ),
    )
    .await;
    let kinds = ["grey", "rgb", "rgba", "map"];
    let filters = ["bilinear", "bicubic", "lanczos", "nearest"];
    let resized = kinds.iter().flat_map(|kind| {
        filters.iter().map(move |filter| format!("image_resize({kind}, 13, 31, '{filter}') AS {kind}_{filter}"))
    });
    let cropped = kinds.iter().map(|kind| format!("image_crop({kind}, 2, 3, 7, 14) AS {kind}_crop"));
    let columns: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).chain(resized).chain(cropped).collect();
    let file = dir.path().join("pictures.parquet");
    run(&ctx, &format!("COPY (SELECT {} FROM pictures) TO '{}'", columns.join(", "), file.display())).await;
    let differences = differences(&python.run("tiles.py", ["pictures".as_ref(), file.as_os_str()]));
    assert_eq!(differences.len(), kinds.len() * 5);
    for (column, difference) in differences {
        // Bytes to the level; a map to the last bits of its floats.
        let allowed = if column.starts_with("map") { 1e-6 } else { 0.0 };
        assert!(difference <= allowed, "{column}: {difference}");
    }
}

/// Read, tiled, scored and stitched in one statement, beside the maps by hand.
#[tokio::test(flavor = "multi_thread")]
async fn stitched_images_and_maps_are_numpys_averages() {
    let Some(python) = Python::with(&["pyarrow", "numpy", "PIL"]) else { return };
    let dir = TempDir::new().unwrap();
    let ctx = context(dir.path()).await;
    train(&ctx, "m", "4,8").await;
    let tiles = format!(
        "SELECT id, unnest(image_tiles(image_resize(image, 84, 61), '28x28', '20x11')) AS tile
         FROM (SELECT row_number() OVER () AS id, image FROM '{TEST}' LIMIT 9)"
    );
    let written = |name: &str| dir.path().join(name).display().to_string();
    for (tile, allowed) in [("tile['image']", 0.0), ("wae_anomaly_map(tile['image'], 'm')", 1e-6)] {
        let rows = format!("SELECT id, tile['y'] AS y, tile['x'] AS x, {tile} AS tile FROM ({tiles})");
        run(&ctx, &format!("COPY ({rows}) TO '{}'", written("tiles.parquet"))).await;
        let images =
            format!("SELECT id, image_stitch({tile}, tile['y'], tile['x']) AS image FROM ({tiles}) GROUP BY id");
        run(&ctx, &format!("COPY ({images}) TO '{}'", written("images.parquet"))).await;
        let answer =
            python.run("tiles.py", ["stitched".to_owned(), written("tiles.parquet"), written("images.parquet")]);
        let difference = differences(&answer)[0].1;
        assert!(difference <= allowed, "{tile}: {difference}");
    }
}
