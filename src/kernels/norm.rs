//! Batch norm and ReLU in training: two passes over memory each way.
//!
//! `y = max(0, γ·(x − μ)/√(σ² + ε) + β)`, where μ and σ² are a channel's mean and biased variance over (N, H, W).

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::backend::{Backend, Work, backend, dispatch};
use super::buffer::Output;

/// ε of batch norm: PyTorch's and the authors'.
pub const EPSILON: f64 = 1e-5;
/// Pixels a task: fixed, so that the sums do not depend on the machine.
const PIXELS: usize = 256;

/// A channel's mean and variance over one batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BatchStatistics {
    /// μ, a value a channel.
    pub mean: Vec<f32>,
    /// σ², biased.
    pub variance: Vec<f32>,
    /// 1 / √(σ² + ε).
    pub inverse_deviation: Vec<f32>,
    /// Values a channel.
    pub count: usize,
}

/// (N, H, W, C) → the same, and the batch's statistics.
///
/// # Panics
/// If the values are no multiple of the channels.
pub fn norm_relu(x: &[f32], gamma: &[f32], beta: &[f32]) -> (Vec<f32>, BatchStatistics) {
    norm_relu_on(backend(), x, gamma, beta)
}

fn norm_relu_on(backend: Backend, x: &[f32], gamma: &[f32], beta: &[f32]) -> (Vec<f32>, BatchStatistics) {
    let channels = gamma.len();
    assert!(channels > 0 && x.len().is_multiple_of(channels) && beta.len() == channels, "channels of a norm");
    let statistics = statistics(backend, x, channels);
    let scale: Vec<f32> = gamma.iter().zip(&statistics.inverse_deviation).map(|(g, d)| g * d).collect();
    let shift: Vec<f32> = (0..channels).map(|c| beta[c] - statistics.mean[c] * scale[c]).collect();
    let mut out = Output::new(x.len());
    let chunk = PIXELS * channels;
    out.values().par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(out, x)| {
        dispatch(backend, Apply { x, scale: &scale, shift: &shift, out });
    });
    // SAFETY: chunks cover every value, and `Apply` writes each of a chunk, whose length is a multiple of the channels.
    (unsafe { out.assume_init() }, statistics)
}

/// The gradients of x, γ and β: ReLU lets through where the output is positive (its derivative at 0 is 0).
///
/// ```text
/// e = dy where y > 0, else 0        x̂ = (x − μ)/√(σ² + ε)
/// dβ = Σ e        dγ = Σ e·x̂        dx = γ/√(σ² + ε) · (e − dβ/n − x̂·dγ/n)
/// ```
///
/// # Panics
/// If the three activations, or the statistics and the channels, differ in length.
pub fn norm_relu_gradient(
    x: &[f32],
    out: &[f32],
    gradient: &[f32],
    gamma: &[f32],
    statistics: &BatchStatistics,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    norm_relu_gradient_on(backend(), x, out, gradient, gamma, statistics)
}

fn norm_relu_gradient_on(
    backend: Backend,
    x: &[f32],
    out: &[f32],
    gradient: &[f32],
    gamma: &[f32],
    statistics: &BatchStatistics,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let channels = gamma.len();
    assert!(channels > 0 && x.len().is_multiple_of(channels), "channels of a norm");
    assert!(out.len() == x.len() && gradient.len() == x.len(), "values of a norm's gradient");
    assert!(
        statistics.mean.len() == channels && statistics.inverse_deviation.len() == channels,
        "statistics of a norm"
    );
    let chunk = PIXELS * channels;
    let inputs = || x.par_chunks(chunk).zip(out.par_chunks(chunk)).zip(gradient.par_chunks(chunk));
    let parts: Vec<(Vec<f32>, Vec<f32>)> = inputs()
        .map(|((x, out), gradient)| {
            let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
            dispatch(backend, Sums { x, out, gradient, statistics, dgamma: &mut dgamma, dbeta: &mut dbeta });
            (dgamma, dbeta)
        })
        .collect();
    let (mut dgamma, mut dbeta) = (vec![0.0_f64; channels], vec![0.0_f64; channels]);
    for (part_gamma, part_beta) in parts {
        dgamma.iter_mut().zip(part_gamma).for_each(|(s, v)| *s += f64::from(v));
        dbeta.iter_mut().zip(part_beta).for_each(|(s, v)| *s += f64::from(v));
    }
    let mean_of = |sums: &[f64]| sums.iter().map(|s| (s / statistics.count as f64) as f32).collect::<Vec<f32>>();
    let (mean_gamma, mean_beta) = (mean_of(&dgamma), mean_of(&dbeta));
    let scale: Vec<f32> = gamma.iter().zip(&statistics.inverse_deviation).map(|(g, d)| g * d).collect();
    let mut dx = Output::new(x.len());
    dx.values().par_chunks_mut(chunk).zip(inputs()).for_each(|(dx, ((x, out), gradient))| {
        let means = (mean_gamma.as_slice(), mean_beta.as_slice());
        dispatch(backend, InputGradient { x, out, gradient, statistics, scale: &scale, means, dx });
    });
    let narrow = |sums: Vec<f64>| sums.into_iter().map(|v| v as f32).collect();
    // SAFETY: chunks cover every value, and `InputGradient` writes each of a chunk.
    (unsafe { dx.assume_init() }, narrow(dgamma), narrow(dbeta))
}

