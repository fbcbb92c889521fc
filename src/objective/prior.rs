//! The prior P_Z over latent codes.
//!
//! normal: `z ~ N(0, σ_z² I)`, where σ_z is the prior's scale.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::config::{Prior, PriorKind};

/// `rows` codes drawn from the prior with a seeded generator.
///
/// The same seed gives the same codes on every machine.
///
/// # Shapes
/// (rows, dim).
///
/// # Example
/// ```
/// use wae_core::config::Prior;
/// use wae_core::objective::sample;
///
/// let codes = sample(Prior::default(), 2, 8, 42);
/// assert_eq!(codes.len(), 16);
/// assert_eq!(codes, sample(Prior::default(), 2, 8, 42));
/// ```
pub fn sample(prior: Prior, rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    sample_with(prior, rows, dim, &mut ChaCha8Rng::seed_from_u64(seed))
}

pub(crate) fn sample_with(prior: Prior, rows: usize, dim: usize, generator: &mut impl Rng) -> Vec<f32> {
    match prior.kind {
        PriorKind::Normal => {
            let normal = |_| prior.scale * <StandardNormal as Distribution<f64>>::sample(&StandardNormal, generator);
            (0..rows * dim).map(normal).map(|z| z as f32).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_has_mean_0_and_its_scale_as_deviation() {
        let prior = Prior { kind: PriorKind::Normal, scale: 1.5 };
        let z = sample(prior, 20_000, 4, 7);
        let n = z.len() as f64;
        let mean = z.iter().map(|z| f64::from(*z)).sum::<f64>() / n;
        let variance = z.iter().map(|z| (f64::from(*z) - mean).powi(2)).sum::<f64>() / n;
        // Six standard errors: 1.5/√80000 and 1.5²·√(2/80000).
        assert!(mean.abs() < 6.0 * 1.5 / n.sqrt(), "{mean}");
        assert!((variance - 2.25).abs() < 6.0 * 2.25 * (2.0 / n).sqrt(), "{variance}");
    }
}
