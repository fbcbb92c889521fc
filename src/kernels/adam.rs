//! Adam in one pass over memory.

use rayon::prelude::*;

use super::backend::{Backend, Work, backend, dispatch};

/// Values a task.
const CHUNK: usize = 1 << 14;

/// The numbers of one step of Adam.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    pub(crate) learning_rate: f32,
    /// β and 1 − β: the difference taken in f64, since in f32 that of β₂ = 0.999 is off by 5e-5.
    pub(crate) beta1: (f32, f32),
    pub(crate) beta2: (f32, f32),
    pub(crate) epsilon: f32,
    /// 1 / (1 − β₁ᵗ) and 1 / (1 − β₂ᵗ).
    pub(crate) corrections: (f32, f32),
}

impl AdamStep {
    /// Step `t`, from 1.
    pub fn new(t: u64, learning_rate: f64, beta1: f64, beta2: f64, epsilon: f64) -> Self {
        let correction = |beta: f64| (1.0 / (1.0 - beta.powf(t as f64))) as f32;
        Self {
            learning_rate: learning_rate as f32,
            beta1: (beta1 as f32, (1.0 - beta1) as f32),
            beta2: (beta2 as f32, (1.0 - beta2) as f32),
            epsilon: epsilon as f32,
            corrections: (correction(beta1), correction(beta2)),
        }
    }
}

/// `m ← β₁m + (1 − β₁)g;  v ← β₂v + (1 − β₂)g²;  w ← w − η · m̂ / (√v̂ + ε)`
///
/// Where: m̂ and v̂ are m and v divided by 1 − βᵗ.
///
/// # Source
/// Kingma and Ba, ICLR 2015, algorithm 1.
pub fn adam(step: AdamStep, weights: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32]) {
    adam_on(backend(), step, weights, gradient, m, v);
}

fn adam_on(backend: Backend, step: AdamStep, weights: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32]) {
    assert!([gradient.len(), m.len(), v.len()] == [weights.len(); 3], "values of a step of Adam");
    let gradients = gradient.par_chunks(CHUNK);
    weights
        .par_chunks_mut(CHUNK)
        .zip(gradients)
        .zip(m.par_chunks_mut(CHUNK))
        .zip(v.par_chunks_mut(CHUNK))
        .for_each(|(((weights, gradient), m), v)| dispatch(backend, Chunk { step, weights, gradient, m, v }));
}

struct Chunk<'a> {
    step: AdamStep,
    weights: &'a mut [f32],
    gradient: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl Work for Chunk<'_> {
    #[inline(always)]
    fn run(self) {
        let s = self.step;
        for (((w, g), m), v) in self.weights.iter_mut().zip(self.gradient).zip(self.m).zip(self.v) {
            *m = s.beta1.0 * *m + s.beta1.1 * g;
            *v = s.beta2.0 * *v + s.beta2.1 * g * g;
            *w -= s.learning_rate * (*m * s.corrections.0) / ((*v * s.corrections.1).sqrt() + s.epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first step moves each weight by the learning rate against its gradient's sign, whatever the gradient's size.
    #[test]
    fn first_and_second_step_by_hand() {
        for backend in Backend::available() {
            let (mut w, mut m, mut v) = (vec![1.0, 1.0, 1.0], vec![0.0; 3], vec![0.0; 3]);
            adam_on(backend, AdamStep::new(1, 0.1, 0.5, 0.999, 1e-8), &mut w, &[4.0, -0.01, 0.0], &mut m, &mut v);
            assert_eq!(m, [2.0, -0.005, 0.0]);
            for (w, expected) in w.iter().zip([0.9, 1.1, 1.0]) {
                assert!((w - expected).abs() < 1e-5, "{w} {expected}");
            }
            // m̂ = (½·2 + ½·0) / (1 − ¼) = 4/3; v̂ = 0.999·0.016 / (1 − 0.998001) ≈ 7.996
            adam_on(backend, AdamStep::new(2, 0.1, 0.5, 0.999, 1e-8), &mut w, &[0.0; 3], &mut m, &mut v);
            assert!((w[0] - (0.9 - 0.1 * (4.0 / 3.0) / 7.996_f32.sqrt())).abs() < 1e-4, "{}", w[0]);
        }
    }
}
