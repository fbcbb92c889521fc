//! From what the encoder puts out to a latent code.
//!
//! ```text
//! deterministic:  z = s(u)
//! gaussian:       z = s(μ + exp(v/2)·e),  e ~ N(0, I);  in scoring  z = s(μ)
//! ```
//!
//! Where: u, or μ and the log-variances v, are the head's output; v is clipped to [−50, 50], with no gradient beyond; s
//! brings a code to where the prior lives (`objective/prior.rs`).
//!
//! # Source
//! The authors' `wae.py`, `__init__`, with `e_noise` 'gaussian'; they take √(1e-8 + exp v).

use super::architecture::head_width;
use crate::config::{Config, EncoderKind, Prior, PriorKind};
use crate::objective::prior;

/// The most that a log-variance may be in size.
const LOG_VARIANCE: f32 = 50.0;

/// How the head's output, (n, head), becomes codes, (n, dim).
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeMap {
    encoder: EncoderKind,
    prior: Prior,
    dim: usize,
    head: usize,
}

/// Codes of a batch in training, in memory.
#[derive(Debug)]
pub(crate) struct MappedCodes {
    /// (n, dim).
    pub(crate) values: Vec<f32>,
    /// The head's output, log-variances clipped, (n, head).
    pub(crate) head: Vec<f32>,
    /// Where a log-variance was clipped.
    clipped: Vec<bool>,
    /// Before the code was brought to where the prior lives, (n, dim).
    free: Vec<f32>,
}

impl CodeMap {
    pub(crate) fn of(config: &Config) -> Self {
        Self { encoder: config.encoder(), prior: config.prior(), dim: config.latent_dim(), head: head_width(config) }
    }

    /// Whether codes are what the head puts out: of a deterministic encoder whose prior lives everywhere.
    pub(crate) fn is_identity(&self) -> bool {
        self.encoder == EncoderKind::Deterministic && self.prior.kind == PriorKind::Normal
    }

    /// Codes for scoring, which are no random numbers.
    pub(crate) fn deterministic(&self, mut head: Vec<f32>) -> Vec<f32> {
        if self.encoder == EncoderKind::Gaussian {
            head = head.chunks_exact(self.head).flat_map(|row| row[..self.dim].iter().copied()).collect();
        }
        prior::to_support(self.prior, self.dim, &mut head);
        head
    }

    /// The head's output with its log-variances clipped, (n, head).
    pub(crate) fn clipped(&self, mut head: Vec<f32>) -> Vec<f32> {
        if self.encoder == EncoderKind::Gaussian {
            let rows = head.chunks_exact_mut(self.head);
            rows.flat_map(|row| &mut row[self.dim..]).for_each(|v| *v = v.clamp(-LOG_VARIANCE, LOG_VARIANCE));
        }
        head
    }

    /// Codes in training; `noise` is e, (n, dim), and is not read for a deterministic encoder.
    pub(crate) fn sampled(&self, mut head: Vec<f32>, noise: &[f32]) -> MappedCodes {
        let mut clipped = vec![false; head.len()];
        let free = match self.encoder {
            EncoderKind::Deterministic => head.clone(),
            EncoderKind::Gaussian => {
                let rows = head.chunks_exact_mut(self.head).zip(clipped.chunks_exact_mut(self.head));
                let mut free = Vec::with_capacity(noise.len());
                for ((row, clipped), noise) in rows.zip(noise.chunks_exact(self.dim)) {
                    let (means, log_variances) = row.split_at_mut(self.dim);
                    for (v, clipped) in log_variances.iter_mut().zip(&mut clipped[self.dim..]) {
                        // NaN stays, so that the loss says so.
                        *clipped = v.abs() > LOG_VARIANCE;
                        *v = v.clamp(-LOG_VARIANCE, LOG_VARIANCE);
                    }
                    let values = means.iter().zip(&*log_variances).zip(noise);
                    free.extend(values.map(|((mean, v), e)| mean + (0.5 * v).exp() * e));
                }
                free
            }
        };
        let mut values = free.clone();
        prior::to_support(self.prior, self.dim, &mut values);
        MappedCodes { values, head, clipped, free }
    }

