//! The auto-encoder in training: layers that keep what they need on the way forward and give gradients on the way back.

use candle_core::{Tensor, Var};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::architecture::{Architecture, Direction, LayerSpec, Role, Tail};
use crate::checkpoint::{TensorData, Tensors};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kernels::{AdamStep, BatchStatistics};
use crate::ops;

/// Share of a new batch in the running statistics (PyTorch's `momentum`; the authors' `decay` is 1 − this).
const MOMENTUM: f64 = 0.1;

/// Encoder and decoder with their gradients.
#[derive(Debug)]
pub(crate) struct Network {
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
    steps: u64,
}

#[derive(Debug)]
struct Layer {
    spec: LayerSpec,
    weight: Parameter,
    tail: TailState,
    cache: Option<Cache>,
}

/// A trained tensor, in the order of the kernels.
#[derive(Debug)]
struct Parameter {
    role: Role,
    value: Var,
    gradient: Option<Tensor>,
    moments: ops::Moments,
}

#[derive(Debug)]
enum TailState {
    Norm { gamma: Parameter, beta: Parameter, running_mean: Vec<f32>, running_variance: Vec<f32> },
    Bias { bias: Parameter },
}

/// What a layer remembers of its forward pass.
#[derive(Debug)]
struct Cache {
    input: Tensor,
    output: Tensor,
    /// Before the norm, and the batch's statistics.
    normed: Option<(Tensor, BatchStatistics)>,
}

impl Network {
    /// Layers with PyTorch's default initialisation: U(−1/√fan_in, 1/√fan_in) for weights and biases, 1 and 0 for norms.
    pub(crate) fn initialise(config: &Config, generator: &mut ChaCha8Rng) -> Result<Self> {
        Self::build(config, |spec, role, shape| {
            let bound = 1.0 / (spec.fan_in() as f32).sqrt();
            let len = shape.iter().product();
            Ok(match role {
                Role::Weight | Role::Bias => (0..len).map(|_| generator.random_range(-bound..bound)).collect(),
                Role::Gamma | Role::RunningVariance => vec![1.0; len],
                Role::Beta | Role::RunningMean => vec![0.0; len],
            })
        })
    }

    /// Layers with the tensors of a model file.
    #[cfg(test)]
    pub(crate) fn from_tensors(config: &Config, tensors: &Tensors) -> Result<Self> {
        Self::build(config, |spec, role, _| {
            let name =
                spec.tensors().into_iter().find(|(r, ..)| *r == role).map(|(_, name, _)| name).unwrap_or_default();
            let tensor = tensors.get(&name).ok_or_else(|| Error::Model(format!("tensor '{name}' is missing")))?;
            Ok(spec.read_layout(role, &tensor.values))
        })
    }

    fn build(config: &Config, mut values: impl FnMut(&LayerSpec, Role, &[usize]) -> Result<Vec<f32>>) -> Result<Self> {
        let architecture = Architecture::new(config);
        let mut layers = |specs: Vec<LayerSpec>| {
            specs.into_iter().map(|spec| Layer::build(spec, &mut values)).collect::<Result<Vec<_>>>()
        };
        Ok(Self { encoder: layers(architecture.encoder)?, decoder: layers(architecture.decoder)?, steps: 0 })
    }

    /// Codes of images in training mode: (N, H, W, C) → (N, Z).
    pub(crate) fn encode(&mut self, images: &Tensor) -> Result<Tensor> {
        let codes = forward(&mut self.encoder, images.clone())?;
        Ok(codes.flatten_from(1)?)
    }

    /// Images of codes in training mode: (N, Z) → (N, H, W, C).
    pub(crate) fn decode(&mut self, codes: &Tensor) -> Result<Tensor> {
        forward(&mut self.decoder, codes.clone())
    }

    /// Goes back through the decoder; gives the gradient of the codes, (N, Z).
    pub(crate) fn decode_backward(&mut self, gradient: Tensor) -> Result<Tensor> {
        let codes = backward(&mut self.decoder, gradient, true)?;
        codes.ok_or_else(|| Error::Training("the decoder gave no gradient".to_owned()))
    }

    /// Goes back through the encoder.
    pub(crate) fn encode_backward(&mut self, gradient: Tensor) -> Result<()> {
        backward(&mut self.encoder, gradient, false).map(drop)
    }

    /// A step of Adam with the gradients of the last pass.
    pub(crate) fn step(&mut self, learning_rate: f64) -> Result<()> {
        self.steps += 1;
        // β as in the authors' configs.py, ε as in PyTorch.
        let step = AdamStep::new(self.steps, learning_rate, 0.5, 0.999, 1e-8);
        for parameter in self.layers_mut().flat_map(Layer::parameters_mut) {
            if let Some(gradient) = parameter.gradient.take() {
                ops::adam(step, parameter.value.as_tensor(), &gradient, &mut parameter.moments)?;
            }
        }
        Ok(())
    }

