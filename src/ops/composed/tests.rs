//! Composed operations against definitions in f64, and beside the CPU's kernels.

use candle_core::Device;
use proptest::prelude::*;

use super::Composed;
use crate::architecture::Activation;
use crate::config::Cost;
use crate::device::Precision;
use crate::error::Error;
use crate::image::ImageShape;
use crate::kernels::Geometry;
use crate::kernels::tests::{definition, geometries, relative_error, values};
use crate::objective::cost::CostFunction;
use crate::ops::{Convolution, Norm, Operations, Pointwise, Target, Tensor, to_vec};

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// max|a − b| / max|b| of two tensors.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let wide: Vec<f64> = to_vec(b).unwrap().iter().map(|v| f64::from(*v)).collect();
    relative_error(&to_vec(a).unwrap(), &wide)
}

/// max|a − b| of sums of values of either sign, relative to max|b|, or to their usual size if that is larger: a sum
/// that is almost 0 has the rounding of its terms.
fn difference_of_sums(a: &Tensor, b: &Tensor, usual: f64) -> f64 {
    let largest = to_vec(b).unwrap().iter().fold(1e-30_f64, |m, v| m.max(f64::from(v.abs())));
    difference(a, b) * largest / largest.max(usual)
}

/// An operation on two operands by its definition.
type Definition<'a> = dyn Fn(&[f32], &[f32]) -> Vec<f64> + 'a;

