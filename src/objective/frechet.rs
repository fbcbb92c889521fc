//! The Fréchet distance between two samples of vectors, each taken as a Gaussian.
//!
//! ```text
//! d²(x, y) = ‖μ_x − μ_y‖² + tr(C_x + C_y − 2 (C_x C_y)^½)
//! ```
//!
//! Where: μ is a sample's mean and C its covariance, divided by n − 1. It is the squared 2-Wasserstein distance of two
//! Gaussians; over features of a neural network it is known as FID, with that network's name. C_x C_y has the
//! eigenvalues of the symmetric C_x^½ C_y C_x^½, so that the trace of its root is the sum of their roots.
//!
//! # Source
//! Dowson and Landau, "The Fréchet distance between multivariate normal distributions", J. Multivariate Anal. 12
//! (1982); Heusel et al., arXiv 1706.08500. Merging of moments: Chan, Golub and LeVeque, "Updating formulae and a
//! pairwise algorithm for computing sample variances" (1979), in its matrix form.

use nalgebra::linalg::SymmetricEigen;
use nalgebra::{DMatrix, DVector};

use crate::error::{Error, Result};

/// Widest vectors: two matrices of 4,096² values are 256 MB.
pub const MAX_WIDTH: usize = 4096;

/// Sweeps after which an eigenvalue that has not converged never will; each value takes two or three.
const MAX_ITERATIONS: usize = 100 * MAX_WIDTH;

/// The count, the mean and the scatter of vectors: `S = Σ_i (x_i − μ)(x_i − μ)ᵀ`, so that C = S/(n − 1).
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    count: u64,
    mean: DVector<f64>,
    scatter: DMatrix<f64>,
}

impl Moments {
    /// The moments of `rows`, (n, width), in two passes.
    ///
    /// # Errors
    /// [`Error::Data`] if the width is 0 or above [`MAX_WIDTH`], or does not divide the number of values.
    pub fn try_new(rows: &[f64], width: usize) -> Result<Self> {
        check_width(width)?;
        if !rows.len().is_multiple_of(width) {
            return Err(Error::Data(format!("{} values are not rows of {width}", rows.len())));
        }
        let count = rows.len() / width;
        let mut columns = DMatrix::from_column_slice(width, count, rows); // (Z, N)
        let mean = if count == 0 { DVector::zeros(width) } else { columns.column_mean() };
        columns.column_iter_mut().for_each(|mut column| column -= &mean);
        let scatter = &columns * columns.transpose();
        Ok(Self { count: count as u64, mean, scatter })
    }

    /// Moments that were taken apart by [`count`](Self::count), [`mean`](Self::mean) and [`scatter`](Self::scatter).
    ///
    /// # Errors
    /// [`Error::Data`] if the scatter is not a square as wide as the mean.
    pub fn try_from_parts(count: u64, mean: &[f64], scatter: &[f64]) -> Result<Self> {
        check_width(mean.len())?;
        if scatter.len() != mean.len() * mean.len() {
            return Err(Error::Data(format!("a scatter of {} values for a mean of {}", scatter.len(), mean.len())));
        }
        let scatter = DMatrix::from_column_slice(mean.len(), mean.len(), scatter);
        Ok(Self { count, mean: DVector::from_column_slice(mean), scatter })
    }

    /// Number of rows.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Values a row.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// μ, (width,).
    pub fn mean(&self) -> &[f64] {
        self.mean.as_slice()
    }

    /// S, (width, width).
    pub fn scatter(&self) -> &[f64] {
        self.scatter.as_slice()
    }

    /// The directions of largest variance, orthonormal, the largest first: (count, width), count at most the width.
    ///
    /// # Errors
    /// [`Error::Data`] if a moment is not finite.
    ///
    /// # Example
    /// ```
    /// use wae_core::objective::frechet::Moments;
    ///
    /// // Points on the line through (3, 4), which has length 5.
    /// let moments = Moments::try_new(&[0.0, 0.0, 3.0, 4.0, -3.0, -4.0], 2)?;
    /// let first = moments.principal_components(1)?;
    /// assert!((first[0].abs() - 0.6).abs() < 1e-12 && (first[1] / first[0] - 4.0 / 3.0).abs() < 1e-12);
    /// # Ok::<(), wae_core::Error>(())
    /// ```
    pub fn principal_components(&self, count: usize) -> Result<Vec<f64>> {
        Ok(principal_directions(self.scatter.clone(), count)?.vectors)
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        (self.mean.len() + self.scatter.len()) * size_of::<f64>()
    }

