//! Attention of all tokens of an image to one another, and the norm of a token.
//!
//! ```text
//! A = softmax(Q·Kᵀ/√d)·V          softmax(s)_i = exp(s_i − max s) / Σ_j exp(s_j − max s)
//! ```
//!
//! Where: Q, K and V are the (T, d) queries, keys and values of one head.

use rayon::prelude::*;

use super::backend::{Work, backend, dispatch};
use super::convolution::{DownWeights, UpWeights};
use super::gather::Epilogue;
use super::geometry::Geometry;
use super::nonlinearity::exp_of_negative;

/// Queries whose scores are in memory together.
const QUERIES: usize = 512;
/// Sums that run side by side.
const LANES: usize = 16;
/// Tokens a task.
const TOKENS: usize = 64;

/// Queries, keys and values (N, T, 3, heads, d) → (N, T, heads·d).
///
/// # Panics
/// If the values are no whole number of images.
pub(crate) fn attention(qkv: &[f32], tokens: usize, heads: usize, depth: usize) -> Vec<f32> {
    let width = heads * depth;
    let image = tokens * 3 * width;
    assert!(image > 0 && qkv.len().is_multiple_of(image), "values of an attention");
    let images = qkv.len() / image;
    let heads_of_images: Vec<Vec<f32>> = (0..images * heads)
        .into_par_iter()
        .map(|task| {
            let qkv = &qkv[task / heads * image..][..image];
            head(|part| part_of(qkv, (part * heads + task % heads) * depth, 3 * width, depth), tokens, depth)
        })
        .collect();
    let mut out = vec![0.0; images * tokens * width];
    out.par_chunks_mut(width).enumerate().for_each(|(row, out)| {
        let heads = &heads_of_images[row / tokens * heads..];
        for (out, head) in out.chunks_exact_mut(depth).zip(heads) {
            out.copy_from_slice(&head[row % tokens * depth..][..depth]);
        }
    });
    out
}

/// The values of one head's queries, keys or values: `depth` of each token's `stride`, from `first` on.
fn part_of(qkv: &[f32], first: usize, stride: usize, depth: usize) -> Vec<f32> {
    let mut part = Vec::with_capacity(qkv.len() / stride * depth);
    qkv.chunks_exact(stride).for_each(|token| part.extend_from_slice(&token[first..first + depth]));
    part
}

/// The attention of one head: (T, d).
fn head(part: impl Fn(usize) -> Vec<f32>, tokens: usize, depth: usize) -> Vec<f32> {
    let scale = 1.0 / (depth as f32).sqrt();
    let mut queries = part(0);
    queries.iter_mut().for_each(|q| *q *= scale);
    // Keys are the weights of a layer from d values to T, and values those of one from T to d.
    let keys = UpWeights::new(Geometry::linear(tokens, depth), &part(1), None);
    let values = DownWeights::new(Geometry::linear(tokens, depth), &part(2), None);
    let mut out = Vec::with_capacity(tokens * depth);
    for queries in queries.chunks(QUERIES * depth) {
        let mut scores = keys.apply(queries, Epilogue::default());
        dispatch(backend(), Softmax { scores: &mut scores, tokens });
        out.extend(values.apply(&scores, Epilogue::default()));
    }
    out
}

struct Softmax<'a> {
    scores: &'a mut [f32],
    tokens: usize,
}

impl Work for Softmax<'_> {
    #[inline(always)]
    fn run(self) {
        for scores in self.scores.chunks_exact_mut(self.tokens) {
            let largest = largest(scores);
            scores.iter_mut().for_each(|s| *s = exp_of_negative(*s - largest));
            let scale = 1.0 / sum(scores, |s| s);
            scores.iter_mut().for_each(|s| *s *= scale);
        }
    }
}

/// The largest value, in [`LANES`] maxima side by side.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let larger = |m: f32, v: f32| if v > m { v } else { m };
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            maxima[lane] = larger(maxima[lane], chunk[lane]);
        }
    }
    maxima.iter().chain(rest).fold(f32::NEG_INFINITY, |m, v| larger(m, *v))
}

