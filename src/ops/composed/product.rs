//! Products of matrices in a given precision.

use candle_core::{DType, Tensor};

use crate::device::Precision;
use crate::error::Result;

/// The element type that convolutions compute in.
pub(super) fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 | Precision::Tf32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}

/// a·b of matrices, or of batches of them, of one element type.
///
/// Products of f32 take TF32 on tensor cores only where the precision says so. Candle has one switch for that in a
/// process, which is read when a product is asked for: it is set under a lock, so that threads of two precisions do not
/// meet.
pub(super) fn product(a: &Tensor, b: &Tensor, precision: Precision) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    let _switch = a.device().is_cuda().then(|| {
        use candle_core::cuda_backend::set_gemm_reduced_precision_f32;
        static SWITCH: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let guard = SWITCH.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        set_gemm_reduced_precision_f32(precision == Precision::Tf32);
        guard
    });
    #[cfg(not(feature = "cuda"))]
    let _ = precision;
    let product = a.matmul(b);
    // Products that candle takes by itself, as those of a discriminator, are in f32.
    #[cfg(feature = "cuda")]
    if a.device().is_cuda() {
        candle_core::cuda_backend::set_gemm_reduced_precision_f32(false);
    }
    Ok(product?)
}

/// max(0, x); NaN stays, which candle's own ReLU turns into 0.
pub(super) fn relu(x: &Tensor) -> Result<Tensor> {
    Ok(x.add(&x.abs()?)?.affine(0.5, 0.0)?)
}

/// Sums over the rows of a matrix, (M, C) → (1, C), as a product with ones: candle's reduction over leading dimensions
/// gives each sum to one block of threads, whose loads lie C values apart.
pub(super) fn column_sums(x: &Tensor) -> Result<Tensor> {
    product(&Tensor::ones((1, x.dim(0)?), x.dtype(), x.device())?, x, Precision::F32)
}

/// (…, C) as a matrix of rows of C.
pub(super) fn rows(x: &Tensor) -> Result<Tensor> {
    Ok(x.flatten_to(x.rank().saturating_sub(2))?)
}
