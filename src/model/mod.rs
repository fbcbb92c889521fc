//! The auto-encoder: which layers it has, how it is trained, how it is applied.

mod code;
mod folded;
mod inference;
mod layer;
pub(crate) mod memory;
mod network;
mod packed;
mod scorer;

pub(crate) use code::{CodeMap, Codes};
pub use inference::Wae;
pub use memory::scoring_memory;
pub(crate) use network::{Network, OptimizerState, truncated_normal};
pub use crate::device::Precision;
