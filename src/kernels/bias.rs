//! A bias and an activation.

use rayon::prelude::*;

/// Rows a task: fixed, so that the sums do not depend on the machine.
const ROWS: usize = 256;
/// Values a task where no sums are taken.
const CHUNK: usize = 1 << 13;

/// x ← 1 / (1 + exp(−x)).
pub(crate) fn sigmoid(values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|v| *v = 1.0 / (1.0 + (-*v).exp())));
}

/// Adds a bias to each row of (rows, channels).
pub(crate) fn add_bias(values: &mut [f32], bias: &[f32]) {
    values.par_chunks_mut(ROWS * bias.len()).for_each(|chunk| {
        chunk.chunks_exact_mut(bias.len()).for_each(|row| row.iter_mut().zip(bias).for_each(|(v, b)| *v += b));
    });
}

/// x ← max(0, x); NaN stays.
pub(crate) fn relu(values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|v| *v = if *v < 0.0 { 0.0 } else { *v }));
}

/// Sums (rows, channels) over rows, in f64 beyond a chunk: the gradient of a bias.
pub(crate) fn sum_rows(values: &[f32], channels: usize) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = values
        .par_chunks(ROWS * channels)
        .map(|chunk| {
            let mut sum = vec![0.0; channels];
            chunk.chunks_exact(channels).for_each(|row| sum.iter_mut().zip(row).for_each(|(s, v)| *s += v));
            sum
        })
        .collect();
    let mut sum = vec![0.0_f64; channels];
    for part in parts {
        sum.iter_mut().zip(part).for_each(|(s, v)| *s += f64::from(v));
    }
    sum.into_iter().map(|v| v as f32).collect()
}

/// The gradient before an activation, from the one after it and the activation's output: g·[y > 0].
pub(crate) fn relu_gradient(output: &[f32], gradient: &mut [f32]) {
    each_pair(output, gradient, |y, g| if y > 0.0 { g } else { 0.0 });
}

/// As [`relu_gradient`]: g·y·(1 − y).
pub(crate) fn sigmoid_gradient(output: &[f32], gradient: &mut [f32]) {
    each_pair(output, gradient, |y, g| g * y * (1.0 - y));
}

fn each_pair(output: &[f32], gradient: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    gradient.par_chunks_mut(CHUNK).zip(output.par_chunks(CHUNK)).for_each(|(gradient, output)| {
        gradient.iter_mut().zip(output).for_each(|(g, y)| *g = f(*y, *g));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let mut x = vec![-1.0, 0.0, 2.0, -3.0];
        add_bias(&mut x, &[1.0, 0.5]);
        assert_eq!(x, [0.0, 0.5, 3.0, -2.5]);
        relu(&mut x);
        assert_eq!(x, [0.0, 0.5, 3.0, 0.0]);
        assert_eq!(sum_rows(&x, 2), [3.0, 0.5]);
        let mut g = vec![1.0; 4];
        relu_gradient(&x, &mut g);
        assert_eq!(g, [0.0, 1.0, 1.0, 0.0], "the derivative of ReLU at 0 is 0");
        let mut y = vec![0.0, 1000.0, -1000.0];
        sigmoid(&mut y);
        assert_eq!(y, [0.5, 1.0, 0.0]);
        let mut g = vec![4.0; 3];
        sigmoid_gradient(&y, &mut g);
        assert_eq!(g, [1.0, 0.0, 0.0]);
    }

    #[test]
    fn relu_keeps_not_a_number() {
        let mut x = vec![f32::NAN];
        relu(&mut x);
        assert!(x[0].is_nan());
    }
}