/// The three operations of a geometry in a precision, each with its error against the definition: max|a − b|, relative to
/// max|b|, or to the usual size √Σt² of a sum of terms t if that is larger.
fn errors(batch: usize, g: Geometry, seed: u64, precision: Precision) -> [(&'static str, f64); 3] {
    let large = values(batch * g.large_len(), seed);
    let small = values(batch * g.small_len(), seed ^ 1);
    let weights = values(g.weights_len(), seed ^ 2);
    let on_large = tensor(&large, &[batch, g.large.0, g.large.1, g.large_channels]);
    let on_small = tensor(&small, &[batch, g.small.0, g.small.1, g.small_channels]);
    let kernel = tensor(&weights, &g.weights_shape());
    let largest = |values: &[f64]| values.iter().fold(1e-30_f64, |m, v| m.max(v.abs()));
    let error = |got: crate::Result<Tensor>, definition: &Definition<'_>, a: &[f32], b: &[f32]| {
        let expected = definition(a, b);
        let squares = |values: &[f32]| values.iter().map(|v| v * v).collect::<Vec<_>>();
        let usual = largest(&definition(&squares(a), &squares(b))).sqrt();
        let largest = largest(&expected);
        relative_error(&to_vec(&got.unwrap()).unwrap(), &expected) * largest / largest.max(usual)
    };
    let down = Composed.down(&g, &on_large, &kernel, precision);
    let up = Composed.up(&g, &on_small, &kernel, precision);
    let gradient = Composed.weight_gradient(&g, &on_large, &on_small, precision);
    [
        ("down", error(down, &|a, b| definition::down(&g, batch, a, b), &large, &weights)),
        ("up", error(up, &|a, b| definition::up(&g, batch, a, b), &small, &weights)),
        ("weight gradient", error(gradient, &|a, b| definition::weight_gradient(&g, batch, a, b), &large, &small)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// 150 random geometries: kernels of 1 to 7, strides 1 and 2, grids that are not square, padding that is not
    /// symmetric, kernels larger than the image and smaller than the stride.
    #[test]
    fn composed_convolutions_compute_the_definition((batch, g) in geometries(), seed in any::<u64>()) {
        for (what, error) in errors(batch, g, seed, Precision::F32) {
            prop_assert!(error < 1e-5, "{what} {error}");
        }
    }

    /// In bf16, inputs and results are rounded to 8 bits.
    #[test]
    fn composed_convolutions_in_bf16_are_near((batch, g) in geometries(), seed in any::<u64>()) {
        for (what, error) in errors(batch, g, seed, Precision::Bf16) {
            prop_assert!(error < 2e-2, "{what} {error}");
        }
    }

    /// Norm with ReLU both ways, activations both ways and every cost with its gradient.
    #[test]
    fn composed_operations_are_the_kernels(
        n in 1..5_usize, (h, w) in (1..9_usize, 1..9_usize), c in 1..9_usize, seed in any::<u64>(),
    ) {
        prop_assume!(n * h * w > 2);
        let shape = [n, h, w, c];
        let draw = |salt: u64, shape: &[usize]| tensor(&values(shape.iter().product(), seed ^ salt), shape);
        let x = draw(1, &shape);
        let gradient = draw(2, &shape);
        let gamma = draw(3, &[c]);
        let beta = draw(4, &[c]);
        let kernels = Operations::kernels();
        let (y, statistics) = Composed.norm_relu(&x, &gamma, &beta).unwrap();
        let (expected, expected_statistics) = kernels.norm.norm_relu(&x, &gamma, &beta).unwrap();
        prop_assert!(difference(&y, &expected) < 1e-4);
        let usual = 0.5 * ((n * h * w) as f64).sqrt();
        let usual_mean = usual / (n * h * w) as f64;
        prop_assert!(difference_of_sums(&statistics.mean, &expected_statistics.mean, usual_mean) < 1e-4);
        prop_assert!(difference(&statistics.variance, &expected_statistics.variance) < 1e-4);
        let got = Composed.norm_relu_gradient(&x, &expected, &gradient, &gamma, &expected_statistics).unwrap();
        let expected = kernels.norm.norm_relu_gradient(&x, &expected, &gradient, &gamma, &expected_statistics).unwrap();
        prop_assert!(difference(&got.x, &expected.x) < 1e-4, "{}", difference(&got.x, &expected.x));
        for (got, expected) in [(got.gamma, expected.gamma), (got.beta, expected.beta)] {
            let difference = difference_of_sums(&got, &expected, usual);
            prop_assert!(difference < 1e-4, "{difference}");
        }
        for activation in [Activation::Identity, Activation::Relu, Activation::Sigmoid] {
            let y = kernels.pointwise.bias_activation(&x, &beta, activation).unwrap();
            prop_assert!(difference(&Composed.bias_activation(&x, &beta, activation).unwrap(), &y) < 1e-4);
            let got = Composed.bias_activation_gradient(&y, &gradient, activation).unwrap();
            let expected = kernels.pointwise.bias_activation_gradient(&y, &gradient, activation).unwrap();
            prop_assert!(difference(&got.0, &expected.0) < 1e-4);
            prop_assert!(difference_of_sums(&got.1, &expected.1, usual) < 1e-4);
        }
        let [x, y] = [x, gradient].map(|values| values.affine(0.5, 0.5).unwrap());
        for kind in [Cost::Squared, Cost::L2, Cost::L1, Cost::Structural] {
            let function = CostFunction::new(kind, ImageShape::new(h, w, c));
            let (cost, by_y) = Composed.cost(&function, &x, &y).unwrap();
            let (expected, expected_by_y) = kernels.pointwise.cost(&function, &x, &y).unwrap();
            let ratio = cost.to_scalar::<f64>().unwrap() / expected.to_scalar::<f64>().unwrap();
            prop_assert!((ratio - 1.0).abs() < 1e-5, "{kind:?}: {ratio}");
            prop_assert!(difference(&by_y, &expected_by_y) < 1e-4, "{kind:?}: {}", difference(&by_y, &expected_by_y));
        }
    }
}

/// So that a broken weight shows in the loss.
#[test]
fn not_a_number_stays() {
    let nan = tensor(&[f32::NAN, 1.0, 2.0, 3.0], &[2, 2]);
    let [zeros, ones] = [0.0, 1.0].map(|value| tensor(&[value; 2], &[2]));
    let is_nan = |y: &Tensor| to_vec(y).unwrap()[0].is_nan();
    assert!(is_nan(&Composed.norm_relu(&nan, &ones, &zeros).unwrap().0));
    for activation in [Activation::Identity, Activation::Relu, Activation::Sigmoid] {
        assert!(is_nan(&Composed.bias_activation(&nan, &zeros, activation).unwrap()), "{activation:?}");
    }
}

#[test]
fn a_batch_that_a_gpu_cannot_count_is_refused() {
    let target = Target::composed(Precision::F32);
    assert!(target.check_rows(1 << 20, 1 << 20).is_ok(), "the CPU counts in 64 bits");
    assert!(matches!(crate::ops::target::check_countable(1025, 1 << 20), Err(Error::TrainOption { option, problem })
        if option == "batch_size" && problem.contains("at most 1024") && problem.contains("got 1025")));
    assert!(crate::ops::target::check_countable(1024, 1 << 20).is_ok());
}
