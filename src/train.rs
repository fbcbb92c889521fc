//! Training: the whole loop, an epoch at a time. It prints nothing and writes no file.

mod evaluation;
mod memory;
mod pretraining;
mod progress;
mod random;
mod resume;
mod step;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rand::seq::SliceRandom;

use crate::checkpoint::EpochReport;
use crate::config::{Config, LambdaSchedule, TrainOptions};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::image::{PixelSlice, Pixels};
use crate::architecture::largest_activation;
use crate::model::Network;
use crate::ops::{Target, Tensor};
use crate::train::progress::Progress;
use crate::train::random::{Purpose, generator};
use crate::train::step::{Generators, Rates, Step};

/// A training, an epoch at a time.
///
/// The same options, data, thread count and kernels give the same tensors on the processor, bit for bit.
#[derive(Debug)]
pub struct Trainer {
    options: TrainOptions,
    config: Config,
    dataset: Dataset,
    network: TrainingNetwork,
    step: Step,
    /// λ now.
    lambda: f64,
    history: Vec<EpochReport>,
    started: Instant,
    /// Seconds of training before the checkpoint that it goes on from.
    seconds_before: f64,
    /// Whether an epoch was begun and not ended, as after an error: there is no going on from there.
    within_epoch: bool,
}

impl Trainer {
    /// Fits the options to the images and initialises the network.
    ///
    /// # Errors
    /// [`Error::Config`] if the options are out of range, do not fit the images, or are others than those that the images were
    /// collected under; or if they name a model to begin from, which [`Self::from_model`] takes; [`Error::Device`] if the device
    /// cannot be opened.
    pub fn try_new(options: TrainOptions, dataset: Dataset) -> Result<Self> {
        match &options.init {
            Some(name) => {
                Err(Error::Config(format!("option 'init' is '{name}', expected that model beside the options")))
            }
            None => Self::unstarted(options, dataset),
        }
    }

    /// A training with initial weights.
    fn unstarted(mut options: TrainOptions, dataset: Dataset) -> Result<Self> {
        options.validate()?;
        let device = options.device.unwrap_or_default().resolved();
        let target = Target::open(device, options.precision.unwrap_or_default())?;
        (options.device, options.precision) = (Some(device), Some(target.precision()));
        Self::on_target(options, dataset, target)
    }

    /// A training with initial weights, where the device of the options is open.
    fn on_target(options: TrainOptions, dataset: Dataset, target: Target) -> Result<Self> {
        if !dataset.was_made_with(&options) {
            return Err(Error::Config(
                "the images were collected under another seed, holdout, size or crop".to_owned(),
            ));
        }
        let config = options.config_of_preprocessed(dataset.shape())?;
        target.check_rows(options.batch_size.min(dataset.training_rows()), largest_activation(&config))?;
        let mut weights = generator(options.seed, Purpose::Weights, 0);
        let network = TrainingNetwork::initialise(&config, &target, options.initialisation, &mut weights)?;
        let step = Step::new(config.clone(), options.noise, options.log_variance_penalty);
        Ok(Self {
            lambda: config.objective().lambda(),
            options,
            config,
            dataset,
            network,
            step,
            history: Vec::new(),
            started: Instant::now(),
            seconds_before: 0.0,
            within_epoch: false,
        })
    }

    /// The configuration of the model in training.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A report for each epoch that is done.
    pub fn history(&self) -> &[EpochReport] {
        &self.history
    }

    /// Trains an epoch; `None` when all are done.
    ///
    /// An epoch has ⌊rows / batch⌋ steps, as in the authors' code, on rows shuffled anew: those that fill no whole batch are left
    /// out of it.
    ///
    /// # Errors
    /// [`Error::Cancelled`] within a batch once `cancelled` is set; [`Error::Training`] if the loss is not finite.
    pub fn next_epoch(&mut self, cancelled: &AtomicBool) -> Result<Option<EpochReport>> {
        let epoch = self.history.len() + 1;
        if epoch > self.options.epochs {
            return Ok(None);
        }
        self.within_epoch = true;
        if epoch == 1 && self.options.pretrain {
            self.pretrain(cancelled)?;
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
            if cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let images = self.batch(rows)?;
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
        let (holdout_cost, holdout_divergence) = self.evaluate(cancelled)?;
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
        Ok(Some(report))
    }

    /// Training rows as a batch where the network lies, (N, H, W, C). Bytes go to a GPU as bytes.
    fn batch(&self, rows: &[usize]) -> Result<Tensor> {
        let target = self.network.target();
        let image = self.dataset.shape();
        let shape = [rows.len(), image.height(), image.width(), image.channels()];
        if target.device().is_cpu() {
            return target.tensor(self.dataset.training(rows)?, &shape);
        }
        match self.dataset.training_pixels(rows)? {
            Pixels::U8(bytes) => target.pixels(PixelSlice::U8(&bytes), &shape),
            Pixels::F32(values) => target.tensor(values, &shape),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