/// Mean and variance by chunks, joined in f64 (Chan, Golub and LeVeque 1979), which loses nothing when the mean is
/// large.
fn statistics(backend: Backend, x: &[f32], channels: usize) -> BatchStatistics {
    let parts: Vec<(Vec<f32>, Vec<f32>, usize)> = x
        .par_chunks(PIXELS * channels)
        .map(|x| {
            let (mut mean, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
            dispatch(backend, ChunkMoments { x, mean: &mut mean, squares: &mut squares });
            (mean, squares, x.len() / channels)
        })
        .collect();
    let (mut mean, mut squares, mut count) = (vec![0.0_f64; channels], vec![0.0_f64; channels], 0_usize);
    for (part_mean, part_squares, part_count) in parts {
        let total = (count + part_count) as f64;
        for c in 0..channels {
            let delta = f64::from(part_mean[c]) - mean[c];
            mean[c] += delta * part_count as f64 / total;
            squares[c] += f64::from(part_squares[c]) + delta * delta * count as f64 * part_count as f64 / total;
        }
        count += part_count;
    }
    let variance: Vec<f64> = squares.iter().map(|s| s / count.max(1) as f64).collect();
    BatchStatistics {
        mean: mean.iter().map(|v| *v as f32).collect(),
        inverse_deviation: variance.iter().map(|v| (1.0 / (v + EPSILON).sqrt()) as f32).collect(),
        variance: variance.iter().map(|v| *v as f32).collect(),
        count,
    }
}

/// A chunk's mean and sum of squared deviations from it.
struct ChunkMoments<'a> {
    x: &'a [f32],
    mean: &'a mut [f32],
    squares: &'a mut [f32],
}

impl Work for ChunkMoments<'_> {
    #[inline(always)]
    fn run(self) {
        let channels = self.mean.len();
        for x in self.x.chunks_exact(channels) {
            for (m, x) in self.mean.iter_mut().zip(x) {
                *m += x;
            }
        }
        let count = (self.x.len() / channels) as f32;
        self.mean.iter_mut().for_each(|m| *m /= count);
        for x in self.x.chunks_exact(channels) {
            for ((s, m), x) in self.squares.iter_mut().zip(self.mean.iter()).zip(x) {
                *s += (x - m) * (x - m);
            }
        }
    }
}

struct Apply<'a> {
    x: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    out: &'a mut [MaybeUninit<f32>],
}

impl Work for Apply<'_> {
    #[inline(always)]
    fn run(self) {
        let channels = self.scale.len();
        for (out, x) in self.out.chunks_exact_mut(channels).zip(self.x.chunks_exact(channels)) {
            for (((out, x), scale), shift) in out.iter_mut().zip(x).zip(self.scale).zip(self.shift) {
                let y = x * scale + shift;
                // Not `f32::max`, which would turn a NaN into 0 and hide that training has diverged.
                out.write(if y < 0.0 { 0.0 } else { y });
            }
        }
    }
}

struct Sums<'a> {
    x: &'a [f32],
    out: &'a [f32],
    gradient: &'a [f32],
    statistics: &'a BatchStatistics,
    dgamma: &'a mut [f32],
    dbeta: &'a mut [f32],
}

impl Work for Sums<'_> {
    #[inline(always)]
    fn run(self) {
        let channels = self.dgamma.len();
        let (mean, inverse) = (&self.statistics.mean[..channels], &self.statistics.inverse_deviation[..channels]);
        let rows = self.x.chunks_exact(channels).zip(self.out.chunks_exact(channels));
        for ((x, out), gradient) in rows.zip(self.gradient.chunks_exact(channels)) {
            let (dgamma, dbeta) = (&mut self.dgamma[..channels], &mut self.dbeta[..channels]);
            for c in 0..channels {
                let e = if out[c] > 0.0 { gradient[c] } else { 0.0 };
                dbeta[c] += e;
                dgamma[c] += e * ((x[c] - mean[c]) * inverse[c]);
            }
        }
    }
}

