//! The operations composed of candle's own tensor operations, on tensors of any device.
//!
//! On a GPU they are what computes where no accelerator does, and what accelerators are compared with when it is
//! opened; on the CPU the tests compare them with the kernels, so that the very code that runs on a GPU is tested
//! without one.
//!
//! Convolutions are copies of shifted rows and products of matrices (`convolution.rs`): candle's own pad symmetrically,
//! and its transposed convolution is slow on CUDA. Everything else is a few operations value by value.

mod adam;
mod convolution;
mod cost;
pub(crate) mod frozen;
mod norm;
mod pointwise;
mod product;

pub(crate) use self::cost::{costs, terms};

/// Candle's tensor operations.
#[derive(Debug)]
pub(crate) struct Composed;

#[cfg(test)]
mod tests;
