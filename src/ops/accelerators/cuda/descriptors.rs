//! cuDNN's descriptors of a convolution, and its answers about algorithms for it.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr::null_mut;

use candle_core::cuda_backend::cudarc::cudnn::result::{self, CudnnError};
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgoPerf_t, cudnnConvolutionBwdFilterAlgoPerf_t, cudnnConvolutionDescriptor_t,
    cudnnConvolutionFwdAlgoPerf_t, cudnnConvolutionMode_t, cudnnDataType_t, cudnnFilterDescriptor_t, cudnnMathType_t,
    cudnnTensorDescriptor_t, cudnnTensorFormat_t,
};

use super::dnn::{Algorithm, Answer, ConvolutionTask, Handle, Operation};
use crate::device::Precision;
use crate::error::Result;

/// More answers than cuDNN gives: an algorithm in two kinds of arithmetic counts twice.
const ANSWERS: usize = 32;

/// cuDNN's descriptors of a convolution; null until they are created.
pub(super) struct Descriptors {
    convolution: cudnnConvolutionDescriptor_t,
    weights: cudnnFilterDescriptor_t,
    large: cudnnTensorDescriptor_t,
    small: cudnnTensorDescriptor_t,
}

impl Descriptors {
    pub(super) fn try_new(task: &ConvolutionTask) -> Result<Self> {
        let ConvolutionTask { geometry: g, images, precision, .. } = *task;
        let format = cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let sums = cudnnDataType_t::CUDNN_DATA_FLOAT;
        let values = if precision == Precision::Bf16 { cudnnDataType_t::CUDNN_DATA_BFLOAT16 } else { sums };
        // Sizes come as (N, C, H, W) whatever the format.
        let sizes = |n: usize, c: usize, (h, w): (usize, usize)| [n, c, h, w].map(|v| v as c_int);
        let weights = sizes(g.small_channels, g.large_channels, (g.kernel, g.kernel));
        let large = sizes(images, g.large_channels, g.large);
        let small = sizes(images, g.small_channels, g.small);
        let [top, left, stride] = [g.padding.0, g.padding.1, g.stride].map(|v| v as c_int);
        let mut made = Self { convolution: null_mut(), weights: null_mut(), large: null_mut(), small: null_mut() };
        made.convolution = result::create_convolution_descriptor()?;
        made.weights = result::create_filter_descriptor()?;
        made.large = result::create_tensor_descriptor()?;
        made.small = result::create_tensor_descriptor()?;
        // SAFETY: the descriptors were created above.
        unsafe {
            result::set_convolution2d_descriptor(made.convolution, top, left, stride, stride, 1, 1, mode, sums)?;
            result::set_filter4d_descriptor(made.weights, values, format, weights)?;
            result::set_tensor4d_descriptor(made.large, format, values, large)?;
            result::set_tensor4d_descriptor(made.small, format, values, small)?;
        }
        Ok(made)
    }

    /// The descriptors of the convolution, the weights, the large and the small grid.
    pub(super) fn raw(
        &self,
    ) -> (cudnnConvolutionDescriptor_t, cudnnFilterDescriptor_t, cudnnTensorDescriptor_t, cudnnTensorDescriptor_t) {
        (self.convolution, self.weights, self.large, self.small)
    }

    /// Sets the arithmetic of the convolution.
    pub(super) fn set_math(&self, math: cudnnMathType_t) -> Result<()> {
        // SAFETY: the descriptor is created with the others.
        Ok(unsafe { result::set_convolution_math_type(self.convolution, math) }?)
    }

    /// The deterministic algorithms that cuDNN offers, fastest first.
    pub(super) fn answers(&self, handle: &Handle, operation: Operation) -> Result<Vec<Answer>> {
        let (convolution, weights, large, small) = self.raw();
        // SAFETY: handle and descriptors live, and the last three arguments come from `asked`.
        unsafe {
            let h = handle.raw;
            match operation {
                Operation::Forward => asked(
                    |n, count, to| {
                        result::get_convolution_forward_algorithm(h, large, weights, convolution, small, n, count, to)
                    },
                    |p: &cudnnConvolutionFwdAlgoPerf_t| {
                        Answer::of(Algorithm::Forward(p.algo), p.status, p.determinism, p.mathType)
                    },
                ),
                Operation::DataGradient => asked(
                    |n, count, to| {
                        let x = large;
                        result::get_convolution_backward_data_algorithm(h, weights, small, convolution, x, n, count, to)
                    },
                    |p: &cudnnConvolutionBwdDataAlgoPerf_t| {
                        Answer::of(Algorithm::DataGradient(p.algo), p.status, p.determinism, p.mathType)
                    },
                ),
                Operation::FilterGradient => asked(
                    |n, count, to| {
                        let w = weights;
                        result::get_convolution_backward_filter_algorithm(h, large, small, convolution, w, n, count, to)
                    },
                    |p: &cudnnConvolutionBwdFilterAlgoPerf_t| {
                        Answer::of(Algorithm::FilterGradient(p.algo), p.status, p.determinism, p.mathType)
                    },
                ),
            }
        }
    }

    /// Bytes of scratch memory that an algorithm needs.
    pub(super) fn workspace(&self, handle: &Handle, algorithm: Algorithm) -> Result<usize, CudnnError> {
        let (h, (convolution, weights, large, small)) = (handle.raw, self.raw());
        // SAFETY: handle and descriptors live.
        unsafe {
            match algorithm {
                Algorithm::Forward(algorithm) => {
                    result::get_convolution_forward_workspace_size(h, large, weights, convolution, small, algorithm)
                }
                Algorithm::DataGradient(algorithm) => result::get_convolution_backward_data_workspace_size(
                    h,
                    weights,
                    small,
                    convolution,
                    large,
                    algorithm,
                ),
                Algorithm::FilterGradient(algorithm) => result::get_convolution_backward_filter_workspace_size(
                    h,
                    large,
                    small,
                    convolution,
                    weights,
                    algorithm,
                ),
            }
        }
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: descriptors that are not null were created by `try_new` and are destroyed here alone.
        let destroyed = unsafe {
            [
                (!self.convolution.is_null()).then(|| result::destroy_convolution_descriptor(self.convolution)),
                (!self.weights.is_null()).then(|| result::destroy_filter_descriptor(self.weights)),
                (!self.large.is_null()).then(|| result::destroy_tensor_descriptor(self.large)),
                (!self.small.is_null()).then(|| result::destroy_tensor_descriptor(self.small)),
            ]
        };
        for e in destroyed.into_iter().flatten().filter_map(Result::err) {
            log::warn!("cuDNN: {:?}", e.0);
        }
    }
}

/// cuDNN's answers to `ask`, which takes the most answers there may be, where their number goes, and where they go.
fn asked<P>(
    ask: impl FnOnce(c_int, *mut c_int, *mut P) -> Result<(), CudnnError>,
    answer: impl Fn(&P) -> Option<Answer>,
) -> Result<Vec<Answer>> {
    let mut count = 0;
    let mut answers = [const { MaybeUninit::<P>::uninit() }; ANSWERS];
    ask(ANSWERS as c_int, &raw mut count, answers.as_mut_ptr().cast())?;
    let answers = &answers[..usize::try_from(count).unwrap_or(0).min(ANSWERS)];
    // SAFETY: cuDNN has written the first `count` of them.
    Ok(answers.iter().filter_map(|one| answer(unsafe { one.assume_init_ref() })).collect())
}
