//! Addresses of tensors for kernels and cuDNN, and new tensors for them to write.
//!
//! An address stays valid until its tensor is dropped, and longer for work on the device's stream: memory is freed on
//! the same stream, behind all that was asked for before.

use candle_core::cuda_backend::cudarc::driver::sys::CUdeviceptr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Storage, Tensor};

use crate::error::{Error, Result};

/// A number of values as kernels count them, in 32 bits.
///
/// # Errors
/// [`Error::Device`] from 2^31 on, and for 0: kernels take at least one value.
pub(super) fn counted(values: usize) -> Result<u32> {
    match i32::try_from(values) {
        Ok(count @ 1..) => Ok(count.cast_unsigned()),
        _ => Err(Error::Device(format!("an operation on {values} values, expected 1 to 2^31 - 1"))),
    }
}

/// The same values as a contiguous tensor of f32, of the shape that a kernel expects.
///
/// # Errors
/// [`Error::Device`] if it has another shape or type.
pub(super) fn dense(tensor: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if tensor.dims() != shape || tensor.dtype() != DType::F32 {
        let got = tensor.dims();
        let dtype = tensor.dtype();
        return Err(Error::Device(format!("an operation on {got:?} of {dtype:?}, expected {shape:?} of F32")));
    }
    Ok(tensor.contiguous()?)
}

/// A tensor that is to be written before it is read.
pub(super) fn unwritten<T: CudaDType + DeviceRepr>(device: &CudaDevice, shape: &[usize]) -> Result<Tensor> {
    let len = counted(shape.iter().product())? as usize;
    // SAFETY: memory that was not written holds numbers all the same, as all bits of T are a number. The callers, all
    // in this module, have a kernel or cuDNN write every value before the tensor goes out.
    let values = unsafe { device.alloc::<T>(len) }?;
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(values, device.clone()));
    Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
}

/// The address of a contiguous tensor's values on its GPU.
///
/// # Errors
/// [`Error::Device`] if it is not contiguous, or is not on a GPU.
pub(super) fn address(tensor: &Tensor) -> Result<CUdeviceptr> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cuda(storage), Some((first, _))) = (&*storage, layout.contiguous_offsets()) else {
        let place = tensor.device().location();
        return Err(Error::Device(format!(
            "the address of {layout:?} on {place:?}, expected a contiguous tensor on CUDA"
        )));
    };
    let stream = storage.device.cuda_stream();
    let start = match &storage.slice {
        CudaStorageSlice::F32(values) => start(values, &stream),
        CudaStorageSlice::F64(values) => start(values, &stream),
        CudaStorageSlice::BF16(values) => start(values, &stream),
        CudaStorageSlice::I64(values) => start(values, &stream),
        _ => return Err(Error::Device(format!("the address of values of {:?}", tensor.dtype()))),
    };
    Ok(start + (first * tensor.dtype().size_in_bytes()) as CUdeviceptr)
}

/// The address of values on the GPU of their stream.
pub(super) fn start<T>(values: &CudaSlice<T>, stream: &CudaStream) -> CUdeviceptr {
    // The guard beside the address records events, which are off.
    values.device_ptr(stream).0
}
