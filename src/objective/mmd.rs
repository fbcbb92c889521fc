//! Maximum mean discrepancy between codes q_1..q_n and draws p_1..p_m from the prior.
//!
//! ```text
//! MMD²(q, p) = Σ_{i≠j} k(q_i, q_j)/(n(n − 1)) + Σ_{i≠j} k(p_i, p_j)/(m(m − 1)) − 2 Σ_{i,j} k(q_i, p_j)/(nm)
//!
//! imq:  k(a, b) = Σ_s sC/(sC + ‖a − b‖²)
//! rbf:  k(a, b) = exp(−‖a − b‖²/C)
//! ```
//!
//! Where: C is the prior's bandwidth: 2·d_z·σ_z² for normal, the expected squared distance of two draws. The estimator is unbiased, so it is
//! negative for half of all draws when Q_Z = P_Z. IMQ is **summed** over its scales s, as in the authors' code: with seven
//! it is at most 7.
//!
//! # Source
//! Paper, algorithm 2; the authors' `wae.py`, `mmd_penalty`; `golden/reference.py`, `imq`, `rbf` and `mmd`.

use rayon::prelude::*;

use crate::config::{Config, IMQ_SCALES, KernelKind, Objective, Prior};

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

    /// The kernel's derivative by the squared distance.
    fn slope(&self, d2: f64) -> f64 {
        match self {
            Self::Imq(bandwidths) => bandwidths.iter().map(|c| -c / ((c + d2) * (c + d2))).sum(),
            Self::Rbf(c) => -(-d2 / c).exp() / c,
        }
    }
}

/// MMD²: codes (n, dim) and draws (m, dim), summed in f64 in a fixed order. `None` below two rows of either.
pub(crate) fn value(kernel: &Kernel, q: &[f32], p: &[f32], dim: usize) -> Option<f64> {
    let (n, m) = (q.len() / dim, p.len() / dim);
    if n < 2 || m < 2 {
        return None;
    }
    let (nf, mf) = (n as f64, m as f64);
    // A row's pair with itself is k(a, a), exactly, since its distance is exactly 0.
    let off_diagonal = |x: &[f32], n: f64| (sum_of_pairs(kernel, x, x, dim) - n * kernel.at_zero()) / (n * (n - 1.0));
    Some(off_diagonal(q, nf) + off_diagonal(p, mf) - 2.0 * sum_of_pairs(kernel, q, p, dim) / (nf * mf))
}

/// The gradient of MMD² by the codes, (n, dim), for n and m of at least 2.
///
/// `∂/∂q_i = 4 Σ_{j≠i} k'(q_i, q_j)·(q_i − q_j)/(n(n − 1)) − 4 Σ_j k'(q_i, p_j)·(q_i − p_j)/(nm)`
///
/// Where: k' is the kernel's derivative by the squared distance, whose own gradient is 2(q_i − ·). It takes memory for one
/// row a thread, so that a large batch costs time only.
pub(crate) fn gradient(kernel: &Kernel, q: &[f32], p: &[f32], dim: usize) -> Vec<f32> {
    let (n, m) = ((q.len() / dim) as f64, (p.len() / dim) as f64);
    let row = |(row, gradient): (&[f32], &mut [f32])| {
        let mut sums = vec![0.0; dim];
        for (others, weight) in [(q, 4.0 / (n * (n - 1.0))), (p, -4.0 / (n * m))] {
            for other in others.chunks_exact(dim) {
                let slope = weight * kernel.slope(squared_distance(row, other));
                for ((sum, a), b) in sums.iter_mut().zip(row).zip(other) {
                    *sum += slope * (f64::from(*a) - f64::from(*b));
                }
            }
        }
        gradient.iter_mut().zip(sums).for_each(|(g, s)| *g = s as f32);
    };
    let mut gradient = vec![0.0; q.len()];
    q.par_chunks_exact(dim).zip(gradient.par_chunks_exact_mut(dim)).for_each(row);
    gradient
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

    /// One dimension, C = 2: k(0, 1) = 2/3, k(0, 3) = 2/11, k(1, 3) = k(0, 2) = 2/6, k(1, 2) = 2/3.
    #[test]
    fn four_points_by_hand() {
        let kernel = Kernel::new(KernelKind::Imq, &[1.0], 1, Prior::default());
        let expected = 2.0 / 3.0 + 2.0 / 3.0 - 0.5 * (2.0 / 6.0 + 2.0 / 11.0 + 2.0 / 3.0 + 2.0 / 6.0);
        let (q, p) = ([0.0, 1.0], [2.0, 3.0]);
        assert!((value(&kernel, &q, &p, 1).unwrap() - expected).abs() < 1e-12);
        assert_eq!(value(&kernel, &q[..1], &p, 1), None);
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
        fn order_does_not_matter_and_far_is_farther(
            n in 2..9_usize, m in 2..9_usize, dim in 1..5_usize, seed in any::<u64>(), rbf in any::<bool>(), scale in 0.3..3.0_f64,
        ) {
            let kind = if rbf { KernelKind::Rbf } else { KernelKind::Imq };
            let kernel = Kernel::new(kind, &IMQ_SCALES, dim, Prior { kind: PriorKind::Normal, scale });
            let (q, p) = (sample(Prior::default(), n, dim, seed), sample(Prior::default(), m, dim, seed ^ 1));
            let got = value(&kernel, &q, &p, dim).unwrap();
            let reversed: Vec<f32> = q.chunks_exact(dim).rev().flatten().copied().collect();
            prop_assert!((got - value(&kernel, &reversed, &p, dim).unwrap()).abs() < 1e-12);
            prop_assert!((got - value(&kernel, &p, &q, dim).unwrap()).abs() < 1e-12, "symmetric in q and p");
            let far: Vec<f32> = q.iter().map(|q| q + 100.0).collect();
            prop_assert!(value(&kernel, &far, &p, dim).unwrap() > got, "a translated sample is farther");
        }

        /// Central differences; codes of f32 limit the step, and with it the agreement.
        #[test]
        fn the_gradient_agrees_with_finite_differences(
            n in 2..6_usize, m in 2..6_usize, dim in 1..4_usize, seed in any::<u64>(), rbf in any::<bool>(),
        ) {
            let kernel = Kernel::new(if rbf { KernelKind::Rbf } else { KernelKind::Imq }, &IMQ_SCALES, dim, Prior::default());
            let (q, p) = (sample(Prior::default(), n, dim, seed), sample(Prior::default(), m, dim, seed ^ 1));
            let gradient = gradient(&kernel, &q, &p, dim);
            for i in 0..q.len() {
                let shifted = |h: f32| {
                    let mut q = q.clone();
                    q[i] += h;
                    (f64::from(q[i]), value(&kernel, &q, &p, dim).unwrap())
                };
                let ((low, below), (high, above)) = (shifted(-1e-2), shifted(1e-2));
                let numeric = (above - below) / (high - low);
                prop_assert!((numeric - f64::from(gradient[i])).abs() < 2e-3, "{i}: {numeric}, {}", gradient[i]);
            }
        }
    }
}
