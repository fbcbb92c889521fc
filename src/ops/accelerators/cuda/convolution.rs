//! SAME convolutions by cuDNN.
//!
//! `down` is cuDNN's forward convolution from the large grid to the small one, `up` its data gradient, and the gradient
//! of the weights its filter gradient. Activations are (N, H, W, C) on both sides; weights, (k, k, C_large, C_small)
//! here, are (C_small, k, k, C_large) there. cuDNN pads both sides of a grid alike: where SAME pads one side more than
//! the other, the large grid is padded beforehand, and cropped after `up`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::{CudaDevice, DType, Tensor};
use half::bf16;

use super::dnn::{Addresses, ConvolutionTask, Handle, Operation, Plan};
use super::memory::{address, dense, start, unwritten};
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::kernels::Geometry;
use crate::ops::Convolution;
use crate::ops::composed::Composed;
use crate::ops::parts::{joined, summed};

/// Plans that are kept. A training has three a layer; scoring has another for each number of rows.
const PLANS: usize = 512;
/// Bytes that divide the addresses that cuDNN's fast kernels take.
const ALIGNMENT: u64 = 16;

/// cuDNN's convolutions on a device.
pub(super) struct CudnnConvolutions {
    device: CudaDevice,
    library: Mutex<Library>,
}

/// cuDNN's handle, and the plans that were made with it.
struct Library {
    handle: Handle,
    plans: HashMap<ConvolutionTask, Plan>,
}

// SAFETY: cuDNN's handle and descriptors may be used from any thread, but by one at a time; they are reached through
// the mutex of `CudnnConvolutions` alone, and no reference to them leaves it.
unsafe impl Send for Library {}

impl fmt::Debug for CudnnConvolutions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudnnConvolutions").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Library {
    /// The plan of a convolution, from those that were made before, beside the handle.
    fn plan(&mut self, task: ConvolutionTask) -> Result<(&Handle, &Plan)> {
        if !self.plans.contains_key(&task) {
            if self.plans.len() >= PLANS {
                self.plans.clear();
            }
            self.plans.insert(task, Plan::try_new(&self.handle, &task)?);
        }
        let plan = self.plans.get(&task).ok_or_else(|| Error::Device("a convolution has lost its plan".to_owned()))?;
        Ok((&self.handle, plan))
    }
}

/// Contiguous tensors of a convolution, in the type of its precision.
struct Operands<'a> {
    large: &'a Tensor,
    small: &'a Tensor,
    weights: &'a Tensor,
}

impl CudnnConvolutions {
    /// # Errors
    /// [`Error::Device`] if cuDNN cannot start.
    pub(super) fn try_new(device: &CudaDevice) -> Result<Self> {
        let library = Library { handle: Handle::try_new(device)?, plans: HashMap::new() };
        Ok(Self { device: device.clone(), library: Mutex::new(library) })
    }

    /// A tensor that cuDNN is to write.
    fn unwritten(&self, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        match dtype {
            DType::BF16 => unwritten::<bf16>(&self.device, shape),
            _ => unwritten::<f32>(&self.device, shape),
        }
    }

    /// Writes one of the tensors from the two others.
    fn run(&self, task: ConvolutionTask, operands: &Operands<'_>) -> Result<()> {
        let Operands { large, small, weights } = *operands;
        let stream = self.device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        let mut library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        let (handle, plan) = library.plan(task)?;
        // SAFETY: cuDNN writes its scratch memory before it reads it.
        let scratch = unsafe { self.device.alloc::<u8>(plan.bytes.max(1)) }?;
        let workspace = (start(&scratch, &stream), scratch.len());
        let [large, small, weights] = [address(large)?, address(small)?, address(weights)?];
        // SAFETY: the callers give the tensors the shapes of the task, for which the plan was made, and its type. All
        // of them, and the scratch memory, are freed on the device's stream, which is the handle's.
        unsafe { plan.run(handle, &Addresses { large, small, weights, workspace }) }
    }
}

impl Convolution for CudnnConvolutions {
    fn down(&self, g: &Geometry, large: &Tensor, weights: &Tensor, precision: Precision) -> Result<Tensor> {
        let images = large.dim(0)?;
        if is_product(g, images) {
            return Composed.down(g, large, weights, precision);
        }
        let precision = computed_in(g, precision);
        let geometry = with_own_padding(g);
        let large = dense(large, &[images, g.large.0, g.large.1, g.large_channels])?;
        let weights = operand(&transposed(g, weights)?, precision)?;
        joined(images, values_an_image(&geometry), |first, images| {
            let large = padded(g, &geometry, &operand(&large.narrow(0, first, images)?, precision)?)?;
            let small = self.unwritten(large.dtype(), &[images, g.small.0, g.small.1, g.small_channels])?;
            let task = ConvolutionTask { operation: Operation::Forward, geometry, images, precision };
            self.run(task, &Operands { large: &large, small: &small, weights: &weights })?;
            Ok(small)
        })
    }

    fn up(&self, g: &Geometry, small: &Tensor, weights: &Tensor, precision: Precision) -> Result<Tensor> {
        let images = small.dim(0)?;
        if is_product(g, images) {
            return Composed.up(g, small, weights, precision);
        }
        let precision = computed_in(g, precision);
        let geometry = with_own_padding(g);
        let small = dense(small, &[images, g.small.0, g.small.1, g.small_channels])?;
        let weights = operand(&transposed(g, weights)?, precision)?;
        joined(images, values_an_image(&geometry), |first, images| {
            let small = operand(&small.narrow(0, first, images)?, precision)?;
            let (height, width) = geometry.large;
            let large = self.unwritten(small.dtype(), &[images, height, width, g.large_channels])?;
            let task = ConvolutionTask { operation: Operation::DataGradient, geometry, images, precision };
            self.run(task, &Operands { large: &large, small: &small, weights: &weights })?;
            cropped(g, &geometry, &large)
        })
    }

