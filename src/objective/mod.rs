//! The objective of a Wasserstein auto-encoder, cost + λ·D_Z: one page of mathematics each.
//!
//! `L = (1/n) Σ_i c(x_i, G(E(x_i))) + λ · D_Z(Q_Z, P_Z)` (paper, equation 4)
//!
//! Where: c is a cost, D_Z a divergence between the distribution Q_Z of the codes and the prior P_Z. The variational
//! auto-encoder, the baseline, has KL(Q(Z|x), P_Z) of each image in the place of D_Z.

pub(crate) mod adversary;
pub(crate) mod cost;
pub mod frechet;
pub(crate) mod kl;
pub(crate) mod mmd;
pub(crate) mod moments;
pub(crate) mod prior;
pub(crate) mod sinkhorn;
pub(crate) mod sliced;
mod ssim;
pub mod two_sample;

pub use prior::sample;
