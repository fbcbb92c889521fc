//! Convolutions with fixed weights: over all channels, and of each channel alone.

use super::Window;
use crate::error::{Error, Result};
use crate::kernels::{self, DownWeights, Epilogue, Geometry, Nonlinearity};
use crate::ops::composed::frozen as composed;
use crate::ops::cpu::{tensor, with_values};
use crate::ops::{Target, Tensor};

/// `y = f(w∗x + b + r)`: a convolution, a shift a channel, a residual and a function.
#[derive(Debug)]
pub(crate) struct FrozenConvolution {
    window: Window,
    channels: (usize, usize),
    function: Nonlinearity,
    weights: FrozenWeights,
}

#[derive(Debug)]
enum FrozenWeights {
    /// Packed for the CPU's kernels.
    Packed { weights: DownWeights, shift: Vec<f32> },
    /// On a device.
    Tensors { weights: Tensor, shift: Tensor },
}

impl FrozenConvolution {
    /// A convolution of weights (k, k, C_in, C_out), with a shift for each of C_out.
    pub(crate) fn try_new(
        target: &Target,
        window: Window,
        weights: Vec<f32>,
        shift: Vec<f32>,
        function: Nonlinearity,
    ) -> Result<Self> {
        let outputs = shift.len();
        let channels = (weights.len() / (window.kernel * window.kernel * outputs).max(1), outputs);
        let side = window.kernel;
        let weights = if target.has_kernels() {
            let g = window.geometry((side, side), channels);
            FrozenWeights::Packed { weights: DownWeights::new(g, &weights, None), shift }
        } else {
            let shape = [side, side, channels.0, outputs];
            FrozenWeights::Tensors {
                weights: target.tensor(weights, &shape)?,
                shift: target.tensor(shift, &[outputs])?,
            }
        };
        Ok(Self { window, channels, function, weights })
    }

    /// The window.
    pub(crate) fn window(&self) -> Window {
        self.window
    }

    /// Output channels.
    pub(crate) fn outputs(&self) -> usize {
        self.channels.1
    }

    /// Bytes of the weights.
    pub(crate) fn memory(&self) -> usize {
        match &self.weights {
            FrozenWeights::Packed { weights, .. } => weights.memory(),
            FrozenWeights::Tensors { weights, .. } => weights.elem_count() * size_of::<f32>(),
        }
    }

    /// (N, H, W, C_in) → (N, h, w, C_out); a window of one pixel takes (…, C_in).
    ///
    /// # Errors
    /// [`Error::Data`] if the window does not fit into the maps, and the device's.
    pub(crate) fn apply(&self, target: &Target, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let x = x.contiguous()?;
        let (g, shape) = if self.window == Window::POINT {
            let mut shape = x.dims().to_vec();
            if shape.pop() != Some(self.channels.0) {
                return Err(Error::Data(format!("a layer of {} channels got {:?}", self.channels.0, x.dims())));
            }
            shape.push(self.channels.1);
            (Geometry::linear(self.channels.0, self.channels.1), shape)
        } else {
            let g = self.window.geometry_of(&x, self.channels)?;
            (g, vec![x.dim(0)?, g.small.0, g.small.1, self.channels.1])
        };
        let residual = residual.map(Tensor::contiguous).transpose()?;
        match &self.weights {
            FrozenWeights::Packed { weights, shift } => {
                let relu = self.function == Nonlinearity::Relu;
                let epilogue = Epilogue { shift: Some(shift), residual: None, relu };
                let mut y = with_values(&x, |x| match &residual {
                    Some(residual) => with_values(residual, |residual| {
                        weights.apply_on(&g, x, Epilogue { residual: Some(residual), ..epilogue })
                    }),
                    None => Ok(weights.apply_on(&g, x, epilogue)),
                })??;
                if !relu {
                    self.function.apply(&mut y);
                }
                tensor(y, &shape)
            }
            FrozenWeights::Tensors { weights, shift } => {
                let x = x.reshape(((), g.large.0, g.large.1, self.channels.0))?;
                let y = target.operations().convolution.down(&g, &x, weights, target.precision())?.reshape(shape)?;
                composed::finish(&y, shift, residual.as_ref(), self.function)
            }
        }
    }
}

/// `y = f(w∗x + b)`, a window for each channel.
#[derive(Debug)]
pub(crate) struct FrozenDepthwise {
    window: Window,
    function: Nonlinearity,
    weights: DepthwiseWeights,
}

#[derive(Debug)]
enum DepthwiseWeights {
    Slices { weights: Vec<f32>, shift: Vec<f32> },
    Tensors { weights: Tensor, shift: Tensor },
}

impl FrozenDepthwise {
    /// A convolution of weights (k, k, C), with a shift for each of C.
    pub(crate) fn try_new(
        target: &Target,
        window: Window,
        weights: Vec<f32>,
        shift: Vec<f32>,
        function: Nonlinearity,
    ) -> Result<Self> {
        let weights = if target.has_kernels() {
            DepthwiseWeights::Slices { weights, shift }
        } else {
            let channels = shift.len();
            let weights = target.tensor(weights, &[window.kernel * window.kernel, channels])?;
            DepthwiseWeights::Tensors { weights, shift: target.tensor(shift, &[channels])? }
        };
        Ok(Self { window, function, weights })
    }

    /// The window.
    pub(crate) fn window(&self) -> Window {
        self.window
    }

    /// Channels.
    pub(crate) fn channels(&self) -> usize {
        match &self.weights {
            DepthwiseWeights::Slices { shift, .. } => shift.len(),
            DepthwiseWeights::Tensors { shift, .. } => shift.elem_count(),
        }
    }

    /// Bytes of the weights.
    pub(crate) fn memory(&self) -> usize {
        (self.window.kernel * self.window.kernel + 1) * self.channels() * size_of::<f32>()
    }

    /// (N, H, W, C) → (N, h, w, C).
    ///
    /// # Errors
    /// As [`FrozenConvolution::apply`].
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        let g = self.window.geometry_of(&x, (self.channels(), self.channels()))?;
        match &self.weights {
            DepthwiseWeights::Slices { weights, shift } => {
                let y = with_values(&x, |x| kernels::depthwise(&g, x, weights, shift, self.function))?;
                tensor(y, &[x.dim(0)?, g.small.0, g.small.1, g.small_channels])
            }
            DepthwiseWeights::Tensors { weights, shift } => {
                composed::finish(&composed::depthwise(&g, &x, weights)?, shift, None, self.function)
            }
        }
    }
}
