//! A layer in training: the forward pass keeps the tensors that the backward pass needs for the gradients.

use crate::architecture::{Direction, LayerSpec, Role, Tail};
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::ops::{self, AdamMoments, NormStatistics, Operations, RunningStatistics, Target, Tensor, Trained};

/// A layer with its parameters, their gradients and Adam's moments.
#[derive(Debug)]
pub(super) struct TrainingLayer {
    spec: LayerSpec,
    /// Precision of its convolution.
    precision: Precision,
    operations: Operations,
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
    moments: AdamMoments,
}

#[derive(Debug)]
enum TailState {
    Norm { gamma: Parameter, beta: Parameter, running: RunningStatistics },
    Bias { bias: Parameter },
}

/// Tensors of the forward pass that the backward pass needs.
#[derive(Debug)]
struct Cache {
    input: Tensor,
    output: Tensor,
    /// The norm's input, and the batch's statistics.
    normed: Option<(Tensor, NormStatistics)>,
}

/// The forward pass through all layers, in training mode.
pub(super) fn forward(layers: &mut [TrainingLayer], mut values: Tensor) -> Result<Tensor> {
    for layer in layers {
        values = layer.forward(values)?;
    }
    Ok(values)
}

/// The backward pass through all layers. Gives the gradient of the first layer's input if it is `wanted`.
pub(super) fn backward(layers: &mut [TrainingLayer], gradient: Tensor, wanted: bool) -> Result<Option<Tensor>> {
    let mut gradient = Some(gradient);
    for (i, layer) in layers.iter_mut().enumerate().rev() {
        let Some(g) = gradient.take() else { break };
        gradient = layer.backward(&g, wanted || i > 0)?;
    }
    Ok(gradient)
}

impl Parameter {
    fn new(role: Role, value: Tensor) -> Result<Self> {
        let moments = AdamMoments::zeros(&value)?;
        Ok(Self { role, value, gradient: None, moments })
    }

    /// The parameter with its gradient, which is taken; `None` if it has none.
    fn trained(&mut self) -> Option<Trained<'_>> {
        let gradient = self.gradient.take()?;
        Some(Trained { parameter: &mut self.value, gradient, moments: &mut self.moments })
    }
}

