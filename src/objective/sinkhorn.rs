//! The Sinkhorn divergence between codes and draws from the prior.
//!
//! ```text
//! S(q, p)    = OT(q, p) − ½ OT(q, q) − ½ OT(p, p)
//! OT(a, b)   = max_{f, g} mean_i f_i + mean_j g_j    where   f_i = −ε log mean_j exp((g_j − c(a_i, b_j))/ε)
//! c(a, b)    = ‖a − b‖² / C
//! ```
//!
//! Where: C is the prior's bandwidth (2·d_z·σ_z² for normal), so that distances of draws are about 1 in any dimension, and
//! ε = 0.05. The last two terms take away what entropy adds: S(q, q) = 0. Its gradient is that of the costs under the
//! optimal plans, as the potentials are at their maximum.
//!
//! # Source
//! Feydy, Séjourné, Vialard, Amari, Trouvé and Peyré, AISTATS 2019, equations 3 and 12; Patrini et al., Sinkhorn
//! auto-encoders, UAI 2019.

use rayon::prelude::*;

/// The strength of the entropy, in units of the ground cost.
const EPSILON: f64 = 0.05;
/// The most updates of both potentials, and the largest change at which they end.
const ITERATIONS: usize = 200;
const TOLERANCE: f64 = 1e-5;

/// S(q, p) and its gradient by the codes, (n, dim); `bandwidth` is C.
pub(crate) fn value_and_gradient(q: &[f32], p: &[f32], dim: usize, bandwidth: f64) -> (f64, Vec<f32>) {
    let (across, within) = (Plan::solve(q, p, dim, bandwidth), Plan::solve(q, q, dim, bandwidth));
    let prior = Plan::solve(p, p, dim, bandwidth);
    let value = across.value - 0.5 * within.value - 0.5 * prior.value;
    // OT(q, q) moves with both of its arguments, which by symmetry is twice as much as with one: ½ · 2.
    let (mut gradient, own) = (across.gradient(q, p, dim, bandwidth), within.gradient(q, q, dim, bandwidth));
    gradient.iter_mut().zip(own).for_each(|(g, o)| *g -= o);
    (value, gradient.into_iter().map(|g| g as f32).collect())
}

/// The value alone.
pub(crate) fn value(q: &[f32], p: &[f32], dim: usize, bandwidth: f64) -> f64 {
    let value = |a: &[f32], b: &[f32]| Plan::solve(a, b, dim, bandwidth).value;
    value(q, p) - 0.5 * value(q, q) - 0.5 * value(p, p)
}

/// An optimal plan, by its costs and potentials.
struct Plan {
    value: f64,
    costs: Vec<f64>,
    f: Vec<f64>,
    g: Vec<f64>,
}

impl Plan {
    fn solve(a: &[f32], b: &[f32], dim: usize, bandwidth: f64) -> Self {
        let (n, m) = (a.len() / dim, b.len() / dim);
        let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
        let cost = |a: &[f32], b: &[f32]| a.iter().zip(b).map(square).sum::<f64>() / bandwidth;
        let table = |a: &[f32], b: &[f32]| -> Vec<f64> {
            a.par_chunks_exact(dim).flat_map_iter(|a| b.chunks_exact(dim).map(move |b| cost(a, b))).collect()
        };
        let costs = table(a, b);
        let transposed: Vec<f64> = (0..m).flat_map(|j| costs.iter().skip(j).step_by(m).copied()).collect();
        let (mut f, mut g) = (vec![0.0; n], vec![0.0; m]);
        for _ in 0..ITERATIONS {
            let next_g = update(&transposed, &f);
            let next_f = update(&costs, &next_g);
            let change = f.iter().zip(&next_f).fold(0.0_f64, |c, (old, new)| c.max((old - new).abs()));
            (f, g) = (next_f, next_g);
            if change < TOLERANCE {
                break;
            }
        }
        let value = f.iter().sum::<f64>() / n as f64 + g.iter().sum::<f64>() / m as f64;
        Self { value, costs, f, g }
    }

    /// Σ_j π_ij · ∂c(a_i, b_j)/∂a_i, with π_ij = exp((f_i + g_j − c_ij)/ε)/(nm).
    fn gradient(&self, a: &[f32], b: &[f32], dim: usize, bandwidth: f64) -> Vec<f64> {
        let (n, m) = (self.f.len(), self.g.len());
        let row = |i: usize| {
            let (from, costs) = (&a[i * dim..(i + 1) * dim], &self.costs[i * m..(i + 1) * m]);
            let mut sums = vec![0.0; dim];
            for ((to, cost), g) in b.chunks_exact(dim).zip(costs).zip(&self.g) {
                let share = ((self.f[i] + g - cost) / EPSILON).exp() / (n * m) as f64;
                for ((sum, a), b) in sums.iter_mut().zip(from).zip(to) {
                    *sum += share * 2.0 * (f64::from(*a) - f64::from(*b)) / bandwidth;
                }
            }
            sums
        };
        (0..n).into_par_iter().flat_map_iter(row).collect()
    }
}

/// −ε log mean_j exp((g_j − c_ij)/ε) for each row i of the costs.
fn update(costs: &[f64], g: &[f64]) -> Vec<f64> {
    let row = |costs: &[f64]| {
        let largest = g.iter().zip(costs).fold(f64::NEG_INFINITY, |m, (g, c)| m.max(g - c));
        let sum: f64 = g.iter().zip(costs).map(|(g, c)| ((g - c - largest) / EPSILON).exp()).sum();
        -largest - EPSILON * (sum / g.len() as f64).ln()
    };
    costs.par_chunks_exact(g.len()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Prior;
    use crate::objective::sample;

    /// Far points, C = 1: the plan joins neighbours, 0 with 0.5 and 10 with 10.5, so that S is 0.25 up to ε.
    #[test]
    fn far_points_meet_their_neighbours() {
        let (value, gradient) = value_and_gradient(&[0.0, 10.0], &[10.5, 0.5], 1, 1.0);
        assert!((value - 0.25).abs() < 1e-6, "{value}");
        assert!(gradient.iter().all(|g| (g + 0.5).abs() < 1e-6), "2·(0 − 0.5)/n: {gradient:?}");
    }

    #[test]
    fn a_sample_is_at_no_distance_from_itself() {
        let q = sample(Prior::default(), 40, 3, 1);
        let (value, gradient) = value_and_gradient(&q, &q, 3, 6.0);
        assert!(value.abs() < 1e-9 && gradient.iter().all(|g| g.abs() < 1e-6));
    }

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let (q, p) = (sample(Prior::default(), 6, 3, 1), sample(Prior::default(), 6, 3, 2));
        let (_, gradient) = value_and_gradient(&q, &p, 3, 6.0);
        for i in 0..q.len() {
            let shifted = |h: f32| {
                let mut q = q.clone();
                q[i] += h;
                (f64::from(q[i]), value(&q, &p, 3, 6.0))
            };
            let ((low, below), (high, above)) = (shifted(-1e-2), shifted(1e-2));
            let numeric = (above - below) / (high - low);
            assert!((numeric - f64::from(gradient[i])).abs() < 1e-3, "{i}: {numeric}, {}", gradient[i]);
        }
    }
}
