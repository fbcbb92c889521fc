//! The Laplacian pyramid of an image, and its weighted L1 norm.
//!
//! ```text
//! g_0 = d,  g_{j+1} = R g_j,  L_j = g_j − E g_{j+1},  L_J = g_J
//! ‖d‖_pyramid = Σ_j 4^j ‖L_j‖₁
//! ```
//!
//! Where: R halves an image with the filter (1, 4, 6, 4, 1)/16 along each side, the border repeated; E doubles it with the
//! same filter, its weights at each pixel divided by their sum. J is the number of halvings that keep the smaller side at 4
//! pixels or more. 4^j makes up for each level's having a quarter of the pixels.
//!
//! # Source
//! Burt and Adelson, IEEE Transactions on Communications 31 (1983); the weighted norm is that of Bojanowski, Joulin,
//! Lopez-Paz and Szlam, Optimizing the latent space of generative networks, ICML 2018, equation 3.

use crate::image::ImageShape;

const FILTER: [f32; 5] = [1.0 / 16.0, 4.0 / 16.0, 6.0 / 16.0, 4.0 / 16.0, 1.0 / 16.0];
/// The smallest side of the coarsest level.
const SMALLEST: usize = 4;

/// The pyramid of images of one shape.
#[derive(Debug)]
pub(crate) struct Pyramid {
    channels: usize,
    levels: Vec<Level>,
}

/// From a level to the next coarser one.
#[derive(Debug)]
struct Level {
    size: (usize, usize),
    rows: Axis,
    columns: Axis,
}

/// A linear map along one side: for each output, its inputs and their weights.
type Map = Vec<Vec<(usize, f32)>>;

#[derive(Debug)]
struct Axis {
    reduce: Map,
    expand: Map,
}

impl Axis {
    fn new(size: usize) -> Self {
        let half = size.div_ceil(2);
        let taps = |centre: usize| (0..5).map(move |t| (centre as isize + t as isize - 2, FILTER[t]));
        let reduce = (0..half)
            .map(|i| taps(2 * i).map(|(at, w)| (at.clamp(0, size as isize - 1) as usize, w)).collect())
            .collect();
        let expand = (0..size)
            .map(|i| {
                let known = |(at, w): (isize, f32)| {
                    (at >= 0 && at % 2 == 0 && (at as usize) / 2 < half).then_some((at as usize / 2, w))
                };
                let taps: Vec<(usize, f32)> = taps(i).filter_map(known).collect();
                let sum: f32 = taps.iter().map(|(_, w)| w).sum();
                taps.into_iter().map(|(at, w)| (at, w / sum)).collect()
            })
            .collect();
        Self { reduce, expand }
    }
}

impl Pyramid {
    pub(crate) fn new(shape: ImageShape) -> Self {
        let mut size = (shape.height(), shape.width());
        let mut levels = Vec::new();
        while size.0.min(size.1).div_ceil(2) >= SMALLEST {
            levels.push(Level { size, rows: Axis::new(size.0), columns: Axis::new(size.1) });
            size = (size.0.div_ceil(2), size.1.div_ceil(2));
        }
        Self { channels: shape.channels(), levels }
    }

    /// The weighted L1 norm of a difference, (H, W, C).
    pub(crate) fn norm(&self, difference: &[f32]) -> f64 {
        let l1 = |level: &[f32]| level.iter().map(|v| f64::from(v.abs())).sum::<f64>();
        self.bands(difference).iter().enumerate().map(|(j, band)| weight(j) * l1(band)).sum()
    }

    /// The norm's gradient by the difference, (H, W, C).
    pub(crate) fn gradient(&self, difference: &[f32]) -> Vec<f32> {
        let mut signs: Vec<Vec<f32>> = self.bands(difference);
        for (j, band) in signs.iter_mut().enumerate() {
            let weight = weight(j) as f32;
            band.iter_mut().for_each(|v| *v = if *v == 0.0 { 0.0 } else { weight * v.signum() });
        }
        // Backward: a coarse level's gradient reaches the finer one through R, less what it takes away there through E.
        let Some(mut gradient) = signs.pop() else { return Vec::new() };
        for (level, sign) in self.levels.iter().zip(signs).rev() {
            let taken = self.transposed(level, &sign, |axis| &axis.expand);
            gradient.iter_mut().zip(taken).for_each(|(g, t)| *g -= t);
            let mut finer = self.transposed(level, &gradient, |axis| &axis.reduce);
            finer.iter_mut().zip(sign).for_each(|(g, s)| *g += s);
            gradient = finer;
        }
        gradient
    }

