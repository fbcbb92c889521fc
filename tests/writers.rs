//! Tables of images as people's tools write them: each form is scored, trained on and decoded right, or refused.
//!
//! `fixtures/make.py writers` wrote the tables, each from the same six pictures. Costs and pixels are compared with those
//! of the pictures as PNG. `UPDATE_README=1 cargo test --test writers` writes the table in the guide's page on forms.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "writers/cell.rs"]
mod cell;
#[path = "support/generated.rs"]
mod generated;
#[path = "writers/manifest.rs"]
mod manifest;
#[path = "support/session.rs"]
mod session;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Int64Array, RecordBatch, UInt8Array};
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Int32Type, Int64Type, Schema, UInt8Type};
use datafusion::prelude::SessionContext;
use session::{query, run};
use tempfile::TempDir;

use crate::cell::{Cell, compare};
use crate::manifest::{Form, Manifest, Reading, root};

/// Cells that have to be right at least, so that the table cannot become one of errors.
const RIGHT: usize = 570;
const REFERENCE: &str = "'fixtures/writers/reference.parquet'";
/// All pictures are one batch: their order, which comes from their values, then matters up to rounding only.
const TRAINING: &str = "network => '8', latent_dim => 4, epochs => 3, batch_size => 6, holdout => 0, overwrite => true";
/// The largest relative difference of costs of equal pixels, in scoring and after training.
const SCORING: f64 = 1e-5;
const TRAINED: f64 = 1e-3;

/// Rows of ids and costs.
type Costs = Vec<(i64, Option<f64>)>;
/// An image that was decoded: its shape, where each row has its own, and its pixels.
type Decoded = (Option<Vec<i32>>, Vec<u8>);

/// A session, and the costs of the pictures as PNG, each kind on a model that was trained on it.
struct Bench {
    ctx: SessionContext,
    manifest: Manifest,
    costs: BTreeMap<String, Vec<f64>>,
    _models: TempDir,
}

impl Bench {
    async fn new() -> Self {
        root();
        let models = TempDir::new().unwrap();
        let ctx = session::context(models.path()).await;
        query(&ctx, "SET datafusion.execution.target_partitions = 1").await;
        let mut bench = Self { ctx, manifest: Manifest::read(), costs: BTreeMap::new(), _models: models };
        let kinds: Vec<String> = bench.manifest.pictures.keys().cloned().collect();
        for kind in kinds {
            let sql = format!("SELECT epoch FROM wae_train((SELECT {kind} AS image FROM {REFERENCE}), ");
            query(&bench.ctx, &format!("{sql}model => '{kind}', {TRAINING})")).await;
            let costs = bench.costs_of_reference(&kind, &kind).await.unwrap();
            bench.costs.insert(kind, costs.into_iter().filter_map(|(_, cost)| cost).collect());
        }
        bench
    }

    /// The costs of the pictures as PNG, on a model.
    async fn costs_of_reference(&self, kind: &str, model: &str) -> Result<Costs, String> {
        self.costs(kind, REFERENCE, model).await
    }

    async fn costs(&self, image: &str, source: &str, model: &str) -> Result<Costs, String> {
        let sql = format!("SELECT id, wae_reconstruction_cost({image}, '{model}') FROM {source} ORDER BY id");
        let mut rows = Vec::new();
        for batch in run(&self.ctx, &sql).await.map_err(|error| error.strip_backtrace())? {
            let costs = batch.column(1).as_primitive::<Float32Type>();
            rows.extend(ids(&batch).into_iter().zip(costs.iter().map(|cost| cost.map(f64::from))));
        }
        Ok(rows)
    }

    /// The three cells of a way to read a form.
    async fn cells(&self, reading: &Reading<'_>) -> [Cell; 3] {
        [self.score(reading).await, self.train(reading).await, self.decode(reading).await]
    }

    async fn score(&self, reading: &Reading<'_>) -> Cell {
        let kind = reading.form.kind();
        match self.costs(&reading.image, &reading.source, kind.unwrap_or("grey")).await {
            Err(error) => Cell::Refused(error),
            Ok(_) if kind.is_none() => Cell::Wrong("a cost, where only an error is right".to_owned()),
            Ok(rows) => self.compare_costs(rows, reading.form, SCORING),
        }
    }