impl TrainingLayer {
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
        let mut tensor = |role: Role| tensor_of(target, &spec, role, values(role)?);
        let weight = Parameter::new(Role::Weight, tensor(Role::Weight)?)?;
        let tail = match spec.tail {
            Tail::Bias(_) => TailState::Bias { bias: Parameter::new(Role::Bias, tensor(Role::Bias)?)? },
            Tail::Norm => TailState::Norm {
                gamma: Parameter::new(Role::Gamma, tensor(Role::Gamma)?)?,
                beta: Parameter::new(Role::Beta, tensor(Role::Beta)?)?,
                running: RunningStatistics {
                    mean: tensor(Role::RunningMean)?,
                    variance: tensor(Role::RunningVariance)?,
                },
            },
        };
        Ok(Self { spec, precision, operations: target.operations().clone(), weight, tail, cache: None })
    }

    /// The layer's place in the network, with its geometry.
    pub(super) fn spec(&self) -> &LayerSpec {
        &self.spec
    }

    /// The parameters that have gradients of the last pass, with these, which are taken.
    pub(super) fn trained(&mut self) -> Vec<Trained<'_>> {
        self.parameters_mut().into_iter().filter_map(Parameter::trained).collect()
    }

    /// Forgets Adam's moments.
    pub(super) fn reset_moments(&mut self) -> Result<()> {
        for parameter in self.parameters_mut() {
            parameter.moments = AdamMoments::zeros(&parameter.value)?;
        }
        Ok(())
    }

    /// Adam's means of a trained tensor's gradient and of its square, in the order of the kernels; zeros before the
    /// first step.
    pub(super) fn moments(&self, wanted: Role) -> Result<Option<(Vec<f32>, Vec<f32>)>> {
        let Some(parameter) = self.parameters().into_iter().find(|p| p.role == wanted) else { return Ok(None) };
        Ok(Some((ops::to_vec(&parameter.moments.mean)?, ops::to_vec(&parameter.moments.square)?)))
    }

    /// Replaces a tensor's moments.
    pub(super) fn set_moments(
        &mut self,
        target: &Target,
        wanted: Role,
        mean: Vec<f32>,
        square: Vec<f32>,
    ) -> Result<()> {
        let mean = tensor_of(target, &self.spec, wanted, mean)?;
        let square = tensor_of(target, &self.spec, wanted, square)?;
        if let Some(parameter) = self.parameters_mut().into_iter().find(|p| p.role == wanted) {
            parameter.moments = AdamMoments { mean, square };
        }
        Ok(())
    }

    /// The gradient of a tensor after a pass, in the order of the kernels.
    #[cfg(test)]
    pub(super) fn gradient(&self, wanted: Role) -> Result<Option<Vec<f32>>> {
        let parameter = self.parameters().into_iter().find(|p| p.role == wanted);
        parameter.and_then(|p| p.gradient.as_ref()).map(ops::to_vec).transpose()
    }

    fn forward(&mut self, input: Tensor) -> Result<Tensor> {
        let g = &self.spec.geometry;
        let Operations { convolution, norm, pointwise, .. } = &self.operations;
        let input = input.reshape(self.spec.input_shape(input.dim(0)?))?;
        let convolved = match self.spec.direction {
            Direction::Down => convolution.down(g, &input, &self.weight.value, self.precision)?,
            Direction::Up => convolution.up(g, &input, &self.weight.value, self.precision)?,
        };
        let (output, normed) = match (&mut self.tail, self.spec.tail) {
            (TailState::Bias { bias }, Tail::Bias(activation)) => {
                (pointwise.bias_activation(&convolved, &bias.value, activation)?, None)
            }
            (TailState::Norm { gamma, beta, running }, _) => {
                let (output, statistics) = norm.norm_relu(&convolved, &gamma.value, &beta.value)?;
                running.track(&statistics)?;
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
        let gradient = &gradient.reshape(output.shape())?;
        let Operations { convolution, norm, pointwise, .. } = &self.operations;
        let gradient = match (&mut self.tail, self.spec.tail, normed) {
            (TailState::Norm { gamma, beta, .. }, _, Some((convolved, statistics))) => {
                let gradients = norm.norm_relu_gradient(&convolved, &output, gradient, &gamma.value, &statistics)?;
                gamma.gradient = Some(gradients.gamma);
                beta.gradient = Some(gradients.beta);
                gradients.x
            }
            (TailState::Bias { bias }, Tail::Bias(activation), _) => {
                let (dx, dbias) = pointwise.bias_activation_gradient(&output, gradient, activation)?;
                bias.gradient = Some(dbias);
                dx
            }
            _ => return Err(Error::Training(format!("{} has lost its norm", self.spec.name))),
        };
        let g = &self.spec.geometry;
        let weight = &self.weight.value;
        let precision = self.precision;
        let dweight = match self.spec.direction {
            Direction::Down => convolution.weight_gradient(g, &input, &gradient, precision)?,
            Direction::Up => convolution.weight_gradient(g, &gradient, &input, precision)?,
        };
        self.weight.gradient = Some(dweight);
        if !input_gradient {
            return Ok(None);
        }
        Ok(Some(match self.spec.direction {
            Direction::Down => convolution.up(g, &gradient, weight, precision)?,
            Direction::Up => convolution.down(g, &gradient, weight, precision)?,
        }))
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
            (TailState::Norm { running, .. }, Role::RunningMean) => ops::to_vec(&running.mean),
            (TailState::Norm { running, .. }, Role::RunningVariance) => ops::to_vec(&running.variance),
            _ => {
                let parameter = self.parameters().into_iter().find(|p| p.role == wanted);
                let parameter =
                    parameter.ok_or_else(|| Error::Training(format!("{} has no {wanted:?}", self.spec.name)))?;
                ops::to_vec(&parameter.value)
            }
        }
    }
}

/// A tensor of a layer where the network lies, from its values in the order of the kernels.
fn tensor_of(target: &Target, spec: &LayerSpec, role: Role, values: Vec<f32>) -> Result<Tensor> {
    match role {
        Role::Weight => target.tensor(values, &spec.geometry.weights_shape()),
        _ => {
            let channels = [values.len()];
            target.tensor(values, &channels)
        }
    }
}
