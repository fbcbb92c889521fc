//! Maximum mean discrepancy between codes q_1..q_n and draws p_1..p_m from the prior.
//!
//! ```text
//! MMD²(q, p) = Σ_{i≠j} k(q_i, q_j)/(n(n − 1)) + Σ_{i≠j} k(p_i, p_j)/(m(m − 1)) − 2 Σ_{i,j} k(q_i, p_j)/(nm)
//!
//! imq:  k(a, b) = Σ_s sC/(sC + ‖a − b‖²)
//! rbf:  k(a, b) = exp(−‖a − b‖²/C)
//! ```
//!
//! Where: C is the prior's bandwidth: 2·d_z·σ_z² for normal, the expected squared distance of two draws. The estimator
//! is unbiased, so it is negative for half of all draws when Q_Z = P_Z. IMQ is **summed** over its scales s, as in the
//! authors' code: with seven it is at most 7.
//!
//! [`divergence`] is the graph that training differentiates; [`value`] gives the same number in little memory.
//!
//! # Source
//! Paper, algorithm 2; the authors' `wae.py`, `mmd_penalty`; `golden/reference.py`, `imq`, `rbf` and `mmd`.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{squared_distances, sum_over_blocks, widest};
use crate::config::{Config, IMQ_SCALES, KernelKind, Objective, Prior};
use crate::error::Result;
use crate::kernels::is_composed;
use crate::ops::map;

/// A kernel with its bandwidths in latent units².
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kernel {
    /// Σ_c c/(c + d²) over these c = s·C.
    Imq(Vec<f64>),
    /// exp(−d²/C).
    Rbf(f64),
}

impl Kernel {
    pub(crate) fn new(kind: KernelKind, scales: &[f64], latent_dim: usize, prior: Prior) -> Self {
        let c = prior.bandwidth(latent_dim);
        match kind {
            KernelKind::Imq => Self::Imq(scales.iter().map(|s| s * c).collect()),
            KernelKind::Rbf => Self::Rbf(c),
        }
    }

    /// The kernel of a model's objective; for one without a kernel, IMQ with the authors' seven scales.
    pub(crate) fn of(config: &Config) -> Self {
        let (kind, scales) = match config.objective() {
            Objective::Mmd { kernel, scales, .. } => (*kernel, scales.as_slice()),
            _ => (KernelKind::Imq, IMQ_SCALES.as_slice()),
        };
        Self::new(kind, scales, config.latent_dim(), config.prior())
    }

    /// k(a, a).
    fn at_zero(&self) -> f64 {
        match self {
            Self::Imq(bandwidths) => bandwidths.len() as f64,
            Self::Rbf(_) => 1.0,
        }
    }

    /// The kernel of a squared distance.
    pub(crate) fn of_distance(&self, d2: f64) -> f64 {
        match self {
            Self::Imq(bandwidths) => bandwidths.iter().map(|c| c / (c + d2)).sum(),
            Self::Rbf(c) => (-d2 / c).exp(),
        }
    }

    /// The derivative of [`Self::of_distance`].
    fn slope(&self, d2: f64) -> f64 {
        match self {
            Self::Imq(bandwidths) => -bandwidths.iter().map(|c| c / (c + d2).powi(2)).sum::<f64>(),
            Self::Rbf(c) => -(-d2 / c).exp() / c,
        }
    }

    /// The kernel of each squared distance: on the CPU in one pass each way, where seven scales as candle's operations
    /// take three times as long.
    ///
    /// # Shapes
    /// (n, m) → (n, m).
    fn of_distances(&self, d2: &Tensor) -> Result<Tensor> {
        if d2.device().is_cpu() && !is_composed() {
            let kernel = self.clone();
            let derivative = self.clone();
            return Ok(map(d2, move |d2| kernel.of_distance(d2), move |d2| derivative.slope(d2))?);
        }
        match self {
            // c/(c + d²) = 1/(d²/c + 1)
            Self::Imq(bandwidths) => {
                let terms = bandwidths.iter().map(|c| Ok(d2.affine(1.0 / c, 1.0)?.recip()?));
                let sum = terms.reduce(|sum: Result<Tensor>, term| Ok((sum? + term?)?));
                sum.unwrap_or_else(|| Ok(d2.zeros_like()?))
            }
            Self::Rbf(c) => Ok((d2 * (-1.0 / c))?.exp()?),
        }
    }
}

