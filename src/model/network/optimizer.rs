//! Adam's state as a checkpoint keeps it.

use super::{TrainingLayer, TrainingNetwork};
use crate::checkpoint::{OptimizerState, TensorData, Tensors};
use crate::error::{Error, Result};
use crate::ops::Target;

impl TrainingNetwork {
    /// Adam's state now.
    pub(crate) fn optimizer(&self) -> Result<OptimizerState> {
        let mut state =
            OptimizerState { steps: self.steps, adversary_steps: self.adversary_steps, ..OptimizerState::default() };
        for layer in self.layers() {
            for (role, name, shape) in layer.spec().tensors() {
                let Some((m, v)) = layer.moments(role)? else { continue };
                let tensor = |values: Vec<f32>| TensorData {
                    shape: shape.clone(),
                    values: layer.spec().write_layout(role, &values),
                };
                state.m.insert(name.clone(), tensor(m));
                state.v.insert(name, tensor(v));
            }
        }
        if let Some(adversary) = &self.adversary {
            let [m, v] = adversary.moments()?;
            state.m.extend(m);
            state.v.extend(v);
        }
        Ok(state)
    }

    /// Goes on from another state of Adam.
    pub(crate) fn set_optimizer(&mut self, state: &OptimizerState) -> Result<()> {
        (self.steps, self.adversary_steps) = (state.steps, state.adversary_steps);
        let Self { encoder, decoder, adversary, target, .. } = self;
        encoder.iter_mut().chain(decoder).try_for_each(|layer| set_moments(layer, target, state))?;
        adversary.as_mut().map_or(Ok(()), |adversary| adversary.set_moments(target, state))
    }
}

fn set_moments(layer: &mut TrainingLayer, target: &Target, state: &OptimizerState) -> Result<()> {
    for (role, name, _) in layer.spec().tensors() {
        if !role.is_trained() {
            continue;
        }
        let of = |tensors: &Tensors| Ok(layer.spec().read_layout(role, &moment(tensors, &name)?.values));
        let (m, v): (Result<_>, Result<_>) = (of(&state.m), of(&state.v));
        layer.set_moments(target, role, m?, v?)?;
    }
    Ok(())
}

/// Adam's running mean of a tensor, by its name.
pub(super) fn moment<'a>(tensors: &'a Tensors, name: &str) -> Result<&'a TensorData> {
    tensors.get(name).ok_or_else(|| Error::Model(format!("the optimiser has no moments of tensor '{name}'")))
}