    /// The tensors of a model file.
    pub(crate) fn tensors(&self) -> Result<Tensors> {
        let mut tensors = Tensors::new();
        for layer in self.encoder.iter().chain(&self.decoder) {
            for (role, name, shape) in layer.spec.tensors() {
                let values = layer.values(role)?;
                tensors.insert(name, TensorData { shape, values: layer.spec.write_layout(role, &values) });
            }
        }
        Ok(tensors)
    }

    /// The gradients of the last pass under the names and in the order of a model file.
    #[cfg(test)]
    pub(crate) fn gradients(&self) -> Result<Tensors> {
        let mut tensors = Tensors::new();
        for layer in self.encoder.iter().chain(&self.decoder) {
            for (role, name, shape) in layer.spec.tensors() {
                let parameter = layer.parameters().into_iter().find(|p| p.role == role);
                if let Some(gradient) = parameter.and_then(|p| p.gradient.as_ref()) {
                    let values = ops::with_values(gradient, <[f32]>::to_vec)?;
                    tensors.insert(name, TensorData { shape, values: layer.spec.write_layout(role, &values) });
                }
            }
        }
        Ok(tensors)
    }

    fn layers_mut(&mut self) -> impl Iterator<Item = &mut Layer> {
        self.encoder.iter_mut().chain(&mut self.decoder)
    }
}

fn forward(layers: &mut [Layer], mut values: Tensor) -> Result<Tensor> {
    for layer in layers {
        values = layer.forward(values)?;
    }
    Ok(values)
}

/// The gradient of the first layer's input, where it is wanted.
fn backward(layers: &mut [Layer], gradient: Tensor, wanted: bool) -> Result<Option<Tensor>> {
    let mut gradient = Some(gradient);
    for (i, layer) in layers.iter_mut().enumerate().rev() {
        let Some(g) = gradient.take() else { break };
        gradient = layer.backward(&g, wanted || i > 0)?;
    }
    Ok(gradient)
}

impl Parameter {
    fn new(role: Role, values: Vec<f32>) -> Result<Self> {
        let shape = [values.len()];
        let value = Var::from_tensor(&ops::tensor(values, &shape)?)?;
        Ok(Self { role, value, gradient: None, moments: ops::Moments::default() })
    }
}

impl Layer {
    fn build(spec: LayerSpec, values: &mut impl FnMut(&LayerSpec, Role, &[usize]) -> Result<Vec<f32>>) -> Result<Self> {
        let shapes = spec.tensors();
        let mut values = |role: Role| {
            let shape = shapes.iter().find(|(r, ..)| *r == role).map(|(_, _, shape)| shape.as_slice());
            values(&spec, role, shape.unwrap_or_default())
        };
        let weight = Parameter::new(Role::Weight, values(Role::Weight)?)?;
        let tail = match spec.tail {
            Tail::Bias(_) => TailState::Bias { bias: Parameter::new(Role::Bias, values(Role::Bias)?)? },
            Tail::Norm => TailState::Norm {
                gamma: Parameter::new(Role::Gamma, values(Role::Gamma)?)?,
                beta: Parameter::new(Role::Beta, values(Role::Beta)?)?,
                running_mean: values(Role::RunningMean)?,
                running_variance: values(Role::RunningVariance)?,
            },
        };
        Ok(Self { spec, weight, tail, cache: None })
    }

    fn forward(&mut self, input: Tensor) -> Result<Tensor> {
        let g = &self.spec.geometry;
        let convolved = match self.spec.direction {
            Direction::Down => ops::down(g, &input, self.weight.value.as_tensor())?,
            Direction::Up => ops::up(g, &input, self.weight.value.as_tensor())?,
        };
        let (output, normed) = match (&mut self.tail, self.spec.tail) {
            (TailState::Bias { bias }, Tail::Bias(activation)) => {
                (ops::bias_activation(&convolved, bias.value.as_tensor(), activation)?, None)
            }
            (TailState::Norm { gamma, beta, running_mean, running_variance }, _) => {
                let (output, statistics) = ops::norm_relu(&convolved, gamma.value.as_tensor(), beta.value.as_tensor())?;
                let n = statistics.count as f64;
                // PyTorch keeps the unbiased variance; the batch itself is normed by the biased one.
                track(running_mean, &statistics.mean, 1.0);
                track(running_variance, &statistics.variance, n / (n - 1.0).max(1.0));
                (output, Some((convolved, statistics)))
            }
            (TailState::Bias { .. }, Tail::Norm) => {
                return Err(Error::Training(format!("{} has lost its norm", self.spec.name)));
            }
        };
        self.cache = Some(Cache { input, output: output.clone(), normed });
        Ok(output)
    }

