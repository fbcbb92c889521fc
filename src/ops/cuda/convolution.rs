//! SAME convolutions by cuDNN.
//!
//! `down` is cuDNN's forward convolution from the large grid to the small one, `up` its data gradient, and the gradient of
//! the weights its filter gradient; the CPU's kernels know the same three (`kernels/mod.rs`). cuDNN pads both sides of a grid
//! alike. Where SAME pads one side more than the other, the large grid is padded beforehand, and cropped after `up`.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::driver::DevicePtr;

use super::dnn::{Addresses, Handle, Operation, Plan, Task};
use super::gpu::Libraries;
use super::grid::Grid;
use super::{Array, Data, Gpu, linear, transposed};
use crate::error::{Error, Result};
use crate::kernels::Geometry;
use crate::model::Precision;

/// Plans that are kept. A training has three a layer; scoring has another for each number of rows.
const PLANS: usize = 512;

/// A convolution's weights from the CPU's order.
pub(crate) fn weights(gpu: &Arc<Gpu>, g: &Geometry, values: &[f32], precision: Precision) -> Result<Array> {
    let rows = g.taps() * g.large_channels;
    // cuDNN takes channels of 16 bits in eights; others stay wide.
    let in_eights = g.large_channels.is_multiple_of(8) && g.small_channels.is_multiple_of(8);
    let precision = if precision == Precision::Bf16 && !in_eights { Precision::Tf32 } else { precision };
    let weights = Array::new(gpu, &transposed(values, rows), &[values.len()])?.with_precision(precision);
    // cuBLAS takes the weights of a linear layer in 32 bits.
    if precision == Precision::Bf16 && !linear::is_linear(g) { weights.with_half() } else { Ok(weights) }
}

pub(crate) fn down(g: &Geometry, large: &Array, weights: &Array) -> Result<Array> {
    if linear::is_linear(g) {
        return linear::down(g, large, weights);
    }
    let (precision, images, grid) = (weights.precision(), large.len() / g.large_len(), Grid::of(g));
    let large = grid.padded(g, &as_computed(precision, large)?)?;
    let small = uninit(large.gpu(), precision, &[images, g.small.0, g.small.1, g.small_channels])?;
    let weights = as_computed(precision, weights)?;
    Convolution { g, grid, images, precision, large: &large, small: &small, weights: &weights }
        .run(Operation::Forward)?;
    Ok(small)
}

pub(crate) fn up(g: &Geometry, small: &Array, weights: &Array) -> Result<Array> {
    if linear::is_linear(g) {
        return linear::up(g, small, weights);
    }
    let (precision, images, grid) = (weights.precision(), small.len() / g.small_len(), Grid::of(g));
    let small = as_computed(precision, small)?;
    let large = uninit(small.gpu(), precision, &[images, grid.height, grid.width, g.large_channels])?;
    let weights = as_computed(precision, weights)?;
    let convolution = Convolution { g, grid, images, precision, large: &large, small: &small, weights: &weights };
    convolution.run(Operation::DataGradient)?;
    convolution.grid.cropped(g, large.clone())
}

/// The gradient of weights, in their order and in the type that they compute in.
pub(crate) fn weight_gradient(g: &Geometry, weights: &Array, large: &Array, small: &Array) -> Result<Array> {
    if linear::is_linear(g) {
        return linear::weight_gradient(g, weights, large, small);
    }
    let (precision, images, grid) = (weights.precision(), large.len() / g.large_len(), Grid::of(g));
    let large = grid.padded(g, &as_computed(precision, large)?)?;
    let small = as_computed(precision, small)?;
    let gradient = uninit(large.gpu(), precision, weights.dims())?;
    let convolution = Convolution { g, grid, images, precision, large: &large, small: &small, weights: &gradient };
    convolution.run(Operation::FilterGradient)?;
    Ok(gradient)
}

/// Values in the type that a precision computes in.
fn as_computed(precision: Precision, values: &Array) -> Result<Array> {
    match precision {
        Precision::Bf16 => values.narrowed(),
        Precision::F32 | Precision::Tf32 => values.widened(),
    }
}

/// Unwritten values of the type that a precision computes in.
fn uninit(gpu: &Arc<Gpu>, precision: Precision, shape: &[usize]) -> Result<Array> {
    let len = shape.iter().product();
    let data = match precision {
        Precision::Bf16 => Data::Bf16(gpu.uninit(len)?),
        Precision::F32 | Precision::Tf32 => Data::F32(gpu.uninit(len)?),
    };
    Array::of(gpu, data, shape)
}

/// A convolution's arrays, all of the type that its precision computes in, the large grid as cuDNN sees it.
struct Convolution<'a> {
    g: &'a Geometry,
    grid: Grid,
    images: usize,
    precision: Precision,
    large: &'a Array,
    small: &'a Array,
    weights: &'a Array,
}

impl Convolution<'_> {
    /// Writes one of the arrays from the two others.
    fn run(&self, operation: Operation) -> Result<()> {
        let Self { g, images, precision, large, small, weights, .. } = *self;
        let (gpu, task) = (large.gpu(), Task { operation, geometry: *g, images, precision });
        let mut libraries = gpu.libraries()?;
        let (handle, plans, workspace) = libraries.parts();
        let plan = plans.plan(handle, task)?;
        Libraries::workspace(workspace, gpu, plan.bytes)?;
        // What `device_ptr` gives beside the address records events, which are off.
        let scratch = workspace.as_ref().map(|w| (w.device_ptr(gpu.stream()).0, w.len()));
        let [large, small, weights] = [large, small, weights].map(|array| match array.data() {
            Data::F32(values) => values.device_ptr(gpu.stream()).0,
            Data::Bf16(values) => values.device_ptr(gpu.stream()).0,
        });
        let addresses = Addresses { large, small, weights, workspace: scratch.unwrap_or_default() };
        // SAFETY: the arrays have the shapes that the plan was made for, and are freed on the handle's stream, as is the
        // workspace, which has at least the plan's bytes.
        unsafe { plan.run(handle, &addresses) }
    }
}

/// Plans by what they do.
#[derive(Default)]
pub(super) struct Plans(HashMap<Task, Plan>);

impl Plans {
    /// The plan of a convolution, from those that were made before.
    fn plan(&mut self, handle: &Handle, task: Task) -> Result<&Plan> {
        if !self.0.contains_key(&task) {
            if self.0.len() >= PLANS {
                self.0.clear();
            }
            self.0.insert(task, Plan::try_new(handle, &task)?);
        }
        self.0.get(&task).ok_or_else(|| Error::Device("a convolution has lost its plan".to_owned()))
    }
}
