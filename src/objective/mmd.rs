//! Maximum mean discrepancy between codes q_1..q_n and draws p_1..p_m from the prior.
//!
//! ```text
//! MMD²(q, p) = Σ_{i≠j} k(q_i, q_j)/(n(n − 1)) + Σ_{i≠j} k(p_i, p_j)/(m(m − 1)) − 2 Σ_{i,j} k(q_i, p_j)/(nm)
//!
//! imq:  k(a, b) = Σ_s sC/(sC + ‖a − b‖²)
//! rbf:  k(a, b) = exp(−‖a − b‖²/C)
//! ```
//!
//! Where: C = 2·d_z·σ_z², the expected squared distance of two draws from the prior. The estimator is unbiased, so it is
//! negative for half of all draws when Q_Z = P_Z. IMQ is **summed** over its scales s, as in the authors' code: with seven
//! it is at most 7.
//!
//! # Source
//! Paper, algorithm 2; the authors' `wae.py`, `mmd_penalty`; `golden/reference.py`, `imq`, `rbf` and `mmd`.

use candle_core::{D, Tensor};
use rayon::prelude::*;

use crate::config::{Config, KernelKind, Objective};
use crate::error::Result;

/// A kernel with its bandwidths in latent units².
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kernel {
    /// Σ_c c/(c + d²) over these c = s·C.
    Imq(Vec<f64>),
    /// exp(−d²/C).
    Rbf(f64),
}

impl Kernel {
    pub(crate) fn new(kind: KernelKind, scales: &[f64], latent_dim: usize, prior_scale: f64) -> Self {
        let c = 2.0 * latent_dim as f64 * prior_scale * prior_scale;
        match kind {
            KernelKind::Imq => Self::Imq(scales.iter().map(|s| s * c).collect()),
            KernelKind::Rbf => Self::Rbf(c),
        }
    }

    /// The kernel of a model's objective.
    pub(crate) fn of(config: &Config) -> Self {
        let Objective::Mmd { kernel, scales, .. } = config.objective();
        Self::new(*kernel, scales, config.latent_dim(), config.prior().scale)
    }

    /// k(a, a).
    fn at_zero(&self) -> f64 {
        match self {
            Self::Imq(bandwidths) => bandwidths.len() as f64,
            Self::Rbf(_) => 1.0,
        }
    }

    /// The kernel of a squared distance.
    fn of_distance(&self, d2: f64) -> f64 {
        match self {
            Self::Imq(bandwidths) => bandwidths.iter().map(|c| c / (c + d2)).sum(),
            Self::Rbf(c) => (-d2 / c).exp(),
        }
    }

    /// As a graph: Σ k over all pairs of rows of (n, Z) and (m, Z), f64 → ().
    fn sum_of_pairs(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let d2 = a.unsqueeze(1)?.broadcast_sub(&b.unsqueeze(0)?)?.sqr()?.sum(D::Minus1)?; // (n, m)
        match self {
            Self::Imq(bandwidths) => {
                let mut sum = Tensor::zeros((), d2.dtype(), d2.device())?;
                for c in bandwidths {
                    sum = (sum + ((&d2 + *c)?.recip()?.sum_all()? * *c)?)?;
                }
                Ok(sum)
            }
            Self::Rbf(c) => Ok((d2 * (-1.0 / c))?.exp()?.sum_all()?),
        }
    }
}

/// MMD² as a graph: codes (n, Z) and draws (m, Z), f64, n and m at least 2 → ().
pub(crate) fn graph(kernel: &Kernel, q: &Tensor, p: &Tensor) -> Result<Tensor> {
    let (n, m) = (q.dim(0)? as f64, p.dim(0)? as f64);
    // A row's pair with itself is k(a, a), exactly, since its distance is exactly 0.
    let within = |x: &Tensor, n: f64| -> Result<Tensor> {
        Ok(((kernel.sum_of_pairs(x, x)? - n * kernel.at_zero())? / (n * (n - 1.0)))?)
    };
    let across = (kernel.sum_of_pairs(q, p)? * (2.0 / (n * m)))?;
    Ok(((within(q, n)? + within(p, m)?)? - across)?)
}

/// MMD² as a number: codes (n, dim) and draws (m, dim), summed in f64 in a fixed order. `None` below two rows of either.
pub(crate) fn value(kernel: &Kernel, q: &[f32], p: &[f32], dim: usize) -> Option<f64> {
    let (n, m) = (q.len() / dim, p.len() / dim);
    if n < 2 || m < 2 {
        return None;
    }
    let (nf, mf) = (n as f64, m as f64);
    let off_diagonal = |x: &[f32], n: f64| (sum_of_pairs(kernel, x, x, dim) - n * kernel.at_zero()) / (n * (n - 1.0));
    Some(off_diagonal(q, nf) + off_diagonal(p, mf) - 2.0 * sum_of_pairs(kernel, q, p, dim) / (nf * mf))
}

