//! The auto-encoder: which layers it has, how it is trained, how it is applied.

mod architecture;
mod code;
mod folded;
mod inference;
mod layer;
mod network;
mod packed;
mod precision;

#[cfg(feature = "cuda")]
pub(crate) use architecture::Direction;
pub(crate) use architecture::{Activation, Architecture, LayerSpec, largest_activation, parameters};
pub(crate) use code::{CodeMap, Codes};
#[cfg(feature = "cuda")]
pub(crate) use folded::Folded;
pub use inference::Wae;
pub(crate) use network::{Network, truncated_normal};
pub use precision::Precision;
