//! SAME convolutions as copies of shifted rows and products of matrices.
//!
//! Let T = ⌈k/s⌉ for kernel k and stride s, and let *positions* be an image's grid of Q_y = h + T − 1 by
//! Q_x = w + T − 1 pixels: the small grid with what windows reach beyond it. The large grid, padded to s·Q_y by s·Q_x, is cut into s
//! *phases* of its lines; a phase is a matrix of a row a position, with the s pixels of that position's line in it. Tap
//! (u, v) of the window at a position then lies in phase u mod s, in the row that is ⌊u/s⌋·Q_x + ⌊v/s⌋ further down:
//! all taps of a window are `cat`'s copies of shifted rows, in the order of the weights' taps.
//!
//! ```text
//! down:             small = windows(large) · w
//! weight_gradient:  w     = windows(large)ᵀ · small
//! up:               windows' gradients = small · wᵀ, added up over the positions that they were copied from
//! ```
//!
//! Where: w is the weights as a matrix, (k²·C_large, C_small). Rows that lie beyond an image's small grid are computed
//! and cut off: the price of copies that are contiguous.

use candle_core::{DType, Device, Tensor};

use super::Composed;
use super::product::{dtype, product};
use crate::device::Precision;
use crate::error::Result;
use crate::kernels::Geometry;
use crate::ops::Convolution;
use crate::ops::parts::{joined, summed};

impl Convolution for Composed {
    fn down(&self, g: &Geometry, large: &Tensor, weights: &Tensor, precision: Precision) -> Result<Tensor> {
        let matrix = weights_matrix(g, weights)?.to_dtype(dtype(precision))?;
        joined(large.dim(0)?, window_values(g), |first, images| {
            let windows = windows(g, &large.narrow(0, first, images)?.to_dtype(dtype(precision))?)?;
            small_of_positions(g, &product(&windows, &matrix, precision)?)
        })
    }

    fn up(&self, g: &Geometry, small: &Tensor, weights: &Tensor, precision: Precision) -> Result<Tensor> {
        let matrix = weights_matrix(g, weights)?.to_dtype(dtype(precision))?.t()?;
        joined(small.dim(0)?, window_values(g), |first, images| {
            let small = positions_of_small(g, &small.narrow(0, first, images)?.to_dtype(dtype(precision))?)?;
            large_of_windows(g, &product(&small, &matrix, precision)?)
        })
    }

    fn weight_gradient(&self, g: &Geometry, large: &Tensor, small: &Tensor, precision: Precision) -> Result<Tensor> {
        let sum = summed(large.dim(0)?, window_values(g), |first, images| {
            let large = large.narrow(0, first, images)?.to_dtype(dtype(precision))?;
            let small = small.narrow(0, first, images)?.to_dtype(dtype(precision))?;
            let small = padded(&small, (0, 0), positions(g))?.flatten_to(2)?; // (N·Q_y·Q_x, C_small)
            product(&windows(g, &large)?.t()?, &small, precision)
        })?;
        Ok(sum.reshape(&g.weights_shape())?)
    }
}

/// Taps along a side that meet one phase, at most.
fn taps_a_side(g: &Geometry) -> usize {
    g.kernel.div_ceil(g.stride)
}

/// (Q_y, Q_x).
fn positions(g: &Geometry) -> (usize, usize) {
    (g.small.0 + taps_a_side(g) - 1, g.small.1 + taps_a_side(g) - 1)
}

/// Weights as (k²·C_large, C_small).
fn weights_matrix(g: &Geometry, weights: &Tensor) -> Result<Tensor> {
    Ok(weights.reshape((g.taps() * g.large_channels, g.small_channels))?)
}

/// Values of the windows of an image at all positions.
fn window_values(g: &Geometry) -> usize {
    let (height, width) = positions(g);
    height * width * g.taps() * g.large_channels
}

/// (N, h, w, C) at `(top, left)` of a grid of zeros: (N, H, W, C). What reaches beyond it on the other sides is cut
/// off.
pub(super) fn padded(x: &Tensor, (top, left): (usize, usize), (height, width): (usize, usize)) -> Result<Tensor> {
    let (_, h, w, _) = x.dims4()?;
    let h = h.min(height - top);
    let w = w.min(width - left);
    let x = x.narrow(1, 0, h)?.narrow(2, 0, w)?;
    Ok(x.pad_with_zeros(2, left, width - left - w)?.pad_with_zeros(1, top, height - top - h)?.contiguous()?)
}

/// A matrix whose rows lie apart, in order, as `cat` copies it: row by row. `contiguous` would divide for every value
/// on CUDA.
fn compact(x: &Tensor) -> Result<Tensor> {
    let columns = x.dim(1)?;
    if x.is_contiguous() || columns < 2 {
        return Ok(x.contiguous()?);
    }
    let half = columns / 2;
    Ok(Tensor::cat(&[x.narrow(1, 0, half)?, x.narrow(1, half, columns - half)?], 1)?)
}

