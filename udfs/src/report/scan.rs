//! One pass over the table: each image's score, code and flag, of which a bounded number is kept as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{cast, concat, take};
use datafusion::arrow::datatypes::{DataType, FieldRef, Float32Type};
use datafusion::common::{Result, exec_datafusion_err};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use wae_core::calibrate::Score;

use super::latent::Point;
use super::level::Level;
use super::{Session, identifier, relation};

/// Most images that are shown for their score.
pub(super) const STRANGEST: usize = 24;
/// Most images on the latent map.
pub(super) const POINTS: usize = 2000;

/// An image that is kept for its score.
#[derive(Debug, Clone)]
pub(super) struct Strange {
    pub(super) score: f32,
    pub(super) is_outlier: Option<bool>,
    pub(super) label: Option<String>,
    /// A hash of its code: the order of equal scores.
    hash: u64,
    /// One row of the column.
    image: ArrayRef,
}

/// The findings of the pass.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The scores of all images.
    pub(super) scores: Vec<f32>,
    /// Images flagged; `None` for a model without calibration.
    pub(super) outliers: Option<usize>,
    /// Rows without an image.
    pub(super) missing: usize,
    /// The images of the highest scores, the highest first.
    pub(super) strangest: Vec<Strange>,
    /// The column that they come from.
    field: Option<FieldRef>,
    /// The images with the lowest hashes: which they are does not depend on the order of rows.
    sample: BTreeMap<(u64, Option<String>, usize), Point>,
}

/// Reads the table once.
///
/// # Errors
/// Those of the query: an unknown column, a column without images, a level that no row could reach.
pub(super) async fn scan(session: &Session<'_>, score: Score, level: Option<Level>) -> Result<Scan> {
    let model = session.literal();
    let image = identifier(&session.options.image);
    let function = match score {
        Score::Cost => "wae_reconstruction_cost",
        Score::LatentDistance => "wae_latent_distance",
        Score::AnomalyScore => "wae_anomaly_score",
    };
    let mut columns =
        format!("{image} AS image, {function}({image}, {model}) AS score, wae_encode({image}, {model}) AS code");
    if let Some(level) = level {
        columns += &format!(", wae_is_outlier({image}, {}, {model}) AS is_outlier", level.alpha());
    }
    if let Some(label) = &session.options.label {
        columns += &format!(", CAST({} AS VARCHAR) AS label", identifier(label));
    }
    let sql = format!("SELECT {columns} FROM {}", relation(session.source));
    let mut stream = session.ctx.sql(&sql).await?.execute_stream().await?;
    let mut scan = Scan { outliers: level.map(|_| 0), ..Scan::default() };
    while let Some(batch) = stream.next().await {
        scan.add(&batch?)?;
    }
    Ok(scan)
}

/// The columns of a batch by name.
struct BatchColumns<'a> {
    batch: &'a RecordBatch,
    labels: Option<ArrayRef>,
}

impl<'a> BatchColumns<'a> {
    fn try_new(batch: &'a RecordBatch) -> Result<Self> {
        let labels = batch.column_by_name("label").map(|c| cast(c, &DataType::Utf8)).transpose()?;
        Ok(Self { batch, labels })
    }

    fn get(&self, name: &str) -> Result<&'a ArrayRef> {
        self.batch.column_by_name(name).ok_or_else(|| exec_datafusion_err!("report: no column '{name}'"))
    }

    fn label(&self, row: usize) -> Option<String> {
        let labels = self.labels.as_ref()?.as_string::<i32>();
        labels.is_valid(row).then(|| labels.value(row).to_owned())
    }

    fn is_outlier(&self, row: usize) -> Option<bool> {
        let flags = self.batch.column_by_name("is_outlier")?.as_boolean_opt()?;
        flags.is_valid(row).then(|| flags.value(row))
    }

    fn code(&self, row: usize) -> Result<Vec<f32>> {
        Ok(self.get("code")?.as_fixed_size_list().value(row).as_primitive::<Float32Type>().values().to_vec())
    }
}

