//! The losses of WAE-GAN, from a discriminator's logits.
//!
//! ```text
//! discriminator:  (1/n) Σ_i −log D(p_i) − log(1 − D(q_i))
//! encoder:        (1/n) Σ_i −log D(q_i)
//!
//! D(z) = 1/(1 + exp(−t(z))),   or with log p:  1/(1 + exp(−(t(z) + log p(z))))
//! ```
//!
//! Where: q are codes, p draws from the prior, and t(z) is the network's logit. The best logit is log p(z) − log q(z);
//! with log p(z) added, a value a row, the network is left with −log q(z).
//!
//! # Source
//! Paper, algorithm 1 and section 4; `golden/reference.py`, `adversary_losses` and `Adversary`.

use candle_core::Tensor;

use super::widest;
use crate::error::Result;

/// The encoder's loss, from the logits of the codes.
///
/// # Shapes
/// (n,) → ().
pub(crate) fn encoder_loss(logits_of_codes: &Tensor) -> Result<Tensor> {
    Ok(softplus(&logits_of_codes.neg()?)?.mean_all()?)
}

/// The discriminator's loss, from the logits of codes and of draws.
///
/// # Shapes
/// (n,) and (m,) → ().
pub(crate) fn discriminator_loss(logits_of_codes: &Tensor, logits_of_draws: &Tensor) -> Result<Tensor> {
    Ok((encoder_loss(logits_of_draws)? + softplus(logits_of_codes)?.mean_all()?)?)
}

/// log(1 + exp(t)), without overflow: −log D of a logit is that of −t.
///
/// `m + log(exp(−m) + exp(t − m))`
///
/// Where: m = max(t, 0), a constant, so that the derivative is right at 0 too.
fn softplus(t: &Tensor) -> Result<Tensor> {
    let t = widest(t)?;
    let m = t.detach().relu()?;
    Ok(((m.neg()?.exp()? + (t - &m)?.exp()?)?.log()? + m)?)
}

/// log N(z; 0, σ²I), a value a row.
///
/// `log p(z) = −½ ‖z‖²/σ² − (d/2) log(2πσ²)`
///
/// # Shapes
/// (n, d) → (n,).
pub(crate) fn log_density(z: &Tensor, scale: f64) -> Result<Tensor> {
    let variance = scale * scale;
    let constant = 0.5 * z.dim(1)? as f64 * (2.0 * std::f64::consts::PI * variance).ln();
    Ok(widest(z)?.sqr()?.sum(1)?.affine(-0.5 / variance, -constant)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::objective::tests::{check_gradient, normal, number, numbers, tensor, value_and_gradient};

    fn row(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    /// D = ½ everywhere: log 2 for the encoder, twice that for the discriminator.
    #[test]
    fn an_undecided_discriminator() {
        let (value, gradient) = value_and_gradient(encoder_loss, &row(&[0.0, 0.0]));
        assert!((value - 2_f64.ln()).abs() < 1e-12);
        assert_eq!(gradient, [-0.25, -0.25]);
        let zeros = row(&[0.0, 0.0]);
        let (value, gradient) = value_and_gradient(|q| discriminator_loss(q, &zeros), &zeros);
        assert!((value - 2.0 * 2_f64.ln()).abs() < 1e-12);
        assert_eq!(gradient, [0.25, 0.25]);
        let (_, gradient) = value_and_gradient(|p| discriminator_loss(&zeros, p), &zeros);
        assert_eq!(gradient, [-0.25, -0.25]);
    }

    #[test]
    fn far_logits_are_finite() {
        let (value, gradient) = value_and_gradient(encoder_loss, &row(&[-1e4, 1e4]));
        assert_eq!((value, gradient), (5e3, vec![-0.5, 0.0]));
        assert!(number(&encoder_loss(&row(&[f32::NAN, 0.0])).unwrap()).is_nan());
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let p = normal(6, 1, 2).flatten_all().unwrap();
        check_gradient(encoder_loss, &p);
        check_gradient(|q| discriminator_loss(q, &p), &normal(6, 1, 1).flatten_all().unwrap());
        check_gradient(|z| Ok(log_density(z, 1.5)?.sum_all()?), &normal(3, 2, 3));
    }

    /// The constant has d_z/2 · log 2π, and each row its own density.
    #[test]
    fn log_density_by_hand() {
        let constant = (2.0 * std::f64::consts::PI).ln();
        let got = numbers(&log_density(&tensor(&[0.0, 0.0, 3.0, 4.0], 2), 1.0).unwrap());
        assert!((got[0] + constant).abs() < 1e-12 && (got[1] + 12.5 + constant).abs() < 1e-12);
        let got = numbers(&log_density(&tensor(&[3.0, 4.0], 2), 5.0).unwrap());
        assert!((got[0] + 0.5 + constant + 25_f64.ln()).abs() < 1e-12);
    }
}
