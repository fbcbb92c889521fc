//! The map from the encoder's output to a latent code.
//!
//! ```text
//! deterministic:  z = s(u)
//! gaussian:       z = s(μ + exp(v/2)·e),  e ~ N(0, I);  in scoring  z = s(μ)
//! ```
//!
//! Where: u, or μ and the log-variances v, are the head's output; v is clipped to [−50, 50], with no gradient beyond; s
//! brings a code to the prior's support (`objective/prior.rs`).
//!
//! # Source
//! The authors' `wae.py`, `__init__`, with `e_noise` 'gaussian'; they take √(1e-8 + exp v).

use candle_core::{Device, Tensor};

use crate::architecture::head_width;
use crate::config::{Config, EncoderKind, Prior, PriorKind};
use crate::error::Result;
use crate::objective::prior;

/// The largest size of a log-variance.
const LOG_VARIANCE: f32 = 50.0;

/// The map of the head's output, (n, head), to codes, (n, dim).
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeMap {
    encoder: EncoderKind,
    prior: Prior,
    dim: usize,
    head: usize,
}

/// Codes of a batch.
#[derive(Debug)]
pub(crate) struct Codes {
    /// (n, dim).
    pub(crate) codes: Tensor,
    /// The distributions of a Gaussian encoder's codes.
    pub(crate) gaussian: Option<Gaussian>,
}

/// Gaussian distributions of codes, before the map to the prior's support.
#[derive(Debug)]
pub(crate) struct Gaussian {
    /// (n, dim).
    pub(crate) means: Tensor,
    /// Clipped to [−50, 50], (n, dim).
    pub(crate) log_variances: Tensor,
}

impl CodeMap {
    pub(crate) fn of(config: &Config) -> Self {
        Self { encoder: config.encoder(), prior: config.prior(), dim: config.latent_dim(), head: head_width(config) }
    }

    /// Whether codes are the head's output as it is: for a deterministic encoder and the normal prior.
    pub(crate) fn is_identity(&self) -> bool {
        self.encoder == EncoderKind::Deterministic && self.prior.kind == PriorKind::Normal
    }

    /// Codes of the head's output, differentiable by it. `noise` is e, which a deterministic encoder does not read;
    /// without it, in scoring, a Gaussian encoder's code is its mean.
    ///
    /// # Shapes
    /// head (n, head) and noise (n, dim) → codes (n, dim).
    pub(crate) fn codes(&self, head: &Tensor, noise: Option<&Tensor>) -> Result<Codes> {
        if self.encoder == EncoderKind::Deterministic {
            return Ok(Codes { codes: prior::to_support(self.prior, head)?, gaussian: None });
        }
        let means = head.narrow(1, 0, self.dim)?.contiguous()?;
        let log_variances = clipped(&head.narrow(1, self.dim, self.dim)?.contiguous()?)?;
        let free = match noise {
            Some(noise) => (&means + ((&log_variances * 0.5)?.exp()? * noise)?)?,
            None => means.clone(),
        };
        let codes = prior::to_support(self.prior, &free)?;
        Ok(Codes { codes, gaussian: Some(Gaussian { means, log_variances }) })
    }

    /// Codes for scoring, from the head's output in memory. They are not sampled.
    pub(crate) fn deterministic(&self, head: Vec<f32>) -> Result<Vec<f32>> {
        if self.is_identity() {
            return Ok(head);
        }
        let head = Tensor::from_vec(head, ((), self.head), &Device::Cpu)?;
        Ok(self.codes(&head, None)?.codes.flatten_all()?.to_vec1()?)
    }
}

