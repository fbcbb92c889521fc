//! cuDNN's handle, and the algorithm that it computes a convolution with.
//!
//! cudarc's own wrappers take the first of cuDNN's answers when they are asked for an algorithm; here all are looked at.

use std::ffi::CStr;
use std::sync::Arc;

use cudarc::cudnn::result::{
    convolution_backward_data, convolution_backward_filter, convolution_forward, create_handle, destroy_handle,
    set_stream,
};
use cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t, cudnnConvolutionBwdFilterAlgo_t, cudnnConvolutionFwdAlgo_t, cudnnDeterminism_t,
    cudnnHandle_t, cudnnMathType_t, cudnnStatus_t, culib,
};
use cudarc::driver::CudaStream;
use cudarc::driver::sys::CUdeviceptr;

use super::descriptors::Descriptors;
use crate::error::{Error, Result};
use crate::kernels::Geometry;
use crate::model::Precision;

/// Scratch memory from which on an algorithm is passed over for a slower one: the arrays of a step have to fit beside it.
const WORKSPACE: usize = 1 << 30;

/// What convolutions call. They are deprecated since cuDNN 9; where a later one lacks them, cudarc would panic in the middle of a
/// training.
const FUNCTIONS: [&CStr; 19] = [
    c"cudnnCreateConvolutionDescriptor",
    c"cudnnCreateFilterDescriptor",
    c"cudnnCreateTensorDescriptor",
    c"cudnnDestroyConvolutionDescriptor",
    c"cudnnDestroyFilterDescriptor",
    c"cudnnDestroyTensorDescriptor",
    c"cudnnSetConvolution2dDescriptor",
    c"cudnnSetConvolutionMathType",
    c"cudnnSetFilter4dDescriptor",
    c"cudnnSetTensor4dDescriptor",
    c"cudnnGetConvolutionForwardAlgorithm_v7",
    c"cudnnGetConvolutionBackwardDataAlgorithm_v7",
    c"cudnnGetConvolutionBackwardFilterAlgorithm_v7",
    c"cudnnGetConvolutionForwardWorkspaceSize",
    c"cudnnGetConvolutionBackwardDataWorkspaceSize",
    c"cudnnGetConvolutionBackwardFilterWorkspaceSize",
    c"cudnnConvolutionForward",
    c"cudnnConvolutionBackwardData",
    c"cudnnConvolutionBackwardFilter",
];

/// cuDNN on a stream.
pub(super) struct Handle {
    pub(super) raw: cudnnHandle_t,
    /// It outlives the handle.
    _stream: Arc<CudaStream>,
}

impl Handle {
    /// # Errors
    /// [`Error::Device`] if the library lacks a function, or cannot start.
    pub(super) fn try_new(stream: &Arc<CudaStream>) -> Result<Self> {
        // SAFETY: the functions are looked for, and not called.
        let lacks = |name: &&CStr| unsafe { culib().get::<unsafe extern "C" fn()>(name.to_bytes_with_nul()) }.is_err();
        if let Some(name) = FUNCTIONS.into_iter().find(lacks) {
            return Err(Error::Device(format!("libcudnn has no {}", name.to_string_lossy())));
        }
        stream.context().bind_to_thread()?;
        let handle = Self { raw: create_handle()?, _stream: Arc::clone(stream) };
        // SAFETY: the handle was created above, and keeps the stream.
        unsafe { set_stream(handle.raw, stream.cu_stream().cast()) }?;
        Ok(handle)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle was created by `try_new` and is destroyed here alone.
        if let Err(e) = unsafe { destroy_handle(self.raw) } {
            log::warn!("cuDNN: {:?}", e.0);
        }
    }
}

/// What cuDNN computes of the large grid, the small grid and the weights from the two others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    /// The small grid.
    Forward,
    /// The large grid.
    DataGradient,
    /// The weights.
    FilterGradient,
}

/// A side of a convolution, of so many images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Task {
    pub(super) operation: Operation,
    pub(super) geometry: Geometry,
    pub(super) images: usize,
    pub(super) precision: Precision,
}

/// How cuDNN computes it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Algorithm {
    Forward(cudnnConvolutionFwdAlgo_t),
    DataGradient(cudnnConvolutionBwdDataAlgo_t),
    FilterGradient(cudnnConvolutionBwdFilterAlgo_t),
}

impl Operation {
    /// The algorithm that cuDNN's reference calls deterministic, and that PyTorch takes, whatever the layout, when it is asked
    /// to be (`Conv_v7.cpp`, `DEFAULT_ALGO`).
    fn documented(self) -> Algorithm {
        use {
            cudnnConvolutionBwdDataAlgo_t as Data, cudnnConvolutionBwdFilterAlgo_t as Filter,
            cudnnConvolutionFwdAlgo_t as Forward,
        };
        match self {
            Self::Forward => Algorithm::Forward(Forward::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM),
            Self::DataGradient => Algorithm::DataGradient(Data::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1),
            Self::FilterGradient => Algorithm::FilterGradient(Filter::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1),
        }
    }
}

/// An algorithm that cuDNN offers, and the arithmetic that it does it in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    algorithm: Algorithm,
    math: cudnnMathType_t,
}

