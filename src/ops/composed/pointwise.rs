//! A bias with its activation, and the mean cost with its gradient.

use candle_core::Tensor;

use super::product::{column_sums, relu, rows};
use super::{Composed, cost};
use crate::architecture::Activation;
use crate::error::Result;
use crate::objective::cost::CostFunction;
use crate::ops::Pointwise;

impl Pointwise for Composed {
    fn bias_activation(&self, x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
        let x = x.broadcast_add(bias)?;
        Ok(match activation {
            Activation::Identity => x,
            Activation::Relu => relu(&x)?,
            // 1 / (1 + exp(−x)) = ½ + ½ tanh(x/2), which does not overflow.
            Activation::Sigmoid => x.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)?,
        })
    }

    fn bias_activation_gradient(
        &self,
        y: &Tensor,
        gradient: &Tensor,
        activation: Activation,
    ) -> Result<(Tensor, Tensor)> {
        let dx = match activation {
            Activation::Identity => gradient.clone(),
            // The sign of what ReLU gave is its derivative, 0 at 0.
            Activation::Relu => gradient.mul(&y.sign()?)?,
            Activation::Sigmoid => gradient.mul(y)?.mul(&y.affine(-1.0, 1.0)?)?,
        };
        let dbias = column_sums(&rows(&dx)?)?.squeeze(0)?;
        Ok((dx, dbias))
    }

    fn cost(&self, function: &CostFunction, x: &Tensor, y: &Tensor) -> Result<(Tensor, Tensor)> {
        let (costs, gradient) = cost::costs_and_gradient(function, x, y)?;
        Ok((costs.mean_all()?, gradient))
    }
}
