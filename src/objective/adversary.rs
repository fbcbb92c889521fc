//! The losses of WAE-GAN, from a discriminator's logits.
//!
//! ```text
//! discriminator:  (1/n) Σ_i −log D(p_i) − log(1 − D(q_i))
//! encoder:        (1/n) Σ_i −log D(q_i)
//!
//! D(z) = 1/(1 + exp(−t(z))),   or with log p:  1/(1 + exp(−(t(z) + log p(z))))
//! ```
//!
//! Where: q are codes, p draws from the prior, and t(z) is the network's logit. The best logit is log p(z) − log q(z); with
//! log p(z) added, a value a row, the network is left with −log q(z).
//!
//! # Source
//! Paper, algorithm 1 and section 4; `golden/reference.py`, `adversary_losses` and `Adversary`.

/// −log D of a logit: log(1 + exp(−t)), without overflow.
fn softplus_of_minus(t: f64) -> f64 {
    (-t).max(0.0) + (-t.abs()).exp().ln_1p()
}

fn sigmoid(t: f64) -> f64 {
    1.0 / (1.0 + (-t).exp())
}

/// What the encoder minimises, and its derivative by each logit of a code, (n,).
pub(crate) fn encoder_loss(q: &[f32]) -> (f64, Vec<f32>) {
    let n = q.len() as f64;
    let value = q.iter().map(|t| softplus_of_minus(f64::from(*t))).sum::<f64>() / n;
    (value, q.iter().map(|t| (-sigmoid(-f64::from(*t)) / n) as f32).collect())
}

/// What the discriminator minimises, and its derivative by each logit: of the codes, (n,), then of the draws, (n,).
pub(crate) fn discriminator_loss(q: &[f32], p: &[f32]) -> (f64, Vec<f32>) {
    let n = q.len() as f64;
    let of_codes = q.iter().map(|t| softplus_of_minus(-f64::from(*t))).sum::<f64>() / n;
    let (of_draws, by_draw) = encoder_loss(p);
    let by_code = q.iter().map(|t| (sigmoid(f64::from(*t)) / n) as f32);
    (of_codes + of_draws, by_code.chain(by_draw).collect())
}

/// log N(z; 0, σ²I), a value a row.
///
/// `log p(z) = −½ ‖z‖²/σ² − (d/2) log(2πσ²)`
///
/// # Shapes
/// (n, d) → (n,).
pub(crate) fn log_density(z: &[f32], dim: usize, scale: f64) -> Vec<f32> {
    let variance = scale * scale;
    let constant = 0.5 * dim as f64 * (2.0 * std::f64::consts::PI * variance).ln();
    let row = |z: &[f32]| -0.5 * z.iter().map(|z| f64::from(*z).powi(2)).sum::<f64>() / variance - constant;
    z.chunks_exact(dim).map(|z| row(z) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D = ½ everywhere: log 2 for the encoder, twice that for the discriminator.
    #[test]
    fn an_undecided_discriminator() {
        let (value, gradient) = encoder_loss(&[0.0, 0.0]);
        assert!((value - 2_f64.ln()).abs() < 1e-12);
        assert_eq!(gradient, [-0.25, -0.25]);
        let (value, gradient) = discriminator_loss(&[0.0, 0.0], &[0.0, 0.0]);
        assert!((value - 2.0 * 2_f64.ln()).abs() < 1e-12);
        assert_eq!(gradient, [0.25, 0.25, -0.25, -0.25]);
    }

    #[test]
    fn far_logits_are_finite() {
        let (value, gradient) = encoder_loss(&[-1e4, 1e4]);
        assert_eq!((value, gradient), (5e3, vec![-0.5, 0.0]));
    }

    /// The constant has d_z/2 · log 2π, and each row its own density.
    #[test]
    fn log_density_by_hand() {
        let constant = (2.0 * std::f64::consts::PI).ln();
        let got = log_density(&[0.0, 0.0, 3.0, 4.0], 2, 1.0);
        assert!((f64::from(got[0]) + constant).abs() < 1e-6 && (f64::from(got[1]) + 12.5 + constant).abs() < 1e-5);
        let got = log_density(&[3.0, 4.0], 2, 5.0);
        assert!((f64::from(got[0]) + 0.5 + constant + 25_f64.ln()).abs() < 1e-6);
    }
}
