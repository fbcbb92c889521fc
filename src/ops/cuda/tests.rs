//! The GPU's operations against the CPU's on random geometries, and what happens where there is no GPU.
//!
//! Errors are max|a − b| / max|b| over a tensor: at most 1e-4 in f32, and 1e-2 in bf16 and TF32, whose values keep 8 and 11
//! bits. The tests say that they skip where no GPU can be opened, and fail instead where `WAE_REQUIRE_GPU` is set.

use std::collections::BTreeMap;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;

use super::compile::{compile, names};
use super::*;
use crate::checkpoint::Tensors;
use crate::config::{Config, Cost, IMQ_SCALES, KernelKind, Prior, TrainOptions};
use crate::device::Device;
use crate::error::Error;
use crate::image::{ImageShape, PixelSlice};
use crate::kernels::{AdamStep, Geometry};
use crate::model::{Activation, Network, Precision};
use crate::objective::{cost::CostFunction, mmd::Kernel, sample};
use crate::ops::{self, Target, Tensor};
use crate::train::golden;

/// A GPU that computes in this precision; `None` where there is none.
pub(crate) fn gpu(precision: Precision) -> Option<Target> {
    match Gpu::open(0) {
        Ok(gpu) => Some(Target::Cuda(Place { gpu, precision })),
        Err(reason) => {
            assert!(std::env::var_os("WAE_REQUIRE_GPU").is_none(), "{reason}");
            eprintln!("skipped: {reason}");
            None
        }
    }
}

fn tolerance(precision: Precision) -> f32 {
    if precision == Precision::F32 { 1e-4 } else { 1e-2 }
}

#[track_caller]
fn assert_near(what: &str, got: &Tensor, expected: &Tensor, tolerance: f32) {
    let got = ops::with_values(got, <[f32]>::to_vec).unwrap();
    let expected = ops::with_values(expected, <[f32]>::to_vec).unwrap();
    assert_values(what, &got, &expected, tolerance);
}

#[track_caller]
fn assert_values(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-6_f32, |m, v| m.max(v.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * largest, "{what}, {i}: {got}, expected {expected} of {largest}");
    }
}

/// Random values, rounded to what bf16 holds: then only what is computed from them is rounded.
fn values(len: usize, generator: &mut impl Rng) -> Vec<f32> {
    (0..len).map(|_| half::bf16::from_f32(generator.random_range(-1.0..1.0)).to_f32()).collect()
}

/// The same values on both devices.
fn both(gpu: &Target, values: &[f32], shape: &[usize]) -> (Tensor, Tensor) {
    (Target::Cpu.tensor(values.to_vec(), shape).unwrap(), gpu.tensor(values.to_vec(), shape).unwrap())
}

/// The geometries of the paper's networks, with few channels, and random ones: kernels smaller than the stride, grids smaller
/// than the kernel, and unequal padding among them.
fn geometries(generator: &mut impl Rng) -> Vec<Geometry> {
    let mut all = vec![
        Geometry::same((28, 28), (1, 6), 4, 2),
        Geometry::same((7, 7), (3, 5), 4, 2),
        Geometry::same((16, 12), (3, 4), 5, 2),
        Geometry::same((9, 9), (1, 4), 4, 1),
        Geometry::same((3, 3), (2, 3), 1, 2),
        Geometry::same((1, 1), (4, 4), 5, 2),
        Geometry::same((14, 14), (8, 16), 4, 2),
        Geometry::same((7, 7), (16, 8), 4, 2),
        Geometry::same((9, 10), (8, 8), 5, 1),
        Geometry::linear(13, 7),
        Geometry::linear(1, 1),
    ];
    for _ in 0..24 {
        let mut size = |most: usize| generator.random_range(1..=most);
        all.push(Geometry::same((size(11), size(11)), (size(6), size(6)), size(5), size(3)));
    }
    all
}

