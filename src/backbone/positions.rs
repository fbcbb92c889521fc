//! Positions of a ViT's patches at other image sizes: bicubic interpolation as each library has it.
//!
//! ```text
//! c(x) = (a + 2)|x|³ − (a + 3)|x|² + 1   for |x| ≤ 1
//! c(x) = a|x|³ − 5a|x|² + 8a|x| − 4a     for |x| < 2,  else 0
//! ```
//!
//! Where: a is −½ with antialiasing, which widens the window when a side shrinks, and −¾ without.
//!
//! # Source
//! `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`.

use crate::image::cubic;

/// The interpolation of positions in a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interpolation {
    /// timm's, and that of transformers' DINOv2 with registers.
    Antialiased,
    /// That of transformers' ViT and DINOv2.
    Plain,
}

/// The positions of a square grid of `side` × `side` patches, (side, side, C), on a grid of (height, width).
pub(super) fn interpolated(
    values: &[f32],
    side: usize,
    (height, width): (usize, usize),
    interpolation: Interpolation,
) -> Vec<f32> {
    if (side, side) == (height, width) {
        return values.to_vec();
    }
    let channels = values.len() / (side * side).max(1);
    let mut rows = vec![0.0_f64; height * side * channels];
    for (y, row) in rows.chunks_exact_mut((side * channels).max(1)).enumerate() {
        for (from, weight) in weights(side, height, y, interpolation) {
            let source = &values[from * side * channels..][..side * channels];
            row.iter_mut().zip(source).for_each(|(sum, v)| *sum += weight * f64::from(*v));
        }
    }
    let columns: Vec<_> = (0..width).map(|x| weights(side, width, x, interpolation)).collect();
    let mut out = vec![0.0_f64; height * width * channels];
    for (place, sums) in out.chunks_exact_mut(channels.max(1)).enumerate() {
        for (from, weight) in &columns[place % width] {
            let source = &rows[(place / width * side + from) * channels..][..channels];
            sums.iter_mut().zip(source).for_each(|(sum, v)| *sum += weight * v);
        }
    }
    out.into_iter().map(|v| v as f32).collect()
}

/// The places that an output place is made of, with their weights.
fn weights(from: usize, to: usize, place: usize, interpolation: Interpolation) -> Vec<(usize, f64)> {
    let scale = from as f64 / to as f64;
    let centre = (place as f64 + 0.5) * scale;
    match interpolation {
        Interpolation::Plain => {
            let low = (centre - 0.5).floor();
            let tap = |i: i64| {
                let at = (low as i64 + i).clamp(0, from as i64 - 1) as usize;
                (at, cubic(centre - 0.5 - low - i as f64, -0.75))
            };
            (-1..3).map(tap).collect()
        }
        Interpolation::Antialiased => {
            let wide = scale.max(1.0);
            let first = (centre - 2.0 * wide + 0.5).max(0.0) as usize;
            let last = ((centre + 2.0 * wide + 0.5) as usize).min(from);
            let tap = |i: usize| (i, cubic((i as f64 - centre + 0.5) / wide, -0.5));
            let taps: Vec<_> = (first..last).map(tap).collect();
            let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
            taps.into_iter().map(|(i, weight)| (i, weight / sum)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// PyTorch 2.15: `interpolate(arange(9.) ** 2, size, mode="bicubic", antialias=...)` of a grid of 3 × 3.
    #[rstest]
    #[case::plain(Interpolation::Plain, (2, 4), &PLAIN)]
    #[case::antialiased(Interpolation::Antialiased, (2, 4), &ANTIALIASED)]
    #[case::same(Interpolation::Plain, (3, 3), &[0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0, 64.0])]
    fn agrees_with_pytorch(
        #[case] interpolation: Interpolation,
        #[case] size: (usize, usize),
        #[case] expected: &[f32],
    ) {
        let grid: Vec<f32> = (0..9_u8).map(|i| f32::from(i).powi(2)).collect();
        let got = interpolated(&grid, 3, size, interpolation);
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{got:?}");
    }

    const PLAIN: [f32; 8] = [0.93563, 2.00833, 4.96921, 7.68448, 29.34854, 36.25828, 48.34427, 56.89657];
    const ANTIALIASED: [f32; 8] = [1.91647, 3.51665, 6.93863, 10.03712, 26.33132, 32.97417, 43.74115, 51.88231];
}
