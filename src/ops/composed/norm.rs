//! Batch norm with ReLU, on (…, C) as a matrix of rows of C.

use candle_core::Tensor;

use super::Composed;
use super::product::{column_sums, relu, rows};
use crate::error::Result;
use crate::kernels::EPSILON;
use crate::ops::{Norm, NormGradients, NormStatistics};

impl Norm for Composed {
    fn norm_relu(&self, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<(Tensor, NormStatistics)> {
        let values = rows(x)?; // (M, C)
        let count = values.dim(0)?;
        let mean = (column_sums(&values)? / count as f64)?; // (1, C)
        let centred = values.broadcast_sub(&mean)?;
        let variance = (column_sums(&centred.sqr()?)? / count as f64)?;
        let inverse_deviation = (&variance + EPSILON)?.sqrt()?.recip()?;
        let scale = inverse_deviation.mul(&gamma.unsqueeze(0)?)?;
        let y = relu(&centred.broadcast_mul(&scale)?.broadcast_add(&beta.unsqueeze(0)?)?)?;
        let statistics = NormStatistics {
            mean: mean.squeeze(0)?,
            variance: variance.squeeze(0)?,
            inverse_deviation: inverse_deviation.squeeze(0)?,
            count,
        };
        Ok((y.reshape(x.shape())?, statistics))
    }

    fn norm_relu_gradient(
        &self,
        x: &Tensor,
        y: &Tensor,
        gradient: &Tensor,
        gamma: &Tensor,
        statistics: &NormStatistics,
    ) -> Result<NormGradients> {
        let n = statistics.count as f64;
        let inverse = statistics.inverse_deviation.unsqueeze(0)?;
        let normed = rows(x)?.broadcast_sub(&statistics.mean.unsqueeze(0)?)?.broadcast_mul(&inverse)?; // x̂
        // The sign of what ReLU gave is its derivative, 0 at 0.
        let e = rows(gradient)?.mul(&rows(y)?.sign()?)?;
        let dbeta = column_sums(&e)?;
        let dgamma = column_sums(&e.mul(&normed)?)?;
        let scale = inverse.mul(&gamma.unsqueeze(0)?)?;
        let dx = e.broadcast_sub(&(&dbeta / n)?)?.sub(&normed.broadcast_mul(&(&dgamma / n)?)?)?;
        let dx = dx.broadcast_mul(&scale)?.reshape(x.shape())?;
        Ok(NormGradients { x: dx, gamma: dgamma.squeeze(0)?, beta: dbeta.squeeze(0)? })
    }
}
