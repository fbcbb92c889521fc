//! Training.
use crate::{
    checkpoint::ModelFile,
    config::{Config, TrainOptions},
    dataset::Dataset,
    error::Result,
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicBool;

/// What an epoch came to. NaN-free; the columns of `wae_train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// From 1.
    pub epoch: usize,
    /// cost + λ·divergence, mean over the epoch's batches.
    pub loss: f64,
    /// mean over the training images
    pub reconstruction_cost: f64,
    /// MMD², mean over batches
    pub divergence: Option<f64>,
    /// eval mode, None without held-out rows
    pub holdout_reconstruction_cost: Option<f64>,
    /// fixed seed
    pub holdout_divergence: Option<f64>,
    /// of this epoch
    pub learning_rate: f64,
    /// images trained on in this epoch
    pub images: u64,
    /// NULL or unreadable rows of the source
    pub skipped: u64,
    /// throughput
    pub images_per_second: f64,
    /// since training began
    pub seconds: f64,
}

/// A training, an epoch at a time.
#[derive(Debug)]
pub struct Trainer {}
impl Trainer {
    /// Checks options against the data and initialises the network.
    pub fn try_new(options: TrainOptions, dataset: Dataset) -> Result<Self> {
        let _ = (options, dataset);
        unimplemented!()
    }
    /// The configuration of the model in training.
    pub fn config(&self) -> &Config {
        unimplemented!()
    }
    /// Trains an epoch; None when all are done. Error::Cancelled within a batch once `cancelled` is set.
    pub fn next_epoch(&mut self, cancelled: &AtomicBool) -> Result<Option<EpochReport>> {
        let _ = cancelled;
        unimplemented!()
    }
    /// The model as it stands, calibrated on the held-out rows.
    pub fn model(&self) -> Result<ModelFile> {
        unimplemented!()
    }
}