    /// Adds the rows of another sample.
    ///
    /// `μ = μ_a + δ·n_b/n,  S = S_a + S_b + δδᵀ·n_a·n_b/n`, where δ = μ_b − μ_a. Nothing large is subtracted, so that
    /// vectors far from 0 lose no digits.
    ///
    /// # Errors
    /// [`Error::Data`] if the widths differ.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        check_equal(self.width(), other.width())?;
        let count = self.count + other.count;
        if count == 0 {
            return Ok(());
        }
        let delta = &other.mean - &self.mean;
        let share = other.count as f64 / count as f64;
        self.scatter += &other.scatter;
        self.scatter.ger(self.count as f64 * share, &delta, &delta, 1.0);
        self.mean.axpy(share, &delta, 1.0);
        self.count = count;
        Ok(())
    }

    /// C, for two rows or more.
    fn covariance(&self) -> DMatrix<f64> {
        &self.scatter / (self.count as f64 - 1.0)
    }
}

/// d² of two samples, at least 0; `None` below two rows of either.
///
/// # Errors
/// [`Error::Data`] if the widths differ, or if a moment overflows f64.
///
/// # Example
/// ```
/// use wae_core::objective::frechet::{Moments, frechet_distance};
///
/// // Means 1 and 4, variances 2 and 8: (4 − 1)² + 2 + 8 − 2·√16.
/// let x = Moments::try_new(&[0.0, 2.0], 1)?;
/// let y = Moments::try_new(&[2.0, 6.0], 1)?;
/// assert_eq!(frechet_distance(&x, &y)?, Some(11.0));
/// # Ok::<(), wae_core::Error>(())
/// ```
pub fn frechet_distance(x: &Moments, y: &Moments) -> Result<Option<f64>> {
    check_equal(x.width(), y.width())?;
    if x.count < 2 || y.count < 2 {
        return Ok(None);
    }
    let of_x = x.covariance();
    let of_y = y.covariance();
    let root = root(&of_x)?;
    let product = &root * &of_y * &root;
    // Rounding makes it unsymmetric, and an eigenvalue of 0 slightly negative.
    let product = (&product + product.transpose()) * 0.5;
    let trace_of_root: f64 = eigen(product)?.eigenvalues.iter().map(|v| v.max(0.0).sqrt()).sum();
    let distance = (&x.mean - &y.mean).norm_squared() + of_x.trace() + of_y.trace() - 2.0 * trace_of_root;
    if !distance.is_finite() {
        return Err(not_finite());
    }
    Ok(Some(distance.max(0.0)))
}

/// The symmetric root of a covariance.
fn root(covariance: &DMatrix<f64>) -> Result<DMatrix<f64>> {
    let SymmetricEigen { eigenvectors, eigenvalues } = eigen(covariance.clone())?;
    let mut scaled = eigenvectors.clone();
    for (mut column, value) in scaled.column_iter_mut().zip(eigenvalues.iter()) {
        column *= value.max(0.0).sqrt();
    }
    Ok(scaled * eigenvectors.transpose())
}

/// Directions with the sum of squares along each, the largest first.
pub(crate) struct Directions {
    /// Unit vectors, (count, width).
    pub(crate) vectors: Vec<f64>,
    /// (count,).
    pub(crate) variances: Vec<f64>,
}

/// The first `count` eigenvectors of a scatter matrix.
///
/// # Errors
/// [`Error::Data`] if a value is not finite.
pub(crate) fn principal_directions(scatter: DMatrix<f64>, count: usize) -> Result<Directions> {
    let SymmetricEigen { eigenvectors, eigenvalues } = eigen(scatter)?;
    let mut order: Vec<usize> = (0..eigenvalues.len()).collect();
    order.sort_by(|a, b| eigenvalues[*b].total_cmp(&eigenvalues[*a]));
    order.truncate(count);
    let vectors = order.iter().flat_map(|i| eigenvectors.column(*i).iter().copied().collect::<Vec<_>>()).collect();
    Ok(Directions { vectors, variances: order.iter().map(|i| eigenvalues[*i]).collect() })
}

fn eigen(matrix: DMatrix<f64>) -> Result<SymmetricEigen<f64, nalgebra::Dyn>> {
    // The iteration never ends on NaN.
    if matrix.iter().any(|v| !v.is_finite()) {
        return Err(not_finite());
    }
    SymmetricEigen::try_new(matrix, f64::EPSILON, MAX_ITERATIONS)
        .ok_or_else(|| Error::Data("the eigenvalues of a covariance did not converge".to_owned()))
}

fn not_finite() -> Error {
    Error::Data("vectors so large that their covariance overflows".to_owned())
}

fn check_width(width: usize) -> Result<()> {
    if !(1..=MAX_WIDTH).contains(&width) {
        return Err(Error::Data(format!("vectors must have 1 to {MAX_WIDTH} values, got {width}")));
    }
    Ok(())
}

