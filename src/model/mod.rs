//! The auto-encoder: how its layers are trained and applied, and what that takes in memory.

mod code;
mod folded;
mod inference;
mod layer;
pub(crate) mod memory;
mod network;
mod packed;
mod recalibrate;
mod scorer;

pub(crate) use self::code::{CodeMap, Codes};
pub use self::inference::Wae;
pub use self::memory::scoring_memory;
pub(crate) use self::network::{TrainingNetwork, truncated_normal};
pub(crate) use self::recalibrate::recalibrate_with;
pub use self::recalibrate::{calibration_memory, recalibrate};
pub use crate::device::Precision;
