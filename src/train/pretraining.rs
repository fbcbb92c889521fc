//! Pre-training of the encoder: the authors' way to begin with codes where the prior lives.

use std::sync::atomic::{AtomicBool, Ordering};

use rand::seq::SliceRandom;

use super::Trainer;
use super::codes::Codes;
use super::random::{Purpose, generator};
use crate::config::Prior;
use crate::error::{Error, Result};
use crate::image::ImageShape;
use crate::model::CodeMap;
use crate::objective::{moments, prior};

/// Steps of pre-training at most, and the loss at which it ends (authors' `wae.py`, `pretrain_encoder`).
const PRETRAINING: (usize, f64) = (200, 0.1);
/// Images of a step of pre-training: values as of 1,000 of 28×28 to 256 of 64×64×3, as the authors take; more of smaller ones.
pub(super) fn pretraining_images(image: ImageShape) -> usize {
    let len = image.len().max(1);
    (1000 * len).clamp(784_000, 3_145_728) / len
}

impl Trainer {
    /// Brings the mean and covariance of the codes near the prior's, so that training begins with codes where the prior lives.
    pub(super) fn pretrain(&mut self, cancelled: &AtomicBool) -> Result<()> {
        let (steps, enough) = PRETRAINING;
        let (dim, map) = (self.config.latent_dim(), CodeMap::of(&self.config));
        let mut generator = generator(self.options.seed, Purpose::Pretraining, 0);
        let mut rows: Vec<usize> = (0..self.dataset.training_rows()).collect();
        let sample = pretraining_images(self.config.image()).clamp(2, rows.len().max(2));
        for _ in 0..steps {
            if cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let (chosen, _) = rows.partial_shuffle(&mut generator, sample);
            let images = self.batch(chosen)?;
            let head = self.network.encode(&images)?;
            let prior = prior::sample_with(self.config.prior(), chosen.len(), dim, &mut generator);
            // Codes as in training, whose noise is part of their covariance; a deterministic encoder does not read it.
            let noise = prior::sample_with(Prior::default(), chosen.len(), dim, &mut generator);
            let codes = Codes::new(&map, head, &noise, self.network.target())?;
            let (loss, by_code) = moments::value_and_gradient(&codes.values()?, &prior, dim);
            let by_code = self.network.target().tensor(by_code, codes.tensor().dims())?;
            let gradient = codes.backward(&map, &noise, by_code, None, self.network.target())?;
            self.network.encode_backward(gradient)?;
            self.network.step(self.options.learning_rate)?;
            if loss < enough {
                break;
            }
        }
        self.network.reset_optimizer();
        Ok(())
    }
}