    fn weight_gradient(&self, g: &Geometry, large: &Tensor, small: &Tensor, precision: Precision) -> Result<Tensor> {
        let images = large.dim(0)?;
        if is_product(g, images) {
            return Composed.weight_gradient(g, large, small, precision);
        }
        let precision = computed_in(g, precision);
        let geometry = with_own_padding(g);
        let large = dense(large, &[images, g.large.0, g.large.1, g.large_channels])?;
        let small = dense(small, &[images, g.small.0, g.small.1, g.small_channels])?;
        let sum = summed(images, values_an_image(&geometry), |first, images| {
            let large = padded(g, &geometry, &operand(&large.narrow(0, first, images)?, precision)?)?;
            let small = operand(&small.narrow(0, first, images)?, precision)?;
            let weights = self.unwritten(large.dtype(), &[g.small_channels, g.taps() * g.large_channels])?;
            let task = ConvolutionTask { operation: Operation::FilterGradient, geometry, images, precision };
            self.run(task, &Operands { large: &large, small: &small, weights: &weights })?;
            Ok(weights)
        })?;
        Ok(sum.t()?.contiguous()?.reshape(&g.weights_shape())?)
    }
}

/// Whether a convolution is left to the composed operations, as it is one product of matrices or has no images.
fn is_product(g: &Geometry, images: usize) -> bool {
    (g.large, g.small, g.kernel) == ((1, 1), (1, 1), 1) || images == 0
}

/// The precision of a convolution: cuDNN takes channels of 16 bits in eights, and other numbers of channels stay wide.
fn computed_in(g: &Geometry, precision: Precision) -> Precision {
    let in_eights = g.large_channels.is_multiple_of(8) && g.small_channels.is_multiple_of(8);
    if precision == Precision::Bf16 && !in_eights { Precision::Tf32 } else { precision }
}

/// The convolution that cuDNN computes: that of the padded grid if the two sides of the grid are not padded alike.
fn with_own_padding(g: &Geometry) -> Geometry {
    let total = |large: usize, small: usize| ((small.max(1) - 1) * g.stride + g.kernel).saturating_sub(large);
    let height = total(g.large.0, g.small.0);
    let width = total(g.large.1, g.small.1);
    if (height, width) == (2 * g.padding.0, 2 * g.padding.1) {
        return *g;
    }
    Geometry { large: (g.large.0 + height, g.large.1 + width), padding: (0, 0), ..*g }
}

/// The large grid with the padding that cuDNN does not add.
fn padded(g: &Geometry, geometry: &Geometry, large: &Tensor) -> Result<Tensor> {
    if geometry == g {
        return Ok(large.clone());
    }
    let (top, left) = g.padding;
    let bottom = geometry.large.0 - g.large.0 - top;
    let right = geometry.large.1 - g.large.1 - left;
    Ok(large.pad_with_zeros(2, left, right)?.pad_with_zeros(1, top, bottom)?.contiguous()?)
}

/// The large grid without that padding.
fn cropped(g: &Geometry, geometry: &Geometry, large: &Tensor) -> Result<Tensor> {
    if geometry == g {
        return Ok(large.clone());
    }
    Ok(large.narrow(1, g.padding.0, g.large.0)?.narrow(2, g.padding.1, g.large.1)?.contiguous()?)
}

/// Weights in cuDNN's order, (C_small, k²·C_large).
fn transposed(g: &Geometry, weights: &Tensor) -> Result<Tensor> {
    let weights = dense(weights, &g.weights_shape())?;
    Ok(weights.reshape((g.taps() * g.large_channels, g.small_channels))?.t()?.contiguous()?)
}

/// A tensor in the type of a precision, at an address that cuDNN's kernels can read.
fn operand(tensor: &Tensor, precision: Precision) -> Result<Tensor> {
    let dtype = if precision == Precision::Bf16 { DType::BF16 } else { DType::F32 };
    let tensor = tensor.to_dtype(dtype)?.contiguous()?;
    if address(&tensor)?.is_multiple_of(ALIGNMENT) { Ok(tensor) } else { Ok(tensor.force_contiguous()?) }
}

/// The most values that an image has on one of the grids, which cuDNN and candle have to count.
fn values_an_image(g: &Geometry) -> usize {
    g.large_len().max(g.small_len())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// 28 → 14 with 4 taps pads a row on each side, 7 → 4 one before and two after, which are cropped again.
    #[test]
    fn grids_are_padded_where_cudnn_cannot() {
        let alike = Geometry::same((28, 28), (1, 2), 4, 2);
        assert_eq!(with_own_padding(&alike), alike);
        let unlike = Geometry::same((7, 7), (1, 2), 4, 2);
        let geometry = with_own_padding(&unlike);
        assert_eq!((geometry.large, geometry.small, geometry.padding), ((10, 10), (4, 4), (0, 0)));
        let large = Tensor::ones((2, 7, 7, 1), DType::F32, &Device::Cpu).unwrap();
        let grid = padded(&unlike, &geometry, &large).unwrap();
        assert_eq!(grid.dims(), [2, 10, 10, 1]);
        let corner = grid.narrow(1, 1, 7).unwrap().narrow(2, 1, 7).unwrap();
        assert_eq!(corner.sum_all().unwrap().to_vec0::<f32>().unwrap(), 98.0);
        assert_eq!(cropped(&unlike, &geometry, &grid).unwrap().dims(), large.dims());
    }
}