#[rstest]
#[case(Precision::F32)]
#[case(Precision::Tf32)]
#[case(Precision::Bf16)]
fn convolutions(#[case] precision: Precision) {
    let Some(gpu) = gpu(precision) else { return };
    let mut generator = ChaCha8Rng::seed_from_u64(1);
    for g in geometries(&mut generator) {
        let images = generator.random_range(1..4);
        let weights = values(g.weights_len(), &mut generator);
        let on_gpu = gpu.weights(&g, weights.clone(), precision).unwrap();
        let on_cpu = Target::Cpu.weights(&g, weights.clone(), precision).unwrap();
        assert_eq!(ops::weight_values(&g, &on_gpu).unwrap(), weights, "weights come back as they went");
        let (large, large_gpu) = both(&gpu, &values(images * g.large_len(), &mut generator), &[images, g.large_len()]);
        let (small, small_gpu) = both(&gpu, &values(images * g.small_len(), &mut generator), &[images, g.small_len()]);
        let tolerance = tolerance(precision);
        let down = (ops::down(&g, &large_gpu, &on_gpu).unwrap(), ops::down(&g, &large, &on_cpu).unwrap());
        assert_near(&format!("down {g:?}"), &down.0, &down.1, tolerance);
        let up = (ops::up(&g, &small_gpu, &on_gpu).unwrap(), ops::up(&g, &small, &on_cpu).unwrap());
        assert_near(&format!("up {g:?}"), &up.0, &up.1, tolerance);
        let got = ops::weight_gradient(&g, &on_gpu, &large_gpu, &small_gpu).unwrap();
        let expected = ops::weight_gradient(&g, &on_cpu, &large, &small).unwrap();
        let read = |tensor: &Tensor| ops::weight_values(&g, tensor).unwrap();
        assert_values(&format!("weight gradient {g:?}"), &read(&got), &read(&expected), tolerance);
    }
}

/// Rows that fill parts and groups of the sums, and rows that do not; means far from 0; in bf16 too.
#[rstest]
#[case(1, 3)]
#[case(2, 1)]
#[case(63, 5)]
#[case(64, 4)]
#[case(65, 33)]
#[case(2500, 7)]
#[case(6400, 3)]
#[case(70_000, 2)]
fn norms(#[case] rows: usize, #[case] channels: usize) {
    let mut generator = ChaCha8Rng::seed_from_u64(rows as u64);
    let shape = [rows, channels];
    let x: Vec<f32> = values(rows * channels, &mut generator).iter().map(|v| 4.0 + v).collect();
    let x: Vec<f32> = x.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect();
    let gradient = values(x.len(), &mut generator);
    let (gamma, beta) = (values(channels, &mut generator), values(channels, &mut generator));
    for precision in [Precision::F32, Precision::Bf16] {
        let Some(target) = gpu(precision) else { return };
        let mut outputs = Vec::new();
        for target in [&Target::Cpu, &target] {
            let tensor = |values: &[f32], shape: &[usize]| narrowed(target, values, shape, precision);
            let (gamma, beta) = (of_channels(target, &gamma), of_channels(target, &beta));
            let mut running = target.running(vec![0.5; channels], vec![2.0; channels]).unwrap();
            let x = tensor(&x, &shape);
            let (y, statistics) = ops::norm_relu(&x, &gamma, &beta, &mut running).unwrap();
            let back = ops::norm_relu_gradient(&x, &y, &tensor(&gradient, &shape), &gamma, &statistics).unwrap();
            outputs.push((y, back, running.mean().unwrap(), running.variance().unwrap()));
        }
        let (got, expected) = (&outputs[1], &outputs[0]);
        let tolerance = tolerance(precision);
        assert_near("y", &got.0, &expected.0, tolerance);
        assert_values("running mean", &got.2, &expected.2, 1e-5);
        assert_values("running variance", &got.3, &expected.3, 1e-4);
        // Where y was rounded to 0 in one precision and not in the other, ReLU's gradient differs.
        if precision == Precision::F32 && rows > 1 {
            assert_near("dx", &got.1.0, &expected.1.0, tolerance);
        }
        assert_near("dγ", &got.1.1, &expected.1.1, tolerance.max(1e-3));
        assert_near("dβ", &got.1.2, &expected.1.2, tolerance.max(1e-3));
    }
}

fn of_channels(target: &Target, values: &[f32]) -> Tensor {
    target.tensor(values.to_vec(), &[values.len()]).unwrap()
}