struct InputGradient<'a> {
    x: &'a [f32],
    out: &'a [f32],
    gradient: &'a [f32],
    statistics: &'a BatchStatistics,
    scale: &'a [f32],
    /// dγ/n and dβ/n.
    means: (&'a [f32], &'a [f32]),
    dx: &'a mut [MaybeUninit<f32>],
}

impl Work for InputGradient<'_> {
    #[inline(always)]
    fn run(self) {
        let channels = self.scale.len();
        let (mean, inverse) = (&self.statistics.mean[..channels], &self.statistics.inverse_deviation[..channels]);
        let (mean_gamma, mean_beta) = (&self.means.0[..channels], &self.means.1[..channels]);
        let rows = self.x.chunks_exact(channels).zip(self.out.chunks_exact(channels));
        let rows = rows.zip(self.gradient.chunks_exact(channels)).zip(self.dx.chunks_exact_mut(channels));
        for (((x, out), gradient), dx) in rows {
            for c in 0..channels {
                let e = if out[c] > 0.0 { gradient[c] } else { 0.0 };
                dx[c].write(self.scale[c] * (e - mean_beta[c] - (x[c] - mean[c]) * inverse[c] * mean_gamma[c]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_channels_by_hand() {
        // channel 0: 1, 3 (mean 2, variance 1); channel 1: 5, 5 (variance 0)
        for backend in Backend::available() {
            let (out, statistics) = norm_relu_on(backend, &[1.0, 5.0, 3.0, 5.0], &[2.0, 1.0], &[0.5, -1.0]);
            assert_eq!((statistics.mean, statistics.variance), (vec![2.0, 5.0], vec![1.0, 0.0]));
            for (v, expected) in out.iter().zip([0.0, 0.0, 2.5, 0.0]) {
                assert!((v - expected).abs() < 1e-4, "{out:?}");
            }
        }
    }

    #[test]
    fn a_large_mean_costs_no_precision() {
        let x: Vec<f32> = (0..1000).map(|i| 4096.0 + (i % 2) as f32).collect();
        let statistics = statistics(backend(), &x, 1);
        assert_eq!((statistics.mean[0], statistics.variance[0]), (4096.5, 0.25));
    }

    #[test]
    fn not_a_number_is_not_hidden() {
        let (out, _) = norm_relu_on(backend(), &[f32::NAN, 1.0], &[1.0], &[0.0]);
        assert!(out[0].is_nan());
    }

    /// Central differences of Σ w·y with random weights, away from ReLU's kink.
    #[test]
    fn gradients_agree_with_finite_differences() {
        let channels = 3;
        let x: Vec<f32> = (0..30).map(|i| ((i * 37 % 23) as f32 / 7.0).sin() * 2.0).collect();
        let (gamma, beta) = (vec![0.7, -1.2, 1.5], vec![0.3, 0.1, -0.2]);
        let weights: Vec<f32> = (0..30).map(|i| ((i * 11 % 17) as f32 / 5.0).cos()).collect();
        let loss = |x: &[f32], gamma: &[f32], beta: &[f32]| -> f64 {
            let (y, _) = norm_relu(x, gamma, beta);
            y.iter().zip(&weights).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
        };
        for backend in Backend::available() {
            let (out, statistics) = norm_relu_on(backend, &x, &gamma, &beta);
            let (dx, dgamma, dbeta) = norm_relu_gradient_on(backend, &x, &out, &weights, &gamma, &statistics);
            let h = 1e-2;
            let shifted = |v: &[f32], i: usize, h: f32| {
                let mut v = v.to_vec();
                v[i] += h;
                v
            };
            for i in 0..channels {
                let numeric =
                    (loss(&x, &shifted(&gamma, i, h), &beta) - loss(&x, &shifted(&gamma, i, -h), &beta)) / 0.02;
                assert!((numeric - f64::from(dgamma[i])).abs() < 2e-2, "dgamma {i}: {numeric} {}", dgamma[i]);
                let numeric =
                    (loss(&x, &gamma, &shifted(&beta, i, h)) - loss(&x, &gamma, &shifted(&beta, i, -h))) / 0.02;
                assert!((numeric - f64::from(dbeta[i])).abs() < 2e-2, "dbeta {i}: {numeric} {}", dbeta[i]);
            }
            for i in (0..30).filter(|i| out[*i] == 0.0 || out[*i] > 0.05) {
                let numeric =
                    (loss(&shifted(&x, i, 1e-3), &gamma, &beta) - loss(&shifted(&x, i, -1e-3), &gamma, &beta)) / 2e-3;
                assert!((numeric - f64::from(dx[i])).abs() < 2e-2, "dx {i}: {numeric} {}", dx[i]);
            }
        }
    }
}