    /// Trains a model, whose costs of the pictures have to be those of a model that was trained on the pictures as PNG.
    async fn train(&self, reading: &Reading<'_>) -> Cell {
        let Reading { form, trained, options, source, .. } = reading;
        let rows = format!("SELECT {trained} AS image FROM {source}");
        let sql = format!("SELECT epoch FROM wae_train(({rows}), model => 'cell', {TRAINING}{options})");
        if let Err(error) = run(&self.ctx, &sql).await {
            return Cell::Refused(error.strip_backtrace());
        }
        let Some(kind) = form.kind() else {
            return Cell::Wrong("a model, where only an error is right".to_owned());
        };
        match self.costs_of_reference(kind, "cell").await {
            Err(error) => Cell::Wrong(format!("the model is of another shape: {error}")),
            Ok(rows) => self.compare_costs(rows, form, TRAINED),
        }
    }

    fn compare_costs(&self, rows: Costs, form: &Form, tolerance: f64) -> Cell {
        let right = &self.costs[&form.pictures];
        let tolerance = tolerance.max(form.tolerance.unwrap_or(0.0));
        compare(&rows, |row, cost| {
            let error = (cost - right[row]).abs() / right[row];
            (error.is_nan() || error > tolerance).then(|| format!("cost {cost}, not {}", right[row]))
        })
    }

