//! The objective: cost + λ·divergence.
pub mod prior;
