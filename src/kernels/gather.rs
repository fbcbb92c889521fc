//! The register-blocked product that all convolutions come down to.
//!
//! Each pixel of an output grid reads a fixed list of taps from an input grid:
//! `out[p] = Σ_t in[p·step + offset_t] · w_t`. A tile of MR pixels × `width` output channels is kept in registers while
//! its taps and input channels pass by: one vector of weights is loaded, one input value broadcast, and every pair
//! multiplied and added ([`super::tile`]).
//!
//! The MR pixels of a tile are, where the batch allows, the *same* pixel of MR images. They then share their padding,
//! so that a tap outside the image is left out instead of multiplied by zeros: of a 4×4 grid and a 4×4 kernel, 36 % of
//! the products. Adding zeros or leaving them out gives the same bits, so a row's value does not depend on its tile.

use std::ops::Range;

use rayon::prelude::*;

use super::backend::Backend;
use super::buffer::Shared;
use super::pack::Packed;
use super::tile::{Element, Finish, Tap, Tile, TileShape};

/// Tiles a task: their inputs and the panel of weights stay in the second-level cache together.
const TILES: usize = 32;
/// Taps × channels that a panel of weights holds at once: 256 KB of weights at 64 outputs.
const REDUCED: usize = 1024;

/// The operations on a finished value before it is stored: a shift and a residual, then ReLU.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added to each pixel, a value an output channel.
    pub shift: Option<&'a [f32]>,
    /// Added to each value, as many as there are outputs. Of f32 only.
    pub residual: Option<&'a [f32]>,
    /// Whether negative values become 0.
    pub relu: bool,
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

/// Computes every grid pixel's outputs from `input` (N, H, W, reduced) into `out` (N, H', W', outputs).
///
/// # Safety
/// `out` holds batch × output grid × outputs values, and nobody else touches those of this grid meanwhile. Grid pixels
/// map to output pixels inside the output grid. The backend can run here.
pub(super) unsafe fn gather<T: Element>(
    backend: Backend,
    grid: &Grid<'_>,
    input: &[T],
    weights: &Packed<T>,
    out: Shared<T>,
    epilogue: Epilogue<'_>,
) {
    assert_eq!(input.len(), grid.batch * grid.input.0 * grid.input.1 * weights.reduced, "input of a gather");
    assert_eq!(grid.offsets.len(), weights.taps, "taps of a gather");
    assert!(weights.reduced.is_multiple_of(T::GROUP), "channels of a gather");
    assert!(epilogue.residual.is_none() || T::SUMS_IN_OUTPUT, "a residual of a gather of f32");
    let mut shift = vec![0.0; weights.panels() * weights.width]; // tiles load whole vectors
    if let Some(given) = epilogue.shift {
        shift[..weights.outputs].copy_from_slice(&given[..weights.outputs]);
    }
    match T::tile(backend, weights.outputs) {
        // SAFETY: the caller's promises are passed on; the element chose a tile that the backend can run.
        TileShape::Six(tile) => unsafe {
            run(&tile, grid, input, weights, out, Epilogue { shift: Some(&shift), ..epilogue })
        },
        // SAFETY: as above.
        TileShape::Twelve(tile) => unsafe {
            run(&tile, grid, input, weights, out, Epilogue { shift: Some(&shift), ..epilogue })
        },
    }
}

