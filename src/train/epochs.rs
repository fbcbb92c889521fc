//! The loop: an epoch of steps, and the held-out rows after it.

use std::iter::FusedIterator;
use std::time::Instant;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Trainer;
use super::augment::augment;
use super::progress::Progress;
use super::random::{Purpose, generator};
use super::step::{Generators, Rates};
use crate::checkpoint::EpochReport;
use crate::config::LambdaSchedule;
use crate::error::Result;
use crate::image::{PixelSlice, Pixels};
use crate::ops::Tensor;

/// The epochs of a training that are left ([`Trainer::epochs`]).
#[derive(Debug)]
#[must_use = "an epoch is trained when it is asked for"]
pub struct Epochs<'a>(pub(super) &'a mut Trainer);

impl Iterator for Epochs<'_> {
    type Item = Result<EpochReport>;

    fn next(&mut self) -> Option<Self::Item> {
        let has_failed = self.0.within_epoch;
        let is_done = self.0.history.len() >= self.0.options.epochs;
        if has_failed || is_done { None } else { Some(self.0.train_epoch()) }
    }
}

impl FusedIterator for Epochs<'_> {}

impl Trainer {
    /// Trains an epoch and evaluates the held-out rows.
    fn train_epoch(&mut self) -> Result<EpochReport> {
        let epoch = self.history.len() + 1;
        self.within_epoch = true;
        if epoch == 1 && self.options.pretrain {
            self.pretrain()?;
        }
        let losses: Vec<f64> = self.history.iter().map(|report| report.loss).collect();
        let factor = self.options.schedule.factor(&losses, self.options.epochs);
        let rate = self.options.learning_rate * factor;
        let rates = Rates { network: rate, adversary: self.options.adversary_rate() * factor };
        let mut generators = Generators::new(self.options.seed, epoch);
        let mut rows: Vec<usize> = (0..self.dataset.training_rows()).collect();
        rows.shuffle(&mut generator(self.options.seed, Purpose::Shuffle, epoch));
        let begun = Instant::now();
        let mut progress = Progress::new(epoch, rate);
        let batch = self.options.batch_size.min(rows.len());
        // An adaptive λ needs a step's losses before the next step.
        let read_together = match self.options.lambda_schedule {
            LambdaSchedule::Constant => self.network.target().steps_read_together(),
            LambdaSchedule::Adaptive => 1,
        };
        for rows in rows.chunks_exact(batch) {
            self.check_cancelled()?;
            let images = self.augmented_batch(rows, &mut generators.augmentation)?;
            let draws = self.step.draw(rows.len(), &mut generators, self.network.target())?;
            let losses = self.step.run(&mut self.network, &images, &draws, self.lambda, rates)?;
            progress.push(losses, rows.len());
            if progress.pending() >= read_together {
                self.read(&mut progress)?;
            }
        }
        self.read(&mut progress)?;
        self.network.target().synchronize()?;
        let means = progress.means;
        let seconds = begun.elapsed().as_secs_f64();
        let (holdout_cost, holdout_divergence) = self.evaluate()?;
        let report = EpochReport {
            epoch,
            loss: means.loss,
            reconstruction_cost: means.cost,
            divergence: means.divergence,
            holdout_reconstruction_cost: holdout_cost,
            holdout_divergence,
            learning_rate: rate,
            images: means.images,
            skipped: self.dataset.skipped(),
            images_per_second: means.images as f64 / seconds.max(1e-9),
            seconds: self.seconds(),
        };
        self.history.push(report.clone());
        self.within_epoch = false;
        Ok(report)
    }

    /// Training rows as a batch of a step: as [`Self::batch`], with the changes of the option `augment`.
    pub(super) fn augmented_batch(&self, rows: &[usize], generator: &mut ChaCha8Rng) -> Result<Tensor> {
        if self.options.augment.is_empty() {
            return self.batch(rows);
        }
        let mut values = self.dataset.training(rows)?;
        augment(&mut values, self.dataset.shape(), &self.options.augment, generator);
        self.network.target().tensor(values, &self.batch_shape(rows))
    }

    /// N, H, W, C.
    fn batch_shape(&self, rows: &[usize]) -> [usize; 4] {
        let image = self.dataset.shape();
        [rows.len(), image.height(), image.width(), image.channels()]
    }

    /// Training rows as a batch where the network lies, (N, H, W, C). Bytes go to a GPU as bytes.
    pub(super) fn batch(&self, rows: &[usize]) -> Result<Tensor> {
        let target = self.network.target();
        let shape = self.batch_shape(rows);
        if target.device().is_cpu() {
            return target.tensor(self.dataset.training(rows)?, &shape);
        }
        match self.dataset.training_pixels(rows)? {
            Pixels::U8(bytes) => target.pixels(PixelSlice::U8(&bytes), &shape),
            Pixels::F32(values) => target.tensor(values, &shape),
        }
    }
}
