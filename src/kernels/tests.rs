//! Every backend against the definition, on random geometry.

use proptest::prelude::*;

use super::backend::Backend;
use super::convolution::{DownWeights, UpWeights, weight_gradient_on};
use super::{Epilogue, Geometry};

/// The three operations as the module's page defines them, in f64.
pub(crate) mod definition {
    use super::Geometry;

    /// Calls `each` with indices (large value, small value, weight) of every product of one batch.
    fn products(g: &Geometry, batch: usize, mut each: impl FnMut(usize, usize, usize)) {
        for n in 0..batch {
            for (i, j) in (0..g.small.0).flat_map(|i| (0..g.small.1).map(move |j| (i, j))) {
                for (u, v) in (0..g.kernel).flat_map(|u| (0..g.kernel).map(move |v| (u, v))) {
                    let (y, x) = (g.stride * i + u, g.stride * j + v);
                    if y < g.padding.0
                        || x < g.padding.1
                        || y - g.padding.0 >= g.large.0
                        || x - g.padding.1 >= g.large.1
                    {
                        continue;
                    }
                    let large = (n * g.large.0 + y - g.padding.0) * g.large.1 + x - g.padding.1;
                    let small = (n * g.small.0 + i) * g.small.1 + j;
                    for a in 0..g.large_channels {
                        for b in 0..g.small_channels {
                            let w = ((u * g.kernel + v) * g.large_channels + a) * g.small_channels + b;
                            each(large * g.large_channels + a, small * g.small_channels + b, w);
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn down(g: &Geometry, batch: usize, large: &[f32], weights: &[f32]) -> Vec<f64> {
        let mut out = vec![0.0; batch * g.small_len()];
        products(g, batch, |l, s, w| out[s] += f64::from(large[l]) * f64::from(weights[w]));
        out
    }

    pub(crate) fn up(g: &Geometry, batch: usize, small: &[f32], weights: &[f32]) -> Vec<f64> {
        let mut out = vec![0.0; batch * g.large_len()];
        products(g, batch, |l, s, w| out[l] += f64::from(small[s]) * f64::from(weights[w]));
        out
    }

    pub(crate) fn weight_gradient(g: &Geometry, batch: usize, large: &[f32], small: &[f32]) -> Vec<f64> {
        let mut out = vec![0.0; g.weights_len()];
        products(g, batch, |l, s, w| out[w] += f64::from(large[l]) * f64::from(small[s]));
        out
    }
}

pub(crate) fn values(len: usize, seed: u64) -> Vec<f32> {
    use rand::{RngExt, SeedableRng};
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| generator.random_range(-1.0..1.0)).collect()
}

/// max|a − b| / max|b|.
pub(crate) fn relative_error(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(1e-30_f64, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0.0_f64, |m, (a, b)| m.max((f64::from(*a) - b).abs())) / largest
}

pub(crate) fn geometries() -> impl Strategy<Value = (usize, Geometry)> {
    let channels = prop_oneof![1..=5_usize, 6..=20_usize, Just(33), Just(64), Just(70)];
    (1..=14_usize, (1..=11_usize, 1..=11_usize), (channels.clone(), channels), 1..=7_usize, 1..=2_usize)
        .prop_map(|(batch, large, channels, kernel, stride)| (batch, Geometry::same(large, channels, kernel, stride)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// 500 random geometries, odd sizes, kernels larger than the image and kernels smaller than the stride included.
    #[test]
    fn every_backend_computes_the_definition((batch, g) in geometries(), seed in any::<u64>()) {
        let (large, small) = (values(batch * g.large_len(), seed), values(batch * g.small_len(), seed ^ 1));
        let weights = values(g.weights_len(), seed ^ 2);
        let down = definition::down(&g, batch, &large, &weights);
        let up = definition::up(&g, batch, &small, &weights);
        let gradient = definition::weight_gradient(&g, batch, &large, &small);
        for backend in Backend::available() {
            let got = DownWeights::on(backend, g, &weights, None).apply(&large, Epilogue::default());
            prop_assert!(relative_error(&got, &down) < 1e-5, "{backend:?} down {}", relative_error(&got, &down));
            let got = UpWeights::on(backend, g, &weights, None).apply(&small, Epilogue::default());
            prop_assert!(relative_error(&got, &up) < 1e-5, "{backend:?} up {}", relative_error(&got, &up));
            let got = weight_gradient_on(backend, &g, &large, &small);
            prop_assert!(relative_error(&got, &gradient) < 1e-5, "{backend:?} gradient {}", relative_error(&got, &gradient));
        }
    }

    /// A scale, a shift and ReLU in the store are what they are apart.
    #[test]
    fn the_epilogue_scales_shifts_and_clips((batch, g) in geometries(), seed in any::<u64>()) {
        let (large, small) = (values(batch * g.large_len(), seed), values(batch * g.small_len(), seed ^ 1));
        let weights = values(g.weights_len(), seed ^ 2);
        let finish = |values: Vec<f64>, scale: &[f32], shift: &[f32]| -> Vec<f64> {
            let c = scale.len();
            let affine = |(i, v): (usize, f64)| (v * f64::from(scale[i % c]) + f64::from(shift[i % c])).max(0.0);
            values.into_iter().enumerate().map(affine).collect()
        };
        for backend in Backend::available() {
            let (scale, shift) = (values(g.small_channels, seed ^ 3), values(g.small_channels, seed ^ 4));
            let expected = finish(definition::down(&g, batch, &large, &weights), &scale, &shift);
            let epilogue = Epilogue { shift: Some(&shift), relu: true, ..Epilogue::default() };
            let got = DownWeights::on(backend, g, &weights, Some(&scale)).apply(&large, epilogue);
            prop_assert!(relative_error(&got, &expected) < 1e-4);
            let (scale, shift) = (values(g.large_channels, seed ^ 3), values(g.large_channels, seed ^ 4));
            let expected = finish(definition::up(&g, batch, &small, &weights), &scale, &shift);
            let epilogue = Epilogue { shift: Some(&shift), relu: true, ..Epilogue::default() };
            let got = UpWeights::on(backend, g, &weights, Some(&scale)).apply(&small, epilogue);
            prop_assert!(relative_error(&got, &expected) < 1e-4);
        }
    }

    /// A residual is added before ReLU, and weights serve grids of another size.
    #[test]
    fn the_epilogue_adds_a_residual((batch, g) in geometries(), seed in any::<u64>()) {
        let large = values(batch * g.large_len(), seed);
        let residual = values(batch * g.small_len(), seed ^ 1);
        let weights = values(g.weights_len(), seed ^ 2);
        let sums = definition::down(&g, batch, &large, &weights);
        let expected: Vec<f64> = sums.iter().zip(&residual).map(|(s, r)| (s + f64::from(*r)).max(0.0)).collect();
        let other = Geometry::same((3, 2), (g.large_channels, g.small_channels), g.kernel, g.stride);
        for backend in Backend::available() {
            let packed = DownWeights::on(backend, other, &weights, None);
            let epilogue = Epilogue { residual: Some(&residual), relu: true, ..Epilogue::default() };
            let got = packed.apply_on(&g, &large, epilogue);
            prop_assert!(relative_error(&got, &expected) < 1e-4, "{backend:?}");
        }
    }

    /// bf16 differs from the definition on rounded values by the rounding of the result only: 2⁻⁸ of the largest, and
    /// what sums lose that cancel.
    #[test]
    fn bf16_computes_the_definition_on_rounded_values((batch, g) in geometries(), seed in any::<u64>()) {
        let rounded = |len: usize, seed: u64| -> (Vec<half::bf16>, Vec<f32>) {
            let narrow: Vec<_> = values(len, seed).into_iter().map(half::bf16::from_f32).collect();
            let wide = narrow.iter().map(|v| v.to_f32()).collect();
            (narrow, wide)
        };
        let ((large, large_f32), (small, small_f32)) = (rounded(batch * g.large_len(), seed), rounded(batch * g.small_len(), seed ^ 1));
        let (_, weights) = rounded(g.weights_len(), seed ^ 2);
        let wide = |values: Vec<half::bf16>| values.into_iter().map(half::bf16::to_f32).collect::<Vec<f32>>();
        for backend in [Backend::Portable, super::backend()] {
            if g.large_channels % 2 == 0 {
                let down = DownWeights::<half::bf16>::of_taps(backend, g, &weights, None);
                let expected = definition::down(&g, batch, &large_f32, &weights);
                let error = relative_error(&wide(down.apply(&large, Epilogue::default())), &expected);
                prop_assert!(error < 0.005, "{backend:?} down {error}");
            }
            if g.small_channels % 2 == 0 {
                let up = UpWeights::<half::bf16>::of_phases(backend, g, &weights, None);
                let expected = definition::up(&g, batch, &small_f32, &weights);
                let error = relative_error(&wide(up.apply(&small, Epilogue::default())), &expected);
                prop_assert!(error < 0.005, "{backend:?} up {error}");
            }
        }
    }

    /// ReLU in the store keeps what is not a number, so that a broken activation shows.
    #[test]
    fn the_epilogue_keeps_not_a_number((batch, g) in geometries()) {
        for backend in Backend::available() {
            let epilogue = Epilogue { relu: true, ..Epilogue::default() };
            let weights = vec![1.0; g.weights_len()];
            let down = DownWeights::on(backend, g, &weights, None);
            prop_assert!(down.apply(&vec![f32::NAN; batch * g.large_len()], epilogue).iter().all(|v| v.is_nan()));
        }
    }

    /// An image's values are the same bits whatever stands beside it in the batch.
    #[test]
    fn a_row_does_not_depend_on_its_batch((batch, g) in geometries(), seed in any::<u64>()) {
        let (large, small) = (values(batch * g.large_len(), seed), values(batch * g.small_len(), seed ^ 1));
        let weights = values(g.weights_len(), seed ^ 2);
        for backend in Backend::available() {
            let down = DownWeights::on(backend, g, &weights, None);
            let up = UpWeights::on(backend, g, &weights, None);
            let all = down.apply(&large, Epilogue::default());
            let last = down.apply(&large[(batch - 1) * g.large_len()..], Epilogue::default());
            prop_assert_eq!(&all[(batch - 1) * g.small_len()..], &last[..]);
            let all = up.apply(&small, Epilogue::default());
            let last = up.apply(&small[(batch - 1) * g.small_len()..], Epilogue::default());
            prop_assert_eq!(&all[(batch - 1) * g.large_len()..], &last[..]);
        }
    }
}
