//! Convolutions that an accelerator computes where it can.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use crate::device::Precision;
use crate::error::{Error, Result};
use crate::kernels::Geometry;
use crate::ops::Convolution;

/// The convolutions of an accelerator, and composed ones for those that it refuses: cuDNN has no algorithm for some
/// shapes, which need not be among those that were compared when the device was opened.
#[derive(Debug)]
pub(super) struct WithFallback {
    accelerator: Arc<dyn Convolution>,
    composed: Arc<dyn Convolution>,
    /// Convolutions that the accelerator refused; it is not asked again.
    refused: Mutex<HashSet<ConvolutionCall>>,
}

/// A convolution of a number of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ConvolutionCall {
    operation: &'static str,
    geometry: Geometry,
    images: usize,
    precision: Precision,
}

impl WithFallback {
    pub(super) fn new(accelerator: Arc<dyn Convolution>, composed: Arc<dyn Convolution>) -> Self {
        Self { accelerator, composed, refused: Mutex::default() }
    }

    fn compute(&self, call: ConvolutionCall, by: impl Fn(&dyn Convolution) -> Result<Tensor>) -> Result<Tensor> {
        let refused = || self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if !refused().contains(&call) {
            match by(self.accelerator.as_ref()) {
                Err(Error::Device(reason)) if refused().insert(call) => {
                    log::warn!("{} is computed by slower operations, as {reason}", call.operation);
                }
                Err(Error::Device(_)) => {}
                result => return result,
            }
        }
        by(self.composed.as_ref())
    }
}

impl Convolution for WithFallback {
    fn down(&self, g: &Geometry, large: &Tensor, weights: &Tensor, precision: Precision) -> Result<Tensor> {
        let call = ConvolutionCall { operation: "a convolution", geometry: *g, images: large.dim(0)?, precision };
        self.compute(call, |convolution| convolution.down(g, large, weights, precision))
    }

    fn up(&self, g: &Geometry, small: &Tensor, weights: &Tensor, precision: Precision) -> Result<Tensor> {
        let call =
            ConvolutionCall { operation: "a transposed convolution", geometry: *g, images: small.dim(0)?, precision };
        self.compute(call, |convolution| convolution.up(g, small, weights, precision))
    }

    fn weight_gradient(&self, g: &Geometry, large: &Tensor, small: &Tensor, precision: Precision) -> Result<Tensor> {
        let call =
            ConvolutionCall { operation: "a gradient of weights", geometry: *g, images: large.dim(0)?, precision };
        self.compute(call, |convolution| convolution.weight_gradient(g, large, small, precision))
    }
}