/// Rows of zeros behind the last image's positions, so that shifted rows end within the matrix.
fn rows_behind(g: &Geometry) -> usize {
    (taps_a_side(g) - 1) * (positions(g).1 + 1)
}

/// Runs of taps that lie side by side in one row of a phase, in the order of the weights: the phase, how many rows
/// further down they lie, the first tap, and how many there are.
struct TapRun {
    phase: usize,
    shift: usize,
    tap: usize,
    len: usize,
}

fn runs(g: &Geometry) -> impl Iterator<Item = TapRun> {
    let k = g.kernel;
    let s = g.stride;
    let side = taps_a_side(g);
    let width = positions(g).1;
    (0..k).flat_map(move |u| {
        (0..side).map(move |t| TapRun {
            phase: u % s,
            shift: u / s * width + t,
            tap: u * k + s * t,
            len: s.min(k - s * t),
        })
    })
}

/// The windows of the large grid at all positions: (N, H, W, C) → (N·Q_y·Q_x, k²·C).
fn windows(g: &Geometry, large: &Tensor) -> Result<Tensor> {
    let (s, c, (height, width)) = (g.stride, g.large_channels, positions(g));
    let count = large.dim(0)? * height * width;
    let grid = padded(large, g.padding, (s * height, s * width))?;
    let lines = grid.reshape((count / width, s, width * s * c))?;
    let phase = |phase: usize| -> Result<Tensor> {
        let rows = compact(&lines.narrow(1, phase, 1)?.squeeze(1)?)?.reshape((count, s * c))?;
        Ok(rows.pad_with_zeros(0, 0, rows_behind(g))?)
    };
    let phases = (0..s.min(g.kernel)).map(phase).collect::<Result<Vec<_>>>()?;
    let copies = runs(g).map(|run| Ok(phases[run.phase].narrow(0, run.shift, count)?.narrow(1, 0, run.len * c)?));
    compact(&Tensor::cat(&copies.collect::<Result<Vec<_>>>()?, 1)?)
}

/// Values at all positions, (N·Q_y·Q_x, C), at those of the small grid: (N, h, w, C).
fn small_of_positions(g: &Geometry, x: &Tensor) -> Result<Tensor> {
    let ((height, width), (h, w), c) = (positions(g), g.small, g.small_channels);
    let images = x.dim(0)? / (height * width);
    let lines = compact(&x.reshape((images, height * width * c))?.narrow(1, 0, h * width * c)?)?;
    Ok(compact(&lines.reshape((images * h, width * c))?.narrow(1, 0, w * c)?)?.reshape((images, h, w, c))?)
}

/// The small grid at all positions, behind as many rows of zeros as shifts reach back: a position before an image's
/// first is one behind the last line before, where the small grid has no value.
fn positions_of_small(g: &Geometry, small: &Tensor) -> Result<Tensor> {
    let rows = padded(small, (0, 0), positions(g))?.flatten_to(2)?;
    Ok(rows.pad_with_zeros(0, rows_behind(g), 0)?)
}

/// Adds up, in f32, each tap of the windows at all positions, behind rows of zeros: the large grid, (N, H, W, C). In
/// bf16, the sums of 49 taps would be off by more than their terms.
fn large_of_windows(g: &Geometry, windows: &Tensor) -> Result<Tensor> {
    let (s, c, (height, width), (h, w)) = (g.stride, g.large_channels, positions(g), g.large);
    let front = rows_behind(g);
    let count = windows.dim(0)? - front;
    let mut phases: Vec<Option<Tensor>> = vec![None; s];
    for run in runs(g) {
        let term = windows.narrow(0, front - run.shift, count)?.narrow(1, run.tap * c, run.len * c)?;
        let term = compact(&term)?.to_dtype(DType::F32)?.pad_with_zeros(1, 0, (s - run.len) * c)?;
        let phase = &mut phases[run.phase];
        *phase = Some(match phase.take() {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    let zeros = |device: &Device| Tensor::zeros((count, s * c), DType::F32, device);
    // Lines of all phases follow one another.
    let lines = phases.into_iter().map(|phase| {
        let phase = phase.map_or_else(|| zeros(windows.device()), Ok)?;
        Ok(phase.reshape((count / width, width * s * c))?.narrow(1, g.padding.1 * c, w * c)?)
    });
    let lines = Tensor::cat(&lines.collect::<Result<Vec<_>>>()?, 1)?;
    let images = count / (height * width);
    let grid = compact(&lines)?.reshape((images, height * s * w * c))?.narrow(1, g.padding.0 * w * c, h * w * c)?;
    Ok(compact(&grid)?.reshape((images, h, w, c))?)
}