fn narrowed(target: &Target, values: &[f32], shape: &[usize], precision: Precision) -> Tensor {
    match (target.tensor(values.to_vec(), shape).unwrap(), precision) {
        (Tensor::Cuda(array), Precision::Bf16) => Tensor::Cuda(array.narrowed().unwrap()),
        (tensor, _) => tensor,
    }
}

#[rstest]
#[case(Activation::Identity)]
#[case(Activation::Relu)]
#[case(Activation::Sigmoid)]
fn biases_and_activations(#[case] activation: Activation) {
    let Some(gpu) = gpu(Precision::F32) else { return };
    let mut generator = ChaCha8Rng::seed_from_u64(3);
    for (rows, channels) in [(1, 1), (3, 5), (200, 3), (6400, 2)] {
        let (x, x_gpu) = both(&gpu, &values(rows * channels, &mut generator), &[rows, channels]);
        let (gradient, gradient_gpu) = both(&gpu, &values(rows * channels, &mut generator), &[rows, channels]);
        let (bias, bias_gpu) = both(&gpu, &values(channels, &mut generator), &[channels]);
        let y = ops::bias_activation(&x, &bias, activation).unwrap();
        let y_gpu = ops::bias_activation(&x_gpu, &bias_gpu, activation).unwrap();
        assert_near("y", &y_gpu, &y, 1e-5);
        let (dx, dbias) = ops::bias_activation_gradient(&y, &gradient, activation).unwrap();
        let (dx_gpu, dbias_gpu) = ops::bias_activation_gradient(&y_gpu, &gradient_gpu, activation).unwrap();
        assert_near("dx", &dx_gpu, &dx, 1e-4);
        assert_near("dbias", &dbias_gpu, &dbias, 1e-4);
    }
}

/// Images larger and smaller than the structural cost's windows.
#[rstest]
fn costs(
    #[values(Cost::Squared, Cost::L2, Cost::L1, Cost::Structural)] cost: Cost,
    #[values((9, 7, 3), (2, 5, 1), (1, 1, 1), (28, 28, 1))] (height, width, channels): (usize, usize, usize),
) {
    let Some(gpu) = gpu(Precision::F32) else { return };
    let mut generator = ChaCha8Rng::seed_from_u64(4);
    let shape = ImageShape::new(height, width, channels);
    let mut pixels = || values(5 * shape.len(), &mut generator).iter().map(|v| v.abs()).collect::<Vec<f32>>();
    assert_costs(&gpu, &CostFunction::new(cost, shape), &pixels(), &pixels());
}

/// Flat areas, where large terms of the structural cost's gradient cancel, and reconstructions near and equal to them.
#[rstest]
#[case(0.25)]
#[case(1e-3)]
#[case(0.0)]
fn structural_costs_of_flat_images(#[case] noise: f32) {
    let Some(gpu) = gpu(Precision::F32) else { return };
    let mut generator = ChaCha8Rng::seed_from_u64(10);
    let shape = ImageShape::new(20, 16, 3);
    let x: Vec<f32> = (0..3 * shape.len()).map(|i| if i % shape.len() < 480 { 0.875 } else { 0.125 }).collect();
    let y: Vec<f32> = x.iter().zip(values(x.len(), &mut generator)).map(|(x, v)| x + noise * v).collect();
    assert_costs(&gpu, &CostFunction::new(Cost::Structural, shape), &x, &y);
}

#[track_caller]
fn assert_costs(gpu: &Target, function: &CostFunction, x: &[f32], y: &[f32]) {
    let shape = function.shape();
    let dims = [x.len() / shape.len(), shape.height(), shape.width(), shape.channels()];
    let ((x, x_gpu), (y, y_gpu)) = (both(gpu, x, &dims), both(gpu, y, &dims));
    let (expected, gradient) = ops::cost(function, &x, &y).unwrap();
    let (got, gradient_gpu) = ops::cost(function, &x_gpu, &y_gpu).unwrap();
    let (got, expected) = (got.read().unwrap(), expected.read().unwrap());
    assert!((got - expected).abs() <= 1e-6 * expected.abs() + 1e-9, "{got}, expected {expected}");
    assert_near("gradient", &gradient_gpu, &gradient, 1e-5);
}

