//! SAME convolutions by cuDNN.
//!
//! `down` is cuDNN's forward convolution from the large grid to the small one, `up` its data gradient, and the gradient of
//! the weights its filter gradient; the CPU's kernels know the same three (`kernels/mod.rs`). cuDNN pads both sides of a grid
//! alike. Where SAME pads one side more than the other, the large grid is padded beforehand, and cropped after `up`.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t, cudnnConvolutionBwdFilterAlgo_t, cudnnConvolutionFwdAlgo_t, cudnnConvolutionMode_t,
    cudnnMathType_t, cudnnTensorFormat_t,
};
use cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, FilterDescriptor,
    TensorDescriptor,
};
use cudarc::driver::{CudaSlice, DeviceRepr};
use half::bf16;

use super::gpu::Libraries;
use super::grid::Grid;
use super::{Array, Data, Gpu, linear, transposed};
use crate::error::{Error, Result};
use crate::kernels::Geometry;
use crate::model::Precision;

/// Shapes whose descriptors are kept. A training has one a layer; scoring has another for each number of rows.
const PLANS: usize = 512;

/// A convolution's weights from the CPU's order.
pub(crate) fn weights(gpu: &Arc<Gpu>, g: &Geometry, values: &[f32], precision: Precision) -> Result<Array> {
    let rows = g.taps() * g.large_channels;
    // cuDNN takes channels of 16 bits in eights; others stay wide.
    let in_eights = g.large_channels.is_multiple_of(8) && g.small_channels.is_multiple_of(8);
    let precision = if precision == Precision::Bf16 && !in_eights { Precision::Tf32 } else { precision };
    Ok(Array::new(gpu, &transposed(values, rows), &[values.len()])?.with_precision(precision))
}

pub(crate) fn down(g: &Geometry, large: &Array, weights: &Array) -> Result<Array> {
    if linear::is_linear(g) {
        return linear::down(g, large, weights);
    }
    match weights.precision() {
        Precision::Bf16 => forward::<bf16>(g, &large.narrowed()?, &weights.narrowed()?),
        Precision::F32 | Precision::Tf32 => forward::<f32>(g, &large.widened()?, weights),
    }
}

pub(crate) fn up(g: &Geometry, small: &Array, weights: &Array) -> Result<Array> {
    if linear::is_linear(g) {
        return linear::up(g, small, weights);
    }
    match weights.precision() {
        Precision::Bf16 => data_gradient::<bf16>(g, &small.narrowed()?, &weights.narrowed()?),
        Precision::F32 | Precision::Tf32 => data_gradient::<f32>(g, &small.widened()?, weights),
    }
}

/// Deterministic, as cuDNN's notes on reproducibility say of both; its first choices need not be, and a decoder is a data gradient,
/// so that two queries would disagree. Where they do not take a shape, cuDNN chooses.
const DATA: cudnnConvolutionBwdDataAlgo_t = cudnnConvolutionBwdDataAlgo_t::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
const FILTER: cudnnConvolutionBwdFilterAlgo_t = cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;

/// The gradient of weights, in their order and in the type that they compute in.
pub(crate) fn weight_gradient(g: &Geometry, weights: &Array, large: &Array, small: &Array) -> Result<Array> {
    if linear::is_linear(g) {
        return linear::weight_gradient(g, weights, large, small);
    }
    match weights.precision() {
        Precision::Bf16 => filter_gradient::<bf16>(g, weights, &large.narrowed()?, &small.narrowed()?),
        Precision::F32 | Precision::Tf32 => filter_gradient::<f32>(g, weights, &large.widened()?, &small.widened()?),
    }
}

