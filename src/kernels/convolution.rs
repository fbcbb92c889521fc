//! SAME convolution between a large and a small grid, both ways, and the gradient of its weights.

use half::bf16;
use rayon::prelude::*;

use super::backend::{Backend, backend};
use super::buffer::Output;
use super::gather::{Epilogue, Grid, gather};
use super::geometry::Geometry;
use super::pack::{Order, Packed, pack};
use super::tile::Element;
use super::{thin, weight_gradient as general};

/// Images a task where a layer is computed image by image.
pub(super) const IMAGES: usize = 4;

/// Weights packed for `down`: from the large grid to the small one, of f32 values or of bf16 ones with sums in f32.
#[derive(Debug)]
pub struct DownWeights<T = f32> {
    geometry: Geometry,
    backend: Backend,
    packed: Packed<T>,
}

impl DownWeights {
    /// Packs weights (k, k, C_large, C_small), each small channel multiplied by `scale`, a value a channel.
    pub fn new(geometry: Geometry, weights: &[f32], scale: Option<&[f32]>) -> Self {
        Self::on(backend(), geometry, weights, scale)
    }

    pub(super) fn on(backend: Backend, geometry: Geometry, weights: &[f32], scale: Option<&[f32]>) -> Self {
        if !thin::is_thin(&geometry) {
            return Self::of_taps(backend, geometry, weights, scale);
        }
        assert_eq!(weights.len(), geometry.weights_len(), "weights of a convolution");
        let (rows, small) = (geometry.taps() * geometry.large_channels, geometry.small_channels);
        let width = f32::tile(backend, small).width();
        Self { geometry, backend, packed: pack(weights, (rows, small), Order::ReduceRows, &[0], width, scale) }
    }

    /// (N, H, W, C_large) → (N, h, w, C_small).
    pub fn apply(&self, large: &[f32], epilogue: Epilogue<'_>) -> Vec<f32> {
        self.apply_on(&self.geometry, large, epilogue)
    }

    /// As [`Self::apply`], on grids of another size: `g` differs from the geometry of the weights in its grids and its
    /// padding alone.
    ///
    /// # Panics
    /// If it differs in more, or if the residual has another length than the output.
    pub(crate) fn apply_on(&self, g: &Geometry, large: &[f32], epilogue: Epilogue<'_>) -> Vec<f32> {
        let weights = |g: &Geometry| (g.weights_shape(), g.stride);
        assert_eq!(weights(g), weights(&self.geometry), "weights of a convolution");
        let len = images(large.len(), g.large_len()) * g.small_len();
        assert!(epilogue.residual.is_none_or(|residual| residual.len() == len), "residual of a convolution");
        if !thin::is_thin(g) {
            return self.apply_taps(g, large, epilogue);
        }
        let mut out = Output::new(len);
        let to = out.as_shared();
        large.par_chunks(IMAGES * g.large_len()).enumerate().for_each(|(chunk, large)| {
            let columns = thin::columns(g, large);
            let grid = whole(images(large.len(), g.large_len()), g.small, g.small, 1, &[(0, 0)]);
            // SAFETY: each task writes the images of its own chunk, all of whose pixels exist in `out`.
            unsafe {
                let first = chunk * IMAGES * g.small_len();
                let residual = epilogue.residual.map(|residual| &residual[first..]);
                gather(self.backend, &grid, &columns, &self.packed, to.from(first), Epilogue { residual, ..epilogue });
            }
        });
        // SAFETY: every pixel of the small grid of every image was written.
        unsafe { out.assume_init() }
    }
}

impl DownWeights<bf16> {
    /// As for f32, if the layer can be computed so: an even number of channels comes in, more than a few.
    pub fn new_bf16(geometry: Geometry, weights: &[f32], scale: Option<&[f32]>) -> Option<Self> {
        let fits = !thin::is_thin(&geometry) && geometry.large_channels.is_multiple_of(2);
        fits.then(|| Self::of_taps(backend(), geometry, weights, scale))
    }

    /// (N, H, W, C_large) → (N, h, w, C_small).
    pub fn apply(&self, large: &[bf16], epilogue: Epilogue<'_>) -> Vec<bf16> {
        self.apply_taps(&self.geometry, large, epilogue)
    }
}

#[expect(private_bounds, reason = "the two element types have constructors of their own")]
impl<T: Element> DownWeights<T> {
    pub(super) fn of_taps(backend: Backend, geometry: Geometry, weights: &[f32], scale: Option<&[f32]>) -> Self {
        assert_eq!(weights.len(), geometry.weights_len(), "weights of a convolution");
        let taps: Vec<usize> = (0..geometry.taps()).collect();
        let matrix = (geometry.large_channels, geometry.small_channels);
        let width = T::tile(backend, geometry.small_channels).width();
        Self { geometry, backend, packed: pack(weights, matrix, Order::ReduceRows, &taps, width, scale) }
    }

    fn apply_taps(&self, g: &Geometry, large: &[T], epilogue: Epilogue<'_>) -> Vec<T> {
        let batch = images(large.len(), g.large_len());
        let (top, left) = (g.padding.0 as isize, g.padding.1 as isize);
        let offset = |t: usize| ((t / g.kernel) as isize - top, (t % g.kernel) as isize - left);
        let offsets: Vec<_> = (0..g.taps()).map(offset).collect();
        let mut out = Output::new(batch * g.small_len());
        let grid = whole(batch, g.large, g.small, g.stride, &offsets);
        // SAFETY: the grid covers the small grid, for which `out` has room, and nobody else writes it.
        unsafe { gather(self.backend, &grid, large, &self.packed, out.as_shared(), epilogue) };
        // SAFETY: every pixel of the small grid of every image was written.
        unsafe { out.assume_init() }
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.packed.memory()
    }
}

