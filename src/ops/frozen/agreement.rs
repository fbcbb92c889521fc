//! Comparison of the layers of pretrained networks on a device with those of the CPU.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    FrozenConvolution, FrozenDepthwise, FrozenLayerNorm, Window, attention, max_pool, mean_of_places, resize_bilinear,
    scale_channels,
};
use crate::device::Precision;
use crate::error::Result;
use crate::kernels::Nonlinearity;
use crate::ops::agreement::{Compared, check};
use crate::ops::{Target, Tensor};

/// The side of the maps, and their channels.
const SIDE: usize = 9;
const CHANNELS: usize = 12;

/// Compares every kind of layer on a target with the CPU's kernels, on small random inputs.
///
/// # Errors
/// [`crate::Error::Device`] with the first layer that is off by more than 1e-4 of its largest value, and the device's.
pub(crate) fn agrees_with_kernels(target: &Target) -> Result<()> {
    Ok(compare(&outputs(target)?, &outputs(&Target::cpu())?)?)
}

fn compare(got: &[(&'static str, Tensor)], expected: &[(&'static str, Tensor)]) -> Compared<()> {
    let pairs = got.iter().zip(expected);
    pairs.into_iter().try_for_each(|((name, got), (_, expected))| check(name, got, expected, Precision::F32))
}

/// The output of each kind of layer on a target, of inputs that are the same on every target.
fn outputs(target: &Target) -> Result<Vec<(&'static str, Tensor)>> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut values = |count: usize| -> Vec<f32> { (0..count).map(|_| random.random_range(-1.0..1.0)).collect() };
    let maps = target.tensor(values(2 * SIDE * SIDE * CHANNELS), &[2, SIDE, SIDE, CHANNELS])?;
    let gate = target.tensor(values(2 * CHANNELS), &[2, CHANNELS])?;
    let tokens = target.tensor(values(2 * SIDE * 3 * CHANNELS), &[2, SIDE, 3 * CHANNELS])?;
    let window = Window::symmetric(3, 1);
    let weights = values(9 * CHANNELS * CHANNELS);
    let convolution = FrozenConvolution::try_new(target, window, weights, values(CHANNELS), Nonlinearity::Gelu)?;
    let depthwise = FrozenDepthwise::try_new(
        target,
        Window::symmetric(5, 2),
        values(25 * CHANNELS),
        values(CHANNELS),
        Nonlinearity::Silu,
    )?;
    let norm = FrozenLayerNorm::try_new(target, values(CHANNELS), values(CHANNELS), 1e-6)?;
    Ok(vec![
        ("a convolution with a residual and GELU", convolution.apply(target, &maps, Some(&maps))?),
        ("a depthwise convolution with SiLU", depthwise.apply(&maps)?),
        ("a layer norm", norm.apply(target, &maps)?),
        ("attention", attention(target, &tokens, 3)?),
        ("a maximum of windows", max_pool(target, &maps)?),
        ("a mean of places", mean_of_places(target, &maps)?),
        ("a gate of channels", scale_channels(target, &maps, &gate)?),
        ("a bilinear resize", resize_bilinear(&maps, (SIDE + 5, SIDE - 2))?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_layers_agree() {
        agrees_with_kernels(&Target::composed(Precision::F32)).unwrap();
    }

    /// Each layer's sign turned: it is found, and named.
    #[test]
    fn a_layer_that_is_wrong_is_named() {
        let expected = outputs(&Target::cpu()).unwrap();
        for wrong in 0..expected.len() {
            let mut got = expected.clone();
            got[wrong].1 = got[wrong].1.neg().unwrap();
            let error = compare(&got, &expected).unwrap_err().to_string();
            assert!(error.contains(got[wrong].0) && error.contains("is off by"), "{error}");
        }
    }
}