/// Log-variances clipped to [−50, 50], with no gradient beyond. NaN stays, so that the loss says so.
fn clipped(v: &Tensor) -> Result<Tensor> {
    let limits = (v.detach().sign()? * f64::from(LOG_VARIANCE))?;
    let is_beyond = v.detach().abs()?.gt(LOG_VARIANCE)?;
    Ok(is_beyond.where_cond(&limits, v)?)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::objective::tests::{check_gradient, normal, number, numbers, tensor, value_and_gradient};
    use crate::objective::widest;

    fn gaussian(kind: PriorKind) -> CodeMap {
        CodeMap { encoder: EncoderKind::Gaussian, prior: Prior { kind, scale: 1.5 }, dim: 2, head: 4 }
    }

    fn sampled(map: &CodeMap, head: &[f32], noise: &[f32]) -> Vec<f64> {
        numbers(&map.codes(&tensor(head, map.head), Some(&tensor(noise, 2))).unwrap().codes)
    }

    #[test]
    fn by_hand() {
        let map = gaussian(PriorKind::Normal);
        let head = vec![1.0, 2.0, 0.0, 2.0 * 3_f32.ln()];
        let codes = sampled(&map, &head, &[0.5, -1.0]);
        assert!((codes[0] - 1.5).abs() < 1e-6 && (codes[1] + 1.0).abs() < 1e-5);
        assert_eq!(map.deterministic(head).unwrap(), [1.0, 2.0], "scores use the mean");
    }

    #[test]
    fn the_head_of_a_deterministic_encoder() {
        let map = |kind| CodeMap { encoder: EncoderKind::Deterministic, head: 2, ..gaussian(kind) };
        let identity = map(PriorKind::Normal);
        assert!(identity.is_identity());
        assert_eq!(identity.deterministic(vec![3.0, 4.0]).unwrap(), [3.0, 4.0]);
        assert_eq!(sampled(&identity, &[3.0, 4.0], &[9.0, 9.0]), [3.0, 4.0]);
        let sphere = map(PriorKind::Sphere);
        assert!(!sphere.is_identity());
        let codes = sphere.deterministic(vec![3.0, 4.0, 0.0, -2.0]).unwrap();
        assert!(codes.iter().zip([0.9, 1.2, 0.0, -1.5]).all(|(z, expected)| (z - expected).abs() < 1e-6));
        assert!(sphere.deterministic(Vec::new()).unwrap().is_empty());
        assert!(!gaussian(PriorKind::Normal).is_identity());
    }

    /// After sampling, so that noise cannot take a code off the sphere.
    #[test]
    fn codes_lie_where_the_prior_lives() {
        let codes = sampled(&gaussian(PriorKind::Sphere), &[1.0, 2.0, 0.0, 0.0], &[5.0, -7.0]);
        assert!((codes.iter().map(|z| z * z).sum::<f64>().sqrt() - 1.5).abs() < 1e-6);
        assert_eq!(sampled(&gaussian(PriorKind::Uniform), &[1.0, 2.0, 9.0, 9.0], &[5.0, -7.0]), [1.5, -1.5]);
    }

    /// v = (−80, 0): the first is clipped and learns neither from the code nor from a term of its own.
    #[test]
    fn log_variances_are_clipped_without_a_gradient_beyond() {
        let map = gaussian(PriorKind::Normal);
        let ones = tensor(&[1.0, 1.0], 2);
        let head = tensor(&[0.0, 0.0, -80.0, 0.0], 4);
        let codes = map.codes(&head, Some(&ones)).unwrap();
        assert_eq!(numbers(&codes.gaussian.unwrap().log_variances), [-50.0, 0.0]);
        let loss = |head: &Tensor| {
            let codes = map.codes(head, Some(&ones))?;
            let of_head = (codes.gaussian.unwrap().log_variances.sum_all()? * 7.0)?;
            Ok((codes.codes.sum_all()? + of_head)?)
        };
        assert_eq!(value_and_gradient(loss, &head).1, [1.0, 1.0, 0.0, 7.5]);
        let limits = tensor(&[0.0, 0.0, -50.0, 50.0], 4);
        assert_eq!(
            value_and_gradient(|head| Ok(map.codes(head, None)?.gaussian.unwrap().log_variances.sum_all()?), &limits).1,
            [0.0, 0.0, 1.0, 1.0]
        );
    }

    #[test]
    fn a_log_variance_that_is_not_a_number_is_not_hidden() {
        let codes = gaussian(PriorKind::Normal).codes(&tensor(&[0.0, 0.0, f32::NAN, 0.0], 4), None).unwrap();
        assert!(number(&codes.gaussian.unwrap().log_variances.sum_all().unwrap()).is_nan());
    }

    #[rstest]
    #[case(PriorKind::Normal)]
    #[case(PriorKind::Sphere)]
    #[case(PriorKind::Uniform)]
    fn the_gradient_agrees_with_finite_differences(#[case] kind: PriorKind) {
        let map = gaussian(kind);
        let noise = widest(&normal(3, 2, 2)).unwrap();
        let weights = widest(&normal(3, 2, 3)).unwrap();
        check_gradient(|head| Ok((map.codes(head, Some(&noise))?.codes * &weights)?.sum_all()?), &normal(3, 4, 1));
    }
}
