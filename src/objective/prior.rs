//! The prior P_Z over latent codes, and how an encoder's output is brought to where the prior lives.
//!
//! ```text
//! normal:   z ~ N(0, σ_z² I)                        z = u
//! sphere:   z = σ_z · n/‖n‖,  n ~ N(0, I)           z = σ_z · u/‖u‖
//! uniform:  z ~ U[−σ_z, σ_z]^d                      z = σ_z · tanh(u)
//! ```
//!
//! Where: σ_z is the prior's scale, and u what the encoder puts out.
//!
//! # Source
//! The authors' `wae.py`, `sample_pz` and `models.py`, `encoder`.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::config::{Prior, PriorKind};

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

/// Brings what an encoder puts out, (n, dim), to where the prior lives.
pub(crate) fn to_support(prior: Prior, dim: usize, codes: &mut [f32]) {
    match prior.kind {
        PriorKind::Normal => {}
        PriorKind::Sphere => {
            for row in codes.chunks_exact_mut(dim) {
                let scale = prior.scale / norm(row);
                row.iter_mut().for_each(|z| *z = (scale * f64::from(*z)) as f32);
            }
        }
        PriorKind::Uniform => codes.iter_mut().for_each(|z| *z = (prior.scale * f64::from(*z).tanh()) as f32),
    }
}

/// The gradient by what the encoder puts out, `u`, from the one by the codes, in place.
///
/// `sphere: (σ_z/‖u‖)·(g − ⟨g, û⟩·û);  uniform: g·σ_z·(1 − tanh²(u))`
pub(crate) fn to_support_gradient(prior: Prior, dim: usize, u: &[f32], gradient: &mut [f32]) {
    match prior.kind {
        PriorKind::Normal => {}
        PriorKind::Sphere => {
            for (u, gradient) in u.chunks_exact(dim).zip(gradient.chunks_exact_mut(dim)) {
                let length = norm(u);
                let along: f64 = u.iter().zip(&*gradient).map(|(u, g)| f64::from(*u) * f64::from(*g)).sum();
                for (g, u) in gradient.iter_mut().zip(u) {
                    *g = (prior.scale / length * (f64::from(*g) - along / length * f64::from(*u) / length)) as f32;
                }
            }
        }
        PriorKind::Uniform => {
            for (g, u) in gradient.iter_mut().zip(u) {
                *g = (f64::from(*g) * prior.scale * (1.0 - f64::from(*u).tanh().powi(2))) as f32;
            }
        }
    }
}

fn norm(row: &[f32]) -> f64 {
    row.iter().map(|z| f64::from(*z).powi(2)).sum::<f64>().sqrt().max(LEAST_NORM)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

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
            assert!((norm(z) - 1.5).abs() < 1e-6);
        }
        assert!(sample(prior(PriorKind::Uniform), 100, 4, 7).iter().all(|z| z.abs() <= 1.5));
        let mut codes = [3.0, 4.0, 0.0, 0.0];
        to_support(prior(PriorKind::Sphere), 2, &mut codes);
        assert!((codes[0] - 0.9).abs() < 1e-6 && (codes[1] - 1.2).abs() < 1e-6 && codes[2] == 0.0);
        let mut codes = [0.0, 100.0, -100.0];
        to_support(prior(PriorKind::Uniform), 3, &mut codes);
        assert_eq!(codes, [0.0, 1.5, -1.5]);
    }

    #[rstest]
    #[case(PriorKind::Normal)]
    #[case(PriorKind::Sphere)]
    #[case(PriorKind::Uniform)]
    fn the_gradient_agrees_with_finite_differences(#[case] kind: PriorKind) {
        let (u, weights) = (sample(Prior::default(), 2, 3, 1), sample(Prior::default(), 2, 3, 2));
        let value = |u: &[f32]| -> f64 {
            let mut z = u.to_vec();
            to_support(prior(kind), 3, &mut z);
            z.iter().zip(&weights).map(|(z, w)| f64::from(*z) * f64::from(*w)).sum()
        };
        let mut gradient = weights.clone();
        to_support_gradient(prior(kind), 3, &u, &mut gradient);
        for i in 0..u.len() {
            let shifted = |h: f32| {
                let mut u = u.clone();
                u[i] += h;
                (f64::from(u[i]), value(&u))
            };
            let ((low, below), (high, above)) = (shifted(-1e-2), shifted(1e-2));
            let numeric = (above - below) / (high - low);
            assert!((numeric - f64::from(gradient[i])).abs() < 2e-3, "{i}: {numeric}, {}", gradient[i]);
        }
    }
}