/// Pairs of rows computed at once. A pair takes about 250 bytes with seven scales: 4 MB a core, or 1 GB of a GPU's
/// memory.
const PAIRS_ON_CPU: usize = 1 << 14;
const PAIRS_ON_GPU: usize = 1 << 22;

/// MMD² of codes and draws; `None` below two rows of either.
///
/// # Shapes
/// (n, d) and (m, d) → ().
pub(crate) fn divergence(kernel: &Kernel, q: &Tensor, p: &Tensor) -> Result<Option<Tensor>> {
    let rows = q.dim(0)?;
    let draws = p.dim(0)?;
    if rows < 2 || draws < 2 {
        return Ok(None);
    }
    let n = rows as f64;
    let m = draws as f64;
    let q = widest(q)?;
    let p = widest(p)?;
    // Pairs with another code weigh 1/(n(n − 1)), those with a draw −2/(nm).
    let mut weights = vec![1.0 / (n * (n - 1.0)); rows];
    weights.resize(rows + draws, -2.0 / (n * m));
    // Converted on the CPU: Metal has no f64.
    let weights = Tensor::from_vec(weights, (1, rows + draws), &Device::Cpu)?;
    let weights = weights.to_dtype(q.dtype())?.to_device(q.device())?;
    let of_codes = sum_over_blocks(&q, block(&q, rows, rows + draws), |q, rows| {
        let some = q.narrow(0, rows.start, rows.len())?;
        let all = Tensor::cat(&[q, &p], 0)?; // (n + m, d)
        let kernels = kernel.of_distances(&squared_distances(&some, &all)?)?; // (rows, n + m)
        Ok(kernels.broadcast_mul(&weights)?.sum_all()?)
    })?;
    let of_draws = sum_over_blocks(&p.detach(), block(&p, draws, draws), |p, rows| {
        let some = p.narrow(0, rows.start, rows.len())?;
        Ok(kernel.of_distances(&squared_distances(&some, p)?)?.sum_all()?)
    })?;
    // A row's pair with itself is k(a, a), up to rounding.
    let of_selves = kernel.at_zero() * (1.0 / (n - 1.0) + 1.0 / (m - 1.0));
    Ok(Some((of_codes + of_draws.affine(1.0 / (m * (m - 1.0)), -of_selves)?)?))
}

/// Rows of a block, of equal blocks of at most so many pairs as the device takes at once.
fn block(x: &Tensor, rows: usize, others: usize) -> usize {
    let pairs = if x.device().is_cpu() { PAIRS_ON_CPU } else { PAIRS_ON_GPU };
    let blocks = (rows * others).div_ceil(pairs).max(1);
    rows.div_ceil(blocks)
}

/// MMD²: codes (n, dim) and draws (m, dim), summed in f64 in a fixed order. `None` below two rows of either.
pub(crate) fn value(kernel: &Kernel, q: &[f32], p: &[f32], dim: usize) -> Option<f64> {
    let n = q.len() / dim;
    let m = p.len() / dim;
    if n < 2 || m < 2 {
        return None;
    }
    let nf = n as f64;
    let mf = m as f64;
    // A row's pair with itself is k(a, a), exactly, since its distance is exactly 0.
    let off_diagonal = |x: &[f32], n: f64| (sum_of_pairs(kernel, x, x, dim) - n * kernel.at_zero()) / (n * (n - 1.0));
    Some(off_diagonal(q, nf) + off_diagonal(p, mf) - 2.0 * sum_of_pairs(kernel, q, p, dim) / (nf * mf))
}

