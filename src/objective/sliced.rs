//! The sliced 2-Wasserstein distance, squared, between n codes and n draws from the prior.
//!
//! `SW²(q, p) = (1/L) Σ_l (1/n) Σ_i (⟨θ_l, q⟩_(i) − ⟨θ_l, p⟩_(i))²`
//!
//! Where: θ_1..θ_L are directions drawn uniformly on the unit sphere, and x_(i) is the i-th smallest of a sample: in
//! one dimension the best transport joins equal ranks. In latent units². Unlike the unbiased MMD², it is positive
//! between two samples of one distribution, and falls as n grows.
//!
//! # Source
//! Kolouri, Pope, Martin and Rohde, Sliced Wasserstein auto-encoders, ICLR 2019, equation 14.

use candle_core::{Device, Tensor};
use rand::Rng;

use super::prior::sample_with;
use super::widest;
use crate::config::{Prior, PriorKind};
use crate::error::Result;

/// The number of directions of a step.
pub(crate) const DIRECTIONS: usize = 64;

/// Directions on the unit sphere, (L, dim).
pub(crate) fn directions(dim: usize, generator: &mut impl Rng) -> Vec<f32> {
    sample_with(Prior { kind: PriorKind::Sphere, scale: 1.0 }, DIRECTIONS, dim, generator)
}

/// The longest row that candle sorts on a GPU: it keeps a row's ranks, padded to a power of two, in 48 KiB of shared
/// memory.
const LONGEST_ROW: usize = 8192;

/// SW² of codes and as many draws.
///
/// # Shapes
/// (n, d), (n, d) and directions (L, d) → ().
pub(crate) fn distance(q: &Tensor, p: &Tensor, directions: &Tensor) -> Result<Tensor> {
    let directions = widest(directions)?;
    let of_codes = sorted(&directions.matmul(&widest(q)?.t()?)?)?; // (L, n)
    let of_draws = sorted(&directions.matmul(&widest(p)?.t()?)?)?; // (L, n)
    Ok((of_codes - of_draws)?.sqr()?.mean_all()?)
}

/// Each row in ascending order. The ranks are constants: the gradient of a value goes where it came from.
fn sorted(x: &Tensor) -> Result<Tensor> {
    let values = x.detach();
    // NaN has no rank, and a sort may panic on it: it takes the rank of a 0, and stays NaN.
    let values = values.eq(&values)?.where_cond(&values, &values.zeros_like()?)?;
    let ranks = if x.device().is_cpu() || x.dim(1)? <= LONGEST_ROW {
        values.arg_sort_last_dim(true)?
    } else {
        values.to_device(&Device::Cpu)?.arg_sort_last_dim(true)?.to_device(x.device())?
    };
    Ok(x.gather(&ranks, 1)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::objective::tests::{check_gradient, normal, number, numbers, tensor, value_and_gradient};

    fn seeded(dim: usize, seed: u64) -> Tensor {
        tensor(&directions(dim, &mut ChaCha8Rng::seed_from_u64(seed)), dim)
    }

    /// One dimension: ranks 1, 3 against 2, 6 differ by −1 and −3, whatever their order in the sample.
    #[test]
    fn one_dimension_by_hand() {
        let p = tensor(&[2.0, 6.0], 1);
        let (value, gradient) = value_and_gradient(|q| distance(q, &p, &tensor(&[1.0], 1)), &tensor(&[3.0, 1.0], 1));
        assert_eq!((value, gradient), (5.0, vec![-3.0, -1.0]));
    }

    /// A translation by t: every slice sees ⟨θ, t⟩, whose square is ‖t‖²/d on average.
    #[test]
    fn a_translation() {
        let q = normal(50, 4, 1);
        let directions = seeded(4, 2);
        let value = number(&distance(&q, &(&q + 1.0).unwrap(), &directions).unwrap());
        let along: Vec<f64> = numbers(&directions.sum(1).unwrap());
        let expected = along.iter().map(|t| t * t).sum::<f64>() / DIRECTIONS as f64;
        assert!((value - expected).abs() < 1e-5, "{value}");
        assert_eq!(number(&distance(&q, &q, &directions).unwrap()), 0.0);
    }

    #[test]
    fn a_code_that_is_not_a_number_is_not_hidden() {
        let mut values = vec![1.0; 100];
        for i in (0..100).step_by(3) {
            values[i] = f32::NAN;
        }
        let value = distance(&tensor(&values, 2), &normal(50, 2, 1), &seeded(2, 2)).unwrap();
        assert!(number(&value).is_nan());
    }

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let p = normal(6, 3, 2);
        let directions = seeded(3, 3);
        check_gradient(|q| distance(q, &p, &directions), &normal(6, 3, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn order_does_not_matter_and_far_is_farther(n in 1..9_usize, dim in 1..5_usize, seed in any::<u64>()) {
            let q = normal(n, dim, seed);
            let p = normal(n, dim, seed ^ 1);
            let directions = seeded(dim, seed);
            let value = |q: &Tensor, p: &Tensor| number(&distance(q, p, &directions).unwrap());
            let got = value(&q, &p);
            prop_assert!((got - value(&q.flip(&[0]).unwrap(), &p)).abs() < 1e-12);
            prop_assert!((got - value(&p, &q)).abs() < 1e-12, "symmetric in q and p");
            prop_assert!(value(&(&q + 100.0).unwrap(), &p) > got, "a translated sample is farther");
        }
    }
}