#[rstest]
#[case(KernelKind::Imq, 2, 2, 1)]
#[case(KernelKind::Imq, 100, 100, 8)]
#[case(KernelKind::Imq, 31, 130, 3)]
#[case(KernelKind::Rbf, 65, 64, 5)]
fn mmd_and_its_gradient(#[case] kind: KernelKind, #[case] n: usize, #[case] m: usize, #[case] dim: usize) {
    let Some(gpu) = gpu(Precision::F32) else { return };
    let kernel = Kernel::new(kind, &IMQ_SCALES, dim, Prior::default());
    let (q, p) = (sample(Prior::default(), n, dim, 1), sample(Prior::default(), m, dim, 2));
    let (codes, codes_gpu) = both(&gpu, &q, &[n, dim]);
    let (expected, gradient) = ops::mmd(&kernel, &codes, &p, dim).unwrap().unwrap();
    let (got, gradient_gpu) = ops::mmd(&kernel, &codes_gpu, &p, dim).unwrap().unwrap();
    let (got, expected) = (got.read().unwrap(), expected.read().unwrap());
    assert!((got - expected).abs() < 1e-9, "{got}, expected {expected}");
    assert_near("gradient", &gradient_gpu, &gradient, 1e-5);
    assert!(ops::mmd(&kernel, &both(&gpu, &q[..dim], &[1, dim]).1, &p, dim).unwrap().is_none());
}

/// Parameters of different lengths in one launch, one of them with a gradient of 16 bits, and one with a copy in 16 bits.
#[test]
fn adam() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    let mut generator = ChaCha8Rng::seed_from_u64(5);
    let mut parameters = [1000_usize, 1, 37, 300].map(|len| both(&gpu, &values(len, &mut generator), &[len]));
    let Tensor::Cuda(array) = &parameters[3].1 else { panic!("not on the GPU") };
    parameters[3].1 = Tensor::Cuda(array.clone().with_half().unwrap());
    let mut moments: [_; 4] = std::array::from_fn(|_| (ops::Moments::default(), ops::Moments::default()));
    for step in 1..4 {
        let step = AdamStep::new(step, 1e-2, 0.5, 0.999, 1e-8);
        let (mut on_cpu, mut on_gpu) = (Vec::new(), Vec::new());
        for (i, ((w, w_gpu), (m, m_gpu))) in parameters.iter().zip(&mut moments).enumerate() {
            let (gradient, mut gradient_gpu) = both(&gpu, &values(w.rows(), &mut generator), &[w.rows()]);
            if let (2, Tensor::Cuda(array)) = (i, &gradient_gpu) {
                gradient_gpu = Tensor::Cuda(array.narrowed().unwrap());
            }
            on_cpu.push(ops::Trained { parameter: w, gradient, moments: m });
            on_gpu.push(ops::Trained { parameter: w_gpu, gradient: gradient_gpu, moments: m_gpu });
        }
        ops::adam(step, &mut on_cpu).unwrap();
        ops::adam(step, &mut on_gpu).unwrap();
        for (w, w_gpu) in &parameters {
            assert_near("weights", w_gpu, w, 1e-6);
        }
        let Tensor::Cuda(array) = &parameters[3].1 else { panic!("not on the GPU") };
        let rounded: Vec<f32> = array.to_vec().unwrap().iter().map(|w| half::bf16::from_f32(*w).to_f32()).collect();
        assert_eq!(array.narrowed().unwrap().to_vec().unwrap(), rounded, "the copy goes along");
    }
}

#[test]
fn sums() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    let mut generator = ChaCha8Rng::seed_from_u64(10);
    let [(x, x_gpu), (y, y_gpu)] = [(); 2].map(|()| both(&gpu, &values(1000, &mut generator), &[1000]));
    let sum = ops::add_scaled(&x, -2.5, &y).unwrap();
    assert_near("sum", &ops::add_scaled(&x_gpu, -2.5, &y_gpu).unwrap(), &sum, 1e-6);
}

