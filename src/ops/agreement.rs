//! Comparison of two implementations of the operations, on small random inputs of each kind that a network has.
//!
//! Errors are max|a − b| / max|b| over a tensor, and at most 1e-4 in f32 and 1e-2 in TF32 and bf16.

use std::fmt;

use candle_core::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Adam, AdamMoments, Convolution, Norm, Operations, Pointwise, Tensor, Trained, to_vec};
use crate::architecture::Activation;
use crate::config::Cost;
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::image::ImageShape;
use crate::kernels::{AdamStep, Geometry};
use crate::objective::cost::CostFunction;

/// The reason why an implementation is not used: an operation is off by too much, or failed.
#[derive(Debug)]
pub(super) struct Disagreement(String);

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Error> for Disagreement {
    fn from(e: Error) -> Self {
        Self(e.to_string())
    }
}

impl From<&Error> for Disagreement {
    fn from(e: &Error) -> Self {
        Self(e.to_string())
    }
}

impl From<candle_core::Error> for Disagreement {
    fn from(e: candle_core::Error) -> Self {
        Error::from(e).into()
    }
}

impl From<Disagreement> for Error {
    fn from(disagreement: Disagreement) -> Self {
        Self::Device(disagreement.0)
    }
}

/// A value, or the reason why two implementations do not agree.
pub(super) type Compared<T> = Result<T, Disagreement>;

/// Compares the composed operations on a device with the CPU's kernels, in f32 and in a precision.
pub(super) fn composed_with_kernels(device: &Device, precision: Precision) -> Compared<()> {
    let composed = Operations::composed();
    let kernels = Operations::kernels();
    let places = (device, &Device::Cpu);
    for &p in used_with(precision) {
        convolutions(composed.convolution.as_ref(), kernels.convolution.as_ref(), places, p, &geometries())?;
    }
    norms(composed.norm.as_ref(), kernels.norm.as_ref(), places, &NORMS)?;
    adams(composed.adam.as_ref(), kernels.adam.as_ref(), places)?;
    pointwise(composed.pointwise.as_ref(), kernels.pointwise.as_ref(), places)
}

/// The precisions that a model of a precision computes in: it is calibrated in f32, and in bf16 some layers take TF32.
fn used_with(precision: Precision) -> &'static [Precision] {
    match precision {
        Precision::F32 => &[Precision::F32],
        Precision::Tf32 => &[Precision::F32, Precision::Tf32],
        Precision::Bf16 => &[Precision::F32, Precision::Tf32, Precision::Bf16],
    }
}

/// Compares convolutions on a device with the composed ones there, in f32 and in a precision.
pub(super) fn convolution(
    candidate: &dyn Convolution,
    composed: &Operations,
    device: &Device,
    precision: Precision,
) -> Compared<()> {
    used_with(precision).iter().try_for_each(|&precision| {
        convolutions(candidate, composed.convolution.as_ref(), (device, device), precision, &geometries())
    })
}

/// Compares norms on a device with the composed ones there.
pub(super) fn norm(candidate: &dyn Norm, composed: &Operations, device: &Device) -> Compared<()> {
    norms(candidate, composed.norm.as_ref(), (device, device), &NORMS)
}

/// Compares Adam on a device with the composed one there.
pub(super) fn adam(candidate: &dyn Adam, composed: &Operations, device: &Device) -> Compared<()> {
    adams(candidate, composed.adam.as_ref(), (device, device))
}

/// Random values in [−1, 1), the same on every device.
struct Inputs(ChaCha8Rng);

impl Inputs {
    fn new() -> Self {
        Self(ChaCha8Rng::seed_from_u64(0))
    }

    fn pair(&mut self, shape: &[usize], (a, b): (&Device, &Device)) -> Compared<(Tensor, Tensor)> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.0.random_range(-1.0..1.0)).collect();
        Ok((Tensor::from_slice(&values, shape, a)?, Tensor::from_vec(values, shape, b)?))
    }
}

fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => 1e-4,
        Precision::Tf32 | Precision::Bf16 => 1e-2,
    }
}

/// Refuses values that are off by more than the tolerance, or are not finite.
pub(super) fn check(what: impl fmt::Display, got: &Tensor, expected: &Tensor, precision: Precision) -> Compared<()> {
    let got_shape = got.dims();
    let expected_shape = expected.dims();
    if got_shape != expected_shape {
        return Err(Disagreement(format!("{what} has shape {got_shape:?}, expected {expected_shape:?}")));
    }
    let got = to_vec(got)?;
    let expected = to_vec(expected)?;
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let difference = |(a, b): (&f32, &f32)| (a - b).abs();
    // NaN is kept: it is not at most the limit.
    let larger = |m: f32, e: f32| if m.is_nan() || e <= m { m } else { e };
    let error = got.iter().zip(&expected).map(difference).fold(0.0, larger) / largest;
    let limit = tolerance(precision);
    if error <= limit {
        return Ok(());
    }
    Err(Disagreement(format!("{what} in {} is off by {error:.1e}, expected at most {limit:.0e}", precision.name())))
}

