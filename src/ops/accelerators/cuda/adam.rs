//! Adam by one launch for all parameters, as most of a network's dozens are small.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::memory::{address, counted, dense};
use super::program::{Argument, Program};
use crate::error::{Error, Result};
use crate::kernels::AdamStep;
use crate::ops::{Adam, Trained};

/// The kernel of `kernels/adam.cu`.
#[derive(Debug)]
pub(super) struct AdamKernel(Arc<Program>);

impl AdamKernel {
    pub(super) fn new(program: Arc<Program>) -> Self {
        Self(program)
    }
}

impl Adam for AdamKernel {
    /// Changes parameters and moments in place, where a view lies within its storage too: a step of the composed Adam
    /// leaves parameters that are parts of one row. Like the CPU's kernel it assumes that no other tensor shares this
    /// memory.
    fn adam(&self, step: AdamStep, trained: &mut [Trained<'_>]) -> Result<()> {
        if trained.is_empty() {
            return Ok(());
        }
        // As `Parameter` in `kernels/adam.cu`, a row a parameter. Gradients that were copied live until the launch.
        let mut table = Vec::new();
        let mut gradients = Vec::new();
        let mut values = 0_usize;
        for Trained { parameter, gradient, moments } in trained.iter() {
            let gradient = dense(gradient, parameter.dims())?;
            let [w, m, v] = [&**parameter, &moments.mean, &moments.square].map(|changed| in_place(changed, parameter));
            let row = [values as u64, w?, address(&gradient)?, m?, v?];
            table.extend(row.map(u64::cast_signed));
            gradients.push(gradient);
            values += parameter.elem_count();
        }
        let count = counted(trained.len())?;
        let table = Tensor::from_vec(table, (trained.len(), 5), &Device::Cuda(self.0.device().clone()))?;
        let AdamStep { learning_rate, beta1, beta2, epsilon, corrections } = step;
        let rates = [learning_rate, beta1.0, beta1.1, beta2.0, beta2.1, epsilon, corrections.0, corrections.1];
        let mut arguments = vec![Argument::Count(counted(values)?), Argument::Count(count), Argument::Values(&table)];
        arguments.extend(rates.map(Argument::F32));
        // SAFETY: the arguments are those of `adam`. The addresses are those of contiguous f32 tensors, of as many
        // values as lie between two beginnings, and the tensors live: `trained` and `gradients` hold them.
        unsafe { self.0.launch("adam", values, &arguments) }
    }
}

/// The address of a tensor that a step changes in place.
fn in_place(changed: &Tensor, parameter: &Tensor) -> Result<u64> {
    if !changed.is_contiguous() {
        return Err(Error::Device(format!("a step of Adam on {:?}, expected contiguous values", changed.layout())));
    }
    address(&dense(changed, parameter.dims())?)
}