fn sum_of_pairs(kernel: &Kernel, a: &[f32], b: &[f32], dim: usize) -> f64 {
    let row = |a: &[f32]| -> f64 {
        let distance = |b: &[f32]| a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        b.chunks_exact(dim).map(|b| kernel.of_distance(distance(b))).sum()
    };
    let rows: Vec<f64> = a.par_chunks_exact(dim).map(row).collect();
    rows.iter().sum()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use proptest::prelude::*;

    use super::*;
    use crate::config::{IMQ_SCALES, Prior};
    use crate::objective::sample;

    fn graph_value(kernel: &Kernel, q: &[f32], p: &[f32], dim: usize) -> f64 {
        let tensor = |x: &[f32]| {
            Tensor::from_slice(x, (x.len() / dim, dim), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
        };
        graph(kernel, &tensor(q), &tensor(p)).unwrap().to_scalar().unwrap()
    }

    /// One dimension, C = 2: k(0, 1) = 2/3, k(0, 3) = 2/11, k(1, 3) = k(0, 2) = 2/6, k(1, 2) = 2/3.
    #[test]
    fn four_points_by_hand() {
        let kernel = Kernel::new(KernelKind::Imq, &[1.0], 1, 1.0);
        let expected = 2.0 / 3.0 + 2.0 / 3.0 - 0.5 * (2.0 / 6.0 + 2.0 / 11.0 + 2.0 / 3.0 + 2.0 / 6.0);
        let (q, p) = ([0.0, 1.0], [2.0, 3.0]);
        assert!((value(&kernel, &q, &p, 1).unwrap() - expected).abs() < 1e-12);
        assert!((graph_value(&kernel, &q, &p, 1) - expected).abs() < 1e-12);
        assert_eq!(value(&kernel, &q[..1], &p, 1), None);
    }

    /// The cost of a collapsed encoder, computed for reference/wae-facts: 1.835 at d_z = 8, 1.924 at 64, for large n.
    #[test]
    fn an_encoder_collapsed_to_zero() {
        for (dim, expected) in [(8, 1.835), (64, 1.924)] {
            let kernel = Kernel::new(KernelKind::Imq, &IMQ_SCALES, dim, 1.0);
            let p = sample(Prior::default(), 3000, dim, 1);
            let got = value(&kernel, &vec![0.0; p.len()], &p, dim).unwrap();
            assert!((got - expected).abs() < 0.01, "d_z = {dim}: {got}, expected {expected}");
        }
    }

    /// Unbiased under Q = P, with the standard deviation computed for reference/wae-facts: 0.0119 at n = 100, d_z = 8.
    #[test]
    fn null_distribution() {
        let kernel = Kernel::new(KernelKind::Imq, &IMQ_SCALES, 8, 1.0);
        let draws: Vec<f64> = (0..400)
            .map(|i| {
                let (q, p) = (sample(Prior::default(), 100, 8, 2 * i), sample(Prior::default(), 100, 8, 2 * i + 1));
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

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn graph_and_value_agree_and_order_does_not_matter(
            n in 2..9_usize, m in 2..9_usize, dim in 1..5_usize, seed in any::<u64>(), rbf in any::<bool>(), scale in 0.3..3.0_f64,
        ) {
            let kind = if rbf { KernelKind::Rbf } else { KernelKind::Imq };
            let kernel = Kernel::new(kind, &IMQ_SCALES, dim, scale);
            let (q, p) = (sample(Prior::default(), n, dim, seed), sample(Prior::default(), m, dim, seed ^ 1));
            let got = value(&kernel, &q, &p, dim).unwrap();
            prop_assert!((got - graph_value(&kernel, &q, &p, dim)).abs() < 1e-12);
            let reversed: Vec<f32> = q.chunks_exact(dim).rev().flatten().copied().collect();
            prop_assert!((got - value(&kernel, &reversed, &p, dim).unwrap()).abs() < 1e-12);
            prop_assert!((got - value(&kernel, &p, &q, dim).unwrap()).abs() < 1e-12, "symmetric in q and p");
            let far: Vec<f32> = q.iter().map(|q| q + 100.0).collect();
            prop_assert!(value(&kernel, &far, &p, dim).unwrap() > got, "a translated sample is farther");
        }
    }
}
