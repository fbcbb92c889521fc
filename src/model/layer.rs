//! A layer in training: it keeps what it needs on the way forward and gives gradients on the way back.

use super::Precision;
use super::architecture::{Direction, LayerSpec, Role, Tail};
use crate::error::{Error, Result};
use crate::ops::{self, Target, Tensor};

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
    value: Tensor,
    gradient: Option<Tensor>,
    moments: ops::Moments,
}

#[derive(Debug)]
#[cfg_attr(feature = "cuda", expect(clippy::large_enum_variant, reason = "there are a dozen in a network"))]
enum TailState {
    Norm { gamma: Parameter, beta: Parameter, running: ops::Running },
    Bias { bias: Parameter },
}

/// What a layer remembers of its forward pass.
#[derive(Debug)]
struct Cache {
    input: Tensor,
    output: Tensor,
    /// Before the norm, and the batch's statistics.
    normed: Option<(Tensor, ops::Statistics)>,
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
    fn new(role: Role, value: Tensor) -> Self {
        Self { role, value, gradient: None, moments: ops::Moments::default() }
    }

    /// Itself with its gradient, if it has one, which is taken.
    fn trained(&mut self) -> Option<ops::Trained<'_>> {
        let gradient = self.gradient.take()?;
        Some(ops::Trained { parameter: &self.value, gradient, moments: &mut self.moments })
    }

    /// A value a channel.
    fn of_channels(target: &Target, role: Role, values: Vec<f32>) -> Result<Self> {
        let shape = [values.len()];
        Ok(Self::new(role, target.tensor(values, &shape)?))
    }
}

impl Layer {
    pub(super) fn build(
        spec: LayerSpec,
        target: &Target,
        precision: Precision,
        values: &mut impl FnMut(&LayerSpec, Role, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let shapes = spec.tensors();
        let mut values = |role: Role| {
            let shape = shapes.iter().find(|(r, ..)| *r == role).map(|(_, _, shape)| shape.as_slice());
            values(&spec, role, shape.unwrap_or_default())
        };
        let weight = target.weights(&spec.geometry, values(Role::Weight)?, precision)?;
        let weight = Parameter::new(Role::Weight, weight);
        let mut of_channels = |role: Role| Parameter::of_channels(target, role, values(role)?);
        let tail = match spec.tail {
            Tail::Bias(_) => TailState::Bias { bias: of_channels(Role::Bias)? },
            Tail::Norm => TailState::Norm {
                gamma: of_channels(Role::Gamma)?,
                beta: of_channels(Role::Beta)?,
                running: target.running(values(Role::RunningMean)?, values(Role::RunningVariance)?)?,
            },
        };
        Ok(Self { spec, weight, tail, cache: None })
    }

    /// Its place in the network, with its geometry.
    pub(super) fn spec(&self) -> &LayerSpec {
        &self.spec
    }

    /// The parameters with the gradients of the last pass, which are taken; one that has none is left out.
    pub(super) fn trained(&mut self) -> Vec<ops::Trained<'_>> {
        self.parameters_mut().into_iter().filter_map(Parameter::trained).collect()
    }

    /// Forgets Adam's moments.
    pub(super) fn reset_moments(&mut self) {
        self.parameters_mut().into_iter().for_each(|parameter| parameter.moments = ops::Moments::default());
    }

    /// Adam's moments of a trained tensor, in the order of the kernels; zeros before the first step.
    pub(super) fn moments(&self, wanted: Role) -> Result<Option<(Vec<f32>, Vec<f32>)>> {
        let Some(parameter) = self.parameters().into_iter().find(|p| p.role == wanted) else { return Ok(None) };
        let (m, v) = parameter.moments.tensors(&parameter.value)?;
        Ok(Some((self.read(wanted, &m)?, self.read(wanted, &v)?)))
    }

    /// Puts other moments in their place, where the network lies.
    pub(super) fn set_moments(&mut self, target: &Target, wanted: Role, m: Vec<f32>, v: Vec<f32>) -> Result<()> {
        let g = self.spec.geometry;
        let tensor = |values: Vec<f32>| match wanted {
            Role::Weight => target.weights(&g, values, Precision::F32),
            _ => {
                let shape = [values.len()];
                target.tensor(values, &shape)
            }
        };
        if let Some(parameter) = self.parameters_mut().into_iter().find(|p| p.role == wanted) {
            parameter.moments = ops::Moments::new(&tensor(m)?, &tensor(v)?)?;
        }
        Ok(())
    }

    /// The gradient of a tensor after a pass, in the order of the kernels.
    #[cfg(test)]
    pub(super) fn gradient(&self, wanted: Role) -> Result<Option<Vec<f32>>> {
        let parameter = self.parameters().into_iter().find(|p| p.role == wanted);
        parameter.and_then(|p| p.gradient.as_ref()).map(|gradient| self.read(wanted, gradient)).transpose()
    }

    fn forward(&mut self, input: Tensor) -> Result<Tensor> {
        let g = &self.spec.geometry;
        let convolved = match self.spec.direction {
            Direction::Down => ops::down(g, &input, &self.weight.value)?,
            Direction::Up => ops::up(g, &input, &self.weight.value)?,
        };
        let (output, normed) = match (&mut self.tail, self.spec.tail) {
            (TailState::Bias { bias }, Tail::Bias(activation)) => {
                (ops::bias_activation(&convolved, &bias.value, activation)?, None)
            }
            (TailState::Norm { gamma, beta, running }, _) => {
                let (output, statistics) = ops::norm_relu(&convolved, &gamma.value, &beta.value, running)?;
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
                let (dx, dgamma, dbeta) =
                    ops::norm_relu_gradient(&convolved, &output, gradient, &gamma.value, &statistics)?;
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
        let (g, weight) = (&self.spec.geometry, &self.weight.value);
        let dweight = match self.spec.direction {
            Direction::Down => ops::weight_gradient(g, weight, &input, &gradient)?,
            Direction::Up => ops::weight_gradient(g, weight, &gradient, &input)?,
        };
        self.weight.gradient = Some(dweight);
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
            (TailState::Norm { running, .. }, Role::RunningMean) => running.mean(),
            (TailState::Norm { running, .. }, Role::RunningVariance) => running.variance(),
            _ => {
                let parameter = self.parameters().into_iter().find(|p| p.role == wanted);
                let parameter =
                    parameter.ok_or_else(|| Error::Training(format!("{} has no {wanted:?}", self.spec.name)))?;
                self.read(wanted, &parameter.value)
            }
        }
    }

    /// A parameter's or a gradient's values, in the order of the kernels.
    fn read(&self, role: Role, tensor: &Tensor) -> Result<Vec<f32>> {
        match role {
            Role::Weight => ops::weight_values(&self.spec.geometry, tensor),
            _ => ops::with_values(tensor, <[f32]>::to_vec),
        }
    }
}