impl Answer {
    /// If cuDNN can do it, and comes to the same bits each time.
    pub(super) fn of(
        algorithm: Algorithm,
        status: cudnnStatus_t,
        determinism: cudnnDeterminism_t,
        math: cudnnMathType_t,
    ) -> Option<Self> {
        let usable =
            (status, determinism) == (cudnnStatus_t::CUDNN_STATUS_SUCCESS, cudnnDeterminism_t::CUDNN_DETERMINISTIC);
        usable.then_some(Self { algorithm, math })
    }
}

/// What a convolution is asked to compute in.
fn math(precision: Precision) -> cudnnMathType_t {
    match precision {
        Precision::F32 => cudnnMathType_t::CUDNN_FMA_MATH,
        // Of 32-bit values, the default takes TF32 on tensor cores.
        Precision::Tf32 => cudnnMathType_t::CUDNN_DEFAULT_MATH,
        Precision::Bf16 => cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
    }
}

/// The addresses of a convolution's arrays.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) large: CUdeviceptr,
    pub(super) small: CUdeviceptr,
    pub(super) weights: CUdeviceptr,
    /// Scratch memory, and its bytes.
    pub(super) workspace: (CUdeviceptr, usize),
}

/// A convolution on so many images, as cuDNN computes one of its sides.
pub(super) struct Plan {
    descriptors: Descriptors,
    algorithm: Algorithm,
    /// Scratch memory.
    pub(super) bytes: usize,
}

impl Plan {
    /// Takes the first of cuDNN's answers, which come fastest first, that is deterministic, keeps to the precision and asks for
    /// no more than [`WORKSPACE`]; where all ask for more, the one that asks for least. The order is cuDNN's guess from the shape
    /// and the GPU, and not measured: else two trainings on one GPU could take two algorithms, and their sums would differ. If
    /// no answer will do, or none comes, the algorithm that is documented to do is tried.
    ///
    /// # Errors
    /// [`Error::Device`] if there is none.
    pub(super) fn try_new(handle: &Handle, task: &Task) -> Result<Self> {
        let (descriptors, Task { operation, precision, .. }) = (Descriptors::try_new(task)?, *task);
        let wanted = math(precision);
        descriptors.set_math(wanted)?;
        let documented = Answer { algorithm: operation.documented(), math: wanted };
        let (mut least, mut refused): (Option<(Answer, usize)>, _) = (None, String::new());
        let answers = match descriptors.answers(handle, operation) {
            Err(Error::Device(reason)) => {
                // That it has no guess for a shape does not say that it has no algorithm.
                refused = format!(": {reason}");
                Vec::new()
            }
            answers => answers?,
        };
        for answer in answers.into_iter().chain([documented]) {
            if precision == Precision::F32 && answer.math != wanted {
                continue;
            }
            // What is offered is an algorithm in an arithmetic: in another it may be slower, or not be there at all.
            descriptors.set_math(answer.math)?;
            let bytes = match descriptors.workspace(handle, answer.algorithm).map_err(Error::from) {
                Err(Error::Device(reason)) => {
                    refused = format!(": {reason}");
                    continue;
                }
                bytes => bytes?,
            };
            if least.is_none_or(|(_, least)| bytes < least) {
                least = Some((answer, bytes));
            }
            if bytes <= WORKSPACE {
                break;
            }
        }
        let (answer, bytes) = least.ok_or_else(|| {
            let Task { geometry, images, .. } = task;
            Error::Device(format!(
                "cuDNN has no deterministic {operation:?} in {precision:?} for {images} images of {geometry:?}{refused}"
            ))
        })?;
        descriptors.set_math(answer.math)?;
        Ok(Self { descriptors, algorithm: answer.algorithm, bytes })
    }

    /// Computes the side of the plan's operation from the others.
    ///
    /// # Safety
    /// The addresses are those of arrays of the plan's shapes and type and of as many bytes as said, which stay until the
    /// handle's stream has come past this.
    pub(super) unsafe fn run(&self, handle: &Handle, at: &Addresses) -> Result<()> {
        let (h, (c, wd, xd, yd)) = (handle.raw, self.descriptors.raw());
        // Of bf16 too the scaling factors are f32.
        let (one, zero) = (1.0_f32, 0.0_f32);
        let (one, zero) = ((&raw const one).cast(), (&raw const zero).cast());
        let (x, y, w) = (at.large as *mut _, at.small as *mut _, at.weights as *mut _);
        let (to, n) = (at.workspace.0 as *mut _, at.workspace.1);
        // SAFETY: the descriptors live in the plan; of the arrays, the caller says so.
        unsafe {
            match self.algorithm {
                Algorithm::Forward(a) => convolution_forward(h, one, xd, x, wd, w, c, a, to, n, zero, yd, y),
                Algorithm::DataGradient(a) => convolution_backward_data(h, one, wd, w, yd, y, c, a, to, n, zero, xd, x),
                Algorithm::FilterGradient(a) => {
                    convolution_backward_filter(h, one, xd, x, yd, y, c, a, to, n, zero, wd, w)
                }
            }
        }?;
        Ok(())
    }
}
