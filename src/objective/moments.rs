//! What the encoder is pre-trained on: the mean and covariance of its codes beside those of the prior.
//!
//! `mean_d (mean(p) − mean(q))_d² + mean_{d,e} (cov(p) − cov(q))_{d,e}²`
//!
//! Where: means are over the d_z values of a code and the d_z² entries of a covariance, which divides by n − 1.
//!
//! # Source
//! The authors' `wae.py`, `pretrain_loss`.

/// The value and its gradient by the codes.
///
/// # Shapes
/// (n, dim) and (m, dim) → () and (n, dim).
pub(crate) fn value_and_gradient(q: &[f32], p: &[f32], dim: usize) -> (f64, Vec<f32>) {
    let (of_codes, of_draws) = (Moments::of(q, dim), Moments::of(p, dim));
    let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
    let (mean, covariance) =
        (difference(&of_codes.mean, &of_draws.mean), difference(&of_codes.covariance, &of_draws.covariance));
    let average = |differences: &[f64]| differences.iter().map(|d| d * d).sum::<f64>() / differences.len() as f64;
    let value = average(&mean) + average(&covariance);
    let (n, d_z) = ((q.len() / dim) as f64, dim as f64);
    let mut gradient = Vec::with_capacity(q.len());
    for row in q.chunks_exact(dim) {
        let centred: Vec<f64> = row.iter().zip(&of_codes.mean).map(|(q, m)| f64::from(*q) - m).collect();
        for d in 0..dim {
            // ∂cov_de/∂q_id = (q_ie − mean_e)/(n − 1), once in row d and once in column d.
            let by_covariance: f64 = centred.iter().zip(&covariance[d * dim..]).map(|(c, g)| c * g).sum();
            gradient.push((2.0 * mean[d] / (n * d_z) + 4.0 * by_covariance / ((n - 1.0) * d_z * d_z)) as f32);
        }
    }
    (value, gradient)
}

struct Moments {
    mean: Vec<f64>,
    covariance: Vec<f64>,
}

impl Moments {
    fn of(x: &[f32], dim: usize) -> Self {
        let n = (x.len() / dim) as f64;
        let mut mean = vec![0.0; dim];
        for row in x.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x) / n);
        }
        let mut covariance = vec![0.0; dim * dim];
        for row in x.chunks_exact(dim) {
            let centred: Vec<f64> = row.iter().zip(&mean).map(|(x, m)| f64::from(*x) - m).collect();
            for (a, line) in centred.iter().zip(covariance.chunks_exact_mut(dim)) {
                line.iter_mut().zip(&centred).for_each(|(c, b)| *c += a * b / (n - 1.0));
            }
        }
        Self { mean, covariance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Prior;
    use crate::objective::sample;

    /// Means 1 and 4, variances 2 and 8: 3² + 6².
    #[test]
    fn by_hand() {
        assert_eq!(value_and_gradient(&[0.0, 2.0], &[2.0, 6.0], 1).0, 45.0);
        // A second value that agrees: half of the squared mean, a quarter of the squared covariance.
        assert_eq!(value_and_gradient(&[0.0, 0.0, 2.0, 0.0], &[2.0, 0.0, 6.0, 0.0], 2).0, 9.0 / 2.0 + 36.0 / 4.0);
        let q = sample(Prior::default(), 20, 3, 1);
        let (value, gradient) = value_and_gradient(&q, &q, 3);
        assert!(value == 0.0 && gradient.iter().all(|g| *g == 0.0));
    }

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let (q, p) = (sample(Prior::default(), 6, 3, 1), sample(Prior::default(), 9, 3, 2));
        let (_, gradient) = value_and_gradient(&q, &p, 3);
        for i in 0..q.len() {
            let shifted = |h: f32| {
                let mut q = q.clone();
                q[i] += h;
                (f64::from(q[i]), value_and_gradient(&q, &p, 3).0)
            };
            let ((low, below), (high, above)) = (shifted(-1e-2), shifted(1e-2));
            let numeric = (above - below) / (high - low);
            assert!((numeric - f64::from(gradient[i])).abs() < 2e-3, "{i}: {numeric}, {}", gradient[i]);
        }
    }
}
