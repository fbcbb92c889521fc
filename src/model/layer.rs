//! A layer in training: it keeps what it needs on the way forward and gives gradients on the way back.

use candle_core::{Tensor, Var};

use super::architecture::{Direction, LayerSpec, Role, Tail};
use crate::error::{Error, Result};
use crate::kernels::{AdamStep, BatchStatistics};
use crate::ops;

/// Share of a new batch in the running statistics (PyTorch's `momentum`; the authors' `decay` is 1 − this).
const MOMENTUM: f64 = 0.1;

#[derive(Debug)]
pub(super) struct Layer {
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

/// Through all layers, in training mode.
pub(super) fn forward(layers: &mut [Layer], mut values: Tensor) -> Result<Tensor> {
    for layer in layers {
        values = layer.forward(values)?;
    }
    Ok(values)
}

/// Back through all layers. The gradient of the first layer's input, where it is wanted.
pub(super) fn backward(layers: &mut [Layer], gradient: Tensor, wanted: bool) -> Result<Option<Tensor>> {
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
    pub(super) fn build(
        spec: LayerSpec,
        values: &mut impl FnMut(&LayerSpec, Role, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Self> {
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

    /// Its place in the network, with its geometry.
    pub(super) fn spec(&self) -> &LayerSpec {
        &self.spec
    }

    /// A step of Adam with the gradients of the last pass, which are taken; a parameter that has none stays.
    pub(super) fn step(&mut self, step: AdamStep) -> Result<()> {
        for parameter in self.parameters_mut() {
            if let Some(gradient) = parameter.gradient.take() {
                ops::adam(step, parameter.value.as_tensor(), &gradient, &mut parameter.moments)?;
            }
        }
        Ok(())
    }

    /// Forgets Adam's moments.
    pub(super) fn reset_moments(&mut self) {
        self.parameters_mut().into_iter().for_each(|parameter| parameter.moments = ops::Moments::default());
    }

    /// Adam's moments of a trained tensor, in the order of the kernels.
    pub(super) fn moments(&self, wanted: Role) -> Option<(Vec<f32>, Vec<f32>)> {
        let parameter = self.parameters().into_iter().find(|p| p.role == wanted)?;
        Some(parameter.moments.values(parameter.value.as_tensor().elem_count()))
    }

    /// Puts other moments in their place.
    pub(super) fn set_moments(&mut self, wanted: Role, m: Vec<f32>, v: Vec<f32>) {
        if let Some(parameter) = self.parameters_mut().into_iter().find(|p| p.role == wanted) {
            parameter.moments = ops::Moments::new(m, v);
        }
    }

    /// The gradient of a tensor after a pass.
    #[cfg(test)]
    pub(super) fn gradient(&self, wanted: Role) -> Option<&Tensor> {
        self.parameters().into_iter().find(|p| p.role == wanted).and_then(|p| p.gradient.as_ref())
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

    /// The values of a tensor, in the order of the kernels.
    pub(super) fn values(&self, wanted: Role) -> Result<Vec<f32>> {
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
