//! The rates that p-values promise beside the rates that one gets: false alarms and false discoveries, measured through
//! SQL on rows that the model was not trained on.
//!
//! ```sh
//! python fixtures/make.py full target/data fashion               # downloads Fashion-MNIST
//! cargo run --example false_alarms -- --data target/data/fashion # minutes
//! ```
//!
//! One model is trained on clothes. Clothes that it has not seen are dealt into disjoint splits; in each, two thirds
//! calibrate the model (`wae_calibrate`) and a third is tested, with shoes and bags as a twentieth of the tested table.
//! A mean over splits is then a mean over calibration draws, as the guarantees have it. With `--features`, a second model
//! is trained on the first one's codes, as vectors, and measured in the same way. `--normal` names the normal rows of other
//! data. The rate of normal images with any false place is that of images with a region. Last, `wae.confidence` is measured
//! on simulated scores, whose true rate is known.
#![expect(clippy::print_stdout, reason = "it prints its table")]

pub mod simulated;

use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;

use clap::Parser;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use datafusion::prelude::SessionContext;

/// The rates at which rows are flagged.
const ALPHAS: [f64; 3] = [0.01, 0.05, 0.1];

/// A model, and what it is trained on and scores.
struct Subject {
    model: &'static str,
    input: &'static str,
    scores: &'static [&'static str],
}

/// The model of images.
const IMAGES: Subject =
    Subject { model: "clothes", input: "image", scores: &["cost", "latent_distance", "anomaly_score"] };

/// The model of the codes of images.
const FEATURES: Subject =
    Subject { model: "codes", input: "wae_encode(image, 'clothes')", scores: &["cost", "anomaly_score"] };

/// The level at which false discoveries are controlled.
const LEVEL: f64 = 0.1;

/// Strange rows for each normal one of a tested table: a twentieth of the whole.
const CONTAMINATION: f64 = 0.05 / 0.95;

/// A result with any error.
pub type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Measures the rates and prints them.
#[derive(Debug, Clone, Parser)]
pub struct Options {
    /// The folder with `train.parquet` and `test.parquet`.
    #[arg(long, value_name = "DIR", default_value = "fixtures/fashion")]
    pub data: PathBuf,
    /// Disjoint splits.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub splits: usize,
    /// Clothes of the training file that are left out of training; those of the test file are added.
    #[arg(long, value_name = "N", default_value_t = 6000)]
    pub unseen: usize,
    /// Epochs of the training.
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub epochs: usize,
    /// The folder for the models.
    #[arg(long, value_name = "DIR", default_value = "target/false_alarms/models")]
    pub models: PathBuf,
    /// Measures a model of the first one's codes, too.
    #[arg(long)]
    pub features: bool,
    /// A condition on normal rows, of columns of both files.
    #[arg(long, value_name = "SQL", default_value = "label IN (0, 1, 2, 3, 4, 6)")]
    pub normal: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    println!("{}\n{}", markdown(&run(&Options::parse()).await?), simulated::markdown()?);
    Ok(())
}

/// The measurements of one score of one model.
pub struct Measured {
    /// The model.
    pub model: &'static str,
    /// The score.
    pub score: &'static str,
    /// The splits.
    pub splits: Vec<Split>,
}

/// The measurements of one score in one split.
pub struct Split {
    /// Rows that calibrated the model.
    pub calibration_rows: i64,
    /// Normal rows that were tested.
    pub tested: i64,
    /// The share of the tested normal rows that was flagged at each of three alphas.
    pub false_alarms: [f64; 3],
    /// The share of the tested normal rows with any region at each of three alphas, of the anomaly score.
    pub false_places: Option<[f64; 3]>,
    /// Rows with an adjusted p-value of at most 0.1.
    pub discoveries: i64,
    /// The share of normal rows among them; 0 where there are none.
    pub false_discoveries: f64,
    /// The share of the strange rows among them.
    pub power: f64,
}

impl Split {
    /// The rate of false alarms that p-values at most `alpha` have on average, ⌊α(n + 1)⌋/(n + 1).
    fn promised(&self, alpha: f64) -> f64 {
        let ranks = (self.calibration_rows + 1) as f64;
        (alpha * ranks).floor() / ranks
    }
}