fn forward<T: Element>(g: &Geometry, large: &Array, weights: &Array) -> Result<Array> {
    let (gpu, images) = (large.gpu(), large.len() / g.large_len());
    let grid = Grid::of(g);
    let large = grid.padded(g, large)?;
    let mut small = gpu.uninit::<T>(images * g.small_len())?;
    {
        let mut libraries = gpu.libraries()?;
        let (cudnn, plans, workspace) = libraries.parts();
        let plan = T::plan(plans, cudnn, g, &grid, images, weights.precision())?;
        let operation = ConvForward { conv: &plan.convolution, x: &plan.large, w: &plan.weights, y: &plan.small };
        let (algorithm, bytes) = match plan.forward {
            Some(chosen) => chosen,
            None => {
                let algorithm = operation.pick_algorithm()?;
                (algorithm, operation.get_workspace_size(algorithm)?)
            }
        };
        Libraries::workspace(workspace, gpu, bytes)?;
        let (x, w) = (T::values(&large)?, T::values(weights)?);
        // SAFETY: the arrays have the shapes that the plan's descriptors were made of, and lie on the handle's stream.
        unsafe { operation.launch(algorithm, workspace.as_mut(), (T::ONE, T::ZERO), x, w, &mut small) }?;
        plan.forward = Some((algorithm, bytes));
    }
    Array::of(gpu, T::data(small), &[images, g.small.0, g.small.1, g.small_channels])
}

fn data_gradient<T: Element>(g: &Geometry, small: &Array, weights: &Array) -> Result<Array> {
    let (gpu, images) = (small.gpu(), small.len() / g.small_len());
    let grid = Grid::of(g);
    let mut large = gpu.uninit::<T>(images * grid.height * grid.width * g.large_channels)?;
    {
        let mut libraries = gpu.libraries()?;
        let (cudnn, plans, workspace) = libraries.parts();
        let plan = T::plan(plans, cudnn, g, &grid, images, weights.precision())?;
        let operation =
            ConvBackwardData { conv: &plan.convolution, dx: &plan.large, w: &plan.weights, dy: &plan.small };
        let (algorithm, bytes) = match plan.data {
            Some(chosen) => chosen,
            None => match operation.get_workspace_size(DATA) {
                Ok(bytes) => (DATA, bytes),
                Err(_) => {
                    let algorithm = operation.pick_algorithm()?;
                    (algorithm, operation.get_workspace_size(algorithm)?)
                }
            },
        };
        Libraries::workspace(workspace, gpu, bytes)?;
        let (w, dy) = (T::values(weights)?, T::values(small)?);
        // SAFETY: as in `forward`.
        unsafe { operation.launch(algorithm, workspace.as_mut(), (T::ONE, T::ZERO), &mut large, w, dy) }?;
        plan.data = Some((algorithm, bytes));
    }
    let large = Array::of(gpu, T::data(large), &[images, grid.height, grid.width, g.large_channels])?;
    grid.cropped(g, large)
}

fn filter_gradient<T: Element>(g: &Geometry, weights: &Array, large: &Array, small: &Array) -> Result<Array> {
    let (gpu, images) = (large.gpu(), large.len() / g.large_len());
    let grid = Grid::of(g);
    let large = grid.padded(g, large)?;
    let mut gradient = gpu.uninit::<T>(g.weights_len())?;
    {
        let mut libraries = gpu.libraries()?;
        let (cudnn, plans, workspace) = libraries.parts();
        let plan = T::plan(plans, cudnn, g, &grid, images, weights.precision())?;
        let operation =
            ConvBackwardFilter { conv: &plan.convolution, x: &plan.large, dw: &plan.weights, dy: &plan.small };
        let (algorithm, bytes) = match plan.filter {
            Some(chosen) => chosen,
            None => match operation.get_workspace_size(FILTER) {
                Ok(bytes) => (FILTER, bytes),
                Err(_) => {
                    let algorithm = operation.pick_algorithm()?;
                    (algorithm, operation.get_workspace_size(algorithm)?)
                }
            },
        };
        Libraries::workspace(workspace, gpu, bytes)?;
        let (x, dy) = (T::values(&large)?, T::values(small)?);
        // SAFETY: as in `forward`.
        unsafe { operation.launch(algorithm, workspace.as_mut(), (T::ONE, T::ZERO), x, &mut gradient, dy) }?;
        plan.filter = Some((algorithm, bytes));
    }
    Array::of(gpu, T::data(gradient), weights.dims())
}

