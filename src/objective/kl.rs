//! Terms of a Gaussian encoder N(μ, diag exp(v)), v the log-variances.
//!
//! ```text
//! KL(N(μ, diag exp(v)) ‖ N(0, σ_z² I)) = ½ Σ_d [μ_d²/σ_z² + exp(v_d)/σ_z² − 1 − v_d + log σ_z²]
//! penalty                              = Σ_d |v_d|
//! ```
//!
//! Both are means over images. KL is the regulariser of the variational auto-encoder; the penalty keeps the variances of
//! other objectives from vanishing, as nothing else in them asks for noise.
//!
//! # Source
//! Kingma and Welling, ICLR 2014, appendix B; Rubenstein, Schölkopf and Tolstikhin, arXiv 1802.03761;
//! `golden/reference.py`, `kl`.

/// KL, mean over n images, and its gradient by the head's output.
///
/// # Shapes
/// means and log-variances (n, 2d), a row's means first → () and (n, 2d).
pub(crate) fn divergence(head: &[f32], dim: usize, scale: f64) -> (f64, Vec<f32>) {
    let (n, variance) = ((head.len() / (2 * dim)) as f64, scale * scale);
    let (mut value, mut gradient) = (0.0, Vec::with_capacity(head.len()));
    for row in head.chunks_exact(2 * dim) {
        let (means, log_variances) = row.split_at(dim);
        for mean in means {
            let mean = f64::from(*mean);
            value += 0.5 * mean * mean / variance;
            gradient.push((mean / variance / n) as f32);
        }
        for v in log_variances {
            let v = f64::from(*v);
            let ratio = v.exp() / variance;
            value += 0.5 * (ratio - 1.0 - v + variance.ln());
            gradient.push((0.5 * (ratio - 1.0) / n) as f32);
        }
    }
    (value / n, gradient)
}

/// Σ_d |v_d|, mean over n images, and its gradient by the head's output.
///
/// # Shapes
/// As [`divergence`].
pub(crate) fn penalty(head: &[f32], dim: usize) -> (f64, Vec<f32>) {
    let n = (head.len() / (2 * dim)) as f64;
    let (mut value, mut gradient) = (0.0, vec![0.0; head.len()]);
    for (row, gradient) in head.chunks_exact(2 * dim).zip(gradient.chunks_exact_mut(2 * dim)) {
        for (v, gradient) in row.iter().zip(gradient).skip(dim) {
            value += f64::from(v.abs());
            // At 0 the derivative is 0.
            *gradient = if *v == 0.0 { 0.0 } else { v.signum() / n as f32 };
        }
    }
    (value / n, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N(0, σ²) against itself is 0; N(σ, σ²) is ½ a dimension.
    #[test]
    fn by_hand() {
        let v = 2.25_f32.ln();
        let (value, gradient) = divergence(&[0.0, 0.0, v, v], 2, 1.5);
        assert!(value.abs() < 1e-7 && gradient.iter().all(|g| g.abs() < 1e-7));
        let (value, gradient) = divergence(&[1.5, -1.5, v, v], 2, 1.5);
        assert!((value - 1.0).abs() < 1e-6);
        assert!((gradient[0] - 1.0 / 1.5).abs() < 1e-6 && (gradient[1] + 1.0 / 1.5).abs() < 1e-6);
    }

    /// KL is large for a variance that vanishes: it is never cut off at 0.
    #[test]
    fn a_vanishing_variance_costs() {
        let (value, gradient) = divergence(&[0.0, -20.0], 1, 1.0);
        assert!((value - 9.5).abs() < 1e-6 && (gradient[1] + 0.5).abs() < 1e-6);
    }

    #[test]
    fn the_penalty_is_a_sum_over_dimensions_and_a_mean_over_images() {
        let (value, gradient) = penalty(&[9.0, 9.0, -2.0, 1.0, 9.0, 9.0, 0.0, 3.0], 2);
        assert_eq!(value, 3.0);
        assert_eq!(gradient, [0.0, 0.0, -0.5, 0.5, 0.0, 0.0, 0.0, 0.5]);
    }
}
