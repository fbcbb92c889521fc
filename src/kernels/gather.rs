//! The register-blocked product that all convolutions come down to.
//!
//! Each pixel of an output grid reads a fixed list of taps from an input grid: `out[p] = Σ_t in[p·step + offset_t] · w_t`.
//! A tile of MR pixels × `width` output channels is kept in registers while its taps and input channels pass by: one
//! vector of weights is loaded, one input value broadcast, and every pair multiplied and added.
//!
//! The MR pixels of a tile are, where the batch allows, the *same* pixel of MR images. They then share their padding, so
//! that a tap outside the image is left out instead of multiplied by zeros: of a 4×4 grid and a 4×4 kernel, 36 % of the
//! products. Adding zeros or leaving them out gives the same bits, so a row's value does not depend on its tile.

use rayon::prelude::*;

use super::backend::Backend;
use super::buffer::Shared;
use super::pack::Packed;
use super::simd::{Portable, Vector};

/// Tiles a task: their inputs and the panel of weights stay in the second-level cache together.
const TILES: usize = 32;
/// Taps × channels that a panel of weights holds at once: 256 KB of weights at 64 outputs.
const REDUCED: usize = 1024;

/// What happens to a finished value before it is stored: a shift, then ReLU.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    /// Added to each pixel, a value an output channel.
    pub(crate) shift: Option<&'a [f32]>,
    /// Whether negative values become 0.
    pub(crate) relu: bool,
}

/// Which input pixels an output pixel reads, and where it is written.
pub(super) struct Grid<'a> {
    pub(super) batch: usize,
    /// The input grid.
    pub(super) input: (usize, usize),
    /// The pixels computed in this pass.
    pub(super) grid: (usize, usize),
    /// Input pixels a grid pixel.
    pub(super) step: usize,
    /// Offsets of the taps from `grid pixel · step`.
    pub(super) offsets: &'a [(isize, isize)],
    /// The output grid: grid pixel (i, j) is output pixel (i·out_step + origin).
    pub(super) output: (usize, usize),
    pub(super) out_step: usize,
    pub(super) origin: (usize, usize),
}

/// One tap of a tile: where its weights start, and the input pixel of each row.
pub(super) struct Tap<const MR: usize> {
    weights: usize,
    rows: [*const f32; MR],
}

/// The end of a tile's last pass: the shift (padded to the panel's width) and whether to clip at 0.
type Finish = Option<(*const f32, bool)>;

type TileFn<const MR: usize> = unsafe fn(&[Tap<MR>], usize, *const f32, &[*mut f32; MR], bool, Finish);

/// A register tile: MR pixels × `width` outputs.
struct Tile<const MR: usize> {
    width: usize,
    run: TileFn<MR>,
}

enum Shape {
    Six(Tile<6>),
    Twelve(Tile<12>),
}