/// cuDNN's descriptors of a convolution on so many images, and the algorithm with its scratch bytes for each direction.
pub(super) struct Plan<T> {
    convolution: ConvDescriptor<f32>,
    weights: FilterDescriptor<T>,
    large: TensorDescriptor<T>,
    small: TensorDescriptor<T>,
    forward: Option<(cudnnConvolutionFwdAlgo_t, usize)>,
    data: Option<(cudnnConvolutionBwdDataAlgo_t, usize)>,
    filter: Option<(cudnnConvolutionBwdFilterAlgo_t, usize)>,
}

type ByShape<T> = HashMap<(Geometry, usize, Precision), Plan<T>>;

/// Plans by geometry, number of images and precision.
#[derive(Default)]
pub(super) struct Plans {
    f32: ByShape<f32>,
    bf16: ByShape<bf16>,
}

impl<T: CudnnDataType> Plan<T> {
    fn try_new(cudnn: &Arc<Cudnn>, g: &Geometry, grid: &Grid, images: usize, precision: Precision) -> Result<Self> {
        let format = cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        // Sizes come as (N, C, H, W) whatever the format.
        let sizes = |n: usize, c: usize, (h, w): (usize, usize)| [n, c, h, w].map(|v| v as i32);
        let (pad, stride) = ([grid.padding.0 as i32, grid.padding.1 as i32], [g.stride as i32; 2]);
        let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let mut convolution = cudnn.create_conv2d::<f32>(pad, stride, [1; 2], mode)?;
        convolution.set_math_type(match precision {
            Precision::F32 => cudnnMathType_t::CUDNN_FMA_MATH,
            // Of 32-bit values, the default takes TF32 on tensor cores.
            Precision::Tf32 => cudnnMathType_t::CUDNN_DEFAULT_MATH,
            Precision::Bf16 => cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        })?;
        let kernel = (g.kernel, g.kernel);
        Ok(Self {
            convolution,
            weights: cudnn.create_4d_filter(format, sizes(g.small_channels, g.large_channels, kernel))?,
            large: cudnn.create_4d_tensor(format, sizes(images, g.large_channels, (grid.height, grid.width)))?,
            small: cudnn.create_4d_tensor(format, sizes(images, g.small_channels, g.small))?,
            forward: None,
            data: None,
            filter: None,
        })
    }
}

/// What cuDNN convolves.
trait Element: CudnnDataType + DeviceRepr + Copy {
    const ZERO: Self;
    const ONE: Self;

    fn data(values: CudaSlice<Self>) -> Data;
    fn values(array: &Array) -> Result<&CudaSlice<Self>>;
    fn plans(plans: &mut Plans) -> &mut ByShape<Self>;

    /// The plan of a convolution, from those that were made before.
    fn plan<'a>(
        plans: &'a mut Plans,
        cudnn: &Arc<Cudnn>,
        g: &Geometry,
        grid: &Grid,
        images: usize,
        precision: Precision,
    ) -> Result<&'a mut Plan<Self>> {
        let (plans, key) = (Self::plans(plans), (*g, images, precision));
        if !plans.contains_key(&key) {
            if plans.len() >= PLANS {
                plans.clear();
            }
            plans.insert(key, Plan::try_new(cudnn, g, grid, images, precision)?);
        }
        plans.get_mut(&key).ok_or_else(|| Error::Device("a convolution has lost its plan".to_owned()))
    }
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn data(values: CudaSlice<Self>) -> Data {
        Data::F32(values)
    }

    fn values(array: &Array) -> Result<&CudaSlice<Self>> {
        array.f32()
    }

    fn plans(plans: &mut Plans) -> &mut ByShape<Self> {
        &mut plans.f32
    }
}

impl Element for bf16 {
    const ZERO: Self = bf16::ZERO;
    const ONE: Self = bf16::ONE;

    fn data(values: CudaSlice<Self>) -> Data {
        Data::Bf16(values)
    }

    fn values(array: &Array) -> Result<&CudaSlice<Self>> {
        match array.data() {
            Data::Bf16(values) => Ok(values),
            Data::F32(_) => Err(Error::Device("expected bf16, got values of 32 bits".to_owned())),
        }
    }

    fn plans(plans: &mut Plans) -> &mut ByShape<Self> {
        &mut plans.bf16
    }
}