/// The sum of f(x), in [`LANES`] sums side by side.
#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += f(chunk[lane]);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|v| f(*v)).sum::<f32>()
}

/// `y = γ·(x − μ)/√(σ² + ε) + β` on (…, C), with the mean and the biased variance of each token's C values.
///
/// # Panics
/// If lengths disagree.
pub(crate) fn layer_norm(x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32) -> Vec<f32> {
    let channels = gamma.len();
    assert!(channels > 0 && x.len().is_multiple_of(channels) && beta.len() == channels, "channels of a norm");
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(TOKENS * channels).zip(x.par_chunks(TOKENS * channels)).for_each(|(out, x)| {
        dispatch(backend(), LayerNorm { x, gamma, beta, epsilon, out });
    });
    out
}

struct LayerNorm<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    epsilon: f32,
    out: &'a mut [f32],
}

impl Work for LayerNorm<'_> {
    #[inline(always)]
    fn run(self) {
        let channels = self.gamma.len();
        let count = channels as f32;
        for (out, x) in self.out.chunks_exact_mut(channels).zip(self.x.chunks_exact(channels)) {
            let mean = sum(x, |v| v) / count;
            let variance = sum(x, |v| (v - mean) * (v - mean)) / count;
            let scale = 1.0 / (variance + self.epsilon).sqrt();
            let parameters = self.gamma.iter().zip(self.beta);
            for ((out, x), (gamma, beta)) in out.iter_mut().zip(x).zip(parameters) {
                *out = (x - mean) * scale * gamma + beta;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{relative_error, values};
    use super::*;

    /// Two tokens with one head of one value: queries (0, ln 3), keys (0, 1), values (2, 6). The first query sees both
    /// alike, the second the second key three times as much.
    #[test]
    fn attention_by_hand() {
        let y = attention(&[0.0, 0.0, 2.0, 3.0_f32.ln(), 1.0, 6.0], 2, 1, 1);
        assert!((y[0] - 4.0).abs() < 1e-6 && (y[1] - 5.0).abs() < 1e-6, "{y:?}");
    }

    #[test]
    fn attention_agrees_with_the_definition() {
        let images = 2;
        let tokens = 530;
        let heads = 2;
        let depth = 5;
        let qkv = values(images * tokens * 3 * heads * depth, 1);
        let at = |n: usize, t: usize, part: usize, h: usize, i: usize| {
            f64::from(qkv[(((n * tokens + t) * 3 + part) * heads + h) * depth + i])
        };
        let mut expected = Vec::new();
        for row in 0..images * tokens {
            let n = row / tokens;
            let t = row % tokens;
            for h in 0..heads {
                let score = |u: usize| (0..depth).map(|i| at(n, t, 0, h, i) * at(n, u, 1, h, i)).sum::<f64>();
                let weights: Vec<f64> = (0..tokens).map(|u| (score(u) / (depth as f64).sqrt()).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let value = |i: usize| (0..tokens).map(|u| weights[u] * at(n, u, 2, h, i)).sum::<f64>() / sum;
                expected.extend((0..depth).map(value));
            }
        }
        assert!(relative_error(&attention(&qkv, tokens, heads, depth), &expected) < 1e-5);
    }

    /// 1 and 3 have the mean 2 and the variance 1.
    #[test]
    fn layer_norm_by_hand() {
        let y = layer_norm(&[1.0, 3.0, 5.0, 5.0], &[2.0, 1.0], &[0.5, -1.0], 1e-6);
        let expected = [-1.5, 0.0, 0.5, -1.0];
        assert!(y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{y:?}");
        let wide: Vec<f32> = (0..19_u8).map(f32::from).collect();
        let y = layer_norm(&wide, &[1.0; 19], &[0.0; 19], 0.0);
        assert!((y[18] - 9.0 / 30.0_f32.sqrt()).abs() < 1e-6, "(19² − 1)/12 is the variance of 0..19: {y:?}");
    }
}
