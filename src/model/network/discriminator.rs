//! The layers of the discriminator of WAE-GAN, on variables of candle's.

use candle_core::{Device, Tensor, Var};
use candle_nn::Linear;

use crate::error::{Error, Result};
use crate::objective::adversary::log_density;
use crate::objective::widest;
use crate::ops::linear;

/// The discriminator: linear layers with ReLU between them, then one logit.
#[derive(Debug)]
pub(super) struct Discriminator {
    layers: Vec<Linear>,
    /// The same layers, whose weights are constants.
    fixed: Vec<Linear>,
    parameters: Vec<Var>,
    log_p: Option<f64>,
}

impl Discriminator {
    /// A discriminator of these weights (out, in) and biases (out); `log_p` is the prior's scale where log p(z) is
    /// added.
    ///
    /// # Errors
    /// A weight that is no multiple of its bias in length.
    pub(super) fn try_new(layers: Vec<(Vec<f32>, Vec<f32>)>, device: &Device, log_p: Option<f64>) -> Result<Self> {
        let mut discriminator = Self { layers: Vec::new(), fixed: Vec::new(), parameters: Vec::new(), log_p };
        for (weight, bias) in layers {
            let outputs = bias.len();
            if outputs == 0 || weight.len() % outputs != 0 {
                let lengths = format!("{} weights and {outputs} biases", weight.len());
                return Err(Error::Model(format!("expected a discriminator's layer, got {lengths}")));
            }
            let inputs = weight.len() / outputs;
            let weight = Var::from_vec(weight, (outputs, inputs), device)?;
            let bias = Var::from_vec(bias, outputs, device)?;
            // Both share the variables' memory, so that they see a step of the optimiser.
            discriminator.layers.push(Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone())));
            discriminator.fixed.push(Linear::new(weight.as_detached_tensor(), Some(bias.as_detached_tensor())));
            discriminator.parameters.extend([weight, bias]);
        }
        Ok(discriminator)
    }

    /// Logits for the discriminator's own step: differentiable by the parameters, and by the codes.
    ///
    /// # Shapes
    /// (n, d) → (n,), in the widest float type.
    pub(super) fn logits(&self, codes: &Tensor) -> Result<Tensor> {
        self.forward(&self.layers, codes)
    }

    /// The logits for the encoder's step and for scoring: differentiable by the codes alone. Codes without a graph give
    /// logits without one.
    pub(super) fn fixed_logits(&self, codes: &Tensor) -> Result<Tensor> {
        self.forward(&self.fixed, codes)
    }

    /// The parameters, layer by layer: its weight, then its bias.
    pub(super) fn parameters(&self) -> &[Var] {
        &self.parameters
    }

    fn forward(&self, layers: &[Linear], codes: &Tensor) -> Result<Tensor> {
        let mut x = codes.clone();
        for (i, layer) in layers.iter().enumerate() {
            x = linear(layer, &x, i + 1 < layers.len())?;
        }
        let logits = widest(&x)?.flatten_all()?; // (n, 1) → (n,)
        match self.log_p {
            Some(scale) => Ok((logits + log_density(codes, scale)?)?),
            None => Ok(logits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{numbers, tensor, value_and_gradient};

    /// (1, 2) → (1·1 + 2·2 + 1, −1·1 + 1) = (6, 0) → 2·6 − 3·0 + 0.5.
    fn two_layers(log_p: Option<f64>) -> Discriminator {
        let hidden = (vec![1.0, 2.0, -1.0, 0.0], vec![1.0, 1.0]);
        Discriminator::try_new(vec![hidden, (vec![2.0, -3.0], vec![0.5])], &Device::Cpu, log_p).unwrap()
    }

    #[test]
    fn logits_by_hand() {
        let z = tensor(&[1.0, 2.0], 2);
        for (log_p, expected) in [(None, 12.5), (Some(1.0), 12.5 - 2.5 - (2.0 * std::f64::consts::PI).ln())] {
            let discriminator = two_layers(log_p);
            assert!((numbers(&discriminator.logits(&z).unwrap())[0] - expected).abs() < 1e-6);
            assert!((numbers(&discriminator.fixed_logits(&z).unwrap())[0] - expected).abs() < 1e-6);
        }
    }

    /// The second hidden value is 0: neither its weights nor the code learn from it.
    #[test]
    fn the_derivative_of_relu_at_0_is_0() {
        let discriminator = two_layers(None);
        let logit = |z: &Tensor| Ok(discriminator.fixed_logits(z)?.sum_all()?);
        let (_, by_code) = value_and_gradient(logit, &tensor(&[1.0, 2.0], 2));
        assert_eq!(by_code, [2.0, 4.0]);
        let gradients = discriminator.logits(&tensor(&[1.0, 2.0], 2)).unwrap().backward().unwrap();
        let by_parameter = discriminator.parameters().iter().map(|p| numbers(gradients.get(p).unwrap()));
        let expected = [vec![2.0, 4.0, 0.0, 0.0], vec![2.0, 0.0], vec![6.0, 0.0], vec![1.0]];
        assert!(by_parameter.eq(expected), "weights and biases, layer by layer");
    }

    /// The encoder's step leaves the discriminator as it is.
    #[test]
    fn fixed_logits_have_no_gradient_by_the_parameters() {
        let discriminator = two_layers(None);
        let codes = Var::from_tensor(&tensor(&[1.0, 2.0], 2)).unwrap();
        let gradients = discriminator.fixed_logits(&codes).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&codes).is_some());
        assert!(discriminator.parameters().iter().all(|p| gradients.get(p).is_none()));
    }

    #[test]
    fn a_step_of_a_parameter_is_seen_by_the_layers() {
        let discriminator = two_layers(None);
        discriminator.parameters()[2].set(&tensor(&[1.0, 1.0], 2)).unwrap();
        for logits in
            [discriminator.logits(&tensor(&[1.0, 2.0], 2)), discriminator.fixed_logits(&tensor(&[1.0, 2.0], 2))]
        {
            assert_eq!(numbers(&logits.unwrap()), [6.5]);
        }
    }

    #[test]
    fn a_layer_whose_lengths_disagree_is_refused() {
        let error = Discriminator::try_new(vec![(vec![1.0; 5], vec![0.0; 2])], &Device::Cpu, None).unwrap_err();
        assert_eq!(error.to_string(), "expected a discriminator's layer, got 5 weights and 2 biases");
    }
}
