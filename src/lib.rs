//! Wasserstein auto-encoders over Arrow images.
#![warn(missing_docs)]

pub mod calibrate;
pub mod checkpoint;
pub mod config;
pub mod dataset;
pub mod error;
pub mod image;
mod kernels;
pub mod model;
pub mod objective;
mod ops;
pub mod train;

pub use crate::calibrate::Calibration;
pub use crate::checkpoint::{ModelFile, TrainingInfo};
pub use crate::config::{Config, TrainOptions};
pub use crate::dataset::{Dataset, DatasetBuilder};
pub use crate::error::{Error, Result};
pub use crate::image::{Image, ImageColumn, ImageShape};
pub use crate::kernels::{Backend, backend};
pub use crate::model::Wae;
pub use crate::train::{EpochReport, Trainer};
