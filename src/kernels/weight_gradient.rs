//! The gradient of a convolution's weights, tap by tap, with the sums in registers.
//!
//! For one tap, `w[a, b] = Σ_pixels large[pixel + tap, a] · small[pixel, b]`: the pixels pass by a register tile of MR
//! large channels × `width` small channels. The pixels whose tap falls on padding are left out. A block's small rows
//! are copied into panels first, so that a tile reads them in sequence.

use rayon::prelude::*;

use super::backend::Backend;
use super::buffer::{Output, Shared};
use super::convolution::images;
use super::geometry::Geometry;
use super::simd::{Portable, Vector};

/// Large channels a task: a multiple of both tile heights.
const CHANNELS: usize = 252;
/// Pixels that pass by before a tile's sums go back to memory.
const PIXELS: usize = 192;

type WeightTileFn = unsafe fn(&[*const f32], usize, *const f32, *mut f32, usize, bool, usize);

/// Register tiles of one width, the tallest first.
struct Tiles {
    width: usize,
    tiles: &'static [(usize, WeightTileFn)],
}

fn tiles(backend: Backend, outputs: usize) -> Tiles {
    #[cfg(target_arch = "x86_64")]
    {
        use x86::{avx2, avx512};
        match backend {
            Backend::Avx512 if outputs > 32 => {
                return Tiles {
                    width: 64,
                    tiles: &[(6, avx512::<6, 4>), (4, avx512::<4, 4>), (2, avx512::<2, 4>), (1, avx512::<1, 4>)],
                };
            }
            Backend::Avx512 if outputs > 16 => {
                return Tiles { width: 32, tiles: &[(12, avx512::<12, 2>), (4, avx512::<4, 2>), (1, avx512::<1, 2>)] };
            }
            Backend::Avx512 => {
                return Tiles { width: 16, tiles: &[(12, avx512::<12, 1>), (4, avx512::<4, 1>), (1, avx512::<1, 1>)] };
            }
            Backend::Avx2 if outputs > 8 => {
                return Tiles { width: 16, tiles: &[(6, avx2::<6, 2>), (2, avx2::<2, 2>), (1, avx2::<1, 2>)] };
            }
            Backend::Avx2 => {
                return Tiles { width: 8, tiles: &[(12, avx2::<12, 1>), (4, avx2::<4, 1>), (1, avx2::<1, 1>)] };
            }
            Backend::Portable => {}
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = backend;
    if outputs > 4 {
        Tiles { width: 8, tiles: &[(6, tile::<Portable, 6, 2>), (1, tile::<Portable, 1, 2>)] }
    } else {
        Tiles { width: 4, tiles: &[(12, tile::<Portable, 12, 1>), (1, tile::<Portable, 1, 1>)] }
    }
}

/// The gradient of the weights, (k, k, C_large, C_small).
pub(super) fn weight_gradient(backend: Backend, g: &Geometry, large: &[f32], small: &[f32]) -> Vec<f32> {
    let batch = images(large.len(), g.large_len());
    assert_eq!(small.len(), batch * g.small_len(), "images on the small grid");
    let tiles = tiles(backend, g.small_channels);
    let blocks = g.large_channels.div_ceil(CHANNELS);
    let mut out = Output::new(g.weights_len());
    let to = out.as_shared();
    (0..g.taps() * blocks).into_par_iter().for_each(|task| {
        let (tap, block) = (task / blocks, task % blocks);
        let channels = block * CHANNELS..((block + 1) * CHANNELS).min(g.large_channels);
        let mut task = Task::new(g, &tiles, tap, channels, to);
        for (large, small) in large.chunks_exact(g.large_len()).zip(small.chunks_exact(g.small_len())) {
            task.image(large, small);
        }
        task.finish();
    });
    // SAFETY: every tap's rows, one large channel each, were written by one task.
    unsafe { out.assume_init() }
}

/// One tap's rows for a block of large channels.
struct Task<'a> {
    g: &'a Geometry,
    tiles: &'a Tiles,
    tap: usize,
    channels: std::ops::Range<usize>,
    out: Shared<f32>,
    /// The large pixels that wait to be multiplied.
    large: Vec<*const f32>,
    /// Their small counterparts: [panel][pixel][width].
    small: Vec<f32>,
    first: bool,
}

impl<'a> Task<'a> {
    fn new(g: &'a Geometry, tiles: &'a Tiles, tap: usize, channels: std::ops::Range<usize>, out: Shared<f32>) -> Self {
        let panels = g.small_channels.div_ceil(tiles.width);
        let small = vec![0.0; panels * PIXELS * tiles.width];
        Self { g, tiles, tap, channels, out, large: Vec::with_capacity(PIXELS), small, first: true }
    }

    /// Adds the pixels of an image whose tap falls inside it.
    fn image(&mut self, large: &[f32], small: &[f32]) {
        let g = self.g;
        let (u, v) = (self.tap / g.kernel, self.tap % g.kernel);
        for i in 0..g.small.0 {
            let Some(y) = (i * g.stride + u).checked_sub(g.padding.0).filter(|y| *y < g.large.0) else { continue };
            for j in 0..g.small.1 {
                let Some(x) = (j * g.stride + v).checked_sub(g.padding.1).filter(|x| *x < g.large.1) else { continue };
                let pixel = i * g.small.1 + j;
                self.push(
                    large[(y * g.large.1 + x) * g.large_channels..][..g.large_channels].as_ptr(),
                    &small[pixel * g.small_channels..][..g.small_channels],
                );
            }
        }
    }

    fn push(&mut self, large: *const f32, small: &[f32]) {
        let (width, pixel) = (self.tiles.width, self.large.len());
        for (panel, values) in small.chunks(width).enumerate() {
            self.small[(panel * PIXELS + pixel) * width..][..values.len()].copy_from_slice(values);
        }
        self.large.push(large);
        if self.large.len() == PIXELS {
            self.flush();
        }
    }

    /// Multiplies the waiting pixels.
    fn flush(&mut self) {
        let (g, width) = (self.g, self.tiles.width);
        for panel in 0..g.small_channels.div_ceil(width) {
            let used = width.min(g.small_channels - panel * width);
            let mut channel = self.channels.start;
            while channel < self.channels.end {
                let left = self.channels.end - channel;
                let Some((height, tile)) = self.tiles.tiles.iter().find(|(height, _)| *height <= left) else { break };
                // SAFETY: `large` points to pixels of C_large values, of which the tile reads `height` from `channel`
                // on; `small` holds a panel of `width` values a pixel; the rows (tap, channel..) of the output, `used`
                // values each from the panel on, belong to this task.
                unsafe {
                    let row = (self.tap * g.large_channels + channel) * g.small_channels + panel * width;
                    let small = self.small.as_ptr().add(panel * PIXELS * width);
                    tile(&self.large, channel, small, self.out.at(row), g.small_channels, self.first, used);
                }
                channel += height;
            }
        }
        self.first = false;
        self.large.clear();
    }

    /// Multiplies what is left. A tap that never falls inside the image has a gradient of 0.
    fn finish(mut self) {
        if self.first || !self.large.is_empty() {
            self.flush();
        }
    }
}

/// `to[r, ..used] = (first ? 0 : to[r, ..used]) + Σ_pixels large[channel + r] · small[..used]`.
///
/// # Safety
/// The vector's instructions are available. Each of `large` has channel + MR readable values, `small` NV × LANES a
/// pixel; `to` has MR rows, `stride` apart, of `used` ≤ NV × LANES writable values.
#[inline(always)]
unsafe fn tile<V: Vector, const MR: usize, const NV: usize>(
    large: &[*const f32],
    channel: usize,
    mut small: *const f32,
    to: *mut f32,
    stride: usize,
    first: bool,
    used: usize,
) {
    // SAFETY: all accesses are those that the caller vouches for; a row cut short goes through a whole one on the
    // stack.
    unsafe {
        let mut sums = [[V::splat(0.0); NV]; MR];
        for pixel in large {
            let pixel = pixel.add(channel);
            let vectors: [V; NV] = std::array::from_fn(|j| V::load(small.add(j * V::LANES)));
            for (r, sums) in sums.iter_mut().enumerate() {
                let value = V::splat(*pixel.add(r));
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    *sum = value.mul_add(vector, *sum);
                }
            }
            small = small.add(NV * V::LANES);
        }
        let mut scratch = [0.0_f32; 64];
        for (r, sums) in sums.into_iter().enumerate() {
            let row = to.add(r * stride);
            let whole = used == NV * V::LANES;
            if !whole && !first {
                std::ptr::copy_nonoverlapping(row, scratch.as_mut_ptr(), used);
            }
            let at = if whole { row } else { scratch.as_mut_ptr() };
            for (j, sum) in sums.into_iter().enumerate() {
                let at = at.add(j * V::LANES);
                let sum = if first { sum } else { sum.add(V::load(at)) };
                sum.store(at);
            }
            if !whole {
                std::ptr::copy_nonoverlapping(scratch.as_ptr(), row, used);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::simd::x86::{Avx2, Avx512};
    use super::tile;

    /// [`tile`] compiled for AVX2 and FMA.
    ///
    /// # Safety
    /// As for [`tile`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2<const MR: usize, const NV: usize>(
        large: &[*const f32],
        channel: usize,
        small: *const f32,
        to: *mut f32,
        stride: usize,
        first: bool,
        used: usize,
    ) {
        // SAFETY: the caller's promise; the instructions are enabled here.
        unsafe { tile::<Avx2, MR, NV>(large, channel, small, to, stride, first, used) }
    }

    /// [`tile`] compiled for AVX-512.
    ///
    /// # Safety
    /// As for [`tile`].
    #[target_feature(enable = "avx2,fma,avx512f")]
    pub(super) unsafe fn avx512<const MR: usize, const NV: usize>(
        large: &[*const f32],
        channel: usize,
        small: *const f32,
        to: *mut f32,
        stride: usize,
        first: bool,
        used: usize,
    ) {
        // SAFETY: the caller's promise; the instructions are enabled here.
        unsafe { tile::<Avx512, MR, NV>(large, channel, small, to, stride, first, used) }
    }
}
