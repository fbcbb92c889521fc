//! Largest value and mean of places, and channels scaled by a gate.

use rayon::prelude::*;

use super::backend::{Work, backend, dispatch};
use super::geometry::Geometry;

/// Places that are summed before their sums are: rounding grows with the number of sums, not of values.
const PLACES: usize = 64;

/// The largest value of each window and channel, of those inside the image: (N, H, W, C) → (N, h, w, C).
///
/// # Panics
/// If the values are no whole number of images.
pub(crate) fn max_pool(g: &Geometry, x: &[f32]) -> Vec<f32> {
    let channels = g.large_channels;
    assert!(g.large_len() > 0 && x.len().is_multiple_of(g.large_len()), "images of a pooling");
    let mut out = vec![f32::NEG_INFINITY; x.len() / g.large_len() * g.small.0 * g.small.1 * channels];
    out.par_chunks_mut((g.small.1 * channels).max(1)).enumerate().for_each(|(row, out)| {
        let x = &x[row / g.small.0 * g.large_len()..][..g.large_len()];
        dispatch(backend(), PoolRow { g, x, row: row % g.small.0, out });
    });
    out
}

struct PoolRow<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    row: usize,
    out: &'a mut [f32],
}

impl Work for PoolRow<'_> {
    #[inline(always)]
    fn run(self) {
        let g = self.g;
        let channels = g.large_channels;
        let inside = |first: usize, padding: usize, size: usize| {
            first.saturating_sub(padding)..(first + g.kernel).saturating_sub(padding).min(size)
        };
        for y in inside(self.row * g.stride, g.padding.0, g.large.0) {
            for (j, out) in self.out.chunks_exact_mut(channels).enumerate() {
                for place in inside(j * g.stride, g.padding.1, g.large.1) {
                    let x = &self.x[(y * g.large.1 + place) * channels..][..channels];
                    // NaN is larger than all, and stays.
                    out.iter_mut().zip(x).for_each(|(m, x)| *m = if *x <= *m || m.is_nan() { *m } else { *x });
                }
            }
        }
    }
}

/// The mean of each image's places: (N, places, C) → (N, C).
pub(crate) fn mean_of_places(x: &[f32], places: usize, channels: usize) -> Vec<f32> {
    let image = (places * channels).max(1);
    let mean = |x: &[f32]| {
        let mut sums = vec![0.0; channels];
        for x in x.chunks(PLACES * channels) {
            let mut part = vec![0.0; channels];
            dispatch(backend(), AddRows { x, sums: &mut part });
            sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        sums.into_iter().map(move |sum| sum / places as f32).collect::<Vec<f32>>()
    };
    x.par_chunks(image).flat_map_iter(mean).collect()
}

struct AddRows<'a> {
    x: &'a [f32],
    sums: &'a mut [f32],
}

impl Work for AddRows<'_> {
    #[inline(always)]
    fn run(self) {
        for x in self.x.chunks_exact(self.sums.len()) {
            self.sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
        }
    }
}

/// Multiplies each image's channels with its gate: (N, places, C) with (N, C).
pub(crate) fn scale_channels(x: &[f32], gate: &[f32], places: usize, channels: usize) -> Vec<f32> {
    let image = (places * channels).max(1);
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(channels.max(1) * PLACES).enumerate().for_each(|(chunk, out)| {
        let first = chunk * channels * PLACES;
        for (i, out) in out.chunks_exact_mut(channels).enumerate() {
            let at = first + i * channels;
            let gate = &gate[at / image * channels..][..channels];
            out.iter_mut().zip(&x[at..]).zip(gate).for_each(|((out, x), gate)| *out = x * gate);
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3 × 3 places, windows of 3 with stride 2 and a border of one: the corners' windows hold four places each.
    #[test]
    fn largest_values_by_hand() {
        let g = Geometry::padded((3, 3), (1, 1), 3, 2, 1);
        let x = [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0, 9.0];
        assert_eq!(max_pool(&g, &x), [-1.0, -2.0, -4.0, 9.0]);
        let mut broken = x;
        broken[0] = f32::NAN;
        assert!(max_pool(&g, &broken)[0].is_nan());
    }

    #[test]
    fn means_and_gates_by_hand() {
        let x = [1.0, 10.0, 3.0, 30.0, 5.0, 50.0, 7.0, 70.0];
        assert_eq!(mean_of_places(&x, 2, 2), [2.0, 20.0, 6.0, 60.0]);
        assert_eq!(scale_channels(&x, &[1.0, 0.0, 2.0, 0.1], 2, 2), [1.0, 0.0, 3.0, 0.0, 10.0, 5.0, 14.0, 7.0]);
        let many: Vec<f32> = (0..300).map(|i| i as f32).collect();
        assert_eq!(mean_of_places(&many, 300, 1), [149.5]);
        assert_eq!(scale_channels(&many, &[2.0], 300, 1)[299], 598.0);
    }
}
