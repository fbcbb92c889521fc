//! Codes of a batch in training, wherever they lie.

use crate::error::{Error, Result};
use crate::model::{CodeMap, MappedCodes};
use crate::ops::{self, Target, Tensor};

/// What the encoder's head put out, as codes.
#[derive(Debug)]
pub(super) enum Codes {
    /// The head's output itself: it stays where it was computed.
    Head(Tensor),
    /// Made of it in memory.
    Mapped {
        codes: MappedCodes,
        /// The codes, (n, Z).
        tensor: Tensor,
        /// The head's output has this shape.
        head: Vec<usize>,
    },
}

impl Codes {
    /// Codes of the head's output, (n, Z) or (n, 2Z); `noise` is a Gaussian encoder's e, (n, Z).
    pub(super) fn new(map: &CodeMap, head: Tensor, noise: &[f32], target: &Target) -> Result<Self> {
        if map.is_identity() {
            return Ok(Self::Head(head));
        }
        let codes = map.sampled(ops::with_values(&head, <[f32]>::to_vec)?, noise);
        let rows = head.rows();
        let tensor = target.tensor(&codes.values, &[rows, codes.values.len() / rows.max(1)])?;
        Ok(Self::Mapped { codes, tensor, head: head.dims().to_vec() })
    }

    /// The codes, (n, Z).
    pub(super) fn tensor(&self) -> &Tensor {
        match self {
            Self::Head(tensor) | Self::Mapped { tensor, .. } => tensor,
        }
    }

    /// The codes in memory, (n, Z).
    pub(super) fn values(&self) -> Result<Vec<f32>> {
        match self {
            Self::Head(tensor) => ops::with_values(tensor, <[f32]>::to_vec),
            Self::Mapped { codes, .. } => Ok(codes.values.clone()),
        }
    }

    /// A Gaussian encoder's means and clipped log-variances, (n, 2Z).
    pub(super) fn gaussian_head(&self) -> Result<&[f32]> {
        match self {
            Self::Mapped { codes, .. } => Ok(&codes.head),
            Self::Head(_) => Err(Error::Training("expected a Gaussian encoder, got a deterministic one".to_owned())),
        }
    }

    /// The gradient by the head's output from those by the codes, (n, Z), and by the head's clipped output, (n, 2Z).
    pub(super) fn backward(
        &self,
        map: &CodeMap,
        noise: &[f32],
        by_code: Tensor,
        by_head: Option<Vec<f32>>,
        target: &Target,
    ) -> Result<Tensor> {
        match self {
            Self::Head(_) => Ok(by_code),
            Self::Mapped { codes, head, .. } => {
                let by_code = ops::with_values(&by_code, <[f32]>::to_vec)?;
                target.tensor(map.backward(codes, noise, by_code, by_head), head)
            }
        }
    }
}
