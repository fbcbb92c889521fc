//! Pretrained networks.

mod config;
mod family;
mod files;
mod names;
mod weights;

pub use self::files::WeightFiles;
pub use self::weights::PretrainedWeights;
