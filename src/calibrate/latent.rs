//! The Mahalanobis distance of a code from the training codes.
//!
//! ```text
//! d(z) = √((z − μ)ᵀ P (z − μ)),  P = ((1 − s)·C + s·(tr C/d)·I)⁻¹,  s = d/(n + d)
//! ```
//!
//! Where: μ and C are mean and covariance of n training codes of width d. The share s pulls the covariance towards a
//! sphere, so that few codes, or codes that leave dimensions unused, have a precision too; it vanishes as n grows.
//! Above 512 values a code, P is diagonal.

use nalgebra::DMatrix;

use crate::error::{Error, Result};
use crate::objective::frechet::Moments;

/// The widest code with a full precision matrix: it takes d² values in the file, and d³ operations once.
const FULL: usize = 512;
/// The least variance, beside 1: codes that are all the same have a precision too.
const LEAST: f64 = 1e-12;

/// Mean and precision of training codes.
///
/// # Example
/// ```
/// use wae_core::calibrate::LatentStatistics;
///
/// let codes = [1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0];
/// let statistics = LatentStatistics::of_codes(&codes, 2)?;
/// let distances = statistics.distances(&[0.0, 0.0, 2.0, 0.0, 0.0, -2.0]);
/// assert_eq!(distances[0], 0.0);
/// assert_eq!(distances[1], distances[2]);
/// # Ok::<(), wae_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LatentStatistics {
    /// (d,).
    mean: Vec<f32>,
    /// (d, d), or its diagonal, (d,).
    precision: Vec<f32>,
}

impl LatentStatistics {
    /// The statistics of codes.
    ///
    /// # Shapes
    /// (n, d), n ≥ 1.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no code, or one is not finite.
    pub fn of_codes(codes: &[f32], dim: usize) -> Result<Self> {
        let rows = codes.len().checked_div(dim).unwrap_or(0);
        if rows == 0 || !codes.iter().all(|z| z.is_finite()) {
            return Err(Error::Data(format!("statistics of codes need finite codes, got {rows} rows")));
        }
        let n = rows as f64;
        let d = dim as f64;
        let shrinkage = d / (n + d);
        let precision = if dim <= FULL {
            let values: Vec<f64> = codes.iter().map(|z| f64::from(*z)).collect();
            let moments = Moments::try_new(&values, dim)?;
            let covariance = DMatrix::from_column_slice(dim, dim, moments.scatter()) / (n - 1.0).max(1.0);
            let sphere = shrinkage * covariance.trace() / d + LEAST;
            let shrunk = covariance * (1.0 - shrinkage) + DMatrix::from_diagonal_element(dim, dim, sphere);
            let inverse = shrunk.cholesky().map(|c| c.inverse());
            let inverse = inverse.ok_or_else(|| Error::Data("the covariance of codes has no inverse".to_owned()))?;
            inverse.iter().map(|p| *p as f32).collect()
        } else {
            let variances = variances(codes, dim);
            let mean = variances.iter().sum::<f64>() / d;
            variances.iter().map(|v| (1.0 / ((1.0 - shrinkage) * v + shrinkage * mean + LEAST)) as f32).collect()
        };
        let mean = means(codes, dim).into_iter().map(|m| m as f32).collect();
        Self::try_new(mean, precision)
    }

    /// The statistics in a file, checked.
    pub(crate) fn try_new(mean: Vec<f32>, precision: Vec<f32>) -> Result<Self> {
        let dim = mean.len();
        if precision.len() != Self::precision_len(dim) || !mean.iter().chain(&precision).all(|v| v.is_finite()) {
            return Err(Error::Model(format!(
                "the codes' precision has {} values, expected {} finite ones",
                precision.len(),
                Self::precision_len(dim)
            )));
        }
        Ok(Self { mean, precision })
    }

    /// The number of values of the precision of codes of `dim` values.
    pub(crate) fn precision_len(dim: usize) -> usize {
        if dim <= FULL { dim * dim } else { dim }
    }

    /// μ, (d,).
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// P, (d, d) in rows, or its diagonal for codes of more than 512 values.
    pub fn precision(&self) -> &[f32] {
        &self.precision
    }

