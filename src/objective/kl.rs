//! Terms of a Gaussian encoder N(μ, diag exp(v)), v the log-variances.
//!
//! ```text
//! KL(N(μ, diag exp(v)) ‖ N(0, σ_z² I)) = ½ Σ_d [μ_d²/σ_z² + exp(v_d)/σ_z² − 1 − v_d + log σ_z²]
//! penalty                              = Σ_d |v_d|
//! ```
//!
//! Both are means over images. KL is the regulariser of the variational auto-encoder; the penalty keeps the variances
//! of other objectives from vanishing, as nothing else in them asks for noise.
//!
//! # Source
//! Kingma and Welling, ICLR 2014, appendix B; Rubenstein, Schölkopf and Tolstikhin, arXiv 1802.03761;
//! `golden/reference.py`, `kl`.

use candle_core::Tensor;

use super::widest;
use crate::error::Result;

/// KL, mean over n images; `scale` is σ_z.
///
/// # Shapes
/// means (n, d) and log-variances (n, d) → ().
pub(crate) fn divergence(means: &Tensor, log_variances: &Tensor, scale: f64) -> Result<Tensor> {
    let variance = scale * scale;
    let log_variances = widest(log_variances)?;
    let squares = (widest(means)?.sqr()? + log_variances.exp()?)?; // (n, d)
    let terms = (squares.affine(1.0 / variance, variance.ln() - 1.0)? - log_variances)?; // (n, d)
    mean_of_sums(&terms.affine(0.5, 0.0)?)
}

/// Σ_d |v_d|, mean over n images; its derivative at 0 is 0.
///
/// # Shapes
/// (n, d) → ().
pub(crate) fn penalty(log_variances: &Tensor) -> Result<Tensor> {
    let v = widest(log_variances)?;
    // |v| = v · sign(v), as the derivative of candle's own at 0 is 1.
    mean_of_sums(&(&v * v.detach().sign()?)?)
}

/// The mean over rows of each row's sum.
fn mean_of_sums(x: &Tensor) -> Result<Tensor> {
    Ok((x.sum_all()? / x.dim(0)? as f64)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{check_gradient, normal, number, tensor, value_and_gradient};

    /// N(0, σ²) against itself is 0; N(σ, σ²) is ½ a dimension.
    #[test]
    fn by_hand() {
        let v = tensor(&[2.25_f32.ln(); 2], 2);
        let zeros = tensor(&[0.0, 0.0], 2);
        let (value, gradient) = value_and_gradient(|means| divergence(means, &v, 1.5), &zeros);
        assert!(value.abs() < 1e-7 && gradient.iter().all(|g| g.abs() < 1e-7));
        let (_, gradient) = value_and_gradient(|v| divergence(&zeros, v, 1.5), &v);
        assert!(gradient.iter().all(|g| g.abs() < 1e-7));
        let (value, gradient) = value_and_gradient(|means| divergence(means, &v, 1.5), &tensor(&[1.5, -1.5], 2));
        assert!((value - 1.0).abs() < 1e-6);
        assert!((gradient[0] - 1.0 / 1.5).abs() < 1e-6 && (gradient[1] + 1.0 / 1.5).abs() < 1e-6);
    }

    /// KL is large for a variance that vanishes: it is never cut off at 0.
    #[test]
    fn a_vanishing_variance_costs() {
        let (value, gradient) = value_and_gradient(|v| divergence(&tensor(&[0.0], 1), v, 1.0), &tensor(&[-20.0], 1));
        assert!((value - 9.5).abs() < 1e-6 && (gradient[0] + 0.5).abs() < 1e-6);
    }

    #[test]
    fn the_penalty_is_a_sum_over_dimensions_and_a_mean_over_images() {
        let (value, gradient) = value_and_gradient(penalty, &tensor(&[-2.0, 1.0, 0.0, 3.0], 2));
        assert_eq!(value, 3.0);
        assert_eq!(gradient, [-0.5, 0.5, 0.0, 0.5]);
        assert!(number(&penalty(&tensor(&[f32::NAN, 1.0], 2)).unwrap()).is_nan());
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let means = normal(4, 3, 1);
        let log_variances = normal(4, 3, 2);
        check_gradient(|means| divergence(means, &log_variances, 1.5), &means);
        check_gradient(|v| divergence(&means, v, 1.5), &log_variances);
        check_gradient(penalty, &log_variances);
    }
}
