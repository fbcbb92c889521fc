//! Layers of convolutional networks, read from a checkpoint, with their norms folded in.
//!
//! `γ·(w∗x − μ)/√(σ² + ε) + β = (w·γ/√(σ² + ε))∗x + (β − μ·γ/√(σ² + ε))`

use super::weights::Parameters;
use crate::error::{Error, Result};
use crate::kernels::Nonlinearity;
use crate::ops::Target;
use crate::ops::frozen::{FrozenConvolution, FrozenDepthwise, Window};

/// The most channels of a layer: eight times those of the widest network that is known here.
pub(super) const MAX_CHANNELS: usize = 1 << 14;

/// Reads the layers of a network.
pub(super) struct LayerReader<'a> {
    pub(super) target: &'a Target,
    pub(super) parameters: Parameters<'a>,
    /// ε of the norms.
    pub(super) epsilon: f64,
}

/// Names of a convolution and of the norm behind it.
pub(super) type Names<'a> = (&'a str, &'a str);

impl LayerReader<'_> {
    /// A convolution of `inputs` channels with a norm and a function behind it.
    pub(super) fn convolution(
        &self,
        (name, norm): Names<'_>,
        inputs: usize,
        window: Window,
        function: Nonlinearity,
    ) -> Result<FrozenConvolution> {
        let name = format!("{name}.weight");
        let outputs = self.outputs(&name)?;
        let weights = self.parameters.take(&name, &[outputs, inputs, window.kernel, window.kernel])?;
        let (scale, shift) = self.norm(norm, outputs)?;
        let weights = ordered(&weights, inputs, outputs, window.kernel, |output| scale[output]);
        check_finite(&name, &weights)?;
        FrozenConvolution::try_new(self.target, window, weights, shift, function)
    }

    /// A convolution with a window for each of `channels`, with a norm and a function behind it.
    pub(super) fn depthwise(
        &self,
        (name, norm): Names<'_>,
        channels: usize,
        window: Window,
        function: Nonlinearity,
    ) -> Result<FrozenDepthwise> {
        let name = format!("{name}.weight");
        let weights = self.parameters.take(&name, &[channels, 1, window.kernel, window.kernel])?;
        let (scale, shift) = self.norm(norm, channels)?;
        let taps = window.kernel * window.kernel;
        let at = |i: usize| weights[i % channels * taps + i / channels] * scale[i % channels];
        let weights: Vec<f32> = (0..taps * channels).map(at).collect();
        check_finite(&name, &weights)?;
        FrozenDepthwise::try_new(self.target, window, weights, shift, function)
    }

    /// A convolution of one pixel with a bias.
    pub(super) fn point(&self, name: &str, inputs: usize, function: Nonlinearity) -> Result<FrozenConvolution> {
        let weight = format!("{name}.weight");
        let outputs = self.outputs(&weight)?;
        let weights = self.parameters.take(&weight, &[outputs, inputs, 1, 1])?;
        let shift = self.parameters.take(&format!("{name}.bias"), &[outputs])?;
        let weights = ordered(&weights, inputs, outputs, 1, |_| 1.0);
        FrozenConvolution::try_new(self.target, Window::POINT, weights, shift, function)
    }

    /// The channels that a convolution gives.
    fn outputs(&self, name: &str) -> Result<usize> {
        let outputs = self.parameters.weights().shape(name)?.first().copied().unwrap_or(0);
        check_channels(name, outputs)?;
        Ok(outputs)
    }

    /// Factor and term of each channel.
    fn norm(&self, name: &str, channels: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let part = |part: &str| self.parameters.take(&format!("{name}.{part}"), &[channels]);
        let gamma = part("weight")?;
        let beta = part("bias")?;
        let mean = part("running_mean")?;
        let variance = part("running_var")?;
        let factor = |c: usize| f64::from(gamma[c]) / (f64::from(variance[c]) + self.epsilon).sqrt();
        let scale: Vec<f32> = (0..channels).map(|c| factor(c) as f32).collect();
        let shift: Vec<f32> =
            (0..channels).map(|c| (f64::from(beta[c]) - f64::from(mean[c]) * factor(c)) as f32).collect();
        check_finite(name, &scale)?;
        check_finite(name, &shift)?;
        Ok((scale, shift))
    }
}

/// Refuses a number of channels that is out of bounds.
pub(super) fn check_channels(tensor: &str, channels: usize) -> Result<()> {
    if (1..=MAX_CHANNELS).contains(&channels) {
        return Ok(());
    }
    Err(Error::model_tensor(tensor, format!("has {channels} channels, expected 1 to {MAX_CHANNELS}")))
}

/// Refuses values that are not finite once a norm is folded in: a variance below −ε, or a factor that is too large.
pub(super) fn check_finite(name: &str, values: &[f32]) -> Result<()> {
    match values.iter().all(|v| v.is_finite()) {
        true => Ok(()),
        false => Err(Error::model_tensor(name, "does not fit into 32 bits with its norm folded in")),
    }
}

/// Weights (C_out, C_in, k, k), each output scaled, in the order of the kernels, (k, k, C_in, C_out).
pub(super) fn ordered(
    weights: &[f32],
    inputs: usize,
    outputs: usize,
    kernel: usize,
    scale: impl Fn(usize) -> f32,
) -> Vec<f32> {
    let taps = kernel * kernel;
    let mut ordered = vec![0.0; weights.len()];
    for (output, weights) in weights.chunks_exact((inputs * taps).max(1)).enumerate() {
        let scale = scale(output);
        for (i, weight) in weights.iter().enumerate() {
            ordered[(i % taps * inputs + i / taps) * outputs + output] = weight * scale;
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two outputs of one input, 2 × 2.
    #[test]
    fn weights_in_the_order_of_the_kernels() {
        let weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let scaled = ordered(&weights, 1, 2, 2, |output| [1.0, 10.0][output]);
        assert_eq!(scaled, [1.0, 50.0, 2.0, 60.0, 3.0, 70.0, 4.0, 80.0]);
        assert_eq!(ordered(&weights, 4, 2, 1, |_| 1.0), [1.0, 5.0, 2.0, 6.0, 3.0, 7.0, 4.0, 8.0]);
    }

    #[test]
    fn channels_are_bounded() {
        assert!(check_channels("w", MAX_CHANNELS).is_ok());
        let error = check_channels("w", MAX_CHANNELS + 1).unwrap_err().to_string();
        assert_eq!(error, "tensor 'w' has 16385 channels, expected 1 to 16384");
        assert!(check_channels("w", 0).is_err());
    }
}
