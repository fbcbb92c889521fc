//! Baselines that a model must beat: principal components at the same width, and the distance to the mean image.

use candle_core::{D, Device, Result, Tensor};

/// Principal components of images, fitted by subspace iteration.
///
/// With k components the reconstruction is the best among all linear auto-encoders of width k, in the squared cost.
pub struct Pca {
    mean: Tensor,
    /// Orthonormal columns, (values, k).
    components: Tensor,
}

impl Pca {
    /// Fits `width` components to rows of `len` values.
    pub fn fit(images: &[f32], len: usize, width: usize) -> Result<Self> {
        let x = Tensor::from_slice(images, (images.len() / len, len), &Device::Cpu)?;
        let mean = x.mean_keepdim(0)?;
        let x = x.broadcast_sub(&mean)?;
        let covariance = x.t()?.contiguous()?.matmul(&x)?;
        // Any start with a part along each component will do: columns of a Vandermonde-like pattern.
        let start: Vec<f32> = (0..len * width).map(|i| ((i * 7919 % 1009) as f32 / 1009.0) - 0.5).collect();
        let mut components = orthonormal(&Tensor::from_vec(start, (len, width), &Device::Cpu)?)?;
        for _ in 0..60 {
            components = orthonormal(&covariance.matmul(&components)?)?;
        }
        Ok(Self { mean, components })
    }

    /// Squared reconstruction costs, summed over an image's values.
    pub fn costs(&self, images: &[f32]) -> Result<Vec<f32>> {
        let len = self.mean.elem_count();
        let x = Tensor::from_slice(images, (images.len() / len, len), &Device::Cpu)?.broadcast_sub(&self.mean)?;
        let projected = x.matmul(&self.components)?.matmul(&self.components.t()?.contiguous()?)?;
        (x - projected)?.sqr()?.sum(D::Minus1)?.to_vec1()
    }

    /// Squared distances to the mean image.
    pub fn mean_distances(&self, images: &[f32]) -> Result<Vec<f32>> {
        let len = self.mean.elem_count();
        let x = Tensor::from_slice(images, (images.len() / len, len), &Device::Cpu)?;
        x.broadcast_sub(&self.mean)?.sqr()?.sum(D::Minus1)?.to_vec1()
    }
}

/// Gram–Schmidt on the columns, twice, since once loses orthogonality when they are nearly parallel.
fn orthonormal(columns: &Tensor) -> Result<Tensor> {
    let mut columns: Vec<Tensor> = (0..columns.dim(1)?).map(|i| columns.narrow(1, i, 1)).collect::<Result<_>>()?;
    for _ in 0..2 {
        for i in 0..columns.len() {
            for j in 0..i {
                let overlap = (&columns[i] * &columns[j])?.sum_all()?;
                columns[i] = (&columns[i] - columns[j].broadcast_mul(&overlap)?)?;
            }
            let norm = columns[i].sqr()?.sum_all()?.sqrt()?;
            columns[i] = columns[i].broadcast_div(&norm)?;
        }
    }
    Tensor::cat(&columns, 1)
}

/// The area under the ROC curve: the chance that a positive scores above a negative, ties counting half.
pub fn auroc(negatives: &[f32], positives: &[f32]) -> f64 {
    let mut sorted = negatives.to_vec();
    sorted.sort_by(f32::total_cmp);
    let below = |score: f32| {
        let less = sorted.partition_point(|n| *n < score);
        let at_most = sorted.partition_point(|n| *n <= score);
        (less + at_most) as f64 / 2.0
    };
    positives.iter().map(|s| below(*s)).sum::<f64>() / (negatives.len() * positives.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auroc_by_hand() {
        assert_eq!(auroc(&[1.0, 2.0], &[2.0, 3.0]), 0.875);
    }

    /// Points on a line in the plane: one component reconstructs them exactly.
    #[test]
    fn pca_of_a_line() {
        let pca = Pca::fit(&[0.0, 0.0, 1.0, 2.0, 2.0, 4.0], 2, 1).unwrap();
        assert!(pca.costs(&[3.0, 6.0]).unwrap()[0] < 1e-6);
        // (2, −1) from the mean is at right angles to the line: all of its squared length, 5, is lost.
        assert!((pca.costs(&[3.0, 1.0]).unwrap()[0] - 5.0).abs() < 1e-5);
        assert_eq!(pca.mean_distances(&[3.0, 1.0]).unwrap(), [5.0]);
    }
}
