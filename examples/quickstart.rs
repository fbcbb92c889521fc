//! The main job on real images: learn what clothes look like, encode a test set, flag what is none.
//!
//! `cargo run --example quickstart` trains on the six classes of clothes of a part of Fashion-MNIST and scores its test
//! set, in which shoes and bags are the outliers. It prints what it finds beside two baselines, the distance to the
//! mean image and principal components of the same width, and writes three contact sheets as PNG under
//! `target/quickstart`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, UInt8Type};
use arrow::util::pretty::pretty_format_batches;
use baseline::{Pca, auroc};
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use wae_core::image::{Pixels, encode};
use wae_core::{Image, ImageShape};

#[path = "../tests/support/baseline.rs"]
mod baseline;

/// Classes of Fashion-MNIST: T-shirt, trouser, pullover, dress, coat, shirt. The others are shoes and bags.
const CLOTHES: &str = "(0, 1, 2, 3, 4, 6)";
const SIDE: usize = 28;
const LATENT_DIM: usize = 8;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let started = Instant::now();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let output = root.join("target/quickstart");
    std::fs::create_dir_all(&output)?;
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    println!("Computing on {}.", wae_core::Device::Auto.resolved());
    let ctx = datafusion_wae::session_context()?;
    let fixture = |name: &str| root.join("fixtures/fashion").join(name).display().to_string();
    for statement in [
        format!("CREATE VIEW train AS SELECT image, label FROM '{}'", fixture("train.parquet")),
        format!("CREATE VIEW test AS SELECT image, label FROM '{}'", fixture("test.parquet")),
        format!("SET wae.model_dir = '{}'", output.join("models").display()),
        "SET wae.model = 'clothes'".to_owned(),
    ] {
        ctx.sql(&statement).await?.collect().await?;
    }
    train(&ctx).await?;
    score(&ctx).await?;
    contact_sheets(&ctx, &output).await?;
    println!("\nDone in {:.0} s.", started.elapsed().as_secs_f64());
    Ok(())
}

/// Trains on clothes and prints each epoch as it ends.
async fn train(ctx: &SessionContext) -> Result<()> {
    println!("Training on clothes.\n\nepoch      loss      cost  held-out cost    MMD²  images/s");
    let sql = format!(
        "SELECT epoch, loss, reconstruction_cost, holdout_reconstruction_cost, holdout_divergence, images_per_second
         FROM wae_train((SELECT image FROM train WHERE label IN {CLOTHES}), model => 'clothes', network => 'small',
                        latent_dim => {LATENT_DIM}, epochs => 8, overwrite => true)"
    );
    let mut epochs = ctx.sql(&sql).await?.execute_stream().await?;
    while let Some(batch) = epochs.next().await {
        let batch = batch?;
        let epoch = batch.column(0).as_primitive_opt::<Int64Type>().ok_or("epoch is an Int64")?;
        let number = |column: usize, row: usize| batch.column(column).as_primitive::<Float64Type>().value(row);
        for row in 0..batch.num_rows() {
            println!(
                "{:>5} {:>9.2} {:>9.2} {:>14.2} {:>7.4} {:>9.0}",
                epoch.value(row),
                number(1, row),
                number(2, row),
                number(3, row),
                number(4, row),
                number(5, row)
            );
        }
    }
    Ok(())
}

/// Scores the test set, and sets the model beside the baselines.
async fn score(ctx: &SessionContext) -> Result<()> {
    let strangest = "SELECT label, round(wae_reconstruction_cost(image), 1) AS cost,
                            round(wae_anomaly_score(image), 3) AS score, round(wae_p_value(image), 4) AS p
                     FROM test ORDER BY score DESC LIMIT 10";
    println!("\nThe ten strangest images of the test set:\n{}", table(ctx, strangest).await?);

    let columns = "wae_reconstruction_cost(image) AS cost, wae_anomaly_score(image) AS score, \
                   wae_is_outlier(image, 0.05) AS outlier, image_decode(image['bytes'], 28, 28, 1) AS image";
    let normal = batch(ctx, &format!("SELECT {columns} FROM test WHERE label IN {CLOTHES}")).await?;
    let strange = batch(ctx, &format!("SELECT {columns} FROM test WHERE label NOT IN {CLOTHES}")).await?;
    let train = format!("SELECT image_decode(image['bytes'], 28, 28, 1) AS image FROM train WHERE label IN {CLOTHES}");
    let train = pixels(&batch(ctx, &train).await?)?;
    let pca = Pca::fit(&train, SIDE * SIDE, LATENT_DIM)?;

    let normal_pixels = pixels(&normal)?;
    let strange_pixels = pixels(&strange)?;
    let normal_costs = numbers(&normal, "cost")?;
    let strange_costs = numbers(&strange, "cost")?;
    let normal_scores = numbers(&normal, "score")?;
    let pca_costs = pca.costs(&normal_pixels)?;
    println!("AUROC, shoes and bags against clothes:");
    println!("  anomaly score             {:.3}", auroc(&normal_scores, &numbers(&strange, "score")?));
    println!("  reconstruction cost       {:.3}", auroc(&normal_costs, &strange_costs));
    println!("  principal components      {:.3}", auroc(&pca_costs, &pca.costs(&strange_pixels)?));
    let normal_distances = pca.mean_distances(&normal_pixels)?;
    let strange_distances = pca.mean_distances(&strange_pixels)?;
    println!("  distance to mean image    {:.3}", auroc(&normal_distances, &strange_distances));
    println!("Reconstruction cost of clothes that neither has seen, at width {LATENT_DIM}:");
    println!("  this model                {:.2}", mean(&normal_costs));
    println!("  principal components      {:.2}", mean(&pca_costs));
    let flagged = |batch: &RecordBatch| -> Result<f64> {
        let outliers = batch.column_by_name("outlier").ok_or("no column outlier")?.as_boolean();
        Ok(outliers.true_count() as f64 / outliers.len() as f64)
    };
    println!("Flagged at alpha = 0.05:");
    println!("  clothes (false alarms)    {:.1} %", 100.0 * flagged(&normal)?);
    println!("  shoes and bags            {:.1} %", 100.0 * flagged(&strange)?);
    Ok(())
}