    /// The Mahalanobis distance of each code, at least 0.
    ///
    /// # Shapes
    /// (n, d) → (n,).
    pub fn distances(&self, codes: &[f32]) -> Vec<f32> {
        let dim = self.mean.len();
        let diagonal = self.precision.len() == dim && dim > 1;
        let distance = |code: &[f32]| {
            let centred: Vec<f64> = code.iter().zip(&self.mean).map(|(z, m)| f64::from(*z) - f64::from(*m)).collect();
            let squared: f64 = if diagonal {
                centred.iter().zip(&self.precision).map(|(c, p)| c * c * f64::from(*p)).sum()
            } else {
                let row = |p: &[f32]| p.iter().zip(&centred).map(|(p, c)| f64::from(*p) * c).sum::<f64>();
                self.precision.chunks_exact(dim).zip(&centred).map(|(p, c)| c * row(p)).sum()
            };
            // In 32 bits, a precision may be indefinite by its rounding; what is not a number stays so.
            if squared < 0.0 { 0.0 } else { squared.sqrt() as f32 }
        };
        codes.chunks_exact(dim).map(distance).collect()
    }
}

fn means(codes: &[f32], dim: usize) -> Vec<f64> {
    let n = (codes.len() / dim) as f64;
    let mut means = vec![0.0; dim];
    for code in codes.chunks_exact(dim) {
        means.iter_mut().zip(code).for_each(|(m, z)| *m += f64::from(*z) / n);
    }
    means
}

fn variances(codes: &[f32], dim: usize) -> Vec<f64> {
    let means = means(codes, dim);
    let n = (codes.len() / dim) as f64;
    let mut variances = vec![0.0; dim];
    for code in codes.chunks_exact(dim) {
        let centred = code.iter().zip(&means).map(|(z, m)| f64::from(*z) - m);
        variances.iter_mut().zip(centred).for_each(|(v, c)| *v += c * c / (n - 1.0).max(1.0));
    }
    variances
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Prior;
    use crate::objective::sample;

    /// Two codes of one value, ±1: C = 2, one dimension, so that shrinking changes nothing and P = ½.
    #[test]
    fn one_dimension_by_hand() {
        let statistics = LatentStatistics::of_codes(&[1.0, -1.0], 1).unwrap();
        assert_eq!((statistics.mean(), statistics.precision()), (&[0.0][..], &[0.5][..]));
        assert_eq!(statistics.distances(&[0.0, 2.0, -4.0]), [0.0, 2_f32.sqrt(), 8_f32.sqrt()]);
    }

    /// Four codes on two diagonals, one twice as long: C = [[5/6, 1/2], [1/2, 5/6]], s = 2/6, so that the shrunk
    /// covariance is [[5/6, 1/3], [1/3, 5/6]], whose inverse is [[5/6, −1/3], [−1/3, 5/6]]·36/21.
    #[test]
    fn correlated_codes_by_hand() {
        let codes = [1.0, 1.0, -1.0, -1.0, 0.5, -0.5, -0.5, 0.5];
        let statistics = LatentStatistics::of_codes(&codes, 2).unwrap();
        let own = 5.0 / 6.0 * 36.0 / 21.0;
        let cross = -36.0 / 63.0;
        for (got, expected) in statistics.precision().iter().zip([own, cross, cross, own]) {
            assert!((got - expected).abs() < 1e-5, "{got}, expected {expected}");
        }
        let distances = statistics.distances(&[1.0, 1.0, 1.0, -1.0, f32::NAN, 0.0]);
        assert!((distances[0] - (2.0 * (own + cross)).sqrt()).abs() < 1e-5, "{distances:?}");
        assert!((distances[1] - (2.0 * (own - cross)).sqrt()).abs() < 1e-5, "{distances:?}");
        assert!(distances[2].is_nan());
    }

    /// Of a normal sample, the squared distance is χ² with d degrees of freedom: mean d.
    #[test]
    fn squared_distances_of_a_normal_sample_average_its_width() {
        let prior = Prior { scale: 3.0, ..Prior::default() };
        for dim in [4, 600] {
            let statistics = LatentStatistics::of_codes(&sample(prior, 4000, dim, 1), dim).unwrap();
            let distances = statistics.distances(&sample(prior, 1000, dim, 2));
            let mean = distances.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>() / 1000.0;
            assert!((mean / dim as f64 - 1.0).abs() < 0.1, "{mean} for {dim}");
        }
    }

    /// A dimension that no code uses, a single code, equal codes: every distance is a number.
    #[test]
    fn degenerate_codes_have_distances() {
        for codes in [&[1.0, 0.0, -1.0, 0.0][..], &[1.0, 2.0], &[1.0, 2.0, 1.0, 2.0]] {
            let statistics = LatentStatistics::of_codes(codes, 2).unwrap();
            assert!(statistics.distances(&[5.0, 5.0, 1.0, 2.0]).iter().all(|d| d.is_finite()));
        }
        assert!(LatentStatistics::of_codes(&[], 2).is_err());
        assert!(LatentStatistics::of_codes(&[f32::NAN, 1.0], 2).is_err());
    }
}