impl Scan {
    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = BatchColumns::try_new(batch)?;
        let scores = columns.get("score")?.as_primitive::<Float32Type>();
        self.field.get_or_insert_with(|| Arc::clone(&batch.schema_ref().fields()[0]));
        self.missing += scores.null_count();
        let mut rows = Vec::new();
        for row in (0..batch.num_rows()).filter(|row| scores.is_valid(*row)) {
            let score = scores.value(row);
            let code = columns.code(row)?;
            let hash = hash(&code);
            rows.push((row, score, hash));
            self.scores.push(score);
            self.outliers = self.outliers.map(|n| n + usize::from(columns.is_outlier(row) == Some(true)));
            self.sample_point(hash, row, code, &columns);
        }
        self.keep_strangest(rows, &columns)
    }

    fn sample_point(&mut self, hash: u64, row: usize, code: Vec<f32>, columns: &BatchColumns<'_>) {
        let worst = self.sample.last_key_value().map(|(key, _)| key.0);
        if self.sample.len() == POINTS && worst.is_some_and(|worst| worst < hash) {
            return;
        }
        let label = columns.label(row);
        // The number tells duplicates of an image apart.
        let key = (hash, label.clone(), self.scores.len());
        self.sample.insert(key, Point { code, is_outlier: columns.is_outlier(row), label });
        if self.sample.len() > POINTS {
            self.sample.pop_last();
        }
    }

    fn keep_strangest(&mut self, mut rows: Vec<(usize, f32, u64)>, columns: &BatchColumns<'_>) -> Result<()> {
        let floor = self.strangest.get(STRANGEST - 1).map_or(f32::NEG_INFINITY, |s| s.score);
        rows.retain(|(_, score, _)| *score >= floor);
        rows.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.2.cmp(&b.2)));
        for (row, score, hash) in rows.into_iter().take(STRANGEST) {
            // A copy: a slice would keep the whole batch in memory.
            let image = take(columns.get("image")?, &UInt32Array::from(vec![row as u32]), None)?;
            let is_outlier = columns.is_outlier(row);
            self.strangest.push(Strange { score, is_outlier, label: columns.label(row), hash, image });
        }
        let order = |s: &Strange| (s.hash, s.label.clone());
        self.strangest.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| order(a).cmp(&order(b))));
        self.strangest.truncate(STRANGEST);
        Ok(())
    }

    /// The images that are on the map.
    pub(super) fn points(&self) -> Vec<Point> {
        self.sample.values().cloned().collect()
    }

    /// The strangest images as one column; `None` if there are none.
    pub(super) fn images(&self) -> Result<Option<(FieldRef, ArrayRef)>> {
        let images: Vec<&dyn Array> = self.strangest.iter().map(|s| s.image.as_ref()).collect();
        let (Some(field), Some(_)) = (&self.field, images.first()) else { return Ok(None) };
        Ok(Some((Arc::clone(field), concat(&images)?)))
    }
}

/// The first bytes of the SHA-256 of a code: the same on every machine and in every version.
fn hash(code: &[f32]) -> u64 {
    let bytes: Vec<u8> = code.iter().flat_map(|v| v.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{BooleanArray, FixedSizeListArray, Float32Array, Int64Array, StringArray};
    use datafusion::arrow::datatypes::{Field, Schema};

    use super::*;

    /// Rows numbered from `first`: the image is the number, the score `score(number)`, the code too.
    fn batch(rows: &[i64], score: impl Fn(i64) -> Option<f32>) -> RecordBatch {
        let codes = rows.iter().map(|row| Some(vec![Some(*row as f32)]));
        let columns: [(&str, ArrayRef); 5] = [
            ("image", Arc::new(Int64Array::from(rows.to_vec()))),
            ("score", Arc::new(rows.iter().map(|r| score(*r)).collect::<Float32Array>())),
            ("code", Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(codes, 1))),
            ("is_outlier", Arc::new(rows.iter().map(|r| score(*r).map(|s| s > 90.0)).collect::<BooleanArray>())),
            ("label", Arc::new(rows.iter().map(|r| Some(format!("row {r}"))).collect::<StringArray>())),
        ];
        let fields: Vec<Field> =
            columns.iter().map(|(name, c)| Field::new(*name, c.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.map(|(_, c)| c).to_vec()).unwrap()
    }

    fn scan_of(batches: &[RecordBatch]) -> Scan {
        let mut scan = Scan { outliers: Some(0), ..Scan::default() };
        batches.iter().for_each(|batch| scan.add(batch).unwrap());
        scan
    }

    #[test]
    fn order_and_batches_change_nothing() {
        // 5,000 rows with scores 0..=99, so that there are ties; every hundredth has no image.
        let score = |row: i64| (row % 100 != 7).then_some((row % 100) as f32);
        let rows: Vec<i64> = (0..5000).collect();
        let backwards: Vec<i64> = rows.iter().rev().copied().collect();
        let one = scan_of(&[batch(&rows, score)]);
        let many = scan_of(&backwards.chunks(77).map(|rows| batch(rows, score)).collect::<Vec<_>>());
        assert_eq!((one.scores.len(), one.missing, one.outliers), (4950, 50, Some(450)));
        assert_eq!((many.scores.len(), many.missing, many.outliers), (4950, 50, Some(450)));
        let labels = |scan: &Scan| scan.strangest.iter().map(|s| s.label.clone().unwrap()).collect::<Vec<_>>();
        assert_eq!(labels(&one), labels(&many));
        assert!(one.strangest.iter().all(|s| s.score == 99.0) && one.strangest.len() == STRANGEST);
        let codes = |scan: &Scan| scan.points().into_iter().map(|p| p.code[0]).collect::<Vec<_>>();
        assert!(codes(&one) == codes(&many) && one.points().len() == POINTS);
        // The images are those of the labels.
        let (_, images) = one.images().unwrap().unwrap();
        let images = images.as_primitive::<datafusion::arrow::datatypes::Int64Type>();
        let named: Vec<String> = images.values().iter().map(|i| format!("row {i}")).collect();
        assert_eq!(named, labels(&one));
    }

    #[test]
    fn few_rows_are_all_kept() {
        let scan = scan_of(&[batch(&[3, 1, 2], |row| Some(row as f32))]);
        assert_eq!(scan.strangest.iter().map(|s| s.score).collect::<Vec<_>>(), [3.0, 2.0, 1.0]);
        assert_eq!(scan.points().len(), 3);
        assert!(scan_of(&[]).images().unwrap().is_none());
    }
}
