//! The peak of the processor: multiply-adds on values that never leave the registers.

use std::time::Instant;

use wae_core::{Backend, backend};

const PEAK_STEPS: usize = 20_000_000;

/// GFLOP/s of all threads together, on sums that never leave the registers: the best of five.
pub fn measure() -> f64 {
    let (run, a_step) = multiply_adds();
    let seconds = (0..5).map(|_| {
        let start = Instant::now();
        rayon::broadcast(|_| run(PEAK_STEPS));
        start.elapsed().as_secs_f64()
    });
    let products = PEAK_STEPS * a_step * rayon::current_num_threads();
    2.0 * products as f64 / seconds.fold(f64::INFINITY, f64::min) / 1e9
}

/// A function that runs steps of independent multiply-adds, and how many products a step has.
#[cfg(target_arch = "x86_64")]
fn multiply_adds() -> (fn(usize), usize) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};
    use std::hint::black_box;

    #[target_feature(enable = "avx512f")]
    fn avx512(steps: usize) {
        let factor = _mm512_set1_ps(black_box(0.999));
        let addend = _mm512_set1_ps(black_box(0.001));
        let mut sums = [_mm512_set1_ps(1.0); 24];
        for _ in 0..steps {
            sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(*sum, factor, addend));
        }
        black_box(sums);
    }
    #[target_feature(enable = "avx2,fma")]
    fn avx2(steps: usize) {
        let factor = _mm256_set1_ps(black_box(0.999));
        let addend = _mm256_set1_ps(black_box(0.001));
        let mut sums = [_mm256_set1_ps(1.0); 12];
        for _ in 0..steps {
            sums.iter_mut().for_each(|sum| *sum = _mm256_fmadd_ps(*sum, factor, addend));
        }
        black_box(sums);
    }
    match backend() {
        // SAFETY: the backend in use was found to run here.
        Backend::Avx512 => (|steps| unsafe { avx512(steps) }, 24 * 16),
        // SAFETY: as above.
        Backend::Avx2 => (|steps| unsafe { avx2(steps) }, 12 * 8),
        Backend::Portable => portable_multiply_adds(),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn multiply_adds() -> (fn(usize), usize) {
    portable_multiply_adds()
}

/// As the portable kernels do it: a product and a sum, in vectors of four.
fn portable_multiply_adds() -> (fn(usize), usize) {
    fn run(steps: usize) {
        let (factor, addend) = std::hint::black_box(([0.999_f32; 4], [0.001_f32; 4]));
        let mut sums = [[1.0_f32; 4]; 12];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = std::array::from_fn(|i| sum[i] * factor[i] + addend[i]);
            }
        }
        std::hint::black_box(sums);
    }
    (run, 12 * 4)
}
