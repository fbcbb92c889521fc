//! The Sinkhorn divergence between codes and draws from the prior.
//!
//! ```text
//! S(q, p)    = OT(q, p) − ½ OT(q, q) − ½ OT(p, p)
//! OT(a, b)   = max_{f, g} mean_i f_i + mean_j g_j    where   f_i = −ε log mean_j exp((g_j − c(a_i, b_j))/ε)
//! c(a, b)    = ‖a − b‖² / C
//! ```
//!
//! Where: C is the prior's bandwidth (2·d_z·σ_z² for normal), so that distances of draws are about 1 in any dimension,
//! and ε = 0.05. The last two terms take away what entropy adds: S(q, q) = 0.
//!
//! The potentials f and g are found without a graph. At them
//!
//! ```text
//! OT(a, b) = mean_i f_i + mean_j g_j − ε (mean_ij exp((f_i + g_j − c(a_i, b_j))/ε) − 1)
//! ```
//!
//! is the dual of the transport, whose last term is 0 at the optimum. As the potentials maximise it, its gradient by
//! the codes is the one with f and g held fixed: that of the costs under the optimal plan.
//!
//! # Source
//! Feydy, Séjourné, Vialard, Amari, Trouvé and Peyré, AISTATS 2019, equations 3 and 12; Patrini et al., Sinkhorn
//! auto-encoders, UAI 2019; Schmitzer, Stabilized sparse scaling algorithms, SIAM J. Sci. Comput. 2019, section 3.1.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::{squared_distances, widest};
use crate::error::Result;

/// The strength of the entropy, in units of the ground cost.
const EPSILON: f64 = 0.05;
/// The most rounds, of so many updates of both potentials. A round ends with a look at the change, which waits for a
/// GPU.
const ROUNDS: usize = 20;
const UPDATES: usize = 10;
/// The largest change of a potential in an update at which the updates end.
const TOLERANCE: f64 = 1e-5;

/// The most values of a matrix that is multiplied by its elements.
const SMALL: usize = 1 << 16;

/// S(q, p); `bandwidth` is C.
///
/// # Shapes
/// (n, d) and (m, d) → ().
pub(crate) fn divergence(q: &Tensor, p: &Tensor, bandwidth: f64) -> Result<Tensor> {
    let unit = 1.0 / bandwidth.sqrt();
    let q = (widest(q)? * unit)?;
    let p = (widest(p)? * unit)?;
    let problems = [(&q, &p, 1.0), (&q, &q, -0.5), (&p, &p, -0.5)];
    let solve = |(a, b, weight): (&Tensor, &Tensor, f64)| -> Result<Tensor> { Ok((transport(a, b)? * weight)?) };
    let terms: Vec<Tensor> = if q.device().is_cpu() {
        problems.into_par_iter().map(solve).collect::<Result<_>>()?
    } else {
        problems.into_iter().map(solve).collect::<Result<_>>()?
    };
    Ok(Tensor::stack(&terms, 0)?.sum_all()?)
}

/// OT of points in units of √C: the dual at the optimal potentials, as a function of the costs.
fn transport(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let costs = squared_distances(a, b)?; // (n, m)
    let (f, g) = potentials(&costs.detach())?;
    let mass = plan(&costs, &f, &g)?.mean_all()?;
    Ok(((f.mean_all()? + g.mean_all()?)? - mass.affine(EPSILON, -EPSILON)?)?)
}

/// exp((f_i + g_j − c_ij)/ε), nm times the plan.
fn plan(costs: &Tensor, f: &Tensor, g: &Tensor) -> Result<Tensor> {
    // (f + g − c)/ε is −(c − f − g)/ε.
    Ok((costs.broadcast_sub(f)?.broadcast_sub(g)? * (-1.0 / EPSILON))?.exp()?)
}

/// The potentials f, (n, 1), and g, (1, m), of costs without a graph.
///
/// An update sets g, then f. With K = exp((f_i + g_j − c_ij)/ε), an update of K's factors v = exp(Δg/ε) and u =
/// exp(Δf/ε) is two products with K:
///
/// `v = 1/mean_i(K_ij u_i);  u = 1/mean_j(K_ij v_j)`
///
/// Each round takes the factors into the potentials and makes K anew. The first update is in logarithms: after it each
/// row of K has mean 1, and an update changes a factor at most nm times, so that a round cannot overflow.
fn potentials(costs: &Tensor) -> Result<(Tensor, Tensor)> {
    let m = costs.dim(1)?;
    let mut g = soft_minimum(costs, 0)?; // (1, m)
    let mut f = soft_minimum(&costs.broadcast_sub(&g)?, 1)?; // (n, 1)
    for _ in 0..ROUNDS {
        let kernel = plan(costs, &f, &g)?; // (n, m)
        let transposed = kernel.t()?.contiguous()?; // (m, n)
        let mut u = f.ones_like()?;
        let mut v = g.ones_like()?;
        let mut before = u.clone();
        for _ in 0..UPDATES {
            before = u;
            v = weighted_means(&transposed, &before)?.recip()?.reshape((1, m))?;
            u = weighted_means(&kernel, &v)?.recip()?; // (n, 1)
        }
        f = (f + (u.log()? * EPSILON)?)?;
        g = (g + (v.log()? * EPSILON)?)?;
        let change = (u / before)?.log()?.abs()?.max_all()?;
        // Converted on the CPU: Metal has no f64.
        let change = change.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        if change * EPSILON < TOLERANCE || change.is_nan() {
            break;
        }
    }
    Ok((f, g))
}

