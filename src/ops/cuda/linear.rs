//! Linear layers: cuBLAS's products of x (N, A) and weights w (B, A).
//!
//! ```text
//! forward          y (N, B) = x · wᵀ
//! data gradient    x (N, A) = y · w
//! weight gradient  w (B, A) = yᵀ · x
//! ```
//!
//! cuBLAS counts along columns: a row-major (r, c) is its column-major (c, r). The gradients go from the small side y to the
//! large side x, as in the convolutions.

use cudarc::cublas::result::gemm_ex;
use cudarc::cublas::sys::{cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType_t};
use cudarc::driver::{CudaSlice, DevicePtr};

use super::{Array, Data, Gpu};
use crate::error::Result;
use crate::kernels::Geometry;
use crate::model::Precision;

/// Whether a convolution is a product of matrices.
pub(super) fn is_linear(g: &Geometry) -> bool {
    (g.large, g.small, g.kernel) == ((1, 1), (1, 1), 1)
}

/// A column-major matrix as cuBLAS takes it: its values, the length of its columns, and whether it is transposed first.
struct Operand<'a> {
    values: &'a CudaSlice<f32>,
    stride: usize,
    operation: cublasOperation_t,
}

const PLAIN: cublasOperation_t = cublasOperation_t::CUBLAS_OP_N;
const TRANSPOSED: cublasOperation_t = cublasOperation_t::CUBLAS_OP_T;

pub(super) fn down(g: &Geometry, large: &Array, weights: &Array) -> Result<Array> {
    let (a, b, large) = (g.large_channels, g.small_channels, large.widened()?);
    let rows = large.len() / a;
    let first = Operand { values: weights.f32()?, stride: a, operation: TRANSPOSED };
    let second = Operand { values: large.f32()?, stride: a, operation: PLAIN };
    let small = product(large.gpu(), weights.precision(), &first, &second, (b, rows, a))?;
    Array::of(large.gpu(), Data::F32(small), &[rows, 1, 1, b])
}

pub(super) fn up(g: &Geometry, small: &Array, weights: &Array) -> Result<Array> {
    let (a, b, small) = (g.large_channels, g.small_channels, small.widened()?);
    let rows = small.len() / b;
    let first = Operand { values: weights.f32()?, stride: a, operation: PLAIN };
    let second = Operand { values: small.f32()?, stride: b, operation: PLAIN };
    let large = product(small.gpu(), weights.precision(), &first, &second, (a, rows, b))?;
    Array::of(small.gpu(), Data::F32(large), &[rows, 1, 1, a])
}

pub(super) fn weight_gradient(g: &Geometry, weights: &Array, large: &Array, small: &Array) -> Result<Array> {
    let (a, b, large, small) = (g.large_channels, g.small_channels, large.widened()?, small.widened()?);
    let rows = large.len() / a;
    let first = Operand { values: large.f32()?, stride: a, operation: PLAIN };
    let second = Operand { values: small.f32()?, stride: b, operation: TRANSPOSED };
    let gradient = product(large.gpu(), weights.precision(), &first, &second, (a, b, rows))?;
    Array::of(large.gpu(), Data::F32(gradient), weights.dims())
}

/// The column-major (m, n) product of an (m, k) and a (k, n).
fn product(
    gpu: &Gpu,
    precision: Precision,
    first: &Operand<'_>,
    second: &Operand<'_>,
    (m, n, k): (usize, usize, usize),
) -> Result<CudaSlice<f32>> {
    let out = gpu.uninit::<f32>(m * n)?;
    let compute = match precision {
        Precision::F32 => cublasComputeType_t::CUBLAS_COMPUTE_32F,
        Precision::Tf32 | Precision::Bf16 => cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
    };
    let (one, zero, kind) = (1.0_f32, 0.0_f32, cudaDataType_t::CUDA_R_32F);
    let (one, zero, any) = ((&raw const one).cast(), (&raw const zero).cast(), cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT);
    let [m, n, k, lda, ldb] = [m, n, k, first.stride, second.stride].map(|v| v as i32);
    let libraries = gpu.libraries()?;
    let (handle, stream) = (*libraries.blas.handle(), gpu.stream());
    let ((a, _a), (b, _b), (c, _c)) =
        (first.values.device_ptr(stream), second.values.device_ptr(stream), out.device_ptr(stream));
    let (a, b, c, op_a, op_b) = (a as *const _, b as *const _, c as *mut _, first.operation, second.operation);
    // SAFETY: the handle lives in `libraries`; the matrices hold m·k, k·n and m·n values by the callers' shapes, and are freed
    // on the stream on which the product runs; α and β lie in memory, as the handle's default says.
    unsafe { gemm_ex(handle, op_a, op_b, m, n, k, one, a, kind, lda, b, kind, ldb, zero, c, kind, m, compute, any) }?;
    drop((_a, _b, _c));
    Ok(out)
}
