//! Facts of the model, from its file and from the catalogue of models.

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result, exec_err};
use wae_core::calibrate::{Calibration, HeldOut, Score};
use wae_core::config::Cost;
use wae_core::image::Limits;
use wae_core::{Config, ModelFile};

use super::Session;
use super::chart::{count, short};
use super::curves::{Column, History};
use crate::{WaeOptions, read_model};

/// The model's file, read once.
pub(super) struct Model {
    file: ModelFile,
    sha256: String,
    pub(super) limits: Limits,
    /// The score of verdicts: the session's, or else the model's own.
    score: Score,
    /// The session's confidence, with which verdicts keep their rate.
    pub(super) confidence: Option<f64>,
}

impl Model {
    /// Reads the file of the session's model, which is known to exist.
    pub(super) fn read(session: &Session<'_>) -> Result<Self> {
        let options = WaeOptions::of(session.ctx.state().config_options());
        let (file, sha256) = read_model(session.model, &options)?;
        let score = options.score().unwrap_or(file.config().score());
        Ok(Self { file, sha256, limits: options.limits(), score, confidence: options.confidence() })
    }

    /// The model's configuration.
    pub(super) fn config(&self) -> &Config {
        self.file.config()
    }

    /// The score of verdicts.
    pub(super) fn score(&self) -> Score {
        self.score
    }

    /// The held-out scores as p-values rank them; none for a model trained without held-out rows.
    pub(super) fn held_out(&self) -> Option<&HeldOut> {
        self.file.calibration()?.scores(self.score)
    }

    /// A score as it is reported, from the one that p-values rank.
    pub(super) fn reported(&self, ranked: f32) -> f32 {
        match (self.score, self.file.anomaly_scale()) {
            (Score::AnomalyScore, Some(scale)) => scale.of(ranked),
            _ => ranked,
        }
    }

    /// Whether the model has an anomaly map; else what each pixel adds to the cost is shown.
    pub(super) fn has_anomaly_map(&self) -> bool {
        self.file.anomaly().is_some()
    }

    /// Whether the model has anomaly masks: an anomaly map, and held-out rows with anomaly scores.
    pub(super) fn has_anomaly_masks(&self) -> bool {
        let has_scores = |calibration: &Calibration| calibration.scores(Score::AnomalyScore).is_some();
        self.has_anomaly_map() && self.file.calibration().is_some_and(has_scores)
    }

    /// The name of the score, in words.
    pub(super) fn score_name(&self) -> &'static str {
        match self.score {
            Score::Cost => "reconstruction cost",
            Score::LatentDistance => "latent distance",
            Score::AnomalyScore => "anomaly score",
        }
    }

    /// The unit of the score, in words.
    pub(super) fn score_unit(&self) -> &'static str {
        match self.score {
            Score::Cost => self.cost_unit(),
            Score::LatentDistance => "Mahalanobis distance of the code from the training codes",
            Score::AnomalyScore => "from 0 to 1, where outliers at α = 0.01 without wae.confidence lie above 0.5",
        }
    }

    /// The unit of an anomaly map's pixels, in words.
    pub(super) fn map_unit(&self) -> &'static str {
        match self.config().cost() {
            _ if self.has_anomaly_map() => {
                "how strange a place is beside what is usual there, and above 0.5 an outlier at α = 0.01 without \
                 wae.confidence"
            }
            Cost::L2 => "what a pixel adds to the square of the cost",
            Cost::Squared | Cost::L1 | Cost::Structural => "what a pixel adds to the cost",
        }
    }

    /// The unit of a cost, in words.
    fn cost_unit(&self) -> &'static str {
        match self.config().cost() {
            Cost::Squared if self.config().input().is_some() => "sum of squared differences of whitened features",
            Cost::Squared => "sum of squared differences, pixels in [0, 1]",
            Cost::L2 => "root of the sum of squared differences, pixels in [0, 1]",
            Cost::L1 => "sum of absolute differences, pixels in [0, 1]",
            Cost::Structural => "squared differences and half the structural dissimilarity, summed, pixels in [0, 1]",
        }
    }
}

/// The epochs of the model's training. It is the first query of a report: where the model is missing, its error names
/// the models that there are.
pub(super) async fn history(session: &Session<'_>) -> Result<History> {
    let names = ["loss", "reconstruction_cost", "holdout_reconstruction_cost", "divergence", "holdout_divergence"];
    let sql = format!("SELECT epoch, {} FROM wae_history({}) ORDER BY epoch", names.join(", "), session.literal());
    let batch = session.batch(&sql).await?;
    let column = |name: &'static str| Ok(Column { name, values: numbers(&batch, name)? });
    Ok(History {
        epochs: numbers(&batch, "epoch")?.into_iter().flatten().collect(),
        columns: names.into_iter().map(column).collect::<Result<_>>()?,
    })
}

/// A column of numbers.
pub(super) fn numbers(batch: &RecordBatch, name: &str) -> Result<Vec<Option<f64>>> {
    let Some(column) = batch.column_by_name(name) else { return exec_err!("report: no column '{name}'") };
    Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().iter().collect())
}

/// Names and values for the head of the page.
///
/// # Errors
/// An execution error if the model's file is no longer the one that was read first.
pub(super) async fn facts(session: &Session<'_>, model: &Model) -> Result<Vec<(&'static str, String)>> {
    let sql = format!("SELECT * FROM wae_models() WHERE name = {}", session.literal());
    let batch = session.batch(&sql).await?;
    if batch.num_rows() != 1 || text(&batch, "sha256")? != model.sha256 {
        return exec_err!("report: model '{}' was replaced while the report was made; make it again", session.model);
    }
    let whole = |name: &str| numbers(&batch, name).map(|v| v[0].map_or("–".to_owned(), |v| count(v as usize)));
    let shape = format!("{} × {} × {}", whole("height")?, whole("width")?, whole("channels")?);
    let prior = model.config().prior();
    let lambda = numbers(&batch, "lambda")?[0].filter(|_| text(&batch, "objective").is_ok_and(|o| o != "ae"));
    Ok(vec![
        ("Image, H × W × C", shape),
        ("Values in a code", whole("latent_dim")?),
        ("Objective", text(&batch, "objective")?),
        ("λ, weight of the divergence", lambda.map_or("–".to_owned(), short)),
        ("Cost", model.config().cost().name().to_owned()),
        ("Prior", format!("{:?}, scale {}", prior.kind, prior.scale).to_lowercase()),
        ("Rows trained on", whole("rows")?),
        ("Calibration rows", model.held_out().map_or("none".to_owned(), |c| count(c.len()))),
        ("Epochs", whole("epochs")?),
        ("Parameters", whole("parameters")?),
        ("Bytes", whole("bytes")?),
        ("Trained until", text(&batch, "created")?),
        ("SHA-256 of the file", model.sha256.clone()),
    ])
}

/// The first row's value as text; a dash for NULL.
fn text(batch: &RecordBatch, name: &str) -> Result<String> {
    let Some(column) = batch.column_by_name(name) else { return exec_err!("report: no column '{name}'") };
    if column.is_null(0) {
        return Ok("–".to_owned());
    }
    Ok(ArrayFormatter::try_new(column, &FormatOptions::default())?.value(0).try_to_string()?)
}
