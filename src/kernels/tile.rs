//! Register tiles: MR pixels × `width` output channels, summed in f32 while taps and input channels pass by.

use half::bf16;

use super::backend::Backend;
use super::simd::{Portable, Vector};

/// The type of values between layers: f32, or bf16 with sums in f32.
pub(super) trait Element: Copy + Default + Send + Sync + 'static {
    /// Input channels that one step of a tile takes together.
    const GROUP: usize;
    /// Whether sums that wait for more taps can wait in the output itself.
    const SUMS_IN_OUTPUT: bool;

    /// The tile for a number of outputs.
    fn tile(backend: Backend, outputs: usize) -> TileShape<Self>;

    /// Rounds to nearest, ties to even.
    fn from_f32(value: f32) -> Self;
}

/// One tap of a tile: where its weights start, and the input pixel of each row.
pub(super) struct Tap<T, const MR: usize> {
    pub(super) weights: usize,
    pub(super) rows: [*const T; MR],
}

/// The end of a tile's last pass: a shift (padded to the panel's width), whether to clip at 0, and where to store.
pub(super) struct Finish<T, const MR: usize> {
    pub(super) shift: *const f32,
    pub(super) relu: bool,
    pub(super) to: [*mut T; MR],
}

/// `sums[r] = (first ? 0 : sums[r]) + Σ_taps Σ_c rows[r][c] · w[c]`, or with a finish `to[r] = relu(that + shift)`.
///
/// # Safety
/// The tile's instructions are available. Each row of each tap has `groups` × GROUP readable values, each tap's weights
/// as many times the width; each of `sums` and `to` has the width in writable values, and the shift as many readable
/// ones.
pub(super) type TileFn<T, const MR: usize> =
    unsafe fn(&[Tap<T, MR>], usize, *const T, &[*mut f32; MR], bool, Option<Finish<T, MR>>);

/// A register tile of a given width.
pub(super) struct Tile<T, const MR: usize> {
    pub(super) width: usize,
    pub(super) run: TileFn<T, MR>,
}

/// Tiles come in two heights: what the registers hold beside the weights decides.
pub(super) enum TileShape<T: 'static> {
    Six(Tile<T, 6>),
    Twelve(Tile<T, 12>),
}

impl<T> TileShape<T> {
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Six(tile) => tile.width,
            Self::Twelve(tile) => tile.width,
        }
    }
}

impl Element for f32 {
    const GROUP: usize = 1;
    const SUMS_IN_OUTPUT: bool = true;