/// Trains the models, and measures each score in each split.
pub async fn run(options: &Options) -> Result<Vec<Measured>> {
    let ctx = datafusion_wae::session_context()?;
    std::fs::create_dir_all(&options.models)?;
    prepare(&ctx, options).await?;
    let mut measured = measure_splits(&ctx, &IMAGES, options.splits).await?;
    if options.features {
        let sql = format!(
            "SELECT epoch FROM wae_train((SELECT {} AS x FROM clothes WHERE i >= {}), model => '{}',
                 input => 'features', epochs => {}, holdout => 0, overwrite => true)",
            FEATURES.input, options.unseen, FEATURES.model, options.epochs
        );
        ctx.sql(&sql).await?.collect().await?;
        measured.extend(measure_splits(&ctx, &FEATURES, options.splits).await?);
    }
    Ok(measured)
}

/// Calibrates a model with each split in turn, and measures its scores.
async fn measure_splits(ctx: &SessionContext, subject: &Subject, splits: usize) -> Result<Vec<Measured>> {
    let Subject { model, input, scores } = *subject;
    let mut measured: Vec<_> = scores.iter().map(|score| Measured { model, score, splits: Vec::new() }).collect();
    for split in 0..splits {
        let source = format!("SELECT {input} AS x FROM calibration WHERE split = {split}");
        let sql = format!("SELECT rows FROM wae_calibrate(({source}), '{model}')");
        let batches = ctx.sql(&sql).await?.collect().await?;
        let rows = batches.first().ok_or("a calibration gives a row")?.column(0).as_primitive::<Int64Type>().value(0);
        for of_score in &mut measured {
            let p_value = format!("wae_p_value({input}, '{model}', '{}')", of_score.score);
            let mut measured = measure(ctx, &p_value, split, rows).await?;
            if of_score.score == "anomaly_score" {
                measured.false_places = Some(false_places(ctx, subject, split).await?);
            }
            of_score.splits.push(measured);
        }
    }
    Ok(measured)
}

/// Trains on clothes, and deals those that were left out, with shoes and bags, into splits. Rows are ordered by a hash
/// of their bytes, so that training and test file are mixed.
async fn prepare(ctx: &SessionContext, options: &Options) -> Result<()> {
    let Options { unseen, splits, .. } = *options;
    let data = options.data.display();
    let clothes = &options.normal;
    let by_hash = "CAST(row_number() OVER (ORDER BY md5(image['bytes'])) AS BIGINT) - 1 AS i";
    let strange = format!("(SELECT count(*) FROM tested WHERE NOT strange AND split = 0) * {CONTAMINATION}");
    for sql in [
        format!("SET wae.model_dir = '{}'", options.models.display()),
        "SET wae.model = 'clothes'".to_owned(),
        format!("CREATE TABLE clothes AS SELECT image, {by_hash} FROM '{data}/train.parquet' WHERE {clothes}"),
        format!(
            "SELECT epoch FROM wae_train((SELECT image FROM clothes WHERE i >= {unseen}), model => 'clothes',
                 network => 'small', latent_dim => 8, epochs => {}, holdout => 0, overwrite => true)",
            options.epochs
        ),
        format!(
            "CREATE TABLE normal AS SELECT image, {by_hash} FROM (SELECT image FROM clothes WHERE i < {unseen}
                 UNION ALL SELECT image FROM '{data}/test.parquet' WHERE {clothes})"
        ),
        format!(
            "CREATE VIEW calibration AS SELECT image, i % {splits} AS split FROM normal WHERE i / {splits} % 3 < 2"
        ),
        format!(
            "CREATE TABLE tested AS SELECT image, false AS strange, i % {splits} AS split FROM normal
             WHERE i / {splits} % 3 = 2"
        ),
        format!(
            "INSERT INTO tested SELECT image, true, i % {splits} FROM
                 (SELECT image, {by_hash} FROM '{data}/test.parquet' WHERE NOT ({clothes}))
             WHERE CAST(i / {splits} AS DOUBLE) < round({strange})"
        ),
    ] {
        ctx.sql(&sql).await?.collect().await?;
    }
    Ok(())
}