/// Every byte, and fewer and more of them in the memory that one upload left.
#[test]
fn bytes_become_pixels() {
    let Some(Target::Cuda(place)) = gpu(Precision::F32) else { return };
    for len in [256, 100, 1000] {
        let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let array = Array::of_bytes(&place.gpu, &bytes, &[len]).unwrap();
        let expected: Vec<f32> = bytes.iter().map(|b| f32::from(*b) / 255.0).collect();
        assert_eq!(array.to_vec().unwrap(), expected);
    }
}

/// To the nearest, ties to even; NaN and infinity stay.
#[test]
fn bf16_is_rounded_as_the_half_crate_rounds() {
    let Some(Target::Cuda(place)) = gpu(Precision::Bf16) else { return };
    let mut values: Vec<f32> = vec![0.0, -0.0, 1.0, 1.003_906_2, 1.011_718_8, f32::MAX, f32::INFINITY, f32::NAN];
    let mut generator = ChaCha8Rng::seed_from_u64(6);
    values.extend((0..1000).map(|_| f32::from_bits(generator.random::<u32>())));
    let got = Array::new(&place.gpu, &values, &[values.len()]).unwrap().narrowed().unwrap().to_vec().unwrap();
    for (value, got) in values.iter().zip(got) {
        let expected = half::bf16::from_f32(*value).to_f32();
        assert!(got == expected || (got.is_nan() && expected.is_nan()), "{value:e}: {got:e}, expected {expected:e}");
    }
}

fn config(options: &[(&str, serde_json::Value)], shape: ImageShape) -> Config {
    TrainOptions::try_from_options(options.iter().cloned()).unwrap().config(shape).unwrap()
}

/// A layer there and back, SAME convolution or transposed convolution, norm and ReLU: what one layer rounds. Each channel is far
/// on one side of ReLU, so that none of its gradients hangs on the sign of a number near 0.
#[rstest]
#[case(Precision::F32)]
#[case(Precision::Tf32)]
#[case(Precision::Bf16)]
fn layers(#[case] precision: Precision) {
    let Some(gpu) = gpu(precision) else { return };
    let mut generator = ChaCha8Rng::seed_from_u64(10);
    let tolerance = tolerance(precision);
    for (g, is_down) in [
        (Geometry::same((14, 14), (8, 16), 4, 2), true),
        (Geometry::same((7, 7), (16, 8), 4, 2), false),
        (Geometry::same((9, 10), (8, 8), 5, 1), true),
        (Geometry::same((9, 10), (8, 24), 5, 2), false),
    ] {
        let (input, output) = if is_down { (g.large_len(), g.small_len()) } else { (g.small_len(), g.large_len()) };
        let channels = if is_down { g.small_channels } else { g.large_channels };
        let (weights, x) = (values(g.weights_len(), &mut generator), values(6 * input, &mut generator));
        let gradient = values(6 * output, &mut generator);
        let gamma: Vec<f32> = values(channels, &mut generator).iter().map(|v| 1.0 + v / 2.0).collect();
        let beta: Vec<f32> = (0..channels).map(|c| if c % 2 == 0 { 7.0 } else { -7.0 }).collect();
        let mut results = Vec::new();
        for target in [&Target::Cpu, &gpu] {
            let (x, weights) = (&target.tensor(x.clone(), &[6, input]).unwrap(), weights.clone());
            let weights = &target.weights(&g, weights, precision).unwrap();
            let (gamma, beta) = (of_channels(target, &gamma), of_channels(target, &beta));
            let mut running = target.running(vec![0.0; channels], vec![1.0; channels]).unwrap();
            let y = if is_down { ops::down(&g, x, weights) } else { ops::up(&g, x, weights) }.unwrap();
            let (out, statistics) = ops::norm_relu(&y, &gamma, &beta, &mut running).unwrap();
            let gradient = target.tensor(gradient.clone(), out.dims()).unwrap();
            let (dy, dgamma, dbeta) = ops::norm_relu_gradient(&y, &out, &gradient, &gamma, &statistics).unwrap();
            let dx = if is_down { ops::up(&g, &dy, weights) } else { ops::down(&g, &dy, weights) }.unwrap();
            let (large, small) = if is_down { (x, &dy) } else { (&dy, x) };
            let dweights = ops::weight_gradient(&g, weights, large, small).unwrap();
            results.push((ops::weight_values(&g, &dweights).unwrap(), [out, dx, dgamma, dbeta]));
        }
        let (got, expected) = (&results[1], &results[0]);
        assert_values(&format!("weights' gradient, {g:?}"), &got.0, &expected.0, tolerance);
        for (what, i) in [("output", 0), ("dx", 1), ("dγ", 2), ("dβ", 3)] {
            assert_near(&format!("{what}, {g:?}"), &got.1[i], &expected.1[i], tolerance);
        }
    }
}

