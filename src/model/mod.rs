//! The auto-encoder: which layers it has, how it is trained, how it is applied.

mod architecture;
mod inference;
mod network;

pub(crate) use architecture::{Activation, Architecture, LayerSpec, largest_activation, parameters};
pub use inference::{Precision, Wae};
pub(crate) use network::Network;
