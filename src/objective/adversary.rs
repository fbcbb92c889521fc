//! The losses of WAE-GAN, from a discriminator's logits.
//!
//! ```text
//! discriminator:  (1/n) Σ_i −log D(p_i) − log(1 − D(q_i))
//! encoder:        (1/n) Σ_i −log D(q_i)
//!
//! D(z) = 1/(1 + exp(−t(z))),   or with log p:  1/(1 + exp(−(t(z) + log p(z))))
//! ```
//!
//! Where: q are codes, p draws from the prior, and t(z) is the network's logit. The best logit is log p(z) − log q(z); with
//! log p(z) added, a value a row, the network is left with −log q(z).
//!
//! # Source
//! Paper, algorithm 1 and section 4; `golden/reference.py`, `adversary_losses` and `Adversary`.

use candle_core::{Device, Tensor, Var};
use candle_nn::Linear;

use super::widest;
use crate::error::{Error, Result};
use crate::ops::linear;

/// The encoder's loss, from the logits of the codes.
///
/// # Shapes
/// (n,) → ().
pub(crate) fn encoder_loss(logits_of_codes: &Tensor) -> Result<Tensor> {
    Ok(softplus(&logits_of_codes.neg()?)?.mean_all()?)
}

/// The discriminator's loss, from the logits of codes and of draws.
///
/// # Shapes
/// (n,) and (m,) → ().
pub(crate) fn discriminator_loss(logits_of_codes: &Tensor, logits_of_draws: &Tensor) -> Result<Tensor> {
    Ok((encoder_loss(logits_of_draws)? + softplus(logits_of_codes)?.mean_all()?)?)
}

/// log(1 + exp(t)), without overflow: −log D of a logit is that of −t.
///
/// `m + log(exp(−m) + exp(t − m))`
///
/// Where: m = max(t, 0), a constant, so that the derivative is right at 0 too.
fn softplus(t: &Tensor) -> Result<Tensor> {
    let t = widest(t)?;
    let m = t.detach().relu()?;
    Ok(((m.neg()?.exp()? + (t - &m)?.exp()?)?.log()? + m)?)
}

/// log N(z; 0, σ²I), a value a row.
///
/// `log p(z) = −½ ‖z‖²/σ² − (d/2) log(2πσ²)`
///
/// # Shapes
/// (n, d) → (n,).
pub(crate) fn log_density(z: &Tensor, scale: f64) -> Result<Tensor> {
    let variance = scale * scale;
    let constant = 0.5 * z.dim(1)? as f64 * (2.0 * std::f64::consts::PI * variance).ln();
    Ok(widest(z)?.sqr()?.sum(1)?.affine(-0.5 / variance, -constant)?)
}

/// The discriminator: linear layers with ReLU between them, then one logit.
#[derive(Debug)]
pub(crate) struct Discriminator {
    layers: Vec<Linear>,
    /// The same layers, whose weights are constants.
    fixed: Vec<Linear>,
    parameters: Vec<Var>,
    log_p: Option<f64>,
}

impl Discriminator {
    /// A discriminator of these weights (out, in) and biases (out); `log_p` is the prior's scale where log p(z) is added.
    ///
    /// # Errors
    /// A weight that is no multiple of its bias in length.
    pub(crate) fn try_new(layers: Vec<(Vec<f32>, Vec<f32>)>, device: &Device, log_p: Option<f64>) -> Result<Self> {
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
    pub(crate) fn logits(&self, codes: &Tensor) -> Result<Tensor> {
        self.forward(&self.layers, codes)
    }

    /// The same logits for the encoder's step and for scoring: differentiable by the codes alone. Of codes without a graph
    /// they have none.
    pub(crate) fn fixed_logits(&self, codes: &Tensor) -> Result<Tensor> {
        self.forward(&self.fixed, codes)
    }

    /// Layer by layer, its weight and its bias.
    pub(crate) fn parameters(&self) -> &[Var] {
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
    use crate::objective::tests::{check_gradient, normal, number, numbers, tensor, value_and_gradient};

    fn row(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    /// D = ½ everywhere: log 2 for the encoder, twice that for the discriminator.
    #[test]
    fn an_undecided_discriminator() {
        let (value, gradient) = value_and_gradient(encoder_loss, &row(&[0.0, 0.0]));
        assert!((value - 2_f64.ln()).abs() < 1e-12);
        assert_eq!(gradient, [-0.25, -0.25]);
        let zeros = row(&[0.0, 0.0]);
        let (value, gradient) = value_and_gradient(|q| discriminator_loss(q, &zeros), &zeros);
        assert!((value - 2.0 * 2_f64.ln()).abs() < 1e-12);
        assert_eq!(gradient, [0.25, 0.25]);
        let (_, gradient) = value_and_gradient(|p| discriminator_loss(&zeros, p), &zeros);
        assert_eq!(gradient, [-0.25, -0.25]);
    }

    #[test]
    fn far_logits_are_finite() {
        let (value, gradient) = value_and_gradient(encoder_loss, &row(&[-1e4, 1e4]));
        assert_eq!((value, gradient), (5e3, vec![-0.5, 0.0]));
        assert!(number(&encoder_loss(&row(&[f32::NAN, 0.0])).unwrap()).is_nan());
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let p = normal(6, 1, 2).flatten_all().unwrap();
        check_gradient(encoder_loss, &p);
        check_gradient(|q| discriminator_loss(q, &p), &normal(6, 1, 1).flatten_all().unwrap());
        check_gradient(|z| Ok(log_density(z, 1.5)?.sum_all()?), &normal(3, 2, 3));
    }

    /// The constant has d_z/2 · log 2π, and each row its own density.
    #[test]
    fn log_density_by_hand() {
        let constant = (2.0 * std::f64::consts::PI).ln();
        let got = numbers(&log_density(&tensor(&[0.0, 0.0, 3.0, 4.0], 2), 1.0).unwrap());
        assert!((got[0] + constant).abs() < 1e-12 && (got[1] + 12.5 + constant).abs() < 1e-12);
        let got = numbers(&log_density(&tensor(&[3.0, 4.0], 2), 5.0).unwrap());
        assert!((got[0] + 0.5 + constant + 25_f64.ln()).abs() < 1e-12);
    }

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
