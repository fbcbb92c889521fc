//! Accelerators on a GPU against the composed operations there, on larger and stranger inputs than opening a device
//! compares.
//!
//! Where no GPU can be opened, the tests say that they skip; if `WAE_REQUIRE_GPU` is set, they fail.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;

use super::super::{Gpu, with_accelerators};
use super::*;
use crate::device::{Device, Precision};
use crate::kernels::{AdamStep, Geometry};
use crate::ops::composed::Composed;
use crate::ops::{Adam, AdamMoments, Convolution, Operations, Tensor, Trained, agreement, to_vec};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

fn gpu() -> Option<candle_core::Device> {
    match super::super::open(Device::Cuda(0), Precision::F32) {
        Ok(Gpu { device, .. }) => Some(device),
        Err(reason) => {
            assert!(std::env::var_os("WAE_REQUIRE_GPU").is_none(), "{reason}");
            eprintln!("skipped: {reason}");
            None
        }
    }
}

/// The accelerators that are built in, each of which must load.
fn accelerators(device: &candle_core::Device) -> Vec<Accelerator> {
    candidates(device)
        .into_iter()
        .map(|(name, candidate)| candidate.unwrap_or_else(|e| panic!("{name}: {e}")))
        .collect()
}

#[test]
fn cuda_accelerators_are_taken() {
    let Some(device) = gpu() else { return };
    for precision in PRECISIONS {
        let (_, left_out) = with_accelerators(Operations::composed(), &candidates(&device), &device, precision);
        assert_eq!(left_out, [""; 0], "{precision:?}");
    }
}

/// The geometries of the paper's networks, with few channels, and random ones: kernels smaller than the stride, grids
/// smaller than the kernel, and unequal padding among them.
fn geometries(generator: &mut impl Rng) -> Vec<Geometry> {
    let mut all = vec![
        Geometry::same((28, 28), (1, 128), 4, 2),
        Geometry::same((14, 14), (128, 256), 4, 2),
        Geometry::same((7, 7), (64, 128), 4, 2),
        Geometry::same((64, 64), (3, 64), 5, 2),
        Geometry::same((8, 8), (128, 64), 5, 1),
        Geometry::same((3, 3), (2, 3), 1, 2),
        Geometry::same((1, 1), (4, 4), 5, 2),
        Geometry::linear(1000, 64),
        Geometry::linear(1, 1),
    ];
    for _ in 0..40 {
        let mut size = |most: usize| generator.random_range(1..=most);
        let eights = if size(2) == 1 { 8 } else { 1 };
        // Two channels at least: one sum alone may be almost 0, and its rounding is then not small beside it.
        let channels = (eights * (1 + size(5)), eights * (1 + size(5)));
        all.push(Geometry::same((size(13), size(13)), channels, size(7), size(3)));
    }
    all
}

/// The composed convolutions in f32 whatever the precision, as in bf16 they add windows up in 16 bits.
#[derive(Debug)]
struct ComposedInF32;

impl Convolution for ComposedInF32 {
    fn down(&self, g: &Geometry, large: &Tensor, weights: &Tensor, _: Precision) -> Result<Tensor> {
        Composed.down(g, large, weights, Precision::F32)
    }

    fn up(&self, g: &Geometry, small: &Tensor, weights: &Tensor, _: Precision) -> Result<Tensor> {
        Composed.up(g, small, weights, Precision::F32)
    }

    fn weight_gradient(&self, g: &Geometry, large: &Tensor, small: &Tensor, _: Precision) -> Result<Tensor> {
        Composed.weight_gradient(g, large, small, Precision::F32)
    }
}

#[rstest]
fn cuda_convolutions_agree(#[values(Precision::F32, Precision::Tf32, Precision::Bf16)] precision: Precision) {
    let Some(device) = gpu() else { return };
    let geometries = geometries(&mut ChaCha8Rng::seed_from_u64(1));
    for accelerator in accelerators(&device) {
        if let Accelerator::Convolution(convolution) = accelerator {
            let places = (&device, &device);
            agreement::convolutions(convolution.as_ref(), &ComposedInF32, places, precision, &geometries).unwrap();
        }
    }
}