    /// 24 accumulators where there are 32 registers, 12 where there are 16.
    fn tile(backend: Backend, outputs: usize) -> TileShape<Self> {
        #[cfg(target_arch = "x86_64")]
        match backend {
            Backend::Avx512 if outputs > 32 => return TileShape::Six(Tile { width: 64, run: x86::avx512::<6, 4> }),
            Backend::Avx512 if outputs > 16 => return TileShape::Twelve(Tile { width: 32, run: x86::avx512::<12, 2> }),
            Backend::Avx512 => return TileShape::Twelve(Tile { width: 16, run: x86::avx512::<12, 1> }),
            Backend::Avx2 if outputs > 8 => return TileShape::Six(Tile { width: 16, run: x86::avx2::<6, 2> }),
            Backend::Avx2 => return TileShape::Twelve(Tile { width: 8, run: x86::avx2::<12, 1> }),
            Backend::Portable => {}
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = backend;
        if outputs > 4 {
            TileShape::Six(Tile { width: 8, run: tile::<Portable, 6, 2> })
        } else {
            TileShape::Twelve(Tile { width: 4, run: tile::<Portable, 12, 1> })
        }
    }

    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    const GROUP: usize = 2;
    const SUMS_IN_OUTPUT: bool = false;

    fn tile(backend: Backend, _: usize) -> TileShape<Self> {
        #[cfg(target_arch = "x86_64")]
        if backend == Backend::Avx512 && super::backend::has_bf16() {
            return TileShape::Six(Tile { width: 64, run: x86::avx512_bf16 });
        }
        let _ = backend;
        TileShape::Six(Tile { width: 8, run: portable_bf16 })
    }

    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// A tile of f32, in the vectors of one backend.
///
/// # Safety
/// As for [`TileFn`].
#[inline(always)]
unsafe fn tile<V: Vector, const MR: usize, const NV: usize>(
    taps: &[Tap<f32, MR>],
    groups: usize,
    weights: *const f32,
    sums: &[*mut f32; MR],
    first: bool,
    finish: Option<Finish<f32, MR>>,
) {
    // SAFETY: all accesses are those that the caller vouches for.
    unsafe {
        let mut tile = [[V::splat(0.0); NV]; MR];
        for tap in taps {
            let (mut w, rows) = (weights.add(tap.weights), tap.rows);
            for c in 0..groups {
                let vectors: [V; NV] = std::array::from_fn(|j| V::load(w.add(j * V::LANES)));
                for (row, sums) in rows.iter().zip(&mut tile) {
                    let value = V::splat(*row.add(c));
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = value.mul_add(vector, *sum);
                    }
                }
                w = w.add(NV * V::LANES);
            }
        }
        for (r, tile) in tile.into_iter().enumerate() {
            for (j, mut value) in tile.into_iter().enumerate() {
                let at = j * V::LANES;
                if !first {
                    value = value.add(V::load(sums[r].add(at)));
                }
                match &finish {
                    None => value.store(sums[r].add(at)),
                    Some(finish) => {
                        value = value.add(V::load(finish.shift.add(at)));
                        if finish.relu {
                            value = V::splat(0.0).max(value);
                        }
                        value.store(finish.to[r].add(at));
                    }
                }
            }
        }
    }
}

/// A tile of bf16 pairs in plain Rust, six pixels × eight outputs: what the AVX-512 one is tested against.
///
/// # Safety
/// As for [`TileFn`].
unsafe fn portable_bf16(
    taps: &[Tap<bf16, 6>],
    groups: usize,
    weights: *const bf16,
    sums: &[*mut f32; 6],
    first: bool,
    finish: Option<Finish<bf16, 6>>,
) {
    const WIDTH: usize = 8;
    // SAFETY: all accesses are those that the caller vouches for.
    unsafe {
        for (r, sums) in sums.iter().enumerate() {
            let mut tile = [0.0_f32; WIDTH];
            for tap in taps {
                for g in 0..groups {
                    let w = weights.add(tap.weights + g * WIDTH * 2);
                    for (j, sum) in tile.iter_mut().enumerate() {
                        for half in 0..2 {
                            *sum += (*tap.rows[r].add(2 * g + half)).to_f32() * (*w.add(2 * j + half)).to_f32();
                        }
                    }
                }
            }
            for (j, mut value) in tile.into_iter().enumerate() {
                if !first {
                    value += *sums.add(j);
                }
                match &finish {
                    None => *sums.add(j) = value,
                    Some(finish) => {
                        value += *finish.shift.add(j);
                        let value = if finish.relu && value < 0.0 { 0.0 } else { value };
                        *finish.to[r].add(j) = bf16::from_f32(value);
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::bf16;

    use super::super::simd::x86::{Avx2, Avx512};
    use super::{Finish, Tap, tile};

    /// [`tile`] compiled for AVX2 and FMA.
    ///
    /// # Safety
    /// As for [`super::TileFn`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2<const MR: usize, const NV: usize>(
        taps: &[Tap<f32, MR>],
        groups: usize,
        weights: *const f32,
        sums: &[*mut f32; MR],
        first: bool,
        finish: Option<Finish<f32, MR>>,
    ) {
        // SAFETY: the caller's promise; the instructions are enabled here.
        unsafe { tile::<Avx2, MR, NV>(taps, groups, weights, sums, first, finish) }
    }

    /// [`tile`] compiled for AVX-512.
    ///
    /// # Safety
    /// As for [`super::TileFn`].
    #[target_feature(enable = "avx2,fma,avx512f")]
    pub(super) unsafe fn avx512<const MR: usize, const NV: usize>(
        taps: &[Tap<f32, MR>],
        groups: usize,
        weights: *const f32,
        sums: &[*mut f32; MR],
        first: bool,
        finish: Option<Finish<f32, MR>>,
    ) {
        // SAFETY: the caller's promise; the instructions are enabled here.
        unsafe { tile::<Avx512, MR, NV>(taps, groups, weights, sums, first, finish) }
    }

    /// Six pixels × 64 outputs of bf16: each step multiplies a pair of channels with 64 pairs of weights and adds both
    /// products to the f32 sums.
    ///
    /// # Safety
    /// As for [`super::TileFn`].
    #[target_feature(enable = "avx2,fma,avx512f,avx512bf16")]
    pub(super) unsafe fn avx512_bf16(
        taps: &[Tap<bf16, 6>],
        groups: usize,
        weights: *const bf16,
        sums: &[*mut f32; 6],
        first: bool,
        finish: Option<Finish<bf16, 6>>,
    ) {
        const VECTORS: usize = 4;
        // SAFETY: all accesses are those that the caller vouches for. A vector of 32 bf16 values and one of 16 integers
        // of 32 bits, a pair each, have the same bits.
        unsafe {
            let mut tile = [[_mm512_setzero_ps(); VECTORS]; 6];
            for tap in taps {
                let (mut w, rows) = (weights.add(tap.weights), tap.rows);
                for g in 0..groups {
                    let vectors: [__m512bh; VECTORS] =
                        std::array::from_fn(|j| std::mem::transmute(_mm512_loadu_si512(w.add(j * 32).cast())));
                    for (row, sums) in rows.iter().zip(&mut tile) {
                        let pair = row.add(2 * g).cast::<i32>().read_unaligned();
                        let value: __m512bh = std::mem::transmute(_mm512_set1_epi32(pair));
                        for (sum, vector) in sums.iter_mut().zip(vectors) {
                            *sum = _mm512_dpbf16_ps(*sum, value, vector);
                        }
                    }
                    w = w.add(VECTORS * 32);
                }
            }
            for (r, tile) in tile.into_iter().enumerate() {
                for (j, mut value) in tile.into_iter().enumerate() {
                    let at = j * 16;
                    if !first {
                        value = _mm512_add_ps(value, _mm512_loadu_ps(sums[r].add(at)));
                    }
                    match &finish {
                        None => _mm512_storeu_ps(sums[r].add(at), value),
                        Some(finish) => {
                            value = _mm512_add_ps(value, _mm512_loadu_ps(finish.shift.add(at)));
                            if finish.relu {
                                value = _mm512_max_ps(_mm512_setzero_ps(), value);
                            }
                            let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(value));
                            _mm256_storeu_si256(finish.to[r].add(at).cast(), rounded);
                        }
                    }
                }
            }
        }
    }
}