/// The mean over each row of a matrix (n, m), weighted by m values: (n, 1).
///
/// candle's matrix product counts the CPU's cores at each call, which takes as long as a small product many times over.
fn weighted_means(matrix: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let m = matrix.dim(1)?;
    let sums = if matrix.device().is_cpu() && matrix.elem_count() <= SMALL {
        matrix.broadcast_mul(&weights.reshape((1, m))?)?.sum_keepdim(1)?
    } else {
        matrix.matmul(&weights.reshape((m, 1))?)?
    };
    Ok((sums / m as f64)?)
}

/// −ε log mean exp(−c/ε) along a dimension, which stays with one value.
fn soft_minimum(costs: &Tensor, along: usize) -> Result<Tensor> {
    let least = costs.min_keepdim(along)?;
    let mean = (costs.broadcast_sub(&least)? * (-1.0 / EPSILON))?.exp()?.mean_keepdim(along)?;
    Ok((least - (mean.log()? * EPSILON)?)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::objective::tests::{check_gradient_within, normal, number, tensor, value_and_gradient};

    /// Far points, C = 1: the plan joins neighbours, 0 with 0.5 and 10 with 10.5, so that S is 0.25 up to ε.
    #[test]
    fn far_points_meet_their_neighbours() {
        let p = tensor(&[10.5, 0.5], 1);
        let (value, gradient) = value_and_gradient(|q| divergence(q, &p, 1.0), &tensor(&[0.0, 10.0], 1));
        assert!((value - 0.25).abs() < 1e-6, "{value}");
        assert!(gradient.iter().all(|g| (g + 0.5).abs() < 1e-6), "2·(0 − 0.5)/n: {gradient:?}");
    }

    #[test]
    fn a_sample_is_at_no_distance_from_itself() {
        let q = normal(40, 3, 1);
        let (value, gradient) = value_and_gradient(|x| divergence(x, &q, 6.0), &q);
        assert!(value.abs() < 1e-7 && gradient.iter().all(|g| g.abs() < 1e-5), "{value}, {gradient:?}");
    }

    /// A translation by t of far codes: S is ‖t‖²/C, and nothing overflows.
    #[test]
    fn codes_far_from_the_prior_are_finite() {
        for shift in [100.0, 1e4] {
            let p = normal(30, 3, 1);
            let q = (&p + shift).unwrap();
            let (value, gradient) = value_and_gradient(|q| divergence(q, &p, 6.0), &q);
            assert!((value / (0.5 * shift * shift) - 1.0).abs() < 1e-3, "{shift}: {value}");
            assert!(gradient.iter().all(|g| (g * 30.0 / (shift / 3.0) - 1.0).abs() < 0.1), "{shift}: {gradient:?}");
        }
        // Two clusters, one row of which has no neighbour.
        let q = tensor(&[0.0, 0.1, 0.2, 1e3], 1);
        let (value, gradient) = value_and_gradient(|q| divergence(q, &tensor(&[0.0, 0.1, -1e3], 1), 2.0), &q);
        assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn a_code_that_is_not_a_number_is_not_hidden() {
        let value = divergence(&tensor(&[0.0, f32::NAN, 1.0], 1), &normal(3, 1, 1), 2.0).unwrap();
        assert!(number(&value).is_nan());
    }

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let p = normal(6, 3, 2);
        // The potentials end within about 1e-5 of the best, which a small step would magnify.
        check_gradient_within(1e-3, 2e-4, |q| divergence(q, &p, 6.0), &normal(6, 3, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn order_does_not_matter_and_far_is_farther(
            n in 1..9_usize, m in 1..9_usize, dim in 1..5_usize, seed in any::<u64>(),
        ) {
            let q = normal(n, dim, seed);
            let p = normal(m, dim, seed ^ 1);
            let value = |q: &Tensor, p: &Tensor| number(&divergence(q, p, 2.0 * dim as f64).unwrap());
            let got = value(&q, &p);
            prop_assert!((got - value(&q.flip(&[0]).unwrap(), &p)).abs() < 1e-3);
            prop_assert!((got - value(&p, &q)).abs() < 1e-3, "symmetric in q and p, but for the last change");
            prop_assert!(value(&(&q + 100.0).unwrap(), &p) > got, "a translated sample is farther");
        }
    }
}
