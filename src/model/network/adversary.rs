//! The discriminator of WAE-GAN in training: candle's layers on seeded tensors, and Adam's state of each.

use super::discriminator::Discriminator;
use crate::architecture::{LayerSpec, Role};
use crate::checkpoint::{OptimizerState, TensorData, Tensors};
use crate::config::{Config, Objective, PriorKind};
use crate::error::{Error, Result};
use crate::kernels::AdamStep;
use crate::objective::adversary::discriminator_loss;
use crate::ops::{AdamMoments, Operations, Target, Tensor, Trained, to_vec};

/// The discriminator with its optimiser.
#[derive(Debug)]
pub(super) struct Adversary {
    discriminator: Discriminator,
    /// Name and shape of each parameter in a file, in the discriminator's order.
    parameters: Vec<(String, Vec<usize>)>,
    /// Adam's moments of each parameter.
    moments: Vec<AdamMoments>,
}

impl Adversary {
    /// The discriminator of an objective that has one. `values` gives a tensor's values in the order of the kernels.
    pub(super) fn build(
        config: &Config,
        target: &Target,
        specs: Vec<LayerSpec>,
        values: &mut impl FnMut(&LayerSpec, Role, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Option<Self>> {
        let log_p = match config.objective() {
            Objective::Gan { log_p, .. } => *log_p && config.prior().kind == PriorKind::Normal,
            _ => return Ok(None),
        };
        let mut parameters = Vec::new();
        let mut layers = Vec::new();
        for spec in specs {
            let mut of_layer = Vec::new();
            for (role, name, shape) in spec.tensors() {
                of_layer.push(spec.write_layout(role, &values(&spec, role, &shape)?));
                parameters.push((name, shape));
            }
            let [weight, bias] = <[Vec<f32>; 2]>::try_from(of_layer).map_err(|_| {
                Error::Training(format!("{} has no weight and bias, expected a linear layer", spec.name))
            })?;
            layers.push((weight, bias));
        }
        let discriminator = Discriminator::try_new(layers, target.device(), log_p.then_some(config.prior().scale))?;
        let zeros = |var: &candle_core::Var| AdamMoments::zeros(var);
        let moments = discriminator.parameters().iter().map(zeros).collect::<Result<_>>()?;
        Ok(Some(Self { discriminator, parameters, moments }))
    }

    /// The logits of codes: (N, Z) → (N,), differentiable by the codes and not by the parameters.
    pub(super) fn logits(&self, codes: &Tensor) -> Result<Tensor> {
        self.discriminator.fixed_logits(codes)
    }

    /// A step of Adam on codes and draws, (N, Z) each; gives the loss before it, a scalar.
    pub(super) fn step(
        &mut self,
        step: AdamStep,
        operations: &Operations,
        codes: &Tensor,
        draws: &Tensor,
    ) -> Result<Tensor> {
        let logits = self.discriminator.logits(&Tensor::cat(&[codes, draws], 0)?)?;
        let n = codes.dim(0)?;
        let m = draws.dim(0)?;
        let loss = discriminator_loss(&logits.narrow(0, 0, n)?, &logits.narrow(0, n, m)?)?;
        let gradients = loss.backward()?;
        let vars = self.discriminator.parameters();
        let mut values: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let mut trained = Vec::new();
        for ((parameter, moments), var) in values.iter_mut().zip(&mut self.moments).zip(vars) {
            if let Some(gradient) = gradients.get(var) {
                trained.push(Trained { parameter, gradient: gradient.contiguous()?, moments });
            }
        }
        operations.adam.adam(step, &mut trained)?;
        for (var, value) in vars.iter().zip(&values) {
            // A step in place has changed the variable itself.
            if value.id() != var.id() {
                var.set(value)?;
            }
        }
        Ok(loss.detach())
    }

    /// The tensors of a model file.
    pub(super) fn tensors(&self) -> Result<Tensors> {
        self.named(self.discriminator.parameters().iter().map(|var| var.as_tensor()))
    }

    /// Adam's running means of each gradient, and of its square.
    pub(super) fn moments(&self) -> Result<[Tensors; 2]> {
        let means = self.named(self.moments.iter().map(|moments| &moments.mean))?;
        Ok([means, self.named(self.moments.iter().map(|moments| &moments.square))?])
    }

    /// Goes on from another state of Adam.
    pub(super) fn set_moments(&mut self, target: &Target, state: &OptimizerState) -> Result<()> {
        for ((name, shape), moments) in self.parameters.iter().zip(&mut self.moments) {
            let of = |tensors: &Tensors| target.tensor(super::optimizer::moment(tensors, name)?.values.clone(), shape);
            *moments = AdamMoments { mean: of(&state.m)?, square: of(&state.v)? };
        }
        Ok(())
    }

    fn named<'a>(&self, tensors: impl Iterator<Item = &'a Tensor>) -> Result<Tensors> {
        let named = self.parameters.iter().zip(tensors);
        named
            .map(|((name, shape), tensor)| {
                Ok((name.clone(), TensorData { shape: shape.clone(), values: to_vec(tensor)? }))
            })
            .collect()
    }
}
