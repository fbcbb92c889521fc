//! The loss of pre-training: the mean and covariance of codes beside those of the prior.
//!
//! `mean_d (mean(p) − mean(q))_d² + mean_{d,e} (cov(p) − cov(q))_{d,e}²`
//!
//! Where: means are over the d_z values of a code and the d_z² entries of a covariance, which divides by n − 1.
//!
//! # Source
//! The authors' `wae.py`, `pretrain_loss`.

use candle_core::Tensor;

use super::widest;
use crate::error::Result;

/// The distance of the moments of codes and draws.
///
/// # Shapes
/// (n, d) and (m, d) → ().
pub(crate) fn distance(q: &Tensor, p: &Tensor) -> Result<Tensor> {
    let (mean_of_codes, covariance_of_codes) = moments(&widest(q)?)?;
    let (mean_of_draws, covariance_of_draws) = moments(&widest(p)?)?;
    let means = (mean_of_codes - mean_of_draws)?.sqr()?.mean_all()?;
    let covariances = (covariance_of_codes - covariance_of_draws)?.sqr()?.mean_all()?;
    Ok((means + covariances)?)
}

/// The mean, (1, d), and the covariance, (d, d), of n rows.
fn moments(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let mean = x.mean_keepdim(0)?;
    let centred = x.broadcast_sub(&mean)?; // (n, d)
    let covariance = (centred.t()?.matmul(&centred)? / (x.dim(0)? as f64 - 1.0))?;
    Ok((mean, covariance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{check_gradient, normal, number, tensor, value_and_gradient};

    /// Means 1 and 4, variances 2 and 8: 3² + 6².
    #[test]
    fn by_hand() {
        assert_eq!(number(&distance(&tensor(&[0.0, 2.0], 1), &tensor(&[2.0, 6.0], 1)).unwrap()), 45.0);
        // A second value that agrees: half of the squared mean, a quarter of the squared covariance.
        let q = tensor(&[0.0, 0.0, 2.0, 0.0], 2);
        let p = tensor(&[2.0, 0.0, 6.0, 0.0], 2);
        assert_eq!(number(&distance(&q, &p).unwrap()), 9.0 / 2.0 + 36.0 / 4.0);
        let q = normal(20, 3, 1);
        let (value, gradient) = value_and_gradient(|x| distance(x, &q), &q);
        assert!(value == 0.0 && gradient.iter().all(|g| *g == 0.0));
    }

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let p = normal(9, 3, 2);
        check_gradient(|q| distance(q, &p), &normal(6, 3, 1));
    }
}
