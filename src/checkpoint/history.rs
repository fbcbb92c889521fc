//! The history of a training.

use serde::{Deserialize, Serialize};

/// Losses, rates and times of one trained epoch: a row of `wae_train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Cost + λ·divergence, and a Gaussian encoder's penalty, mean over the epoch's steps.
    pub loss: f64,
    /// The cost an image, mean over the epoch's steps.
    pub reconstruction_cost: f64,
    /// The divergence between a batch's codes and as many draws from the prior, mean over the epoch's steps: MMD², −log
    /// D, KL, the sliced or the Sinkhorn distance; `None` for `ae`.
    pub divergence: Option<f64>,
    /// The cost a held-out image after the epoch, in eval mode; `None` without held-out rows.
    pub holdout_reconstruction_cost: Option<f64>,
    /// The same between the codes of up to 1,000 held-out images (250 for `sinkhorn`) and as many draws with a fixed
    /// seed.
    pub holdout_divergence: Option<f64>,
    /// The learning rate of the epoch.
    pub learning_rate: f64,
    /// Images trained on in the epoch.
    pub images: u64,
    /// Rows of the source that held no readable image.
    pub skipped: u64,
    /// Images trained on a second, evaluation left out.
    pub images_per_second: f64,
    /// Seconds since training began.
    pub seconds: f64,
}
