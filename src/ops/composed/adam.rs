//! Adam over all parameters at once: they are copied into one row, as most of a network's dozens are small.

use candle_core::Tensor;

use super::Composed;
use crate::error::Result;
use crate::kernels::AdamStep;
use crate::ops::{Adam, Trained};

impl Adam for Composed {
    fn adam(&self, step: AdamStep, trained: &mut [Trained<'_>]) -> Result<()> {
        if trained.is_empty() {
            return Ok(());
        }
        let gradient = flat(trained.iter().map(|t| &t.gradient))?;
        let mean = flat(trained.iter().map(|t| &t.moments.mean))?;
        let square = flat(trained.iter().map(|t| &t.moments.square))?;
        let weights = flat(trained.iter().map(|t| &*t.parameter))?;
        let AdamStep { learning_rate, beta1, beta2, epsilon, corrections } = step;
        let mean = (mean * f64::from(beta1.0))?.add(&(&gradient * f64::from(beta1.1))?)?;
        let square = (square * f64::from(beta2.0))?.add(&(gradient.sqr()? * f64::from(beta2.1))?)?;
        let root = (&square * f64::from(corrections.1))?.sqrt()?.affine(1.0, f64::from(epsilon))?;
        let weights = weights.sub(&(&mean * f64::from(learning_rate * corrections.0))?.div(&root)?)?;
        let mut first = 0;
        for Trained { parameter, moments, .. } in trained {
            let len = parameter.elem_count();
            let part = |all: &Tensor| all.narrow(0, first, len)?.reshape(parameter.shape());
            moments.mean = part(&mean)?;
            moments.square = part(&square)?;
            let weights = part(&weights)?;
            **parameter = weights;
            first += len;
        }
        Ok(())
    }
}

fn flat<'a>(parts: impl Iterator<Item = &'a Tensor>) -> Result<Tensor> {
    let parts = parts.map(Tensor::flatten_all).collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}
