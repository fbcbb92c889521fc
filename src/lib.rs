//! Wasserstein auto-encoders over Arrow images: training, encoding, decoding and outlier scores.
//!
//! A Wasserstein auto-encoder (Tolstikhin, Bousquet, Gelly and Schölkopf, ICLR 2018, arXiv 1711.01558) learns an
//! encoder E and a decoder G that minimise
//!
//! ```text
//!     (1/n) Σ_i c(x_i, G(E(x_i)))  +  λ · D(E(x_1..n), z_1..n)
//! ```
//!
//! Where: c is the reconstruction cost of an image, D a divergence between the codes and draws z from a prior, and λ
//! its weight. The first term makes codes keep what is needed to rebuild an image; the second makes all codes together
//! look like the prior, so that a draw from it decodes to an image. An image that is rebuilt badly is one unlike those
//! trained on, and held-out rows say how badly is unusual.
//!
//! # Modules
//! | module | holds |
//! |---|---|
//! | [`config`] | what a model is and how it is trained |
//! | [`image`] | images from Arrow columns and encoded bytes |
//! | [`dataset`] | decoded images, their order and the held-out split |
//! | [`backbone`] | pretrained networks, and features of images by them |
//! | [`device`] | the processor, or a GPU |
//! | [`train`] | the loop, an epoch at a time |
//! | [`objective`] | costs, divergences, priors |
//! | [`model`] | the network, in training and applied |
//! | [`whitening`] | features, whitened by the training rows |
//! | [`calibrate`] | conformal p-values |
//! | [`localization`] | regions of a map, and how well a map finds what a mask marks |
//! | [`checkpoint`] | the model file, `wae/1` and `wae/2` |
//!
//! # Example
//! ```
//! use std::sync::Arc;
//!
//! use arrow::array::{ArrayRef, FixedSizeListArray, UInt8Array};
//! use arrow::datatypes::{DataType, Field};
//! use wae_core::config::NetworkChoice;
//! use wae_core::image::Limits;
//! use wae_core::{DatasetBuilder, Device, ImageColumn, ImageShape, Precision, TrainOptions, Trainer, Wae};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // 32 grey images of 8×8 pixels, as bytes.
//! let pixels = UInt8Array::from_iter_values((0..32 * 64).map(|i| (i * i % 251) as u8));
//! let item = Arc::new(Field::new("item", DataType::UInt8, true));
//! let images: ArrayRef = Arc::new(FixedSizeListArray::try_new(item, 64, Arc::new(pixels), None)?);
//! let field = Field::new("image", images.data_type().clone(), true);
//! let shape = ImageShape::new(8, 8, 1);
//! let column = ImageColumn::try_new(&field, &images, Some(shape))?;
//!
//! let options = TrainOptions { epochs: 2, network: NetworkChoice::Widths(vec![4, 8]), ..TrainOptions::default() };
//! let mut dataset = DatasetBuilder::new(&options, Limits::default(), false);
//! dataset.push(&column)?;
//! let mut trainer = Trainer::try_new(options, dataset.finish()?)?;
//! for epoch in trainer.epochs() {
//!     assert!(epoch?.loss.is_finite());
//! }
//!
//! let wae = Wae::try_new(&trainer.model()?, Device::Cpu, Precision::F32)?;
//! let images = column.read_pixels(&[0, 1, 2], shape, None, &Limits::default())?; // (3, 8, 8, 1), bytes as they were
//! let codes = wae.encode(&images)?; // (3, 8)
//! let costs = wae.costs(&images, &wae.decode(&codes)?)?; // (3,)
//! assert_eq!((codes.len(), costs.len()), (24, 3));
//! # Ok(())
//! # }
//! ```

mod architecture;
pub mod backbone;
pub mod calibrate;
pub mod checkpoint;
pub mod config;
pub mod dataset;
pub mod device;
pub mod error;
pub mod image;
mod kernels;
pub mod localization;
pub mod model;
pub mod objective;
mod ops;
mod shape;
pub mod train;
pub mod whitening;

pub use crate::calibrate::Calibration;
pub use crate::checkpoint::{Checkpoint, EpochReport, ModelFile, TrainingInfo};
pub use crate::config::{Config, TrainOptions};
pub use crate::dataset::{Dataset, DatasetBuilder, Resources, SpillFile};
pub use crate::device::{Device, Precision};
pub use crate::error::{Error, Result};
pub use crate::image::{Image, ImageColumn, ImageShape};
pub use crate::kernels::{Backend, backend};
pub use crate::model::Wae;
pub use crate::train::{Epochs, Trainer};
pub use crate::whitening::Whitening;

/// The kernels on the processor, for the benchmarks of this repository alone: it may change at any time.
#[doc(hidden)]
pub mod bench {
    pub use crate::kernels::{
        AdamStep, DownWeights, Epilogue, Geometry, UpWeights, adam, norm_relu, norm_relu_gradient, weight_gradient,
    };
}
