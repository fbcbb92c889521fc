//! The directions of largest variance of a scatter matrix.
//!
//! Up to [`FULL`] channels, and where most directions are asked for, all eigenvectors are found. Otherwise a subspace is
//! iterated:
//!
//! ```text
//! Q ← orth(S Q);   Qᵀ S Q = U Λ Uᵀ;   Q ← Q U
//! ```
//!
//! Where: S is the scatter, (C, C), and Q a basis of more directions than are wanted, (C, m). The last two steps, of
//! Rayleigh and Ritz, make the directions uncorrelated at any time: those that are kept have exactly the variances that
//! are given for them, also where two directions vary so alike that iterating does not tell them apart.

use candle_core::{Device, Tensor};
use nalgebra::{DMatrix, DMatrixView};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::error::{Error, Result};
use crate::objective::frechet::{self, Directions};

/// The most channels whose eigenvectors are all found: 1.3 s on one core.
const FULL: usize = 768;
/// Directions beyond those wanted, beside as many as are wanted.
const SPARE: usize = 16;
/// The most iterations.
const ITERATIONS: usize = 100;
/// The relative change of all variances at which the iteration ends.
const SETTLED: f64 = 1e-10;

/// The first `count` principal directions of a scatter matrix, (C, C).
///
/// # Errors
/// [`Error::Data`] if a sum of squares overflowed.
pub(super) fn principal_directions(scatter: &[f64], channels: usize, count: usize) -> Result<Directions> {
    if !scatter.iter().all(|v| v.is_finite()) {
        return Err(Error::Data("the covariance of the features overflows, expected smaller numbers".to_owned()));
    }
    let block = 2 * count + SPARE;
    let mut directions = if channels <= FULL || 2 * block > channels {
        frechet::principal_directions(DMatrixView::from_slice(scatter, channels, channels).clone_owned(), count)?
    } else {
        subspace(scatter, channels, count, block)?
    };
    directions.vectors.chunks_exact_mut(channels).for_each(|vector| {
        let largest = vector.iter().copied().fold(0.0_f64, |a, b| if b.abs() > a.abs() { b } else { a });
        vector.iter_mut().for_each(|v| *v *= largest.signum());
    });
    Ok(directions)
}

/// The first directions of a large matrix, by iterating a subspace of `block` directions.
fn subspace(scatter: &[f64], channels: usize, count: usize, block: usize) -> Result<Directions> {
    let scatter = Tensor::from_slice(scatter, (channels, channels), &Device::Cpu)?;
    let mut generator = ChaCha8Rng::seed_from_u64(0);
    let start: Vec<f64> = (0..channels * block).map(|_| StandardNormal.sample(&mut generator)).collect();
    let mut basis = orthonormal(start, channels, block); // (m, C): a direction a row
    let mut variances = vec![0.0; count];
    for _ in 0..ITERATIONS {
        let rows = Tensor::from_slice(&basis, (block, channels), &Device::Cpu)?;
        let image = rows.matmul(&scatter)?; // (m, C), as S is symmetric
        let small: Vec<f64> = image.matmul(&rows.t()?)?.flatten_all()?.to_vec1()?; // Qᵀ S Q
        let small = DMatrix::from_vec(block, block, small);
        let ritz = frechet::principal_directions((&small + small.transpose()) * 0.5, block)?;
        let turn = Tensor::from_slice(&ritz.vectors, (block, block), &Device::Cpu)?;
        let settled = ritz
            .variances
            .iter()
            .zip(&variances)
            .all(|(now, before)| (now - before).abs() <= SETTLED * ritz.variances[0].abs());
        variances = ritz.variances;
        variances.truncate(count);
        if settled {
            basis = turn.matmul(&rows)?.flatten_all()?.to_vec1()?;
            break;
        }
        basis = orthonormal(turn.matmul(&image)?.flatten_all()?.to_vec1()?, channels, block);
    }
    basis.truncate(count * channels);
    Ok(Directions { vectors: basis, variances })
}

/// An orthonormal basis of the space of so many rows, (m, C).
fn orthonormal(rows: Vec<f64>, channels: usize, block: usize) -> Vec<f64> {
    DMatrix::from_vec(channels, block, rows).qr().q().as_slice().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A symmetric matrix of given eigenvalues, in a seeded random basis.
    fn matrix(values: &[f64]) -> Vec<f64> {
        let side = values.len();
        let mut generator = ChaCha8Rng::seed_from_u64(1);
        let random: Vec<f64> = (0..side * side).map(|_| StandardNormal.sample(&mut generator)).collect();
        let basis = DMatrix::from_vec(side, side, orthonormal(random, side, side));
        let scaled = &basis * DMatrix::from_diagonal(&nalgebra::DVector::from_column_slice(values));
        (scaled * basis.transpose()).as_slice().to_vec()
    }

    #[test]
    fn the_subspace_is_that_of_all_eigenvectors() {
        let side = 200;
        let values: Vec<f64> = (0..side).map(|i| 100.0 * 0.9_f64.powi(i)).collect();
        let matrix = matrix(&values);
        let full = principal_directions(&matrix, side as usize, 10).unwrap();
        let mut part = subspace(&matrix, side as usize, 10, 36).unwrap();
        assert!(part.variances.iter().zip(&values).all(|(a, b)| (a / b - 1.0).abs() < 1e-9), "{:?}", part.variances);
        for (full, part) in full.vectors.chunks(side as usize).zip(part.vectors.chunks_mut(side as usize)) {
            let cosine: f64 = full.iter().zip(part.iter()).map(|(a, b)| a * b).sum();
            assert!((cosine.abs() - 1.0).abs() < 1e-6, "{cosine}");
        }
    }

    /// Values that hardly fall, as those of noise: directions are found that are uncorrelated and have their variances,
    /// near the largest ones.
    #[test]
    fn a_flat_spectrum_gives_uncorrelated_directions() {
        let side = 120;
        let values: Vec<f64> = (0..side).map(|i| 2.0 - f64::from(i) / 120.0).collect();
        let matrix = matrix(&values);
        let found = subspace(&matrix, side as usize, 8, 32).unwrap();
        let matrix = DMatrix::from_vec(side as usize, side as usize, matrix);
        let vectors = DMatrix::from_vec(side as usize, 8, found.vectors);
        let small = vectors.transpose() * matrix * &vectors;
        for i in 0..8 {
            assert!((small[(i, i)] - found.variances[i]).abs() < 1e-9 && small[(i, i)] > 1.9, "{small}");
            assert!((0..8).all(|j| i == j || small[(i, j)].abs() < 1e-9), "{small}");
        }
    }

    #[test]
    fn the_largest_entry_of_a_direction_is_positive() {
        let directions = principal_directions(&[2.0, -1.0, -1.0, 2.0], 2, 2).unwrap();
        assert!((directions.variances[0] - 3.0).abs() < 1e-12 && (directions.variances[1] - 1.0).abs() < 1e-12);
        let half = 0.5_f64.sqrt();
        assert!(directions.vectors[..2].iter().all(|v| (v.abs() - half).abs() < 1e-12));
        assert!(directions.vectors[2..].iter().all(|v| (v - half).abs() < 1e-12), "{:?}", directions.vectors);
        assert!(principal_directions(&[f64::INFINITY], 1, 1).is_err());
    }
}