/// Weights packed for `up`: from the small grid to the large one, of f32 values or of bf16 ones with sums in f32.
#[derive(Debug)]
pub struct UpWeights<T = f32> {
    geometry: Geometry,
    backend: Backend,
    phases: Vec<Phase<T>>,
}

/// The large pixels (stride·i + origin): they all read the same taps of the small grid, at the same offsets.
#[derive(Debug)]
struct Phase<T> {
    origin: (usize, usize),
    offsets: Vec<(isize, isize)>,
    packed: Packed<T>,
}

impl UpWeights {
    /// Packs weights (k, k, C_large, C_small), each large channel multiplied by `scale`, a value a channel.
    pub fn new(geometry: Geometry, weights: &[f32], scale: Option<&[f32]>) -> Self {
        Self::on(backend(), geometry, weights, scale)
    }

    pub(super) fn on(backend: Backend, geometry: Geometry, weights: &[f32], scale: Option<&[f32]>) -> Self {
        if !thin::is_thin(&geometry) {
            return Self::of_phases(backend, geometry, weights, scale);
        }
        assert_eq!(weights.len(), geometry.weights_len(), "weights of a transposed convolution");
        let rows = geometry.taps() * geometry.large_channels;
        let scale: Option<Vec<f32>> = scale.map(|s| s.iter().copied().cycle().take(rows).collect());
        let (matrix, width) = ((rows, geometry.small_channels), f32::tile(backend, rows).width());
        let packed = pack(weights, matrix, Order::ReduceColumns, &[0], width, scale.as_deref());
        Self { geometry, backend, phases: vec![Phase { origin: (0, 0), offsets: vec![(0, 0)], packed }] }
    }

    /// (N, h, w, C_small) → (N, H, W, C_large).
    pub fn apply(&self, small: &[f32], epilogue: Epilogue<'_>) -> Vec<f32> {
        match self.phases.as_slice() {
            [phase] if thin::is_thin(&self.geometry) => {
                thin::up(self.backend, &self.geometry, small, &phase.packed, epilogue)
            }
            _ => self.apply_phases(small, epilogue),
        }
    }
}

impl UpWeights<bf16> {
    /// As for f32, if the layer can be computed so: an even number of channels comes in, more than a few go out.
    pub fn new_bf16(geometry: Geometry, weights: &[f32], scale: Option<&[f32]>) -> Option<Self> {
        let fits = !thin::is_thin(&geometry) && geometry.small_channels.is_multiple_of(2);
        fits.then(|| Self::of_phases(backend(), geometry, weights, scale))
    }

    /// (N, h, w, C_small) → (N, H, W, C_large).
    pub fn apply(&self, small: &[bf16], epilogue: Epilogue<'_>) -> Vec<bf16> {
        self.apply_phases(small, epilogue)
    }
}

#[expect(private_bounds, reason = "the two element types have constructors of their own")]
impl<T: Element> UpWeights<T> {
    pub(super) fn of_phases(backend: Backend, geometry: Geometry, weights: &[f32], scale: Option<&[f32]>) -> Self {
        assert_eq!(weights.len(), geometry.weights_len(), "weights of a transposed convolution");
        let matrix = (geometry.large_channels, geometry.small_channels);
        let width = T::tile(backend, geometry.large_channels).width();
        let origins = (0..geometry.stride).flat_map(|y| (0..geometry.stride).map(move |x| (y, x)));
        let phases = origins
            .filter(|origin| origin.0 < geometry.large.0 && origin.1 < geometry.large.1)
            .map(|origin| {
                let (taps, offsets): (Vec<_>, Vec<_>) = phase_taps(&geometry, origin).unzip();
                Phase { origin, offsets, packed: pack(weights, matrix, Order::ReduceColumns, &taps, width, scale) }
            })
            .collect();
        Self { geometry, backend, phases }
    }

    fn apply_phases(&self, small: &[T], epilogue: Epilogue<'_>) -> Vec<T> {
        let g = &self.geometry;
        let batch = images(small.len(), g.small_len());
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
    pub fn memory(&self) -> usize {
        self.phases.iter().map(|p| p.packed.memory()).sum()
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

/// The gradient of the weights, (k, k, C_large, C_small), from activations on both grids: for a convolution the input
/// is the large one and the gradient of the output the small one, for a transposed convolution the other way round.
pub fn weight_gradient(geometry: &Geometry, large: &[f32], small: &[f32]) -> Vec<f32> {
    weight_gradient_on(backend(), geometry, large, small)
}

pub(super) fn weight_gradient_on(backend: Backend, geometry: &Geometry, large: &[f32], small: &[f32]) -> Vec<f32> {
    let (large_images, small_images) =
        (images(large.len(), geometry.large_len()), images(small.len(), geometry.small_len()));
    assert_eq!(large_images, small_images, "images on both grids");
    if thin::is_thin(geometry) {
        thin::weight_gradient(backend, geometry, large, small)
    } else {
        general::weight_gradient(backend, geometry, large, small)
    }
}

/// A grid that computes every pixel of the output.
pub(super) fn whole<'a>(
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
    assert!(image > 0 && len.is_multiple_of(image), "{len} values are no whole number of images of {image}");
    len / image
}