    /// The gradient by the head's output, (n, head), from those by the codes, (n, dim), and, where there is one, by the
    /// head's clipped output, (n, head).
    pub(crate) fn backward(
        &self,
        codes: &MappedCodes,
        noise: &[f32],
        mut by_code: Vec<f32>,
        by_head: Option<Vec<f32>>,
    ) -> Vec<f32> {
        prior::to_support_gradient(self.prior, self.dim, &codes.free, &mut by_code);
        let mut gradient = match self.encoder {
            EncoderKind::Deterministic => by_code,
            EncoderKind::Gaussian => {
                let rows = by_code.chunks_exact(self.dim).zip(noise.chunks_exact(self.dim));
                let mut gradient = Vec::with_capacity(codes.head.len());
                for ((by_code, noise), head) in rows.zip(codes.head.chunks_exact(self.head)) {
                    gradient.extend(by_code);
                    let by_variance = by_code.iter().zip(noise).zip(&head[self.dim..]);
                    gradient.extend(by_variance.map(|((g, e), v)| g * e * 0.5 * (0.5 * v).exp()));
                }
                gradient
            }
        };
        if let Some(by_head) = by_head {
            gradient.iter_mut().zip(by_head).for_each(|(g, h)| *g += h);
        }
        gradient.iter_mut().zip(&codes.clipped).filter(|(_, clipped)| **clipped).for_each(|(g, _)| *g = 0.0);
        gradient
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::objective::sample;

    fn gaussian(kind: PriorKind) -> CodeMap {
        CodeMap { encoder: EncoderKind::Gaussian, prior: Prior { kind, scale: 1.5 }, dim: 2, head: 4 }
    }

    #[test]
    fn by_hand() {
        let map = gaussian(PriorKind::Normal);
        let head = vec![1.0, 2.0, 0.0, 2.0 * 3_f32.ln()];
        let codes = map.sampled(head.clone(), &[0.5, -1.0]);
        assert!((codes.values[0] - 1.5).abs() < 1e-6 && (codes.values[1] + 1.0).abs() < 1e-5);
        assert_eq!(map.deterministic(head), [1.0, 2.0], "scores use the mean");
    }

    /// After sampling, so that noise cannot take a code off the sphere.
    #[test]
    fn codes_lie_where_the_prior_lives() {
        let codes = gaussian(PriorKind::Sphere).sampled(vec![1.0, 2.0, 0.0, 0.0], &[5.0, -7.0]);
        assert!((codes.values.iter().map(|z| z * z).sum::<f32>().sqrt() - 1.5).abs() < 1e-6);
        let codes = gaussian(PriorKind::Uniform).sampled(vec![1.0, 2.0, 9.0, 9.0], &[5.0, -7.0]);
        assert_eq!(codes.values, [1.5, -1.5]);
    }

    #[test]
    fn log_variances_are_clipped_without_a_gradient_beyond() {
        let map = gaussian(PriorKind::Normal);
        let codes = map.sampled(vec![0.0, 0.0, -80.0, 0.0], &[1.0, 1.0]);
        assert_eq!(codes.head, [0.0, 0.0, -50.0, 0.0]);
        let gradient = map.backward(&codes, &[1.0, 1.0], vec![1.0, 1.0], Some(vec![0.0, 0.0, 7.0, 7.0]));
        assert_eq!(gradient, [1.0, 1.0, 0.0, 7.5]);
    }

    #[rstest]
    #[case(PriorKind::Normal)]
    #[case(PriorKind::Sphere)]
    #[case(PriorKind::Uniform)]
    fn the_gradient_agrees_with_finite_differences(#[case] kind: PriorKind) {
        let map = gaussian(kind);
        let (head, noise) = (sample(Prior::default(), 3, 4, 1), sample(Prior::default(), 3, 2, 2));
        let weights = sample(Prior::default(), 3, 2, 3);
        let value = |head: &[f32]| -> f64 {
            let codes = map.sampled(head.to_vec(), &noise);
            codes.values.iter().zip(&weights).map(|(z, w)| f64::from(*z) * f64::from(*w)).sum()
        };
        let gradient = map.backward(&map.sampled(head.clone(), &noise), &noise, weights.clone(), None);
        for i in 0..head.len() {
            let shifted = |h: f32| {
                let mut head = head.clone();
                head[i] += h;
                (f64::from(head[i]), value(&head))
            };
            let ((low, below), (high, above)) = (shifted(-1e-2), shifted(1e-2));
            let numeric = (above - below) / (high - low);
            assert!((numeric - f64::from(gradient[i])).abs() < 2e-3, "{i}: {numeric}, {}", gradient[i]);
        }
    }
}
