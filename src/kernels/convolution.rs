//! SAME convolution between a large and a small grid, both ways, and the gradient of its weights.

use rayon::prelude::*;

use super::backend::{Backend, backend};
use super::buffer::{Output, Shared};
use super::gather::{Epilogue, Grid, gather, panel_width};
use super::geometry::Geometry;
use super::pack::{Order, Packed, pack};
use super::{thin, weight_gradient as general};

/// Images a task where a layer is computed image by image.
pub(super) const IMAGES: usize = 4;

/// Weights packed for `down`: from the large grid to the small one.
#[derive(Debug)]
pub(crate) struct DownWeights {
    geometry: Geometry,
    backend: Backend,
    packed: Packed,
}

impl DownWeights {
    /// Packs weights (k, k, C_large, C_small), each small channel multiplied by `scale`, a value a channel.
    pub(crate) fn new(geometry: Geometry, weights: &[f32], scale: Option<&[f32]>) -> Self {
        Self::with_backend(backend(), geometry, weights, scale)
    }

    pub(super) fn with_backend(backend: Backend, geometry: Geometry, weights: &[f32], scale: Option<&[f32]>) -> Self {
        assert_eq!(weights.len(), geometry.weights_len(), "weights of a convolution");
        let (large, small) = (geometry.large_channels, geometry.small_channels);
        let width = panel_width(backend, small);
        let packed = if thin::is_thin(&geometry) {
            pack(weights, (geometry.taps() * large, small), Order::ReduceRows, &[0], width, scale)
        } else {
            let taps: Vec<usize> = (0..geometry.taps()).collect();
            pack(weights, (large, small), Order::ReduceRows, &taps, width, scale)
        };
        Self { geometry, backend, packed }
    }

    /// (N, H, W, C_large) → (N, h, w, C_small).
    pub(crate) fn apply(&self, large: &[f32], epilogue: Epilogue<'_>) -> Vec<f32> {
        let g = &self.geometry;
        let batch = images(large.len(), g.large_len());
        let mut out = Output::new(batch * g.small_len());
        let to = out.as_shared();
        if thin::is_thin(g) {
            large.par_chunks(IMAGES * g.large_len()).enumerate().for_each(|(chunk, large)| {
                let columns = thin::columns(g, large);
                let grid = whole(images(large.len(), g.large_len()), g.small, g.small, 1, &[(0, 0)]);
                // SAFETY: each task writes the images of its own chunk, all of whose pixels exist in `out`.
                unsafe {
                    let to = Shared::of(std::slice::from_raw_parts_mut(to.at(chunk * IMAGES * g.small_len()), 0));
                    gather(self.backend, &grid, &columns, &self.packed, to, epilogue);
                }
            });
        } else {
            let (top, left) = (g.padding.0 as isize, g.padding.1 as isize);
            let offsets: Vec<_> =
                (0..g.taps()).map(|t| ((t / g.kernel) as isize - top, (t % g.kernel) as isize - left)).collect();
            let grid = whole(batch, g.large, g.small, g.stride, &offsets);
            // SAFETY: the grid covers the small grid, for which `out` has room, and nobody else writes it.
            unsafe { gather(self.backend, &grid, large, &self.packed, to, epilogue) };
        }
        // SAFETY: every pixel of the small grid of every image was written.
        unsafe { out.assume_init() }
    }

    /// Bytes of memory held.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(self.packed.values.as_slice())
    }
}

/// Weights packed for `up`: from the small grid to the large one.
#[derive(Debug)]
pub(crate) struct UpWeights {
    geometry: Geometry,
    backend: Backend,
    phases: Vec<Phase>,
}

/// The large pixels (stride·i + origin): they all read the same taps of the small grid, at the same offsets.
#[derive(Debug)]
struct Phase {
    origin: (usize, usize),
    offsets: Vec<(isize, isize)>,
    packed: Packed,
}

impl UpWeights {
    /// Packs weights (k, k, C_large, C_small), each large channel multiplied by `scale`, a value a channel.
    pub(crate) fn new(geometry: Geometry, weights: &[f32], scale: Option<&[f32]>) -> Self {
        Self::with_backend(backend(), geometry, weights, scale)
    }

