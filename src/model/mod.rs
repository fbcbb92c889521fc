//! The auto-encoder: which layers it has, how it is trained, how it is applied.

mod architecture;
mod code;
mod inference;
mod layer;
mod network;

pub(crate) use architecture::{Activation, Architecture, LayerSpec, largest_activation, packed_values, parameters};
pub(crate) use code::{CodeMap, Codes};
pub use inference::{Precision, Wae};
pub(crate) use network::{Network, OptimizerState, truncated_normal};
