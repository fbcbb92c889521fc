//! Operations on an NVIDIA GPU: cuDNN's convolutions, cuBLAS's products and the kernels of `kernels/`.
//!
//! Everything runs on one stream a GPU in the order in which it is asked for, and is not waited for until values are read in
//! memory: an array that is dropped is freed behind the work that reads it, threads that score with one model share its
//! weights without waiting for one another, and a training prepares its next step while the GPU computes this one. The
//! libraries are opened at run time, so that a program built with them starts on a machine without any.
//!
//! Activations are (N, H, W, C). Weights are kept as cuDNN takes them with channels last, (C_small, k, k, C_large): the
//! transpose of the CPU's (k, k, C_large, C_small). A linear layer is a convolution on one pixel and goes to cuBLAS.

mod adam;
mod array;
mod compile;
mod convolution;
mod descriptors;
mod dnn;
mod error;
mod gpu;
mod grid;
mod layers;
mod linear;
mod objective;
mod scorer;
mod structural;
mod transfer;

pub(crate) use self::adam::{Moments, Trained, adam};
pub(crate) use self::array::{Array, Data, transposed};
pub(crate) use self::convolution::{down, up, weight_gradient, weights};
pub(crate) use self::gpu::{Gpu, Place};
pub(crate) use self::layers::{
    Running, Statistics, bias_activation, bias_activation_gradient, norm_relu, norm_relu_gradient,
};
pub(crate) use self::objective::{add_scaled, cost, mmd};
pub(crate) use self::scorer::Scorer;
pub(crate) use self::transfer::Number;

#[cfg(test)]
pub(crate) mod tests;
