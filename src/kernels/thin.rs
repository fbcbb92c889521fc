//! Layers whose large grid has few channels: the first of the encoder, the last of the decoder.
//!
//! A tap of one channel is a single product, too little to fill a register tile. Here all taps of a small pixel are
//! laid side by side as a row of k·k·C_large columns, in the order of the weights, which makes each of the three
//! operations one matrix product:
//!
//! ```text
//! down:             columns(large) · W          W: (k·k·C_large, C_small)
//! up:               large = sum over taps of (small · Wᵀ)
//! weight_gradient:  columns(large)ᵀ · small
//! ```

use rayon::prelude::*;

use super::backend::Backend;
use super::buffer::Shared;
use super::convolution::{IMAGES, images, whole};
use super::gather::{Epilogue, gather};
use super::geometry::Geometry;
use super::pack::Packed;
use super::weight_gradient as general;

/// The most large channels that count as few.
const THIN: usize = 4;
/// Tasks that the images of a weight gradient are split into: fixed, so that the sum does not depend on the machine.
const PARTS: usize = 8;

/// Whether a convolution is computed through columns.
pub(super) fn is_thin(g: &Geometry) -> bool {
    g.large_channels <= THIN && g.kernel > 1
}

/// A row of taps of a small pixel that falls inside the large grid: as the taps lie side by side in both, one run of
/// values.
struct Run {
    /// Index of the first value among the image's columns.
    columns: usize,
    /// Index of the first value in the large image.
    large: usize,
    len: usize,
}

/// Calls `each` with every run of an image.
fn runs(g: &Geometry, mut each: impl FnMut(Run)) {
    let (channels, kernel) = (g.large_channels, g.kernel);
    for i in 0..g.small.0 {
        for u in 0..kernel {
            let Some(y) = (i * g.stride + u).checked_sub(g.padding.0).filter(|y| *y < g.large.0) else { continue };
            for j in 0..g.small.1 {
                let left = j * g.stride; // of the first tap, plus the padding
                let first = g.padding.1.saturating_sub(left);
                let last = kernel.min(g.large.1 + g.padding.1 - left);
                if first < last {
                    let pixel = i * g.small.1 + j;
                    each(Run {
                        columns: ((pixel * kernel + u) * kernel + first) * channels,
                        large: (y * g.large.1 + left + first - g.padding.1) * channels,
                        len: (last - first) * channels,
                    });
                }
            }
        }
    }
}

/// (N, H, W, C_large) → (N, h, w, k·k·C_large), zeros where a tap falls on padding.
pub(super) fn columns(g: &Geometry, large: &[f32]) -> Vec<f32> {
    let image = g.small.0 * g.small.1 * g.taps() * g.large_channels;
    let mut columns = vec![0.0; images(large.len(), g.large_len()) * image];
    for (columns, large) in columns.chunks_exact_mut(image).zip(large.chunks_exact(g.large_len())) {
        runs(g, |run| columns[run.columns..][..run.len].copy_from_slice(&large[run.large..][..run.len]));
    }
    columns
}

/// (N, h, w, C_small) → (N, H, W, C_large), with the taps' products summed where they meet.
pub(super) fn up(backend: Backend, g: &Geometry, small: &[f32], weights: &Packed, epilogue: Epilogue<'_>) -> Vec<f32> {
    let image = g.small.0 * g.small.1 * g.taps() * g.large_channels;
    let mut large = vec![0.0; images(small.len(), g.small_len()) * g.large_len()];
    large.par_chunks_mut(IMAGES * g.large_len()).zip(small.par_chunks(IMAGES * g.small_len())).for_each(
        |(large, small)| {
            let batch = images(small.len(), g.small_len());
            let mut products = vec![0.0; batch * image];
            let grid = whole(batch, g.small, g.small, 1, &[(0, 0)]);
            // SAFETY: `products` has a row for each pixel, and only this task writes it.
            unsafe { gather(backend, &grid, small, weights, Shared::of(&mut products), Epilogue::default()) };
            for (large, products) in large.chunks_exact_mut(g.large_len()).zip(products.chunks_exact(image)) {
                runs(g, |run| {
                    let products = &products[run.columns..][..run.len];
                    large[run.large..][..run.len].iter_mut().zip(products).for_each(|(v, p)| *v += p);
                });
            }
            finish(large, g.large_channels, epilogue);
        },
    );
    large
}

fn finish(values: &mut [f32], channels: usize, epilogue: Epilogue<'_>) {
    for pixel in values.chunks_exact_mut(channels) {
        if let Some(shift) = epilogue.shift {
            pixel.iter_mut().zip(shift).for_each(|(v, s)| *v += s);
        }
        if epilogue.relu {
            pixel.iter_mut().for_each(|v| *v = if *v < 0.0 { 0.0 } else { *v });
        }
    }
}

/// The gradient of the weights, (k, k, C_large, C_small): each part's images a task, parts added in order.
pub(super) fn weight_gradient(backend: Backend, g: &Geometry, large: &[f32], small: &[f32]) -> Vec<f32> {
    let batch = images(large.len(), g.large_len());
    let flat = Geometry::same(g.small, (g.taps() * g.large_channels, g.small_channels), 1, 1);
    let part = batch.div_ceil(PARTS).max(1);
    let parts: Vec<Vec<f32>> = large
        .par_chunks(part * g.large_len())
        .zip(small.par_chunks(part * g.small_len()))
        .map(|(large, small)| {
            let mut sum = vec![0.0; g.weights_len()];
            for (large, small) in large.chunks(IMAGES * g.large_len()).zip(small.chunks(IMAGES * g.small_len())) {
                let gradient = general::weight_gradient(backend, &flat, &columns(g, large), small);
                sum.iter_mut().zip(gradient).for_each(|(s, v)| *s += v);
            }
            sum
        })
        .collect();
    let mut sum = vec![0.0; g.weights_len()];
    for part in parts {
        sum.iter_mut().zip(part).for_each(|(s, v)| *s += v);
    }
    sum
}