/// Rows that fill parts and groups of the sums, and rows that do not.
#[test]
fn cuda_norms_agree() {
    let Some(device) = gpu() else { return };
    let sizes =
        [(1, 3), (9, 2), (63, 5), (64, 4), (65, 33), (2500, 7), (6400, 3), (70_000, 2), (300_000, 17), (40, 5000)];
    for accelerator in accelerators(&device) {
        if let Accelerator::Norm(norm) = accelerator {
            agreement::norms(norm.as_ref(), &Composed, (&device, &device), &sizes).unwrap();
        }
    }
}

/// Parameters of their own, and parts of one row, as the composed Adam leaves them; in turn with it.
#[test]
fn cuda_adam_agrees() {
    let Some(device) = gpu() else { return };
    let mut generator = ChaCha8Rng::seed_from_u64(2);
    let mut random = |len: usize| {
        let values: Vec<f32> = (0..len).map(|_| generator.random_range(-1.0..1.0)).collect();
        Tensor::from_vec(values, len, &device).unwrap()
    };
    let lens = [1, 3, 70_000, 5, 300, 1, 1_000_003];
    let start: Vec<Tensor> = lens.into_iter().map(&mut random).collect();
    let steps: Vec<Vec<Tensor>> = (0..4).map(|_| lens.into_iter().map(&mut random).collect()).collect();
    let train = |adam: &dyn Fn(usize) -> Arc<dyn Adam>| -> Vec<(Tensor, AdamMoments)> {
        let own = |tensor: &Tensor| tensor.copy().unwrap();
        let mut all: Vec<_> = start.iter().map(|p| (own(p), AdamMoments::zeros(p).unwrap())).collect();
        for (t, gradients) in steps.iter().enumerate() {
            let of = |((parameter, moments), gradient)| Trained { parameter, gradient, moments };
            let mut trained: Vec<_> =
                all.iter_mut().map(|(p, m)| (p, m)).zip(gradients.iter().cloned()).map(of).collect();
            adam(t).adam(AdamStep::new(t as u64 + 1, 1e-2, 0.5, 0.999, 1e-8), &mut trained).unwrap();
        }
        all
    };
    let expected = train(&|_| Arc::new(Composed));
    for accelerator in accelerators(&device) {
        let Accelerator::Adam(adam) = accelerator else { continue };
        let got = train(&|t| if t == 1 { Arc::new(Composed) } else { Arc::clone(&adam) });
        for ((got, of_got), (expected, of_expected)) in got.iter().zip(&expected) {
            assert_near(got, expected);
            assert_near(&of_got.mean, &of_expected.mean);
            assert_near(&of_got.square, &of_expected.square);
        }
    }
}

#[track_caller]
fn assert_near(got: &Tensor, expected: &Tensor) {
    let got = to_vec(got).unwrap();
    let expected = to_vec(expected).unwrap();
    let off = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(got.len() == expected.len() && off <= 1e-5, "{off}");
}

#[test]
fn cuda_memory_is_given_back() {
    let Some(device) = gpu() else { return };
    let values = Tensor::ones(1 << 28, candle_core::DType::F32, &device).unwrap();
    device.synchronize().unwrap();
    drop(values);
    let free = || device.as_cuda_device().unwrap().cuda_stream().context().mem_get_info().unwrap().0;
    let before = free();
    release_memory(&device).unwrap();
    assert!(free() >= before + (1 << 29), "{before} bytes free before, {} after", free());
}

/// 32 bits count 2^31 − 1 values.
#[rstest]
#[case(0, None)]
#[case(1, Some(1))]
#[case((1 << 31) - 1, Some(i32::MAX as u32))]
#[case(1 << 31, None)]
#[case(1 << 40, None)]
fn cuda_kernels_count_in_32_bits(#[case] values: usize, #[case] count: Option<u32>) {
    assert_eq!(memory::counted(values).ok(), count);
}
