//! The baselines of table (b): principal components and the nearest training image, both on pixels.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use datafusion::arrow::array::{AsArray, Float32Array, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt8Type};

use wae_core::objective::frechet::Moments;

use super::{Bench, Result};

/// Height and width of both data sets' images.
const SIDE: usize = 28;

/// The decoded images of a data set, in [0, 1].
pub struct Pixels {
    train: Vec<f32>,
    train_labels: Vec<i64>,
    /// (N, H·W).
    pub test: Vec<f32>,
    test_labels: Vec<i64>,
}

impl Pixels {
    /// Decodes a data set that is open.
    pub async fn read(bench: &Bench, set: &str) -> Result<Self> {
        let (train, train_labels) = decoded(bench, &format!("{set}_train")).await?;
        let (test, test_labels) = decoded(bench, &format!("{set}_test")).await?;
        Ok(Self { train, train_labels, test, test_labels })
    }

    /// The training images of one class.
    pub fn of_class(&self, class: i64) -> Vec<f32> {
        let images = self.train.chunks_exact(SIDE * SIDE).zip(&self.train_labels);
        images.filter(|(_, label)| **label == class).flat_map(|(image, _)| image).copied().collect()
    }

    /// A table of the test images' scores, with their labels.
    pub fn scored(&self, scores: Vec<f32>) -> Result<RecordBatch> {
        let fields = [("score", DataType::Float32), ("label", DataType::Int64)];
        let schema = Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, false)).to_vec());
        let labels = Int64Array::from(self.test_labels.clone());
        Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Float32Array::from(scores)), Arc::new(labels)])?)
    }
}

async fn decoded(bench: &Bench, view: &str) -> Result<(Vec<f32>, Vec<i64>)> {
    let sql = format!("SELECT image_decode(image, {SIDE}, {SIDE}, 1) AS image, label FROM {view}");
    let batch = bench.batch(&sql).await?;
    let pixels = batch.column(0).as_fixed_size_list().values().as_primitive::<UInt8Type>();
    let labels = batch.column(1).as_primitive_opt::<Int64Type>().ok_or("label must be an Int64")?;
    Ok((pixels.values().iter().map(|v| f32::from(*v) / 255.0).collect(), labels.values().to_vec()))
}

/// Squared distances of images to their projections on the principal components of others.
pub fn pca_costs(train: &[f32], test: &[f32], components: usize) -> Result<Vec<f32>> {
    let train: Vec<f64> = train.iter().map(|v| f64::from(*v)).collect();
    let moments = Moments::try_new(&train, SIDE * SIDE)?;
    let components =
        Tensor::from_vec(moments.principal_components(components)?, (components, SIDE * SIDE), &Device::Cpu)?;
    let components = components.to_dtype(DType::F32)?;
    let mean = Tensor::from_slice(moments.mean(), SIDE * SIDE, &Device::Cpu)?.to_dtype(DType::F32)?;
    let x = matrix(test)?.broadcast_sub(&mean)?;
    let projected = x.matmul(&components.t()?.contiguous()?)?.matmul(&components)?;
    Ok((x - projected)?.sqr()?.sum(D::Minus1)?.to_vec1()?)
}

/// Squared distances of images to the nearest of others: `min_j ‖a‖² + ‖b_j‖² − 2 a·b_j`, as matrix products.
pub fn nearest_distances(train: &[f32], test: &[f32]) -> Result<Vec<f32>> {
    const ROWS: usize = 500; // at a time: with 6,000 others, 12 MB
    let train = matrix(train)?;
    let norms = train.sqr()?.sum(D::Minus1)?;
    let transposed = train.t()?.contiguous()?;
    let mut distances = Vec::with_capacity(test.len() / (SIDE * SIDE));
    for rows in test.chunks(ROWS * SIDE * SIDE) {
        let rows = matrix(rows)?;
        let products = (rows.matmul(&transposed)? * -2.0)?.broadcast_add(&norms)?; // (ROWS, N)
        let nearest = (products.min(D::Minus1)? + rows.sqr()?.sum(D::Minus1)?)?;
        // An image among the others is at distance 0, up to rounding.
        distances.extend(nearest.relu()?.to_vec1::<f32>()?);
    }
    Ok(distances)
}

/// (N, H·W).
fn matrix(rows: &[f32]) -> Result<Tensor> {
    Ok(Tensor::from_slice(rows, (rows.len() / (SIDE * SIDE), SIDE * SIDE), &Device::Cpu)?)
}
