//! The prior P_Z over latent codes, and the map of an encoder's output to the prior's support.
//!
//! ```text
//! normal:   z ~ N(0, σ_z² I)                        z = u
//! sphere:   z = σ_z · n/‖n‖,  n ~ N(0, I)           z = σ_z · u/‖u‖
//! uniform:  z ~ U[−σ_z, σ_z]^d                      z = σ_z · tanh(u)
//! ```
//!
//! Where: σ_z is the prior's scale, and u the encoder's output.
//!
//! # Source
//! The authors' `wae.py`, `sample_pz` and `models.py`, `encoder`.

use candle_core::Tensor;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::widest;
use crate::config::{Prior, PriorKind};
use crate::error::Result;

/// The least norm that is divided by: a code of zeros stays at 0.
const LEAST_NORM: f64 = 1e-12;

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
    let normal = |generator: &mut _| <StandardNormal as Distribution<f64>>::sample(&StandardNormal, generator);
    match prior.kind {
        PriorKind::Normal => (0..rows * dim).map(|_| (prior.scale * normal(generator)) as f32).collect(),
        PriorKind::Sphere => {
            let mut codes = Vec::with_capacity(rows * dim);
            for _ in 0..rows {
                let row: Vec<f64> = (0..dim).map(|_| normal(generator)).collect();
                let length = row.iter().map(|z| z * z).sum::<f64>().sqrt().max(LEAST_NORM);
                codes.extend(row.into_iter().map(|z| (prior.scale * z / length) as f32));
            }
            codes
        }
        PriorKind::Uniform => {
            (0..rows * dim).map(|_| (prior.scale * generator.random_range(-1.0..1.0)) as f32).collect()
        }
    }
}

/// The map of an encoder's output to the prior's support.
///
/// At a row of zeros, where the sphere has no direction, the code is 0 and the gradient finite.
///
/// # Shapes
/// (n, d) → (n, d), of the same float type.
pub(crate) fn to_support(prior: Prior, u: &Tensor) -> Result<Tensor> {
    let codes = match prior.kind {
        PriorKind::Normal => return Ok(u.clone()),
        PriorKind::Sphere => {
            let u = widest(u)?;
            let length = (u.sqr()?.sum_keepdim(1)? + LEAST_NORM * LEAST_NORM)?.sqrt()?; // (n, 1)
            u.broadcast_div(&length)?
        }
        PriorKind::Uniform => widest(u)?.tanh()?,
    };
    Ok((codes * prior.scale)?.to_dtype(u.dtype())?)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::objective::tests::{check_gradient, normal, numbers, tensor, value_and_gradient};

    fn prior(kind: PriorKind) -> Prior {
        Prior { kind, scale: 1.5 }
    }

    fn moments(z: &[f32]) -> (f64, f64) {
        let n = z.len() as f64;
        let mean = z.iter().map(|z| f64::from(*z)).sum::<f64>() / n;
        (mean, z.iter().map(|z| (f64::from(*z) - mean).powi(2)).sum::<f64>() / n)
    }

    /// Variances of a coordinate: σ² for normal, σ²/d for sphere, σ²/3 for uniform.
    #[rstest]
    #[case(PriorKind::Normal, 2.25)]
    #[case(PriorKind::Sphere, 2.25 / 4.0)]
    #[case(PriorKind::Uniform, 0.75)]
    fn samples_have_mean_0_and_their_variance(#[case] kind: PriorKind, #[case] expected: f64) {
        let z = sample(prior(kind), 20_000, 4, 7);
        let (mean, variance) = moments(&z);
        // Six standard errors of the normal prior, which are larger than the others'.
        let n = z.len() as f64;
        assert!(mean.abs() < 6.0 * (expected / n).sqrt(), "{mean}");
        assert!((variance - expected).abs() < 6.0 * expected * (2.0 / n).sqrt(), "{variance}");
    }

    #[test]
    fn samples_and_codes_lie_where_the_prior_lives() {
        for z in sample(prior(PriorKind::Sphere), 100, 4, 7).chunks_exact(4) {
            assert!((z.iter().map(|z| z * z).sum::<f32>().sqrt() - 1.5).abs() < 1e-6);
        }
        assert!(sample(prior(PriorKind::Uniform), 100, 4, 7).iter().all(|z| z.abs() <= 1.5));
        let codes = numbers(&to_support(prior(PriorKind::Sphere), &tensor(&[3.0, 4.0, 0.0, 0.0], 2)).unwrap());
        assert!((codes[0] - 0.9).abs() < 1e-6 && (codes[1] - 1.2).abs() < 1e-6 && codes[2..] == [0.0, 0.0]);
        let codes = to_support(prior(PriorKind::Uniform), &tensor(&[0.0, 100.0, -100.0], 3)).unwrap();
        assert_eq!(numbers(&codes), [0.0, 1.5, -1.5]);
    }

    #[test]
    fn a_code_of_zeros_has_a_finite_gradient() {
        let sum = |u: &Tensor| Ok(to_support(prior(PriorKind::Sphere), u)?.sum_all()?);
        let (value, gradient) = value_and_gradient(sum, &tensor(&[0.0, 0.0], 2));
        assert!(value == 0.0 && gradient.iter().all(|g| g.is_finite()));
    }

    #[rstest]
    #[case(PriorKind::Normal)]
    #[case(PriorKind::Sphere)]
    #[case(PriorKind::Uniform)]
    fn the_gradient_agrees_with_finite_differences(#[case] kind: PriorKind) {
        let weights = widest(&normal(2, 3, 2)).unwrap();
        check_gradient(|u| Ok((to_support(prior(kind), u)? * &weights)?.sum_all()?), &normal(2, 3, 1));
    }
}