/// Trainings of a network that are compared: what rounding does to one hangs on chance.
const SEEDS: u64 = 9;
/// How much more than PyTorch's the engine's error may be, both medians.
const OF_PYTORCH: f64 = 1.5;

/// A whole network's gradients, by ‖a − b‖ / ‖b‖. What single operations round, ReLUs and norms over few values multiply: in bf16
/// PyTorch's first layers are 15 % off in the first of these networks, so that the bounds are PyTorch's own errors for each parameter, by
/// fixtures/golden/rounding.py.
#[rstest]
#[case(Precision::F32)]
#[case(Precision::Tf32)]
#[case(Precision::Bf16)]
fn networks(#[case] precision: Precision) {
    let Some(gpu) = gpu(precision) else { return };
    let of_pytorch: serde_json::Value = serde_json::from_slice(&golden::stored("rounding.json")).unwrap();
    for (widths, kernel, shape) in [("8,16,24", 4, ImageShape::new(28, 28, 1)), ("5,8", 5, ImageShape::new(12, 17, 3))]
    {
        let config = config(&[("network", widths.into()), ("kernel", kernel.into()), ("latent_dim", 4.into())], shape);
        let mut errors = BTreeMap::<String, Vec<f64>>::new();
        for seed in 0..SEEDS {
            let (got, expected) = (gradients(&config, &gpu, seed), gradients(&config, &Target::Cpu, seed));
            for (name, expected) in expected {
                let error = distance(&got[&name].values, &expected.values);
                errors.entry(name).or_default().push(error);
            }
        }
        let mut worst = (0.0, String::new());
        for (name, mut errors) in errors {
            errors.sort_by(f64::total_cmp);
            let of_pytorch = || of_pytorch[widths][precision.name()][&name].as_f64().unwrap();
            let (error, bound) = match precision {
                // Of all seeds but one: a sum that comes out at 0 or just beside it turns a ReLU over.
                Precision::F32 => {
                    assert!(errors[errors.len() - 1] < 0.1, "{widths} {name}: {errors:?}");
                    (errors[errors.len() - 2], 1e-4)
                }
                _ => (errors[errors.len() / 2], OF_PYTORCH * of_pytorch()),
            };
            assert!(error <= bound, "{widths} {name}: {error}, expected at most {bound}");
            if error / bound > worst.0 {
                worst = (error / bound, format!("{name}: {error:.1e} of at most {bound:.1e}"));
            }
        }
        eprintln!("{widths} in {}, {}", precision.name(), worst.1);
    }
}

/// The gradients of the mean squared cost of 8 images, by parameter.
fn gradients(config: &Config, target: &Target, seed: u64) -> Tensors {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut network = Network::initialise(config, target, Default::default(), &mut generator).unwrap();
    let shape = config.image();
    let pixels: Vec<f32> = values(8 * shape.len(), &mut generator).iter().map(|v| v.abs()).collect();
    let images = target.tensor(pixels, &[8, shape.height(), shape.width(), shape.channels()]).unwrap();
    let codes = network.encode(&images).unwrap();
    let decoded = network.decode(&codes).unwrap();
    let (_, gradient) = ops::cost(&CostFunction::of(config), &images, &decoded).unwrap();
    let by_code = network.decode_backward(gradient).unwrap();
    network.encode_backward(by_code).unwrap();
    network.gradients().unwrap()
}

/// ‖a − b‖ / ‖b‖
fn distance(got: &[f32], expected: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied()).max(1e-6)
}