    pub(super) fn with_backend(backend: Backend, geometry: Geometry, weights: &[f32], scale: Option<&[f32]>) -> Self {
        assert_eq!(weights.len(), geometry.weights_len(), "weights of a transposed convolution");
        let (large, small) = (geometry.large_channels, geometry.small_channels);
        if thin::is_thin(&geometry) {
            let rows = geometry.taps() * large;
            let scale: Option<Vec<f32>> = scale.map(|s| s.iter().copied().cycle().take(rows).collect());
            let width = panel_width(backend, rows);
            let packed = pack(weights, (rows, small), Order::ReduceColumns, &[0], width, scale.as_deref());
            let phases = vec![Phase { origin: (0, 0), offsets: vec![(0, 0)], packed }];
            return Self { geometry, backend, phases };
        }
        let width = panel_width(backend, large);
        let origins = (0..geometry.stride).flat_map(|y| (0..geometry.stride).map(move |x| (y, x)));
        let phases = origins
            .filter(|origin| origin.0 < geometry.large.0 && origin.1 < geometry.large.1)
            .map(|origin| {
                let (taps, offsets): (Vec<_>, Vec<_>) = phase_taps(&geometry, origin).unzip();
                Phase {
                    origin,
                    offsets,
                    packed: pack(weights, (large, small), Order::ReduceColumns, &taps, width, scale),
                }
            })
            .collect();
        Self { geometry, backend, phases }
    }

    /// (N, h, w, C_small) → (N, H, W, C_large).
    pub(crate) fn apply(&self, small: &[f32], epilogue: Epilogue<'_>) -> Vec<f32> {
        let g = &self.geometry;
        let batch = images(small.len(), g.small_len());
        if thin::is_thin(g) {
            return thin::up(self.backend, g, small, &self.phases[0].packed, epilogue);
        }
        let mut out = Output::new(batch * g.large_len());
        for phase in &self.phases {
            let remaining = |size: usize, origin: usize| (size - origin).div_ceil(g.stride);
            let grid = Grid {
                grid: (remaining(g.large.0, phase.origin.0), remaining(g.large.1, phase.origin.1)),
                out_step: g.stride,
                origin: phase.origin,
                ..whole(batch, g.small, g.large, 1, &phase.offsets)
            };
            // SAFETY: a phase's pixels lie inside the large grid, for which `out` has room.
            unsafe { gather(self.backend, &grid, small, &phase.packed, out.as_shared(), epilogue) };
        }
        // SAFETY: the phases together hold every pixel of the large grid.
        unsafe { out.assume_init() }
    }

    /// Bytes of memory held.
    pub(crate) fn memory(&self) -> usize {
        self.phases.iter().map(|p| size_of_val(p.packed.values.as_slice())).sum()
    }
}

/// The taps that reach a phase's pixels, each with the small pixel it comes from, relative to the phase's own index.
fn phase_taps(g: &Geometry, origin: (usize, usize)) -> impl Iterator<Item = (usize, (isize, isize))> {
    let (kernel, stride, padding) = (g.kernel, g.stride as isize, g.padding);
    let offset = move |origin: usize, padding: usize, tap: usize| {
        let distance = (origin + padding) as isize - tap as isize;
        (distance.rem_euclid(stride) == 0).then(|| distance.div_euclid(stride))
    };
    (0..g.taps()).filter_map(move |tap| {
        let dy = offset(origin.0, padding.0, tap / kernel)?;
        Some((tap, (dy, offset(origin.1, padding.1, tap % kernel)?)))
    })
}

/// The gradient of the weights, (k, k, C_large, C_small), from activations on both grids: for a convolution the input is
/// the large one and the gradient of the output the small one, for a transposed convolution the other way round.
pub(crate) fn weight_gradient(geometry: &Geometry, large: &[f32], small: &[f32]) -> Vec<f32> {
    weight_gradient_on(backend(), geometry, large, small)
}

pub(super) fn weight_gradient_on(backend: Backend, geometry: &Geometry, large: &[f32], small: &[f32]) -> Vec<f32> {
    assert_eq!(
        images(large.len(), geometry.large_len()),
        images(small.len(), geometry.small_len()),
        "images on both grids"
    );
    if thin::is_thin(geometry) {
        thin::weight_gradient(backend, geometry, large, small)
    } else {
        general::weight_gradient(backend, geometry, large, small)
    }
}

/// A grid that computes every pixel of the output.
fn whole<'a>(
    batch: usize,
    input: (usize, usize),
    output: (usize, usize),
    step: usize,
    offsets: &'a [(isize, isize)],
) -> Grid<'a> {
    Grid { batch, input, grid: output, step, offsets, output, out_step: 1, origin: (0, 0) }
}

/// The number of images in a buffer.
pub(super) fn images(len: usize, image: usize) -> usize {
    assert!(
        image > 0 && len.is_multiple_of(image),
        "a buffer of {len} values holds no whole number of images of {image}"
    );
    len / image
}