pub(crate) fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

fn sum_of_pairs(kernel: &Kernel, a: &[f32], b: &[f32], dim: usize) -> f64 {
    let row = |a: &[f32]| -> f64 { b.chunks_exact(dim).map(|b| kernel.of_distance(squared_distance(a, b))).sum() };
    let rows: Vec<f64> = a.par_chunks_exact(dim).map(row).collect();
    rows.iter().sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::PriorKind;
    use crate::objective::sample;
    use crate::objective::tests::{check_gradient, normal, number, tensor, value_and_gradient};

    fn graph(kernel: &Kernel, q: &[f32], p: &[f32], dim: usize) -> Option<f64> {
        divergence(kernel, &tensor(q, dim), &tensor(p, dim)).unwrap().map(|value| number(&value))
    }

    /// One dimension, C = 2: k(0, 1) = 2/3, k(0, 3) = 2/11, k(1, 3) = k(0, 2) = 2/6, k(1, 2) = 2/3.
    #[test]
    fn four_points_by_hand() {
        let kernel = Kernel::new(KernelKind::Imq, &[1.0], 1, Prior::default());
        let expected = 2.0 / 3.0 + 2.0 / 3.0 - 0.5 * (2.0 / 6.0 + 2.0 / 11.0 + 2.0 / 3.0 + 2.0 / 6.0);
        let q = [0.0, 1.0];
        let p = [2.0, 3.0];
        assert!((value(&kernel, &q, &p, 1).unwrap() - expected).abs() < 1e-12);
        assert!((graph(&kernel, &q, &p, 1).unwrap() - expected).abs() < 1e-12);
        assert_eq!(value(&kernel, &q[..1], &p, 1), None);
        assert_eq!(graph(&kernel, &q[..1], &p, 1), None);
        assert_eq!(graph(&kernel, &q, &p[..1], 1), None);
    }

    /// The cost of a collapsed encoder, computed for reference/wae-facts: 1.835 at d_z = 8, 1.924 at 64, for large n.
    #[test]
    fn an_encoder_collapsed_to_zero() {
        for (dim, expected) in [(8, 1.835), (64, 1.924)] {
            let kernel = Kernel::new(KernelKind::Imq, &IMQ_SCALES, dim, Prior::default());
            let p = sample(Prior::default(), 3000, dim, 1);
            let got = value(&kernel, &vec![0.0; p.len()], &p, dim).unwrap();
            assert!((got - expected).abs() < 0.01, "d_z = {dim}: {got}, expected {expected}");
        }
    }

    /// Unbiased under Q = P, with the standard deviation computed for reference/wae-facts: 0.0119 at n = 100, d_z = 8.
    #[test]
    fn null_distribution() {
        let kernel = Kernel::new(KernelKind::Imq, &IMQ_SCALES, 8, Prior::default());
        let draws: Vec<f64> = (0..400)
            .map(|i| {
                let q = sample(Prior::default(), 100, 8, 2 * i);
                let p = sample(Prior::default(), 100, 8, 2 * i + 1);
                value(&kernel, &q, &p, 8).unwrap()
            })
            .collect();
        let mean = draws.iter().sum::<f64>() / 400.0;
        let deviation = (draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 399.0).sqrt();
        assert!(mean.abs() < 4.0 * 0.0119 / 20.0, "mean {mean}");
        assert!((deviation - 0.0119).abs() < 0.002, "standard deviation {deviation}");
        let negative = draws.iter().filter(|d| **d < 0.0).count();
        assert!((140..=260).contains(&negative), "{negative} of 400 are negative");
    }

    /// One dimension, C = 2, q = (0, 1), p = (0, 3): the pull of each code by hand, k'(d) = −4d/(2 + d²)².
    #[test]
    fn the_gradient_by_hand() {
        let kernel = Kernel::new(KernelKind::Imq, &[1.0], 1, Prior::default());
        let slope = |d: f64| -4.0 * d / (2.0 + d * d).powi(2);
        let (_, gradient) = value_and_gradient(
            |q| Ok(divergence(&kernel, q, &tensor(&[0.0, 3.0], 1))?.unwrap()),
            &tensor(&[0.0, 1.0], 1),
        );
        let expected = [slope(-1.0) - 0.5 * slope(-3.0), slope(1.0) - 0.5 * (slope(1.0) + slope(-2.0))];
        for (got, expected) in gradient.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-7, "{got}, {expected}");
        }
    }

    /// A code that is not a number must not pass for a value; equal codes have gradients.
    #[test]
    fn broken_and_equal_codes() {
        let kernel = Kernel::new(KernelKind::Imq, &IMQ_SCALES, 2, Prior::default());
        let p = normal(3, 2, 1);
        let broken = divergence(&kernel, &tensor(&[0.0, 1.0, f32::NAN, 1.0], 2), &p).unwrap().unwrap();
        assert!(number(&broken).is_nan());
        let (_, gradient) = value_and_gradient(|q| Ok(divergence(&kernel, q, &p)?.unwrap()), &tensor(&[1.0; 6], 2));
        assert!(gradient.iter().all(|g| g.is_finite()));
    }

    /// More pairs than a block has.
    #[test]
    fn blocks_make_no_difference() {
        let kernel = Kernel::new(KernelKind::Imq, &IMQ_SCALES, 2, Prior::default());
        let q = sample(Prior::default(), 301, 2, 1);
        let p = sample(Prior::default(), 170, 2, 2);
        assert!((graph(&kernel, &q, &p, 2).unwrap() - value(&kernel, &q, &p, 2).unwrap()).abs() < 1e-12);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn order_does_not_matter_and_far_is_farther(
            n in 2..9_usize, m in 2..9_usize, dim in 1..5_usize, seed in any::<u64>(), rbf in any::<bool>(), scale in 0.3..3.0_f64,
        ) {
            let kind = if rbf { KernelKind::Rbf } else { KernelKind::Imq };
            let kernel = Kernel::new(kind, &IMQ_SCALES, dim, Prior { kind: PriorKind::Normal, scale });
            let q = sample(Prior::default(), n, dim, seed);
            let p = sample(Prior::default(), m, dim, seed ^ 1);
            let got = value(&kernel, &q, &p, dim).unwrap();
            prop_assert!((got - graph(&kernel, &q, &p, dim).unwrap()).abs() < 1e-12, "the graph's value");
            let reversed: Vec<f32> = q.chunks_exact(dim).rev().flatten().copied().collect();
            prop_assert!((got - value(&kernel, &reversed, &p, dim).unwrap()).abs() < 1e-12);
            prop_assert!((got - graph(&kernel, &reversed, &p, dim).unwrap()).abs() < 1e-12);
            prop_assert!((got - value(&kernel, &p, &q, dim).unwrap()).abs() < 1e-12, "symmetric in q and p");
            prop_assert!((got - graph(&kernel, &p, &q, dim).unwrap()).abs() < 1e-12);
            let far: Vec<f32> = q.iter().map(|q| q + 100.0).collect();
            prop_assert!(value(&kernel, &far, &p, dim).unwrap() > got, "a translated sample is farther");
            prop_assert!(graph(&kernel, &far, &p, dim).unwrap() > got);
        }

        #[test]
        fn the_gradient_agrees_with_finite_differences(
            n in 2..6_usize, m in 2..6_usize, dim in 1..4_usize, seed in any::<u64>(), rbf in any::<bool>(),
        ) {
            let kernel = Kernel::new(if rbf { KernelKind::Rbf } else { KernelKind::Imq }, &IMQ_SCALES, dim, Prior::default());
            let p = normal(m, dim, seed ^ 1);
            check_gradient(|q| Ok(divergence(&kernel, q, &p)?.unwrap()), &normal(n, dim, seed));
        }
    }
}