fn check_equal(x: usize, y: usize) -> Result<()> {
    if x != y {
        return Err(Error::Data(format!("vectors must have one width, got {x} and {y} values")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Prior;
    use crate::objective::sample;

    fn distance(x: &[f64], y: &[f64], width: usize) -> f64 {
        let moments = |rows: &[f64]| Moments::try_new(rows, width).unwrap();
        frechet_distance(&moments(x), &moments(y)).unwrap().unwrap()
    }

    /// Diagonal covariances commute, so that the trace is a sum of (σ_x − σ_y)². Four points at (±a, ±b) have variances
    /// 4a²/3 and 4b²/3.
    #[test]
    fn diagonal_gaussians_by_hand() {
        let points = |a: f64, b: f64, at: f64| [at + a, b, at + a, -b, at - a, b, at - a, -b];
        let x = points(1.0, 2.0, 0.0);
        let y = points(3.0, 5.0, 10.0);
        let expected = 100.0 + 4.0 / 3.0 * ((3.0_f64 - 1.0).powi(2) + (5.0_f64 - 2.0).powi(2));
        assert!((distance(&x, &y, 2) - expected).abs() < 1e-12);
        assert!(distance(&x, &x, 2) < 1e-12);
    }

    /// Covariances that do not commute. numpy 2.4.6:
    /// `d @ d + trace(cx) + trace(cy) - 2 * sqrt(eigvals(cx @ cy)).sum()`; scipy 1.17.1's `sqrtm(cx @ cy)` agrees to 14
    /// digits. Of a covariance of rank 1, `sqrtm` keeps seven digits, so that the second value is numpy's with √tr(C_x
    /// C_y), which the sum of roots then is.
    #[test]
    fn values_of_numpy_and_scipy() {
        let x = [0.0, 1.0, 2.0, 3.0, 1.0, 0.0, 1.0, 1.0, 4.0, 2.0, 5.0, 1.0, 0.0, 0.0, 1.0];
        let reversed: Vec<f64> = x.chunks_exact(3).flat_map(|row| row.iter().rev().copied()).collect();
        let line = [1.0, 2.0, 3.0, 2.0, 4.0, 6.0, 4.0, 8.0, 12.0, 3.0, 6.0, 9.0];
        assert!((distance(&x, &reversed, 3) - 1.2144120717545484).abs() < 1e-12);
        for (a, b) in [(&x[..], &line[..]), (&line[..], &x[..])] {
            assert!((distance(a, b, 3) - 64.77112823147738).abs() < 1e-6);
        }
    }

    #[test]
    fn below_two_rows_there_is_none() {
        let moments = |rows: &[f64]| Moments::try_new(rows, 2).unwrap();
        let two = moments(&[0.0, 1.0, 2.0, 3.0]);
        for few in [moments(&[]), moments(&[1.0, 2.0])] {
            assert_eq!(frechet_distance(&few, &two).unwrap(), None);
            assert_eq!(frechet_distance(&two, &few).unwrap(), None);
        }
    }

    #[test]
    fn errors_say_what_came() {
        let message = |result: Result<Moments>| result.unwrap_err().to_string();
        assert_eq!(message(Moments::try_new(&[], 0)), "vectors must have 1 to 4096 values, got 0");
        assert_eq!(message(Moments::try_new(&[], 4097)), "vectors must have 1 to 4096 values, got 4097");
        assert_eq!(message(Moments::try_new(&[0.0; 3], 2)), "3 values are not rows of 2");
        assert_eq!(message(Moments::try_from_parts(1, &[0.0], &[])), "a scatter of 0 values for a mean of 1");
        let one = Moments::try_new(&[0.0; 4], 1).unwrap();
        let two = Moments::try_new(&[0.0; 4], 2).unwrap();
        let error = "vectors must have one width, got 1 and 2 values";
        assert_eq!(frechet_distance(&one, &two).unwrap_err().to_string(), error);
        assert_eq!(one.clone().merge(&two).unwrap_err().to_string(), error);
        let large = Moments::try_new(&[1e200, -1e200], 1).unwrap();
        let error = frechet_distance(&large, &one).unwrap_err().to_string();
        assert_eq!(error, "vectors so large that their covariance overflows");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// However rows are cut, and far from 0, where Σx² − (Σx)²/n would have no digit left.
        #[test]
        fn parts_merge_to_the_whole(
            n in 2..30_usize, cut in 0..30_usize, width in 1..5_usize, seed in any::<u64>(), far in any::<bool>(),
        ) {
            let offset = if far { 1e9 } else { 0.0 };
            let z = sample(Prior::default(), n, width, seed);
            // Multiples of 2⁻¹⁰, which 1e9 holds exactly.
            let rows: Vec<f64> = z.iter().map(|z| offset + (f64::from(*z) * 1024.0).round() / 1024.0).collect();
            let (head, tail) = rows.split_at(cut.min(n) * width);
            let whole = Moments::try_new(&rows, width).unwrap();
            let mut merged = Moments::try_new(head, width).unwrap();
            merged.merge(&Moments::try_new(tail, width).unwrap()).unwrap();
            prop_assert_eq!(merged.count(), whole.count());
            for (a, b) in merged.scatter().iter().zip(whole.scatter()) {
                prop_assert!((a - b).abs() < 1e-5, "{} {}", a, b);
            }
            for (a, b) in merged.mean().iter().zip(whole.mean()) {
                prop_assert!((a - b).abs() <= 1e-15 * (1.0 + offset.abs() * 4.0), "{} {}", a, b);
            }
        }
    }
}