/// The tile for a number of outputs: 24 accumulators where there are 32 registers, 12 where there are 16.
fn shape(backend: Backend, outputs: usize) -> Shape {
    #[cfg(target_arch = "x86_64")]
    match backend {
        Backend::Avx512 if outputs > 32 => return Shape::Six(Tile { width: 64, run: x86::avx512::<6, 4> }),
        Backend::Avx512 if outputs > 16 => return Shape::Twelve(Tile { width: 32, run: x86::avx512::<12, 2> }),
        Backend::Avx512 => return Shape::Twelve(Tile { width: 16, run: x86::avx512::<12, 1> }),
        Backend::Avx2 if outputs > 8 => return Shape::Six(Tile { width: 16, run: x86::avx2::<6, 2> }),
        Backend::Avx2 => return Shape::Twelve(Tile { width: 8, run: x86::avx2::<12, 1> }),
        Backend::Portable => {}
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = backend;
    if outputs > 4 {
        Shape::Six(Tile { width: 8, run: tile::<Portable, 6, 2> })
    } else {
        Shape::Twelve(Tile { width: 4, run: tile::<Portable, 12, 1> })
    }
}

/// The width of the panels that `gather` expects weights packed in.
pub(super) fn panel_width(backend: Backend, outputs: usize) -> usize {
    match shape(backend, outputs) {
        Shape::Six(tile) => tile.width,
        Shape::Twelve(tile) => tile.width,
    }
}

/// Computes every grid pixel's outputs from `input` (N, H, W, reduced) into `out` (N, H', W', outputs).
///
/// # Safety
/// `out` holds batch × output grid × outputs values, and nobody else touches those of this grid meanwhile. Grid pixels
/// map to output pixels inside the output grid. The backend can run here.
pub(super) unsafe fn gather(
    backend: Backend,
    grid: &Grid<'_>,
    input: &[f32],
    weights: &Packed,
    out: Shared,
    epilogue: Epilogue<'_>,
) {
    assert_eq!(input.len(), grid.batch * grid.input.0 * grid.input.1 * weights.reduced, "input of a gather");
    assert_eq!(grid.offsets.len(), weights.taps, "taps of a gather");
    let shift = padded_shift(weights, epilogue.shift);
    // SAFETY: the caller's promises are passed on; `shape` chooses a tile that the backend can run.
    match shape(backend, weights.outputs) {
        Shape::Six(tile) => unsafe { run(&tile, grid, input, weights, out, &shift, epilogue.relu) },
        Shape::Twelve(tile) => unsafe { run(&tile, grid, input, weights, out, &shift, epilogue.relu) },
    }
}

/// The shift filled with zeros to whole panels, since tiles load whole vectors.
fn padded_shift(weights: &Packed, shift: Option<&[f32]>) -> Vec<f32> {
    let mut padded = vec![0.0; weights.outputs.div_ceil(weights.width) * weights.width];
    if let Some(shift) = shift {
        padded[..weights.outputs].copy_from_slice(&shift[..weights.outputs]);
    }
    padded
}

/// Splits the work into tasks: blocks of tiles, and panels too where blocks are few.
unsafe fn run<const MR: usize>(
    tile: &Tile<MR>,
    grid: &Grid<'_>,
    input: &[f32],
    weights: &Packed,
    out: Shared,
    shift: &[f32],
    relu: bool,
) {
    assert_eq!(tile.width, weights.width, "panels of a gather");
    let order = PixelOrder::<MR>::new(grid);
    let panels = weights.outputs.div_ceil(weights.width);
    let blocks = order.tiles.div_ceil(TILES);
    let splits = (4 * rayon::current_num_threads()).div_ceil(blocks.max(1)).clamp(1, panels.max(1));
    let per_split = panels.div_ceil(splits);
    let zeros = vec![0.0; weights.reduced];
    (0..blocks * splits).into_par_iter().for_each(|task| {
        let (block, split) = (task / splits, task % splits);
        let tiles = block * TILES..((block + 1) * TILES).min(order.tiles);
        let panels = split * per_split..((split + 1) * per_split).min(panels);
        if panels.is_empty() {
            return;
        }
        let mut scratch = vec![0.0; MR * weights.width];
        // SAFETY: tasks differ in their tiles (pixels) or panels (channels), so they write disjoint values.
        unsafe {
            let table = Table::new(grid, &order, tiles, input, &zeros, weights);
            table.run(tile, grid, weights, panels, out, &mut scratch, (shift, relu));
        }
    });
}

/// The order in which pixels fill tiles: MR images at one position, then the images left over, position by position.
struct PixelOrder<const MR: usize> {
    positions: usize,
    grouped: usize,
    left_over: usize,
    tiles: usize,
}

impl<const MR: usize> PixelOrder<MR> {
    fn new(grid: &Grid<'_>) -> Self {
        let positions = grid.grid.0 * grid.grid.1;
        let (groups, left_over) = (grid.batch / MR, grid.batch % MR);
        let grouped = groups * positions;
        Self { positions, grouped, left_over, tiles: grouped + (left_over * positions).div_ceil(MR) }
    }

    /// Image and position of a tile's row, or `None` past the last pixel.
    fn pixel(&self, tile: usize, row: usize) -> Option<(usize, usize)> {
        if tile < self.grouped {
            return Some(((tile / self.positions) * MR + row, tile % self.positions));
        }
        let index = (tile - self.grouped) * MR + row;
        let first = self.grouped / self.positions * MR;
        (index < self.left_over * self.positions).then(|| (first + index % self.left_over, index / self.left_over))
    }
}

/// The taps and destinations of a block of tiles.
struct Table<const MR: usize> {
    /// First passes of each tile, then second, ...; see `bounds`.
    taps: Vec<Tap<MR>>,
    /// Taps of pass p of tile i: `taps[bounds[i·passes + p]..bounds[i·passes + p + 1]]`.
    bounds: Vec<usize>,
    passes: usize,
    /// Index of each row's first output value; `None` past the last pixel.
    outputs: Vec<[Option<usize>; MR]>,
}

impl<const MR: usize> Table<MR> {
    fn new(
        grid: &Grid<'_>,
        order: &PixelOrder<MR>,
        tiles: std::ops::Range<usize>,
        input: &[f32],
        zeros: &[f32],
        weights: &Packed,
    ) -> Self {
        let per_pass = (REDUCED / weights.reduced.max(1)).clamp(1, weights.taps.max(1));
        let passes = weights.taps.div_ceil(per_pass).max(1);
        let mut table = Self {
            taps: Vec::with_capacity(tiles.len() * weights.taps),
            bounds: Vec::with_capacity(tiles.len() * passes + 1),
            passes,
            outputs: Vec::with_capacity(tiles.len()),
        };
        table.bounds.push(0);
        for tile in tiles {
            let pixels: [Option<(usize, usize)>; MR] = std::array::from_fn(|row| order.pixel(tile, row));
            table
                .outputs
                .push(pixels.map(|p| p.map(|(image, position)| grid.output_index(image, position, weights.outputs))));
            for pass in 0..passes {
                for tap in pass * per_pass..((pass + 1) * per_pass).min(weights.taps) {
                    let mut inside = false;
                    let rows = pixels.map(|pixel| {
                        let index = pixel.and_then(|(image, position)| grid.input_index(image, position, tap));
                        inside |= index.is_some();
                        index.map_or(zeros.as_ptr(), |i| input[i * weights.reduced..].as_ptr())
                    });
                    if inside {
                        table.taps.push(Tap { weights: tap * weights.reduced * weights.width, rows });
                    }
                }
                table.bounds.push(table.taps.len());
            }
        }
        table
    }

    /// Runs every panel over every tile.
    ///
    /// # Safety
    /// As for [`gather`]; `scratch` holds MR panels.
    #[expect(clippy::too_many_arguments, reason = "the innermost driver: a struct would only rename them")]
    unsafe fn run(
        &self,
        tile: &Tile<MR>,
        grid: &Grid<'_>,
        weights: &Packed,
        panels: std::ops::Range<usize>,
        out: Shared,
        scratch: &mut [f32],
        (shift, relu): (&[f32], bool),
    ) {
        debug_assert!(grid.out_step > 0);
        let (width, scratch) = (tile.width, Shared::of(scratch));
        for panel in panels {
            let first = panel * width;
            let used = width.min(weights.outputs - first);
            // SAFETY: a panel holds taps × reduced × width values.
            let values = unsafe { weights.values.as_ptr().add(panel * weights.taps * weights.reduced * width) };
            for pass in 0..self.passes {
                let finish = (pass + 1 == self.passes).then(|| (shift[first..].as_ptr(), relu));
                for (i, outputs) in self.outputs.iter().enumerate() {
                    let taps = &self.taps[self.bounds[i * self.passes + pass]..self.bounds[i * self.passes + pass + 1]];
                    if taps.is_empty() && pass > 0 && finish.is_none() {
                        continue;
                    }
                    // SAFETY: `at` stays inside `out` by the caller's promise and inside `scratch` by its size; the tile
                    // writes `width` values a row, which a whole panel has room for and a cut one goes through scratch.
                    unsafe {
                        let to: [*mut f32; MR] = std::array::from_fn(|row| match outputs[row] {
                            Some(index) if used == width => out.at(index + first),
                            _ => scratch.at(row * width),
                        });
                        let cut = used < width;
                        if cut && pass > 0 {
                            copy_rows(outputs, |row, index| (out.at(index + first), to[row]), used);
                        }
                        (tile.run)(taps, weights.reduced, values, &to, pass == 0, finish);
                        if cut {
                            copy_rows(outputs, |row, index| (to[row], out.at(index + first)), used);
                        }
                    }
                }
            }
        }
    }
}

/// Copies `len` values of each row that exists.
///
/// # Safety
/// `ends` gives two disjoint runs of `len` values, the first readable, the second writable.
unsafe fn copy_rows<const MR: usize>(
    outputs: &[Option<usize>; MR],
    ends: impl Fn(usize, usize) -> (*mut f32, *mut f32),
    len: usize,
) {
    for (row, index) in outputs.iter().enumerate().filter_map(|(row, index)| index.map(|i| (row, i))) {
        let (from, to) = ends(row, index);
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
    }
}

impl Grid<'_> {
    /// Index of the first output value of a grid pixel.
    fn output_index(&self, image: usize, position: usize, outputs: usize) -> usize {
        let y = position / self.grid.1 * self.out_step + self.origin.0;
        let x = position % self.grid.1 * self.out_step + self.origin.1;
        ((image * self.output.0 + y) * self.output.1 + x) * outputs
    }

    /// Index of the input pixel that a tap of a grid pixel reads, or `None` on padding.
    fn input_index(&self, image: usize, position: usize, tap: usize) -> Option<usize> {
        let (dy, dx) = self.offsets[tap];
        let y = (position / self.grid.1 * self.step).checked_add_signed(dy).filter(|y| *y < self.input.0)?;
        let x = (position % self.grid.1 * self.step).checked_add_signed(dx).filter(|x| *x < self.input.1)?;
        Some((image * self.input.0 + y) * self.input.1 + x)
    }
}

