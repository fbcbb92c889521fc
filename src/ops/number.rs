//! Numbers that operations come to.

#[cfg(feature = "cuda")]
use super::cuda;
use crate::error::Result;

/// A number that an operation came to. A GPU's is on its way while the operation is still to be computed.
#[derive(Debug)]
pub(crate) enum Number {
    /// It is in memory.
    Known(f64),
    /// It is waited for when it is read.
    #[cfg(feature = "cuda")]
    Cuda(cuda::Number),
}

impl Number {
    /// The number.
    pub(crate) fn read(&self) -> Result<f64> {
        match self {
            Self::Known(number) => Ok(*number),
            #[cfg(feature = "cuda")]
            Self::Cuda(number) => number.read(),
        }
    }

    /// The number, if it is in memory already.
    pub(crate) fn known(&self) -> Option<f64> {
        match self {
            Self::Known(number) => Some(*number),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => None,
        }
    }
}
