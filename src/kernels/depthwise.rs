//! Depthwise convolution: each channel has a window of its own.
//!
//! ```text
//! y[n, i, j, c] = f(b[c] + Σ_{u,v} x[n, s·i + u − top, s·j + v − left, c] · w[u, v, c])
//! ```

use rayon::prelude::*;

use super::backend::{Backend, Work, backend, dispatch};
use super::geometry::Geometry;
use super::nonlinearity::Nonlinearity;

/// Channels that are summed in registers together.
const LANES: usize = 32;

/// (N, H, W, C) → (N, h, w, C), with weights (k, k, C), a shift a channel and a function behind it.
///
/// The geometry's large and small channels are both C.
///
/// # Panics
/// If lengths and geometry disagree.
pub(crate) fn depthwise(g: &Geometry, x: &[f32], weights: &[f32], shift: &[f32], function: Nonlinearity) -> Vec<f32> {
    depthwise_on(backend(), g, x, weights, shift, function)
}

fn depthwise_on(
    backend: Backend,
    g: &Geometry,
    x: &[f32],
    weights: &[f32],
    shift: &[f32],
    function: Nonlinearity,
) -> Vec<f32> {
    let channels = g.large_channels;
    assert!(channels == g.small_channels && shift.len() == channels, "channels of a depthwise convolution");
    assert_eq!(weights.len(), g.taps() * channels, "weights of a depthwise convolution");
    assert!(g.large_len() > 0 && x.len().is_multiple_of(g.large_len()), "images of a depthwise convolution");
    let images = x.len() / g.large_len();
    let mut out = vec![0.0; images * g.small_len()];
    out.par_chunks_mut((g.small.1 * channels).max(1)).enumerate().for_each(|(row, out)| {
        let x = &x[row / g.small.0 * g.large_len()..][..g.large_len()];
        let row = Row { g, x, weights, shift, function, row: row % g.small.0, out };
        match backend {
            Backend::Portable => dispatch(backend, Unfused(row)),
            Backend::Avx2 | Backend::Avx512 => dispatch(backend, Fused(row)),
        }
    });
    out
}

/// A row of an image's output.
struct Row<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    weights: &'a [f32],
    shift: &'a [f32],
    function: Nonlinearity,
    row: usize,
    out: &'a mut [f32],
}

/// A row where a product and a sum are one instruction.
struct Fused<'a>(Row<'a>);

/// A row where they are two: `f32::mul_add` would be a call of a library.
struct Unfused<'a>(Row<'a>);

impl Work for Fused<'_> {
    #[inline(always)]
    fn run(self) {
        self.0.run(f32::mul_add);
    }
}

impl Work for Unfused<'_> {
    #[inline(always)]
    fn run(self) {
        self.0.run(|x, w, sum| x * w + sum);
    }
}

impl Row<'_> {
    #[inline(always)]
    fn run(self, multiply_add: impl Fn(f32, f32, f32) -> f32) {
        let g = self.g;
        let channels = g.large_channels;
        // Where each tap inside the image has its input and its weights.
        let mut taps = Vec::with_capacity(g.taps());
        for (j, out) in self.out.chunks_exact_mut(channels).enumerate() {
            taps.clear();
            for u in 0..g.kernel {
                let Some(y) = inside(self.row * g.stride + u, g.padding.0, g.large.0) else { continue };
                for v in 0..g.kernel {
                    let Some(x) = inside(j * g.stride + v, g.padding.1, g.large.1) else { continue };
                    taps.push(((y * g.large.1 + x) * channels, (u * g.kernel + v) * channels));
                }
            }
            let mut first = 0;
            while first + LANES <= channels {
                let mut sums = [0.0; LANES];
                sums.copy_from_slice(&self.shift[first..first + LANES]);
                for (x, w) in &taps {
                    let x = &self.x[x + first..][..LANES];
                    let w = &self.weights[w + first..][..LANES];
                    for lane in 0..LANES {
                        sums[lane] = multiply_add(x[lane], w[lane], sums[lane]);
                    }
                }
                out[first..first + LANES].copy_from_slice(&sums);
                first += LANES;
            }
            let rest = &mut out[first..];
            rest.copy_from_slice(&self.shift[first..]);
            for (x, w) in &taps {
                let pairs = self.x[x + first..].iter().zip(&self.weights[w + first..]);
                rest.iter_mut().zip(pairs).for_each(|(sum, (x, w))| *sum = multiply_add(*x, *w, *sum));
            }
        }
        self.function.apply_here(self.out);
    }
}

/// The line of the large grid that a tap reads, or `None` on padding.
#[inline(always)]
fn inside(place: usize, padding: usize, size: usize) -> Option<usize> {
    place.checked_sub(padding).filter(|line| *line < size)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::tests::{relative_error, values};
    use super::*;

    /// A 2 × 2 image of one channel under a 3 × 3 window of ones: each place sees all four values.
    #[test]
    fn by_hand() {
        let g = Geometry::padded((2, 2), (1, 1), 3, 1, 1);
        let y = depthwise(&g, &[1.0, 2.0, 3.0, -10.0], &[1.0; 9], &[0.5], Nonlinearity::Identity);
        assert_eq!(y, [-3.5; 4]);
        assert_eq!(depthwise(&g, &[1.0, 2.0, 3.0, -10.0], &[1.0; 9], &[0.5], Nonlinearity::Relu), [0.0; 4]);
    }

    #[rstest]
    #[case(Geometry::padded((7, 10), (37, 37), 3, 1, 1))]
    #[case(Geometry::padded((9, 6), (64, 64), 5, 2, 2))]
    #[case(Geometry::same((9, 6), (3, 3), 3, 2))]
    #[case(Geometry::same((1, 2), (33, 33), 5, 2))]
    fn agrees_with_the_definition(#[case] g: Geometry) {
        let c = g.large_channels;
        let x = values(2 * g.large_len(), 1);
        let w = values(g.taps() * c, 2);
        let b = values(c, 3);
        let mut expected = vec![0.0; 2 * g.small_len()];
        for (index, sum) in expected.iter_mut().enumerate() {
            let pixel = index / c;
            let channel = index % c;
            let n = pixel / (g.small.0 * g.small.1);
            let i = pixel / g.small.1 % g.small.0;
            let j = pixel % g.small.1;
            *sum = f64::from(b[channel]);
            for tap in 0..g.taps() {
                let y = (i * g.stride + tap / g.kernel).wrapping_sub(g.padding.0);
                let z = (j * g.stride + tap % g.kernel).wrapping_sub(g.padding.1);
                if y < g.large.0 && z < g.large.1 {
                    let at = ((n * g.large.0 + y) * g.large.1 + z) * c + channel;
                    *sum += f64::from(x[at]) * f64::from(w[tap * c + channel]);
                }
            }
        }
        for backend in Backend::available() {
            let got = depthwise_on(backend, &g, &x, &w, &b, Nonlinearity::Identity);
            assert!(relative_error(&got, &expected) < 1e-6, "{backend:?}");
        }
    }
}
