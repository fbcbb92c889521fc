//! Reconstruction costs.
//!
//! squared: `c(x, y) = Σ_{h,w,c} (x − y)²`
//!
//! Where: x and y are images with values in [0, 1]. A **sum** over pixels and channels, so that it lies between 0 and
//! H·W·C; in training, averaged over the batch. The authors' code multiplies it by 0.05: λ here is 20 times theirs.

use candle_core::Tensor;

use crate::error::Result;

/// The squared cost of one image, summed in f64.
///
/// # Source
/// `golden/reference.py`, `squared_cost`.
pub(crate) fn squared(x: &[f32], y: &[f32]) -> f32 {
    x.iter().zip(y).map(|(x, y)| f64::from(x - y) * f64::from(x - y)).sum::<f64>() as f32
}

/// The mean over a batch of the squared cost, as a graph: (N, H, W, C) twice, f64 → ().
pub(crate) fn mean_squared(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    Ok(((x - y)?.sqr()?.sum_all()? / x.dim(0)?.max(1) as f64)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_sum_over_pixels_and_a_mean_over_the_batch() {
        assert_eq!(squared(&[1.0, 0.0, 0.5], &[0.0, 0.0, 0.0]), 1.25);
        let x = Tensor::new(&[[1.0_f64, 0.0], [0.5, 0.5]], &Device::Cpu).unwrap();
        let y = x.zeros_like().unwrap();
        assert_eq!(mean_squared(&x, &y).unwrap().to_scalar::<f64>().unwrap(), 0.75);
    }
}