/// Splits the work into tasks: blocks of tiles, and panels too where blocks are few.
///
/// # Safety
/// As for [`gather`].
unsafe fn run<T: Element, const MR: usize>(
    tile: &Tile<T, MR>,
    grid: &Grid<'_>,
    input: &[T],
    weights: &Packed<T>,
    out: Shared<T>,
    epilogue: Epilogue<'_>,
) {
    assert_eq!(tile.width, weights.width, "panels of a gather");
    let order = PixelOrder::<MR>::new(grid);
    let panels = weights.panels();
    let blocks = order.tiles.div_ceil(TILES);
    let splits = (4 * rayon::current_num_threads()).div_ceil(blocks.max(1)).clamp(1, panels.max(1));
    let per_split = panels.div_ceil(splits);
    let zeros = vec![T::default(); weights.reduced];
    (0..blocks * splits).into_par_iter().for_each(|task| {
        let (block, split) = (task / splits, task % splits);
        let tiles = block * TILES..((block + 1) * TILES).min(order.tiles);
        let table = Table::new(grid, &order, tiles, input, &zeros, weights);
        let mut scratch = Scratch::new(MR * weights.width);
        for panel in split * per_split..((split + 1) * per_split).min(panels) {
            // SAFETY: tasks differ in their tiles (pixels) or panels (channels), so they write disjoint values; the
            // rest the caller vouches for.
            unsafe { table.run_panel(tile, weights, panel, out, epilogue, &mut scratch) };
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

    /// The first image and the position of a tile whose rows are one pixel of MR images.
    fn group(&self, tile: usize) -> Option<(usize, usize)> {
        (tile < self.grouped).then(|| ((tile / self.positions) * MR, tile % self.positions))
    }

    /// Image and position of a tile's row, or `None` past the last pixel.
    fn pixel(&self, tile: usize, row: usize) -> Option<(usize, usize)> {
        if let Some((image, position)) = self.group(tile) {
            return Some((image + row, position));
        }
        let index = (tile - self.grouped) * MR + row;
        let first = self.grouped / self.positions * MR;
        (index < self.left_over * self.positions).then(|| (first + index % self.left_over, index / self.left_over))
    }
}

/// Where sums wait and cut panels are stored before they are copied: one tile's, or a block's.
struct Scratch<T> {
    tile: usize,
    sums: Vec<f32>,
    cut: Vec<T>,
}

impl<T: Element> Scratch<T> {
    fn new(tile: usize) -> Self {
        Self { tile, sums: vec![0.0; TILES * tile], cut: vec![T::default(); tile] }
    }
}

/// The taps and destinations of a block of tiles.
struct Table<T, const MR: usize> {
    taps: Vec<Tap<T, MR>>,
    /// Taps of pass p of tile i: `taps[bounds[i·passes + p]..bounds[i·passes + p + 1]]`.
    bounds: Vec<usize>,
    passes: usize,
    /// Index of each row's first output value; `None` past the last pixel.
    outputs: Vec<[Option<usize>; MR]>,
}

impl<T: Element, const MR: usize> Table<T, MR> {
    fn new(
        grid: &Grid<'_>,
        order: &PixelOrder<MR>,
        tiles: Range<usize>,
        input: &[T],
        zeros: &[T],
        weights: &Packed<T>,
    ) -> Self {
        let per_pass = (REDUCED * T::GROUP / weights.reduced.max(1)).clamp(1, weights.taps.max(1));
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
            table.outputs.push(pixels.map(|p| p.map(|(image, at)| grid.output_index(image, at, weights.outputs))));
            let group = order.group(tile);
            for pass in 0..passes {
                for tap in pass * per_pass..((pass + 1) * per_pass).min(weights.taps) {
                    let value = |pixel: usize| input[pixel * weights.reduced..].as_ptr();
                    let rows = match group {
                        // One look at the tap serves all rows: they lie an image apart.
                        Some((image, at)) => grid.input_index(image, at, tap).map(|first| {
                            let image = grid.input.0 * grid.input.1;
                            std::array::from_fn(|row| value(first + row * image))
                        }),
                        None => {
                            let index = pixels.map(|p| p.and_then(|(image, at)| grid.input_index(image, at, tap)));
                            let inside = index.iter().any(Option::is_some);
                            inside.then(|| index.map(|i| i.map_or(zeros.as_ptr(), value)))
                        }
                    };
                    if let Some(rows) = rows {
                        table.taps.push(Tap { weights: tap * weights.reduced * weights.width, rows });
                    }
                }
                table.bounds.push(table.taps.len());
            }
        }
        table
    }

    /// Runs one panel over every tile, a pass of taps after another.
    ///
    /// # Safety
    /// As for [`gather`]; the table was made for these weights, and the scratch for this tile.
    unsafe fn run_panel(
        &self,
        tile: &Tile<T, MR>,
        weights: &Packed<T>,
        panel: usize,
        out: Shared<T>,
        epilogue: Epilogue<'_>,
        scratch: &mut Scratch<T>,
    ) {
        let (width, first) = (tile.width, panel * tile.width);
        let used = width.min(weights.outputs - first);
        let whole = used == width;
        let (sums_at, cut_at) = (Shared::of(&mut scratch.sums), Shared::of(&mut scratch.cut));
        let values = weights.panel(panel).as_ptr();
        let shift = epilogue.shift.unwrap_or_default();
        for pass in 0..self.passes {
            let last = pass + 1 == self.passes;
            for (i, outputs) in self.outputs.iter().enumerate() {
                let taps = &self.taps[self.bounds[i * self.passes + pass]..self.bounds[i * self.passes + pass + 1]];
                if taps.is_empty() && pass > 0 && !last {
                    continue;
                }
                // SAFETY: indices of outputs lie inside `out` by the caller's promise, those of the scratch inside its
                // size. A tile writes `width` values a row: a whole panel has room for them, a cut one goes through the
                // scratch.
                unsafe {
                    let to: [*mut T; MR] = std::array::from_fn(|row| match outputs[row] {
                        Some(index) if whole => out.at(index + first),
                        _ => cut_at.at(row * width),
                    });
                    let sums: [*mut f32; MR] = std::array::from_fn(|row| match outputs[row] {
                        Some(_) if whole && T::SUMS_IN_OUTPUT => to[row].cast(),
                        _ => sums_at.at(i * scratch.tile + row * width),
                    });
                    let finish = last.then_some(Finish { shift: shift[first..].as_ptr(), relu: epilogue.relu, to });
                    let residual = epilogue.residual.filter(|_| pass == 0);
                    if let Some(residual) = residual {
                        place_residual(residual, outputs, &sums, first..first + used);
                    }
                    let is_first = pass == 0 && residual.is_none();
                    (tile.run)(taps, weights.reduced / T::GROUP, values, &sums, is_first, finish);
                    if last && !whole {
                        for (row, index) in outputs.iter().enumerate().filter_map(|(row, i)| i.map(|i| (row, i))) {
                            std::ptr::copy_nonoverlapping(cut_at.at(row * width), out.at(index + first), used);
                        }
                    }
                }
            }
        }
    }
}

/// Puts the residual of a tile's rows and of some channels where the sums of earlier taps would stand.
///
/// # Safety
/// Each of `sums` has room for these channels. `residual` has as many values as the output.
unsafe fn place_residual<const MR: usize>(
    residual: &[f32],
    outputs: &[Option<usize>; MR],
    sums: &[*mut f32; MR],
    channels: Range<usize>,
) {
    for (sums, index) in sums.iter().zip(outputs).filter_map(|(sums, index)| index.map(|index| (sums, index))) {
        let values = &residual[index + channels.start..index + channels.end];
        // SAFETY: the caller vouches for the room, and nobody else writes it.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), *sums, values.len()) };
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
