//! Gaussian smoothing of maps, in f64.
//!
//! ```text
//! s(y, x) = Σ_{i,j} w_i w_j · v(y + i, x + j),   w_i ∝ exp(−i²/2σ²),  Σ_i w_i = 1,  |i|, |j| ≤ ⌊3σ + ½⌋
//! ```
//!
//! Beyond the border a map goes on as its mirror image, the last value repeated (d c b a | a b c d | d c b a).

use super::backend::{Backend, Work, dispatch};

/// A Gaussian of one width, for maps of one size.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gaussian {
    height: usize,
    width: usize,
    /// The weight of a value itself, and of those at each distance from it, on either side.
    weights: Vec<f64>,
}

impl Gaussian {
    /// A Gaussian of standard deviation `sigma`, in places, above 0.
    pub(crate) fn new(height: usize, width: usize, sigma: f64) -> Self {
        let radius = (3.0 * sigma + 0.5).floor() as usize;
        let mut weights: Vec<f64> = (0..=radius).map(|i| (-((i * i) as f64) / (2.0 * sigma * sigma)).exp()).collect();
        let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        Self { height, width, weights }
    }

    /// Smooths a map, (H, W).
    pub(crate) fn smooth(&self, backend: Backend, values: &mut [f64]) {
        assert!(values.len() == self.height * self.width, "the values of a map");
        if self.weights.len() > 1 {
            dispatch(backend, Smoothing { gaussian: self, values });
        }
    }
}

/// The place that a place beyond the border mirrors, of `len` places.
fn mirrored(place: isize, len: usize) -> usize {
    let place = place.rem_euclid(2 * len as isize) as usize;
    if place < len { place } else { 2 * len - 1 - place }
}

struct Smoothing<'a> {
    gaussian: &'a Gaussian,
    values: &'a mut [f64],
}

impl Work for Smoothing<'_> {
    /// Rows of sums, over contiguous values: down the columns first, then along each row with its mirror images at both
    /// ends. A value and its counterpart at the same distance are added before they are weighed.
    #[inline(always)]
    fn run(self) {
        let weights = &self.gaussian.weights;
        let height = self.gaussian.height;
        let width = self.gaussian.width;
        let radius = weights.len() - 1;
        let source = self.values.to_vec();
        let row = |y: isize| &source[mirrored(y, height) * width..][..width];
        for (y, sums) in self.values.chunks_exact_mut(width).enumerate() {
            let y = y as isize;
            sums.iter_mut().zip(row(y)).for_each(|(sum, value)| *sum = weights[0] * value);
            for (i, weight) in (1..).zip(&weights[1..]) {
                let pairs = row(y - i).iter().zip(row(y + i));
                sums.iter_mut().zip(pairs).for_each(|(sum, (above, below))| *sum += weight * (above + below));
            }
        }
        let mut line = vec![0.0; width + 2 * radius];
        for sums in self.values.chunks_exact_mut(width) {
            for (place, value) in (-(radius as isize)..).zip(line.iter_mut()) {
                *value = sums[mirrored(place, width)];
            }
            sums.iter_mut().zip(&line[radius..]).for_each(|(sum, value)| *sum = weights[0] * value);
            for (i, weight) in (1..).zip(&weights[1..]) {
                let pairs = line[radius - i..].iter().zip(&line[radius + i..]);
                sums.iter_mut().zip(pairs).for_each(|(sum, (left, right))| *sum += weight * (left + right));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn values(len: usize) -> Vec<f64> {
        (0..len).map(|i| (i * i % 17) as f64 / 16.0).collect()
    }

    /// σ = ½ reaches two places: weights 1, e⁻² and e⁻⁸, over their sum. The map mirrors at its ends: 2 1 | 1 2 | 2 1.
    #[test]
    fn two_places_by_hand() {
        let mut got = [1.0, 2.0];
        Gaussian::new(1, 2, 0.5).smooth(Backend::Portable, &mut got);
        let near = (-2.0_f64).exp();
        let far = (-8.0_f64).exp();
        let sum = 1.0 + 2.0 * near + 2.0 * far;
        let first = (1.0 + near * (1.0 + 2.0) + far * (2.0 + 2.0)) / sum;
        let second = (2.0 + near * (1.0 + 2.0) + far * (1.0 + 1.0)) / sum;
        assert!((got[0] - first).abs() < 1e-15 && (got[1] - second).abs() < 1e-15, "{got:?}");
    }

    /// Against the definition, on maps far smaller than the radius, odd sizes, and on every backend to the same bits.
    #[rstest]
    #[case(1, 1, 3.0)]
    #[case(3, 5, 2.0)]
    #[case(7, 4, 0.3)]
    #[case(28, 28, 3.5)]
    #[case(2, 31, 11.0)]
    fn agrees_with_the_definition(#[case] height: usize, #[case] width: usize, #[case] sigma: f64) {
        let source = values(height * width);
        let gaussian = Gaussian::new(height, width, sigma);
        let mut got = source.clone();
        gaussian.smooth(Backend::Portable, &mut got);
        let radius = (3.0 * sigma + 0.5).floor() as isize;
        let weight = |i: isize| (-((i * i) as f64) / (2.0 * sigma * sigma)).exp();
        let sum: f64 = (-radius..=radius).map(weight).sum();
        for (place, got) in got.iter().enumerate() {
            let y = (place / width) as isize;
            let x = (place % width) as isize;
            let mut expected = 0.0;
            for i in -radius..=radius {
                for j in -radius..=radius {
                    let value = source[mirrored(y + i, height) * width + mirrored(x + j, width)];
                    expected += weight(i) * weight(j) * value / sum / sum;
                }
            }
            assert!((got - expected).abs() < 1e-12, "{place}: {got}, expected {expected}");
        }
        for backend in Backend::available() {
            let mut other = source.clone();
            gaussian.smooth(backend, &mut other);
            assert_eq!(other, got, "{backend:?}");
        }
    }

    /// A mirrored border loses nothing: a flat map stays, and any map keeps its mean.
    #[test]
    fn the_mean_stays() {
        let mut map = values(6 * 9);
        let mean = |map: &[f64]| map.iter().sum::<f64>() / map.len() as f64;
        let before = mean(&map);
        Gaussian::new(6, 9, 4.0).smooth(Backend::Portable, &mut map);
        assert!((mean(&map) - before).abs() < 1e-12);
    }

    #[rstest]
    #[case(-1, 0)]
    #[case(-4, 3)]
    #[case(-5, 3)]
    #[case(4, 3)]
    #[case(8, 0)]
    fn places_beyond_the_border(#[case] place: isize, #[case] expected: usize) {
        assert_eq!(mirrored(place, 4), expected);
    }
}
