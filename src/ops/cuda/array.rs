//! Values on a GPU.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, LaunchArgs, PushKernelArg};
use half::bf16;
use rayon::prelude::*;

use super::Gpu;
use crate::error::{Error, Result};
use crate::model::Precision;

/// Values in a shape on a GPU. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Array {
    gpu: Arc<Gpu>,
    data: Arc<Data>,
    shape: Vec<usize>,
    /// Of weights: what their convolution computes in.
    precision: Precision,
    /// Of weights in training whose convolution computes in bf16: the same values, which Adam keeps the same.
    half: Option<Arc<Data>>,
}

/// The values, by type.
#[derive(Debug)]
pub(crate) enum Data {
    F32(CudaSlice<f32>),
    Bf16(CudaSlice<bf16>),
}

impl Data {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Bytes of a value.
    pub(super) fn value_bytes(&self) -> usize {
        match self {
            Self::F32(_) => size_of::<f32>(),
            Self::Bf16(_) => size_of::<bf16>(),
        }
    }

    /// Adds the values to a kernel's arguments.
    pub(super) fn push<'a>(&'a self, arguments: &mut LaunchArgs<'a>) {
        match self {
            Self::F32(values) => arguments.arg(values),
            Self::Bf16(values) => arguments.arg(values),
        };
    }

    /// The name of a kernel for values of this type.
    pub(super) fn kernel(&self, stem: &str) -> String {
        match self {
            Self::F32(_) => format!("{stem}_f32"),
            Self::Bf16(_) => format!("{stem}_bf16"),
        }
    }

    /// As many values of the same type, unwritten.
    pub(super) fn uninit_like(&self, gpu: &Gpu, len: usize) -> Result<Self> {
        Ok(match self {
            Self::F32(_) => Self::F32(gpu.uninit(len)?),
            Self::Bf16(_) => Self::Bf16(gpu.uninit(len)?),
        })
    }
}

impl Array {
    /// Values from memory.
    pub(crate) fn new(gpu: &Arc<Gpu>, values: &[f32], shape: &[usize]) -> Result<Self> {
        Self::of(gpu, Data::F32(gpu.upload(values)?), shape)
    }

    /// Pixels in [0, 1] from bytes.
    pub(crate) fn of_bytes(gpu: &Arc<Gpu>, bytes: &[u8], shape: &[usize]) -> Result<Self> {
        let (uploaded, values) = (gpu.upload(bytes)?, gpu.uninit::<f32>(bytes.len())?);
        let n = bytes.len() as u32;
        gpu.launch("bytes_to_f32", bytes.len(), |arguments| {
            arguments.arg(&n).arg(&uploaded).arg(&values);
        })?;
        Self::of(gpu, Data::F32(values), shape)
    }

    /// Zeros.
    pub(super) fn zeros(gpu: &Arc<Gpu>, shape: &[usize]) -> Result<Self> {
        let zeros = gpu.stream().alloc_zeros::<f32>(shape.iter().product())?;
        Self::of(gpu, Data::F32(zeros), shape)
    }

    pub(super) fn of(gpu: &Arc<Gpu>, data: Data, shape: &[usize]) -> Result<Self> {
        let (data, precision) = (Arc::new(data), Precision::F32);
        let array = Self { gpu: Arc::clone(gpu), data, shape: shape.to_vec(), precision, half: None };
        let len: usize = shape.iter().product();
        if array.data.len() != len.max(1) {
            return Err(Error::Device(format!("{} values in the shape {shape:?}", array.data.len())));
        }
        Ok(array)
    }

    /// The same values as weights that compute in a precision.
    pub(super) fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The same values, with a copy in 16 bits beside them.
    pub(super) fn with_half(mut self) -> Result<Self> {
        self.half = Some(self.narrowed()?.data);
        Ok(self)
    }

    /// The copy in 16 bits that stands beside the values.
    pub(super) fn half(&self) -> Option<&CudaSlice<bf16>> {
        match self.half.as_deref() {
            Some(Data::Bf16(values)) => Some(values),
            _ => None,
        }
    }

    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    pub(super) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    pub(super) fn data(&self) -> &Data {
        &self.data
    }

    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of GPU memory that the values take.
    pub(super) fn bytes(&self) -> usize {
        self.data.len() * self.data.value_bytes()
    }

    pub(crate) fn dims(&self) -> &[usize] {
        &self.shape
    }

    /// Rows, by the first dimension.
    pub(crate) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Values of the last dimension.
    pub(super) fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1).max(1)
    }

    pub(crate) fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.len() {
            return Err(Error::Device(format!("{:?} does not fit into {shape:?}", self.shape)));
        }
        Ok(Self { shape: shape.to_vec(), ..self.clone() })
    }

    /// The values in memory, once all work on them is done.
    pub(crate) fn to_vec(&self) -> Result<Vec<f32>> {
        self.gpu.download(self.widened()?.f32()?, self.len())
    }

    /// The same values in 32 bits.
    pub(super) fn widened(&self) -> Result<Self> {
        let Data::Bf16(from) = self.data() else { return Ok(self.clone()) };
        let (to, n) = (self.gpu.uninit::<f32>(self.len())?, self.len() as u32);
        self.gpu.launch("bf16_to_f32", self.len(), |arguments| {
            arguments.arg(&n).arg(from).arg(&to);
        })?;
        Self::of(&self.gpu, Data::F32(to), &self.shape)
    }

    /// The same values in 16 bits.
    pub(super) fn narrowed(&self) -> Result<Self> {
        if let Some(half) = &self.half {
            return Ok(Self { data: Arc::clone(half), half: None, ..self.clone() });
        }
        let Data::F32(from) = self.data() else { return Ok(self.clone()) };
        let (to, n) = (self.gpu.uninit::<bf16>(self.len())?, self.len() as u32);
        self.gpu.launch("f32_to_bf16", self.len(), |arguments| {
            arguments.arg(&n).arg(from).arg(&to);
        })?;
        Ok(Self::of(&self.gpu, Data::Bf16(to), &self.shape)?.with_precision(self.precision))
    }

    /// The same values in the type of another array.
    pub(super) fn as_type_of(&self, other: &Self) -> Result<Self> {
        match other.data() {
            Data::F32(_) => self.widened(),
            Data::Bf16(_) => self.narrowed(),
        }
    }

    /// The values, which must have 32 bits.
    pub(super) fn f32(&self) -> Result<&CudaSlice<f32>> {
        match self.data() {
            Data::F32(values) => Ok(values),
            Data::Bf16(_) => Err(Error::Device("expected values of 32 bits, got bf16".to_owned())),
        }
    }
}

/// The transpose of a matrix of rows of `columns` values.
pub(crate) fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len() / rows.max(1);
    (0..values.len()).into_par_iter().with_min_len(1 << 14).map(|i| values[i % rows * columns + i / rows]).collect()
}
