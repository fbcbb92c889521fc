//! CPU kernels: convolution and its adjoints, batch norm, Adam, Gaussian smoothing; depthwise convolution, attention,
//! layer norm and pooling of pretrained networks.
//!
//! One geometry serves all convolutions. A SAME convolution of stride s joins a *large* grid (H, W) and a *small* grid
//! (⌈H/s⌉, ⌈W/s⌉) by k·k taps: small pixel (i, j) touches the large pixels (s·i + u − top, s·j + v − left).
//!
//! ```text
//! down:             small[n, i, j, b] = Σ_{u,v,a} large[n, s·i + u − top, s·j + v − left, a] · w[u, v, a, b]
//! up:               large[n, y, x, a] = Σ_{i,j,u,v,b: s·i + u − top = y, s·j + v − left = x} small[n, i, j, b] · w[u, v, a, b]
//! weight_gradient:  w[u, v, a, b]     = Σ_{n,i,j} large[n, s·i + u − top, s·j + v − left, a] · small[n, i, j, b]
//! ```
//!
//! A convolution is `down` and its data gradient `up`; a transposed convolution is `up` and its data gradient `down`; a
//! linear layer is `down` on a grid of one pixel. Activations are (N, H, W, C), weights (k, k, C_large, C_small).
//!
//! # What makes them fast
//! - `gather`: register-blocked products that broadcast straight from the input's pixels. Nothing is copied into
//!   columns, and a tap that falls on padding is skipped.
//! - `up` is split into s² phases, each a stride-1 gather: nothing is scattered.
//! - Up to four large channels would leave the registers idle, so `thin` lays their taps out as columns first.
//! - One arithmetic, three instruction sets ([`backend()`]), chosen at run time.
//!
//! Every sum is taken in a fixed order, whatever the number of threads: work is cut into parts by the shapes alone. An
//! image's output does not depend on the images beside it in the batch either.

mod adam;
mod attention;
mod backend;
mod bias;
mod buffer;
mod convolution;
mod depthwise;
mod gather;
mod geometry;
mod nonlinearity;
mod norm;
mod pack;
mod pooling;
mod simd;
mod smoothing;
mod thin;
mod tile;
mod weight_gradient;

pub use adam::{AdamStep, adam};
pub(crate) use attention::{attention, layer_norm};
pub(crate) use backend::is_composed;
pub use backend::{Backend, backend, has_bf16};
pub(crate) use bias::{add_bias, relu, relu_gradient, sigmoid, sigmoid_gradient, sum_rows};
pub use convolution::{DownWeights, UpWeights, weight_gradient};
pub(crate) use depthwise::depthwise;
pub use gather::Epilogue;
pub use geometry::Geometry;
pub(crate) use nonlinearity::Nonlinearity;
pub use norm::{BatchStatistics, EPSILON, norm_relu, norm_relu_gradient};
pub(crate) use pooling::{max_pool, mean_of_places, scale_channels};
pub(crate) use smoothing::Gaussian;

#[cfg(test)]
pub(crate) mod tests;