    async fn decode(&self, reading: &Reading<'_>) -> Cell {
        let mut image = reading.image.clone();
        if !image.starts_with("image_decode(") {
            image = format!("image_decode({image})");
        }
        let sql = format!("SELECT id, {image} FROM {} ORDER BY id", reading.source);
        let batches = match run(&self.ctx, &sql).await {
            Ok(batches) => batches,
            Err(error) => return Cell::Refused(error.strip_backtrace()),
        };
        if reading.form.kind().is_none() {
            return Cell::Wrong("an image, where only an error is right".to_owned());
        }
        let pictures = &self.manifest.pictures[&reading.form.pictures];
        let rows: Vec<_> =
            batches.iter().flat_map(|batch| ids(batch).into_iter().zip(decoded(batch.column(1)))).collect();
        compare(&rows, |row, (shape, pixels)| {
            let same = shape.as_ref().is_none_or(|shape| *shape == pictures.shape) && *pixels == pictures.pixels[row];
            (!same).then(|| format!("{shape:?} {pixels:?}, not {:?} {:?}", pictures.shape, pictures.pixels[row]))
        })
    }
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

/// The images of a column that image_decode gave.
fn decoded(column: &ArrayRef) -> Vec<Option<Decoded>> {
    let bytes = |list: ArrayRef| list.as_primitive::<UInt8Type>().values().to_vec();
    let rows = (0..column.len()).map(|row| column.is_valid(row).then_some(row));
    if let Some(tensor) = column.as_fixed_size_list_opt() {
        return rows.map(|row| row.map(|row| (None, bytes(tensor.value(row))))).collect();
    }
    let tensor = column.as_struct();
    let data = tensor.column_by_name("data").unwrap().as_list::<i32>();
    let shapes = tensor.column_by_name("shape").unwrap().as_fixed_size_list();
    let shape = |row| shapes.value(row).as_primitive::<Int32Type>().values().to_vec();
    rows.map(|row| row.map(|row| (Some(shape(row)), bytes(data.value(row))))).collect()
}

/// The tables of the page, a writer each.
#[derive(Default)]
struct Page {
    text: String,
    writer: String,
    right: usize,
    wrong: Vec<String>,
}

impl Page {
    fn add(&mut self, manifest: &Manifest, reading: &Reading<'_>, cells: &[Cell]) {
        let form = reading.form;
        if self.writer != form.writer {
            let heading = format!("### {} ({})", form.writer, manifest.versions[&form.writer]);
            let gap = if self.writer.is_empty() { "" } else { "\n" };
            write!(self.text, "{gap}{heading}\n\n| form | score | train | decode |\n|---|---|---|---|\n").unwrap();
            self.writer.clone_from(&form.writer);
        }
        let shown: Vec<String> = cells.iter().map(Cell::to_string).collect();
        writeln!(self.text, "| {} | {} |", reading.label(), shown.join(" | ")).unwrap();
        for (cell, what) in cells.iter().zip(["score", "train", "decode"]) {
            self.right += usize::from(matches!(cell, Cell::Right));
            if let Some(why) = cell.fault() {
                self.wrong.push(format!("{} {}, {what} of {}: {why}", form.file, form.column, reading.image));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_is_read_right_or_refused() {
    let bench = Bench::new().await;
    let mut page = Page::default();
    for form in &bench.manifest.forms {
        for reading in form.readings() {
            page.add(&bench.manifest, &reading, &bench.cells(&reading).await);
        }
    }
    eprintln!("{} cells are right", page.right);
    assert!(page.wrong.is_empty(), "{} cells are wrong:\n{}", page.wrong.len(), page.wrong.join("\n"));
    assert!(page.right >= RIGHT, "{} cells are right, {RIGHT} were", page.right);
    generated::check("writers", "udfs/src/guide/forms.md", "forms", &page.text);
}

/// The pictures as PNG give the pixels that they were drawn from.
#[tokio::test(flavor = "multi_thread")]
async fn the_reference_is_right() {
    let bench = Bench::new().await;
    for kind in bench.manifest.pictures.keys() {
        let form = Form::of_table(kind, REFERENCE, kind);
        let cells = bench.cells(&form.as_written()).await;
        assert!(cells.iter().all(|cell| matches!(cell, Cell::Right)), "{kind}: {cells:?}");
    }
}

/// Pictures that are read wrong in small ways give cells that are wrong: the comparison tells them apart.
#[tokio::test(flavor = "multi_thread")]
async fn the_comparison_sees_a_wrong_reading() {
    let bench = Bench::new().await;
    let pictures = &bench.manifest.pictures["rgb"];
    let [height, width, channels] = [0, 1, 2].map(|axis| pictures.shape[axis] as usize);
    let moved = |place: &dyn Fn(usize, usize, usize) -> usize| -> Vec<Vec<u8>> {
        let cells = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..channels).map(move |c| (y, x, c))));
        let places: Vec<usize> = cells.map(|(y, x, c)| place(y, x, c)).collect();
        pictures.pixels.iter().map(|pixels| places.iter().map(|place| pixels[*place]).collect()).collect()
    };
    let index = |y: usize, x: usize, c: usize| (y * width + x) * channels + c;
    let mut brighter = pictures.pixels.clone();
    brighter[2][40] ^= 1;
    let cases = [
        ("right", moved(&index)),
        ("bgr", moved(&|y: usize, x: usize, c: usize| index(y, x, channels - 1 - c))),
        ("planes", moved(&|y: usize, x: usize, c: usize| c * height * width + y * width + x)),
        ("mirrored", moved(&|y: usize, x: usize, c: usize| index(y, width - 1 - x, c))),
        ("brighter", brighter),
    ];
    for (name, pixels) in cases {
        bench.ctx.register_batch(name, tensor(&pictures.shape, &pixels)).unwrap();
        let form = Form::of_table("image", name, "rgb");
        let [score, train, decode] = bench.cells(&form.as_written()).await;
        let right = [&score, &train, &decode].map(|cell| matches!(cell, Cell::Right));
        // One level in one pixel of one picture is too little to see in a training.
        let expected = [name == "right", matches!(name, "right" | "brighter"), name == "right"];
        assert_eq!(right, expected, "{name}: {score:?}, {train:?}, {decode:?}");
    }
}

/// A table of ids and an image tensor, (H, W, C).
fn tensor(shape: &[i32], pixels: &[Vec<u8>]) -> RecordBatch {
    let item = Arc::new(Field::new_list_field(DataType::UInt8, true));
    let size = shape.iter().product();
    let values = Arc::new(UInt8Array::from(pixels.concat()));
    let images = FixedSizeListArray::new(Arc::clone(&item), size, values, None);
    let metadata = [
        ("ARROW:extension:name".to_owned(), "arrow.fixed_shape_tensor".to_owned()),
        ("ARROW:extension:metadata".to_owned(), format!(r#"{{"shape":{shape:?},"dim_names":["H","W","C"]}}"#)),
    ];
    let image = Field::new("image", images.data_type().clone(), true).with_metadata(metadata.into());
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, false), image]);
    let ids = Int64Array::from_iter_values(0..pixels.len() as i64);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(images)]).unwrap()
}
