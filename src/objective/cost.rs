//! Reconstruction costs.
//!
//! squared: `c(x, y) = Σ_{h,w,c} (x − y)²`
//!
//! Where: x and y are images with values in [0, 1]. A **sum** over pixels and channels, so that it lies between 0 and
//! H·W·C; in training, averaged over the batch. The authors' code multiplies it by 0.05: λ here is 20 times theirs.

use rayon::prelude::*;

/// Values a task.
const CHUNK: usize = 1 << 13;

/// The squared cost of one image, summed in f64.
///
/// # Source
/// `golden/reference.py`, `squared_cost`.
pub(crate) fn squared(x: &[f32], y: &[f32]) -> f32 {
    x.iter().zip(y).map(|(x, y)| f64::from(x - y) * f64::from(x - y)).sum::<f64>() as f32
}

/// The mean squared cost of a batch of n images, summed in f64, and its gradient by the reconstructions: 2(y − x)/n.
///
/// # Shapes
/// (n, H, W, C) twice → () and (n, H, W, C).
pub(crate) fn mean_squared(x: &[f32], y: &[f32], n: usize) -> (f64, Vec<f32>) {
    let scale = 2.0 / n as f32;
    let mut gradient = vec![0.0; y.len()];
    let chunks = x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)).zip(gradient.par_chunks_mut(CHUNK));
    let sums: Vec<f64> = chunks
        .map(|((x, y), gradient)| {
            gradient.iter_mut().zip(x.iter().zip(y)).for_each(|(g, (x, y))| *g = scale * (y - x));
            x.iter().zip(y).map(|(x, y)| f64::from(x - y) * f64::from(x - y)).sum()
        })
        .collect();
    (sums.iter().sum::<f64>() / n as f64, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_over_pixels_and_a_mean_over_the_batch() {
        assert_eq!(squared(&[1.0, 0.0, 0.5], &[0.0, 0.0, 0.0]), 1.25);
        let (cost, gradient) = mean_squared(&[1.0, 0.0, 0.5, 0.5], &[0.0; 4], 2);
        assert_eq!((cost, gradient), (0.75, vec![-1.0, 0.0, -0.5, -0.5]));
    }
}
