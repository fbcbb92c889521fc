//! cuDNN's handle, and the algorithm that it computes a convolution with.
//!
//! cudarc's own wrappers take the first of cuDNN's answers when they are asked for an algorithm; here all are looked
//! at.

use std::sync::Arc;

use candle_core::CudaDevice;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cudnn::CudnnError;
use candle_core::cuda_backend::cudarc::cudnn::result::{
    convolution_backward_data, convolution_backward_filter, convolution_forward, create_handle, destroy_handle,
    set_stream,
};
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t, cudnnConvolutionBwdFilterAlgo_t, cudnnConvolutionFwdAlgo_t, cudnnDeterminism_t,
    cudnnHandle_t, cudnnMathType_t, cudnnStatus_t,
};
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;

use super::descriptors::Descriptors;
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::kernels::Geometry;

/// The most bytes of scratch memory of an algorithm, if another takes less: the tensors of a step have to fit beside
/// it.
const WORKSPACE: usize = 1 << 30;

static ONE: f32 = 1.0;
static ZERO: f32 = 0.0;

/// cuDNN on a stream.
pub(super) struct Handle {
    pub(super) raw: cudnnHandle_t,
    /// It outlives the handle.
    _stream: Arc<CudaStream>,
}

impl Handle {
    /// # Errors
    /// [`Error::Device`] with cuDNN's reason if it cannot start.
    pub(super) fn try_new(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        let handle = Self { raw: create_handle()?, _stream: Arc::clone(&stream) };
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

/// The tensor that cuDNN computes from the two others: the large grid, the small grid or the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    /// The small grid.
    Forward,
    /// The large grid.
    DataGradient,
    /// The weights.
    FilterGradient,
}

/// A convolution of a number of images, with the padding that cuDNN adds on both sides alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ConvolutionTask {
    pub(super) operation: Operation,
    pub(super) geometry: Geometry,
    pub(super) images: usize,
    pub(super) precision: Precision,
}

/// One of cuDNN's algorithms.
#[derive(Debug, Clone, Copy)]
pub(super) enum Algorithm {
    Forward(cudnnConvolutionFwdAlgo_t),
    DataGradient(cudnnConvolutionBwdDataAlgo_t),
    FilterGradient(cudnnConvolutionBwdFilterAlgo_t),
}

impl Operation {
    /// The algorithm that cuDNN's reference calls deterministic, and that PyTorch takes in its deterministic mode,
    /// whatever the layout (`Conv_v7.cpp`, `DEFAULT_ALGO`).
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

/// An algorithm that cuDNN offers, and the arithmetic that it offers it in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    algorithm: Algorithm,
    math: cudnnMathType_t,
}

impl Answer {
    /// `None` if cuDNN cannot do it, or does not get the same bits each time.
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

/// The arithmetic of a precision.
fn math(precision: Precision) -> cudnnMathType_t {
    match precision {
        Precision::F32 => cudnnMathType_t::CUDNN_FMA_MATH,
        // Of 32-bit values, the default takes TF32 on tensor cores.
        Precision::Tf32 => cudnnMathType_t::CUDNN_DEFAULT_MATH,
        Precision::Bf16 => cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
    }
}

/// The addresses of a convolution's tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) large: CUdeviceptr,
    pub(super) small: CUdeviceptr,
    pub(super) weights: CUdeviceptr,
    /// Scratch memory, and its bytes.
    pub(super) workspace: (CUdeviceptr, usize),
}

/// A convolution with the algorithm that computes it.
pub(super) struct Plan {
    descriptors: Descriptors,
    algorithm: Algorithm,
    /// Bytes of scratch memory.
    pub(super) bytes: usize,
}

impl Plan {
    /// Takes the first of cuDNN's answers, which come fastest first, that is deterministic, keeps to the precision and
    /// needs no more than [`WORKSPACE`]; if all need more, the one that needs least. Their order is cuDNN's guess from
    /// the shape and the GPU. Were it measured, two trainings on one GPU could take two algorithms, and their sums
    /// would differ. Behind the answers stands the algorithm that is documented to do.
    ///
    /// # Errors
    /// [`Error::Device`] if none will do.
    pub(super) fn try_new(handle: &Handle, task: &ConvolutionTask) -> Result<Self> {
        let ConvolutionTask { operation, precision, geometry, images } = *task;
        let descriptors = Descriptors::try_new(task)?;
        let wanted = math(precision);
        descriptors.set_math(wanted)?;
        let mut refused = String::new();
        // That cuDNN has no guess for a shape does not say that it has no algorithm.
        let mut answers = unless_refused(descriptors.answers(handle, operation), &mut refused)?.unwrap_or_default();
        answers.push(Answer { algorithm: operation.documented(), math: wanted });
        let mut least: Option<(Answer, usize)> = None;
        for answer in answers.into_iter().filter(|answer| precision != Precision::F32 || answer.math == wanted) {
            // An algorithm is offered in an arithmetic. In another it may be slower, or not be there at all.
            descriptors.set_math(answer.math)?;
            let bytes = descriptors.workspace(handle, answer.algorithm).map_err(Error::from);
            let Some(bytes) = unless_refused(bytes, &mut refused)? else { continue };
            if least.is_none_or(|(_, least)| bytes < least) {
                least = Some((answer, bytes));
            }
            if bytes <= WORKSPACE {
                break;
            }
        }
        let (answer, bytes) = least.ok_or_else(|| {
            let of = format!("{operation:?} in {} of {images} images of {geometry:?}", precision.name());
            Error::Device(format!("cuDNN has no deterministic {of}{refused}"))
        })?;
        descriptors.set_math(answer.math)?;
        Ok(Self { descriptors, algorithm: answer.algorithm, bytes })
    }

    /// Computes the tensor of the plan's operation from the two others.
    ///
    /// # Safety
    /// The addresses are those of tensors of the plan's shapes and type, and of as much scratch memory as is said,
    /// which are freed on the handle's stream or later.
    pub(super) unsafe fn run(&self, handle: &Handle, at: &Addresses) -> Result<()> {
        let (h, (c, wd, xd, yd)) = (handle.raw, self.descriptors.raw());
        // The factors of what is computed and of what was there before: f32 for bf16, too.
        let one = (&raw const ONE).cast();
        let zero = (&raw const ZERO).cast();
        let x = at.large as *mut _;
        let y = at.small as *mut _;
        let w = at.weights as *mut _;
        let to = at.workspace.0 as *mut _;
        let n = at.workspace.1;
        // SAFETY: the descriptors live in the plan; of the tensors, the caller says so.
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

/// `None`, with the reason in words, where cuDNN refuses a shape; memory that ran out stays an error.
fn unless_refused<T>(result: Result<T>, reason: &mut String) -> Result<Option<T>> {
    match result {
        Err(Error::Device(refused)) => {
            *reason = format!(": {refused}");
            Ok(None)
        }
        result => result.map(Some),
    }
}

impl From<CudnnError> for Error {
    fn from(e: CudnnError) -> Self {
        match e.0 {
            cudnnStatus_t::CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED => {
                Self::DeviceMemory("the GPU is out of memory in cuDNN".to_owned())
            }
            other => Self::Device(format!("cuDNN reports {other:?}")),
        }
    }
}