/// Strides 1 and 2, even and odd kernels, symmetric and asymmetric padding, one to many channels, a linear layer.
fn geometries() -> [Geometry; 7] {
    [
        Geometry::same((8, 8), (1, 16), 4, 2),
        Geometry::same((7, 10), (3, 8), 5, 2),
        Geometry::same((9, 6), (16, 32), 4, 2),
        Geometry::same((6, 9), (32, 24), 3, 1),
        Geometry::same((8, 7), (1, 16), 4, 1),
        Geometry::same((5, 5), (3, 8), 1, 2),
        Geometry::linear(70, 9),
    ]
}

/// Pixels and channels of the norms that are compared.
const NORMS: [(usize, usize); 3] = [(700, 3), (90, 40), (1, 8)];

/// Compares convolutions of these geometries at two places.
pub(super) fn convolutions(
    candidate: &dyn Convolution,
    reference: &dyn Convolution,
    places: (&Device, &Device),
    precision: Precision,
    geometries: &[Geometry],
) -> Compared<()> {
    const IMAGES: usize = 3;
    let mut inputs = Inputs::new();
    for g in geometries {
        let large_shape = [IMAGES, g.large.0, g.large.1, g.large_channels];
        let (large, reference_large) = inputs.pair(&large_shape, places)?;
        let (small, reference_small) = inputs.pair(&[IMAGES, g.small.0, g.small.1, g.small_channels], places)?;
        let (weights, reference_weights) = inputs.pair(&g.weights_shape(), places)?;
        let got = candidate.down(g, &large, &weights, precision)?;
        let expected = reference.down(g, &reference_large, &reference_weights, precision)?;
        check(format_args!("a convolution ({g:?})"), &got, &expected, precision)?;
        let got = candidate.up(g, &small, &weights, precision)?;
        let expected = reference.up(g, &reference_small, &reference_weights, precision)?;
        check(format_args!("a transposed convolution ({g:?})"), &got, &expected, precision)?;
        let got = candidate.weight_gradient(g, &large, &small, precision)?;
        let expected = reference.weight_gradient(g, &reference_large, &reference_small, precision)?;
        check(format_args!("a gradient of weights ({g:?})"), &got, &expected, precision)?;
    }
    Ok(())
}

/// Compares norms of these numbers of pixels and channels at two places.
pub(super) fn norms(
    candidate: &dyn Norm,
    reference: &dyn Norm,
    places: (&Device, &Device),
    sizes: &[(usize, usize)],
) -> Compared<()> {
    let mut inputs = Inputs::new();
    sizes.iter().try_for_each(|size| norms_of_size(candidate, reference, places, *size, &mut inputs))
}

fn norms_of_size(
    candidate: &dyn Norm,
    reference: &dyn Norm,
    places: (&Device, &Device),
    (pixels, channels): (usize, usize),
    inputs: &mut Inputs,
) -> Compared<()> {
    let check = |what: &str, got: &Tensor, expected: &Tensor| {
        check(format_args!("{what} on {pixels} pixels of {channels} channels"), got, expected, Precision::F32)
    };
    let (x, reference_x) = inputs.pair(&[1, pixels, 1, channels], places)?;
    // A mean that is larger than the deviation.
    let x = (x + 2.0)?;
    let reference_x = (reference_x + 2.0)?;
    let (gamma, reference_gamma) = inputs.pair(&[channels], places)?;
    let (beta, reference_beta) = inputs.pair(&[channels], places)?;
    let (gradient, reference_gradient) = inputs.pair(&[1, pixels, 1, channels], places)?;
    let (y, got) = candidate.norm_relu(&x, &gamma, &beta)?;
    let (expected_y, expected) = reference.norm_relu(&reference_x, &reference_gamma, &reference_beta)?;
    check("a norm", &y, &expected_y)?;
    check("a norm's mean", &got.mean, &expected.mean)?;
    check("a norm's inverse deviation", &got.inverse_deviation, &expected.inverse_deviation)?;
    if got.count != expected.count {
        return Err(Disagreement(format!("a norm counts {} values a channel, expected {}", got.count, expected.count)));
    }
    if pixels == 1 {
        return Ok(()); // One row has no variance but rounding, and the gradient divides by it.
    }
    check("a norm's variance", &got.variance, &expected.variance)?;
    // The reference's output, so that rounding near 0 does not change where ReLU is 0.
    let y = expected_y.to_device(places.0)?;
    let got = candidate.norm_relu_gradient(&x, &y, &gradient, &gamma, &got)?;
    let expected =
        reference.norm_relu_gradient(&reference_x, &expected_y, &reference_gradient, &reference_gamma, &expected)?;
    check("a norm's gradient", &got.x, &expected.x)?;
    check("the gradient of a norm's factor", &got.gamma, &expected.gamma)?;
    check("the gradient of a norm's term", &got.beta, &expected.beta)
}

