//! Adam on all parameters of a network.

use super::{Tensor, cpu};
#[cfg(feature = "cuda")]
use super::{cuda, on_two_devices};
use crate::error::Result;
use crate::kernels::AdamStep;

/// A parameter with its gradient, and Adam's state of it.
#[derive(Debug)]
pub(crate) struct Trained<'a> {
    /// It is changed in place.
    pub(crate) parameter: &'a Tensor,
    pub(crate) gradient: Tensor,
    pub(crate) moments: &'a mut Moments,
}

/// A step of Adam on parameters that lie together.
pub(crate) fn adam(step: AdamStep, trained: &mut [Trained<'_>]) -> Result<()> {
    #[cfg(feature = "cuda")]
    let mut on_gpu = Vec::new();
    for Trained { parameter, gradient, moments } in trained {
        match (parameter, gradient) {
            (Tensor::Cpu(parameter), Tensor::Cpu(gradient)) => {
                cpu::adam(step, parameter, gradient, &mut moments.cpu)?;
            }
            #[cfg(feature = "cuda")]
            (Tensor::Cuda(parameter), Tensor::Cuda(gradient)) => {
                on_gpu.push(cuda::Trained { parameter, gradient, moments: &mut moments.cuda });
            }
            #[cfg(feature = "cuda")]
            _ => return Err(on_two_devices()),
        }
    }
    #[cfg(feature = "cuda")]
    cuda::adam(step, &mut on_gpu)?;
    Ok(())
}

/// Adam's running mean m and mean square v of a parameter's gradient; empty before the first step.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    cpu: cpu::Moments,
    #[cfg(feature = "cuda")]
    cuda: Option<cuda::Moments>,
}

impl Moments {
    /// Moments m and v, each as long as the parameter and in its order.
    pub(crate) fn new(m: &Tensor, v: &Tensor) -> Result<Self> {
        match (m, v) {
            (Tensor::Cpu(m), Tensor::Cpu(v)) => Ok(Self {
                cpu: cpu::Moments::new(m, v)?,
                #[cfg(feature = "cuda")]
                cuda: None,
            }),
            #[cfg(feature = "cuda")]
            (Tensor::Cuda(m), Tensor::Cuda(v)) => {
                Ok(Self { cpu: cpu::Moments::default(), cuda: Some(cuda::Moments::new(m, v)) })
            }
            #[cfg(feature = "cuda")]
            _ => Err(on_two_devices()),
        }
    }

    /// m and v of a parameter, in its order: zeros before the first step.
    pub(crate) fn tensors(&self, parameter: &Tensor) -> Result<(Tensor, Tensor)> {
        match parameter {
            Tensor::Cpu(parameter) => {
                let (m, v) = self.cpu.tensors(parameter.elem_count())?;
                Ok((Tensor::Cpu(m), Tensor::Cpu(v)))
            }
            #[cfg(feature = "cuda")]
            Tensor::Cuda(parameter) => {
                let (m, v) = cuda::Moments::tensors(self.cuda.as_ref(), parameter)?;
                Ok((Tensor::Cuda(m), Tensor::Cuda(v)))
            }
        }
    }
}