/// `to[r] = (first ? 0 : to[r]) + Σ_taps Σ_c rows[r][c] · w[c]`, then the finish.
///
/// # Safety
/// The vector's instructions are available. Each row of each tap has `reduced` readable values, each tap's weights
/// reduced × NV × LANES, each of `to` NV × LANES writable values, and the finish's shift as many readable ones.
#[inline(always)]
unsafe fn tile<V: Vector, const MR: usize, const NV: usize>(
    taps: &[Tap<MR>],
    reduced: usize,
    weights: *const f32,
    to: &[*mut f32; MR],
    first: bool,
    finish: Finish,
) {
    // SAFETY: all accesses are those that the caller vouches for.
    unsafe {
        let mut sums = [[V::splat(0.0); NV]; MR];
        for tap in taps {
            let (mut w, rows) = (weights.add(tap.weights), tap.rows);
            for c in 0..reduced {
                let vectors: [V; NV] = std::array::from_fn(|j| V::load(w.add(j * V::LANES)));
                for r in 0..MR {
                    let value = V::splat(*rows[r].add(c));
                    for j in 0..NV {
                        sums[r][j] = value.mul_add(vectors[j], sums[r][j]);
                    }
                }
                w = w.add(NV * V::LANES);
            }
        }
        for r in 0..MR {
            for j in 0..NV {
                let at = to[r].add(j * V::LANES);
                let mut value = sums[r][j];
                if !first {
                    value = value.add(V::load(at));
                }
                if let Some((shift, relu)) = finish {
                    value = value.add(V::load(shift.add(j * V::LANES)));
                    if relu {
                        value = value.max(V::splat(0.0));
                    }
                }
                value.store(at);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::simd::x86::{Avx2, Avx512};
    use super::{Finish, Tap, tile};

    /// [`tile`] compiled for AVX2 and FMA.
    ///
    /// # Safety
    /// As for [`tile`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2<const MR: usize, const NV: usize>(
        taps: &[Tap<MR>],
        reduced: usize,
        weights: *const f32,
        to: &[*mut f32; MR],
        first: bool,
        finish: Finish,
    ) {
        // SAFETY: the caller's promise; the instructions are enabled here.
        unsafe { tile::<Avx2, MR, NV>(taps, reduced, weights, to, first, finish) }
    }

    /// [`tile`] compiled for AVX-512.
    ///
    /// # Safety
    /// As for [`tile`].
    #[target_feature(enable = "avx2,fma,avx512f")]
    pub(super) unsafe fn avx512<const MR: usize, const NV: usize>(
        taps: &[Tap<MR>],
        reduced: usize,
        weights: *const f32,
        to: &[*mut f32; MR],
        first: bool,
        finish: Finish,
    ) {
        // SAFETY: the caller's promise; the instructions are enabled here.
        unsafe { tile::<Avx512, MR, NV>(taps, reduced, weights, to, first, finish) }
    }
}