    /// L_0..L_J.
    fn bands(&self, difference: &[f32]) -> Vec<Vec<f32>> {
        let (mut bands, mut current) = (Vec::with_capacity(self.levels.len() + 1), difference.to_vec());
        for level in &self.levels {
            let coarse = self.applied(level, &current, |axis| &axis.reduce);
            let expanded = self.applied(level, &coarse, |axis| &axis.expand);
            current.iter_mut().zip(expanded).for_each(|(v, e)| *v -= e);
            bands.push(std::mem::replace(&mut current, coarse));
        }
        bands.push(current);
        bands
    }

    fn applied(&self, level: &Level, image: &[f32], map: fn(&Axis) -> &Map) -> Vec<f32> {
        let (rows, columns) = (map(&level.rows), map(&level.columns));
        let width = if columns.len() == level.size.1 { level.size.1.div_ceil(2) } else { level.size.1 };
        let tall = along(rows, image, width * self.channels);
        let row = |row: &[f32]| along(columns, row, self.channels);
        tall.chunks_exact(width * self.channels).flat_map(row).collect()
    }

    fn transposed(&self, level: &Level, image: &[f32], map: fn(&Axis) -> &Map) -> Vec<f32> {
        let (rows, columns) = (map(&level.rows), map(&level.columns));
        let coarse = (level.size.0.div_ceil(2), level.size.1.div_ceil(2));
        let inputs = if columns.len() == level.size.1 { coarse } else { level.size };
        let across = |row: &[f32]| along_transposed(columns, row, inputs.1, self.channels);
        let wide: Vec<f32> = image.chunks_exact(columns.len() * self.channels).flat_map(across).collect();
        along_transposed(rows, &wide, inputs.0, inputs.1 * self.channels)
    }
}

fn weight(level: usize) -> f64 {
    4.0_f64.powi(level as i32)
}

/// Applies a map along the first side of (n, inner).
fn along(map: &Map, input: &[f32], inner: usize) -> Vec<f32> {
    let mut output = vec![0.0; map.len() * inner];
    for (taps, output) in map.iter().zip(output.chunks_exact_mut(inner)) {
        for (at, weight) in taps {
            output.iter_mut().zip(&input[at * inner..]).for_each(|(o, i)| *o += weight * i);
        }
    }
    output
}

/// Applies its transpose, which has `size` outputs.
fn along_transposed(map: &Map, input: &[f32], size: usize, inner: usize) -> Vec<f32> {
    let mut output = vec![0.0; size * inner];
    for (taps, input) in map.iter().zip(input.chunks_exact(inner)) {
        for (at, weight) in taps {
            output[at * inner..].iter_mut().zip(input).for_each(|(o, i)| *o += weight * i);
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both maps keep a constant, borders included, so that all of it is left in the coarsest level: 4^J · pixels · value.
    #[test]
    fn a_constant_lies_in_the_coarsest_level() {
        // 28 → 14 → 7 → 4.
        let pyramid = Pyramid::new(ImageShape::new(28, 28, 1));
        let bands = pyramid.bands(&[0.5; 784]);
        assert_eq!(bands.iter().map(Vec::len).collect::<Vec<_>>(), [784, 196, 49, 16]);
        assert!(bands[..3].iter().flatten().all(|v| v.abs() < 1e-6));
        assert!((pyramid.norm(&[0.5; 784]) - 64.0 * 16.0 * 0.5).abs() < 1e-3);
    }

    /// (1, 4, 6, 4, 1)/16 at the border: a 1 in the corner of one row of eight is 11/16 of the first coarse pixel, 1/16 of
    /// the second.
    #[test]
    fn the_border_repeats() {
        let axis = Axis::new(8);
        let reduced = along(&axis.reduce, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1);
        assert_eq!(reduced, [11.0 / 16.0, 1.0 / 16.0, 0.0, 0.0]);
    }

    #[test]
    fn too_small_an_image_has_one_level() {
        let pyramid = Pyramid::new(ImageShape::new(4, 9, 1));
        assert_eq!(pyramid.norm(&[-1.0; 36]), 36.0);
        assert_eq!(pyramid.gradient(&[-1.0; 36]), [-1.0; 36]);
    }
}