/// One copy of the weights and one stream for all threads; the last thread that has the model frees it.
#[test]
fn threads_share_a_model() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    let shape = ImageShape::new(12, 12, 1);
    let config = config(&[("network", "4,6".into())], shape);
    let mut generator = ChaCha8Rng::seed_from_u64(8);
    let network = Network::initialise(&config, &Target::Cpu, Default::default(), &mut generator).unwrap();
    let wae = crate::Wae::from_tensors(config, &network.tensors().unwrap(), &gpu).unwrap();
    let images: Vec<f32> = values(6 * shape.len(), &mut generator).iter().map(|v| v.abs()).collect();
    let expected = wae.decode(&wae.encode(&images).unwrap()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(wae.decode(&wae.encode(&images).unwrap()).unwrap(), expected));
        }
    });
    std::thread::spawn(move || drop(wae)).join().unwrap();
}

/// Whether or not there is a GPU: no machine has a hundred.
#[test]
fn a_gpu_that_cannot_be_opened_is_an_error_that_names_it() {
    let error = Target::open(Device::Cuda(99), Precision::F32).unwrap_err();
    assert!(matches!(&error, Error::Device(reason) if reason.starts_with("cuda:99: ")), "{error}");
    if Gpu::open(0).is_err() {
        assert_eq!(Device::Auto.resolved(), Device::Cpu);
        assert!(matches!(Target::open(Device::Auto, Precision::F32), Ok(Target::Cpu)));
    } else {
        assert_eq!(Device::Auto.resolved(), Device::Cuda(0));
    }
}

/// NVRTC compiles the kernels without a GPU, where its library can be found.
#[rstest]
#[case("sm_80")]
#[case("sm_90")]
fn nvrtc_compiles_the_kernels(#[case] architecture: &str) {
    // SAFETY: opening the library has no preconditions.
    if std::env::var_os("WAE_EMULATED_GPU").is_some() || !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        eprintln!("skipped: libnvrtc was not found");
        return;
    }
    let code = compile(architecture).unwrap();
    for name in names() {
        let section = format!(".text.{name}");
        assert!(code.windows(section.len()).any(|bytes| bytes == section.as_bytes()), "{name}");
    }
    assert!(compile("sm_1").unwrap_err().to_string().contains("gpu-architecture"), "what NVRTC says is passed on");
}

/// Where 150 kB are all that the emulated GPU has, 60 images do not fit and 30 do, sent as floats or as bytes.
#[test]
fn out_of_memory_halves_the_batch_once() {
    if std::env::var_os("CUDA_EMULATOR_BYTES").is_none() {
        eprintln!("skipped: CUDA_EMULATOR_BYTES is not set");
        return;
    }
    let Some(gpu) = gpu(Precision::F32) else { return };
    let shape = ImageShape::new(16, 16, 1);
    let config = config(&[("network", "4".into()), ("latent_dim", 2.into())], shape);
    let mut generator = ChaCha8Rng::seed_from_u64(9);
    let network = Network::initialise(&config, &Target::Cpu, Default::default(), &mut generator).unwrap();
    let tensors = network.tensors().unwrap();
    let wae = crate::Wae::from_tensors(config.clone(), &tensors, &gpu).unwrap();
    let bytes: Vec<u8> = (0..200 * shape.len()).map(|_| generator.random()).collect();
    let floats: Vec<f32> = bytes.iter().map(|v| f32::from(*v) / 255.0).collect();
    let expected = crate::Wae::from_tensors(config, &tensors, &Target::Cpu).unwrap().encode(&floats).unwrap();
    for images in [PixelSlice::F32(&floats), PixelSlice::U8(&bytes)] {
        let encode = |rows: usize| wae.encode(images.range(0..rows * shape.len()));
        for rows in [10, 60] {
            assert_values("codes", &encode(rows).unwrap(), &expected[..rows * 2], 1e-4);
        }
        let error = encode(200).unwrap_err();
        assert!(matches!(error, Error::DeviceMemory(_)), "{error}");
        assert_values("codes after it", &encode(10).unwrap(), &expected[..20], 1e-4);
    }
}
