//! NVIDIA's errors as the engine's: running out of memory apart from the others.

use cudarc::cublas::result::CublasError;
use cudarc::cublas::sys::cublasStatus_t;
use cudarc::cudnn::CudnnError;
use cudarc::cudnn::sys::cudnnStatus_t;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

use crate::error::Error;

impl From<DriverError> for Error {
    fn from(e: DriverError) -> Self {
        match e.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Self::DeviceMemory("the GPU is out of memory".to_owned()),
            other => Self::Device(format!("the driver reports {other:?}")),
        }
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

impl From<CublasError> for Error {
    fn from(e: CublasError) -> Self {
        match e.0 {
            cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => {
                Self::DeviceMemory("the GPU is out of memory in cuBLAS".to_owned())
            }
            other => Self::Device(format!("cuBLAS reports {other:?}")),
        }
    }
}