fn adams(candidate: &dyn Adam, reference: &dyn Adam, places: (&Device, &Device)) -> Compared<()> {
    let mut inputs = Inputs::new();
    let mut parameters = Vec::new();
    for shape in [&[3, 3, 4, 8][..], &[8], &[1]] {
        let (a, b) = inputs.pair(shape, places)?;
        parameters.push([(a.clone(), AdamMoments::zeros(&a)?), (b.clone(), AdamMoments::zeros(&b)?)]);
    }
    for t in 1..=3 {
        let mut gradients = Vec::new();
        for pair in &parameters {
            gradients.push(inputs.pair(pair[0].0.dims(), places)?);
        }
        let step = AdamStep::new(t, 1e-2, 0.5, 0.999, 1e-8);
        let mut of_candidate = Vec::new();
        let mut of_reference = Vec::new();
        for ([(a, of_a), (b, of_b)], (gradient, reference_gradient)) in parameters.iter_mut().zip(gradients) {
            of_candidate.push(Trained { parameter: a, gradient, moments: of_a });
            of_reference.push(Trained { parameter: b, gradient: reference_gradient, moments: of_b });
        }
        candidate.adam(step, &mut of_candidate)?;
        reference.adam(step, &mut of_reference)?;
    }
    for [(got, of_got), (expected, of_expected)] in &parameters {
        check("Adam's mean", &of_got.mean, &of_expected.mean, Precision::F32)?;
        check("Adam's mean square", &of_got.square, &of_expected.square, Precision::F32)?;
        check("a step of Adam", got, expected, Precision::F32)?;
    }
    Ok(())
}

fn pointwise(candidate: &dyn Pointwise, reference: &dyn Pointwise, places: (&Device, &Device)) -> Compared<()> {
    let mut inputs = Inputs::new();
    let shape = [2, 9, 8, 3];
    let (x, reference_x) = inputs.pair(&shape, places)?;
    let (gradient, reference_gradient) = inputs.pair(&shape, places)?;
    let (bias, reference_bias) = inputs.pair(&shape[3..], places)?;
    for activation in [Activation::Identity, Activation::Relu, Activation::Sigmoid] {
        let check = |what: &str, got: &Tensor, expected: &Tensor| {
            check(format_args!("{what} with {activation:?}"), got, expected, Precision::F32)
        };
        let y = candidate.bias_activation(&x, &bias, activation)?;
        let expected = reference.bias_activation(&reference_x, &reference_bias, activation)?;
        check("a bias", &y, &expected)?;
        let (dx, dbias) = candidate.bias_activation_gradient(&expected.to_device(places.0)?, &gradient, activation)?;
        let (expected_dx, expected_dbias) =
            reference.bias_activation_gradient(&expected, &reference_gradient, activation)?;
        check("a bias's input gradient", &dx, &expected_dx)?;
        check("a bias's gradient", &dbias, &expected_dbias)?;
    }
    // Pixels in [0, 1].
    let image = |values: &Tensor| values.affine(0.5, 0.5);
    let x = image(&x)?;
    let y = image(&gradient)?;
    let reference_x = image(&reference_x)?;
    let reference_y = image(&reference_gradient)?;
    for kind in [Cost::Squared, Cost::L2, Cost::L1, Cost::Structural] {
        let function = CostFunction::new(kind, ImageShape::new(shape[1], shape[2], shape[3]));
        let (cost, gradient) = candidate.cost(&function, &x, &y)?;
        let (expected_cost, expected_gradient) = reference.cost(&function, &reference_x, &reference_y)?;
        let narrow = |cost: &Tensor| cost.to_dtype(candle_core::DType::F32);
        check(format_args!("the cost {kind:?}"), &narrow(&cost)?, &narrow(&expected_cost)?, Precision::F32)?;
        check(format_args!("the gradient of the cost {kind:?}"), &gradient, &expected_gradient, Precision::F32)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The comparison that opens a GPU, on the CPU.
    #[rstest::rstest]
    fn composed_operations_agree_with_the_kernels(
        #[values(Precision::F32, Precision::Tf32, Precision::Bf16)] precision: Precision,
    ) {
        composed_with_kernels(&Device::Cpu, precision).unwrap();
    }
}
