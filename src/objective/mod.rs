//! The objective of a Wasserstein auto-encoder, cost + λ·D_Z: one page of mathematics each.
//!
//! `L = (1/n) Σ_i c(x_i, G(E(x_i))) + λ · D_Z(Q_Z, P_Z)` (paper, equation 4)
//!
//! Where: c is a cost, D_Z a divergence between the distribution Q_Z of the codes and the prior P_Z. The variational
//! auto-encoder, the baseline, has KL(Q(Z|x), P_Z) of each image in the place of D_Z.
//!
//! A divergence is a graph of candle's tensor operations over the codes: its gradient is `backward()` of its value, and
//! it is computed where the codes lie.
//!
//! # A new objective
//! 1. A file here: the formula in its module page, then a function from codes (n, Z), draws (n, Z) and what it needs
//!    beside them to a scalar, in candle's operations on `widest` tensors. Tests beside it have numbers by hand, and
//!    `check_gradient`, which compares `backward()` with differences.
//! 2. A variant of [`crate::config::Objective`] with its options and its `auto_lambda` (`config/objective.rs`).
//! 3. A variant of `ObjectiveChoice` with its name (`config/options/choices.rs`), a line in `objective_without_lambda`
//!    (`config/options/fit.rs`), and a row for each new option (`config/options/table.rs`).
//! 4. A line in `Step::divergence` (`train/step.rs`), which calls the function.
//!
//! Traps of candle's gradients: ReLU and |x| have slope 1 at 0, and √x has an infinite one; min and max share theirs
//! between equals; sorting has none, and `gather` of its indices has. `detach()` holds a tensor constant.

pub(crate) mod adversary;
pub(crate) mod cost;
pub mod frechet;
pub(crate) mod kl;
pub(crate) mod mmd;
pub(crate) mod moments;
pub(crate) mod prior;
pub(crate) mod sinkhorn;
pub(crate) mod sliced;
pub(crate) mod ssim;
pub mod two_sample;

pub use prior::sample;

use std::ops::Range;

use candle_core::{DType, Tensor, Var};
use rayon::prelude::*;

use crate::error::Result;

/// A tensor in the widest float type that its device computes in: f64, or f32 on Metal, which has no f64.
///
/// Every divergence is computed in it, since sums over all pairs of a batch must keep MMD² to 1e-6.
pub(crate) fn widest(x: &Tensor) -> Result<Tensor> {
    let float = if x.device().is_metal() { DType::F32 } else { DType::F64 };
    Ok(x.to_dtype(float)?)
}

/// Squared distances of all pairs of rows, as one matrix product.
///
/// `‖a − b‖² = ⟨(−2a, ‖a‖², 1), (b, 1, ‖b‖²)⟩`
///
/// Rounding may leave −1e-16 in the place of 0, hence the absolute value. A ReLU would turn NaN into 0 and hide it.
///
/// # Shapes
/// (n, d) and (m, d) → (n, m).
pub(crate) fn squared_distances(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let a2 = a.sqr()?.sum_keepdim(1)?; // (n, 1)
    let b2 = b.sqr()?.sum_keepdim(1)?; // (m, 1)
    let left = Tensor::cat(&[&(a * -2.0)?, &a2, &a2.ones_like()?], 1)?; // (n, d + 2)
    let right = Tensor::cat(&[b, &b2.ones_like()?, &b2], 1)?; // (m, d + 2)
    Ok(left.matmul(&right.t()?)?.abs()?)
}