/// The rates of one score's p-values in one split, for which the model is calibrated.
async fn measure(ctx: &SessionContext, p_value: &str, split: usize, calibration_rows: i64) -> Result<Split> {
    let share =
        |condition: &str, of: &str| format!("avg(CASE WHEN {condition} THEN 1.0 ELSE 0.0 END) FILTER (WHERE {of})");
    let alarms = ALPHAS.map(|alpha| share(&format!("p <= {alpha}"), "NOT strange")).join(", ");
    let found = format!("q <= {LEVEL}");
    let sql = format!(
        "SELECT {alarms}, coalesce({}, 0.0), {}, count(*) FILTER (WHERE NOT strange), count(*) FILTER (WHERE {found})
         FROM (SELECT strange, p, wae_fdr(p) OVER () AS q FROM
                  (SELECT strange, {p_value} AS p FROM tested WHERE split = {split}))",
        share("NOT strange", &found),
        share(&found, "strange"),
    );
    let batches = ctx.sql(&sql).await?.collect().await?;
    let row = batches.first().ok_or("an aggregate gives a row")?;
    let number = |column: usize| row.column(column).as_primitive::<Float64Type>().value(0);
    let count = |column: usize| row.column(column).as_primitive::<Int64Type>().value(0);
    Ok(Split {
        calibration_rows,
        tested: count(5),
        false_alarms: [number(0), number(1), number(2)],
        false_places: None,
        discoveries: count(6),
        false_discoveries: number(3),
        power: number(4),
    })
}

/// The share of normal rows with any region at each alpha.
async fn false_places(ctx: &SessionContext, subject: &Subject, split: usize) -> Result<[f64; 3]> {
    let Subject { model, input, .. } = *subject;
    let share = |alpha| {
        let regions = format!("array_length(wae_anomaly_regions({input}, {alpha}, '{model}'))");
        format!("avg(CASE WHEN {regions} > 0 THEN 1.0 ELSE 0.0 END)")
    };
    let shares = ALPHAS.map(share).join(", ");
    let sql = format!("SELECT {shares} FROM tested WHERE split = {split} AND NOT strange");
    let batches = ctx.sql(&sql).await?.collect().await?;
    let row = batches.first().ok_or("an aggregate gives a row")?;
    Ok([0, 1, 2].map(|column| row.column(column).as_primitive::<Float64Type>().value(0)))
}

/// The mean over splits and its standard error.
pub fn mean_and_error(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, (variance / n).sqrt())
}

/// The measured rates as a table.
fn markdown(measured: &[Measured]) -> String {
    let mut text = String::new();
    if let Some(split) = measured.first().and_then(|m| m.splits.first()) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{} splits, in the first {} rows that calibrate and {} normal rows that are tested. Mean over splits ± standard error.\n",
            measured[0].splits.len(),
            split.calibration_rows,
            split.tested
        );
    }
    text += "| model | score | false alarms at α = 0.01 | at 0.05 | at 0.1 | false discoveries at 0.1 | strange rows found | splits with any |\n";
    text += "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
    if let Some(Measured { splits, .. }) = measured.first() {
        let promised = ALPHAS.map(|alpha| format!("{:.4}", mean_and_error(splits.iter().map(|s| s.promised(alpha))).0));
        let _ = writeln!(text, "| promised | | {} | {LEVEL} | | |", promised.join(" | "));
    }
    for Measured { model, score, splits } in measured {
        let cell = |get: &dyn Fn(&Split) -> f64| {
            let (mean, error) = mean_and_error(splits.iter().map(get));
            format!("{mean:.4} ± {error:.4}")
        };
        let any = splits.iter().filter(|s| s.discoveries > 0).count();
        let _ = writeln!(
            text,
            "| {model} | {score} | {} | {} | {} | {} | {} | {any} |",
            cell(&|s| s.false_alarms[0]),
            cell(&|s| s.false_alarms[1]),
            cell(&|s| s.false_alarms[2]),
            cell(&|s| s.false_discoveries),
            cell(&|s| s.power)
        );
    }
    text +=
        "\n| model | normal rows with any false place at α = 0.01 | at 0.05 | at 0.1 |\n| --- | --- | --- | --- |\n";
    for Measured { model, splits, .. } in measured.iter().filter(|m| m.splits.iter().all(|s| s.false_places.is_some()))
    {
        let cell = |i: usize| {
            let (mean, error) = mean_and_error(splits.iter().filter_map(|s| Some(s.false_places?[i])));
            format!("{mean:.4} ± {error:.4}")
        };
        let _ = writeln!(text, "| {model} | {} | {} | {} |", cell(0), cell(1), cell(2));
    }
    text
}
