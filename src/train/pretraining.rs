//! Pre-training of the encoder, as the authors do it, so that training begins with codes near the prior.

use candle_core::Var;
use rand::seq::SliceRandom;

use super::Trainer;
use super::random::{Purpose, generator};
use super::step::number;
use crate::architecture::largest_activation;
use crate::config::Prior;
use crate::error::{Error, Result};
use crate::image::ImageShape;
use crate::model::CodeMap;
use crate::objective::{moments, prior};
use crate::ops::MOST_VALUES;

/// The most steps of pre-training, and the loss at which it ends (authors' `wae.py`, `pretrain_encoder`).
const PRETRAINING: (usize, f64) = (200, 0.1);
/// Images of a step of pre-training: from the values of 1,000 of 28×28 to those of 256 of 64×64×3, which the authors
/// take.
pub(super) fn pretraining_images(image: ImageShape) -> usize {
    let len = image.len().max(1);
    (1000 * len).clamp(784_000, 3_145_728) / len
}

impl Trainer {
    /// Brings the mean and covariance of the codes near the prior's.
    pub(super) fn pretrain(&mut self) -> Result<()> {
        let (steps, enough) = PRETRAINING;
        let dim = self.config.latent_dim();
        let map = CodeMap::of(&self.config);
        let mut generator = generator(self.options.seed, Purpose::Pretraining, 0);
        let mut rows: Vec<usize> = (0..self.dataset.training_rows()).collect();
        let mut sample = pretraining_images(self.config.image());
        if !self.network.target().device().is_cpu() {
            sample = sample.min(MOST_VALUES / largest_activation(&self.config).max(1));
        }
        let sample = sample.clamp(2, rows.len().max(2));
        for _ in 0..steps {
            self.check_cancelled()?;
            let (chosen, _) = rows.partial_shuffle(&mut generator, sample);
            let images = self.batch(chosen)?;
            let head = Var::from_tensor(&self.network.encode(&images)?)?;
            let rows = chosen.len();
            let target = self.network.target();
            let mut sample = |prior| target.tensor(prior::sample_with(prior, rows, dim, &mut generator), &[rows, dim]);
            let prior = sample(self.config.prior())?;
            // Codes as in training, whose noise is part of their covariance; a deterministic encoder does not read it.
            let noise = sample(Prior::default())?;
            let codes = map.codes(&head, Some(&noise))?;
            let loss = moments::distance(&codes.codes, &prior)?;
            let gradients = loss.backward()?;
            let by_head =
                gradients.get(&head).ok_or_else(|| Error::Training("the codes gave no gradient".to_owned()))?;
            self.network.encode_backward(by_head.contiguous()?)?;
            self.network.step(self.options.learning_rate)?;
            if number(&loss)? < enough {
                break;
            }
        }
        self.network.reset_optimizer()
    }
}