/// A sum over blocks of rows of x, differentiable by x, whose memory is that of a block's graph.
///
/// `f` is given x and the rows of a block. Each block's gradient is taken at once, which frees its graph; on the CPU,
/// blocks are computed side by side. The sum has a graph of its own with these gradients. The order of summation
/// depends on `rows` alone.
///
/// # Shapes
/// (n, d) → ().
pub(crate) fn sum_over_blocks(
    x: &Tensor,
    rows: usize,
    f: impl Fn(&Tensor, Range<usize>) -> Result<Tensor> + Sync,
) -> Result<Tensor> {
    let n = x.dim(0)?;
    let block = |first: usize| -> Result<(Tensor, Tensor)> {
        let range = first..n.min(first + rows);
        if !x.track_op() {
            return Ok((f(x, range)?, x.zeros_like()?));
        }
        let variable = Var::from_tensor(&x.detach())?;
        let value = f(&variable, range)?;
        let gradient = value.backward()?.remove(&variable);
        Ok((value.detach(), gradient.map_or_else(|| x.zeros_like(), Ok)?))
    };
    let starts = (0..n).step_by(rows.max(1));
    let blocks: Vec<(Tensor, Tensor)> = if x.device().is_cpu() {
        starts.collect::<Vec<_>>().into_par_iter().map(block).collect::<Result<_>>()?
    } else {
        starts.map(block).collect::<Result<_>>()?
    };
    let mut value = Tensor::zeros((), x.dtype(), x.device())?;
    let mut gradient = x.detach().zeros_like()?;
    for (of_block, by_x) in blocks {
        value = (value + of_block)?;
        gradient = (gradient + by_x)?;
    }
    // ⟨x, g⟩ less its own value is 0, and its gradient is g.
    let linear = (x * gradient)?.sum_all()?;
    Ok(((&linear - linear.detach())? + value)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use candle_core::Device;

    use super::*;
    use crate::config::Prior;

    /// Seeded normal values on the CPU.
    pub(crate) fn normal(rows: usize, dim: usize, seed: u64) -> Tensor {
        tensor(&sample(Prior::default(), rows, dim, seed), dim)
    }

    /// Rows of `dim` values on the CPU.
    pub(crate) fn tensor(values: &[f32], dim: usize) -> Tensor {
        Tensor::from_slice(values, (values.len() / dim, dim), &Device::Cpu).unwrap()
    }

    /// A scalar's value.
    pub(crate) fn number(scalar: &Tensor) -> f64 {
        scalar.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    /// All values of a tensor.
    pub(crate) fn numbers(x: &Tensor) -> Vec<f64> {
        x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// The value of a scalar function and its gradient.
    pub(crate) fn value_and_gradient(f: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor) -> (f64, Vec<f64>) {
        let variable = Var::from_tensor(x).unwrap();
        let value = f(&variable).unwrap();
        let gradients = value.backward().unwrap();
        (number(&value), numbers(gradients.get(&variable).unwrap()))
    }

    /// Compares a function's gradient with central differences, in f64.
    pub(crate) fn check_gradient(f: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor) {
        check_gradient_within(1e-5, 1e-7, f, x);
    }

    /// As [`check_gradient`], with a step and a tolerance that suit the function.
    pub(crate) fn check_gradient_within(step: f64, tolerance: f64, f: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor) {
        let x = x.to_dtype(DType::F64).unwrap();
        let (_, gradient) = value_and_gradient(&f, &x);
        let values = numbers(&x);
        for (i, expected) in gradient.iter().enumerate() {
            let shifted = |by: f64| {
                let mut values = values.clone();
                values[i] += by;
                number(&f(&Tensor::from_vec(values, x.shape(), &Device::Cpu).unwrap()).unwrap())
            };
            let numeric = (shifted(step) - shifted(-step)) / (2.0 * step);
            assert!((numeric - expected).abs() < tolerance * (1.0 + expected.abs()), "{i}: {numeric}, {expected}");
        }
    }

    /// A triangle of 3, 4 and 5.
    #[test]
    fn squared_distances_by_hand() {
        let points = tensor(&[0.0, 0.0, 3.0, 0.0, 3.0, 4.0], 2);
        assert_eq!(
            numbers(&squared_distances(&points, &points).unwrap()),
            [0.0, 9.0, 25.0, 9.0, 0.0, 16.0, 25.0, 16.0, 0.0]
        );
        let nan = squared_distances(&tensor(&[f32::NAN], 1), &tensor(&[1.0], 1)).unwrap();
        assert!(numbers(&nan)[0].is_nan(), "NaN stays, so that the loss says so");
    }

    /// Σ_i Σ_j x_i x_j, whose gradient by each x is 2 Σ x, in blocks of any size.
    #[test]
    fn a_sum_over_blocks_is_the_whole() {
        let x = tensor(&[1.0, 2.0, 3.0, -1.0, 0.5], 1);
        let products =
            |x: &Tensor, rows: Range<usize>| Ok(x.narrow(0, rows.start, rows.len())?.matmul(&x.t()?)?.sum_all()?);
        for rows in [1, 2, 5, 9] {
            let (value, gradient) = value_and_gradient(|x| sum_over_blocks(x, rows, products), &x);
            assert_eq!((value, gradient), (5.5 * 5.5, vec![11.0; 5]), "{rows} rows a block");
            assert_eq!(number(&sum_over_blocks(&x, rows, products).unwrap()), 5.5 * 5.5, "without a graph");
        }
    }

    #[test]
    fn the_gradient_of_squared_distances_agrees_with_finite_differences() {
        let weights = widest(&normal(5, 4, 1)).unwrap();
        let others = widest(&normal(4, 3, 2)).unwrap();
        check_gradient(|x| Ok((squared_distances(x, &others)? * &weights)?.sum_all()?), &normal(5, 3, 3));
    }
}
