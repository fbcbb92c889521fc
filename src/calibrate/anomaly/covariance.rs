//! The covariance of training residuals of features, and the term that it gives a place.
//!
//! ```text
//! t(p) = |L⁻¹ r(p)|²,   L Lᵀ = Σ + 0.05 · mean(diag Σ) · I
//! ```
//!
//! Where: r(p) is the residual of a place, whitened features less their reconstruction; Σ is the covariance of r over
//! training rows and places, centred. It takes out that the features rise and fall together, and that some are harder
//! to rebuild than others. One covariance for all places, beside a usual size for each, tells defects about as well as
//! a covariance a place, in a hundredth of the space.

use nalgebra::DMatrix;

use crate::error::{Error, Result};
use crate::objective::frechet::Moments;

/// The share of the mean variance that is added to each variance, so that the factor exists.
const SHRINKAGE: f64 = 0.05;
/// The least variance, where all residuals are equal.
const LEAST: f64 = 1e-12;

/// The shrunk covariance of residuals, and its inverse factor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Covariance {
    /// (C, C).
    values: Vec<f32>,
    /// L⁻¹, (C, C), a column after the other; above the diagonal it is 0.
    inverse_factor: Vec<f64>,
    channels: usize,
}

impl Covariance {
    /// The covariance of residuals, (places, C), from their moments: shrunk.
    ///
    /// # Errors
    /// [`Error::Data`] if a residual was not finite.
    pub(crate) fn of_moments(residuals: &Moments) -> Result<Self> {
        let channels = residuals.width();
        let places = (residuals.count() as f64).max(1.0);
        let mut values: Vec<f64> = residuals.scatter().iter().map(|sum| sum / places).collect();
        let mean = values.iter().step_by(channels + 1).sum::<f64>() / channels as f64;
        values.iter_mut().step_by(channels + 1).for_each(|v| *v += (SHRINKAGE * mean).max(LEAST));
        Self::try_new(values.into_iter().map(|v| v as f32).collect(), channels)
    }

    /// A covariance of `channels` channels, shrunk already.
    ///
    /// # Errors
    /// [`Error::Data`] if it is not symmetric, or not positive definite.
    pub(crate) fn try_new(values: Vec<f32>, channels: usize) -> Result<Self> {
        let matrix = DMatrix::from_iterator(channels, channels, values.iter().map(|v| f64::from(*v)));
        if matrix != matrix.transpose() {
            return Err(Error::Data("the covariance is not symmetric".to_owned()));
        }
        let not_positive = || Error::Data("the covariance is not positive definite".to_owned());
        let factor = matrix.cholesky().ok_or_else(not_positive)?.unpack();
        let mut inverse = DMatrix::identity(channels, channels);
        if !factor.solve_lower_triangular_mut(&mut inverse) || inverse.iter().any(|v| !v.is_finite()) {
            return Err(not_positive());
        }
        Ok(Self { values, inverse_factor: inverse.as_slice().to_vec(), channels })
    }

    /// (C, C).
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// t at each place of an image, from its features and their reconstruction: (H, W, C) twice → (H, W).
    pub(crate) fn terms(&self, x: &[f32], y: &[f32]) -> Vec<f32> {
        let c = self.channels;
        let mut whitened = vec![0.0; c];
        let places = x.chunks_exact(c).zip(y.chunks_exact(c));
        let term = |(x, y): (&[f32], &[f32])| {
            whitened.fill(0.0);
            for (i, (x, y)) in x.iter().zip(y).enumerate() {
                let residual = f64::from(*x) - f64::from(*y);
                let column = &self.inverse_factor[i * c + i..(i + 1) * c];
                whitened[i..].iter_mut().zip(column).for_each(|(sum, l)| *sum += residual * l);
            }
            whitened.iter().map(|v| v * v).sum::<f64>() as f32
        };
        places.map(term).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Residuals (1, 0), (−1, 0), (0, 2), (0, −2): variances ½ and 2, shrunk by 0.05 · 1.25.
    #[test]
    fn a_covariance_by_hand() {
        let residuals = Moments::try_new(&[1.0, 0.0, -1.0, 0.0, 0.0, 2.0, 0.0, -2.0], 2).unwrap();
        let covariance = Covariance::of_moments(&residuals).unwrap();
        assert_eq!(covariance.values(), [0.5625, 0.0, 0.0, 2.0625]);
        let terms = covariance.terms(&[3.0, 0.0, 3.0, 4.0], &[0.0, 0.0, 0.0, 1.0]);
        assert!((terms[0] - 16.0).abs() < 1e-5 && (terms[1] - (16.0 + 9.0 / 2.0625)).abs() < 1e-5, "{terms:?}");
    }

    /// (1 1; 1 2) has the factor (1 0; 1 1): L⁻¹ (a, b) = (a, b − a).
    #[test]
    fn channels_that_go_together() {
        let covariance = Covariance::try_new(vec![1.0, 1.0, 1.0, 2.0], 2).unwrap();
        assert_eq!(covariance.terms(&[2.0, 5.0], &[0.0, 0.0]), [4.0 + 9.0]);
    }

    #[test]
    fn what_is_no_covariance_is_refused() {
        let error = |values: [f32; 4]| Covariance::try_new(values.to_vec(), 2).unwrap_err().to_string();
        assert_eq!(error([1.0, 0.5, 0.4, 1.0]), "the covariance is not symmetric");
        assert_eq!(error([1.0, 2.0, 2.0, 1.0]), "the covariance is not positive definite");
        assert_eq!(error([0.0; 4]), "the covariance is not positive definite");
    }

    #[test]
    fn equal_residuals_have_a_covariance() {
        let residuals = Moments::try_new(&[1.0; 4], 2).unwrap();
        assert!(Covariance::of_moments(&residuals).unwrap().values()[0] > 0.0);
    }
}