/// Writes reconstructions beside originals, samples from the prior, and the strangest images.
async fn contact_sheets(ctx: &SessionContext, output: &Path) -> Result<()> {
    let decoded = "image_decode(image['bytes'], 28, 28, 1)";
    let pairs =
        format!("SELECT {decoded} AS a, wae_reconstruct(image) AS b FROM test WHERE label IN {CLOTHES} LIMIT 60");
    let samples = "SELECT image FROM wae_sample(120)".to_owned();
    let strangest = format!("SELECT {decoded} AS image FROM test ORDER BY wae_anomaly_score(image) DESC LIMIT 120");
    println!("\nContact sheets:");
    for (name, sql) in [("reconstructions", pairs), ("samples", samples), ("strangest", strangest)] {
        let batch = batch(ctx, &sql).await?;
        let columns: Vec<Vec<u8>> = batch.columns().iter().map(|c| bytes(c)).collect::<Result<_>>()?;
        // Of two columns, an original stands above its reconstruction.
        let tiles = |row: usize| columns.iter().map(move |c| &c[row * SIDE * SIDE..(row + 1) * SIDE * SIDE]);
        let path = write_sheet(output, name, (0..batch.num_rows()).map(|row| tiles(row).collect()).collect())?;
        println!("  {}", path.display());
    }
    Ok(())
}

/// Lays tiles out twelve a row, each a stack of images, and writes them as PNG.
fn write_sheet(output: &Path, name: &str, tiles: Vec<Vec<&[u8]>>) -> Result<PathBuf> {
    const PER_ROW: usize = 12;
    let stack = tiles.first().map_or(1, Vec::len);
    let height = tiles.len().div_ceil(PER_ROW) * stack * SIDE;
    let width = PER_ROW * SIDE;
    let mut sheet = vec![255; height * width];
    for (i, tile) in tiles.iter().enumerate() {
        for (j, image) in tile.iter().enumerate() {
            let top = (i / PER_ROW * stack + j) * SIDE;
            let left = i % PER_ROW * SIDE;
            for (y, row) in image.chunks_exact(SIDE).enumerate() {
                sheet[(top + y) * width + left..][..SIDE].copy_from_slice(row);
            }
        }
    }
    let image = Image::try_new(ImageShape::new(height, width, 1), Pixels::U8(sheet))?;
    let path = output.join(format!("{name}.png"));
    std::fs::write(&path, encode(&image, "png")?)?;
    Ok(path)
}

async fn table(ctx: &SessionContext, sql: &str) -> Result<String> {
    Ok(pretty_format_batches(&ctx.sql(sql).await?.collect().await?)?.to_string())
}

/// All rows of a query as one batch.
async fn batch(ctx: &SessionContext, sql: &str) -> Result<RecordBatch> {
    let batches = ctx.sql(sql).await?.collect().await?;
    let schema = batches.first().ok_or("the query has no rows")?.schema();
    Ok(arrow::compute::concat_batches(&schema, &batches)?)
}

/// The bytes of a column of image tensors.
fn bytes(column: &dyn Array) -> Result<Vec<u8>> {
    let DataType::FixedSizeList(..) = column.data_type() else { return Err("not an image tensor".into()) };
    Ok(column.as_fixed_size_list().values().as_primitive::<UInt8Type>().values().to_vec())
}

/// The column `image` in [0, 1].
fn pixels(batch: &RecordBatch) -> Result<Vec<f32>> {
    let column = batch.column_by_name("image").ok_or("no column image")?;
    Ok(bytes(column)?.into_iter().map(|v| f32::from(v) / 255.0).collect())
}

/// A column of Float32.
fn numbers(batch: &RecordBatch, name: &str) -> Result<Vec<f32>> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("no column {name}"))?;
    Ok(column.as_primitive::<Float32Type>().values().to_vec())
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64
}