    fn backward(&mut self, gradient: &Tensor, input_gradient: bool) -> Result<Option<Tensor>> {
        let cache = self.cache.take();
        let Cache { input, output, normed } =
            cache.ok_or_else(|| Error::Training(format!("{} went backward without going forward", self.spec.name)))?;
        let gradient = match (&mut self.tail, self.spec.tail, normed) {
            (TailState::Norm { gamma, beta, .. }, _, Some((convolved, statistics))) => {
                let gamma_value = gamma.value.as_tensor();
                let (dx, dgamma, dbeta) =
                    ops::norm_relu_gradient(&convolved, &output, gradient, gamma_value, &statistics)?;
                gamma.gradient = Some(dgamma);
                beta.gradient = Some(dbeta);
                dx
            }
            (TailState::Bias { bias }, Tail::Bias(activation), _) => {
                let (dx, dbias) = ops::bias_activation_gradient(&output, gradient, activation)?;
                bias.gradient = Some(dbias);
                dx
            }
            _ => return Err(Error::Training(format!("{} has lost its norm", self.spec.name))),
        };
        let (g, weight) = (&self.spec.geometry, self.weight.value.as_tensor());
        let dweight = match self.spec.direction {
            Direction::Down => ops::weight_gradient(g, &input, &gradient)?,
            Direction::Up => ops::weight_gradient(g, &gradient, &input)?,
        };
        self.weight.gradient = Some(dweight.flatten_all()?);
        if !input_gradient {
            return Ok(None);
        }
        let dx = match self.spec.direction {
            Direction::Down => ops::up(g, &gradient, weight)?,
            Direction::Up => ops::down(g, &gradient, weight)?,
        };
        Ok(Some(dx.reshape(input.dims())?))
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        match &mut self.tail {
            TailState::Norm { gamma, beta, .. } => vec![&mut self.weight, gamma, beta],
            TailState::Bias { bias } => vec![&mut self.weight, bias],
        }
    }

    fn parameters(&self) -> Vec<&Parameter> {
        match &self.tail {
            TailState::Norm { gamma, beta, .. } => vec![&self.weight, gamma, beta],
            TailState::Bias { bias } => vec![&self.weight, bias],
        }
    }

    fn values(&self, wanted: Role) -> Result<Vec<f32>> {
        match (&self.tail, wanted) {
            (TailState::Norm { running_mean, .. }, Role::RunningMean) => Ok(running_mean.clone()),
            (TailState::Norm { running_variance, .. }, Role::RunningVariance) => Ok(running_variance.clone()),
            _ => {
                let parameter = self.parameters().into_iter().find(|p| p.role == wanted);
                let parameter =
                    parameter.ok_or_else(|| Error::Training(format!("{} has no {wanted:?}", self.spec.name)))?;
                ops::with_values(parameter.value.as_tensor(), <[f32]>::to_vec)
            }
        }
    }
}

/// running ← (1 − momentum)·running + momentum·factor·batch.
fn track(running: &mut [f32], batch: &[f32], factor: f64) {
    for (running, batch) in running.iter_mut().zip(batch) {
        *running = ((1.0 - MOMENTUM) * f64::from(*running) + MOMENTUM * factor * f64::from(*batch)) as f32;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::config::TrainOptions;
    use crate::image::ImageShape;

    /// PyTorch's bounds, 1/√fan_in: of a convolution k²·C_in, of a transposed one k²·C_out, of a linear layer its inputs.
    #[test]
    fn initial_weights_fill_pytorchs_bounds() {
        let options = TrainOptions::try_from_options([("network", "8,16".into())]).unwrap();
        let config = options.config(ImageShape::new(28, 28, 3)).unwrap();
        let network = Network::initialise(&config, &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
        let tensors = network.tensors().unwrap();
        for (name, fan_in) in [
            ("encoder.0.conv.weight", 16 * 3),
            ("encoder.1.conv.weight", 16 * 8),
            ("encoder.head.weight", 7 * 7 * 16),
            ("encoder.head.bias", 7 * 7 * 16),
            ("decoder.stem.weight", 64),
            ("decoder.0.conv.weight", 16 * 8),
            ("decoder.out.conv.weight", 16 * 3),
        ] {
            let bound = 1.0 / (fan_in as f32).sqrt();
            let largest = tensors[name].values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            assert!(largest <= bound && largest > 0.9 * bound, "{name}: {largest}, bound {bound}");
        }
        assert!(tensors["encoder.0.norm.weight"].values.iter().all(|v| *v == 1.0));
        assert!(tensors["encoder.0.norm.running_mean"].values.iter().all(|v| *v == 0.0));
    }
}
